"""Ids of requests, and the traces that they are part of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.correlation import Correlation, new_request_id, read_correlation

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01".encode()


def read(*headers: tuple[bytes, bytes]) -> Correlation:
    return read_correlation(headers)


def test_what_is_sound_is_taken_over() -> None:
    assert read((b"x-request-id", b"a-1"), (b"traceparent", PARENT)) == Correlation(b"a-1", TRACE)
    assert read((b"host", b"a")) == Correlation(None, None)


def test_of_several_ids_the_first_sound_one_counts() -> None:
    assert read((b"x-request-id", b"a b"), (b"x-request-id", b"c"), (b"x-request-id", b"d")).request_id == b"c"


@given(st.binary(max_size=140))
def test_an_id_can_go_into_any_header_and_log(sent: bytes) -> None:
    taken = read((b"x-request-id", sent)).request_id
    if taken is not None:
        assert taken == sent
        assert 1 <= len(taken) <= 128
        assert taken.decode("ascii").isprintable()
        assert not set(taken) & set(b" \t\r\n\"'`\\<>{}$;,%")


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + b"0",
        PARENT + b"-more",
        b"ff" + PARENT[2:],
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"00-" + TRACE.encode() + b"-0000000000000000-01",
        b"0-" + PARENT[3:],
    ],
)
def test_a_parent_that_is_not_sound_counts_as_none(parent: bytes) -> None:
    assert read((b"traceparent", parent)).trace_id is None


@pytest.mark.parametrize("parent", [PARENT, b" " + PARENT, b"01" + PARENT[2:], b"cc" + PARENT[2:] + b"-what-comes"])
def test_a_parent_of_a_later_version_is_joined_as_well(parent: bytes) -> None:
    assert read((b"traceparent", parent)).trace_id == TRACE


def test_of_two_parents_neither_counts() -> None:
    assert read((b"traceparent", PARENT), (b"traceparent", PARENT)).trace_id is None


def test_new_ids_are_all_different() -> None:
    ids = {new_request_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in ids)

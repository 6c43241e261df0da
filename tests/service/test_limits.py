"""Rates, and buckets that workers share."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import limits
from service.limits import Limiter, Rate, address_number, client_number


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    """The time of the limiters, which stands still until it is moved."""
    clock = Clock()
    monkeypatch.setattr(limits, "monotonic", clock)
    return clock


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "requests", "seconds"),
    [
        ("100/second", 100, 1),
        ("5000/hour", 5000, 3600),
        ("1/10 seconds", 1, 10),
        (" 30 per 2 minutes ", 30, 120),
        ("1 per day", 1, 86_400),
        ("7/Minutes", 7, 60),
    ],
)
def test_a_rate_is_read(text: str, requests: int, seconds: int) -> None:
    assert Rate.parse(text) == Rate(requests, seconds)


@pytest.mark.parametrize(
    "text",
    ["", "100", "100/", "/second", "0/second", "1/0 seconds", "-1/second", "1.5/second", "1/fortnight", "1second"],
)
def test_what_is_no_rate_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="such as 100/second"):
        Rate.parse(text)


def test_as_many_requests_as_the_rate_names_may_come_at_once_and_the_next_must_wait(clock: Clock) -> None:
    limiter, rate = Limiter(None), Rate(5, 10)
    assert [limiter.wait(1, rate) for _ in range(5)] == [0.0] * 5
    assert limiter.wait(1, rate) == pytest.approx(2.0)


def test_who_waits_as_long_as_told_is_let_pass_once(clock: Clock) -> None:
    limiter, rate = Limiter(None), Rate(3, 60)
    while not (wait := limiter.wait(1, rate)):
        pass
    clock.now += wait
    assert limiter.wait(1, rate) == 0.0
    assert limiter.wait(1, rate) == pytest.approx(20.0)


def test_who_comes_a_little_too_early_does_not_find_a_full_bucket(clock: Clock) -> None:
    limiter, rate = Limiter(None), Rate(10, 86_400)
    while not (wait := limiter.wait(1, rate)):
        pass
    clock.now += wait - 0.004  # within what is taken for rounding
    assert limiter.wait(1, rate) == 0.0
    assert limiter.wait(1, rate) == pytest.approx(8640, abs=0.01)


def test_a_request_that_is_refused_is_not_counted(clock: Clock) -> None:
    limiter, rate = Limiter(None), Rate(1, 10)
    waits = [limiter.wait(1, rate) for _ in range(100)]
    assert waits[0] == 0.0
    assert waits[1:] == [pytest.approx(10.0)] * 99


@given(
    steps=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    requests=st.integers(1, 10),
    seconds=st.integers(1, 5),
)
def test_in_no_stretch_of_time_more_pass_than_a_full_bucket_and_what_flows_in(
    steps: list[float], requests: int, seconds: int
) -> None:
    limiter, rate, clock = Limiter(None), Rate(requests, seconds), Clock()
    passed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "monotonic", clock)
        for step in steps:
            clock.now += step
            if limiter.wait(1, rate) == 0.0:
                passed.append(clock.now)
    limiter.close()
    for first, begin in enumerate(passed):
        for last, end in enumerate(passed[first:], start=first):
            assert last - first + 1 <= requests + (end - begin) * requests / seconds + 1e-3


def test_clients_have_buckets_of_their_own(clock: Clock) -> None:
    limiter, rate = Limiter(None), Rate(1, 60)
    clients = [client_number(f"key {number}") for number in range(2000)]
    assert all(limiter.wait(client, rate) == 0.0 for client in clients)
    assert sum(limiter.wait(client, rate) > 0 for client in clients) == len(clients)


def test_where_more_clients_are_busy_than_there_is_room_for_those_nearest_to_a_full_bucket_make_room(
    clock: Clock,
) -> None:
    limiter = Limiter(None)
    same_set = [number << 16 for number in range(1, 10)]
    for number in same_set[:8]:
        assert limiter.wait(number, Rate(1, 60)) == 0.0
        clock.now += 1
    assert limiter.wait(same_set[8], Rate(1, 60)) == 0.0
    assert limiter.wait(same_set[7], Rate(1, 60)) > 0
    assert limiter.wait(same_set[0], Rate(1, 60)) == 0.0


def test_workers_that_share_a_folder_count_together(tmp_path: Path, clock: Clock) -> None:
    workers, rate = [Limiter(tmp_path / "shared") for _ in range(3)], Rate(30, 60)
    passed = sum(workers[turn % 3].wait(1, rate) == 0.0 for turn in range(100))
    assert passed == 30


@pytest.mark.parametrize(("before", "after"), [(Rate(1, 86_400), Rate(10, 1)), (Rate(1, 1), Rate(10, 86_400))])
def test_another_rate_counts_from_the_next_request_on(clock: Clock, before: Rate, after: Rate) -> None:
    limiter = Limiter(None)
    limiter.wait(1, before)
    clock.now += 0.5
    assert limiter.wait(1, after) == 0.0


def test_a_table_from_before_the_machine_was_started_anew_holds_nobody_up(tmp_path: Path, clock: Clock) -> None:
    Limiter(tmp_path).wait(1, Rate(1, 60))
    clock.now = 5.0
    assert Limiter(tmp_path).wait(1, Rate(1, 60)) == 0.0


def test_the_clock_is_one_that_all_processes_share() -> None:
    assert time.get_clock_info("monotonic").monotonic


def test_one_network_of_ipv6_is_one_client_and_an_address_of_ipv4_is_one() -> None:
    assert address_number("2001:db8::1") == address_number("2001:db8::ffff:2")
    assert address_number("2001:db8::1") != address_number("2001:db8:0:1::1")
    assert address_number("10.0.0.1") != address_number("10.0.0.2")
    assert address_number("::ffff:10.0.0.1") == address_number("10.0.0.1")
    assert address_number("") == address_number("")

"""Whose the work under way is, and who is to be refused first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.shares import Shares

ALONE = 1.25


@given(steps=st.lists(st.integers(1, 1 << 24)), more=st.integers(1, 1 << 24))
def test_nothing_changes_for_a_client_that_is_alone(steps: list[int], more: int) -> None:
    shares = Shares()
    for each in steps:
        shares.add(7, each)
    assert shares.caution(7, more) == ALONE


@given(clients=st.integers(2, 50), steps=st.integers(1, 1 << 24))
def test_nor_for_clients_that_have_as_much_as_each_other(clients: int, steps: int) -> None:
    shares = Shares()
    for client in range(clients - 1):
        shares.add(client, steps)
    assert shares.caution(clients, steps) == pytest.approx(ALONE)


def test_who_has_less_than_its_share_is_believed_to_wait_as_long_as_predicted_and_who_has_more_twice_as_long() -> None:
    shares = Shares()
    for client, steps in ((1, 1000), (2, 10)):
        shares.add(client, steps)
    assert shares.caution(2, 10) == shares.caution(3, 10) == 1.0
    assert ALONE < shares.caution(1, 10) <= 2.0
    shares.add(4, 10)
    assert shares.caution(1, 10) == 2.0


@given(work=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 100)), min_size=1), data=st.data())
def test_what_is_answered_counts_no_more_in_whatever_order(work: list[tuple[int, int]], data: st.DataObject) -> None:
    shares, fresh = Shares(), Shares()
    for one in work:
        shares.add(*one)
    answered = data.draw(st.permutations(work))
    kept = data.draw(st.integers(0, len(work)))
    for one in answered[kept:]:
        shares.remove(*one)
    for one in answered[:kept]:
        fresh.add(*one)
    assert [shares.caution(client, 5) for client in range(5)] == [fresh.caution(client, 5) for client in range(5)]

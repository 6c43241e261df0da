"""What a model has yet to run, and how long that takes: never refuse for a bad guess, never believe one for long."""

import pytest

from service.backlog import Backlog, Drag, Work
from service.pace import Pace

DAY_AHEAD = Work(rows=1, prefill=30, decode=23)
BULK = Work(rows=10_000, prefill=300_000, decode=230_000)


def paced(**seconds: float) -> Pace:
    """A pace that has seen runs of so many steps, named as `s30`."""
    pace = Pace()
    for steps, taken in seconds.items():
        pace.learn(int(steps[1:]), taken)
    return pace


def backlog(pace: Pace) -> Backlog:
    return Backlog(pace, most_prefilled=1920, most_rows=1024)


def test_where_nothing_was_learned_nothing_is_expected_to_take_any_time() -> None:
    behind = backlog(Pace())
    behind.add(BULK)
    assert behind.seconds_with(DAY_AHEAD) == 0


def test_a_queue_is_expected_to_run_in_large_runs_though_only_single_ones_were_seen() -> None:
    behind = backlog(paced(s30=80e-6, s1=36e-6))
    for _ in range(1000):
        behind.add(DAY_AHEAD)
    alone = 80e-6 + 23 * 36e-6
    assert behind.seconds_with(DAY_AHEAD) < 1000 * alone / 20


def test_once_a_large_run_was_seen_it_is_believed() -> None:
    behind = backlog(paced(s30=80e-6, s1=36e-6, s1920=1.1e-3, s1000=0.7e-3))
    for _ in range(1000):
        behind.add(DAY_AHEAD)
    # at the least a prefill of all, and then 23 runs of all
    assert 1 < behind.seconds_with(DAY_AHEAD) / (30 * 1000 / 1920 * 1.1e-3 + 23 * 0.7e-3) < 4


def test_a_first_large_run_that_was_held_up_is_not_taken_for_the_rule() -> None:
    behind = backlog(paced(s30=80e-6, s1=36e-6, s1920=5.0))
    for _ in range(64):
        behind.add(Work(rows=1, prefill=30, decode=0))
    assert behind.seconds_with(Work(rows=1, prefill=30, decode=0)) < 0.02


def test_a_few_windows_behind_ten_thousand_wait_for_turns_and_not_for_all() -> None:
    pace = paced(s1920=1.1e-3, s1000=0.7e-3)
    behind = backlog(pace)
    behind.add(BULK)
    everything = behind.seconds()
    assert everything > 0.25
    assert behind.seconds_with(Work(rows=1, prefill=30, decode=0)) < everything / 10
    assert behind.seconds_with(Work(rows=128, prefill=3840, decode=0)) < everything / 5
    assert behind.seconds_with(BULK) > 1.9 * everything


def test_requests_of_many_windows_wait_for_all_that_is_there_where_all_are_alike() -> None:
    behind = backlog(paced(s1920=1.1e-3, s1000=0.7e-3))
    for _ in range(10):
        behind.add(BULK)
    assert 1 < behind.seconds_with(BULK) / behind.seconds() < 1.6


def test_work_that_takes_longer_than_its_runs_is_expected_to() -> None:
    drag = Drag()
    for _ in range(100):
        drag.learn(0.001, 0.003)
    assert drag.factor == pytest.approx(3)


def test_a_single_turn_that_was_held_up_changes_little_and_many_are_believed_soon() -> None:
    drag = Drag()
    for _ in range(100):
        drag.learn(0.001, 0.001)
    drag.learn(0.001, 10.0)
    assert drag.factor < 1.2
    for _ in range(30):
        drag.learn(0.001, 0.003)
    assert drag.factor > 2
    for _ in range(100):
        drag.learn(0.001, 0.001)
    assert drag.factor < 1.1


def test_what_is_expected_to_take_no_time_teaches_nothing() -> None:
    drag = Drag()
    drag.learn(0.0, 1.0)
    assert drag.factor == 1

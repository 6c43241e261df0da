"""What a run tells of itself: where there is no terminal, each epoch and how long the rest may take."""

import io

import pytest
from rich.console import Console

from training import progress
from training.progress import Bars, Pace, in_words


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def test_an_epoch_is_told_with_how_long_the_rest_may_take(clock: list[float]) -> None:
    text = io.StringIO()
    with Bars(Console(file=text, width=200)) as bars:
        for number in (3, 4, 5):  # a run that goes on from its second epoch
            bars.batch(1, 2)
            clock[0] += 60
            bars.epoch(number, 5, 0.5, 0.25)

    assert text.getvalue().splitlines() == [
        "epoch 3 of at most 5: loss 0.5000, validation 0.2500; at most 2 min left",
        "epoch 4 of at most 5: loss 0.5000, validation 0.2500; at most 60 s left",
        "epoch 5 of at most 5: loss 0.5000, validation 0.2500",
    ]


def test_of_several_networks_it_is_told_how_long_all_of_them_may_take(clock: list[float]) -> None:
    text = io.StringIO()
    with Bars(Console(file=text, width=200)) as bars:
        one, other = bars.member(1, 3), bars.member(2, 3)
        for number in (2, 3):  # they go on from their first epoch
            clock[0] += 60
            one.epoch(number, 3, 0.5, 0.25)
            other.epoch(number, 3, 0.5, 0.25)
        one.done()
        other.done()
        last = bars.member(3, 3)
        clock[0] += 30
        last.epoch(1, 3, 0.5, 0.25)  # the best that it can, and patience is spent

    left = [line.partition("0.2500")[2] for line in text.getvalue().splitlines()]
    assert left == [
        "; at most 5 min left",  # one minute for one epoch, and five are left
        "; at most 2 min left",  # half a minute for each, of five
        "; at most 3 min left",  # forty seconds for each, of four
        "; at most 90 s left",
        "; at most 60 s left",
    ]


def test_a_long_search_is_told_of_and_what_is_indented_is_part_of_it(clock: list[float]) -> None:
    text = io.StringIO()
    with Bars(Console(file=text, width=200)) as bars:
        for done in range(4):
            bars.stage("trials", done, 10)
            for epoch in range(1, 4):
                clock[0] += 20
                bars.stage("  epochs", epoch, 3)

    assert text.getvalue().splitlines() == [
        "trials: 1 of 10, about 9 min left",
        "trials: 2 of 10, about 8 min left",
        "trials: 3 of 10, about 7 min left",
    ]


def test_a_long_backtest_is_told_of_now_and_then(clock: list[float]) -> None:
    text = io.StringIO()
    with Bars(Console(file=text, width=200)) as bars:
        for done in range(1, 1001):
            bars.backtest(done, 1000)
            clock[0] += 0.03125

    assert text.getvalue().splitlines() == [
        "backtest: 322 of 1,000 series, about 21 s left",
        "backtest: 643 of 1,000 series, about 11 s left",
        "backtest: 964 of 1,000 series, about 1 s left",
    ]


def test_a_short_backtest_is_not_told_of(clock: list[float]) -> None:
    text = io.StringIO()
    with Bars(Console(file=text)) as bars:
        for done in range(1, 11):
            bars.backtest(done, 10)

    assert text.getvalue() == ""


def test_nothing_is_estimated_before_anything_is_done(clock: list[float]) -> None:
    pace = Pace()
    assert pace.left(0, 10) == ""
    clock[0] = 30
    assert pace.left(3, 10) == "70 s"
    assert pace.left(10, 10) == ""


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (40, "40 s"), (700, "12 min"), (10_000, "3 h")])
def test_a_time_is_told_roughly(seconds: float, words: str) -> None:
    assert in_words(seconds) == words

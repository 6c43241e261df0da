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

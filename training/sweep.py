"""The learning-rate sweep: the rate rises exponentially by epoch, and the losses tell which one to fit with.

It is the range test of Smith (2017), "Cyclical Learning Rates for Training Neural Networks", with the course's rate of
1e-8 · 10^(epoch / 20). Every epoch goes over the same few batches, so that the losses differ by what was learnt alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import keras
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from training.config import Config, Fitting
from training.errors import ConfigError, OutputError
from training.fit import losses_by_rate, unfitted
from training.panel import Panel
from training.parts import Split
from training.plots import COLOURS, QUIET, STYLE, TRUTH
from training.windows import Windows

Numbers = npt.NDArray[np.float64]

PLOT_NAME: Final = "sweep.png"
LOSSES_NAME: Final = "sweep.csv"

_RATE_NAME: Final = ".learning-rate"
_USUAL: Final = float(Fitting.model_fields["learning_rate"].default)
_REACH: Final = 2  # epochs on either side that a loss is averaged with before anything is read from it
_FEWEST: Final = 10  # epochs of a sweep
_RISEN: Final = 1 / 3  # of its fall: a loss that is further above the lowest is not low
_DIVERGED: Final = 4.0  # times the least loss
_LEAST_FALL: Final = 0.01  # of the first loss: less is not learning
_DIGITS: Final = 2  # of a suggested rate


class Told(Protocol):
    """Who is told of a sweep's progress."""

    def say(self, line: str) -> None: ...

    def stage(self, name: str, done: int, total: int, told: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class Range:
    """The rates of a sweep: from the lowest in equal ratios, the highest being that after the last epoch.

    Where the losses have not turned by then it goes on at the same pace, at most to `beyond`. `steps` counts the
    batches of an epoch.
    """

    lowest: float = 1e-8
    highest: float = 1e-3
    epochs: int = 100
    steps: int = 5
    beyond: float = 10.0

    @property
    def limit(self) -> int:
        """The most epochs that the sweep may take."""
        return self.epochs + max(0, round(self.epochs * math.log(self.beyond / self.highest) / self._width))

    @property
    def _width(self) -> float:
        return math.log(self.highest / self.lowest)

    def rates(self) -> list[float]:
        """The rate of each epoch."""
        return [self.lowest * math.exp(self._width * epoch / self.epochs) for epoch in range(self.limit)]


SHORT: Final = Range(lowest=1e-6, highest=1e-2, epochs=40, steps=3)
"""Of the sweep before a fit."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """The losses that a sweep met, and what they suggest.

    `rates` and `losses` are (epochs,); the last loss may be infinite or no number. `suggested` is None where the loss
    fell at no rate; `told` says in a sentence how the rate was found, or why not.
    """

    rates: Numbers
    losses: Numbers
    suggested: float | None
    told: str


def check(given: Range) -> None:
    """Refuse a range that cannot be swept.

    Raises:
        ConfigError: naming the option.
    """
    if not 0 < given.lowest < math.inf:
        raise ConfigError("--lowest: a rate above 0, such as 1e-8")
    if not given.lowest < given.highest < math.inf:
        raise ConfigError("--highest: a rate above --lowest, such as 1e-3")
    if given.epochs < _FEWEST:
        raise ConfigError(f"--epochs: at least {_FEWEST}, one for each rate")
    if given.steps < 1:
        raise ConfigError("--steps: at least 1 batch for each rate")


def sweep(
    panel: Panel,
    split: Split,
    config: Config,
    given: Range,
    progress: Callable[[int, int, str], None] = lambda done, total, told: None,
) -> Sweep:
    """Fit a network from the seed's weights, at a higher rate each epoch, until the losses have turned.

    The same seed gives the same losses. `progress` is told of each epoch, of how many at most, and how it went.
    """
    keras.utils.clear_session()
    fitting = config.fitting.model_copy(update={"steps_per_epoch": given.steps})
    windows = Windows.cut(panel, split, config.model_copy(update={"fitting": fitting}))
    network = unfitted(panel, split, config)
    rates = given.rates()
    losses: list[float] = []
    for loss in losses_by_rate(network, list(windows.epoch(0)), fitting, rates):
        losses.append(loss)
        done = len(losses)
        progress(
            done, given.epochs if done <= given.epochs else given.limit, f"rate {rates[done - 1]:.1e}, loss {loss:.4g}"
        )
        if _turned(np.array(losses), given):
            break
    keras.utils.clear_session()
    return suggest(np.array(rates[: len(losses)]), np.array(losses))


def suggest(rates: Numbers, losses: Numbers) -> Sweep:
    """Read a rate from the losses of a sweep, (epochs,) each.

    They are smoothed, up to the first that is no number. Around the lowest lies a valley, in which the loss keeps two
    thirds of its fall; its middle on the logarithmic axis is suggested. Smith has the best rates begin where the loss
    has fallen and end where it is ragged or rises. The middle depends less than the lowest point, or the steepest, on
    how long the sweep was.
    """
    valley = _valley(losses)
    if valley is None:
        return Sweep(rates, losses, None, "the loss fell at none of the rates")
    first, last = rates[valley.first], rates[valley.last]
    told = f"the middle of {first:.2g} to {last:.2g}, where the loss has fallen"
    if valley.last == len(losses) - 1:
        told += " and had not risen again by the end: a higher one may do better (sweep --highest)"
    return Sweep(rates, losses, float(f"{math.sqrt(first * last):.{_DIGITS}g}"), told)


def with_a_rate(panel: Panel, split: Split, config: Config, kept: Path, told: Told) -> Config:
    """The configuration with a number for a learning rate of `auto`, found by a short sweep.

    The rate stays in the folder `kept`, so that a run that goes on fits with the same one. Where the sweep suggests
    none it is the usual rate.
    """
    if config.fitting.learning_rate != "auto":
        return config
    file = kept / _RATE_NAME
    if file.exists():
        rate = float(file.read_text(encoding="utf-8"))
        told.say(f"learning rate {rate:g}: as found when the run began")
    else:
        found = sweep(panel, split, config, SHORT, partial(told.stage, "learning rates"))
        rate = found.suggested or _USUAL
        told.say(f"learning rate {rate:g}{'' if found.suggested else ', the usual one'}: {found.told}")
        kept.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        unfinished.write_text(repr(rate), encoding="utf-8")
        unfinished.replace(file)
    return config.model_copy(update={"fitting": config.fitting.model_copy(update={"learning_rate": rate})})


def forget_rate(kept: Path) -> None:
    """Have the next run with a rate of `auto` look for one anew."""
    (kept / _RATE_NAME).unlink(missing_ok=True)


def write(found: Sweep, folder: Path) -> list[Path]:
    """Write plot and losses into a folder, making it, and return their paths.

    Raises:
        OutputError: the folder cannot be written to.
    """
    drawing, table = folder / PLOT_NAME, folder / LOSSES_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plot(found).savefig(drawing, dpi=150, facecolor="white")
        pd.DataFrame({"rate": found.rates, "loss": found.losses}).to_csv(table, index=False)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from None
    return [drawing, table]


def plot(found: Sweep) -> Figure:
    """The losses by rate on a logarithmic axis, with the rate that is suggested."""
    smooth = smoothed(found.losses)
    known = len(smooth)
    rates, losses = found.rates[:known], found.losses[:known]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.plot(rates, losses, ".", color=QUIET, markersize=4, label="loss of an epoch")
        axes.plot(rates, smooth, color=COLOURS["model"], linewidth=1.8, label=f"mean of {2 * _REACH + 1} epochs")
        if found.suggested is not None:
            height = float(np.interp(math.log(found.suggested), np.log(rates), smooth))
            axes.axvline(found.suggested, color=COLOURS["naive"], linewidth=1.0, linestyle=(0, (4, 3)))
            axes.plot([found.suggested], [height], "o", color=COLOURS["naive"], label=f"suggested: {found.suggested:g}")
        if known:
            # What diverges at the end must not flatten all before it.
            low, high = float(losses.min()), max(float(smooth[0]) * 1.25, float(smooth.min()) * 1.25)
            axes.set_ylim(low - 0.08 * (high - low), high)
        axes.set(xlabel="learning rate", ylabel="loss")
        axes.legend(labelcolor=TRUTH)
    return figure


def smoothed(losses: Numbers) -> Numbers:
    """The mean of each loss and the two on either side of it, up to the first loss that is no number."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    known = losses[: wrong[0]] if len(wrong) else losses
    return np.array([known[max(0, place - _REACH) : place + _REACH + 1].mean() for place in range(len(known))])


class _Valley(NamedTuple):
    """The epochs around the one of the lowest loss in which it stays low."""

    first: int
    last: int


def _valley(losses: Numbers) -> _Valley | None:
    """Where the smoothed loss is low; None where it never fell."""
    smooth = smoothed(losses)
    if not len(smooth) or not smooth[0] - smooth.min() > _LEAST_FALL * abs(smooth[0]):
        return None
    low = smooth <= smooth.min() + _RISEN * (smooth[0] - smooth.min())
    lowest = int(np.argmin(smooth))
    before, after = np.flatnonzero(~low[:lowest]), np.flatnonzero(~low[lowest:])
    return _Valley(
        first=int(before[-1]) + 1,  # the first of all is never low
        last=lowest + int(after[0]) - 1 if len(after) else len(smooth) - 1,
    )


def _turned(losses: Numbers, given: Range) -> bool:
    """Whether a sweep has seen enough: the losses diverge, or after its range they have left their valley."""
    if not math.isfinite(losses[-1]) or losses[-1] > _DIVERGED * losses.min():
        return True
    valley = _valley(losses)
    return valley is not None and len(losses) >= given.epochs and valley.last < len(losses) - 1 - _REACH

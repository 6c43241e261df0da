"""A window's own measure, and the seasons that are found in it: what makes series of any size and rhythm alike."""

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from training.native import Recorder
    from training.operations import TensorFlow

    Operations = TensorFlow | Recorder

LONGEST_FOUND: Final = 168
"""A week of hours: the longest season looked for in a window."""

FOUND_LAGS: Final = 2
"""How many seasons are found."""

_TINY: Final = 1e-6


class Measure(NamedTuple):
    """A window's own measure, each (1, batch, features)."""

    location: Any
    spread: Any
    change: Any  # the size of its steps
    ratio: Any  # logarithm of spread / change
    scale: Any  # what errors are divided by, in training and in the error table: between spread and step size


def measured(
    ops: "Operations", values: Any, scaling: Literal["window", "season", "none"] | float, season: int
) -> Measure:
    """Level, spread and step size of each window (time, batch, features); never zero, never beyond any value's range.

    By `season`, in steps, goes the scaling of that name: its level is the last season's, and its step size the change
    from one season to the next.
    """
    if scaling not in ("window", "season"):
        zeros = ops.steps(values, None, 1) * 0.0
        size = zeros + (1.0 if scaling == "none" else float(scaling))
        return Measure(zeros, size, size, zeros, size)
    magnitude = ops.max(ops.abs(values), 0)
    magnitude = ops.where(magnitude > 1e-30, magnitude, 1.0)
    small = values / magnitude  # squares of it stay in range
    location = _mean(ops, small, ops.mask)
    deviation = small - location
    spread = ops.sqrt(_mean(ops, deviation * deviation, ops.mask)) + _TINY
    lag = 1
    if scaling == "season":
        lag = season
        mask = None if ops.mask is None else ops.steps(ops.mask, -lag, None)
        location = _mean(ops, ops.steps(small, -lag, None), mask)
    # The sum over steps instead of the mean of differences keeps one step (decode) free of a division by zero.
    steps = ops.steps(small, lag, None) - ops.steps(small, None, -lag)
    if ops.mask is None:
        count = ops.length(steps)
    else:
        both = ops.steps(ops.mask, lag, None) * ops.steps(ops.mask, None, -lag)
        steps, count = steps * both, ops.sum(both, 0)
    change = ops.sum_of_sizes(steps, 0) / ops.maximum(count, 1.0)
    change = ops.maximum(change, spread * 0.02)
    ratio, scale = ops.log(spread / change), ops.sqrt(spread * change)
    return Measure(location * magnitude, spread * magnitude, change * magnitude, ratio, scale * magnitude)


def found_seasons(ops: "Operations", values: Any, measure: Measure) -> Any:
    """The two seasons that the changes of each window repeat most at, and how much they do.

    Changes, not values, because a trend or a random walk correlates with itself at every short lag. The first
    season is found by the autocorrelation as it is, which favours short ones; the second by that divided by the
    overlap, which favours the longest that all others divide: a week beside a day.

    Returns:
        (2 · FOUND_LAGS, batch, features): the lags in steps as floats, then their autocorrelations.
    """
    before = ops.concatenate([ops.steps(values, None, 1), ops.steps(values, None, -1)], axis=0)
    changes = ops.clip((values - before) / measure.change, -4.0, 4.0)
    changes = ops.transpose(changes, (1, 2, 0))  # (batch, features, time)
    lags = np.arange(1, LONGEST_FOUND + 2)
    index = (LONGEST_FOUND + 1 - lags)[:, None] + ops.places(values)  # (lags, time)
    shifted = ops.gather_last(ops.padded(changes, LONGEST_FOUND + 1), index)  # (batch, features, lags, time)
    energy = ops.sum(changes * changes, 2) + _TINY
    likeness = ops.squeeze(ops.matmul(shifted, ops.unsqueeze(changes, 3)), 3) / energy  # (batch, features, lags)
    before_it, middle, after_it = (
        ops.gather_last(likeness, np.arange(start, start + LONGEST_FOUND - 1)) for start in range(3)
    )  # of lags 2 … LONGEST_FOUND
    count = ops.length(values) if ops.mask is None else ops.sum(ops.mask, 0)[0, :, :, None]  # (batch, 1, 1)
    overlap = 1.0 - lags[1:-1].astype(np.float32) / ops.maximum(count, 2.0)
    peak = (middle > before_it) & (middle >= after_it) & (overlap > 0.45)
    whole = ops.where(peak, middle, -1.0)
    level = ops.where(peak, middle / ops.maximum(overlap, 0.1), -1.0)
    found = [ops.argmax(whole) + 2.0, ops.argmax(level) + 2.0, ops.max(whole, 2), ops.max(level, 2)]
    return ops.transpose(ops.concatenate(found), (2, 0, 1))


def _mean(ops: "Operations", x: Any, mask: Any) -> Any:
    """The mean over steps, those that a mask leaves out left out."""
    return ops.mean(x, 0) if mask is None else ops.sum(x * mask, 0) / ops.sum(mask, 0)

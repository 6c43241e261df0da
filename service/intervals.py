"""Intervals from errors that forecasts have made: how far off they were tells how far off the next may be.

Errors are signed, actual minus forecast, over the scale of the window that the forecast set out from, and kept as whole
paths: (errors, horizon, features). Where a model says so, they are of logarithms: then an interval reaches so many
times as far as the forecast is large. They come from the artifact, or from the request itself: of a window that is
longer than the model's context, the past is forecast again from earlier origins, whose forecasts have met what came.

The bounds are those of conformal prediction: of n sorted errors, the one in place (n + 1) · (1 − level) / 2 from either
end, rounded down. Where that is no place at all, the errors do not support the level. Each lead time and feature stands
for itself.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from service.window import Values

Errors = npt.NDArray[np.float64]

MOST_ORIGINS: Final = 200
"""Origins that a window's past is forecast from at most: what a level of 99 % needs."""

FEWEST_ERRORS: Final = 20
"""Errors of one window that say anything."""

_PLENTY_OF_ERRORS: Final = 100
# Errors of origins that follow each other are much alike: what they say depends on how far the origins reach, in
# horizons. So far that they say anything, that they say more than those of the artifact, and that more is needless.
_FEWEST_HORIZONS: Final = 10
_PLENTY_OF_HORIZONS: Final = 20
_FARTHEST_STEPS: Final = 1000
# How much the scale of a window may differ from that of its past before the errors of then are taken for incomparable:
# without it, one flat stretch, of almost no scale, would blow every interval up.
_MOST_RESCALED: Final = 10.0
# No interval is narrower: in parts of the window's scale, and of the forecast, of which 32-bit floats hold some 1e-7.
_LEAST_OF_SCALE: Final = 1e-4
_LEAST_OF_FORECAST: Final = 1e-6
_LARGEST: Final = float(np.finfo(np.float32).max)
_SMALLEST: Final = float(np.finfo(np.float32).tiny)
_LARGEST_LOGARITHM: Final = 88.0  # of a 32-bit float
# So far a product may lie beside the whole number that it stands for.
_ROUNDING: Final = 1e-9


def fewest_errors(level: float) -> int:
    """The number of errors that a level, in percent, needs at least."""
    return max(1, math.ceil(200.0 / (100.0 - level) - 1.0 - _ROUNDING))


def highest_level(errors: int) -> float:
    """The highest level, in percent and rounded down to a tenth, that so many errors support."""
    return math.floor(1000.0 * (errors - 1) / (errors + 1) + _ROUNDING) / 10.0


def own_origins(
    steps: int, context_length: int, horizon: int, season_length: int | None, needed: int, *, plenty: bool
) -> range:
    """The origins, as places in a window of so many steps, that its own errors are taken from; the newest last.

    Each has a whole context before it and a whole horizon behind it. Where there are many, every second, third, … is
    taken, to reach as far back as is of use; never in step with the season, of which all of it must be met. There are
    none where fewer than `needed` are left, or where they reach less far than says something; with `plenty`, less far
    than says more than the artifact's errors.
    """
    room = steps - horizon - context_length + 1
    if needed > MOST_ORIGINS or room < _least_room(needed, horizon, plenty=plenty):
        return range(0)
    stride = min(_farthest(horizon) // MOST_ORIGINS, max(1, room // max(needed, _PLENTY_OF_ERRORS)))
    while season_length is not None and math.gcd(stride, season_length) > 1:
        stride -= 1
    count = min(MOST_ORIGINS, 1 + (room - 1) // stride)
    last = steps - horizon - 1
    return range(last - (count - 1) * stride, last + 1, stride)


def steps_for(needed: int, context_length: int, horizon: int) -> int:
    """The fewest steps of a window that has so many errors of its own, up to `MOST_ORIGINS`, and far enough apart."""
    return context_length + horizon + _least_room(needed, horizon, plenty=False) - 1


def steps_useful(context_length: int, horizon: int) -> int:
    """The steps of a window beyond which `own_origins` looks at none."""
    return context_length + horizon + _farthest(horizon)


def _least_room(needed: int, horizon: int, *, plenty: bool) -> int:
    """How far apart the oldest and the newest origin must lie at least, both counted."""
    if plenty:
        return max(needed, _PLENTY_OF_ERRORS, _PLENTY_OF_HORIZONS * horizon)
    return max(needed, FEWEST_ERRORS, _FEWEST_HORIZONS * horizon)


def _farthest(horizon: int) -> int:
    """How far apart origins lie at most, in whole strides between the most of them."""
    return MOST_ORIGINS * math.ceil(max(_FARTHEST_STEPS, _PLENTY_OF_HORIZONS * horizon) / MOST_ORIGINS)


def errors_of(actual: Values | Errors, forecasts: Values | Errors, *, logarithms: bool = False) -> Errors:
    """Signed errors, actual minus forecast, in raw units or of logarithms; a value that has none counts as tiny."""
    if logarithms:
        return log_of(actual) - log_of(forecasts)
    return actual.astype(np.float64) - forecasts


def log_of(values: Values | Errors) -> Errors:
    """Logarithms of values, of which those at or below zero count as the smallest 32-bit float."""
    logarithms: Errors = np.log(np.maximum(values.astype(np.float64), _SMALLEST))
    return logarithms


def shifted(forecasts: Values | Errors, errors: Errors, *, logarithms: bool = False) -> Errors:
    """What would have come, in raw units, had forecasts erred so: the opposite of `errors_of`."""
    centre = forecasts.astype(np.float64)
    if logarithms:
        shift: Errors = np.abs(centre) * np.expm1(np.minimum(errors, _LARGEST_LOGARITHM))
        return centre + shift
    return centre + errors


def own_errors(
    actual: Values,
    forecasts: Values,
    scales: Values,
    scale: Values,
    *,
    logarithms: bool = False,
    inflation: float = 1.0,
) -> Errors:
    """Errors of a window's own past, brought to the scale that the window has now: (origins, horizon, features).

    `actual` and `forecasts` are (origins, horizon, features), `scales` (origins, features) and `scale` (features,). The
    errors are those that the window would make: a scale that goes with them is one. They are `inflation` times as large
    as they were, for a model may have been fitted on the past, and errs less there.
    """
    then = np.maximum(scales.astype(np.float64), _SMALLEST)
    now = np.maximum(scale.astype(np.float64), _SMALLEST)
    ratio = np.clip(now / then, 1.0 / _MOST_RESCALED, _MOST_RESCALED)
    return errors_of(actual, forecasts, logarithms=logarithms) * (ratio[:, None] * inflation)


def margins(ranked: Errors, level: float) -> tuple[Errors, Errors]:
    """How far below and above a forecast the interval reaches, (horizon, features) each, from sorted errors.

    The one is at most zero and the other at least: the interval holds the forecast, also where all errors were on one
    side, and that of a higher level holds that of a lower one.
    """
    count = len(ranked)
    place = min(count, math.ceil((count + 1) * (100.0 + level) / 200.0 - _ROUNDING))
    return np.minimum(ranked[count - place], 0.0), np.maximum(ranked[place - 1], 0.0)


def bounds(
    forecasts: Values, below: Errors, above: Errors, scales: Errors, *, logarithms: bool = False, non_negative: bool
) -> tuple[Values, Values]:
    """The bounds of intervals, (windows, horizon, features), from margins of the same shape, as errors are.

    `scales` (windows, features) sets how narrow an interval may be. They hold the forecast, unless that lies below zero
    where `non_negative` says that nothing does; they never cross, nor meet, nor leave the range of 32-bit floats.
    """
    centre = forecasts.astype(np.float64)
    unit = scales[:, None] * np.abs(centre) if logarithms else scales[:, None]
    least = np.maximum(np.maximum(unit * _LEAST_OF_SCALE, np.abs(centre) * _LEAST_OF_FORECAST), _SMALLEST)
    lower = np.minimum(shifted(centre, below, logarithms=logarithms), centre - least)
    upper = np.maximum(shifted(centre, above, logarithms=logarithms), centre + least)
    if non_negative:
        lower = np.maximum(lower, 0.0)
        upper = np.maximum(upper, lower + least)
    return _narrowed(lower), _narrowed(upper)


def sample_paths(
    forecast: Values, errors: Errors, count: int, seed: tuple[int, ...], *, logarithms: bool = False, non_negative: bool
) -> Values:
    """Draw futures, (count, horizon, features): the forecast with the whole path of errors of one origin at a time.

    `forecast` is (horizon, features) and `errors` (origins, horizon, features), over no scale any longer.
    """
    drawn = np.random.default_rng(seed).integers(len(errors), size=count)
    paths = shifted(forecast, errors[drawn], logarithms=logarithms)
    return _narrowed(np.maximum(paths, 0.0) if non_negative else paths)


def _narrowed(values: Errors) -> Values:
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)

"""The references that a model must beat, from repeating the last value to a linear autoregression."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Origins = npt.NDArray[np.int64]
Forecasts = npt.NDArray[np.float64]
Rule = Callable[[Values, Origins, int], Forecasts]
"""Forecasts of a whole series (time, features) from origins (origins,) over a horizon: (origins, horizon, features).

What was fitted was fitted before the first origin; what a forecast is computed from lies before its own.
"""

_AVERAGED: Final = (3, 5, 10, 20)  # steps; one season besides
_TRIED: Final = 200  # origins that the length of an average is chosen on
_LAGS: Final = 20
_LARGEST_FIT: Final = 20_000  # rows of a regression
_FURTHEST: Final = 3  # ranges of the past beyond it, where an autoregression that explodes is stopped
_SEASONAL_LIMIT: Final = 1.645  # the normal quantile of a test at 90 %, as in the M4 competition


def naive(values: Values, origins: Origins, horizon: int) -> Forecasts:
    """Repeat the last observation.

    Args:
        values: one series, (time, features).
        origins: the step of the last observation of each forecast, (origins,).
        horizon: how many steps to forecast.

    Returns:
        (origins, horizon, features)
    """
    return np.repeat(values[origins][:, None], horizon, axis=1)


def seasonal_naive(values: Values, origins: Origins, horizon: int, season: int) -> Forecasts:
    """Repeat the last season before each origin.

    Args and returns as of `naive`; `season` is in steps.

    Raises:
        ValueError: an origin has less than a season of observations.
    """
    if len(origins) and origins.min() + 1 < season:
        raise ValueError(f"an origin with {origins.min() + 1} observations has no season of {season}")
    ahead = np.arange(horizon) % season  # a step's place in the season
    return np.asarray(values[origins[:, None] + 1 - season + ahead], dtype=np.float64)


def drift(values: Values, origins: Origins, horizon: int) -> Forecasts:
    """Go on along the straight line through a series' first observation and the last before each origin.

    Args and returns as of `naive`.
    """
    slope = (values[origins] - values[0]) / np.maximum(origins, 1)[:, None]
    return np.asarray(values[origins][:, None] + slope[:, None] * np.arange(1, horizon + 1)[:, None])


def moving_average(values: Values, origins: Origins, horizon: int, length: int) -> Forecasts:
    """Repeat the mean of the last `length` observations, fewer where there are fewer.

    Args and returns as of `naive`.
    """
    sums = np.cumsum(np.concatenate([np.zeros((1, values.shape[1])), values]), axis=0)
    taken = np.minimum(length, origins + 1)
    means = (sums[origins + 1] - sums[origins + 1 - taken]) / taken[:, None]
    return np.repeat(means[:, None], horizon, axis=1)


def best_average(past: Values, season: int | None, horizon: int) -> int:
    """The length of the moving average that forecasts the past (time, features) best: 3, 5, 10 or 20, or one season."""
    lengths = sorted({*_AVERAGED, *([season] if season else [])})
    last = len(past) - horizon - 1
    if last < 0:
        return _AVERAGED[1]
    origins = np.unique(np.linspace(min(lengths[-1] - 1, last), last, _TRIED).astype(np.int64))
    actual = past[origins[:, None] + 1 + np.arange(horizon)]
    spread = np.maximum(past.std(axis=0), np.finfo(np.float64).tiny)
    errors = [np.mean(np.abs(actual - moving_average(past, origins, horizon, one)) / spread) for one in lengths]
    return lengths[int(np.argmin(errors))]


def naive2(values: Values, origins: Origins, horizon: int, season: int) -> Forecasts:
    """The M4 competition's Naive2: repeat the last observation of the series without its season, and put that back.

    Args and returns as of `naive`. Each feature that passes the competition's test for a season, before the first
    origin, has it taken out by classical decomposition of all that lies before each origin: by ratios where all values
    are positive, else by differences. A feature that does not is repeated as it is.
    """
    forecasts = naive(values, origins, horizon)
    for feature in range(values.shape[1]):
        column = values[:, feature]
        if len(origins) and is_seasonal(column[: int(origins.min()) + 1], season):
            forecasts[..., feature] = _with_its_season(column, origins, horizon, season)
    return forecasts


def is_seasonal(values: npt.NDArray[np.float64], season: int) -> bool:
    """The M4 competition's test at 90 %: is the autocorrelation of (time,) values one season apart beyond chance?"""
    if len(values) < 3 * season:
        return False
    centred = values - values.mean()
    size = 1 << (2 * len(values) - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    correlations = np.fft.irfft(spectrum * spectrum.conj(), size)[: season + 1]
    if correlations[0] <= 0:
        return False
    correlations /= correlations[0]
    limit = _SEASONAL_LIMIT * np.sqrt((1 + 2 * np.sum(correlations[1:season] ** 2)) / len(values))
    return bool(abs(correlations[season]) > limit)


def autoregression(past: Values, season: int | None) -> Rule:
    """Fit a linear autoregression of each feature on its own, by least squares; each forecast is fed back.

    It looks at the last 20 steps, and at those one season back and one further; at fewer where the past is short.
    """
    lags = np.array([lag for lag in _lags(season) if lag <= max(1, len(past) // 4)])
    fitted = [_regression(column, lags) for column in past.T]
    low, high = past.min(axis=0), past.max(axis=0)
    room = _FURTHEST * (high - low)

    def rule(values: Values, origins: Origins, horizon: int) -> Forecasts:
        longest = int(lags.max())
        forecasts = np.empty((len(origins), horizon, values.shape[1]))
        for feature, (constant, weights) in enumerate(fitted):
            rows = np.empty((len(origins), longest + horizon))
            rows[:, :longest] = values[origins[:, None] + 1 - longest + np.arange(longest), feature]
            for lead in range(longest, longest + horizon):
                ahead = constant + rows[:, lead - lags] @ weights
                rows[:, lead] = np.clip(ahead, low[feature] - room[feature], high[feature] + room[feature])
            forecasts[..., feature] = rows[:, longest:]
        return forecasts

    return rule


def _lags(season: int | None) -> list[int]:
    return sorted({*range(1, _LAGS + 1), *([season, season + 1] if season else [])})


def _regression(column: npt.NDArray[np.float64], lags: npt.NDArray[np.int64]) -> tuple[float, Values]:
    """The constant and the weight of each lag."""
    centre, spread = column.mean(), column.std() or 1.0
    scaled = (column - centre) / spread  # else a high level drowns the differences
    rows = np.arange(max(int(lags.max()), len(column) - _LARGEST_FIT), len(column))
    if not len(rows):
        return float(centre), np.zeros(len(lags))
    inputs = np.column_stack([np.ones(len(rows)), scaled[rows[:, None] - lags]])
    constant, *weights = np.linalg.lstsq(inputs, scaled[rows], rcond=None)[0]
    return float(constant * spread + centre * (1 - sum(weights))), np.array(weights)


def _with_its_season(column: npt.NDArray[np.float64], origins: Origins, horizon: int, season: int) -> Forecasts:
    """(origins, horizon) forecasts of one feature."""
    column = column[: int(origins.max()) + 1]
    by_ratio = bool((column > 0).all())
    shape = _seasonal_shape(column, origins, season, by_ratio=by_ratio)  # (origins, season)
    rows, last = np.arange(len(origins)), column[origins]
    now = shape[rows, origins % season]
    ahead = shape[rows[:, None], (origins[:, None] + np.arange(1, horizon + 1)) % season]
    if by_ratio:
        return np.asarray((last / now)[:, None] * ahead, dtype=np.float64)
    return np.asarray((last - now)[:, None] + ahead, dtype=np.float64)


def _seasonal_shape(column: npt.NDArray[np.float64], origins: Origins, season: int, *, by_ratio: bool) -> Forecasts:
    """Classical seasonal indices of each phase from what lies before each origin, (origins, season)."""
    weights = np.ones(season) if season % 2 else np.concatenate([[0.5], np.ones(season - 1), [0.5]])
    trend = np.convolve(column, weights / season, mode="valid")
    half = len(weights) // 2
    middle = column[half : half + len(trend)]
    cycles = -(-len(column) // season)
    parts, known = np.zeros(cycles * season), np.zeros(cycles * season)
    parts[half : half + len(trend)] = middle / trend if by_ratio else middle - trend
    known[half : half + len(trend)] = 1
    sums, counts = (np.cumsum(held.reshape(cycles, season), axis=0) for held in (parts, known))
    phases = np.arange(season)
    # The trend at a step needs half a season after it: the last that an origin knows lies so far back.
    cycle = (origins[:, None] - half - phases) // season
    shape = np.asarray(sums[cycle, phases] / counts[cycle, phases], dtype=np.float64)
    centre = shape.mean(axis=1, keepdims=True)
    return np.asarray(shape / centre if by_ratio else shape - centre)

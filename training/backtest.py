"""The backtest: forecasts from rolling origins of the test part, scored beside the naive references."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from service.artifact import Backtest, ErrorTable, Scores
from service.engine import Engine
from training.baselines import Forecasts, Origins, naive, seasonal_naive
from training.data import Boundary, Panel, Series, Split

MODEL: Final = "model"
NAIVE: Final = "naive"
SEASONAL_NAIVE: Final = "seasonal_naive"

_FEWEST_ORIGINS: Final = 10  # fewer say too little of a model for a firm verdict
_MOST_ORIGINS: Final = 500  # in all; of a panel, at least one per series
_ROWS_TOGETHER: Final = 64
_MOST_ERRORS: Final = 200  # kept per feature and lead time
_LARGEST_TABLE: Final = 50_000  # numbers in all
_DIGITS: Final = 5  # of an error kept


@dataclass(frozen=True, eq=False)
class Roll:
    """The forecasts of every method from the origins of one series, and what then came.

    `actual` and each of `forecasts` are (origins, horizon, features); `scale` is the model's for each window
    (origins, features), or None; `spread` (features,) the mean absolute one-season difference before the test part.
    """

    series: Series
    origins: Origins
    actual: Forecasts
    forecasts: Mapping[str, Forecasts]
    scale: npt.NDArray[np.float64] | None
    spread: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores as the artifact holds them, the error table, and the forecasts that they were computed from."""

    scores: Backtest
    errors: ErrorTable | None
    rolls: tuple[Roll, ...]


def backtest(
    engine: Engine,
    panel: Panel,
    split: Split,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Forecast from rolling origins of each series' test part with the artifact itself, and score that.

    Every forecast's whole horizon lies inside the test part; its window may look back before it. `progress` is told
    how many of how many series are done.

    Raises:
        ValueError: a test part is shorter than the horizon.
        ArtifactError: the artifact's graph fails.
    """
    horizon, season = split.horizon, panel.season
    if season is not None and min(part.validation_end for part in split.boundaries) < season:
        season = None  # the first origin has no season behind it
    stride = stride_of([_room(one, part, horizon) for one, part in _parts(panel, split)], season)
    rolls = []
    for done, (one, part) in enumerate(_parts(panel, split), start=1):
        origins = np.arange(part.validation_end - 1, len(one.values) - horizon, stride)
        rolls.append(_roll(engine, one, part, origins, horizon, season))
        progress(done, len(panel.series))
    return Evaluation(score(rolls), error_table(rolls), tuple(rolls))


def stride_of(rooms: list[int], season: int | None) -> int:
    """The distance between origins that leaves at most about 500 of all possible, but one per series.

    It shares no divisor with the season, so that origins meet every part of it.
    """
    stride = max(1, math.ceil(sum(rooms) / max(_MOST_ORIGINS, len(rooms))))
    while season is not None and math.gcd(stride, season) > 1:
        stride += 1
    return stride


def score(rolls: list[Roll]) -> Backtest:
    """Score the forecasts of each method, at lead time 1 and over all lead times."""
    methods = list(rolls[0].forecasts)
    one_step = {method: _scores(rolls, method, 1) for method in methods}
    multi_step = {method: _scores(rolls, method, None) for method in methods}
    first, last = _first_and_last(rolls)
    horizon = rolls[0].actual.shape[1]
    origins = sum(len(roll.origins) for roll in rolls)
    return Backtest(
        horizon=horizon,
        origins=origins,
        first_origin=first,
        last_origin=last,
        one_step=one_step,
        multi_step=multi_step,
        mae_by_lead_time={method: tuple(_mae_by_lead_time(rolls, method)) for method in methods},
        verdict=verdict(one_step, multi_step, horizon, origins),
    )


def verdict(one_step: Mapping[str, Scores], multi_step: Mapping[str, Scores], horizon: int, origins: int) -> str:
    """Say in plain words whether the model beats the better reference, one step ahead and over the horizon.

    Few origins lie close together and may have met one odd stretch of the data: then only the figures are told.
    """
    over = "over 1 step" if horizon == 1 else f"over {horizon} steps"
    far, near = _comparison(multi_step), _comparison(one_step)
    if origins < _FEWEST_ORIGINS:
        head = f"Too few origins ({origins}) to tell whether the model is better than naive"
    elif far.gain > 0 and near.gain > 0:
        head = "Better than naive"
    elif far.gain > 0 or near.gain > 0:
        head = "Better than naive only " + (over if far.gain > 0 else "one step ahead")
    else:
        head = "Not better than naive, do not use it"
    return f"{head}: {over} its mean absolute error is {far}; one step ahead it is {near}."


def error_table(rolls: list[Roll]) -> ErrorTable | None:
    """Signed errors, actual minus forecast, over each window's scale, by feature and lead time, sorted and thinned.

    None where the artifact tells no scale, or only windows without any.
    """
    scaled = []
    for roll in rolls:
        if roll.scale is None:
            return None
        known = (roll.scale > 0).all(axis=1)
        scaled.append((roll.actual - roll.forecasts[MODEL])[known] / roll.scale[known, None])
    together = np.concatenate(scaled)  # (origins, horizon, features)
    origins, horizon, features = together.shape
    if not origins:
        return None
    kept = min(origins, _MOST_ERRORS, max(20, _LARGEST_TABLE // (horizon * features)))
    quantiles = np.quantile(together, np.linspace(0, 1, kept), axis=0)  # (kept, horizon, features), sorted
    errors = tuple(
        tuple(tuple(float(f"{error:.{_DIGITS}g}") for error in quantiles[:, lead, feature]) for lead in range(horizon))
        for feature in range(features)
    )
    return ErrorTable(origins=origins, errors=errors)


def smape(actual: Forecasts, forecast: Forecasts) -> float | None:
    """M4's symmetric mean absolute percentage error; None where every value and forecast is zero."""
    total = np.abs(actual) + np.abs(forecast)
    if not total.any():
        return None
    return float(np.mean(200 * np.abs(actual - forecast) / np.where(total == 0, 1.0, total)))


def seasonal_spread(values: npt.NDArray[np.float64], season: int | None) -> npt.NDArray[np.float64]:
    """The mean absolute difference one season apart (one step, where none is known) of (time, features)."""
    lag = season or 1
    if len(values) <= lag:
        return np.zeros(values.shape[1])
    return np.asarray(np.mean(np.abs(values[lag:] - values[:-lag]), axis=0), dtype=np.float64)


@dataclass(frozen=True)
class _Comparison:
    """The share by which the model's error lies below that of the better reference."""

    gain: float
    reference: str

    def __str__(self) -> str:
        reference = self.reference.replace("_", " ")
        if self.gain == -math.inf:
            return f"above that of {reference}, which makes none"
        percent = f"{abs(100 * self.gain):.0f} %" if abs(self.gain) >= 0.01 else f"{abs(100 * self.gain):.1f} %"
        return f"{percent} {'below' if self.gain > 0 else 'above'} that of {reference}"


def _comparison(scores: Mapping[str, Scores]) -> _Comparison:
    reference = min((method for method in scores if method != MODEL), key=lambda method: scores[method].mae)
    best, own = scores[reference].mae, scores[MODEL].mae
    if best == 0:
        return _Comparison(0.0 if own == 0 else -math.inf, reference)
    return _Comparison(1 - own / best, reference)


def _parts(panel: Panel, split: Split) -> list[tuple[Series, Boundary]]:
    return list(zip(panel.series, split.boundaries, strict=True))


def _room(one: Series, part: Boundary, horizon: int) -> int:
    """How many origins a series' test part has room for."""
    room = len(one.values) - part.validation_end - horizon + 1
    if room < 1:
        raise ValueError(f"the test part of series {one.name!r} is shorter than the horizon {horizon}")
    return room


def _roll(engine: Engine, one: Series, part: Boundary, origins: Origins, horizon: int, season: int | None) -> Roll:
    windows = _windows(one.values, origins, engine.context_length)
    forecasts = {MODEL: np.empty((len(origins), horizon, one.values.shape[1]))}
    scales: list[npt.NDArray[np.float32] | None] = []
    for start in range(0, len(origins), _ROWS_TOGETHER):
        rows = slice(start, start + _ROWS_TOGETHER)
        forecasts[MODEL][rows] = engine.forecast(windows[rows], horizon)
        scales.append(engine.run(windows[rows]).scale)
    forecasts[NAIVE] = naive(one.values, origins, horizon)
    if season is not None:
        forecasts[SEASONAL_NAIVE] = seasonal_naive(one.values, origins, horizon, season)
    told = [np.asarray(scale, dtype=np.float64) for scale in scales if scale is not None]
    return Roll(
        series=one,
        origins=origins,
        actual=one.values[origins[:, None] + 1 + np.arange(horizon)],
        forecasts=forecasts,
        scale=np.concatenate(told) if len(told) == len(scales) else None,
        spread=seasonal_spread(one.values[: part.validation_end], season),
    )


def _windows(values: npt.NDArray[np.float64], origins: Origins, context: int) -> npt.NDArray[np.float32]:
    """The last steps up to each origin, (origins, time, features): the context, or what the first origin has of it."""
    length = min(context, int(origins.min()) + 1)
    return np.asarray(values[origins[:, None] + 1 - length + np.arange(length)], dtype=np.float32)


def _scores(rolls: list[Roll], method: str, leads: int | None) -> Scores:
    actual = np.concatenate([roll.actual[:, :leads].ravel() for roll in rolls])
    forecast = np.concatenate([roll.forecasts[method][:, :leads].ravel() for roll in rolls])
    errors = actual - forecast
    return Scores(
        mae=float(np.mean(np.abs(errors))),
        rmse=float(np.sqrt(np.mean(np.square(errors)))),
        smape=smape(actual, forecast),
        mase=_mase(rolls, method, leads),
    )


def _mase(rolls: list[Roll], method: str, leads: int | None) -> float | None:
    """Absolute errors over each series' and feature's spread, those left out that have none."""
    scaled = []
    for roll in rolls:
        errors = np.abs(roll.actual - roll.forecasts[method])[:, :leads]
        spread = roll.spread > 0
        scaled.append((errors[..., spread] / roll.spread[spread]).ravel())
    together = np.concatenate(scaled)
    return float(np.mean(together)) if len(together) else None


def _mae_by_lead_time(rolls: list[Roll], method: str) -> list[float]:
    errors = np.concatenate([np.abs(roll.actual - roll.forecasts[method]) for roll in rolls])
    return [float(error) for error in errors.mean(axis=(0, 2))]


def _first_and_last(rolls: list[Roll]) -> tuple[str | None, str | None]:
    stamps = [roll.series.times[roll.origins] for roll in rolls if roll.series.times is not None]
    if not stamps:
        return None, None
    return _iso(min(times[0] for times in stamps)), _iso(max(times[-1] for times in stamps))


def _iso(stamp: pd.Timestamp) -> str:
    return str(stamp.isoformat())

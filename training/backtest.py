"""The backtest: forecasts from rolling origins of the test part, scored beside the naive references."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from service.artifact import Backtest, Scores
from service.engine import Engine
from service.errors import ArtifactError
from training.baselines import Forecasts, Origins, Rule, Values, naive, seasonal_naive
from training.metrics import seasonal_spread, smape_terms
from training.panel import Panel, Series, known_in
from training.parts import Boundary, Split

MODEL: Final = "model"
NAIVE: Final = "naive"
SEASONAL_NAIVE: Final = "seasonal_naive"
_WRITTEN: Final = {"naive2": "Naive2", "ets": "ETS", "theta": "Theta", "arima": "ARIMA"}

_FEWEST_ORIGINS: Final = 10  # fewer say too little of a model for a firm verdict
_MOST_ORIGINS: Final = 500  # in all; of a panel, at least one per series
_ROWS_TOGETHER: Final = 64
_CHUNK: Final = 1_000_000  # numbers that the windows of a chunk of blocks hold, or its forecasts of one method


@dataclass(frozen=True, eq=False)
class Roll:
    """The forecasts of every method from the origins of one series, and what then came.

    `actual` and each of `forecasts` are (origins, horizon, features); `scale` is the model's for each window
    (origins, features), or None; `spread` (origins, features) the mean absolute one-season difference that MASE divides
    by: before the test part, in a training run.
    """

    series: Series
    origins: Origins
    actual: Forecasts
    forecasts: Mapping[str, Forecasts]
    scale: Values | None
    spread: Values


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores as the artifact holds them, and the forecasts that they were computed from."""

    scores: Backtest
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
    blocks = [
        Block(
            series=one,
            origins=np.arange(part.validation_end - 1, len(one.values) - horizon, stride),
            start=part.validation_end - 1,
            rules=naive_rules(season),
            spread=seasonal_spread(one.values[: part.validation_end], season)[None],
        )
        for one, part in _parts(panel, split)
    ]
    rolls = []
    for done, roll in enumerate(forecast(engine, blocks, horizon, scales=False), start=1):
        rolls.append(roll)
        progress(done, len(panel.series))
    return Evaluation(score(rolls), tuple(rolls))


@dataclass(frozen=True, eq=False)
class Block:
    """Origins of one series to forecast from; the first origin of that series, which `rules` were fitted before.

    `spread` (origins or 1, features) is what MASE divides by.
    """

    series: Series
    origins: Origins
    start: int
    rules: Mapping[str, Rule]
    spread: Values


def naive_rules(season: int | None) -> dict[str, Rule]:
    """The naive references, by name: the last value, and the last season where one is known."""
    rules: dict[str, Rule] = {NAIVE: naive}
    if season is not None:
        rules[SEASONAL_NAIVE] = lambda values, origins, horizon: seasonal_naive(values, origins, horizon, season)
    return rules


def forecast(engine: Engine, blocks: Iterable[Block], horizon: int, *, scales: bool = True) -> Iterator[Roll]:
    """Forecast from every origin, by the artifact and by the references: one roll a block, in their order.

    Blocks are taken in chunks of bounded size, and their windows of equal length run together, of one series or of
    several. Without `scales` the model's are not asked for, which saves a pass over each window.

    Raises:
        ArtifactError: the artifact's graph fails, or a forecast is not finite.
    """
    for chunk in _chunks(blocks, engine.context_length, horizon):
        found, told = _by_model(engine, chunk, horizon, scales=scales)
        for block, forecasts, scale in zip(chunk, found, told, strict=True):
            if not np.isfinite(forecasts).all():
                raise ArtifactError(f"its forecasts of series {block.series.name!r} are not all finite")
            values, origins = block.series.values, block.origins
            yield Roll(
                series=block.series,
                origins=origins,
                actual=values[origins[:, None] + 1 + np.arange(horizon)],
                forecasts={MODEL: forecasts}
                | {name: rule(values, origins, horizon) for name, rule in block.rules.items()},
                scale=scale,
                spread=np.broadcast_to(block.spread, (len(origins), values.shape[1])),
            )


def stride_of(rooms: list[int], season: int | None, most: int = _MOST_ORIGINS) -> int:
    """The distance between origins that leaves at most about so many of all possible, but one per series.

    It shares no divisor with the season, so that origins meet every part of it.
    """
    stride = max(1, math.ceil(sum(rooms) / max(most, len(rooms))))
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
    far, near = comparison(multi_step), comparison(one_step)
    if origins < _FEWEST_ORIGINS:
        head = f"Too few origins ({origins}) to tell whether the model is better than naive"
    elif far.gain > 0 and near.gain > 0:
        head = "Better than naive"
    elif far.gain > 0 or near.gain > 0:
        head = "Better than naive only " + (over if far.gain > 0 else "one step ahead")
    else:
        head = "Not better than naive, do not use it"
    return f"{head}: {over} its mean absolute error is {far}; one step ahead it is {near}."


def smape(actual: Forecasts, forecast: Forecasts) -> float | None:
    """M4's symmetric mean absolute percentage error; None where every value and forecast is zero."""
    if not (actual.any() or forecast.any()):
        return None
    return float(np.mean(smape_terms(actual, forecast)))


@dataclass(frozen=True)
class Comparison:
    """The share by which the model's error lies below that of the better reference."""

    gain: float
    reference: str

    def __str__(self) -> str:
        reference = in_words(self.reference)
        if self.gain == -math.inf:
            return f"above that of {reference}, which makes none"
        percent = f"{abs(100 * self.gain):.0f} %" if abs(self.gain) >= 0.01 else f"{abs(100 * self.gain):.1f} %"
        return f"{percent} {'below' if self.gain > 0 else 'above'} that of {reference}"


def in_words(method: str) -> str:
    """A method's name as a person writes it."""
    return _WRITTEN.get(method, method.replace("_", " "))


def comparison(scores: Mapping[str, Scores]) -> Comparison:
    """Compare the model with the best of the other methods, by MAE."""
    reference = min((method for method in scores if method != MODEL), key=lambda method: scores[method].mae)
    best, own = scores[reference].mae, scores[MODEL].mae
    if best == 0:
        return Comparison(0.0 if own == 0 else -math.inf, reference)
    return Comparison(1 - own / best, reference)


def _parts(panel: Panel, split: Split) -> list[tuple[Series, Boundary]]:
    return list(zip(panel.series, split.boundaries, strict=True))


def _room(one: Series, part: Boundary, horizon: int) -> int:
    """How many origins a series' test part has room for."""
    room = len(one.values) - part.validation_end - horizon + 1
    if room < 1:
        raise ValueError(f"the test part of series {one.name!r} is shorter than the horizon {horizon}")
    return room


def _chunks(blocks: Iterable[Block], context: int, horizon: int) -> Iterator[list[Block]]:
    """Blocks by several, as long as their windows and forecasts stay small."""
    chunk: list[Block] = []
    size = 0
    for block in blocks:
        added = len(block.origins) * (context + horizon) * block.series.values.shape[1]
        if chunk and size + added > _CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(block)
        size += added
    if chunk:
        yield chunk


def _by_model(
    engine: Engine, chunk: list[Block], horizon: int, *, scales: bool
) -> tuple[list[Forecasts], list[Values | None]]:
    """The artifact's forecasts and scales for each block, its windows run together with those of equal length."""
    counts = [len(block.origins) for block in chunk]
    lengths = np.repeat([min(engine.context_length, block.start + 1) for block in chunk], counts)
    ends = np.concatenate([block.origins - _first(block, engine) + 1 for block in chunk])
    spans = [slice(_first(block, engine), int(block.origins.max()) + 1 + horizon) for block in chunk]
    ends += np.repeat(np.cumsum([0, *(span.stop - span.start for span in spans[:-1])]), counts)
    parts = [block.series.values[span] for block, span in zip(chunk, spans, strict=True)]
    values = np.concatenate(parts).astype(np.float32)  # (time, features), one part after another
    known = known_in([(block.series, span) for block, span in zip(chunk, spans, strict=True)]) if engine.known else None
    forecasts = np.empty((len(ends), horizon, values.shape[1]))
    told = np.full((len(ends), values.shape[1]), np.nan)
    for length in np.unique(lengths):
        of_length = np.flatnonzero(lengths == length)
        for start in range(0, len(of_length), _ROWS_TOGETHER):
            rows = of_length[start : start + _ROWS_TOGETHER]
            windows = values[ends[rows, None] - length + np.arange(length)]
            ahead = ends[rows, None] - length + 1 + np.arange(length + horizon - 1)
            following = None if known is None else known[ahead]
            forecasts[rows] = engine.forecast(windows, horizon, following)
            told_first = None if following is None else following[:, :length]
            scale = engine.run(windows, known=told_first).scale if scales else None
            if scale is not None:
                told[rows] = scale
    places = np.cumsum(counts)[:-1]
    found = [None if np.isnan(scale).all() else scale for scale in np.split(told, places)]
    return np.split(forecasts, places), found


def _first(block: Block, engine: Engine) -> int:
    """The step at which the first window of a block begins."""
    return int(block.origins.min()) + 1 - min(engine.context_length, block.start + 1)


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
        errors = np.abs(roll.actual - roll.forecasts[method])[:, :leads].swapaxes(1, 2)  # (origins, features, leads)
        known = roll.spread > 0
        scaled.append((errors[known] / roll.spread[known][:, None]).ravel())
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

"""A backtest of any artifact on any table: rolling origins over the last part of each series, beside references."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from service.artifact import Metadata, Scores
from service.engine import Engine
from service.intervals import MOST_ORIGINS, fewest_errors, highest_level
from training.backtest import (
    MODEL,
    NAIVE,
    SEASONAL_NAIVE,
    Block,
    Roll,
    comparison,
    forecast,
    in_words,
    naive_rules,
    stride_of,
    verdict,
)
from training.baselines import (
    Forecasts,
    Origins,
    Rule,
    Values,
    autoregression,
    best_average,
    drift,
    moving_average,
    naive2,
)
from training.config import Config, Data
from training.data import digest_of, read_any_length, refuse_constant
from training.errors import DataError
from training.metrics import owa, seasonal_spread, spread_before
from training.panel import Panel, Series
from training.parts import long_enough, part_length
from training.table import Table
from training.tally import IntervalTally, PointTally
from training.uncertainty import OwnErrors, Reach, TableErrors

NAIVE2: Final = "naive2"
MOVING_AVERAGE: Final = "moving_average"
DRIFT: Final = "drift"
AUTOREGRESSION: Final = "linear_autoregression"

Bounds = Mapping[float, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Lower and upper bounds by level, (lead times, features) each."""

_USUAL_LEVELS: Final = (80.0, 95.0)
_USUAL_HORIZON: Final = 24
_BLOCK: Final = 500_000  # numbers that the forecasts of one block hold, of one method
_EXAMPLES: Final = 6
_NAMED: Final = 5


@dataclass(frozen=True)
class Terms:
    """What is asked for; None stands for what is usual.

    `origins` are those of each series, its last ones, `stride` steps apart; without both they are those that `fit`
    scores. `own_past`: MASE divides by what lies before each origin, instead of what lies before the first one, over
    differences `mase_season` steps apart, or else a season. `basis` says whose errors intervals rest on: the
    artifact's, or those of each window's own past where it is long enough.
    """

    horizon: int | None = None
    origins: int | None = None
    stride: int | None = None
    levels: tuple[float, ...] | None = None
    references: tuple[str, ...] = ()
    own_past: bool = False
    mase_season: int | None = None
    basis: Literal["artifact", "window"] = "artifact"


@dataclass(frozen=True, eq=False)
class Example:
    """One origin to be shown: what came before and after it, and what was forecast, (steps, features) each."""

    series: Series
    origin: int
    actual: Values
    forecasts: Mapping[str, Values]
    bounds: Bounds


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a backtest found.

    `by_origin` holds the MAE at each origin (origins,) by method, where there is a single series.
    """

    metadata: Metadata
    panel: Panel
    horizon: int
    season: int | None
    own_past: bool
    mase_season: int | None
    origins: tuple[Origins, ...]
    points: Mapping[str, PointTally]
    intervals: IntervalTally | None
    examples: tuple[Example, ...]
    by_origin: Mapping[str, Values]
    notes: tuple[str, ...]

    @property
    def scores(self) -> dict[str, Scores]:
        """By method, over all lead times."""
        return {method: tally.over_all() for method, tally in self.points.items()}

    @property
    def reference(self) -> str:
        """The better naive reference over all lead times, by MAE."""
        scores = self.scores
        return min((name for name in (NAIVE, SEASONAL_NAIVE) if name in scores), key=lambda name: scores[name].mae)

    @property
    def total(self) -> int:
        """Origins of all series."""
        return sum(len(origins) for origins in self.origins)

    @property
    def verdict(self) -> str:
        """In plain words, how the model compares with the naive references, and with the best of the others."""
        scores = self.scores
        naives = [name for name in (MODEL, NAIVE, SEASONAL_NAIVE) if name in scores]
        first = verdict(
            {name: self.points[name].at(1) for name in naives},
            {name: scores[name] for name in naives},
            self.horizon,
            self.total,
        )
        others = comparison({name: held for name, held in scores.items() if name not in (NAIVE, SEASONAL_NAIVE)})
        over = f"over {self.horizon} steps" if self.horizon > 1 else "over 1 step"
        return f"{first} Beside the other references, {over} it is {others}, the best of them."

    def skill(self, method: str) -> float | None:
        """1 − error / error of the better naive reference; None where that makes none."""
        scores = self.scores
        best = scores[self.reference].mae
        return 1 - scores[method].mae / best if best else None

    def skill_by_series(self) -> Values:
        """The model's skill for each series against the reference that is the better one over all; NaN where none."""
        best = self.points[self.reference].mae_by_series()
        own = self.points[MODEL].mae_by_series()
        return np.where(best > 0, 1 - own / np.where(best > 0, best, 1), np.nan)

    def owa(self, method: str) -> float | None:
        """M4's overall weighted average, against Naive2, which is the naive forecast where no season is known."""
        scores = self.scores
        own, other = scores[method], scores[NAIVE2 if NAIVE2 in scores else NAIVE]
        if own.smape is None or own.mase is None or other.smape is None or other.mase is None:
            return None
        return owa(own.smape, own.mase, other.smape, other.mase)


def data_of(metadata: Metadata, given: Data, columns: list[str]) -> Data:
    """The settings of reading with what the model says where nothing is given, and what it needs to be told."""
    given = given.model_copy(update={"calendar": metadata.calendar, "exogenous": metadata.exogenous})
    if not given.target and all(name in columns for name in metadata.features):
        given = given.model_copy(update={"target": metadata.features})
    if given.season is None and metadata.season_length is not None:
        given = given.model_copy(update={"season": metadata.season_length})
    return given


def read_for(engine: Engine, table: Table, given: Data) -> Panel:
    """Read a table for a model.

    Raises:
        DataError: as `read_panel`, or the features are not those of the model.
    """
    metadata = engine.metadata
    columns = [str(name) for name in table.frame.columns]
    panel = read_any_length(table, data_of(metadata, given, columns))
    _check_features(metadata, panel, table.source)
    notes = [*panel.notes]
    if given.season is None and metadata.season_length is not None:
        notes = [note.replace(": as given", ": the model's") if note.startswith("season ") else note for note in notes]
    if panel.frequency is not None and metadata.frequency not in (None, panel.frequency):
        notes.append(f"the data have the frequency {panel.frequency}, but the model was fitted on {metadata.frequency}")
    return replace(panel, notes=tuple(notes))


def run(
    engine: Engine,
    panel: Panel,
    terms: Terms,
    source: str,
    *,
    skip_short: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Forecast from rolling origins with the artifact and with the references, and score all of them.

    Forecasts are scored as they are made, in bounded memory. `progress` is told which of how many series is begun.

    Raises:
        DataError: a series is too short, or the error table does not support a level that is asked for.
        ArtifactError: the artifact's graph fails, or its forecasts are not finite.
    """
    notes = [*panel.notes]
    horizon = terms.horizon or _horizon(engine.metadata, panel.season)
    series, origins = _origins(engine, panel, terms, horizon, source, skip_short=skip_short, notes=notes)
    refuse_constant(source, series, panel.features)
    whole, panel = panel, replace(panel, series=series)
    season = panel.season
    if season is not None and min(int(held[0]) for held in origins) + 1 < season:
        notes.append(f"the first origins have no whole season of {season} steps behind them: none was assumed")
        season = None
    _note_fitted_part(engine.metadata, whole, panel.series, origins, notes)
    intervals = _intervals(engine, terms, len(series), horizon, notes)
    gathered = _Gathered(panel, origins, intervals, horizon)
    unfitted = Counter[str]()
    blocks = _blocks(panel, origins, horizon, season, terms, unfitted, progress)
    for roll in forecast(engine, blocks, horizon, scales=intervals is not None):
        gathered.add(roll)
    if intervals is not None:
        notes.extend(intervals.notes())
    for method, count in (+unfitted).items():
        of_all = f"{count} of {len(series) * len(panel.features)} series"
        notes.append(f"{in_words(method)} could not be fitted to {of_all}: the last value stands in for it there")
    return Outcome(
        metadata=engine.metadata,
        panel=panel,
        horizon=horizon,
        season=season,
        own_past=terms.own_past,
        mase_season=terms.mase_season or season,
        origins=tuple(origins),
        points=gathered.points,
        intervals=intervals.tally if intervals is not None and intervals.tally.points else None,
        examples=tuple(gathered.examples),
        by_origin={method: np.concatenate(held) for method, held in gathered.by_origin.items()},
        notes=tuple(notes),
    )


class _Gathered:
    """What is kept of the rolls as they pass."""

    def __init__(self, panel: Panel, origins: list[Origins], intervals: "_Intervals | None", horizon: int) -> None:
        self.points: dict[str, PointTally] = {}
        self.examples: list[Example] = []
        self.by_origin: dict[str, list[Values]] = {}
        self._places = {one: place for place, one in enumerate(panel.series)}
        self._intervals = intervals
        self._horizon = horizon
        self._seen = 0
        total = sum(len(held) for held in origins)
        self._shown = np.unique(np.linspace(0, total - 1, _EXAMPLES).round().astype(np.int64))

    def add(self, roll: Roll) -> None:
        place = self._places[roll.series]
        for method, forecasts in roll.forecasts.items():
            tally = self.points.setdefault(method, PointTally(len(self._places), self._horizon))
            tally.add(place, roll.actual, forecasts, roll.spread)
            if len(self._places) == 1:
                errors = np.abs(roll.actual - forecasts).mean(axis=(1, 2))
                self.by_origin.setdefault(method, []).append(errors)
        shown = [int(index) for index in self._shown - self._seen if 0 <= index < len(roll.origins)]
        bounds = {} if self._intervals is None else self._intervals.add(place, roll, shown)
        self.examples += [self._example(roll, index, bounds.get(index, {})) for index in shown]
        self._seen += len(roll.origins)

    def _example(self, roll: Roll, index: int, bounds: Bounds) -> Example:
        return Example(
            series=roll.series,
            origin=int(roll.origins[index]),
            actual=roll.actual[index],
            forecasts={method: held[index] for method, held in roll.forecasts.items()},
            bounds=bounds,
        )


class _Intervals:
    """Intervals around the forecasts as they pass, from the errors of windows' own pasts, or from the artifact's."""

    def __init__(self, tally: IntervalTally, table: TableErrors | None, own: OwnErrors | None) -> None:
        self.tally = tally
        self._table = table
        self._own = own
        self._from_own = self._from_table = self._without = 0

    def add(self, series: int, roll: Roll, shown: list[int]) -> dict[int, Bounds]:
        """Count the intervals of a roll, and return the bounds at the places to be shown."""
        if roll.scale is None:
            self._without += len(roll.origins)
            return {}
        known = np.zeros(len(roll.origins), dtype=np.bool_)
        found: dict[int, Bounds] = {}
        if self._own is not None:
            known, reach = self._own.reach(roll)
            self._from_own += int(known.sum())
            found |= self._count(series, roll, np.flatnonzero(known), reach, shown)
        others = np.flatnonzero(~known)
        if self._table is None:
            self._without += len(others)
        elif len(others):
            self._from_table += len(others)
            found |= self._count(series, roll, others, self._table.reach(roll.scale[others]), shown)
        return found

    def notes(self) -> list[str]:
        """What the intervals rest on, where not all on the artifact's errors."""
        notes = []
        if self._own is not None:
            others = f", the others from the model's error table: {self._from_table:,}" if self._from_table else ""
            notes.append(f"intervals from the errors of windows' own pasts: {self._from_own:,} origins{others}")
        if self._without:
            notes.append(f"no intervals were scored at {self._without:,} origins, for want of errors")
        return notes

    def _count(
        self, series: int, roll: Roll, rows: npt.NDArray[np.intp], reach: Reach, shown: list[int]
    ) -> dict[int, Bounds]:
        if not len(rows):
            return {}
        forecasts = roll.forecasts[MODEL][rows]
        self.tally.add(series, roll.actual[rows], forecasts, roll.spread[rows], reach)
        places = {int(row): at for at, row in enumerate(rows) if row in shown}
        if not places:
            return {}
        held = self.tally.bounds(forecasts, reach)
        return {
            row: {level: (lower[at], upper[at]) for level, (lower, upper) in held.items()} for row, at in places.items()
        }


def _blocks(
    panel: Panel,
    origins: list[Origins],
    horizon: int,
    season: int | None,
    terms: Terms,
    unfitted: Counter[str],
    progress: Callable[[int, int], None],
) -> Iterator[Block]:
    """The origins of every series in blocks of bounded size, with references fitted before the first of them."""
    size = max(1, _BLOCK // (horizon * len(panel.features)))
    for place, (one, held) in enumerate(zip(panel.series, origins, strict=True)):
        progress(place, len(panel.series))
        start = int(held[0])
        past = one.values[: start + 1]
        rules = _rules(past, season, horizon, terms.references, unfitted)
        lag = terms.mase_season or season
        fixed = seasonal_spread(past, lag)[None]
        for first in range(0, len(held), size):
            part = held[first : first + size]
            spread = spread_before(one.values, part, lag) if terms.own_past else fixed
            yield Block(series=one, origins=part, start=start, rules=rules, spread=spread)
    progress(len(panel.series), len(panel.series))


def _rules(
    past: Values, season: int | None, horizon: int, asked: tuple[str, ...], unfitted: Counter[str]
) -> dict[str, Rule]:
    rules = naive_rules(season)
    if season is not None:
        rules[NAIVE2] = partial(_naive2, season)
    rules[MOVING_AVERAGE] = partial(_average, best_average(past, season, horizon))
    rules[DRIFT] = drift
    rules[AUTOREGRESSION] = autoregression(past, season)
    if asked:
        # statsmodels takes a second to import: not before it is asked for
        from training.statistical import rule_of

        for method in asked:
            rules[method] = rule_of(method, past, season, unfitted)
    return rules


def _naive2(season: int, values: Values, origins: Origins, horizon: int) -> Forecasts:
    return naive2(values, origins, horizon, season)


def _average(length: int, values: Values, origins: Origins, horizon: int) -> Forecasts:
    return moving_average(values, origins, horizon, length)


def _check_features(metadata: Metadata, panel: Panel, source: str) -> None:
    wanted, found = metadata.features, panel.features
    if len(wanted) != len(found):
        raise DataError(
            f"{source}: the model forecasts {_counted(wanted)}, but the data have {_counted(found)}: name as many "
            f"columns with --target"
        )
    if wanted != found and sorted(wanted) == sorted(found):
        raise DataError(f"{source}: name the columns in the model's order: --target {' '.join(wanted)}")


def _counted(features: tuple[str, ...]) -> str:
    more = ", …" if len(features) > _NAMED else ""
    return f"{len(features)} feature{'s' * (len(features) > 1)} ({', '.join(features[:_NAMED])}{more})"


def _horizon(metadata: Metadata, season: int | None) -> int:
    if metadata.backtest is not None:
        return metadata.backtest.horizon
    return season or _USUAL_HORIZON


def _test_steps(metadata: Metadata, rows: int, horizon: int) -> int:
    """Steps of the test part of a series, as the model was fitted with."""
    told = metadata.training.configuration.get("data")
    data = told if isinstance(told, dict) else {}
    share, steps = data.get("test_share"), data.get("test_steps")
    usual = Data.model_fields["test_share"].default
    return part_length(
        rows,
        horizon,
        share if isinstance(share, float) and 0 < share < 0.5 else usual,
        steps if isinstance(steps, int) and steps > 0 else None,
    )


def _origins(
    engine: Engine,
    panel: Panel,
    terms: Terms,
    horizon: int,
    source: str,
    *,
    skip_short: bool,
    notes: list[str],
) -> tuple[tuple[Series, ...], list[Origins]]:
    """The series that are long enough, and the origins of each."""
    least, kept = engine.minimum_window, []
    short: list[Series] = []
    for one in panel.series:
        first, last = _first_and_last(engine.metadata, len(one.values), terms, horizon)
        if last >= first >= least - 1:
            kept.append((one, first, last))
        else:
            short.append(one)
    if short and not (kept and skip_short):
        raise DataError(_too_short(source, panel, short, terms, horizon, least))
    if short:
        notes.append(f"{len(short)} of {len(panel.series)} series were left out, because they are too short")
    stride = terms.stride or 1
    if terms.origins is None and terms.stride is None:
        season = panel.season if min(first for _, first, _ in kept) + 1 >= (panel.season or 0) else None
        stride = stride_of([last - first + 1 for _, first, last in kept], season)
    origins = [np.arange(first, last + 1, stride) for _, first, last in kept]
    notes.append(_placed(origins, stride, horizon))
    return tuple(one for one, _, _ in kept), origins


def _first_and_last(metadata: Metadata, rows: int, terms: Terms, horizon: int) -> tuple[int, int]:
    last = rows - horizon - 1
    if terms.origins is not None:
        return last - (terms.origins - 1) * (terms.stride or 1), last
    return rows - _test_steps(metadata, rows, horizon) - 1, last


def _placed(origins: list[Origins], stride: int, horizon: int) -> str:
    most = max(len(held) for held in origins)
    total = sum(len(held) for held in origins)
    of_each = f", at most {most} of each series" if len(origins) > 1 else ""
    apart = f", {stride} steps apart" if most > 1 and stride > 1 else ""
    count = "1 origin" if total == 1 else f"{total:,} origins"
    return f"{count}{of_each}{apart}, each scored over {horizon} step{'s' * (horizon > 1)}"


def _too_short(source: str, panel: Panel, short: list[Series], terms: Terms, horizon: int, least: int) -> str:
    rows = min(len(one.values) for one in short)
    mends = ["give more data"]
    need = f"a window of {least} and a horizon of {horizon}"
    if terms.origins is not None and terms.origins > 1:
        need += f" from {terms.origins} origins"
        mends.append("ask for fewer origins (--origins) or closer ones (--stride)")
    if horizon > 1:
        mends.append("score a shorter horizon (--horizon)")
    what = f"too few rows: {rows} steps"
    if len(panel.series) > 1:
        named = ", ".join(repr(one.name) for one in short[:_NAMED])
        more = f" and {len(short) - _NAMED} more" if len(short) > _NAMED else ""
        what = f"too short: {named}{more}, {len(short)} of {len(panel.series)} series, down to {rows} steps"
        mends.append("leave the short series out (--skip-short)")
    steps = least + horizon + ((terms.origins or 2) - 1) * (terms.stride or 1)
    return f"{source}: {what}, but {need} need {steps}: {', or '.join(mends)}"


def _note_fitted_part(
    metadata: Metadata, panel: Panel, series: tuple[Series, ...], origins: list[Origins], notes: list[str]
) -> None:
    """Say whether the model has seen what it is scored on, as far as its metadata tell."""
    digest = metadata.training.data_digest
    if digest is None or metadata.backtest is None:
        return
    if digest not in (panel.digest, _digest_when_fitted(metadata, panel)):
        notes.append("the data are not those of the model's training run; whether both overlap is not known")
        return
    fitted = [len(one.values) - _test_steps(metadata, len(one.values), metadata.backtest.horizon) for one in series]
    seen = sum(int((held < end - 1).sum()) for held, end in zip(origins, fitted, strict=True))
    if seen:
        notes.append(f"{seen:,} origins lie before the test part of the training run: fitting has seen their data")


def _digest_when_fitted(metadata: Metadata, panel: Panel) -> str | None:
    """The digest of those series that the model's fitting would not have left out; None where it would take none."""
    try:
        config = Config.model_validate(metadata.training.configuration)
        series = long_enough("", panel.series, panel.season, config, [])
    except (ValidationError, DataError):
        return None
    return digest_of(series, panel.features, (*panel.calendar, *panel.exogenous))


def _intervals(engine: Engine, terms: Terms, series: int, horizon: int, notes: list[str]) -> _Intervals | None:
    metadata = engine.metadata
    table = metadata.errors
    own = terms.basis == "window"
    if table is None and not own:
        if terms.levels:
            raise DataError(
                "--levels: the model has no error table to take intervals from; leave --levels away, or take them from "
                "the windows' own pasts with --basis window"
            )
        notes.append("the model has no error table: no intervals were scored")
        return None
    levels = _levels(MOST_ORIGINS if own or table is None else len(table.array), terms.levels, notes)
    if not levels:
        return None
    reach = horizon if own or table is None else min(horizon, len(table.errors[0]))
    if reach < horizon:
        notes.append(f"intervals end at {reach} steps, as the model's error table does")
    # Beside a window's own errors the table serves where it supports the same: all levels, at all lead times.
    serves = table is not None and len(table.array) >= fewest_errors(max(levels)) and len(table.errors[0]) >= reach
    return _Intervals(
        IntervalTally(levels, series, reach, non_negative=metadata.non_negative),
        TableErrors(table, levels, reach, logarithms=metadata.logarithms) if table is not None and serves else None,
        OwnErrors(engine, levels, horizon) if own else None,
    )


def _levels(errors: int, asked: tuple[float, ...] | None, notes: list[str]) -> list[float]:
    unsupported = [level for level in asked or _USUAL_LEVELS if errors < fewest_errors(level)]
    if asked and unsupported:
        most = highest_level(errors)
        raise DataError(f"--levels: {errors} errors of each lead time support at most {most:g} %; ask for lower levels")
    notes.extend(f"the model's {errors} errors of each lead time do not support {level:g} %" for level in unsupported)
    return sorted(set(asked or _USUAL_LEVELS) - set(unsupported))


def check(terms: Terms) -> None:
    """Refuse what no backtest can be asked for.

    Raises:
        DataError: a number is below 1, or a level is none.
    """
    numbers = {
        "--horizon": terms.horizon,
        "--origins": terms.origins,
        "--stride": terms.stride,
        "--mase-season": terms.mase_season,
    }
    for flag, value in numbers.items():
        if value is not None and value < 1:
            raise DataError(f"{flag}: must be at least 1")
    if any(not 0 < level < 100 for level in terms.levels or ()):
        raise DataError("--levels: must be percentages between 0 and 100, such as 80 95")

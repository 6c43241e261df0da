"""What a backtest found as rows to read: on a console, in a report, in a file."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from service.artifact import Scores
from training.backtest import MODEL, in_words
from training.baselines import Values
from training.rolling import Outcome

_LEADS: Final = 8
_SERIES: Final = 5  # of the best and of the worst each


@dataclass(frozen=True)
class MethodRow:
    """One method over all series: scores one step ahead and over the horizon, OWA, skill, and if it is the best."""

    method: str
    name: str
    near: Scores
    far: Scores
    owa: float | None
    skill: float | None
    best: bool


@dataclass(frozen=True)
class LeadRow:
    """One lead time: MAE of the model, of the better naive reference and of the best reference; coverage by level."""

    lead: int
    model: float
    naive: float
    best: float
    best_name: str
    coverage: dict[float, float]


@dataclass(frozen=True)
class SeriesRow:
    """One series: MAE of the model and of the better naive reference, skill, MASE; coverage by level."""

    name: str
    model: float
    naive: float
    skill: float | None
    mase: float | None
    coverage: dict[float, float]


def method_rows(outcome: Outcome) -> list[MethodRow]:
    """The model first, then the references."""
    scores = outcome.scores
    lowest = min(held.mae for held in scores.values())
    return [
        MethodRow(
            method=method,
            name=in_words(method),
            near=tally.at(1),
            far=scores[method],
            owa=outcome.owa(method),
            skill=outcome.skill(method),
            best=scores[method].mae == lowest,
        )
        for method, tally in outcome.points.items()
    ]


def lead_rows(outcome: Outcome) -> list[LeadRow]:
    """At most eight lead times, closer together near the origin."""
    if outcome.horizon <= _LEADS:
        leads = np.arange(1, outcome.horizon + 1)
    else:
        leads = np.unique(np.geomspace(1, outcome.horizon, _LEADS).round().astype(int))
    rows = []
    for lead in map(int, leads):
        errors = {method: tally.at(lead).mae for method, tally in outcome.points.items()}
        own = errors.pop(MODEL)
        best = min(errors, key=errors.__getitem__)
        coverage = {}
        if outcome.intervals is not None and lead <= outcome.intervals.horizon:
            coverage = {level: outcome.intervals.at(level, lead).coverage for level in outcome.intervals.levels}
        rows.append(LeadRow(lead, own, errors[outcome.reference], errors[best], in_words(best), coverage))
    return rows


def series_rows(outcome: Outcome) -> tuple[list[SeriesRow], list[SeriesRow]]:
    """The series of the highest and of the lowest skill, at most five each, none of them twice."""
    skills = outcome.skill_by_series()
    order = np.argsort(np.nan_to_num(skills, nan=-np.inf))[::-1]
    half = min(_SERIES, len(order) // 2)
    highest = [_series_row(outcome, int(place), skills) for place in order[:half]]
    lowest = [_series_row(outcome, int(place), skills) for place in order[len(order) - half :][::-1]]
    return highest, lowest


def frame(outcome: Outcome) -> pd.DataFrame:
    """Every score by method, over all and by lead time and series, in long form."""
    return pd.DataFrame(_records(outcome))


def show(console: Console, outcome: Outcome) -> None:
    """Print the scores and the verdict."""
    over = f"{outcome.horizon} steps" if outcome.horizon > 1 else "1 step"
    metadata = outcome.metadata
    grid = Grid("method", title=f"{metadata.name}, version {metadata.version}: {outcome.total:,} origins, over {over}")
    for heading in ("MAE, 1 step", "MAE", "RMSE", "sMAPE, %", "MASE", "OWA", "skill"):
        grid.add_column(heading, justify="right")
    for row in method_rows(outcome):
        cells = [row.near.mae, row.far.mae, row.far.rmse, row.far.smape, row.far.mase]
        style = "bold" if row.method == MODEL else ""
        grid.add_row(row.name, *map(number, cells), _fixed(row.owa), share(row.skill), style=style)
    console.print(grid)
    _show_intervals(console, outcome)
    _show_leads(console, outcome)
    _show_series(console, outcome)
    console.print(Text(outcome.verdict))


def number(value: float | None) -> str:
    """A number in four digits, without powers of ten."""
    if value is None:
        return "–"
    return f"{value:.4g}" if abs(value) < 9999.5 else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share as a signed percentage."""
    if value is None or not np.isfinite(value):
        return "–"
    percent = round(100 * value, 1)
    return f"{percent:+.1f} %".replace("-", "−") if percent else "0.0 %"


def _fixed(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _show_intervals(console: Console, outcome: Outcome) -> None:
    tally = outcome.intervals
    if tally is None or not tally.levels:
        return
    grid = Grid("level", title="intervals")
    for heading in ("coverage", "mean width", "interval score", "MSIS"):
        grid.add_column(heading, justify="right")
    for held in tally.over_all():
        cells = (f"{held.coverage:.1f} %", number(held.width), number(held.score), number(held.msis))
        grid.add_row(f"{held.level:g} %", *cells)
    console.print(grid)
    loss = tally.weighted_quantile_loss
    beside = "" if loss is None else f", {number(loss)} of the mean absolute value"
    console.print(Text(f"CRPS from nine quantiles: {number(tally.crps)}{beside}"))


def _show_leads(console: Console, outcome: Outcome) -> None:
    if outcome.horizon == 1:
        return
    grid = Grid("lead time", title="mean absolute error by lead time")
    levels = outcome.intervals.levels if outcome.intervals is not None else ()
    for heading in ("model", in_words(outcome.reference), "best reference", *(f"in {level:g} %" for level in levels)):
        grid.add_column(heading, justify="right")
    for row in lead_rows(outcome):
        best = f"{number(row.best)} {row.best_name}"
        cells = [number(row.model), number(row.naive), best]
        grid.add_row(str(row.lead), *cells, *_covered_in(row.coverage, levels))
    console.print(grid)


def _show_series(console: Console, outcome: Outcome) -> None:
    highest, lowest = series_rows(outcome)
    if not highest:
        return
    grid = Grid("series", title="series of the highest and of the lowest skill")
    levels = outcome.intervals.levels if outcome.intervals is not None else ()
    for heading in ("MAE", in_words(outcome.reference), "MASE", "skill", *(f"in {level:g} %" for level in levels)):
        grid.add_column(heading, justify="right")
    for rows in (highest, lowest):
        for row in rows:
            cells = [number(row.model), number(row.naive), number(row.mase), share(row.skill)]
            grid.add_row(Text(row.name), *cells, *_covered_in(row.coverage, levels))
        grid.add_section()
    console.print(grid)


def _covered_in(coverage: Mapping[float, float], levels: Iterable[float]) -> list[str]:
    return [f"{coverage[level]:.1f} %" if level in coverage else "–" for level in levels]


def _series_row(outcome: Outcome, place: int, skills: Values) -> SeriesRow:
    own = outcome.points[MODEL].of(place)
    coverage = {}
    if outcome.intervals is not None:
        coverage = {held.level: held.coverage for held in outcome.intervals.of(place)}
    return SeriesRow(
        name=outcome.panel.series[place].name,
        model=own.mae,
        naive=outcome.points[outcome.reference].of(place).mae,
        skill=float(skills[place]) if np.isfinite(skills[place]) else None,
        mase=own.mase,
        coverage=coverage,
    )


def _records(outcome: Outcome) -> Iterator[dict[str, object]]:
    for method, tally in outcome.points.items():
        part: dict[str, object] = {"method": method, "series": "", "lead_time": None}
        yield part | _flat(tally.over_all()) | {"owa": outcome.owa(method)} | _covered(outcome, method)
        for lead in range(1, outcome.horizon + 1):
            yield part | {"lead_time": lead} | _flat(tally.at(lead)) | _covered(outcome, method, lead=lead)
        for place, one in enumerate(outcome.panel.series):
            yield part | {"series": one.name} | _flat(tally.of(place)) | _covered(outcome, method, place=place)


def _flat(scores: Scores) -> dict[str, object]:
    return {"mae": scores.mae, "rmse": scores.rmse, "smape": scores.smape, "mase": scores.mase}


def _covered(outcome: Outcome, method: str, *, lead: int | None = None, place: int | None = None) -> dict[str, object]:
    tally = outcome.intervals
    if tally is None or method != MODEL or (lead is not None and lead > tally.horizon):
        return {}
    if place is not None:
        crps, scores = tally.crps_of(place), tally.of(place)
    elif lead is not None:
        crps, scores = float(tally.crps_by_lead()[lead - 1]), [tally.at(level, lead) for level in tally.levels]
    else:
        crps, scores = tally.crps, tally.over_all()
    found: dict[str, object] = {"crps": crps}
    for held in scores:
        name = f"{held.level:g}"
        found |= {f"coverage_{name}": held.coverage, f"interval_score_{name}": held.score, f"msis_{name}": held.msis}
    return found

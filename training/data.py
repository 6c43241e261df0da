"""Reading: from a table to checked series on a regular grid of steps."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from service.calendar import Moments, calendar_of
from training.config import Config, Data
from training.errors import DataError
from training.grid import Grid, Group, group_rows, lay, refuse_long_gaps
from training.panel import NAMED, Panel, Series, listed
from training.parts import long_enough, suited
from training.table import Table, suggestion
from training.timeline import (
    Business,
    Counted,
    Spacing,
    Times,
    in_words,
    infer_spacing,
    looks_like_dates,
    read_times,
    season_of,
    spacing_of,
)

_ENUMERATED: Final = re.compile(r"([A-Za-z_]{0,8})(\d{1,5})")
_WIDE_COLUMNS: Final = 12
_WIDE: Final = (
    "The table looks wide, with one series in each row and its steps as columns: make it long, one row per series and "
    "step, for example with pandas.melt, and name the columns with --series, --time and --target"
)


def read_panel(table: Table, config: Config) -> Panel:
    """Make checked series on a regular grid of steps from a table in long form.

    Short gaps are filled linearly; leading and trailing steps at which a feature has no value are cut off.

    Raises:
        DataError: a column is missing or is not what it must be, times repeat or are uneven, a gap is longer than the
            limit, or a series is constant or too short.
    """
    read = _read(table, config.data)
    notes, season = read.notes, read.season
    usual, config = config, suited(config, min(len(one.values) for one in read.series), season)
    if config is not usual:
        notes.append(
            f"context {config.network.context_length}: the data are short for the usual "
            f"{usual.network.context_length} (--context sets it)"
        )
    if season is not None and season >= config.network.context_length:
        notes.append(
            f"the context of {config.network.context_length} steps holds no whole season (--context widens it)"
        )
    panel = _panel(table, config.data, read, long_enough(table.source, read.series, season, config, notes))
    refuse_constant(table.source, panel.series, panel.features)
    _refuse_what_cannot_be_scaled(table.source, panel, config)
    return panel


def read_any_length(table: Table, data: Data) -> Panel:
    """Make series of a table as `read_panel` does, however short they are, and whether or not they change.

    Raises:
        DataError: as `read_panel`, but for series that are constant or too short.
    """
    read = _read(table, data)
    return _panel(table, data, read, read.series)


def digest_of(series: tuple[Series, ...], features: tuple[str, ...], known: tuple[str, ...]) -> str:
    """SHA-256 of names, times and values, and of what is known beforehand."""
    digest = hashlib.sha256("\x1f".join(features).encode())
    if known:
        digest.update(f"\x1d{chr(31).join(known)}".encode())
    for one in series:
        digest.update(f"\x1e{one.name}\x1f{one.values.shape}".encode())
        if one.times is not None:
            digest.update(np.asarray(one.times.as_unit("us").asi8, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(one.values, dtype="<f8").tobytes())
        if one.known is not None:
            digest.update(np.ascontiguousarray(one.known, dtype="<f4").tobytes())
    return f"sha256:{digest.hexdigest()}"


def refuse_constant(source: str, series: tuple[Series, ...], features: tuple[str, ...]) -> None:
    """Make sure that there is something to learn from series, and to scale their errors by.

    Raises:
        DataError: a feature of one never changes.
    """
    constant = [
        f"column {feature!r}" + (f" of series {one.name!r}" if len(series) > 1 else "")
        for one in series
        for feature, column in zip(features, one.values.T, strict=True)
        if np.ptp(column.astype(np.float32)) == 0
    ]
    if constant:
        more = f" and {len(constant) - NAMED} more" if len(constant) > NAMED else ""
        raise DataError(
            f"{source}: {', '.join(constant[:NAMED])}{more}: constant, the value never changes and there is nothing "
            f"to learn; leave it out"
        )


@dataclass(frozen=True)
class _Reading:
    """What a table holds, before it is known to be enough."""

    targets: tuple[str, ...]
    time: str | None
    spacing: Spacing
    season: int | None
    series: tuple[Series, ...]
    notes: list[str]


def _read(table: Table, data: Data) -> _Reading:
    notes: list[str] = []
    _refuse_wide(table, data)
    targets = _targets(table, data, notes)
    columns = (*targets, *data.exogenous)
    values = np.column_stack([table.numbers(column) for column in columns])
    _note_placeholders(table, columns, notes)
    _refuse_without_values(table, columns, values)
    time = _time_column(table, data, targets, notes)
    _refuse_calendar(table, data, time)
    times = None if time is None else read_times(table, time)
    if times is not None:
        found = "" if data.time else "; taken because no other holds times"
        notes.append(f"time: column {time!r}, {times.note}{found}")
    groups = group_rows(table, data.series, times)
    spacing = _spacing(table, data, times, groups, notes)
    _refuse_calendar_of(table, data, times, spacing)
    season = _season(data, spacing, notes)
    grids = _grids(table, columns, values, times, groups, spacing, data.fill_limit, notes)
    series = tuple(_one_series(grid, targets, times, data) for grid in grids)
    _note_known(data, notes)
    return _Reading(targets, time, spacing, season, series, notes)


def _panel(table: Table, data: Data, read: _Reading, series: tuple[Series, ...]) -> Panel:
    _refuse_constant_exogenous(table.source, series, data)
    notes = [*read.notes, _count(series, read.targets)]
    used = (*read.targets, *data.exogenous, data.series, read.time)
    if unread := [str(name) for name in table.frame.columns if name not in used]:
        notes.append(f"columns not read: {listed(unread)}")
    digest = digest_of(series, read.targets, (*data.calendar, *data.exogenous))
    return Panel(
        series, read.targets, read.spacing.code, read.season, tuple(notes), digest, data.calendar, data.exogenous
    )


def _refuse_wide(table: Table, data: Data) -> None:
    if data.time is None and data.series is None and _is_wide(table):
        raise DataError(f"{table.source}: wide data are not read. {_WIDE}")


def _is_wide(table: Table) -> bool:
    """Whether most of the columns are named like the steps of one series: V1, V2, V3, … or dates."""
    names = [str(name) for name in table.frame.columns]
    dated = pd.to_datetime(pd.Series(names, dtype="str"), format="ISO8601", errors="coerce").notna()
    if dated.sum() >= 3 and dated.mean() > 0.5:
        return True
    found = [match for name in names if (match := _ENUMERATED.fullmatch(name))]
    numbers = sorted({int(match[2]) for match in found})
    without_holes = len(numbers) == len(found) and bool(numbers) and numbers[-1] - numbers[0] < 2 * len(numbers)
    return len(found) > _WIDE_COLUMNS and len(found) > 0.8 * len(names) and without_holes


def _targets(table: Table, data: Data, notes: list[str]) -> tuple[str, ...]:
    for name in (*data.target, *data.exogenous, data.time, data.series):
        if name is not None and name not in table.frame.columns:
            wide = f". {_WIDE}" if _is_wide(table) else ""
            raise DataError(f"{table.source}: there is no column {name!r}{suggestion(name, table.frame.columns)}{wide}")
    if data.time is not None and data.time == data.series:
        raise DataError(f"column {data.time!r} cannot be the time and the series at once")
    for name in data.target:
        if data.target.count(name) > 1:
            raise DataError(f"the target {name!r} is named twice")
        if name in (data.time, data.series):
            raise DataError(f"column {name!r} cannot be a target and the time or the series at once")
    for name in data.exogenous:
        if data.exogenous.count(name) > 1:
            raise DataError(f"the exogenous column {name!r} is named twice")
        if name in (*data.target, data.time, data.series):
            raise DataError(f"column {name!r} cannot be exogenous and a target, the time or the series at once")
    return data.target or (_only_target(table, data, notes),)


def _only_target(table: Table, data: Data, notes: list[str]) -> str:
    others = [str(name) for name in table.frame.columns if name not in (*data.exogenous, data.time, data.series)]
    numeric = [name for name in others if _is_numeric(table, name) and not looks_like_dates(table, name)]
    if len(numeric) != 1:
        found = f"of {listed(numeric)}" if numeric else "but no column holds numbers only"
        raise DataError(f"{table.source}: name the columns to forecast with --target, {found}")
    notes.append(f"target {numeric[0]!r}: the only column of numbers")
    return numeric[0]


def _is_numeric(table: Table, name: str) -> bool:
    try:
        return not bool(np.isnan(table.numbers(name)).all())
    except DataError:
        return False


def _note_placeholders(table: Table, targets: tuple[str, ...], notes: list[str]) -> None:
    found = sum((table.placeholders(target) for target in targets), Counter[str]())
    if found:
        words = " or ".join(repr(word) for word, _ in found.most_common(2))
        notes.append(f"cells taken as missing values: {found.total():,}, such as {words}")


def _refuse_without_values(table: Table, columns: tuple[str, ...], values: npt.NDArray[np.float64]) -> None:
    for name, column in zip(columns, values.T, strict=True):
        if np.isnan(column).all():
            raise DataError(f"{table.source}: column {name!r} holds no value at all; name another with --target")


def _time_column(table: Table, data: Data, targets: tuple[str, ...], notes: list[str]) -> str | None:
    """The column named, else the only one that holds times, else none."""
    if data.time is not None:
        return data.time
    others = [str(column) for column in table.frame.columns if column not in (*targets, *data.exogenous, data.series)]
    dated = [column for column in others if looks_like_dates(table, column)]
    if len(dated) > 1:
        raise DataError(f"{table.source}: several columns hold times ({listed(dated)}): name one with --time")
    if not dated:
        notes.append("no time column: the rows were taken as successive steps, in the order of the file")
        return None
    return dated[0]


def _spacing(table: Table, data: Data, times: Times | None, groups: list[Group], notes: list[str]) -> Spacing:
    """How far apart the steps lie."""
    given = data.frequency
    if given is not None:
        checked = times is not None and times.dates
        notes.append(f"frequency {in_words(given)}: as given" + ("" if checked else "; no dates to check it by"))
        if checked:
            return spacing_of(given)
    if times is None:
        return Counted(1, given)
    if max(len(group.rows) for group in groups) < 3:
        raise DataError(f"{table.source}: too few rows: no series has more than 2; many more are needed")
    spacing = infer_spacing([group.keys for group in groups], dates=times.dates)
    if spacing is None:
        raise DataError(
            f"{table.source}: the times are uneven, no spacing holds for half of the steps: bring the data to even "
            f"steps first, for example with pandas' resample, or name the spacing with --frequency"
        )
    if isinstance(spacing, Business):
        notes.append(
            "working days: weekends and holidays are no gaps, the rows were taken as successive steps and forecasts "
            "have no frequency (--frequency D fills the weekends instead)"
        )
    elif isinstance(spacing, Counted):
        return Counted(spacing.length, given)
    else:
        notes.append(f"frequency {in_words(str(spacing.code))}: inferred from the time column")
    return spacing


def _season(data: Data, spacing: Spacing, notes: list[str]) -> int | None:
    season = data.season or (5 if isinstance(spacing, Business) else season_of(spacing.code))
    if season is None:
        notes.append("no season is known (--season names one)")
    else:
        source = "a working week" if isinstance(spacing, Business) else "inferred from the frequency"
        notes.append(f"season {season}: {source if data.season is None else 'as given'}")
    return season


def _refuse_calendar(table: Table, data: Data, time: str | None) -> None:
    for field in data.calendar:
        if data.calendar.count(field) > 1:
            raise DataError(f"the calendar's {field!r} is named twice")
    if data.calendar and time is None:
        raise DataError(f"{table.source}: --calendar reads a time column, and there is none: name it with --time")


def _refuse_calendar_of(table: Table, data: Data, times: Times | None, spacing: Spacing) -> None:
    if not data.calendar:
        return
    if times is None or not times.dates:
        raise DataError(f"{table.source}: --calendar reads dates, and the time column counts steps: leave it away")
    if spacing.code is None:
        raise DataError(
            f"{table.source}: --calendar needs steps of one frequency, which working days have not: leave it away, or "
            f"fill the weekends with --frequency D"
        )


def _note_known(data: Data, notes: list[str]) -> None:
    known = [f"the calendar's {field}" for field in data.calendar] + [f"column {name!r}" for name in data.exogenous]
    if known:
        notes.append(f"known beforehand: {', '.join(known)}")


def _one_series(grid: Grid, targets: tuple[str, ...], times: Times | None, data: Data) -> Series:
    """A series of a grid whose values are the targets and then the exogenous columns."""
    filled = grid.interpolated()
    values, exogenous = filled[:, : len(targets)], filled[:, len(targets) :]
    known = None
    if data.calendar or data.exogenous:
        calendar = calendar_of(_clock(grid, times), data.calendar)
        known = np.concatenate((calendar, exogenous.astype(np.float32)), axis=1)
    return Series(grid.group.name or ", ".join(targets), values, grid.times, known)


def _clock(grid: Grid, times: Times | None) -> Moments:
    """What the local clock showed at each step, where the table tells; steps that it lacks go by the row before."""
    if grid.times is None or times is None:
        return np.zeros(len(grid.values), "datetime64[s]")
    shown: Moments = grid.times.to_numpy().astype("datetime64[us]")
    if times.offsets is None:
        return shown
    latest = np.maximum.accumulate(np.where(grid.rows >= 0, np.arange(len(grid.rows)), 0))
    offsets = times.offsets[grid.rows[latest]].astype("timedelta64[us]")
    local: Moments = shown + offsets
    return local


def _grids(
    table: Table,
    columns: tuple[str, ...],
    values: npt.NDArray[np.float64],
    times: Times | None,
    groups: list[Group],
    spacing: Spacing,
    limit: int,
    notes: list[str],
) -> list[Grid]:
    grids = [lay(table, values, group, spacing) for group in groups]
    refuse_long_gaps(table, columns, times, grids, limit)
    if times is not None and any(np.any(np.diff(group.rows) < 0) for group in groups):
        notes.append("the rows were not in order of time, and were sorted")
    if cut := sum(grid.cut for grid in grids):
        notes.append(f"{cut:,} steps without a value were cut off at the beginning or the end")
    if missing := sum(grid.missing for grid in grids):
        notes.append(f"{missing:,} missing values were filled linearly, in gaps of at most {limit} steps")
    return grids


def _refuse_what_cannot_be_scaled(source: str, panel: Panel, config: Config) -> None:
    network = config.network
    if network.scaling == "season" and network.lags == "season" and panel.season is None:
        raise DataError(
            f"{source}: network.scaling = 'season' needs a season, and none is known: name it with --season"
        )
    if network.transform == "log":
        for one in panel.series:
            for feature, column in zip(panel.features, one.values.T, strict=True):
                if (low := float(column.min())) <= 0:
                    place = f" of series {one.name!r}" if len(panel.series) > 1 else ""
                    raise DataError(
                        f"{source}: column {feature!r}{place} goes down to {low:g}, and network.transform = 'log' "
                        f"needs values above zero throughout: leave the key away, or the series out"
                    )


def _refuse_constant_exogenous(source: str, series: tuple[Series, ...], data: Data) -> None:
    for place, name in enumerate(data.exogenous, start=len(data.calendar)):
        columns = [one.known[:, place] for one in series if one.known is not None]
        if min(column.min() for column in columns) == max(column.max() for column in columns):
            raise DataError(f"{source}: the exogenous column {name!r} is constant and tells nothing; leave it out")


def _count(series: tuple[Series, ...], targets: tuple[str, ...]) -> str:
    observations = f"{sum(len(one.values) for one in series):,} steps"
    of_series = f"{len(series)} series, {observations}" if len(series) > 1 else observations
    return of_series + (f" of {len(targets)} features" if len(targets) > 1 else "")

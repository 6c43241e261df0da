"""Rows laid on the grid of steps of their series: sorted, without repeats, gaps found, short ones filled."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.errors import DataError
from training.table import Table, as_text
from training.timeline import DAY, Keys, Spacing, Times, stamp

_SPARSEST: Final = 20  # steps per row beyond which a frequency cannot be meant


@dataclass(frozen=True)
class Group:
    """The rows of one series in order of time: their positions in the table, and their keys."""

    name: str
    rows: npt.NDArray[np.intp]
    keys: Keys

    @property
    def of(self) -> str:
        """The series named in a message, where it has a name."""
        return f" of series {self.name!r}" if self.name else ""


@dataclass(frozen=True)
class Grid:
    """One series by steps, from the first to the last at which every feature has a value.

    `values` is (steps, features), NaN where missing; `rows` the table's row of each step, −1 where it has none; `cut`
    counts the steps before and after.
    """

    group: Group
    values: npt.NDArray[np.float64]
    rows: npt.NDArray[np.intp]
    times: pd.DatetimeIndex | None
    cut: int

    @property
    def missing(self) -> int:
        return int(np.count_nonzero(np.isnan(self.values)))

    def interpolated(self) -> npt.NDArray[np.float64]:
        """The values with those missing filled linearly, (steps, features)."""
        complete, steps = self.values.copy(), np.arange(len(self.values))
        for feature in complete.T:
            known = np.isfinite(feature)
            feature[:] = np.interp(steps, steps[known], feature[known])
        return complete


def group_rows(table: Table, series: str | None, times: Times | None) -> list[Group]:
    """The rows of each series in order of time; without a time column, in the order of the table.

    Raises:
        DataError: a row does not name its series, or a series has two rows of one time.
    """
    members = {"": np.arange(len(table.frame))} if series is None else _members(table, series)
    if times is None:
        return [Group(name, rows, np.arange(len(rows))) for name, rows in members.items()]
    groups = []
    for name, rows in members.items():
        order = np.argsort(times.keys[rows], kind="stable")
        groups.append(Group(name, rows[order], times.keys[rows[order]]))
        _refuse_repeats(table, groups[-1], dates=times.dates, named=series is not None)
    return groups


def lay(table: Table, values: npt.NDArray[np.float64], group: Group, spacing: Spacing) -> Grid:
    """Lay the rows of one series, of all the table's values (rows, features), on its grid of steps.

    Raises:
        DataError: a time lies between two steps, two times share one, or no row has a value of every feature.
    """
    steps = _whole_steps(table, group, spacing)
    count = int(steps[-1]) + 1
    laid = np.full((count, values.shape[1]), np.nan)
    laid[steps] = values[group.rows]
    rows = np.full(count, -1, dtype=np.intp)
    rows[steps] = group.rows
    present = np.flatnonzero(np.isfinite(laid).all(axis=1))
    if not len(present):
        raise DataError(f"{table.source}: no row{group.of} has a value in every target column")
    kept = slice(int(present[0]), int(present[-1]) + 1)
    times = spacing.timestamps(group.keys, count)
    return Grid(group, laid[kept], rows[kept], None if times is None else times[kept], count - len(laid[kept]))


def refuse_long_gaps(
    table: Table, targets: tuple[str, ...], times: Times | None, grids: list[Grid], limit: int
) -> None:
    """Refuse runs of missing steps above the limit, naming the place of the first and the length of the longest.

    Raises:
        DataError: there is one.
    """
    gaps = [gap for grid in grids for gap in _gaps(grid, targets) if gap.length > limit]
    if not gaps:
        return
    first, longest = gaps[0], max(gap.length for gap in gaps)
    when = "" if times is None else f" ({stamp(int(times.keys[first.after]), dates=times.dates)})"
    all_gaps = f"{len(gaps)} such gaps, the longest of {longest} steps" if len(gaps) > 1 else "no other such gap"
    raise DataError(
        f"{table.source}: column {first.target!r}{first.group.of}: {first.length} missing steps in a row after "
        f"{table.place(first.after)}{when}, and at most {limit} are filled (there {'are' if len(gaps) > 1 else 'is'} "
        f"{all_gaps}): --fill-limit {longest} fills them linearly, or cut the data to a part without them"
    )


@dataclass(frozen=True)
class _Gap:
    group: Group
    target: str
    after: int  # the table's row that the gap follows
    length: int


def _gaps(grid: Grid, targets: tuple[str, ...]) -> Iterator[_Gap]:
    known = np.maximum.accumulate(np.where(grid.rows >= 0, np.arange(len(grid.rows)), 0))
    for target, feature in zip(targets, np.isnan(grid.values.T), strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], feature, [False]]).astype(np.int8)))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            yield _Gap(grid.group, target, int(grid.rows[known[start - 1]]), int(end - start))


def _members(table: Table, series: str) -> dict[str, npt.NDArray[np.intp]]:
    """The rows of each series, the series in the order in which they come."""
    first, codes = table.first_of_each(series)
    names = as_text(first.frame[series])
    missing = np.flatnonzero(names.eq("").to_numpy(dtype=bool))
    if len(missing):
        raise DataError(
            f"{table.source}: {first.place(int(missing[0]))}, column {series!r}: the name of the series is missing"
        )
    numbers, found = pd.factorize(names)  # cells that differ by spaces alone name one series
    codes = numbers[codes]
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(found)))
    return dict(zip(map(str, found), np.split(order, ends[:-1]), strict=True))


def _refuse_repeats(table: Table, group: Group, *, dates: bool, named: bool) -> None:
    repeats = np.flatnonzero(np.diff(group.keys) == 0)
    if not len(repeats):
        return
    first, second = (table.place(int(group.rows[repeats[0] + offset])) for offset in (0, 1))
    mends = ["keep one of the rows, or combine them"]
    if not named:
        mends.append("if the file holds several series, name the column that tells them apart with --series")
    if dates and np.median(np.diff(group.keys)) < DAY:
        mends.append("if clocks were set back, write times with their offset from UTC")
    raise DataError(
        f"{table.source}: {first} and {second}{group.of} have the same time ({len(repeats)} repeats in all): "
        f"{'; '.join(mends)}"
    )


def _whole_steps(table: Table, group: Group, spacing: Spacing) -> npt.NDArray[np.int64]:
    exact = spacing.steps(group.keys)
    name = "the time column" if spacing.code is None else f"frequency {spacing.code}"
    if exact[-1] > _SPARSEST * len(exact) + 1_000:
        raise DataError(
            f"{table.source}: {name} does not fit{group.of}: {len(exact)} rows would lie among {exact[-1]:.0f} steps; "
            f"give the spacing of the data with --frequency, or cut off what lies far apart"
        )
    steps = np.rint(exact).astype(np.int64)
    between = np.flatnonzero(np.abs(exact - steps) > 1e-6)
    if len(between):
        others = f", as do {len(between) - 1} more" if len(between) > 1 else ""
        raise DataError(
            f"{table.source}: {table.place(int(group.rows[between[0]]))}{group.of} lies between two steps of "
            f"{name}{others}: round the times, bring the data to even steps first, or name another spacing with "
            f"--frequency"
        )
    same = np.flatnonzero(np.diff(steps) == 0)
    if len(same):
        first, second = (table.place(int(group.rows[same[0] + offset])) for offset in (0, 1))
        raise DataError(
            f"{table.source}: {first} and {second}{group.of} fall into the same step of {name}: add them up or average "
            f"them first, or name a finer spacing with --frequency"
        )
    return steps

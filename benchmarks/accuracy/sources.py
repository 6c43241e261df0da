"""The public series that are forecast, read from a folder as their publishers give them; nothing is downloaded.

Two need no file: the lab series of a course is generated, and statsmodels ships the carbon dioxide of Mauna Loa.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from training.datasets import load
from training.errors import DataError
from training.synthetic import lab
from training.table import Table, read_table

M4_STEPS_AHEAD: Final = 48


@dataclass(frozen=True)
class Source:
    """Series that are forecast: how they become a table, and the files and publisher that they come from."""

    title: str
    read: Callable[[Path], Table]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """A file of a publisher's: the names that it goes by, what is in it, and where it comes from."""

    names: tuple[str, ...]
    holds: str
    publisher: str

    def table(self, folder: Path, columns: Sequence[str] = ()) -> Table:
        """The file in a folder.

        Raises:
            DataError: it is not there, cannot be read, or lacks a column; the message says what is expected.
        """
        found = next((folder / name for name in self.names if (folder / name).is_file()), None)
        if found is None:
            raise DataError(f"{folder / self.names[0]}: no such file; {self._expected}")
        table = read_table(found)
        missing = [name for name in columns if name not in table.frame.columns]
        if missing:
            raise DataError(f"{found}: there is no column {missing[0]!r}; {self._expected}")
        return table

    @property
    def _expected(self) -> str:
        also = f" (or {', '.join(self.names[1:])})" if len(self.names) > 1 else ""
        return f"expected is {self.names[0]}{also} with {self.holds}, as published by {self.publisher}"


_M4: Final = tuple(
    _File(
        (f"Hourly-{part}.csv", f"m4_hourly_{part}.csv"),
        f"one series a row: its name, then its values as columns V2, V3, … ({what})",
        "the organisers of the M4 competition (Mcompetitions/M4-methods, Dataset)",
    )
    for part, what in (("train", "the part to fit on"), ("test", f"the {M4_STEPS_AHEAD} hours after it"))
)
_BIRTHS: Final = _File(
    ("us_births_daily_1969_1988.csv", "us_births.csv"),
    "the columns ds (days from 1969-01-01 to 1988-12-31) and births",
    "the National Center for Health Statistics of the United States, both sexes added",
)
_ETTH1: Final = _File(
    ("ETTh1.csv",),
    "the columns date (hours from 2016-07-01) and OT, 17,420 rows",
    "the authors of Informer (zhouhaoyi/ETDataset, ETT-small)",
)
_TEMPERATURES: Final = _File(
    ("daily_min_temperatures.csv", "daily-min-temperatures.csv"),
    "the columns Date (days from 1981-01-01 to 1990-12-31) and Temp",
    "the Australian Bureau of Meteorology, for Melbourne",
)


def m4_hourly(folder: Path) -> Table:
    """M4 Hourly in long form: columns series, step and value, the test part behind the training part.

    Raises:
        DataError: a file is missing or not what the organisers publish, or the two do not hold the same series.
    """
    parts = [_rows(file.table(folder)) for file in _M4]
    names = [frozenset(part) for part in parts]
    if names[0] != names[1]:
        odd = sorted(names[0] ^ names[1])[0]
        raise DataError(f"{folder}: the files {' and '.join(file.names[0] for file in _M4)} differ in series {odd!r}")
    frames = []
    for name, known in parts[0].items():
        ahead = parts[1][name][:M4_STEPS_AHEAD]
        if len(ahead) < M4_STEPS_AHEAD:
            raise DataError(f"{folder}: the test part of series {name!r} has fewer than {M4_STEPS_AHEAD} values")
        values = np.concatenate([known, ahead])
        frames.append(pd.DataFrame({"series": name, "step": np.arange(len(values)), "value": values}))
    return _table(pd.concat(frames, ignore_index=True), "M4 Hourly")


def us_births(folder: Path) -> Table:
    """Births in the United States by day: columns ds and births."""
    return _BIRTHS.table(folder, ("ds", "births"))


def etth1(folder: Path) -> Table:
    """The oil temperature of an electricity transformer by hour: columns date and OT."""
    table = _ETTH1.table(folder, ("date", "OT"))
    return Table(table.frame[["date", "OT"]], table.source, table.unit)


def temperatures(folder: Path) -> Table:
    """Daily minimum temperatures of Melbourne: columns Date and Temp."""
    return _TEMPERATURES.table(folder, ("Date", "Temp"))


def co2(folder: Path) -> Table:
    """Carbon dioxide on Mauna Loa by week: columns date and co2. It comes with statsmodels, whatever the folder."""
    return load("co2")[0]


def lab_series(folder: Path) -> Table:
    """The lab series of the course "Sequences, Time Series and Prediction": columns time and value, generated."""
    return _table(lab(), "lab series")


def _rows(table: Table) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """The series of a wide table by name, each without the empty cells at its end.

    Raises:
        DataError: a cell holds text, or is empty between two that are not.
    """
    first, *others = (str(name) for name in table.frame.columns)
    values = np.column_stack([table.numbers(name) for name in others]) if others else np.empty((len(table.frame), 0))
    found = {}
    for position, (name, row) in enumerate(zip(table.frame[first], values, strict=True)):
        known = np.flatnonzero(~np.isnan(row))
        if not len(known) or known[-1] + 1 != len(known):
            raise DataError(f"{table.source}: {table.place(position)}: a series with a gap, or without values")
        found[str(name).strip()] = row[: len(known)]
    return found


def _table(frame: pd.DataFrame, source: str) -> Table:
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return Table(frame, source, "row")

"""Tables as they are written: CSV and Parquet files, with every cell's place kept for messages."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow

from training.delimited import read_delimited
from training.errors import DataError

_MISSING: Final = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "nat", "-", "?"})

_HEAD: Final = 1 << 16  # bytes that a file is known by
_BLOCK: Final = 1 << 18  # rows whose text is looked at together
_NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?"
_INFINITY: Final = r"[+-]?inf(?:inity)?"
_CURRENCY: Final = "[$¢£¥฿\u20a0-\u20c0]"
_FOREIGN_NUMBER: Final = (  # with a decimal comma, separated thousands or a currency sign: 1.420,24 or $ 1,420.24
    rf"[+-]?(?:{_CURRENCY} ?)?[+-]?(?:\d{{1,3}}(?:[.,'’ \u00a0\u202f]\d{{3}})+|\d+)(?:[.,]\d+)?"
    rf"(?:[ \u00a0\u202f]?{_CURRENCY})?"
)
_LARGEST: Final = 1e30  # far above this, 32-bit floats overflow inside a network


@dataclass(frozen=True)
class Table:
    """Columns as text (CSV) or as typed (Parquet); the frame's index is the number that a person finds a row by."""

    frame: pd.DataFrame
    source: str
    unit: str  # "line" of a text file, "row" of any other table

    def place(self, position: int) -> str:
        """Name the row at a position, such as "line 17"."""
        return f"{self.unit} {self.frame.index[position]}"

    def column(self, name: str) -> pd.Series:
        """One column.

        Raises:
            DataError: there is no such column; the nearest names are suggested.
        """
        if name not in self.frame.columns:
            raise DataError(f"{self.source}: there is no column {name!r}{suggestion(name, self.frame.columns)}")
        return self.frame[name]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """One column as (rows,) numbers, NaN where a value is missing.

        Raises:
            DataError: there is no such column, or it holds text, booleans or infinite values.
        """
        column = self.column(name)
        if pd.api.types.is_bool_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
            raise DataError(f"{self.source}: column {name!r} holds {column.dtype} values, not numbers")
        if pd.api.types.is_numeric_dtype(column):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            values = self._parsed(name, column)
        wrong = np.flatnonzero(np.abs(values) > _LARGEST)
        if len(wrong):
            raise DataError(
                f"{self.source}: {self.place(wrong[0])}, column {name!r}: an infinite or far too large value"
                f"{_others(wrong)}; mend it, or leave the cell empty to have it filled"
            )
        return values

    def placeholders(self, name: str) -> Counter[str]:
        """How often each word or sign that stands for a missing value, such as "n/a", is in a column."""
        found: Counter[str] = Counter()
        column = self.column(name)
        if not pd.api.types.is_numeric_dtype(column):
            for _, text in _blocks(column):
                found.update(str(cell).casefold() for cell in text[is_missing(text)] if cell)
        return found

    def first_of_each(self, name: str) -> "tuple[Table, npt.NDArray[np.int64]]":
        """The first row of each distinct cell of a column, and which of these rows each row is like, (rows,).

        Raises:
            DataError: there is no such column, or its cells hold more than one value each.
        """
        try:
            codes, cells = pd.factorize(self.column(name), use_na_sentinel=False)
        except TypeError:  # lists cannot be told apart
            raise DataError(f"{self.source}: column {name!r} holds lists, not single values") from None
        first = np.empty(len(cells), np.int64)
        first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # of several, the last that is assigned stays
        return Table(self.frame[[name]].iloc[first], self.source, self.unit), codes

    def _parsed(self, name: str, column: pd.Series) -> npt.NDArray[np.float64]:
        values = np.full(len(column), np.nan)
        wrong: list[int] = []
        for start, text in _blocks(column):
            missing = is_missing(text)
            infinite = text.str.fullmatch(_INFINITY, case=False).to_numpy(dtype=bool)
            number = text.str.fullmatch(_NUMBER).to_numpy(dtype=bool)
            faults = ~(missing | infinite | number)
            wrong += (start + np.flatnonzero(faults)).tolist()
            with np.errstate(over="ignore"):
                known = ~(missing | faults)
                values[start : start + len(text)][known] = text[known].astype(np.float64)
        if wrong:
            mend = "write a number"
            if re.fullmatch(_FOREIGN_NUMBER, str(as_text(column.iloc[wrong[:1]]).iloc[0])):
                mend = "write numbers with a decimal point and without separators or currency signs"
            raise DataError(
                f"{self.source}: {self.place(wrong[0])}, column {name!r}: text where a number must be"
                f"{_others(wrong)}; {mend}, or leave the cell empty to have it filled"
            )
        return values


def read_table(path: Path) -> Table:
    """Read a CSV file (comma, semicolon or tab; UTF-8) or a Parquet file.

    Raises:
        DataError: the file is missing, unreadable, empty or not a table.
    """
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; give one CSV or Parquet file")
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
        if not head.strip() and path.stat().st_size <= _HEAD:
            raise DataError(f"{path}: the file is empty")
        parquet = head[:4] == b"PAR1" or path.suffix.lower() in {".parquet", ".pq"}
        table = _read_parquet(path) if parquet else Table(read_delimited(path), str(path), "line")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file{_neighbour(path)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if table.frame.empty:
        raise DataError(f"{path}: the table has a header, but no rows")
    _check_header(table)
    return table


def suggestion(name: str, names: Iterable[object]) -> str:
    """Say which names are near a wrong one, or else which there are."""
    known = [str(held) for held in names]
    folded = {held.casefold(): held for held in reversed(known)}
    near = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)]
    if near:
        return "; did you mean " + " or ".join(repr(held) for held in near) + "?"
    listed = ", ".join(repr(held) for held in known[:12])
    return f"; there are {listed}" + (f" and {len(known) - 12} more" if len(known) > 12 else "")


def as_text(column: pd.Series) -> pd.Series:
    """A column as stripped text, empty where a value is missing."""
    return column.astype("str").where(column.notna(), "").str.strip()


def is_missing(text: pd.Series) -> npt.NDArray[np.bool_]:
    """Which cells of a text column stand for a missing value."""
    return text.str.casefold().isin(_MISSING).to_numpy(dtype=bool)


def _blocks(column: pd.Series) -> Iterator[tuple[int, pd.Series]]:
    """A column as text in parts, each with the position of its first row, for what is looked at is copied."""
    for start in range(0, len(column), _BLOCK):
        yield start, as_text(column.iloc[start : start + _BLOCK])


def _others(wrong: Sized) -> str:
    return f" (and in {len(wrong) - 1} more rows)" if len(wrong) > 1 else ""


def _neighbour(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return "; its folder does not exist either"
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _read_parquet(path: Path) -> Table:
    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except (pyarrow.ArrowException, ValueError, OSError):
        raise DataError(f"{path}: not a readable Parquet file: it is damaged or cut short") from None
    if not isinstance(frame.index, pd.RangeIndex):
        # An index that is also a column says nothing new.
        new = [level for level, name in enumerate(frame.index.names) if name not in frame.columns]
        frame = frame.reset_index(new)
    frame.columns = pd.Index([str(name) for name in frame.columns])
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return Table(frame, str(path), "row")


def _check_header(table: Table) -> None:
    names = [str(name) for name in table.frame.columns]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{table.source}: the header names the column {repeated[0]!r} more than once; rename one")
    if all(pd.Series(names).str.fullmatch(_NUMBER)):
        raise DataError(f"{table.source}: the first line holds numbers; add a header line that names the columns")

"""Tables as they are written: CSV and Parquet files, with every cell's place kept for messages."""

import csv
import difflib
import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow

from training.errors import DataError

_MISSING: Final = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "nat", "-", "?"})

_DELIMITERS: Final = ",;\t"
_NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?"
_INFINITY: Final = r"[+-]?inf(?:inity)?"
_CURRENCY: Final = "[$¢£¥฿\u20a0-\u20c0]"
_FOREIGN_NUMBER: Final = (  # with a decimal comma, separated thousands or a currency sign: 1.420,24 or $ 1,420.24
    rf"[+-]?(?:{_CURRENCY} ?)?[+-]?(?:\d{{1,3}}(?:[.,'’ \u00a0\u202f]\d{{3}})+|\d+)(?:[.,]\d+)?"
    rf"(?:[ \u00a0\u202f]?{_CURRENCY})?"
)
_LARGEST: Final = 1e30  # far above this, 32-bit floats overflow inside a network
_SAMPLE_LINES: Final = 100


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
            values = self._parsed(name, as_text(column))
        wrong = np.flatnonzero(np.abs(values) > _LARGEST)
        if len(wrong):
            raise DataError(
                f"{self.source}: {self.place(wrong[0])}, column {name!r}: an infinite or far too large value"
                f"{_others(wrong)}; mend it, or leave the cell empty to have it filled"
            )
        return values

    def placeholders(self, name: str) -> Counter[str]:
        """How often each word or sign that stands for a missing value, such as "n/a", is in a column."""
        column = self.column(name)
        if pd.api.types.is_numeric_dtype(column):
            return Counter()
        text = as_text(column)
        return Counter(str(cell).casefold() for cell in text[is_missing(text)] if cell)

    def _parsed(self, name: str, text: pd.Series) -> npt.NDArray[np.float64]:
        missing = is_missing(text)
        infinite = text.str.fullmatch(_INFINITY, case=False).to_numpy(dtype=bool)
        number = text.str.fullmatch(_NUMBER).to_numpy(dtype=bool)
        wrong = np.flatnonzero(~(missing | infinite | number))
        if len(wrong):
            mend = "write a number"
            if re.fullmatch(_FOREIGN_NUMBER, str(text.iloc[wrong[0]])):
                mend = "write numbers with a decimal point and without separators or currency signs"
            raise DataError(
                f"{self.source}: {self.place(wrong[0])}, column {name!r}: text where a number must be"
                f"{_others(wrong)}; {mend}, or leave the cell empty to have it filled"
            )
        values = np.full(len(text), np.nan)
        with np.errstate(over="ignore"):
            values[~missing] = text[~missing].astype(np.float64)
        return values


def read_table(path: Path) -> Table:
    """Read a CSV file (comma, semicolon or tab; UTF-8) or a Parquet file.

    Raises:
        DataError: the file is missing, unreadable, empty or not a table.
    """
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; give one CSV or Parquet file")
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file{_neighbour(path)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not body.strip():
        raise DataError(f"{path}: the file is empty")
    parquet = body[:4] == b"PAR1" or path.suffix.lower() in {".parquet", ".pq"}
    table = _read_parquet(path, body) if parquet else _read_csv(path, body)
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


def _others(wrong: npt.NDArray[np.intp]) -> str:
    return f" (and in {len(wrong) - 1} more rows)" if len(wrong) > 1 else ""


def _neighbour(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return "; its folder does not exist either"
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _read_parquet(path: Path, body: bytes) -> Table:
    try:
        frame = pd.read_parquet(io.BytesIO(body), engine="pyarrow")
    except (pyarrow.ArrowException, ValueError, OSError):
        raise DataError(f"{path}: not a readable Parquet file: it is damaged or cut short") from None
    if not isinstance(frame.index, pd.RangeIndex):
        # An index that is also a column says nothing new.
        new = [level for level, name in enumerate(frame.index.names) if name not in frame.columns]
        frame = frame.reset_index(new)
    frame.columns = pd.Index([str(name) for name in frame.columns])
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return Table(frame, str(path), "row")


def _read_csv(path: Path, body: bytes) -> Table:
    if b"\x00" in body[:65536]:
        raise DataError(f"{path}: not a text file; give a CSV file in UTF-8, or a Parquet file")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line}: not UTF-8 text; save the file as CSV in UTF-8") from None
    try:
        rows, lines = _rows(text) if text.strip() else ([], [])
    except csv.Error as error:
        raise DataError(f"{path}: not a readable CSV file: {error}") from None
    if not rows:
        raise DataError(f"{path}: the file is empty")
    header, records = rows[0], rows[1:]
    for record, line in zip(records, lines[1:], strict=True):
        if len(record) != len(header):
            raise DataError(
                f"{path}: line {line}: {len(record)} cells, but the header has {len(header)}; mend the line, and put "
                f"text that holds the delimiter in quotes"
            )
    frame = pd.DataFrame(records, columns=[name.strip() for name in header], index=lines[1:], dtype="str")
    return Table(frame, str(path), "line")


def _rows(text: str) -> tuple[list[list[str]], list[int]]:
    """All records that hold anything, each with the number of its first line.

    In a file of one column an empty line is a missing value, unless nothing follows it.
    """
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text.rstrip("\r\n") + "\n", newline=""), delimiter=_delimiter(text), strict=True)
    line = 1
    for record in reader:
        if any(cell.strip() for cell in record):
            rows.append(record)
            lines.append(line)
        elif rows and len(rows[0]) == 1:
            rows.append([""])
            lines.append(line)
        line = reader.line_num + 1
    return rows, lines


def _delimiter(text: str) -> str:
    """The delimiter that cuts the first lines into the most cells, equally many in most of them."""
    sample = [line for line in text.splitlines() if line][:_SAMPLE_LINES]

    def cells(delimiter: str) -> tuple[int, int]:
        counts = Counter(len(record) for record in csv.reader(sample, delimiter=delimiter) if record)
        width, lines = counts.most_common(1)[0]
        return (lines if width > 1 else 0, width)

    return max(_DELIMITERS, key=cells)


def _check_header(table: Table) -> None:
    names = [str(name) for name in table.frame.columns]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{table.source}: the header names the column {repeated[0]!r} more than once; rename one")
    if all(pd.Series(names).str.fullmatch(_NUMBER)):
        raise DataError(f"{table.source}: the first line holds numbers; add a header line that names the columns")

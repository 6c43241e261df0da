"""CSV files as columns of text, read in blocks: what is held in memory is the cells, without an object for each.

A plain file, of one record a line and no quotes, is read by pyarrow. Anything else is read by the csv module, which is
some ten times slower, and tells where the fault is.
"""

import csv
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from training.errors import DataError

_DELIMITERS: Final = ",;\t"
_SAMPLE_LINES: Final = 100
_SAMPLE_BYTES: Final = 1 << 16
_BLOCK_BYTES: Final = 1 << 22
_BLOCK_ROWS: Final = 1 << 16
_MARK: Final = "\ufeff"  # that some programs put in front of UTF-8


def read_delimited(path: Path) -> pd.DataFrame:
    """All records that hold anything as text by column, the index being the number of each record's first line.

    The delimiter is a comma, a semicolon or a tab, and the first record is the header. In a file of one column an empty
    line is a missing value, unless nothing follows it.

    Raises:
        DataError: the file is not UTF-8 text, holds nothing, or a record is not what a CSV file may hold.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_SAMPLE_BYTES)
    if b"\x00" in head:
        raise DataError(f"{path}: not a text file; give a CSV file in UTF-8, or a Parquet file")
    delimiter = _delimiter(head)
    frame = _plain(path, delimiter)
    return _any(path, delimiter) if frame is None else frame


def _delimiter(head: bytes) -> str:
    """The delimiter that cuts the first lines into the most cells, equally many in most of them."""
    lines = head.decode("utf-8-sig", errors="replace").splitlines()
    sample = [line for line in (lines[:-1] if len(head) == _SAMPLE_BYTES else lines) if line][:_SAMPLE_LINES]

    def cells(delimiter: str) -> tuple[int, int]:
        counts = Counter(len(record) for record in csv.reader(sample, delimiter=delimiter) if record)
        width, count = counts.most_common(1)[0] if counts else (0, 0)
        return (count if width > 1 else 0, width)

    return max(_DELIMITERS, key=cells)


def _plain(path: Path, delimiter: str) -> pd.DataFrame | None:
    """The columns of a plain file; None where the file is another."""
    with path.open("rb") as stream:
        first = stream.readline(_SAMPLE_BYTES)
        lines, quoted = _lines_behind(stream.read, first)
    try:
        header = next(csv.reader([first.decode("utf-8-sig")], delimiter=delimiter, strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return None
    if quoted or len(header) < 2 or not any(name.strip() for name in header):
        return None
    names = [str(place) for place in range(len(header))]  # the header's own may repeat
    try:
        table = pyarrow.csv.read_csv(
            path,
            pyarrow.csv.ReadOptions(column_names=names, skip_rows=1, block_size=_BLOCK_BYTES),
            pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=False),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.large_string())),
        )
    except pa.ArrowException:  # a fault, which the csv module finds again and tells of
        return None
    if table.num_rows != lines or _holds_empty_records(table):
        return None
    return _frame(header, [table[name] for name in names], pd.RangeIndex(2, lines + 2))


def _lines_behind(read: Callable[[int], bytes], first: bytes) -> tuple[int, bool]:
    """How many lines follow the first one, and whether there are quotes among them."""
    lines, quoted, last = 0, False, first
    while block := read(_BLOCK_BYTES):
        lines += block.count(b"\n")
        quoted = quoted or b'"' in block
        last = block
    return lines + (last is not first and not last.endswith(b"\n")), quoted


def _holds_empty_records(table: pa.Table) -> bool:
    empty = None
    for column in table.columns:
        blank = pc.equal(pc.utf8_trim_whitespace(column), "")
        empty = blank if empty is None else pc.and_(empty, blank)
        if not pc.any(empty).as_py():
            return False
    return True


def _any(path: Path, delimiter: str) -> pd.DataFrame:
    """The columns of any CSV file, record by record."""
    numbers, rows, parts = array("q"), [], []
    header: list[str] = []
    try:
        for line, record in _records(path, delimiter):
            if not header:
                header = record
                continue
            if len(record) != len(header):
                raise DataError(
                    f"{path}: line {line}: {len(record)} cells, but the header has {len(header)}; mend the line, and "
                    f"put text that holds the delimiter in quotes"
                )
            numbers.append(line)
            rows.append(record)
            if len(rows) == _BLOCK_ROWS:
                parts.append(_arrays(rows))
                rows = []
    except UnicodeDecodeError:
        line = _first_foreign_line(path)
        raise DataError(f"{path}: line {line}: not UTF-8 text; save the file as CSV in UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}: not a readable CSV file: {error}") from None
    if not header:
        raise DataError(f"{path}: the file is empty")
    if rows:
        parts.append(_arrays(rows))
    columns = [pa.chunked_array([part[place] for part in parts], pa.large_string()) for place, _ in enumerate(header)]
    return _frame(header, columns, pd.Index(np.frombuffer(numbers, np.int64) if numbers else [], dtype=np.int64))


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """All records that hold anything, each with the number of its first line."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        line, width = 1, 0
        empty: list[int] = []  # lines of a file of one column that count if anything follows
        for record in reader:
            if any(cell.strip() for cell in record):
                yield from ((number, [""]) for number in empty)
                empty = []
                width = width or len(record)
                yield line, record
            elif width == 1:
                empty.append(line)
            line = reader.line_num + 1


def _arrays(rows: Sequence[Sequence[str]]) -> list[pa.Array]:
    return [pa.array(column, pa.large_string()) for column in zip(*rows, strict=True)]


def _first_foreign_line(path: Path) -> int:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _frame(header: Sequence[str], columns: Sequence[pa.ChunkedArray], index: pd.Index) -> pd.DataFrame:
    held = {
        place: pd.Series(pd.array(column, dtype="str"), index=index, copy=False) for place, column in enumerate(columns)
    }
    frame = pd.DataFrame(held, index=index, copy=False)
    frame.columns = pd.Index([name.strip() for name in header])
    return frame

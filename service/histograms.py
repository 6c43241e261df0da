"""Histograms of what comes four numbers at a time, as the times of a request do: to observe is to write one row.

To count at once takes four searches and eight additions, twice as long. So rows are counted together, 512 of them in
the time of a few forecasts. Nothing is lost by that: rows lie in memory that others read, and count as well there. Of
the counts there are two copies. Rows are counted into the one that is not told, and a single number, of how many rows
have been counted, then says that it is: whoever reads, also what a killed process has left behind, finds every
observation once.

A sum must never fall, or Prometheus takes it for that of a new process. So what is summed up is rounded to a part of
which each sum is a whole number of times, in whichever order it is added up.

One thread observes in all histograms of a process; to make room for others meanwhile is any thread's.
"""

import logging
import threading
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isnan, nan
from mmap import mmap
from struct import Struct
from typing import Final

TOGETHER: Final = 4
"""Histograms of which each row is an observation."""
ROWS: Final = 512
CELLS: Final = 24_576
"""Numbers that histograms have room for together."""

_BYTES: Final = 8
_ROW: Final = Struct("5d")  # where the histograms are, and an observation of each
_ROW_BYTES: Final = _ROW.size
_write: Final = _ROW.pack_into
_WRITTEN, _COUNTED = 0, 1  # of how many rows, ever
_HEAD: Final = 2
_TABLE: Final = _HEAD + ROWS * _ROW_BYTES // _BYTES
_COPIES: Final = (_TABLE, _TABLE + CELLS)
_GONE: Final = -1.0
"""The place of a row that is not to be counted."""
_PARTS: Final = 2.0**24  # of a second: sums up to 17 years are exact

SHEET_BYTES: Final = (_TABLE + 2 * CELLS) * _BYTES
HEAD_BYTES: Final = _HEAD * _BYTES

_log: Final = logging.getLogger("leadtime.metrics")


class Sheet:
    """The histograms of one process."""

    __slots__ = (
        "_bounds",
        "_counted",
        "_counting",
        "_end",
        "_first_row",
        "_start",
        "memory",
        "next_row",
        "numbers",
        "written",
    )

    def __init__(self, memory: mmap | bytearray, start: int) -> None:
        """Keep them in memory that is all zero, from a byte on."""
        self.memory = memory
        self._start = start
        self.numbers = memoryview(memory)[start : start + SHEET_BYTES].cast("d")
        self._bounds: tuple[float, ...] | None = None
        self._end = 0
        """Behind the last place that was ever taken."""
        self._counting = threading.Lock()
        self._counted = 0
        self.written = 0.0
        self.next_row = self._first_row = start + HEAD_BYTES
        """The byte where the next row goes."""

    def take(self, place: int, bounds: Sequence[float]) -> "Histograms":
        """Begin with histograms at a place that is theirs alone; they go on where they were before.

        Raises:
            ValueError: others have other bounds.
        """
        with self._counting:
            if self._bounds not in (None, tuple(bounds)):
                raise ValueError("histograms that are counted together have the same bounds")
            self._bounds = tuple(bounds)
            self._end = max(self._end, place + cells_of(bounds))
        return Histograms(self, place)

    def clear(self, place: int, cells: int) -> None:
        """Set everything at a place to zero: it will be others'."""
        with self._counting:
            # Rows beyond have been counted; they are about to be written, perhaps at this moment.
            for row in range((self.next_row - self._first_row) // _ROW_BYTES):
                at = _HEAD + row * (TOGETHER + 1)
                if self.numbers[at] == place:
                    self.numbers[at] = _GONE
            for copy in _COPIES:
                for cell in range(copy + place, copy + place + cells):
                    self.numbers[cell] = 0.0

    def count(self) -> None:
        """Count the rows that have been written, all there is room for, and begin again with the first."""
        with self._counting:
            told, other = (
                slice(copy, copy + self._end) for copy in (_copy(self._counted), _copy(self._counted + ROWS))
            )
            self.numbers[other] = self.numbers[told]
            try:
                self._add_rows(other)
            except Exception:
                # Where there is no memory, for instance: requests have to be answered all the same.
                self.numbers[other] = self.numbers[told]
                _log.exception("%d requests go uncounted in the histograms of times", ROWS)
            self._counted += ROWS
            self.numbers[_COUNTED] = float(self._counted)
            self.next_row = self._first_row

    def _add_rows(self, counts: slice) -> None:
        import numpy as np  # not for processes that observe nothing: it takes 20 MB

        assert self._bounds is not None, "there are rows"
        width = len(self._bounds) + 2
        numbers = np.frombuffer(self.memory, np.float64, SHEET_BYTES // _BYTES, self._start)
        rows = numbers[_HEAD:_TABLE].reshape(ROWS, -1)
        rows = rows[rows[:, 0] != _GONE]
        known = ~np.isnan(rows[:, 1:])
        places = (rows[:, :1].astype(np.int64) + width * np.arange(TOGETHER))[known]
        values = rows[:, 1:][known]
        buckets = places + np.searchsorted(self._bounds, values)
        parts = np.rint(values * _PARTS) / _PARTS
        numbers[counts] += np.bincount(buckets, minlength=self._end)
        numbers[counts] += np.bincount(places + width - 1, parts, minlength=self._end)

    def close(self) -> None:
        """Let go of the memory."""
        self.numbers.release()


class Histograms:
    """Four of them with the same bounds, of which each observation is one row."""

    __slots__ = ("_place", "_sheet")

    def __init__(self, sheet: Sheet, place: int) -> None:
        self._sheet = sheet
        self._place = float(place)

    def observe_first(self, value: float) -> None:
        """Count an observation of the first of them alone."""
        self.observe(value, nan, nan, nan)

    def observe(self, first: float, second: float, third: float, fourth: float) -> None:
        """Count an observation of each."""
        sheet = self._sheet
        row = sheet.next_row
        _write(sheet.memory, row, self._place, first, second, third, fourth)
        sheet.next_row = row + _ROW_BYTES
        # Behind the row: what is not whole does not count.
        sheet.numbers[_WRITTEN] = sheet.written = written = sheet.written + 1.0
        if not written % ROWS:
            sheet.count()


class Reading:
    """What a process has observed, as its memory had it at one moment."""

    def __init__(self, head: bytes, sheet: bytes) -> None:
        """Read a sheet, of which the head was read before."""
        self._numbers = array("d", sheet)
        written, counted = array("d", head)
        self._copy = _copy(int(counted))
        self._rows: Mapping[int, list[Sequence[float]]] = defaultdict(list)
        for number in range(int(counted), int(written)):
            at = _HEAD + number % ROWS * (TOGETHER + 1)
            place, *values = self._numbers[at : at + TOGETHER + 1]
            self._rows[int(place)].append(values)

    def of(self, place: int, bounds: Sequence[float]) -> list[list[float]]:
        """For each histogram of a place a count for each bucket, and the sum."""
        width = len(bounds) + 2
        start = self._copy + place
        found = [list(self._numbers[at : at + width]) for at in range(start, start + TOGETHER * width, width)]
        for values in self._rows.get(place, ()):
            for numbers, value in zip(found, values, strict=True):
                if not isnan(value):
                    numbers[_bucket(bounds, value)] += 1.0
                    numbers[-1] += round(value * _PARTS) / _PARTS
        return found


def cells_of(bounds: Sequence[float]) -> int:
    """The numbers that histograms of these bounds take."""
    return TOGETHER * (len(bounds) + 2)


def are_of_one_moment(before: bytes, after: bytes) -> bool:
    """Whether a sheet is sound that was read between these heads: no rows were counted meanwhile."""
    return before[_COUNTED * _BYTES :] == after[_COUNTED * _BYTES :]


def _copy(counted: int) -> int:
    """Where the counts are that are told when so many rows have been counted."""
    return _COPIES[counted // ROWS % 2]


def _bucket(bounds: Sequence[float], value: float) -> int:
    return next((place for place, bound in enumerate(bounds) if value <= bound), len(bounds))

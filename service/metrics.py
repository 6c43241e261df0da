"""What the service counts of itself, summed over all its worker processes.

Each worker writes into a file of its own, through memory that it shares with whoever reads the file: to count is an
addition there or two, and nothing is lost when a worker dies. Whichever worker is asked adds all files up. What a
worker has at the moment (a gauge) counts while the worker lives; what it has done (a counter, a histogram) counts for
good.

A file is a table of 64-bit floats; the lines of another file beside it say what each of them is. Behind the table is
the sheet of those histograms that are counted in together (`service/histograms.py`). A worker holds a lock
on its table as long as it lives, which the kernel takes back from the dead, so that nobody is taken for one of them who
was given the same process number later.

What is counted of something that comes and goes, such as a version of a model, can be forgotten. Its numbers are given
to others then, but not before the lines that say whose they were have been replaced, all at once, by another file: who
has read the lines and then the numbers, and finds the same file still in its place, has read what belongs together.
"""

import fcntl
import json
import mmap
import os
import threading
import time
from array import array
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from service.disk import append, replace, reserve
from service.histograms import CELLS as CELLS_OF_SHEET
from service.histograms import (
    HEAD_BYTES,
    SHEET_BYTES,
    TOGETHER,
    Histograms,
    Reading,
    Sheet,
    are_of_one_moment,
    cells_of,
)

_BYTES: Final = 8
_CELLS: Final = 16_384
_TABLE_BYTES: Final = _CELLS * _BYTES
_FILE_BYTES: Final = _TABLE_BYTES + SHEET_BYTES  # half a megabyte
_CELLS_SUFFIX: Final = ".cells"
_KEYS_SUFFIX: Final = ".keys"
_BETWEEN_NAMES: Final = ","

Kind = Literal["counter", "gauge", "histogram", "histograms"]


class Key(NamedTuple):
    """What one cell, or one row of a histogram's cells, is; or what histograms are that are counted in together."""

    kind: Kind
    name: str
    """Of those that are counted in together, all names."""
    labels: tuple[tuple[str, str], ...]
    bounds: tuple[float, ...]
    """Upper bounds of a histogram's buckets, the last one open."""

    @property
    def cells(self) -> int:
        """Numbers kept: for a histogram a count for each bucket, and the sum."""
        if self.kind == "histograms":
            return cells_of(self.bounds)
        return len(self.bounds) + 2 if self.kind == "histogram" else 1

    @property
    def is_on_sheet(self) -> bool:
        """Whether its place is one of the sheet's, and none in the table."""
        return self.kind == "histograms"


class TooManyMetrics(Exception):
    """There is no room for another combination of labels."""


class Cell:
    """A number that goes up, or up and down."""

    __slots__ = ("_place", "_values")

    def __init__(self, values: "memoryview[float]", place: int) -> None:
        self._values = values
        self._place = place

    def add(self, amount: float = 1.0) -> None:
        """Add to it."""
        self._values[self._place] += amount

    def set(self, value: float) -> None:
        """Give it a value; for gauges."""
        self._values[self._place] = value


class Histogram:
    """How many observations fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "_place", "_sum", "_values")

    def __init__(self, values: "memoryview[float]", place: int, bounds: Sequence[float]) -> None:
        self._values = values
        self._place = place
        self._bounds = bounds
        self._sum = place + len(bounds) + 1

    def observe(self, value: float) -> None:
        """Count an observation."""
        self._values[self._place + bisect_left(self._bounds, value)] += 1.0
        self._values[self._sum] += value


class Metrics:
    """One worker's own counts, for any of its threads; what one cell counts is one thread's."""

    def __init__(self, folder: Path | None) -> None:
        """Count in files of `folder`, which all workers of a service share; without one, for nobody to read."""
        self.folder = folder
        self.values: memoryview[float]
        """All numbers of this worker, as they are told apart by the lines of its other file."""
        self._keys: dict[Key, int] = {}
        self._used = {False: 0, True: 0}
        """How much was ever used of the table, and of the sheet."""
        self._free: defaultdict[tuple[bool, int], deque[int]] = defaultdict(deque)
        """Places to be used again, by whether they are on the sheet and how many numbers have room there."""
        self.forgettings = 0
        """How often something was forgotten: places that were known before may be others' since."""
        self._placing = threading.Lock()
        self._keys_file: Path | None = None
        self._total = None if folder is None else Total(folder)
        self._file: int | None = None
        self._map: mmap.mmap | None = None
        if folder is None:
            memory = bytearray(_FILE_BYTES)
            self.values = memoryview(memory)[:_TABLE_BYTES].cast("d")
            self._sheet = Sheet(memory, _TABLE_BYTES)
            return
        folder.mkdir(parents=True, exist_ok=True)
        # A process's number is given to another one some day; a number at a time is not.
        name = f"{os.getpid()}-{time.time_ns()}"
        self._file = os.open(folder / f"{name}{_CELLS_SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        reserve(self._file, _FILE_BYTES)
        self._map = mmap.mmap(self._file, _FILE_BYTES)
        self.values = memoryview(self._map)[:_TABLE_BYTES].cast("d")
        self._sheet = Sheet(self._map, _TABLE_BYTES)
        self._keys_file = folder / f"{name}{_KEYS_SUFFIX}"
        self._keys_file.write_bytes(b"")

    def counter(self, name: str, **labels: str) -> Cell:
        """The number of times that something has happened.

        Raises:
            TooManyMetrics: there is no room for another combination of labels, here or on the disk.
        """
        return Cell(self.values, self._place(Key("counter", name, tuple(sorted(labels.items())), ())))

    def gauge(self, name: str, **labels: str) -> Cell:
        """How much there is of something at the moment; raises as `counter`."""
        return Cell(self.values, self._place(Key("gauge", name, tuple(sorted(labels.items())), ())))

    def histogram(self, name: str, bounds: Sequence[float], **labels: str) -> Histogram:
        """How large something was each time; raises as `counter`."""
        key = Key("histogram", name, tuple(sorted(labels.items())), tuple(bounds))
        return Histogram(self.values, self._place(key), key.bounds)

    def histograms(self, names: Sequence[str], bounds: Sequence[float], **labels: str) -> Histograms:
        """How large up to four things were each time, counted together.

        One thread alone observes in all of these, and they have the same bounds.

        Raises:
            TooManyMetrics: as `counter` says.
            ValueError: there are more than four, or others have other bounds.
        """
        if len(names) > TOGETHER:
            raise ValueError(f"at most {TOGETHER} histograms are counted together")
        key = Key("histograms", _BETWEEN_NAMES.join(names), tuple(sorted(labels.items())), tuple(bounds))
        return self._sheet.take(self._place(key), bounds)

    def forget(self, **labels: str) -> None:
        """Give up every counter, gauge and histogram that has these labels, among others; what they counted is lost.

        Whoever still counts in one of them counts for nothing, or, once its place is used again, for another: look it
        up anew when `forgettings` has changed.
        """
        wanted = set(labels.items())
        with self._placing:
            gone = {key for key in self._keys if wanted.issubset(key.labels)}
            if not gone:
                return
            left = {key: place for key, place in self._keys.items() if key not in gone}
            if self._keys_file is not None and not replace(self._keys_file, _lines(left)):
                return
            freed = [(key, self._keys[key]) for key in gone]
            self._keys = left
            self.forgettings += 1
            for key, place in freed:
                self._free[key.is_on_sheet, key.cells].append(place)

    def total(self) -> dict[Key, list[float]]:
        """What all workers have counted that share the folder; without one, nothing."""
        return {} if self._total is None else self._total.collect()

    def close(self) -> None:
        """Let go of the file; what was counted stays in it, but for gauges."""
        self.values.release()
        self._sheet.close()
        if self._map is not None:
            self._map.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _place(self, key: Key) -> int:
        known = self._keys.get(key)
        return self._new_place(key) if known is None else known

    def _new_place(self, key: Key) -> int:
        with self._placing:
            place = self._keys.get(key)
            if place is not None:
                return place
            place = self._room_for(key)
            if self._keys_file is not None and not append(self._keys_file, _line(place, key)):
                self._free[key.is_on_sheet, key.cells].append(place)
                raise TooManyMetrics
            self._keys[key] = place
            return place

    def _room_for(self, key: Key) -> int:
        """A place for the numbers of a key, all of them zero."""
        on_sheet, cells = key.is_on_sheet, key.cells
        free = self._free[on_sheet, cells]
        if free:
            place = free.popleft()
            if on_sheet:
                self._sheet.clear(place, cells)
            else:
                self.values[place : place + cells] = memoryview(array("d", [0.0] * cells))
            return place
        place = self._used[on_sheet]
        if place + cells > (CELLS_OF_SHEET if on_sheet else _CELLS):
            raise TooManyMetrics
        self._used[on_sheet] += cells
        return place


class Total:
    """What all workers have counted, added up. A dead worker's files are read once, however many have died."""

    def __init__(self, folder: Path) -> None:
        """Add up the files of `folder`."""
        self._folder = folder
        self._adding = threading.Lock()
        self._of_the_dead: dict[Key, list[float]] = {}
        self._dead: set[str] = set()

    def collect(self) -> dict[Key, list[float]]:
        """The counts of all workers, and what the living ones have at the moment."""
        with self._adding:
            living: list[Iterator[tuple[Key, list[float]]]] = []
            for file in sorted(self._folder.glob(f"*{_KEYS_SUFFIX}")):
                if file.name in self._dead:
                    continue
                if _is_held(file.with_suffix(_CELLS_SUFFIX)):
                    living.append(_counts_in(file))
                else:
                    self._dead.add(file.name)
                    lasting = ((key, values) for key, values in _counts_in(file) if key.kind != "gauge")
                    _add(self._of_the_dead, lasting)
            total = {key: list(values) for key, values in self._of_the_dead.items()}
            for counts in living:
                _add(total, counts)
            return total


def collect(folder: Path) -> dict[Key, list[float]]:
    """The counts of all workers that count in a folder, added up once."""
    return Total(folder).collect()


def _add(total: dict[Key, list[float]], counts: Iterable[tuple[Key, list[float]]]) -> None:
    for key, values in counts:
        known = total.get(key)
        total[key] = values if known is None else [a + b for a, b in zip(known, values, strict=True)]


def _counts_in(file: Path) -> Iterator[tuple[Key, list[float]]]:
    """What one worker has counted; `file` has its keys."""
    while True:
        # The keys first, for a key is there before anything is counted under it.
        with file.open("rb") as lines, file.with_suffix(_CELLS_SUFFIX).open("rb") as cells:
            keys = list(_keys_in(lines.read()))
            if os.fstat(cells.fileno()).st_size != _FILE_BYTES:
                return  # it was left by another version of the service
            before = os.pread(cells.fileno(), HEAD_BYTES, _TABLE_BYTES)
            numbers = cells.read()
            after = os.pread(cells.fileno(), HEAD_BYTES, _TABLE_BYTES)
            is_same_file = os.path.samestat(file.stat(), os.fstat(lines.fileno()))
            # Not another file since, by whose lines the numbers are others'.
            if is_same_file and are_of_one_moment(before, after):
                break
    table, reading = array("d", numbers[:_TABLE_BYTES]), Reading(before, numbers[_TABLE_BYTES:])
    for place, key in keys:
        if key.is_on_sheet:
            names = key.name.split(_BETWEEN_NAMES)
            for name, values in zip(names, reading.of(place, key.bounds)[: len(names)], strict=True):
                yield Key("histogram", name, key.labels, key.bounds), values
        else:
            yield key, list(table[place : place + key.cells])


def _lines(places: Mapping[Key, int]) -> bytes:
    return b"".join(_line(place, key) for key, place in places.items())


def _line(place: int, key: Key) -> bytes:
    return json.dumps([place, *key]).encode() + b"\n"


def _keys_in(lines: bytes) -> Iterator[tuple[int, Key]]:
    for line in lines.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return  # it is being written
        try:
            place, kind, name, labels, bounds = json.loads(line)
        except ValueError:
            continue  # there was no room for all of it
        yield place, Key(kind, name, tuple((label, value) for label, value in labels), tuple(bounds))


def _is_held(cells: Path) -> bool:
    """Whether the worker that counts in a file lives."""
    with cells.open("rb") as file:
        try:
            # Shared, so that two who ask at once do not take each other for the worker.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False

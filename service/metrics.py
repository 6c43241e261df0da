"""What the service counts of itself, summed over all its worker processes.

Each worker writes into a file of its own, through memory that it shares with whoever reads the file: to count is one
addition, and nothing is lost when a worker dies. Whichever worker is asked adds all files up. What a worker has at the
moment (a gauge) counts while the worker lives; what it has done (a counter, a histogram) counts for good.

A file is a table of 64-bit floats; the lines of another file beside it say what each of them is.
"""

import json
import mmap
import os
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

_CELLS: Final = 8192
_BYTES: Final = 8
_CELLS_SUFFIX: Final = ".cells"
_KEYS_SUFFIX: Final = ".keys"

Kind = Literal["counter", "gauge", "histogram"]


class Key(NamedTuple):
    """What one cell, or one row of a histogram's cells, is."""

    kind: Kind
    name: str
    labels: tuple[tuple[str, str], ...]
    bounds: tuple[float, ...]
    """Upper bounds of a histogram's buckets, the last one open."""

    @property
    def cells(self) -> int:
        """Numbers kept: for a histogram a count for each bucket, and the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


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
        self._used = 0
        self._placing = threading.Lock()
        self._keys_file: Path | None = None
        self._map: mmap.mmap | None = None
        if folder is None:
            self.values = memoryview(bytearray(_CELLS * _BYTES)).cast("d")
            return
        folder.mkdir(parents=True, exist_ok=True)
        # A number is given to another process some day; a number at a time is not.
        name = f"{os.getpid()}-{time.time_ns()}"
        cells = folder / f"{name}{_CELLS_SUFFIX}"
        with cells.open("w+b") as file:
            file.truncate(_CELLS * _BYTES)
            self._map = mmap.mmap(file.fileno(), _CELLS * _BYTES)
        self.values = memoryview(self._map).cast("d")
        self._keys_file = folder / f"{name}{_KEYS_SUFFIX}"
        self._keys_file.write_bytes(b"")

    def counter(self, name: str, **labels: str) -> Cell:
        """The number of times that something has happened.

        Raises:
            TooManyMetrics: there is no room for another combination of labels.
        """
        return Cell(self.values, self._place(Key("counter", name, tuple(sorted(labels.items())), ())))

    def gauge(self, name: str, **labels: str) -> Cell:
        """How much there is of something at the moment; raises as `counter`."""
        return Cell(self.values, self._place(Key("gauge", name, tuple(sorted(labels.items())), ())))

    def histogram(self, name: str, bounds: Sequence[float], **labels: str) -> Histogram:
        """How large something was each time; raises as `counter`."""
        key = Key("histogram", name, tuple(sorted(labels.items())), tuple(bounds))
        return Histogram(self.values, self._place(key), key.bounds)

    def close(self) -> None:
        """Let go of the file; what was counted stays in it."""
        self.values.release()
        if self._map is not None:
            self._map.close()

    def _place(self, key: Key) -> int:
        known = self._keys.get(key)
        return self._new_place(key) if known is None else known

    def _new_place(self, key: Key) -> int:
        with self._placing:
            place = self._keys.get(key)
            if place is not None:
                return place
            place = self._used
            if place + key.cells > _CELLS:
                raise TooManyMetrics
            self._used += key.cells
            if self._keys_file is not None:
                with self._keys_file.open("ab") as file:
                    file.write(json.dumps([place, *key]).encode() + b"\n")
            self._keys[key] = place
            return place


def collect(folder: Path) -> dict[Key, list[float]]:
    """Add up what all workers have counted, and what the living ones have at the moment."""
    total: dict[Key, list[float]] = {}
    for file in sorted(folder.glob(f"*{_KEYS_SUFFIX}")):
        cells = array("d", file.with_suffix(_CELLS_SUFFIX).read_bytes())
        alive = _is_alive(int(file.stem.partition("-")[0]))
        for place, key in _keys_in(file):
            if key.kind == "gauge" and not alive:
                continue
            values = cells[place : place + key.cells]
            known = total.get(key)
            total[key] = list(values) if known is None else [a + b for a, b in zip(known, values, strict=True)]
    return total


def _keys_in(file: Path) -> Iterator[tuple[int, Key]]:
    for line in file.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return  # it is being written
        place, kind, name, labels, bounds = json.loads(line)
        yield place, Key(kind, name, tuple((label, value) for label, value in labels), tuple(bounds))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True

"""A steady load on a port, from a client in a process of its own, and every answer to it."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.questions import ROOT

Numbers = npt.NDArray[np.float64]

_CONNECTIONS: Final = 32
_PATIENCE: Final = 60.0
_MOST_SECONDS: Final = 7200.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is asked over and over, and the status that is right for it."""

    path: str
    body: bytes
    status: int = 200
    content_type: str = "application/json"

    def written(self) -> bytes:
        """The request as it goes over a connection."""
        head = f"POST {self.path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {self.content_type}\r\n"
        return head.encode() + b"content-length: %d\r\n\r\n" % len(self.body) + self.body


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed: when, on which of the client's ports, and how."""

    at: float
    port: int
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of the requests, in the order of their answers; times are of `time.monotonic`."""

    due: Numbers
    sent: Numbers
    done: Numbers
    question: npt.NDArray[np.int64]
    port: npt.NDArray[np.int64]
    """The client's port of each answer's connection."""
    answer: npt.NDArray[np.int64]
    """Of each, the place among `bodies`."""
    bodies: Sequence[bytes]
    """The answers, each once."""
    failures: Sequence[Failure]
    asked: int

    def milliseconds(self, begin: float = 0.0, end: float = float("inf")) -> Numbers:
        """How long each answer took from when it was due, of those that were due within a time."""
        chosen = (self.due >= begin) & (self.due < end)
        return (self.done[chosen] - self.due[chosen]) * 1e3

    def longest_gap(self) -> float:
        """The most seconds that passed without an answer."""
        return float(np.diff(np.sort(self.done)).max(initial=0.0))


class Load:
    """A client that asks until it is stopped."""

    def __init__(
        self,
        port: int,
        questions: Sequence[Asked],
        rate: float,
        *,
        connections: int = _CONNECTIONS,
        patience: float = 10.0,
    ) -> None:
        """Ask these questions in turns, so many a second; without an answer in `patience` seconds one has failed."""
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "answered.npz"
        self._told: dict[str, Any] = {
            "port": port,
            "rate": rate,
            "connections": connections,
            "seconds": _MOST_SECONDS,
            "patience": patience,
            "file": str(self._file),
            "questions": [question.written().decode("latin-1") for question in questions],
            "statuses": [question.status for question in questions],
        }
        self._process: subprocess.Popen[str]

    def __enter__(self) -> "Load":
        command = [sys.executable, "-m", "chaos.client"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._told) + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "answered\n":
            complaints = self._complaints()
            self.__exit__(None, None, None)
            raise RuntimeError(f"the client was never answered: {complaints}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    @property
    def process(self) -> int:
        """The client's process."""
        return self._process.pid

    def finish(self) -> Answered:
        """Stop asking, and wait for the answers that are on their way."""
        self._process.terminate()
        self._process.wait(_PATIENCE + self._told["patience"])
        if not self._file.is_file():
            raise RuntimeError(f"the client failed: {self._complaints()}")
        with np.load(self._file) as kept:
            found: dict[str, Any] = {name: kept[name] for name in ("due", "sent", "done", "question", "port", "answer")}
            ends = np.cumsum(kept["lengths"])
            text = kept["answers"].tobytes()
            failures = [Failure(*one) for one in json.loads(str(kept["failures"]))]
            asked = int(kept["issued"])
        bodies = [text[end - length : end] for end, length in zip(ends, np.diff(ends, prepend=0), strict=True)]
        return Answered(**found, bodies=bodies, failures=failures, asked=asked)

    def _complaints(self) -> str:
        assert self._process.stderr is not None
        self._process.kill()
        return self._process.stderr.read()[-2000:]


def percentiles(milliseconds: Numbers) -> dict[str, float]:
    """The median and the 99th percentile; nan where there is nothing."""
    if not len(milliseconds):
        return {"p50": float("nan"), "p99": float("nan")}
    return {"p50": float(np.percentile(milliseconds, 50)), "p99": float(np.percentile(milliseconds, 99))}


def pause(seconds: float) -> tuple[float, float]:
    """Let some time pass; returns when it began and ended."""
    begin = time.monotonic()
    time.sleep(seconds)
    return begin, time.monotonic()

"""Versions of a model that come under load: sound ones, each with forecasts of its own, and bad ones."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from chaos.load import Answered, Asked
from service.engine import Engine
from tests.artifacts import write_artifact, write_broken_artifact

WINDOW: Final = [round(100 + 10 * np.sin(step / 4) + step % 7, 3) for step in range(16)]
QUESTIONS: Final = (
    Asked("/forecast", json.dumps({"window": WINDOW}).encode()),
    Asked("/forecast/multi-step", json.dumps({"window": WINDOW, "horizon": 4}).encode()),
)
"""What is asked, over the short way and over the same with several steps."""

_HORIZONS: Final = (1, 4)
_TOLERANCE: Final = 1e-4  # relative; how many rows run together changes the last digits


class Versions:
    """The versions of the model `default` in a folder, and since when each is valid."""

    def __init__(self, models: Path) -> None:
        """Begin with version 1."""
        self._models = models
        self.expected: dict[str, list[list[float]]] = {}
        """Of each sound version, its forecast for each question."""
        self.since: dict[str, float] = {}
        """When each sound version was put there."""
        self.put(1)

    def put(self, number: int) -> None:
        """Put a sound version there, whole at once."""
        coming = self._coming(number)
        path = write_artifact(coming / "model.onnx", "lstm", version=str(number), seed=number)
        _write_digest(path)
        engine = Engine.open(path)
        window = np.array(WINDOW, np.float32).reshape(1, -1, 1)
        self.expected[str(number)] = [engine.forecast(window, horizon)[0, :, 0].tolist() for horizon in _HORIZONS]
        self.since[str(number)] = time.monotonic()
        self._appear(coming, number)

    def put_bad(self, number: int, fault: str) -> None:
        """Put a bad version there, one of `FAULTS`."""
        coming = self._coming(number)
        FAULTS[fault](coming / "model.onnx")
        self._appear(coming, number)

    def wrong(self, answered: Answered) -> list[str]:
        """Answers from no version that was valid, with other numbers than it forecasts, or older than one before.

        A connection leads to one worker, which never goes back to an older version.
        """
        faults = []
        version_of: dict[tuple[int, int], str] = {}
        newest: dict[int, int] = {}
        columns = (answered.question, answered.answer, answered.port, answered.done)
        for question, answer, port, done in zip(*(column.tolist() for column in columns), strict=True):
            version = version_of.get((question, answer))
            if version is None:
                version, fault = self._read(question, answered.bodies[answer])
                version_of[question, answer] = version
                if fault:
                    faults.append(fault)
            if done < self.since.get(version, float("inf")):
                faults.append(f"version {version} answered before it was there")
            elif int(version) < newest.get(port, 0):
                faults.append(f"version {version} answered after {newest[port]} had")
            else:
                newest[port] = int(version)
        return faults

    def _read(self, question: int, body: bytes) -> tuple[str, str | None]:
        told = json.loads(body)
        version, values = told["version"], told["forecasts"][0]["values"]
        wanted = self.expected.get(version)
        if wanted is None:
            return version, f"version {version} answered, which was never valid"
        if not np.allclose(values, wanted[question], rtol=_TOLERANCE, atol=0):
            return version, f"version {version} answered {values} where it forecasts {wanted[question]}"
        return version, None

    def _coming(self, number: int) -> Path:
        return self._models / f".coming-{number}"

    def _appear(self, coming: Path, number: int) -> None:
        place = self._models / "default" / str(number)
        place.parent.mkdir(parents=True, exist_ok=True)
        coming.rename(place)


def _write_digest(path: Path, digest: str | None = None) -> None:
    told = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name("model.onnx.sha256").write_text(f"{told}  model.onnx\n")


def _truncated(path: Path) -> None:
    content = write_artifact(path, "lstm", seed=999).read_bytes()
    path.write_bytes(content[:-300])
    _write_digest(path)


def _of_another_digest(path: Path) -> None:
    _write_digest(write_artifact(path, "lstm", seed=999), "0" * 64)


def _no_onnx(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"MZ" + os.urandom(4096))


FAULTS: Final[Mapping[str, Callable[[Path], object]]] = {
    "truncated": _truncated,
    "of another digest": _of_another_digest,
    "of contract 2": lambda path: write_broken_artifact(path, "contract 2"),
    "with another trial forecast": lambda path: write_broken_artifact(path, "another trial"),
    "no ONNX": _no_onnx,
    "not finite": lambda path: write_broken_artifact(path, "not finite"),
}
"""Ways in which a file is bad."""


def served(expected: Mapping[str, Sequence[Sequence[float]]], answered: Answered) -> list[str]:
    """The sound versions that have answered, the oldest first."""
    found = {json.loads(body)["version"] for body in answered.bodies}
    return sorted(found & expected.keys(), key=int)

"""The questions that servers are asked, and the answers that are right: the engine's own."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.artifact import FILE_NAME
from service.engine import Engine
from service.window import Values, slide

ROOT: Final = Path(__file__).resolve().parent.parent
CACHE: Final = ROOT / ".cache" / "bench"
MODELS: Final = CACHE / "models"

CONTEXT: Final = 30
HORIZON: Final = 24
WINDOW: Final = [round(100 + 10 * math.sin(step / 4) + step % 7, 3) for step in range(CONTEXT)]
"""One window, as a request sends it: three decimals, as measurements have them."""

TOLERANCE: Final = 1e-4  # relative


_JSON: Final = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Question:
    """One request: where to, what, and how its answer is read into numbers."""

    path: str
    body: bytes
    read: Callable[[Mapping[str, str], bytes], Sequence[float]] = field(repr=False)
    """Takes the answer's headers, names in lower case, and its body."""
    headers: Mapping[str, str] = field(default_factory=lambda: _JSON)


def as_json(path: str, document: object, read: Callable[[Any], Sequence[float]]) -> Question:
    """A question in JSON; `read` takes the answer's document."""
    return Question(path, json.dumps(document).encode(), lambda _, body: read(json.loads(body)))


def to_service(window: Sequence[float], horizon: int) -> Question:
    """A question to the service, in its own protocol: without `horizon` where it is 1."""
    if horizon == 1:
        return as_json("/forecast", {"window": window}, _values)
    return as_json("/forecast/multi-step", {"window": window, "horizon": horizon}, _values)


def _values(answer: Any) -> Sequence[float]:
    values: Sequence[float] = answer["forecasts"][0]["values"]
    return values


def artifact(name: str, folder: Path = MODELS) -> Path:
    """Where a benchmark's model lies."""
    return folder / name / "1" / FILE_NAME


def as_values(window: Sequence[float]) -> Values:
    """A window of one feature as the engine takes it: (1, time, 1)."""
    return np.array(window, np.float32).reshape(1, -1, 1)


def forecast(engine: Engine, window: Sequence[float], horizon: int) -> list[float]:
    """What the engine forecasts, carrying its state where the model has one."""
    return [float(value) for value in engine.forecast(as_values(window), horizon)[0, :, 0]]


def slid_forecast(engine: Engine, window: Sequence[float], horizon: int) -> list[float]:
    """What comes out where the whole window is run again for every step, state or no state.

    A network that scales each window by its own level and spread gives slightly other numbers this way, because the
    window that it is measured by moves on.
    """
    values = as_values(window)
    steps: list[float] = []
    for _ in range(horizon):
        step = engine.run(values).forecast
        steps.append(float(step[0, 0]))
        values = slide(values, step, engine.context_length)
    return steps


def differs(found: Sequence[float], wanted: Sequence[float]) -> str | None:
    """Say how an answer is wrong, or None where each number is right to `TOLERANCE`."""
    if len(found) != len(wanted):
        return f"{len(found)} numbers where {len(wanted)} are due"
    worst = max(abs(one - other) / max(abs(other), 1e-9) for one, other in zip(found, wanted, strict=True))
    return None if worst <= TOLERANCE else f"a number is off by {worst:.1e} of itself"

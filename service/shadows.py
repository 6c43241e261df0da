"""Shadows: forecasts made again by another version, to see how far the two are apart before anybody relies on it.

The answer comes first. What is compared afterwards is computed on a thread of its own, one request at a time; few wait,
and where more would have to, they are left out and counted. Whatever a shadow does, the answer is gone already.
"""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import random
from typing import Final, NamedTuple

import numpy as np

from service.engine import Engine
from service.metrics import Metrics, TooManyMetrics
from service.versions import ServedModel, one_line
from service.window import Values

SHADOW_FORECASTS: Final = "leadtime_shadow_forecasts"
SHADOW_DIFFERENCE: Final = "leadtime_shadow_difference"

_MOST_WAITING: Final = 16
_MOST_WINDOWS: Final = 64
_BOUNDS: Final = (0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

_log: Final = logging.getLogger("leadtime.shadows")


class Asked(NamedTuple):
    """What a request was, and what was answered."""

    windows: Sequence[Values]
    """Each (time, features)."""
    known: Sequence[Values] | None
    """Each (time + horizon - 1, known), for models that take such."""
    forecasts: Values
    """(windows, horizon, features)."""


class Shadows:
    """The shadow forecasts of one process."""

    def __init__(self, metrics: Metrics) -> None:
        """Count in `metrics`; the thread is started for the first forecast."""
        self._metrics = metrics
        self._room = threading.BoundedSemaphore(_MOST_WAITING)
        self._thread: ThreadPoolExecutor | None = None
        self._failed = ""

    def follow(
        self, model: ServedModel, windows: Sequence[Values], known: Sequence[Values] | None, answer: Values
    ) -> None:
        """Have the shadow of a model forecast what the model has answered, later, or not at all.

        Takes no time to speak of and raises nothing.
        """
        shadow = model.shadow
        if shadow is None or random() >= shadow.share:
            return
        if not self._room.acquire(blocking=False):
            self._count(model, "left out")
            return
        asked = Asked(windows[:_MOST_WINDOWS], known and known[:_MOST_WINDOWS], answer[:_MOST_WINDOWS])
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leadtime-shadow")
        self._thread.submit(self._compare, model, shadow.model, asked)

    def close(self) -> None:
        """Give up what waits, and wait for what runs."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _compare(self, model: ServedModel, shadow: ServedModel, asked: Asked) -> None:
        try:
            differences = _differences(shadow.engine, asked)
            for difference in differences:
                self._observe(model, shadow, difference)
            self._count(model, "compared" if differences else "left out")
        except Exception as error:
            self._count(model, "failed")
            if self._failed != shadow.engine.digest:
                self._failed = shadow.engine.digest
                _log.warning("%s/%s: it failed as a shadow: %s", shadow.name, shadow.version, one_line(str(error)))
        finally:
            self._room.release()

    def _count(self, model: ServedModel, outcome: str) -> None:
        try:
            self._metrics.counter(SHADOW_FORECASTS, model=model.name, outcome=outcome).add()
        except TooManyMetrics:
            _log.debug("no room to count another model")

    def _observe(self, model: ServedModel, shadow: ServedModel, difference: float) -> None:
        labels = {"model": model.name, "version": model.version, "shadow": shadow.version}
        try:
            self._metrics.histogram(SHADOW_DIFFERENCE, _BOUNDS, **labels).observe(difference)
        except TooManyMetrics:
            _log.debug("no room to count another version")


def _differences(engine: Engine, asked: Asked) -> list[float]:
    """How far the shadow's forecast of each window is from the answer; of windows too short for it, nothing."""
    horizon = asked.forecasts.shape[1]
    by_length: dict[int, list[int]] = {}
    for place, window in enumerate(asked.windows):
        if len(window) >= engine.minimum_window:
            by_length.setdefault(len(window), []).append(place)
    differences = []
    for places in by_length.values():
        windows = np.stack([asked.windows[place] for place in places])
        known = None if asked.known is None else np.stack([asked.known[place] for place in places])
        forecasts = engine.forecast(windows, horizon, known)
        differences += [
            _difference(answer, forecast) for answer, forecast in zip(asked.forecasts[places], forecasts, strict=True)
        ]
    return differences


def _difference(one: Values, other: Values) -> float:
    """Σ|a − b| / Σ(|a| + |b|) / 2 over all steps, 0 to 2; each feature for itself, and their mean."""
    one, other = one.astype(np.float64), other.astype(np.float64)  # (horizon, features)
    apart = np.abs(one - other).sum(axis=0)
    size = (np.abs(one) + np.abs(other)).sum(axis=0) / 2
    return float(np.mean(np.divide(apart, size, out=np.zeros_like(apart), where=size > 0)))

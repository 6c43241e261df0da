"""Whether the worker's memory stays flat over many requests of mixed shapes."""

import random
import statistics
from typing import Any, Final

from benchmarks.load import drive, log_uniform
from benchmarks.questions import CONTEXT, WINDOW, Question, as_json
from benchmarks.rates import Place
from benchmarks.servers import service

_CONNECTIONS: Final = 16
_SHAPES: Final = 400
_SECONDS: Final = 5


def measure(place: Place, requests: int) -> dict[str, Any]:
    """Ask until so many requests have been answered, and look at the resident memory every few seconds.

    Returns:
        The megabytes at each count of requests, and the slope of the second half, in bytes for each thousand requests,
        with its standard error.
    """
    shapes = mixed_shapes()
    counts, megabytes = [0], []
    with service("uni", place.server) as server:
        megabytes.append(server.memory())
        while counts[-1] < requests:
            load = drive(server.port, shapes, connections=_CONNECTIONS, seconds=_SECONDS, core=place.generator)
            counts.append(counts[-1] + load.requests)
            megabytes.append(server.memory())
    return {"requests": counts[-1], "counts": counts, "megabytes": megabytes, **slope(counts, megabytes)}


def mixed_shapes() -> list[Question]:
    """Requests of 1 to 8 windows of 8 to 60 steps and of horizons from 1 to 96, in random proportions."""
    rng = random.Random(0)
    questions = []
    for horizon in log_uniform(96, _SHAPES):
        length = [rng.randrange(8, 2 * CONTEXT) for _ in range(log_uniform(8, 1, rng.randrange(10_000))[0])]
        windows = [[(WINDOW * 2)[step] for step in range(steps)] for steps in length]
        body = {"windows": windows, "horizon": horizon}
        questions.append(as_json("/forecast/multi-step", body, lambda answer: answer["forecasts"][0]["values"]))
    return questions


def slope(counts: list[int], megabytes: list[float]) -> dict[str, float | None]:
    """The line through the second half of the points: how much each thousand requests add, in bytes.

    None where there are too few points for a standard error.
    """
    half = len(counts) // 2
    x, y = [count / 1000 for count in counts[half:]], [size * 1e6 for size in megabytes[half:]]
    if len(x) < 3 or x[0] == x[-1]:
        return {"bytes_per_thousand": None, "standard_error": None}
    line = statistics.linear_regression(x, y)
    residuals = [have - line.slope * at - line.intercept for at, have in zip(x, y, strict=True)]
    middle = statistics.fmean(x)
    spread = sum((at - middle) ** 2 for at in x)
    error = (sum(residual**2 for residual in residuals) / (len(x) - 2) / spread) ** 0.5
    return {"bytes_per_thousand": line.slope, "standard_error": error}

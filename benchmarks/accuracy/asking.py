"""Forecasts from the running service, asked for over HTTP one origin at a time, as clients do."""

import contextlib
import http.client
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.accuracy.protocols import Protocol
from benchmarks.accuracy.scores import Answered
from benchmarks.servers import Server, free_port, running
from service.artifact import FILE_NAME, Metadata
from service.engine import Engine
from service.intervals import fewest_errors
from training.baselines import Forecasts, Origins
from training.panel import Panel, Series

_NAME: Final = "scored"


@contextlib.contextmanager
def serving(artifact: Path) -> Iterator[Server]:
    """Run the service, with its default settings, one worker and an artifact as its default model."""
    with tempfile.TemporaryDirectory() as folder:  # its own, for several runs may score at once
        place = Path(folder) / _NAME / "1" / FILE_NAME
        place.parent.mkdir(parents=True)
        shutil.copyfile(artifact, place)
        port = free_port()
        settings = {
            "LEADTIME_PORT": str(port),
            "LEADTIME_WORKERS": "1",
            "LEADTIME_LOG_LEVEL": "warning",
            "LEADTIME_MODELS": folder,
            "LEADTIME_DEFAULT_MODEL": _NAME,
        }
        command = [sys.executable, "-m", "service"]
        name = f"accuracy {port}"
        with running(name, command, ready="/health/ready", cores=None, port=port, settings=settings) as server:
            yield server


def supports(metadata: Metadata, protocol: Protocol) -> bool:
    """Whether the model's file has errors enough for the protocol's intervals, however short a window is."""
    errors = metadata.errors
    if errors is None or protocol.level is None:
        return False
    return len(errors.array) >= fewest_errors(protocol.level) and errors.array.shape[1] >= protocol.horizon


def ask(
    server: Server,
    engine: Engine,
    protocol: Protocol,
    panel: Panel,
    origins: Sequence[Origins],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answered]:
    """Forecast from all origins (origins,) of each series through `POST /forecast/multi-step`.

    A request has a window that ends at its origin: all of the past where intervals are asked for, since the service
    takes their width from it, else as much as the model looks at. A model that has too few errors is not asked for
    intervals. `progress` is told how many of how many series are done.

    Raises:
        RuntimeError: an answer is not a forecast.
    """
    levels = [protocol.level] if protocol.level is not None and supports(engine.metadata, protocol) else None
    answers = []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)) as connection:
        for done, (series, held) in enumerate(zip(panel.series, origins, strict=True), start=1):
            found = [_asked(connection, _body(engine, protocol, panel, series, int(origin), levels)) for origin in held]
            answers.append(_together(series, held, found, with_bounds=levels is not None))
            progress(done, len(panel.series))
    return answers


def _body(
    engine: Engine, protocol: Protocol, panel: Panel, series: Series, origin: int, levels: list[float] | None
) -> bytes:
    first = 0 if levels else max(0, origin + 1 - engine.context_length)
    window = series.values[first : origin + 1]
    body: dict[str, Any] = {"window": [row[0] if len(row) == 1 else row for row in window.tolist()]}
    body["horizon"] = protocol.horizon
    if levels:
        body["levels"] = levels
    if series.times is not None and panel.frequency is not None:
        body |= {"origin": series.times[origin].isoformat(), "frequency": panel.frequency}
    return json.dumps(body).encode()


def _asked(connection: http.client.HTTPConnection, body: bytes) -> Any:
    connection.request("POST", "/forecast/multi-step", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise RuntimeError(f"the service answered {response.status}: {answer[:500].decode(errors='replace')}")
    return json.loads(answer)["forecasts"][0]


def _together(series: Series, origins: Origins, found: list[Any], *, with_bounds: bool) -> Answered:
    def gathered(parts: list[Any]) -> Forecasts:
        return np.array(parts, dtype=np.float64).reshape(len(found), -1, series.values.shape[1])

    forecasts = gathered([one["values"] for one in found])
    if not with_bounds:
        return Answered(series, origins, forecasts)
    intervals = [one["intervals"][0] for one in found]
    lower, upper = (gathered([one[side] for one in intervals]) for side in ("lower", "upper"))
    return Answered(series, origins, forecasts, lower, upper)

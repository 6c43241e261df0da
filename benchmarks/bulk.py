"""One request of a thousand windows: its cost beside onnxruntime in process, and what it does to the rest.

Beside it, one-step requests are asked for at a moderate rate; their 99th percentile and the rise of the worker's
resident memory are told.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from benchmarks.inprocess import InProcess
from benchmarks.load import Generator, drive
from benchmarks.questions import HORIZON, ROOT, WINDOW, Question, artifact, as_json, differs, to_service
from benchmarks.rates import Place
from benchmarks.servers import service
from service.api.headers import ARROW
from service.api.ipc import FLOAT, LIST, Field, Written, read_stream, write_stream
from service.window import Values

WINDOWS: Final = 1000
_BATCHES: Final = (16, 64, 256)  # in process the best of them counts
_REPEATS: Final = 4
_CONNECTIONS_BESIDE: Final = 16
_THINK: Final = 40.0  # ms: about 400 one-step requests a second


def measure(place: Place, *, rounds: int, seconds: int) -> dict[str, Any]:
    """Measure one large request at a time, again and again.

    Raises:
        RuntimeError: the answer is wrong.
    """
    question, binary = bulk_question(), arrow_question()
    short = to_service(WINDOW, 1)
    server_rates, binary_rates, process_rates, beside, alone = [], [], [], [], []
    with service("uni", place.server) as server:
        network = InProcess(artifact("uni"))
        wanted = network.forecast_all(bulk_windows(), HORIZON, _BATCHES[0]).reshape(-1)
        common: dict[str, Any] = {"core": place.generator, "seconds": seconds}
        # Before the peak of memory is looked at, one-step requests bring the worker to where it usually is.
        drive(server.port, short, connections=_CONNECTIONS_BESIDE, **common)
        with server.peak_memory() as rise:
            answers = [server.ask(question), server.ask(binary)]
        for answer in answers:
            if (fault := differs(answer, wanted.tolist())) is not None:
                raise RuntimeError(f"{WINDOWS} windows are answered wrongly: {fault}")
        for _ in range(rounds):
            process_rates.append(_process_rate(place))
            server_rates.append(drive(server.port, question, connections=1, **common).rate * WINDOWS)
            binary_rates.append(drive(server.port, binary, connections=1, **common).rate * WINDOWS)
            quiet = Generator(server.port, short, connections=_CONNECTIONS_BESIDE, think=_THINK, **common)
            alone.append(quiet.finish())
            large = Generator(server.port, question, connections=1, **common)
            busy = Generator(server.port, short, connections=_CONNECTIONS_BESIDE, think=_THINK, **common)
            beside.append(busy.finish())
            large.finish()
        with server.peak_memory() as rise_again:
            server.ask(question)
    return {
        "windows": WINDOWS,
        "horizon": HORIZON,
        "body_bytes": len(question.body),
        "forecasts_per_second": statistics.median(server_rates),
        "binary_bytes": len(binary.body),
        "binary_forecasts_per_second": statistics.median(binary_rates),
        "binary_ratio": statistics.median(one / other for one, other in zip(binary_rates, process_rates, strict=True)),
        "in_process": statistics.median(process_rates),
        "ratio": statistics.median(one / other for one, other in zip(server_rates, process_rates, strict=True)),
        "memory_rise": rise[0],
        "memory_rise_again": rise_again[0],
        "p50_beside": statistics.median(load.p50 for load in beside),
        "p99_beside": statistics.median(load.p99 for load in beside),
        "p99_alone": statistics.median(load.p99 for load in alone),
        "rate_beside": statistics.median(load.rate for load in beside),
    }


def bulk_windows() -> Values:
    """(windows, time, 1): all different, with three decimals."""
    rng = np.random.default_rng(0)
    levels = rng.uniform(50, 150, (WINDOWS, 1))
    return np.round(np.array(WINDOW)[None] * levels / 100, 3).astype(np.float32)[:, :, None]


def bulk_question() -> Question:
    """All the windows in one request."""
    windows = [[round(float(value), 3) for value in window] for window in bulk_windows()[:, :, 0]]
    return as_json(
        "/forecast/multi-step",
        {"windows": windows, "horizon": HORIZON},
        lambda answer: [value for forecast in answer["forecasts"] for value in forecast["values"]],
    )


def arrow_question() -> Question:
    """The same as an Arrow stream."""
    windows = bulk_windows()
    starts = np.arange(WINDOWS + 1, dtype=np.int32) * np.int32(windows.shape[1])
    field = Field("window", LIST, child=Field("item", FLOAT))
    column = Written(field, [(WINDOWS, [starts]), (windows.size, [windows])])
    body = write_stream([column], {"horizon": str(HORIZON)})
    return Question("/forecast/multi-step", body, _read_arrow, {"content-type": ARROW.decode()})


def _read_arrow(headers: Mapping[str, str], body: bytes) -> Sequence[float]:
    _, batches = read_stream(body)
    (lists,) = next(batches).columns()
    assert lists.child is not None
    assert lists.child.numbers is not None
    numbers: list[float] = lists.child.numbers.tolist()
    return numbers


def _process_rate(place: Place) -> float:
    command = [sys.executable, "-m", "benchmarks.bulk"]
    if place.server is not None:
        command = ["taskset", "--cpu-list", place.server, *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def main() -> None:
    """Print how many of the windows are forecast a second in process."""
    network, windows = InProcess(artifact("uni")), bulk_windows()
    print(json.dumps(max(_rate(network, windows, batch) for batch in _BATCHES)))


def _rate(network: InProcess, windows: Values, batch: int) -> float:
    network.forecast_all(windows, HORIZON, batch)
    started = time.perf_counter()
    for _ in range(_REPEATS):
        network.forecast_all(windows, HORIZON, batch)
    return _REPEATS * WINDOWS / (time.perf_counter() - started)


if __name__ == "__main__":
    main()

"""Two workers on two cores beside one worker on one, and what a second core of this machine is worth to begin with.

`python -m benchmarks.workers CORE SECONDS` runs the model on a core, without any server, once a line comes on standard
input, and prints how often it did.
"""

import os
import statistics
import subprocess
import sys
import time
from typing import Any, Final

import numpy as np

from benchmarks.load import Load, drive
from benchmarks.questions import HORIZON, ROOT, WINDOW, Question, artifact, as_json, to_service
from benchmarks.rates import Place
from benchmarks.servers import service
from service.engine import Engine

_CONNECTIONS: Final = 32
_WINDOWS: Final = 64
_ROWS: Final = 16


def measure(place: Place, cores: int, *, rounds: int, seconds: int) -> dict[str, Any] | None:
    """Measure both, in turns; None where the machine has one core.

    With fewer than three cores the generator takes its time from the workers. So the rate is also told per second of
    CPU time that was left for the workers: how well a second worker uses what it gets. Of requests with many windows
    there are few, and the generator has next to nothing to do. Cores may share what is below them: what runs of the
    model alone gain from the second one is all that a server could.
    """
    if cores < 2 or place.server is None:
        return None
    gains = [sum(_runs_on([0, 1], seconds)) / sum(_runs_on([0], seconds)) for _ in range(rounds)]
    found: dict[str, dict[str, Any]] = {}
    spare = cores > 2
    core = 2 if spare else None
    for name, question in _questions().items():
        loads: dict[int, list[Load]] = {1: [], 2: []}
        with service("uni", "0") as one, service("uni", "0,1", workers=2) as two:
            two.pause()
            for _ in range(rounds):
                for workers, server, other in ((1, one, two), (2, two, one)):
                    other.pause()
                    server.resume()
                    # As many for each worker, so that their batches are alike.
                    connections = _CONNECTIONS * workers
                    drive(server.port, question, connections=connections, seconds=1, core=core)
                    # One worker leaves the other core to the generator.
                    where = core if spare or workers == 2 else place.generator
                    loads[workers].append(
                        drive(server.port, question, connections=connections, seconds=seconds, core=where)
                    )
        found[name] = _summary(loads, spare, seconds)
    return {
        "rounds": rounds,
        "connections": _CONNECTIONS,
        "spare_core": spare,
        "gain_of_runs": statistics.median(gains),
        "loads": found,
    }


def _questions() -> dict[str, Question]:
    many = {"windows": [WINDOW] * _WINDOWS, "horizon": HORIZON}
    return {
        "1 step": to_service(WINDOW, 1),
        f"{HORIZON} steps": to_service(WINDOW, HORIZON),
        f"{_WINDOWS} windows, {HORIZON} steps": as_json(
            "/forecast/multi-step", many, lambda answer: [one["values"][-1] for one in answer["forecasts"]]
        ),
    }


def _runs_on(cores: list[int], seconds: int) -> list[int]:
    """How many runs processes do on some cores at the same time, one each."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.workers", str(core), str(seconds)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for core in cores
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [int(process.communicate()[0]) for process in processes]


def _count_runs(core: int, seconds: float) -> int:
    os.sched_setaffinity(0, {core})
    engine = Engine.open(artifact("uni"))
    values = np.repeat(np.array(WINDOW, np.float32).reshape(1, -1, 1), _ROWS, axis=0)
    engine.run(values)
    print("ready", flush=True)
    sys.stdin.readline()
    runs, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        engine.run(values)
        runs += 1
    return runs


def _summary(loads: dict[int, list[Load]], spare: bool, seconds: int) -> dict[str, Any]:
    one, two = loads[1], loads[2]
    ratios = [both.rate / single.rate for single, both in zip(one, two, strict=True)]
    # CPU seconds that two cores had for the workers, of which one core has as many as the run was long.
    left = [2.0 if spare else 2.0 - both.generator_seconds / seconds for both in two]
    return {
        "one": statistics.median(load.rate for load in one),
        "two": statistics.median(load.rate for load in two),
        "ratio": statistics.median(ratios),
        "cores_left_for_two": statistics.median(left),
        "ratio_per_core_left": statistics.median(ratio / have for ratio, have in zip(ratios, left, strict=True)),
    }


if __name__ == "__main__":
    print(_count_runs(int(sys.argv[1]), float(sys.argv[2])))

"""`python -m benchmarks.networks`: what a forecast costs of every cell, direction, depth and output.

Each network has layers of 32 units and random weights, and is written as an artifact, whose export has compared it with
Keras to 1 part in 10,000. onnxruntime runs it in process: sixteen windows of 30 steps, one step and 24 steps ahead, as
the service runs them. The cells of one shape take turns, so that a machine that slows down slows all of them. It runs
in `.venv`, which has TensorFlow.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Final

import keras
import numpy as np

from benchmarks.models import metadata_of
from benchmarks.questions import CONTEXT, HORIZON, WINDOW, as_values
from benchmarks.results import keep
from service.engine import Engine
from training.config import Network
from training.export import convert, export
from training.model import Forecaster

CELLS: Final = ("lstm", "gru", "rnn", "peephole_lstm")
LAYERS: Final = (1, 2, 3)
OUTPUTS: Final = ("sequence", "vector", "horizon")
UNITS: Final = 32
BATCH: Final = 16
_SECONDS: Final = 0.1  # of each measurement in each round


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.networks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    rounds: int = parser.parse_args().rounds
    found = []
    for both, layers, output in shapes():
        for cell, costs in measured(both, layers, output, rounds).items():
            found.append({"cell": cell, "bidirectional": both, "layers": layers, "output": output, **costs})
        name = f"{'bidirectional' if both else 'forward'}, {layers} × {UNITS}, {output}"
        told = ", ".join(f"{one['cell']} {one['1']:.1f} and {one[str(HORIZON)]:.1f}" for one in found[-len(CELLS) :])
        print(f"{name}: µs a forecast of 1 and {HORIZON} steps: {told}", flush=True)
    about = {"units": UNITS, "batch": BATCH, "window": len(WINDOW), "rounds": rounds}
    print(f"kept in {keep('networks', {**about, 'networks': found})}")


def shapes() -> Iterator[tuple[bool, int, str]]:
    """Direction, depth and output of every network; a bidirectional one has no forecast at every step."""
    for both, layers, output in product((False, True), LAYERS, OUTPUTS):
        if not (both and output == "sequence"):
            yield both, layers, output


def measured(both: bool, layers: int, output: str, rounds: int) -> dict[str, dict[str, Any]]:
    """By cell, the microseconds of a forecast by horizon, medians of rounds, and whether its graph holds a loop."""
    with tempfile.TemporaryDirectory() as folder:
        made = {cell: _made(cell, both, layers, output, Path(folder) / f"{cell}.onnx") for cell in CELLS}
        seconds: dict[tuple[str, int], list[float]] = {}
        for _ in range(rounds):
            for cell, horizon in product(CELLS, (1, HORIZON)):
                seconds.setdefault((cell, horizon), []).append(_seconds(made[cell][0], horizon))
    return {
        cell: {
            **{str(horizon): 1e6 * median(seconds[cell, horizon]) / BATCH for horizon in (1, HORIZON)},
            "loops": made[cell][1],
        }
        for cell in CELLS
    }


def _made(cell: str, both: bool, layers: int, output: str, path: Path) -> tuple[Engine, int]:
    given = {"cell": cell, "layers": [UNITS] * layers, "bidirectional": both, "output": output}
    keras.utils.set_random_seed(0)
    network = Forecaster.from_network(
        Network.model_validate({**given, "context_length": CONTEXT}), features=1, season=None, horizon=HORIZON
    )
    export(network, metadata_of(cell.replace("_", "-"), network.state_size), path)
    loops = sum(node.op_type in ("Loop", "Scan") for node in convert(network).graph.node)
    return Engine.open(path), loops


def _seconds(engine: Engine, horizon: int) -> float:
    """The median time of a batch."""
    windows = np.repeat(as_values(WINDOW), BATCH, axis=0)
    for _ in range(3):
        engine.forecast(windows, horizon)
    times: list[float] = []
    while sum(times) < _SECONDS or len(times) < 5:
        began = time.perf_counter()
        engine.forecast(windows, horizon)
        times.append(time.perf_counter() - began)
    return median(times)


if __name__ == "__main__":
    main()

"""onnxruntime in process: what the same forecasts cost without any server.

A session of its own, with onnxruntime's defaults but for its threads, so that nothing of the service's counts for or
against it. `python -m benchmarks.inprocess` prints the rates as JSON, for it runs pinned to the servers' core.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from benchmarks.questions import HORIZON, ROOT, WINDOW, artifact, as_values
from service.artifact import FORECAST, NEXT_STATE, STATE, VALUES
from service.window import Values, slide

BATCHES: Final = (16, 1)
_SECONDS: Final = 1.0


class InProcess:
    """One model, open in this process."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        sizes = {tensor.name: tensor.shape for tensor in self._session.get_inputs()}
        self._state_size = sizes[STATE][1] if STATE in sizes else 0

    def forecast(self, windows: Values, horizon: int) -> Values:
        """(batch, time, 1) to (batch, horizon), with the state carried where the model has one."""
        steps = np.empty((len(windows), horizon), np.float32)
        if not self._state_size:
            for lead in range(horizon):
                (step,) = self._session.run([FORECAST], {VALUES: windows})
                steps[:, lead] = step[:, 0]
                windows = slide(windows, step, windows.shape[1])
            return steps
        feed = {VALUES: windows, STATE: np.zeros((len(windows), self._state_size), np.float32)}
        for lead in range(horizon):
            step, state = self._session.run([FORECAST, NEXT_STATE], feed)
            steps[:, lead] = step[:, 0]
            feed = {VALUES: step[:, None], STATE: state}
        return steps

    def forecast_all(self, windows: Values, horizon: int, batch: int) -> Values:
        """The same, so many windows at a time."""
        parts = range(0, len(windows), batch)
        return np.concatenate([self.forecast(windows[start : start + batch], horizon) for start in parts])


def measured(model: str, core: str | None) -> dict[str, Any]:
    """Forecasts a second of a model, by batch and horizon, in a process of its own on a core."""
    command = [sys.executable, "-m", "benchmarks.inprocess", model]
    if core is not None:
        command = ["taskset", "--cpu-list", core, *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    network = InProcess(artifact(sys.argv[1]))
    rates = {
        f"batch {batch}": {
            str(horizon): batch * _calls_per_second(partial(_once, network, batch, horizon)) for horizon in (1, HORIZON)
        }
        for batch in BATCHES
    }
    print(json.dumps(rates))


def _once(network: InProcess, batch: int, horizon: int) -> Values:
    return network.forecast(np.repeat(as_values(WINDOW), batch, axis=0), horizon)


def _calls_per_second(call: Callable[[], object]) -> float:
    for _ in range(20):
        call()
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        for _ in range(10):
            call()
        calls += 10
    return calls / (time.perf_counter() - started)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.training_speed`: how many windows a second are fitted on, beside Keras's own `fit`.

Model, batch, loss, optimiser and series are the same: two LSTM layers of 32 units and a dense layer, windows of 20,
batches of 32. Keras is given the window data set of courses. Both are measured in turns in one run, by the median of
their epochs, without the first two, in which graphs are compiled. It runs in `.venv`, which has TensorFlow.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
import time
from argparse import ArgumentParser
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.results import keep
from training.config import Config
from training.fit import fit
from training.panel import Panel, Series
from training.parts import Boundary, Split
from training.synthetic import lab

WINDOW: Final = 20
BATCH: Final = 32
UNITS: Final = 32
_HELD_OUT: Final = 100  # steps at the end of the series, in two parts
_SHUFFLED: Final = 1000
_RATE: Final = 1e-3
_MOMENTUM: Final = 0.9


@dataclass
class Clock:
    """Notes when epochs end, in seconds of the clock and of processors."""

    ends: list[tuple[float, float]] = field(default_factory=list)

    def batch(self, done: int, total: int) -> None: ...

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))

    def seconds(self) -> npt.NDArray[np.float64]:
        """Of each epoch but the first two, (epochs, 2)."""
        return np.diff(np.array(self.ends), axis=0)[1:]


def measure(epochs: int, repeats: int, rounds: int) -> dict[str, Any]:
    """Windows a second by both, (rounds,) each, by the clock and by processor time; the series is repeated."""
    values = np.tile(lab()["value"].to_numpy(dtype=np.float64), repeats)
    fitted = len(values) - _HELD_OUT - WINDOW
    rates: dict[str, list[list[float]]] = {"leadtime": [], "keras": []}
    for number in range(rounds):
        for name, run in (("leadtime", by_leadtime), ("keras", by_keras)):
            seconds = run(values, epochs)
            windows = fitted // BATCH * BATCH if name == "leadtime" else fitted
            rates[name].append((windows / np.median(seconds, axis=0)).tolist())
            print(f"round {number + 1}: {name}, {rates[name][-1][0]:,.0f} windows/s", flush=True)
    found = {
        kind: {name: [rate[place] for rate in by_round] for name, by_round in rates.items()}
        for place, kind in enumerate(("clock", "processor"))
    }
    return {"windows": fitted, "epochs": epochs, **found, "tensorflow": tf.__version__, "keras": keras.__version__}


def by_leadtime(values: npt.NDArray[np.float64], epochs: int) -> npt.NDArray[np.float64]:
    """Seconds of each epoch of `training.fit`, with its validation and its checkpoint, (epochs, 2)."""
    config = Config.model_validate(
        {
            "data": {"horizon": 1},
            "network": {
                **{"layers": (UNITS, UNITS), "output": "vector", "head": "plain", "scaling": 100.0, "lags": ()},
                **{"residual": False, "context_length": WINDOW},
            },
            "fitting": {
                **{"epochs": epochs, "patience": epochs, "batch_size": BATCH, "iterated": False, "lengths": "equal"},
                **{"steps_per_epoch": (len(values) - _HELD_OUT - WINDOW) // BATCH, "warm_up": 0, "clip_norm": 0},
                **{"optimiser": "sgd", "momentum": _MOMENTUM, "learning_rate": _RATE, "huber_delta": 0.01},
            },
        }
    )
    panel = Panel((Series("lab", values[:, None], None),), ("value",), None, None, (), "")
    split = Split((Boundary(len(values) - _HELD_OUT, len(values) - _HELD_OUT // 2),), horizon=1)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        fit(panel, split, config, checkpoint=Path(folder) / "run.npz", progress=clock)
    keras.utils.clear_session()
    return clock.seconds()


def by_keras(values: npt.NDArray[np.float64], epochs: int) -> npt.NDArray[np.float64]:
    """Seconds of each epoch of Keras's `fit`, without validation, (epochs, 2)."""
    model = keras.Sequential(
        [
            keras.Input((WINDOW, 1)),
            keras.layers.Rescaling(1 / 100),
            keras.layers.LSTM(UNITS, return_sequences=True),
            keras.layers.LSTM(UNITS),
            keras.layers.Dense(1),
            keras.layers.Rescaling(100.0),
        ]
    )
    model.compile(loss=keras.losses.Huber(), optimizer=keras.optimizers.SGD(_RATE / 100, momentum=_MOMENTUM))
    clock = Clock()
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda number, logs: clock.epoch(number, epochs, 0.0, 0.0))
    model.fit(window_data_set(values[:-_HELD_OUT]), epochs=epochs, verbose=0, callbacks=[told])
    keras.utils.clear_session()
    return clock.seconds()


def window_data_set(values: npt.NDArray[np.float64]) -> Any:
    """Windows and what follows each, as courses cut them, in batches."""
    series = tf.constant(values[:, None], tf.float32)
    windows = tf.data.Dataset.from_tensor_slices(series).window(WINDOW + 1, shift=1, drop_remainder=True)
    windows = windows.flat_map(_as_tensor).shuffle(_SHUFFLED).map(_split)
    return windows.batch(BATCH).prefetch(1)


def _as_tensor(window: Any) -> Any:
    return window.batch(WINDOW + 1)


def _split(window: Any) -> tuple[Any, Any]:
    return window[:-1], window[-1]


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.training_speed", description=__doc__)
    parser.add_argument("--epochs", type=int, default=8, help="in each round, of which two warm up (default: 8)")
    parser.add_argument("--repeats", type=int, default=3, help="of the lab series of 1,461 steps (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="by both in turns (default: 3)")
    given = parser.parse_args()
    found = measure(given.epochs, given.repeats, given.rounds)
    for kind in ("clock", "processor"):
        ours, theirs = median(found[kind]["leadtime"]), median(found[kind]["keras"])
        ratios = [one / other for one, other in zip(found[kind]["leadtime"], found[kind]["keras"], strict=True)]
        print(f"{kind}: {ours:,.0f} windows/s, Keras {theirs:,.0f}; {median(ratios):.1f} × as many")
    print(f"kept in {keep('training speed', found)}")


if __name__ == "__main__":
    main()

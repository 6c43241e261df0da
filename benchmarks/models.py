"""`python -m benchmarks.models`: write the models that every server of a benchmark serves.

- `uni`: two unidirectional LSTM layers of 32, made and exported by the training package. It carries its state.
- `bi`: two bidirectional layers of 32 over a window. It carries nothing, so its window is slid.

Their weights are random, from a seed: speed does not depend on what a network has learned. This module alone of the
benchmarks needs the training libraries.
"""

import os
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx

from benchmarks.questions import CONTEXT, MODELS, artifact
from service.artifact import FORECAST, METADATA_KEY, VALUES, Metadata, Provenance
from service.engine import Engine
from training.config import Network
from training.export import export
from training.model import Forecaster

_UNITS: Final = (32, 32)
_MINIMUM: Final = 8
_SEED: Final = 20_240_501
_OPSET: Final = 18


def make_models(folder: Path = MODELS) -> None:
    """Write `uni` and `bi` under a folder as the service expects models, and open both once.

    Raises:
        ArtifactError, ExportError: a file does not keep the contract.
    """
    for name, write in (("uni", _write_unidirectional), ("bi", _write_bidirectional)):
        path = artifact(name, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.set_random_seed(_SEED)
        write(path)
        Engine.open(path)


def _write_unidirectional(path: Path) -> None:
    network = Forecaster.from_network(Network(layers=_UNITS, context_length=CONTEXT), features=1, season=None)
    # A new network answers simple forecasts; with zeros in its head, nothing of the LSTM would reach the answer.
    rng = np.random.default_rng(_SEED)
    for head in network.heads:
        head.kernel.assign(rng.normal(0, 0.2, head.kernel.shape).astype(np.float32))
    export(network, _metadata("uni", network.state_size), path)


def _write_bidirectional(path: Path) -> None:
    layer = keras.layers.Bidirectional
    network = keras.Sequential(
        [
            keras.Input((None, 1)),
            layer(keras.layers.LSTM(_UNITS[0], return_sequences=True)),
            layer(keras.layers.LSTM(_UNITS[1])),
            keras.layers.Dense(1),
        ]
    )
    signature = [tf.TensorSpec((None, None, 1), tf.float32, name=VALUES)]

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def step(values: Any) -> dict[str, Any]:
        level = tf.reduce_mean(values, axis=1, keepdims=True)
        spread = tf.math.reduce_std(values, axis=1, keepdims=True) + 1e-6
        forecast = network((values - level) / spread)
        return {FORECAST: forecast * spread[:, 0] + level[:, 0]}

    graph, _ = tf2onnx.convert.from_function(step, input_signature=signature, opset=_OPSET)
    for tensor, shape in ((graph.graph.input[0], ("batch", "time", 1)), (graph.graph.output[0], ("batch", 1))):
        tensor.CopyFrom(onnx.helper.make_tensor_value_info(tensor.name, onnx.TensorProto.FLOAT, shape))
    graph.metadata_props.add(key=METADATA_KEY, value=_metadata("bi", 0).model_dump_json())
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString())


def _metadata(name: str, state_size: int) -> Metadata:
    return Metadata(
        name=name,
        version="1",
        description="Random weights, to measure speed with.",
        context_length=CONTEXT,
        minimum_window=_MINIMUM,
        features=("value",),
        state_size=state_size,
        frequency=None,
        season_length=None,
        training=Provenance(
            created="2024-05-01T00:00:00Z",
            data="nothing: the weights are random",
            series=1,
            observations=1,
            configuration={"layers": _UNITS, "seed": _SEED},
            libraries={"keras": keras.__version__, "tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__},
        ),
    )


if __name__ == "__main__":
    make_models()

"""Keras to ONNX: conversion to native nodes, the check that both compute the same, and writing the artifact."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import tensorflow as tf
import tf2onnx

from service.artifact import FORECAST, METADATA_KEY, NEXT_STATE, SCALE, STATE, VALUES, Metadata
from service.engine import Engine
from service.errors import ArtifactError
from training.errors import ExportError
from training.model import Forecaster

TOLERANCE: Final = 1e-4  # relative, of every forecast, state and scale
_OPSET: Final = 18
_LOOPS: Final = frozenset({"Loop", "Scan"})
_BATCHES: Final = (1, 3)
_DECODED: Final = 5


def export(network: Forecaster, metadata: Metadata, path: Path) -> None:
    """Write a network as an artifact, once its graph is proven to compute what Keras computes.

    Args:
        network: the fitted network.
        metadata: what the artifact is to say of itself.
        path: the file to write; it appears whole or not at all.

    Raises:
        ExportError: the graph has a loop instead of native cells, breaks the contract, or computes something else.
    """
    graph = convert(network)
    unfinished = path.with_name(f".{path.name}.unchecked")
    try:
        _save(graph, metadata, unfinished)
        try:
            engine = Engine.open(unfinished)
        except ArtifactError as error:
            raise ExportError(f"the exported graph breaks the contract: {error}") from error
        check_parity(network, engine)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_metadata(path: Path, metadata: Metadata) -> None:
    """Replace the metadata of an artifact, atomically."""
    unfinished = path.with_name(f".{path.name}.part")
    _save(onnx.load(path), metadata, unfinished)
    unfinished.replace(path)


def convert(network: Forecaster) -> onnx.ModelProto:
    """Convert a network to an ONNX graph of the contract's tensors and native recurrent nodes.

    Raises:
        ExportError: a recurrent layer did not become a native node.
    """
    signature = [
        tf.TensorSpec((None, None, network.features), tf.float32, name=VALUES),
        tf.TensorSpec((None, network.state_size), tf.float32, name=STATE),
    ]

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def step(values: Any, state: Any) -> Mapping[str, Any]:
        forecast, next_state, scale = network.step(values, state)
        return {FORECAST: forecast, NEXT_STATE: next_state, SCALE: scale}

    graph: onnx.ModelProto
    graph, _ = tf2onnx.convert.from_function(step, input_signature=signature, opset=_OPSET)
    loops = sorted({node.op_type for node in graph.graph.node} & _LOOPS)
    native = sum(node.op_type == "LSTM" for node in graph.graph.node)
    if loops or native != len(network.units):
        raise ExportError(
            f"{len(network.units)} LSTM layers became {native} native LSTM nodes, and the graph holds "
            f"{', '.join(loops) or 'no loop'}: it would be slow to serve"
        )
    shapes = {
        VALUES: ("batch", "time", network.features),
        STATE: ("batch", network.state_size),
        FORECAST: ("batch", network.features),
        NEXT_STATE: ("batch", network.state_size),
        SCALE: ("batch", network.features),
    }
    for tensor in [*graph.graph.input, *graph.graph.output]:
        tensor.CopyFrom(onnx.helper.make_tensor_value_info(tensor.name, onnx.TensorProto.FLOAT, shapes[tensor.name]))
    onnx.checker.check_model(graph)
    return graph


def check_parity(network: Forecaster, engine: Engine) -> None:
    """Compare Keras with onnxruntime: prefill at two batch sizes and lengths, and decoding step by step after each.

    Raises:
        ExportError: they differ by more than `TOLERANCE`, naming the tensor, the shape and the difference.
    """
    rng = np.random.default_rng(0)
    lengths = sorted({engine.minimum_window, engine.context_length})
    for batch in _BATCHES:
        for length in lengths:
            values = _example(rng, batch, length + _DECODED, network.features)
            truth = np.asarray(network.sequence(values, length)[0])
            place = f"batch {batch}, window {length}"
            fresh = np.zeros((batch, network.state_size), np.float32)
            step = engine.run(values[:, :length], fresh)
            keras_step = [np.asarray(part) for part in network.step(values[:, :length], fresh)]
            for name, found, wanted in zip((FORECAST, NEXT_STATE, SCALE), step, keras_step, strict=True):
                _compare(f"{name} after prefill ({place})", found, wanted)
            for ahead in range(_DECODED + 1):
                _compare(f"forecast {ahead} steps after prefill ({place})", step.forecast, truth[:, length - 1 + ahead])
                if ahead < _DECODED:
                    step = engine.run(values[:, length + ahead : length + ahead + 1], step.next_state)


def _compare(what: str, found: npt.NDArray[np.float32] | None, wanted: npt.NDArray[np.float32]) -> None:
    if found is None or found.shape != wanted.shape:
        raise ExportError(f"{what}: the exported graph gives another shape than Keras")
    difference = float(np.max(np.abs(found - wanted) / (np.abs(wanted) + 1.0)))
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{what}: the exported graph differs from Keras by {difference:.1e} (relative), more than {TOLERANCE:.0e}"
        )


def _example(rng: np.random.Generator, batch: int, length: int, features: int) -> npt.NDArray[np.float32]:
    """Series with a level, a season and noise, such that no two lags are equally good."""
    time = np.arange(length)[None, :, None]
    season = 3.0 * np.sin(2 * np.pi * time / rng.integers(5, 30, (batch, 1, features)))
    return (10.0 + season + rng.standard_normal((batch, length, features))).astype(np.float32)


def _save(graph: onnx.ModelProto, metadata: Metadata, path: Path) -> None:
    del graph.metadata_props[:]
    graph.metadata_props.add(key=METADATA_KEY, value=metadata.model_dump_json())
    with path.open("wb") as stream:
        stream.write(graph.SerializeToString())
        stream.flush()
        os.fsync(stream.fileno())

"""What Keras computes, the artifact computes, and what the artifact computes, the service answers."""

import asyncio

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from service.artifact import METADATA_KEY, NEXT_STATE, STATE, VALUES
from service.engine import Engine
from service.scheduler import Scheduler
from tests.contract.conftest import CONTEXT, Exported

Floats = npt.NDArray[np.float32]
TOLERANCE = 1e-4


def series(batch: int, length: int, features: int, *, seed: int = 1) -> Floats:
    rng = np.random.default_rng(seed)
    time = np.arange(length)[None, :, None]
    season = 3 * np.sin(2 * np.pi * time / rng.integers(4, 9, (batch, 1, features)))
    return (5 + season + rng.standard_normal((batch, length, features))).astype(np.float32)


def iterated_by_keras(exported: Exported, windows: Floats, horizon: int) -> Floats:
    """Prefill and decode with Keras alone, one step at a time."""
    state: object = np.zeros((len(windows), exported.network.state_size), np.float32)
    values: object = windows[:, -CONTEXT:]
    steps = []
    for _ in range(horizon):
        forecast, state, _ = exported.step(values, state)
        steps.append(np.asarray(forecast))
        values = forecast[:, None]
    return np.stack(steps, axis=1)


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("length", [CONTEXT // 2, CONTEXT, CONTEXT * 2], ids=["below", "at", "above"])
def test_the_artifact_equals_keras_step_by_step(exported: Exported, batch: int, length: int) -> None:
    windows = series(batch, length, exported.network.features)

    served = exported.engine.forecast(windows, horizon=12)

    np.testing.assert_allclose(served, iterated_by_keras(exported, windows, 12), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_scheduler_answers_what_the_engine_computes(exported: Exported, batch: int) -> None:
    windows = series(batch, CONTEXT, exported.network.features)

    async def answers() -> Floats:
        return await Scheduler(max_batch=16).forecast(exported.engine, list(windows), 9)

    np.testing.assert_allclose(
        asyncio.run(answers()), exported.engine.forecast(windows, 9), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_observed_values_may_be_passed_one_by_one(exported: Exported, batch: int) -> None:
    """As a whole sequence goes through Keras in fitting, so it goes through the artifact in steps."""
    values = series(batch, CONTEXT + 8, exported.network.features)
    truth = np.asarray(exported.network.sequence(values, CONTEXT)[0])
    step = exported.engine.run(values[:, :CONTEXT], np.zeros((batch, exported.network.state_size), np.float32))
    for ahead in range(8):
        np.testing.assert_allclose(step.forecast, truth[:, CONTEXT - 1 + ahead], rtol=TOLERANCE, atol=TOLERANCE)
        step = exported.engine.run(values[:, CONTEXT + ahead : CONTEXT + ahead + 1], step.next_state)


def test_fitting_iterates_as_the_service_does(exported: Exported) -> None:
    values = series(4, CONTEXT + 8, exported.network.features)

    rolled = exported.network.sequence(values, CONTEXT, free=8)[1]

    np.testing.assert_allclose(
        exported.engine.forecast(values[:, :CONTEXT], 8), np.asarray(rolled), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("length", [CONTEXT // 2, CONTEXT - 7])
def test_prefill_and_decode_equal_sliding_the_window_where_the_model_cannot_tell_them_apart(
    unscaled: Exported, batch: int, length: int
) -> None:
    """An unscaled network sees no difference as long as the window grows without losing its first values."""
    sliding = without_state(unscaled)
    assert sliding.state_size == 0
    windows = series(batch, length, 2)
    horizon = CONTEXT - length

    np.testing.assert_allclose(
        unscaled.engine.forecast(windows, horizon), sliding.forecast(windows, horizon), rtol=TOLERANCE, atol=TOLERANCE
    )


def test_every_cell_is_a_native_node(exported: Exported) -> None:
    kinds = [node.op_type for node in onnx.load(exported.path).graph.node]

    native = "GRU" if exported.network.network.cell == "gru" else "LSTM"
    assert kinds.count(native) == len(exported.network.units)
    assert not {"Loop", "Scan"} & set(kinds)


def without_state(exported: Exported) -> Engine:
    """The same artifact as one whose window must be slid: its state input becomes zeros inside the graph."""
    model = onnx.load(exported.path)
    graph = model.graph
    size = exported.engine.state_size
    zeros = [
        helper.make_node("Shape", [VALUES], ["batch_size"], start=0, end=1),
        helper.make_node("Concat", ["batch_size", "width"], ["state_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["state_shape"], [STATE]),
    ]
    graph.initializer.append(numpy_helper.from_array(np.array([size], np.int64), "width"))
    nodes = [*zeros, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    inputs = [tensor for tensor in graph.input if tensor.name != STATE]
    del graph.input[:]
    graph.input.extend(inputs)
    outputs = [tensor for tensor in graph.output if tensor.name != NEXT_STATE]
    del graph.output[:]
    graph.output.extend(outputs)
    # Its trial forecast, from a whole context, is that of the state, and not of a window that slides.
    metadata = exported.engine.metadata.model_copy(update={"state_size": 0, "trial": None})
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=metadata.model_dump_json())
    path = exported.path.with_name("sliding.onnx")
    path.write_bytes(model.SerializeToString())
    return Engine.open(path)

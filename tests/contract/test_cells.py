"""Every cell, direction, depth and output is written as native nodes that compute what Keras computes."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime import InferenceSession

from service.engine import Engine
from service.errors import ArtifactError
from tests.artifacts import set_metadata
from tests.contract.conftest import metadata_of, network_of
from training.cells import PeepholeLSTMCell
from training.config import Network
from training.errors import ExportError
from training.export import check_parity, convert, export
from training.model import Forecaster

CONTEXT = 5
HORIZON = 4
NATIVE = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "peephole_lstm": "LSTM"}
SHAPES = [
    pytest.param(cell, both, depth, output, id=f"{cell}-{'bidirectional-' if both else ''}{depth}-{output}")
    for cell, both, depth, output in product(NATIVE, (False, True), (1, 2, 3), ("sequence", "vector", "horizon"))
    if not (both and output == "sequence")  # which a configuration refuses
]
VARIANTS: dict[str, dict[str, Any]] = {
    "a convolution in front": {"convolution": {"filters": 4, "kernel": 3}},
    "a convolution in front, bidirectional": {
        "convolution": {"filters": 3, "kernel": 4, "activation": "elu"},
        "bidirectional": True,
        "output": "vector",
    },
    "a leaky convolution": {"convolution": {"filters": 3, "kernel": 2, "activation": "leaky_relu"}, "cell": "gru"},
    "layer normalisation": {"normalisation": "layer"},
    "batch normalisation": {"normalisation": "batch", "cell": "gru"},
    "normalisation, bidirectional": {"normalisation": "layer", "bidirectional": True, "output": "vector"},
    "no residual sums": {"residual": False},
    "a plain head": {"head": "plain", "scaling": 100.0},
    "a plain head, a season": {"head": "plain", "lags": [3]},
    "a plain head, the horizon": {"head": "plain", "output": "horizon", "decoder": [3]},
    "seasons found, the horizon": {"lags": "found", "output": "horizon"},
    "two seasons, the horizon": {"lags": [3, 5], "output": "horizon"},
    "a state that is not carried": {"carry": False},
    "logarithms": {"transform": "log", "lags": [3]},
    "logarithms, the horizon": {"transform": "log", "output": "horizon"},
    "logarithms, bidirectional": {"transform": "log", "bidirectional": True, "output": "vector"},
    "scaled by the season": {"scaling": "season", "lags": [3, 4]},
    "scaled by the season, in logarithms": {"scaling": "season", "lags": [2], "transform": "log", "cell": "gru"},
}


def exported(path: Path, features: int, **network: Any) -> tuple[Forecaster, Engine, list[str]]:
    """A network, its artifact, whose export has compared the two, and the artifact's operators."""
    made = network_of(
        Network.model_validate({"context_length": CONTEXT, **network}), features=features, horizon=HORIZON
    )
    metadata = metadata_of(made).model_copy(update={"context_length": CONTEXT, "minimum_window": 2})
    export(made, metadata, path)
    return made, Engine.open(path), operators(onnx.load(path).graph)


def operators(graph: onnx.GraphProto) -> list[str]:
    """Of all nodes, those inside branches included."""
    found = []
    for node in graph.node:
        found.append(node.op_type)
        for attribute in node.attribute:
            found += operators(attribute.g)
    return found


def windows(batch: int, length: int, features: int) -> Any:
    rng = np.random.default_rng(3)
    return (20 + rng.standard_normal((batch, length, features)).cumsum(axis=1)).astype(np.float32)


@pytest.mark.parametrize(("cell", "both", "depth", "output"), SHAPES)
def test_a_network_is_written_as_one_native_node_a_layer(
    cell: str, both: bool, depth: int, output: str, tmp_path: Path
) -> None:
    features = 1 + depth % 2
    _, engine, kinds = exported(
        tmp_path / "model.onnx",
        features,
        cell=cell,
        bidirectional=both,
        layers=[4, 4, 3][:depth],
        lags=[2] if depth > 1 else [],
        output=output,
    )

    assert kinds.count(NATIVE[cell]) == depth
    assert not {"Loop", "Scan"} & set(kinds)
    assert (engine.state_size == 0) == (both or output == "vector")
    assert np.isfinite(engine.forecast(windows(5, CONTEXT - 1, features), 2 * HORIZON)).all()


@pytest.mark.parametrize("cell", NATIVE)
@pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
def test_a_decoder_is_written_as_native_nodes_too(cell: str, both: bool, tmp_path: Path) -> None:
    _, _, kinds = exported(
        tmp_path / "model.onnx", 1, cell=cell, bidirectional=both, layers=[4], output="horizon", decoder=[3, 3]
    )

    assert kinds.count(NATIVE[cell]) == 3
    assert not {"Loop", "Scan"} & set(kinds)


@pytest.mark.parametrize(("cell", "activation"), list(product(NATIVE, ("relu", "leaky_relu", "elu"))))
def test_an_activation_is_that_of_the_native_node_in_both_directions(cell: str, activation: str) -> None:
    shape = {"cell": cell, "layers": [4], "bidirectional": True, "output": "vector"}
    network = network_of(Network.model_validate({**shape, "activation": activation}))
    tanh = network_of(Network.model_validate(shape))
    given = windows(2, CONTEXT, 1)

    found, usual = (
        InferenceSession(convert(one).SerializeToString()).run(["forecast"], {"values": given})[0]
        for one in (network, tanh)
    )

    np.testing.assert_allclose(found, np.asarray(network.step(given, None)[0]), rtol=1e-4, atol=1e-4)
    assert not np.allclose(found, usual, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_what_stands_around_the_layers_is_written_too(variant: dict[str, Any], tmp_path: Path) -> None:
    _, _, kinds = exported(tmp_path / "model.onnx", 2, **{"layers": [4, 4], **variant})

    assert not {"Loop", "Scan"} & set(kinds)


@pytest.mark.parametrize("cell", NATIVE)
def test_weights_in_another_order_are_noticed(cell: str, tmp_path: Path) -> None:
    network, engine, _ = exported(tmp_path / "model.onnx", 1, cell=cell, layers=[4])
    model = onnx.load(tmp_path / "model.onnx")
    node = next(node for node in model.graph.node if node.op_type == NATIVE[cell])
    weights = next(one for one in model.graph.initializer if one.name == node.input[2])
    weights.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(weights), 4, axis=1)[:, ::-1], weights.name))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match="its trial forecast is not the one that is stored in it"):
        Engine.open(tmp_path / "model.onnx")

    set_metadata(model, engine.metadata.model_copy(update={"trial": None}).model_dump_json())
    onnx.save(model, tmp_path / "model.onnx")
    check_parity(network, engine)
    with pytest.raises(ExportError, match="differs from Keras"):
        check_parity(network, Engine.open(tmp_path / "model.onnx"))


def test_every_weight_of_a_network_is_in_its_graph() -> None:
    """A weight that the graph did not depend on would be lost without a difference in any short comparison."""
    network = network_of(Network.model_validate({"cell": "peephole_lstm", "layers": [3, 2], "normalisation": "layer"}))
    held = sum(int(np.prod(one.dims)) for one in convert(network).graph.initializer)
    assert held >= network.count_params()


def test_the_plain_network_keeps_few_small_nodes() -> None:
    """Each costs a fraction of a microsecond at every step of every forecast."""
    graph = convert(network_of(Network(layers=(32, 32), context_length=30))).graph

    assert len(graph.node) <= 38


@pytest.mark.parametrize("output", [{}, {"decoder": [3]}], ids=["at once", "unfolded"])
@pytest.mark.parametrize("features", [1, 2])
def test_a_horizon_forecast_at_once_is_handed_out_step_by_step_and_then_begun_anew(
    output: dict[str, Any], features: int, tmp_path: Path
) -> None:
    network, engine, _ = exported(tmp_path / "model.onnx", features, layers=[4], lags=[3], output="horizon", **output)
    given = windows(3, CONTEXT, features)

    forecast = engine.forecast(given, HORIZON + 2)

    np.testing.assert_allclose(forecast[:, :HORIZON], np.asarray(network.ahead(given)[0]), rtol=1e-4, atol=1e-4)
    state: Any = np.zeros((3, network.state_size), np.float32)
    values: Any = given
    for step in range(HORIZON + 2):
        after, state, _ = network.step(values, state)
        np.testing.assert_allclose(forecast[:, step], np.asarray(after), rtol=1e-4, atol=1e-4)
        values = np.asarray(after)[:, None]
    assert not np.allclose(forecast[:, HORIZON], forecast[:, HORIZON - 1])


def test_a_value_that_is_not_the_forecast_begins_the_horizon_anew_in_its_row_alone(tmp_path: Path) -> None:
    _, engine, _ = exported(tmp_path / "model.onnx", 1, layers=[4], lags=[3], output="horizon")
    first = engine.run(windows(2, CONTEXT, 1))
    observed = first.forecast + np.array([[0], [7]], np.float32)

    together = engine.run(observed[:, None], first.next_state)

    assert first.next_state is not None
    for row, state in enumerate(first.next_state):
        alone = engine.run(observed[row : row + 1, None], state[None])
        np.testing.assert_allclose(together.forecast[row], alone.forecast[0], rtol=1e-5)
    undisturbed = engine.run(first.forecast[:, None], first.next_state)
    np.testing.assert_array_equal(together.forecast[0], undisturbed.forecast[0])
    assert abs(together.forecast[1, 0] - undisturbed.forecast[1, 0]) > 0.1


def test_a_peephole_cell_that_sees_nothing_through_them_is_a_plain_lstm_cell() -> None:
    network = network_of(Network.model_validate({"layers": [4], "context_length": CONTEXT}))
    peephole = Forecaster.from_network(
        Network.model_validate({"cell": "peephole_lstm", "layers": [4], "context_length": CONTEXT}),
        features=1,
        season=None,
    )
    kernel, recurrent, bias, *heads = network.get_weights()
    peephole.set_weights([kernel, recurrent, bias, np.zeros((3, 4), np.float32), *heads])
    given = windows(2, CONTEXT, 1)

    assert isinstance(peephole.cells[0].cell, PeepholeLSTMCell)
    np.testing.assert_allclose(
        np.asarray(peephole.ahead(given)[0]), np.asarray(network.ahead(given)[0]), rtol=1e-5, atol=1e-5
    )

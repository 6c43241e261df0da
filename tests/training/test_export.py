"""An artifact is written only when it computes what the network computes."""

from pathlib import Path
from typing import Any

import pytest

from service.engine import Engine
from tests.contract.conftest import metadata_of, network_of
from training.config import Network
from training.errors import ExportError
from training.export import export, write_metadata
from training.model import Forecaster, Operations

NETWORK = Network(layers=(4,), context_length=24)


class Drifting(Forecaster):
    """A network whose step in the artifact is not the one that it was fitted by."""

    def step(
        self, values: Any, state: Any, ops: Operations | None = None, *, known: Any = None
    ) -> tuple[Any, Any, Any]:
        forecast, next_state, scale = super().step(values, state, ops)
        return forecast * 1.01, next_state, scale


def test_a_graph_that_computes_something_else_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    network = Drifting.from_network(NETWORK, features=1, season=None)

    with pytest.raises(ExportError, match=r"forecast .* differs from Keras by"):
        export(network, metadata_of(network), tmp_path / "model.onnx")

    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_breaks_its_metadata_is_refused(tmp_path: Path) -> None:
    network = network_of(NETWORK)
    wrong = metadata_of(network).model_copy(update={"features": ("a", "b")})

    with pytest.raises(ExportError, match=r"breaks the contract: .*'values' is"):
        export(network, wrong, tmp_path / "model.onnx")

    assert list(tmp_path.iterdir()) == []


def test_an_artifact_holds_a_trial_forecast_that_any_reader_can_repeat(tmp_path: Path) -> None:
    network = network_of(NETWORK, features=2)
    path = tmp_path / "model.onnx"
    export(network, metadata_of(network), path)

    trial = Engine.open(path).metadata.trial

    assert trial is not None
    assert (trial.window_array.shape, trial.forecast_array.shape, trial.known) == ((24, 2), (4, 2), None)


def test_metadata_can_be_replaced_in_a_written_artifact(tmp_path: Path) -> None:
    network = network_of(NETWORK)
    path = tmp_path / "model.onnx"
    export(network, metadata_of(network), path)
    before = Engine.open(path)

    write_metadata(path, before.metadata.model_copy(update={"version": "7", "trial": None}))

    after = Engine.open(path)
    assert after.metadata == before.metadata.model_copy(update={"version": "7"})
    assert after.metadata.trial is not None
    assert after.digest != before.digest
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]

"""Small networks with weights of their own, exported once: fitting is not needed to compare two computations."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from service.artifact import Metadata, Provenance
from service.engine import Engine
from training.config import Convolution, Network
from training.export import export
from training.model import Forecaster

CONTEXT = 24
SEASON = 6


@dataclass(frozen=True)
class Exported:
    """A network, the artifact that was written of it, and where that lies."""

    network: Forecaster
    step: Callable[[Any, Any], tuple[Any, Any, Any]]  # the network's, compiled for any batch and length
    engine: Engine
    path: Path


def export_to(path: Path, network: Forecaster) -> Exported:
    export(network, metadata_of(network), path)
    signature = [
        tf.TensorSpec((None, None, network.features), tf.float32),
        tf.TensorSpec((None, network.state_size), tf.float32),
    ]
    return Exported(network, tf.function(network.step, input_signature=signature), Engine.open(path), path)


def metadata_of(network: Forecaster, *, minimum_window: int = 2, season: int | None = None) -> Metadata:
    return Metadata(
        name="tiny",
        version="1",
        description="For tests.",
        context_length=CONTEXT,
        minimum_window=minimum_window,
        features=tuple(f"x{index}" for index in range(network.features)),
        state_size=network.state_size,
        frequency=None,
        season_length=season,
        training=Provenance(created="", data="", series=1, observations=1, configuration={}, libraries={}),
    )


def network_of(
    network: Network, *, features: int = 1, season: int | None = None, seed: int = 0, horizon: int = 1
) -> Forecaster:
    """A network whose every weight counts: those that begin at zero are moved away from it."""
    keras.utils.set_random_seed(seed)
    made = Forecaster.from_network(network, features=features, season=season, horizon=horizon)
    rng = np.random.default_rng(seed)
    for weight in made.weights:
        moved = 0.2 * rng.standard_normal(weight.shape)
        weight.assign_add(np.abs(moved) if weight.name == "moving_variance" else moved)
    return made


NETWORKS: dict[str, Callable[[], Forecaster]] = {
    "one layer, no season": lambda: network_of(Network(layers=(8,), context_length=CONTEXT)),
    "two layers, a season": lambda: network_of(Network(layers=(8, 8), context_length=CONTEXT), season=SEASON),
    "three layers of different widths": lambda: network_of(
        Network(layers=(8, 6, 6), context_length=CONTEXT), season=SEASON
    ),
    "two seasons given": lambda: network_of(Network(layers=(8, 8), context_length=CONTEXT, lags=(3, 12))),
    "seasons found": lambda: network_of(Network(layers=(8, 8), context_length=CONTEXT, lags="found")),
    "several features": lambda: network_of(Network(layers=(8, 8), context_length=CONTEXT), features=3, season=SEASON),
    "several features, seasons found": lambda: network_of(
        Network(layers=(8,), context_length=CONTEXT, lags="found"), features=2
    ),
    "GRU layers behind a convolution, normalised": lambda: network_of(
        Network(
            cell="gru",
            layers=(6, 6),
            context_length=CONTEXT,
            convolution=Convolution(filters=4, kernel=3),
            normalisation="layer",
        ),
        season=SEASON,
    ),
    "peephole layers that learn at a window's end": lambda: network_of(
        Network(cell="peephole_lstm", layers=(8,), output="vector", carry=True, context_length=CONTEXT),
        features=2,
        season=SEASON,
    ),
    "unscaled": lambda: network_of(
        Network(layers=(8, 8), context_length=CONTEXT, scaling="none"), features=2, season=SEASON
    ),
}


@pytest.fixture(scope="session", params=list(NETWORKS))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_to(tmp_path_factory.mktemp("artifact") / "model.onnx", NETWORKS[request.param]())


@pytest.fixture(scope="session")
def unscaled(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_to(tmp_path_factory.mktemp("artifact") / "model.onnx", NETWORKS["unscaled"]())

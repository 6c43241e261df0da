"""`python -m benchmarks.models`: write the models that every server of a benchmark serves.

- `uni`: two unidirectional LSTM layers of 32. It carries its state.
- `bi`: two bidirectional layers of 32 over a window. It carries nothing, so its window is slid.

Both are made and exported by the training package. Their weights are random, from a seed: speed does not depend on
what a network has learned. This module alone of the benchmarks needs the training libraries.
"""

import os
from pathlib import Path
from typing import Final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.questions import CONTEXT, MODELS, artifact
from service.artifact import Metadata, Provenance
from service.engine import Engine
from training.config import Network
from training.export import export
from training.model import Forecaster

_UNITS: Final = (32, 32)
_MINIMUM: Final = 8
_SEED: Final = 20_240_501
_NETWORKS: Final = {
    "uni": Network(layers=_UNITS, context_length=CONTEXT),
    "bi": Network(layers=_UNITS, context_length=CONTEXT, bidirectional=True, output="vector"),
}


def make_models(folder: Path = MODELS) -> None:
    """Write `uni` and `bi` under a folder as the service expects models, and open both once.

    Raises:
        ArtifactError, ExportError: a file does not keep the contract.
    """
    for name, network in _NETWORKS.items():
        path = artifact(name, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.set_random_seed(_SEED)
        made = Forecaster.from_network(network, features=1, season=None)
        _fill(made)
        export(made, metadata_of(name, made.state_size), path)
        Engine.open(path)


def metadata_of(name: str, state_size: int) -> Metadata:
    """What an artifact of random weights says of itself."""
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
            libraries={"keras": keras.__version__, "tensorflow": tf.__version__},
        ),
    )


def _fill(network: Forecaster) -> None:
    """Give a new network's head random weights: with its zeros, nothing of the layers would reach the answer."""
    rng = np.random.default_rng(_SEED)
    for head in network.heads:
        head.kernel.assign(rng.normal(0, 0.2, head.kernel.shape).astype(np.float32))


if __name__ == "__main__":
    make_models()

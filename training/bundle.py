"""The bundled model: one univariate LSTM fitted on generated series, for forecasts without any training.

    python -m training.bundle --output service/models

It is reproducible from its seed. A run that was interrupted goes on from its last epoch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import keras
import numpy as np

from training import pool
from training.config import Config, Fitting, Network
from training.fit import Fitted, Progress, fit_network
from training.model import Forecaster
from training.windows import Batch

CONFIG: Final = Config(
    name="default",
    description="Fitted on generated series alone; forecasts any single series without training.",
    seed=20,
    network=Network(layers=(64, 64), context_length=384, lags="found"),
    fitting=Fitting(epochs=60, steps_per_epoch=150, batch_size=96, learning_rate=2e-3, patience=60),
)
MINIMUM_WINDOW: Final = 8
_AHEAD: Final = 48
# Contexts fitted on and how often each is drawn; short ones so that short windows are forecast sensibly too.
_CONTEXTS: Final = {384: 0.5, 256: 0.15, 128: 0.15, 48: 0.1, 16: 0.1}
_BLOCK: Final = 1536
_VALIDATION_SEED: Final = 1_000_003


def fit_bundled(checkpoint: Path, progress: Progress, config: Config = CONFIG) -> Fitted:
    """Fit the bundled model's network; see `training.fit.fit_network`."""
    keras.utils.set_random_seed(config.seed)
    network = Forecaster.from_network(config.network, features=1, season=None)
    steps = config.fitting.steps_per_epoch or 1
    size = config.fitting.batch_size
    return fit_network(
        network,
        lambda epoch: _batches(config.seed, epoch, steps=steps, size=size, context_limit=config.network.context_length),
        _validation(config.network.context_length, size),
        config.fitting,
        steps_per_epoch=steps,
        checkpoint=checkpoint,
        progress=progress,
    )


def _batches(seed: int, epoch: int, *, steps: int, size: int, context_limit: int) -> Iterator[Batch]:
    rng = np.random.default_rng((seed, epoch))
    length = context_limit + _AHEAD
    contexts, shares = np.array(list(_CONTEXTS)), np.array(list(_CONTEXTS.values()))
    series = np.empty((0, length), np.float32)
    for _ in range(steps):
        if len(series) < size:
            fresh = pool.generate(rng, series=_BLOCK, length=length)
            series = rng.permutation(np.concatenate([fresh, -fresh]))  # a falling series for each rising one
        taken, series = series[:size], series[size:]
        context = min(int(rng.choice(contexts, p=shares)), context_limit)
        start = int(rng.integers(0, context_limit - context + 1))
        yield _batch(taken[:, start : start + context + _AHEAD], context)


def _validation(context_limit: int, size: int) -> list[Batch]:
    rng = np.random.default_rng(_VALIDATION_SEED)
    series = pool.generate(rng, series=6 * size, length=context_limit + _AHEAD)
    return [_batch(part, context_limit) for part in np.split(series, 6)]


def _batch(values: np.ndarray, context: int) -> Batch:
    return Batch(values[:, :, None], context, free=_AHEAD if context >= 128 else _AHEAD // 2)

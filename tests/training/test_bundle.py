"""The bundled model: how it is made, and what the one that ships does."""

from pathlib import Path

import numpy as np
import pytest

import service
from service.engine import Engine
from training.bundle import CONFIG, MINIMUM_WINDOW, fit_bundled, write_bundled
from training.config import Config
from training.fit import Fitted

SHIPPED = Path(service.__file__).parent / "models" / "default" / "1" / "model.onnx"


class Quiet:
    def batch(self, done: int, total: int) -> None:
        pass

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None:
        assert np.isfinite([training, validation or 0.0]).all()


def small_run(checkpoint: Path) -> Fitted:
    return fit_bundled(SMALL, checkpoint, Quiet())


SMALL = CONFIG.model_copy(
    update={
        "network": CONFIG.network.model_copy(update={"layers": (4,), "context_length": 64}),
        "fitting": CONFIG.fitting.model_copy(update={"epochs": 1, "steps_per_epoch": 3, "batch_size": 8}),
    }
)


@pytest.fixture(scope="module")
def shipped() -> Engine:
    return Engine.open(SHIPPED)


def test_it_is_reproducible_from_its_seed_and_written_as_an_artifact(tmp_path: Path) -> None:
    first, second = (small_run(tmp_path / name) for name in ("first.npz", "second.npz"))

    for one, other in zip(first.network.get_weights(), second.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    metadata = Engine.open(write_bundled(SMALL, first, tmp_path / "default" / "1" / "model.onnx")).metadata
    assert metadata.training.configuration["seed"] == CONFIG.seed
    assert metadata.backtest is not None
    assert metadata.errors is not None


def test_the_shipped_one_is_small_and_says_how_it_was_made(shipped: Engine) -> None:
    assert SHIPPED.stat().st_size <= 1_000_000
    made = shipped.metadata.training.configuration
    assert Config.model_validate(made) == CONFIG  # a key that came later has the value that it always had
    assert shipped.minimum_window == MINIMUM_WINDOW
    assert (shipped.metadata.name, shipped.metadata.version) == ("default", "1")


def test_the_shipped_one_beats_naive_on_generated_series_that_it_was_not_fitted_on(shipped: Engine) -> None:
    scores = shipped.metadata.backtest

    assert scores is not None
    assert scores.one_step["model"].mae < 0.6 * scores.one_step["naive"].mae
    assert scores.multi_step["model"].mae < 0.6 * scores.multi_step["naive"].mae


@pytest.mark.parametrize("period", [4, 7, 12, 24, 52, 168])
@pytest.mark.parametrize("level", [0.0, 1e4])
def test_the_shipped_one_goes_on_with_a_season_of_any_length(shipped: Engine, period: int, level: float) -> None:
    time = np.arange(384 + period)
    shape = np.sin(2 * np.pi * time / period) + 0.4 * np.sin(6 * np.pi * time / period)
    values = (level + 20 * shape)[None, :, None].astype(np.float32)

    forecast = shipped.forecast(values[:, :384], horizon=period)

    assert np.abs(forecast - values[:, 384:]).mean() < 0.25 * np.abs(values[:, 384:] - values[:, 383:384]).mean()


def test_the_shipped_one_goes_on_with_a_straight_line(shipped: Engine) -> None:
    values = (100 + 2.0 * np.arange(220))[None, :, None].astype(np.float32)

    forecast = shipped.forecast(values[:, :200], horizon=20)

    assert np.abs(forecast - values[:, 200:]).mean() < 0.3 * np.abs(values[:, 200:] - values[:, 199:200]).mean()

"""Fitting: it learns, stops, can be interrupted, and goes on as if it had not been."""

import math
from pathlib import Path

import numpy as np
import pytest

from training.config import Config
from training.data import Boundary, Panel, Series, Split
from training.fit import Fitted, History, fit

HORIZON = 6


class Quiet:
    """Tells nobody, and may interrupt after an epoch."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.epochs: list[int] = []
        self.interrupt_after = interrupt_after

    def batch(self, done: int, total: int) -> None:
        assert 0 < done <= total

    def epoch(self, number: int, total: int, training: float, validation: float) -> None:
        self.epochs.append(number)
        if number == self.interrupt_after:
            raise KeyboardInterrupt


def seasonal_panel() -> tuple[Panel, Split]:
    """A season of 6 whose size depends on the last: neither naive nor seasonal naive forecasts it well."""
    rng = np.random.default_rng(0)
    time = np.arange(400)
    values = 20 + 0.05 * time + 5 * np.sin(2 * np.pi * time / 6) + 0.5 * rng.standard_normal(400)
    panel = Panel((Series("s", values[:, None], None),), ("x",), None, 6, (), "")
    return panel, Split((Boundary(320, 360),), HORIZON)


def small(**fitting: object) -> Config:
    return Config.model_validate(
        {
            "network": {"layers": (8, 8), "context_length": 24},
            "fitting": {"epochs": 3, "steps_per_epoch": 8, "batch_size": 16, "warm_up": 5, **fitting},
        }
    )


def fitted(checkpoint: Path, config: Config, progress: Quiet | None = None) -> Fitted:
    panel, split = seasonal_panel()
    return fit(panel, split, config, checkpoint=checkpoint, progress=progress or Quiet())


def test_fitting_lowers_the_loss_on_validation_data(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run.npz", small(epochs=6))

    assert run.history.validation[-1] < 0.9 * run.history.validation[0]
    assert len(run.history.training) == len(run.history.validation) == 6


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first, second = (fitted(tmp_path / name, small(epochs=2)).network.get_weights() for name in ("a", "b"))

    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_interrupted_run_goes_on_to_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "whole.npz", small())
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "cut.npz", small(), Quiet(interrupt_after=2))

    progress = Quiet()
    resumed = fitted(tmp_path / "cut.npz", small(), progress)

    assert resumed.resumed_at == 2
    assert progress.epochs == [3]
    assert resumed.history == whole.history
    for one, other in zip(whole.network.get_weights(), resumed.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fitting_stops_when_validation_no_longer_improves(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run.npz", small(epochs=40, learning_rate=0.5, patience=2))

    assert len(run.history.validation) == run.history.best_epoch + 2 < 40


def test_the_best_epoch_is_the_one_of_the_least_validation_loss() -> None:
    assert History(training=[3.0, 2.0, 1.0], validation=[3.0, 1.0, 2.0]).best_epoch == 2
    assert History().best_epoch == 0


def test_an_epoch_whose_loss_is_no_number_is_never_the_best() -> None:
    assert History(training=[3.0, 2.0, 1.0], validation=[3.0, 1.0, math.nan]).best_epoch == 2
    assert History(training=[math.nan], validation=[math.nan]).best_epoch == 1

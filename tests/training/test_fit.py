"""Fitting: it learns, stops, can be interrupted, and goes on as if it had not been."""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from service.engine import Engine
from tests.contract.conftest import metadata_of
from training.config import Config, Fitting, Network
from training.errors import FittingError
from training.export import export
from training.fit import Fitted, History, _Run, fit, fit_network, unfitted, validation_loss
from training.members import MemberTold, fit_members
from training.model import Forecaster
from training.panel import Panel, Series
from training.parts import Boundary, Split
from training.windows import Windows

HORIZON = 6


class Quiet:
    """Tells nobody, and may interrupt after an epoch."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.epochs: list[int] = []
        self.interrupt_after = interrupt_after

    def batch(self, done: int, total: int) -> None:
        assert 0 < done <= total

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None:
        self.epochs.append(number)
        if number == self.interrupt_after:
            raise KeyboardInterrupt

    def member(self, number: int, total: int) -> MemberTold:
        raise AssertionError("a single network is fitted here")


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


@pytest.mark.parametrize("lengths", ["equal", "mixed"])
def test_how_many_batches_are_learnt_from_at_a_time_changes_nothing(
    lengths: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = fitted(tmp_path / "together.npz", small(epochs=2, lengths=lengths))
    monkeypatch.setattr("training.fit._MOST_AT_ONCE", 1)
    alone = fitted(tmp_path / "alone.npz", small(epochs=2, lengths=lengths))

    for one, other in zip(together.network.get_weights(), alone.network.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


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


def test_closing_epochs_learn_from_validation_too_and_nothing_before_them_changes(tmp_path: Path) -> None:
    plain = fitted(tmp_path / "plain.npz", small(average=0.9))
    progress = Quiet()
    closed = fitted(tmp_path / "closed.npz", small(average=0.9, closing_epochs=2), progress)

    assert closed.history.validation == plain.history.validation
    assert len(closed.history.closing) == 2
    assert progress.epochs == [1, 2, 3, 4, 5]
    best = closed.history.best_epoch
    for kept, wanted in zip(closed.kept[best], plain.kept[best], strict=True):
        np.testing.assert_array_equal(kept, wanted)
    assert closed.closed is not None
    for served, after, before in zip(closed.network.get_weights(), closed.closed, closed.kept[best], strict=True):
        np.testing.assert_array_equal(served, after)
        assert not np.array_equal(after, before)
    panel, split = seasonal_panel()
    whole = split.with_validation_in_training
    assert (whole.boundaries, whole.horizon) == ((Boundary(360, 360),), HORIZON)
    assert validation_loss(closed.network, panel, split, small()) < closed.history.validation[best - 1]


@pytest.mark.parametrize("interrupt_after", [2, 3, 4])
def test_a_run_interrupted_before_or_in_its_closing_epochs_goes_on_all_the_same(
    interrupt_after: int, tmp_path: Path
) -> None:
    config = small(average=0.9, closing_epochs=2)
    whole = fitted(tmp_path / "whole.npz", config)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "cut.npz", config, Quiet(interrupt_after))

    resumed = fitted(tmp_path / "cut.npz", config)

    assert resumed.resumed_at == interrupt_after
    assert resumed.history == whole.history
    for one, other in zip(whole.network.get_weights(), resumed.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_whoever_is_told_of_an_epoch_finds_the_weights_that_were_judged(tmp_path: Path) -> None:
    panel, split = seasonal_panel()
    config = small(epochs=2, average=0.9)
    network = unfitted(panel, split, config)
    judged: list[float] = []

    class Looking(Quiet):
        def epoch(self, number: int, total: int, training: float, validation: float | None) -> None:
            judged.append(validation_loss(network, panel, split, config))

    windows = Windows.cut(panel, split, config)
    found = fit_network(
        network,
        windows.epoch,
        windows.judged(),
        config.fitting,
        steps_per_epoch=windows.steps_per_epoch,
        checkpoint=tmp_path / "run.npz",
        progress=Looking(),
    )

    assert judged == pytest.approx(found.history.validation, rel=1e-5)


def test_a_network_that_diverges_is_told_of_as_such(tmp_path: Path) -> None:
    panel, split = seasonal_panel()
    network = {"cell": "rnn", "layers": (8,), "activation": "relu", "head": "plain", "scaling": "none"}
    fitting = {"optimiser": "sgd", "learning_rate": 1e10, "clip_norm": 0.0, "loss": "mse", "warm_up": 0}
    sizes = {"epochs": 2, "patience": 1, "steps_per_epoch": 8, "batch_size": 16}
    config = Config.model_validate({"network": network | {"context_length": 24}, "fitting": fitting | sizes})

    with pytest.raises(FittingError, match=r"seed 0 has diverged.*fitting.learning_rate a smaller number"):
        fit_members(panel, split, config, checkpoints=tmp_path, told=Quiet())


def test_fitting_stops_when_validation_no_longer_improves(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run.npz", small(epochs=40, learning_rate=0.5, patience=2))

    assert len(run.history.validation) == run.history.best_epoch + 2 < 40


def test_the_best_epoch_is_the_one_of_the_least_validation_loss() -> None:
    assert History(training=[3.0, 2.0, 1.0], validation=[3.0, 1.0, 2.0]).best_epoch == 2
    assert History().best_epoch == 0


def test_an_epoch_whose_loss_is_no_number_is_never_the_best() -> None:
    assert History(training=[3.0, 2.0, 1.0], validation=[3.0, 1.0, math.nan]).best_epoch == 2
    assert History(training=[math.nan], validation=[math.nan]).best_epoch == 1


RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "LSTM, mixed lengths, mean absolute error": {
        "network": {"cell": "lstm"},
        "fitting": {"loss": "mae", "lengths": "mixed", "iterated": False},
    },
    "GRU, bidirectional, mean squared error, SGD": {
        "network": {"cell": "gru", "bidirectional": True, "output": "vector", "head": "plain"},
        "fitting": {"loss": "mse", "optimiser": "sgd", "clip_norm": 0, "clip_value": 0.5, "learning_rate": 0.05},
    },
    "RNN, the horizon at once, pinball": {
        "network": {"cell": "rnn", "output": "horizon", "activation": "elu", "normalisation": "layer"},
        "fitting": {"loss": "pinball", "quantile": 0.5},
    },
    "peephole LSTM, a convolution, a decoder": {
        "network": {
            "cell": "peephole_lstm",
            "output": "horizon",
            "decoder": [6],
            "convolution": {"filters": 6, "kernel": 3},
            "normalisation": "batch",
        },
        "fitting": {"lengths": "mixed"},
    },
}


@pytest.mark.parametrize("given", RUNS.values(), ids=RUNS)
def test_every_cell_is_fitted_written_opened_and_asked(given: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "network": {"layers": [6], "context_length": 12, **given["network"]},
            "fitting": {"epochs": 4, "steps_per_epoch": 12, "learning_rate": 0.01, "warm_up": 1, **given["fitting"]},
        }
    )

    run = fitted(tmp_path / "run.npz", config)

    assert run.history.validation[-1] < run.history.validation[0]
    metadata = metadata_of(run.network, season=6).model_copy(update={"context_length": 12, "minimum_window": 7})
    export(run.network, metadata, tmp_path / "model.onnx")
    panel, _ = seasonal_panel()
    truth = panel.series[0].values[-12 - HORIZON :].astype(np.float32)
    forecast = Engine.open(tmp_path / "model.onnx").forecast(truth[None, :12], HORIZON)
    assert np.abs(forecast[0] - truth[12:]).mean() < 6  # of a series that swings by 10


@pytest.mark.parametrize(
    ("fitting", "wanted"),
    [
        ({"loss": "mae"}, [2.0, 0.0, 1.0]),
        ({"loss": "mse"}, [4.0, 0.0, 1.0]),
        ({"loss": "pinball", "quantile": 0.9}, [0.2, 0.0, 0.9]),
        ({"loss": "huber", "huber_delta": 2.0}, [1.0, 0.0, 0.25]),
    ],
    ids=["mean absolute", "mean squared", "pinball", "Huber"],
)
def test_a_loss_is_that_of_its_name(fitting: dict[str, Any], wanted: list[float]) -> None:
    network = Forecaster.from_network(Network(layers=(2,)), features=1, season=None)
    given = Fitting.model_validate(fitting)
    run = _Run(network, keras.optimizers.Adam(), given)

    np.testing.assert_allclose(run._error(np.array([-2.0, 0.0, 1.0], np.float32)), wanted, rtol=1e-6)


@pytest.mark.parametrize(("scaling", "learns"), [("window", False), ("none", True), (2.0, True)])
def test_an_error_beyond_the_limit_teaches_nothing_in_units_of_a_window_alone(scaling: Any, learns: bool) -> None:
    """Raw values may be as large as they like, and a network that begins far from them has to get there."""
    network = Forecaster.from_network(Network(layers=(2,), scaling=scaling), features=1, season=None)
    run = _Run(network, keras.optimizers.Adam(), Fitting())
    errors = tf.Variable([80.0])

    with tf.GradientTape() as tape:
        loss = run._error(errors)

    assert (np.asarray(tape.gradient(loss, errors))[0] > 0) == learns


def test_padding_is_no_part_of_the_loss() -> None:
    network = Forecaster.from_network(Network(layers=(3,)), features=1, season=None)
    run = _Run(network, keras.optimizers.Adam(), Fitting(iterated=False))
    values = np.random.default_rng(0).standard_normal((1, 50, 1)).astype(np.float32)
    padded = np.concatenate([np.zeros((1, 20, 1), np.float32), values], axis=1)

    alone = run._loss(values, 40, 10, {}, 0.2)
    within = run._loss(padded, 60, 10, {"lengths": np.array([40], np.int32)}, 0.2)

    np.testing.assert_allclose(np.asarray(within), np.asarray(alone), rtol=1e-5)

"""What the network makes of a window, fitted or not."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import Network
from training.measure import FOUND_LAGS, found_seasons, measured
from training.model import Forecaster
from training.operations import TensorFlow

Floats = npt.NDArray[np.float32]


def made(*, lags: str | tuple[int, ...] = "season", season: int | None = None, features: int = 1) -> Forecaster:
    keras.utils.set_random_seed(0)
    network = Network.model_validate({"layers": (8, 8), "context_length": 48, "lags": lags})
    return Forecaster.from_network(network, features=features, season=season)


@cache
def compiled(lags: str) -> Callable[[Any, Any], tuple[Any, Any, Any]]:
    network = made(lags=lags, season=6)
    signature = [tf.TensorSpec((1, 48, 1), tf.float32), tf.TensorSpec((1, network.state_size), tf.float32)]
    compiled_step: Callable[[Any, Any], tuple[Any, Any, Any]] = tf.function(network.step, input_signature=signature)
    return compiled_step


def step(network: Forecaster, values: npt.NDArray[np.float64]) -> tuple[Floats, Floats, Floats]:
    state = np.zeros((len(values), network.state_size), np.float32)
    forecast, next_state, scale = network.step(values.astype(np.float32), state)
    return np.asarray(forecast), np.asarray(next_state), np.asarray(scale)


def seasons(values: Floats) -> Floats:
    """What is found in windows of one feature: (batch, 2 · FOUND_LAGS), the lags and their strengths."""
    ops, time_first = TensorFlow(), np.transpose(values, (1, 0, 2))
    return np.asarray(found_seasons(ops, time_first, measured(ops, time_first, "window", 1)))[:, :, 0].T


def wave(length: int, period: float, *, level: float = 50.0, noise: float = 0.3) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(0)
    shape = np.sin(2 * np.pi * np.arange(length) / period) + 0.5 * np.cos(4 * np.pi * np.arange(length) / period)
    values: npt.NDArray[np.float64] = (level + 10 * shape + noise * rng.standard_normal(length))[None, :, None]
    return values


def test_before_fitting_a_network_of_a_known_season_is_near_the_value_one_season_ago() -> None:
    values = wave(48, 12, noise=0.0)

    forecast, _, _ = step(made(season=12), values)

    assert abs(forecast[0, 0] - values[0, -12, 0]) < 0.25 * np.ptp(values)


def test_a_fresh_state_becomes_a_known_one_of_the_promised_size() -> None:
    network = made(season=12, features=2)

    _, next_state, scale = step(network, np.repeat(wave(30, 12), 2, axis=2))

    assert next_state.shape == (1, network.state_size)
    assert next_state[0, 0] == 1
    assert (scale > 0).all()


@pytest.mark.parametrize("period", [4, 7, 12, 24])
def test_the_season_of_a_window_is_found(period: int) -> None:
    values = wave(260, period).astype(np.float32)

    found = seasons(values)[0, :FOUND_LAGS]

    assert period in found
    assert found[1] % period == 0


def test_the_week_is_found_beside_the_day() -> None:
    day, week = wave(400, 24, noise=0.1), wave(400, 168, noise=0.1)
    weekday = np.repeat(np.tile([0, 3, 1, 4, 2, 9, 12], 3), 24)[None, :400, None]
    values = (day + week + weekday).astype(np.float32)

    found = seasons(values)[0, :FOUND_LAGS]

    assert found.tolist() == [24, 168]


def test_noise_has_no_strong_season() -> None:
    noise = np.random.default_rng(0).standard_normal((20, 300, 1)).astype(np.float32)

    strength = seasons(noise)[:, FOUND_LAGS]

    assert strength.max() < 0.4


@settings(max_examples=25)
@given(
    shift=st.floats(-1e3, 1e3),
    factor=st.floats(1e-3, 1e3),
    lags=st.sampled_from(["season", "found"]),
)
def test_a_forecast_follows_a_change_of_units(shift: float, factor: float, lags: str) -> None:
    """Celsius or Fahrenheit, the forecast is the same one: the window's own measure is inside the graph."""
    values = wave(48, 6, level=0.0).astype(np.float32)
    fresh = np.zeros((1, made(lags=lags, season=6).state_size), np.float32)

    plain, _, scale = (np.asarray(part) for part in compiled(lags)(values, fresh))
    other_units = (factor * (values.astype(np.float64) + shift)).astype(np.float32)
    changed, _, changed_scale = (np.asarray(part) for part in compiled(lags)(other_units, fresh))

    np.testing.assert_allclose(changed, factor * (plain + shift), rtol=2e-3, atol=2e-3 * factor * 20)
    np.testing.assert_allclose(changed_scale, factor * scale, rtol=2e-2)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.zeros((1, 20, 1)), id="zeros"),
        pytest.param(np.full((1, 20, 1), 7.0), id="a constant"),
        pytest.param(np.full((1, 20, 1), 1e30), id="a large constant"),
        pytest.param(np.full((1, 20, 1), 1e-38), id="a tiny constant"),
        pytest.param(np.where(np.arange(20) == 10, 1e6, 1.0)[None, :, None], id="one outlier"),
        pytest.param(np.arange(20.0)[None, :, None] * 1e25, id="huge values"),
        pytest.param(np.arange(20.0)[None, :, None] * 1e-20, id="small values"),
        pytest.param(np.ones((1, 1, 1)), id="a single step"),
    ],
)
@pytest.mark.parametrize("lags", ["season", "found"])
def test_every_window_has_a_finite_forecast(values: npt.NDArray[np.float64], lags: str) -> None:
    forecast, next_state, scale = step(made(lags=lags, season=6), values)

    assert np.isfinite(forecast).all()
    assert np.isfinite(next_state).all()
    assert np.isfinite(scale).all()


def test_what_lies_beyond_the_context_does_not_change_its_measure() -> None:
    network = made(season=6)
    values = wave(48, 6).astype(np.float32)
    changed = values.copy()
    changed[:, 36:] *= 3

    before, _, scale = network.sequence(values, 36)
    after, _, changed_scale = network.sequence(changed, 36)

    np.testing.assert_array_equal(np.asarray(scale), np.asarray(changed_scale))
    np.testing.assert_array_equal(np.asarray(before)[:, :36], np.asarray(after)[:, :36])


@pytest.mark.parametrize(
    "network",
    [
        {"lags": "found", "layers": [4]},
        {"lags": [5], "layers": [4, 4], "cell": "gru", "convolution": {"filters": 3, "kernel": 4}},
        {"lags": [5], "layers": [4], "cell": "rnn", "bidirectional": True, "output": "vector"},
        {"lags": [5], "layers": [4], "cell": "peephole_lstm", "output": "horizon", "decoder": [3]},
        {"layers": [4], "output": "horizon", "lags": "found", "normalisation": "batch"},
    ],
    ids=["seasons found", "a convolution", "bidirectional", "a decoder", "seasons found, the horizon"],
)
def test_a_window_padded_in_front_has_the_forecast_of_the_window_alone(network: dict[str, Any]) -> None:
    keras.utils.set_random_seed(0)
    made = Forecaster.from_network(Network.model_validate(network), features=2, season=None, horizon=3)
    for weight in made.trainable_weights:
        weight.assign_add(0.2 * np.random.default_rng(0).standard_normal(weight.shape))
    values = np.repeat(wave(20, 6), 3, axis=0).repeat(2, axis=2).astype(np.float32)
    values += np.random.default_rng(1).standard_normal(values.shape).astype(np.float32)
    lengths = np.array([20, 9, 14])
    padded = np.where(np.arange(20)[None, :, None] >= 20 - lengths[:, None, None], values, np.float32(0))

    together, scales = (np.asarray(part) for part in made.ahead(padded, lengths=lengths))

    for row, length in enumerate(lengths):
        alone, scale = (np.asarray(part) for part in made.ahead(values[row : row + 1, 20 - length :]))
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(scales[row], scale[0], rtol=1e-5)


def test_batch_normalisation_learns_in_training_alone() -> None:
    network = Forecaster.from_network(
        Network(layers=(4, 4), normalisation="batch", residual=False), features=1, season=None
    )
    before = [weight.numpy() for weight in network.non_trainable_weights]
    values = wave(20, 6).astype(np.float32)

    network.sequence(values, 12)
    assert all(
        np.array_equal(weight.numpy(), old) for weight, old in zip(network.non_trainable_weights, before, strict=True)
    )
    network.sequence(values, 12, training=True)
    moved = [
        not np.array_equal(weight.numpy(), old)
        for weight, old in zip(network.non_trainable_weights, before, strict=True)
    ]
    assert sum(moved) >= 4  # mean and variance after each of two layers


@pytest.mark.parametrize(
    ("network", "carried"),
    [
        ({"layers": [4, 3]}, 1 + 6 + 2 * 7),
        ({"layers": [4, 3], "cell": "gru"}, 1 + 6 + 7),
        ({"layers": [4], "convolution": {"filters": 5, "kernel": 4}}, 1 + 6 + 3 * 3 + 2 * 4),
        ({"layers": [4], "output": "horizon"}, 1 + 1 + 5 + 6 + 2 * 4),
        ({"layers": [4], "carry": False}, 0),
        ({"layers": [4], "output": "vector"}, 0),
        ({"layers": [4], "output": "vector", "carry": True}, 1 + 6 + 2 * 4),
        ({"layers": [4], "bidirectional": True, "output": "vector"}, 0),
    ],
    ids=["LSTM", "GRU", "a convolution", "a horizon", "not carried", "a vector", "a vector, carried", "bidirectional"],
)
def test_the_state_holds_no_more_than_has_to_be_carried(network: dict[str, Any], carried: int) -> None:
    made = Forecaster.from_network(Network.model_validate(network), features=1, season=None, horizon=5)

    assert made.state_size == carried


def test_a_scaling_by_a_number_divides_values_and_multiplies_forecasts() -> None:
    keras.utils.set_random_seed(0)
    raw = Forecaster.from_network(Network(layers=(4,), head="plain", scaling="none"), features=1, season=None)
    scaled = Forecaster.from_network(Network(layers=(4,), head="plain", scaling=100.0), features=1, season=None)
    scaled.set_weights(raw.get_weights())
    values = wave(20, 6).astype(np.float32)

    forecast, scale = scaled.ahead(values)

    np.testing.assert_allclose(np.asarray(forecast), 100 * np.asarray(raw.ahead(values / 100)[0]), rtol=1e-5)
    assert np.asarray(scale).tolist() == [[100.0]]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras reads its variables so
@pytest.mark.parametrize(
    "given",
    [
        {"lags": "found"},
        {"cell": "peephole_lstm", "convolution": {"filters": 3}, "normalisation": "batch", "activation": "elu"},
        {"cell": "gru", "bidirectional": True, "output": "horizon", "decoder": [4]},
    ],
    ids=["seasons found", "peepholes", "bidirectional"],
)
def test_a_network_is_saved_and_loaded_by_keras(given: dict[str, Any], tmp_path: Path) -> None:
    network = Forecaster.from_network(Network.model_validate({"layers": [8, 8], **given}), features=1, season=6)
    network.set_weights([weight + 0.1 for weight in network.get_weights()])

    network.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras")

    assert isinstance(again, Forecaster)
    values = wave(30, 6).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(again.ahead(values)[0]), np.asarray(network.ahead(values)[0]))


def test_a_network_in_logarithms_gives_a_grown_series_the_forecast_grown_as_much() -> None:
    keras.utils.set_random_seed(0)
    network = Forecaster.from_network(Network(layers=(4,), transform="log", scaling="season"), features=1, season=6)
    for weight in network.trainable_weights:
        weight.assign_add(0.3 * np.random.default_rng(0).standard_normal(weight.shape))
    values = (20 + wave(30, 6)).astype(np.float32)
    fresh = np.zeros((len(values), network.state_size), np.float32)

    forecast, _, scale = network.step(values, fresh)
    grown, _, wider = network.step(values * 1000, fresh)

    np.testing.assert_allclose(np.asarray(grown), 1000 * np.asarray(forecast), rtol=1e-3)
    np.testing.assert_allclose(np.asarray(wider), np.asarray(scale), rtol=1e-3)  # it is that of logarithms


def test_values_at_or_below_zero_give_a_network_in_logarithms_no_infinities() -> None:
    network = Forecaster.from_network(Network(layers=(4,), transform="log"), features=1, season=None)
    values = np.array([[[3.0], [0.0], [-2.0], [5.0]]], np.float32)

    forecast, _, scale = network.step(values, np.zeros((1, network.state_size), np.float32))

    assert np.isfinite(forecast).all()
    assert np.isfinite(scale).all()


def test_a_scale_by_the_season_is_that_of_changes_from_season_to_season() -> None:
    network = Forecaster.from_network(Network(layers=(4,), scaling="season"), features=1, season=6)
    values = wave(30, 6, noise=0.0).astype(np.float32)
    drifting = values + 0.5 * np.arange(values.shape[1], dtype=np.float32)[:, None] / 6

    _, scale = network.ahead(drifting)

    spread = drifting.std(axis=1)
    np.testing.assert_allclose(np.asarray(scale), np.sqrt(spread * 0.5), rtol=1e-3)


def test_errors_of_a_network_scaled_by_the_season_are_over_the_change_from_season_to_season() -> None:
    network = Forecaster.from_network(Network(layers=(4,), scaling="season"), features=1, season=6)
    values = wave(30, 6, noise=0.0).astype(np.float32)
    drifting = values + 0.5 * np.arange(values.shape[1], dtype=np.float32)[:, None] / 6

    _, _, scale = step(network, drifting)

    np.testing.assert_allclose(scale, 0.5, rtol=1e-3)

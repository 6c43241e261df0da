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
from training.model import FOUND_LAGS, Forecaster
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


def seasons(network: Forecaster, values: Floats) -> Floats:
    """What a network finds in windows of one feature: (batch, 2 · FOUND_LAGS), the lags and their strengths."""
    ops, time_first = TensorFlow(), np.transpose(values, (1, 0, 2))
    return np.asarray(network._find(ops, time_first, network._measure(ops, time_first)))[:, :, 0].T


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
    network = made(lags="found")
    values = wave(260, period).astype(np.float32)

    found = seasons(network, values)[0, :FOUND_LAGS]

    assert period in found
    assert found[1] % period == 0


def test_the_week_is_found_beside_the_day() -> None:
    day, week = wave(400, 24, noise=0.1), wave(400, 168, noise=0.1)
    weekday = np.repeat(np.tile([0, 3, 1, 4, 2, 9, 12], 3), 24)[None, :400, None]
    network = made(lags="found")
    values = (day + week + weekday).astype(np.float32)

    found = seasons(network, values)[0, :FOUND_LAGS]

    assert found.tolist() == [24, 168]


def test_noise_has_no_strong_season() -> None:
    network = made(lags="found")
    noise = np.random.default_rng(0).standard_normal((20, 300, 1)).astype(np.float32)

    strength = seasons(network, noise)[:, FOUND_LAGS]

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


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras reads its variables so
def test_a_network_is_saved_and_loaded_by_keras(tmp_path: Path) -> None:
    network = made(lags="found")
    network.set_weights([weight + 0.1 for weight in network.get_weights()])

    network.save(tmp_path / "network.keras")
    again = keras.saving.load_model(tmp_path / "network.keras")

    assert isinstance(again, Forecaster)
    values = wave(30, 6)
    np.testing.assert_array_equal(step(again, values)[0], step(network, values)[0])

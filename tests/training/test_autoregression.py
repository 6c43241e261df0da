"""The linear autoregression of a whole horizon: what least squares finds, on training alone."""

import numpy as np
import numpy.typing as npt
import pytest

from training.autoregression import fit_autoregression
from training.panel import Panel, Series
from training.parts import Boundary, Split

STEPS = 6
HORIZON = 3


def panel_of(*series: npt.NDArray[np.float64]) -> Panel:
    made = tuple(Series(str(place), values, None) for place, values in enumerate(series))
    return Panel(made, ("value",), None, None, (), "")


def split_of(panel: Panel, train_end: int, validation_end: int) -> Split:
    return Split((Boundary(train_end, validation_end),) * len(panel.series), HORIZON)


def forecasts(weights: npt.NDArray[np.float32], windows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    last = windows[:, -1:]
    return np.asarray(last + (windows[:, :-1] - last) @ weights)


def waves(count: int, *, level: float = 0.0, size: float = 1.0) -> npt.NDArray[np.float64]:
    steps = np.arange(count)
    return (level + size * (np.sin(steps / 5) + 0.5 * np.cos(steps / 3)))[:, None]


def test_what_is_linear_is_forecast_nearly_without_an_error_at_any_level_and_size() -> None:
    panel = panel_of(waves(300), waves(300, level=1e6, size=50.0))

    weights = fit_autoregression(panel, split_of(panel, 200, 250), STEPS, logarithms=False)

    assert weights.shape == (STEPS - 1, HORIZON)
    assert weights.dtype == np.float32
    values = waves(300, level=70.0, size=9.0)[:, 0]
    windows = np.stack([values[start : start + STEPS] for start in range(250, 290)])
    truth = np.stack([values[start + STEPS : start + STEPS + HORIZON] for start in range(250, 290)])
    np.testing.assert_allclose(forecasts(weights, windows), truth, atol=0.05)


def test_growth_in_logarithms_is_linear() -> None:
    values = np.exp(0.01 * np.arange(300))[:, None]
    panel = panel_of(values)

    weights = fit_autoregression(panel, split_of(panel, 200, 250), STEPS, logarithms=True)

    window = np.log(values[250 : 250 + STEPS, 0])[None]
    np.testing.assert_allclose(forecasts(weights, window)[0] - window[0, -1], [0.01, 0.02, 0.03], rtol=1e-3)


def test_neither_the_test_part_nor_without_closing_the_validation_part_is_fitted_on() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.standard_normal((2, 400, 1)).cumsum(axis=1)
    after[:300] = before[:300]
    one, other = panel_of(before), panel_of(after)

    split = split_of(one, 200, 300)
    weights = [fit_autoregression(panel, split, STEPS, logarithms=False, closing=True) for panel in (one, other)]

    np.testing.assert_array_equal(weights[0], weights[1])
    closed = fit_autoregression(one, split, STEPS, logarithms=False)
    assert not np.array_equal(closed, weights[0])


def test_noise_is_penalised_until_little_but_the_last_value_is_left() -> None:
    walk = np.random.default_rng(1).standard_normal((60, 1)).cumsum(axis=0)
    panel = panel_of(walk)

    weights = fit_autoregression(panel, split_of(panel, 30, 55), STEPS, logarithms=False)

    past = np.array([walk[start : start + STEPS, 0] for start in range(24)])
    least = np.linalg.lstsq(past[:, :-1] - past[:, -1:], np.ones(24), rcond=None)[0]
    assert np.isfinite(least).all()
    assert np.abs(weights).max() < 1.0


def test_a_series_that_never_changes_is_forecast_to_stay() -> None:
    panel = panel_of(np.full((100, 1), 5.0))

    weights = fit_autoregression(panel, split_of(panel, 60, 80), STEPS, logarithms=False)

    np.testing.assert_array_equal(forecasts(weights, np.full((1, STEPS), 5.0)), np.full((1, HORIZON), 5.0))


@pytest.mark.parametrize("count", [1, 4])
def test_every_series_counts_whatever_its_units_are(count: int) -> None:
    rng = np.random.default_rng(7)
    series = rng.standard_normal((count, 300, 1)).cumsum(axis=1)
    plain, large = panel_of(*series), panel_of(*(values * 1000.0 + 5.0 for values in series))

    fitted = [fit_autoregression(panel, split_of(panel, 200, 250), STEPS, logarithms=False) for panel in (plain, large)]

    np.testing.assert_allclose(fitted[0], fitted[1], rtol=1e-3, atol=1e-5)

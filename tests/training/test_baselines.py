"""The references, against numbers worked out by hand and against statsmodels."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.tsa.seasonal import seasonal_decompose

from training.baselines import (
    Forecasts,
    Origins,
    Values,
    autoregression,
    best_average,
    drift,
    is_seasonal,
    moving_average,
    naive,
    naive2,
    seasonal_naive,
)

_SERIES = np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [7.0]])
_SHAPE = np.array([0.5, 1.5, 1.2, 0.8])


def noisy_season(rows: int, *, level: float = 50.0, features: int = 1) -> Values:
    """(rows, features) values with a season of 4 by ratio, a trend and a little noise."""
    rng = np.random.default_rng(0)
    line = level + 0.1 * np.arange(rows)[:, None]
    return np.asarray(line * np.resize(_SHAPE, rows)[:, None] * rng.uniform(0.95, 1.05, (rows, features)))


def test_naive_repeats_the_observation_at_each_origin() -> None:
    assert naive(_SERIES, np.array([2, 5]), 3)[..., 0].tolist() == [[3, 3, 3], [6, 6, 6]]


def test_seasonal_naive_repeats_the_last_season_before_each_origin() -> None:
    forecasts = seasonal_naive(_SERIES, np.array([2, 4]), 5, season=3)
    assert forecasts[..., 0].tolist() == [[1, 2, 3, 1, 2], [3, 4, 5, 3, 4]]


def test_each_feature_is_repeated_on_its_own() -> None:
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    assert seasonal_naive(values, np.array([2]), 2, season=2).tolist() == [[[2, 20], [3, 30]]]


def test_an_origin_with_less_than_a_season_is_refused() -> None:
    with pytest.raises(ValueError, match="has no season of 4"):
        seasonal_naive(_SERIES, np.array([2]), 1, season=4)


@given(season=st.integers(1, 6), horizon=st.integers(1, 20))
def test_seasonal_naive_is_exact_on_a_series_that_repeats(season: int, horizon: int) -> None:
    values = np.resize(np.arange(season, dtype=float), 60)[:, None]
    origins = np.arange(season - 1, 60 - horizon)
    expected = values[origins[:, None] + 1 + np.arange(horizon)]
    assert np.array_equal(seasonal_naive(values, origins, horizon, season), expected)


def test_drift_goes_on_along_the_line_through_the_first_observation_and_the_last() -> None:
    values = np.array([[1.0], [5.0], [2.0], [7.0], [3.0]])
    assert drift(values, np.array([0, 3, 4]), 2)[..., 0].tolist() == [[1, 1], [9, 11], [3.5, 4]]


def test_a_moving_average_repeats_the_mean_of_the_last_observations_or_of_those_there_are() -> None:
    values = np.array([[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]])
    assert moving_average(values, np.array([0, 2]), 2, length=2).tolist() == [[[1, 10]] * 2, [[4, 40]] * 2]


def test_the_length_of_the_average_is_that_which_forecasts_the_past_best() -> None:
    rng = np.random.default_rng(0)
    assert best_average(rng.normal(size=(400, 1)), None, 3) == 20  # noise around a level
    assert best_average(np.arange(400.0)[:, None], None, 3) == 3  # a line
    assert best_average(np.resize([0.0, 3.0, -2.0, 1.0, -3.0, 2.0, -1.0], 400)[:, None], 7, 7) == 7
    assert best_average(np.arange(3.0)[:, None], None, 3) == 5  # too short to try any


@pytest.mark.parametrize("season", [4, 5], ids=["even", "odd"])
@pytest.mark.parametrize("level", [50.0, -50.0], ids=["by ratio", "by difference"])
def test_naive2_takes_the_season_out_as_classical_decomposition_of_the_past_does(season: int, level: float) -> None:
    rng = np.random.default_rng(1)
    values = level + np.resize(np.arange(1.0, season + 1), 60)[:, None] * 4 + rng.normal(size=(60, 1))
    origins = np.array([21, 22, 37, 52])
    forecasts = naive2(values, origins, 7, season)
    for row, origin in enumerate(origins):
        past = values[: origin + 1, 0]
        indices = seasonal_decompose(past, "multiplicative" if level > 0 else "additive", period=season).seasonal
        ahead = indices[np.arange(origin + 1, origin + 8) % season]
        expected = past[-1] / indices[-1] * ahead if level > 0 else past[-1] - indices[-1] + ahead
        assert forecasts[row, :, 0] == pytest.approx(expected)


def test_naive2_is_naive_for_a_feature_without_a_season() -> None:
    noise = np.random.default_rng(3).normal(size=(80, 1))
    values = np.concatenate([noise, np.resize(_SHAPE, 80)[:, None]], axis=1)
    forecasts = naive2(values, np.array([70]), 4, season=4)
    assert np.array_equal(forecasts[..., 0], np.repeat(noise[70], 4)[None])
    assert forecasts[0, :, 1] == pytest.approx(values[71:75, 1])


def test_a_season_is_seen_where_the_autocorrelation_passes_the_limit_of_the_m4_competition() -> None:
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 2.0, 6.0, 2.0, 5.0])
    centred = values - values.mean()
    first, second = (np.sum(centred[lag:] * centred[:-lag]) / np.sum(centred**2) for lag in (1, 2))
    passes = abs(second) > 1.645 * np.sqrt((1 + 2 * first**2) / 9)
    assert is_seasonal(values, 2) == passes
    assert not is_seasonal(values, 4)  # less than three seasons
    assert not is_seasonal(np.ones(50), 4)
    assert is_seasonal(noisy_season(40)[:, 0], 4)
    assert not is_seasonal(np.random.default_rng(0).normal(size=200), 7)


def test_a_linear_autoregression_goes_on_with_a_wave_and_with_a_line() -> None:
    steps = np.arange(300.0)
    values = np.stack([1e4 + np.sin(steps / 3), 5 + 2 * steps], axis=1)
    origins = np.array([199, 240])
    forecasts = autoregression(values[:200], None)(values, origins, 30)
    assert np.abs(forecasts - values[origins[:, None] + np.arange(1, 31)]).max() < 1e-3


def test_a_linear_autoregression_sees_the_season_before() -> None:
    rng = np.random.default_rng(0)
    values = np.resize(rng.normal(size=40), 400)[:, None]
    values = values + rng.normal(scale=1e-3, size=values.shape)
    origins = np.array([299, 330])
    actual = values[origins[:, None] + np.arange(1, 25)]
    assert np.abs(autoregression(values[:300], 40)(values, origins, 24) - actual).mean() < 0.05
    assert np.abs(autoregression(values[:300], None)(values, origins, 24) - actual).mean() > 0.05


def test_a_linear_autoregression_that_explodes_is_stopped() -> None:
    values = 1.3 ** np.arange(60.0)[:, None]
    forecasts = autoregression(values, None)(values, np.array([59]), 500)
    assert forecasts.max() == pytest.approx(values.max() + 3 * np.ptp(values))


@pytest.mark.parametrize("rows", [1, 2, 5, 12])
def test_references_can_do_with_a_short_past(rows: int) -> None:
    values = np.random.default_rng(0).normal(size=(rows, 2))
    origins = np.array([rows - 1])
    length = best_average(values, 7, 4)
    for forecasts in (
        autoregression(values, 7)(values, origins, 4),
        moving_average(values, origins, 4, length),
        drift(values, origins, 4),
        naive2(values, origins, 4, 7),
    ):
        assert forecasts.shape == (1, 4, 2)
        assert np.isfinite(forecasts).all()


@pytest.mark.parametrize(
    "rule",
    [
        drift,
        lambda values, origins, horizon: moving_average(values, origins, horizon, 5),
        lambda values, origins, horizon: naive2(values, origins, horizon, 4),
        lambda values, origins, horizon: autoregression(values[:60], 4)(values, origins, horizon),
    ],
    ids=["drift", "moving average", "Naive2", "linear autoregression"],
)
def test_what_comes_after_an_origin_does_not_change_a_reference(
    rule: Callable[[Values, Origins, int], Forecasts],
) -> None:
    values = noisy_season(100, features=2)
    changed = values.copy()
    changed[80:] *= 3
    origins = np.arange(60, 80)
    assert rule(values, origins, 9) == pytest.approx(rule(changed, origins, 9))

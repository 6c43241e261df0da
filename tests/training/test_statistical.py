"""The statistical references: what statsmodels forecasts from the first origin, and no look ahead from any."""

import warnings
from collections import Counter

import numpy as np
import pytest
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from statsmodels.tsa.forecasting.theta import ThetaModel

from training.baselines import Values, naive, seasonal_naive
from training.statistical import METHODS, rule_of

_START = 140


def monthly(rows: int = 200, *, features: int = 1) -> Values:
    """(rows, features) positive values with a season of 12, a trend and noise that lasts."""
    rng = np.random.default_rng(0)
    noise = np.zeros((rows, features))
    for step in range(1, rows):
        noise[step] = 0.7 * noise[step - 1] + rng.normal(size=features)
    steps = np.arange(rows)[:, None]
    return np.asarray(100 + 0.2 * steps + 15 * np.sin(2 * np.pi * steps / 12) + noise)


@pytest.mark.parametrize("season", [None, 12])
def test_theta_forecasts_from_the_first_origin_what_statsmodels_does(season: int | None) -> None:
    values = monthly()
    past = values[:_START]
    forecasts = rule_of("theta", past, season, Counter())(values, np.array([_START - 1]), 30)
    expected = ThetaModel(past[:, 0], period=season or 1, deseasonalize=season is not None).fit().forecast(30)
    assert forecasts[0, :, 0] == pytest.approx(expected.to_numpy())


@pytest.mark.parametrize("season", [None, 12])
def test_exponential_smoothing_forecasts_from_the_first_origin_what_statsmodels_does(season: int | None) -> None:
    values = monthly()
    past = values[:_START]
    forecasts = rule_of("ets", past, season, Counter())(values, np.array([_START - 1]), 30)
    fits = []
    for trend in (None, "add"):
        for form in ("add", "mul") if season else (None,):
            model = ETSModel(
                past[:, 0],
                error="add",
                trend=trend,
                damped_trend=trend is not None,
                seasonal=form,
                seasonal_periods=season,
                initialization_method="heuristic",
            )
            fits.append(model.fit(disp=False))
    best = min(fits, key=lambda fit: fit.aicc)
    assert forecasts[0, :, 0] == pytest.approx(best.forecast(30), rel=1e-6)


def test_arima_forecasts_an_autoregressive_series_nearly_as_well_as_can_be() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1500, 1))
    values = np.zeros((1500, 1))
    for step in range(1, 1500):
        values[step] = 0.8 * values[step - 1] + noise[step]
    values += 50
    origins = np.arange(999, 1490)
    actual = values[origins[:, None] + np.arange(1, 6)]
    forecasts = rule_of("arima", values[:1000], None, Counter())(values, origins, 5)
    ideal = 50 + (values[origins] - 50)[:, None] * 0.8 ** np.arange(1, 6)[:, None]
    assert np.abs(actual - forecasts).mean() < 1.02 * np.abs(actual - ideal).mean()


def test_arima_follows_a_trend_and_a_season() -> None:
    values = monthly()
    origins = np.arange(_START - 1, 170)
    actual = values[origins[:, None] + np.arange(1, 25)]
    forecasts = rule_of("arima", values[:_START], 12, Counter())(values, origins, 24)
    for other in (naive(values, origins, 24), seasonal_naive(values, origins, 24, 12)):
        assert np.abs(actual - forecasts).mean() < np.abs(actual - other).mean()


@pytest.mark.parametrize("method", METHODS)
def test_what_comes_after_an_origin_does_not_change_a_statistical_forecast(method: str) -> None:
    values = monthly(features=2)
    changed = values.copy()
    changed[160:] += 40
    origins = np.arange(_START - 1, 160, 3)
    rule = rule_of(method, values[:_START], 12, Counter())
    assert rule(values, origins, 15) == pytest.approx(rule(changed, origins, 15))
    assert rule(values, origins[4:5], 15) == pytest.approx(rule(values, origins, 15)[4:5])


def test_exponential_smoothing_begins_with_what_was_known_at_the_first_origin() -> None:
    values = monthly()
    changed = values.copy()
    changed[46:] += 40  # within the first five seasons, which the beginning is found from where there are as many
    rule = rule_of("ets", values[:45], 12, Counter())
    assert rule(values, np.array([44, 45, 60]), 15)[:2] == pytest.approx(rule(changed, np.array([44, 45, 60]), 15)[:2])


@pytest.mark.parametrize("method", METHODS)
def test_a_season_too_long_to_be_estimated_is_left_out_of_account(method: str) -> None:
    values = monthly()
    origins = np.array([_START - 1])
    without = rule_of(method, values[:_START], None, Counter())(values, origins, 5)
    assert rule_of(method, values[:_START], 70, Counter())(values, origins, 5) == pytest.approx(without)


@pytest.mark.parametrize("method", METHODS)
def test_a_series_that_cannot_be_fitted_to_is_counted_and_repeated(method: str) -> None:
    values = np.concatenate([np.full((3, 1), 7.0), [[8.0]]])
    unfitted = Counter[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecasts = rule_of(method, values[:1], None, unfitted)(values, np.array([1, 3]), 2)
    assert unfitted == Counter({method: 1})
    assert forecasts[..., 0].tolist() == [[7, 7], [8, 8]]

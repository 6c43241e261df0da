"""Measures of forecasts, against numbers worked out by hand."""

import numpy as np
import pytest

from training.metrics import owa, seasonal_spread, smape_terms, spread_before


def test_smape_terms_are_those_of_the_m4_competition() -> None:
    actual, forecast = np.array([100.0, 50.0, 0.0, -10.0]), np.array([110.0, 40.0, 0.0, 10.0])
    assert smape_terms(actual, forecast) == pytest.approx([200 * 10 / 210, 200 * 10 / 90, 0, 200])


def test_the_spread_is_the_mean_absolute_seasonal_difference() -> None:
    values = np.array([[1.0], [4.0], [3.0], [8.0], [4.0]])
    assert seasonal_spread(values, None) == pytest.approx([(3 + 1 + 5 + 4) / 4])
    assert seasonal_spread(values, 2) == pytest.approx([(2 + 4 + 1) / 3])
    assert seasonal_spread(values, 5).tolist() == [0]


@pytest.mark.parametrize("season", [None, 3])
def test_the_spread_before_an_origin_is_that_of_all_it_has_seen(season: int | None) -> None:
    values = np.random.default_rng(0).normal(size=(20, 2))
    origins = np.array([0, 2, 3, 10, 19])
    expected = [seasonal_spread(values[: origin + 1], season) for origin in origins]
    assert spread_before(values, origins, season) == pytest.approx(np.array(expected))


def test_owa_is_the_mean_of_two_ratios() -> None:
    assert owa(9.0, 0.8, 18.0, 2.0) == pytest.approx((0.5 + 0.4) / 2)
    assert owa(9.0, 0.8, 0.0, 2.0) is None
    assert owa(9.0, 0.8, 18.0, 0.0) is None

"""The naive references, against numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.baselines import naive, seasonal_naive

_SERIES = np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [7.0]])


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

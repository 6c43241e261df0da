"""Intervals: what they promise whatever the errors were, and how often they hold."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.intervals import (
    FEWEST_ERRORS,
    MOST_ORIGINS,
    Errors,
    bounds,
    errors_of,
    fewest_errors,
    highest_level,
    margins,
    own_errors,
    own_origins,
    sample_paths,
    shifted,
    steps_for,
    steps_useful,
)
from service.window import Values

HORIZON = 3
Make = Callable[[np.random.Generator, int], Values]
Forecast = Callable[[Values], Values]
LARGEST = float(np.finfo(np.float32).max)

levels = st.floats(1, 99) | st.sampled_from([50.0, 80.0, 90.0, 95.0, 99.0])
moderate = st.floats(-1e6, 1e6, width=32)
sizes = st.floats(0, 1e4, width=32)


@st.composite
def errors(draw: st.DrawFn, fewest: int = 1) -> Errors:
    """Sorted errors of some origins, (errors, HORIZON, 1)."""
    count = draw(st.integers(fewest, 250))
    return np.sort(draw(arrays.arrays(np.float64, (count, HORIZON, 1), elements=st.floats(-1e3, 1e3))), axis=0)


def interval(
    forecast: Values, ranked: Errors, level: float, scale: float, *, non_negative: bool = False
) -> tuple[Values, Values]:
    """The bounds for one window's forecast, (HORIZON, 1), from errors over the scale."""
    below, above = margins(ranked, level)
    scales = np.array([[scale]])
    lower, upper = bounds(forecast[None], below[None] * scale, above[None] * scale, scales, non_negative=non_negative)
    return lower[0], upper[0]


@pytest.mark.parametrize(
    ("level", "errors"), [(80, 9), (90, 19), (95, 39), (99, 199), (99.9, 1999), (50, 3), (0.1, 2), (1e-9, 1)]
)
def test_a_level_needs_as_many_errors_as_one_may_be_left_out_of_on_each_side(level: float, errors: int) -> None:
    assert fewest_errors(level) == errors


@given(st.integers(1, 5000))
def test_the_highest_level_is_supported_and_a_tenth_more_is_not(count: int) -> None:
    level = highest_level(count)
    if level > 0:
        assert fewest_errors(level) <= count
    if level < 99.9:
        assert fewest_errors(level + 0.1) > count


def test_the_bounds_are_the_errors_in_the_place_that_conformal_prediction_names() -> None:
    ranked = np.arange(-29.0, 30.0)[:, None, None]  # 59 errors: (59 + 1) · 0.1 = the sixth from either end
    below, above = margins(ranked, 80)
    assert (below.item(), above.item()) == (-24, 24)
    below, above = margins(ranked[-9:], 80)  # the fewest: all of them lie between the bounds
    assert (below.item(), above.item()) == (0, 29)


@given(errors(), levels, levels, moderate, sizes, st.booleans())
def test_the_interval_of_a_higher_level_holds_that_of_a_lower_one_and_the_forecast(
    ranked: Errors, one: float, other: float, centre: float, scale: float, non_negative: bool
) -> None:
    forecast = np.full((HORIZON, 1), centre, np.float32)
    inner = interval(forecast, ranked, min(one, other), scale, non_negative=non_negative)
    outer = interval(forecast, ranked, max(one, other), scale, non_negative=non_negative)
    for lower, upper in (inner, outer):
        assert (lower < upper).all(), "never crossing, and never of no width"
        assert (upper >= forecast).all()
        if non_negative:
            assert (lower >= 0).all()
        if not non_negative or centre >= 0:
            assert (lower <= forecast).all()
    assert (outer[0] <= inner[0]).all()
    assert (outer[1] >= inner[1]).all()


@given(st.integers(1, 60), st.floats(-5, 5), moderate, sizes)
def test_an_interval_of_equal_errors_has_some_width(count: int, error: float, centre: float, scale: float) -> None:
    forecast = np.full((HORIZON, 1), centre, np.float32)
    lower, upper = interval(forecast, np.full((count, HORIZON, 1), error), 80, scale)
    assert (lower < forecast).all()
    assert (forecast < upper).all()


@pytest.mark.parametrize("centre", [0.0, 5.0, LARGEST, -LARGEST])
def test_a_series_that_never_changes_has_an_interval(centre: float) -> None:
    forecast = np.full((HORIZON, 1), centre, np.float32)
    lower, upper = interval(forecast, np.zeros((20, HORIZON, 1)), 80, 0.0)
    assert (lower < upper).all()
    assert np.isfinite(lower).all()
    assert np.isfinite(upper).all()


def test_nothing_lies_below_zero_where_no_observation_can() -> None:
    forecast = np.array([[-4.0], [0.0], [2.0]], np.float32)
    ranked = np.sort(np.linspace(-9, 3, 39))[:, None, None].repeat(HORIZON, axis=1)
    lower, upper = interval(forecast, ranked, 95, 1.0, non_negative=True)
    assert lower.ravel().tolist() == [0, 0, 0]
    assert (upper > 0).all()
    futures = sample_paths(forecast, ranked, 50, (1,), non_negative=True)
    assert futures.min() == 0


@given(errors(fewest=FEWEST_ERRORS), levels, st.floats(-1e3, 1e3), st.sampled_from([0.25, 2.0, 1024.0]))
def test_bounds_move_with_the_units_of_a_series(ranked: Errors, level: float, shift: float, factor: float) -> None:
    forecast = np.array([[1.5], [-2.0], [0.5]], np.float32)
    moved = (forecast * factor + shift).astype(np.float32)
    for plain, other in zip(
        interval(forecast, ranked, level, 1.0), interval(moved, ranked, level, factor), strict=True
    ):
        np.testing.assert_allclose(other, plain * factor + shift, rtol=1e-5, atol=1e-3 * factor + 1e-2)


@given(
    steps=st.integers(1, 5000),
    context=st.integers(1, 200),
    horizon=st.integers(1, 200),
    season=st.none() | st.integers(2, 400),
    needed=st.integers(1, 300),
    plenty=st.booleans(),
)
def test_every_origin_has_a_context_before_it_and_has_met_its_whole_horizon(
    steps: int, context: int, horizon: int, season: int | None, needed: int, plenty: bool
) -> None:
    origins = own_origins(steps, context, horizon, season, needed, plenty=plenty)
    if not origins:
        assert needed > MOST_ORIGINS or plenty or steps < steps_for(needed, context, horizon)
        return
    assert origins[0] - context + 1 >= 0
    assert origins[-1] + horizon == steps - 1, "the newest is as new as can be"
    assert needed <= len(origins) <= MOST_ORIGINS
    assert season is None or math.gcd(origins.step, season) == 1


@given(st.integers(1, 300), st.integers(1, 60), st.integers(1, MOST_ORIGINS))
def test_the_length_that_is_named_is_the_shortest_that_does(context: int, horizon: int, needed: int) -> None:
    steps = steps_for(needed, context, horizon)
    assert own_origins(steps, context, horizon, None, needed, plenty=False)
    assert not own_origins(steps - 1, context, horizon, None, needed, plenty=False)


def test_a_long_past_is_spread_over_and_a_short_one_taken_whole() -> None:
    assert own_origins(24 + 100, 24, 1, None, 39, plenty=True) == range(23, 123)
    assert own_origins(24 + 24 + 499, 24, 24, None, 39, plenty=True) == range(27, 523, 5)
    assert own_origins(5000, 24, 24, None, 39, plenty=True) == range(3980, 4976, 5)
    assert own_origins(5000, 24, 24, 365, 39, plenty=True) == range(4179, 4976, 4), "not in step with the season"


@given(st.integers(1, 60), st.integers(1, 150), st.integers(0, 5000), st.none() | st.integers(2, 60))
def test_steps_further_back_than_are_useful_change_nothing(
    context: int, horizon: int, more: int, season: int | None
) -> None:
    useful = steps_useful(context, horizon)
    near, far = (own_origins(useful + steps, context, horizon, season, 39, plenty=True) for steps in (0, more))
    assert [place - more for place in far] == list(near)


def test_errors_of_the_past_are_brought_to_the_scale_of_today() -> None:
    actual = np.array([[[3.0]], [[3.0]], [[3.0]]], np.float32)
    forecasts = np.array([[[1.0]], [[5.0]], [[2.0]]], np.float32)
    scales = np.array([[1.0], [4.0], [2.0]], np.float32)
    found = own_errors(actual, forecasts, scales, np.array([2.0], np.float32))
    assert found.ravel().tolist() == [4, -1, 1]


def test_errors_of_a_past_that_was_fitted_on_are_taken_for_larger_than_they_were() -> None:
    actual, forecasts = np.array([[[3.0]]], np.float32), np.array([[[1.0]]], np.float32)
    scales = np.ones((1, 1), np.float32)
    assert own_errors(actual, forecasts, scales, scales[0], inflation=1.5).ravel().tolist() == [3]


def test_a_flat_stretch_in_the_past_does_not_blow_intervals_up_nor_one_now_shrink_them_to_nothing() -> None:
    actual, forecasts = np.ones((2, 1, 1), np.float32), np.zeros((2, 1, 1), np.float32)
    scales = np.array([[0.0], [1.0]], np.float32)
    assert own_errors(actual, forecasts, scales, np.ones(1, np.float32)).ravel().tolist() == [10, 1]
    assert own_errors(actual, forecasts, scales, np.zeros(1, np.float32)).ravel() == pytest.approx([1, 0.1])


def test_errors_of_logarithms_widen_an_interval_as_the_forecast_grows() -> None:
    below, above = np.log([[[0.5]], [[0.5]]]), np.log([[[4.0]], [[4.0]]])
    forecasts = np.array([[[10.0]], [[1000.0]]], np.float32)
    lower, upper = bounds(forecasts, below, above, np.ones((2, 1)), logarithms=True, non_negative=True)
    assert lower.ravel() == pytest.approx([5, 500])
    assert upper.ravel() == pytest.approx([40, 4000])


@given(
    st.floats(2.0**-99, 2.0**99, width=32),
    st.floats(-200, 0),
    st.floats(0, 200),
    st.floats(0, 1e30),
)
def test_intervals_of_logarithms_hold_the_forecast_and_stay_above_zero(
    centre: float, below: float, above: float, scale: float
) -> None:
    forecast = np.full((1, 1, 1), centre, np.float32)
    margin, other = np.full((1, 1, 1), below), np.full((1, 1, 1), above)
    lower, upper = bounds(forecast, margin, other, np.full((1, 1), scale), logarithms=True, non_negative=True)
    assert 0 <= lower.item() < centre < upper.item() < np.inf or upper.item() == LARGEST


@given(st.floats(1e-15, 1e15), st.floats(1e-15, 1e15))
def test_what_would_have_come_is_what_came(actual: float, forecast: float) -> None:
    for logarithms in (True, False):
        errors = errors_of(np.array([actual]), np.array([forecast]), logarithms=logarithms)
        found = shifted(np.array([forecast]), errors, logarithms=logarithms)
        assert found.item() == pytest.approx(actual, rel=1e-6, abs=1e-6 * forecast)


def test_a_value_without_a_logarithm_makes_a_large_error_and_no_infinity() -> None:
    values = np.array([[[0.0]], [[-3.0]]], np.float32)
    found = own_errors(
        values, np.ones_like(values), np.ones((2, 1), np.float32), np.ones(1, np.float32), logarithms=True
    )
    assert (found < -80).all()
    assert np.isfinite(found).all()


def test_sampled_futures_keep_the_errors_of_one_origin_together() -> None:
    random = np.random.default_rng(0)
    paths = random.normal(size=(30, HORIZON, 2))
    forecast = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    futures = sample_paths(forecast, paths, 200, (7,), non_negative=False)
    assert futures.shape == (200, HORIZON, 2)
    whole = {tuple(path.ravel().tolist()) for path in (forecast + paths).astype(np.float32)}
    assert {tuple(future.ravel().tolist()) for future in futures} <= whole
    assert (sample_paths(forecast, paths, 200, (7,), non_negative=False) == futures).all()
    assert (sample_paths(forecast, paths, 200, (8,), non_negative=False) != futures).any()


CONTEXT = 24
WINDOWS = 400


def autoregressive(random: np.random.Generator, steps: int) -> Values:
    values = np.zeros(steps)
    noise = random.normal(size=steps)
    for step in range(1, steps):
        values[step] = 0.7 * values[step - 1] + noise[step]
    return values.astype(np.float32)


def seasonal(random: np.random.Generator, steps: int) -> Values:
    """A season of twelve steps, and noise that grows and shrinks with the level."""
    level = 20 + 8 * np.sin(np.arange(steps) / 150)
    noise = random.normal(size=steps) * level / 10
    values: Values = (level + 5 * np.sin(np.arange(steps) * 2 * np.pi / 12) + noise).astype(np.float32)
    return values


def fading(windows: Values) -> Values:
    """Forecasts that fall towards zero, those of an autoregressive series: (windows, HORIZON)."""
    fading: Values = windows[:, -1:] * np.float32(0.7) ** np.arange(1, HORIZON + 1, dtype=np.float32)
    return fading


def last_season(windows: Values) -> Values:
    return windows[:, -12 : -12 + HORIZON]


@pytest.mark.parametrize("level", [50, 80, 95])
@pytest.mark.parametrize(("make", "forecast"), [(autoregressive, fading), (seasonal, last_season)])
def test_intervals_from_a_windows_own_past_hold_as_often_as_they_say(
    make: Make, forecast: Forecast, level: float
) -> None:
    series = make(np.random.default_rng(3), 14_000)
    length = 1000
    held: list[npt.NDArray[np.bool_]] = []
    for origin in range(length, len(series) - HORIZON, (len(series) - length) // WINDOWS):
        window, future = series[origin - length : origin], series[origin : origin + HORIZON]
        lower, upper = own_interval(window, forecast, level)
        held.append((lower <= future) & (future <= upper))
    assert np.mean(held) == pytest.approx(level / 100, abs=0.03)


def own_interval(window: Values, forecast: Forecast, level: float) -> tuple[Values, Values]:
    origins = np.array(own_origins(len(window), CONTEXT, HORIZON, 12, 39, plenty=True))
    pasts = window[origins[:, None] + 1 - CONTEXT + np.arange(CONTEXT)]
    actual = window[origins[:, None] + 1 + np.arange(HORIZON)]
    scale = window[-CONTEXT:].std(keepdims=True)
    errors = own_errors(actual[..., None], forecast(pasts)[..., None], pasts.std(axis=1, keepdims=True), scale)
    below, above = margins(np.sort(errors, axis=0), level)
    centre = forecast(window[None, -CONTEXT:])[..., None]
    lower, upper = bounds(centre, below[None], above[None], scale[None].astype(np.float64), non_negative=False)
    return lower.ravel(), upper.ravel()

"""Sums of errors, against numbers worked out by hand."""

import numpy as np
import pytest

from service.artifact import ErrorTable
from training.tally import IntervalTally, PointTally
from training.uncertainty import TableErrors


def two_series() -> PointTally:
    """Two series of one feature, one origin and two lead times each; the second never changed before its origin."""
    tally = PointTally(series=2, horizon=2)
    tally.add(0, np.array([[[10.0], [20.0]]]), np.array([[[12.0], [16.0]]]), np.array([[2.0]]))
    tally.add(1, np.array([[[0.0], [5.0]]]), np.array([[[0.0], [5.0]]]), np.array([[0.0]]))
    return tally


def test_point_scores_over_all_give_each_point_the_same_weight() -> None:
    scores = two_series().over_all()
    assert scores.mae == pytest.approx((2 + 4) / 4)
    assert scores.rmse == pytest.approx(np.sqrt((4 + 16) / 4))
    assert scores.smape == pytest.approx((200 * 2 / 22 + 200 * 4 / 36) / 4)
    assert scores.mase == pytest.approx((1 + 2) / 2)  # the series without a divisor is left out


def test_point_scores_are_told_by_lead_time_and_by_series() -> None:
    tally = two_series()
    assert [tally.at(lead).mae for lead in (1, 2)] == [1, 2]
    assert tally.at(2).mase == 2
    assert [tally.of(place).mae for place in (0, 1)] == [3, 0]
    assert tally.of(1).mase is None
    assert tally.mae_by_series().tolist() == [3, 0]


def test_a_percentage_of_nothing_but_zeros_is_none() -> None:
    tally = PointTally(series=1, horizon=1)
    tally.add(0, np.zeros((3, 1, 1)), np.zeros((3, 1, 1)), np.ones((3, 1)))
    assert tally.over_all().smape is None


def table(*errors: float, horizon: int = 1) -> ErrorTable:
    return ErrorTable(origins=len(errors), errors=((errors,) * horizon,))


def test_intervals_reach_to_the_errors_in_place_and_are_scored_as_winkler_does() -> None:
    # nine errors: 80 % reach from the first of them to the last; the window's scale is 10
    tally = IntervalTally([80.0], series=2, horizon=1, non_negative=False)
    errors = TableErrors(table(*np.linspace(-2.0, 2.0, 9)), [80.0], horizon=1)
    forecast, scale, spread = np.full((4, 1, 1), 100.0), np.full((4, 1), 10.0), np.full((4, 1), 5.0)
    actual = np.array([79.0, 80.5, 119.5, 130.0]).reshape(4, 1, 1)
    tally.add(1, actual, forecast, spread, errors.reach(scale))
    (scores,) = tally.over_all()
    assert scores.level == 80
    assert scores.coverage == 50
    assert scores.width == pytest.approx(40)
    assert scores.score == pytest.approx(40 + (2 / 0.2) * (1 + 10) / 4)
    assert scores.msis == pytest.approx(scores.score / 5)
    assert tally.coverage_by_lead(80.0).tolist() == [50]
    assert tally.at(80.0, 1) == scores
    assert tally.of(1) == [scores]
    assert tally.crps_of(1) == pytest.approx(tally.crps)


def test_a_series_without_intervals_has_no_scores_of_them() -> None:
    tally = IntervalTally([80.0], series=1, horizon=1, non_negative=False)
    assert tally.of(0) == []
    assert tally.crps_of(0) is None


def test_intervals_of_logarithms_reach_so_many_times_as_far_as_the_forecast_is_large() -> None:
    errors = TableErrors(table(*np.log([0.5, 1.0, 2.0])), [50.0], horizon=1, logarithms=True)
    tally = IntervalTally([50.0], series=1, horizon=1, non_negative=True)
    forecast = np.array([[[10.0]], [[100.0]]])
    ((lower, upper),) = tally.bounds(forecast, errors.reach(np.ones((2, 1)))).values()
    assert lower.ravel() == pytest.approx([5, 50])
    assert upper.ravel() == pytest.approx([20, 200])


def test_crps_is_twice_the_mean_pinball_loss_of_the_deciles() -> None:
    tally = IntervalTally([], series=1, horizon=1, non_negative=False)
    reach = TableErrors(table(*np.linspace(-1.0, 1.0, 11)), [], horizon=1).reach(np.ones((1, 1)))
    tally.add(0, np.full((1, 1, 1), 13.0), np.full((1, 1, 1), 10.0), np.ones((1, 1)), reach)
    deciles = np.arange(1, 10) / 10
    quantiles = 10 + np.linspace(-0.8, 0.8, 9)  # all below what came: each loses its share of the distance
    assert tally.crps == pytest.approx(2 * np.mean(deciles * (13 - quantiles)))
    assert tally.weighted_quantile_loss == pytest.approx(tally.crps / 13)
    assert tally.crps_by_lead() == pytest.approx([tally.crps])


def test_lead_times_beyond_the_table_have_no_intervals() -> None:
    errors = TableErrors(table(-1.0, 0.0, 1.0, horizon=2), [50.0], horizon=5)
    assert errors.horizon == 2
    tally = IntervalTally([50.0], series=1, horizon=2, non_negative=False)
    tally.add(0, np.zeros((3, 5, 1)), np.zeros((3, 5, 1)), np.ones((3, 1)), errors.reach(np.ones((3, 1))))
    assert tally.coverage_by_lead(50.0).tolist() == [100, 100]


def test_intervals_and_quantiles_of_what_cannot_be_negative_begin_at_zero() -> None:
    tally = IntervalTally([50.0], series=1, horizon=1, non_negative=True)
    reach = TableErrors(table(-5.0, 0.0, 5.0), [50.0], horizon=1).reach(np.ones((1, 1)))
    ((lower, upper),) = tally.bounds(np.ones((1, 1, 1)), reach).values()
    assert (lower.item(), upper.item()) == (0, 6)
    tally.add(0, np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), np.ones((1, 1)), reach)
    assert tally.crps == pytest.approx(2 * sum(0.1 * (5 - place) * place for place in range(1, 5)) / 9)


def test_forecasts_told_in_parts_are_scored_as_told_at_once() -> None:
    rng = np.random.default_rng(0)
    actual, forecast = rng.normal(size=(2, 20, 3, 2))
    scale, spread = rng.uniform(1, 2, size=(2, 20, 2))
    made = ErrorTable(origins=30, errors=tuple(tuple(tuple(rng.normal(size=30)) for _ in range(3)) for _ in "ab"))
    errors = TableErrors(made, [50.0, 80.0], horizon=3)
    whole, parts = (PointTally(1, 3) for _ in range(2))
    held, pieces = (IntervalTally([50.0, 80.0], 1, 3, non_negative=False) for _ in range(2))
    whole.add(0, actual, forecast, spread)
    held.add(0, actual, forecast, spread, errors.reach(scale))
    for rows in (slice(0, 7), slice(7, 20)):
        parts.add(0, actual[rows], forecast[rows], spread[rows])
        pieces.add(0, actual[rows], forecast[rows], spread[rows], errors.reach(scale[rows]))
    assert parts.over_all().model_dump() == pytest.approx(whole.over_all().model_dump())
    assert pieces.crps == pytest.approx(held.crps)
    for one, other in zip(pieces.over_all(), held.over_all(), strict=True):
        assert vars(one) == pytest.approx(vars(other))

"""The backtest: where its origins lie, what its scores are by hand, and what it says of them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact import Scores
from service.engine import Engine
from tests.artifacts import Kind, write_artifact
from training.backtest import MODEL, NAIVE, SEASONAL_NAIVE, backtest, smape, stride_of, verdict
from training.metrics import seasonal_spread
from training.panel import Panel, Series
from training.parts import Boundary, Split


def panel_of(*values: npt.NDArray[np.float64], season: int | None = None, dated: bool = False) -> Panel:
    series = tuple(
        Series(
            f"s{number}",
            one.reshape(len(one), -1),
            pd.date_range("2024-01-01", periods=len(one), freq="D") if dated else None,
        )
        for number, one in enumerate(values)
    )
    features = tuple(f"x{index}" for index in range(series[0].values.shape[1]))
    return Panel(series, features, "D" if dated else None, season, (), "sha256:0")


def engine_of(folder: Path, kind: Kind = "drift", *, features: int = 1, context: int = 8) -> Engine:
    return Engine.open(write_artifact(folder / "model.onnx", kind, features=features, context_length=context))


def test_a_straight_line_is_forecast_exactly_and_naive_errs_by_the_lead_time(tmp_path: Path) -> None:
    panel = panel_of(np.arange(100.0), dated=True)
    result = backtest(engine_of(tmp_path), panel, Split((Boundary(80, 90),), 4)).scores
    assert (result.horizon, result.origins) == (4, 7)
    assert (result.first_origin, result.last_origin) == ("2024-03-30T00:00:00", "2024-04-05T00:00:00")
    assert result.mae_by_lead_time[MODEL] == pytest.approx((0, 0, 0, 0), abs=1e-4)
    assert result.mae_by_lead_time[NAIVE] == (1, 2, 3, 4)
    assert result.one_step[NAIVE].mae == 1
    assert result.multi_step[NAIVE].mae == 2.5
    assert result.multi_step[NAIVE].rmse == pytest.approx(np.sqrt(7.5))
    assert result.multi_step[NAIVE].mase == 2.5  # the line rises by 1 a step
    assert SEASONAL_NAIVE not in result.multi_step
    assert result.verdict.startswith("Too few origins (7) to tell whether the model is better than naive: over 4 steps")


def test_with_ten_origins_the_verdict_is_firm(tmp_path: Path) -> None:
    result = backtest(engine_of(tmp_path), panel_of(np.arange(100.0)), Split((Boundary(77, 87),), 4)).scores
    assert result.origins == 10
    assert result.verdict.startswith("Better than naive:")


def test_every_forecast_lies_inside_the_test_part_and_its_window_before_the_origin(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=120).cumsum()
    panel = panel_of(values)
    engine = engine_of(tmp_path, "mean", context=8)
    (roll,) = backtest(engine, panel, Split((Boundary(90, 100),), 5)).rolls
    assert roll.origins[0] == 99
    assert roll.origins[-1] == 114
    for index, origin in enumerate(roll.origins):
        assert np.array_equal(roll.actual[index, :, 0], values[origin + 1 : origin + 6])
        assert roll.forecasts[MODEL][index, 0, 0] == pytest.approx(values[origin - 7 : origin + 1].mean(), rel=1e-5)


def test_what_comes_after_an_origin_does_not_change_its_forecast(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=120).cumsum()
    engine, split = engine_of(tmp_path), Split((Boundary(90, 100),), 5)
    changed = values.copy()
    changed[110:] += 100
    (before,) = backtest(engine, panel_of(values, season=7), split).rolls
    (after,) = backtest(engine, panel_of(changed, season=7), split).rolls
    known = before.origins < 110
    for method in (MODEL, NAIVE, SEASONAL_NAIVE):
        assert np.array_equal(before.forecasts[method][known], after.forecasts[method][known])


def test_series_of_several_features_are_scored_with_equal_weight(tmp_path: Path) -> None:
    line = np.arange(60.0)
    panel = panel_of(np.stack([line, 10 * line], axis=1))
    result = backtest(engine_of(tmp_path, features=2), panel, Split((Boundary(40, 50),), 1)).scores
    assert result.one_step[NAIVE].mae == pytest.approx((1 + 10) / 2)
    assert result.one_step[NAIVE].mase == pytest.approx(1)


def test_mase_leaves_out_a_series_that_never_changed_before_the_test_part(tmp_path: Path) -> None:
    flat = np.concatenate([np.full(50, 5.0), np.arange(10.0)])
    panel = panel_of(np.arange(60.0), flat)
    result = backtest(engine_of(tmp_path), panel, Split((Boundary(40, 50),) * 2, 1)).scores
    assert result.one_step[NAIVE].mase == pytest.approx(1)


def test_progress_is_told_after_each_series(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    panel, split = panel_of(np.arange(60.0), np.arange(60.0)), Split((Boundary(40, 50),) * 2, 1)
    backtest(engine_of(tmp_path), panel, split, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_a_test_part_shorter_than_the_horizon_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter than the horizon 11"):
        backtest(engine_of(tmp_path), panel_of(np.arange(60.0)), Split((Boundary(40, 50),), 11))


@given(rooms=st.lists(st.integers(1, 5000), min_size=1, max_size=40), season=st.none() | st.integers(2, 400))
@settings(max_examples=200)
def test_the_stride_leaves_few_origins_that_meet_every_part_of_the_season(rooms: list[int], season: int | None) -> None:
    stride = stride_of(rooms, season)
    assert sum(-(-room // stride) for room in rooms) <= 500 + len(rooms)
    if season is not None:
        assert len({(step * stride) % season for step in range(season)}) == season


def test_smape_is_that_of_the_m4_competition() -> None:
    actual, forecast = np.array([100.0, 50.0, 0.0]), np.array([110.0, 40.0, 0.0])
    assert smape(actual, forecast) == pytest.approx((200 * 10 / 210 + 200 * 10 / 90 + 0) / 3)
    assert smape(np.zeros(3), np.zeros(3)) is None


def test_the_spread_of_mase_is_the_mean_absolute_seasonal_difference() -> None:
    values = np.array([[1.0], [4.0], [3.0], [8.0], [4.0]])
    assert seasonal_spread(values, None) == pytest.approx([(3 + 1 + 5 + 4) / 4])
    assert seasonal_spread(values, 2) == pytest.approx([(2 + 4 + 1) / 3])


def scores(**errors: float) -> dict[str, Scores]:
    return {method: Scores(mae=error, rmse=error, smape=None, mase=None) for method, error in errors.items()}


@pytest.mark.parametrize(
    ("one_step", "multi_step", "expected"),
    [
        (
            scores(model=0.9, naive=1.0, seasonal_naive=2.0),
            scores(model=0.88, naive=1.5, seasonal_naive=1.0),
            "Better than naive: over 24 steps its mean absolute error is 12 % below that of seasonal naive; "
            "one step ahead it is 10 % below that of naive.",
        ),
        (
            scores(model=1.1, naive=1.0),
            scores(model=0.5, naive=1.0),
            "Better than naive only over 24 steps: over 24 steps its mean absolute error is 50 % below that of naive; "
            "one step ahead it is 10 % above that of naive.",
        ),
        (
            scores(model=0.5, naive=1.0),
            scores(model=1.1, naive=1.0),
            "Better than naive only one step ahead: over 24 steps its mean absolute error is 10 % above that of naive; "
            "one step ahead it is 50 % below that of naive.",
        ),
        (
            scores(model=1.5, naive=1.0),
            scores(model=1.004, naive=1.0),
            "Not better than naive, do not use it: over 24 steps its mean absolute error is 0.4 % above that of naive; "
            "one step ahead it is 50 % above that of naive.",
        ),
        (
            scores(model=1.5, naive=0.0),
            scores(model=1.5, naive=0.0),
            "Not better than naive, do not use it: over 24 steps its mean absolute error is above that of naive, which "
            "makes none; one step ahead it is above that of naive, which makes none.",
        ),
    ],
    ids=["better", "better far ahead", "better near", "worse", "perfect reference"],
)
def test_the_verdict_says_in_plain_words_how_the_model_compares(
    one_step: dict[str, Scores], multi_step: dict[str, Scores], expected: str
) -> None:
    assert verdict(one_step, multi_step, 24, 10) == expected
    figures = expected.partition(": ")[2]
    assert (
        verdict(one_step, multi_step, 24, 9)
        == f"Too few origins (9) to tell whether the model is better than naive: {figures}"
    )

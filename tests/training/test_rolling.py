"""The backtest of any artifact on any table: where its origins lie, and that its scores are those of a training run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.artifact import ErrorTable
from service.engine import Engine
from tests.artifacts import Kind, write_artifact
from tests.training.tables import hourly, long_form
from training import rolling
from training.backtest import MODEL, NAIVE, SEASONAL_NAIVE, backtest
from training.baselines import Values
from training.config import Config, Data, Network
from training.data import read_panel
from training.errors import DataError
from training.metrics import seasonal_spread
from training.panel import Panel
from training.parts import split
from training.rolling import Outcome, Terms, check, read_for, run
from training.table import Table

_ERRORS = ErrorTable(origins=50, errors=((tuple(np.linspace(-0.5, 0.5, 50)),) * 24,))


def table_of(frame: pd.DataFrame) -> Table:
    return Table(frame, "data", "row")


def engine_of(
    folder: Path,
    kind: Kind = "mean",
    *,
    features: int = 1,
    context: int = 48,
    errors: ErrorTable | None = None,
    season: int | None = None,
    minimum: int = 2,
) -> Engine:
    file = write_artifact(
        folder / "model.onnx",
        kind,
        features=features,
        context_length=context,
        minimum_window=minimum,
        errors=errors,
        season_length=season,
    )
    return Engine.open(file)


def outcome_of(engine: Engine, frame: pd.DataFrame, terms: Terms | None = None, **data: object) -> Outcome:
    panel = read_for(engine, table_of(frame), Data.model_validate(data))
    return run(engine, panel, terms or Terms(), "data")


def test_on_the_origins_of_a_training_run_the_scores_are_those_of_its_report(tmp_path: Path) -> None:
    frame = long_form(500, 3)
    engine = engine_of(tmp_path)
    config = Config(data=Data(series="site", target=("load",)), network=Network(context_length=48))
    panel = read_panel(table_of(frame), config)
    expected = backtest(engine, panel, split(panel, config)).scores

    outcome = outcome_of(engine, frame, series="site", target=("load",))

    assert (outcome.total, outcome.horizon) == (expected.origins, expected.horizon)
    assert outcome.verdict.startswith(expected.verdict)
    for method in (MODEL, NAIVE, SEASONAL_NAIVE):
        tally = outcome.points[method]
        assert tally.over_all().model_dump() == pytest.approx(expected.multi_step[method].model_dump())
        assert tally.at(1).model_dump() == pytest.approx(expected.one_step[method].model_dump())
        by_lead = [tally.at(lead).mae for lead in range(1, 25)]
        assert by_lead == pytest.approx(expected.mae_by_lead_time[method])


@pytest.mark.parametrize(
    ("rows", "origins", "stride", "expected"),
    [
        (100, 1, None, [91]),
        (100, 4, None, [88, 89, 90, 91]),
        (100, 3, 8, [75, 83, 91]),
        (200, None, 3, [179, 182, 185, 188, 191]),  # the last tenth, as in a training run
    ],
    ids=["one", "the last ones", "the last ones apart", "apart over the last part"],
)
def test_origins_are_the_last_of_each_series_so_far_apart(
    rows: int, origins: int | None, stride: int | None, expected: list[int], tmp_path: Path
) -> None:
    outcome = outcome_of(engine_of(tmp_path), hourly(rows), Terms(horizon=8, origins=origins, stride=stride))
    assert outcome.origins[0].tolist() == expected


def test_the_model_and_every_reference_are_scored_on_what_came(tmp_path: Path) -> None:
    frame = hourly(400)
    values = frame["load"].to_numpy()
    outcome = outcome_of(engine_of(tmp_path), frame, Terms(horizon=6, origins=5, stride=4))
    (origins,) = outcome.origins
    actual = values[origins[:, None] + np.arange(1, 7)]
    means = np.array([values[origin - 47 : origin + 1].mean() for origin in origins])
    assert outcome.points[MODEL].at(1).mae == pytest.approx(np.abs(actual[:, 0] - means).mean(), rel=1e-5)
    naive = np.abs(actual - values[origins][:, None])
    assert outcome.points[NAIVE].over_all().mae == pytest.approx(naive.mean())
    assert list(outcome.points) == [
        MODEL,
        NAIVE,
        SEASONAL_NAIVE,
        "naive2",
        "moving_average",
        "drift",
        "linear_autoregression",
    ]
    assert outcome.by_origin[NAIVE] == pytest.approx(naive.mean(axis=1))
    assert outcome.owa("naive2") == 1


def test_without_a_season_there_are_no_seasonal_references_and_owa_is_against_naive(tmp_path: Path) -> None:
    outcome = outcome_of(engine_of(tmp_path), hourly(200)[["load"]], Terms(origins=3))
    assert not {SEASONAL_NAIVE, "naive2"} & outcome.points.keys()
    assert outcome.owa(NAIVE) == 1
    assert outcome.horizon == 24


def test_skill_is_against_the_better_naive_reference(tmp_path: Path) -> None:
    outcome = outcome_of(engine_of(tmp_path), hourly(400))
    scores = outcome.scores
    assert outcome.reference == SEASONAL_NAIVE
    assert outcome.skill(MODEL) == pytest.approx(1 - scores[MODEL].mae / scores[SEASONAL_NAIVE].mae)
    assert outcome.skill_by_series() == pytest.approx([outcome.skill(MODEL)])


def test_mase_divides_by_what_lies_before_the_first_origin_or_before_each(tmp_path: Path) -> None:
    frame = hourly(200)
    frame["load"] *= np.linspace(1, 9, 200)
    values = frame["load"].to_numpy()[:, None]
    engine = engine_of(tmp_path)
    asked = [Terms(origins=9, stride=5, horizon=4, own_past=past) for past in (False, True)]
    fixed, own = (outcome_of(engine, frame, terms) for terms in asked)
    near = outcome_of(engine, frame, Terms(origins=9, stride=5, horizon=4, mase_season=1))
    (origins,) = fixed.origins
    errors = fixed.by_origin[MODEL]
    spreads = np.array([seasonal_spread(values[: origin + 1], 24)[0] for origin in origins])
    assert fixed.scores[MODEL].mase == pytest.approx(np.mean(errors / spreads[0]))
    assert own.scores[MODEL].mase == pytest.approx(np.mean(errors / spreads))
    steps = seasonal_spread(values[: origins[0] + 1], 1)[0]
    assert near.scores[MODEL].mase == pytest.approx(np.mean(errors / steps))


def test_series_are_forecast_together_as_each_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame({"id": f"s{number}", "x0": rng.normal(size=rows).cumsum()})
        for number, rows in enumerate((40, 300, 41, 45, 170))
    ]
    engine = engine_of(tmp_path, "lstm", context=64)
    terms = Terms(origins=7, horizon=5, stride=3)
    together = outcome_of(engine, pd.concat(frames), terms, series="id")
    for place, frame in enumerate(frames):
        alone = outcome_of(engine, frame, terms, series="id")
        for method, tally in together.points.items():
            assert tally.of(place).mae == pytest.approx(alone.scores[method].mae, rel=1e-5)


def test_origins_in_small_blocks_are_scored_as_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(tmp_path, errors=_ERRORS)
    frame = long_form(300, 2)
    terms = Terms(origins=20, horizon=6)
    whole = outcome_of(engine, frame, terms, series="site", target=("load",))
    monkeypatch.setattr(rolling, "_BLOCK", 20)
    parts = outcome_of(engine, frame, terms, series="site", target=("load",))
    assert parts.intervals is not None
    assert whole.intervals is not None
    assert parts.intervals.crps == pytest.approx(whole.intervals.crps)
    assert [example.origin for example in parts.examples] == [example.origin for example in whole.examples]
    for method, scores in whole.scores.items():
        assert parts.scores[method].model_dump() == pytest.approx(scores.model_dump())


def test_intervals_are_scored_where_the_model_has_errors_for_them(tmp_path: Path) -> None:
    outcome = outcome_of(engine_of(tmp_path, errors=_ERRORS), hourly(400), Terms(levels=(50.0, 90.0), horizon=30))
    assert outcome.intervals is not None
    low, high = outcome.intervals.over_all()
    assert low.coverage < high.coverage
    assert low.width < high.width
    assert outcome.intervals.horizon == 24
    assert "intervals end at 24 steps, as the model's error table does" in outcome.notes


def test_a_usual_level_that_the_errors_do_not_support_is_left_out_and_told(tmp_path: Path) -> None:
    few = ErrorTable(origins=20, errors=((tuple(np.linspace(-1.0, 1.0, 20)),) * 4,))
    outcome = outcome_of(engine_of(tmp_path, errors=few), hourly(200), Terms(horizon=4))
    assert outcome.intervals is not None
    assert outcome.intervals.levels == (80,)
    assert "the model's 20 errors of each lead time do not support 95 %" in outcome.notes


def test_statistical_references_are_made_where_they_are_asked_for(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    engine = engine_of(tmp_path)
    panel = read_for(engine, table_of(long_form(260, 2)), Data(series="site", target=("load",)))
    terms = Terms(origins=3, horizon=12, references=("ets", "theta", "arima"))
    outcome = run(engine, panel, terms, "data", progress=lambda done, total: told.append((done, total)))
    worst = outcome.scores[NAIVE].mae
    assert all(outcome.scores[method].mae < worst for method in ("ets", "theta", "arima"))
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_the_models_features_and_season_are_taken_where_none_are_given(tmp_path: Path) -> None:
    frame = hourly(300).rename(columns={"load": "x0"}).assign(other=1.0)
    outcome = outcome_of(engine_of(tmp_path, season=12), frame, Terms(origins=2))
    assert outcome.panel.features == ("x0",)
    assert outcome.season == 12
    assert "season 12: the model's" in outcome.notes


def test_a_season_that_no_first_origin_has_behind_it_is_not_assumed(tmp_path: Path) -> None:
    outcome = outcome_of(engine_of(tmp_path), hourly(60), Terms(origins=40, horizon=2))
    assert outcome.season is None
    assert "the first origins have no whole season of 24 steps behind them: none was assumed" in outcome.notes


def test_another_frequency_than_the_models_is_told(tmp_path: Path) -> None:
    file = write_artifact(tmp_path / "model.onnx", frequency="D")
    outcome = outcome_of(Engine.open(file), hourly(100), Terms(origins=2))
    assert "the data have the frequency h, but the model was fitted on D" in outcome.notes


@pytest.mark.parametrize(
    ("origins", "expected"),
    [(None, None), (60, "19 origins lie before the test part of the training run: fitting has seen their data")],
    ids=["the test part", "before it"],
)
def test_origins_in_data_that_the_model_was_fitted_on_are_told(
    origins: int | None, expected: str | None, tmp_path: Path
) -> None:
    engine = engine_of(tmp_path, context=24)
    config = Config(data=Data(horizon=10), network=Network(context_length=24))
    panel = read_panel(table_of(hourly(500)), config)
    scores = backtest(engine, panel, split(panel, config)).scores  # from step 449 on
    training = engine.metadata.training.model_copy(update={"data_digest": panel.digest})
    engine.metadata = engine.metadata.model_copy(update={"training": training, "backtest": scores})
    notes = run(engine, panel, Terms(origins=origins), "data").notes
    assert [note for note in notes if "training run" in note] == ([expected] if expected else [])
    other = outcome_of(engine, hourly(400), Terms(origins=2)).notes
    assert "the data are not those of the model's training run; whether both overlap is not known" in other


def short_and_long() -> pd.DataFrame:
    return pd.concat([long_form(200, 1), long_form(9, 1).assign(site="short")])


def test_series_that_are_too_short_can_be_left_out(tmp_path: Path) -> None:
    engine = engine_of(tmp_path)
    panel = read_for(engine, table_of(short_and_long()), Data(series="site", target=("load",)))
    outcome = run(engine, panel, Terms(horizon=12), "data", skip_short=True)
    assert [one.name for one in outcome.panel.series] == ["site-0"]
    assert "1 of 2 series were left out, because they are too short" in outcome.notes


def test_series_that_the_fitting_left_out_are_no_reason_to_take_data_for_others(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, context=24)
    frame = pd.concat([long_form(200, 1), long_form(1, 1).assign(site="new")])  # one row, which changes nothing
    data = Data(series="site", target=("load",), horizon=10, skip_short=True)
    config = Config(data=data, network=Network(context_length=24))
    panel = read_panel(table_of(frame), config)
    scores = backtest(engine, panel, split(panel, config)).scores
    told = {"data_digest": panel.digest, "configuration": config.model_dump(mode="json")}
    training = engine.metadata.training.model_copy(update=told)
    engine.metadata = engine.metadata.model_copy(update={"training": training, "backtest": scores})

    outcome = run(engine, read_for(engine, table_of(frame), data), Terms(), "data", skip_short=True)

    assert "1 of 2 series were left out, because they are too short" in outcome.notes
    assert [note for note in outcome.notes if "training run" in note] == []


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (
            Terms(horizon=12),
            "data: too short: 'short', 1 of 2 series, down to 9 steps, but a window of 2 and a horizon of 12 need 15: "
            "give more data, or score a shorter horizon (--horizon), or leave the short series out (--skip-short)",
        ),
        (
            Terms(horizon=1, origins=5, stride=3),
            "data: too short: 'short', 1 of 2 series, down to 9 steps, but a window of 2 and a horizon of 1 from 5 "
            "origins need 15: give more data, or ask for fewer origins (--origins) or closer ones (--stride), or leave "
            "the short series out (--skip-short)",
        ),
        (Terms(levels=(99.0,)), "support at most 96 %; ask for lower levels"),
    ],
    ids=["horizon", "origins", "level"],
)
def test_what_the_data_or_the_model_cannot_bear_is_refused_with_a_mend(
    terms: Terms, message: str, tmp_path: Path
) -> None:
    engine = engine_of(tmp_path, errors=_ERRORS)
    frame = short_and_long() if terms.levels is None else long_form(200, 1)
    panel = read_for(engine, table_of(frame), Data(series="site", target=("load",)))
    with pytest.raises(DataError) as raised:
        run(engine, panel, terms, "data")
    assert message in str(raised.value)


def test_levels_for_a_model_without_errors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no error table to take intervals from; leave --levels"):
        outcome_of(engine_of(tmp_path), hourly(100), Terms(levels=(80.0,)))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (("a",), "the model forecasts 2 features (x0, x1), but the data have 1 feature (a): name as many columns"),
        (("x1", "x0"), "name the columns in the model's order: --target x0 x1"),
    ],
    ids=["too few", "another order"],
)
def test_features_that_are_not_the_models_are_refused(target: Sequence[str], message: str, tmp_path: Path) -> None:
    values: Values = np.random.default_rng(0).normal(size=(60, 3))
    frame = pd.DataFrame(values, columns=["a", "x0", "x1"])
    with pytest.raises(DataError) as raised:
        read_for(engine_of(tmp_path, features=2), table_of(frame), Data(target=tuple(target)))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (Terms(horizon=0), "--horizon: must be at least 1"),
        (Terms(origins=0), "--origins: must be at least 1"),
        (Terms(stride=-1), "--stride: must be at least 1"),
        (Terms(mase_season=0), "--mase-season: must be at least 1"),
        (Terms(levels=(80.0, 100.0)), "--levels: must be percentages between 0 and 100, such as 80 95"),
    ],
    ids=["horizon", "origins", "stride", "season of MASE", "levels"],
)
def test_terms_that_cannot_be_are_refused(terms: Terms, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(terms)


def test_data_read_for_a_model_have_the_digest_that_they_have_in_a_training_run(tmp_path: Path) -> None:
    config = Config(network=Network(context_length=24))
    fitted: Panel = read_panel(table_of(hourly(300)), config)
    assert read_for(engine_of(tmp_path), table_of(hourly(300)), Data()).digest == fitted.digest


def test_intervals_from_windows_own_pasts_rest_on_what_came_before_each_origin(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=700)
    engine = engine_of(tmp_path, context=24, errors=_ERRORS)
    frame = pd.DataFrame({"x0": values})
    terms = Terms(origins=60, stride=5, horizon=4, levels=(80.0,), basis="window")
    outcome = outcome_of(engine, frame, terms)
    assert outcome.intervals is not None
    (scores,) = outcome.intervals.over_all()
    assert scores.coverage == pytest.approx(80, abs=6)
    assert "intervals from the errors of windows' own pasts: 60 origins" in outcome.notes

    later = values.copy()
    (origins,) = outcome.origins
    later[origins[-1] + 1 :] = 1e6
    changed = outcome_of(engine, pd.DataFrame({"x0": later}), terms)
    for one, other in zip(outcome.examples, changed.examples, strict=True):
        assert np.array_equal(one.bounds[80.0], other.bounds[80.0])


def test_origins_with_too_short_a_past_take_the_models_errors_where_there_are_any(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x0": np.random.default_rng(0).normal(size=300)})
    terms = Terms(origins=50, stride=5, horizon=4, levels=(80.0,), basis="window")
    outcome = outcome_of(engine_of(tmp_path, context=24, errors=_ERRORS), frame, terms)
    (note,) = [note for note in outcome.notes if note.startswith("intervals from")]
    assert "the others from the model's error table: " in note
    without = outcome_of(engine_of(tmp_path, context=24), frame, terms)
    assert any(note.startswith("no intervals were scored at") for note in without.notes)

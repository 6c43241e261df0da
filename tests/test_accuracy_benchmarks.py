"""The accuracy benchmarks: public files as their publishers give them, protocols, and the way from both to a row."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy import report
from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.coverage import measured, thinned
from benchmarks.accuracy.protocols import PROTOCOLS, Protocol
from benchmarks.accuracy.results import RESULTS, kept
from benchmarks.accuracy.runs import CONFIGS, configs_of, configured
from benchmarks.accuracy.scores import Answered, differ, of_answers, of_backtest
from benchmarks.accuracy.tables import as_text, rows
from service.artifact import ErrorTable
from service.engine import Engine
from tests.artifacts import build_metadata, write_artifact
from training.baselines import naive
from training.config import read_config
from training.data import read_any_length, read_panel
from training.errors import DataError
from training.panel import Panel, Series
from training.parts import split
from training.rolling import read_for, run
from training.table import Table

_M4 = PROTOCOLS["m4-hourly"]
_ERRORS = ErrorTable(origins=50, errors=((tuple(np.linspace(-3.0, 3.0, 50)),) * 48,))
_TINY = """
name = "tiny"
description = "a tiny LSTM"
[data]
validation_share = 0.05
[network]
layers = [4]
context_length = 24
[fitting]
epochs = 1
steps_per_epoch = 2
batch_size = 8
iterated = false
"""


def _series(length: int, seed: int) -> list[float]:
    noise = np.random.default_rng(seed).normal(0, 2, length)
    return [round(float(one), 2) for one in 50 + 10 * np.sin(np.arange(length) / 24 * 2 * np.pi) + noise]


def _wide(path: Path, series: dict[str, list[float]]) -> None:
    """As the M4 competition publishes it: in quotes, rows filled up with empty cells."""
    width = max(len(values) for values in series.values())
    lines = [",".join(f'"V{column + 1}"' for column in range(width + 1))]
    for name, values in series.items():
        cells = [f'"{name}"', *(f'"{value}"' for value in values)]
        lines.append(",".join(cells + [""] * (width + 1 - len(cells))))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of public series: three of M4's form, 260 to 300 hours long."""
    data = tmp_path / "data"
    data.mkdir()
    series = {f"H{index}": _series(308 + 20 * index, index) for index in (1, 2, 3)}
    _wide(data / "Hourly-train.csv", {name: values[:-48] for name, values in series.items()})
    _wide(data / "Hourly-test.csv", {name: values[-48:] for name, values in series.items()})
    return data


def test_the_two_wide_files_of_m4_become_one_long_table_without_the_empty_cells(folder: Path) -> None:
    frame = _M4.table(folder).frame
    assert list(frame.columns) == ["series", "step", "value"]
    assert frame.groupby("series").size().to_dict() == {"H1": 328, "H2": 348, "H3": 368}
    assert frame[frame["series"] == "H2"]["value"].tolist() == _series(348, 2)
    assert frame[frame["series"] == "H3"]["step"].tolist() == list(range(368))


def test_for_choosing_the_test_part_does_not_exist_and_the_part_before_it_is_scored(folder: Path) -> None:
    frame = _M4.for_validation().table(folder).frame
    assert frame[frame["series"] == "H2"]["value"].tolist() == _series(348, 2)[:-48]


@pytest.mark.parametrize(
    ("spoil", "table", "message"),
    [
        (lambda data: (data / "Hourly-test.csv").unlink(), "m4-hourly", "Hourly-test.csv: no such file; expected is"),
        (lambda data: None, "us-births", "the columns ds (days from 1969-01-01 to 1988-12-31) and births"),
        (lambda data: None, "etth1-24", "as published by the authors of Informer"),
        (lambda data: None, "temperatures", "daily_min_temperatures.csv: no such file"),
        (lambda data: (data / "ETTh1.csv").write_text("date,ot\na,1\n"), "etth1-24", "there is no column 'OT'"),
        (lambda data: _wide(data / "Hourly-test.csv", {"H1": [1.0] * 48}), "m4-hourly", "differ in series 'H2'"),
        (
            lambda data: _wide(data / "Hourly-test.csv", {f"H{index}": [1.0] * 40 for index in (1, 2, 3)}),
            "m4-hourly",
            "the test part of series 'H1' has fewer than 48 values",
        ),
        (
            lambda data: (data / "Hourly-train.csv").write_text("V1,V2,V3\nH1,,3\n"),
            "m4-hourly",
            "Hourly-train.csv: line 2: a series with a gap, or without values",
        ),
        (
            lambda data: (data / "Hourly-train.csv").write_text("V1,V2\nH1,many\n"),
            "m4-hourly",
            "line 2, column 'V2': text where a number must be",
        ),
    ],
    ids=["no file", "no births", "no ETTh1", "no temperatures", "column", "series", "short", "gap", "text"],
)
def test_a_folder_that_does_not_hold_the_series_is_refused_in_one_line_that_says_what_is_expected(
    spoil: Callable[[Path], object],
    table: str,
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(folder)
    assert main([table, "--data", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def _panel(protocol: Protocol, *values: np.ndarray) -> Panel:
    series = tuple(Series(f"S{place}", one[:, None].astype(np.float64), None) for place, one in enumerate(values))
    return Panel(series, ("value",), None, protocol.data.season, (), "sha256:0")


def _naive(protocol: Protocol, panel: Panel) -> dict[str, float]:
    """The figures of the naive forecast, from the protocol's origins."""
    answers = []
    for one in panel.series:
        last = len(one.values) - protocol.horizon - 1
        origins = np.arange(last - (protocol.origins - 1) * protocol.stride, last + 1, protocol.stride)
        answers.append(Answered(one, origins, naive(one.values, origins, protocol.horizon)))
    return {str(measure): figure for measure, figure in of_answers(protocol, panel, answers).items()}


def test_m4_takes_the_mean_over_series_and_scales_by_the_whole_past() -> None:
    rng = np.random.default_rng(0)
    values = [rng.uniform(10, 20, length) for length in (120, 150)]
    smape, mase = [], []
    for one in values:
        past, ahead = one[:-48], one[-48:]
        smape.append(np.mean(200 * np.abs(ahead - past[-1]) / (np.abs(ahead) + np.abs(past[-1]))))
        mase.append(np.mean(np.abs(ahead - past[-1])) / np.mean(np.abs(past[24:] - past[:-24])))
    owa = (np.mean(smape) / 18.383 + np.mean(mase) / 2.395) / 2
    wanted = {"OWA": owa, "sMAPE": np.mean(smape), "MASE": np.mean(mase)}
    assert _naive(_M4, _panel(_M4, *values)) == pytest.approx(wanted)


def test_gift_scales_each_of_twenty_windows_by_its_own_past() -> None:
    births = PROTOCOLS["us-births"]
    values = np.random.default_rng(0).uniform(10, 20, 700).cumsum() % 37
    mase = []
    for window in range(20):
        cut = len(values) - (20 - window) * 30
        past, ahead = values[:cut], values[cut : cut + 30]
        mase.append(np.mean(np.abs(ahead - past[-1])) / np.mean(np.abs(np.diff(past))))
    assert _naive(births, _panel(births, values)) == pytest.approx({"MASE": np.mean(mase)})


@pytest.mark.parametrize(("table", "windows"), [("etth1-24", 2857), ("etth1-96", 2785)])
def test_etth1_is_scored_at_every_origin_of_four_months_on_the_scale_of_the_first_twelve(
    table: str, windows: int, tmp_path: Path
) -> None:
    protocol = PROTOCOLS[table]
    values = np.random.default_rng(0).normal(13, 4, 17_420)
    dates = pd.date_range("2016-07-01", periods=len(values), freq="h")
    pd.DataFrame({"date": dates, "HUFL": 1.0, "OT": values}).to_csv(tmp_path / "ETTh1.csv", index=False)
    panel = read_any_length(protocol.table(tmp_path), protocol.data)
    scaled = (values - values[:8640].mean()) / values[:8640].std()
    part = scaled[11_520 - 1 : 14_400]
    errors = np.array(
        [part[first + 1 : first + 1 + protocol.horizon] - part[first] for first in range(len(part) - protocol.horizon)]
    )
    assert len(errors) == windows == protocol.origins
    wanted = {"MSE": np.mean(errors**2), "MAE": np.mean(np.abs(errors))}
    assert _naive(protocol, panel) == pytest.approx(wanted)


def test_the_naive_forecast_of_the_lab_series_scores_what_the_course_says() -> None:
    lab = PROTOCOLS["lab"]
    panel = read_any_length(lab.table(Path()), lab.data)
    assert _naive(lab, panel)["MAE"] == pytest.approx(5.938, abs=5e-4)
    chosen = lab.for_validation()
    assert len(chosen.table(Path()).frame) == 1000
    assert chosen.origins == 200


def test_all_that_is_scored_lies_in_the_test_part_of_the_training_run(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(_TINY)
    two = replace(_M4, origins=2, stride=10)
    for protocol in (_M4, _M4.for_validation(), two):
        table = protocol.table(folder)
        config = configured(protocol, table, tmp_path / "tiny.toml", 3)
        panel = read_panel(table, config)
        for one, part in zip(panel.series, split(panel, config).boundaries, strict=True):
            assert part.validation_end <= len(one.values) - protocol.span
        assert config.seed == 3
        assert config.data.horizon == 48


@pytest.mark.parametrize("file", sorted(CONFIGS.rglob("*.toml")), ids=lambda file: file.stem)
def test_every_committed_configuration_can_be_read_and_belongs_to_a_table(file: Path) -> None:
    assert read_config(file, {}).description
    assert any(file in configs_of(table) for table in PROTOCOLS)


def test_every_network_of_the_course_is_fitted_by_the_lab_table() -> None:
    configs = [read_config(file, {}).network for file in configs_of("lab")]
    assert {"lstm", "gru", "rnn", "peephole_lstm"} == {network.cell for network in configs}
    assert {"sequence", "vector", "horizon"} == {network.output for network in configs}
    assert {1, 2, 3} <= {len(network.layers) for network in configs if network.bidirectional}
    assert any(network.convolution is not None for network in configs)
    assert {(40, 40)} <= {network.layers for network in configs if network.cell == "rnn"}


def test_figures_that_differ_by_more_than_rounding_are_told() -> None:
    metadata = build_metadata("drift")
    assert differ({"MAE": 1.00001}, {"MAE": 1.0}, metadata) is None
    told = differ({"MAE": 1.001}, {"MAE": 1.0}, metadata)
    assert told == "MAE is 1.001 by the service and 1.0 by the backtest"
    assert differ({}, {"MAE": 1.0}, metadata) is not None


def test_a_model_is_scored_through_the_running_service_as_by_the_backtest_and_its_row_is_printed_beside_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_artifact(tmp_path / "model" / "2" / "model.onnx", name="line", errors=_ERRORS, season_length=24)
    results = tmp_path / "results"
    arguments = ["m4-hourly", "--data", str(folder), "--model", str(model.parent.parent), "--label", "a straight line"]
    assert main([*arguments, "--results", str(results)]) == 0
    told = capsys.readouterr().out
    assert "> a straight line" in told
    assert "Doornik, the best on Hourly" in told
    assert "Naive2, computed here (and published): OWA" in told

    held = kept("m4-hourly", results)
    assert held is not None
    (found,) = held["rows"]["line"]["figures"]
    table = _M4.table(folder)
    engine = Engine.open(model)
    outcome = run(engine, read_for(engine, table, _M4.data), _M4.terms, "M4")
    assert found == pytest.approx(of_backtest(_M4, outcome), rel=1e-5)
    assert set(found) == {"OWA", "sMAPE", "MASE", "MSIS"}


def test_a_model_without_an_error_table_is_scored_without_intervals(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_artifact(tmp_path / "model.onnx", "mean", season_length=24)
    assert main(["m4-hourly", "--data", str(folder), "--model", str(model), "--validate"]) == 0
    told = capsys.readouterr().out
    assert "On validation: the same 48 steps earlier; origins of each series: 1." in told
    assert "MSIS" not in told.splitlines()[-1]


def test_a_configuration_is_fitted_from_several_seeds_and_nothing_is_kept_of_what_is_for_choosing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.accuracy.__main__.MODELS", tmp_path / "models")
    config = tmp_path / "tiny.toml"
    config.write_text(_TINY)
    results = tmp_path / "results"
    arguments = ["m4-hourly", "--data", str(folder), "--config", str(config), "--results", str(results)]
    assert main([*arguments, "--seeds", "2"]) == 0
    told = capsys.readouterr().out
    assert "> a tiny LSTM (mean of 2 seeds)" in told
    held = kept("m4-hourly", results)
    assert held is not None
    row = held["rows"]["tiny"]
    assert row["seeds"] == [0, 1]
    assert len(row["seconds"]) == len(set(row["digests"])) == 2

    before = (results / "m4-hourly.json").read_text()
    model = max((tmp_path / "models").rglob("model.onnx"))
    assert main([*arguments, "--model", str(model), "--validate"]) == 0
    assert (results / "m4-hourly.json").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["lab", "--model", "none"], 2, "none: there is no model.onnx here, nor a version that holds one"),
        (["lab", "--only", "transformer"], 2, "there is no configuration for lab that is named so"),
        (["lab", "--config", "none.toml"], 2, "none.toml: no such file"),
    ],
    ids=["model", "only", "config"],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_best_row_stands_first_and_those_without_the_first_figure_last() -> None:
    figures = [{"OWA": 0.39, "sMAPE": 9.0, "MASE": 0.75}, {"OWA": 0.41, "sMAPE": 9.2, "MASE": 0.77}]
    found = {"rows": {"a": {"name": "ours", "figures": figures}}, "references": {}}
    lines = rows(_M4, found)
    assert lines[0].name == "ours (mean of 2 seeds)"
    assert lines[0].figures[:3] == pytest.approx((0.40, 9.1, 0.76))
    assert lines[0].figures[3] is None
    assert lines[1].name.startswith("Doornik")
    assert lines[-1].name.startswith("DeepAR")
    assert as_text(_M4, lines).splitlines()[1].startswith("> ours")


def test_the_document_is_what_the_kept_results_say() -> None:
    scores, coverage = report.found()
    assert scores, RESULTS
    assert report.DOCUMENT.read_text(encoding="utf-8") == report.document(scores, coverage)


def test_no_result_names_a_place_on_the_machine_that_it_was_measured_on() -> None:
    for file in RESULTS.rglob("*.json"):
        assert not [part for part in json.dumps(json.loads(file.read_text())).split('"') if part.startswith("/")]


def test_a_table_can_be_read_only_from_a_folder_that_holds_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        _M4.table(tmp_path)


def test_intervals_of_noise_hold_as_often_as_they_say_and_the_model_stands_beside_simple_methods(
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0).normal(size=3000)
    days = pd.date_range("2020-01-01", periods=len(noise), freq="h")
    table = Table(pd.DataFrame({"Date": days, "Temp": noise}), "noise", "row")
    protocol = replace(PROTOCOLS["temperatures"], read=lambda folder: table, origins=300)
    model = write_artifact(tmp_path / "model.onnx", "mean", context_length=24)
    found = measured(protocol, tmp_path, model)
    methods = found["methods"]
    assert (found["origins"], next(iter(methods))) == (300, "Leadtime")
    assert {"naive", "drift", "moving average"} <= methods.keys()
    for one in methods.values():
        for level, by_lead in one["by_lead"].items():
            assert len(by_lead) == protocol.horizon
            assert np.mean(by_lead) == pytest.approx(one["coverage"][level])
            assert one["coverage"][level] == pytest.approx(float(level), abs=5)
    assert methods["Leadtime"]["score"]["95"] < methods["naive"]["score"]["95"]


def test_without_the_errors_of_the_file_intervals_are_measured_where_the_past_has_enough_of_its_own(
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0).normal(size=(40, 300))
    long = [(f"long {number}", step, value) for number, row in enumerate(noise) for step, value in enumerate(row)]
    short = [(f"short {number}", step, value) for number in range(9) for step, value in enumerate(noise[number, :60])]
    table = Table(pd.DataFrame(long + short, columns=["series", "step", "value"]), "noise", "row")
    protocol = replace(_M4, read=lambda folder: table, horizon=3, data=_M4.data.model_copy(update={"season": 1}))
    errors = ErrorTable(origins=50, errors=((tuple(np.linspace(-9.0, 9.0, 50)),) * 3,))
    model = write_artifact(tmp_path / "model.onnx", "mean", context_length=24, errors=errors)
    before = model.read_bytes()

    found = measured(protocol, tmp_path, model, own=True)

    assert (found["title"], found["origins"]) == ("M4 Hourly, windows' own errors alone", 40)
    assert found["basis"] == ["intervals from the errors of windows' own pasts: 40 origins"]
    for one in found["methods"].values():
        assert one["coverage"] == pytest.approx({"80": 80, "95": 95}, abs=12)
    assert model.read_bytes() == before


def test_many_origins_are_thinned_out_of_step_with_the_day_and_the_week() -> None:
    thin = thinned(PROTOCOLS["etth1-24"])
    assert (thin.stride, thin.origins) == (11, 260)
    assert thinned(PROTOCOLS["m4-hourly"]) == PROTOCOLS["m4-hourly"]


def test_windows_that_do_not_overlap_are_filled_up_with_origins_between_them() -> None:
    apart, thin = PROTOCOLS["us-births"], thinned(PROTOCOLS["us-births"])
    assert (thin.origins, thin.stride) == (115, 5)
    assert (thin.origins - 1) * thin.stride == (apart.origins - 1) * apart.stride

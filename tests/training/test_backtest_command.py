"""The command `backtest` from the outside."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.artifact import ErrorTable
from service.engine import Engine
from tests.artifacts import write_artifact, write_broken_artifact
from tests.training.tables import hourly, long_form, write
from training.__main__ import main

_SMALL = """
[network]
layers = [4]
context_length = 48
[fitting]
steps_per_epoch = 2
batch_size = 8
"""


def test_a_fitted_model_scores_on_its_own_data_what_its_training_run_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write(hourly(400), tmp_path / "load.csv"))
    (tmp_path / "small.toml").write_text(_SMALL)
    models = tmp_path / "models"
    fit = ["fit", "--data", data, "--config", str(tmp_path / "small.toml"), "--epochs", "1", "--output", str(models)]
    assert main(fit) == 0
    capsys.readouterr()

    assert main(["backtest", str(models / "load"), "--data", data, "--output", str(tmp_path / "report")]) == 0

    metadata = Engine.open(models / "load" / "1" / "model.onnx").metadata
    assert metadata.backtest is not None
    captured = capsys.readouterr()
    assert metadata.backtest.verdict in " ".join(captured.out.split())
    assert "fitting has seen their data" not in captured.err
    assert f"wrote {tmp_path / 'report' / 'backtest.html'}" in captured.out
    frame = pd.read_csv(tmp_path / "report" / "backtest.csv")
    overall = frame[frame["series"].isna() & frame["lead_time"].isna()].set_index("method")
    for method, scores in metadata.backtest.multi_step.items():
        found = overall.loc[method, ["mae", "rmse", "smape", "mase"]].to_dict()
        assert found == pytest.approx(scores.model_dump(), rel=1e-5)


def test_the_console_shows_methods_intervals_lead_times_series_and_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    errors = ErrorTable(origins=50, errors=((tuple(np.linspace(-3.0, 3.0, 50)),) * 24,))
    model = str(write_artifact(tmp_path / "model.onnx", "mean", context_length=48, errors=errors))
    data = str(write(long_form(300, 4), tmp_path / "sites.csv"))
    assert main(["backtest", model, "--data", data, "--series", "site", "--levels", "50", "90"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for part in ("linear autoregression", "OWA", "90 %", "MSIS", "CRPS from nine quantiles", "lead time", "site-3"):
        assert part in told
    assert "its mean absolute error is" in told


def test_a_public_data_set_needs_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_artifact(tmp_path / "model.onnx"))
    assert main(["backtest", model, "--dataset", "nile", "--origins", "20", "--references", "ets"]) == 0
    assert "20 origins, over 24 steps" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL"], "give either --data FILE or --dataset NAME"),
        (["MODEL", "--data", "none.csv"], "none.csv: no such file"),
        (["none.onnx", "--data", "DATA"], "none.onnx: it cannot be read: No such file or directory"),
        (["EMPTY", "--data", "DATA"], "there is no model.onnx in this folder, nor a version that holds one"),
        (["BROKEN", "--data", "DATA"], "it has no metadata"),
        (["MODEL", "--data", "DATA", "--target", "lod"], "there is no column 'lod'; did you mean 'load'?"),
        (["MODEL", "--data", "DATA", "--horizon", "0"], "--horizon: must be at least 1"),
        (["MODEL", "--data", "DATA", "--horizon", "900"], "too few rows: 200 steps"),
        (["MODEL", "--data", "DATA", "--levels", "80"], "the model has no error table"),
        (["MODEL", "--data", "DATA", "--levels", "120"], "--levels: must be percentages between 0 and 100"),
        (["MODEL", "--data", "DATA", "--references", "prophet"], "references"),
        (["MODEL", "--data", "DATA", "--frequency", "hourly"], "--frequency: use s, min, h, D, W, M, Q or Y"),
        (["MODEL", "--data", "DATA", "--season", "1"], "configuration key data.season"),
        (["MODEL", "--data", "DATA", "--origins", "1", "--output", "DATA"], "cannot be written"),
        (["MODEL", "--dataset", "titanic"], "there is no data set 'titanic'"),
    ],
    ids=lambda value: " ".join(value[1:]) or "no data" if isinstance(value, list) else "",
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {
        "MODEL": str(write_artifact(tmp_path / "model.onnx")),
        "BROKEN": str(write_broken_artifact(tmp_path / "broken.onnx", "no metadata")),
        "EMPTY": str(tmp_path / "empty"),
        "DATA": str(write(hourly(200), tmp_path / "load.csv")),
    }
    (tmp_path / "empty").mkdir()
    assert main(["backtest", *(places.get(part, part) for part in arguments)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line


def test_the_latest_version_in_a_folder_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version in ("2", "10"):
        write_artifact(tmp_path / "sales" / version / "model.onnx", name="sales", version=version)
    data = str(write(hourly(200), tmp_path / "load.csv"))
    assert main(["backtest", str(tmp_path / "sales"), "--data", data, "--origins", "2"]) == 0
    assert "sales, version 10: 2 origins" in capsys.readouterr().out


def test_a_backtest_does_without_tensorflow(tmp_path: Path) -> None:
    model, data = write_artifact(tmp_path / "model.onnx"), write(hourly(100), tmp_path / "load.csv")
    script = (
        "import sys; from training.__main__ import main; "
        f"assert main(['backtest', {str(model)!r}, '--data', {str(data)!r}, '--origins', '1']) == 0; "
        "assert not {'tensorflow', 'keras', 'statsmodels'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=120)


def test_the_help_names_every_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backtest", "--help"]) == 0
    told = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    for word in ("ets, theta, arima", "backtest.html", "GIFT-Eval"):
        assert word in told

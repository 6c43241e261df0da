"""The commands from the outside: a real fit of a small network, its artifact, and what is said of it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.artifact import ErrorTable, Range
from service.engine import Engine
from tests.artifacts import write_artifact
from tests.training.tables import hourly, long_form, values, write
from training.__main__ import main
from training.commands.given import model_name
from training.config import Fitting
from training.synthetic import lab, panel
from training.table import read_table

_SMALL = """
[network]
layers = [8]
context_length = 48
[fitting]
steps_per_epoch = 4
batch_size = 8
"""


def fit(folder: Path, *arguments: str) -> int:
    (folder / "small.toml").write_text(_SMALL)
    return main(["fit", "--config", str(folder / "small.toml"), *arguments, "--output", str(folder / "models")])


def test_fitting_writes_a_version_that_the_engine_opens_with_its_report_and_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write(hourly(400), tmp_path / "my load.csv"))
    assert fit(tmp_path, "--data", data, "--target", "load", "--epochs", "2") == 0
    folder = tmp_path / "models" / "my-load" / "1"
    assert sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "models").rglob("*")) == [
        "models/my-load",
        "models/my-load/1",
        "models/my-load/1/model.onnx",
        "models/my-load/1/model.onnx.sha256",
        "models/my-load/1/report.html",
    ]
    metadata = Engine.open(folder / "model.onnx").metadata
    assert (metadata.name, metadata.version, metadata.features) == ("my-load", "1", ("load",))
    assert (metadata.frequency, metadata.season_length, metadata.context_length) == ("h", 24, 48)
    assert metadata.backtest is not None
    assert set(metadata.backtest.multi_step) == {"model", "naive", "seasonal_naive"}
    assert metadata.backtest.horizon == 24
    assert metadata.errors is not None
    assert len(metadata.errors.errors[0]) == 24
    assert metadata.training.data_digest is not None
    assert metadata.training.configuration["seed"] == 0
    fitted = values(400)[: metadata.training.observations]
    assert metadata.ranges == (Range(low=fitted.min(), high=fitted.max()),)
    captured = capsys.readouterr()
    assert metadata.backtest.verdict in " ".join(captured.out.split())
    assert "frequency h (hourly): inferred from the time column" in captured.err
    assert metadata.backtest.verdict in (folder / "report.html").read_text()

    assert fit(tmp_path, "--data", data, "--target", "load", "--epochs", "1", "--name", "my-load") == 0
    assert "stopped at the limit of 1 epoch while still improving" in capsys.readouterr().err
    second = Engine.open(tmp_path / "models" / "my-load" / "2" / "model.onnx")
    assert second.metadata.version == "2"


def test_an_artifact_that_closing_epochs_were_fitted_for_carries_the_errors_from_before_them(tmp_path: Path) -> None:
    data = str(write(hourly(400), tmp_path / "load.csv"))
    assert fit(tmp_path, "--data", data, "--epochs", "1") == 0
    (tmp_path / "closed.toml").write_text(f"{_SMALL}\nclosing_epochs = 1\n")
    closed = ["fit", "--config", str(tmp_path / "closed.toml"), "--data", data, "--epochs", "1"]
    assert main([*closed, "--output", str(tmp_path / "models")]) == 0

    before, after = (Engine.open(tmp_path / f"models/load/{version}/model.onnx") for version in (1, 2))
    assert after.metadata.errors == before.metadata.errors
    window = np.linspace(10, 20, 48, dtype=np.float32)[None, :, None]
    assert not np.allclose(after.forecast(window, 1), before.forecast(window, 1), rtol=1e-6)
    assert not list((tmp_path / "models").rglob("judged.onnx"))


def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write(hourly(400), tmp_path / "load.csv"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / ".checkpoints").write_text("in the way")

    assert fit(tmp_path, "--data", data, "--epochs", "1") == 2

    assert "models: cannot be written: Not a directory" in capsys.readouterr().err


def test_one_model_is_fitted_on_a_panel_of_several_features(tmp_path: Path) -> None:
    frame = long_form(300, 2).assign(wind=lambda table: np.sin(table.index / 5.0))
    data = str(write(frame, tmp_path / "sites.csv"))
    arguments = ["--target", "load", "--target", "wind", "--series", "site", "--horizon", "6", "--epochs", "1"]
    assert fit(tmp_path, "--data", data, *arguments) == 0
    metadata = Engine.open(tmp_path / "models" / "sites" / "1" / "model.onnx").metadata
    assert metadata.features == ("load", "wind")
    assert metadata.training.series == 2
    assert metadata.ranges is not None
    (low, high), (lowest, highest) = ((one.low, one.high) for one in metadata.ranges)
    assert 10 < low < 16 < 24 < high < 30
    assert -1 <= lowest < -0.9 < 0.9 < highest <= 1
    assert metadata.backtest is not None
    assert metadata.backtest.horizon == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_fit_that_was_ended_is_gone_on_with_by_the_same_command_after_its_last_epoch(
    number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "small.toml").write_text(_SMALL.replace("steps_per_epoch = 4", "steps_per_epoch = 2"))
    data = write(hourly(400), tmp_path / "load.csv")
    output = tmp_path / "models"
    command = [sys.executable, "-m", "training", "fit", "--data", str(data), "--config", str(tmp_path / "small.toml")]
    command += ["--output", str(output), "--epochs", "100000"]

    code, before = ended_after(command, "epoch 2 of at most", number)

    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 130
        assert "the same command goes on from the last finished epoch" in before
        assert "Traceback" not in before
    assert [entry.name for entry in output.iterdir()] == [".checkpoints"]

    _, after = ended_after(command, "of at most", signal.SIGTERM)

    assert "going on from the last epoch of an interrupted run" in after
    assert min(epochs(after)) in (max(epochs(before)) + 1, max(epochs(before)) + 2)  # one may be done, and not told yet


def ended_after(command: list[str], words: str, number: signal.Signals) -> tuple[int, str]:
    """Run a command until it says some words, send it a signal, and return its exit code and all that it said."""
    environment = os.environ | {"COLUMNS": "200"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        said = ""
        while words not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(number)
        said += process.stderr.read()
    return process.returncode, said


def epochs(said: str) -> list[int]:
    return [int(number) for number in re.findall(r"^epoch (\d+) of at most", said, re.MULTILINE)]


def test_describe_prints_the_facts_of_an_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_artifact(tmp_path / "model.onnx", name="sales", version="7", frequency="D", season_length=7)
    assert main(["describe", str(file)]) == 0
    told = capsys.readouterr().out
    for fact in ("sales, version 7", "8 steps, at least 2", "sha256:", "no backtest"):
        assert fact in told
    assert main(["describe", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == Engine.open(file).metadata.model_dump(mode="json")


def test_describe_and_sample_do_without_tensorflow(tmp_path: Path) -> None:
    file = write_artifact(tmp_path / "model.onnx")
    script = (
        "import sys; from training.__main__ import main; "
        f"assert main(['describe', {str(file)!r}]) == 0 == main(['sample', 'lab']); "
        "assert not {'tensorflow', 'keras'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=120)


def test_samples_are_written_to_a_file_or_to_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", "lab", "--output", str(tmp_path / "lab.csv")]) == 0
    assert main(["sample", "panel", "--seed", "5"]) == 0
    (tmp_path / "panel.csv").write_text(capsys.readouterr().out)
    assert np.array_equal(read_table(tmp_path / "lab.csv").numbers("value"), lab()["value"])
    assert np.array_equal(pd.read_csv(tmp_path / "panel.csv")["demand"], panel(5)["demand"])


def test_a_sample_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "lab", "--output", str(tmp_path / "none" / "lab.csv")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_failure() -> None:
    with subprocess.Popen([sys.executable, "-m", "training", "sample", "panel"], stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("command", [[], ["fit"], ["describe"], ["sample"]], ids=["all", "fit", "describe", "sample"])
def test_help_is_there_for_every_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert "Usage: python -m training" in capsys.readouterr().out


def test_describe_counts_the_held_out_errors_of_each_lead_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = ErrorTable(origins=1200, errors=(((-1.0, 0.0, 1.0),),))
    assert main(["describe", str(write_artifact(tmp_path / "model.onnx", errors=errors))]) == 0
    told = capsys.readouterr().out
    assert "1,200 held-out errors per lead time" in told
    assert "intervals" not in told


def test_the_help_names_the_usual_number_of_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--help"])
    usual = Fitting().epochs
    assert f"{usual} when not given" in re.sub(r"[\s│]+", " ", capsys.readouterr().out)


def test_the_help_tells_how_to_fit_the_lab_series(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sample", "--help"])
    assert "--season 365 --context 400 --horizon 24" in re.sub(r"[\s│]+", " ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("ETTh1", "ETTh1"),
        ("my load (2024)", "my-load-2024"),
        ("..", "model"),
        ("Zürich", "Z-rich"),
        ("x" * 99, "x" * 64),
    ],
)
def test_a_model_is_named_after_its_file(stem: str, name: str) -> None:
    assert model_name(stem) == name

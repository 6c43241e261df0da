"""The learning-rate sweep: what it reads from losses, what it does when they go wrong, and the fit that it serves."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine import Engine
from tests.training.tables import hourly, write
from tests.training.test_fit import seasonal_panel, small
from training import sweep as sweeping
from training.__main__ import main
from training.config import Config
from training.errors import ConfigError, OutputError
from training.sweep import Range, Sweep, check, smoothed, suggest, sweep, with_a_rate

RATES = 1e-8 * 10 ** (np.arange(160) / 20)
SHORT = Range(lowest=1e-4, highest=1e-1, epochs=12, steps=2, beyond=1.0)

_SMALL = """
[network]
layers = [8]
context_length = 48
[fitting]
steps_per_epoch = 4
batch_size = 8
learning_rate = "auto"
"""


def valley(first: float, last: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Losses that fall from 1 to 0 at one rate, and rise at another."""
    return np.where((first <= RATES) & (last >= RATES), 0.0, 1.0) + 0.5


def test_the_rates_are_those_of_the_course() -> None:
    rates = Range().rates()

    np.testing.assert_allclose(rates[:100], [1e-8 * 10 ** (epoch / 20) for epoch in range(100)])
    assert rates[-1] <= 10


def test_a_highest_rate_that_is_given_ends_the_sweep() -> None:
    rates = Range(lowest=1e-5, highest=1e-1, epochs=40, beyond=1e-1).rates()

    assert len(rates) == 40
    assert rates[0] == pytest.approx(1e-5)
    assert rates[-1] == pytest.approx(1e-1 / 10 ** (4 / 40))


@given(first=st.floats(1e-6, 1e-3), width=st.floats(10, 100))
def test_the_middle_of_the_valley_is_suggested(first: float, width: float) -> None:
    found = suggest(RATES, valley(first, first * width))

    assert found.suggested == pytest.approx(first * width**0.5, rel=0.25)


def test_a_loss_that_diverges_to_no_number_leaves_what_was_before() -> None:
    for wrong in (np.inf, np.nan):
        losses = np.concatenate([valley(1e-4, 1e-2)[:121], [wrong]])

        found = suggest(RATES[:122], losses)

        assert found.suggested == pytest.approx(1e-3, rel=0.5)
        assert "by the end" not in found.told


@pytest.mark.parametrize(
    "losses",
    [np.ones(160), np.linspace(1, 2, 160), np.full(160, np.nan), np.zeros(160), np.full(160, np.inf)],
    ids=["flat", "rising", "no number", "zero", "infinite"],
)
def test_no_rate_is_suggested_where_the_loss_never_fell(losses: np.ndarray[Any, Any]) -> None:
    found = suggest(RATES, losses)

    assert found.suggested is None
    assert found.told == "the loss fell at none of the rates"


def test_a_loss_that_falls_to_the_end_suggests_a_rate_and_that_a_higher_one_may_do_better() -> None:
    found = suggest(RATES, np.linspace(2, 1, 160))

    assert found.suggested is not None
    assert RATES[80] < found.suggested < RATES[-1]
    assert "a higher one may do better (sweep --highest)" in found.told


def test_losses_are_smoothed_up_to_the_first_that_is_no_number() -> None:
    np.testing.assert_allclose(smoothed(np.array([0.0, 3, 0, 3, 0, np.nan, 1])), [1, 1.5, 1.2, 1.5, 1])
    assert not len(smoothed(np.array([np.inf])))


def test_a_sweep_of_a_network_falls_and_ends_once_the_loss_has_risen_again() -> None:
    panel, split = seasonal_panel()
    epochs: list[tuple[int, int]] = []

    found = sweep(panel, split, small(), SHORT, lambda done, total, told: epochs.append((done, total)))

    assert found.suggested is not None
    assert SHORT.lowest < found.suggested < 1.0
    assert len(found.rates) == len(found.losses) == len(epochs) <= SHORT.limit
    assert smoothed(found.losses).min() < 0.9 * found.losses[0]
    assert all(done <= total for done, total in epochs)


def test_a_sweep_ends_where_the_loss_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    panel, split = seasonal_panel()
    # Squared errors of raw values, unclipped, at a rate that throws plain gradients far off.
    config = Config.model_validate(
        {
            "network": {"layers": [4], "context_length": 12, "head": "plain", "scaling": "none", "lags": []},
            "fitting": {"loss": "mse", "optimiser": "sgd", "clip_norm": 0, "batch_size": 8, "iterated": False},
        }
    )

    found = sweep(panel, split, config, Range(lowest=1e-6, highest=1e6, epochs=24, steps=2, beyond=1e6))

    assert len(found.losses) < 24
    assert not found.losses[-1] <= 4 * np.nanmin(found.losses)


def test_plot_and_losses_are_written(tmp_path: Path) -> None:
    for number, losses in enumerate((valley(1e-4, 1e-2), np.full(160, np.nan), np.ones(160))):
        written = sweeping.write(suggest(RATES, losses), tmp_path / str(number))

        assert [path.name for path in written] == ["sweep.png", "sweep.csv"]
        assert written[0].read_bytes().startswith(b"\x89PNG")
        table = pd.read_csv(written[1])
        np.testing.assert_allclose(table["rate"], RATES)
        np.testing.assert_allclose(table["loss"], losses)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="cannot be written"):
        sweeping.write(suggest(RATES, valley(1e-4, 1e-2)), tmp_path / "file")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no rate at all": ({"lowest": 0.0}, "--lowest: a rate above 0"),
    "a lowest rate without bound": ({"lowest": float("inf")}, "--lowest"),
    "a highest rate below": ({"highest": 1e-9}, "--highest: a rate above --lowest"),
    "a highest rate that is no number": ({"highest": float("nan")}, "--highest"),
    "too few epochs": ({"epochs": 3}, "--epochs: at least 10"),
    "no steps": ({"steps": 0}, "--steps: at least 1"),
}


@pytest.mark.parametrize(("given", "told"), BAD.values(), ids=BAD)
def test_a_range_that_cannot_be_swept_is_refused_by_its_option(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(replace(Range(), **given))


class Told:
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def stage(self, name: str, done: int, total: int, told: str = "") -> None:
        assert 0 < done <= total


def test_a_rate_that_was_found_is_kept_for_the_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel, split = seasonal_panel()
    monkeypatch.setattr(sweeping, "SHORT", SHORT)
    told = Told()

    first = with_a_rate(panel, split, small(learning_rate="auto"), tmp_path / "kept", told)
    monkeypatch.delattr(sweeping, "sweep")  # a second one would fail
    second = with_a_rate(panel, split, small(learning_rate="auto"), tmp_path / "kept", told)

    assert first == second
    assert isinstance(first.fitting.learning_rate, float)
    assert re.match(rf"learning rate {first.fitting.learning_rate:g}: the middle of", told.lines[0])
    assert told.lines[1] == f"learning rate {first.fitting.learning_rate:g}: as found when the run began"


def test_where_no_rate_is_found_the_usual_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel, split = seasonal_panel()
    rates = np.ones(3)
    monkeypatch.setattr(sweeping, "sweep", lambda *given: Sweep(rates, rates, None, "the loss fell at none"))
    told = Told()

    settled = with_a_rate(panel, split, small(learning_rate="auto"), tmp_path, told)

    assert settled.fitting.learning_rate == 2e-3
    assert told.lines == ["learning rate 0.002, the usual one: the loss fell at none"]


def test_a_rate_in_numbers_is_taken_as_it_is(tmp_path: Path) -> None:
    panel, split = seasonal_panel()
    told = Told()

    assert with_a_rate(panel, split, small(learning_rate=0.5), tmp_path / "kept", told).fitting.rate == 0.5
    assert told.lines == []
    assert not (tmp_path / "kept").exists()


def test_a_fit_with_auto_says_what_was_found_and_writes_the_rate_into_the_artifact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "SHORT", SHORT)
    data = str(write(hourly(400), tmp_path / "load.csv"))
    (tmp_path / "small.toml").write_text(_SMALL)
    output = tmp_path / "models"

    arguments = ["--data", data, "--config", str(tmp_path / "small.toml"), "--epochs", "1", "--output", str(output)]
    assert main(["fit", *arguments]) == 0

    told = re.search(r"learning rate ([\d.e-]+): the middle of", capsys.readouterr().err)
    assert told is not None
    metadata = Engine.open(output / "load" / "1" / "model.onnx").metadata
    fitting = metadata.training.configuration["fitting"]
    assert isinstance(fitting, dict)
    assert fitting["learning_rate"] == float(told[1])
    assert [path.name for path in output.iterdir()] == ["load"]


def test_the_command_writes_a_plot_and_suggests_a_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write(hourly(400), tmp_path / "load.csv"))
    (tmp_path / "small.toml").write_text(_SMALL)
    options = [
        "--lowest",
        "1e-4",
        "--highest",
        "1",
        "--epochs",
        "12",
        "--steps",
        "1",
        "--output",
        str(tmp_path / "out"),
    ]

    assert main(["sweep", "--data", data, "--config", str(tmp_path / "small.toml"), *options]) == 0

    said = capsys.readouterr().out
    assert said.startswith("learning rate ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sweep.png", "sweep.csv"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fit", "--learning-rate", "fast"], "configuration key fitting.learning_rate: Input should be a valid number"),
        (["fit", "--learning-rate", "0"], "configuration key fitting.learning_rate: Input should be greater than 0"),
        (["fit", "--learning-rate", "inf"], "configuration key fitting.learning_rate: Input should be a finite number"),
        (["sweep", "--lowest", "0"], "--lowest: a rate above 0, such as 1e-8"),
        (["sweep", "--highest", "0"], "--highest: a rate above --lowest, such as 1e-3"),
    ],
    ids=["words", "zero", "infinite", "lowest", "highest"],
)
def test_a_bad_rate_gets_one_line(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write(hourly(400), tmp_path / "load.csv"))

    assert main([*arguments, "--data", data, "--output", str(tmp_path / "out")]) == 2

    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()

"""The report: one page that holds everything it shows, and shows the names from the data as text."""

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from service.engine import Engine
from tests.artifacts import build_metadata, write_artifact
from training.backtest import Evaluation, backtest
from training.panel import Panel, Series
from training.parts import Boundary, Split
from training.report import render, still_improving


@dataclass
class Losses:
    training: list[float]
    validation: list[float]
    best_epoch: int


class Page(HTMLParser):
    """Counts tags, gathers text, and refuses tags that are closed in another order than opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.references: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "link", "img", "br", "hr"}:
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(
    folder: Path,
    *,
    names: tuple[str, ...] = ("load",),
    series: int = 1,
    horizon: int = 5,
    epochs: int = 3,
    scale: float = 1.0,
    epoch_limit: int = 60,
) -> str:
    rng = np.random.default_rng(0)
    made = tuple(
        Series(f"site <{number}>", scale * rng.normal(size=(80, len(names))).cumsum(axis=0), None)
        for number in range(series)
    )
    panel = Panel(made, names, None, 7, ("12 <b>missing</b> values were filled",), "sha256:0")
    split = Split((Boundary(50, 60),) * series, horizon)
    engine = Engine.open(write_artifact(folder / "model.onnx", features=len(names)))
    evaluation: Evaluation = backtest(engine, panel, split)
    metadata = build_metadata("drift", features=len(names)).model_copy(update={"backtest": evaluation.scores})
    losses = Losses([3.0 / epoch for epoch in range(1, epochs + 1)], [2.0] * epochs, 1)
    return render(metadata, panel, split, [losses], evaluation, epoch_limit=epoch_limit)


@pytest.mark.parametrize(
    "shape",
    [{}, {"names": ("a", "b", "c")}, {"series": 9}, {"horizon": 1}, {"horizon": 20}, {"epochs": 1}],
    ids=["plain", "several features", "a panel", "one step", "one origin", "one epoch"],
)
def test_the_report_is_whole_and_names_no_other_host(shape: dict[str, int], tmp_path: Path) -> None:
    text = page_of(tmp_path, **shape)  # type: ignore[arg-type]
    page = Page(text)
    assert page.open == []
    assert page.tags.count("svg") == 3
    assert all(reference.startswith("#") for reference in page.references)
    assert re.search(r"(https?:)?//[a-z0-9]", text, re.IGNORECASE) is None
    assert "script" not in page.tags
    assert "nan" not in page.text.lower().split()


def test_the_report_shows_verdict_scores_notes_and_configuration(tmp_path: Path) -> None:
    page = Page(page_of(tmp_path))
    for heading in ("One step ahead", "Over 5 steps", "Error by lead time", "Loss", "Provenance", "Configuration"):
        assert heading in page.text
    for word in ("MAE", "RMSE", "sMAPE", "MASE", "seasonal naive", "to train on, 10 to validate, 20 to test"):
        assert word in page.text
    assert "mean absolute error is" in page.text


def test_a_verdict_from_few_origins_is_not_shown_as_a_good_one(tmp_path: Path) -> None:
    text = page_of(tmp_path, horizon=20)
    assert "Too few origins (1) to tell" in text
    assert '<section class="verdict">' in text


def test_the_report_says_that_mase_of_different_seasons_cannot_be_compared(tmp_path: Path) -> None:
    assert "MASE of versions fitted with different seasons cannot be compared" in page_of(tmp_path)


def test_fitting_that_stopped_at_its_limit_with_the_best_epoch_says_that_more_may_help(tmp_path: Path) -> None:
    advice = "stopped at the limit of 1 epoch while still improving: more epochs (--epochs) may help"
    assert advice in page_of(tmp_path, epochs=1, epoch_limit=1)
    assert "still improving" not in page_of(tmp_path, epochs=1, epoch_limit=2)
    assert still_improving([Losses([2.0, 1.0], [2.0, 1.0], 2)], 2) == advice.replace("1 epoch", "2 epochs")
    assert still_improving([Losses([2.0, 1.0], [1.0, 2.0], 1)], 2) is None


def test_no_score_is_written_in_powers_of_ten(tmp_path: Path) -> None:
    assert re.search(r"\de[+-]\d", Page(page_of(tmp_path, scale=1e4)).text) is None


def test_names_and_notes_from_the_data_are_text_and_never_markup(tmp_path: Path) -> None:
    page = Page(page_of(tmp_path, names=("<script>alert(1)</script>", "b"), series=2))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "12 <b>missing</b> values were filled" in page.text
    assert "site <0>, <script>alert(1)</script>" in page.text


@pytest.mark.parametrize("name", ["price in $ and cost in $", "気温"], ids=["dollar signs", "another script"])
def test_a_name_is_shown_as_it_is(name: str, tmp_path: Path) -> None:
    assert f"{name} · origin" in Page(page_of(tmp_path, names=(name, "b"))).text


def test_the_same_run_makes_the_same_report(tmp_path: Path) -> None:
    assert page_of(tmp_path) == page_of(tmp_path)

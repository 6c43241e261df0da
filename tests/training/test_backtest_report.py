"""The report of a backtest: one page that holds everything it shows, and shows names from the data as text."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.artifact import ErrorTable
from service.engine import Engine
from tests.artifacts import write_artifact
from tests.training.test_report import Page
from training.backtest_report import render, write
from training.config import Data
from training.errors import OutputError
from training.rolling import Outcome, Terms, read_for, run
from training.table import Table


def outcome_of(
    folder: Path,
    *,
    names: tuple[str, ...] = ("load",),
    series: int = 1,
    horizon: int = 5,
    origins: int | None = 12,
    dated: bool = True,
    intervals: bool = True,
    season: int | None = 7,
) -> Outcome:
    rng = np.random.default_rng(0)
    frames = []
    for number in range(series):
        columns = {name: rng.normal(size=80).cumsum() + 10 for name in names}
        stamps = {"day": pd.date_range("2024-01-01", periods=80)} if dated else {}
        frames.append(pd.DataFrame({"site": f"site <{number}>"} | stamps | columns))
    rows = tuple(np.linspace(-2.0, 2.0, 50))
    errors = ErrorTable(origins=50, errors=((rows,) * horizon,) * len(names)) if intervals else None
    engine = Engine.open(write_artifact(folder / "model.onnx", features=len(names), errors=errors))
    given = Data(series="site", time="day" if dated else None, target=names, season=season)
    return run(
        engine, read_for(engine, Table(pd.concat(frames), "data", "row"), given), Terms(horizon, origins), "data"
    )


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"names": ("a", "b", "c")},
        {"series": 30},
        {"series": 2, "dated": False},
        {"horizon": 1},
        {"horizon": 20, "origins": 1},
        {"intervals": False, "season": None},
    ],
    ids=["plain", "several features", "a panel", "no dates", "one step", "one origin", "no intervals"],
)
def test_the_report_is_whole_and_names_no_other_host(shape: dict[str, int], tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, **shape)  # type: ignore[arg-type]
    text = render(outcome)
    page = Page(text)
    assert page.open == []
    assert page.tags.count("svg") == (4 if outcome.intervals else 3)
    assert all(reference.startswith("#") for reference in page.references)
    assert re.search(r"(https?:)?//[a-z0-9]", text, re.IGNORECASE) is None
    assert "script" not in page.tags
    assert "nan" not in page.text.lower().split()
    assert re.search(r"\de[+-]\d", page.text) is None


def test_the_report_shows_verdict_scores_intervals_and_notes(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, series=3)
    page = Page(render(outcome))
    assert outcome.verdict in page.text
    for word in ("Naive2", "linear autoregression", "OWA", "MSIS", "CRPS", "Skill by series", "Coverage by lead time"):
        assert word in page.text
    for note in outcome.notes:
        assert note in page.text
    assert "36 rolling origins of 3 series, 2024-03-04 to 2024-03-15" in page.text


def test_names_from_the_data_are_text_and_never_markup(tmp_path: Path) -> None:
    page = Page(render(outcome_of(tmp_path, names=("<script>alert(1)</script>", "b"), series=2)))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "site <0>, <script>alert(1)</script>" in page.text


def test_the_scores_are_written_beside_the_report_in_long_form(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, series=2)
    report, scores = write(outcome, tmp_path / "new" / "folder")
    assert outcome.verdict in report.read_text(encoding="utf-8")
    frame = pd.read_csv(scores, keep_default_na=True)
    overall = frame[frame["series"].isna() & frame["lead_time"].isna()].set_index("method")
    assert overall.loc["model", "mae"] == pytest.approx(outcome.scores["model"].mae)
    assert overall.loc["naive2", "owa"] == 1
    assert set(frame["lead_time"].dropna()) == {1, 2, 3, 4, 5}
    assert set(frame["series"].dropna()) == {"site <0>", "site <1>"}
    assert frame.loc[frame["method"] == "model", "coverage_80"].notna().all()


def test_a_report_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write(outcome_of(tmp_path), tmp_path / "file")


def test_the_same_backtest_makes_the_same_report(tmp_path: Path) -> None:
    assert render(outcome_of(tmp_path)) == render(outcome_of(tmp_path))

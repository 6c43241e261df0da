"""Shadows: their forecasts are compared with the answers afterwards, and nobody waits for them."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine import Engine
from service.metrics import Metrics, collect
from service.shadows import SHADOW_DIFFERENCE, SHADOW_FORECASTS, Shadows
from service.versions import Beside, ServedModel
from tests.artifacts import Kind, write_artifact

WINDOW = np.array([[1], [2], [3]], np.float32)


def served(tmp_path: Path, version: str, kind: Kind = "drift", **options: Any) -> ServedModel:
    path = write_artifact(tmp_path / version / "model.onnx", kind, **options)
    return ServedModel("lab", version, Engine.open(path), path)


def pair(tmp_path: Path, share: float = 1.0, kind: Kind = "mean", **options: Any) -> ServedModel:
    one = served(tmp_path, "1")
    return ServedModel("lab", "1", one.engine, one.path, shadow=Beside(served(tmp_path, "2", kind, **options), share))


def counted(folder: Path) -> dict[str, float]:
    return {
        " ".join(value for label, value in key.labels if label == "outcome") or "sum": values[-1]
        for key, values in collect(folder).items()
        if key.name in (SHADOW_FORECASTS, SHADOW_DIFFERENCE)
    }


def follow(shadows: Shadows, model: ServedModel, *windows: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    forecasts = np.concatenate([model.engine.forecast(window[None], 2) for window in windows])
    shadows.follow(model, list(windows), None, forecasts)


def wait_until_counted(folder: Path, *outcomes: str) -> dict[str, float]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = counted(folder)
        if all(found.get(outcome) for outcome in outcomes):  # a count is there before it counts
            return found
        time.sleep(0.01)
    raise AssertionError(counted(folder))


def test_the_difference_is_that_of_both_forecasts_in_proportion(tmp_path: Path) -> None:
    shadows = Shadows(Metrics(tmp_path / "counts"))
    follow(shadows, pair(tmp_path), WINDOW)
    found = wait_until_counted(tmp_path / "counts", "compared")
    # the line goes on to 4, 5; the mean stays 2, 2
    assert found == {"compared": 1, "sum": pytest.approx((2 + 3) / ((4 + 5 + 2 + 2) / 2))}
    shadows.close()


def test_a_shadow_that_forecasts_the_same_differs_by_nothing(tmp_path: Path) -> None:
    shadows = Shadows(Metrics(tmp_path / "counts"))
    follow(shadows, pair(tmp_path, kind="drift"), WINDOW, WINDOW[:2], np.zeros((3, 1), np.float32))
    assert wait_until_counted(tmp_path / "counts", "compared") == {"compared": 1, "sum": 0}
    shadows.close()


def test_without_a_shadow_nothing_is_done(tmp_path: Path) -> None:
    shadows = Shadows(Metrics(tmp_path / "counts"))
    follow(shadows, served(tmp_path, "1"), WINDOW)
    follow(shadows, pair(tmp_path, share=0.0), WINDOW)
    shadows.close()
    assert counted(tmp_path / "counts") == {}


def test_windows_that_are_too_short_for_the_shadow_are_left_out(tmp_path: Path) -> None:
    shadows = Shadows(Metrics(tmp_path / "counts"))
    follow(shadows, pair(tmp_path, minimum_window=5), WINDOW)
    assert wait_until_counted(tmp_path / "counts", "left out") == {"left out": 1}
    shadows.close()


def test_a_shadow_that_fails_is_counted_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shadows = Shadows(Metrics(tmp_path / "counts"))
    model = pair(tmp_path, features=3)
    for _ in range(3):
        follow(shadows, model, WINDOW)
    deadline = time.monotonic() + 30
    while counted(tmp_path / "counts").get("failed") != 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [record.getMessage() for record in caplog.records] == [
        "lab/2: it failed as a shadow: its graph fails on values of shape (1, 3, 1) (InvalidArgument)"
    ]
    shadows.close()


def test_where_shadows_cannot_keep_up_requests_are_left_out_and_nobody_waits(tmp_path: Path) -> None:
    shadows = Shadows(Metrics(tmp_path / "counts"))
    model = pair(tmp_path)
    assert model.shadow is not None
    held, release = threading.Event(), threading.Event()

    class Slow(Engine):
        def forecast(self, *arguments: Any) -> Any:
            held.set()
            release.wait(30)
            return super().forecast(*arguments)

    model.shadow.model.engine.__class__ = Slow
    begin = time.monotonic()
    for _ in range(100):
        follow(shadows, model, WINDOW)
    assert held.wait(30)
    assert time.monotonic() - begin < 10
    assert counted(tmp_path / "counts")["left out"] == 100 - 16
    release.set()
    shadows.close()

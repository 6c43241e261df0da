"""Calibration: which errors the artifact is given, and in what order."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from service.engine import Engine
from tests.artifacts import Kind, write_artifact
from training.calibration import error_table
from training.panel import Panel, Series
from training.parts import Boundary, Split


def panel_of(*values: npt.NDArray[np.float64]) -> Panel:
    series = tuple(Series(f"s{number}", one.reshape(len(one), -1), None) for number, one in enumerate(values))
    features = tuple(f"x{index}" for index in range(series[0].values.shape[1]))
    return Panel(series, features, None, None, (), "sha256:0")


def engine_of(folder: Path, kind: Kind = "mean", *, features: int = 1) -> Engine:
    return Engine.open(write_artifact(folder / "model.onnx", kind, features=features, context_length=8))


def walk(steps: int, features: int = 1, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(steps, features)).cumsum(axis=0)


def test_errors_are_those_of_the_validation_part_over_the_scale_of_each_window(tmp_path: Path) -> None:
    values = walk(200)
    table = error_table(engine_of(tmp_path), panel_of(values), Split((Boundary(100, 150),), 3))
    assert table is not None
    assert (table.origins, table.paths) == (48, True)
    assert table.array.shape == (48, 3, 1)
    for place, origin in enumerate(range(99, 147)):
        window = values[origin - 7 : origin + 1, 0]
        expected = (values[origin + 1, 0] - window.mean()) / np.ptp(window)
        assert table.array[place, 0, 0] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_errors_of_a_model_in_logarithms_are_those_of_logarithms(tmp_path: Path) -> None:
    values = np.exp(walk(200) / 10)
    engine = Engine.open(write_artifact(tmp_path / "model.onnx", "mean", context_length=8, logarithms=True))
    table = error_table(engine, panel_of(values), Split((Boundary(100, 150),), 3))
    assert table is not None
    window = values[92:100, 0]
    expected = np.log(values[100, 0] / window.mean()) / np.ptp(window)
    assert table.array[0, 0, 0] == pytest.approx(expected, rel=1e-3)


def test_neither_the_test_part_nor_the_training_part_says_anything(tmp_path: Path) -> None:
    values = walk(200)
    engine, split = engine_of(tmp_path), Split((Boundary(100, 150),), 3)
    changed = values.copy()
    changed[:92] += 1000  # the oldest window begins here
    changed[150:] -= 1000
    assert error_table(engine, panel_of(changed), split) == error_table(engine, panel_of(values), split)


def test_a_place_is_one_origin_at_every_lead_time_and_feature(tmp_path: Path) -> None:
    """The window's scale divides alike at every lead time: what is left are steps of one future."""
    values = walk(120, features=2)
    table = error_table(engine_of(tmp_path, features=2), panel_of(values), Split((Boundary(60, 80),), 4))
    assert table is not None
    engine = engine_of(tmp_path, features=2)
    for place, origin in enumerate(range(59, 76)):
        window = values[None, origin - 7 : origin + 1].astype(np.float32)
        errors = values[origin + 1 : origin + 5] - engine.forecast(window, 4)[0]
        np.testing.assert_allclose(table.array[place], errors / np.ptp(window[0], axis=0), rtol=2e-3, atol=1e-5)


def test_of_many_origins_some_are_drawn_from_all_series_and_always_the_same(tmp_path: Path) -> None:
    panel = panel_of(*(walk(400, seed=seed) for seed in range(3)))
    engine, split = engine_of(tmp_path), Split((Boundary(100, 350),) * 3, 2)
    table = error_table(engine, panel, split)
    assert table is not None
    assert table.origins == len(table.errors[0][0]) == 400
    assert table == error_table(engine, panel, split)
    alone = error_table(engine, panel_of(panel.series[2].values), Split(split.boundaries[2:], 2))
    assert alone is not None
    assert 80 < len(set(alone.errors[0][0]) & set(table.errors[0][0])) < 200, "about a third is of the third series"


def test_a_long_horizon_of_many_features_keeps_the_table_small(tmp_path: Path) -> None:
    panel = panel_of(walk(1500, features=5))
    table = error_table(engine_of(tmp_path, features=5), panel, Split((Boundary(300, 1400),), 100))
    assert table is not None
    assert table.array.shape == (100, 100, 5)


def test_a_model_that_tells_no_scale_gets_no_errors(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "bidirectional")
    assert error_table(engine, panel_of(walk(100)), Split((Boundary(50, 80),), 3)) is None


def test_windows_without_a_scale_are_left_out(tmp_path: Path) -> None:
    values = np.concatenate([np.zeros((70, 1)), walk(40)])
    table = error_table(engine_of(tmp_path), panel_of(values), Split((Boundary(60, 90),), 1))
    assert table is not None
    assert table.origins == 19
    flat = error_table(engine_of(tmp_path), panel_of(np.zeros((100, 1))), Split((Boundary(60, 90),), 1))
    assert flat is None

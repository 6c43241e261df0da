"""How much the errors of windows' own pasts are inflated, for a network errs less on what it was fitted on."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from service.engine import Engine
from tests.artifacts import write_artifact
from training.panel import Panel, Series
from training.parts import Boundary, Split
from training.uncertainty import error_inflation

SPLIT = Split((Boundary(1000, 1200),), 2)


def panel_of(*values: npt.NDArray[np.float64]) -> Panel:
    series = tuple(Series(f"s{number}", one.reshape(-1, 1), None) for number, one in enumerate(values))
    return Panel(series, ("x0",), None, None, (), "sha256:0")


def line(*stretches: tuple[int, float], seed: int = 0) -> npt.NDArray[np.float64]:
    """A line with so many steps of noise, one stretch after another. Its slope, the models' scale, stays the same."""
    deviations = np.concatenate([np.full(steps, deviation) for steps, deviation in stretches])
    noise: npt.NDArray[np.float64] = np.random.default_rng(seed).normal(size=len(deviations)) * deviations
    return noise + np.arange(len(deviations))


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine.open(write_artifact(tmp_path / "model.onnx", "drift", context_length=8))


def test_errors_are_inflated_by_how_much_more_a_model_errs_on_what_it_has_not_seen(engine: Engine) -> None:
    # a window's past reaches far into the training part
    assert 1.4 < error_inflation(engine, panel_of(line((1000, 0.01), (200, 0.02))), SPLIT) < 2.1


def test_errors_of_a_model_that_errs_as_before_or_less_are_left_as_they_are(engine: Engine) -> None:
    assert error_inflation(engine, panel_of(line((1200, 0.02))), SPLIT) == pytest.approx(1.0, abs=0.1)
    assert error_inflation(engine, panel_of(line((1000, 0.02), (200, 0.01))), SPLIT) == 1.0


def test_errors_are_never_inflated_beyond_reason(engine: Engine) -> None:
    assert error_inflation(engine, panel_of(line((1000, 0.001), (200, 0.05))), SPLIT) == 3.0
    flat = np.zeros(1200)
    assert error_inflation(engine, panel_of(flat), SPLIT) == 1.0
    flat[1000:] = np.arange(200) % 2
    assert error_inflation(engine, panel_of(flat), SPLIT) == 3.0


def test_what_comes_after_the_validation_part_says_nothing(engine: Engine) -> None:
    values = line((1000, 0.01), (200, 0.02), (100, 5.0))
    assert error_inflation(engine, panel_of(values), SPLIT) == error_inflation(engine, panel_of(values[:1200]), SPLIT)


def test_where_too_few_windows_have_a_past_nothing_is_inflated(engine: Engine) -> None:
    short = Split((Boundary(30, 60),), 2)
    assert error_inflation(engine, panel_of(line((30, 0.01), (30, 0.03))), short) == 1.0
    none = Split((Boundary(1000, 1001),), 2)
    assert error_inflation(engine, panel_of(line((1000, 0.01), (200, 0.03))), none) == 1.0


def test_many_series_say_it_together(engine: Engine) -> None:
    panel = panel_of(*[line((1000, 0.01), (20, 0.02), seed=seed) for seed in range(130)])
    assert 1.4 < error_inflation(engine, panel, Split((Boundary(1000, 1020),) * 130, 2)) < 2.3


def test_series_with_too_short_a_past_leave_it_to_the_others(engine: Engine) -> None:
    short, long = Boundary(30, 32), Boundary(1000, 1002)
    parts = [short if number % 10 else long for number in range(400)]
    series = [line((part.train_end, 0.01), (2, 0.03), seed=seed) for seed, part in enumerate(parts)]
    assert error_inflation(engine, panel_of(*series), Split(tuple(parts), 2)) > 1.5


def test_a_model_that_tells_no_scale_is_taken_at_its_word(tmp_path: Path) -> None:
    engine = Engine.open(write_artifact(tmp_path / "model.onnx", "bidirectional", context_length=8))
    assert error_inflation(engine, panel_of(line((1000, 0.01), (200, 0.03))), SPLIT) == 1.0

"""Windows that leave the range of what their model was fitted on."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.artifact import METADATA_KEY, Range, read_metadata
from service.drift import WINDOWS, WINDOWS_OUTSIDE, Drift
from service.errors import ArtifactError
from service.metrics import Metrics
from service.registry import Registry
from service.scheduler import Scheduler
from tests.artifacts import build_metadata, write_artifact


def counted(windows: Any, *ranges: Range) -> tuple[float, float]:
    metrics = Metrics(None)
    Drift(ranges, metrics.counter("windows"), metrics.counter("outside")).look(np.asarray(windows, np.float32))
    return metrics.values[0], metrics.values[1]


def test_a_window_that_touches_the_ends_is_inside() -> None:
    ends = Range(low=0.1, high=0.3)
    assert counted([[[0.1], [0.3]], [[0.2], [0.2]]], ends) == (2, 0)
    assert counted([[[0.09], [0.3]], [[0.2], [0.31]], [[0.2], [0.2]]], ends) == (3, 2)


def test_each_feature_has_a_range_of_its_own() -> None:
    ranges = Range(low=0, high=1), Range(low=10, high=20)
    assert counted([[[0.5, 15]], [[15, 0.5]], [[0.5, 9]], [[1.5, 15]]], *ranges) == (4, 3)


@given(windows=arrays(np.float32, (4, 5, 2), elements=st.floats(-4, 4, width=32)))
def test_as_many_are_counted_as_one_by_one(windows: Any) -> None:
    ranges = Range(low=-3, high=3), Range(low=-2, high=3.5)
    outside = sum(
        not (
            window[:, 0].min() >= -3
            and window[:, 0].max() <= 3
            and window[:, 1].min() >= -2
            and window[:, 1].max() <= 3.5
        )
        for window in windows
    )
    # A value within one 32-bit float of an end is taken for the end.
    assert counted(windows, *ranges) == (4, outside)


@pytest.mark.parametrize("kind", ["drift", "mean"], ids=["state carried", "windows slid"])
def test_each_window_is_counted_once_however_many_steps_are_forecast(tmp_path: Path, kind: Any) -> None:
    ranges = (Range(low=0, high=5),)
    write_artifact(tmp_path / "models" / "a" / "1" / "model.onnx", kind, ranges=ranges)
    write_artifact(tmp_path / "models" / "b" / "1" / "model.onnx", kind)
    metrics = Metrics(tmp_path / "counts")
    registry = Registry.open(tmp_path / "models", tmp_path / "none", metrics=metrics)
    windows = [np.array([[1], [2], [3 + place]], np.float32) for place in range(4)]

    async def forecast() -> None:
        scheduler = Scheduler(metrics=metrics)
        for name in ("a", "b"):
            await asyncio.gather(*(scheduler.forecast(registry.find(name).engine, [one], 6) for one in windows))

    asyncio.run(forecast())
    found = {key.name: (values, key.labels) for key, values in metrics.total().items() if "windows" in key.name}
    labels = (("model", "a"), ("version", "1"))
    assert (found[WINDOWS], found[WINDOWS_OUTSIDE]) == (([4], labels), ([1], labels))


@pytest.mark.parametrize(
    ("ranges", "complaint"),
    [
        ((Range(low=0, high=1),) * 2, "ranges for 2 features, but it has 1"),
        ((Range(low=2, high=1),), "a range ends before it begins"),
    ],
)
def test_ranges_that_cannot_be_are_refused(ranges: tuple[Range, ...], complaint: str) -> None:
    document = build_metadata(ranges=ranges).model_dump_json()
    with pytest.raises(ArtifactError, match=complaint):
        read_metadata({METADATA_KEY: document})

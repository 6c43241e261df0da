"""What is noted of requests stays under the right labels, also when those of others are forgotten."""

import itertools
from contextlib import suppress
from pathlib import Path

from service.api.correlation import NONE
from service.api.observation import BOUNDS, Observer
from service.api.trip import Trip
from service.engine import Engine
from service.metrics import Metrics, TooManyMetrics, collect
from service.versions import ServedModel
from tests.artifacts import write_artifact


def test_a_request_after_a_forgetting_is_counted_anew_and_not_under_the_labels_of_another(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "model.onnx", "drift")
    engine = Engine.load(path.read_bytes())
    first, second, third = (ServedModel("lab", version, engine, path) for version in "123")
    metrics = Metrics(tmp_path / "counts")
    observer = Observer(metrics, None, None)

    def answer(model: ServedModel) -> None:
        trip = Trip("POST", "/forecast", (), NONE)
        trip.model = model
        observer.finish(trip, 200)

    def counted() -> dict[str, float]:
        return {
            dict(key.labels)["version"]: values[0]
            for key, values in collect(tmp_path / "counts").items()
            if key.name == "leadtime_requests"
        }

    answer(first)
    answer(second)
    answer(second)
    assert counted() == {"1": 1, "2": 2}
    metrics.forget(model="lab", version="1")
    answer(third)
    answer(first)
    assert counted() == {"1": 1, "2": 2, "3": 1}


def test_where_times_find_no_room_requests_are_counted_without_them(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "model.onnx", "drift")
    model = ServedModel("lab", "1", Engine.load(path.read_bytes()), path)
    metrics = Metrics(tmp_path / "counts")
    with suppress(TooManyMetrics):
        for number in itertools.count():
            metrics.histograms(("seconds",), BOUNDS, number=str(number))
    observer = Observer(metrics, None, None)
    for _ in range(3):
        trip = Trip("POST", "/forecast", (), NONE)
        trip.model = model
        observer.finish(trip, 200)
    counts = {key.name: values for key, values in collect(tmp_path / "counts").items() if key.name != "seconds"}
    assert counts == {"leadtime_requests": [3]}

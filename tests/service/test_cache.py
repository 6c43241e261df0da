"""Answers that are kept: given again where they would be made again, and nowhere else."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.api.cache import CACHE_BYTES, CACHE_LOOKUPS, Cache
from service.api.forecast import ANSWERS
from service.api.headers import ARROW
from service.api.shortcut import Shortcut
from service.api.state import Service
from service.metrics import Metrics, collect
from tests.artifacts import write_artifact
from tests.service.test_shortcut import Started, ask, started

ONE_STEP = {"window": [1, 2, 3]}


class Asking:
    """A service that keeps answers, and what becomes of questions to it."""

    def __init__(self, service: Started, models: Path, counts: Path) -> None:
        self.models = models
        self.service: Service = service.state["service"]
        self._started = service
        self._counts = counts

    def ask(self, question: Any, path: str = "/forecast", accept: bytes = b"application/json") -> tuple[int, bytes]:
        """Ask, by the short way."""
        body = [question if isinstance(question, bytes) else json.dumps(question).encode()]
        headers = [(b"content-type", b"application/json"), (b"accept", accept)]
        short = Shortcut(self._started.application, ANSWERS)
        asked = ask(short, self._started.state, path, body, headers)
        status, _, content = self._started.loop.run_until_complete(asked)
        return status, content

    def counted(self) -> tuple[float, float]:
        """Hits and misses so far."""
        found = {key.labels: values[0] for key, values in collect(self._counts).items() if key.name == CACHE_LOOKUPS}
        return found[(("result", "hit"),)], found[(("result", "miss"),)]


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    models, counts = tmp_path / "models", tmp_path / "counts"
    with started(models, cache_bytes=100_000, metrics=counts, refresh_seconds=0) as service:
        yield Asking(service, models, counts)


def test_a_question_that_is_asked_again_has_the_same_answer_without_a_run(asking: Asking) -> None:
    first = asking.ask(ONE_STEP)
    assert first[0] == 200
    assert asking.counted() == (0, 1)
    assert asking.ask(ONE_STEP) == first
    assert asking.counted() == (1, 1)


def test_what_shapes_an_answer_tells_questions_apart(asking: Asking) -> None:
    question = {"window": [1, 2, 3], "horizon": 1}
    answers = [
        asking.ask(question, "/forecast/multi-step"),
        asking.ask(ONE_STEP),
        asking.ask(ONE_STEP, accept=ARROW),
        asking.ask({"window": [1, 2, 4]}),
        asking.ask(ONE_STEP | {"origin": "2024-01-01", "frequency": "D"}),
    ]
    assert [status for status, _ in answers] == [200] * 5
    assert asking.counted() == (0, 5)
    assert asking.ask(question)[0] == 422, "it has no horizon"


def test_a_refusal_is_not_kept(asking: Asking) -> None:
    for _ in range(2):
        assert asking.ask({"window": [1]})[0] == 422
    assert asking.counted() == (0, 2)


def test_futures_are_drawn_anew_unless_a_seed_says_otherwise(asking: Asking) -> None:
    write_artifact(asking.models / "default" / "1" / "model.onnx", context_length=8)
    asking.service.registry.refresh()
    window = {"window": [float(place % 7) for place in range(400)], "samples": 2}
    statuses = [asking.ask(window)[0] for _ in range(2)]
    assert statuses == [200, 200]
    assert asking.counted() == (0, 2)
    assert asking.ask(window | {"seed": 1}) == asking.ask(window | {"seed": 1})
    assert asking.counted() == (1, 3)


def test_another_version_answers_for_itself_at_once_and_going_back_finds_the_former_answers(asking: Asking) -> None:
    assert b'"version":"1"' in asking.ask(ONE_STEP)[1]
    write_artifact(asking.models / "default" / "2" / "model.onnx", "mean")
    asking.service.registry.refresh()
    answer = json.loads(asking.ask(ONE_STEP)[1])
    assert (answer["version"], answer["forecasts"][0]["values"]) == ("2", [2.0])
    assert asking.counted() == (0, 2)
    write_artifact(asking.models / "default" / "2" / "model.onnx", "drift")
    asking.service.registry.refresh()
    answer = json.loads(asking.ask(ONE_STEP)[1])
    assert (answer["version"], answer["forecasts"][0]["values"]) == ("2", [4.0])
    assert asking.counted() == (0, 3)
    shutil.rmtree(asking.models / "default")
    asking.service.registry.refresh()
    assert b'"version":"2"' not in asking.ask(ONE_STEP)[1]


def test_where_a_canary_answers_a_share_nothing_is_kept(asking: Asking) -> None:
    asking.ask(ONE_STEP)
    write_artifact(asking.models / "default" / "2" / "model.onnx", "mean")
    (asking.models / "default" / "labels.toml").write_text("stable = 1\ncanary = { version = 2, share = 1.0 }\n")
    asking.service.registry.refresh()
    for _ in range(2):
        assert b'"version":"2"' in asking.ask(ONE_STEP)[1]
    assert asking.counted() == (0, 3)


def test_the_answers_that_were_not_asked_for_the_longest_are_let_go(tmp_path: Path, asking: Asking) -> None:
    counts = tmp_path / "others"
    cache = Cache(3000, Metrics(counts))
    registry = asking.service.registry
    model = registry.find("default")
    keys = [Cache.key(b"%d" % number, True) for number in range(4)]
    for key in keys[:2]:
        cache.keep(key, "default", None, model, (b"x" * 800, b"text"))
    assert cache.find(keys[0], registry) is not None
    cache.keep(keys[2], "default", None, model, (b"x" * 800, b"text"))
    assert [cache.find(key, registry) is not None for key in keys] == [True, False, True, False]
    cache.keep(keys[3], "default", None, model, (b"x" * 3000, b"text"))
    assert cache.find(keys[3], registry) is None, "it is larger than all"
    (size,) = [values[0] for key, values in collect(counts).items() if key.name == CACHE_BYTES]
    assert 1600 < size <= 3000

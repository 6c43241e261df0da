"""Histograms that are counted in together tell every observation once, whenever they are asked and by whomever."""

import shutil
import signal
import subprocess
import sys
import threading
from bisect import bisect_left
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.histograms import CELLS, ROWS
from service.metrics import Key, Metrics, TooManyMetrics, collect

ROOT = Path(__file__).parents[2]
NAMES = ("total", "parse", "wait", "run")
BOUNDS = (0.1, 1.0, 2.0)

WORKER = """
import sys
from pathlib import Path
from service.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
before, after = metrics.counter("before"), metrics.counter("after")
times = metrics.histograms(("a", "b", "c", "d"), (1.0, 2.0))
print("counting", flush=True)
while True:
    before.add()
    times.observe(1.0, 1.0, 1.0, 1.0)
    after.add()
"""


def told(folder: Path, name: str, **labels: str) -> list[float]:
    return collect(folder)[Key("histogram", name, tuple(sorted(labels.items())), BOUNDS)]


@given(
    rows=st.integers(0, 2 * ROWS + 3),
    seed=st.integers(0, 1000),
    values=st.lists(st.floats(0, 4) | st.sampled_from(BOUNDS), min_size=4, max_size=9),
)
def test_every_observation_is_in_the_first_bucket_that_holds_it_and_in_the_sum(
    rows: int, seed: int, values: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("counts")
    metrics = Metrics(folder)
    groups = {model: metrics.histograms(NAMES, BOUNDS, model=model) for model in "ab"}
    expected = {(model, name): [0.0] * (len(BOUNDS) + 2) for model in groups for name in NAMES}
    random = Random(seed)
    for _ in range(rows):
        model, four = random.choice("ab"), [random.choice(values) for _ in NAMES]
        names: tuple[str, ...] = NAMES
        if random.random() < 0.2:
            names = NAMES[:1]
            groups[model].observe_first(four[0])
        else:
            groups[model].observe(*four)
        for name, value in zip(names, four, strict=False):
            numbers = expected[model, name]
            numbers[bisect_left(BOUNDS, value)] += 1
            numbers[-1] += value
    for (model, name), numbers in expected.items():
        assert told(folder, name, model=model) == pytest.approx(numbers)
    metrics.close()


def test_what_a_killed_worker_has_observed_is_told_once(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / str(number)
        with subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"counting\n"
            while collect(folder)[Key("counter", "before", (), ())][0] < (number + 1) * 1000 + 170 * number:
                pass
            worker.send_signal(signal.SIGKILL)
        found = {key.name: values for key, values in collect(folder).items()}
        (begun,), (done,) = found["before"], found["after"]
        for name in "abcd":
            observed, *others, total = found[name]
            assert begun >= observed >= done > ROWS
            assert total == observed
            assert not any(others)


def test_what_a_worker_had_observed_that_is_killed_while_it_counts_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, bincount = tmp_path / "counts", np.bincount
    left: list[Path] = []

    def left_behind(*given: Any, **more: Any) -> Any:
        left.append(tmp_path / f"left {len(left)}")
        shutil.copytree(counts, left[-1])
        return bincount(*given, **more)

    monkeypatch.setattr(np, "bincount", left_behind)
    metrics = Metrics(counts)
    times = metrics.histograms(NAMES, BOUNDS)
    for _ in range(3 * ROWS):
        times.observe(0.5, 0.5, 0.5, 0.5)
    found = [told(folder, name) for folder in left for name in NAMES]
    rows = [numbers[1] for numbers in found]
    assert sorted(set(rows)) == [ROWS, 2 * ROWS, 3 * ROWS]
    assert all(numbers == [0, count, 0, 0, count / 2] for numbers, count in zip(found, rows, strict=True))


def test_where_rows_cannot_be_counted_requests_go_on_and_what_was_counted_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: Any, **more: Any) -> Any:
        raise MemoryError

    metrics = Metrics(tmp_path)
    times = metrics.histograms(NAMES, BOUNDS)
    for number in range(5):
        with monkeypatch.context() as patch:
            if number in (1, 2):
                patch.setattr(np, "bincount", fail)
            for _ in range(ROWS):
                times.observe(0.5, 0.5, 0.5, 0.5)
    times.observe(0.5, 0.5, 0.5, 0.5)
    assert told(tmp_path, "run") == [0, 3 * ROWS + 1, 0, 0, (3 * ROWS + 1) / 2]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_a_sum_never_falls_when_rows_are_counted_that_had_been_told(tmp_path: Path) -> None:
    metrics, random = Metrics(tmp_path), Random(0)
    quiet, busy = (metrics.histograms(NAMES, BOUNDS, model=model) for model in ("quiet", "busy"))
    for _ in range(20):
        for _ in range(ROWS // 2):
            quiet.observe(*(random.random() for _ in NAMES))
        before = [told(tmp_path, name, model="quiet") for name in NAMES]
        for _ in range(ROWS // 2):
            busy.observe_first(1.0)
        assert [told(tmp_path, name, model="quiet") for name in NAMES] == before


def test_whoever_asks_while_it_is_counted_is_told_of_whole_rows_and_never_of_fewer_than_before(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    times = metrics.histograms(NAMES, BOUNDS)
    stopping = threading.Event()

    def observe() -> None:
        while not stopping.is_set():
            times.observe(1.0, 1.0, 1.0, 1.0)

    thread = threading.Thread(target=observe)
    thread.start()
    try:
        found = [[told(tmp_path, name) for name in NAMES] for _ in range(100)]
    finally:
        stopping.set()
        thread.join()
    counts = [numbers[1] for asked in found for numbers in asked]
    assert counts == sorted(counts)
    assert counts[-1] > ROWS
    assert all(numbers[-1] == numbers[1] == sum(numbers[:-1]) for asked in found for numbers in asked)


def test_room_that_is_used_again_begins_at_zero_whether_rows_had_been_counted_or_not(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    others = metrics.histograms(NAMES, BOUNDS, model="others")
    for model, rows in (("a", 3), ("b", ROWS), ("c", 2 * ROWS + 5), ("d", 0)):
        gone = metrics.histograms(NAMES, BOUNDS, model=model)
        for _ in range(rows):
            gone.observe(3.0, 3.0, 3.0, 3.0)
            others.observe_first(0.5)
        metrics.forget(model=model)
        following = metrics.histograms(NAMES, BOUNDS, model="following")
        assert told(tmp_path, "run", model="following") == [0, 0, 0, 0, 0]
        following.observe(3.0, 0.5, 0.5, 0.5)
        assert told(tmp_path, "run", model="following") == [0, 1, 0, 0, 0.5]
        metrics.forget(model="following")
    assert told(tmp_path, "total", model="others") == [0, 3 * ROWS + 8, 0, 0, (3 * ROWS + 8) / 2]
    assert told(tmp_path, "wait", model="others") == [0, 0, 0, 0, 0]


def test_the_same_names_and_labels_are_the_same_histograms(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    for _ in range(2):
        metrics.histograms(NAMES, BOUNDS, model="a").observe(0.05, 0.05, 0.05, 5.0)
    assert told(tmp_path, "run", model="a") == [0, 0, 0, 2, 10.0]


def test_there_may_be_fewer_of_them(tmp_path: Path) -> None:
    Metrics(tmp_path).histograms(NAMES[:1], BOUNDS).observe_first(0.5)
    assert collect(tmp_path) == {Key("histogram", "total", (), BOUNDS): [0, 1, 0, 0, 0.5]}


def test_those_that_are_counted_together_have_the_same_bounds_and_are_four_at_most(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.histograms(NAMES, BOUNDS, model="a")
    with pytest.raises(ValueError, match="same bounds"):
        metrics.histograms(NAMES, (1.0, 2.0, 4.0), model="b")
    with pytest.raises(ValueError, match="at most 4"):
        metrics.histograms((*NAMES, "fifth"), BOUNDS, model="c")
    assert {key.name for key in collect(tmp_path)} == set(NAMES)


def test_there_is_an_end_to_histograms() -> None:
    metrics = Metrics(None)
    for number in range(CELLS // (4 * (len(BOUNDS) + 2))):
        metrics.histograms(NAMES, BOUNDS, model=str(number)).observe(1.0, 1.0, 1.0, 1.0)
    with pytest.raises(TooManyMetrics):
        metrics.histograms(NAMES, BOUNDS, model="one more")

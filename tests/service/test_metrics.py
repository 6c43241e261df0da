"""What is counted, over all workers, living and dead."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.metrics import Key, Metrics, TooManyMetrics, Total, collect

ROOT = Path(__file__).parents[2]

WORKER = """
import sys
from pathlib import Path
from service.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
metrics.counter("answers", model="a").add(3)
metrics.gauge("under_way").set(7)
metrics.histogram("seconds", (0.1, 1.0)).observe(0.5)
print("counted", flush=True)
sys.stdin.read()
"""


def test_counts_of_workers_add_up_and_outlive_them_but_what_is_under_way_does_not(tmp_path: Path) -> None:
    own = Metrics(tmp_path)
    own.counter("answers", model="a").add(2)
    own.counter("answers", model="b").add()
    own.gauge("under_way").set(1)
    own.histogram("seconds", (0.1, 1.0)).observe(2.0)
    answers, under_way = Key("counter", "answers", (("model", "a"),), ()), Key("gauge", "under_way", (), ())
    seconds = Key("histogram", "seconds", (), (0.1, 1.0))
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"counted\n"
        assert collect(tmp_path)[answers] == [5]
        assert collect(tmp_path)[under_way] == [8]
        worker.send_signal(signal.SIGKILL)
    found = collect(tmp_path)
    assert found[answers] == [5]
    assert found[under_way] == [1]
    assert found[seconds] == [0, 1, 1, 2.5]
    assert found[Key("counter", "answers", (("model", "b"),), ())] == [1]


@given(values=st.lists(st.floats(0, 100), max_size=30), bounds=st.lists(st.floats(0.1, 90), min_size=1, unique=True))
def test_an_observation_is_counted_in_the_first_bucket_that_holds_it(values: list[float], bounds: list[float]) -> None:
    bounds = sorted(bounds)
    metrics = Metrics(None)
    histogram = metrics.histogram("seconds", bounds)
    for value in values:
        histogram.observe(value)
    *counts, total = metrics.values[: len(bounds) + 2]
    expected = [0] * (len(bounds) + 1)
    for value in values:
        expected[next((place for place, bound in enumerate(bounds) if value <= bound), len(bounds))] += 1
    assert counts == expected
    assert total == pytest.approx(sum(values))


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    Metrics(tmp_path).counter("answers").add()
    (keys,) = tmp_path.glob("*.keys")
    with keys.open("ab") as file:
        file.write(b'[1, "counter", "half')
    assert list(collect(tmp_path)) == [Key("counter", "answers", (), ())]


def test_where_the_disk_is_full_what_is_new_goes_uncounted_and_what_was_counted_stays(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.counter("answers", model="a").add()
    (keys,) = tmp_path.glob("*.keys")
    there = keys.rename(tmp_path / "there")
    keys.symlink_to("/dev/full")
    with pytest.raises(TooManyMetrics):
        metrics.counter("answers", model="b")
    metrics.forget(model="a")
    keys.unlink()
    there.rename(keys)

    metrics.counter("answers", model="a").add()
    metrics.counter("answers", model="c").add()

    answers = {key.labels[0][1]: values for key, values in collect(tmp_path).items()}
    assert answers == {"a": [2], "c": [1]}


def test_room_on_the_disk_is_taken_at_once(tmp_path: Path) -> None:
    Metrics(tmp_path)
    (cells,) = tmp_path.glob("*.cells")
    assert cells.stat().st_blocks * 512 >= cells.stat().st_size


def test_a_line_for_which_there_was_no_room_is_left_out(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.counter("answers", model="a").add()
    (keys,) = tmp_path.glob("*.keys")
    with keys.open("ab") as file:
        file.write(b'[1, "counter", "half\n')
    metrics.counter("answers", model="b").add()
    assert [key.labels for key in collect(tmp_path)] == [(("model", "a"),), (("model", "b"),)]


def test_the_same_name_and_labels_are_the_same_number(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.counter("answers", model="a", status="200").add()
    metrics.counter("answers", status="200", model="a").add()
    assert list(collect(tmp_path).values()) == [[2]]


def test_there_is_an_end_to_combinations_of_labels() -> None:
    metrics = Metrics(None)
    for number in range(len(metrics.values)):
        metrics.counter("answers", model=str(number))
    with pytest.raises(TooManyMetrics):
        metrics.counter("answers", model="one more")


def test_what_is_forgotten_is_told_no_more_and_its_room_is_used_again_from_zero(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.counter("answers", model="a", version="1").add(3)
    metrics.histogram("seconds", (0.1, 1.0), model="a", version="1").observe(0.5)
    metrics.counter("answers", model="a", version="2").add(5)
    metrics.counter("starts").add()
    kept = {
        Key("counter", "answers", (("model", "a"), ("version", "2")), ()): [5],
        Key("counter", "starts", (), ()): [1],
    }
    metrics.forget(model="a", version="1")
    assert (collect(tmp_path), metrics.forgettings) == (kept, 1)
    metrics.forget(model="b")
    assert (collect(tmp_path), metrics.forgettings) == (kept, 1)
    metrics.counter("answers", model="a", version="3").add()
    metrics.histogram("seconds", (0.1, 1.0), model="a", version="3").observe(2.0)
    assert collect(tmp_path) == kept | {
        Key("counter", "answers", (("model", "a"), ("version", "3")), ()): [1],
        Key("histogram", "seconds", (("model", "a"), ("version", "3")), (0.1, 1.0)): [0, 0, 1, 2.0],
    }


def test_there_is_no_end_to_combinations_of_which_the_old_ones_are_forgotten() -> None:
    metrics = Metrics(None)
    for number in range(len(metrics.values) + 1):
        metrics.counter("answers", model=str(number)).add()
        metrics.forget(model=str(number))


def test_numbers_are_never_told_under_the_labels_of_those_who_had_their_room_before(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    stopping = threading.Event()

    def come_and_go() -> None:
        for number in itertools.count(1):
            if stopping.is_set():
                return
            metrics.counter("answers", version=str(number)).add(number)
            metrics.forget(version=str(number))

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        told = [collect(tmp_path).items() for _ in range(300)]
    finally:
        stopping.set()
        thread.join()
    found = [(float(dict(key.labels)["version"]), counted) for counts in told for key, (counted,) in counts]
    assert found
    # the count comes after the label
    assert all(counted in (0, version) for version, counted in found)


def test_two_workers_with_one_number_after_each_other_do_not_share_a_file(tmp_path: Path) -> None:
    for _ in range(2):
        metrics = Metrics(tmp_path)
        metrics.counter("answers").add()
        metrics.close()
    assert len(list(tmp_path.glob(f"{os.getpid()}-*"))) == 4
    assert list(collect(tmp_path).values()) == [[2]]


def test_a_worker_is_dead_whose_number_another_process_has(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.counter("answers").add()
    metrics.gauge("under_way").set(7)
    assert collect(tmp_path)[Key("gauge", "under_way", (), ())] == [7]
    metrics.close()  # and this process, whose number the file has, goes on
    assert collect(tmp_path) == {Key("counter", "answers", (), ()): [1]}


def test_files_that_another_version_of_the_service_has_left_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "7-1.cells").write_bytes(bytes(65_536))
    (tmp_path / "7-1.keys").write_bytes(b'[8000, "counter", "answers", [], []]\n')
    Metrics(tmp_path).counter("answers").add(2)
    assert list(collect(tmp_path).values()) == [[2]]


def test_files_of_the_dead_are_read_once(tmp_path: Path) -> None:
    total = Total(tmp_path)
    for _ in range(3):
        metrics = Metrics(tmp_path)
        metrics.counter("answers").add()
        metrics.close()
        total.collect()
    for cells in tmp_path.glob("*.cells"):
        cells.unlink()
    living = Metrics(tmp_path)
    living.counter("answers").add(5)
    for _ in range(2):
        assert total.collect() == {Key("counter", "answers", (), ()): [8]}

"""The watch: somebody looks soon after a change, and every so often where nobody is told of changes."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import service.watch
from service.watch import Watch

PATIENCE = 30.0
NEVER = 10 * PATIENCE


class Looks:
    """Counts looks, and fails where it is told to."""

    def __init__(self) -> None:
        self.count = 0
        self.failing = False
        self._looked = threading.Condition()

    def __call__(self) -> None:
        with self._looked:
            self.count += 1
            self._looked.notify_all()
        if self.failing:
            raise RuntimeError("on purpose")

    def wait_for(self, count: int) -> None:
        with self._looked:
            assert self._looked.wait_for(lambda: self.count >= count, PATIENCE), self.count


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def watch(folder: Path, looks: Looks) -> Iterator[Watch]:
    watch = Watch(folder, NEVER, looks)
    looks.wait_for(1)
    yield watch
    watch.close()


def test_a_change_anywhere_in_the_folder_is_looked_at_soon(folder: Path, watch: Watch, looks: Looks) -> None:
    (folder / "lab" / "1").mkdir(parents=True)
    looks.wait_for(2)
    time.sleep(0.3)
    before = looks.count
    (folder / "lab" / "1" / "model.onnx").write_bytes(b"x")
    looks.wait_for(before + 1)


def test_looking_alone_is_no_change(folder: Path, watch: Watch, looks: Looks) -> None:
    (folder / "file").write_bytes(b"x")
    looks.wait_for(2)
    for _ in range(10):
        (folder / "file").read_bytes()
        list(folder.iterdir())
        time.sleep(0.05)
    assert looks.count == 2


def test_what_changed_before_the_file_system_was_asked_is_looked_at_all_the_same(folder: Path, looks: Looks) -> None:
    watch = Watch(folder, NEVER, looks)
    looks.wait_for(1)
    watch.close()
    assert looks.count == 1


def test_a_folder_put_in_the_place_of_another_is_looked_at_long_before_it_is_time(
    folder: Path, watch: Watch, looks: Looks
) -> None:
    folder.rename(folder.with_name("old"))
    (folder / "lab").mkdir(parents=True)
    looks.wait_for(2)
    time.sleep(0.5)
    before = looks.count
    (folder / "lab" / "file").write_bytes(b"x")
    looks.wait_for(before + 1)


def test_a_folder_that_is_gone_for_a_while_is_looked_at_soon_after_it_is_there_again(
    folder: Path, watch: Watch, looks: Looks
) -> None:
    folder.rename(folder.with_name("old"))
    looks.wait_for(looks.count + 2)  # it is known to be gone
    folder.mkdir()
    before = looks.count
    (folder / "file").write_bytes(b"x")
    looks.wait_for(before + 1)


def test_without_any_change_somebody_looks_every_so_often(folder: Path, looks: Looks) -> None:
    watch = Watch(folder, 0.05, looks)
    looks.wait_for(3)
    watch.close()


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path, looks: Looks) -> None:
    watch = Watch(tmp_path / "later", 0.05, looks)
    looks.wait_for(2)
    (tmp_path / "later").mkdir()
    looks.wait_for(looks.count + 2)
    watch.close()


def test_a_folder_that_is_put_in_the_place_of_another_is_watched_anew(folder: Path, looks: Looks) -> None:
    watch = Watch(folder, 0.1, looks)
    looks.wait_for(1)
    folder.rename(folder.with_name("old"))
    folder.mkdir()
    looks.wait_for(looks.count + 2)
    (folder / "file").write_bytes(b"x")
    looks.wait_for(looks.count + 1)
    watch.close()


def test_a_look_that_fails_is_not_the_last_one(folder: Path, looks: Looks, caplog: pytest.LogCaptureFixture) -> None:
    looks.failing = True
    watch = Watch(folder, 0.05, looks)
    looks.wait_for(3)
    watch.close()
    assert "what was served before is still served" in caplog.text


def test_where_the_file_system_tells_of_nothing_it_is_said_once_and_somebody_looks_every_so_often(
    folder: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(service.watch, "watch", refuse)
    with caplog.at_level(logging.WARNING):
        watch = Watch(folder, 0.02, looks)
        looks.wait_for(3)
        watch.close()
    assert caplog.messages == [
        "the models' folder tells of no changes (inotify watch limit reached): looked through every 0.02 s"
    ]


def test_closing_ends_the_thread_at_once(folder: Path, looks: Looks) -> None:
    watch = Watch(folder, NEVER, looks)
    begin = time.monotonic()
    watch.close()
    assert time.monotonic() - begin < PATIENCE
    assert not any(thread.name == "leadtime-watch" for thread in threading.enumerate())

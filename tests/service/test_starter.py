"""Workers that are started as copies of a process, with processes that do no more than a test needs."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service import process
from service.listeners import bind
from service.process import Process
from service.starter import Forker, Spawner, StartError

LONGEST = 60.0

BEGIN = """
import os, socket, sys, time
control = socket.socket(fileno=int(sys.argv[1]))
"""
# What is copied, as the service copies it; each copy says its place, and what listeners it has.
COPIED = """
from service.forkserver import _copies
control.send(b"ready")
asked = _copies(control)
if asked is not None:
    place, end = asked
    port = socket.socket(fileno=int(sys.argv[2])).getsockname()[1]
    socket.socket(fileno=end).sendall(f"{place} {port}\\n".encode())
    time.sleep(600)
"""
SPAWNED = """
import socket, sys, time
socket.socket(fileno=int(sys.argv[2])).sendall(b"spawned\\n")
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _no_parent_of_orphans() -> Iterator[None]:
    yield
    process._prctl(process._SET_CHILD_SUBREAPER, 0)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    (one,) = bind("127.0.0.1", 0, 1)
    with one:
        yield one


def forker(script: str, listener: socket.socket) -> Forker:
    spawner = Spawner([sys.executable, "-c", SPAWNED], [listener])
    return Forker([sys.executable, "-c", BEGIN + script], [listener], spawner)


async def started(starter: Forker, place: int = 0) -> tuple[Process, list[str]]:
    """A worker, and the first thing that it says."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = await starter.start(place, theirs.fileno())
        ours.settimeout(LONGEST)
        return worker, (await asyncio.to_thread(ours.recv, 100)).decode().split()


def end_of(worker: Process) -> int | None:
    deadline = time.monotonic() + LONGEST
    while worker.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return worker.returncode


def template_of(starter: Forker) -> int:
    template = starter._template
    assert template is not None
    return template._process.pid


def test_copies_know_their_places_and_the_listeners_and_are_children_of_who_asked(listener: socket.socket) -> None:
    async def run() -> None:
        for place in range(3):
            worker, said = await started(starter, place)
            assert said == [str(place), str(listener.getsockname()[1])]
            assert f"\nPPid:\t{os.getpid()}\n" in Path(f"/proc/{worker.pid}/status").read_text()
            worker.kill()
            assert end_of(worker) == -signal.SIGKILL

    starter = forker(COPIED, listener)
    asyncio.run(run())
    starter.close()


def test_many_that_are_asked_for_at_once_are_all_started(listener: socket.socket) -> None:
    async def run() -> None:
        found = await asyncio.gather(*(started(starter, place) for place in range(8)))
        assert [int(said[0]) for _, said in found] == list(range(8))
        assert len({worker.pid for worker, _ in found}) == 8
        for worker, _ in found:
            worker.kill()
            end_of(worker)

    starter = forker(COPIED, listener)
    asyncio.run(run())
    starter.close()


def test_no_descriptor_stays_with_the_one_that_is_copied_nor_with_the_one_that_asks(listener: socket.socket) -> None:
    def descriptors() -> list[int]:
        processes = (template_of(starter), os.getpid())
        return [len(list(Path(f"/proc/{number}/fd").iterdir())) for number in processes]

    async def run() -> None:
        counts = []
        for _ in range(3):
            worker, _ = await started(starter)
            worker.kill()
            end_of(worker)
            counts.append(descriptors())
        assert counts[0] == counts[1] == counts[2]

    starter = forker(COPIED, listener)
    asyncio.run(run())
    starter.close()


def test_what_is_copied_is_there_again_when_it_has_died(listener: socket.socket) -> None:
    async def run() -> None:
        starter.tend()
        assert starter._template is None, "nothing is made before it is wanted"
        worker, _ = await started(starter)
        for look in (starter.tend, lambda: None):  # it is made anew when somebody looks, or when it is wanted
            before = template_of(starter)
            os.kill(before, signal.SIGKILL)
            assert starter._template is not None
            end_of(starter._template._process)
            look()
            assert (template_of(starter) == before) == (look != starter.tend)
            other, said = await started(starter, 1)
            assert said[0] == "1"
            assert template_of(starter) != before
            other.kill()
            end_of(other)
        assert worker.poll() is None, "a copy outlives what it was copied from"
        worker.kill()
        end_of(worker)

    starter = forker(COPIED, listener)
    asyncio.run(run())
    starter.close()


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("control.recv(100); control.send(b'-11'); control.recv(100); control.send(b'-11')", BlockingIOError),
        ("control.recv(100)", ConnectionError),
        ("time.sleep(600)", TimeoutError),
    ],
    ids=["there is no process to be had", "it dies over it", "it stands still"],
)
def test_what_cannot_be_started_now_is_an_error_of_the_system_and_may_be_tried_again(
    script: str, error: type[OSError], listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.starter._COPY_SECONDS", 0.5)
    starter = forker(f"control.send(b'ready'); {script}", listener)
    for _ in range(2):
        with pytest.raises(error) as caught:
            asyncio.run(started(starter))
        assert caught.value.strerror
    starter.close()


def test_what_cannot_start_at_all_says_how_it_ended(listener: socket.socket) -> None:
    starter = forker("sys.exit(7)", listener)
    with pytest.raises(StartError, match="could not start: it ended with exit code 7"):
        asyncio.run(started(starter))
    starter.close()


@pytest.mark.parametrize("script", [COPIED, "control.send(b'not alone'); time.sleep(600)"])
def test_where_no_process_can_be_copied_or_adopted_workers_are_programs_of_their_own(
    script: str, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        for _ in range(2):
            worker, said = await started(starter)
            assert said == ["spawned"]
            assert starter._template is None
            worker.kill()
            end_of(worker)

    monkeypatch.setattr("service.starter.adopt_orphans", lambda: script != COPIED)
    starter = forker(script, listener)
    asyncio.run(run())
    starter.close()


def test_a_copy_that_is_wanted_no_more_while_it_is_made_is_ended(listener: socket.socket, tmp_path: Path) -> None:
    made = tmp_path / "made"
    script = f"""
import pathlib
from service.forkserver import _copy
control.send(b"ready")
control.recv(100)
copy = _copy()
if copy is None:
    time.sleep(600)
pathlib.Path({str(made)!r}).write_text(str(copy))
time.sleep(0.2)
control.send(str(copy).encode())
time.sleep(600)
"""

    async def run() -> int:
        start = asyncio.create_task(started(starter))
        await asyncio.to_thread(until, lambda: made.exists() and made.read_text() != "")
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        return int(made.read_text())

    starter = forker(script, listener)
    _, status = os.waitpid(asyncio.run(run()), 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    starter.close()


def test_the_end_of_what_is_copied_lets_go_of_the_listeners(listener: socket.socket) -> None:
    async def run() -> None:
        worker, _ = await started(starter)
        worker.kill()
        end_of(worker)

    starter = forker(COPIED, listener)
    asyncio.run(run())
    starter.close()
    address = listener.getsockname()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=LONGEST)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

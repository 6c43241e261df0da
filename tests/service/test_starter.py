"""Workers that are started as copies of a process, with processes that do no more than a test needs."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import forkserver, process
from service.listeners import bind
from service.process import Process
from service.starter import Forker, Spawner

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


@pytest.mark.parametrize(
    "script",
    [
        "control.send(b'not alone'); time.sleep(600)",
        "sys.exit(3)",
        "time.sleep(600)",
        COPIED,
    ],
    ids=["threads run in it", "it cannot start", "it does not come to an end", "orphans cannot be adopted"],
)
def test_where_there_is_nothing_to_be_copied_workers_are_programs_of_their_own(
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
    monkeypatch.setattr("service.starter._READY_SECONDS", 0.5)
    starter = forker(script, listener)
    asyncio.run(run())
    starter.close()


def test_what_does_not_work_once_is_tried_again_for_the_next_worker(listener: socket.socket, tmp_path: Path) -> None:
    script = f"""
import pathlib
if not pathlib.Path({str(tmp_path / "again")!r}).exists():
    pathlib.Path({str(tmp_path / "again")!r}).touch()
    sys.exit(1)
"""

    async def run() -> None:
        for wanted in (["spawned"], ["0", str(listener.getsockname()[1])]):
            worker, said = await started(starter)
            assert said == wanted
            worker.kill()
            end_of(worker)

    starter = forker(script + COPIED, listener)
    asyncio.run(run())
    starter.close()


def test_who_is_asked_for_a_copy_closes_its_channel_before_it_answers(listener: socket.socket) -> None:
    # It stops itself instead of telling the number.
    script = """
import signal
from service import forkserver
made = forkserver._copy
class Control:
    fileno = control.fileno
    recvmsg = control.recvmsg
    send = lambda self, said: os.kill(os.getpid(), signal.SIGSTOP)
control.send(b"ready")
asked = forkserver._copies(Control())
if asked is not None:
    time.sleep(0.2)
"""

    async def run() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                start = asyncio.create_task(starter.start(0, theirs.fileno()))
                await asyncio.sleep(0.1)
            ours.settimeout(LONGEST)
            assert await asyncio.to_thread(ours.recv, 1) == b""
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start

    starter = forker(script, listener)
    asyncio.run(run())
    starter.close()


def test_one_that_is_not_told_to_start_ends_and_touches_no_listener(listener: socket.socket) -> None:
    listener.listen()
    ours, theirs = socket.socketpair()
    numbers = [theirs.fileno(), listener.fileno()]
    worker = subprocess.Popen([sys.executable, "-m", "service.worker", "0", *map(str, numbers)], pass_fds=numbers)
    theirs.close()
    time.sleep(0.2)
    ours.close()
    assert worker.wait(LONGEST) == 0
    with socket.create_connection(listener.getsockname(), timeout=LONGEST):
        pass


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


def test_a_process_that_cannot_be_had_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "")

    monkeypatch.setattr(os, "fork", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert forkserver._copy() == -errno.EAGAIN
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_without_a_look_at_its_threads_a_process_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "_THREADS", Path("/nowhere"))
    assert forkserver._is_alone() is False

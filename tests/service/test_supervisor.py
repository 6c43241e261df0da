"""The first of several processes, with workers that do no more than a test needs."""

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.listeners import bind
from service.metrics import collect
from service.starter import Forker, Spawner, Starter
from service.supervisor import FAILED, WORKERS_REPLACED, Patience, Supervisor

LONGEST = 60.0
PATIENCE = Patience(notice=0.0, drain=5.0, hang=0.0)

# A worker that says that it serves, and a word now and then; `told` is what it hears.
SERVES = """
import socket, sys, time
channel = socket.socket(fileno=int(sys.argv[2]))
channel.setblocking(True)
channel.sendall(b"serving\\n")
told = channel.makefile("rb")
"""
UNTIL_THE_END = "any(line == b'stop\\n' for line in told)"


def supervise(
    folder: Path,
    script: str,
    *,
    template: str | None = None,
    workers: int = 1,
    until: Callable[[], bool] = lambda: False,
) -> int:
    """Run workers that are `script` until something has happened, and then stop; give the exit code.

    With a template they are copies of that script.
    """

    async def run() -> int:
        starter: Starter = Spawner([sys.executable, "-c", script], listeners)
        if template is not None:
            starter = Forker([sys.executable, "-c", template], listeners, starter)
        supervisor = Supervisor(starter, listeners, workers, PATIENCE, folder)
        running = asyncio.create_task(supervisor.run())
        deadline = time.monotonic() + LONGEST
        while not running.done() and not until():
            assert time.monotonic() < deadline
            await asyncio.wait([running], timeout=0.02)
        if not running.done():
            os.kill(os.getpid(), signal.SIGTERM)
        return await running

    listeners = bind("127.0.0.1", 0, workers)
    try:
        return asyncio.run(run())
    finally:
        for listener in listeners:
            listener.close()


def replaced(folder: Path) -> dict[str, float]:
    return {key.labels[0][1]: values[0] for key, values in collect(folder).items() if key.name == WORKERS_REPLACED}


def starts(caplog: pytest.LogCaptureFixture) -> int:
    return sum("serves" in record.message for record in caplog.records)


@pytest.mark.parametrize(
    ("script", "end"),
    [("raise SystemExit(3)", "it ended with exit code 3"), ("import os; os.abort()", "it was ended by SIGABRT")],
)
def test_a_worker_that_cannot_start_ends_the_service_with_one_line(
    script: str, end: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert supervise(tmp_path, script, workers=2) == FAILED
    assert len(caplog.records) == 1
    assert f"could not start ({end}): the service ends" in caplog.text


def test_where_what_workers_are_copied_from_cannot_start_the_service_tells_why_a_worker_cannot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert supervise(tmp_path, "raise SystemExit(4)", template="raise SystemExit(3)", workers=2) == FAILED
    (record,) = caplog.records
    assert record.message.endswith("could not start (it ended with exit code 4): the service ends")


@pytest.mark.parametrize("answer", ["time.sleep(600)", "os.kill(os.getppid(), signal.SIGTERM); control.send(b'7')"])
def test_a_stop_that_comes_while_a_worker_is_copied_does_not_wait_for_it(
    answer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template = f"""
import os, signal, socket, sys, time
control = socket.socket(fileno=int(sys.argv[1]))
control.send(b"ready")
control.recv(100)
open({str(tmp_path / "asked")!r}, "w").close()
{answer}
time.sleep(600)
"""
    assert supervise(tmp_path, SERVES, template=template, until=(tmp_path / "asked").exists) == 0
    assert caplog.records == []


def test_a_worker_whose_end_of_the_channel_somebody_else_holds_is_replaced_when_it_dies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    holds = """
import os
if os.fork() == 0:
    time.sleep(3)
    os._exit(0)
"""
    assert supervise(tmp_path, SERVES + holds, until=lambda: starts(caplog) == 2) == 0
    assert replaced(tmp_path)["died"] >= 1


def test_a_worker_that_dies_again_and_again_is_started_more_and_more_seldom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def pauses() -> list[str]:
        return [record.message.rpartition("started")[2] for record in caplog.records if "another" in record.message]

    assert supervise(tmp_path, SERVES, until=lambda: len(pauses()) == 3) == 0
    assert pauses() == ["", " in 0.25 s", " in 0.5 s"]
    assert replaced(tmp_path)["died"] == 3


def test_where_no_process_can_be_had_a_place_is_not_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.supervisor._RETRY_SECONDS", 0.05)
    caplog.set_level(logging.INFO)
    tries = 0

    def start(*given: Any, **named: Any) -> subprocess.Popen[bytes]:
        nonlocal tries
        tries += 1
        if tries in (2, 3):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return subprocess.Popen(*given, **named)

    monkeypatch.setattr("service.starter.Popen", start)
    before = len(list(Path("/proc/self/fd").iterdir()))

    assert supervise(tmp_path, SERVES, until=lambda: starts(caplog) == 2) == 0

    told = [record.message for record in caplog.records if "can be started" in record.message]
    assert told == ["no worker can be started (Resource temporarily unavailable): tried again in 0.05 s"] * 2
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_workers_that_end_when_they_are_told_to_make_a_good_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert supervise(tmp_path, SERVES + UNTIL_THE_END, workers=3, until=lambda: starts(caplog) == 3) == 0
    assert replaced(tmp_path) == {}


def test_a_worker_that_does_not_end_is_killed_when_its_time_is_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.supervisor._OVERTIME_SECONDS", -4.5)
    caplog.set_level(logging.INFO)
    began = time.monotonic()
    assert supervise(tmp_path, SERVES + "time.sleep(600)", until=lambda: starts(caplog) == 1) == 0
    assert time.monotonic() - began < LONGEST
    assert "did not end, and is killed" in caplog.text

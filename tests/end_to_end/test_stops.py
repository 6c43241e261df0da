"""Stops under load: what has reached the service is answered."""

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.clients import REQUEST, Balancer, asking
from tests.end_to_end.process import PATIENCE, Running, children, name_of, running


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def end_of(service: Running) -> int:
    return service.process.wait(PATIENCE)


@pytest.mark.parametrize("workers", [1, 2])
def test_behind_a_balancer_that_looks_at_readiness_a_stop_loses_nothing(
    models: Path, tmp_path: Path, workers: int
) -> None:
    with (
        running(models, tmp_path / "one", workers=workers, notice_seconds=2) as one,
        running(models, tmp_path / "other") as other,
        Balancer([one.port, other.port]) as balancer,
        asking(balancer.find, 4, keep=True) as kept,
        asking(balancer.find, 2, keep=False) as new,
    ):
        wait_until(lambda: len(kept.answered) > 100 and len(new.answered) > 50)
        one.process.send_signal(signal.SIGTERM)
        assert end_of(one) == 0
        seen = len(kept.answered)
        wait_until(lambda: len(kept.answered) > seen + 100)
    assert (kept.lost, new.lost, kept.refused, new.refused) == ([], [], [], [])
    assert kept.closed >= 1, "answers before the stop did not send clients away"
    assert "Traceback" not in one.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_without_any_notice_a_connection_is_either_refused_or_served(
    models: Path, tmp_path: Path, workers: int
) -> None:
    with running(models, tmp_path / "log", workers=workers, notice_seconds=0) as service:
        with asking(lambda: service.port, 6, keep=False, pause=0.001) as new:
            wait_until(lambda: len(new.answered) > 200)
            service.process.send_signal(signal.SIGTERM)
            assert end_of(service) == 0
            wait_until(lambda: len(new.refused) > 6)
        assert new.lost == []
        assert "Traceback" not in service.log.read_text()


def test_a_connection_that_is_made_just_before_the_stop_may_still_send_its_request(
    models: Path, tmp_path: Path
) -> None:
    with (
        running(models, tmp_path / "log") as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as silent,
        socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as slow,
    ):
        slow.sendall(REQUEST[:20])
        time.sleep(0.1)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        silent.sendall(REQUEST)
        slow.sendall(REQUEST[20:])
        for connection in (silent, slow):
            answer = connection.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"connection: close\r\n" in answer
            assert connection.recv(1) == b""
        assert end_of(service) == 0


def test_a_connection_that_says_nothing_holds_up_no_stop(models: Path, tmp_path: Path) -> None:
    with (
        running(models, tmp_path / "log", drain_seconds=int(PATIENCE)) as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as silent,
    ):
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert end_of(service) == 0
        assert time.monotonic() - began < PATIENCE / 2
        assert silent.recv(1) == b""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_ends_the_service_at_once_and_says_so_to_those_who_wait(
    tmp_path: Path, models: Path, workers: int
) -> None:
    settings = {"workers": workers, "notice_seconds": 0, "drain_seconds": 10 * int(PATIENCE)}
    with running(models, tmp_path / "log", **settings) as service:
        body = b'{"windows": [[1, 2, 3]' + b", [1, 2, 3]" * 9_000 + b'], "horizon": 100, "model": "mean"}'
        head = b"POST /forecast/multi-step HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
            connection.sendall(head + body[:-1])  # without its end it waits for as long as it may
            time.sleep(0.3)
            service.process.send_signal(signal.SIGTERM)
            time.sleep(1.0)
            assert service.process.poll() is None
            service.process.send_signal(signal.SIGTERM)
            assert end_of(service) == 0


def test_workers_end_by_themselves_when_the_first_process_is_killed(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", workers=2) as service:
        wait_until(lambda: service.log.read_text().count(" serves") == 2)
        below = children(service.process.pid)
        assert len(below) == 3, "two workers, and the process of which they are copies"
        with asking(lambda: service.port, 4, keep=False) as new:
            wait_until(lambda: len(new.answered) > 20)
            service.process.kill()
            wait_until(lambda: not any(name_of(process) for process in below))
        assert new.lost == []

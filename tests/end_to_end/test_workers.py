"""Several workers: those that die or stand still are replaced, and the others go on."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.clients import Connection, asking
from tests.end_to_end.process import PATIENCE, Running, running

SERVING = "leadtime_workers_serving"
REPLACED = "leadtime_workers_replaced_total"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def scraped(service: Running) -> dict[str, float]:
    """Every sample by its name and labels' values, over a connection of its own."""
    text = httpx.get(f"{service.url}/metrics", timeout=PATIENCE).text
    return {
        " ".join([sample.name, *(value for _, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def wait_until_all_serve(service: Running, workers: int = 2) -> list[int]:
    wait_until(lambda: scraped(service)[SERVING] == workers)
    return service.workers


def stop(process: int) -> None:
    """Let a process stand still where it is."""
    os.kill(process, signal.SIGSTOP)
    wait_until(lambda: ") T " in Path(f"/proc/{process}/stat").read_text())


def ask_anew(service: Running, times: int) -> None:
    """Ask so many times, over a connection each: some of them come to either worker."""
    for _ in range(times):
        connection = Connection(service.port)
        connection.ask()
        connection.close()


def test_a_killed_worker_loses_what_it_had_and_nothing_else_and_everything_is_counted(
    models: Path, tmp_path: Path
) -> None:
    clients = 8
    with running(models, tmp_path / "log", workers=2) as service:
        victim, _ = wait_until_all_serve(service)
        with asking(lambda: service.port, clients, keep=True) as kept:
            wait_until(lambda: len(kept.answered) > 200)
            before = len(kept.answered)
            os.kill(victim, signal.SIGKILL)
            ask_anew(service, 8)
            assert service.log.read_text().count(" serves") == 2, "new connections waited for the worker's successor"
            wait_until(lambda: len(kept.answered) > before + 200)
            wait_until_all_serve(service)
        # A connection has one request at a time, and each client had at most one connection to that worker.
        assert len(kept.lost) <= clients
        assert kept.refused == []
        found = scraped(service)
        # What was lost may have been counted before its answer was.
        assert 0 <= found["leadtime_run_rows_sum"] - (len(kept.answered) + 8) <= len(kept.lost)
        assert (found[f"{REPLACED} died"], found["leadtime_windows_under_way"]) == (1, 0)
        assert victim not in service.workers
        assert "it was ended by SIGKILL; another one is started" in service.log.read_text()


def test_a_worker_that_stands_still_is_found_and_replaced_and_others_take_its_connections(
    models: Path, tmp_path: Path
) -> None:
    with running(models, tmp_path / "log", workers=2, hang_seconds=6) as service:
        victim, _ = wait_until_all_serve(service)
        stop(victim)
        ask_anew(service, 20)
        assert victim in service.workers, "they were answered only when it was gone"
        wait_until(lambda: scraped(service).get(f"{REPLACED} hung") == 1)
        assert victim not in wait_until_all_serve(service)
        assert "it stood still; another one is started" in service.log.read_text()


def test_a_worker_that_only_rests_for_a_while_is_left_alone(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", workers=2) as service:
        workers = wait_until_all_serve(service)
        stop(workers[0])
        wait_until(lambda: scraped(service)[SERVING] == 1)
        os.kill(workers[0], signal.SIGCONT)
        assert wait_until_all_serve(service) == workers
        ask_anew(service, 20)


def test_a_service_that_is_stopped_as_a_whole_goes_on_as_it_was(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", workers=2, hang_seconds=0.5) as service:
        workers = wait_until_all_serve(service)
        for number, pause in ((signal.SIGSTOP, 4.0), (signal.SIGCONT, 1.0)):
            for process in (service.process.pid, *workers):
                os.kill(process, number)
            time.sleep(pause)
        assert service.workers == workers


def test_a_worker_that_is_asked_to_stop_is_replaced_before_it_goes_and_nothing_is_lost(
    models: Path, tmp_path: Path
) -> None:
    with running(models, tmp_path / "log", workers=2) as service:
        victim, _ = wait_until_all_serve(service)
        with asking(lambda: service.port, 4, keep=True) as kept, asking(lambda: service.port, 2, keep=False) as new:
            wait_until(lambda: len(kept.answered) > 50)
            os.kill(victim, signal.SIGTERM)
            wait_until(lambda: victim not in service.workers)
            seen = len(kept.answered)
            wait_until(lambda: len(kept.answered) > seen + 50)
        assert (kept.lost, kept.refused, new.lost, new.refused) == ([], [], [], [])
        assert scraped(service)[f"{REPLACED} asked"] == 1


def test_what_waits_at_the_socket_of_a_worker_that_dies_is_answered_by_another(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", workers=2) as service:
        victim, _ = wait_until_all_serve(service)
        stop(victim)
        address = ("127.0.0.1", service.port)
        waiting = [socket.create_connection(address, timeout=PATIENCE) for _ in range(32)]
        for connection in waiting:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        os.kill(victim, signal.SIGKILL)
        for connection in waiting:
            with connection:
                assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_workers_are_copies_of_a_process_that_has_one_thread_and_takes_no_connections(
    models: Path, tmp_path: Path
) -> None:
    with running(models, tmp_path / "log", workers=2) as service:
        wait_until_all_serve(service)
        template = service.template
        assert template is not None
        assert len(list(Path(f"/proc/{template}/task").iterdir())) == 1
        programs = {Path(f"/proc/{process}/cmdline").read_bytes() for process in (template, *service.workers)}
        assert len(programs) == 1
        assert b"service.forkserver" in programs.pop()
        groups = {os.getpgid(process) for process in (service.process.pid, template, *service.workers)}
        assert len(groups) == 4, "a signal to the group of one would reach others"


def test_when_the_process_to_be_copied_dies_workers_go_on_and_there_is_another_one(
    models: Path, tmp_path: Path
) -> None:
    with running(models, tmp_path / "log", workers=2) as service:
        workers = wait_until_all_serve(service)
        template = service.template
        assert template is not None
        os.kill(template, signal.SIGKILL)
        wait_until(lambda: service.template not in (None, template))
        assert service.workers == workers
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: workers[0] not in service.workers)
        assert workers[1] in wait_until_all_serve(service)
        assert scraped(service)[f"{REPLACED} died"] == 1
        ask_anew(service, 20)


def test_a_worker_and_the_process_to_be_copied_may_die_together(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", workers=2) as service:
        victim, other = wait_until_all_serve(service)
        assert service.template is not None
        for process in (service.template, victim):
            os.kill(process, signal.SIGKILL)
        wait_until(lambda: victim not in service.workers)
        assert other in wait_until_all_serve(service)
        ask_anew(service, 20)


def test_where_something_else_runs_in_every_python_process_workers_are_programs_of_their_own(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with running(models, tmp_path / "log", workers=2) as service:
        workers = wait_until_all_serve(service)
        assert service.template is None
        programs = {Path(f"/proc/{worker}/cmdline").read_bytes().split(b"\0")[2] for worker in workers}
        assert programs == {b"service.worker"}
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: workers[0] not in service.workers)
        assert workers[1] in wait_until_all_serve(service)


def test_a_service_whose_starter_ignores_the_ends_of_processes_sees_those_of_its_workers(
    models: Path, tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with running(models, tmp_path / "log", workers=2) as service:
            signal.signal(signal.SIGCHLD, before)
            victim, _ = wait_until_all_serve(service)
            assert service.template is not None
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: victim not in service.workers)
            wait_until_all_serve(service)
            assert "it was ended by SIGKILL; another one is started" in service.log.read_text()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_worker_is_replaced_though_the_process_to_be_copied_stands_still_and_dies(
    models: Path, tmp_path: Path
) -> None:
    with running(models, tmp_path / "log", workers=2) as service:
        victim, _ = wait_until_all_serve(service)
        template = service.template
        assert template is not None
        stop(template)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in service.workers)
        os.kill(template, signal.SIGKILL)
        wait_until_all_serve(service)
        ask_anew(service, 30)

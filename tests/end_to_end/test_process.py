"""The process: its start, its stop, its settings, its workers."""

import json
import select
import signal
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.artifacts import write_artifact
from tests.end_to_end.process import PATIENCE, ROOT, Running, environment, running, stop
from tests.end_to_end.test_metrics import scraped


@pytest.fixture
def slow_models(tmp_path: Path) -> Path:
    """A model that slides a long window through an LSTM, so that a forecast of many steps takes some seconds."""
    write_artifact(tmp_path / "models" / "default" / "1" / "model.onnx", "bidirectional", context_length=128)
    return tmp_path / "models"


def start_long_forecast(service: Running, windows: int = 1000) -> socket.socket:
    """Send a request that keeps the service busy, and return its connection once the service works on it.

    Of the number of windows given here, 64 take a second or two, and 1000 outlast every test.
    """
    body = json.dumps({"windows": [list(range(128))] * windows, "horizon": 1000}).encode()
    head = f"POST /forecast/multi-step HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with service.client() as client:
        connection = socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE)
        connection.sendall(head.encode() + body)
        while is_waiting(connection) and scraped(client).get("leadtime_windows_under_way", 0) < windows:
            time.sleep(0.01)
    assert is_waiting(connection), "the forecast was done too soon to show anything"
    return connection


def is_waiting(connection: socket.socket) -> bool:
    return not select.select([connection], [], [], 0)[0]


def read_answer(connection: socket.socket) -> tuple[str, bytes]:
    """Read one response to its end: the status line and the body."""
    with connection, connection.makefile("rb") as stream:
        status = stream.readline().decode().strip()
        length = 0
        while (line := stream.readline().strip().lower()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name == b"content-length" else length
        return status, stream.read(length)


def test_a_forecast_under_way_is_finished_when_the_service_is_told_to_stop(slow_models: Path, tmp_path: Path) -> None:
    with running(slow_models, tmp_path / "log", notice_seconds=0.1, drain_seconds=int(PATIENCE)) as service:
        connection = start_long_forecast(service, windows=64)
        service.process.send_signal(signal.SIGTERM)
        status, body = read_answer(connection)
        assert status == "HTTP/1.1 200 OK"
        assert [len(entry["values"]) for entry in json.loads(body)["forecasts"]] == [1000] * 64
        assert service.process.wait(PATIENCE) == 0
        assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_forecast_that_outlasts_the_drain_is_cut_off_with_a_reason(
    slow_models: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with running(slow_models, tmp_path / "log", drain_seconds=0) as service:
        connection = start_long_forecast(service)
        service.process.send_signal(number)
        status, body = read_answer(connection)
        assert status == "HTTP/1.1 503 Service Unavailable"
        assert json.loads(body)["detail"] == "the service stopped before the forecast was complete"
        assert service.process.wait(PATIENCE) == 0
        assert "Traceback" not in service.log.read_text()


def test_a_stop_is_announced_by_readiness_while_requests_are_still_answered(slow_models: Path, tmp_path: Path) -> None:
    with running(slow_models, tmp_path / "log", notice_seconds=10 * PATIENCE) as service, service.client() as client:
        assert client.get("/health/ready").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        while (ready := client.get("/health/ready")).status_code == 200:
            pass
        assert (ready.status_code, ready.json()["detail"]) == (503, "the service is stopping")
        assert client.get("/health/live").status_code == 200
        assert httpx.post(f"{service.url}/forecast", json={"window": [1, 2]}, timeout=PATIENCE).status_code == 200
        service.process.send_signal(signal.SIGTERM)  # a second one ends the notice
        assert service.process.wait(PATIENCE) == 0


def test_an_interrupt_from_the_keyboard_ends_the_service_at_once_and_well(slow_models: Path, tmp_path: Path) -> None:
    with running(slow_models, tmp_path / "log", notice_seconds=10 * PATIENCE) as service:
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(PATIENCE) == 0
        assert "Traceback" not in service.log.read_text()


def test_the_work_for_a_client_that_hangs_up_is_given_up_and_no_failure(slow_models: Path, tmp_path: Path) -> None:
    with running(slow_models, tmp_path / "log", drain_seconds=10 * int(PATIENCE)) as service:
        for _ in range(5):
            start_long_forecast(service).close()
        status, _ = read_answer(start_long_forecast(service, windows=64))
        assert status == "HTTP/1.1 200 OK"
        assert stop(service.process) == 0, "what was given up was waited for"
        assert "Traceback" not in service.log.read_text()


def test_several_workers_open_the_models_share_the_port_and_stop_together(slow_models: Path, tmp_path: Path) -> None:
    with running(slow_models, tmp_path / "log", workers=2) as service:
        while service.log.read_text().count("default/1: served") < 2:
            pass
        assert httpx.post(f"{service.url}/forecast", json={"window": [1, 2]}, timeout=PATIENCE).status_code == 200
        assert stop(service.process) == 0
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{service.url}/health/live", timeout=PATIENCE)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LEADTIME_PROT": "80"}, "leadtime: LEADTIME_PROT is no setting; the nearest is LEADTIME_PORT\n"),
        ({"LEADTIME_WORKERS": "many"}, "leadtime: LEADTIME_WORKERS: it must be a valid integer"),
        ({"LEADTIME_MODELS": __file__}, "leadtime: LEADTIME_MODELS: it names a file: name the folder"),
        (
            {"LEADTIME_SIGNING_KEYS": __file__},
            "leadtime: LEADTIME_SIGNING_KEYS: test_process.py holds no public key (PEM)",
        ),
        ({"LEADTIME_METRICS": "/proc/none"}, "leadtime: LEADTIME_METRICS: nothing can be written there: "),
    ],
)
def test_a_wrong_setting_is_told_in_one_line_with_exit_code_2(variables: dict[str, str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_arguments_are_refused_and_not_passed_over() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "--port", "80"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "leadtime: it takes no arguments but `keys`, `signing-keys` and `sign`: set LEADTIME_* environment variables "
        "instead\n"
    )


def test_a_port_that_is_taken_is_told_without_a_traceback(service: Running) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=environment(LEADTIME_PORT=str(service.port)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode != 0
    assert "address already in use" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_a_second_service_of_several_workers_does_not_share_the_port_of_the_first(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", workers=2) as service:
        done = subprocess.run(
            [sys.executable, "-m", "service"],
            cwd=ROOT,
            env=environment(LEADTIME_PORT=str(service.port), LEADTIME_WORKERS="2"),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 3
    assert "address already in use" in done.stderr.lower()


def test_connections_that_are_opened_at_once_are_spread_over_the_workers(models: Path, tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    body = b'{"window": [1, 2, 3]}'
    request = b"POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with running(models, tmp_path / "log", workers=2, metrics=counts) as service, ExitStack() as stack:
        address = ("127.0.0.1", service.port)
        wait_for(lambda: listeners(service.port) == 2)
        connections = [stack.enter_context(socket.create_connection(address, timeout=PATIENCE)) for _ in range(64)]
        for connection in connections:
            connection.sendall(request)
        for connection in connections:
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        answered = [array("d", file.read_bytes()) for file in counts.glob("*.cells")]
    # The first three numbers of a worker are not of its runs; any of the next 13 that is not 0 is. The process that
    # keeps the workers counts as well, but runs nothing.
    assert sum(any(cells[3:16]) for cells in answered) == 2


def listeners(port: int) -> int:
    """How many sockets of this machine listen on a port of IPv4."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_server_does_not_name_itself_and_keeps_connections(client: httpx.Client) -> None:
    response = client.get("/health/live")
    assert "server" not in response.headers
    assert response.headers.get("connection", "keep-alive") == "keep-alive"

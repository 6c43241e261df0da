"""Server processes on the loopback, started for a measurement and stopped after it."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 30.0
_STOP_SECONDS = 40.0


@contextlib.contextmanager
def service(core: int | None) -> Iterator[int]:
    """Run the service with one worker and its bundled model; yields its port."""
    port = _free_port()
    environment = {"LEADTIME_PORT": str(port), "LEADTIME_LOG_LEVEL": "warning"}
    with _running([sys.executable, "-m", "service"], environment, port, "/health/ready", core):
        yield port


@contextlib.contextmanager
def bare(core: int | None) -> Iterator[int]:
    """Run the reference application on the same server software; yields its port."""
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.bare:application", "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    command += ["--lifespan", "off"]
    with _running(command, {}, port, "/", core):
        yield port


@contextlib.contextmanager
def _running(
    command: Sequence[str], settings: Mapping[str, str], port: int, path: str, core: int | None
) -> Iterator[None]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LEADTIME_")}
    process = subprocess.Popen(command, cwd=_ROOT, env={**environment, **settings})
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        _wait_until_ready(process, port, path)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server on port {port} ended with status {process.returncode}")
        with contextlib.suppress(OSError), contextlib.closing(_connection(port)) as connection:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.02)
    raise RuntimeError(f"the server on port {port} was not ready within {_START_SECONDS:.0f} s")


def post(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    """Send one JSON body; gives the status and the answer's body."""
    with contextlib.closing(_connection(port)) as connection:
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


def _connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""The service as a process of its own, on a free port of the loopback."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds after which something that should have happened has not."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running service."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def client(self) -> httpx.Client:
        """A client of it, which follows no redirects."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE)


@contextmanager
def running(models: Path | None, log: Path, **settings: object) -> Iterator[Running]:
    """Run `python -m service` until the block is left; `settings` are lower-case names of LEADTIME_ variables."""
    port = free_port()
    given = {f"LEADTIME_{name.upper()}": str(value) for name, value in settings.items()}
    if models is not None:
        given["LEADTIME_MODELS"] = str(models)
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=ROOT,
            env=environment(LEADTIME_PORT=str(port), **{"LEADTIME_NOTICE_SECONDS": "0", **given}),
            stderr=stderr,
        )
    service = Running(f"http://127.0.0.1:{port}", port, process, log)
    try:
        wait_until_live(service)
        yield service
    finally:
        stop(process)


def environment(**variables: str) -> dict[str, str]:
    """This process's environment with no other LEADTIME_ variables than those given."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LEADTIME_")} | variables


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_live(service: Running) -> None:
    """Wait until the service answers; fail if its process ends before."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert service.process.poll() is None, service.log.read_text()
        try:
            httpx.get(f"{service.url}/health/live", timeout=PATIENCE)
        except httpx.TransportError:
            time.sleep(0.02)
            continue
        return
    raise AssertionError(service.log.read_text())


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ask a process to stop, and return its exit code."""
    process.terminate()
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise

"""The service as a process of its own, on a free port of the loopback."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from service.process import WORKER

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds after which something that should have happened has not."""

_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


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

    @property
    def workers(self) -> list[int]:
        """The processes of the workers that live, of several."""
        return [child for child in children(self.process.pid) if name_of(child) == WORKER]

    @property
    def template(self) -> int | None:
        """The process of which workers are copies, while it lives."""
        others = [child for child in children(self.process.pid) if name_of(child) not in (WORKER, None)]
        return others[0] if len(others) == 1 else None


@contextmanager
def running(models: Path | None, log: Path, **settings: object) -> Iterator[Running]:
    """Run `python -m service`, with one worker unless told otherwise, until the block is left.

    `settings` are lower-case names of LEADTIME_ variables.
    """
    given = {"LEADTIME_WORKERS": "1"} | {f"LEADTIME_{name.upper()}": str(value) for name, value in settings.items()}
    if models is not None:
        given["LEADTIME_MODELS"] = str(models)
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=ROOT,
            env=environment(LEADTIME_PORT="0", **{"LEADTIME_NOTICE_SECONDS": "0", **given}),
            stderr=stderr,
        )
    try:
        yield wait_until_live(process, log)
    finally:
        stop(process)


def children(process: int) -> list[int]:
    """The processes whose parent a process is."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def name_of(process: int) -> str | None:
    """What a process is called; None where it is gone, or as good as gone."""
    with suppress(OSError):
        if ") Z " not in Path(f"/proc/{process}/stat").read_text():
            return Path(f"/proc/{process}/comm").read_text().rstrip()
    return None


def environment(**variables: str) -> dict[str, str]:
    """This process's environment with no other LEADTIME_ variables than those given."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LEADTIME_")} | variables


def wait_until_live(process: subprocess.Popen[bytes], log: Path) -> Running:
    """Wait until the service answers at the address that its log tells; fail if its process ends before."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        said = log.read_text()
        assert process.poll() is None, said
        if address := _ADDRESS.search(said):
            with suppress(httpx.TransportError):  # of several workers none may listen yet
                httpx.get(f"{address[0]}/health/live", timeout=PATIENCE)
                return Running(address[0], int(address[1]), process, log)
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ask a process to stop, and return its exit code."""
    process.terminate()
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise

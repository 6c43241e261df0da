"""The service in processes of its own, to be harmed: which they are, what they hold, how they are ended."""

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from benchmarks.questions import ROOT
from benchmarks.servers import free_port, status_of, tree
from service.process import WORKER

PATIENCE: Final = 180.0
"""Seconds after which what should have happened has not."""

# Connections that are opened to see whether every worker answers: two workers share them but for one time in 30,000.
_PROBES: Final = 16

_LISTEN: Final = "0A"
_ESTABLISHED: Final = "01"
_LAST_OF_LOG: Final = 2000


class ServiceFailed(Exception):
    """The service did not start, or did not do in time what it had to; the message has the end of its log."""


class Instance:
    """One service at one port, which may be ended and started again."""

    def __init__(self, models: Path | None, *, port: int | None = None, **settings: object) -> None:
        """Keep what it is started with; `settings` are lower-case names of LEADTIME_ variables."""
        self.port = free_port() if port is None else port
        given = {"workers": 1, "host": "127.0.0.1", "port": self.port, **settings}
        given |= {} if models is None else {"models": models}
        self._settings = {f"LEADTIME_{name.upper()}": str(value) for name, value in given.items()}
        self._folder = tempfile.TemporaryDirectory(prefix="chaos-")
        self._log = Path(self._folder.name) / "service.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Instance":
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def process(self) -> int:
        """The process that was started."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said since its first start."""
        return self._log.read_text(errors="replace")

    @property
    def tracebacks(self) -> int:
        """How many tracebacks are in its log."""
        return self.log.count("Traceback (most recent call last)")

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            ServiceFailed: it ended, or was not ready in time.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LEADTIME_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                cwd=ROOT,
                env=environment | self._settings,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.wait_until(self.is_ready, "ready")
        self.wait_until(self.is_whole, "whole")

    def signal(self, number: int) -> None:
        """Send a signal to the process that was started."""
        os.kill(self.process, number)

    def stop(self) -> int | None:
        """Ask it to stop, and return its exit code; one that does not is killed, with all below it, and has none."""
        assert self._process is not None
        below = tree(self.process)[1:] if self._process.poll() is None else []
        self._process.terminate()
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None
        finally:
            for left in below:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left, 9)

    def wait(self) -> int:
        """Wait for its end after a signal; returns the exit code.

        Raises:
            ServiceFailed: it does not end in time.
        """
        assert self._process is not None
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise ServiceFailed(f"it did not end within {PATIENCE:.0f} s; its log: {self._end_of_log()}") from None

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
        """Wait until something is true of it; returns the seconds that it took.

        Raises:
            ServiceFailed: it ended meanwhile, or it took too long.
        """
        assert self._process is not None
        begin = time.monotonic()
        while not condition():
            if self._process.poll() is not None:
                raise ServiceFailed(f"it ended with status {self._process.returncode}: {self._end_of_log()}")
            if time.monotonic() - begin > seconds:
                raise ServiceFailed(f"it was not {what} within {seconds:.0f} s; its log: {self._end_of_log()}")
            time.sleep(0.01)
        return time.monotonic() - begin

    def is_ready(self) -> bool:
        """Whether it answers that it is ready."""
        return self.get("/health/ready")[0] == 200

    def is_whole(self) -> bool:
        """Whether there are as many workers as there should be, and each answers."""
        workers = set(self.workers)
        return len(workers) == int(self._settings["LEADTIME_WORKERS"]) and workers == self._answering()

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET; 0 where there was no answer."""
        try:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""

    @property
    def workers(self) -> list[int]:
        """The processes that take connections: of several, not those that only hold the sockets for them."""
        listening = {inode for state, _, inode in self._sockets() if state == _LISTEN}
        holding = sorted(process for process in tree(self.process) if listening & _sockets_of(process))
        return [process for process in holding if _name_of(process) == WORKER] or holding

    def connections(self) -> dict[int, int]:
        """The worker at the other end of each connection, by the client's port."""
        peers = {inode: peer for state, peer, inode in self._sockets() if state == _ESTABLISHED}
        return {peers[inode]: process for process in self.workers for inode in _sockets_of(process) & peers.keys()}

    def memory(self) -> float:
        """Resident megabytes (10^6 bytes) of all workers together."""
        return sum(status_of(worker, "VmRSS") for worker in self.workers)

    def descriptors(self) -> int:
        """Open descriptors of all workers together."""
        return sum(len(_descriptors_of(worker)) for worker in self.workers)

    def _answering(self) -> set[int]:
        """The workers that answer on some connections that are opened side by side."""
        ports: set[int] = set()
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError, http.client.HTTPException):
                for _ in range(_PROBES):
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
                    stack.enter_context(contextlib.closing(connection)).request("GET", "/health/live")
                    port = connection.sock.getsockname()[1]
                    connection.getresponse().read()
                    ports.add(port)
            return {worker for port, worker in self.connections().items() if port in ports}

    def _sockets(self) -> Iterator[tuple[str, int, str]]:
        """State, the peer's port and inode of every socket of IPv4 at this port."""
        ours = f":{self.port:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(ours):
                yield fields[3], int(fields[2].rpartition(":")[2], 16), fields[9]

    def _end_of_log(self) -> str:
        return self.log[-_LAST_OF_LOG:]


def _descriptors_of(process: int) -> list[str]:
    """What the descriptors of a process lead to."""
    found = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(link.readlink()))
    return found


def _name_of(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().rstrip()
    return ""


def _sockets_of(process: int) -> set[str]:
    return {link[8:-1] for link in _descriptors_of(process) if link.startswith("socket:[")}

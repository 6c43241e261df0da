"""Server processes on the loopback: started for a measurement, stopped while another is measured, ended after it."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from benchmarks.questions import CACHE, MODELS, ROOT, Question, artifact

SERVICE: Final = "Leadtime"
REFERENCE: Final = "bare reference"
CEILING: Final = "answers {}"

_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 40.0
_TICK: Final = os.sysconf("SC_CLK_TCK")


class Server:
    """A server that runs, with all the processes that it has made."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.port = port
        self.pausable = True
        """Whether it bears to be stopped for a while; where not, it must be idle by itself."""
        self._process = process

    @property
    def processes(self) -> list[int]:
        """The server's process and all below it."""
        return tree(self._process.pid)

    def pause(self) -> None:
        """Stop every process where it stands, so that what it does when idle takes no time from the others."""
        if self.pausable:
            self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the processes go on."""
        self._signal(signal.SIGCONT)

    def pin(self, cores: str) -> None:
        """Move every thread of every process to some cores."""
        for process in self.processes:
            command = ["taskset", "--all-tasks", "--cpu-list", "--pid", cores, str(process)]
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def cpu_seconds(self) -> float:
        """CPU time that the server's processes have taken so far."""
        return sum(_cpu_seconds(process) for process in self.processes)

    def idle_share(self, seconds: float = 2.0) -> float:
        """The share of a core that the server takes while it is not asked anything."""
        before = self.cpu_seconds()
        time.sleep(seconds)
        return (self.cpu_seconds() - before) / seconds

    def memory(self) -> float:
        """Resident megabytes (10^6 bytes) of the largest process: with one worker, the worker."""
        return max(status_of(process, "VmRSS") for process in self.processes)

    @contextlib.contextmanager
    def peak_memory(self) -> Iterator[list[float]]:
        """Notes the megabytes by which the largest process rose above where it was, at most, within the block."""
        worker = max(self.processes, key=lambda process: status_of(process, "VmRSS"))
        Path(f"/proc/{worker}/clear_refs").write_text("5")  # the peak starts anew
        before = status_of(worker, "VmRSS")
        rise: list[float] = []
        yield rise
        rise.append(status_of(worker, "VmHWM") - before)

    def ask(self, question: Question) -> list[float]:
        """Ask once, and read the answer.

        Raises:
            RuntimeError: the status is not 200.
        """
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("POST", question.path, question.body, dict(question.headers))
            response = connection.getresponse()
            body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{self.name}: {question.path} answered {response.status}: {body[:500]!r}")
        return list(question.read({name.lower(): value for name, value in response.getheaders()}, body))

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


@contextlib.contextmanager
def running(
    name: str, command: Sequence[str], *, ready: str, cores: str | None, port: int, settings: Mapping[str, str]
) -> Iterator[Server]:
    """Run a server until the block ends; what it prints goes to a log file.

    Args:
        name: what to call it.
        command: how to start it.
        ready: the path that answers 200 to a GET when it is ready.
        cores: the cores to run on, as `taskset` takes them; None for any.
        port: where it will listen.
        settings: environment variables, beside those there are.

    Raises:
        RuntimeError: it ended, or was not ready in time; the message names the log file.
    """
    log = CACHE / "logs" / f"{name.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LEADTIME_", "PYTHON"))}
    pinned = [*(["taskset", "--cpu-list", cores] if cores is not None else []), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned, cwd=ROOT, env={**environment, **settings}, stdout=output, stderr=subprocess.STDOUT
        )
    server = Server(name, port, process)
    below: list[int] = []
    try:
        _wait_until_ready(server, process, ready, log)
        below = server.processes  # noted while they are below: those of a server that dies are left to the system
        yield server
    finally:
        server.resume()
        below += server.processes
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for left in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)


def service(
    model: str | None, cores: str | None, workers: int = 1, *, settings: Mapping[str, str] = MappingProxyType({})
) -> contextlib.AbstractContextManager[Server]:
    """Run the service with one of the benchmarks' models; None: with the bundled one.

    Its settings are those that it has by default, but for `settings`.
    """
    port = free_port()
    given = {"LEADTIME_PORT": str(port), "LEADTIME_WORKERS": str(workers), "LEADTIME_LOG_LEVEL": "warning", **settings}
    if model is not None:
        given |= {"LEADTIME_MODELS": str(MODELS), "LEADTIME_DEFAULT_MODEL": model}
    command = [sys.executable, "-m", "service"]
    return running(f"service {model}", command, ready="/health/ready", cores=cores, port=port, settings=given)


def reference(model: str, cores: str | None) -> contextlib.AbstractContextManager[Server]:
    """Run the bare reference with the service's scheduler."""
    return _bare("reference", model, cores)


def ceiling(cores: str | None) -> contextlib.AbstractContextManager[Server]:
    """Run the application that does nothing."""
    return _bare("ceiling", "uni", cores)


def _bare(factory: str, model: str, cores: str | None) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"benchmarks.bare:{factory}", "--factory", "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    command += ["--lifespan", "off"]
    settings = {"BENCH_MODEL": str(artifact(model))}
    return running(f"{factory} {model}", command, ready="/", cores=cores, port=port, settings=settings)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status_of(process: int, field: str) -> float:
    """A field of the kernel's status of a process that is given in kB, as megabytes; 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], path: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{server.name} ended with status {process.returncode}; see {log}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return
        time.sleep(0.02)
    raise RuntimeError(f"{server.name} was not ready within {_START_SECONDS:.0f} s; see {log}")


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int(_stat(int(folder.name))[1])
                children.setdefault(parent, []).append(int(folder.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def _cpu_seconds(process: int) -> float:
    with contextlib.suppress(OSError):
        fields = _stat(process)
        return (int(fields[11]) + int(fields[12])) / _TICK
    return 0.0


def _stat(process: int) -> list[str]:
    """The fields of the kernel's line on a process, from its state on: its name before that may hold anything."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()

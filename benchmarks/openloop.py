"""Open-loop load: requests leave at times that were set beforehand, whether or not those before have been answered.

A generator that waits for an answer before it asks again asks less where a server is slow, and so hides how slow it is
(https://github.com/giltene/wrk2). Here every request has a time at which it is due, and all times count from it, the
wait for a connection among them. The generator runs in a process of its own, which `load` starts.
"""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.questions import ROOT, Question

_TICK: Final = 0.001  # seconds between looks at what is due
_PATIENCE: Final = 4.0  # times the deadline that a client waits before it hangs up
_MOST_CONNECTIONS: Final = 4000
_GRACE: Final = 20.0  # seconds beyond its own that the process may take


@dataclass(frozen=True, slots=True)
class Plan:
    """A load: so many requests a second, at random times, for so long; the first `warm` seconds are not told of."""

    port: int
    path: str
    headers: dict[str, str]
    body: str
    rate: float
    seconds: float
    warm: float
    deadline: float
    """Seconds from when a request is due until its answer is worth nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the requests of a load; rates are a second, times in milliseconds from when each was due."""

    offered: float
    goodput: float
    """Answers of 200 that came within the deadline."""
    accepted: float
    """Answers of 200, late ones included."""
    accepted_p50: float | None
    accepted_p99: float | None
    refused: float
    """Answers of 429 and 503."""
    refused_p50: float | None
    refused_p99: float | None
    expired: float
    """Answers of 504."""
    failed: float
    """Other answers, and connections that were closed."""
    unanswered: float
    """Requests that were given up, or for which there was no connection."""


class OpenLoopError(Exception):
    """The generator failed, or could not keep up with the rate that it was to send at."""


def load(question: Question, port: int, *, rate: float, seconds: float, deadline: float, core: int | None) -> Outcome:
    """Offer a load for some seconds after one to warm up.

    Raises:
        OpenLoopError: the generator failed.
    """
    told = {**question.headers, "x-request-timeout-ms": str(round(deadline * 1000))}
    plan = Plan(port, question.path, told, question.body.decode("latin-1"), rate, seconds + 1, 1.0, deadline)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        file.write_text(json.dumps(asdict(plan)))
        command = [sys.executable, "-m", "benchmarks.openloop", str(file)]
        if core is not None:
            command = ["taskset", "--cpu-list", str(core), *command]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds + 1 + _GRACE
        )
    if done.returncode != 0:
        raise OpenLoopError(f"the generator ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    return Outcome(**json.loads(done.stdout))


class _Connection(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._received = b""
        self._transport: Any = None
        self.due: float | None = None
        """When the request was due that is on its way."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, due: float, request: bytes) -> None:
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received = data = self._received + data if self._received else data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = data[:end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(data) < end + length or self.due is None:
            return
        self._received = b""
        due, self.due = self.due, None
        self._load.answered(int(head[9:12]), due)
        if b"\r\nconnection: close" in head:
            self._transport.close()
        else:
            self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)

    def hang_up(self) -> None:
        self.due = None
        self._transport.abort()


class _Load:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        lines = [f"POST {plan.path} HTTP/1.1", "host: bench", *(f"{name}: {one}" for name, one in plan.headers.items())]
        head = "\r\n".join([*lines, f"content-length: {len(plan.body)}", "", ""])
        self._request = (head + plan.body).encode("latin-1")
        self._free: deque[_Connection] = deque()
        self._open: set[_Connection] = set()
        self._opening = 0
        self._waiting: deque[float] = deque()
        self._results: list[tuple[float, int, float]] = []
        """When each request was due, its status (0 = none), and how long it took."""

    async def run(self) -> Outcome:
        plan, rng = self._plan, random.Random(0)
        begin = time.perf_counter()
        due = begin
        while due < begin + plan.seconds:
            now = time.perf_counter()
            while due <= now:
                self._waiting.append(due)
                due += rng.expovariate(plan.rate)
            self._send(now)
            await asyncio.sleep(_TICK)
        end = time.perf_counter() + _PATIENCE * plan.deadline
        while time.perf_counter() < end and (self._waiting or any(one.due is not None for one in self._open)):
            self._send(time.perf_counter())
            await asyncio.sleep(0.01)
        for connection in list(self._open):
            if connection.due is not None:
                self._results.append((connection.due, 0, 0.0))
            connection.hang_up()
        self._results += [(due, 0, 0.0) for due in self._waiting]
        return _outcome(self._results, plan, begin)

    def answered(self, status: int, due: float) -> None:
        self._results.append((due, status, time.perf_counter() - due))

    def free(self, connection: _Connection) -> None:
        if self._waiting:
            connection.send(self._waiting.popleft(), self._request)
        else:
            self._free.append(connection)

    def lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection.due is not None:
            self._results.append((connection.due, 1, 0.0))
        elif connection in self._free:
            self._free.remove(connection)

    def _send(self, now: float) -> None:
        """Send what is due, on connections that are free; open as many as are missing, and give up what is too old."""
        latest = now - _PATIENCE * self._plan.deadline
        while self._waiting and self._free:
            # The one used last: those that are not needed stay idle.
            self._free.pop().send(self._waiting.popleft(), self._request)
        while self._waiting and self._waiting[0] < latest:
            self._results.append((self._waiting.popleft(), 0, 0.0))
        for connection in [one for one in self._open if one.due is not None and one.due < latest]:
            assert connection.due is not None
            self._results.append((connection.due, 0, 0.0))
            connection.hang_up()
        missing = min(len(self._waiting) - self._opening, _MOST_CONNECTIONS - len(self._open) - self._opening, 200)
        for _ in range(missing):
            self._opening += 1
            asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._plan.port)
        except OSError:
            return
        finally:
            self._opening -= 1
        self._open.add(connection)
        self.free(connection)


def _outcome(results: Sequence[tuple[float, int, float]], plan: Plan, begin: float) -> Outcome:
    """What became of the requests that were due after the time to warm up."""
    told = [(status, taken) for due, status, taken in results if due >= begin + plan.warm]
    seconds = plan.seconds - plan.warm
    accepted = [taken for status, taken in told if status == 200]
    refused = [taken for status, taken in told if status in (429, 503)]
    expired = sum(status == 504 for status, _ in told)
    unanswered = sum(status == 0 for status, _ in told)
    failed = len(told) - len(accepted) - len(refused) - expired - unanswered
    return Outcome(
        offered=len(told) / seconds,
        goodput=sum(taken <= plan.deadline for taken in accepted) / seconds,
        accepted=len(accepted) / seconds,
        accepted_p50=_milliseconds(accepted, 50),
        accepted_p99=_milliseconds(accepted, 99),
        refused=len(refused) / seconds,
        refused_p50=_milliseconds(refused, 50),
        refused_p99=_milliseconds(refused, 99),
        expired=expired / seconds,
        failed=failed / seconds,
        unanswered=unanswered / seconds,
    )


def _milliseconds(times: Sequence[float], percent: int) -> float | None:
    if len(times) < 2:
        return times[0] * 1000 if times else None
    return statistics.quantiles(times, n=100)[percent - 1] * 1000


def main() -> None:
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(_Load(plan).run())
    sys.stdout.write(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()

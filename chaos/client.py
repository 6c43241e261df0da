"""`python -m chaos.client`: ask at a steady rate until told to stop (SIGTERM), and keep what became of every request.

What to ask comes as one line of JSON on standard input, and what was answered goes into a file of numpy's; once the
first answer is there, a line is printed. Requests are due at even times, whether those before have been answered or
not; one that finds no connection free waits for one. A request fails where it has no answer within the patience that is
told, where its connection ends before the answer does, or where the status is another than is wanted.
"""

import asyncio
import json
import signal
import sys
from array import array
from collections import deque
from time import monotonic
from typing import Any, Final

import numpy as np
import uvloop

_TICK: Final = 0.001
_AGAIN: Final = 0.02
_END_OF_HEAD: Final = b"\r\n\r\n"


class _Connection(asyncio.Protocol):
    """A connection with at most one request on its way."""

    def __init__(self, client: "_Client") -> None:
        self.client = client
        self.transport: asyncio.Transport
        self.port = 0
        self.question = -1
        self.due = self.sent = 0.0
        self.received = b""
        self.is_open = False

    def connection_made(self, transport: Any) -> None:
        self.transport, self.is_open = transport, True
        self.port = transport.get_extra_info("sockname")[1]
        self.client.is_free(self)

    def ask(self, question: int, due: float) -> None:
        self.question, self.due, self.sent, self.received = question, due, monotonic(), b""
        self.transport.write(self.client.questions[question])

    def data_received(self, data: bytes) -> None:
        self.received = received = self.received + data if self.received else data
        head = received.find(_END_OF_HEAD)
        if head < 0:
            return
        lines = received[:head].lower()
        at = lines.find(b"content-length:")
        length = 0 if at < 0 else int(lines[at + 15 :].partition(b"\r")[0])
        if len(received) < head + 4 + length:
            return
        self.client.keep(self, int(received[9:12]), received[head + 4 :])
        self.question = -1
        if b"\r\nconnection: close" in lines:
            self.is_open = False
            self.transport.close()
        else:
            self.client.is_free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self.question >= 0:
            reason = "the answer broke off" if self.received else "no answer came"
            self.client.fail(self, f"{reason}: {type(error).__name__ if error else 'closed'}")
            self.question = -1
        self.client.open_another()


class _Client:
    """All connections, and what is known of the requests."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.questions = [question.encode("latin-1") for question in told["questions"]]
        self.wanted: list[int] = told["statuses"]
        self.patience: float = told["patience"]
        self.free: deque[_Connection] = deque()
        self.open: set[_Connection] = set()
        self.waiting: deque[tuple[int, float]] = deque()
        self.times = {name: array("d") for name in ("due", "sent", "done")}
        self.facts = {name: array("q") for name in ("question", "status", "answer", "port")}
        self.answers: dict[bytes, int] = {}
        self.failures: list[tuple[float, int, str]] = []
        self.issued = 0
        self.stopping = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        for _ in range(self.told["connections"]):
            self.open_another()
        begin, rate, most = monotonic(), self.told["rate"], self.told["seconds"]
        looked_at = begin
        while not self.stopping.is_set() and (now := monotonic()) - begin < most:
            while self.issued < (now - begin) * rate:
                self._ask(self.issued % len(self.questions), begin + self.issued / rate)
                self.issued += 1
            if now - looked_at > 0.25:
                looked_at = now
                self._give_up(now)
            await asyncio.sleep(_TICK)
        self.stopping.set()
        deadline = monotonic() + self.patience
        while (self.waiting or any(one.question >= 0 for one in self.open)) and monotonic() < deadline:
            await asyncio.sleep(_TICK)
        self._give_up(float("inf"))

    def _ask(self, question: int, due: float) -> None:
        while self.free:
            connection = self.free.popleft()
            if connection.is_open and not connection.transport.is_closing():
                connection.ask(question, due)
                return
        self.waiting.append((question, due))

    def is_free(self, connection: _Connection) -> None:
        if self.waiting:
            connection.ask(*self.waiting.popleft())
        else:
            self.free.append(connection)

    def open_another(self) -> None:
        task = asyncio.ensure_future(self._open())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _open(self) -> None:
        connection = _Connection(self)
        self.open = {one for one in self.open if one.is_open or one.question >= 0}
        while not self.stopping.is_set() or self.waiting:
            try:
                await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", self.told["port"])
            except OSError:
                await asyncio.sleep(_AGAIN)
            else:
                self.open.add(connection)
                return

    def _give_up(self, now: float) -> None:
        for connection in self.open:
            if connection.question >= 0 and now - connection.sent > self.patience:
                self.fail(connection, f"no answer within {self.patience:.0f} s")
                connection.question = -1
                connection.transport.abort()
        while self.waiting and now - self.waiting[0][1] > self.patience:
            self.failures.append((monotonic(), 0, f"no connection within {self.patience:.0f} s"))
            self.waiting.popleft()

    def keep(self, connection: _Connection, status: int, body: bytes) -> None:
        if not self.times["done"]:
            print("answered", flush=True)
        for name, value in (("due", connection.due), ("sent", connection.sent), ("done", monotonic())):
            self.times[name].append(value)
        answer = self.answers.setdefault(body, len(self.answers))
        question, port = connection.question, connection.port
        for name, fact in (("question", question), ("status", status), ("answer", answer), ("port", port)):
            self.facts[name].append(fact)
        if status != self.wanted[connection.question]:
            self.fail(connection, f"status {status}: {body[:200]!r}")

    def fail(self, connection: _Connection, reason: str) -> None:
        self.failures.append((monotonic(), connection.port, reason))

    def write(self) -> None:
        np.savez(
            self.told["file"],
            **{name: np.array(values) for name, values in {**self.times, **self.facts}.items()},  # type: ignore[arg-type]
            answers=np.frombuffer(b"".join(self.answers), np.uint8),
            lengths=np.array([len(answer) for answer in self.answers], np.int64),
            failures=np.array(json.dumps(self.failures)),
            issued=np.array(self.issued),
        )


def main() -> None:
    told = json.loads(sys.stdin.readline())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def ask() -> _Client:
            client = _Client(told)
            await client.run()
            return client

        runner.run(ask()).write()


if __name__ == "__main__":
    main()

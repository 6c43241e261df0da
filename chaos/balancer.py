"""`python -m chaos.balancer PORT BACKEND …`: a small balancer, of the kind that stands before services.

It asks each backend over and over whether it is ready, and sends requests to those that are, over connections that it
keeps. It does what balancers do and no more: a request that nobody has seen goes to another backend, and one that a
backend has seen is never sent again. It closes a backend's connection where the answer says `connection: close`, and
those that are idle where the backend is not ready any more.
"""

import asyncio
import contextlib
import sys
from collections import deque
from typing import Any, Final

import uvloop

_LOOK_SECONDS: Final = 0.05
_PATIENCE: Final = 1.0
_END_OF_HEAD: Final = b"\r\n\r\n"
_READINESS: Final = b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
_BAD_GATEWAY: Final = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"


class Backend:
    """A service behind the balancer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_ready = False
        self.busy = 0
        self.idle: deque[_Behind] = deque()

    async def look_on(self, balancer: "Balancer") -> None:
        """Ask whether it is ready, for as long as the balancer runs."""
        while True:
            try:
                ready = await asyncio.wait_for(self._ask(), _PATIENCE)
            except (OSError, TimeoutError):
                ready = False
            self.tell(ready)
            if ready:
                balancer.go_on()
            await asyncio.sleep(_LOOK_SECONDS)

    def tell(self, ready: bool) -> None:
        """Know whether it is ready."""
        self.is_ready = ready
        while not ready and self.idle:
            self.idle.popleft().transport.close()

    async def _ask(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(_READINESS)
            return (await reader.read()).startswith(b"HTTP/1.1 200 ")
        finally:
            writer.close()


class Balancer:
    """What stands between clients and backends."""

    def __init__(self, ports: list[int]) -> None:
        self.backends = [Backend(port) for port in ports]
        self._waiting: deque[tuple[_Before, bytes]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to look at the backends."""
        for backend in self.backends:
            self._do(backend.look_on(self))

    def send(self, client: "_Before", request: bytes) -> None:
        """Have a request answered, as soon as a backend is ready."""
        ready = [backend for backend in self.backends if backend.is_ready]
        if not ready:
            self._waiting.append((client, request))
            return
        backend = min(ready, key=lambda one: one.busy)
        while backend.idle:
            behind = backend.idle.popleft()
            if not behind.transport.is_closing():
                behind.ask(client, request)
                return
        self._do(self._send_anew(backend, client, request))

    def go_on(self) -> None:
        """Send what has waited."""
        for _ in range(len(self._waiting)):
            self.send(*self._waiting.popleft())

    async def _send_anew(self, backend: Backend, client: "_Before", request: bytes) -> None:
        try:
            _, behind = await asyncio.get_running_loop().create_connection(
                lambda: _Behind(backend), "127.0.0.1", backend.port
            )
        except OSError:
            backend.tell(False)
            self.send(client, request)
        else:
            behind.ask(client, request)

    def _do(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Before(asyncio.Protocol):
    """A client's connection: a request at a time."""

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.transport: asyncio.Transport
        self.received = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if whole(self.received):
            request, self.received = self.received, b""
            self.balancer.send(self, request)

    def answer(self, response: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(response)


class _Behind(asyncio.Protocol):
    """A connection to a backend: a request at a time."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.transport: asyncio.Transport
        self.client: _Before | None = None
        self.received = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, client: _Before, request: bytes) -> None:
        self.client, self.received = client, b""
        self.backend.busy += 1
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not whole(self.received):
            return
        head = self.received[: self.received.index(_END_OF_HEAD)].lower()
        closing = b"\r\nconnection: close" in head
        # The connection to the client is the balancer's own business.
        self._done(self.received.replace(b"connection: close\r\n", b"", 1) if closing else self.received)
        if closing or not self.backend.is_ready:
            self.transport.close()
        else:
            self.backend.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        with contextlib.suppress(ValueError):
            self.backend.idle.remove(self)
        if self.client is not None:
            self._done(_BAD_GATEWAY)

    def _done(self, response: bytes) -> None:
        client, self.client = self.client, None
        self.backend.busy -= 1
        if client is not None:
            client.answer(response)


def whole(message: bytes) -> bool:
    """Whether a request or response, whose length is told, has come whole."""
    head = message.find(_END_OF_HEAD)
    if head < 0:
        return False
    lines = message[:head].lower()
    at = lines.find(b"content-length:")
    length = 0 if at < 0 else int(lines[at + 15 :].partition(b"\r")[0])
    return len(message) >= head + 4 + length


async def _run(port: int, backends: list[int]) -> None:
    balancer = Balancer(backends)
    balancer.start()
    server = await asyncio.get_running_loop().create_server(lambda: _Before(balancer), "127.0.0.1", port, backlog=1024)
    print("listening", flush=True)
    await server.serve_forever()


def main() -> None:
    port, *backends = map(int, sys.argv[1:])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(port, backends))


if __name__ == "__main__":
    main()

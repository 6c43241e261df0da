"""Clients that ask on and on, and tell what was lost: nothing that reached a server may be.

Each holds a connection until an answer ends it, as HTTP says (RFC 9112, section 9.6), or opens one for each request.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.end_to_end.process import PATIENCE

BODY = b'{"window": [1, 2, 3]}'
REQUEST = b"POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Refused(Exception):
    """No connection came about, so that nothing was asked."""


@dataclass
class Tally:
    """What came of the requests, with the times at which it did."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    lost: list[tuple[float, str]] = field(default_factory=list)
    closed: int = 0
    """Answers that ended their connection."""


class Connection:
    """A connection, over which one request after the other is sent."""

    def __init__(self, port: int) -> None:
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        except OSError as error:
            raise Refused from error
        self._stream = self._socket.makefile("rb")
        self.ended = False

    def ask(self) -> None:
        """Ask once, and read the answer; raises OSError or ValueError where it is not a whole forecast."""
        self._socket.sendall(REQUEST)
        status = self._stream.readline()
        length = 0
        while (line := self._stream.readline().strip().lower()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name == b"content-length" else length
            self.ended |= name == b"connection" and value.strip() == b"close"
        body = self._stream.read(length)
        if status != b"HTTP/1.1 200 OK\r\n" or not length or len(body) < length:
            raise ValueError(f"{status!r} {body!r}")
        json.loads(body)["forecasts"]

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._socket.close()


@contextmanager
def asking(find: Callable[[], int], count: int, *, keep: bool, pause: float = 0.005) -> Iterator[Tally]:
    """Have so many clients ask the server at the port that `find` gives for each new connection."""
    tally, stopping = Tally(), threading.Event()

    def ask_on() -> None:
        connection = None
        while not stopping.wait(pause):
            try:
                connection = connection or Connection(find())
                connection.ask()
                tally.answered.append(time.monotonic())
                tally.closed += connection.ended
            except Refused:
                tally.refused.append(time.monotonic())
            except (OSError, ValueError) as error:
                tally.lost.append((time.monotonic(), repr(error)))
                assert connection is not None
                connection.ended = True
            if connection is not None and (connection.ended or not keep):
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    threads = [threading.Thread(target=ask_on) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


class Balancer:
    """Chooses among servers by what their readiness says, as it looks at them now and then."""

    def __init__(self, ports: Sequence[int], seconds: float = 0.1) -> None:
        self._ready = list(ports)
        self._ports = ports
        self._seconds = seconds
        self._turn = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def find(self) -> int:
        """The port of a server that was ready when it was last looked at."""
        ready = self._ready
        self._turn += 1
        return ready[self._turn % len(ready)]

    def __enter__(self) -> "Balancer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopping.wait(self._seconds):
            self._ready = [port for port in self._ports if _is_ready(port)] or self._ready


def _is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.recv(1000).startswith(b"HTTP/1.1 200")
    except OSError:
        return False

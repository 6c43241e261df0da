"""The server's side of a connection: uvicorn's own, bounded in what it takes, and with a short way to forecasts.

Bounded: without an end to what is taken before a request has begun, a client that never ends its headers fills the
memory, and one that never sends any holds a connection for good.

Short: uvicorn's bookkeeping for ASGI messages costs half as much as a forecast. A small request for one is answered
without them, in the same words; everything else is uvicorn's.
"""

import asyncio
from asyncio import BaseTransport, TimerHandle, Transport
from http import HTTPStatus
from typing import Any, Final, NamedTuple, cast
from weakref import WeakKeyDictionary

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.policy import LINES
from service.api.problems import INTERNAL_ERROR, problem
from service.api.shortcut import Answer, Answered, Shortcut, respond

LONGEST_HEAD: Final = 65_536
"""Bytes of a request line and its headers; what arrives together with an end of them is not counted."""

LARGEST_DIRECT: Final = 65_536
"""Bytes of a body that is answered the short way; for a larger one ASGI's messages cost nothing in comparison."""

# Heads that are known by their bytes: how long they may be, and how many of them there may be.
_LONGEST_KNOWN: Final = 2048
_MOST_KNOWN: Final = 1024
_END_OF_HEAD: Final = b"\r\n\r\n"
_END_OF_ALIVE: Final = LINES + b"\r\n"
_END_OF_LAST: Final = LINES + b"connection: close\r\n\r\n"
_DIGITS_DIRECT: Final = len(str(LARGEST_DIRECT))
_REFUSAL: Final = (
    b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n%s"
)
_TOO_LONG: Final = f"The request line and headers have more than {LONGEST_HEAD} bytes."


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection."""

    _in_head = True
    _has_moved_on = False
    _head_bytes = 0
    _is_midway = False
    """Whether a request has begun that has not come to its end."""
    _waiting_since: float | None = None
    """When the wait for a request's head began; None while one is answered."""
    _watch: TimerHandle | None = None
    _known: dict[bytes, "Head"]
    _exchange: "Exchange | None" = None
    """The last request that went the short way; others may have come behind it."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Take a connection, and wait for its first request as long as for any later one."""
        super().connection_made(cast(Transport, transport))
        self._known = _known.setdefault(self.app, {}) if isinstance(self.app, Shortcut) else {}
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of a connection, and of the work for it."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)
        if self._exchange is not None:
            self._exchange.give_up()

    def data_received(self, data: bytes) -> None:
        """Read on; a head that does not come to its end is refused."""
        if self._is_between_requests:
            end = data.find(_END_OF_HEAD, 0, _LONGEST_KNOWN) + len(_END_OF_HEAD)
            known = self._known.get(data[:end])
            if known is not None and len(data) == end + known.length:
                self._waiting_since = None
                self.cycle = self._exchange = Exchange(self, known)  # type: ignore[assignment]
                self._exchange.body = data[end:]
                self._exchange.begin()
                return
            before = self._exchange
            self._read(data)
            if self._exchange is not before and not self._is_midway:
                self._remember(data, end)
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        self._has_moved_on = False
        super().data_received(data)
        if self._has_moved_on or not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > LONGEST_HEAD:
            self.logger.warning("Request head too large.")
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LONG)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        content = message.encode()
        self.transport.write(_REFUSAL % (status, status.phrase.encode(), len(content), LINES, content))
        self.transport.close()

    @property
    def _is_between_requests(self) -> bool:
        return not self._is_midway and (self.cycle is None or self.cycle.response_complete)

    def _remember(self, data: bytes, end: int) -> None:
        """Keep a head, where what was read is one small request and nothing else."""
        assert self._exchange is not None
        head = self._exchange.head
        if end >= len(_END_OF_HEAD) and len(data) == end + head.length:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[data[:end]] = head

    def on_message_begin(self) -> None:
        """Make room for a request's head; what uvicorn wants beside it follows where uvicorn takes over."""
        self._is_midway = True
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin with a request."""
        self._in_head = False
        self._has_moved_on = True
        self._head_bytes = 0
        self._waiting_since = None
        head = self._short_head()
        if head is not None:
            # In the place of uvicorn's own, whose attributes it has as far as uvicorn looks at them.
            self.cycle = self._exchange = Exchange(self, head)  # type: ignore[assignment]
            return
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers += headers
        self.expect_100_continue = any(_asks_to_go_on(*header) for header in headers)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Know that the next bytes are another request's."""
        self._in_head = True
        self._has_moved_on = True
        self._is_midway = False
        if isinstance(self.cycle, Exchange) and self.cycle.more_body:
            self.cycle.begin()
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the request that waits behind the one answered, or wait for another."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._wait()

    def _wait(self) -> None:
        """Wait for a head. One timer goes on and on: to set and cancel one for each request would take its time."""
        self._waiting_since = self.loop.time()
        if self._watch is None:
            self._watch = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _look(self) -> None:
        """Close a connection that has waited too long."""
        self._watch = None
        if self._waiting_since is None:
            return  # the next wait sets a new timer
        left = self._waiting_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._watch = self.loop.call_later(left, self._look)
        else:
            self.timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        """Nothing: uvicorn's own timer is never set."""

    def _short_head(self) -> "Head | None":
        """The head of a plain request that has a short way and asks nothing of HTTP's finer points."""
        app = self.app
        if not isinstance(app, Shortcut):
            return None
        answer = app.find(self.parser.get_method().decode("latin-1"), self.url.decode("latin-1"), self.headers)
        if answer is None or self.parser.get_http_version() != "1.1":
            return None
        if self.cycle is not None and not self.cycle.response_complete:  # it has to wait for the one before it
            return None
        length = None
        for name, value in self.headers:
            if name == b"content-length":
                length = int(value) if len(value) <= _DIGITS_DIRECT else LARGEST_DIRECT + 1
            elif name == b"expect":
                return None
        if length is None or length > LARGEST_DIRECT:
            return None
        return Head(answer, self.headers, length, self.parser.should_keep_alive())


class Head(NamedTuple):
    """The head of a small request that goes the short way."""

    answer: Answer
    headers: list[tuple[bytes, bytes]]
    length: int
    """Bytes of the body."""
    keep_alive: bool


_known: Final[WeakKeyDictionary[Shortcut, dict[bytes, Head]]] = WeakKeyDictionary()
"""An application's heads by their bytes: a client says the same again and again, and need not be read anew."""


class Exchange:
    """A small request and its response, without ASGI's messages between."""

    __slots__ = (
        "_body_is_read",
        "_protocol",
        "_task",
        "body",
        "disconnected",
        "head",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
    )

    def __init__(self, protocol: BoundedProtocol, head: Head) -> None:
        self.head = head
        self.body: bytes | bytearray = b""
        self.more_body = True
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = head.keep_alive
        self.message_event = _NOBODY_WAITS
        self._body_is_read = False
        self._protocol = protocol
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Answer; the body has come."""
        self.more_body = False
        protocol = self._protocol
        self._task = protocol.loop.create_task(self._run())
        protocol.tasks.add(self._task)
        # Not at the end of `_run`, which a task that is cancelled before its first step never enters.
        self._task.add_done_callback(protocol.tasks.discard)

    def give_up(self) -> None:
        """Stop working for a client that is gone."""
        self.disconnected = True
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        protocol = self._protocol
        try:
            scope = {"headers": self.head.headers, "client": protocol.client, "state": protocol.app_state}
            answered = await respond(self.head.answer, scope, self._receive)
        except Exception as error:
            protocol.logger.error("Exception in ASGI application\n", exc_info=error)
            failure = problem(INTERNAL_ERROR, INTERNAL_ERROR.detail)
            answered = Answered(failure.status_code, failure.raw_headers, bytes(failure.body))
        if protocol.flow.write_paused and not self.disconnected:
            await protocol.flow.drain()
        if not self.disconnected:
            self._write(answered)

    def _write(self, answered: Answered) -> None:
        protocol = self._protocol
        parts = [STATUS_LINE[answered.status]]
        for name, value in protocol.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        for name, value in answered.headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(_END_OF_ALIVE if self.keep_alive else _END_OF_LAST)
        parts.append(answered.content)
        protocol.transport.write(b"".join(parts))
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    async def _receive(self) -> Message:
        if not self._body_is_read:
            self._body_is_read = True
            return {"type": "http.request", "body": bytes(self.body), "more_body": False}
        # Whoever waits for the client's end is cancelled with this exchange when it comes.
        await asyncio.get_running_loop().create_future()
        return {"type": "http.disconnect"}


def _asks_to_go_on(name: bytes, value: bytes) -> bool:
    return name == b"expect" and value.lower() == b"100-continue"


class _Nobody:
    """Stands for the event that wakes whoever waits for messages of ASGI: nobody does."""

    def set(self) -> None:
        pass


_NOBODY_WAITS: Final = cast(Any, _Nobody())

"""A small request for a forecast and its response, without ASGI's messages between.

uvicorn's bookkeeping for those costs half as much as a forecast. What is answered here has the same words.
"""

import asyncio
import logging
from asyncio import AbstractEventLoop, Transport
from collections.abc import Coroutine
from time import perf_counter
from typing import Any, Final, NamedTuple, Protocol, cast

from starlette.types import Message
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.api.admission import refusal
from service.api.correlation import REQUEST_ID, Correlation
from service.api.headers import Wishes
from service.api.inquiry import STOPPED
from service.api.observation import Observer
from service.api.policy import LINES
from service.api.problems import INTERNAL_ERROR, OVERLOADED, problem
from service.api.shortcut import Answer, Answered, Content, Inquiry, refused
from service.api.state import Service
from service.api.trip import HUNG_UP, Trip
from service.errors import LeadtimeError, ShuttingDown
from service.log import MARKS
from service.server import Connections

END_OF_LAST: Final = b"\r\n" + LINES + b"connection: close\r\n\r\n"
"""The end of the head of an answer that ends its connection."""

_END_OF_ALIVE: Final = b"\r\n" + LINES + b"\r\n"
_REQUEST_ID_IS: Final = REQUEST_ID + b": "


class Connection(Protocol):
    """What an exchange needs of its connection; `service.protocol.BoundedProtocol` is one."""

    client: tuple[str, int] | None
    logger: logging.Logger
    loop: AbstractEventLoop
    observer: Observer
    server_state: Connections
    service: Service
    tasks: set[asyncio.Task[None]]
    transport: Transport

    @property
    def flow(self) -> FlowControl:
        """Whether it is written to, and read from."""

    def on_response_complete(self) -> None:
        """Go on with the connection."""


class Head(NamedTuple):
    """The head of a small request that goes the short way."""

    answer: Answer
    path: str
    headers: list[tuple[bytes, bytes]]
    length: int
    """Bytes of the body."""
    keep_alive: bool
    correlation: Correlation
    wishes: Wishes | None
    """What the headers say; None where they cannot be answered."""


class Exchange(Trip):
    """A small request and its response, without ASGI's messages between."""

    __slots__ = (
        "_connection",
        "_inquiry",
        "_task",
        "body",
        "disconnected",
        "head",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
    )

    def __init__(self, connection: Connection, head: Head) -> None:
        super().__init__("POST", head.path, head.headers, head.correlation)
        self.head = head
        self.body = b""
        self.more_body = True
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = head.keep_alive
        self.message_event = _NOBODY_WAITS
        self._connection = connection
        self._inquiry: Inquiry | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Answer, now or when the answer is there; the body has come."""
        self.more_body = False
        self.came = perf_counter()
        connection, head = self._connection, self.head
        service, wishes = connection.service, head.wishes
        if service.scheduler.is_crowded and wishes is not None and not connection.flow.write_paused:
            client = service.access.client_of(wishes.secrets, connection.client)
            late = refusal(service, wishes.seconds, self.body, client)
            if late is not None:
                self.refused = OVERLOADED.name
                self._write(late)
                return
            self.is_in_time = True
        try:
            self._inquiry = inquiry = head.answer.inquire(service, self.headers, connection.client, self, wishes)
            connection.server_state.exchanges.add(self)
            if not inquiry.ask(self.body, self._end):
                self._begin_task(self._complete(inquiry))
        except Exception as error:
            self._end(None, error)

    def give_up(self) -> None:
        """Stop working for a client that is gone."""
        self.disconnected = True
        if self._task is not None:
            self._task.cancel()
        elif self._inquiry is not None and not self.response_complete:
            self._inquiry.give_up()
            self._end(None, None)

    def stop(self) -> None:
        """Answer that the service stops, where no task does."""
        if self._inquiry is not None:
            self._inquiry.give_up(ShuttingDown(STOPPED))

    def _begin_task(self, work: Coroutine[Any, Any, None]) -> None:
        tasks = self._connection.tasks
        self._connection.server_state.exchanges.discard(self)
        self._task = self._connection.loop.create_task(work)
        tasks.add(self._task)
        # Not at the end of the work, which a task that is cancelled before its first step never enters.
        self._task.add_done_callback(tasks.discard)

    async def _complete(self, inquiry: Inquiry) -> None:
        """Answer a request that takes a while to read or to answer."""
        try:
            content = await inquiry.complete(_never)
        except Exception as error:
            self._end(None, error)
        except asyncio.CancelledError:
            self._connection.observer.finish(self, HUNG_UP)
            raise
        else:
            self._end(content, None)

    def _end(self, content: Content | None, error: BaseException | None) -> None:
        """Write the answer, or why there is none, unless the client is gone."""
        connection = self._connection
        self._inquiry = None  # which has this method, and the two would keep each other
        connection.server_state.exchanges.discard(self)
        if self.disconnected:
            connection.observer.finish(self, HUNG_UP)
        elif connection.flow.write_paused:
            self._begin_task(self._write_later(content, error))
        elif content is None:
            self._write(self._response(error))
        else:
            self._write_content(content)

    def _response(self, error: BaseException | None) -> Answered:
        try:
            if isinstance(error, LeadtimeError):
                return refused(error, self)
        except LeadtimeError:
            pass  # it is none that a client is told of
        self.refused = INTERNAL_ERROR.name
        token = MARKS.set(self.marks)
        self._connection.logger.error("Exception in ASGI application\n", exc_info=error)
        MARKS.reset(token)
        failure = problem(INTERNAL_ERROR, INTERNAL_ERROR.detail)
        return Answered(failure.status_code, failure.raw_headers, bytes(failure.body))

    async def _write_later(self, content: Content | None, error: BaseException | None) -> None:
        try:
            await self._connection.flow.drain()
        except asyncio.CancelledError:
            self._connection.observer.finish(self, HUNG_UP)
            raise
        self._end(content, error)

    def _write_content(self, content: Content) -> None:
        body, media_type = content
        self._write_parts(200, b"content-length: %d\r\ncontent-type: %b\r\n" % (len(body), media_type), body)

    def _write(self, response: Answered) -> None:
        lines = b"".join([b"%b: %b\r\n" % header for header in response.headers])
        self._write_parts(response.status, lines, response.content)

    def _write_parts(self, status: int, lines: bytes, body: bytes) -> None:
        connection = self._connection
        # Counted first: what is answered has been counted, whatever becomes of this process.
        observer = connection.observer
        ended = observer.count(self, status)
        end = _END_OF_ALIVE if self.keep_alive else END_OF_LAST
        head = STATUS_LINE[status], connection.server_state.default_lines, lines, _REQUEST_ID_IS, self.request_id, end
        connection.transport.write(b"".join((*head, body)))
        self.response_complete = True
        if not self.keep_alive:
            connection.transport.close()
        if observer.tells:
            observer.tell(self, status, ended)
        connection.on_response_complete()


async def _never() -> Message:
    # Whoever waits for the client's end is cancelled with the exchange when it comes.
    await asyncio.get_running_loop().create_future()
    return {"type": "http.disconnect"}


class _Nobody:
    """Stands for the event that wakes whoever waits for messages of ASGI: nobody does."""

    def set(self) -> None:
        pass


_NOBODY_WAITS: Final = cast(Any, _Nobody())

"""The server's side of a connection: uvicorn's own, with an end to what it takes before a request has begun.

Without it a client that never ends its headers fills the memory, and one that never sends any holds a connection for
good.
"""

from asyncio import BaseTransport, TimerHandle, Transport
from typing import Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEAD: Final = 65_536
"""Bytes of a request line and its headers; what arrives together with an end of them is not counted."""

_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\n"
    b"connection: close\r\n"
    b"\r\n"
    b"%s"
)
_MESSAGE: Final = f"The request line and headers have more than {LONGEST_HEAD} bytes.".encode()


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection."""

    _in_head = True
    _has_moved_on = False
    _head_bytes = 0
    _first_wait: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Take a connection, and wait for its first request as long as for any later one."""
        super().connection_made(cast(Transport, transport))
        self._first_wait = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of a connection."""
        self._end_first_wait()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that does not come to its end is refused."""
        self._has_moved_on = False
        super().data_received(data)
        if self._has_moved_on or not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > LONGEST_HEAD:
            self.logger.warning("Request head too large.")
            self.transport.write(_REFUSAL % (len(_MESSAGE), _MESSAGE))
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Begin with a request."""
        self._in_head = False
        self._has_moved_on = True
        self._head_bytes = 0
        self._end_first_wait()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Know that the next bytes are another request's."""
        self._in_head = True
        self._has_moved_on = True
        super().on_message_complete()

    def _end_first_wait(self) -> None:
        if self._first_wait is not None:
            self._first_wait.cancel()
            self._first_wait = None

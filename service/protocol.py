"""The server's side of a connection: uvicorn's own, bounded in what it takes, and with a short way to forecasts.

Bounded, in bytes, in time and in number: a client that never ends its headers would fill the memory; one that sends
a byte at a time, or never reads its answer, would hold a connection for good; and connections that are merely held
would keep others out.

Short: a small request for a forecast is an exchange (`service.exchange`), without ASGI's messages; everything else is
uvicorn's.
"""

import selectors
import socket
from asyncio import BaseTransport, TimerHandle, Transport
from itertools import islice
from typing import Any, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.admission import wishes_of
from service.api.correlation import read_correlation
from service.api.observation import Observer
from service.api.problems import (
    HEAD_TOO_LARGE,
    MALFORMED_REQUEST,
    OVERLOADED,
    REQUEST_TIMEOUT,
    Kind,
    problem,
)
from service.api.shortcut import Shortcut
from service.api.state import Service, State
from service.exchange import END_OF_LAST, Exchange, Head
from service.scheduler import REQUESTS_REFUSED
from service.server import Connections

LONGEST_HEAD: Final = 65_536
"""Bytes of a request line and its headers; what arrives together with an end of them is not counted."""

MOST_HEADERS: Final = 128
"""Headers of a request, those behind its body included: to take in thousands takes everybody's time."""

LARGEST_DIRECT: Final = 65_536
"""Bytes of a body that is answered the short way; for a larger one ASGI's messages cost nothing in comparison."""

# Heads that are known by their bytes: how long they may be, and how many of them there may be.
_LONGEST_KNOWN: Final = 2048
_MOST_KNOWN: Final = 1024
_END_OF_HEAD: Final = b"\r\n\r\n"
_DIGITS_DIRECT: Final = len(str(LARGEST_DIRECT))

# What comes in one go is read in parts, and no further while a request waits behind another: where they are many and
# small, those of others are read in between. A body of a length that is known is one part, for it holds no request.
_PART: Final = 2048
_PART_OF_CHUNKS: Final = 16_384

# A request that waits behind another lets those of others pass while there are any, for so long and so often.
_PASSING_SECONDS: Final = 0.001
_MOST_PASSED: Final = 5

# A request may take as much time again for every so many bytes of it that have come: 13 kB/s, as it is by default.
_BYTES_OF_A_TURN: Final = 262_144
# So many bodies of the largest size are read and thrown away behind a refusal: clients send to the end, then they read.
# After each part there is a rest, the longer the more do so: what is read in vain, 25 MB/s, takes nobody's time.
_BODIES_IN_VAIN: Final = 8
_REST_SECONDS: Final = 0.01
# Where so much of a body that is read comes at once, its connection rests shortly, too: others have their turns then.
_LARGE_PART: Final = 131_072
_SHORT_REST_SECONDS: Final = 0.002
# A client that reads so much of its answer in the time that it has, has it again.
_LEAST_READ: Final = 16_384

# Where connections run out, one gives way on which no request has come for so long, of so many that are looked at.
_IDLE_SECONDS: Final = 1.0
_MOST_LOOKED_AT: Final = 64
# So many beyond the limit, and a share of it, are told so, as soon as they ask or after a while; a flood is hung up on.
_FEWEST_TOLD: Final = 16
_SHARE_TOLD: Final = 0.25
_SECONDS_UNTIL_TOLD: Final = 1.0
TOO_MANY: Final = "too many connections are open: close those that are idle, or connect again a little later"

# At a stop, a connection on which nothing has been asked yet has so long to ask.
_LAST_CHANCE_SECONDS: Final = 1.0


class _Flow(FlowControl):
    """When a connection is read from: not while it rests, whoever else is ready for more."""

    rests = False
    _is_wanted = False
    """Whether it is to be read from after the rest."""

    def begin_rest(self) -> None:
        """Stop reading, until the rest is over."""
        self.rests, self._is_wanted = True, not self.read_paused
        super().pause_reading()

    def end_rest(self) -> None:
        """Read on, unless something else has it paused."""
        self.rests = False
        if self._is_wanted:
            self.resume_reading()

    def pause_reading(self) -> None:
        """Stop reading."""
        self._is_wanted = False
        super().pause_reading()

    def resume_reading(self) -> None:
        """Read on, as soon as the rest is over."""
        if self.rests:
            self._is_wanted = True
        else:
            super().resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection."""

    _in_head = True
    _has_moved_on = False
    _head_bytes = 0
    _is_midway = False
    """Whether a request has begun that has not come to its end."""
    _bytes = 0
    """How much has come of that request."""
    _is_offered = False
    """Whether the request whose head was read offers to go on in another protocol."""
    _waiting_since: float | None = None
    """When the wait for a request's head began; None while one comes or is answered."""
    _reading_since: float | None = None
    """When a request began to come that did not come at once; None where none is on its way."""
    _unread_since: float | None = None
    """Since when nothing more is written, for the client does not read; None while it does."""
    _unread = 0
    """How much was unread then."""
    _body_left = 0
    """How much of a body is yet to come, where it was said how long it is."""
    _in_one_go = 0
    """How much of what is read has come at once."""
    _header_count = 0
    """How many headers of that request have come."""
    _beside_bytes = 0
    """How much has come since the last part of a body, and is none: lengths of chunks, or headers behind the body."""
    _ahead = b""
    """What has come and is yet to be read, for requests before it wait."""
    _last_words: bytes | None = None
    """What is said before the connection is closed; nothing more is read meanwhile."""
    _watch: TimerHandle | None = None
    service: Service
    observer: Observer
    _known: dict[bytes, Head]
    _exchange: Exchange | None = None
    """The last request that went the short way; others may have come behind it."""
    _answered: RequestResponseCycle | None = None
    """The last request whose answer began on uvicorn's way; others may wait behind it."""
    flow: _Flow
    server_state: Connections

    def connection_made(self, transport: BaseTransport) -> None:
        """Take a connection, and wait for its first request as long as for any later one."""
        # Not uvicorn's own, which makes three sockets of Python's to read two addresses.
        self.transport = cast(Transport, transport)
        self.connections.add(self)
        self.flow = _Flow(self.transport)
        self.server = _address(transport.get_extra_info("sockname"))
        self.client = _address(transport.get_extra_info("peername"))
        self.scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        self._known = self.server_state.known
        self.service = cast(State, self.app_state)["service"]
        self.observer = self.service.observer
        settings = self.service.settings
        self._period = min(self.timeout_keep_alive, settings.read_seconds, settings.write_seconds)
        self._watch = self.loop.call_later(self._period, self._look)
        self._wait()
        if len(self.connections) > settings.max_connections:
            self._make_room(settings.max_connections)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of a connection, and of the work for it."""
        if self._watch is not None:
            self._watch.cancel()
        if self._answered is not None and not self._answered.response_complete:
            # uvicorn tells the last request alone.
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)
        if self._exchange is not None:
            self._exchange.give_up()
        # They have this connection, and would be kept with it until the collector of cycles comes, for milliseconds.
        self.cycle = self._exchange = self._answered = None  # type: ignore[assignment]
        self.pipeline.clear()
        self._ahead = b""

    def data_received(self, data: bytes) -> None:
        """Read on; a head that does not come to its end is refused."""
        if self._last_words is not None:
            if not self._is_answering:
                self._part()
        elif self._ahead:
            # Whoever waits for the client's end, with the request before, has reading go on.
            self.flow.pause_reading()
            self._ahead += data
        elif self._is_between_requests:
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

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn closes at once, and says nothing
        """Close, for the client has: soon, and not all at once. TLS closes by itself."""
        if self.scheme == "https":
            return False
        self.server_state.close_in_turn(self.transport)
        return True

    def pause_writing(self) -> None:
        """Know that the client does not read what is written."""
        super().pause_writing()
        self._unread_since, self._unread = self.loop.time(), self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """Know that the client reads again."""
        super().resume_writing()
        self._unread_since = None

    def shutdown(self) -> None:
        """Take no other request than one that has begun, or may be on its way, and end the connection with its answer.

        uvicorn calls this of all connections at a stop, when answers have ended their connections for a while.
        """
        if self._is_answering:
            last = self.pipeline[0][0] if self.pipeline else self.cycle
            last.keep_alive = False
        elif self._waiting_since is not None and (self.cycle is None or self._has_unread()):
            self.loop.call_later(_LAST_CHANCE_SECONDS, self._close_if_idle)
        else:
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._waiting_since is not None:
            self.transport.close()

    def _has_unread(self) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self.transport.get_extra_info("socket"), selectors.EVENT_READ)
            return bool(selector.select(0))

    def _read(self, data: bytes) -> None:
        place, self._in_one_go = 0, len(data)
        while place < len(data) and self._last_words is None and not self.transport.is_closing():
            if self.pipeline:
                self.flow.pause_reading()
                self._ahead = data[place:]
                return
            end = place + (_PART if self._in_head else self._body_left or _PART_OF_CHUNKS)
            self._read_part(data[place:end])
            place = end

    def _read_ahead(self) -> None:
        data, self._ahead = self._ahead, b""
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._read(data)

    def _read_part(self, data: bytes) -> None:
        self._has_moved_on = False
        self._beside_bytes += len(data)  # and is none again with the next part of a body
        self._feed(data)
        if self._last_words is not None or self.transport.is_closing():
            return
        if self._is_midway:
            self._go_on_reading(len(data))
        if self._has_moved_on:
            return
        if self._in_head:
            self._head_bytes += len(data)
        if max(self._head_bytes, self._beside_bytes) > LONGEST_HEAD:
            self._refuse(HEAD_TOO_LARGE)

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except HttpParserUpgrade as offer:
                # The parser takes what follows for that other protocol: the request's body, to begin with.
                data = self._head_without_offer() + data[offer.args[0] :] if self._is_offered else b""
            except HttpParserError:
                if self.server_state.may_tell_of_nonsense():
                    self.logger.warning("Invalid HTTP request received.")
                self._refuse(HEAD_TOO_LARGE if self._header_count > MOST_HEADERS else MALFORMED_REQUEST)
                return

    def _head_without_offer(self) -> bytes:
        """The head that was read, without the offer to go on in another protocol, for a parser that is new."""
        self._is_offered = False
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return b"\r\n".join(lines) + _END_OF_HEAD

    def _go_on_reading(self, more: int) -> None:
        """Wait for the rest of a request, of which so many more bytes have come."""
        self._bytes += more
        if self._reading_since is None:
            self._waiting_since, self._reading_since = None, self.loop.time()
        if self._in_head or not self.cycle.response_complete:
            if self._in_one_go >= _LARGE_PART:
                self._rest(_SHORT_REST_SECONDS)
        elif self._bytes > _BODIES_IN_VAIN * self.service.settings.max_body_bytes:
            self.transport.abort()
        else:
            self._rest(_REST_SECONDS)

    def _rest(self, seconds: float) -> None:
        """Read nothing for so long, and longer the more others rest."""
        if not self.flow.rests:
            self.flow.begin_rest()
            self.server_state.resting += 1
            self.loop.call_later(seconds * self.server_state.resting, self._end_rest)

    def _end_rest(self) -> None:
        self.server_state.resting -= 1
        if self.transport.is_closing():
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()  # the client is gone, and what it has sent before is not worth reading
        else:
            self.flow.end_rest()

    def _refuse(self, kind: Kind) -> None:
        """Read nothing more, and close with a word about it when the requests before have been answered."""
        words = _words(kind, kind.detail)
        if kind is HEAD_TOO_LARGE and self.parser.get_method() == b"HEAD":  # its answers have no body
            words = words[: words.find(_END_OF_HEAD) + len(_END_OF_HEAD)]
        self._last_words = words
        self.observer.refuse(kind.status, "" if kind is REQUEST_TIMEOUT else kind.name)
        if not self._in_head:  # what is refused is the last request that has begun
            if not self.pipeline:
                self._part()
                return
            self.pipeline.popleft()
        if self._is_answering:
            self.flow.pause_reading()
        else:
            self._part()

    def _part(self) -> None:
        """Say the last words, unless the request has its answer already, and close."""
        if self._in_head or not getattr(self.cycle, "response_started", False):
            self.transport.write(self._last_words or b"")
        if self._is_answering:
            self.cycle.disconnected = True
        self.transport.close()

    def _make_room(self, most: int) -> None:
        """Where there are too many connections, let an idle one go, or else this one."""
        looked_at = [other for other in islice(self.connections, _MOST_LOOKED_AT) if isinstance(other, BoundedProtocol)]
        idle = max(looked_at, key=BoundedProtocol.idle_seconds)
        if idle.idle_seconds() >= _IDLE_SECONDS:
            idle.timeout_keep_alive_handler()
            self.connections.discard(idle)  # not only when the loop has come round
            return
        self._count_refused("connections")
        if len(self.connections) > most * (1 + _SHARE_TOLD) + _FEWEST_TOLD:
            self.transport.abort()
            return
        # Said when a request has come: on a connection that is closed with something unread, it would be lost.
        self._last_words = _words(OVERLOADED, TOO_MANY, retry_after=1)
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self.loop.call_later(_SECONDS_UNTIL_TOLD, self._part)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

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
        self._header_count = 0
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; those behind a body say nothing that is asked for."""
        self._header_count += 1
        if self._header_count > MOST_HEADERS:
            raise ValueError("too many headers")  # so that the parser goes no further
        if self._in_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin with a request; one that offers another protocol is read anew without the offer."""
        self._is_offered = self.parser.should_upgrade() and any(name == b"upgrade" for name, _ in self.headers)
        if self._is_offered:
            return
        self._body_left = sum(int(value) for name, value in self.headers if name == b"content-length")
        head = self._short_head()
        if head is not None:
            # In the place of uvicorn's own, whose attributes it has as far as uvicorn looks at them.
            self.cycle = self._exchange = Exchange(self, head)  # type: ignore[assignment]
        else:
            self._begin_long_way()
        # Not before: what cannot be begun with is refused behind the answers to those before it.
        self._in_head = False
        self._has_moved_on = True
        self._head_bytes = self._beside_bytes = 0
        self._waiting_since = None

    def _begin_long_way(self) -> None:
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers += headers
        self.expect_100_continue = any(_asks_to_go_on(*header) for header in headers)
        super().on_headers_complete()
        if self.server_state.is_draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if self._body_left:
            self._body_left -= len(body)
        self._beside_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Know that the next bytes are another request's."""
        if self._is_offered:
            return
        self._in_head = True
        self._has_moved_on = True
        self._is_midway = False
        self._bytes = 0
        self._reading_since = None
        if isinstance(self.cycle, Exchange) and self.cycle.more_body:
            self.cycle.begin()
        else:
            super().on_message_complete()
            if not self._is_answering:  # it has been refused before it came to its end
                self._wait()

    def on_response_complete(self) -> None:
        """Go on with the request that waits behind the one answered, or wait for another."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self.loop.call_soon(self._go_on_answering, _MOST_PASSED)
        elif self._last_words is not None:
            self._part()
        else:
            self.flow.resume_reading()
            if self._reading_since is None:
                self._wait()

    def _go_on_answering(self, passes: int) -> None:
        """Begin with the request that waits behind the one answered, when others have been let pass so often at most.

        Of a client that sends a hundred requests in one go, each would otherwise be there before everybody else's next.
        """
        if not self.pipeline or self.transport.is_closing():
            return
        if passes and not self.service.scheduler.is_idle:
            self.loop.call_later(_PASSING_SECONDS, self._go_on_answering, passes - 1)
            return
        self._start_asgi_task(*self.pipeline.pop())
        if self._ahead:
            self.loop.call_soon(self._read_ahead)
        else:
            self.flow.resume_reading()

    def _wait(self) -> None:
        """Wait for a head. One timer looks now and then: to set and cancel one for each request would take its time."""
        self._waiting_since = self.loop.time()

    def idle_seconds(self) -> float:
        """How long a request has been waited for; 0 where one comes or is answered."""
        return 0.0 if self._waiting_since is None else self.loop.time() - self._waiting_since

    def _look(self) -> None:
        """Close a connection that has taken too long over something, and look again before it can for another."""
        settings = self.service.settings
        now = self.loop.time()
        left = self._period
        if self._unread_since is not None or self.transport.is_closing():
            left = self._look_at_what_is_unread(now, settings.write_seconds)
        elif self._reading_since is not None:
            left = self._look_at_what_comes(now, settings.read_seconds)
        elif self._waiting_since is not None:
            left = self._waiting_since + self.timeout_keep_alive - now
            if left <= 0:
                self.timeout_keep_alive_handler()
        self._watch = self.loop.call_later(min(left, self._period) if left > 0 else self._period, self._look)

    def _look_at_what_is_unread(self, now: float, patience: float) -> float:
        """Hang up on a client that reads no more; return how many seconds it has left."""
        unread = self.transport.get_write_buffer_size()
        if self._unread_since is None or unread <= self._unread - _LEAST_READ:
            self._unread_since, self._unread = now, unread
        left = self._unread_since + patience - now
        if left <= 0:
            self._count_refused("slow")
            self.transport.abort()
        return left

    def _look_at_what_comes(self, now: float, patience: float) -> float:
        """Refuse a request that comes too slowly; return how many seconds it has left."""
        if self._reading_since is None or (self.flow.read_paused and not self.flow.rests):
            self._reading_since = now  # it waits for others before it, and is not to blame
        if self._in_head or self._is_answering:
            patience *= 1 + self._bytes / _BYTES_OF_A_TURN
        left = self._reading_since + patience - now
        if left <= 0:
            self._count_refused("slow")
            self._refuse(REQUEST_TIMEOUT)
        return left

    def _count_refused(self, reason: str) -> None:
        self.service.metrics.counter(REQUESTS_REFUSED, reason=reason).add()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _unset_keepalive_if_required(self) -> None:
        """Nothing: uvicorn's own timer is never set."""

    def _short_head(self) -> Head | None:
        """The head of a plain request that has a short way and asks nothing of HTTP's finer points."""
        app = self.app
        if not isinstance(app, Shortcut):
            return None
        path = self.url.decode("latin-1")
        answer = app.find(self.parser.get_method().decode("latin-1"), path, self.headers)
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
        keep_alive = self.parser.should_keep_alive() and not self.server_state.is_draining
        wishes = wishes_of(self.headers, self.service.settings)
        return Head(answer, path, self.headers, length, keep_alive, read_correlation(self.headers), wishes)


def _address(found: Any) -> tuple[str, int] | None:
    """The host and the port of one end of a connection, where it has such."""
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None


def _words(kind: Kind, detail: str, *, retry_after: int | None = None) -> bytes:
    """A whole response, after which the connection is closed."""
    response = problem(kind, detail, headers={} if retry_after is None else {"Retry-After": str(retry_after)})
    lines = [b"%b: %b\r\n" % header for header in response.raw_headers]
    return b"".join([STATUS_LINE[kind.status], *lines, END_OF_LAST[2:], bytes(response.body)])


def _asks_to_go_on(name: bytes, value: bytes) -> bool:
    return name == b"expect" and value.lower() == b"100-continue"

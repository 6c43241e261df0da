"""One process that serves: uvicorn's server, which stops without losing a request.

A stop has three parts. First it is announced: readiness says no and answers end their connections, while everything is
served, until whoever spreads the requests has seen it (`notice`). Then new connections are refused, and those that have
got through are taken. Then what is under way is finished, or, when the time for it is up, answered with the reason.
"""

import asyncio
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections import deque
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from uvicorn.server import ServerState

from service.api.state import State
from service.listeners import bind, refuse_new
from service.supervisor import FAILED
from service.watchdog import Watchdog

ACCEPTING_SECONDS: Final = 0.2
"""How long connections that had been begun before new ones were refused are waited for."""

_LOOK_SECONDS: Final = 0.02
_CLOSED_IN_A_TURN: Final = 2
# What is cancelled has so long to answer, and a process that is to end at once so long to do it.
_LAST_WORDS_SECONDS: Final = 1.0
# What is a connection only when the handshake of TLS is done is bounded by nothing else.
_HANDSHAKE_SECONDS: Final = 5.0
# What is no HTTP is told of in the log so often at most: to write a line takes longer than to refuse it.
_NONSENSE_SECONDS: Final = 1.0

_log: Final = logging.getLogger("leadtime.server")


class Connections(ServerState):
    """What a server's connections share."""

    def __init__(self) -> None:
        super().__init__()
        self.is_draining = False
        """Whether each answer ends its connection, for the server stops."""
        self.known: dict[bytes, Any] = {}
        """Heads of requests by their bytes: clients say the same again and again, and need not be read anew."""
        self.exchanges: set[Any] = set()
        """Requests that have no answer yet, and no task that works on it."""
        self.resting = 0
        """How many connections rest, of which nothing is read for a moment, for others to have their turns."""
        self._nonsense_told = -math.inf
        self._written: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")
        self._left: deque[asyncio.Transport] = deque()

    def close_in_turn(self, transport: asyncio.Transport) -> None:
        """Close a connection that its client has left, in one of the next turns of the loop, a few in each.

        Hundreds that are left at once would have everybody else wait until all of them are closed.
        """
        if not self._left:
            asyncio.get_running_loop().call_soon(self._close_some)
        self._left.append(transport)

    def _close_some(self) -> None:
        for _ in range(min(_CLOSED_IN_A_TURN, len(self._left))):
            self._left.popleft().close()
        if self._left:
            asyncio.get_running_loop().call_soon(self._close_some)

    def may_tell_of_nonsense(self) -> bool:
        """Whether the log is to have a line about what is no HTTP: not about each of many in a second."""
        now = asyncio.get_running_loop().time()
        if now < self._nonsense_told + _NONSENSE_SECONDS:
            return False
        self._nonsense_told = now
        return True

    @property
    def default_lines(self) -> bytes:
        """The headers that every answer has, as they are written; uvicorn makes them anew every second."""
        headers, lines = self._written
        if headers is not self.default_headers:
            headers, lines = self.default_headers, b"".join(b"%b: %b\r\n" % header for header in self.default_headers)
            self._written = headers, lines
        return lines

    @property
    def is_busy(self) -> bool:
        """Whether there are connections, or requests that have not been answered."""
        return bool(self.connections or self.exchanges or self.tasks)


class Server(uvicorn.Server):
    """Serves until it is told to stop; told again, it ends at once."""

    def __init__(
        self, config: uvicorn.Config, watchdog: Watchdog, *, notice_seconds: float, drain_seconds: float
    ) -> None:
        """Announce a stop that SIGTERM asks for so long, and give so long to what is under way at the end."""
        super().__init__(config)
        self.server_state: Connections = Connections()
        self.owns_listeners = True
        """Whether nobody else takes connections from its sockets when it stops."""
        self._notice_seconds = notice_seconds
        self._drain_seconds = drain_seconds
        self._taken: dict[int, asyncio.Task[asyncio.Server]] = {}
        self._watchdog = watchdog

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the models and listen; from then on the loop has to turn."""
        await super().startup([])  # it would listen without bounds
        try:
            listeners = bind(self.config.host, self.config.port, 1) if sockets is None else sockets
            self.servers += [await self._listen(listener) for listener in listeners]
        except OSError as error:
            _log.error(error)
            await self.lifespan.shutdown()
            sys.exit(FAILED)
        if sockets is None:
            self._log_started_message(listeners)
        self._watchdog.watch(asyncio.get_running_loop())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, for a signal asks for it. A person at a keyboard (SIGINT) waits for no notice."""
        if self.server_state.is_draining:
            self.end()
            return
        self.announce()
        notice = 0.0 if sig == signal.SIGINT else self._notice_seconds
        if not notice or not self.started:
            self.stop()
            return
        _log.info("stopping: not ready from now on, and no new connections in %g s", notice)
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, notice, self.stop)

    def announce(self) -> None:
        """Say that the server will stop, and serve on."""
        self.server_state.is_draining = True
        self.server_state.known.clear()
        if self.started:
            cast(State, self.lifespan.state)["service"].draining = True

    def stop(self) -> None:
        """Take no new connections, and end when what is under way is done."""
        self.announce()
        self.should_exit = True

    def end(self) -> None:
        """End now: what is under way is answered with the reason."""
        self.stop()
        self.force_exit = True
        # A thread in the middle of something would be waited for.
        timer = threading.Timer(2 * _LAST_WORDS_SECONDS, os._exit, (0,))
        timer.daemon = True
        timer.start()

    async def take(self, listener: socket.socket) -> None:
        """Take connections from another socket as well, until it is left."""
        if listener.fileno() in self._taken or self.should_exit:
            return
        self._taken[listener.fileno()] = asyncio.get_running_loop().create_task(self._listen(listener.dup()))

    async def leave(self, listener: socket.socket) -> None:
        """Leave a socket that was taken; what waits at it is somebody else's."""
        taken = self._taken.pop(listener.fileno(), None)
        if taken is not None:
            (await taken).close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is under way, and end."""
        if self.owns_listeners:
            self._refuse_new()
        await self._wait(ACCEPTING_SECONDS)
        for server in [*self.servers, *await asyncio.gather(*self._taken.values())]:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait(self._drain_seconds, until_idle=True)
        exchanges, tasks = list(self.server_state.exchanges), list(self.server_state.tasks)
        if exchanges or tasks:
            _log.warning("requests that were not answered in time: %d", len(exchanges) + len(tasks))
            for exchange in exchanges:
                exchange.stop()
            for task in tasks:
                task.cancel()
            await asyncio.wait([*tasks, asyncio.ensure_future(asyncio.sleep(0))], timeout=_LAST_WORDS_SECONDS)
        await self.lifespan.shutdown()

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        loop, config = asyncio.get_running_loop(), self.config
        return await loop.create_server(
            lambda: config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            ),
            sock=listener,
            backlog=config.backlog,
            ssl=config.ssl,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if config.ssl else None,
        )

    def _refuse_new(self) -> None:
        for server in self.servers:
            for listener in server.sockets:
                with socket.fromfd(listener.fileno(), listener.family, listener.type) as copy:
                    refuse_new(copy)

    async def _wait(self, seconds: float, *, until_idle: bool = False) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not self.force_exit and (left := deadline - asyncio.get_running_loop().time()) > 0:
            if until_idle and not self.server_state.is_busy:
                return
            await asyncio.sleep(min(left, _LOOK_SECONDS))

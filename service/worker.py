"""A process that serves: alone, or as one of several that `service.supervisor` keeps.

The latter is a copy of `service.forkserver`, or a program of its own; its arguments are then its place among the
others, the number of the socket by which it hears from the first process, and those of the sockets that connections
come to.
"""

import asyncio
import importlib
import os
import socket
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Final, cast

from uvicorn import Config

from service.api.state import Service, State
from service.channel import Channel
from service.errors import SettingsError
from service.log import log_configuration
from service.memory import share_one_arena
from service.process import WORKER, set_name
from service.protocol import BoundedProtocol
from service.server import Server
from service.settings import Settings
from service.watchdog import Watchdog

_APPLICATION: Final = "service.app:application_from_environment"
_USAGE_ERROR: Final = 2
# Others may be opening a large model; whoever asked is answered then, at the latest.
_OTHERS_SECONDS: Final = 60.0


def serve(settings: Settings) -> int:
    """Serve in this process, alone, until told to stop; return the exit code.

    Raises:
        SystemExit: the server could not start; why is in the log.
    """
    share_one_arena()
    Server(
        _configuration(settings),
        Watchdog(settings.hang_seconds),
        notice_seconds=settings.notice_seconds,
        drain_seconds=settings.drain_seconds,
    ).run()
    return 0


class Supervised(Server):
    """One of several servers, which does what the first process says."""

    def __init__(self, settings: Settings, channel: Channel, place: int, listeners: Sequence[socket.socket]) -> None:
        """Take connections from the listener in its place, and now and then from others."""
        super().__init__(
            _configuration(settings),
            Watchdog(settings.hang_seconds, lambda: channel.say("alive")),
            notice_seconds=settings.notice_seconds,
            drain_seconds=settings.drain_seconds,
        )
        self.owns_listeners = False
        self._channel = channel
        self._place = place
        self._all_listeners = listeners
        self._looks: dict[str, asyncio.Event] = {}
        self._looks_asked = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ask to be let go: until another serves in its place, this one goes on."""
        self._channel.say("relieve")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        own = self._all_listeners[self._place % len(self._all_listeners)]
        await super().startup([own.dup()])
        if self.started:
            self._service.have_others_look = self._have_others_look
            self._channel.listen(self._hear, self._lose)
            self._channel.say("serving")

    @property
    def _service(self) -> Service:
        return cast(State, self.lifespan.state)["service"]

    def _hear(self, words: list[str]) -> None:
        match words:
            case ["announce"]:
                self.announce()
            case ["stop"]:
                self.stop()
            case ["end"]:
                self.end()
            case ["take", place]:
                self._begin(self.take(self._all_listeners[int(place)]))
            case ["leave", place]:
                self._begin(self.leave(self._all_listeners[int(place)]))
            case ["look", number]:
                self._begin(self._look(number))
            case ["looked", name] if name in self._looks:
                self._looks[name].set()

    def _lose(self) -> None:
        """The first process is gone: nobody starts others, or would tell this one to stop."""
        self.owns_listeners = True
        self.stop()

    async def _have_others_look(self) -> None:
        self._looks_asked += 1
        name = str(self._looks_asked)
        done = self._looks[name] = asyncio.Event()
        self._channel.say("look", name)
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), _OTHERS_SECONDS)
        del self._looks[name]

    async def _look(self, number: str) -> None:
        await asyncio.to_thread(self._service.look)
        self._channel.say("looked", number)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _configuration(settings: Settings) -> Config:
    tls = settings.tls
    return Config(
        _APPLICATION,
        factory=True,
        host=settings.host,
        port=settings.port,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        ssl_context_factory=None if tls is None else tls.context,
        log_config=log_configuration(settings.log_level, settings.log_format),
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
    )


def load() -> None:
    """Load what else is needed to serve, which is otherwise loaded by its name."""
    for name in (_APPLICATION.partition(":")[0], "uvicorn.lifespan.on", "uvicorn.loops.uvloop"):
        importlib.import_module(name)


def work(place: int, end: int, listeners: Sequence[int]) -> int:
    """Serve as one of several until told to stop; return the exit code.

    `end` is the number of its end of the channel to the first process, `listeners` those of all sockets that
    connections come to. It begins when it is told to: the first process would care for none that it does not know.
    """
    set_name(WORKER)
    channel = Channel(socket.socket(fileno=end))
    if channel.wait() != ["start"]:
        return 0
    try:
        settings = Settings.from_environment(os.environ)
        Supervised(settings, channel, place, [socket.socket(fileno=number) for number in listeners]).run()
    except SettingsError as error:
        sys.stderr.write(f"leadtime: {error}\n")
        return _USAGE_ERROR
    return 0


def _main(arguments: Sequence[str]) -> int:
    place, end, *listeners = map(int, arguments)
    share_one_arena()
    return work(place, end, listeners)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))

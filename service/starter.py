"""How workers are started: each as a program of its own, or all as copies of one process that has loaded the program.

To load the libraries takes most of a start, a second or two on a slow machine. A copy has them in memory already, and
shares that memory with the others until it writes to it.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import Final, Protocol

from service.process import Adopted, Process, adopt_orphans

READY: Final = b"ready"
"""What the process that is copied says first, when it can be."""
NOT_ALONE: Final = b"not alone"
"""What it says instead where other threads run in it, which a copy would not have."""

_MOST_SAID: Final = 64
_READY_SECONDS: Final = 60.0
_COPY_SECONDS: Final = 10.0
_END_SECONDS: Final = 1.0
# The library would start threads, which a copy would not have; a worker keeps no more than one core busy as it is.
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1"}


class Starter(Protocol):
    """Starts workers."""

    async def start(self, place: int, end: int) -> Process:
        """Start one for a place; `end` is the number of its end of a channel.

        It waits to be told `start` there. One that has come into being though this has raised, or was cancelled, is
        told nothing, and ends with the other end of the channel.

        Raises:
            OSError: neither processes nor memory nor files are to be had at the moment.
        """

    def tend(self) -> None:
        """See to it that the next start will be a quick one; to be called now and then."""

    def close(self) -> None:
        """Start no more."""


class Spawner:
    """Starts each worker as a program of its own."""

    def __init__(self, command: Sequence[str], listeners: Sequence[socket.socket]) -> None:
        """Run `command` with a worker's place, the number of its end of a channel, and those of all listeners."""
        self._command = command
        self._listeners = listeners

    async def start(self, place: int, end: int) -> Process:
        """Start one; raises OSError."""
        numbers = [end, *(listener.fileno() for listener in self._listeners)]
        return _popen([*self._command, *map(str, [place, *numbers])], numbers, os.environ)

    def tend(self) -> None:
        """Nothing is kept ready."""

    def close(self) -> None:
        """Nothing is kept."""


class Forker:
    """Starts workers as copies of one process, or where that cannot be as programs of their own."""

    def __init__(self, command: Sequence[str], listeners: Sequence[socket.socket], otherwise: Starter) -> None:
        """Copy what `command` runs, which is `service.forkserver`; it gets the numbers of a socket and all listeners.

        This process becomes the parent of the copies.
        """
        self._command = command
        self._listeners = listeners
        self._otherwise = otherwise
        self._copies = adopt_orphans()
        self._template: _Template | None = None
        self._busy = asyncio.Lock()

    async def start(self, place: int, end: int) -> Process:
        """Start one; raises as `Starter.start`."""
        async with self._busy:
            if self._copies:
                if self._template is None or self._template.has_ended:
                    self._begin()
                assert self._template is not None
                if await self._template.is_ready():
                    return await self._template.copy(place, end)
                self._copies = self._template.said != NOT_ALONE
                self.close()
        return await self._otherwise.start(place, end)

    def tend(self) -> None:
        """Have a process to be copied again where it has ended since it was ready."""
        template = self._template
        if template is None or self._busy.locked():
            return
        template.hear()
        if template.said == READY and template.has_ended:
            with suppress(OSError):  # the next start tries again, and tells
                self._begin()

    def close(self) -> None:
        """End what was kept to be copied; it holds the listeners, too."""
        if self._template is not None:
            self._template.end()
            self._template = None

    def _begin(self) -> None:
        self.close()
        self._template = _Template(self._command, self._listeners)


class _Template:
    """The process that is copied, as seen from here."""

    def __init__(self, command: Sequence[str], listeners: Sequence[socket.socket]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        numbers = [theirs.fileno(), *(listener.fileno() for listener in listeners)]
        try:
            self._process = _popen([*command, *map(str, numbers)], numbers, os.environ | _ONE_THREAD)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours
        self.said: bytes | None = None
        """What it has said first; nothing where it has ended without a word."""

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def hear(self) -> None:
        """Hear whether it is ready, if it has told by now."""
        if self.said is None:
            with suppress(OSError):
                self.said = self._socket.recv(_MOST_SAID)

    async def is_ready(self) -> bool:
        """Wait until it has loaded everything; False where it cannot be copied, or takes too long."""
        if self.said is None:
            with suppress(OSError):
                self.said = await self._next(_READY_SECONDS)
        return self.said == READY

    async def copy(self, place: int, end: int) -> Adopted:
        socket.send_fds(self._socket, [str(place).encode()], [end])
        number = int(await self._next(_COPY_SECONDS) or -errno.ECONNRESET)
        if number < 0:
            raise OSError(-number, os.strerror(-number))
        return Adopted(number)

    def end(self) -> None:
        self._process.kill()
        with suppress(TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._socket.close()

    async def _next(self, seconds: float) -> bytes:
        """What it says next; where that is nothing for so long, it is ended."""
        said = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(self._socket, _MOST_SAID))
        try:
            await asyncio.wait({said}, timeout=seconds)
            if not said.done():
                self.end()
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            return said.result()
        finally:
            said.cancel()


def _popen(command: Sequence[str], descriptors: Sequence[int], environ: Mapping[str, str]) -> Popen[bytes]:
    # An interrupt from the keyboard is for this process alone, which tells the others what it means.
    return Popen(command, stdin=DEVNULL, pass_fds=descriptors, process_group=0, env=environ)

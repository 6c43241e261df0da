"""What the service's first process and its workers say to each other: lines of words, over a pair of sockets.

Whoever is gone is heard to be gone: the other end closes with its process, however that ends.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_MOST_AT_ONCE: Final = 65_536

Heard = Callable[[list[str]], None]


class Channel:
    """One end; to say something never waits, and is safe from any thread."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._rest = b""

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Both ends."""
        one, other = socket.socketpair()
        return cls(one), cls(other)

    def fileno(self) -> int:
        """The number by which a process that is started gets this end."""
        return self._end.fileno()

    def say(self, *words: object) -> None:
        """Send a line; what nobody reads any more is lost."""
        with suppress(OSError):
            self._end.send(f"{' '.join(map(str, words))}\n".encode())

    def wait(self) -> list[str]:
        """Wait for a line before there is a loop; no words where the other end is closed."""
        self._end.setblocking(True)
        line = b""
        while not line.endswith(b"\n"):
            try:
                byte = self._end.recv(1)
            except ConnectionError:
                byte = b""
            if not byte:
                return []
            line += byte
        self._end.setblocking(False)
        return line.decode().split()

    def listen(self, heard: Heard, gone: Callable[[], None]) -> None:
        """Have the running loop call `heard` with each line's words, and `gone` once when the other end is closed."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._end, self._read, heard, gone)

    def close(self) -> None:
        """Close this end, and listen no more."""
        if self._end.fileno() >= 0:
            with suppress(RuntimeError):  # no loop runs, so that none listens
                asyncio.get_running_loop().remove_reader(self._end)
            self._end.close()

    def _read(self, heard: Heard, gone: Callable[[], None]) -> None:
        try:
            data = self._end.recv(_MOST_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            gone()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            heard(line.decode().split())

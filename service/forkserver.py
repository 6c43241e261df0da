"""A process that loads all that workers need, and then is copied whenever one is wanted: it serves nothing itself.

`service.starter` runs it. Its arguments are the number of the socket over which copies are asked for, each with a
worker's place and the end of its channel, and those of the sockets that connections come to.

A copy has of all threads the one that asked for it, and may find locks that another one will never open. So nothing
may run here that starts threads: onnxruntime is loaded by the copies (`service.engine`). Where some do run, for example
those of a program that watches over every Python process, this one says so and is not copied.
"""

import errno
import gc
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.memory import share_one_arena
from service.starter import NOT_ALONE, READY

_MOST_ASKED: Final = 64


def _main(arguments: Sequence[str]) -> int:
    number, *listeners = map(int, arguments)
    share_one_arena()
    from service import worker

    worker.load()
    # What nobody looks at is never written to, and so stays shared: the collector of cycles marks what it looks at.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=number) as control:
        if len(list(Path("/proc/self/task").iterdir())) > 1:
            control.send(NOT_ALONE)
            return 0
        control.send(READY)
        asked = _copies(control)
    return 0 if asked is None else worker.work(*asked, listeners)


def _copies(control: socket.socket) -> tuple[int, int] | None:
    """Make a copy whenever one is asked for; return in each, with its place and channel, and here when all is over."""
    while True:
        place, ends, _, _ = socket.recv_fds(control, _MOST_ASKED, 1)
        if not place:
            return None
        (end,) = ends
        try:
            copy = _copy()
        except OSError as error:
            control.send(str(-(error.errno or errno.EAGAIN)).encode())
        else:
            if copy is None:
                return int(place), end
            control.send(str(copy).encode())
        os.close(end)


def _copy() -> int | None:
    """Copy this process; give the copy's number here, and None there.

    The copy is an orphan at once, for which the first process has to care: it would not hear from here how it ended.
    """
    read, write = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            copy = os.fork()
        except OSError as error:
            copy = -(error.errno or errno.EAGAIN)
        if copy == 0:
            os.close(read)
            os.close(write)
            os.setpgid(0, 0)
            return None
        with suppress(OSError):
            os.write(write, str(copy).encode())
        os._exit(0)
    os.close(write)
    number = int(os.read(read, _MOST_ASKED) or -errno.EAGAIN)
    os.close(read)
    os.waitpid(between, 0)
    if number < 0:
        raise OSError(-number, os.strerror(-number))
    return number


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))

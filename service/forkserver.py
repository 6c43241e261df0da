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
_THREADS: Final = Path("/proc/self/task")


def _main(arguments: Sequence[str]) -> int:
    number, *listeners = map(int, arguments)
    share_one_arena()
    from service import worker

    worker.load()
    # What nobody looks at is never written to, and so stays shared: the collector of cycles marks what it looks at.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=number) as control:
        if not _is_alone():
            control.send(NOT_ALONE)
            return 0
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or every copy would write what is left
        control.send(READY)
        asked = _copies(control)
    if asked is None:
        return 0
    with suppress(OSError):
        os.setpgid(0, 0)
    return worker.work(*asked, listeners)


def _is_alone() -> bool:
    """Whether nothing else runs in this process, as far as the system tells."""
    try:
        return len(list(_THREADS.iterdir())) == 1
    except OSError:
        return False


def _copies(control: socket.socket) -> tuple[int, int] | None:
    """Make a copy whenever one is asked for; return in each, with its place and channel, and here when all is over."""
    while True:
        place, ends, _, _ = socket.recv_fds(control, _MOST_ASKED, 1)
        if not place:
            return None
        if not ends:  # as many files are open as may be
            control.send(str(-errno.EMFILE).encode())
            continue
        number = _copy()
        if number == 0:
            return int(place), ends[0]
        # The end of a channel is to close with the copy that has it.
        os.close(ends[0])
        control.send(str(number).encode())


def _copy() -> int:
    """Copy this process; give the copy's number, 0 in the copy, and the negative number of an error where none is made.

    The copy is an orphan at once, for which the first process has to care: it would not hear from here how it ended.
    """
    try:
        read, write = os.pipe()
    except OSError as error:
        return -(error.errno or errno.EAGAIN)
    between = _fork()
    if between == 0:
        copy = _fork()
        if copy == 0:
            os.close(read)
            os.close(write)
            return 0
        with suppress(OSError):
            os.write(write, str(copy).encode())
        os._exit(0)
    os.close(write)
    told = os.read(read, _MOST_ASKED)
    os.close(read)
    if between < 0:
        return between
    os.waitpid(between, 0)
    return int(told or -errno.EAGAIN)


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:
        return -(error.errno or errno.EAGAIN)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))

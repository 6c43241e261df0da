"""Processes as the system knows them: their names, their ends, and who their parents are."""

import ctypes
import os
import signal
import sys
from typing import Final, Protocol

WORKER: Final = "leadtime-worker"
"""The name of a worker's process, as `ps -o comm` shows it."""

_UNKNOWN: Final = 255

# https://man7.org/linux/man-pages/man2/prctl.2.html
_SET_NAME: Final = 15
_SET_CHILD_SUBREAPER: Final = 36


class Process(Protocol):
    """A process that this one has to bury: `subprocess.Popen` is one."""

    pid: int
    returncode: int | None
    """The exit code, or the negative number of the signal that ended it; None as long as nobody has seen it ended."""

    def poll(self) -> int | None:
        """See whether it has ended, and how."""

    def kill(self) -> None:
        """End it at once."""


class Adopted:
    """A process that another one has started and left to this one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """See whether it has ended, and how."""
        if self.returncode is None:
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self.returncode = _UNKNOWN
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def kill(self) -> None:
        """End it at once; its number is nobody else's until its end has been seen."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def how_it_ended(code: int) -> str:
    """What an exit code says, in words."""
    return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"


def adopt_orphans() -> bool:
    """Become the parent of processes below this one whose own parents end; whether the system can do that."""
    return _prctl(_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """Give this process a name of at most 15 characters, where the system can do that."""
    _prctl(_SET_NAME, name.encode())


def _prctl(option: int, value: int | bytes) -> bool:
    if sys.platform != "linux":
        return False
    try:
        return int(ctypes.CDLL(None).prctl(option, value, 0, 0, 0)) == 0
    except (AttributeError, OSError):
        return False

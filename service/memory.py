"""What a process takes of the machine's memory, as far as the C library decides it."""

import ctypes
from contextlib import suppress
from typing import Final

_ARENA_MAX: Final = -8  # glibc's M_ARENA_MAX


def share_one_arena() -> None:
    """Have all threads that start from now on take their memory from one arena, where the C library is glibc.

    It would give each of them an arena of its own, and keep in it what is free again: a worker was one or two
    megabytes larger for it. None of them has to wait for the others much: most of what they do needs Python's lock.
    """
    with suppress(AttributeError, OSError, TypeError):  # other libraries have no such call
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)

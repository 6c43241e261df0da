"""The stamp of a file: what tells its content apart without its being read."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

Stamp = tuple[int, ...]

# Editors and `cp` empty a file before they fill it: what is read in between is sound, and says less than was meant.
_QUIET_SECONDS: Final = 0.1
_AT_MOST_SECONDS: Final = 1.0


def stamp_of(path: Path) -> Stamp:
    """Times, size and inode of a file; one that is not there has zeros."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0, 0)
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


def settled(look: Callable[[], Stamp]) -> Stamp:
    """The stamp of what has changed, when it has stayed as it is for a moment, or is written for too long; waits."""
    deadline = time.monotonic() + _AT_MOST_SECONDS
    stamp, before = look(), None
    while stamp != before and time.monotonic() < deadline:
        time.sleep(_QUIET_SECONDS)
        stamp, before = look(), stamp
    return stamp

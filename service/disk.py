"""Files in which processes share what they count, on a disk that may be full."""

import os
from pathlib import Path


def reserve(file: int, size: int) -> None:
    """Give a file so many bytes that are there for sure: to touch a page that finds no room on the disk kills.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)


def append(path: Path, line: bytes) -> bool:
    """Write a line behind the others, whole or not at all; return whether it could be."""
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                if file.write(line) == len(line):
                    return True
            except OSError:
                pass
            file.truncate(before)
    except OSError:
        pass  # as many files are open as may be, for instance
    return False


def replace(path: Path, content: bytes) -> bool:
    """Put another file in the place of one, all at once; return whether it could be."""
    coming = path.with_suffix(".coming")
    try:
        coming.write_bytes(content)
        coming.replace(path)
    except OSError:
        return False
    return True

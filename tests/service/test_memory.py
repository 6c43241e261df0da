"""How a process takes its memory."""

import platform
import subprocess
import sys

import pytest

_COUNT_ARENAS = """
import ctypes, sys, threading
from service.memory import share_one_arena

if sys.argv[1] == "shared":
    share_one_arena()
library = ctypes.CDLL(None)
library.malloc.restype, library.fopen.restype = ctypes.c_void_p, ctypes.c_void_p
everybody = threading.Barrier(4)

def work():
    everybody.wait()
    for _ in range(100):
        library.malloc(1000)

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = ctypes.c_void_p(library.fopen(b"/dev/stdout", b"w"))
library.malloc_info(0, file)
library.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_threads_share_one_arena_where_each_would_have_its_own() -> None:
    assert _arenas("apart") > 1
    assert _arenas("shared") == 1


def _arenas(how: str) -> int:
    told = subprocess.run([sys.executable, "-c", _COUNT_ARENAS, how], capture_output=True, text=True, check=True)
    return told.stdout.count("<heap nr=")

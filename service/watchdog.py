"""The watch over an event loop: a thread that tells whether it turns, and ends the process when it does not."""

import asyncio
import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from typing import Final

BEAT_SECONDS: Final = 0.5
"""How often the loop is looked at."""

HUNG: Final = 70
"""The exit code of a process whose loop stood still: an internal fault, in the words of sysexits.h."""


class Watchdog:
    """It calls `beat` as long as the loop turns; and where it has stood still for too long, shows where, and exits.

    Time is counted in the thread's own rounds: while the whole process is stopped, no round passes, and none is missed.
    """

    def __init__(self, patience: float, beat: Callable[[], None] = lambda: None) -> None:
        """Begin; a loop may stand still for `patience` seconds once it is watched, or for good where that is 0."""
        self._patience = patience
        self._beat = beat
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_turned = True
        self._over = threading.Event()
        threading.Thread(target=self._run, name="leadtime-watchdog", daemon=True).start()

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at a loop from now on; what comes before, such as opening models, may take its time."""
        self._loop = loop

    def close(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        rounds = 0
        while not self._over.wait(BEAT_SECONDS):
            if self._has_turned:
                rounds = 0
                self._beat()
                self._ask()
            else:
                rounds += 1
                if 0 < self._patience < rounds * BEAT_SECONDS:
                    self._give_up()

    def _ask(self) -> None:
        if self._loop is None:
            return
        self._has_turned = False
        try:
            self._loop.call_soon_threadsafe(self._turn)
        except RuntimeError:  # the loop is closed
            self.close()

    def _turn(self) -> None:
        self._has_turned = True

    def _give_up(self) -> None:
        # Not by way of the log: whoever stands still may hold its lock.
        line = f"leadtime: the event loop has not turned for {self._patience:g} s; the process ends. It stands here:\n"
        os.write(sys.stderr.fileno(), line.encode())
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        os._exit(HUNG)

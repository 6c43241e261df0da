"""The watch over a folder: when something in it may have changed, somebody looks at it, on a thread of its own.

The file system tells of changes where it can. It cannot everywhere: network drives and some containers' volumes tell
of nothing, a folder may not be there yet, and one that is moved away and put back is another one. So every so often
somebody looks as well.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from watchfiles import watch

# A change is acted on when nothing more has changed for a while, or too long has passed since the first one: files come
# in several steps.
_QUIET_MS: Final = 100
_AT_MOST_MS: Final = 1000

# What changed before the file system was asked is told by nobody, nor is that the folder is another one: a look comes
# this soon after the asking, and the folder is compared this often.
_TURN_MS: Final = 200
_GONE_SECONDS: Final = 0.5

_log: Final = logging.getLogger("leadtime.watch")


class Watch:
    """A thread that has `look` called whenever a folder may have changed, and every so many seconds."""

    def __init__(self, folder: Path, seconds: float, look: Callable[[], object]) -> None:
        """Watch until it is closed; `look` may take its time, and may fail."""
        self._folder = folder
        self._seconds = seconds
        self._look_there = look
        self._stopping = threading.Event()
        self._has_complained = False
        self._thread = threading.Thread(target=self._run, name="leadtime-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more, and wait for the end of a look that is under way."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow_changes()
            # What the library raises where a folder cannot be watched has no common root.
            except Exception as error:
                self._complain(error)
                # A folder is gone for a moment, too, when another is put in its place.
                gone = isinstance(error, FileNotFoundError)
                self._stopping.wait(min(self._seconds, _GONE_SECONDS) if gone else self._seconds)
                self._look()

    def _follow_changes(self) -> None:
        """Look at once, after each change, and every so often, for as long as the folder is the same one."""
        folder = self._identity()
        look_at = time.monotonic()
        changes = watch(
            self._folder,
            watch_filter=None,
            debounce=_AT_MOST_MS,
            step=_QUIET_MS,
            stop_event=self._stopping,
            rust_timeout=max(1, min(_TURN_MS, round(self._seconds * 1000))),
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )
        self._has_complained = False
        for changed in changes:
            if changed or time.monotonic() >= look_at:
                self._look()
                look_at = time.monotonic() + self._seconds
            if self._identity() != folder:
                return

    def _identity(self) -> tuple[int, int]:
        found = self._folder.stat()
        return found.st_dev, found.st_ino

    def _look(self) -> None:
        if self._stopping.is_set():
            return
        try:
            self._look_there()
        except Exception:
            _log.exception("the models' folder could not be looked through; what was served before is still served")

    def _complain(self, error: Exception) -> None:
        if not self._has_complained and not isinstance(error, FileNotFoundError):
            reason = getattr(error, "strerror", None) or type(error).__name__
            _log.warning(
                "the models' folder tells of no changes (%s): looked through every %g s", reason, self._seconds
            )
        self._has_complained = True

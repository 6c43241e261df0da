"""The journal: a line in the log for requests, of those that went well for a share alone.

Those that were refused or failed are always written, up to a number a second: under a flood of them the log would take
the time that answers need. How many were left out is said in the next line.
"""

import logging
from random import random
from time import perf_counter
from typing import Final

from service.api.trip import Trip
from service.log import FIELDS

MOST_ERRORS: Final = 100
"""Lines a second about requests that were refused or failed."""

_FIRST_ERROR: Final = 400
_FAILURE: Final = 500

_log: Final = logging.getLogger("leadtime.access")


class Journal:
    """One process's lines about requests."""

    def __init__(self, share: float) -> None:
        """Write of requests that went well a share, 0 to 1."""
        self._share = share
        self._second = 0
        self._errors = 0
        self._left_out = 0

    def takes(self, status: int) -> bool:
        """Whether a request that was answered so is written, as chance or the number of errors has it."""
        if status < _FIRST_ERROR:
            return random() < self._share
        second = int(perf_counter())
        if second != self._second:
            self._second, self._errors = second, 0
        self._errors += 1
        if self._errors > MOST_ERRORS:
            self._left_out += 1
            return False
        return True

    def write(self, trip: Trip, status: int, ended: float) -> None:
        """Write about a request that was answered at `ended`; nothing of its body, address or keys."""
        level = logging.INFO if status < _FAILURE else logging.ERROR
        if not _log.isEnabledFor(level):
            return
        fields: dict[str, object] = {
            **trip.marks.fields(),
            "method": trip.method,
            "route": trip.route,
            "status": status,
            "seconds": _rounded(ended - trip.came),
        }
        if trip.model is not None:
            fields |= {"model": trip.model.name, "version": trip.model.version}
        if trip.ended:
            fields |= {
                "parse_seconds": _rounded(trip.asked - trip.came),
                "wait_seconds": _rounded(trip.begun - trip.asked),
                "run_seconds": _rounded(trip.ended - trip.begun),
            }
        if trip.refused:
            fields["refused"] = trip.refused
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        _log.log(level, "%s %s %d", trip.method or "-", trip.route, status, extra={FIELDS: fields})


def _rounded(seconds: float) -> float:
    return round(seconds, 6)

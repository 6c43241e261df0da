"""A request on its way: what is noted of it, until it has its answer."""

from collections.abc import Sequence
from time import perf_counter
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Scope

from service.api.correlation import Correlation, new_request_id
from service.log import Marks
from service.sequences import Times
from service.versions import ServedModel

OTHER: Final = "other"
"""The route of requests to paths that do not exist, and of what is no sound HTTP."""

HUNG_UP: Final = 499
"""The status of requests whose client was gone before the answer, as nginx counts them."""


class Trip(Times):
    """What is noted of one request on its way, beside the times of its forecasts."""

    __slots__ = (
        "came",
        "headers",
        "is_in_time",
        "method",
        "model",
        "refused",
        "request_id",
        "route",
        "status",
        "trace_id",
    )

    def __init__(
        self, method: str, route: str, headers: Sequence[tuple[bytes, bytes]], correlation: Correlation
    ) -> None:
        """Begin with a request whose body has come."""
        self.asked = self.begun = self.ended = 0.0
        self.model: ServedModel | None = None
        """The version that answers it, once that is known."""
        self.refused = ""
        """Why it was refused, in a word that may become a label."""
        self.is_in_time = False
        """Whether it was found, before it was read, that it would not be late."""
        self.status = 0
        """What is counted in the place of the answer's status; 0 = that."""
        self.method = method
        self.route = route
        self.headers = headers
        self.request_id = correlation.request_id or new_request_id()
        self.trace_id = correlation.trace_id
        self.came = perf_counter()

    @property
    def marks(self) -> Marks:
        """By what it can be found again."""
        return Marks(self.request_id.decode(), self.trace_id)

    def refuse(self, reason: str, error: Exception) -> None:
        """Note why it is refused; one whose client is gone is not."""
        if isinstance(error, ClientDisconnect):
            self.status = HUNG_UP
        else:
            self.refused = reason


def trip_of(scope: Scope) -> Trip | None:
    """What is noted of the request with this scope, if anything is."""
    trip: Trip | None = scope.get("trip")
    return trip

"""What is noted of every request: counts and times for Prometheus, a line in the log, a trace.

A request is counted once, when its answer is ready and yet to be written, from the few times that were taken on its
way: what has been answered has been counted, even by a worker that is killed. It is logged and traced behind its
answer. Cells to count in are looked up by route, model, version and status, and bound when such a request comes for the
first time; what a client names never becomes a label before it has been found.
"""

import logging
from time import perf_counter
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.correlation import NONE, REQUEST_ID, read_correlation
from service.api.journal import Journal
from service.api.tracing import Tracing
from service.api.trip import OTHER, Trip
from service.histograms import Histograms
from service.log import MARKS
from service.metrics import Cell, Metrics, TooManyMetrics
from service.scheduler import REQUESTS_REFUSED
from service.versions import ServedModel

REQUESTS: Final = "leadtime_requests"
REQUEST_SECONDS: Final = "leadtime_request_seconds"
PARSE_SECONDS: Final = "leadtime_request_parse_seconds"
WAIT_SECONDS: Final = "leadtime_request_wait_seconds"
RUN_SECONDS: Final = "leadtime_request_run_seconds"

BOUNDS: Final = (
    *(50e-6, 100e-6, 200e-6, 500e-6, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds of the buckets of every histogram of times, in seconds."""

_NAMES: Final = (REQUEST_SECONDS, PARSE_SECONDS, WAIT_SECONDS, RUN_SECONDS)
_ANSWERED: Final = range(200, 400)
# Reasons that are none, or that are counted where they arise, more closely.
_COUNTED: Final = ("", "overloaded")

_log: Final = logging.getLogger("leadtime.observation")


class Observer:
    """What one process notes of its requests."""

    def __init__(self, metrics: Metrics | None, journal: Journal | None, tracing: Tracing | None) -> None:
        """Count in `metrics`, log in `journal` and trace, each where it is given."""
        self._metrics = metrics
        self._journal = journal
        self._tracing = tracing
        self._books: dict[tuple[str, str, str, int], _Book] = {}
        self._forgettings = 0
        self._last: tuple[str, ServedModel | None, int, _Book] | None = None
        """The route, version, status and book of the last request: mostly the next one's, and found without a key."""
        self.tells = journal is not None or tracing is not None
        """Whether anything is told beside the counts."""

    def count(self, trip: Trip, status: int) -> float:
        """Count a request whose answer is ready, or that will have none; return the time."""
        ended = perf_counter()
        metrics = self._metrics
        if metrics is not None:
            last = self._last
            if (
                last is not None
                and last[0] is trip.route
                and last[1] is trip.model
                and last[2] == status
                and self._forgettings == metrics.forgettings
            ):
                book = last[3]
            else:
                book = self._book(metrics, trip, status)
            book.requests.add()
            if book.times is None:
                if trip.refused not in _COUNTED:
                    self._count_refused(metrics, trip.refused)
            elif trip.ended:
                came, asked, begun, done = trip.came, trip.asked, trip.begun, trip.ended
                book.times.observe(ended - came, asked - came, begun - asked, done - begun)
            else:
                book.times.observe_first(ended - trip.came)
        return ended

    def tell(self, trip: Trip, status: int, ended: float) -> None:
        """Log and trace a request that was counted at a time, as far as it is wanted."""
        if self._tracing is not None:
            trip.trace_id = self._tracing.record(trip, status, ended) or trip.trace_id
        if self._journal is not None and self._journal.takes(status):
            self._journal.write(trip, status, ended)

    def refuse(self, status: int, reason: str) -> None:
        """Note something that is no sound HTTP, and was refused before it was a request."""
        trip = Trip("", OTHER, (), NONE)
        trip.refused = reason
        self.finish(trip, status)

    def finish(self, trip: Trip, status: int) -> None:
        """Count a request and tell of it."""
        self.tell(trip, status, self.count(trip, status))

    def close(self) -> None:
        """Send the traces that are left."""
        if self._tracing is not None:
            self._tracing.close()

    def _book(self, metrics: Metrics, trip: Trip, status: int) -> "_Book":
        model = trip.model
        key = (trip.route, "", "", status) if model is None else (trip.route, model.name, model.version, status)
        if self._forgettings != metrics.forgettings:
            self._forgettings = metrics.forgettings
            self._books.clear()
        book = self._books.get(key)
        if book is None:
            book = self._books[key] = self._open(metrics, key)
        self._last = trip.route, model, status, book
        return book

    def _open(self, metrics: Metrics, key: tuple[str, str, str, int]) -> "_Book":
        route, model, version, status = key
        labels = {"route": route, "model": model, "version": version, "status": str(status)}
        try:
            requests = metrics.counter(REQUESTS, **labels)
        except TooManyMetrics:
            _log.warning("there is no room to count requests of %s, model %s, apart: they go uncounted", route, model)
            return _UNCOUNTED
        if status not in _ANSWERED:
            return _Book(requests)
        names = _NAMES if model else _NAMES[:1]
        try:
            return _Book(requests, metrics.histograms(names, BOUNDS, route=route, model=model))
        except TooManyMetrics:
            _log.warning("there is no room for times of %s, model %s: its requests are counted without", route, model)
            return _Book(requests)

    @staticmethod
    def _count_refused(metrics: Metrics, reason: str) -> None:
        try:
            metrics.counter(REQUESTS_REFUSED, reason=reason).add()
        except TooManyMetrics:
            _log.debug("no room to count another reason")


class _Book:
    """Where the requests of one route, version and status are counted."""

    __slots__ = ("requests", "times")

    def __init__(self, requests: Cell, times: Histograms | None = None) -> None:
        self.requests = requests
        self.times = times
        """From a request to its answer, and the stages on the way; None for those that are refused."""


_UNCOUNTED: Final = _Book(Cell(memoryview(bytearray(8)).cast("d"), 0))
"""For all for which there is no room; nobody reads it."""


class Observed:
    """An application whose requests are noted, each of which is answered with its id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        # A request that comes by the short way has been noted there.
        if scope["type"] != "http" or "trip" in scope:
            await self._app(scope, receive, send)
            return
        observer: Observer = scope["state"]["service"].observer
        trip = Trip(scope["method"], OTHER, scope["headers"], read_correlation(scope["headers"]))
        scope["trip"] = trip
        MARKS.set(trip.marks)
        status, ended = 500, 0.0

        def count() -> None:
            nonlocal status, ended
            if trip.route is OTHER:
                trip.route = getattr(scope.get("route"), "path_format", OTHER)
            status = trip.status or status
            ended = observer.count(trip, status)

        async def receive_more() -> Message:
            message = await receive()
            if not trip.asked:  # what comes later is the client's end
                trip.came = perf_counter()
            return message

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID.decode()] = trip.request_id.decode()
            elif not ended and not message.get("more_body", False):
                count()
            await send(message)

        try:
            await self._app(scope, receive_more, send_more)
        finally:
            if not ended:
                count()
            observer.tell(trip, status, ended)

"""A request for a forecast, from its head to its answer.

Most are answered without waiting for anything but the scheduler, which tells when it is done (`ask`). A request whose
intervals, timestamps or calendars take a thread's time is completed by a coroutine; so is every one that comes as
messages of ASGI.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Final

import orjson
from pydantic import TypeAdapter
from starlette.types import Receive, Scope

from service.api.access import secrets_of
from service.api.admission import check_is_in_time
from service.api.arrow import read_request, write_answer
from service.api.body import read_body
from service.api.cache import may_keep
from service.api.connection import while_connected
from service.api.faults import IN_JSON, parse
from service.api.headers import ARROW, JSON, Wishes, read_headers
from service.api.intervals import Entry, Plan, plan_for, steps_of_past
from service.api.known import Told, with_known
from service.api.origins import timestamps_for
from service.api.reader import is_large
from service.api.shortcut import Content, End
from service.api.state import Service
from service.api.trip import Trip, trip_of
from service.api.windows import Windows, windows_for
from service.errors import DeadlineExceeded, Fault, ForecastOutOfRange, InvalidRequest, LeadtimeError, ShuttingDown
from service.routing import answering
from service.schemas import ForecastRequest, MultiStepRequest
from service.sequences import NOT_IN_TIME, Request
from service.versions import ServedModel
from service.window import Values

# From so many steps on it pays to watch whether the client is still there.
_WORTH_WATCHING: Final = 256

STOPPED: Final = "the service stopped before the forecast was complete"
"""What is said to a request that outlasts the drain."""


class Inquiries:
    """The requests for forecasts to one path."""

    def __init__(self, schema: type[ForecastRequest]) -> None:
        """Read their bodies by `schema`."""
        self._schema: TypeAdapter[ForecastRequest] = TypeAdapter(schema)
        self._is_one_step = not issubclass(schema, MultiStepRequest)

    async def __call__(self, scope: Scope, receive: Receive) -> Content:
        """Answer a request whose body is yet to be received, with body and media type of a 200.

        Raises:
            LeadtimeError: the request cannot be answered; `service.api.problems` says what each becomes.
            ClientDisconnect: the client has hung up.
        """
        service: Service = scope["state"]["service"]
        inquiry = self.inquire(service, scope["headers"], scope.get("client"), trip_of(scope))
        with _told_of_a_stop(service):
            body = await read_body(receive, service.settings.max_body_bytes)
            if inquiry.is_large(body):
                await inquiry.take_aside(body, receive)
            else:
                inquiry.take(body)
            return await inquiry.answer(receive)

    def inquire(
        self,
        service: Service,
        headers: Sequence[tuple[bytes, bytes]],
        client: tuple[str, int] | None,
        trip: Trip | None,
        wishes: Wishes | None = None,
    ) -> "Inquiry":
        """Begin with a request's head: who asks, and what the headers say, unless that has been read before.

        Raises:
            LeadtimeError: it cannot be answered.
        """
        secrets = secrets_of(headers) if wishes is None else wishes.secrets
        number = service.access.admit("forecast", secrets, client)
        if wishes is None:
            wishes = read_headers(headers, service.settings)
        return Inquiry(service, self._schema, self._is_one_step, headers, number, wishes, trip)


class Inquiry:
    """One request for a forecast."""

    __slots__ = (
        "_client",
        "_end",
        "_headers",
        "_horizon",
        "_is_one_step",
        "_kept",
        "_key",
        "_model",
        "_name",
        "_question",
        "_request",
        "_schema",
        "_service",
        "_told",
        "_trip",
        "_windows",
        "_wishes",
    )
    _end: End
    _horizon: int
    _model: ServedModel
    _name: str
    _question: ForecastRequest
    _told: Told | None
    _windows: Windows

    def __init__(
        self,
        service: Service,
        schema: TypeAdapter[ForecastRequest],
        is_one_step: bool,
        headers: Sequence[tuple[bytes, bytes]],
        client: int,
        wishes: Wishes,
        trip: Trip | None,
    ) -> None:
        """Take over from `Inquiries.inquire`."""
        self._service = service
        self._schema = schema
        self._is_one_step = is_one_step
        self._headers = headers
        self._client = client
        self._wishes = wishes
        self._trip = trip
        self._request: Request | None = None
        self._kept: Content | None = None
        """The answer, where it was given before."""
        self._key: bytes | None = None
        """By which the answer is to be kept."""

    def is_large(self, body: bytes) -> bool:
        """Whether others would wait too long while the body is read: `take_aside` has them not wait."""
        return not self._wishes.from_arrow and is_large(body)

    def take(self, body: bytes) -> None:
        """Read the body.

        Raises:
            LeadtimeError: it cannot be answered.
        """
        if self._is_known(body):
            return
        settings = self._service.settings
        if self._wishes.from_arrow:
            question, self._told = read_request(self._schema, body, settings)
            steps = self._find(question)
            self._windows = self._told.windows_for(self._model.engine.metadata, self._horizon, settings)
        else:
            question, self._told = parse(self._schema, body), None
            steps = self._find(question)
            self._windows = windows_for(question, self._model.engine.metadata, self._horizon, settings, steps)

    async def take_aside(self, body: bytes, receive: Receive) -> None:
        """Read the body in another process; `receive` tells of the client's end.

        Raises:
            LeadtimeError: it cannot be answered.
            ClientDisconnect: the client has hung up.
        """
        if not self._is_known(body):
            await while_connected(receive, self._read_aside(body))

    async def _read_aside(self, body: bytes) -> None:
        service, seconds = self._service, self._wishes.seconds
        begun = perf_counter()
        try:
            async with asyncio.timeout(seconds), service.reader.turn(len(body)) as turn:
                steps = self._find(await turn.read(body, is_one_step=self._is_one_step))
                metadata = self._model.engine.metadata
                self._told = aside = await turn.take(metadata, self._horizon, service.settings, steps)
        except TimeoutError:
            raise DeadlineExceeded(NOT_IN_TIME) from None
        self._windows = aside.windows
        self._wishes = self._wishes._replace(seconds=max(seconds - (perf_counter() - begun), 0.0))

    def _is_known(self, body: bytes) -> bool:
        """Whether the answer to the body was given before.

        Raises:
            Overloaded: it would be late.
        """
        service, trip, wishes = self._service, self._trip, self._wishes
        if service.cache is not None:
            key = service.cache.key(body, self._is_one_step, wishes.from_arrow, wishes.to_arrow)
            found = service.cache.find(key, service.registry)
            if found is not None:
                if trip is not None:
                    trip.model = found[0]
                self._kept = found[1]
                return True
            self._key = key
        if service.scheduler.is_crowded and not (trip is not None and trip.is_in_time):
            check_is_in_time(service, wishes.seconds, body, self._client)
        return False

    def _find(self, question: ForecastRequest) -> int | None:
        """Find the model that answers, and how many steps of the windows it may use beyond its context, if any.

        Raises:
            NotFound: there is none.
        """
        service, trip = self._service, self._trip
        self._question = question
        self._horizon = horizon = question.horizon if isinstance(question, MultiStepRequest) else 1
        self._name = question.model or service.settings.default_model
        model = service.registry.find(self._name, question.version)
        if self._key is not None and not (may_keep(model) and (question.samples is None or question.seed is not None)):
            self._key = None
        if model.canary is not None:
            model = answering(model, self._headers)
        self._model = model
        if trip is not None:
            trip.model = model
        if not self._wants_intervals:
            return _steps_of_shadow(model)
        return steps_of_past(model.engine.metadata, min(horizon, service.settings.max_horizon))  # checked further on

    def ask(self, body: bytes, end: End) -> bool:
        """Read the body and have the answer, or why there is none, told to `end`, now or in a later turn of the loop.

        Returns False where nothing will be told, for it takes a coroutine: `complete`.

        Raises:
            LeadtimeError: it cannot be answered; nothing will be told.
        """
        self.take(body)
        if self._kept is not None:
            end(self._kept, None)
            return True
        question = self._question
        if (
            self._wants_intervals
            or question.origin is not None
            or question.frequency is not None
            or question.future is not None
            or question.futures is not None
            or self._model.engine.known
        ):
            return False
        self._end = end
        self._request = self._service.scheduler.begin(
            self._model.engine,
            self._windows.arrays,
            self._horizon,
            self._tell,
            seconds=self._wishes.seconds,
            times=self._trip,
            client=self._client,
        )
        return True

    def give_up(self, error: LeadtimeError | None = None) -> None:
        """Stop working on what was asked; where there is an error, that is what is told."""
        request, self._request = self._request, None  # each would keep the other, as below
        if request is not None:
            self._service.scheduler.give_up(request, error)

    async def complete(self, receive: Receive) -> Content:
        """The answer to what was taken, where `ask` tells of none; raises as `answer` does, and tells of a stop."""
        with _told_of_a_stop(self._service):
            return await self.answer(receive)

    async def answer(self, receive: Receive) -> Content:
        """The answer to what was taken, however long it takes; `receive` tells of the client's end.

        Raises:
            LeadtimeError: it cannot be answered.
            ClientDisconnect: the client has hung up.
        """
        if self._kept is not None:
            return self._kept
        service, question, model, horizon = self._service, self._question, self._model, self._horizon
        metadata, windows = model.engine.metadata, self._windows
        times = None
        if question.origin is not None or question.frequency is not None:
            times = await timestamps_for(question, len(windows.arrays), horizon, metadata.frequency)
        if model.engine.known or question.future is not None or question.futures is not None:
            windows = self._windows = await with_known(windows, question, self._told, metadata, horizon)
        plan: Plan | None = None
        rows, known, scales = windows.arrays, windows.known, None
        if self._wants_intervals:
            plan = plan_for(question, windows, metadata, horizon, service.settings)
            if self._wishes.to_arrow:
                raise InvalidRequest([Fault("/levels" if question.levels else "/samples", IN_JSON)])
            rows, known, scales = plan.rows, plan.known, plan.scales
        work = service.scheduler.forecast(
            model.engine,
            rows,
            horizon,
            seconds=self._wishes.seconds,
            scales=scales,
            known=known,
            times=self._trip,
            client=self._client,
        )
        try:
            if len(rows) * horizon < _WORTH_WATCHING:
                forecasts = await work
            else:
                forecasts = await while_connected(receive, work)
        except ForecastOutOfRange as error:
            raise self._placed(error, plan) from None
        beside = None
        if model.shadow is not None:
            service.shadows.follow(model, rows, known, forecasts)
        if plan is not None:
            heavy = plan.is_heavy
            forecasts, beside = await asyncio.to_thread(plan.answer, forecasts) if heavy else plan.answer(forecasts)
        return self._answer(forecasts, times, beside)

    @property
    def _wants_intervals(self) -> bool:
        question = self._question
        return question.levels is not None or question.samples is not None or question.seed is not None

    def _tell(self, request: Request, error: BaseException | None) -> None:
        self._request = None  # each would keep the other, until the collector of cycles came by
        if error is None:
            try:
                forecasts = request.forecasts
                if self._model.shadow is not None:
                    self._service.shadows.follow(self._model, self._windows.arrays, None, forecasts)
                answer = self._answer(forecasts)
            except Exception as failure:
                error = failure
            else:
                self._end(answer, None)
                return
        self._end(None, self._placed(error) if isinstance(error, ForecastOutOfRange) else error)

    def _placed(self, error: ForecastOutOfRange, plan: Plan | None = None) -> ForecastOutOfRange:
        """The same error, told of the window as it was sent."""
        if self._question.window is not None:
            return ForecastOutOfRange([Fault("/window", fault.message) for fault in error.faults])
        return error if plan is None else plan.fault_in_window(error)

    def _answer(
        self,
        forecasts: Values,
        times: Sequence[Sequence[str]] | None = None,
        beside: Sequence[Entry] | None = None,
    ) -> Content:
        model, horizon, as_rows = self._model, self._horizon, self._windows.as_rows
        if self._wishes.to_arrow:
            about = {"model": model.name, "version": model.version, "horizon": str(horizon)}
            answer = write_answer(about, forecasts, as_rows, times), ARROW
        else:
            answer = encode(model, horizon, forecasts, as_rows, times, beside), JSON
        if self._key is not None and self._service.cache is not None:
            self._service.cache.keep(self._key, self._name, self._question.version, model, answer)
        return answer


@contextmanager
def _told_of_a_stop(service: Service) -> Iterator[None]:
    """Say that the service stops: it cancels what outlasts the drain, whose client is still there."""
    try:
        yield
    except asyncio.CancelledError:
        if not service.draining:
            raise
        raise ShuttingDown(STOPPED) from None


def _steps_of_shadow(model: ServedModel) -> int | None:
    """How much of a window is kept where a shadow may use more of it than the model does."""
    if model.shadow is None:
        return None
    return max(model.engine.context_length, model.shadow.model.engine.context_length)


def encode(
    model: ServedModel,
    horizon: int,
    forecasts: Values,
    as_rows: Sequence[bool],
    times: Sequence[Sequence[str]] | None,
    beside: Sequence[Entry] | None = None,
) -> bytes:
    """The answer as JSON, written once; 32-bit floats become their shortest decimal that reads back the same."""
    if times is None and beside is None:
        # Put together by hand, which takes half the time; a model's name needs no escapes.
        head = b'{"model":"%b","version":"%b","horizon":%d,"forecasts":[{"values":'
        return b"%b%b}]}" % (
            head % (model.name.encode(), model.version.encode(), horizon),
            b'},{"values":'.join(_listed(forecasts, as_rows)),
        )
    entries: list[dict[str, object]] = [
        {"values": values if rows else values.reshape(-1)} for values, rows in zip(forecasts, as_rows, strict=True)
    ]
    for entry, timestamps in zip(entries, times or (), strict=times is not None):
        entry["timestamps"] = timestamps
    for entry, more in zip(entries, beside or (), strict=beside is not None):
        entry |= more
    answer = {"model": model.name, "version": model.version, "horizon": horizon, "forecasts": entries}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _listed(forecasts: Values, as_rows: Sequence[bool]) -> list[bytes]:
    """Each forecast as a JSON list, of numbers or of rows."""
    if len(as_rows) > 1 and not any(as_rows):
        # All of them at once, and then cut apart: a call for each takes as long as its numbers do.
        together = orjson.dumps(forecasts.reshape(len(forecasts), -1), option=orjson.OPT_SERIALIZE_NUMPY)
        return [b"[%b]" % numbers for numbers in together[2:-2].split(b"],[")]
    return [
        orjson.dumps(values if rows else values.reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)
        for values, rows in zip(forecasts, as_rows, strict=True)
    ]

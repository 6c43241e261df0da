"""The native protocol: one-step and multi-step forecasts."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from service.api.admission import check_is_in_time
from service.api.arrow import Table, read_request, write_answer
from service.api.body import read_body
from service.api.cache import may_keep
from service.api.connection import while_connected
from service.api.faults import IN_JSON, parse
from service.api.headers import ARROW, JSON, read_headers
from service.api.intervals import Entry, Plan, plan_for, steps_of_past
from service.api.known import with_known
from service.api.openapi import describe_answer, describe_body, describe_errors
from service.api.origins import timestamps_for
from service.api.problems import (
    BODY_TOO_LARGE,
    DEADLINE_EXCEEDED,
    FORECAST_OUT_OF_RANGE,
    INTERNAL_ERROR,
    INVALID_HEADER,
    INVALID_REQUEST,
    NOT_FOUND,
    NOT_READY,
    OVERLOADED,
    UNREADABLE_BODY,
    UNSUPPORTED_MEDIA_TYPE,
)
from service.api.route import DirectRoute
from service.api.shortcut import Answer
from service.api.state import Service
from service.api.trip import trip_of
from service.api.windows import windows_for
from service.errors import Fault, ForecastOutOfRange, InvalidRequest, ShuttingDown
from service.routing import answering
from service.schemas import ForecastAnswer, ForecastRequest, MultiStepRequest
from service.versions import ServedModel
from service.window import Values

_ONE_STEP: Final = TypeAdapter(ForecastRequest)
_MULTI_STEP: Final = TypeAdapter(MultiStepRequest)

# From so many steps on it pays to watch whether the client is still there.
_WORTH_WATCHING: Final = 256

_ERRORS: Final = describe_errors(
    UNREADABLE_BODY,
    INVALID_HEADER,
    NOT_FOUND,
    BODY_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    INVALID_REQUEST,
    FORECAST_OUT_OF_RANGE,
    INTERNAL_ERROR,
    NOT_READY,
    OVERLOADED,
    DEADLINE_EXCEEDED,
)

router = APIRouter(tags=["forecasts"], route_class=DirectRoute)


@router.post(
    "/forecast",
    operation_id="forecast",
    summary="Forecast one step",
    response_model=ForecastAnswer,
    response_model_exclude_unset=True,
    response_description="The next step of each window.",
    responses=_ERRORS | describe_answer("forecast"),
    openapi_extra=describe_body("ForecastRequest", "forecast"),
)
async def forecast(request: Request) -> Response:
    """Forecast the step that follows each window.

    Send either `window` or `windows`. Numbers are plain JSON numbers; of a field that is sent twice the last counts.
    With an `origin` the answer has timestamps, and with `levels` intervals. Thousands of windows travel quicker as an
    Arrow stream.
    """
    return _response(*await _answer_one_step(request.scope, request.receive))


@router.post(
    "/forecast/multi-step",
    operation_id="forecastMultiStep",
    summary="Forecast several steps",
    response_model=ForecastAnswer,
    response_model_exclude_unset=True,
    response_description="The next `horizon` steps of each window.",
    responses=_ERRORS | describe_answer("multi-step"),
    openapi_extra=describe_body("MultiStepRequest", "multi-step"),
)
async def forecast_multi_step(request: Request) -> Response:
    """Forecast the `horizon` steps that follow each window.

    The forecast is iterative: each step is fed back as the next observation. The body is that of `POST /forecast`, with
    `horizon`.
    """
    return _response(*await _answer_multi_step(request.scope, request.receive))


def _response(content: bytes, media_type: bytes) -> Response:
    return Response(content, media_type=media_type.decode())


async def _answer_one_step(scope: Scope, receive: Receive) -> tuple[bytes, bytes]:
    return await _answer(scope, receive, _ONE_STEP)


async def _answer_multi_step(scope: Scope, receive: Receive) -> tuple[bytes, bytes]:
    return await _answer(scope, receive, _MULTI_STEP)


ANSWERS: Final[Mapping[str, Answer]] = {"/forecast": _answer_one_step, "/forecast/multi-step": _answer_multi_step}
"""The answers by path, for whoever goes there directly."""


async def _answer(scope: Scope, receive: Receive, schema: TypeAdapter[Any]) -> tuple[bytes, bytes]:
    """Answer a request for a forecast, whose body is yet to be received, with body and media type of a 200.

    Raises:
        LeadtimeError: the request cannot be answered; `service.api.problems` says what each becomes.
        ClientDisconnect: the client has hung up.
    """
    service: Service = scope["state"]["service"]
    settings = service.settings
    client = service.access.admit("forecast", scope["headers"], scope.get("client"))
    seconds, from_arrow, to_arrow = read_headers(scope["headers"], settings)
    body = await read_body(receive, settings.max_body_bytes)
    trip = trip_of(scope)
    cache, key = service.cache, b""
    if cache is not None:
        key = cache.key(body, schema is _ONE_STEP, from_arrow, to_arrow)
        found = cache.find(key, service.registry)
        if found is not None:
            if trip is not None:
                trip.model = found[0]
            return found[1]
    if service.scheduler.is_crowded and not (trip is not None and trip.is_in_time):
        check_is_in_time(service, seconds, body, client)
    question: ForecastRequest
    table: Table | None
    question, table = read_request(schema, body, settings) if from_arrow else (parse(schema, body), None)
    horizon = question.horizon if isinstance(question, MultiStepRequest) else 1
    name = question.model or settings.default_model
    model = service.registry.find(name, question.version)
    is_kept = cache is not None and may_keep(model) and (question.samples is None or question.seed is not None)
    if model.canary is not None:
        model = answering(model, scope["headers"])
    if trip is not None:
        trip.model = model
    metadata = model.engine.metadata
    wants_intervals = question.levels is not None or question.samples is not None or question.seed is not None
    if table is None:
        steps = steps_of_past(metadata, horizon) if wants_intervals else _steps_of_shadow(model)
        windows = windows_for(question, metadata, horizon, settings, steps)
    else:
        windows = table.windows_for(metadata, horizon, settings)
    times = None
    if question.origin is not None or question.frequency is not None:
        times = await timestamps_for(question, len(windows.arrays), horizon, metadata.frequency)
    if model.engine.known or question.future is not None or question.futures is not None:
        windows = await with_known(windows, question, table, metadata, horizon)
    plan: Plan | None = None
    rows, known, scales = windows.arrays, windows.known, None
    if wants_intervals:
        plan = plan_for(question, windows, metadata, horizon, settings)
        if to_arrow:
            raise InvalidRequest([Fault("/levels" if question.levels else "/samples", IN_JSON)])
        rows, known, scales = plan.rows, plan.known, plan.scales
    work = service.scheduler.forecast(
        model.engine, rows, horizon, seconds=seconds, scales=scales, known=known, times=trip, client=client
    )
    try:
        if len(rows) * horizon < _WORTH_WATCHING:
            forecasts = await work
        else:
            forecasts = await while_connected(receive, work)
    except asyncio.CancelledError:
        # The server cancels what outlasts the drain; its client is still there and hears why.
        if not service.draining:
            raise
        raise ShuttingDown("the service stopped before the forecast was complete") from None
    except ForecastOutOfRange as error:
        if question.window is None:
            raise error if plan is None else plan.fault_in_window(error) from None
        raise ForecastOutOfRange([Fault("/window", fault.message) for fault in error.faults]) from None
    if model.shadow is not None:
        service.shadows.follow(model, rows, known, forecasts)
    if to_arrow:
        about = {"model": model.name, "version": model.version, "horizon": str(horizon)}
        answer = write_answer(about, forecasts, windows.as_rows, times), ARROW
    else:
        beside = None
        if plan is not None:
            heavy = plan.is_heavy
            forecasts, beside = await asyncio.to_thread(plan.answer, forecasts) if heavy else plan.answer(forecasts)
        answer = _encode(model, horizon, forecasts, windows.as_rows, times, beside), JSON
    if cache is not None and is_kept:
        cache.keep(key, name, question.version, model, answer)
    return answer


def _steps_of_shadow(model: ServedModel) -> int | None:
    """How much of a window is kept where a shadow may use more of it than the model does."""
    if model.shadow is None:
        return None
    return max(model.engine.context_length, model.shadow.model.engine.context_length)


def _encode(
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

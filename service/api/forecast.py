"""The native protocol: one-step and multi-step forecasts."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from service.api.body import read_json_body
from service.api.connection import while_connected
from service.api.faults import parse
from service.api.openapi import describe_answer, describe_body, describe_errors
from service.api.origins import timestamps_for
from service.api.problems import (
    BODY_TOO_LARGE,
    FORECAST_OUT_OF_RANGE,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    NOT_FOUND,
    NOT_READY,
    UNREADABLE_BODY,
    UNSUPPORTED_MEDIA_TYPE,
)
from service.api.route import DirectRoute
from service.api.state import Service, service_of
from service.api.windows import Windows, windows_for
from service.errors import Fault, ForecastOutOfRange, ShuttingDown
from service.registry import ServedModel
from service.schemas import ForecastAnswer, ForecastRequest, MultiStepRequest
from service.window import Values

_ONE_STEP: Final = TypeAdapter(ForecastRequest)
_MULTI_STEP: Final = TypeAdapter(MultiStepRequest)

# From so many steps on it pays to watch whether the client is still there.
_WORTH_WATCHING: Final = 256

_ERRORS: Final = describe_errors(
    UNREADABLE_BODY,
    NOT_FOUND,
    BODY_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    INVALID_REQUEST,
    FORECAST_OUT_OF_RANGE,
    INTERNAL_ERROR,
    NOT_READY,
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
    With an `origin` the answer has timestamps.
    """
    return await _answer(request, _ONE_STEP)


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
    return await _answer(request, _MULTI_STEP)


async def _answer(request: Request, schema: TypeAdapter[Any]) -> Response:
    service = service_of(request)
    question: ForecastRequest = parse(schema, await read_json_body(request, service.settings.max_body_bytes))
    horizon = question.horizon if isinstance(question, MultiStepRequest) else 1
    model = service.registry.find(question.model or service.settings.default_model, question.version)
    windows = windows_for(question, model.engine.metadata, horizon, service.settings)
    times = await timestamps_for(question, len(windows.arrays), horizon, model.engine.metadata.frequency)
    forecasts = await _forecasts(request, service, question, model, windows, horizon)
    return Response(_encode(model, horizon, forecasts, windows.as_rows, times), media_type="application/json")


async def _forecasts(
    request: Request, service: Service, question: ForecastRequest, model: ServedModel, windows: Windows, horizon: int
) -> list[Values]:
    work = service.scheduler.forecast(model.engine, windows.arrays, horizon)
    try:
        if len(windows.arrays) * horizon < _WORTH_WATCHING:
            return await work
        return await while_connected(request, work)
    except asyncio.CancelledError:
        # The server cancels what outlasts the drain; its client is still there and hears why.
        if not service.draining:
            raise
        raise ShuttingDown("the service stopped before the forecast was complete") from None
    except ForecastOutOfRange as error:
        if question.window is None:
            raise
        raise ForecastOutOfRange([Fault("/window", fault.message) for fault in error.faults]) from None


def _encode(
    model: ServedModel,
    horizon: int,
    forecasts: Sequence[Values],
    as_rows: Sequence[bool],
    times: Sequence[Sequence[str]] | None,
) -> bytes:
    """The answer as JSON, written once; 32-bit floats become their shortest decimal that reads back the same."""
    entries: list[dict[str, object]] = [
        {"values": np.ascontiguousarray(values if rows else values.reshape(-1))}
        for values, rows in zip(forecasts, as_rows, strict=True)
    ]
    if times is not None:
        for entry, timestamps in zip(entries, times, strict=True):
            entry["timestamps"] = timestamps
    answer = {"model": model.name, "version": model.version, "horizon": horizon, "forecasts": entries}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

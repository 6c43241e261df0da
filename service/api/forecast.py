"""The native protocol: one-step and multi-step forecasts."""

from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api.inquiry import Inquiries
from service.api.openapi import describe_answer, describe_body, describe_errors
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
from service.schemas import ForecastAnswer, ForecastRequest, MultiStepRequest

_ONE_STEP: Final = Inquiries(ForecastRequest)
_MULTI_STEP: Final = Inquiries(MultiStepRequest)

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
    return _response(*await _ONE_STEP(request.scope, request.receive))


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
    return _response(*await _MULTI_STEP(request.scope, request.receive))


def _response(content: bytes, media_type: bytes) -> Response:
    return Response(content, media_type=media_type.decode())


ANSWERS: Final[Mapping[str, Answer]] = {"/forecast": _ONE_STEP, "/forecast/multi-step": _MULTI_STEP}
"""The answers by path, for whoever goes there directly."""

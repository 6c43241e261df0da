"""Errors as problem documents (RFC 9457), and the one table of which error becomes which status."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil
from typing import Any, Final

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.api.trip import trip_of
from service.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    Fault,
    Forbidden,
    ForecastOutOfRange,
    InvalidHeader,
    InvalidRequest,
    LeadtimeError,
    NotFound,
    Overloaded,
    ShuttingDown,
    TooManyRequests,
    Unauthenticated,
    UnreadableBody,
    UnsupportedMediaType,
)
from service.lane import NOT_FINITE
from service.schemas import FAULTS_AT_MOST

MEDIA_TYPE: Final = "application/problem+json"

Handler = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its name in `/problems/<name>`, its constant title and status, and its explanation."""

    name: str
    title: str
    status: int
    meaning: str
    detail: str
    """An example of what one occurrence says of itself."""
    fault: Fault | None = None
    """An example of what is at fault in the body, where something is."""

    @property
    def type(self) -> str:
        return f"/problems/{self.name}"


UNREADABLE_BODY: Final = Kind(
    "unreadable-body",
    "The body cannot be read",
    400,
    "The body is empty, is not a JSON document in UTF-8, nests too deep, or is not a sound Arrow stream. The detail "
    "says which, and where.",
    "the body is not JSON: EOF while parsing a list at line 1 column 16",
)
INVALID_HEADER: Final = Kind(
    "invalid-header",
    "A header cannot be used",
    400,
    "A header of the request holds something that it cannot hold. The detail names it and says what it may hold.",
    "the header X-Request-Timeout-Ms must be a whole number of milliseconds, 1 or more, in at most 9 digits",
)
MALFORMED_REQUEST: Final = Kind(
    "malformed-request",
    "This is not HTTP",
    400,
    "What came is not a request of HTTP/1.1, so that the service does not know where the next one begins. The "
    "connection is closed.",
    "what came is no request of HTTP/1.1",
)
UNAUTHENTICATED: Final = Kind(
    "unauthenticated",
    "A key is needed",
    401,
    "The service asks for API keys, and the request has none, or one that is not known. Send one with the header "
    "Authorization: Bearer, or X-API-Key.",
    "this needs a key: send it with the header Authorization: Bearer, or X-API-Key",
)
FORBIDDEN: Final = Kind(
    "forbidden",
    "The key does not suffice",
    403,
    "The request's API key lacks the scope that the detail names. Without keys, what needs the scope admin is closed.",
    "this key lacks the scope forecast",
)
NOT_FOUND: Final = Kind(
    "not-found",
    "Not found",
    404,
    "No model, version or path has this name. For a model or version the detail lists those that exist.",
    "there is no such model; there are: default",
)
METHOD_NOT_ALLOWED: Final = Kind(
    "method-not-allowed",
    "Method not allowed",
    405,
    "The path exists, but answers other methods: those of the header Allow.",
    "this path answers POST only",
)
REQUEST_TIMEOUT: Final = Kind(
    "request-timeout",
    "The request came too slowly",
    408,
    "The request had not come to its end after LEADTIME_READ_SECONDS, and as long again for each 256 KiB of it. The "
    "connection is closed.",
    "the request took too long to come: send it at once, or raise LEADTIME_READ_SECONDS",
)
BODY_TOO_LARGE: Final = Kind(
    "body-too-large",
    "The body is too large",
    413,
    "The body has more bytes than LEADTIME_MAX_BODY_BYTES. Send fewer or shorter windows in one request.",
    "the body has more than 8388608 bytes: send fewer or shorter windows, or raise LEADTIME_MAX_BODY_BYTES",
)
UNSUPPORTED_MEDIA_TYPE: Final = Kind(
    "unsupported-media-type",
    "The body's format is not supported",
    415,
    "The body is declared to be neither JSON nor an Arrow stream, or is compressed.",
    "the body must be JSON or an Arrow stream: send it with the header Content-Type: application/json or "
    "application/vnd.apache.arrow.stream",
)
INVALID_REQUEST: Final = Kind(
    "invalid-request",
    "The request cannot be answered",
    422,
    "The body can be read, but says something that cannot be answered. `errors` names each place and what must be "
    "there.",
    "the body has a fault at /windows/3/17",
    Fault("/windows/3/17", "must be a number: text, true, false, null, lists and objects are not"),
)
FORECAST_OUT_OF_RANGE: Final = Kind(
    "forecast-out-of-range",
    "The forecast is out of range",
    422,
    "The window's numbers lead to a forecast that 32-bit floats cannot hold. Divide the series by a constant.",
    "the body has a fault at /window",
    Fault("/window", NOT_FINITE),
)
TOO_MANY_REQUESTS: Final = Kind(
    "too-many-requests",
    "Too many requests",
    429,
    "The key, or the address that the request came from without one, has sent as many requests as its rate allows. "
    "Retry-After says in how many seconds the next will be answered.",
    "more than 100 requests in 1 s: wait before the next",
)
HEAD_TOO_LARGE: Final = Kind(
    "head-too-large",
    "The headers are too large",
    431,
    "The request line and the headers have more bytes or lines than are read. The connection is closed.",
    "the request line and headers, or those behind a body, have more than 65536 bytes or 128 lines",
)
INTERNAL_ERROR: Final = Kind(
    "internal-error",
    "Internal error",
    500,
    "Something failed that should not have. The service's log says what; a client cannot mend it.",
    "something failed inside the service; its log says what",
)
NOT_READY: Final = Kind(
    "not-ready",
    "Not ready",
    503,
    "The service is stopping, or has no model to answer from. Send requests elsewhere, or again a little later.",
    "the service is stopping",
)
OVERLOADED: Final = Kind(
    "overloaded",
    "Too much is asked",
    503,
    "The service has more to do than it could do in the time that the request has, or more connections than it takes. "
    "Nothing was done for the request: Retry-After says in how many seconds to send it again, here or elsewhere.",
    "the forecast would not be complete in the time that the request has: send it again later, or give it more time",
)
DEADLINE_EXCEEDED: Final = Kind(
    "deadline-exceeded",
    "The time is up",
    504,
    "The forecast was not complete within the time that the request had: X-Request-Timeout-Ms, at most "
    "LEADTIME_REQUEST_SECONDS. Ask for fewer windows or steps, give it more time, or send it again when less is asked.",
    "the forecast was not complete in the time that the request had",
)

KINDS: Final = {
    kind.name: kind
    for kind in (
        UNREADABLE_BODY,
        INVALID_HEADER,
        MALFORMED_REQUEST,
        UNAUTHENTICATED,
        FORBIDDEN,
        NOT_FOUND,
        METHOD_NOT_ALLOWED,
        REQUEST_TIMEOUT,
        BODY_TOO_LARGE,
        UNSUPPORTED_MEDIA_TYPE,
        INVALID_REQUEST,
        FORECAST_OUT_OF_RANGE,
        TOO_MANY_REQUESTS,
        HEAD_TOO_LARGE,
        INTERNAL_ERROR,
        NOT_READY,
        OVERLOADED,
        DEADLINE_EXCEEDED,
    )
}

_BY_ERROR: Final[Mapping[type, Kind]] = {
    UnreadableBody: UNREADABLE_BODY,
    InvalidHeader: INVALID_HEADER,
    BodyTooLarge: BODY_TOO_LARGE,
    UnsupportedMediaType: UNSUPPORTED_MEDIA_TYPE,
    InvalidRequest: INVALID_REQUEST,
    ForecastOutOfRange: FORECAST_OUT_OF_RANGE,
    Unauthenticated: UNAUTHENTICATED,
    Forbidden: FORBIDDEN,
    TooManyRequests: TOO_MANY_REQUESTS,
    NotFound: NOT_FOUND,
    ShuttingDown: NOT_READY,
    Overloaded: OVERLOADED,
    DeadlineExceeded: DEADLINE_EXCEEDED,
}
_BY_STATUS: Final = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED}


def install(application: FastAPI) -> None:
    """Let every error of `application` become a problem document."""
    application.add_exception_handler(LeadtimeError, _answer_error)
    application.add_exception_handler(ClientDisconnect, _answer_error)
    application.add_exception_handler(HTTPException, _answer_http_error)
    application.add_exception_handler(Exception, _answer_failure)


def problem(
    kind: Kind,
    detail: str,
    *,
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response that is a problem document of `kind`."""
    return _response(_document(kind, detail, faults), kind.status, headers)


def example(kind: Kind) -> dict[str, Any]:
    """A problem document such as `kind` leads to."""
    return _document(kind, kind.detail, [kind.fault] if kind.fault is not None else [])


def answer_to(error: LeadtimeError | ClientDisconnect) -> Response:
    """The response that tells a client of an error.

    Raises:
        LeadtimeError: the error itself, where it is none that a client is told of.
    """
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # what is answered goes nowhere
    kind = _kind_of(error)
    if kind is None:
        raise error
    if isinstance(error, InvalidRequest):
        return problem(kind, _summary(error), faults=error.faults[:FAULTS_AT_MOST])
    return problem(kind, str(error), headers=_advice(error))


def reason_of(error: Exception) -> str:
    """Why a request is refused with an error, in a word: the error's own `reason`, or the kind of problem."""
    kind = _kind_of(error)
    return getattr(error, "reason", "") or (INTERNAL_ERROR if kind is None else kind).name


def _kind_of(error: Exception) -> Kind | None:
    return next((_BY_ERROR[ancestor] for ancestor in type(error).__mro__ if ancestor in _BY_ERROR), None)


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LeadtimeError | ClientDisconnect)
    _note(request, reason_of(error), error)
    return answer_to(error)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code)
    if kind is not None:
        _note(request, kind.name, error)
    if kind is NOT_FOUND:
        return problem(kind, "there is no such path: /docs shows those that exist")
    if kind is METHOD_NOT_ALLOWED:
        # What answers GET answers HEAD as well, though its route does not say so.
        allowed = (error.headers or {}).get("Allow", "").replace("GET, HEAD", "GET").replace("GET", "GET, HEAD")
        return problem(kind, f"this path answers {allowed} only", headers={"Allow": allowed})
    # Any other comes from the framework alone; RFC 9457 names it by its status.
    phrase = HTTPStatus(error.status_code).phrase
    document = {"type": "about:blank", "title": phrase, "status": error.status_code, "detail": phrase}
    return _response(document, error.status_code, error.headers)


async def _answer_failure(request: Request, error: Exception) -> Response:
    # The server logs the traceback, as the error goes on to it.
    _note(request, INTERNAL_ERROR.name, error)
    return problem(INTERNAL_ERROR, INTERNAL_ERROR.detail)


def _note(request: Request, reason: str, error: Exception) -> None:
    trip = trip_of(request.scope)
    if trip is not None:
        trip.refuse(reason, error)


def _advice(error: LeadtimeError) -> Mapping[str, str]:
    """The headers by which a client's library knows what to do next (RFC 9110, RFC 6750)."""
    match error:
        case ShuttingDown():
            return {"Retry-After": "1"}
        case TooManyRequests() | Overloaded():
            return {"Retry-After": str(max(1, ceil(error.seconds)))}
        case Unauthenticated():
            return {"WWW-Authenticate": 'Bearer realm="leadtime"'}
        case Forbidden():
            return {"WWW-Authenticate": f'Bearer realm="leadtime", error="insufficient_scope", scope="{error.scope}"'}
    return {}


def _summary(error: InvalidRequest) -> str:
    first = error.faults[0].pointer
    place = f"at {first}" if first else "in the body as a whole"
    if len(error.faults) == 1:
        return f"the body has a fault {place}"
    if len(error.faults) >= FAULTS_AT_MOST:
        return f"the body has many faults, the first {place}; the first {FAULTS_AT_MOST} are listed"
    return f"the body has {len(error.faults)} faults, the first {place}"


def _document(kind: Kind, detail: str, faults: Sequence[Fault]) -> dict[str, Any]:
    document: dict[str, Any] = {"type": kind.type, "title": kind.title, "status": kind.status, "detail": detail}
    if faults:
        document["errors"] = [{"pointer": fault.pointer, "message": fault.message} for fault in faults]
    return document


def _response(document: Mapping[str, Any], status: int, headers: Mapping[str, str] | None) -> Response:
    return Response(orjson.dumps(document), status, dict(headers or {}), MEDIA_TYPE)

"""The OpenAPI document: what routes cannot say by themselves, and the whole of it."""

from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.api.access import SCOPES
from service.api.examples import ANSWERS, REQUESTS
from service.api.headers import ARROW
from service.api.problems import FORBIDDEN, MEDIA_TYPE, TOO_MANY_REQUESTS, UNAUTHENTICATED, Kind, example
from service.schemas import ForecastRequest, MultiStepRequest, Problem

TITLE: Final = "Leadtime"

_SCHEMAS: Final = "#/components/schemas/"
_STREAM: Final = {"schema": {"type": "string", "format": "binary", "title": "Arrow IPC stream"}}
_DESCRIPTION: Final = """\
Forecasts of time series from a stacked LSTM.

Post a *window* of past observations, in raw units and oldest first, and get the next step (`POST /forecast`) or the
next `horizon` steps (`POST /forecast/multi-step`). `GET /models` says which models there are, and how well they did on
data that they had not seen.

With `levels`, such as `[80, 95]`, each forecast has intervals, and with `samples` whole futures are drawn, of which
sums over the horizon can be taken. Both rest on errors that the model has made. Where a window goes back far enough
beyond the model's context length (by 100 steps and 20 horizons), it is forecast again from up to 200 origins of its own
past; otherwise the model's file holds errors, from data that it was not fitted on. The answer names the basis, and how
many errors there were.

Some models know more of the steps to be forecast than the past tells. One that reads the `calendar` needs an `origin`
with each request, and one with `exogenous` columns, such as prices, has those behind the features in the rows of a
window, and what they will be in `future`: one row for each step that is forecast. `GET /models` says which they are.

A model may have several versions. Requests that name none are answered by its stable version, or a share of them by its
canary: by chance, or, where a request has the header `X-Routing-Key`, always alike for the same key. The answer names
the version. `GET /models` says which it has.

For thousands of windows both read and write Arrow IPC streams as well (`application/vnd.apache.arrow.stream`). A stream
has a row for each window: a column `window` of lists of numbers, or of rows of numbers, and perhaps columns `future`,
of the same kind, and `origin` of text. `model`, `version`, `horizon`, `frequency`, and an `origin` of all windows, are
metadata of its schema. The answer has a column `values`, with an origin a column `timestamps`, and as metadata `model`,
`version` and `horizon`. It comes in the format that `Accept` names, and else in that of the body. Intervals and samples
go with JSON alone.

Errors are problem documents (RFC 9457, `application/problem+json`). Where the body is at fault, `errors` names each
place with a JSON pointer and says what must be there.
"""
_TAGS: Final = [
    {"name": "forecasts", "description": "One-step and multi-step forecasts."},
    {"name": "models", "description": "Which models are served, and what they say of themselves."},
    {"name": "health", "description": "Probes for whatever runs the service."},
    {"name": "problems", "description": "The kinds of problem that errors refer to."},
]


def describe_body(schema: str, operation: str) -> dict[str, Any]:
    """The description of a body that the endpoint reads for itself, for a route's `openapi_extra`."""
    content = {"schema": {"$ref": _SCHEMAS + schema}, "examples": REQUESTS[operation]}
    return {"requestBody": {"required": True, "content": {"application/json": content, ARROW.decode(): _STREAM}}}


def describe_answer(operation: str) -> dict[int | str, dict[str, Any]]:
    """The examples of a successful answer, for a route's `responses`."""
    return {200: {"content": {"application/json": {"examples": ANSWERS[operation]}, ARROW.decode(): _STREAM}}}


def describe_errors(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """The descriptions of errors, for a route's `responses`; kinds of one status share an entry."""
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        content = {"schema": {"$ref": _SCHEMAS + Problem.__name__}, "examples": {}}
        entry = described.setdefault(kind.status, {"description": "", "content": {MEDIA_TYPE: content}})
        entry["description"] = f"{entry['description']} {kind.title}: {kind.meaning}".strip()
        entry["content"][MEDIA_TYPE]["examples"][kind.name] = {"summary": kind.title, "value": example(kind)}
        if kind.status in (429, 503):
            entry["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}}
    return described


_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, where the service asks for one."},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same, for clients that cannot send Authorization.",
    },
}
_REFUSALS: Final = describe_errors(UNAUTHENTICATED, FORBIDDEN, TOO_MANY_REQUESTS)


def build_openapi(application: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of `application`."""
    document: dict[str, Any] = get_openapi(
        title=TITLE,
        version=version("leadtime"),
        summary="Time-series forecasts over HTTP",
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=application.routes,
        tags=_TAGS,
        separate_input_output_schemas=False,
    )
    _leave_out_the_frameworks_own_errors(document)
    _describe_access(document)
    _, bodies = models_json_schema(
        [(ForecastRequest, "validation"), (MultiStepRequest, "validation"), (Problem, "validation")],
        ref_template=_SCHEMAS + "{model}",
    )
    document["components"]["schemas"] |= bodies["$defs"]
    return document


def _describe_access(document: dict[str, Any]) -> None:
    """Say of each operation which scope a key needs for it, where keys are asked for."""
    document["components"]["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scope = SCOPES[method.upper(), path]
            if scope is None:
                continue
            operation["description"] += (
                f"\n\nWhere the service asks for API keys, it takes one with the scope `{scope}`."
            )
            operation["security"] = [{}, *({name: []} for name in _SCHEMES)]
            refusals = {str(status): about for status, about in _REFUSALS.items()}
            operation["responses"] = dict(sorted((operation["responses"] | refusals).items()))


def _leave_out_the_frameworks_own_errors(document: dict[str, Any]) -> None:
    """FastAPI documents its own 422 wherever a path has a parameter, though a text parameter is never wrong."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            error = operation["responses"].get("422", {}).get("content", {}).get("application/json")
            if error is not None:
                del operation["responses"]["422"]

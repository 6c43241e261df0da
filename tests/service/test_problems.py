"""Errors as problem documents, wherever they come from."""

import asyncio
import inspect

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from service import errors
from service.api.policy import HEADERS
from service.api.problems import KINDS, Kind, example
from service.app import create_app
from service.settings import Settings


def answer(error: Exception) -> httpx.Response:
    """What an application answers where an endpoint raises `error`."""

    async def fail() -> None:
        raise error

    async def scenario() -> httpx.Response:
        application = create_app(Settings())
        application.add_api_route("/fail", fail)
        async with application.router.lifespan_context(application) as state:
            # httpx's transport passes no state of the lifespan on, as a server does.
            async def served(scope: Scope, receive: Receive, send: Send) -> None:
                await application({**scope, "state": dict(state or {})}, receive, send)

            transport = httpx.ASGITransport(served, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await client.get("/fail")

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UnreadableBody("why"), 400),
        (errors.NotFound("why"), 404),
        (errors.BodyTooLarge("why"), 413),
        (errors.UnsupportedMediaType("why"), 415),
        (errors.InvalidRequest([errors.Fault("/window", "why")]), 422),
        (errors.ForecastOutOfRange([errors.Fault("/window", "why")]), 422),
        (errors.ShuttingDown("why"), 503),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_error_becomes_its_status_and_says_why(error: errors.LeadtimeError, status: int) -> None:
    response = answer(error)
    problem = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert problem["status"] == status
    assert problem["type"].removeprefix("/problems/") in KINDS
    assert "why" in (problem["errors"][0]["message"] if "errors" in problem else problem["detail"])


def test_an_error_while_stopping_says_when_to_come_back() -> None:
    assert answer(errors.ShuttingDown("why")).headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a secret"), errors.ArtifactError("a secret"), KeyError("a secret")]
)
def test_a_failure_of_the_service_is_told_without_its_inside(error: Exception) -> None:
    response = answer(error)
    assert response.status_code == 500
    assert response.json()["type"] == "/problems/internal-error"
    assert "secret" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_example_of_a_kind_points_at_what_its_detail_names(kind: Kind) -> None:
    errors_shown = example(kind).get("errors", [])
    assert bool(errors_shown) == (kind.status == 422)
    assert all(kind.detail.endswith(f" at {error['pointer']}") for error in errors_shown)


def test_an_error_of_the_framework_is_named_by_its_status() -> None:
    response = answer(HTTPException(418, "short and stout"))
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {"type": "about:blank", "title": "I'm a Teapot", "status": 418, "detail": "I'm a Teapot"}


def test_a_failure_has_the_headers_of_every_answer() -> None:
    headers = answer(ZeroDivisionError()).headers
    assert {name: headers[name.decode()].encode() for name, _ in HEADERS} == dict(HEADERS)


def test_every_error_that_a_request_can_lead_to_has_a_row_in_the_table() -> None:
    elsewhere = {errors.LeadtimeError, errors.ArtifactError, errors.KeysError, errors.LabelsError, errors.SettingsError}
    elsewhere.add(errors.SigningError)
    tree = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.LeadtimeError)}
    for kind in tree - elsewhere:
        error = kind([errors.Fault("", "why")]) if issubclass(kind, errors.InvalidRequest) else kind("why")
        assert answer(error).status_code != 500, kind

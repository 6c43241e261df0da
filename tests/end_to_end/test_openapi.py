"""The OpenAPI document: complete, true, and kept to by the service."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig

from service.api.problems import KINDS
from service.app import create_app
from service.settings import Settings
from tests.end_to_end.process import PATIENCE, Running
from tests.streams import MEDIA_TYPE, stream

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> Document:
    """The OpenAPI document as it is served."""
    found: Document = client.get("/openapi.json").json()
    return found


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def contents(operation: Document) -> Iterator[tuple[str, Document]]:
    """Every described content of an operation with the status it belongs to, `request` for the body."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield "request", content
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            yield status, content


def validator(document: Document, schema: Document) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for({**schema, "components": document["components"]})


def test_every_operation_is_named_and_described(document: Document) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert sorted(names) == [
        "forecast",
        "forecastMultiStep",
        "getLiveness",
        "getMetrics",
        "getModel",
        "getProblem",
        "getReadiness",
        "getVersion",
        "listModels",
        "refreshModels",
    ]
    for path, method, operation in operations(document):
        assert operation["summary"], (path, method)
        assert operation["description"], (path, method)
        assert all(parameter.get("description") for parameter in operation.get("parameters", [])), (path, method)


def test_every_field_is_described(document: Document) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name
        for field, about in schema.get("properties", {}).items():
            whole = name in ("Backtest", "Provenance", "Scores") or "$ref" in about  # described where it is defined
            assert whole or about.get("description"), f"{name}.{field}"


def test_the_served_document_is_the_applications(document: Document) -> None:
    assert document == json.loads(json.dumps(create_app(Settings()).openapi()))


def test_nothing_refers_to_what_is_not_there(document: Document, client: httpx.Client) -> None:
    text = client.get("/openapi.json").text
    for reference in re.findall(r'"#/components/schemas/([^"]+)"', text):
        assert reference in document["components"]["schemas"]
    assert "HTTPValidationError" not in text


def test_every_example_fits_its_schema(document: Document) -> None:
    checked = 0
    for path, method, operation in operations(document):
        for status, content in contents(operation):
            for name, example in content.get("examples", {}).items():
                validator(document, content["schema"]).validate(example["value"])
                assert status == "request" or status == "200" or example["value"]["status"] == int(status)
                assert example["summary"], (path, method, name)
                checked += 1
    assert checked > 20


def test_every_request_example_is_answered_with_what_its_schema_describes(
    document: Document, client: httpx.Client
) -> None:
    sent = 0
    for path, method, operation in operations(document):
        for status, content in contents(operation):
            for name, example in content.get("examples", {}).items() if status == "request" else ():
                response = client.request(method, path, json=example["value"])
                assert response.status_code == 200, name
                schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
                validator(document, schema).validate(response.json())
                sent += 1
    assert sent >= 6


def test_both_formats_of_forecasts_are_described(document: Document) -> None:
    for path in ("/forecast", "/forecast/multi-step"):
        operation = document["paths"][path]["post"]
        assert list(operation["requestBody"]["content"]) == ["application/json", MEDIA_TYPE]
        assert list(operation["responses"]["200"]["content"]) == ["application/json", MEDIA_TYPE]


def test_every_kind_of_problem_is_documented_with_an_example(document: Document) -> None:
    documented = {
        name
        for _, _, operation in operations(document)
        for status, content in contents(operation)
        if status not in ("request", "200")
        for name in content["examples"]
    }
    # the method is wrong only where no operation is, and what has no end or is no HTTP reaches none
    assert documented == KINDS.keys() - {"method-not-allowed", "malformed-request", "request-timeout", "head-too-large"}


def test_every_error_is_a_problem_document(document: Document) -> None:
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            if status != "200":
                assert list(response["content"]) == ["application/problem+json"], (path, method, status)
                assert response["description"], (path, method, status)


STREAMS = st.builds(
    stream,
    st.fixed_dictionaries(
        {"window": st.lists(st.lists(st.floats(-1e3, 1e3), max_size=8), min_size=1, max_size=4)},
        optional={"origin": st.just(["2024-01-01"])},
    ).filter(lambda columns: len(columns["window"]) == len(columns.get("origin", columns["window"]))),
    st.fixed_dictionaries({}, optional={"horizon": st.sampled_from(["1", "3", "x"]), "model": st.text(max_size=8)}),
)
# What is no Arrow stream at all is tried in tests/service/test_arrow.py.
schemathesis.openapi.media_type(MEDIA_TYPE, STREAMS)

CONFIG = SchemathesisConfig.from_dict(
    {
        "seed": 1,
        "request-timeout": PATIENCE,
        "checks": {
            # what a model accepts (features, lengths) and the limits are not in the schema
            # and what changes something is closed, for there are no keys
            "positive_data_acceptance": {"expected-statuses": ["200", "403", "404", "413", "422"]},
            # a body that is wrong may be too large as well, which is found first
            "negative_data_rejection": {"expected-statuses": ["400", "403", "404", "405", "413", "415", "422"]},
        },
    }
)


# The document is the one that is served: a test above compares them.
schema = schemathesis.openapi.from_dict(create_app(Settings()).openapi(), config=CONFIG)


@schema.parametrize()
@settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
def test_generated_requests_are_answered_as_the_document_says(case: "schemathesis.Case[Any]", service: Running) -> None:
    case.call_and_validate(base_url=service.url)

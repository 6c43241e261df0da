"""What every answer tells a browser, and which pages may read it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.api.access import SCOPES
from service.api.policy import HEADERS
from service.keys import add_key
from service.protocol import LONGEST_HEAD
from tests.end_to_end.process import PATIENCE, Running, running
from tests.end_to_end.test_access import as_bearer, ask

POLICY = {name.decode(): value.decode() for name, value in HEADERS}
ORIGIN = "https://example.org"
PAGES = ("/docs", "/redoc")


def assert_policy(headers: httpx.Headers) -> None:
    names = [name for name, _ in headers.multi_items()]
    assert {name: headers[name] for name in POLICY} == POLICY
    assert all(names.count(name) == 1 for name in POLICY)


@pytest.mark.parametrize(("method", "path"), [endpoint for endpoint in SCOPES if endpoint[1] not in PAGES])
def test_every_endpoint_answers_under_the_policy(client: httpx.Client, method: str, path: str) -> None:
    assert_policy(ask(client, method, path, {}).headers)


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/nowhere", b"", 404),
        ("GET", "/forecast", b"", 405),
        ("OPTIONS", "/forecast", b"", 405),
        ("HEAD", "/models", b"", 200),
        ("POST", "/forecast", b"[", 400),
        ("POST", "/forecast", b" " * 20_001, 413),
        ("POST", "/forecast", b'{"window": []}', 422),
        ("POST", "/forecast", b" " * 100_000, 413),
        ("GET", "/docs/assets/nothing.js", b"", 404),
    ],
)
def test_every_refusal_is_under_the_policy(
    client: httpx.Client, method: str, path: str, content: bytes, status: int
) -> None:
    response = client.request(method, path, content=content)
    assert response.status_code == status
    assert_policy(response.headers)


@pytest.mark.parametrize(
    "sent",
    [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"x" * LONGEST_HEAD],
    ids=["no HTTP", "a head without an end"],
)
def test_what_the_server_itself_refuses_is_under_the_policy(service: Running, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0].startswith((b"http/1.1 400 bad request", b"http/1.1 431 request header"))
    assert all(b"%b: %b" % header in lines for header in HEADERS)
    assert b"content-length: %d" % len(body) in lines


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_a_policy_of_its_own(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers.get_list("content-security-policy")[0].startswith("default-src 'none'; script-src 'self'; ")
    assert len(headers.get_list("content-security-policy")) == 1
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-cache", "nosniff")


def test_the_pages_assets_are_kept_and_asked_after(client: httpx.Client) -> None:
    page = client.get("/docs").text
    asset = page.partition('src="')[2].partition('"')[0]
    first = client.get(f"/{asset.lstrip('/')}")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(f"/{asset.lstrip('/')}", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304


def test_by_default_no_page_of_another_origin_may_read_an_answer(client: httpx.Client) -> None:
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    for response in (
        client.post("/forecast", json={"window": [1, 2, 3]}, headers={"Origin": ORIGIN}),
        client.options("/forecast", headers=preflight),
    ):
        assert not any(name.startswith("access-control") for name in response.headers)


@pytest.fixture(scope="module")
def shared(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, str]]:
    """A service that pages of `ORIGIN` may read, with a key for forecasts."""
    folder = tmp_path_factory.mktemp("shared")
    secret = add_key(folder / "keys.toml", "page", ["forecast"])
    with (
        running(models, folder / "log", cors_origins=ORIGIN, keys=folder / "keys.toml") as service,
        service.client() as client,
    ):
        yield client, secret


def test_a_page_of_an_origin_that_is_named_reads_answers_and_refusals(shared: tuple[httpx.Client, str]) -> None:
    client, secret = shared
    for headers, body, status in (
        (as_bearer(secret), {"window": [1, 2, 3]}, 200),
        (as_bearer(secret), {"window": []}, 422),
        ({}, {"window": [1, 2, 3]}, 401),
    ):
        for _ in range(2):  # the second time the head is known
            response = client.post("/forecast", json=body, headers={"Origin": ORIGIN} | headers)
            assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, ORIGIN)
            assert "access-control-allow-credentials" not in response.headers
            assert_policy(response.headers)


def test_a_page_may_ask_whether_it_may_send_a_key_without_having_one(shared: tuple[httpx.Client, str]) -> None:
    client, _ = shared
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    response = client.options("/forecast", headers={"Origin": ORIGIN} | asked)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "authorization" in response.headers["access-control-allow-headers"].lower()
    assert_policy(response.headers)
    assert client.options("/forecast", headers={"Origin": "https://elsewhere.org"} | asked).status_code == 400


def test_a_page_of_another_origin_does_not_read_them(shared: tuple[httpx.Client, str]) -> None:
    client, secret = shared
    headers = {"Origin": "https://elsewhere.org"} | as_bearer(secret)
    response = client.post("/forecast", json={"window": [1, 2, 3]}, headers=headers)
    assert "access-control-allow-origin" not in response.headers

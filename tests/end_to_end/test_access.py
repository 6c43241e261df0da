"""Who may ask for what: every scope at every endpoint, keys that come and go, rates, and silence about secrets."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from typing import Final

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Mount

from service.api.access import SCOPES
from service.api.route import GuardedRoute
from service.app import create_app
from service.keys import SCOPES as EVERY_SCOPE
from service.keys import ScopeName, add_key
from service.settings import Settings
from tests.artifacts import write_artifact
from tests.end_to_end.process import PATIENCE, ROOT, Running, environment, running
from tests.end_to_end.test_metrics import scraped

ENDPOINTS: Final = list(SCOPES.items())
VALUES: Final = {"{name}": "default", "{version}": "1"}
FORECAST: Final = {"window": [1, 2, 3]}
UNKNOWN: Final = "leadtime_nobody-has-ever-had-this-one"


def _told(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value or "open")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, and a file of keys beside them."""
    folder = tmp_path_factory.mktemp("access")
    write_artifact(folder / "models" / "default" / "1" / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def secrets(folder: Path) -> dict[str, str]:
    """A key for each scope, one for all of them, and one that is not in the file."""
    file = folder / "keys.toml"
    made: dict[str, str] = {scope: add_key(file, scope, [scope]) for scope in EVERY_SCOPE}
    made["all"] = add_key(file, "all", EVERY_SCOPE)
    made["slow"] = add_key(file, "slow", EVERY_SCOPE, "10/hour")
    return made | {"unknown": UNKNOWN}


@pytest.fixture(scope="module")
def guarded(folder: Path, secrets: dict[str, str]) -> Iterator[Running]:
    """A service of two workers that asks for keys, and logs all that it ever does."""
    keys = folder / "keys.toml"
    with running(folder / "models", folder / "log", keys=keys, workers=2, log_level="debug") as service:
        yield service


@pytest.fixture(scope="module")
def asker(guarded: Running) -> Iterator[httpx.Client]:
    with guarded.client() as client:
        yield client


def as_bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def as_header(secret: str) -> dict[str, str]:
    return {"X-API-Key": secret}


def ask(client: httpx.Client, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    path = path.replace("/problems/{name}", "/problems/not-found")
    for name, value in VALUES.items():
        path = path.replace(name, value)
    body = (
        FORECAST | ({"horizon": 2} if path == "/forecast/multi-step" else {}) if path.startswith("/forecast") else None
    )
    return client.request(method, path, headers=headers, json=body)


def routes() -> set[tuple[str, str]]:
    """Every endpoint that the application has, in the OpenAPI document or not."""
    application = create_app(Settings())
    found = {
        (method, context.path or "")
        for context in iter_route_contexts(application.routes)
        if not isinstance(context.original_route, Mount)
        for method in context.methods or ()
    }
    described = application.openapi()["paths"]
    assert {(method.upper(), path) for path, methods in described.items() for method in methods} <= found
    return found


def test_every_endpoint_has_its_scope() -> None:
    assert routes() == SCOPES.keys()


def test_the_documented_table_is_that_of_the_code() -> None:
    document = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| `(GET|POST) ([^`]+)` \| (?:`(\w+)`|open) \|", document, re.MULTILINE)
    assert {(method, path): scope or None for method, path, scope in rows} == SCOPES


def test_what_is_mounted_is_the_documentations_assets_alone() -> None:
    mounted = [context.path for context in iter_route_contexts(create_app(Settings()).routes) if not context.methods]
    assert mounted == ["/docs/assets"]


def test_an_endpoint_without_a_scope_cannot_be_made() -> None:
    async def endpoint() -> None: ...

    with pytest.raises(KeyError):
        FastAPI().router.add_api_route("/new", endpoint, route_class_override=GuardedRoute)


def test_a_route_of_the_framework_that_needs_a_scope_is_guarded() -> None:
    for context in iter_route_contexts(create_app(Settings()).routes):
        route = context.original_route
        if isinstance(route, APIRoute) and any(SCOPES[method, route.path] for method in route.methods or ()):
            direct = route.path.startswith("/forecast")  # its endpoint asks, for the short way leads there as well
            assert isinstance(route, GuardedRoute) != direct, route.path


@pytest.mark.parametrize("owner", ["nobody", "unknown", *EVERY_SCOPE, "all"])
@pytest.mark.parametrize("sent", [as_bearer, as_header])
@pytest.mark.parametrize(("endpoint", "scope"), ENDPOINTS, ids=_told)
def test_each_key_at_each_endpoint(
    asker: httpx.Client,
    secrets: dict[str, str],
    endpoint: tuple[str, str],
    scope: ScopeName | None,
    owner: str,
    sent: Callable[[str], dict[str, str]],
) -> None:
    response = ask(asker, *endpoint, {} if owner == "nobody" else sent(secrets[owner]))
    if scope is None or owner in (scope, "all"):
        assert response.status_code in (200, 307)
        return
    problem = response.json()
    if owner in ("nobody", "unknown"):
        assert (response.status_code, problem["type"]) == (401, "/problems/unauthenticated")
        assert response.headers["www-authenticate"] == 'Bearer realm="leadtime"'
    else:
        assert (response.status_code, problem["type"]) == (403, "/problems/forbidden")
        assert problem["detail"] == f"this key lacks the scope {scope}"
        assert f'error="insufficient_scope", scope="{scope}"' in response.headers["www-authenticate"]


@pytest.mark.parametrize(("endpoint", "scope"), ENDPOINTS, ids=_told)
def test_without_keys_all_is_open_but_what_changes_something(
    client: httpx.Client, endpoint: tuple[str, str], scope: ScopeName | None
) -> None:
    response = ask(client, *endpoint, as_bearer(UNKNOWN))
    if scope == "admin":
        assert response.status_code == 403
        assert response.json()["detail"] == (
            "this needs a key with the scope admin, and LEADTIME_KEYS names no file of keys"
        )
    else:
        assert response.status_code in (200, 307)


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", sorted({path for _, path in SCOPES}))
def test_no_other_method_gets_around_the_check(asker: httpx.Client, method: str, path: str) -> None:
    response = ask(asker, method, path, {})
    if method == "HEAD" and ("GET", path) in SCOPES:
        assert response.status_code == (401 if SCOPES["GET", path] else ask(asker, "GET", path, {}).status_code)
    else:
        assert response.status_code in (401, 405)  # 401 where another endpoint's path fits as well


@pytest.mark.parametrize("path", ["/forecast/", "/forecast/%2e%2e/models", "/models/", "/MODELS", "/%6dodels"])
def test_no_other_spelling_of_a_path_gets_around_the_check(asker: httpx.Client, path: str) -> None:
    assert {asker.get(path).status_code, asker.post(path, json=FORECAST).status_code} <= {401, 404, 405}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Authorization", "bearer {all}")], 200),
        ([("Authorization", "Bearer   {all}")], 200),
        ([("authorization", "Basic dTpw"), ("x-api-key", "{all}")], 200),
        ([("authorization", "Bearer {unknown}"), ("x-api-key", "{all}")], 200),
        ([("Authorization", "{all}")], 401),
        ([("Authorization", "Bearer")], 401),
        ([("Authorization", "Basic {all}")], 401),
        ([("X-API-Key", "")], 401),
        ([("X-API-Key", "Bearer {all}")], 401),
        ([("Cookie", "key={all}")], 401),
        ([("X-API-Key", "{all}" + 1000 * "x")], 401),
    ],
)
@pytest.mark.parametrize("path", ["/forecast", "/models"])
def test_a_key_counts_where_it_belongs_and_nowhere_else(
    asker: httpx.Client, secrets: dict[str, str], path: str, headers: list[tuple[str, str]], status: int
) -> None:
    filled = [(name, value.format(**secrets)) for name, value in headers]
    body = FORECAST if path == "/forecast" else None
    response = asker.request("POST" if body else "GET", path, headers=filled, json=body)
    assert response.status_code == status


def test_a_key_in_the_address_is_no_key(asker: httpx.Client, secrets: dict[str, str]) -> None:
    assert asker.get("/models", params={"key": secrets["all"], "api_key": secrets["all"]}).status_code == 401


def test_a_request_without_a_key_is_refused_before_its_body_is_read(guarded: Running) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=PATIENCE) as connection:
        connection.sendall(b"POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n[")
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_a_key_above_its_rate_is_told_when_to_come_again(folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    made = {name: add_key(keys, name, EVERY_SCOPE, "2/minute") for name in ("forecasts", "models", "other")}
    with running(folder / "models", tmp_path / "log", keys=keys) as service, service.client() as client:
        for method, path, secret in (("POST", "/forecast", made["forecasts"]), ("GET", "/models", made["models"])):
            answers = [ask(client, method, path, as_bearer(secret)) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
            assert answers[2].json() == {
                "type": "/problems/too-many-requests",
                "title": "Too many requests",
                "status": 429,
                "detail": "more than 2 requests in 60 s: wait before the next",
            }
            assert 25 <= int(answers[2].headers["retry-after"]) <= 30
            assert ask(client, method, path, as_bearer(made["other"])).status_code == 200


def test_workers_count_a_keys_requests_together(guarded: Running, secrets: dict[str, str]) -> None:
    statuses = []
    for _ in range(30):
        # A connection for each, so that both workers have some.
        connection = HTTPConnection("127.0.0.1", guarded.port, timeout=PATIENCE)
        connection.request("POST", "/forecast", b'{"window": [1, 2, 3]}', as_bearer(secrets["slow"]))
        statuses.append(connection.getresponse().status)
        connection.close()
    assert (statuses.count(200), statuses.count(429)) == (10, 20)


def test_requests_without_a_key_are_counted_by_address_and_health_is_not(folder: Path, tmp_path: Path) -> None:
    with (
        running(folder / "models", tmp_path / "log", anonymous_limit="3/hour") as service,
        service.client() as client,
    ):
        statuses = [ask(client, method, path, {}).status_code for method, path in SCOPES if SCOPES[method, path]]
        assert statuses[:3] == [200, 200, 200]
        assert set(statuses[3:]) <= {403, 429}
        assert {client.get("/health/ready").status_code for _ in range(5)} == {200}


def test_guessing_is_slowed_down_while_keys_go_on(folder: Path, secrets: dict[str, str], tmp_path: Path) -> None:
    with (
        running(folder / "models", tmp_path / "log", keys=folder / "keys.toml", anonymous_limit="3/hour") as service,
        service.client() as client,
    ):
        guesses = [ask(client, "POST", "/forecast", as_bearer(f"guess{number}")) for number in range(5)]
        assert [guess.status_code for guess in guesses] == [401, 401, 401, 429, 429]
        assert ask(client, "POST", "/forecast", as_bearer(secrets["all"])).status_code == 200


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_keys_come_and_go_without_a_restart(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    old = add_key(file, "old", ["forecast"])
    settings = {"keys": file, "refresh_seconds": 0.05}
    with running(folder / "models", tmp_path / "log", **settings) as service, service.client() as client:

        def status(secret: str) -> int:
            return ask(client, "POST", "/forecast", as_bearer(secret)).status_code

        assert status(old) == 200
        new = add_key(file, "new", ["forecast"])
        until(lambda: status(new) == 200)
        assert status(old) == 200

        text = file.read_text()
        file.write_text(text[text.index("[[key]]", 1) :])
        until(lambda: status(old) == 401)
        assert status(new) == 200

        file.write_text("[[key]]\nname = ")
        until(lambda: "the keys from before stay" in service.log.read_text())
        time.sleep(0.2)
        assert status(new) == 200
        said = [line for line in service.log.read_text().splitlines() if "stay" in line]
        assert len(said) == 1
        assert "leadtime.keys: keys.toml is not TOML at " in said[0]


def test_a_key_with_the_scope_admin_has_new_models_looked_for_at_once(
    folder: Path, secrets: dict[str, str], tmp_path: Path
) -> None:
    write_artifact(tmp_path / "models" / "default" / "1" / "model.onnx")
    settings = {"keys": folder / "keys.toml", "refresh_seconds": 0}
    with running(tmp_path / "models", tmp_path / "log", **settings) as service, service.client() as client:
        write_artifact(tmp_path / "models" / "new" / "1" / "model.onnx", name="new")
        answer = client.post("/models/refresh", headers=as_bearer(secrets["admin"]))
        assert [model["model"] for model in answer.json()["models"]] == ["default", "new"]
        assert client.get("/models", headers=as_bearer(secrets["metadata"])).json() == answer.json()


def test_all_workers_look_at_models_and_keys_when_one_is_told_to(tmp_path: Path) -> None:
    models, file = tmp_path / "models", tmp_path / "keys.toml"
    write_artifact(models / "default" / "1" / "model.onnx")
    admin = add_key(file, "admin", EVERY_SCOPE)
    kept = file.read_text()
    old = add_key(file, "old", ["forecast"])
    settings = {"keys": file, "refresh_seconds": 0, "workers": 2}
    with running(models, tmp_path / "log", **settings) as service, service.client() as client:
        client.headers["Authorization"] = f"Bearer {admin}"
        until(lambda: scraped(client)["leadtime_workers_serving"] == 2)

        def statuses(secret: str, name: str) -> set[int]:
            """What either worker says: each request has a connection of its own."""
            found = set()
            for _ in range(32):
                with closing(HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)) as connection:
                    connection.request("POST", "/forecast", json.dumps(FORECAST | {"model": name}), as_bearer(secret))
                    found.add(connection.getresponse().status)
            return found

        assert statuses(old, "default") == {200}
        file.write_text(kept)
        new = add_key(file, "new", ["forecast"])
        write_artifact(models / "new" / "1" / "model.onnx", name="new")
        assert (statuses(new, "default"), statuses(old, "new")) == ({401}, {404})

        told = client.post("/models/refresh").json()
        assert [model["model"] for model in told["models"]] == ["default", "new"]
        assert scraped(client)["leadtime_model_versions_served stable new 1"] == 2
        assert (statuses(new, "new"), statuses(old, "default")) == ({200}, {401})


def test_a_file_of_keys_that_cannot_be_used_ends_the_start_in_one_line(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "keys.toml").write_text("[[key]]")
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=environment(LEADTIME_KEYS=str(tmp_path / "keys.toml")),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("leadtime: keys.toml: key 1: name: it must be")
    assert done.stderr.count("\n") == 1


def test_no_key_is_ever_logged_or_answered(guarded: Running, secrets: dict[str, str]) -> None:
    heard = b""
    with guarded.client() as client:
        for secret, sent, (method, path) in product(secrets.values(), (as_bearer, as_header), SCOPES):
            response = ask(client, method, path, sent(secret))
            heard += response.content + str(response.headers).encode()
            if path == "/forecast":
                heard += client.post(f"{path}?key={secret}", content=b"[", headers=sent(secret)).content
    for secret in secrets.values():
        line = f"Authorization: Bearer {secret}\r\n"
        for head in (
            f"NONSENSE {line}\r\n",
            f"GET / HTTP/1.1\r\n{line} bad\r\n\r\n",
            f"POST / HTTP/1.1\r\n{line}" + 5000 * line,
        ):
            with socket.create_connection(("127.0.0.1", guarded.port), timeout=PATIENCE) as connection:
                connection.sendall(head.encode())
                heard += connection.recv(10_000)
    logged = guarded.log.read_bytes()
    assert b"Invalid HTTP request received" in logged
    for secret in secrets.values():
        for part in (secret, secret.removeprefix("leadtime_")):
            assert part.encode() not in heard
            assert part.encode() not in logged

"""More than can be done: what would be late is refused at once, and what is taken is answered."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from types import MappingProxyType

import httpx
import pytest

from service.keys import add_key
from tests.artifacts import write_artifact
from tests.end_to_end.process import Running, running
from tests.end_to_end.test_connections import connect
from tests.end_to_end.test_metrics import scraped

LATE = "leadtime_requests_refused_total deadline"
STEPS = "leadtime_requests_refused_total steps"
RUNS_UNTIL_KNOWN = 64
"""Runs of a model before which nobody is refused as late."""


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service whose model is slow, and for which much waits; another of its models has nothing to do."""
    folder = tmp_path_factory.mktemp("busy")
    for name in ("default", "other"):
        write_artifact(folder / "models" / name / "1" / "model.onnx", "bidirectional", name=name, context_length=128)
    with (
        running(folder / "models", folder / "log", max_steps=1 << 32, request_seconds=1e5) as service,
        kept_busy(service),
    ):
        yield service


@contextmanager
def kept_busy(
    service: Running, headers: Mapping[str, str] = MappingProxyType({}), connections: int = 40
) -> Iterator[None]:
    """Let so many connections ask for what takes seconds each, until the block is left."""
    body = json.dumps({"windows": [list(range(128))] * 64, "horizon": 1000}).encode()
    lines = [f"{name}: {value}" for name, value in {"Host": "x", **headers}.items()]
    lines = ["POST /forecast/multi-step HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""]
    head = "\r\n".join(lines).encode()
    with ExitStack() as stack, service.client() as client:
        client.headers.update(headers)
        wanted = scraped(client).get("leadtime_windows_under_way", 0) + connections * 64
        for _ in range(connections):
            stack.enter_context(connect(service)).sendall(head + body)
        while scraped(client).get("leadtime_windows_under_way", 0) < wanted:
            time.sleep(0.02)
        while scraped(client).get("leadtime_run_rows_count", 0) <= RUNS_UNTIL_KNOWN:
            time.sleep(0.02)
        yield


def ask(client: httpx.Client, milliseconds: int, content: bytes, path: str = "/forecast") -> httpx.Response:
    return client.post(path, content=content, headers={"X-Request-Timeout-Ms": str(milliseconds)})


def check_is_overload(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"


def test_what_would_be_late_is_refused_and_told_when_to_come_again(busy: Running) -> None:
    content = json.dumps({"windows": [list(range(128))] * 64, "horizon": 1000}).encode()
    with busy.client() as client:
        before = scraped(client).get(LATE, 0)
        check_is_overload(ask(client, 500, content, "/forecast/multi-step"))
        assert scraped(client)[LATE] == before + 1
        assert client.get("/health/ready").status_code == 200


def test_what_would_be_late_in_any_case_is_refused_unread(busy: Running) -> None:
    unread = b'{"window": [1, 2'
    with busy.client() as client:
        check_is_overload(ask(client, 1, unread))
        check_is_overload(ask(client, 1, b'{"model": "default", "window": [1, 2'))
        check_is_overload(client.post("/forecast", content=iter([unread]), headers={"X-Request-Timeout-Ms": "1"}))
        assert ask(client, 60_000, unread).status_code == 400
        assert ask(client, 0, unread).status_code == 400


def test_a_request_that_asks_little_is_answered_beside_those_that_ask_much(busy: Running) -> None:
    with busy.client() as client:
        assert ask(client, 60_000, b'{"window": [1, 2]}').status_code == 200
        assert ask(client, 60_000, b'{"model": "other", "window": [1, 2]}').status_code == 200


def test_no_more_steps_wait_than_may(tmp_path: Path) -> None:
    write_artifact(tmp_path / "models" / "default" / "1" / "model.onnx", "bidirectional", context_length=128)
    large = json.dumps({"windows": [list(range(128))] * 64, "horizon": 1000}).encode()
    with running(tmp_path / "models", tmp_path / "log", max_steps=5000) as service, service.client() as client:
        with connect(service) as connection:
            head = b"POST /forecast/multi-step HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(large)
            connection.sendall(head + large)
            while not scraped(client).get("leadtime_windows_under_way", 0):
                time.sleep(0.01)
            check_is_overload(client.post("/forecast", content=b'{"window": [1, 2]}'))
            assert scraped(client)[STEPS] == 1
        while client.post("/forecast", content=b'{"window": [1, 2]}').status_code == 503:
            time.sleep(0.01)  # the one whose client has hung up leaves


def test_a_key_that_floods_the_service_is_refused_before_another(tmp_path: Path) -> None:
    write_artifact(tmp_path / "models" / "default" / "1" / "model.onnx", "bidirectional", context_length=128)
    keys = tmp_path / "keys.toml"
    much = json.dumps({"version": "1", "windows": [list(range(128))] * 64, "horizon": 1000}).encode()
    flood, other = [{"X-API-Key": add_key(keys, name, ["forecast", "metadata"])} for name in ("flood", "other")]
    with (
        running(tmp_path / "models", tmp_path / "log", max_steps=1 << 32, request_seconds=1e5, keys=keys) as service,
        kept_busy(service, flood),
        kept_busy(service, other, 1),
        service.client() as client,
    ):

        def wait(key: dict[str, str]) -> int:
            """The seconds after which a request for much, which is read, might come again."""
            answer = client.post("/forecast/multi-step", content=much, headers=key | {"X-Request-Timeout-Ms": "1"})
            check_is_overload(answer)
            return int(answer.headers["retry-after"])

        # What is predicted goes up and down with the machine: both are asked in turns.
        waits = [(wait(flood), wait(other)) for _ in range(15)]
        assert median(one / beside for one, beside in waits) > 1.4

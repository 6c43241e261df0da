"""What is noted of requests: counts and times, ids, lines in the log; the same by the short way and the long one."""

import json
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.process import PATIENCE, Running, running

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
WINDOW = [7173.5, 7174.5, 7176.25]
SECRET = "lt_not-a-key-that-anybody-should-see"


@pytest.fixture(scope="module")
def observed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that logs every request, for programs."""
    log = tmp_path_factory.mktemp("log") / "log"
    with running(models, log, access_log=1, log_format="json", log_level="debug") as service:
        yield service


def samples(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def requests(client: httpx.Client) -> Counter[tuple[str, ...]]:
    """Requests by model, route, status and version."""
    found = samples(client)
    return Counter({key[1:]: int(value) for key, value in found.items() if key[0] == "leadtime_requests_total"})


def lines(service: Running, wanted: int, **fields: object) -> list[dict[str, Any]]:
    """The log's lines with these fields, as soon as there are so many."""
    deadline = time.monotonic() + PATIENCE
    while True:
        # The server's first words may be cut off by the reader, never by the writer.
        found = [json.loads(line) for line in service.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        found = [line for line in found if all(line.get(name) == value for name, value in fields.items())]
        if len(found) >= wanted or time.monotonic() > deadline:
            assert len(found) == wanted, found
            return found
        time.sleep(0.02)


def in_pieces(client: httpx.Client, path: str, body: object, headers: dict[str, str] | None = None) -> httpx.Response:
    """Ask with a body of unknown length, which takes the long way."""
    return client.post(path, content=iter([json.dumps(body).encode()]), headers=headers or {})


def test_requests_are_counted_by_route_model_version_and_status(observed: Running) -> None:
    with observed.client() as client:
        before = requests(client)
        for _ in range(3):
            client.post("/forecast", json={"window": WINDOW})
        client.post("/forecast", json={"window": WINDOW, "version": "1"})
        in_pieces(client, "/forecast", {"window": WINDOW, "model": "mean"})
        client.post("/forecast/multi-step", json={"window": ["x"], "horizon": 2})
        client.post("/forecast/multi-step", json={"window": WINDOW, "horizon": 10**6})
        client.get("/models/mean")
        client.head("/models/mean")
        client.get("/models/nowhere")
        client.get("/no/such/path")
        client.get("/forecast")
        found = requests(client)
    assert {key: count - before[key] for key, count in found.items() if count > before[key]} == {
        ("default", "/forecast", "200", "10"): 3,
        ("default", "/forecast", "200", "1"): 1,
        ("mean", "/forecast", "200", "1"): 1,
        ("", "/forecast/multi-step", "422", ""): 1,
        ("default", "/forecast/multi-step", "422", "10"): 1,
        ("", "/models/{name}", "200", ""): 2,
        ("", "/models/{name}", "404", ""): 1,
        ("", "other", "404", ""): 1,
        ("", "/forecast", "405", ""): 1,
        ("", "/metrics", "200", ""): 1,
    }


def test_refusals_are_counted_by_their_reason(observed: Running) -> None:
    with observed.client() as client:
        before = samples(client)
        client.post("/forecast", json={"window": []})
        in_pieces(client, "/forecast", {"window": []})
        client.post("/forecast", content=b"{")
        client.get("/models/nowhere")
        with socket.create_connection(("127.0.0.1", observed.port), timeout=PATIENCE) as connection:
            connection.sendall(b"no HTTP\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 400")
        found = samples(client)
    name = "leadtime_requests_refused_total"
    assert {
        key[1]: value - before.get(key, 0)
        for key, value in found.items()
        if key[0] == name and value > before.get(key, 0)
    } == {"invalid-request": 2, "unreadable-body": 1, "not-found": 1, "malformed-request": 1}


@pytest.mark.parametrize("ask", [httpx.Client.post, in_pieces], ids=["the short way", "the long way"])
def test_the_stages_of_a_forecast_make_up_its_time(observed: Running, ask: Any) -> None:
    names = [f"leadtime_request_{stage}seconds" for stage in ("", "parse_", "wait_", "run_")]

    def times(client: httpx.Client) -> list[tuple[float, float]]:
        found = samples(client)
        keys = [(name, "panel", "/forecast/multi-step") for name in names]
        return [
            (found.get((f"{key[0]}_count", *key[1:]), 0), found.get((f"{key[0]}_sum", *key[1:]), 0)) for key in keys
        ]

    body = {"model": "panel", "window": [[1, 2, 3]] * 5, "horizon": 20}
    with observed.client() as client:
        before = times(client)
        begun = time.perf_counter()
        for _ in range(5):
            response = (
                client.post("/forecast/multi-step", json=body)
                if ask is not in_pieces
                else in_pieces(client, "/forecast/multi-step", body)
            )
            assert response.status_code == 200
        took = time.perf_counter() - begun
        after = times(client)
    (count, total), *stages = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(before, after, strict=True)]
    assert [count, *(count for count, _ in stages)] == [5, 5, 5, 5]
    assert all(seconds >= 0 for _, seconds in stages)
    assert 0 < sum(seconds for _, seconds in stages) <= total < took


def test_times_have_buckets_from_50_microseconds(observed: Running) -> None:
    with observed.client() as client:
        client.post("/forecast", json={"window": WINDOW})
        text = client.get("/metrics").text
    for stage in ("", "parse_", "wait_", "run_"):
        (first, *_) = re.findall(rf'leadtime_request_{stage}seconds_bucket{{le="([^"]+)"', text)
        assert float(first) == 50e-6


@pytest.mark.parametrize("headers", [b"", b"Transfer-Encoding: chunked\r\n"], ids=["the short way", "the long way"])
def test_a_client_that_hung_up_is_counted_as_such(observed: Running, headers: bytes) -> None:
    body = json.dumps({"windows": [[1, 2, 3]] * 400, "horizon": 900}).encode()
    head = b"Content-Length: %d\r\n" % len(body)
    if headers:
        head, body = headers, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    key = ("default", "/forecast/multi-step", "499", "10")
    with observed.client() as client:
        before = requests(client)[key]
        with socket.create_connection(("127.0.0.1", observed.port), timeout=PATIENCE) as connection:
            connection.sendall(b"POST /forecast/multi-step HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n" + body)
            deadline = time.monotonic() + PATIENCE
            while not samples(client)["leadtime_windows_under_way",] and time.monotonic() < deadline:
                pass
        while requests(client)[key] == before and time.monotonic() < deadline:
            pass
        assert requests(client)[key] == before + 1


@pytest.mark.parametrize("path", ["/forecast", "/models", "/no/such/path"])
def test_an_answer_has_the_id_that_was_sent_or_a_new_one(observed: Running, path: str) -> None:
    def ids(headers: list[tuple[str, str]]) -> list[str]:
        body = json.dumps({"window": WINDOW})
        kinds: list[Any] = [body, iter([body.encode()])]
        answers = [client.request("POST", path, content=kind, headers=headers) for kind in kinds]
        return [answer.headers["X-Request-Id"] for answer in answers]

    with observed.client() as client:
        assert ids([("X-Request-Id", "order-66/a.b:c")]) == ["order-66/a.b:c"] * 2
        for unsound in ("", "two words", "x" * 129, "a,b", "<b>", 'a"b', "caf\u00e9"):
            new = ids([("X-Request-Id", unsound.encode())])  # type: ignore[list-item]
            assert all(re.fullmatch("[0-9a-f]{16}", one) for one in new), unsound
        assert len({*ids([]), *ids([])}) == 4


@pytest.mark.parametrize("path", ["/forecast", "/models/refresh"])
def test_a_line_of_the_log_names_the_request_and_its_trace(observed: Running, path: str) -> None:
    name = f"line-{path.replace('/', '-')}"
    with observed.client() as client:
        client.post(path, json={"window": WINDOW}, headers={"X-Request-Id": name, "Traceparent": PARENT})
    (line,) = lines(observed, 1, request_id=name)
    assert line["logger"] == "leadtime.access"
    assert (line["trace_id"], line["method"], line["route"]) == (TRACE, "POST", path)
    if path == "/forecast":
        assert (line["status"], line["model"], line["version"]) == (200, "default", "10")
        stages = [line[f"{stage}_seconds"] for stage in ("parse", "wait", "run")]
        assert 0 < sum(stages) <= line["seconds"] + 3e-6
    else:
        assert (line["status"], line["refused"]) == (403, "forbidden")


def test_the_log_says_nothing_of_keys_bodies_or_addresses(observed: Running) -> None:
    headers = {"Authorization": f"Bearer {SECRET}", "X-Request-Id": "with-a-secret", "Cookie": SECRET}
    with observed.client() as client:
        for body in ({"window": [*WINDOW, 31415.92]}, {"window": [*WINDOW, "31415.92"]}, {SECRET: [31415.92]}):
            client.post("/forecast?key=" + SECRET, json=body, headers=headers)
            client.post("/forecast", json=body, headers={**headers, "X-Request-Id": f"injected\r\n{SECRET}"[:8]})
            client.post("/models/refresh", json=body, headers={**headers, "X-API-Key": SECRET})
    lines(observed, 6, request_id="with-a-secret")
    said = observed.log.read_text()
    assert SECRET not in said
    assert "31415.9" not in said


def test_only_what_went_wrong_is_logged_where_the_share_is_0(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", access_log=0, log_format="json") as service, service.client() as client:
        for _ in range(20):
            client.post("/forecast", json={"window": WINDOW})
        client.post("/forecast", json={"window": []})
        (line,) = lines(service, 1, logger="leadtime.access")
    assert (line["status"], line["refused"]) == (422, "invalid-request")


def test_lines_for_people_say_the_same(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", access_log=1) as service, service.client() as client:
        client.post("/forecast", json={"window": WINDOW}, headers={"X-Request-Id": "one", "Traceparent": PARENT})
        deadline = time.monotonic() + PATIENCE
        while " request_id=one " not in service.log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        (line,) = [line for line in service.log.read_text().splitlines() if " request_id=one " in line]
    assert "INFO leadtime.access: POST /forecast 200 " in line
    assert f" request_id=one trace_id={TRACE} method=POST route=/forecast status=200 seconds=0.0" in line


def test_requests_go_unnoted_where_that_is_asked_for(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", request_metrics="off") as service, service.client() as client:
        assert client.post("/forecast", json={"window": WINDOW}).headers["X-Request-Id"]
        found = samples(client)
        assert found["leadtime_run_rows_count",] == 1
        assert not any(key[0].startswith(("leadtime_requests_total", "leadtime_request_")) for key in found)
    assert "leadtime.access" not in service.log.read_text()


def test_what_a_killed_worker_has_counted_stays_and_what_it_had_is_gone(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", workers=2, metrics=tmp_path / "counts") as service:
        for _ in range(30):
            with service.client() as client:
                client.post("/forecast", json={"window": WINDOW})
        served = ("leadtime_model_versions_served", "", "mean", "1")
        with service.client() as client:
            found = samples(client)
            assert (found["leadtime_requests_total", "default", "/forecast", "200", "10"]) == 30
        worker = max(int(file.stem.partition("-")[0]) for file in (tmp_path / "counts").glob("*.cells"))
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        seen = set()
        while time.monotonic() < deadline and 2 not in seen:
            try:
                with service.client() as client:
                    found = samples(client)
            except httpx.TransportError:  # it was the killed one's to answer
                continue
            assert found["leadtime_requests_total", "default", "/forecast", "200", "10"] == 30
            seen.add(found.get(served, found.get((served[0], "stable", *served[2:]), 0)))
        assert 2 in seen

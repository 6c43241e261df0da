"""`GET /metrics`: what a scraper sees of requests that come, stay and go."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.process import PATIENCE, Running, running

LONG = json.dumps({"windows": [[1, 2, 3]] * 400, "horizon": 2000}).encode()
HEAD = b"POST /forecast/multi-step HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(LONG)


@pytest.fixture
def long_service(models: Path, tmp_path: Path) -> Iterator[Running]:
    """A service that takes work for a while."""
    with running(models, tmp_path / "log", max_horizon=2000) as service:
        yield service


def scraped(client: httpx.Client) -> dict[str, float]:
    """Every sample by its name and labels' values."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def wait_for(client: httpx.Client, sample: str, value: float) -> dict[str, float]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = scraped(client)
        if found[sample] == value:
            return found
    raise AssertionError(f"{sample} is not {value}: {scraped(client)}")


@pytest.mark.parametrize("headers", [b"", b"Transfer-Encoding: chunked\r\n"], ids=["the short way", "the long way"])
def test_a_client_that_hangs_up_frees_its_windows(long_service: Running, headers: bytes) -> None:
    body = LONG if not headers else b"%x\r\n%s\r\n0\r\n\r\n" % (len(LONG), LONG)
    head = HEAD if not headers else b"POST /forecast/multi-step HTTP/1.1\r\nHost: x\r\n" + headers
    with long_service.client() as client:
        with socket.create_connection(("127.0.0.1", long_service.port), timeout=PATIENCE) as connection:
            connection.sendall(head + b"\r\n" + body)
            wait_for(client, "leadtime_windows_under_way", 400)
        found = wait_for(client, "leadtime_windows_under_way", 0)
        assert found["leadtime_requests_given_up_total cancelled"] == 1
        assert found["leadtime_requests_given_up_total expired"] == 0


def test_a_request_whose_time_is_up_frees_its_windows(long_service: Running) -> None:
    with long_service.client() as client:
        answer = client.post("/forecast/multi-step", content=LONG, headers={"X-Request-Timeout-Ms": "20"})
        assert answer.status_code == 504
        assert answer.json()["type"] == "/problems/deadline-exceeded"
        found = wait_for(client, "leadtime_windows_under_way", 0)
    assert found["leadtime_requests_given_up_total expired"] == 1
    assert found["leadtime_requests_given_up_total cancelled"] == 0


def test_any_worker_tells_what_all_have_counted(models: Path, tmp_path: Path) -> None:
    with running(models, tmp_path / "log", workers=2) as service:
        for _ in range(20):  # a connection each, so that both workers get some
            with service.client() as client:
                assert client.post("/forecast", json={"window": [1, 2, 3]}).status_code == 200
        counts = set()
        for _ in range(6):
            with service.client() as client:
                found = scraped(client)
                counts.add((found["leadtime_run_rows_count"], found["leadtime_run_rows_sum"]))
    assert counts == {(20, 20)}

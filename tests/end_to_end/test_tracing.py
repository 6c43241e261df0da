"""Traces as a collector sees them, which the test is, and what is said where there can be none."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.end_to_end.process import PATIENCE, ROOT, environment, running

TRACE, PARENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
WINDOW = [1, 2, 3]


class Collector(HTTPServer):
    """Takes what is exported."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[ExportTraceServiceRequest] = []

    def spans(self, wanted: int) -> list[Any]:
        """All spans, as soon as there are so many."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = [
                span
                for request in self.received
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
            if len(found) >= wanted:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{len(found)} spans of {wanted}")


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without any of OpenTelemetry's variables, batches sent at once."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    return monkeypatch


def said(span: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_request_is_a_span_with_its_stages_in_the_trace_that_it_came_with(
    models: Path, tmp_path: Path, variables: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        with running(models, tmp_path / "log") as service, service.client() as client:
            parent = {"Traceparent": f"00-{TRACE}-{PARENT_SPAN}-01", "X-Request-Id": "one"}
            before = time.time_ns()
            client.post("/forecast", json={"window": WINDOW}, headers=parent)
            after = time.time_ns()
            spans = [span for span in collector.spans(5) if span.trace_id.hex() == TRACE]
        (resource,) = {
            one.value.string_value
            for request in collector.received
            for one in request.resource_spans[0].resource.attributes
            if one.key == "service.name"
        }
    assert resource == "leadtime"
    by_name = {span.name: span for span in spans}
    request = by_name["POST /forecast"]
    assert set(by_name) == {"POST /forecast", "parse", "wait", "run"}
    assert (request.parent_span_id.hex(), request.kind) == (PARENT_SPAN, 2)
    assert said(request) == {
        "http.request.method": "POST",
        "http.route": "/forecast",
        "http.response.status_code": 200,
        "leadtime.request_id": "one",
        "leadtime.model": "default",
        "leadtime.version": "10",
    }
    stages = [by_name[name] for name in ("parse", "wait", "run")]
    assert all(stage.parent_span_id == request.span_id for stage in stages)
    moments = [time for stage in stages for time in (stage.start_time_unix_nano, stage.end_time_unix_nano)]
    slack = 2_000_000  # of two clocks
    assert moments == sorted(moments)
    assert before - slack <= request.start_time_unix_nano <= moments[0]
    assert moments[-1] <= request.end_time_unix_nano <= after + slack


def test_a_trace_that_was_not_sampled_is_not_sent_and_a_new_one_is_in_the_log(
    models: Path, tmp_path: Path, variables: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        variables.setenv("OTEL_TRACES_EXPORTER", "otlp")
        variables.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{collector.server_port}/traces")
        with running(models, tmp_path / "log", access_log=1) as service, service.client() as client:
            client.post("/forecast", json={"window": WINDOW}, headers={"Traceparent": f"00-{TRACE}-{PARENT_SPAN}-00"})
            client.post("/forecast/multi-step", json={"window": []}, headers={"X-Request-Id": "new"})
            refused = [span for span in collector.spans(1) if span.name == "POST /forecast/multi-step"]
            while not refused:
                refused = [span for span in collector.spans(1) if span.name == "POST /forecast/multi-step"]
        # The stop has sent what was left.
        assert TRACE not in {span.trace_id.hex() for span in collector.spans(1)}
        assert said(refused[0])["error.type"] == "invalid-request"
        assert f"request_id=new trace_id={refused[0].trace_id.hex()}" in service.log.read_text()


def test_a_collector_that_is_away_holds_nothing_up(models: Path, tmp_path: Path, variables: pytest.MonkeyPatch) -> None:
    variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with running(models, tmp_path / "log") as service:
        with service.client() as client:
            for _ in range(20):
                assert client.post("/forecast", json={"window": WINDOW}).status_code == 200
        begun = time.monotonic()
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0
        assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER: it must be otlp, console or none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL: it must be http/protobuf: "),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    variables: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    variables.setenv(name, value)
    ended = start(["-m", "service"])
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"leadtime: {complaint}")
    assert ended.stderr.count("\n") == 1


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from service.__main__ import main
sys.exit(main([]))
"""


def test_the_extra_that_is_missing_is_named(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("OTEL_TRACES_EXPORTER", "otlp")
    ended = start(["-c", WITHOUT])
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "install locks/otel.txt" in ended.stderr


def test_nothing_of_it_is_imported_where_nobody_asks_for_it(variables: pytest.MonkeyPatch) -> None:
    program = (
        "import sys, service.app as app\n"
        "from service.settings import Settings\n"
        "from fastapi.testclient import TestClient\n"
        "with TestClient(app.create_app(Settings.from_environment({}))) as client:\n"
        "    assert client.post('/forecast', json={'window': list(range(30))}).status_code == 200\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])\n"
    )
    variables.setenv("PYTHONWARNINGS", "ignore")
    assert start(["-c", program]).stdout == "[]\n"


def start(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(LEADTIME_PORT="0"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

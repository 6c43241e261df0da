"""Connections: what clients may do to them, and what they may not."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.policy import HEADERS
from tests.end_to_end.process import PATIENCE, Running, running

GOOD = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
BODIES = st.one_of(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12).map(lambda window: json.dumps({"window": window}).encode()),
    st.fixed_dictionaries(
        {"windows": st.lists(st.lists(st.integers(-9, 9), max_size=3), max_size=3)},
        optional={"horizon": st.integers(0, 60), "model": st.sampled_from(["default", "mean", "none"])},
    ).map(lambda question: json.dumps(question).encode()),
    st.binary(max_size=30),
)
HEADER = b"X: " + b"a" * 1021 + b"\r\n"


@pytest.fixture(scope="module")
def impatient(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that keeps idle connections for a second."""
    with running(models, tmp_path_factory.mktemp("log") / "service.log", keep_alive_seconds=1) as service:
        yield service


def connect(service: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE)


def read_to_end(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while part := connection.recv(65_536):
            answer += part
    except ConnectionResetError:
        pass
    return answer


def read_problem(connection: socket.socket) -> tuple[bytes, dict[bytes, bytes], dict[str, Any]]:
    """Read a refusal to the end of the connection: its status line, its headers and its document."""
    head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"connection"] == b"close"
    assert set(HEADERS) <= set(headers.items())
    assert len(body) == int(headers[b"content-length"])
    return status, headers, json.loads(body)


def send_without_end(connection: socket.socket, part: bytes) -> bool:
    """Send a part again and again, at most 64 MiB; return whether the service has put an end to it."""
    try:
        for _ in range(2**26 // len(part)):
            connection.sendall(part)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


@pytest.mark.parametrize("part", [HEADER, b"a" * 1024], ids=["headers", "one header"])
@pytest.mark.parametrize("before", [b"", GOOD + b"\r\n"], ids=["at once", "after a request"])
def test_headers_without_end_are_cut_off(service: Running, before: bytes, part: bytes) -> None:
    with connect(service) as connection:
        connection.sendall(before + GOOD + b"Y: ")
        assert send_without_end(connection, part)
    with service.client() as client:
        assert client.get("/health/live").status_code == 200


def test_headers_that_are_too_large_are_refused_with_the_limit(service: Running) -> None:
    with connect(service) as connection:
        connection.sendall(GOOD + HEADER * 64 + b"Y: ")
        status, _, problem = read_problem(connection)
    assert status == b"HTTP/1.1 431 Request Header Fields Too Large"
    assert (
        problem["detail"]
        == "the request line and headers, or those behind a body, have more than 65536 bytes or 128 lines"
    )


def test_a_flood_of_nonsense_is_counted_one_by_one_and_told_of_once_a_second(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    with running(models, log) as service:
        begin = time.monotonic()
        for _ in range(200):
            with connect(service) as connection:
                connection.sendall(b"NONSENSE\r\n\r\n")
                assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")
        seconds = time.monotonic() - begin
        with service.client() as client:
            counts = client.get("/metrics").text
    assert 'leadtime_requests_refused_total{reason="malformed-request"} 200.0' in counts
    assert 1 <= log.read_text().count("Invalid HTTP request received") <= 1 + seconds


@pytest.mark.parametrize("size", [1000, 50_000])
def test_headers_within_the_limit_are_taken_again_and_again_on_one_connection(service: Running, size: int) -> None:
    with httpx.Client(base_url=service.url, timeout=PATIENCE, headers={"X": "a" * size}) as client:
        answers = [client.post("/forecast", json={"window": [1, 2] * 50}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 5


def test_a_body_is_no_part_of_the_headers_however_large(roomy_client: httpx.Client) -> None:
    windows = [[1, 2] * 50_000] * 20
    answers = [roomy_client.post("/forecast", json={"windows": windows}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [422] * 3
    assert "has 100000 steps" in answers[0].text


def test_requests_that_follow_each_other_without_waiting_are_all_answered(service: Running) -> None:
    body = b'{"window": [1, 2]' + b" " * 19_000 + b"}"
    request = b"POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    last = request.replace(b"Host: x", b"Host: x\r\nConnection: close")
    with connect(service) as connection:
        connection.sendall(request * 9 + last)
        assert read_to_end(connection).count(b"HTTP/1.1 200 OK") == 10


def test_requests_of_both_ways_that_follow_each_other_are_answered_in_their_order(service: Running) -> None:
    def forecast(start: int) -> bytes:
        body = b'{"window": [%d, %d]}' % (start, start + 1)
        return b"POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    chunked = (
        b"POST /forecast HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'13\r\n{"window": [30, 31]\r\n1\r\n}\r\n0\r\n\r\n'
    )
    last = GOOD + b"Connection: close\r\n\r\n"
    with connect(service) as connection:
        connection.sendall(forecast(10) + forecast(20) + chunked + forecast(40) + GOOD + b"\r\n" + forecast(50) + last)
        answers = read_to_end(connection).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [json.loads(answer.rpartition(b"\r\n\r\n")[2]) for answer in answers[4::2]] == [{"status": "live"}] * 2
    forecasts = [json.loads(answer.rpartition(b"\r\n\r\n")[2]) for answer in [*answers[:4], answers[5]]]
    assert [answer["forecasts"][0]["values"] for answer in forecasts] == [[12], [22], [32], [42], [52]]


@given(body=BODIES, path=st.sampled_from(["/forecast", "/forecast/multi-step"]))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_body_of_known_length_and_one_in_pieces_have_the_same_answer(
    client: httpx.Client, body: bytes, path: str
) -> None:
    """The first goes the short way around the server's bookkeeping, the second goes through it."""
    whole = client.post(path, content=body)
    pieces = client.post(path, content=iter([body[:7], body[7:]]))
    assert (whole.status_code, whole.content) == (pieces.status_code, pieces.content)
    assert sorted(whole.headers) == sorted(pieces.headers)


@pytest.mark.parametrize(
    ("head", "end"),
    [
        (b"HTTP/1.1\r\nConnection: close", b"connection: close"),
        (b"HTTP/1.0", b"connection: close"),
        (b"HTTP/1.1\r\nExpect: 100-continue", b"HTTP/1.1 100 Continue"),
    ],
    ids=["asked to close", "version 1.0", "asked whether to go on"],
)
def test_the_finer_points_of_http_are_kept(service: Running, head: bytes, end: bytes) -> None:
    body = b'{"window": [1, 2]}'
    with connect(service) as connection:
        connection.sendall(b"POST /forecast %s\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (head, len(body)) + body)
        if b"100" in end:
            connection.sendall(GOOD + b"Connection: close\r\n\r\n")
        answer = read_to_end(connection)
    assert b'"values":[3.0]' in answer
    assert end in answer


@pytest.mark.parametrize("sent", [b"", b"\r\n"], ids=["nothing", "a blank line"])
def test_a_connection_on_which_no_request_comes_is_closed(impatient: Running, sent: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(sent)
        assert read_to_end(connection) == b""


@pytest.mark.parametrize(
    "sent", [b"good morning\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", GOOD + b"Content-Length: 1, 2\r\n\r\n"]
)
def test_what_is_no_http_is_refused_with_a_problem_document(service: Running, sent: bytes) -> None:
    with connect(service) as connection:
        connection.sendall(sent)
        status, _, problem = read_problem(connection)
    assert status == b"HTTP/1.1 400 Bad Request"
    assert problem["type"] == "/problems/malformed-request"


def test_what_is_no_http_is_refused_behind_the_answers_to_what_came_before(service: Running) -> None:
    body = b'{"window": [1, 2]}'
    request = b"POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    chunk = b"POST /forecast HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n"
    for nonsense in (b"nonsense\r\n\r\n", chunk):
        with connect(service) as connection:
            connection.sendall(request + GOOD + b"\r\n" + request + nonsense)
            answers = read_to_end(connection).split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"200", b"200", b"200", b"400"]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/models", "/docs", "/openapi.json"])
def test_what_can_be_got_can_be_asked_about(client: httpx.Client, path: str) -> None:
    asked, got = client.head(path), client.get(path)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-length"] == got.headers["content-length"] == str(len(got.content))


def test_what_cannot_be_got_cannot_be_asked_about(client: httpx.Client) -> None:
    assert client.head("/forecast").status_code == 405
    assert client.head("/nowhere").status_code == 404


def test_clients_that_hang_up_with_several_requests_on_their_way_are_no_failure(service: Running) -> None:
    with service.client() as client:
        for _ in range(50):
            connection = connect(service)
            connection.sendall((b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") * 3)
            connection.close()
        assert client.get("/metrics").status_code == 200
    assert "Traceback" not in service.log.read_text()


def test_an_offer_of_another_protocol_is_passed_over(service: Running) -> None:
    body = b'{"window": [1, 2]}'
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    request = b"POST /forecast HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b"
    with connect(service) as connection:
        for headers in (offer, b"", offer, b"Connection: close\r\n"):
            connection.sendall(request % (headers, len(body), body))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
    assert "WebSocket" not in service.log.read_text()

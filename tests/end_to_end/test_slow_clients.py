"""Clients that send or read too slowly, or hold connections: they are let go, and nobody else waits for them."""

import json
import select
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.process import PATIENCE, Running, running
from tests.end_to_end.test_connections import GOOD, connect, read_problem, read_to_end, send_without_end
from tests.end_to_end.test_metrics import scraped, wait_for

BODY = b'{"window": [1, 2]}'
FORECAST = b"POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"POST /forecast HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
READ_SECONDS = 0.6
SLOW = "leadtime_requests_refused_total slow"


@pytest.fixture(scope="module")
def strict(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that waits for no request, and for no reader, longer than a moment."""
    limits = {"read_seconds": READ_SECONDS, "write_seconds": 0.5, "max_body_bytes": 2**20, "max_horizon": 10_000}
    with running(models, tmp_path_factory.mktemp("log") / "service.log", **limits) as service:
        yield service


@pytest.fixture
def narrow(models: Path, tmp_path: Path) -> Iterator[Running]:
    """A service that takes four connections."""
    with running(models, tmp_path / "service.log", max_connections=4) as service:
        yield service


def read_answer(connection: socket.socket) -> bytes:
    """Read one answer that is a JSON object."""
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(65_536)
    return answer


def drip(connection: socket.socket, request: bytes) -> None:
    """Send a byte at a time, until something comes back or all is sent."""
    for byte in request:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(bytes([byte]))
        if select.select([connection], [], [], 0.05)[0]:
            return


@pytest.mark.parametrize(
    ("at_once", "slowly"),
    [
        (b"", FORECAST + BODY),
        (FORECAST, BODY),
        (CHUNKED, b"12\r\n" + BODY),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n", b"X: x\r\n" * 20),
        (FORECAST + BODY, GOOD),
    ],
    ids=["head", "body", "chunks", "headers", "a second request"],
)
def test_a_request_that_comes_a_byte_at_a_time_is_cut_off_and_told_so(
    strict: Running, at_once: bytes, slowly: bytes
) -> None:
    with connect(strict) as connection:
        connection.sendall(at_once)
        if at_once.endswith(BODY):
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        begin = time.monotonic()
        drip(connection, slowly)
        status, _, problem = read_problem(connection)
    assert status == b"HTTP/1.1 408 Request Timeout"
    assert problem["type"] == "/problems/request-timeout"
    assert time.monotonic() - begin > READ_SECONDS - 0.1


def test_a_request_may_take_longer_than_a_head_where_it_is_large(strict: Running) -> None:
    body = b'{"window": [1, 2]' + b" " * 900_000 + b"}"
    with connect(strict) as connection:
        connection.sendall(FORECAST.replace(b"18", b"%d" % len(body)) + body[:800_000])
        time.sleep(1.5 * READ_SECONDS)
        connection.sendall(body[800_000:])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_connection_that_waits_between_requests_is_not_cut_off(strict: Running) -> None:
    with connect(strict) as connection:
        for _ in range(3):
            connection.sendall(FORECAST + BODY)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
            time.sleep(1.5 * READ_SECONDS)


def test_the_rest_of_a_body_that_has_been_refused_is_read_for_a_while_and_not_for_ever(strict: Running) -> None:
    head = b"POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n"
    with connect(strict) as connection:
        connection.sendall(head + b" " * 2**21)
        assert read_answer(connection).startswith(b"HTTP/1.1 413")
        assert send_without_end(connection, b" " * 2**16)
    with connect(strict) as connection:
        connection.sendall(head)
        assert read_answer(connection).startswith(b"HTTP/1.1 413")
        begin = time.monotonic()
        assert read_to_end(connection) == b""  # and no second answer
        assert time.monotonic() - begin < PATIENCE / 2


def test_a_client_that_does_not_read_its_answer_is_hung_up_on(strict: Running) -> None:
    body = json.dumps({"windows": [[1, 2, 3]] * 100, "horizon": 10_000}).encode()
    request = b"POST /forecast/multi-step HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with strict.client() as client, socket.socket() as connection:
        before = scraped(client).get(SLOW, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", strict.port))
        connection.settimeout(PATIENCE)
        connection.sendall(request)
        wait_for(client, SLOW, before + 1)
        answer = read_to_end(connection)
    assert len(answer) < 10_000_000, "all of it was written"


def test_a_client_that_reads_slowly_has_its_whole_answer(strict: Running) -> None:
    body = json.dumps({"windows": [[1, 2, 3]] * 60, "horizon": 10_000}).encode()
    request = b"POST /forecast/multi-step HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body)
    answer = b""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.connect(("127.0.0.1", strict.port))
        connection.settimeout(PATIENCE)
        connection.sendall(request + b"Connection: close\r\n\r\n" + body)
        while part := connection.recv(400_000):
            answer += part
            time.sleep(0.02)
    length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert len(answer.partition(b"\r\n\r\n")[2]) == length


def test_a_client_that_sends_no_more_is_taken_to_have_hung_up(strict: Running) -> None:
    for sent in (b"", b"GET /hea", FORECAST, FORECAST + BODY[:5]):
        with connect(strict) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert read_to_end(connection) == b""


def test_connections_beyond_the_limit_are_refused_until_others_close(narrow: Running) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(connect(narrow)) for _ in range(4)]
        for connection in held:
            connection.sendall(b"GET /health/live HTTP/1.1\r\n")  # a request is on its way
        time.sleep(1.2)
        with connect(narrow) as one_too_many:
            one_too_many.sendall(FORECAST + BODY)
            status, headers, problem = read_problem(one_too_many)
        assert status == b"HTTP/1.1 503 Service Unavailable"
        assert problem["type"] == "/problems/overloaded"
        assert problem["detail"].startswith("too many connections are open")
        assert headers[b"retry-after"] == b"1"
        with connect(narrow) as silent:
            assert read_problem(silent)[0].startswith(b"HTTP/1.1 503")
        held[0].sendall(b"Host: x\r\nConnection: close\r\n\r\n")
        assert read_to_end(held[0]).startswith(b"HTTP/1.1 200")
        with narrow.client() as client:
            assert client.post("/forecast", content=BODY).status_code == 200
            assert 'leadtime_requests_refused_total{reason="connections"} 2.0' in client.get("/metrics").text
        for connection in held[1:]:
            connection.sendall(b"Host: x\r\nConnection: close\r\n\r\n")
            assert read_to_end(connection).startswith(b"HTTP/1.1 200")


def test_a_connection_that_idles_gives_way_to_one_that_asks(narrow: Running) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(narrow)) for _ in range(4)]
        time.sleep(1.5)
        for _ in range(8):
            with connect(narrow) as connection:
                connection.sendall(FORECAST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + BODY)
                assert read_to_end(connection).startswith(b"HTTP/1.1 200")
        assert sum(is_closed(connection) for connection in idle) == 1


def is_closed(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0]) and connection.recv(1) == b""


def test_a_flood_of_connections_is_hung_up_on_and_leaves_the_service_as_it_was(narrow: Running) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(connect(narrow))
            with suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(b"GET / HTTP/1.1\r\n")
    with narrow.client() as client:
        deadline = time.monotonic() + PATIENCE
        while client.post("/forecast", content=BODY).status_code == 503:
            assert time.monotonic() < deadline
        assert client.get("/health/live").status_code == 200
    assert "Traceback" not in narrow.log.read_text()


def test_five_hundred_slow_clients_do_not_hold_up_another(service: Running) -> None:
    def median(client: httpx.Client) -> float:
        times = []
        for _ in range(300):
            begin = time.perf_counter()
            assert client.post("/forecast", content=BODY).status_code == 200
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    with service.client() as client, ExitStack() as stack:
        alone = median(client)
        slow = [stack.enter_context(connect(service)) for _ in range(500)]
        for round_ in range(4):
            for place, connection in enumerate(slow):
                connection.sendall((b"GET " if place % 2 else FORECAST + BODY)[round_ : round_ + 1])
        beside = median(client)
    assert beside < 2 * alone + 0.001

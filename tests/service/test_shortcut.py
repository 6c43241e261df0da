"""The short way to a forecast answers exactly what the framework's way answers."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastapi import FastAPI
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message

from service.api import policy
from service.api.forecast import ANSWERS
from service.api.headers import ARROW
from service.api.shortcut import Shortcut
from service.app import create_app
from service.keys import SCOPES, add_key
from service.settings import Settings
from tests import streams
from tests.artifacts import write_artifact
from tests.asgi import scope_of
from tests.streams import stream

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, dict[bytes, bytes], bytes]

PATHS = ["/forecast", "/forecast/multi-step"]


@dataclass(frozen=True)
class Started:
    """The service, started; `ask_both` asks it the long way and the short way."""

    application: FastAPI
    state: dict[str, Any]
    loop: asyncio.AbstractEventLoop

    def ask_both(
        self, path: str, parts: Sequence[bytes], headers: Headers, method: str = "POST"
    ) -> tuple[Answer, Answer]:
        """The framework's answer and the short way's."""

        async def both() -> tuple[Answer, Answer]:
            long = await ask(self.application, self.state, path, parts, headers, method)
            short = Shortcut(self.application, ANSWERS, for_other_origins=True)
            return long, await ask(short, self.state, path, parts, headers, method)

        return self.loop.run_until_complete(both())


@contextmanager
def started(folder: Path, **limits: object) -> Iterator[Started]:
    write_artifact(folder / "default" / "1" / "model.onnx")
    write_artifact(folder / "panel" / "1" / "model.onnx", features=3, name="panel", frequency="h")
    application = create_app(Settings.model_validate({"models": folder, **limits}))
    loop = asyncio.new_event_loop()
    life = application.router.lifespan_context(application)
    state = loop.run_until_complete(life.__aenter__())
    try:
        yield Started(application, dict(state or {}), loop)
    finally:
        loop.run_until_complete(life.__aexit__(None, None, None))
        loop.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    limits = {"max_body_bytes": 2000, "max_windows": 4, "max_window_length": 20, "max_horizon": 30}
    with started(tmp_path_factory.mktemp("models"), **limits) as service:
        yield service


async def ask(
    app: ASGIApp, state: dict[str, Any], path: str, parts: Sequence[bytes], headers: Headers, method: str = "POST"
) -> Answer:
    """One request straight to an ASGI application, its body in parts; the last part may be that the client is gone."""
    incoming = [
        {"type": "http.request", "body": part, "more_body": place + 1 < len(parts)} for place, part in enumerate(parts)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope_of(path, headers, state, method), receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


NUMBERS = st.one_of(
    st.floats(-1e3, 1e3), st.integers(-10, 10), st.sampled_from([1e39, 3e38, float("nan"), True, None, "1", [1.0]])
)
WINDOWS = st.one_of(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12),
    st.lists(st.lists(st.integers(-9, 9), min_size=3, max_size=3), min_size=2, max_size=6),
    st.lists(NUMBERS, max_size=22),
    st.lists(st.lists(NUMBERS, max_size=4), max_size=4),
)
FIELDS = {
    "window": WINDOWS,
    "windows": st.lists(WINDOWS, max_size=5),
    "model": st.sampled_from(["default", "panel", "none", "/", 5, None]),
    "version": st.sampled_from(["1", "2", 1]),
    "origin": st.sampled_from(["2024-02-29", "2024-01-01T00:00:00Z", "soon", ["2024-01-01", "2024-01-02"]]),
    "frequency": st.sampled_from(["h", "M", "fortnight"]),
    "horizon": st.sampled_from([1, 3, 24, 0, 31, "2"]),
    "unknown": st.just(1),
}
QUESTIONS = st.one_of(
    st.fixed_dictionaries({"window": WINDOWS, "horizon": st.integers(1, 5)}),
    st.fixed_dictionaries({"window": WINDOWS}),
    st.fixed_dictionaries({}, optional=FIELDS),
)
COLUMNS = st.fixed_dictionaries(
    {
        "window": st.one_of(
            st.lists(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), max_size=5),
            st.lists(st.lists(st.one_of(st.floats(width=32), st.none()), max_size=22), max_size=5),
        ).map(lambda windows: pa.array(windows, streams.NUMBERS))
    }
)
METADATA: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({"horizon": "3"}),
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.sampled_from(["default", "panel", "none", "/"]),
            "origin": st.sampled_from(["2024-02-29", "soon"]),
            "frequency": st.sampled_from(["h", "fortnight"]),
            "horizon": st.sampled_from(["1", "30", "31", "0", "x"]),
            "unknown": st.just(""),
        },
    ),
)
STREAMS = st.builds(stream, COLUMNS, METADATA)
BODIES = st.one_of(
    QUESTIONS.map(lambda question: json.dumps(question).encode()),
    st.binary(max_size=60),
    STREAMS,
    st.builds(lambda body, cut: body[:cut], STREAMS, st.integers(0, 600)),
    st.just(b" " * 2100),
)
HEADERS = st.lists(
    st.sampled_from(
        [
            (b"content-type", b"application/json"),
            (b"content-type", b"application/json; charset=utf-8"),
            (b"content-type", b"text/plain"),
            (b"content-type", ARROW),
            (b"content-type", b"Application/vnd.apache.arrow.stream; charset=x"),
            (b"content-encoding", b"gzip"),
            (b"content-encoding", b"identity"),
            (b"content-length", b"12"),
            (b"content-length", b"99999"),
            (b"x-request-timeout-ms", b"30000"),
            (b"x-request-timeout-ms", b"-1"),
            (b"accept", b"*/*"),
            (b"accept", ARROW),
            (b"accept", b"application/json, " + ARROW + b";q=0.5"),
            (b"host", b"localhost"),
        ]
    ),
    max_size=4,
    unique_by=lambda header: header[0],
)


@given(path=st.sampled_from(PATHS), body=BODIES, cuts=st.lists(st.integers(0, 200), max_size=3), headers=HEADERS)
@example(path="/forecast", body=b'{"window": [1, 2, 3]}', cuts=[], headers=[])
@example(path="/forecast", body=b'{"window": [-3e38, 3e38]}', cuts=[5], headers=[])
@example(
    path="/forecast/multi-step",
    body=b'{"window": [1, 2, 3], "horizon": 30, "origin": "2024-01-01"}',
    cuts=[],
    headers=[],
)
@settings(max_examples=400)
def test_the_short_way_answers_what_the_long_way_answers(
    service: Started, path: str, body: bytes, cuts: list[int], headers: Headers
) -> None:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    parts = [body[begin:end] for begin, end in pairwise(places)]

    long, short = service.ask_both(path, parts, headers)

    assert short == long


@given(path=st.sampled_from(PATHS), body=STREAMS, accepted=st.sampled_from([b"*/*", b"application/json", ARROW]))
@settings(max_examples=200)
def test_the_short_way_answers_streams_as_the_long_way_does(
    service: Started, path: str, body: bytes, accepted: bytes
) -> None:
    long, short = service.ask_both(path, [body], [(b"content-type", ARROW), (b"accept", accepted)])

    assert short == long
    status, headers, _ = short
    expected = accepted if accepted != b"*/*" else ARROW
    assert headers[b"content-type"] == (expected if status == 200 else b"application/problem+json")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", [*PATHS, "/models", "/health/ready", "/nowhere"])
def test_whatever_is_no_post_of_a_forecast_goes_the_long_way(service: Started, method: str, path: str) -> None:
    long, short = service.ask_both(path, [b""], [], method)
    assert short == long


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_hangs_up_before_its_body_is_complete_hears_nothing(service: Started, path: str) -> None:
    for status, _, body in service.ask_both(path, [], []):
        assert (status, body) == (400, b"")


@pytest.mark.parametrize("path", PATHS)
def test_a_forecast_that_is_not_complete_in_time_says_so(tmp_path: Path, path: str) -> None:
    body = {"window": [1, 2, 3]} if path == "/forecast" else {"window": [1, 2, 3], "horizon": 5}
    with started(tmp_path, request_seconds=1e-9) as service:
        long, short = service.ask_both(path, [json.dumps(body).encode()], [(b"x-request-timeout-ms", b"5000")])
        assert short == long
        assert short[0] == 504
        assert json.loads(short[2])["type"] == "/problems/deadline-exceeded"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Started, dict[str, str]]]:
    """The service with keys, with a rate for those who have none, and for pages of another origin."""
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    made: dict[str, str] = {scope: add_key(keys, scope, [scope], "100000/second") for scope in SCOPES}
    limits = {"keys": keys, "anonymous_limit": "100000/second", "cors_origins": "https://example.org"}
    with started(tmp_path_factory.mktemp("models"), **limits) as service:
        yield service, made


@given(
    path=st.sampled_from(PATHS),
    owner=st.sampled_from([*SCOPES, "nobody"]),
    name=st.sampled_from([b"authorization", b"x-api-key", b"cookie"]),
    before=st.sampled_from([b"Bearer ", b"bearer  ", b"Basic ", b""]),
    origin=st.sampled_from([None, b"https://example.org", b"https://elsewhere.org"]),
    body=st.sampled_from([b'{"window": [1, 2, 3], "horizon": 2}', b'{"window": [1, 2, 3]}', b"["]),
)
@settings(max_examples=200)
def test_both_ways_ask_for_the_same_keys(
    guarded: tuple[Started, dict[str, str]],
    path: str,
    owner: str,
    name: bytes,
    before: bytes,
    origin: bytes | None,
    body: bytes,
) -> None:
    service, made = guarded
    headers = [(name, before + made.get(owner, "guess").encode())] + ([(b"origin", origin)] if origin else [])

    long, short = service.ask_both(path, [body], headers)

    assert short == long
    status, answered, _ = short
    is_sent = before == b"" if name == b"x-api-key" else name == b"authorization" and before[:6].lower() == b"bearer"
    assert (status in (200, 400, 422)) == (is_sent and owner == "forecast")
    assert (status == 403) == (is_sent and owner in ("metadata", "admin"))
    assert (b"access-control-allow-origin" in answered) == (origin == b"https://example.org")


@pytest.mark.parametrize("path", PATHS)
def test_both_ways_count_requests_alike(tmp_path: Path, path: str) -> None:
    with started(tmp_path, anonymous_limit="3/hour") as service:
        asked = [service.ask_both(path, [b"["], []) for _ in range(3)]
    assert [answer[0] for both in asked for answer in both] == [400, 400, 400, 429, 429, 429]


def test_every_answer_of_either_way_has_the_headers_of_the_policy(service: Started) -> None:
    for body in (b'{"window": [1, 2, 3]}', b"[", b'{"window": []}'):
        for _, headers, _ in service.ask_both("/forecast", [body], []):
            assert dict(policy.HEADERS).items() <= headers.items()

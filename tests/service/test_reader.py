"""Large bodies are read in another process, and say there what they say here."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message

from service.api import inquiry, reader
from service.api.aside import Packed
from service.api.inquiry import STOPPED
from service.api.reader import Reader, is_large
from service.api.state import Service
from service.app import create_app
from service.errors import InvalidRequest, Overloaded, UnreadableBody
from service.metrics import Metrics, collect
from service.settings import Settings
from tests.artifacts import Kind, write_artifact
from tests.asgi import scope_of

Answer = tuple[int, Any]

MODELS: dict[str, tuple[Kind, dict[str, Any]]] = {
    "default": ("drift", {}),
    "panel": ("drift", {"features": 3, "frequency": "h"}),
    "mean": ("mean", {}),
    "sales": ("informed", {"exogenous": ("price", "promotion")}),
    "diary": ("informed", {"calendar": ("weekday",), "exogenous": ("promotion",), "frequency": "D"}),
}
PATIENCE = 30.0
NUMBERS = "1," * 70_000


class Started:
    """The service without a server, which is asked by ASGI's messages."""

    def __init__(self, folder: Path, **limits: object) -> None:
        for name, (kind, given_) in MODELS.items():
            write_artifact(folder / name / "1" / "model.onnx", kind, name=name, **given_)
        self.application = create_app(Settings.model_validate({"models": folder, **limits}))
        self.loop = asyncio.new_event_loop()
        self._life = self.application.router.lifespan_context(self.application)
        state: Any = self.loop.run_until_complete(self._life.__aenter__())
        self.state = dict(state)
        self.service: Service = state["service"]

    def close(self) -> None:
        self.loop.run_until_complete(self._life.__aexit__(None, None, None))
        self.loop.close()

    def ask(self, body: bytes, path: str = "/forecast", headers: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
        return self.loop.run_until_complete(asyncio.wait_for(self.answer(body, path, headers), PATIENCE))

    async def answer(
        self, body: bytes | None, path: str = "/forecast", headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> Answer:
        """Status and document; a body of None never comes."""
        came = [] if body is None else [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Message] = []

        async def receive() -> Message:
            if came:
                return came.pop()
            await asyncio.get_running_loop().create_future()
            raise AssertionError("nothing more comes")

        async def send(message: Message) -> None:
            sent.append(message)

        await self.application(scope_of(path, headers, self.state), receive, send)
        return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))

    def ask_until_the_drain_ends(self, body: bytes | None) -> Answer:
        """Ask, and be cut off by the end of a stop's time."""

        async def stopped() -> Answer:
            asked = asyncio.create_task(self.answer(body))
            await asyncio.sleep(0.05)
            self.service.draining = True
            asked.cancel()
            try:
                return await asked
            finally:
                self.service.draining = False

        return self.loop.run_until_complete(asyncio.wait_for(stopped(), PATIENCE))

    @property
    def process(self) -> asyncio.subprocess.Process:
        found = self.service.reader._process
        assert found is not None
        return found


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    made = Started(tmp_path_factory.mktemp("models"), max_windows=6, max_window_length=40, max_horizon=30)
    yield made
    made.close()


@contextmanager
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(inquiry, "is_large", lambda body: True)
        yield


VALUES = st.one_of(st.floats(-1e3, 1e3), st.integers(-10, 10), st.sampled_from([1e39, float("nan"), True, None, "1"]))
STEPS = st.one_of(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12),
    st.lists(st.lists(st.integers(-9, 9), min_size=3, max_size=3), min_size=2, max_size=6),
    st.lists(st.lists(st.integers(-9, 9), min_size=2, max_size=2), min_size=2, max_size=6),
    st.lists(VALUES, max_size=4),
    st.lists(st.lists(VALUES, max_size=4), max_size=4),
)
FIELDS = {
    "model": st.sampled_from([*MODELS, "none", 5]),
    "version": st.sampled_from(["1", "2", 1]),
    "origin": st.sampled_from(["2024-02-29", "soon", ["2024-01-01"], ["2024-01-01", "2024-01-02"], [], 3 * ["x"]]),
    "frequency": st.sampled_from(["h", "D", "fortnight"]),
    "horizon": st.sampled_from([1, 2, 30, 31, "2"]),
    "future": STEPS,
    "futures": st.lists(STEPS, max_size=3),
    "levels": st.sampled_from([[80], [80, 95], [100]]),
    "samples": st.sampled_from([2]),
    "seed": st.just(1),
    "unknown": st.just(1),
}
QUESTIONS = st.one_of(
    st.fixed_dictionaries({"window": STEPS}, optional=FIELDS),
    st.fixed_dictionaries({"windows": st.lists(STEPS, max_size=7)}, optional=FIELDS),
    st.fixed_dictionaries(
        {
            "windows": st.lists(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=3), min_size=1),
            "futures": st.lists(st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=2)),
            "model": st.just("sales"),
            "horizon": st.just(2),
        }
    ),
    st.fixed_dictionaries({}, optional={"window": STEPS, "windows": st.lists(STEPS, max_size=7), **FIELDS}),
)
BODIES = st.one_of(QUESTIONS.map(lambda question: json.dumps(question).encode()), st.binary(max_size=40))


@given(body=BODIES, path=st.sampled_from(["/forecast", "/forecast/multi-step"]))
@settings(max_examples=400)
def test_what_is_read_aside_is_answered_as_if_it_had_been_read_here(started: Started, body: bytes, path: str) -> None:
    here = started.ask(body, path)
    with pytest.MonkeyPatch.context() as patch, everything_is_large(patch):
        aside = started.ask(body, path)

    if here[0] == 200 and b'"samples"' in body and b'"seed"' not in body:
        assert aside[0] == 200  # other futures are drawn each time
        return
    assert aside == here


@pytest.mark.parametrize(
    ("body", "large"),
    [
        (b"[" + b"1," * 32_768 + b"1]", False),
        (b"[" + b"1," * 32_769 + b"1]", True),
        (b"[" + b"1," * 10 + b" " * 1_000_000 + b"1]", False),
        (b"[" + b" " * 1_000_000 + b"1," * 32_769 + b"1]", True),
    ],
    ids=["as many values as are read here", "one more", "nothing but space", "many behind much space"],
)
def test_large_is_what_has_many_values(body: bytes, large: bool) -> None:
    assert is_large(body) is large


def test_a_body_of_many_values_has_a_process_read_it_and_others_are_read_here(started: Started) -> None:
    body = json.dumps({"windows": [list(range(40))] * 6}).encode()
    assert started.ask(body)[0] == 200
    status, problem = started.ask(b'{"window": [%b1]}' % NUMBERS.encode())

    assert (status, problem["errors"][0]["message"]) == (422, "has 70001 steps, but at most 40 are accepted")
    assert started.process.pid != os.getpid()
    assert started.process.returncode is None


def test_a_process_that_was_killed_is_replaced_for_the_next_request(started: Started) -> None:
    body = b'{"window": [%b1]}' % NUMBERS.encode()
    started.ask(body)
    killed = started.process.pid
    os.kill(killed, signal.SIGKILL)

    statuses = [started.ask(body)[0] for _ in range(2)]

    # Whether its end is known by the first of them depends on the moment.
    assert statuses in ([422, 422], [503, 422])
    assert started.process.pid != killed


def test_a_request_whose_time_is_up_hears_so_while_others_are_read_behind_it(started: Started) -> None:
    body = b'{"window": [%b1]}' % NUMBERS.encode()
    started.ask(body)
    stopped = started.process.pid

    async def both() -> tuple[Answer, Answer]:
        os.kill(stopped, signal.SIGSTOP)
        late = await started.answer(body, headers=[(b"x-request-timeout-ms", b"100")])
        behind = asyncio.create_task(started.answer(body))
        await asyncio.sleep(0.05)
        os.kill(stopped, signal.SIGCONT)
        return late, await behind

    late, behind = started.loop.run_until_complete(asyncio.wait_for(both(), PATIENCE))

    assert (late[0], late[1]["type"]) == (504, "/problems/deadline-exceeded")
    assert behind[0] == 422
    assert started.process.pid == stopped


def test_a_process_that_does_not_answer_is_replaced(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"window": [%b1]}' % NUMBERS.encode()
    started.ask(body)
    stopped = started.process.pid
    os.kill(stopped, signal.SIGSTOP)

    with monkeypatch.context() as patch:
        patch.setattr(reader, "_PATIENCE_SECONDS", 0.1)
        status, problem = started.ask(body)

    assert (status, problem["type"]) == (503, "/problems/overloaded")
    assert started.ask(body)[0] == 422
    assert started.process.pid != stopped


def test_a_request_that_outlasts_the_drain_hears_that_the_service_stops(started: Started) -> None:
    body = b'{"window": [%b1]}' % NUMBERS.encode()
    started.ask(body)

    os.kill(started.process.pid, signal.SIGSTOP)
    try:
        status, problem = started.ask_until_the_drain_ends(body)
    finally:
        os.kill(started.process.pid, signal.SIGCONT)

    assert (status, problem["detail"]) == (503, STOPPED)
    assert started.ask(body)[0] == 422


def test_a_body_that_has_not_come_at_the_end_of_the_drain_is_answered_all_the_same(started: Started) -> None:
    status, problem = started.ask_until_the_drain_ends(None)

    assert (status, problem["detail"]) == (503, STOPPED)


def test_where_too_much_waits_to_be_read_a_request_is_refused_at_once_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_MOST_WAITING", 100)

    async def scenario() -> None:
        made = Reader(Metrics(tmp_path))
        async with made.turn(1000):  # one alone is read, however large it is
            with pytest.raises(Overloaded, match="too many large requests wait"):
                async with made.turn(1):
                    pass
        async with made.turn(60):
            waiting = [asyncio.create_task(wait_for(made, 20)) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await wait_for(made, 20)
        await asyncio.gather(*waiting)
        await wait_for(made, 100)
        await made.close()

    async def wait_for(made: Reader, size: int) -> None:
        async with made.turn(size):
            pass

    asyncio.run(scenario())
    (counted,) = [values for key, values in collect(tmp_path).items() if ("reason", "reader") in key.labels]
    assert counted == [2]


def test_the_process_ends_when_it_is_not_needed_and_with_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        made = Reader()
        await read(made)
        process = made._process
        assert process is not None
        await made.close()
        assert process.returncode == 0

        monkeypatch.setattr(reader, "_IDLE_SECONDS", 0.05)
        await read(made)
        process = made._process
        assert process is not None
        assert await process.wait() == 0
        await made.close()

    async def read(made: Reader) -> None:
        async with made.turn(40) as turn:
            question = await turn.read(b'{"window": [1, 2], "model": "one"}', is_one_step=True)
            assert question.model == "one"

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_errors_come_as_they_are() -> None:
    async def scenario() -> None:
        made = Reader()
        async with made.turn(40) as turn:
            with pytest.raises(UnreadableBody, match="not JSON"):
                await turn.read(b"{", is_one_step=True)
        async with made.turn(40) as turn:
            with pytest.raises(InvalidRequest) as told:
                await turn.read(b'{"window": [true]}', is_one_step=True)
            assert [fault.pointer for fault in told.value.faults] == ["/window/0"]
        await made.close()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5), columns=st.integers(1, 3))
def test_arrays_are_the_same_when_they_are_unpacked(lengths: list[int], columns: int) -> None:
    arrays = [np.random.default_rng(n).random((length, columns), np.float32) for n, length in enumerate(lengths)]

    unpacked = Packed.of(arrays).unpacked()

    assert len(unpacked) == len(arrays)
    for one, other in zip(unpacked, arrays, strict=True):
        np.testing.assert_array_equal(one, other)


def test_futures_of_no_columns_keep_their_steps() -> None:
    assert [array.shape for array in Packed.of([np.empty((2, 0), np.float32)] * 3).unpacked()] == [(2, 0)] * 3

"""Connections leave no work behind them: nothing for the collector of cycles, and no body to be read for nobody."""

import asyncio
import gc
import json
import re
import socket
import weakref
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import uvicorn
import uvloop

from service.api import forecast
from service.api.shortcut import Shortcut
from service.app import create_app
from service.protocol import BoundedProtocol
from service.server import Server
from service.settings import Settings
from service.watchdog import Watchdog
from tests.artifacts import write_artifact

PATIENCE = 30.0

BODY = b'{"window": [1, 2, 3]}'
HEAD = b"POST /forecast HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
SOUND = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
WRONG = HEAD + b"content-length: 2\r\n\r\n{}"
LARGE = HEAD + b"content-length: 1000000000\r\n\r\n"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(2):
        writer.write(SOUND)
        assert b" 200 " in await reader.read(65_536)


async def ask_wrongly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(WRONG)
    assert b" 422 " in await reader.read(65_536)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SOUND)
    await writer.drain()


async def end_midway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SOUND[:-5])
    writer.write_eof()
    await reader.read()


async def ask_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SOUND)
    writer.write_eof()
    await reader.read()


async def ask_in_one_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(10 * SOUND)
    await reader.read(1)


async def send_too_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(LARGE + b"9" * 65_536)
    assert b" 413 " in await reader.read(65_536)


async def send_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"nonsense\r\n\r\n")
    assert b" 400 " in await reader.read()


class Serving:
    """A server in this process, whose connections can be looked at."""

    def __init__(self, models: Path, made: list["weakref.ref[BoundedProtocol]"]) -> None:
        class Seen(BoundedProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(weakref.ref(self))
                super().connection_made(transport)

        settings = Settings(models=models, refresh_seconds=0.0, access_log="off")
        application = Shortcut(create_app(settings), forecast.ANSWERS, for_other_origins=False)
        config = uvicorn.Config(application, http=Seen, proxy_headers=False, log_config=None, lifespan="on")
        self._watchdog = Watchdog(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.server = Server(config, self._watchdog, notice_seconds=0, drain_seconds=PATIENCE)

    async def __aenter__(self) -> "Serving":
        self._task = asyncio.create_task(self.server.serve([self._listener]))
        await until(lambda: self.server.started)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.stop()
        await self._task
        self._watchdog.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(self._listener.getsockname())

    async def talk(self, talk: Talk) -> None:
        reader, writer = await asyncio.open_connection(*self._listener.getsockname())
        await talk(reader, writer)
        writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "talk",
    [say_nothing, ask, ask_wrongly, hang_up, end_midway, ask_and_end, ask_in_one_go, send_too_much, send_nonsense],
)
def test_a_connection_leaves_nothing_for_the_collector_of_cycles(talk: Talk, tmp_path: Path) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")
    made: list[weakref.ref[BoundedProtocol]] = []

    async def scenario() -> None:
        async with Serving(tmp_path, made) as serving:
            await serving.talk(talk)
            await until(lambda: not serving.server.server_state.is_busy)
            made.clear()
            gc.collect()
            gc.disable()
            try:
                for _ in range(5):
                    await serving.talk(talk)
                await until(lambda: not serving.server.server_state.is_busy)
                await asyncio.sleep(0.05)  # what the loop holds of its last turn
                assert len(made) == 5
                assert [protocol for protocol in made if protocol() is not None] == []
            finally:
                gc.enable()

    uvloop.run(scenario())


def test_connections_that_are_left_at_once_are_closed_a_few_in_each_turn_of_the_loop(tmp_path: Path) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")
    count = 60
    open_at_each_turn: list[int] = []

    async def scenario() -> None:
        async with Serving(tmp_path, []) as serving:
            connections = serving.server.server_state.connections
            clients = [serving.connect() for _ in range(count)]
            await until(lambda: len(connections) == count)
            for client in clients:
                client.close()
            while connections:
                open_at_each_turn.append(len(connections))
                await asyncio.sleep(0)

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE))
    assert max(before - after for before, after in pairwise([count, *open_at_each_turn, 0])) < 5


def test_of_many_requests_in_one_go_a_few_are_read_ahead_and_all_are_answered_in_their_order(tmp_path: Path) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")
    made: list[weakref.ref[BoundedProtocol]] = []
    bodies = [b'{"window": [1, %d]}' % number for number in range(1, 301)]
    large = b'{"window": [1, 7%s]}' % (b" " * 100_000)
    bodies[100:100] = [large]
    ahead: list[int] = []

    async def ask_for_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body for body in bodies))
        for body in bodies:
            protocol = made[0]()
            assert protocol is not None
            ahead.append(len(protocol.pipeline))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            (length,) = [int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
            second = float(body.split(b",")[1].strip(b" ]}"))
            answer = json.loads(await reader.readexactly(length))
            assert answer["forecasts"] == [{"values": [second + second - 1]}]

    async def scenario() -> None:
        async with Serving(tmp_path, made) as serving:
            await serving.talk(ask_for_all)

    uvloop.run(scenario())
    assert 0 < max(ahead) < 20


def test_requests_in_one_go_let_those_of_others_pass_and_are_answered_though_these_never_end(tmp_path: Path) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")
    made: list[weakref.ref[BoundedProtocol]] = []
    runs: list[int] = []

    async def ask_thrice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until(lambda: bool(made))
        protocol = made[0]()
        assert protocol is not None
        scheduler, window = protocol.service.scheduler, np.ones((2, 1), np.float32)
        engine = protocol.service.registry.find("default", None).engine
        others = asyncio.create_task(scheduler.forecast(engine, [window], 1_000_000))
        await until(lambda: not scheduler.is_idle)
        writer.write(3 * SOUND)
        async with asyncio.timeout(PATIENCE):
            for _ in range(3):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                (length,) = [int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
                await reader.readexactly(length)
                runs.append(engine.pace.lessons)
        assert not others.done()
        others.cancel()

    async def scenario() -> None:
        async with Serving(tmp_path, made) as serving:
            await serving.talk(ask_thrice)

    uvloop.run(scenario())
    # Without that there would be three.
    assert min(after - before for before, after in pairwise(runs)) > 5


CHUNKED = b"POST /forecast HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "endless",
    [b"0\r\na: " + 70_000 * b"a", b"1;" + 70_000 * b"a"],
    ids=["a header behind the body", "a chunk that says much of itself"],
)
def test_what_comes_beside_a_body_is_bounded_as_a_head_is(endless: bytes, tmp_path: Path) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")
    made: list[weakref.ref[BoundedProtocol]] = []
    kept: list[int] = []

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"15\r\n" + BODY + b"\r\n")
        await until(lambda: bool(made))
        protocol = made[0]()
        assert protocol is not None
        await until(lambda: protocol._is_midway)
        for first in range(0, 66_000, 1000):
            writer.write(endless[first : first + 1000])
            await asyncio.sleep(0)
            kept.append(len(protocol.headers))
        assert b" 431 " in await reader.read(65_536)

    async def scenario() -> None:
        async with Serving(tmp_path, made) as serving:
            await serving.talk(send)

    uvloop.run(scenario())
    assert max(kept) == 3


@pytest.mark.parametrize(("count", "status"), [(120, b"200"), (200, b"431")])
@pytest.mark.parametrize("place", ["in the head", "behind the body"])
def test_a_request_has_a_hundred_headers_or_so_at_most(count: int, status: bytes, place: str, tmp_path: Path) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")
    more = count * b"a:\r\n"
    head = SOUND.replace(b"\r\n\r\n", b"\r\n" + more + b"\r\n", 1)
    behind = CHUNKED + b"15\r\n" + BODY + b"\r\n0\r\n" + more + b"\r\n"

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head if place == "in the head" else behind)
        assert b"HTTP/1.1 " + status in await reader.read(65_536)

    async def scenario() -> None:
        async with Serving(tmp_path, []) as serving:
            await serving.talk(send)

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE))


def test_a_refusal_of_a_head_request_has_no_body(tmp_path: Path) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HEAD /models HTTP/1.1\r\n" + 200 * b"a:\r\n" + b"\r\n")
        answer = await reader.read()
        assert b"HTTP/1.1 431" in answer
        assert answer.endswith(b"\r\n\r\n")

    async def scenario() -> None:
        async with Serving(tmp_path, []) as serving:
            await serving.talk(send)

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE))


def test_headers_behind_a_body_are_none_of_the_request(tmp_path: Path) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            writer.write(CHUNKED + b"15\r\n" + BODY + b"\r\n0\r\nx-request-id: behind\r\n\r\n")
            answer = await reader.read(65_536)
            assert b" 200 " in answer
            assert b"behind" not in answer

    async def scenario() -> None:
        async with Serving(tmp_path, []) as serving:
            await serving.talk(send)

    uvloop.run(scenario())


def test_of_what_comes_behind_a_request_that_takes_long_little_is_read_meanwhile(tmp_path: Path) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")
    made: list[weakref.ref[BoundedProtocol]] = []
    ahead: list[int] = []
    body = b'{"window": [1, 2, 3], "horizon": 1000}'
    slow = CHUNKED.replace(b"/forecast", b"/forecast/multi-step") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    behind = 200_000 * SOUND  # 30 MB

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(slow + behind)
        await until(lambda: bool(made))
        answered = asyncio.create_task(reader.read(1))
        while not answered.done():
            protocol = made[0]()
            assert protocol is not None
            ahead.append(len(protocol._ahead))
            await asyncio.sleep(0)

    async def scenario() -> None:
        async with Serving(tmp_path, made) as serving:
            await serving.talk(pump)

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE))
    assert 0 < max(ahead) < 1_000_000


@pytest.mark.parametrize(
    "head",
    [b"GET http://x HTTP/1.1\r\n\r\n", SOUND.replace(b"content-length: 21", b"content-length: " + 5000 * b"0" + b"5")],
    ids=["an address without a path", "a length in 5000 digits"],
)
def test_what_cannot_be_begun_with_is_refused_behind_the_answer_to_the_one_before(head: bytes, tmp_path: Path) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")
    slow = CHUNKED + b"15\r\n" + BODY + b"\r\n0\r\n\r\n"
    statuses: list[list[bytes]] = []

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(slow + head)
        statuses.append(re.findall(rb"HTTP/1.1 (\d+)", await reader.read()))

    async def one_by_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(slow)
        answer = await reader.readuntil(b"}]}")
        writer.write(head)
        statuses.append(re.findall(rb"HTTP/1.1 (\d+)", answer + await reader.read()))

    async def scenario() -> None:
        async with Serving(tmp_path, []) as serving:
            await serving.talk(both)
            await serving.talk(one_by_one)

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE))
    assert statuses == [[b"200", b"400"]] * 2


def test_a_large_body_is_read_with_short_rests_in_which_others_are_answered(tmp_path: Path) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")
    body = b'{"window": [1, 2]' + b" " * 6_000_000 + b"}"
    rests: list[int] = []
    passed = 0

    async def scenario() -> None:
        async with Serving(tmp_path, []) as serving:
            state = serving.server.server_state

            async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
                assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")

            async def others(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                nonlocal passed
                while not large.done():
                    writer.write(SOUND)
                    await reader.readuntil(b"}]}")
                    passed += not large.done()
                    rests.append(state.resting)

            large = asyncio.create_task(serving.talk(send))
            await serving.talk(others)
            await large
            assert state.resting == 0

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE))
    assert max(rests) == 1
    assert passed > 3


def test_a_body_that_is_read_in_vain_is_read_with_rests_and_not_at_all_for_a_client_that_is_gone(
    tmp_path: Path,
) -> None:
    write_artifact(tmp_path / "default" / "1" / "model.onnx", "drift")

    async def scenario() -> None:
        async with Serving(tmp_path, []) as serving:
            state = serving.server.server_state
            rested = 0

            async def send_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                nonlocal rested
                await send_too_much(reader, writer)
                for _ in range(64):
                    writer.write(b"9" * 65_536)
                    await writer.drain()
                    rested += state.resting
                writer.write(b"9" * 1_000_000)

            await asyncio.gather(*[serving.talk(send_on) for _ in range(3)])
            assert rested > 0
            await until(lambda: not state.is_busy)
            assert state.resting == 0

    uvloop.run(scenario())

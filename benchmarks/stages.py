"""Where the microseconds of a one-step request go, before and after the short way around framework and server.

Sixteen connections without a kernel below them ask as fast as answers come, so the runs of the model have sixteen rows.
Each stage is then measured by itself, on the same data; a stage's time is the least of several takes, for whatever else
a machine does only adds to it. What the kernel's side of a connection costs is what is left of a request over real
sockets, where the server's core is busy all the time.
"""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import uvloop
from pydantic import TypeAdapter
from pydantic_core import from_json
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from benchmarks.questions import CONTEXT, MODELS, WINDOW, artifact, to_service
from service.api import forecast
from service.api.inquiry import encode
from service.api.shortcut import Content, End, Shortcut
from service.api.windows import windows_for
from service.app import create_app
from service.engine import Engine
from service.pace import Pace
from service.protocol import BoundedProtocol
from service.scheduler import Scheduler
from service.schemas import ForecastRequest
from service.sequences import Request
from service.server import Connections
from service.settings import Settings
from service.versions import ServedModel
from service.window import Values

CONNECTIONS: Final = 16
_TAKES: Final = 9
_REQUESTS: Final = 3000


@dataclass(frozen=True, slots=True)
class Stages:
    """Microseconds of CPU time for each request."""

    http: float
    """HTTP in and out, and the server's bookkeeping, without sockets."""
    framework: float
    """What is left: routing, middleware, requests and responses as objects, reading the body."""
    json: float
    validation: float
    arrays: float
    scheduling: float
    runtime: float
    """A run of sixteen rows, a sixteenth of it."""
    response: float
    total: float


def measured(model: str = "uni") -> dict[str, Stages]:
    """The stages with the framework and uvicorn's own protocol, and with the service as it is."""
    return uvloop.run(_measured(model))


async def _measured(model: str) -> dict[str, Stages]:
    settings = Settings(models=MODELS, default_model=model)
    application = create_app(settings, owns_process=True)
    async with application.router.lifespan_context(application) as state:
        parts = await _parts(settings, Engine.open(artifact(model)))
        shared = dict(state or {})
        long = await _through(HttpToolsProtocol, application, shared)
        long_http = await _through(HttpToolsProtocol, _constant, shared)
        short = await _through(BoundedProtocol, Shortcut(application, forecast.ANSWERS), shared)
        constant = Shortcut(application, {"/forecast": _Constant()})
        short_http = await _through(BoundedProtocol, constant, shared)
    known = sum(parts.values())
    return {
        "before": Stages(http=long_http, framework=long - long_http - known, total=long, **parts),
        "after": Stages(http=short_http, framework=short - short_http - known, total=short, **parts),
    }


async def _parts(settings: Settings, engine: Engine) -> dict[str, float]:
    body = to_service(WINDOW, 1).body
    schema = TypeAdapter(ForecastRequest)
    question = schema.validate_json(body)
    served = ServedModel("default", "1", engine, artifact("uni"))
    one = np.ones((1, 1, 1), np.float32)
    batch = np.repeat(np.array(WINDOW, np.float32).reshape(1, -1, 1), CONNECTIONS, axis=0)
    reading = _least(lambda: from_json(body))
    return {
        "json": reading,
        "validation": _least(lambda: schema.validate_json(body)) - reading,
        "arrays": _least(lambda: windows_for(question, engine.metadata, 1, settings)),
        "scheduling": await _scheduling(engine),
        "runtime": _least(lambda: engine.run(batch), 300) / CONNECTIONS,
        "response": _least(lambda: encode(served, 1, one, [False], None)),
    }


def _least(work: Callable[[], object], times: int = 3000) -> float:
    best = float("inf")
    for _ in range(_TAKES):
        begin = time.process_time()
        for _ in range(times):
            work()
        best = min(best, time.process_time() - begin)
    return best / times * 1e6


class _Instant:
    """A model that takes no time, in the shape of another."""

    def __init__(self, engine: Engine) -> None:
        self.context_length = engine.context_length
        self.minimum_window = engine.minimum_window
        self.features = engine.features
        self.state_size = engine.state_size
        self.known = engine.known
        self.pace = Pace()
        self.drift = None
        self._forecast = np.ones((CONNECTIONS, 1), np.float32)
        self._state = np.ones((CONNECTIONS, self.state_size), np.float32)

    def run(
        self, values: Values, state: Values | None, known: Values | None = None
    ) -> tuple[Values, Values | None, Values | None]:
        return self._forecast[: len(values)], self._state[: len(values)], None


async def _scheduling(engine: Engine) -> float:
    scheduler, model = Scheduler(), _Instant(engine)
    windows = [np.ones((CONTEXT, 1), np.float32)]
    each = _REQUESTS // CONNECTIONS

    async def all_answered() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(_Client(scheduler, model, windows, each, loop.create_future()).ask() for _ in range(CONNECTIONS))
        )

    return await _least_of(all_answered, each * CONNECTIONS)


class _Client:
    """Asks a scheduler again as soon as it is told."""

    def __init__(
        self, scheduler: Scheduler, model: _Instant, windows: list[Values], times: int, done: asyncio.Future[None]
    ) -> None:
        self._scheduler, self._model, self._windows = scheduler, model, windows
        self._left = times
        self._done = done
        self._loop = done.get_loop()

    def ask(self) -> asyncio.Future[None]:
        self._scheduler.begin(self._model, self._windows, 1, self._tell, seconds=60.0)
        return self._done

    def _tell(self, request: Request, error: BaseException | None) -> None:
        self._left -= 1
        if self._left:
            self._loop.call_soon(self.ask)
        else:
            self._done.set_result(None)


async def _least_of(work: Callable[[], Any], requests: int) -> float:
    best = float("inf")
    for _ in range(_TAKES):
        begin = time.process_time()
        await work()
        best = min(best, time.process_time() - begin)
    return best / requests * 1e6


async def _constant(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads a body and answers the same to all."""
    await receive()
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


class _Constant:
    """Answers the same to all, at once."""

    async def __call__(self, scope: Scope, receive: Receive) -> Content:
        return await self.complete(receive)

    def inquire(self, *about: Any) -> "_Constant":
        return self

    def ask(self, body: bytes, end: End) -> bool:
        end((b"{}", b"application/json"), None)
        return True

    def give_up(self, error: Exception | None = None) -> None:
        pass

    async def complete(self, receive: Receive) -> Content:
        await receive()
        return b"{}", b"application/json"


async def _through(protocol: type[HttpToolsProtocol], application: ASGIApp, state: dict[str, Any]) -> float:
    """The least microseconds of a request through a protocol and an application."""
    config = Config(application, http=protocol, ws="none", lifespan="off", access_log=False, proxy_headers=False)
    config.load()
    config.timeout_keep_alive = 75
    server = Connections()
    server.default_headers = [(b"date", b"Sat, 21 Nov 2026 10:00:00 GMT")]
    wires = [_Wire(protocol(config, server, state, _loop=asyncio.get_running_loop())) for _ in range(CONNECTIONS)]
    each = _REQUESTS // CONNECTIONS

    def ask() -> Coroutine[Any, Any, Any]:
        return _all(wire.ask(each) for wire in wires)

    await ask()
    return await _least_of(ask, each * CONNECTIONS)


async def _all(asked: Any) -> None:
    await asyncio.gather(*asked)


class _Wire(asyncio.Transport):
    """A connection that ends in this process: as soon as an answer is written, the next question comes."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        super().__init__()
        body = to_service(WINDOW, 1).body
        self._question = (
            b"POST /forecast HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._written: list[bytes] = []
        self._left = 0
        self._done = self._loop.create_future()
        protocol.connection_made(self)

    def ask(self, times: int) -> asyncio.Future[None]:
        """Ask so many times, one after another."""
        self._left = times
        self._done = self._loop.create_future()
        self._protocol.data_received(self._question)
        return self._done

    def write(self, data: Any) -> None:
        """Take a part of an answer; the kernel too would send all that is written in one turn of the loop together."""
        self._written.append(data)
        if len(self._written) == 1:
            self._loop.call_soon(self._sent)

    def _sent(self) -> None:
        answer = b"".join(self._written)
        self._written = []
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(json.dumps(answer.decode(errors="replace")))
        self._left -= 1
        if self._left:
            self._protocol.data_received(self._question)
        else:
            self._done.set_result(None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 8000) if name in ("peername", "sockname") else default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

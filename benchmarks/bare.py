"""The two references on the service's own server software, plain uvicorn: the least that a server could do.

`ceiling` reads nothing and answers `{}`: nothing on this server software can be quicker. `reference` does what a
forecast needs and no more: it parses, runs the service's own engine under its own scheduler, and answers in the
service's own words. It trusts its callers, so it checks nothing, and knows one model.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from service.engine import Engine
from service.scheduler import Scheduler

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Application = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]

_START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"2")],
}
_BODY: Final = {"type": "http.response.body", "body": b"{}"}


def ceiling() -> Application:
    """An application that answers every request with `{}`."""

    async def application(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        await send(_START)
        await send(_BODY)

    return application


def reference() -> Application:
    """An application that answers `POST` to any path with the forecast that the body asks for.

    The environment variable `BENCH_MODEL` names the model's file.
    """
    engine = Engine.open(Path(os.environ["BENCH_MODEL"]))
    scheduler = Scheduler()
    name, version = engine.metadata.name, engine.metadata.version

    async def application(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await send(_START)
            await send(_BODY)
            return
        question = orjson.loads(await _whole(receive))
        window = np.array(question["window"], np.float32).reshape(-1, engine.features)
        horizon = question.get("horizon", 1)
        (forecast,) = await scheduler.forecast(engine, [window], horizon)
        values = np.ascontiguousarray(forecast.reshape(-1) if engine.features == 1 else forecast)
        answer = {"model": name, "version": version, "horizon": horizon, "forecasts": [{"values": values}]}
        body = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
        length = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return application


async def _whole(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    return body

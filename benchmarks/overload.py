"""What becomes of requests when more are sent than can be answered: the service beside a FastAPI application.

Each is first asked as fast as it answers, which is its capacity; then it is offered shares and multiples of that, open
loop, with a deadline for each request. Both forecast with the same model, which slides its window, so that a forecast
takes both about as long.

A forecast of 96 steps takes some milliseconds, which is what there is to be lost. To refuse a request takes some tens
of microseconds, half of them the kernel's for its bytes: four times as many requests as can be answered, of forecasts
that take less than a millisecond each, would fill a fifth of the time by being refused.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

from benchmarks.environments import make_environment
from benchmarks.load import drive
from benchmarks.openloop import load
from benchmarks.peer import SEVERAL_STEPS, peers
from benchmarks.questions import WINDOW, Question, artifact, differs, forecast, slid_forecast, to_service
from benchmarks.rates import Place, Servers
from benchmarks.servers import SERVICE, Server, service
from service.engine import Engine

MODEL: Final = "bi"
TUTORIAL: Final = "FastAPI"
STEPS: Final = 96
DEADLINE: Final = 0.2
"""Seconds until an answer is worth nothing."""
TIMES: Final = (0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0)
"""Multiples of the capacity that are offered."""

_CONNECTIONS: Final = 64  # of the load that finds the capacity


def measure(
    place: Place, *, seconds: int, times: Sequence[float] = TIMES, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Find the capacity of each server, and what becomes of each multiple of it."""
    tutorial = next(peer for peer in peers() if peer.name == TUTORIAL)
    make_environment(tutorial.environment)
    form = next(form for form in tutorial.forms if form.name.startswith("`async"))
    engine = Engine.open(artifact(MODEL))
    starts: dict[str, Callable[[], AbstractContextManager[Server]]] = {
        SERVICE: partial(service, MODEL, place.server),
        TUTORIAL: partial(tutorial.running, MODEL, place.server),
    }
    asked = {
        SERVICE: (to_service(WINDOW, STEPS), forecast(engine, WINDOW, STEPS)),
        TUTORIAL: (_farther(form.questions[SEVERAL_STEPS]), slid_forecast(engine, WINDOW, STEPS)),
    }
    with Servers(starts) as servers:
        found = {name: _of_one(servers, name, *asked[name], place, seconds, times, tell) for name in starts}
    return {"model": MODEL, "steps": STEPS, "deadline": DEADLINE, "seconds": seconds, "servers": found}


def _farther(question: Question) -> Question:
    return replace(question, body=json.dumps(json.loads(question.body) | {"horizon": STEPS}).encode())


def _of_one(
    servers: Servers,
    name: str,
    question: Question,
    wanted: Sequence[float],
    place: Place,
    seconds: int,
    times: Sequence[float],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    with servers.turn_of(name) as server:
        fault = differs(server.ask(question), wanted)
        if fault is not None:
            raise RuntimeError(f"{name} answers wrongly: {fault}")
        closed: dict[str, Any] = {"connections": _CONNECTIONS, "core": place.generator}
        drive(server.port, question, seconds=1, **closed)
        capacity = drive(server.port, question, seconds=seconds, **closed).rate
        tell(f"{name}: capacity {capacity:,.0f} /s")
        points = []
        for multiple in times:
            rate = multiple * capacity
            outcome = load(question, server.port, rate=rate, seconds=seconds, deadline=DEADLINE, core=place.generator)
            points.append({"times": multiple, **asdict(outcome)})
            tell(
                f"{name}, {multiple:>4} × ({outcome.offered:>8,.0f} /s): goodput {outcome.goodput:>8,.0f} /s, "
                f"accepted p99 {_told(outcome.accepted_p99)}, refused {outcome.refused:>8,.0f} /s "
                f"(p50 {_told(outcome.refused_p50)}, p99 {_told(outcome.refused_p99)}), "
                f"expired {outcome.expired:,.0f}, failed {outcome.failed:,.0f}, unanswered {outcome.unanswered:,.0f}"
            )
    return {"capacity": capacity, "points": points}


def _told(milliseconds: float | None) -> str:
    return "–" if milliseconds is None else f"{milliseconds:.1f} ms"

"""What becomes of requests when more are sent than can be answered: the service beside a FastAPI application.

Each is first asked as fast as it answers, which is its capacity; then it is offered a multiple of that, open loop, with
a deadline for each request. The capacity is found anew before each load, since what a shared machine gives changes
within seconds: goodput counts as a share of it. All this is done in several rounds, of which medians are told. Both
servers forecast with the same model, which slides its window, so that a forecast takes both about as long.

A forecast of 96 steps takes some milliseconds, which is what there is to be lost. To refuse a request takes some tens
of microseconds, half of them the kernel's for its bytes: four times as many requests as can be answered, of forecasts
that take less than a millisecond each, would fill a fifth of the time by being refused.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
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

# Of the load that finds the capacity. Forecasts of one length that begin together end together, so that all its answers
# come at once: it lasts longer than the others, or the last ones that did not come would count for much.
_CONNECTIONS: Final = 32
_LONGER: Final = 2
_PATIENCE: Final = 4  # times that a server is asked until it has come to rest


def measure(
    place: Place, *, rounds: int, seconds: int, times: Sequence[float] = TIMES, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Find the capacity of each server, and what becomes of each multiple of it, in so many rounds.

    Returns:
        For each server its capacity and a point for each multiple: medians over the rounds, and all `rounds` as found.
    """
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
    found: dict[str, dict[float, list[dict[str, Any]]]] = {name: {one: [] for one in times} for name in starts}
    with Servers(starts) as servers:
        for name, (question, wanted) in asked.items():
            with servers.turn_of(name) as server:
                fault = differs(server.ask(question), wanted)
                if fault is not None:
                    raise RuntimeError(f"{name} answers wrongly: {fault}")
                drive(server.port, question, seconds=seconds, connections=_CONNECTIONS, core=place.generator)
        for number in range(rounds):
            for multiple in times:
                for name in starts:
                    with servers.turn_of(name) as server:
                        outcome = _offered(server, asked[name][0], multiple, place, seconds)
                    found[name][multiple].append(outcome)
                    tell(f"round {number + 1}, {name}, {multiple:>4} × {_in_words(outcome)}")
    points: dict[str, list[dict[str, Any]]] = {
        name: [{"times": multiple, **_medians(outcomes), "rounds": outcomes} for multiple, outcomes in ones.items()]
        for name, ones in found.items()
    }
    return {
        "model": MODEL,
        "steps": STEPS,
        "deadline": DEADLINE,
        "seconds": seconds,
        "rounds": rounds,
        "connections": _CONNECTIONS,
        "servers": {
            name: {"capacity": statistics.median(point["capacity"] for point in ones), "points": ones}
            for name, ones in points.items()
        },
    }


def _offered(server: Server, question: Question, multiple: float, place: Place, seconds: int) -> dict[str, Any]:
    """What a server can answer now, and what becomes of a multiple of that."""
    _settle(server, question)
    closed = drive(server.port, question, seconds=_LONGER * seconds, connections=_CONNECTIONS, core=place.generator)
    capacity = closed.rate
    _settle(server, question)
    rate = multiple * capacity
    outcome = load(question, server.port, rate=rate, seconds=seconds, deadline=DEADLINE, core=place.generator)
    return {"capacity": capacity, "share": outcome.goodput / capacity, **asdict(outcome)}


def _settle(server: Server, question: Question) -> None:
    """Wait until a server has done what it was asked before: one that does not look works on for those who are gone."""
    for _ in range(_PATIENCE):
        with suppress(OSError):
            server.ask(question)
            return
    raise RuntimeError(f"{server.name} does not come to rest")


def _medians(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Of each number the median over those rounds that have it."""
    found: dict[str, float | None] = {}
    for name in outcomes[0]:
        values = [outcome[name] for outcome in outcomes if outcome[name] is not None]
        found[name] = statistics.median(values) if values else None
    return found


def _farther(question: Question) -> Question:
    return replace(question, body=json.dumps(json.loads(question.body) | {"horizon": STEPS}).encode())


def _in_words(outcome: Mapping[str, Any]) -> str:
    return (
        f"{outcome['capacity']:,.0f} /s: goodput {outcome['goodput']:,.0f} /s, {outcome['share']:.2f} of that, "
        f"accepted p99 {_told(outcome['accepted_p99'])}, refused {outcome['refused']:,.0f} /s "
        f"(p99 {_told(outcome['refused_p99'])}), expired {outcome['expired']:,.0f}, failed {outcome['failed']:,.0f}, "
        f"unanswered {outcome['unanswered']:,.0f}"
    )


def _told(milliseconds: float | None) -> str:
    return "–" if milliseconds is None else f"{milliseconds:.1f} ms"

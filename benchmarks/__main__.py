"""`python -m benchmarks`: measure the service, its references and its peers on this machine.

One server core, wrk on another where there is one. What is found is printed, and kept in `benchmarks/results`,
from where `python -m benchmarks.report` writes `docs/benchmarks.md`.
"""

import os
import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

from benchmarks import bulk, cache, inprocess, memory, mixture, observation, overload, stages, start, workers
from benchmarks.environments import make_environment, versions_of
from benchmarks.load import drive, wrk
from benchmarks.peer import ONE_STEP, SEVERAL_STEPS, Peer, peers
from benchmarks.questions import HORIZON, WINDOW, artifact, forecast, slid_forecast, to_service
from benchmarks.rates import Contestant, Place, Servers, measure, summary
from benchmarks.results import keep
from benchmarks.servers import CEILING, REFERENCE, SERVICE, ceiling, reference, service
from service.engine import Engine

_CONNECTIONS: Final = (16, 64)
_LOADS: Final = ((ONE_STEP, 1), (SEVERAL_STEPS, HORIZON))
_MODELS: Final = ("uni", "bi")


def main() -> None:
    arguments = _arguments()
    wrk()
    for model in _MODELS:
        if not artifact(model).is_file():
            sys.exit(f"the model {model!r} is missing: `python -m benchmarks.models` in .venv writes it")
    kinds = list(_KINDS) if arguments.kind == "all" else [arguments.kind]
    for kind in kinds:
        print(f"\n{kind}", flush=True)
        found = (_KINDS | _BESIDE_OTHERS)[kind](_place(), arguments)
        if not found:
            print("not measured: it needs more cores than this machine has", flush=True)
            continue
        # A part is kept apart, so that the document keeps the whole.
        print(f"kept in {keep(f'{kind}, {arguments.only}' if arguments.only else kind, found)}", flush=True)


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    kinds = ["all", *_KINDS, *_BESIDE_OTHERS]
    parser.add_argument(
        "kind", nargs="?", choices=kinds, default="all", help="what to measure (default: all but peers and overload)"
    )
    parser.add_argument("--seconds", type=int, default=3, help="seconds for each load in each round (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument(
        "--requests", type=int, default=100_000, help="requests that memory is watched over (default: 100000)"
    )
    parser.add_argument("--only", default="", help="only peers in whose name this occurs")
    return parser.parse_args()


def _place() -> Place:
    """A core for servers and another for wrk; none where the machine has only one or cannot pin."""
    if not hasattr(os, "sched_getaffinity") or shutil.which("taskset") is None:
        return Place(None, None)
    cores = sorted(os.sched_getaffinity(0))
    return Place(str(cores[0]), cores[1]) if len(cores) > 1 else Place(None, None)


def _rates(place: Place, arguments: Namespace) -> dict[str, Any]:
    """The service and its references, for both models, and the service's memory after it."""
    loads: dict[str, Any] = {}
    found: dict[str, Any] = {"loads": loads, "in_process": {}, "rounds": arguments.rounds, "seconds": arguments.seconds}
    for model in _MODELS:
        engine = Engine.open(artifact(model))
        with Servers(_own_servers(model, place)) as servers:
            for load, horizon in _LOADS:
                contestants = _own(engine, horizon)
                loads[f"{model}, {load}"] = _measured(servers, contestants, place, arguments)
            with servers.turn_of(SERVICE) as server:
                found.setdefault("memory", {})[model] = server.memory()
        found["in_process"][model] = inprocess.measured(model, place.server)
    return found


def _peers(place: Place, arguments: Namespace) -> dict[str, Any]:
    """The peers in turns with the service and its references; for the sliding model, Triton alone of them."""
    chosen = [peer for peer in peers() if arguments.only.lower() in peer.name.lower()]
    failed = {peer.name: fault for peer in chosen if (fault := _fault(peer))}
    chosen = [peer for peer in chosen if peer.name not in failed]
    loads: dict[str, Any] = {}
    idle: dict[str, float] = {}
    restarts: dict[str, int] = {}
    for model in _MODELS:
        engine = Engine.open(artifact(model))
        beside = chosen if model == "uni" else [peer for peer in chosen if peer.name == "Triton"]
        starts = {peer.name: partial(peer.running, model, place.server) for peer in beside}
        with Servers({**_own_servers(model, place), **starts}) as servers:
            _start(servers, beside, failed, idle)
            working = [peer for peer in beside if peer.name not in failed]
            for load, horizon in _LOADS:
                contestants = [*_own(engine, horizon), *_theirs(engine, working, load, horizon)]
                loads[f"{model}, {load}"] = _measured(servers, contestants, place, arguments)
            restarts |= servers.restarts
    return {
        "loads": loads,
        "failed": failed,
        "idle": idle,
        "restarts": restarts,
        "versions": {peer.name: versions_of(peer.environment) for peer in chosen},
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }


def _fault(peer: Peer) -> str | None:
    try:
        make_environment(peer.environment)
    except Exception as error:
        return f"could not be installed: {error}"
    return None


def _start(servers: Servers, beside: Sequence[Peer], failed: dict[str, str], idle: dict[str, float]) -> None:
    """Start the peers, and note the share of a core that each takes while nobody asks it anything."""
    for peer in beside:
        try:
            with servers.turn_of(peer.name) as server:
                idle[peer.name] = server.idle_share()
        except RuntimeError as error:
            failed[peer.name] = str(error)
            print(f"{peer.name}: {error}", flush=True)


def _own_servers(model: str, place: Place) -> dict[str, Callable[[], Any]]:
    return {
        SERVICE: partial(service, model, place.server),
        REFERENCE: partial(reference, model, place.server),
        CEILING: partial(ceiling, place.server),
    }


def _own(engine: Engine, horizon: int) -> list[Contestant]:
    question, wanted = to_service(WINDOW, horizon), forecast(engine, WINDOW, horizon)
    nothing = replace(question, read=lambda _, __: [])
    return [
        Contestant(SERVICE, SERVICE, question, wanted),
        Contestant(REFERENCE, REFERENCE, question, wanted),
        Contestant(CEILING, CEILING, nothing, None),
    ]


def _theirs(engine: Engine, chosen: Sequence[Peer], load: str, horizon: int) -> list[Contestant]:
    slid, carried = slid_forecast(engine, WINDOW, horizon), forecast(engine, WINDOW, horizon)
    return [
        Contestant(f"{peer.name}: {form.name}", peer.name, form.questions[load], carried if form.carried else slid)
        for peer in chosen
        for form in peer.forms
        if load in form.questions
    ]


def _measured(
    servers: Servers, contestants: Sequence[Contestant], place: Place, arguments: Namespace
) -> dict[str, Any]:
    found = measure(
        servers,
        contestants,
        place,
        connections=_CONNECTIONS,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        tell=partial(print, flush=True),
    )
    return {str(count): summary(rounds) for count, rounds in found.items()}


def _overload(place: Place, arguments: Namespace) -> dict[str, Any]:
    return overload.measure(place, rounds=arguments.rounds, seconds=arguments.seconds)


def _stages(place: Place, arguments: Namespace) -> dict[str, Any]:
    """The stages of a request; their sockets' part from the rate of a core that is busy all the time."""
    with _pinned(place.server):
        found = {name: asdict(one) for name, one in stages.measured().items()}
    with service("uni", place.server) as server:
        rates = [
            drive(
                server.port, to_service(WINDOW, 1), connections=16, seconds=arguments.seconds, core=place.generator
            ).rate
            for _ in range(arguments.rounds)
        ]
    whole = 1e6 / max(rates)
    found["after"] |= {"sockets": whole - found["after"]["total"], "total": whole}
    return found


@contextmanager
def _pinned(core: str | None) -> Iterator[None]:
    """Run on one core for a while: what is measured after it wants them all again."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(core)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _mixture(place: Place, arguments: Namespace) -> dict[str, Any]:
    return mixture.measure(place, rounds=arguments.rounds, seconds=arguments.seconds)


def _bulk(place: Place, arguments: Namespace) -> dict[str, Any]:
    return bulk.measure(place, rounds=arguments.rounds, seconds=arguments.seconds)


def _workers(place: Place, arguments: Namespace) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return workers.measure(place, cores, rounds=arguments.rounds, seconds=arguments.seconds) or {}


def _observation(place: Place, arguments: Namespace) -> dict[str, Any]:
    return observation.measured(
        place, rounds=arguments.rounds, seconds=arguments.seconds, tell=partial(print, flush=True)
    )


def _cache(place: Place, arguments: Namespace) -> dict[str, Any]:
    return cache.measured(place, rounds=arguments.rounds, seconds=arguments.seconds, tell=partial(print, flush=True))


def _start_time(place: Place, arguments: Namespace) -> dict[str, Any]:
    return start.measure(place, rounds=arguments.rounds)


def _memory(place: Place, arguments: Namespace) -> dict[str, Any]:
    return memory.measure(place, arguments.requests)


_KINDS: Final[dict[str, Callable[[Place, Namespace], dict[str, Any]]]] = {
    "rates": _rates,
    "stages": _stages,
    "mixture": _mixture,
    "bulk": _bulk,
    "workers": _workers,
    "observation": _observation,
    "cache": _cache,
    "start": _start_time,
    "memory": _memory,
}
_BESIDE_OTHERS: Final[dict[str, Callable[[Place, Namespace], dict[str, Any]]]] = {
    "peers": _peers,
    "overload": _overload,
}


if __name__ == "__main__":
    main()

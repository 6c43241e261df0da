"""What keeping answers costs and saves: requests a second of a service that keeps none, and of two that keep them.

All are asked the same questions, many different windows in an order that is random. One of those that keep answers has
room for a few, and so nearly never for the one that is asked for; the other has room for all of them.
"""

import http.client
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from functools import partial
from typing import Any, Final

from benchmarks.questions import HORIZON, WINDOW, artifact, forecast, to_service
from benchmarks.rates import Contestant, Place, Servers, measure, ratio, summary
from benchmarks.servers import Server, service
from service.engine import Engine

OFF: Final = "none kept"
MISSES: Final = "kept, and nearly never found"
HITS: Final = "kept, and always found"
CONNECTIONS: Final = 16

_WINDOWS: Final = 1024
_BYTES: Final[Mapping[str, int]] = {OFF: 0, MISSES: 16 * 1024, HITS: 64 * 1024 * 1024}
_LOOKUPS: Final = re.compile(r'^leadtime_cache_lookups_total\{result="(hit|miss)"\} (\S+)$', re.MULTILINE)


def measured(place: Place, *, rounds: int, seconds: int, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Ask the three in turns, for several steps.

    Returns:
        The rates and times of each, the ratio of its rate to that of the one that keeps nothing, and the share of its
        look-ups that found an answer.
    """
    windows = [[round(value + number / 8, 3) for value in WINDOW] for number in range(_WINDOWS)]
    first, *others = [to_service(window, HORIZON) for window in windows]
    wanted = forecast(Engine.open(artifact("uni")), WINDOW, HORIZON)
    contestants = [Contestant(name, name, first, wanted, others) for name in _BYTES]
    with Servers({name: partial(_service, place, most) for name, most in _BYTES.items()}) as servers:
        before = {}
        for name in (MISSES, HITS):
            with servers.turn_of(name) as server:
                for question in (first, *others):
                    server.ask(question)
                before[name] = _lookups(server)
        loads = measure(
            servers, contestants, place, connections=[CONNECTIONS], rounds=rounds, seconds=seconds, tell=tell
        )[CONNECTIONS]
        about = summary(loads)
        for one in about.values():
            one["ratio"] = ratio(one["rates"], about[OFF]["rates"])
        for name, then in before.items():
            with servers.turn_of(name) as server:
                about[name]["found"] = _share_found(then, _lookups(server))
            tell(f"{name}: {about[name]['ratio']:.3f} ×, {about[name]['found']:.1%} of the answers were found")
    return {"rounds": rounds, "seconds": seconds, "windows": _WINDOWS, "steps": HORIZON, "services": about}


def _service(place: Place, most_bytes: int) -> AbstractContextManager[Server]:
    return service("uni", place.server, settings={"LEADTIME_CACHE_BYTES": str(most_bytes)})


def _lookups(server: Server) -> dict[str, float]:
    """How often an answer was looked for, by what came of it."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return {result: float(count) for result, count in _LOOKUPS.findall(text)}


def _share_found(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    made = {result: after[result] - before.get(result, 0.0) for result in after}
    return made["hit"] / sum(made.values())

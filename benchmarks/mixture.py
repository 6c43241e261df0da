"""What long forecasts do to short ones: the latency of one-step requests among requests of many horizons.

Two loads run at once on one server. The first asks for one step; the second takes the other requests of a mix whose
horizons are log-uniform from 1 to 96. Then the second asks for one step as well, at the rate that the mix had.
Connections wait a random while between questions, as independent callers do, so that the rate is set by the callers,
not by the server.
"""

import statistics
from typing import Any, Final

from benchmarks.load import Generator, Load, drive, log_uniform
from benchmarks.questions import WINDOW, to_service
from benchmarks.rates import Place
from benchmarks.servers import service

LARGEST_HORIZON: Final = 96
CONNECTIONS: Final = 64
_SHARE_OF_ONE: Final = 0.15  # of horizons log-uniform from 1 to 96, how many are 1: log 2 / log 97
_UTILISATION: Final = (0.25, 0.5, 0.75)


def measure(place: Place, *, rounds: int, seconds: int) -> dict[str, Any]:
    """Measure at several shares of the rate that the server can just answer.

    Returns:
        The highest rate of the mix, and for each share of it the rate reached and the one-step requests' median and
        99th percentile, in ms: in the mix, and among one-step requests alone at the same rate.
    """
    horizons = log_uniform(LARGEST_HORIZON, 500)
    mix = [to_service(WINDOW, horizon) for horizon in horizons]
    others = [question for question, horizon in zip(mix, horizons, strict=True) if horizon > 1]
    ones = [to_service(WINDOW, 1)]
    shares = []
    with service("uni", place.server) as server:
        most = drive(server.port, mix, connections=CONNECTIONS, seconds=seconds, core=place.generator).rate
        for share in _UTILISATION:
            found: dict[str, list[tuple[Load, Load]]] = {"mix": [], "alone": []}
            for _ in range(rounds):
                # A connection asks every `think` ms and the time of the answer, which is small beside it.
                mixed = _together(server.port, ones, others, _think(most * share), place, seconds)
                rate = mixed[0].rate + mixed[1].rate
                found["mix"].append(mixed)
                found["alone"].append(_together(server.port, ones, ones, _think(rate), place, seconds))
            shares.append({"share": share, **{kind: _summary(pairs) for kind, pairs in found.items()}})
    return {"most": most, "connections": CONNECTIONS, "shares": shares}


def _think(rate: float) -> float:
    return CONNECTIONS / rate * 1e3


def _together(port: int, ones: Any, rest: Any, think: float, place: Place, seconds: int) -> tuple[Load, Load]:
    few = round(CONNECTIONS * _SHARE_OF_ONE)
    common: dict[str, Any] = {"seconds": seconds, "core": place.generator, "think": think}
    short = Generator(port, ones, connections=few, **common)
    other = Generator(port, rest, connections=CONNECTIONS - few, **common)
    return short.finish(), other.finish()


def _summary(pairs: list[tuple[Load, Load]]) -> dict[str, float]:
    return {
        "rate": statistics.median(short.rate + other.rate for short, other in pairs),
        "p50": statistics.median(short.p50 for short, _ in pairs),
        "p99": statistics.median(short.p99 for short, _ in pairs),
    }

"""Two workers on two cores beside one worker on one."""

import statistics
from typing import Any, Final

from benchmarks.load import Load, drive
from benchmarks.questions import HORIZON, WINDOW, to_service
from benchmarks.rates import Place
from benchmarks.servers import service

_CONNECTIONS: Final = 32


def measure(place: Place, cores: int, *, rounds: int, seconds: int) -> dict[str, Any] | None:
    """Measure both, in turns; None where the machine has one core.

    With fewer than three cores the generator takes its time from the workers. So the rate is also told per second of
    CPU time that was left for the workers: how well a second worker uses what it gets.
    """
    if cores < 2 or place.server is None:
        return None
    found: dict[str, dict[str, Any]] = {}
    spare = cores > 2
    core = 2 if spare else None
    for horizon in (1, HORIZON):
        question = to_service(WINDOW, horizon)
        loads: dict[int, list[Load]] = {1: [], 2: []}
        with service("uni", "0") as one, service("uni", "0,1", workers=2) as two:
            two.pause()
            for _ in range(rounds):
                for workers, server, other in ((1, one, two), (2, two, one)):
                    other.pause()
                    server.resume()
                    drive(server.port, question, connections=_CONNECTIONS, seconds=1, core=core)
                    # One worker leaves the other core to the generator.
                    where = core if spare or workers == 2 else place.generator
                    loads[workers].append(
                        drive(server.port, question, connections=_CONNECTIONS, seconds=seconds, core=where)
                    )
        found[str(horizon)] = _summary(loads, spare, seconds)
    return {"connections": _CONNECTIONS, "spare_core": spare, "horizons": found}


def _summary(loads: dict[int, list[Load]], spare: bool, seconds: int) -> dict[str, Any]:
    one, two = loads[1], loads[2]
    ratios = [both.rate / single.rate for single, both in zip(one, two, strict=True)]
    # CPU seconds that two cores had for the workers, of which one core has as many as the run was long.
    left = [2.0 if spare else 2.0 - both.generator_seconds / seconds for both in two]
    return {
        "one": statistics.median(load.rate for load in one),
        "two": statistics.median(load.rate for load in two),
        "ratio": statistics.median(ratios),
        "cores_left_for_two": statistics.median(left),
        "ratio_per_core_left": statistics.median(ratio / have for ratio, have in zip(ratios, left, strict=True)),
    }

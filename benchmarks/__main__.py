"""`python -m benchmarks`: requests a second of both forecast endpoints, and their ratio to a server that does nothing.

One server process on one core, wrk on another where there is one. The three loads take turns, round by round, so that
a machine that slows down slows all of them; the median round counts. Each answer is checked before it is measured.
"""

import json
import math
import os
import platform
import shutil
import statistics
import sys
from argparse import ArgumentParser
from typing import Any, Final

from benchmarks.load import Load, drive
from benchmarks.servers import bare, post, service

_HORIZON: Final = 24
_WINDOW: Final = [round(100 + 10 * math.sin(step / 4) + step % 7, 3) for step in range(30)]
_ONE_STEP: Final = json.dumps({"window": _WINDOW}).encode()
_MULTI_STEP: Final = json.dumps({"window": _WINDOW, "horizon": _HORIZON}).encode()


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=int, default=4, help="seconds for each load in each round (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--connections", type=int, default=16, help="open connections (default: 16)")
    arguments = parser.parse_args()
    wrk = shutil.which("wrk")
    if wrk is None:
        sys.exit("wrk is not installed (on Debian and Ubuntu: apt-get install wrk)")
    server_core, load_core = _cores()
    load: dict[str, Any] = {"connections": arguments.connections, "seconds": arguments.seconds, "core": load_core}

    with bare(server_core) as reference, service(server_core) as port:
        _check(port, "/forecast", _ONE_STEP, 1)
        _check(port, "/forecast/multi-step", _MULTI_STEP, _HORIZON)
        targets = {
            "one step": (port, "/forecast", _ONE_STEP),
            f"{_HORIZON} steps": (port, "/forecast/multi-step", _MULTI_STEP),
            "bare server": (reference, "/", _ONE_STEP),
        }
        for target in targets.values():
            drive(wrk, *target, **(load | {"seconds": 1}))
        rounds = [
            {name: drive(wrk, *target, **load) for name, target in targets.items()} for _ in range(arguments.rounds)
        ]
    _print(rounds, arguments.connections, len(_WINDOW), load_core is not None)


def _cores() -> tuple[int | None, int | None]:
    """A core for the server and another for wrk; none where the machine has only one or cannot pin."""
    if not hasattr(os, "sched_getaffinity") or shutil.which("taskset") is None:
        return None, None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)


def _check(port: int, path: str, body: bytes, horizon: int) -> None:
    status, answer = post(port, path, body)
    if status != 200:
        sys.exit(f"{path} answered {status}: {answer.decode(errors='replace')}")
    values = json.loads(answer)["forecasts"][0]["values"]
    if len(values) != horizon or not all(math.isfinite(value) for value in values):
        sys.exit(f"{path} answered something else than {horizon} finite numbers")


def _print(rounds: list[dict[str, Load]], connections: int, window: int, pinned: bool) -> None:
    reference = statistics.median(result["bare server"].rate for result in rounds)
    where = "server and wrk on a core each" if pinned else "server and wrk share the cores"
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}: {where}")
    print(f"one worker, {connections} connections, window {window}, the median of {len(rounds)} rounds\n")
    print(f"{'':<12} {'requests/s':>11} {'of bare':>8} {'p50 ms':>8} {'p99 ms':>8}")
    for name in rounds[0]:
        results = [result[name] for result in rounds]
        rate = statistics.median(result.rate for result in results)
        p50 = statistics.median(result.p50 for result in results)
        p99 = statistics.median(result.p99 for result in results)
        print(f"{name:<12} {rate:>11,.0f} {rate / reference:>7.1%} {p50:>8.2f} {p99:>8.2f}")


if __name__ == "__main__":
    main()

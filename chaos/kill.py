"""A worker is killed under load."""

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from chaos.checks import Options, count, least, result, within
from chaos.load import Load, percentiles
from chaos.service import Instance
from chaos.versions import QUESTIONS, Versions
from service.api.observation import REQUESTS

TITLE: Final = "A worker is killed under load"

_WORKERS: Final = 2
_SETTLED: Final = 1.0
_SECONDS: Final = 2.0


def run(options: Options) -> dict[str, Any]:
    """Kill one of several workers, over and over, while they are asked; only requests on its connections may fail."""
    whole_again: list[float] = []
    spread: list[int] = []
    owned: set[int] = set()
    late: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        versions = Versions(Path(folder))
        with (
            Instance(Path(folder), workers=_WORKERS) as instance,
            Load(instance.port, QUESTIONS, options.rate, patience=options.patience) as load,
        ):
            for number in range(options.kills):
                time.sleep(_SETTLED)
                connections = instance.connections()
                victim = instance.workers[number % _WORKERS]
                owned |= {port for port, worker in connections.items() if worker == victim}
                spread.append(len(set(connections.values())))
                begin = time.monotonic()
                os.kill(victim, signal.SIGKILL)
                instance.wait_until(lambda victim=victim: _is_whole(instance, victim), "whole")  # type: ignore[misc]
                whole_again.append(time.monotonic() - begin)
                late.append((begin, begin + _SECONDS))
            time.sleep(_SETTLED)
            answered = load.finish()
            status, text = instance.get("/metrics")
            tracebacks = instance.tracebacks
    failures = answered.failures
    foreign = [failure for failure in failures if failure.port not in owned]
    at_another_time = [one for one in failures if not any(begin <= one.at < end for begin, end in late)]
    counted = _counted(text.decode()) if status == 200 else 0.0
    wrong = versions.wrong(answered)
    return result(
        [
            count("failed requests that were not on a killed worker's connections", len(foreign)),
            count("requests that failed on them", len(failures) - len(foreign), most=len(owned)),
            count("requests that failed later than 2 s after", len(at_another_time)),
            count("wrong answers", len(wrong)),
            within("until all workers served again", max(whole_again), _SECONDS, "s"),
            within("without any answer, at most", answered.longest_gap(), _SECONDS, "s"),
            least("requests that /metrics counts, of those answered", counted, len(answered.done)),
            count("tracebacks", tracebacks),
        ],
        kills=options.kills,
        workers=_WORKERS,
        rate=options.rate,
        requests=answered.asked,
        answered=len(answered.done),
        counted=counted,
        workers_asked=min(spread),
        whole_again=whole_again,
        latency=percentiles(answered.milliseconds()),
        failures=[f"{failure.reason} ({failure.at - late[0][0]:.2f} s)" for failure in failures[:20]] + wrong[:10],
    )


def _is_whole(instance: Instance, victim: int) -> bool:
    return victim not in instance.workers and instance.is_whole()


def _counted(text: str) -> float:
    """The requests for forecasts that all workers, those that have died among them, say that they have answered."""
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return sum(
        sample.value
        for sample in samples
        if sample.name == f"{REQUESTS}_total"
        and sample.labels["route"].startswith("/forecast")
        and sample.labels["status"] == "200"
    )

"""Models come while they are asked for, and some of them are bad."""

import json
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from chaos.checks import Check, Options, count, least, result
from chaos.load import Load, percentiles
from chaos.service import Instance
from chaos.versions import FAULTS, QUESTIONS, Versions, served

TITLE: Final = "Models are replaced under load"

_BETWEEN: Final = 0.3


def run(options: Options) -> dict[str, Any]:
    """Put versions there, every fourth of them bad, under load; each is served or refused before the next comes."""
    faults = cycle(list(FAULTS)[:5])
    refused: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        versions = Versions(Path(folder))
        with (
            Instance(Path(folder)) as instance,
            Load(instance.port, QUESTIONS, options.rate, patience=options.patience) as load,
        ):
            for number in range(2, 2 + options.reloads):
                if number % 4 == 1:
                    refused.append(fault := next(faults))
                    versions.put_bad(number, fault)
                    instance.wait_until(lambda number=number: _is_rejected(instance, number), "refusing")  # type: ignore[misc]
                else:
                    versions.put(number)
                    instance.wait_until(lambda number=number: _is_served(instance, number), "up to date")  # type: ignore[misc]
                time.sleep(_BETWEEN)
            answered = load.finish()
            tracebacks = instance.tracebacks
    wrong = versions.wrong(answered)
    sound = served(versions.expected, answered)
    checks: list[Check] = [
        count("failed requests", len(answered.failures)),
        count("answers from a version that was not valid, or not its forecast", len(wrong)),
        least("versions that answered", len(sound), options.reloads + 1 - len(refused)),
        count("tracebacks", tracebacks),
    ]
    return result(
        checks,
        reloads=options.reloads,
        refused=refused,
        rate=options.rate,
        requests=answered.asked,
        latency=percentiles(answered.milliseconds()),
        failures=[failure.reason for failure in answered.failures[:10]] + wrong[:10],
    )


def _is_served(instance: Instance, number: int) -> bool:
    status, body = instance.get("/models/default")
    return status == 200 and json.loads(body)["stable"] == str(number)


def _is_rejected(instance: Instance, number: int) -> bool:
    status, body = instance.get("/models")
    return status == 200 and any(entry["place"] == f"default/{number}" for entry in json.loads(body)["rejected"])

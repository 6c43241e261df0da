"""Mutated requests, artifacts and tables."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from chaos.checks import Options, count, least, result, within
from chaos.files import opened
from chaos.inside import asked_inside
from chaos.questions import make_models
from chaos.service import Instance
from chaos.wire import asked_by_wire

TITLE: Final = "Mutated requests, artifacts and tables"

_WARM_UP: Final = 200
_OTHER_SEED: Final = 1000
_SHARE_OF_ARTIFACTS: Final = 0.75
_MEGABYTES: Final = 64.0
_DESCRIPTORS: Final = 16
_MOST_KEPT: Final = 20


def run(options: Options) -> dict[str, Any]:
    """Ask half of the requests by wire and half inside, and open the files; whatever is not promised is a failure."""
    by_wire, by_us = options.requests - options.requests // 2, options.requests // 2
    artifacts = int(options.files * _SHARE_OF_ARTIFACTS)
    with tempfile.TemporaryDirectory() as folder, Instance(make_models(Path(folder))) as instance:
        asked_by_wire(instance.port, min(_WARM_UP, by_wire), options.seed + _OTHER_SEED)
        workers, memory, descriptors = instance.workers, instance.memory(), instance.descriptors()
        wire = asked_by_wire(instance.port, by_wire, options.seed)
        answers_still = instance.is_ready()
        same = instance.workers == workers
        grown, more = instance.memory() - memory, max(0, instance.descriptors() - descriptors)
        tracebacks = instance.tracebacks
    inside, failures = asked_inside(by_us, options.seed)
    models = opened("artifacts", artifacts, options.seed)
    tables = opened("tables", options.files - artifacts, options.seed)
    return result(
        [
            least("mutated requests, over connections", sum(wire.statuses.values()) + len(wire.failures), by_wire),
            least("mutated requests, straight into the application", sum(inside.values()) + len(failures), by_us),
            count("answers that are not documented, and requests that hung", len(wire.failures) + len(failures)),
            count("tracebacks", tracebacks),
            count("workers that ended, or answered no more", int(not same) + int(not answers_still)),
            within("more resident memory after", grown, _MEGABYTES, "MB"),
            count("more open descriptors after", more, _DESCRIPTORS),
            least("mutated artifacts", models.count, artifacts),
            count("artifacts neither refused in words nor sound: crashes, hangs, tracebacks", len(models.failures)),
            least("mutated tables", tables.count, options.files - artifacts),
            count("tables neither refused in words nor sound", len(tables.failures)),
        ],
        seed=options.seed,
        statuses={"over connections": _sorted(wire.statuses), "inside": _sorted(inside)},
        files={"artifacts": dict(models.outcomes), "tables": dict(tables.outcomes)},
        failures=[*wire.failures, *failures, *models.failures, *tables.failures][:_MOST_KEPT],
    )


def _sorted(statuses: Counter[str]) -> dict[str, int]:
    return dict(sorted(statuses.items()))

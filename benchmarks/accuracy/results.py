"""What the runs found, kept as one JSON file a table beside the code, from which `docs/accuracy.md` is written."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.accuracy.protocols import Measure
from benchmarks.accuracy.runs import Scored
from benchmarks.accuracy.scores import Figures
from benchmarks.results import machine
from service.artifact import Metadata
from training.pipeline import library_versions

RESULTS: Final = Path(__file__).parent / "results"
COVERAGE: Final = RESULTS / "coverage"
OURS: Final = "Leadtime"
OWN_ONLY: Final = ", own"
"""Behind a table's name where a model's own errors were left out: intervals rest on windows' own pasts alone."""
_MACHINE: Final = ("processor", "cores", "python", "commit")


def keep(table: str, key: str, name: str, scored: Sequence[Scored], seconds: Sequence[float], folder: Path) -> Path:
    """Write what the models of one row scored, one model a seed, over what an earlier run of that row found."""
    held = kept(table, folder) or {"rows": {}}
    found = machine()
    held["rows"][key] = {
        "name": name,
        "figures": [one.figures for one in scored],
        "seeds": [seed_of(one.metadata) for one in scored],
        "seconds": [round(one) for one in seconds],
        "size": max(one.size for one in scored),
        "digests": [one.digest for one in scored],
        "network": scored[0].metadata.training.configuration.get("network"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": {part: found[part] for part in _MACHINE},
        "libraries": library_versions(),
    }
    held["references"] = scored[0].references
    path = folder / f"{table}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(held, indent=1) + "\n")
    return path


def kept(table: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """What is known of a table; None where nothing is."""
    path = folder / f"{table}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def mean_of(figures: Sequence[Mapping[Measure, float]]) -> Figures:
    """The mean of each figure over seeds."""
    return {name: sum(one[name] for one in figures) / len(figures) for name in figures[0]}


def seed_of(metadata: Metadata) -> int | None:
    """The seed that a model was fitted from, where it says so."""
    seed = metadata.training.configuration.get("seed")
    return seed if isinstance(seed, int) else None

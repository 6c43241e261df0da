"""What a run of chaos found, kept as JSON in `chaos/results`."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.questions import ROOT
from benchmarks.results import machine

RESULTS: Final = ROOT / "chaos" / "results"


def keep(kind: str, found: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write what a kind found, with the machine and the versions that it ran on."""
    path = folder / f"{kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine(), "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    path.write_text(json.dumps({**about, **found}, indent=1) + "\n", encoding="utf-8")
    return path


def kept(kind: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """What the last run of a kind found; None where there was none."""
    path = folder / f"{kind}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

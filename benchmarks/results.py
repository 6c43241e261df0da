"""What a run of the benchmarks found, kept as JSON in `benchmarks/results`."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.questions import ROOT

RESULTS: Final = ROOT / "benchmarks" / "results"
_LIBRARIES: Final = ("onnxruntime", "numpy", "fastapi", "uvicorn", "uvloop", "httptools", "orjson", "pydantic")


def keep(name: str, found: Mapping[str, Any]) -> Path:
    """Write what a run found, with the machine and the versions that it ran on."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine(), "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    path.write_text(json.dumps({**about, **found}, indent=1) + "\n")
    return path


def kept(name: str) -> dict[str, Any] | None:
    """What the last run found; None where there was none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def machine() -> dict[str, Any]:
    """The machine, and the versions of what runs on it."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "wrk": _first_line(["wrk", "-v"]),
        "commit": _commit(),
        "load_before": os.getloadavg()[0],
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    """The commit that is checked out, and whether the service differs from it; results themselves may."""
    git = ["git", "-C", str(ROOT)]
    commit = _first_line([*git, "describe", "--always", "--abbrev=10"])
    return commit if _first_line([*git, "status", "--porcelain", "service"]) == "unknown" else f"{commit}-dirty"


def _first_line(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # it is not installed
        return "unknown"
    return (done.stdout or done.stderr).strip().splitlines()[0] if done.stdout or done.stderr else "unknown"

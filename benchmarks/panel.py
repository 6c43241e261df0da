"""`python -m benchmarks.panel`: how much memory a large panel takes to be read, fitted on and scored.

Panels of series of one length are written as CSV files in long form and given to `python -m training fit` for a short
epoch, each in a process of its own, whose largest resident memory the system tells. It runs in `.venv`, which has
TensorFlow.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.questions import ROOT
from benchmarks.results import keep

LENGTH: Final = 1000
"""Steps of each series."""

_BLOCK: Final = 500  # series that are written at a time
_CONFIGURATION: Final = """
[data]
target = ["value"]
series = "series"
season = 24
horizon = 24

[network]
layers = [32]
context_length = 96

[fitting]
epochs = 1
steps_per_epoch = 50
"""


def measure(sizes: list[int]) -> dict[str, Any]:
    """The rows, bytes of the file, seconds and megabytes at most of each panel of so many series."""
    panels = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            table = write_panel(Path(folder) / "panel.csv", size)
            seconds, megabytes = fit(table, Path(folder))
            told = {"series": size, "rows": size * LENGTH, "bytes": table.stat().st_size}
            panels.append({**told, "seconds": seconds, "megabytes": megabytes})
        print(f"{size:,} series, {size * LENGTH:,} rows: {megabytes:,.0f} MB, {seconds:,.0f} s", flush=True)
    return {"panels": panels, "length": LENGTH}


def write_panel(path: Path, series: int) -> Path:
    """Write series of a season of 24 and noise, in long form, some at a time."""
    rng = np.random.default_rng(0)
    season = np.sin(np.arange(LENGTH) * 2 * np.pi / 24)
    for first in range(0, series, _BLOCK):
        count = min(_BLOCK, series - first)
        sizes = rng.lognormal(4, 1, (count, 1))
        values = sizes * (3 + season + 0.2 * rng.standard_normal((count, LENGTH)))
        names = np.repeat([f"s{number}" for number in range(first, first + count)], LENGTH)
        frame = pd.DataFrame({"series": names, "value": values.ravel().round(3)})
        frame.to_csv(path, index=False, header=first == 0, mode="w" if first == 0 else "a")
    return path


def fit(table: Path, folder: Path) -> tuple[float, float]:
    """Fit on a table; the seconds, and the largest resident memory in megabytes."""
    (folder / "run.toml").write_text(_CONFIGURATION)
    command = [sys.executable, "-m", "training", "fit", "--data", str(table), "--config", str(folder / "run.toml")]
    begin = time.monotonic()
    process = subprocess.Popen([*command, "--output", str(folder / "models")], cwd=ROOT, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"fitting on {table.name} failed with exit code {process.returncode}")
    return time.monotonic() - begin, _megabytes(usage)


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.panel", description=__doc__)
    parser.add_argument("--series", type=int, nargs="+", default=[1000, 10_000], help="of each panel (1000 10000)")
    print(f"kept in {keep('panel', measure(parser.parse_args().series))}")


if __name__ == "__main__":
    main()

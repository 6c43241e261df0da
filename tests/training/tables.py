"""Small tables that tests write: hourly values with a daily shape, as a frame or as a file."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd


def values(rows: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """(rows,) values with a season of 24 and noise, rounded so that they are equal after a CSV."""
    noise = np.random.default_rng(seed).normal(0, 1, rows)
    return np.round(20 + 5 * np.sin(2 * np.pi * np.arange(rows) / 24) + noise, 3)


def hourly(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Columns time and load."""
    return pd.DataFrame({"time": pd.date_range("2024-01-01", periods=rows, freq="h"), "load": values(rows, seed)})


def long_form(rows: int = 600, series: int = 3) -> pd.DataFrame:
    """Columns site, time and load, one series after another."""
    frames = [hourly(rows, seed).assign(site=f"site-{seed}") for seed in range(series)]
    return pd.concat(frames, ignore_index=True)[["site", "time", "load"]]


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Write a CSV file and return its path."""
    frame.to_csv(path, index=False)
    return path

"""Series on a regular grid of steps, checked, and their split by time."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.config import Config


@dataclass(frozen=True)
class Series:
    """One series without gaps; `values` is (time, features), `times` the timestamps of its steps in UTC or local time."""

    name: str
    values: npt.NDArray[np.float64]
    times: pd.DatetimeIndex | None


@dataclass(frozen=True)
class Panel:
    """Series that one model is fitted on: the same features, spacing and season."""

    series: tuple[Series, ...]
    features: tuple[str, ...]
    frequency: str | None
    season: int | None
    notes: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Boundary:
    """Where the parts of one series meet: train [0, train_end), validation [train_end, validation_end), test the rest."""

    train_end: int
    validation_end: int


@dataclass(frozen=True)
class Split:
    """The boundaries of each series of a panel, in the panel's order."""

    boundaries: tuple[Boundary, ...]


def horizon(panel: Panel, config: Config) -> int:
    """The lead times scored: as configured, else one season, else 24."""
    return config.data.horizon or panel.season or 24

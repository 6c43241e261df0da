"""Series on a regular grid of steps, and the panel that one model is fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from service.calendar import CalendarField

NAMED: Final = 5
"""Series or columns listed in a message."""


@dataclass(frozen=True, eq=False)
class Series:
    """One series without gaps: `values` (time, features) and the timestamps of its steps, where it has any.

    `known` (time, known) holds what is known of each step beforehand, as the artifact contract orders it; None where
    nothing is.
    """

    name: str
    values: npt.NDArray[np.float64]
    times: pd.DatetimeIndex | None
    known: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Panel:
    """Series that one model is fitted on: the same features, spacing and season.

    `notes` says in sentences what was taken, inferred and filled; `digest` is that of names, times and values. What is
    known of each step beforehand is of `calendar` and then of `exogenous`.
    """

    series: tuple[Series, ...]
    features: tuple[str, ...]
    frequency: str | None
    season: int | None
    notes: tuple[str, ...]
    digest: str
    calendar: tuple[CalendarField, ...] = ()
    exogenous: tuple[str, ...] = ()


def known_in(parts: Sequence[tuple[Series, slice]]) -> npt.NDArray[np.float32]:
    """What is known of the steps of parts of series, (time, known), one part after another."""
    found = [one.known[steps] for one, steps in parts if one.known is not None]
    assert len(found) == len(parts), "a panel that was read for a model holds what the model takes"
    return np.concatenate(found)


def listed(names: Sequence[str]) -> str:
    """Some names for a message, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(repr(name) for name in names[:NAMED]) + more

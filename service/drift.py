"""Drift: how many of the windows that a model is asked about leave the range of what it was fitted on."""

from typing import Final

import numpy as np
import numpy.typing as npt

from service.artifact import Range
from service.metrics import Cell

WINDOWS: Final = "leadtime_model_windows"
WINDOWS_OUTSIDE: Final = "leadtime_model_windows_outside_training_range"


class Drift:
    """Counts the windows of one model, and those of them with a value outside the range seen in training."""

    def __init__(self, ranges: tuple[Range, ...], windows: Cell, outside: Cell) -> None:
        """Count in two cells by the range of each feature."""
        # The next 32-bit floats outwards, for windows are of such, and the ends themselves were seen.
        self._low = np.nextafter(np.array([one.low for one in ranges], np.float32), np.float32(-np.inf))
        self._high = np.nextafter(np.array([one.high for one in ranges], np.float32), np.float32(np.inf))
        self._is_single = len(ranges) == 1
        self._windows = windows
        self._outside = outside

    def look(self, windows: npt.NDArray[np.float32]) -> None:
        """Count windows, (windows, time, features). Many are looked at as one, and each only where one leaves it."""
        self._windows.add(len(windows))
        axis = None if self._is_single else (0, 1)
        # The reductions themselves: around them, of so few numbers, there would be as much again.
        low, high = np.minimum.reduce(windows, axis=axis), np.maximum.reduce(windows, axis=axis)
        if self._is_single:
            leaves = low < self._low[0] or high > self._high[0]
        else:
            leaves = (low < self._low).any() or (high > self._high).any()
        if leaves:
            outside = (windows < self._low) | (windows > self._high)
            self._outside.add(float(np.count_nonzero(outside.any(axis=(1, 2)))))

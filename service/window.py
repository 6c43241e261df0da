"""The window: the array of past observations from which a forecast sets out, and how it moves on.

The rules that the engine and the scheduler share: of a long window the end counts, and a window that is slid takes each
forecast as its next observation.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]


Steps = TypeVar("Steps", Values, list[float] | list[list[float]])


def end_of(window: Steps, context_length: int) -> Steps:
    """Return the last `context_length` steps of a window, time on axis 0; a shorter one is returned whole."""
    return window[-context_length:]


def slide(values: Values, forecast: Values, context_length: int) -> Values:
    """Append each row's forecast to its window, forgetting the oldest step where the context is full.

    `values` is (batch, time, features) and `forecast` (batch, features); the answer is a new array of
    (batch, min(time + 1, context_length), features).
    """
    rows, time, features = values.shape
    length = min(time + 1, context_length)
    moved = np.empty((rows, length, features), np.float32)
    moved[:, :-1] = values[:, time + 1 - length :]
    moved[:, -1] = forecast
    return moved

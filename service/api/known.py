"""What is known beforehand of a request's steps: their calendar, and the exogenous columns of past and future."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from service.api.futures import futures_for
from service.api.origins import calendars_for
from service.api.windows import Windows
from service.artifact import Metadata
from service.schemas import ForecastRequest
from service.window import Values

# From so many windows on, some milliseconds of work, what is known of them is put together on a thread.
_WORTH_A_THREAD: Final = 1_000


class Told(Protocol):
    """What has the futures of a request that does not hold them itself."""

    def futures_for(self, request: ForecastRequest, metadata: Metadata, horizon: int) -> list[Values]:
        """The future of each window's exogenous columns, each (horizon, exogenous)."""


async def with_known(
    windows: Windows, request: ForecastRequest, told: Told | None, metadata: Metadata, horizon: int
) -> Windows:
    """The windows of a request without the exogenous columns in their rows, and with what is known.

    `told` has the futures where the request came as a stream, or was read in another process. Whether there is an
    origin for each window has been looked at.

    Raises:
        InvalidRequest: a future or an origin is missing, not such as the model needs, or sent to one that takes none.
    """
    futures = futures_for(request, metadata, horizon) if told is None else told.futures_for(request, metadata, horizon)
    if not metadata.known:
        return windows
    calendars: Sequence[Values] = ()
    if metadata.calendar:
        calendars = await calendars_for(request, [len(array) for array in windows.arrays], horizon, metadata)
    if len(windows.arrays) < _WORTH_A_THREAD:
        return _together(windows, futures, calendars, len(metadata.features))
    return await asyncio.to_thread(_together, windows, futures, calendars, len(metadata.features))


def _together(windows: Windows, futures: Sequence[Values], calendars: Sequence[Values], features: int) -> Windows:
    """The windows' features, and beside them the calendar and then the columns of the step after each."""
    arrays = [array[:, :features] for array in windows.arrays]
    if not len(futures[0][0]):
        return windows._replace(arrays=arrays, known=list(calendars))
    known = [
        np.concatenate((array[1:, features:], future)) for array, future in zip(windows.arrays, futures, strict=True)
    ]
    if calendars:
        known = [np.concatenate(both, axis=1) for both in zip(calendars, known, strict=True)]
    return windows._replace(arrays=arrays, known=known)

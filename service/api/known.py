"""What is known beforehand of a request's steps: their calendar, and the exogenous columns of past and future."""

import numpy as np

from service.api.arrow import Table
from service.api.futures import futures_for
from service.api.origins import calendars_for
from service.api.windows import Windows
from service.artifact import Metadata
from service.schemas import ForecastRequest
from service.window import Values


async def with_known(
    windows: Windows, request: ForecastRequest, table: Table | None, metadata: Metadata, horizon: int
) -> Windows:
    """The windows of a request without the exogenous columns in their rows, and with what is known.

    `table` has the futures where the request came as a stream. Whether there is an origin for each window has been
    looked at.

    Raises:
        InvalidRequest: a future or an origin is missing, not such as the model needs, or sent to one that takes none.
    """
    futures = (
        futures_for(request, metadata, horizon) if table is None else table.futures_for(request, metadata, horizon)
    )
    if not metadata.known:
        return windows
    features = len(metadata.features)
    told = [
        np.concatenate((array[1:, features:], future)) for array, future in zip(windows.arrays, futures, strict=True)
    ]
    if metadata.calendar:
        lengths = [len(array) for array in windows.arrays]
        calendars = await calendars_for(request, lengths, horizon, metadata)
        told = [_beside(calendar, columns) for calendar, columns in zip(calendars, told, strict=True)]
    return windows._replace(arrays=[array[:, :features] for array in windows.arrays], known=told)


def _beside(calendar: Values, columns: Values) -> Values:
    return np.concatenate((calendar, columns), axis=1) if columns.shape[1] else calendar

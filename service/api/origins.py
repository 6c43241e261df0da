"""The timestamps of a request's forecasts, from its origins and frequency."""

import asyncio
from collections.abc import Sequence
from typing import Final

from service.errors import Fault, InvalidRequest
from service.schemas import ForecastRequest
from service.timestamps import Frequency, TimestampError, forecast_timestamps, parse_origin

# From so many timestamps on, some milliseconds of work, they are made on a thread.
_WORTH_A_THREAD: Final = 5_000


async def timestamps_for(
    request: ForecastRequest, windows: int, horizon: int, own_frequency: str | None
) -> list[list[str]] | None:
    """The timestamps of each window's forecast, (windows, horizon); None where no origin was sent.

    Raises:
        InvalidRequest: an origin cannot be used, there is not one for each window, or the frequency is missing.
    """
    if request.origin is None:
        if request.frequency is not None:
            raise _fault("/frequency", "spaces the timestamps after an origin: send origin too, or leave frequency out")
        return None
    text = request.frequency or own_frequency
    if text is None:
        raise _fault("/frequency", "is required with origin, for this model has none of its own: send h, D, M or such")
    frequency = Frequency.parse(text)
    if isinstance(request.origin, str):
        return [_spaced("/origin", request.origin, frequency, horizon)] * windows
    if request.window is not None:
        raise _fault("/origin", "must be one text, for there is one window")
    if len(request.origin) != windows:
        raise _fault("/origin", f"has length {len(request.origin)}, but there are {windows} windows: send one for each")
    if windows * horizon < _WORTH_A_THREAD:
        return _each(request.origin, frequency, horizon)
    return await asyncio.to_thread(_each, request.origin, frequency, horizon)


def _each(origins: Sequence[str], frequency: Frequency, horizon: int) -> list[list[str]]:
    made: dict[str, list[str]] = {}
    for index, origin in enumerate(origins):
        if origin not in made:
            made[origin] = _spaced(f"/origin/{index}", origin, frequency, horizon)
    return [made[origin] for origin in origins]


def _spaced(pointer: str, origin: str, frequency: Frequency, horizon: int) -> list[str]:
    try:
        return forecast_timestamps(parse_origin(origin), frequency, horizon)
    except TimestampError as error:
        raise _fault(pointer, str(error)) from None


def _fault(pointer: str, message: str) -> InvalidRequest:
    return InvalidRequest([Fault(pointer, message)])

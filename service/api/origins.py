"""The times of a request's steps, from its origins and frequency: timestamps, and what the calendar says of them."""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from service.artifact import Metadata
from service.calendar import CalendarField, calendar_of
from service.errors import Fault, InvalidRequest
from service.schemas import ForecastRequest
from service.timestamps import Frequency, TimestampError, forecast_timestamps, parse_origin, wall_clock
from service.window import Values

# From so many timestamps on, some milliseconds of work, they are made on a thread.
_WORTH_A_THREAD: Final = 5_000
# Calendars from so many on are made on a thread; each takes a tenth of a millisecond.
_CALENDARS_WORTH_A_THREAD: Final = 20
# Calendars that are kept, of a few kilobytes: those of windows that end together, and are forecast again and again.
_CALENDARS_KEPT: Final = 256


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


async def calendars_for(
    request: ForecastRequest, lengths: Sequence[int], horizon: int, metadata: Metadata
) -> list[Values]:
    """What the calendar says of the step after each of a window's, and so on: each (length + horizon - 1, fields).

    `lengths` are those of the windows; whether there is an origin for each has been looked at.

    Raises:
        InvalidRequest: there is no origin, a step lies outside the calendar, or the frequency is not the model's own.
    """
    if request.origin is None:
        raise _fault(
            "/origin",
            "is required, for this model reads the calendar: send when the window's last observation was made, such as "
            "2024-03-30T12:00",
        )
    if request.frequency not in (None, metadata.frequency):
        raise _fault(
            "/frequency",
            f"must be {metadata.frequency}, for this model reads the calendar of such steps; or leave it out",
        )
    if isinstance(request.origin, str) or len(lengths) < _CALENDARS_WORTH_A_THREAD:
        return _calendars(request.origin, lengths, horizon, metadata)
    return await asyncio.to_thread(_calendars, request.origin, lengths, horizon, metadata)


def _calendars(origin: str | list[str], lengths: Sequence[int], horizon: int, metadata: Metadata) -> list[Values]:
    assert metadata.frequency is not None, "a model that reads the calendar has one"
    longest = max(lengths)
    if isinstance(origin, str):
        whole = _calendar("/origin", origin, metadata.frequency, longest, horizon, metadata.calendar)
        return [whole[longest - length :] for length in lengths]
    return [
        _calendar(f"/origin/{index}", one, metadata.frequency, length, horizon, metadata.calendar)
        for index, (one, length) in enumerate(zip(origin, lengths, strict=True))
    ]


def _calendar(
    pointer: str, origin: str, frequency: str, length: int, horizon: int, fields: tuple[CalendarField, ...]
) -> Values:
    try:
        return _read_calendar(origin, frequency, length, horizon, fields)
    except TimestampError as error:
        raise _fault(pointer, str(error)) from None


@lru_cache(maxsize=_CALENDARS_KEPT)
def _read_calendar(origin: str, frequency: str, length: int, horizon: int, fields: tuple[CalendarField, ...]) -> Values:
    """The numbers of the step after each of the last `length` ones up to the origin, and so on to the horizon."""
    found = calendar_of(wall_clock(parse_origin(origin), Frequency.parse(frequency), 2 - length, horizon), fields)
    found.flags.writeable = False
    return found


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

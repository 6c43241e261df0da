"""Timestamps of forecast steps, from an ISO 8601 origin and a frequency.

Calendar units (D, W, M, Q, Y) move the date and keep the clock on the wall, through daylight saving where the origin
names a zone; s, min and h are exact elapsed time. Steps count from the origin, never from the step before, so that a
short month shortens no later one: 30 January, 29 February, 30 March. An origin on the last day of its month stays on
last days. Timestamps come back in the form of the origin. The times that models read the calendar of are the same,
before the origin as well as after it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from whenever import (
    Date,
    Instant,
    InvalidOffsetError,
    OffsetDateTime,
    PlainDateTime,
    RepeatedTime,
    SkippedTime,
    Time,
    TimeZoneNotFoundError,
    ZonedDateTime,
)

from service.artifact import FREQUENCY_PATTERN
from service.calendar import Moments

LONGEST_ORIGIN: Final = 100

_EXAMPLES: Final = "2024-03-30, 2024-03-30T12:00, 2024-03-30T12:00:00Z or 2024-03-30T12:00:00+01:00[Europe/Berlin]"
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600}
_DAYS: Final = {"D": 1, "W": 7}
_MONTHS: Final = {"M": 1, "Q": 3, "Y": 12}
_BEYOND: Final = "the timestamps would pass the year 9999: send an earlier origin, a shorter horizon or frequency"
_OUTSIDE: Final = "the steps would leave the years 1 to 9999: send another origin, a shorter window or horizon"
_EARLIEST: Final = np.datetime64("0001-01-02", "s")  # a day within, for any offset from UTC
_LATEST: Final = np.datetime64("9999-12-30", "s")
_SECONDS_OF_A_DAY: Final = 86_400
# Seconds of one step at most.
_LONGEST: Final = (
    _SECONDS
    | {unit: days * _SECONDS_OF_A_DAY for unit, days in _DAYS.items()}
    | {unit: months * 31 * _SECONDS_OF_A_DAY for unit, months in _MONTHS.items()}
)


class TimestampError(ValueError):
    """An origin or frequency cannot be used; the message says what to send, and repeats no value."""


@dataclass(frozen=True, slots=True)
class Frequency:
    """A spacing of steps: `count` times a unit of s, min, h, D, W, M, Q or Y."""

    count: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `text`, such as `h`, `15min` or `D`.

        Raises:
            TimestampError: it is no frequency.
        """
        match = re.fullmatch(FREQUENCY_PATTERN, text)
        if match is None:
            raise TimestampError("must be a frequency such as h, 15min, D, W, M, Q or Y")
        return cls(int(match[1] or 1), match[2])


class Origin(Protocol):
    """The timestamp of a window's last observation."""

    def plus_seconds(self, seconds: int) -> str:
        """The text of the moment `seconds` of elapsed time after the origin."""

    def on(self, date: Date) -> str:
        """The text of the origin's clock time on `date`."""

    def clock_after(self, seconds: npt.NDArray[np.int64]) -> Moments:
        """What the clock on the wall shows after so many seconds of elapsed time, in order and perhaps below zero."""

    @property
    def clock(self) -> np.datetime64:
        """What the clock on the wall shows, to the second."""

    @property
    def date(self) -> Date:
        """The origin's own date, on its own calendar."""


def parse_origin(text: str) -> Origin:
    """Read an ISO 8601 date, local time, time with an offset or Z, or time with a zone in brackets (RFC 9557).

    Raises:
        TimestampError: `text` is none of them, or names a time that its zone never had.
    """
    if len(text) > LONGEST_ORIGIN:
        raise TimestampError(f"must have at most {LONGEST_ORIGIN} characters")
    for kind in (_parse_zoned,) if text.endswith("]") else (_parse_offset, _parse_plain, _parse_date):
        try:
            return kind(text)
        except TimeZoneNotFoundError:
            raise TimestampError("names a time zone that is not in the time zone database") from None
        except InvalidOffsetError:
            raise TimestampError("has an offset that its time zone does not have at that time") from None
        except RepeatedTime:
            raise TimestampError(
                "is a time that the clock shows twice on that day: add its offset, such as +01:00, before the zone"
            ) from None
        except SkippedTime:
            raise TimestampError("is a time that the clock skips on that day") from None
        except ValueError:
            continue
    raise TimestampError(f"must be an ISO 8601 date or time, such as {_EXAMPLES}")


def forecast_timestamps(origin: Origin, frequency: Frequency, horizon: int) -> list[str]:
    """The timestamps of `horizon` steps after `origin`, in order.

    Raises:
        TimestampError: they would pass the year 9999.
    """
    step = _stepper(origin, frequency)
    try:
        return [step(lead_time * frequency.count) for lead_time in range(1, horizon + 1)]
    except (ValueError, OverflowError):
        raise TimestampError(_BEYOND) from None


def wall_clock(origin: Origin, frequency: Frequency, first: int, last: int) -> Moments:
    """What the clock on the wall shows at steps `first` to `last`, which are counted from the origin, itself step 0.

    Where the origin names a zone, and steps are days or longer, a time that its clock skips one day counts as shown.

    Raises:
        TimestampError: a step lies outside the years 1 to 9999.
    """
    steps = np.arange(first, last + 1, dtype=np.int64) * frequency.count
    ends = origin.clock + steps[[0, -1]] * np.timedelta64(_LONGEST[frequency.unit], "s")
    if ends[0] < _EARLIEST or ends[1] > _LATEST:
        raise TimestampError(_OUTSIDE)
    if frequency.unit in _SECONDS:
        return origin.clock_after(steps * _SECONDS[frequency.unit])
    day = origin.clock.astype("datetime64[D]")
    time = origin.clock - day
    if frequency.unit in _DAYS:
        return np.asarray(day + steps * _DAYS[frequency.unit] + time, "datetime64[s]")
    month = day.astype("datetime64[M]")
    months = month + steps * _MONTHS[frequency.unit]
    lengths = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64)
    at_end = (day + 1).astype("datetime64[M]") != month
    days = lengths - 1 if at_end else np.minimum((day - month).astype(np.int64), lengths - 1)
    return np.asarray(months.astype("datetime64[D]") + days + time, "datetime64[s]")


def _stepper(origin: Origin, frequency: Frequency) -> Callable[[int], str]:
    """How to reach the text of the moment some units after the origin."""
    unit = frequency.unit
    if unit in _SECONDS:
        seconds = _SECONDS[unit]
        return lambda units: origin.plus_seconds(units * seconds)
    date = origin.date
    if unit in _DAYS:
        days = _DAYS[unit]
        return lambda units: origin.on(date.add(days=units * days))
    months = _MONTHS[unit]
    if date.day == date.days_in_month():
        return lambda units: origin.on(_month_end(date.add(months=units * months)))
    return lambda units: origin.on(date.add(months=units * months))


def _month_end(date: Date) -> Date:
    return date.replace(day=date.days_in_month())


@dataclass(frozen=True, slots=True)
class _DateOrigin:
    date: Date

    @property
    def clock(self) -> np.datetime64:
        return _clock(self.date.at(Time(0)))

    def clock_after(self, seconds: npt.NDArray[np.int64]) -> Moments:
        return self.clock + seconds.astype("timedelta64[s]")

    def plus_seconds(self, seconds: int) -> str:
        # A part of a day cannot be said by a date: from here on the day begins at midnight.
        return self.date.at(Time(0)).add(seconds=seconds, naive_arithmetic_ok=True).format_iso()

    def on(self, date: Date) -> str:
        return date.format_iso()


@dataclass(frozen=True, slots=True)
class _PlainOrigin:
    moment: PlainDateTime

    @property
    def date(self) -> Date:
        return self.moment.date()

    @property
    def clock(self) -> np.datetime64:
        return _clock(self.moment)

    def clock_after(self, seconds: npt.NDArray[np.int64]) -> Moments:
        return self.clock + seconds.astype("timedelta64[s]")

    def plus_seconds(self, seconds: int) -> str:
        return self.moment.add(seconds=seconds, naive_arithmetic_ok=True).format_iso()

    def on(self, date: Date) -> str:
        return self.moment.replace_date(date).format_iso()


@dataclass(frozen=True, slots=True)
class _OffsetOrigin:
    moment: OffsetDateTime
    written_z: bool

    @property
    def date(self) -> Date:
        return self.moment.date()

    @property
    def clock(self) -> np.datetime64:
        return _clock(self.moment.to_plain())

    def clock_after(self, seconds: npt.NDArray[np.int64]) -> Moments:
        return self.clock + seconds.astype("timedelta64[s]")

    def plus_seconds(self, seconds: int) -> str:
        return self._text(self.moment.add(seconds=seconds, stale_offset_ok=True))

    def on(self, date: Date) -> str:
        return self._text(self.moment.replace_date(date, stale_offset_ok=True))

    def _text(self, moment: OffsetDateTime) -> str:
        text = moment.format_iso()
        return text.removesuffix("+00:00") + "Z" if self.written_z else text


@dataclass(frozen=True, slots=True)
class _ZonedOrigin:
    moment: ZonedDateTime

    @property
    def date(self) -> Date:
        return self.moment.date()

    @property
    def clock(self) -> np.datetime64:
        return _clock(self.moment.to_plain())

    def clock_after(self, seconds: npt.NDArray[np.int64]) -> Moments:
        assert self.moment.tz_id is not None, "it was read from the name of a zone"
        stamps = seconds + self.moment.timestamp()
        return np.add(stamps, _offsets(self.moment.tz_id, stamps)).astype("datetime64[s]")

    def plus_seconds(self, seconds: int) -> str:
        return self.moment.add(seconds=seconds).format_iso()

    def on(self, date: Date) -> str:
        # A time that the clock skips is read on the old offset, which is how clocks on walls are set: 02:30 -> 03:30.
        return self.moment.replace_date(date, disambiguation="compatible").format_iso()


def _clock(moment: PlainDateTime) -> np.datetime64:
    return np.datetime64(moment.replace(nanosecond=0).format_iso(), "s")


def _offsets(zone: str, stamps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A zone's offsets from UTC, in seconds, at ascending seconds since 1970.

    They are looked up about once a day, and between two days at each step only where the clock was set between them.
    """

    def offset(place: int) -> int:
        return int(Instant.from_timestamp(int(stamps[place])).to_tz(zone).offset.total("seconds"))

    apart = int(stamps[1] - stamps[0]) if len(stamps) > 1 else _SECONDS_OF_A_DAY
    places = list(range(0, len(stamps), max(1, _SECONDS_OF_A_DAY // apart)))
    if places[-1] != len(stamps) - 1:
        places.append(len(stamps) - 1)
    known = [offset(place) for place in places]
    found = np.empty(len(stamps), np.int64)
    found[-1] = known[-1]
    for begin, end, before, after in zip(places, places[1:], known, known[1:], strict=False):
        found[begin:end] = before if before == after else [offset(place) for place in range(begin, end)]
    return found


def _parse_zoned(text: str) -> Origin:
    return _ZonedOrigin(ZonedDateTime.parse_iso(text, disambiguation="raise"))


def _parse_offset(text: str) -> Origin:
    return _OffsetOrigin(OffsetDateTime.parse_iso(text), written_z=text[-1:] in ("Z", "z"))


def _parse_plain(text: str) -> Origin:
    return _PlainOrigin(PlainDateTime.parse_iso(text))


def _parse_date(text: str) -> Origin:
    return _DateOrigin(Date.parse_iso(text))

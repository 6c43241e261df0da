"""Timestamps of forecast steps, from an ISO 8601 origin and a frequency.

Calendar units (D, W, M, Q, Y) move the date and keep the clock on the wall, through daylight saving where the origin
names a zone; s, min and h are exact elapsed time. Steps count from the origin, never from the step before, so that a
short month shortens no later one: 30 January, 29 February, 30 March. An origin on the last day of its month stays on
last days. Timestamps come back in the form of the origin.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, Self

from whenever import (
    Date,
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

LONGEST_ORIGIN: Final = 100

_EXAMPLES: Final = "2024-03-30, 2024-03-30T12:00, 2024-03-30T12:00:00Z or 2024-03-30T12:00:00+01:00[Europe/Berlin]"
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600}
_DAYS: Final = {"D": 1, "W": 7}
_MONTHS: Final = {"M": 1, "Q": 3, "Y": 12}
_BEYOND: Final = "the timestamps would pass the year 9999: send an earlier origin, a shorter horizon or frequency"


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

    def plus_seconds(self, seconds: int) -> str:
        return self.moment.add(seconds=seconds).format_iso()

    def on(self, date: Date) -> str:
        # A time that the clock skips is read on the old offset, which is how clocks on walls are set: 02:30 -> 03:30.
        return self.moment.replace_date(date, disambiguation="compatible").format_iso()


def _parse_zoned(text: str) -> Origin:
    return _ZonedOrigin(ZonedDateTime.parse_iso(text, disambiguation="raise"))


def _parse_offset(text: str) -> Origin:
    return _OffsetOrigin(OffsetDateTime.parse_iso(text), written_z=text[-1:] in ("Z", "z"))


def _parse_plain(text: str) -> Origin:
    return _PlainOrigin(PlainDateTime.parse_iso(text))


def _parse_date(text: str) -> Origin:
    return _DateOrigin(Date.parse_iso(text))

"""The calendar: what clock and date say of a step, as numbers that a network reads.

    hour          hours since midnight, with their fraction: 13.5 at half past one
    weekday       0 for Monday … 6 for Sunday
    day_of_month  1 … 31
    month         1 … 12
    day_of_year   1 … 366, counted as in a leap year, so that a date has one number in all years: 1 March is 61

They are those of the clock on the wall. Training and service take them from here, so that both mean the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

CalendarField = Literal["hour", "weekday", "day_of_month", "month", "day_of_year"]

Moments = npt.NDArray[np.datetime64]
"""Times that a clock on the wall shows, to the second."""

_Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]

_MONDAY: Final = 3  # 1 January 1970 was a Thursday
_DAYS_BEFORE_MONTH: Final = np.cumsum([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30])


def calendar_of(moments: Moments, fields: Sequence[CalendarField]) -> npt.NDArray[np.float32]:
    """The numbers of each moment: (moments, fields)."""
    moments = moments.astype("datetime64[s]")
    found = np.empty((len(moments), len(fields)), np.float32)
    for place, field in enumerate(fields):
        found[:, place] = _NUMBERS[field](moments)
    return found


def _hour(moments: Moments) -> npt.NDArray[np.float64]:
    seconds: npt.NDArray[np.int64] = (moments - moments.astype("datetime64[D]")).astype(np.int64)
    return seconds / 3600


def _weekday(moments: Moments) -> npt.NDArray[np.int64]:
    days: npt.NDArray[np.int64] = moments.astype("datetime64[D]").astype(np.int64)
    return (days + _MONDAY) % 7


def _day_of_month(moments: Moments) -> npt.NDArray[np.int64]:
    days: npt.NDArray[np.int64] = (moments.astype("datetime64[D]") - moments.astype("datetime64[M]")).astype(np.int64)
    return days + 1


def _month(moments: Moments) -> npt.NDArray[np.int64]:
    months: npt.NDArray[np.int64] = moments.astype("datetime64[M]").astype(np.int64)
    return months % 12 + 1


def _day_of_year(moments: Moments) -> npt.NDArray[np.int64]:
    before: npt.NDArray[np.int64] = _DAYS_BEFORE_MONTH[_month(moments) - 1]
    return before + _day_of_month(moments)


_NUMBERS: Final[Mapping[CalendarField, Callable[[Moments], _Numbers]]] = {
    "hour": _hour,
    "weekday": _weekday,
    "day_of_month": _day_of_month,
    "month": _month,
    "day_of_year": _day_of_year,
}

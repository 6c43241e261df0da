"""Time columns: how they are written, how far apart their steps lie, and how long a season is."""

import re
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.errors import DataError
from training.table import Table, as_text, is_missing

Keys = npt.NDArray[np.int64]  # sortable times: microseconds since 1970, or counted steps

_YEARS: Final = (1600, 2200)
_TIME_NAME: Final = re.compile(r"(^|[^a-z])(date|time|timestamp|ds|day|month|year|epoch)", re.IGNORECASE)
_WHOLE: Final = r"[+-]?\d{1,18}(?:\.0+)?"
_QUARTER: Final = r"(\d{4})[- ]?Q([1-4])"
_DAY_AND_MONTH: Final = r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})(?:[ T]+(.*))?"
_YEAR_FIRST: Final = r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})(?:[ T]+(.*))?"
_NAMED_MONTH: Final = r"(?=.*\d{4})(?=.*[A-Za-z]{3}).*"
_OFFSET: Final = r"(?<=[\d ])(?:Z|UTC|[+-]\d\d(?::?\d\d)?)$"
_CLOCK: Final = re.compile(r"\d:\d")
_SECOND: Final = 1_000_000
DAY: Final = 86_400 * _SECOND
_UNITS: Final = {"s": 1, "min": 60, "h": 3_600, "D": 86_400, "W": 604_800}
_MONTHS: Final = {"M": 1, "Q": 3, "Y": 12}
_LONGEST_DAILY_SEASON: Final = 288  # a day in steps of five minutes; below that spacing an hour is the season
_BUSINESS_WEEK: Final = 5
_WORDS: Final = {
    "s": "second",
    "min": "minute",
    "h": "hourly",
    "D": "daily",
    "W": "weekly",
    "M": "monthly",
    "Q": "quarterly",
    "Y": "yearly",
}


@dataclass(frozen=True)
class Times:
    """A parsed time column: a sortable key per row, whether the keys are dates, and how they were read.

    `offsets` is how far ahead of the keys the local clock was, in microseconds, where the keys are UTC and rows say so.
    """

    keys: Keys
    dates: bool
    note: str
    offsets: Keys | None = None


class Spacing(Protocol):
    """How far apart the steps of a series lie."""

    @property
    def code(self) -> str | None:
        """The frequency code of the artifact contract, or None where it has none."""

    def steps(self, keys: Keys) -> npt.NDArray[np.float64]:
        """Sorted keys as distances from the first, in steps; fractions lie between two steps."""

    def timestamps(self, keys: Keys, count: int) -> pd.DatetimeIndex | None:
        """The timestamps of `count` steps of a series with these sorted keys, or None where steps are only counted."""


@dataclass(frozen=True)
class Even:
    """Steps of a fixed time, `length` microseconds."""

    length: int
    code: str

    def steps(self, keys: Keys) -> npt.NDArray[np.float64]:
        return np.asarray((keys - keys[0]) / self.length, dtype=np.float64)

    def timestamps(self, keys: Keys, count: int) -> pd.DatetimeIndex:
        return _index(keys[0] + self.length * np.arange(count))


@dataclass(frozen=True)
class Counted:
    """Counted steps, `length` apart, without dates; `code` is what the user says of their frequency, if anything."""

    length: int
    code: str | None = None

    def steps(self, keys: Keys) -> npt.NDArray[np.float64]:
        return np.asarray((keys - keys[0]) / self.length, dtype=np.float64)

    def timestamps(self, keys: Keys, count: int) -> None:
        return None


@dataclass(frozen=True)
class Calendar:
    """Steps of whole months, quarters or years, whatever their length in days."""

    months: int
    code: str

    def steps(self, keys: Keys) -> npt.NDArray[np.float64]:
        months = _month_numbers(_index(keys))
        return np.asarray((months - months[0]) / self.months, dtype=np.float64)

    def timestamps(self, keys: Keys, count: int) -> pd.DatetimeIndex:
        stamps = _index(keys)
        months = np.datetime64(stamps[0], "M") + self.months * np.arange(count)
        days = (months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")  # in each month
        day = days if stamps.is_month_end.all() else np.minimum(days, np.timedelta64(stamps[0].day, "D"))
        clock = stamps[0] - stamps[0].normalize()
        return _index((months.astype("datetime64[D]") + day - 1).astype("datetime64[us]").view(np.int64)) + clock


@dataclass(frozen=True)
class Business:
    """Working days: weekends, and holidays up to a week long, are no gaps; the rows are successive steps."""

    code: None = None

    def steps(self, keys: Keys) -> npt.NDArray[np.float64]:
        days = _index(keys).to_numpy().astype("datetime64[D]")
        apart = np.busday_count(days[:-1], days[1:])
        closed = np.where(apart <= _BUSINESS_WEEK + 1, np.minimum(apart, 1), apart)
        return np.concatenate([[0.0], np.cumsum(closed)])

    def timestamps(self, keys: Keys, count: int) -> pd.DatetimeIndex:
        known = np.interp(np.arange(count), self.steps(keys), keys.astype(np.float64)).astype(np.int64)
        return _index(known - known % DAY)


def read_times(table: Table, name: str) -> Times:
    """Read a time column: dates in any usual way of writing them, or whole numbers that count steps.

    Raises:
        DataError: a time is missing or not understood, days and months cannot be told apart, or only some of the
            times have an offset from UTC.
    """
    first, like = table.first_of_each(name)
    if 2 * len(first.frame) > len(like):
        return _read(table, name)
    try:
        read = _read(first, name)  # where many series have the same times, each is read once
    except DataError:
        return _read(table, name)  # so that all rows at fault are counted
    offsets = None if read.offsets is None else read.offsets[like]
    return Times(read.keys[like], read.dates, read.note, offsets)


def _read(table: Table, name: str) -> Times:
    column = table.column(name)
    if pd.api.types.is_datetime64_any_dtype(column):
        _refuse(table, name, column.isna().to_numpy(dtype=bool), "the time is missing; fill it in, or drop the row")
        return _from_typed(pd.DatetimeIndex(column))
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    text = as_text(column)
    _refuse(table, name, is_missing(text), "the time is missing; fill it in, or drop the row")
    if text.str.fullmatch(_WHOLE).all():
        return _from_numbers(
            name, np.asarray(text.str.replace(r"\.0+$", "", regex=True).astype(np.int64), dtype=np.int64)
        )
    if text.str.fullmatch(_QUARTER).all():
        parts = text.str.extract(_QUARTER).astype(np.int64)
        return _dates(_month_starts(parts[0].to_numpy(), 3 * parts[1].to_numpy() - 2), "quarters")
    return _from_text(table, name, text)


def looks_like_dates(table: Table, name: str) -> bool:
    """Whether a column is plainly one of dates, so that it can be taken for the time without being named.

    Numbers other than `19580329` are, only where the column's name says so and no time occurs twice.
    """
    column = table.frame[name]
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    if pd.api.types.is_bool_dtype(column) or (
        pd.api.types.is_float_dtype(column) and not (column.dropna() % 1 == 0).all()
    ):
        return False
    try:
        times = read_times(Table(table.frame.iloc[:1000], table.source, table.unit), name)
    except DataError:
        return _TIME_NAME.search(name) is not None and bool(
            as_text(column.iloc[:1000]).str.contains(r"\d[-/.: T]\d", regex=True).any()
        )
    if pd.api.types.is_numeric_dtype(column) or as_text(column.iloc[:1]).str.fullmatch(_WHOLE).all():
        named = _TIME_NAME.search(name) is not None
        return times.dates and (times.note == _COMPACT or (named and len(np.unique(times.keys)) == len(times.keys)))
    return times.dates


def spacing_of(code: str) -> Even | Calendar:
    """The spacing that a frequency code of the artifact contract stands for."""
    count, unit = _parts(code)
    return Calendar(count * _MONTHS[unit], code) if unit in _MONTHS else Even(count * _UNITS[unit] * _SECOND, code)


def infer_spacing(groups: list[Keys], *, dates: bool) -> Spacing | None:
    """The spacing that most neighbouring times of the series have, or None where no spacing holds for half of them.

    Args:
        groups: the sorted keys of each series, without repeats.
        dates: whether the keys are dates.
    """
    apart = np.concatenate([np.diff(keys) for keys in groups])
    if not len(apart):
        return None
    if not dates:
        length, share = _commonest(apart)
        return Counted(length) if share >= 0.5 else None
    stamps = _index(np.concatenate(groups))
    if np.median(apart) > 27 * DAY and _same_day_of_month(stamps):
        months, share = _commonest(np.concatenate([np.diff(_month_numbers(_index(keys))) for keys in groups]))
        return Calendar(months, _month_code(months)) if share >= 0.5 and months else None
    length, share = _commonest(apart)
    if length == DAY and _only_working_days(stamps, apart):
        return Business()
    if share < 0.5 or length % _SECOND:
        return None
    code = _even_code(length // _SECOND)
    return None if code is None else Even(length, code)


def season_of(code: str | None) -> int | None:
    """Steps in the season that a frequency suggests: a day, a week of days, a year of weeks, months or quarters.

    Below steps of five minutes it is an hour, below twelve seconds a minute: a day would be too long to look back.
    """
    if code is None:
        return None
    count, unit = _parts(code)
    if unit in _MONTHS:
        return _cycles(12, count * _MONTHS[unit])
    if unit == "W":
        return _cycles(52, count)
    seconds = count * _UNITS[unit]
    if seconds == 604_800:
        return 52
    if seconds >= 86_400:
        return 7 if seconds == 86_400 else None
    for cycle in (86_400, 3_600, 60):
        if cycle // seconds <= _LONGEST_DAILY_SEASON:
            return _cycles(cycle, seconds)
    return None


def in_words(code: str) -> str:
    """A frequency code with its meaning, such as "15min (every 15 minutes)" or "h (hourly)"."""
    count, unit = _parts(code)
    if count == 1:
        return f"{code} ({'every ' if unit in ('s', 'min') else ''}{_WORDS[unit]})"
    noun = {"h": "hours", "D": "days", "W": "weeks", "M": "months", "Q": "quarters", "Y": "years"}
    return f"{code} (every {count} {noun.get(unit, _WORDS[unit] + 's')})"


def stamp(key: int, *, dates: bool) -> str:
    """A key as a person writes it."""
    return str(_index(np.array([key]))[0]) if dates else f"step {key}"


_COMPACT: Final = "dates written as 19580329"


def _from_typed(stamps: pd.DatetimeIndex) -> Times:
    if stamps.tz is None:
        return _dates(stamps, "dates")
    return _in_utc(stamps.tz_convert("UTC").tz_localize(None), stamps.tz_localize(None))


def _from_numbers(name: str, numbers: Keys) -> Times:
    low, high = int(numbers.min()), int(numbers.max())
    first, last = _YEARS
    named = _TIME_NAME.search(name) is not None
    if first * 10_000 <= low and high <= last * 10_000:
        stamps = pd.to_datetime(pd.Series(numbers).astype("str"), format="%Y%m%d", errors="coerce")
        if not stamps.isna().any():
            return _dates(pd.DatetimeIndex(stamps), _COMPACT)
    if first * 100 <= low and high <= last * 100 and named and np.isin(numbers % 100, range(1, 13)).all():
        return _dates(_month_starts(numbers // 100, numbers % 100), "months written as 195803")
    if first <= low and high <= last and named:
        return _dates(_month_starts(numbers, np.ones_like(numbers)), "years")
    for unit, size in (("seconds", 1), ("milliseconds", 1_000)):
        if 400_000_000 * size <= low and high <= 5_000_000_000 * size and named:
            return Times(numbers * (_SECOND // size), True, f"{unit} since 1970, UTC")
    return Times(numbers, False, "whole numbers that count steps")


def _from_text(table: Table, name: str, text: pd.Series) -> Times:
    offset = text.str.contains(_OFFSET, regex=True) & text.str.contains(_CLOCK)
    if offset.any():
        _refuse(
            table,
            name,
            ~offset.to_numpy(dtype=bool),
            "no offset from UTC, though other rows have one; write all times with it, or none",
        )
        text = text.str.replace(r" ?UTC$", "Z", regex=True)
        utc = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
        _refuse_unread(table, name, utc)
        wall = pd.to_datetime(text.str.replace(_OFFSET, "", regex=True).str.strip(), format="ISO8601", errors="coerce")
        _refuse_unread(table, name, wall)
        return _in_utc(pd.DatetimeIndex(utc).tz_localize(None), pd.DatetimeIndex(wall))
    if text.str.fullmatch(_DAY_AND_MONTH).all():
        return _from_days_and_months(table, name, text)
    note = "dates"
    if text.str.fullmatch(_YEAR_FIRST).all():
        parts = text.str.extract(_YEAR_FIRST)
        text = _iso(parts[0], parts[1], parts[2], parts[3])
    stamps = pd.to_datetime(text, format="ISO8601", errors="coerce")
    if stamps.isna().all() and text.str.fullmatch(_NAMED_MONTH).all():
        stamps = pd.to_datetime(text, format="mixed", errors="coerce")
        note = "dates with named months"
    _refuse_unread(table, name, stamps)
    return _dates(pd.DatetimeIndex(stamps), note)


def _from_days_and_months(table: Table, name: str, text: pd.Series) -> Times:
    """Dates such as 1/7/2016: the one reading that is possible, else the one that puts more steps at equal distance."""
    parts = text.str.extract(_DAY_AND_MONTH)
    readings = {
        "day first": pd.to_datetime(_iso(parts[2], parts[1], parts[0], parts[3]), format="ISO8601", errors="coerce"),
        "month first": pd.to_datetime(_iso(parts[2], parts[0], parts[1], parts[3]), format="ISO8601", errors="coerce"),
    }
    possible = {order: stamps for order, stamps in readings.items() if not stamps.isna().any()}
    if not possible:
        _refuse_unread(table, name, max(readings.values(), key=lambda stamps: int(stamps.notna().sum())))
    evenness = {order: _evenness(stamps) for order, stamps in possible.items()}
    best = max(possible, key=evenness.__getitem__)
    if (
        len(possible) == 2
        and len(set(evenness.values())) == 1
        and not readings["day first"].equals(readings["month first"])
    ):
        raise DataError(
            f"{table.source}: column {name!r}: days and months cannot be told apart; write dates as 2016-07-01"
        )
    why = "the other order is not possible" if len(possible) == 1 else "its steps are the more even"
    return _dates(pd.DatetimeIndex(possible[best]), f"dates with the {best}, because {why}")


def _iso(year: pd.Series, month: pd.Series, day: pd.Series, clock: pd.Series) -> pd.Series:
    date = year + "-" + month.str.zfill(2) + "-" + day.str.zfill(2)
    clock = clock.fillna("").str.strip().str.replace(r"^(\d):", r"0\1:", regex=True)
    halves = clock.str.extract(r"^(\d\d)(:.*?)\s*([AaPp])\.?[Mm]\.?$")
    if halves[2].notna().any():  # twelve-hour clock
        hour = pd.to_numeric(halves[0]) % 12 + 12 * halves[2].str.lower().eq("p")
        written = hour.astype("Int64").astype("str").str.zfill(2) + halves[1]
        clock = clock.where(halves[2].isna(), written)
    return (date + " " + clock).str.strip()


def _evenness(stamps: pd.Series) -> float:
    """The share of successive rows, as they stand, that lie the commonest distance apart (in days or in months)."""
    index = pd.DatetimeIndex(stamps)
    if len(index) < 3:
        return 0.0
    months = np.diff(_month_numbers(index)) if _same_day_of_month(index) else np.zeros(0, dtype=np.int64)
    shares = [_commonest(np.diff(_keys(index)))[1]]
    if len(months) and months.all():
        shares.append(_commonest(months)[1])
    return max(shares)


def _in_utc(utc: pd.DatetimeIndex, wall: pd.DatetimeIndex) -> Times:
    """UTC, unless the wall clock shows the same time of day throughout: days are those of whoever wrote them down."""
    if (wall != utc).any() and (wall - wall.normalize()).nunique() == 1:
        return _dates(wall, "dates by their local wall clock")
    return Times(_keys(utc), True, "times converted to UTC", _keys(wall) - _keys(utc))


def _dates(stamps: pd.DatetimeIndex, note: str) -> Times:
    return Times(_keys(stamps), True, note)


def _keys(stamps: pd.DatetimeIndex) -> Keys:
    return np.asarray(stamps.as_unit("us").asi8, dtype=np.int64)


def _index(keys: Keys) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.asarray(keys, dtype=np.int64).view("datetime64[us]"))


def _month_starts(years: Keys, months: Keys) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(((years - 1970) * 12 + months - 1).astype("datetime64[M]").astype("datetime64[us]"))


def _month_numbers(stamps: pd.DatetimeIndex) -> Keys:
    return np.asarray(stamps.year * 12 + stamps.month, dtype=np.int64)


def _same_day_of_month(stamps: pd.DatetimeIndex) -> bool:
    if stamps.day.nunique() == 1 or bool(stamps.is_month_end.all()):
        return True
    days = stamps.to_numpy().astype("datetime64[D]")
    last = (stamps + pd.offsets.MonthEnd(0)).to_numpy().astype("datetime64[D]")
    return bool((np.busday_offset(last, 0, roll="backward") == days).all())


def _only_working_days(stamps: pd.DatetimeIndex, apart: Keys) -> bool:
    weekends = np.count_nonzero(apart == 3 * DAY)
    return bool((stamps.day_of_week < _BUSINESS_WEEK).all() and weekends >= 2 and weekends * 8 >= len(apart))


def _commonest(values: Keys) -> tuple[int, float]:
    found, counts = np.unique(values, return_counts=True)
    best = int(np.argmax(counts))
    return int(found[best]), float(counts[best] / len(values))


def _parts(code: str) -> tuple[int, str]:
    found = re.fullmatch(r"(\d*)([A-Za-z]+)", code)
    if found is None:
        raise ValueError(f"{code!r} is no frequency code")
    return int(found[1] or 1), found[2]


def _month_code(months: int) -> str:
    unit = next(unit for unit in ("Y", "Q", "M") if months % _MONTHS[unit] == 0)
    return _code(months // _MONTHS[unit], unit)


def _even_code(seconds: int) -> str | None:
    unit = next(unit for unit in ("W", "D", "h", "min", "s") if seconds % _UNITS[unit] == 0)
    count = seconds // _UNITS[unit]
    return _code(count, unit) if count < 10_000 else None


def _code(count: int, unit: str) -> str:
    return unit if count == 1 else f"{count}{unit}"


def _cycles(cycle: int, step: int) -> int | None:
    """How many steps make the cycle, where they do so exactly and are at least two."""
    return cycle // step if cycle % step == 0 and cycle // step >= 2 else None


def _refuse(table: Table, name: str, wrong: npt.NDArray[np.bool_], message: str) -> None:
    places = np.flatnonzero(wrong)
    if len(places):
        more = f" (and in {len(places) - 1} more rows)" if len(places) > 1 else ""
        raise DataError(f"{table.source}: {table.place(int(places[0]))}, column {name!r}{more}: {message}")


def _refuse_unread(table: Table, name: str, stamps: pd.Series) -> None:
    _refuse(
        table,
        name,
        stamps.isna().to_numpy(dtype=bool),
        "not a date that is understood; write it as 2016-07-01 or 2016-07-01T13:00, or count steps in whole numbers",
    )

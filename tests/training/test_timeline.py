"""Time columns: the ways of writing times that are understood, and what is inferred from them."""

import numpy as np
import pandas as pd
import pytest

from training.errors import DataError
from training.table import Table
from training.timeline import Business, Times, infer_spacing, looks_like_dates, read_times, season_of, spacing_of


def table(column: object, name: str = "time") -> Table:
    frame = pd.DataFrame({name: column})
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return Table(frame, "test", "row")


def read(column: object, name: str = "time") -> Times:
    return read_times(table(column, name), name)


def first(times: Times) -> pd.Timestamp:
    return pd.Timestamp(int(times.keys[0]), unit="us")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2016-07-01", "2016-07-01"),
        ("2016-07-01 13:30", "2016-07-01 13:30"),
        ("2016-07-01T13:30:05.250", "2016-07-01 13:30:05.250"),
        ("2016-07-01T13:30Z", "2016-07-01 13:30"),
        ("2016-07-01T13:30:00+02:00", "2016-07-01 13:30"),
        ("2016-07-01 13:30 UTC", "2016-07-01 13:30"),
        ("2016-07", "2016-07-01"),
        ("20160701", "2016-07-01"),
        ("201607", "2016-07-01"),
        ("2016", "2016-01-01"),
        ("2016Q3", "2016-07-01"),
        ("2016/7/1", "2016-07-01"),
        ("2016.07.01 8:15", "2016-07-01 08:15"),
        ("31/7/2016", "2016-07-31"),
        ("31.07.2016 13:30", "2016-07-31 13:30"),
        ("7/31/2016", "2016-07-31"),
        ("7/31/2016 1:30 PM", "2016-07-31 13:30"),
        ("7/31/2016 12:30 am", "2016-07-31 00:30"),
        ("1 July 2016", "2016-07-01"),
        ("Jul 2016", "2016-07-01"),
        ("1467381600", "2016-07-01 14:00"),
        ("1467381600000", "2016-07-01 14:00"),
    ],
)
def test_a_time_is_understood_as_it_is_usually_written(text: str, expected: str) -> None:
    times = read([text])
    assert times.dates
    assert first(times) == pd.Timestamp(expected)


def test_days_and_months_are_told_apart_by_what_is_even() -> None:
    hours = pd.date_range("2016-07-05", periods=60, freq="h")
    day_first = read([f"{hour.day}/{hour.month}/{hour.year} {hour.hour}:00" for hour in hours])
    month_first = read([f"{hour.month}/{hour.day}/{hour.year} {hour.hour}:00" for hour in hours])
    assert first(day_first) == pd.Timestamp("2016-07-05")
    assert first(month_first) == pd.Timestamp("2016-07-05")
    assert "day first" in day_first.note
    assert "month first" in month_first.note


def test_a_column_where_either_order_fails_names_the_row() -> None:
    with pytest.raises(DataError, match="row 2, column 'time'"):
        read(["13/1/2016", "1/13/2016", "14/1/2016"])


def test_whole_numbers_count_steps() -> None:
    times = read([5, 6, 7], "t")
    assert not times.dates
    assert list(times.keys) == [5, 6, 7]


def test_days_across_daylight_saving_keep_their_wall_clock() -> None:
    days = pd.date_range("2024-03-29", periods=5, freq="D", tz="Europe/Berlin")
    for column in (days, [day.isoformat() for day in days]):
        times = read(column)
        spacing = infer_spacing([times.keys], dates=True)
        assert spacing is not None
        assert spacing.code == "D"
        assert first(times) == pd.Timestamp("2024-03-29")


def test_working_days_far_from_greenwich_are_those_of_their_wall_clock() -> None:
    days = pd.bdate_range("2024-01-01", periods=60, tz="Asia/Tokyo")
    times = read([day.isoformat() for day in days])
    spacing = infer_spacing([times.keys], dates=True)
    assert isinstance(spacing, Business)
    assert times.note == "dates by their local wall clock"


def test_hours_across_daylight_saving_are_even_in_utc() -> None:
    hours = pd.date_range("2024-03-30 22:00", periods=8, freq="h", tz="Europe/Berlin")
    times = read([hour.isoformat() for hour in hours])
    assert first(times) == pd.Timestamp("2024-03-30 21:00")
    assert set(np.diff(times.keys)) == {3_600_000_000}


@pytest.mark.parametrize(
    ("alias", "code", "season"),
    [
        ("s", "s", 60),
        ("30s", "30s", 120),
        ("min", "min", 60),
        ("5min", "5min", 288),
        ("15min", "15min", 96),
        ("30min", "30min", 48),
        ("h", "h", 24),
        ("6h", "6h", 4),
        ("7h", "7h", None),
        ("D", "D", 7),
        ("W-SUN", "W", 52),
        ("2W-MON", "2W", 26),
        ("MS", "M", 12),
        ("ME", "M", 12),
        ("BME", "M", 12),
        ("QS", "Q", 4),
        ("QE", "Q", 4),
        ("2QS", "2Q", 2),
        ("YS", "Y", None),
        ("YE", "Y", None),
        ("5YS", "5Y", None),
    ],
)
def test_the_frequency_and_season_are_inferred_through_a_few_gaps(alias: str, code: str, season: int | None) -> None:
    stamps = pd.date_range("2001-01-01", periods=40, freq=alias).delete([7, 8, 21])
    times = read(stamps)
    spacing = infer_spacing([times.keys], dates=True)
    assert spacing is not None
    assert spacing.code == code
    assert season_of(spacing.code) == season


@pytest.mark.parametrize("alias", ["h", "D", "W-SUN", "MS", "ME", "QE", "YS", "YE"])
def test_the_grid_of_steps_holds_the_given_timestamps(alias: str) -> None:
    whole = pd.date_range("2003-12-31", periods=30, freq=alias)
    keys = read(whole.delete([5, 6])).keys
    spacing = infer_spacing([keys], dates=True)
    assert spacing is not None
    assert list(spacing.steps(keys)) == [step for step in range(30) if step not in (5, 6)]
    stamps = spacing.timestamps(keys, 30)
    assert stamps is not None
    assert list(stamps) == list(whole)


def test_months_are_steps_of_equal_length() -> None:
    keys = read(["2024-01-31", "2024-02-29", "2024-03-31", "2024-05-31"]).keys
    assert list(spacing_of("M").steps(keys)) == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("column", "name", "expected"),
    [
        (["2024-01-01", "2024-01-02"], "x", True),
        ([20240101, 20240102], "x", True),
        ([1.5, 2.5], "time", False),
        ([3, 4], "time", False),
        ([2001, 2002], "year", True),
        ([2001, 2001], "year", False),
        ([2001, 2002], "price", False),
        (["red", "blue"], "date", False),
        ([True, False], "time", False),
        (["2024-01-01", "soon"], "time", True),
    ],
    ids=["dates", "compact", "fractions", "steps", "years", "years twice", "no year", "words", "booleans", "one wrong"],
)
def test_only_a_plain_column_of_dates_is_taken_without_being_named(column: object, name: str, expected: bool) -> None:
    assert looks_like_dates(table(column, name), name) is expected

"""The calendar's numbers are those of pandas, wherever and whenever, before an origin as well as after it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact import CalendarFields
from service.calendar import calendar_of
from service.timestamps import Frequency, TimestampError, forecast_timestamps, parse_origin, wall_clock

FIELDS: CalendarFields = ("hour", "weekday", "day_of_month", "month", "day_of_year")
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Casablanca", "UTC"]
EXACT = ["s", "15min", "7min", "h", "5h", "30h", "300h"]

moments = st.datetimes(pd.Timestamp("1975-01-01").to_pydatetime(), pd.Timestamp("2035-01-01").to_pydatetime()).map(
    lambda moment: moment.replace(microsecond=0)
)


def by_pandas(times: pd.DatetimeIndex) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    in_a_leap_year = pd.DatetimeIndex([time.replace(tzinfo=None).replace(year=2024) for time in times])
    hours = times.hour + times.minute / 60 + times.second / 3600
    return np.stack((hours, times.day_of_week, times.day, times.month, in_a_leap_year.day_of_year), axis=1)


@given(moments, st.sampled_from(EXACT), st.sampled_from(ZONES), st.integers(1, 300), st.integers(0, 60))
def test_elapsed_time_in_a_zone_is_read_as_pandas_reads_it(
    moment: pd.Timestamp, frequency: str, zone: str, before: int, after: int
) -> None:
    step = pd.Timedelta(f"1{frequency}" if frequency.isalpha() else frequency)
    origin = pd.Timestamp(moment, tz="UTC").tz_convert(zone)
    times = pd.DatetimeIndex([origin + number * step for number in range(-before, after + 1)])
    text = f"{origin.isoformat()}[{zone}]"

    found = wall_clock(parse_origin(text), Frequency.parse(frequency), -before, after)

    assert found.tolist() == times.tz_localize(None).to_pydatetime().tolist()
    np.testing.assert_allclose(calendar_of(found, FIELDS), by_pandas(times), rtol=1e-6)


@given(moments, st.sampled_from(["D", "3D", "W"]), st.integers(0, 300), st.integers(0, 60), st.booleans())
def test_days_keep_the_clock_on_the_wall(
    moment: pd.Timestamp, frequency: str, before: int, after: int, zoned: bool
) -> None:
    frequency_of_pandas = "7D" if frequency == "W" else frequency
    behind = pd.date_range(end=moment, periods=before + 1, freq=frequency_of_pandas)
    times = pd.DatetimeIndex(behind.append(pd.date_range(moment, periods=after + 1, freq=frequency_of_pandas)[1:]))
    text = f"{moment.isoformat()}[Asia/Kolkata]" if zoned else moment.isoformat()

    found = wall_clock(parse_origin(text), Frequency.parse(frequency), -before, after)

    assert found.tolist() == times.to_pydatetime().tolist()
    np.testing.assert_allclose(calendar_of(found, FIELDS), by_pandas(times), rtol=1e-6)


@given(
    st.dates(pd.Timestamp("1975-01-01").date(), pd.Timestamp("2035-01-01").date()),
    st.sampled_from(["D", "W", "M", "2M", "Q", "Y", "h", "90min"]),
    st.integers(1, 40),
)
def test_the_calendar_of_steps_ahead_is_that_of_their_timestamps(
    date: pd.Timestamp, frequency: str, horizon: int
) -> None:
    origin = parse_origin(date.isoformat())
    told = forecast_timestamps(origin, Frequency.parse(frequency), horizon)
    assert wall_clock(origin, Frequency.parse(frequency), 1, horizon).tolist() == [
        pd.Timestamp(text).to_pydatetime() for text in told
    ]


def test_an_origin_at_a_months_end_has_months_ends_behind_it() -> None:
    found = wall_clock(parse_origin("2024-03-31"), Frequency.parse("M"), -3, 1)
    assert [str(moment)[:10] for moment in found] == [
        "2023-12-31",
        "2024-01-31",
        "2024-02-29",
        "2024-03-31",
        "2024-04-30",
    ]


def test_a_date_has_one_number_in_all_years() -> None:
    days = np.array(["2023-02-28", "2023-03-01", "2024-02-29", "2024-03-01", "2023-12-31"], "datetime64[D]")
    assert calendar_of(days, ("day_of_year",)).ravel().tolist() == [59, 61, 60, 61, 366]


def test_hours_are_told_with_their_fraction() -> None:
    moments = np.array(["2024-01-01T13:30:00", "1969-12-31T06:00:36"], "datetime64[s]")
    np.testing.assert_allclose(calendar_of(moments, ("hour",)).ravel(), [13.5, 6.01])


@pytest.mark.parametrize(("origin", "first", "last"), [("0001-03-01", -400, 0), ("9999-12-01", 0, 90)])
def test_steps_that_leave_the_calendar_are_refused(origin: str, first: int, last: int) -> None:
    with pytest.raises(TimestampError, match=r"the steps would leave the years 1 to 9999"):
        wall_clock(parse_origin(origin), Frequency.parse("D"), first, last)

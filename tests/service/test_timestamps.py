"""Timestamps of forecast steps."""

import calendar
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.timestamps import Frequency, TimestampError, forecast_timestamps, parse_origin

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]


def steps(origin: str, frequency: str, horizon: int) -> list[str]:
    return forecast_timestamps(parse_origin(origin), Frequency.parse(frequency), horizon)


@pytest.mark.parametrize(
    ("origin", "frequency", "expected"),
    [
        ("2024-03-30", "D", ["2024-03-31", "2024-04-01"]),
        ("2024-03-30", "2W", ["2024-04-13", "2024-04-27"]),
        ("20240330", "D", ["2024-03-31", "2024-04-01"]),
        ("2024-03-30", "12h", ["2024-03-30T12:00:00", "2024-03-31T00:00:00"]),
        ("2024-03-30T12:00", "D", ["2024-03-31T12:00:00", "2024-04-01T12:00:00"]),
        ("2024-03-30 12:00", "h", ["2024-03-30T13:00:00", "2024-03-30T14:00:00"]),
        ("2024-03-30T23:30:00Z", "30min", ["2024-03-31T00:00:00Z", "2024-03-31T00:30:00Z"]),
        ("2024-03-30T12:00:00+00:00", "h", ["2024-03-30T13:00:00+00:00", "2024-03-30T14:00:00+00:00"]),
        ("2024-03-30T12:00:00+05:30", "D", ["2024-03-31T12:00:00+05:30", "2024-04-01T12:00:00+05:30"]),
        ("2024-03-30T12:00:00.25Z", "s", ["2024-03-30T12:00:01.25Z", "2024-03-30T12:00:02.25Z"]),
    ],
)
def test_timestamps_come_back_in_the_form_of_the_origin(origin: str, frequency: str, expected: list[str]) -> None:
    assert steps(origin, frequency, 2) == expected


@pytest.mark.parametrize(
    ("origin", "frequency", "expected"),
    [
        ("2024-01-30", "M", ["2024-02-29", "2024-03-30", "2024-04-30"]),
        ("2024-01-31", "M", ["2024-02-29", "2024-03-31", "2024-04-30"]),
        ("2024-02-29", "M", ["2024-03-31", "2024-04-30", "2024-05-31"]),
        ("2023-02-28", "M", ["2023-03-31", "2023-04-30", "2023-05-31"]),
        ("2024-02-28", "M", ["2024-03-28", "2024-04-28", "2024-05-28"]),
        ("2023-12-31", "Q", ["2024-03-31", "2024-06-30", "2024-09-30"]),
        ("2024-02-29", "Y", ["2025-02-28", "2026-02-28", "2027-02-28"]),
        ("2023-02-28", "Y", ["2024-02-29", "2025-02-28", "2026-02-28"]),
        ("2024-01-31T08:00:00Z", "M", ["2024-02-29T08:00:00Z", "2024-03-31T08:00:00Z", "2024-04-30T08:00:00Z"]),
    ],
)
def test_months_quarters_and_years_keep_their_ends(origin: str, frequency: str, expected: list[str]) -> None:
    assert steps(origin, frequency, 3) == expected


@pytest.mark.parametrize(
    ("origin", "frequency", "expected"),
    [
        pytest.param(
            "2024-03-30T12:00:00+01:00[Europe/Berlin]",
            "D",
            ["2024-03-31T12:00:00+02:00[Europe/Berlin]", "2024-04-01T12:00:00+02:00[Europe/Berlin]"],
            id="days keep the clock on the wall",
        ),
        pytest.param(
            "2024-03-31T01:30:00+01:00[Europe/Berlin]",
            "h",
            ["2024-03-31T03:30:00+02:00[Europe/Berlin]", "2024-03-31T04:30:00+02:00[Europe/Berlin]"],
            id="hours are elapsed time",
        ),
        pytest.param(
            "2024-03-30T02:30:00+01:00[Europe/Berlin]",
            "D",
            ["2024-03-31T03:30:00+02:00[Europe/Berlin]", "2024-04-01T02:30:00+02:00[Europe/Berlin]"],
            id="a time that the clock skips moves on that day alone",
        ),
        pytest.param(
            "2024-10-27T02:30:00+02:00[Europe/Berlin]",
            "h",
            ["2024-10-27T02:30:00+01:00[Europe/Berlin]", "2024-10-27T03:30:00+01:00[Europe/Berlin]"],
            id="an hour that comes twice",
        ),
        pytest.param(
            "2024-03-30T12:00[Europe/Berlin]",
            "D",
            ["2024-03-31T12:00:00+02:00[Europe/Berlin]", "2024-04-01T12:00:00+02:00[Europe/Berlin]"],
            id="the offset may be left out where it is clear",
        ),
    ],
)
def test_a_zone_is_followed_through_daylight_saving(origin: str, frequency: str, expected: list[str]) -> None:
    assert steps(origin, frequency, 2) == expected


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ("yesterday", "must be an ISO 8601 date or time"),
        ("", "must be an ISO 8601 date or time"),
        ("2024-02-30", "must be an ISO 8601 date or time"),
        ("2024-03-30T25:00", "must be an ISO 8601 date or time"),
        ("30/03/2024", "must be an ISO 8601 date or time"),
        ("1711800000", "must be an ISO 8601 date or time"),
        ("2024-03-30T12:00Z[Mars/Olympus]", "names a time zone that is not in the time zone database"),
        ("2024-03-30T12:00Z[../../etc/passwd]", "names a time zone that is not in the time zone database"),
        ("2024-03-30T12:00+05:00[Europe/Berlin]", "has an offset that its time zone does not have at that time"),
        ("2024-10-27T02:30[Europe/Berlin]", "is a time that the clock shows twice on that day"),
        ("2024-03-31T02:30[Europe/Berlin]", "is a time that the clock skips on that day"),
        ("2024-03-30" * 11, "must have at most 100 characters"),
    ],
)
def test_an_origin_that_cannot_be_used_is_refused_without_repeating_it(origin: str, message: str) -> None:
    with pytest.raises(TimestampError) as caught:
        parse_origin(origin)
    assert str(caught.value).startswith(message)
    assert not origin or origin not in str(caught.value)


@pytest.mark.parametrize("text", ["", "0D", "-1h", "1.5h", "d", "H", "weekly", "10000D", "D ", "1 h", "١D"])
def test_a_frequency_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(TimestampError, match="must be a frequency such as"):
        Frequency.parse(text)


@pytest.mark.parametrize(
    ("origin", "frequency"),
    [
        ("9999-12-31", "D"),
        ("9999-12-31T23:00", "h"),
        ("9999-12-31T23:30:00Z", "h"),
        ("2024-01-01T00:00Z[UTC]", "9999Y"),
        ("2024-01-31", "9999Y"),
    ],
)
def test_timestamps_past_the_year_9999_are_refused(origin: str, frequency: str) -> None:
    with pytest.raises(TimestampError, match="would pass the year 9999"):
        steps(origin, frequency, 1)


@given(
    st.dates(date(1900, 1, 1), date(2200, 12, 31)),
    st.sampled_from(["M", "Q", "Y"]),
    st.integers(1, 5),
    st.integers(1, 40),
)
def test_a_calendar_step_lands_in_the_right_month_on_the_origins_day_or_the_months_end(
    origin: date, unit: str, count: int, horizon: int
) -> None:
    months = {"M": 1, "Q": 3, "Y": 12}[unit] * count
    at_end = origin.day == calendar.monthrange(origin.year, origin.month)[1]
    for lead_time, text in enumerate(steps(origin.isoformat(), f"{count}{unit}", horizon), start=1):
        made = date.fromisoformat(text)
        last = calendar.monthrange(made.year, made.month)[1]
        assert made.year * 12 + made.month - origin.year * 12 - origin.month == lead_time * months
        assert made.day == (last if at_end else min(origin.day, last))


@given(
    st.datetimes(datetime(1980, 1, 1), datetime(2037, 1, 1), timezones=st.sampled_from(ZONES).map(ZoneInfo)),
    st.sampled_from(["s", "min", "h"]),
    st.integers(1, 999),
    st.integers(1, 30),
)
def test_short_steps_are_equal_spans_of_elapsed_time_in_every_zone(
    moment: datetime, unit: str, count: int, horizon: int
) -> None:
    zone = str(moment.tzinfo)
    moment = moment.astimezone(UTC).replace(microsecond=0).astimezone(ZoneInfo(zone))
    span = timedelta(seconds={"s": 1, "min": 60, "h": 3600}[unit] * count)
    made = steps(f"{moment.isoformat()}[{zone}]", f"{count}{unit}", horizon)
    assert [datetime.fromisoformat(text.removesuffix(f"[{zone}]")) for text in made] == [
        moment.astimezone(UTC) + span * lead_time for lead_time in range(1, horizon + 1)
    ]


@given(
    st.datetimes(datetime(1980, 1, 1), datetime(2037, 1, 1)),
    st.sampled_from(ZONES),
    st.sampled_from(["D", "W", "M"]),
    st.integers(1, 30),
)
def test_long_steps_keep_the_clock_on_the_wall_unless_that_time_is_skipped(
    moment: datetime, zone: str, unit: str, horizon: int
) -> None:
    origin = moment.replace(microsecond=0, tzinfo=ZoneInfo(zone)).astimezone(UTC).astimezone(ZoneInfo(zone))
    for text in steps(f"{origin.isoformat()}[{zone}]", unit, horizon):
        made = datetime.fromisoformat(text.removesuffix(f"[{zone}]"))
        wanted = datetime.combine(made.date(), origin.time(), ZoneInfo(zone))
        # a skipped time does not come back from UTC as it went
        skipped = wanted.astimezone(UTC).astimezone(ZoneInfo(zone)).time() != origin.time()
        assert skipped or made.time() == origin.time()


@given(st.text(max_size=40))
def test_any_text_is_an_origin_or_is_refused(text: str) -> None:
    try:
        made = steps(text, "D", 2)
    except TimestampError:
        return
    assert len(made) == len(set(made)) == 2

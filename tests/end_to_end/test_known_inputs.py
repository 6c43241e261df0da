"""Known inputs over HTTP: the calendar of each step, and columns whose future is told, wherever they are of use.

The models add up all that is known of a step: to the last value, or to the mean of a window.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.artifact import ErrorTable
from tests.artifacts import write_artifact
from tests.end_to_end.process import running
from tests.streams import MEDIA_TYPE, read, stream

ONE = "/forecast"
MANY = "/forecast/multi-step"
CONTEXT = 8


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("models")

    def write(name: str, kind: Any = "informed", **about: Any) -> None:
        write_artifact(folder / name / "1" / "model.onnx", kind, name=name, context_length=CONTEXT, **about)

    errors = ErrorTable(origins=20, errors=(tuple(tuple(map(float, range(20))) for _ in range(5)),))
    write("default", "drift")
    write("shop", exogenous=("price", "promotion"), errors=errors)
    write("promoted", exogenous=("promotion",))
    write("sliding", "informed_mean", exogenous=("promotion",))
    write("hourly", calendar=("hour",), frequency="h")
    write("daily", calendar=("day_of_month",), frequency="D")
    write("both", calendar=("weekday", "day_of_month"), exogenous=("promotion",), frequency="D")
    write("pair", features=2, exogenous=("promotion",))
    with running(folder, tmp_path_factory.mktemp("log") / "log") as service, service.client() as client:
        yield client


def values(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()["forecasts"][0]["values"]


def test_what_is_told_of_each_step_ahead_goes_into_its_forecast(client: httpx.Client) -> None:
    body = {"model": "shop", "window": [[5, 0, 0], [7, 0, 0]], "horizon": 3, "future": [[1, 10], [2, 20], [3, 30]]}
    assert values(client.post(MANY, json=body)) == [[18], [40], [73]]


def test_a_single_column_may_be_told_as_numbers_or_as_rows(client: httpx.Client) -> None:
    body = {"model": "promoted", "window": [[5, 0], [7, 0]], "horizon": 2}
    for future in ([1, 2], [[1], [2]]):
        assert values(client.post(MANY, json=body | {"future": future})) == [[8], [10]]


def test_one_step_needs_one_step_of_the_future(client: httpx.Client) -> None:
    assert values(client.post(ONE, json={"model": "promoted", "window": [[5, 0], [7, 0]], "future": [4]})) == [[11]]


def test_several_features_are_answered_without_the_columns_beside_them(client: httpx.Client) -> None:
    body = {"model": "pair", "window": [[5, 50, 0], [7, 70, 0]], "horizon": 2, "future": [1, 1]}
    assert values(client.post(MANY, json=body)) == [[8, 71], [9, 72]]


@pytest.mark.parametrize("length", [2, CONTEXT - 1, CONTEXT, CONTEXT + 3])
def test_a_window_that_is_slid_is_slid_with_what_is_known(client: httpx.Client, length: int) -> None:
    rng = np.random.default_rng(length)
    series, told = list(rng.normal(size=length)), list(rng.normal(size=length + 5))
    body = {
        "model": "sliding",
        "window": [[value, known] for value, known in zip(series, told, strict=False)],
        "horizon": 5,
        "future": told[length:],
    }
    found = values(client.post(MANY, json=body))

    for step in range(5):
        used = min(len(series), CONTEXT)
        end = len(series)
        series.append(np.mean(series[-used:]) + np.mean(told[end + 1 - used : end + 1]))
        assert found[step][0] == pytest.approx(series[-1], rel=1e-4, abs=1e-4)


def test_the_calendar_is_that_of_the_step_forecast(client: httpx.Client) -> None:
    body = {"model": "hourly", "window": [1, 2], "horizon": 3, "origin": "2024-03-30T21:30"}
    assert values(client.post(MANY, json=body)) == [24.5, 48, 48.5]
    ends = {"model": "daily", "window": [1, 2], "horizon": 3, "origin": "2024-02-28"}
    assert values(client.post(MANY, json=ends)) == [31, 32, 34]


def test_hours_pass_over_those_that_the_clock_skips(client: httpx.Client) -> None:
    body = {"model": "hourly", "window": [1, 2], "horizon": 2, "origin": "2024-03-31T01:00+01:00[Europe/Berlin]"}
    answer = client.post(MANY, json=body)
    assert values(answer) == [5, 9]
    assert answer.json()["forecasts"][0]["timestamps"][0] == "2024-03-31T03:00:00+02:00[Europe/Berlin]"


def test_calendar_and_columns_go_together(client: httpx.Client) -> None:
    body = {"model": "both", "window": [[5, 0], [7, 0]], "horizon": 2, "origin": "2024-03-31", "future": [100, 200]}
    assert values(client.post(MANY, json=body)) == [[7 + 0 + 1 + 100], [7 + 1 + 100 + 1 + 2 + 200]]


def test_windows_have_futures_and_origins_of_their_own(client: httpx.Client) -> None:
    windows = [[[5, 0], [7, 0]], [[1, 0], [2, 0], [3, 0]]]
    body = {
        "model": "both",
        "windows": windows,
        "horizon": 1,
        "origin": ["2024-03-31", "2024-06-30"],
        "futures": [[100], [200]],
    }
    alone = [
        values(client.post(MANY, json={**common, "window": window, "origin": origin, "future": future}))
        for window, origin, future in zip(windows, body["origin"], body["futures"], strict=True)  # type: ignore[call-overload]
        for common in ({"model": "both", "horizon": 1},)
    ]
    answer = client.post(MANY, json=body).json()
    assert [forecast["values"] for forecast in answer["forecasts"]] == alone == [[[108]], [[204]]]


def test_thousands_of_calendars_are_read_beside_the_event_loop(client: httpx.Client) -> None:
    origins = [f"2024-03-{day:02}T{hour:02}:00" for day in range(1, 31) for hour in range(24)]
    body = {"model": "hourly", "windows": [[1, 2]] * len(origins), "origin": origins}
    answer = client.post(ONE, json=body).json()
    expected = [2 + (hour + 1) % 24 for _ in range(1, 31) for hour in range(24)]
    assert [forecast["values"][0] for forecast in answer["forecasts"]] == expected


def test_what_is_known_of_thousands_of_windows_is_put_together_beside_the_event_loop(client: httpx.Client) -> None:
    count = 1200
    body = {
        "model": "both",
        "windows": [[[5, 0], [7, 0]]] * count,
        "futures": [[number] for number in range(count)],
        "origin": "2024-03-31",
    }
    answer = client.post(ONE, json=body).json()
    assert [forecast["values"] for forecast in answer["forecasts"]] == [[[8 + number]] for number in range(count)]


@pytest.mark.parametrize("column", ["numbers", "rows"])
def test_an_arrow_stream_has_futures_in_a_column(client: httpx.Client, column: str) -> None:
    futures: list[Any] = [[1.0, 2.0], [3.0, 4.0]]
    if column == "rows":
        futures = [[[number] for number in future] for future in futures]
    windows = [[[5.0, 0.0], [7.0, 0.0]], [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]]
    body = stream({"window": windows, "future": futures}, {"model": "promoted", "horizon": "2"}, rows_per_batch=1)
    response = client.post(MANY, content=body, headers={"content-type": MEDIA_TYPE})
    assert response.status_code == 200, response.text
    assert read(response.content)["values"].to_pylist() == [[[8], [10]], [[6], [10]]]


def test_an_arrow_stream_may_need_no_more_than_origins(client: httpx.Client) -> None:
    body = stream({"window": [[1, 2], [3, 4]], "origin": ["2024-03-30T21:30", "2024-03-30T22:30"]}, {"model": "hourly"})
    response = client.post(ONE, content=body, headers={"content-type": MEDIA_TYPE, "accept": "application/json"})
    assert [forecast["values"] for forecast in response.json()["forecasts"]] == [[24.5], [27.5]]


def test_the_past_is_forecast_again_with_what_was_known_of_it(client: httpx.Client) -> None:
    """The series is what the model forecasts: its errors of the past are none, where it is told the right columns."""
    told = np.random.default_rng(0).integers(0, 9, 160)
    window = [[int(value), int(known)] for value, known in zip(np.cumsum(told), told, strict=True)]
    body = {"model": "promoted", "window": window, "horizon": 3, "levels": [80], "samples": 5, "future": [1, 2, 3]}
    (forecast,) = client.post(MANY, json=body).json()["forecasts"]
    (interval,) = forecast["intervals"]
    assert interval["basis"] == "window"
    np.testing.assert_allclose(interval["lower"], forecast["values"], rtol=1e-3)
    np.testing.assert_allclose(interval["upper"], forecast["values"], rtol=1e-3)
    np.testing.assert_allclose(forecast["samples"], [forecast["values"]] * 5, rtol=1e-3)


def test_the_calendar_of_the_past_is_that_of_the_past(client: httpx.Client) -> None:
    days = np.arange(np.datetime64("2024-01-01"), np.datetime64("2024-07-01"))
    window = np.cumsum([int(str(day)[8:]) for day in days]).tolist()
    body = {"model": "daily", "window": window, "horizon": 2, "levels": [80], "origin": "2024-06-30"}
    (forecast,) = client.post(MANY, json=body).json()["forecasts"]
    assert forecast["values"] == [window[-1] + 1, window[-1] + 3]
    np.testing.assert_allclose(forecast["intervals"][0]["lower"], forecast["values"], rtol=1e-3)


def test_intervals_of_short_windows_rest_on_the_artifact_as_ever(client: httpx.Client) -> None:
    body = {"model": "shop", "window": [[5, 0, 0], [7, 0, 0]], "future": [[1, 10]], "levels": [80]}
    (interval,) = client.post(ONE, json=body).json()["forecasts"][0]["intervals"]
    assert interval["basis"] == "artifact"


def test_models_tell_what_they_need(client: httpx.Client) -> None:
    shop = client.get("/models/shop/versions/1").json()
    assert (shop["exogenous"], shop["calendar"]) == (["price", "promotion"], [])
    hourly = client.get("/models/hourly/versions/1").json()
    assert (hourly["exogenous"], hourly["calendar"]) == ([], ["hour"])
    default = client.get("/models/default/versions/1").json()
    assert (default["exogenous"], default["calendar"]) == ([], [])

"""Arrow streams over HTTP: the answers are those of JSON bit for bit, and so are the refusals."""

import json
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from tests.streams import MEDIA_TYPE, NUMBERS, ROWS, read, stream

JSON = "application/json"
PROBLEM = "application/problem+json"
RNG = np.random.default_rng(5)
WINDOWS = [RNG.normal(100, 10, length).astype(np.float32).tolist() for length in (2, 9, 9, 30, 31)]
PANEL = [RNG.normal(0, 5, (length, 3)).astype(np.float32).tolist() for length in (3, 12)]


def post(
    client: httpx.Client, body: bytes, path: str = "/forecast/multi-step", accept: str | None = None
) -> httpx.Response:
    headers = {"content-type": MEDIA_TYPE} | ({} if accept is None else {"accept": accept})
    return client.post(path, content=body, headers=headers)


@pytest.mark.parametrize(
    ("kind", "windows", "fields"),
    [
        (NUMBERS, WINDOWS, {}),
        (pa.large_list(pa.float64()), WINDOWS, {"model": "mean"}),
        (ROWS, PANEL, {"model": "panel"}),
        (pa.list_(pa.list_(pa.float32(), 3)), PANEL, {"model": "panel", "origin": "2024-01-01T00:00Z"}),
        (ROWS, [[[1], [2]]], {}),
        (NUMBERS, WINDOWS, {"origin": "2024-02-29", "frequency": "M", "version": "2"}),
    ],
    ids=["numbers", "large lists of 64 bits", "rows", "rows of one size, with an origin", "rows of one", "months"],
)
def test_the_answer_is_that_of_json_bit_for_bit(
    client: httpx.Client, kind: Any, windows: list[Any], fields: dict[str, str]
) -> None:
    response = post(client, stream({"window": pa.array(windows, kind)}, fields | {"horizon": "7"}, rows_per_batch=2))
    answer = client.post("/forecast/multi-step", json={"windows": windows, "horizon": 7, **fields}).json()

    assert (response.status_code, response.headers["content-type"]) == (200, MEDIA_TYPE)
    table = read(response.content)
    about = {name.decode(): text.decode() for name, text in table.schema.metadata.items()}
    assert about == {"model": answer["model"], "version": answer["version"], "horizon": "7"}
    for place, forecast in enumerate(answer["forecasts"]):
        ours = np.array(table["values"][place].as_py(), np.float32)
        assert ours.tobytes() == np.array(forecast["values"], np.float32).tobytes()
        if "origin" in fields:
            assert table["timestamps"][place].as_py() == forecast["timestamps"]
    assert ("timestamps" in table.column_names) == ("origin" in fields)


def test_one_step_is_answered_too(client: httpx.Client) -> None:
    table = read(post(client, stream({"window": [[1, 2, 3], [5, 5]]}), "/forecast").content)
    assert table["values"].to_pylist() == [[4.0], [5.0]]


def test_each_window_has_the_timestamps_of_its_own_origin(client: httpx.Client) -> None:
    body = stream(
        {"window": [[1, 2], [1, 2]], "origin": ["2024-01-30", "2024-03-30T12:00Z"]}, {"horizon": "2", "frequency": "D"}
    )
    assert read(post(client, body).content)["timestamps"].to_pylist() == [
        ["2024-01-31", "2024-02-01"],
        ["2024-03-31T12:00:00Z", "2024-04-01T12:00:00Z"],
    ]


@pytest.mark.parametrize(
    ("sent", "accept", "answered"),
    [
        (MEDIA_TYPE, None, MEDIA_TYPE),
        (MEDIA_TYPE, "*/*", MEDIA_TYPE),
        (MEDIA_TYPE, JSON, JSON),
        (MEDIA_TYPE, f"{JSON}, {MEDIA_TYPE}", MEDIA_TYPE),
        (MEDIA_TYPE, f"{JSON};q=0.9, {MEDIA_TYPE};q=0.8", JSON),
        (MEDIA_TYPE, f"{MEDIA_TYPE};q=0, */*", JSON),
        (MEDIA_TYPE, "text/html", MEDIA_TYPE),
        (JSON, None, JSON),
        (JSON, "*/*", JSON),
        (JSON, MEDIA_TYPE, MEDIA_TYPE),
        (JSON, MEDIA_TYPE.upper(), MEDIA_TYPE),
        (JSON, f"{JSON};q=0.1, {MEDIA_TYPE}", MEDIA_TYPE),
        (JSON, f"application/*, {MEDIA_TYPE};Q = 0.000", JSON),
        (JSON, "text/html, application/xhtml+xml, */*;q=0.8", JSON),
        (JSON, ",;q=,;;q", JSON),
    ],
)
def test_the_answer_has_the_format_that_accept_names_and_else_that_of_the_body(
    client: httpx.Client, sent: str, accept: str | None, answered: str
) -> None:
    body = stream({"window": [[1, 2, 3]]}) if sent == MEDIA_TYPE else b'{"window": [1, 2, 3]}'
    headers = {"content-type": sent, "accept": accept or ""}
    response = client.post("/forecast", content=body, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (200, answered)
    if answered == JSON:
        assert response.json()["forecasts"] == [{"values": [4.0]}]
    else:
        assert read(response.content)["values"].to_pylist() == [[4.0]]


def test_a_json_request_of_numbers_and_rows_is_answered_in_rows(client: httpx.Client) -> None:
    body = json.dumps({"windows": [[1, 2], [[1], [2]]]})
    response = client.post("/forecast", content=body, headers={"accept": MEDIA_TYPE})
    assert read(response.content)["values"].to_pylist() == [[[3.0]], [[3.0]]]


GOOD = {"window": pa.array([[1, 2, 3]], NUMBERS)}
REFUSED: dict[str, tuple[bytes, int, str, str]] = {
    "no stream": (b"{}", 400, "", "is not a sound Arrow stream"),
    "cut short": (stream(GOOD)[:-30], 400, "", "ends within a message"),
    "compressed buffers": (stream(GOOD, compression="lz4"), 415, "", "write it without lz4 or zstd"),
    "too many bytes": (stream({"window": pa.array([[1] * 6000], NUMBERS)}), 413, "", "more than 20000 bytes"),
    "NaN": (stream({"window": [[1, 2], [1, float("nan")]]}), 422, "/windows/1/1", "must be a finite number"),
    "too short": (stream({"window": [[1, 2], [1]]}), 422, "/windows/1", "needs at least 2"),
    "too many windows": (stream({"window": [[1, 2]] * 9}), 422, "/windows", "must hold at most 8 windows"),
    "no origins for the timestamps": (stream(GOOD, {"frequency": "D"}), 422, "/frequency", "send origin too"),
    "an origin that is no time": (
        stream(GOOD | {"origin": ["noon"]}, {"frequency": "D"}),
        422,
        "/origin/0",
        "must be an ISO 8601",
    ),
    "a column misspelt": (stream({"windo": [[1, 2]]}), 422, "/windo", "did you mean window?"),
    "an unknown model": (
        stream(GOOD, {"model": "nosuch"}),
        404,
        "",
        "there are: clock, default, diary, mean, panel, sales",
    ),
    "a forecast out of range": (
        stream({"window": [[1, 2], [-3e38, 3e38]]}),
        422,
        "/windows/1",
        "leaves the range of 32-bit floats",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("accept", [MEDIA_TYPE, JSON, "*/*"])
def test_what_is_refused_is_told_in_a_problem_document_whatever_was_accepted(
    client: httpx.Client, name: str, accept: str
) -> None:
    body, status, pointer, message = REFUSED[name]
    response = post(client, body, "/forecast", accept)
    problem = response.json()
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    told = problem.get("errors", [{"pointer": "", "message": problem["detail"]}])[0]
    assert told["pointer"] == pointer
    assert message in told["message"]


def test_another_format_is_refused_with_the_names_of_both(client: httpx.Client) -> None:
    response = client.post("/forecast", content=b"", headers={"content-type": "application/vnd.apache.arrow.file"})
    assert response.status_code == 415
    assert "Content-Type: application/json or application/vnd.apache.arrow.stream" in response.json()["detail"]


def test_an_error_never_repeats_what_a_stream_holds(client: httpx.Client) -> None:
    marker = "5417190283"
    for fields in (
        {"model": marker + "/"},
        {"version": marker + "x"},
        {"horizon": marker + "x"},
        {"frequency": marker},
    ):
        assert marker not in post(client, stream(GOOD, {"horizon": "1"} | fields)).text
    for columns in ({"window": [[float(marker) * 1e30]]}, GOOD | {"origin": [marker]}):
        assert marker not in post(client, stream(columns, {"horizon": "1"})).text


def test_a_thousand_windows_are_answered_as_they_are_one_by_one(roomy_client: httpx.Client) -> None:
    windows = np.random.default_rng(0).normal(50, 5, (1000, 30)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(windows.reshape(-1)), 30)
    table = read(post(roomy_client, stream({"window": column}, {"horizon": "24"}, rows_per_batch=300)).content)
    assert len(table) == 1000
    for place in (0, 499, 999):
        body = {"window": windows[place].tolist(), "horizon": 24}
        alone = roomy_client.post("/forecast/multi-step", json=body).json()["forecasts"][0]["values"]
        np.testing.assert_allclose(table["values"][place].as_py(), alone, rtol=1e-5)

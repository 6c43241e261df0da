"""Intervals and samples over a real socket: from the artifact's errors, and from the window's own past."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.artifact import ErrorTable
from service.intervals import own_origins
from tests.artifacts import write_artifact
from tests.end_to_end.process import running

ONE = "/forecast"
MANY = "/forecast/multi-step"
CONTEXT = 8
Answer = dict[str, Any]


def noise(steps: int, seed: int = 0) -> list[float]:
    """A series without any pattern, exact in 32 bits."""
    return [float(value) for value in np.random.default_rng(seed).normal(100, 10, steps).astype(np.float32)]


def only(response: httpx.Response) -> Answer:
    """The one forecast of an answer."""
    assert response.status_code == 200, response.text
    (forecast,) = response.json()["forecasts"]
    return dict(forecast)


def test_intervals_rest_on_the_artifacts_errors_times_the_windows_scale(client: httpx.Client) -> None:
    body = {"window": [2, 4, 6], "horizon": 2, "levels": [80, 50]}
    assert client.post(MANY, json=body).json()["forecasts"] == [
        {
            "values": [8, 10],
            "intervals": [
                {"level": 80, "lower": [-40, -86], "upper": [56, 106], "basis": "artifact", "errors": 59},
                {"level": 50, "lower": [-22, -50], "upper": [38, 70], "basis": "artifact", "errors": 59},
            ],
        }
    ]


def test_bounds_are_shaped_like_the_values(client: httpx.Client) -> None:
    answer = client.post(ONE, json={"windows": [[[1], [2]], [1, 2]], "levels": [80.5]}).json()
    rows, numbers = (forecast["intervals"][0] for forecast in answer["forecasts"])
    assert (rows["lower"], numbers["lower"]) == ([[-22]], [-22])
    assert (rows["level"], numbers["level"]) == (80.5, 80.5)


def test_timestamps_and_intervals_go_together(client: httpx.Client) -> None:
    body = {"window": [1, 2], "origin": "2024-01-01", "frequency": "D", "levels": [80]}
    assert list(only(client.post(ONE, json=body))) == ["values", "timestamps", "intervals"]


def test_a_long_window_is_judged_by_its_own_past(client: httpx.Client) -> None:
    window, horizon = noise(90), 2
    interval = only(client.post(MANY, json={"model": "mean", "window": window, "horizon": horizon, "levels": [80]}))[
        "intervals"
    ][0]
    assert (interval["basis"], interval["errors"]) == ("window", 81)
    values = np.array(window)
    errors = []
    for origin in own_origins(90, CONTEXT, horizon, None, 9, plenty=False):
        past = values[origin + 1 - CONTEXT : origin + 1]
        ratio = np.ptp(values[-CONTEXT:]) / np.ptp(past)
        errors.append((values[origin + 1 : origin + 1 + horizon] - means(past, horizon)) * np.clip(ratio, 0.1, 10))
    ranked = np.sort(np.array(errors), axis=0)
    expected = means(values[-CONTEXT:], horizon)
    # (81 + 1) · 0.1 = 8.2: the eighth from either end
    np.testing.assert_allclose(interval["lower"], expected + np.minimum(ranked[7], 0), rtol=1e-5)
    np.testing.assert_allclose(interval["upper"], expected + np.maximum(ranked[-8], 0), rtol=1e-5)


def means(window: np.ndarray[Any, np.dtype[np.float64]], horizon: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What the model `mean` forecasts."""
    steps = list(window)
    for _ in range(horizon):
        steps.append(float(np.mean(steps[-CONTEXT:])))
    return np.array(steps[-horizon:])


def test_only_a_past_that_says_more_than_the_artifact_is_taken_instead_of_it(roomy_client: httpx.Client) -> None:
    for steps, basis in ((CONTEXT + 1 + 98, "artifact"), (CONTEXT + 1 + 99, "window")):
        interval = only(roomy_client.post(ONE, json={"window": noise(steps), "levels": [80]}))["intervals"][0]
        assert (interval["basis"], interval["errors"]) == (basis, {"artifact": 59, "window": 100}[basis])


def test_each_window_of_a_request_has_the_basis_that_it_has_alone(roomy_client: httpx.Client) -> None:
    windows = [noise(300, 1), noise(20, 2), noise(250, 3), noise(2000, 4)]
    body = {"horizon": 3, "levels": [95, 50], "samples": 2, "seed": 5}
    together = roomy_client.post(MANY, json={"windows": windows, **body}).json()["forecasts"]
    assert [entry["intervals"][0]["basis"] for entry in together] == ["window", "artifact", "window", "window"]
    for window, entry in zip(windows, together, strict=True):
        alone = only(roomy_client.post(MANY, json={"window": window, **body}))
        for one, other in zip(alone["intervals"], entry["intervals"], strict=True):
            np.testing.assert_allclose(one["lower"], other["lower"], rtol=1e-4)
            np.testing.assert_allclose(one["upper"], other["upper"], rtol=1e-4)


def test_a_model_without_a_scale_is_judged_by_a_long_window(tmp_path: Path) -> None:
    write_artifact(tmp_path / "models" / "default" / "1" / "model.onnx", "bidirectional")
    with running(tmp_path / "models", tmp_path / "log") as service, service.client() as client:
        forecast = only(client.post(ONE, json={"window": noise(100), "levels": [80], "samples": 3}))
    (interval,) = forecast["intervals"]
    assert (interval["basis"], interval["errors"]) == ("window", 92)
    assert interval["lower"][0] <= forecast["values"][0] <= interval["upper"][0]
    assert len(forecast["samples"]) == 3


def test_no_interval_of_a_series_that_is_never_negative_goes_below_zero(tmp_path: Path) -> None:
    table = ErrorTable(origins=20, errors=((tuple(float(error) for error in range(-10, 10)),),))
    write_artifact(tmp_path / "models" / "default" / "1" / "model.onnx", errors=table, non_negative=True)
    with running(tmp_path / "models", tmp_path / "log") as service, service.client() as client:
        (interval,) = only(client.post(ONE, json={"window": [3, 2], "levels": [80]}))["intervals"]
        assert (interval["lower"], interval["upper"]) == ([0], [9])
        refused = client.post(ONE, json={"window": [3, 2], "samples": 1}).json()
        assert "whole paths of errors, of which the model's file has too few" in refused["errors"][0]["message"]
        facts = client.get("/models/default/versions/1").json()
        assert facts["non_negative"] is True
        assert facts["error_table"] == {
            "origins": 20,
            "lead_times": 1,
            "errors": 20,
            "highest_level": 90.4,
            "paths": False,
        }


def test_errors_of_logarithms_reach_so_many_times_as_far_as_the_forecast_is_large(tmp_path: Path) -> None:
    table = ErrorTable(origins=20, errors=((tuple(error / 10 for error in range(-10, 10)),),), paths=True)
    write_artifact(tmp_path / "models" / "default" / "1" / "model.onnx", errors=table, logarithms=True)
    with running(tmp_path / "models", tmp_path / "log") as service, service.client() as client:
        body = {"window": [2, 3], "levels": [80], "samples": 30, "seed": 0}
        forecast = only(client.post(ONE, json=body))
        (interval,) = forecast["intervals"]
        assert client.get("/models/default/versions/1").json()["logarithms"] is True
    assert forecast["values"] == [4]  # and the window's scale is 1
    assert interval["lower"] == pytest.approx([4 * np.exp(-0.9)])  # the second of twenty errors, and the last but one
    assert interval["upper"] == pytest.approx([4 * np.exp(0.8)])
    futures = np.ravel(forecast["samples"])
    assert np.log(futures / 4) * 10 == pytest.approx(np.round(np.log(futures / 4) * 10), abs=1e-3)


def test_a_model_may_say_that_errors_of_windows_own_pasts_are_too_small(tmp_path: Path) -> None:
    for version, inflation in (("1", 1.0), ("2", 1.5)):
        path = tmp_path / "models" / "default" / version / "model.onnx"
        write_artifact(path, "mean", error_inflation=inflation)
    with running(tmp_path / "models", tmp_path / "log") as service, service.client() as client:
        assert client.get("/models/default/versions/2").json()["error_inflation"] == 1.5
        body = {"window": noise(100), "levels": [80], "samples": 20, "seed": 0}
        plain, wider = (only(client.post(ONE, json=body | {"version": version})) for version in ("1", "2"))
    (value,) = plain["values"]
    assert wider["values"] == [value]
    for bound in ("lower", "upper"):
        margin = plain["intervals"][0][bound][0] - value
        assert wider["intervals"][0][bound][0] - value == pytest.approx(1.5 * margin, rel=1e-4)
    assert np.ravel(wider["samples"]) - value == pytest.approx(1.5 * (np.ravel(plain["samples"]) - value), rel=1e-3)


def test_sampled_futures_are_whole_paths_of_errors_of_one_origin(client: httpx.Client) -> None:
    body = {"window": [1, 2], "horizon": 3, "samples": 40, "seed": 3}
    forecast = only(client.post(MANY, json=body))
    assert list(forecast) == ["values", "samples", "samples_from"]
    assert forecast["samples_from"] == {"basis": "artifact", "errors": 59}
    assert len(forecast["samples"]) == 40
    for future in forecast["samples"]:
        error = future[0] - 3
        assert future == [3 + error, 4 + 2 * error, 5 + 3 * error]
    assert only(client.post(MANY, json=body)) == forecast
    assert only(client.post(MANY, json={**body, "seed": 4})) != forecast
    assert only(client.post(MANY, json={**body, "window": [[1], [2]], "samples": 1}))["samples"][0][0] != 3


def test_sums_over_the_horizon_are_as_uncertain_as_errors_that_go_together_make_them(client: httpx.Client) -> None:
    body = {"window": [1, 2], "horizon": 3, "samples": 1000, "seed": 0}
    sums = np.sum(only(client.post(MANY, json=body))["samples"], axis=1)
    # Errors of 1, 2 and 3 times a number from -29 to 29; drawn each for itself they would spread by 64.
    assert np.std(sums) == pytest.approx(6 * np.std(np.arange(-29, 30)), rel=0.05)


def test_a_fault_in_a_windows_past_is_told_of_that_window(roomy_client: httpx.Client) -> None:
    steep = [*noise(20), -3e38, *[3e38] * 7, *noise(120)]
    body = {"windows": [noise(120), steep], "horizon": 1, "levels": [80]}
    problem = roomy_client.post(MANY, json=body).json()
    assert (problem["status"], problem["errors"][0]["pointer"]) == (422, "/windows/1")
    alone = roomy_client.post(MANY, json={"window": steep, "horizon": 1, "levels": [80]}).json()
    assert alone["errors"][0]["pointer"] == "/window"


def test_an_answer_with_more_than_a_million_numbers_is_refused(roomy_client: httpx.Client) -> None:
    body = {"windows": [[1, 2]] * 600, "horizon": 3, "samples": 1000}
    (error,) = roomy_client.post(MANY, content=json.dumps(body)).json()["errors"]
    assert error["message"].startswith("asks for more than 1048576 numbers (windows × horizon × features × (1 + 2 ×")


def test_many_windows_are_answered_beside_the_event_loop(roomy_client: httpx.Client) -> None:
    windows = [noise(300, seed) for seed in range(60)]
    answer = roomy_client.post(MANY, json={"windows": windows, "horizon": 3, "levels": [50, 80, 95]}).json()
    for forecast in answer["forecasts"]:
        half, most, nearly_all = forecast["intervals"]
        assert [entry["basis"] for entry in (half, most, nearly_all)] == ["window"] * 3
        assert nearly_all["lower"] <= most["lower"] <= half["lower"] <= forecast["values"]
        assert nearly_all["upper"] >= most["upper"] >= half["upper"] >= forecast["values"]

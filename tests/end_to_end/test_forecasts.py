"""Forecasts, models and health over a real socket."""

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.engine import Engine
from tests.artifacts import write_artifact
from tests.end_to_end.process import PATIENCE, running


def test_a_window_is_answered_with_the_next_step(client: httpx.Client) -> None:
    response = client.post("/forecast", json={"window": [1, 2, 3.5]})
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "model": "default",
        "version": "10",
        "horizon": 1,
        "forecasts": [{"values": [4.75]}],
    }


def test_a_horizon_is_answered_with_as_many_steps(client: httpx.Client) -> None:
    answer = client.post("/forecast/multi-step", json={"window": [1, 2, 3], "horizon": 4}).json()
    assert answer["horizon"] == 4
    assert answer["forecasts"] == [{"values": [4, 5, 6, 7]}]


def test_windows_of_different_lengths_are_answered_in_their_order(client: httpx.Client) -> None:
    windows = [[1, 2], [5, 4, 3], [0, 0, 0, 0], [1, 3]]
    answer = client.post("/forecast/multi-step", json={"windows": windows, "horizon": 2}).json()
    assert [entry["values"] for entry in answer["forecasts"]] == [[3, 4], [2, 1], [0, 0], [5, 7]]


def test_rows_are_answered_with_rows_and_numbers_with_numbers(client: httpx.Client) -> None:
    answer = client.post("/forecast", json={"windows": [[[1], [2]], [1, 2]]}).json()
    assert [entry["values"] for entry in answer["forecasts"]] == [[[3]], [3]]


def test_several_features_are_forecast_side_by_side(client: httpx.Client) -> None:
    rows = [[1, 10, 100], [2, 20, 300]]
    answer = client.post("/forecast/multi-step", json={"model": "panel", "window": rows, "horizon": 2}).json()
    assert answer["forecasts"] == [{"values": [[3, 30, 500], [4, 40, 700]]}]


def test_a_window_longer_than_the_context_is_used_by_its_end(client: httpx.Client) -> None:
    end = [3, 1, 4, 1, 5, 9, 2, 6]
    long = client.post("/forecast", json={"window": [1000, -1000, *end], "model": "mean"}).json()
    assert long["forecasts"] == client.post("/forecast", json={"window": end, "model": "mean"}).json()["forecasts"]


def test_the_newest_version_answers_unless_another_is_named(client: httpx.Client) -> None:
    assert client.post("/forecast", json={"window": [1, 2]}).json()["version"] == "10"
    assert client.post("/forecast", json={"window": [1, 2], "version": "2"}).json()["version"] == "2"


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "application/merge-patch+json", "APPLICATION/JSON"]
)
def test_json_may_be_declared_in_several_ways(client: httpx.Client, content_type: str) -> None:
    response = client.post("/forecast", content='{"window": [1, 2]}', headers={"content-type": content_type})
    assert response.status_code == 200


def test_json_may_be_undeclared(client: httpx.Client) -> None:
    response = client.post("/forecast", content='{"window": [1, 2]}')
    assert "content-type" not in response.request.headers
    assert response.status_code == 200


def test_numbers_are_the_shortest_that_read_back_as_the_same_float(client: httpx.Client, models: Path) -> None:
    window = [20.7, 17.9, 18.8, 14.6, 15.8]
    text = client.post("/forecast/multi-step", json={"window": window, "horizon": 50}).text
    engine = Engine.open(models / "default" / "10" / "model.onnx")
    expected = engine.forecast(np.array(window, np.float32).reshape(1, -1, 1), 50).reshape(-1)
    written = json.loads(text, parse_float=str)["forecasts"][0]["values"]
    assert written == [str(value) for value in expected]


def test_one_origin_holds_for_all_windows(client: httpx.Client) -> None:
    body = {"windows": [[1, 2], [3, 4]], "horizon": 2, "origin": "2024-01-31", "frequency": "M"}
    answer = client.post("/forecast/multi-step", json=body).json()
    assert [entry["timestamps"] for entry in answer["forecasts"]] == [["2024-02-29", "2024-03-31"]] * 2


def test_a_list_of_origins_has_one_for_each_window(client: httpx.Client) -> None:
    body = {"windows": [[1, 2], [3, 4]], "origin": ["2024-01-31", "2024-12-31T12:00Z"], "frequency": "D"}
    answer = client.post("/forecast", json=body).json()
    assert [entry["timestamps"] for entry in answer["forecasts"]] == [["2024-02-01"], ["2025-01-01T12:00:00Z"]]


def test_the_models_own_frequency_is_used_unless_another_is_sent(client: httpx.Client) -> None:
    body = {"model": "panel", "window": [[1, 2, 3]] * 2, "origin": "2024-03-31T01:00:00+01:00[Europe/Berlin]"}
    own = client.post("/forecast", json=body).json()
    assert own["forecasts"][0]["timestamps"] == ["2024-03-31T03:00:00+02:00[Europe/Berlin]"]
    other = client.post("/forecast", json={**body, "frequency": "D"}).json()
    assert other["forecasts"][0]["timestamps"] == ["2024-04-01T01:00:00+02:00[Europe/Berlin]"]


def test_of_a_field_sent_twice_the_last_counts(client: httpx.Client) -> None:
    answer = client.post("/forecast", content='{"window": [1, 2], "window": [5, 6]}').json()
    assert answer["forecasts"] == [{"values": [7]}]


def test_many_timestamps_are_made_beside_the_event_loop(roomy_client: httpx.Client) -> None:
    origins = [f"2024-01-01T00:00:{second:02}Z" for second in range(60)]
    body = {"windows": [[1, 2]] * 60, "horizon": 100, "origin": origins, "frequency": "h"}
    answer = roomy_client.post("/forecast/multi-step", json=body).json()
    assert [entry["timestamps"][-1] for entry in answer["forecasts"]] == [
        f"2024-01-05T04:00:{second:02}Z" for second in range(60)
    ]


def test_an_answer_that_would_have_more_than_a_million_numbers_is_refused(roomy_client: httpx.Client) -> None:
    body = {"model": "panel", "windows": [[[1, 2, 3]] * 2] * 1000, "horizon": 1000}
    response = roomy_client.post("/forecast/multi-step", json=body)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["pointer"] == ""
    assert error["message"].startswith("asks for more than 1048576 numbers (windows × horizon × features)")


def test_the_models_are_listed_with_their_versions_and_the_files_that_are_not_served(client: httpx.Client) -> None:
    answer = client.get("/models").json()
    assert answer["default"] == "default"
    versions = {model["model"]: [version["version"] for version in model["versions"]] for model in answer["models"]}
    assert versions.pop("default") == ["10", "2", "1"]
    assert versions == {name: ["1"] for name in ("clock", "diary", "mean", "panel", "sales")}
    assert [entry["place"] for entry in answer["rejected"]] == ["broken/1"]
    assert "not an ONNX file" in answer["rejected"][0]["reason"]


def test_a_version_tells_what_its_artifact_says_of_itself(client: httpx.Client, models: Path) -> None:
    engine = Engine.open(models / "panel" / "1" / "model.onnx")
    facts = client.get("/models/panel/versions/1").json()
    assert facts["digest"] == engine.digest
    assert facts["features"] == list(engine.metadata.features)
    assert (facts["context_length"], facts["minimum_window"]) == (8, 2)
    assert (facts["frequency"], facts["carries_state"]) == ("h", True)
    assert facts["training"] == engine.metadata.training.model_dump(mode="json")
    alone = {"model": "panel", "stable": "1", "canary": None, "shadow": None, "versions": [facts]}
    assert client.get("/models/panel").json() == alone


def test_health_is_live_and_ready(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}


def test_every_kind_of_problem_is_explained(client: httpx.Client) -> None:
    kind = client.get("/problems/invalid-request").json()
    assert (kind["type"], kind["status"]) == ("/problems/invalid-request", 422)


def test_without_its_default_model_the_service_lives_but_is_not_ready(tmp_path: Path) -> None:
    write_artifact(tmp_path / "models" / "other" / "1" / "model.onnx", name="other")
    settings = {"default_model": "mine"}
    with running(tmp_path / "models", tmp_path / "log", **settings) as service, service.client() as client:
        response = client.get("/health/ready")
        assert response.status_code == 503
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["detail"] == "the default model is not there"
        assert client.get("/health/live").status_code == 200
        assert client.post("/forecast", json={"window": [1, 2], "model": "other"}).status_code == 200
        missing = client.post("/forecast", json={"window": [1, 2]})
        assert (missing.status_code, missing.json()["type"]) == (404, "/problems/not-found")


@pytest.mark.timeout(2 * PATIENCE)
def test_a_version_that_appears_is_served_without_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    write_artifact(folder / "default" / "1" / "model.onnx")
    with running(folder, tmp_path / "log", refresh_seconds=0.05) as service, service.client() as client:
        assert client.post("/forecast", json={"window": [1, 2]}).json()["version"] == "1"
        write_artifact(folder / "default" / ".2" / "model.onnx", version="2").parent.rename(folder / "default" / "2")
        while client.post("/forecast", json={"window": [1, 2]}).json()["version"] != "2":
            pass
        assert client.post("/forecast", json={"window": [1, 2], "version": "1"}).status_code == 200

"""The fitted models that come with the project are what they say, and are forecast from as they are."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.results import RESULTS
from service.artifact import DIGEST_NAME, FILE_NAME
from service.engine import Engine
from tests.end_to_end.process import running

ROOT = Path(__file__).parent.parent
SHIPPED = {"m4-hourly": "m4-hourly", "lab": "leadtime-season"}  # the model, and the row of its table


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_repeats_its_trial_forecast_and_is_the_one_that_was_scored(name: str) -> None:
    file = ROOT / "models" / name / "1" / FILE_NAME
    engine = Engine.open(file)
    assert engine.metadata.trial is not None
    assert engine.metadata.errors is not None
    assert file.stat().st_size <= 2_000_000
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.with_name(DIGEST_NAME).read_text().split() == [digest, FILE_NAME]
    rows = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    assert rows[SHIPPED[name]]["digests"] == [f"sha256:{digest}"]


def test_the_service_forecasts_from_the_models_as_they_are(tmp_path: Path) -> None:
    hours = np.arange(24 * 14)
    demand = (100 + 30 * np.sin(hours * 2 * np.pi / 24)).round(2).tolist()
    days = np.arange(390)
    noisy = (100 + 20 * np.cos(days * 2 * np.pi / 365)).round(2).tolist()
    with running(ROOT / "models", tmp_path / "log") as service, service.client() as client:
        body = {"model": "m4-hourly", "window": demand, "horizon": 48, "levels": [80, 95]}
        forecast = client.post("/forecast/multi-step", json=body).json()["forecasts"][0]
        lab = client.post("/forecast", json={"model": "lab", "window": noisy, "origin": "2003-06-30"}).json()
    ahead = 100 + 30 * np.sin(np.arange(24 * 14, 24 * 14 + 48) * 2 * np.pi / 24)
    assert np.abs(np.array(forecast["values"]) - ahead).max() < 5
    wide, wider = ([np.array(one[side]) for side in ("lower", "upper")] for one in forecast["intervals"])
    assert (wider[0] <= wide[0]).all()
    assert (wide[1] <= wider[1]).all()
    assert lab["forecasts"][0]["values"][0] == pytest.approx(100 + 20 * np.cos(390 * 2 * np.pi / 365), abs=25)

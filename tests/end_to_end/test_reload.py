"""Models come, go and break under a running service, and no request is lost over it.

A client asks on without a pause while files are put into the folder, well and badly; every answer must be a forecast,
from a version that was good, and never older than one that has answered before.
"""

import hashlib
import itertools
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.artifact import Trial
from tests.artifacts import Kind, write_artifact, write_broken_artifact
from tests.end_to_end.process import PATIENCE, Running, running

LINE = {"window": [1, 2, 3]}
ANSWERS = {"drift": 4.0, "mean": 2.0}
"""What the kinds forecast from the line."""

Changed = Callable[[], bool]


def put(folder: Path, place: str, kind: Kind = "drift", **options: Any) -> Path:
    """Put a version into its place as training does: as a folder that appears whole, with a digest."""
    coming = folder / f".coming-{place.replace('/', '-')}"
    path = write_artifact(coming / "model.onnx", kind, **options)
    digest_beside(path)
    return move(coming, folder / place) / "model.onnx"


def put_broken(folder: Path, place: str, fault: str) -> Path:
    coming = folder / f".coming-{place.replace('/', '-')}"
    write_broken_artifact(coming / "model.onnx", fault)
    return move(coming, folder / place) / "model.onnx"


def move(coming: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    return coming.rename(place)


def digest_beside(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    replace(path.with_name("model.onnx.sha256"), f"{digest}  model.onnx\n".encode())


def replace(path: Path, content: bytes) -> None:
    coming = path.with_name(f".{path.name}.coming")
    coming.write_bytes(content)
    coming.replace(path)


class Load:
    """A client that asks on and on, over new connections now and then, and keeps what it was told."""

    def __init__(self, service: Running) -> None:
        self.faults: list[str] = []
        self.answered: list[tuple[str, float]] = []
        self._url = service.url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    @property
    def versions(self) -> list[str]:
        """The versions that answered, without repeats."""
        return [version for version, _ in itertools.groupby(version for version, _ in self.answered)]

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stopping.is_set():
            with httpx.Client(base_url=self._url, timeout=PATIENCE) as client:
                for _ in range(20):
                    self._ask_once(client)
                    if self._stopping.wait(0.01):
                        return

    def _ask_once(self, client: httpx.Client) -> None:
        try:
            answer = client.post("/forecast", json=LINE)
        except httpx.HTTPError as error:
            self.faults.append(repr(error))
            return
        if answer.status_code != 200:
            self.faults.append(answer.text)
            return
        told = answer.json()
        self.answered.append((told["version"], told["forecasts"][0]["values"][0]))


@contextmanager
def under_load(models: Path, log: Path, **settings: object) -> Iterator[tuple[Running, Load, httpx.Client]]:
    with running(models, log, **settings) as service, service.client() as client, Load(service) as load:
        wait_until(lambda: len(load.answered) > 5)
        yield service, load, client
        seen = len(load.answered)
        wait_until(lambda: len(load.answered) > seen + 5)
    assert load.faults == []


def wait_until(condition: Changed) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rejected(client: httpx.Client) -> dict[str, str]:
    return {entry["place"]: entry["reason"] for entry in client.get("/models").json()["rejected"]}


def wait_until_rejected(client: httpx.Client, place: str) -> str:
    wait_until(lambda: place in rejected(client))
    return rejected(client)[place]


def wait_until_answered_by(load: Load, version: str) -> None:
    wait_until(lambda: load.answered[-1][0] == version)


def scraped(client: httpx.Client) -> dict[str, float]:
    return {
        " ".join([sample.name, *(value for _, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    put(folder, "default/1")
    return folder


# The folder is looked through so seldom that what is seen is seen because the file system told of it.
SELDOM = {"refresh_seconds": 10 * PATIENCE}


def test_new_versions_are_taken_up_as_soon_as_they_are_there_and_removed_ones_go_back(
    models: Path, tmp_path: Path
) -> None:
    with under_load(models, tmp_path / "log", versions=2, **SELDOM) as (_, load, client):
        put(models, "default/2", "mean")
        wait_until_answered_by(load, "2")
        put(models, "default/3")
        wait_until_answered_by(load, "3")
        assert [entry["version"] for entry in client.get("/models/default").json()["versions"]] == ["3", "2"]
        assert client.post("/forecast", json=LINE | {"version": "2"}).json()["version"] == "2"
        assert client.post("/forecast", json=LINE | {"version": "1"}).status_code == 404
        shutil.rmtree(models / "default" / "3")
        wait_until_answered_by(load, "2")
        assert client.post("/forecast", json=LINE | {"version": "1"}).json()["version"] == "1"
        found = scraped(client)
        assert found["leadtime_model_loads_total default loaded"] == 4
        assert found["leadtime_model_versions_served stable default 2"] == 1
        assert found["leadtime_model_versions_served stable default 3"] == 0
    assert load.versions == ["1", "2", "3", "2"]
    assert set(load.answered) == {("1", 4.0), ("2", 2.0), ("3", 4.0)}


def truncated(path: Path) -> None:
    replace(path, path.read_bytes()[:-300])
    digest_beside(path)


def of_another_digest(path: Path) -> None:
    path.with_name("model.onnx.sha256").write_text(f"{'0' * 64}  model.onnx\n")


def with_other_weights(path: Path) -> None:
    """A sound file, with the trial forecast of another."""
    trial = Trial(window=((1.0,), (2.0,), (3.0,)), forecast=((2.0,),))
    digest_beside(write_artifact(path, "drift", trial=trial))


BAD: dict[str, tuple[str | Callable[[Path], None], str]] = {
    "truncated": (truncated, "it is not an ONNX file, or it is cut short"),
    "wrong digest": (of_another_digest, "its digest is not the one in model.onnx.sha256"),
    "other trial forecast": (with_other_weights, "its trial forecast is not the one that is stored in it"),
    "wrong contract": ("contract 2", "this service reads contract version 1 only"),
    "no metadata": ("no metadata", "it has no metadata under the key 'leadtime'"),
    "another graph": ("wrong dtype", "input 'values' is float64 (any, any, 1), but must be float32 (any, any, 1)"),
    "external data": ("external data", "its weights lie in another file: save the model as one file"),
    "custom operator": ("custom operator", "its graph uses an operator that is not standard ONNX"),
    "rows that mix": ("mixed rows", "its forecast for one window depends on the other windows of the batch"),
}


def test_bad_files_leave_the_version_before_and_are_told_everywhere_once(models: Path, tmp_path: Path) -> None:
    with under_load(models, tmp_path / "log", **SELDOM) as (service, load, client):
        for version, (name, (breaking, reason)) in enumerate(BAD.items(), start=2):
            place = f"default/{version}"
            if isinstance(breaking, str):
                put_broken(models, place, breaking)
            else:
                coming = models / ".coming" / "model.onnx"
                digest_beside(write_artifact(coming))
                breaking(coming)
                move(coming.parent, models / place)
            told = wait_until_rejected(client, place)
            assert reason in told, name
            assert "\n" not in told
            assert str(tmp_path) not in told
        assert set(load.answered) == {("1", 4.0)}
        found = scraped(client)
        assert found["leadtime_model_loads_total default refused"] == len(BAD)
        assert found["leadtime_model_files_refused"] == len(BAD)
        put(models, "default/100", "mean")
        wait_until_answered_by(load, "100")
        log = service.log.read_text()
        assert "Traceback" not in log
        assert "watchfiles" not in log
        for version in range(2, 2 + len(BAD)):
            assert log.count(f"default/{version}: not served") == 1
    assert load.versions == ["1", "100"]


def test_a_served_file_that_is_spoilt_in_its_place_goes_on_answering_and_is_mended_there(
    models: Path, tmp_path: Path
) -> None:
    path = models / "default" / "1" / "model.onnx"
    with under_load(models, tmp_path / "log", **SELDOM) as (_, load, client):
        path.write_bytes(b"")
        assert wait_until_rejected(client, "default/1").endswith("(the file's former content is still served)")
        whole = write_artifact(tmp_path / "mean.onnx", "mean").read_bytes()
        with path.open("wb") as file:  # bit by bit, as no one should
            for begin in range(0, len(whole), 100):
                file.write(whole[begin : begin + 100])
                file.flush()
                time.sleep(0.01)
        assert client.post("/forecast", json=LINE).json()["forecasts"][0]["values"] == [4.0]
        digest_beside(path)
        wait_until(lambda: load.answered[-1][1] == ANSWERS["mean"])
        assert rejected(client) == {}
    assert set(load.answered) == {("1", 4.0), ("1", 2.0)}


def test_a_request_under_way_finishes_on_the_version_that_it_began_on(tmp_path: Path) -> None:
    models = tmp_path / "models"
    put(models, "default/1", "bidirectional", context_length=128)
    work = {"windows": [list(range(128))] * 64, "horizon": 400}
    with under_load(models, tmp_path / "log", versions=1, **SELDOM) as (service, load, _):
        answers: list[httpx.Response] = []
        thread = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{service.url}/forecast/multi-step", json=work, timeout=PATIENCE))
        )
        thread.start()
        time.sleep(0.2)
        put(models, "default/2")
        wait_until_answered_by(load, "2")
        assert not answers, "the long request was over too soon to show anything"
        shutil.rmtree(models / "default" / "1")
        thread.join()
        told = answers[0].json()
        assert (answers[0].status_code, told["version"]) == (200, "1")
        assert np.shape([entry["values"] for entry in told["forecasts"]]) == (64, 400)


def test_where_the_file_system_tells_of_nothing_the_folder_is_looked_through(tmp_path: Path) -> None:
    """A folder that is not there at the start cannot be watched."""
    models = tmp_path / "later"
    with running(models, tmp_path / "log", refresh_seconds=0.1) as service, service.client() as client:
        put(models, "lab/1")
        wait_until(lambda: client.get("/models/lab").status_code == 200)


def test_every_worker_takes_up_versions_and_labels_for_itself(models: Path, tmp_path: Path) -> None:
    with under_load(models, tmp_path / "log", workers=2, **SELDOM) as (service, _, client):
        wait_until(lambda: scraped(client)["leadtime_model_versions_served stable default 1"] == 2)
        put(models, "default/2", "mean")
        wait_until(lambda: scraped(client).get("leadtime_model_versions_served stable default 2") == 2)
        for _ in range(20):
            assert httpx.post(f"{service.url}/forecast", json=LINE, timeout=PATIENCE).json()["version"] == "2"
        replace(models / "default" / "labels.toml", b"stable = 1")
        wait_until(lambda: scraped(client)["leadtime_model_versions_served stable default 1"] == 2)
        for _ in range(20):
            assert httpx.post(f"{service.url}/forecast", json=LINE, timeout=PATIENCE).json()["version"] == "1"


def test_a_canary_answers_its_share_and_a_key_stays_with_its_version(models: Path, tmp_path: Path) -> None:
    put(models, "default/2", "mean")
    replace(models / "default" / "labels.toml", b"stable = 1\ncanary = { version = 2, share = 0.1 }\n")
    with running(models, tmp_path / "log", **SELDOM) as service, service.client() as client:
        counts: Counter[str] = Counter()
        for _ in range(2000):
            told = client.post("/forecast", json=LINE).json()
            counts[told["version"]] += 1
            assert told["forecasts"][0]["values"] == [{"1": 4.0, "2": 2.0}[told["version"]]]
        # 200 are expected, with a standard deviation of 13
        assert 130 < counts["2"] < 270
        by_key = {}
        for key in map(str, range(60)):
            found = {
                client.post("/forecast", json=LINE, headers={"X-Routing-Key": key}).json()["version"] for _ in range(3)
            }
            (by_key[key],) = found
        assert set(by_key.values()) == {"1", "2"}
        for label, version in (("stable", "1"), ("canary", "2")):
            told = client.post("/forecast", json=LINE | {"version": label}).json()
            assert told["version"] == version
        facts = client.get("/models/default").json()
        assert (facts["stable"], facts["canary"], facts["shadow"]) == ("1", {"version": "2", "share": 0.1}, None)
        assert client.get("/models/default/versions/canary").json()["version"] == "2"


def test_labels_that_cannot_be_heeded_are_told_and_those_of_before_go_on(models: Path, tmp_path: Path) -> None:
    put(models, "default/2", "mean")
    labels = models / "default" / "labels.toml"
    replace(labels, b"stable = 1\n")
    with under_load(models, tmp_path / "log", **SELDOM) as (service, load, client):
        replace(labels, b"stable = 1\ncanary = { version = 2, share = 5 }\n")
        told = wait_until_rejected(client, "default/labels.toml")
        assert told.startswith("canary.share must be a number from 0.0 to 1.0")
        replace(labels, b"stable = 2\n")
        wait_until_answered_by(load, "2")
        assert rejected(client) == {}
        assert service.log.read_text().count("default/labels.toml: not heeded") == 1
    assert load.versions == ["1", "2"]


def test_a_shadow_is_measured_and_answers_nobody(models: Path, tmp_path: Path) -> None:
    put(models, "default/2", "mean", context_length=16)
    replace(models / "default" / "labels.toml", b"stable = 1\nshadow = { version = 2 }\n")
    with running(models, tmp_path / "log", **SELDOM) as service, service.client() as client:
        for _ in range(20):
            assert client.post("/forecast", json=LINE).json()["version"] == "1"
        body = {"windows": [[1, 2, 3], [5, 5]], "horizon": 2}
        assert client.post("/forecast/multi-step", json=body).json()["version"] == "1"
        wait_until(lambda: scraped(client).get("leadtime_shadow_forecasts_total default compared") == 21)
        found = scraped(client)
        assert found["leadtime_shadow_difference_count default 2 1"] == 22
        # one step 4 against 2; two steps 4, 5 against 2, 2; a constant is the same to both
        assert found["leadtime_shadow_difference_sum default 2 1"] == pytest.approx(20 * 2 / 3 + 5 / 6.5)


def test_a_shadow_is_told_what_is_known_beforehand(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for version in ("1", "2"):
        put(models, f"sales/{version}", "informed", exogenous=("price",), context_length=8 * int(version))
    replace(models / "sales" / "labels.toml", b"stable = 1\nshadow = { version = 2 }\n")
    body = {"model": "sales", "window": [[1, 1]] * 12, "future": [2, 3], "horizon": 2}
    with running(models, tmp_path / "log", **SELDOM) as service, service.client() as client:
        assert client.post("/forecast/multi-step", json=body).json()["forecasts"][0]["values"] == [[3.0], [6.0]]
        wait_until(lambda: scraped(client).get("leadtime_shadow_forecasts_total sales compared") == 1)
        assert scraped(client)["leadtime_shadow_difference_sum sales 2 1"] == 0

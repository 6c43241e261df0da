"""What `docker compose --profile monitoring` sets up: sound files, pinned images, and queries after what is there."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.artifact import Range
from tests.artifacts import write_artifact
from tests.end_to_end.process import running

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "monitoring"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
RULES = yaml.safe_load((FOLDER / "rules.yml").read_text())
DASHBOARD = json.loads((FOLDER / "grafana/dashboards/leadtime.json").read_text())

# Of what happens only now and then: a name is there once it has.
SELDOM = (
    "leadtime_shadow_forecasts_total",
    "leadtime_shadow_difference_bucket",
    "leadtime_workers_replaced_total",
)


def queries() -> list[str]:
    """Every query of the dashboard and the rules."""
    of_panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return of_panels + [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]


def selected(query: str) -> Iterator[tuple[str, set[str]]]:
    """The series that a query is about, and the labels that it selects by."""
    for found in re.finditer(r"\b(leadtime_[a-z0-9_]+)(?:\{([^}]*)\})?", query):
        yield found[1], set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", found[2] or ""))


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The labels of every series of a service of two workers that has answered and refused, and keeps answers."""
    folder = tmp_path_factory.mktemp("monitored")
    write_artifact(folder / "models" / "default" / "1" / "model.onnx", ranges=(Range(low=0, high=9),))
    settings = {"workers": 2, "cache_bytes": 1 << 20}
    with running(folder / "models", folder / "log", **settings) as service, service.client() as client:
        assert client.post("/forecast", json={"window": [1, 2, 3]}).status_code == 200
        assert client.post("/forecast", json={"window": []}).status_code == 422
        text = client.get("/metrics").text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_there_are_queries() -> None:
    assert len(queries()) > 20


@pytest.mark.parametrize("query", queries())
def test_a_query_asks_for_series_and_labels_that_the_service_exposes(query: str, exposed: dict[str, set[str]]) -> None:
    names = list(selected(query))
    assert names or 'up{job="leadtime"}' in query
    for name, labels in names:
        if name not in SELDOM:
            assert name in exposed
            assert labels <= exposed[name], name
    for by in re.findall(r"\bby \(([^)]*)\)", query):
        wanted = {label.strip() for label in by.split(",")}
        have = set().union(*(exposed.get(name, wanted) for name, _ in names))
        assert wanted <= have


def test_names_are_those_of_prometheus_conventions(exposed: dict[str, set[str]]) -> None:
    for name in exposed:
        assert re.fullmatch(r"leadtime_[a-z][a-z0-9_]*", name)
        assert not re.search(r"_(ms|milliseconds|percent|count_total)$", name)


def test_every_series_is_in_the_documents_table(exposed: dict[str, set[str]]) -> None:
    document = (ROOT / "docs" / "observation.md").read_text()
    written = set(re.findall(r"^\| `(leadtime_[a-z_]+)`", document, re.MULTILINE))
    assert written == {re.sub(r"_(bucket|sum|count)$", "", name) for name in (*exposed, *SELDOM)}


def test_every_recorded_series_is_named_after_what_it_sums() -> None:
    recorded = [rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule]
    assert all(re.fullmatch(r"leadtime(:[a-z0-9_]+){2,}", name) for name in recorded)


def test_every_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    alerts = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) >= 5
    for rule in alerts:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_the_panels_do_not_overlap_and_ask_the_source_that_is_set_up() -> None:
    (source,) = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(0 <= x < 24 for x, _ in cells)
        taken |= cells
        assert {one["datasource"]["uid"] for one in (panel, *panel["targets"])} == {source["uid"]}
        assert len({one["refId"] for one in panel["targets"]}) == len(panel["targets"])


def test_images_are_pinned_and_what_is_mounted_is_there() -> None:
    services = {name: one for name, one in COMPOSE["services"].items() if one.get("profiles") == ["monitoring"]}
    assert set(services) == {"prometheus", "grafana"}
    for one in services.values():
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", one["image"])
        for mounted in one["volumes"]:
            source = mounted.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        assert all(port.startswith("127.0.0.1:") for port in one["ports"])
        assert one["cap_drop"] == ["ALL"]
    scraped = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (job,) = scraped["scrape_configs"]
    assert (job["job_name"], job["static_configs"]) == ("leadtime", [{"targets": ["service:8000"]}])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_own_tool_accepts_the_rules() -> None:
    told = subprocess.run(
        ["promtool", "check", "rules", FOLDER / "rules.yml"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr

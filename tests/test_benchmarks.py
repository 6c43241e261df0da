"""The benchmarks' own code: what is asked, how answers are read and checked, and what is made of the figures."""

import asyncio
import json
import math
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks import bare, panel, report
from benchmarks.inprocess import InProcess
from benchmarks.load import LoadError, log_uniform, lua, read_report
from benchmarks.memory import mixed_shapes, slope
from benchmarks.peer import ONE_STEP, SEVERAL_STEPS, peers
from benchmarks.plot import draw
from benchmarks.questions import HORIZON, TOLERANCE, WINDOW, as_values, differs, forecast, slid_forecast, to_service
from benchmarks.rates import ratio, summary
from benchmarks.servers import CEILING, REFERENCE, SERVICE, status_of
from service.app import BUNDLED, create_app
from service.engine import Engine
from service.settings import Settings

_MODEL = BUNDLED / "default" / "1" / "model.onnx"
_REPORT = {"requests": 3000, "microseconds": 1_500_000, "p50": 400, "p90": 700, "p99": 1500, "failed": 0}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.open(_MODEL)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> bare.Application:
    monkeypatch.setenv("BENCH_MODEL", str(_MODEL))
    return bare.reference()


async def _posted(application: Any, path: str, body: bytes) -> httpx.Response:
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post(path, content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize("horizon", [1, HORIZON])
def test_the_bare_reference_answers_what_the_service_answers(reference: bare.Application, horizon: int) -> None:
    question = to_service(WINDOW, horizon)
    service = create_app(Settings.from_environment({"LEADTIME_REFRESH_SECONDS": "0"}))

    async def both() -> tuple[httpx.Response, httpx.Response]:
        async with service.router.lifespan_context(service) as state:

            async def with_state(scope: Any, receive: Any, send: Any) -> None:
                await service({**scope, "state": dict(state or {})}, receive, send)

            return (
                await _posted(with_state, question.path, question.body),
                await _posted(reference, question.path, question.body),
            )

    wanted, found = asyncio.run(both())
    assert wanted.status_code == found.status_code == 200
    assert found.content == wanted.content


def test_the_ceiling_answers_an_empty_object() -> None:
    assert asyncio.run(_posted(bare.ceiling(), "/forecast", b"[]")).json() == {}


def test_onnxruntime_in_process_forecasts_what_the_engine_forecasts(engine: Engine) -> None:
    windows = np.concatenate([as_values(WINDOW), as_values(WINDOW[::-1])])
    found = InProcess(_MODEL).forecast_all(windows, 5, 1)
    np.testing.assert_allclose(found, engine.forecast(windows, 5)[:, :, 0], rtol=TOLERANCE)


def test_the_first_step_is_the_same_whether_the_state_is_carried_or_the_window_slid(engine: Engine) -> None:
    carried, slid = forecast(engine, WINDOW, HORIZON), slid_forecast(engine, WINDOW, HORIZON)
    assert differs(slid[:1], carried[:1]) is None
    assert len(slid) == len(carried) == HORIZON


def test_an_answer_that_is_off_by_more_than_the_tolerance_is_told_from_a_right_one() -> None:
    assert differs([1.0, 2.0], [1.0, 2.0 * (1 + TOLERANCE / 2)]) is None
    assert differs([1.0, 2.0], [1.0, 2.0 * (1 + TOLERANCE * 2)]) is not None
    assert differs([1.0], [1.0, 2.0]) == "1 numbers where 2 are due"
    assert differs([math.nan], [1.0]) is not None


def test_a_report_of_wrk_is_read_in_requests_a_second_and_milliseconds() -> None:
    load = read_report(f"Running 2s test\nRESULT {json.dumps(_REPORT)}\n")
    assert (load.rate, load.p50, load.p90, load.p99, load.requests) == (2000.0, 0.4, 0.7, 1.5, 3000)


@pytest.mark.parametrize(
    "output",
    ["unable to connect", *(f"RESULT {json.dumps(_REPORT | wrong)}" for wrong in ({"failed": 1}, {"requests": 0}))],
    ids=["no report", "failed requests", "no requests"],
)
def test_a_rate_with_failures_in_it_is_refused(output: str) -> None:
    with pytest.raises(LoadError):
        read_report(output)


def test_any_bytes_become_a_lua_string_of_plain_characters() -> None:
    assert lua(b'{"a": 1}') == '"{\\034a\\034: 1}"'
    assert lua(bytes([0, 92, 10, 255])) == '"\\000\\092\\010\\255"'


def test_log_uniform_horizons_span_the_range_and_are_short_as_often_as_long() -> None:
    horizons = log_uniform(96, 20_000)
    assert (min(horizons), max(horizons)) == (1, 96)
    assert 0.14 < horizons.count(1) / len(horizons) < 0.16
    assert 0.45 < sum(horizon < 10 for horizon in horizons) / len(horizons) < 0.55


def test_a_slope_is_that_of_the_second_half_alone() -> None:
    counts = list(range(0, 20_000, 1000))
    warming_up = [50.0 + step for step in range(10)]
    flat = slope(counts, [*warming_up, *[60.0] * 10])
    assert flat == {"bytes_per_thousand": 0.0, "standard_error": 0.0}
    rising = slope(counts, [*warming_up, *(60.0 + 0.01 * step for step in range(10))])
    assert rising["bytes_per_thousand"] == pytest.approx(10_000)
    assert slope([0, 10], [1.0, 1.0])["bytes_per_thousand"] is None


def test_mixed_shapes_are_all_answered(reference: bare.Application) -> None:
    shapes = [json.loads(question.body) for question in mixed_shapes()]
    assert {len(shape["windows"]) for shape in shapes} == set(range(1, 9))
    lengths = [len(window) for shape in shapes for window in shape["windows"]]
    assert min(lengths) >= 8
    assert max(lengths) > 30


def test_each_form_of_each_peer_asks_for_the_same_window_and_reads_its_own_answer() -> None:
    for peer in peers():
        for form in peer.forms:
            assert set(form.questions) <= {ONE_STEP, SEVERAL_STEPS}
            for load, question in form.questions.items():
                if "binary" in form.name or "bytes" in form.name:
                    assert struct.pack("<f", WINDOW[0]) in question.body, (peer.name, form.name)
                else:
                    assert json.dumps(WINDOW).encode() in question.body, (peer.name, form.name, load)


def test_binary_answers_are_read_after_their_json() -> None:
    (triton,) = [peer for peer in peers() if peer.name == "Triton"]
    (form,) = [form for form in triton.forms if form.name == "binary tensors"]
    question = form.questions[SEVERAL_STEPS]
    head = int(question.headers["inference-header-content-length"])
    assert json.loads(question.body[:head])["inputs"][1]["name"] == "horizon"
    assert struct.unpack("<i", question.body[-4:]) == (HORIZON,)
    answer = b'{"outputs": []}'
    headers = {"inference-header-content-length": str(len(answer))}
    assert list(question.read(headers, answer + struct.pack("<2f", 1.5, -2.0))) == [1.5, -2.0]


def test_the_memory_of_a_process_is_read_in_megabytes() -> None:
    assert 10 < status_of(os.getpid(), "VmRSS") < 10_000
    assert status_of(2**22 + 1, "VmRSS") == 0.0


def test_a_ratio_is_the_median_of_the_ratios_within_the_rounds() -> None:
    assert ratio([10, 30, 100], [10, 10, 10]) == 3


def _rounds(rate: float) -> dict[str, Any]:
    loads = [read_report(f"RESULT {json.dumps(_REPORT | {'requests': int(rate * factor)})}") for factor in (1, 2, 3)]
    return summary({"one": loads})["one"]


@pytest.fixture
def found() -> dict[str, Any]:
    names = [SERVICE, REFERENCE, CEILING, "Triton: JSON", "LitServe: one by one", "LitServe, batched: batches of 16"]
    one = {name: _rounds(6000 / place) for place, name in enumerate(names, 1)}
    several = {**one, "Triton: JSON, state carried": _rounds(1200)}
    loads = {f"{model}, {load}": {"16": by, "64": by} for model in ("uni", "bi") for load, by in _loads(one, several)}
    machine = {
        **{"processor": "a processor", "cores": 2, "kernel": "Linux 6", "python": "3.11.7", "commit": "abc"},
        "load_before": 0.5,
        **{"wrk": "wrk 4.1.0 Copyright", "libraries": {"onnxruntime": "1.31.1"}},
    }
    return {
        **{"loads": loads, "machine": machine, "date": "2024-01-01 00:00 UTC", "rounds": 3, "seconds": 2},
        **{
            "failed": {"KServe": "could not be installed: no wheel"},
            "restarts": {"Triton": 1},
            "idle": {"Triton": 0.01},
        },
        **{"versions": {"Triton": {"nvidia-pytriton": "0.7.0"}}, "memory": {"uni": 104.2}},
        **{"in_process": {"uni": {"batch 16": {"1": 50_000.0, "24": 9_000.0}, "batch 1": {"1": 9_000.0, "24": 900.0}}}},
    }


def _loads(one: dict[str, Any], several: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield ONE_STEP, one
    yield SEVERAL_STEPS, several


def test_of_each_server_the_best_form_counts_and_a_carried_state_is_told_apart(found: dict[str, Any]) -> None:
    best = report.best(found["loads"][f"uni, {SEVERAL_STEPS}"]["16"])
    assert list(best) == [SERVICE, REFERENCE, CEILING, "Triton", "LitServe", "Triton, state carried"]
    assert best["LitServe"]["rate"] == 1600.0


def test_the_document_has_every_figure_as_a_ratio_and_says_what_failed(found: dict[str, Any]) -> None:
    written = report.document(found, found, {})
    assert "| Triton | 2,000 (4.00 ×) | 2,000 (4.00 ×) |" in written
    assert "| **Leadtime** | 8,000 | 8,000 | 8,000 | 8,000 |" in written
    assert "KServe could not be measured: could not be installed: no wheel" in written
    assert "Triton died 1 time and was started anew" in written
    assert "| uni, 24 steps | 9,000 | 900 |" in written


def test_the_document_leaves_out_what_was_not_measured(found: dict[str, Any]) -> None:
    assert "Beside other servers" not in report.document(None, found, {})
    assert "Beside its references" not in report.document(found, None, {})


def test_the_document_tells_how_fast_training_is(found: dict[str, Any]) -> None:
    speed = {
        **{"clock": {"leadtime": [30.0, 20.0, 10.0], "keras": [3.0, 2.0, 5.0]}, "epochs": 8, "windows": 4000},
        **{"processor": {"leadtime": [40.0], "keras": [4.0]}, "tensorflow": "2.21.0"},
        **{"machine": found["machine"], "date": found["date"]},
    }
    written = report.document(found, found, {"training speed": speed})
    assert "| by the clock | 20 | 3 | 10.00 × |" in written
    assert "| by processor time | 40 | 4 | 10.00 × |" in written


def test_the_memory_that_a_panel_takes_is_measured_and_told(found: dict[str, Any]) -> None:
    measured = panel.measure([2])
    (small,) = measured["panels"]
    assert small["rows"] == 2 * panel.LENGTH
    assert small["bytes"] > 10 * small["rows"]
    assert 100 < small["megabytes"] < 2000

    about = {"machine": found["machine"], "date": found["date"]}
    written = report.document(found, found, {"panel": {**about, **measured}})
    assert f"| 2 | 2,000 | 0 MB | {small['megabytes']:,.0f} MB |" in written


def test_the_document_tells_what_keeping_answers_saves(found: dict[str, Any]) -> None:
    one = {"rate": 5000.0, "p50": 3.0, "p99": 4.0, "ratio": 1.0}
    services = {"none kept": one, "kept": {**one, "rate": 20_000.0, "ratio": 4.0, "found": 0.999}}
    machine = {**found["machine"], "commit": "another"}
    kept = {"steps": 24, "windows": 1024, "services": services, "machine": machine, "date": found["date"]}
    written = report.document(found, found, {"cache": kept})
    assert re.search(r"^\| cache \|.*\| another \|$", written, re.MULTILINE), "each part has a version of its own"
    assert "| none kept | 5,000 | 1.00 × | 3.00, 4.00 | – |" in written
    assert "| kept | 20,000 | 4.00 × | 3.00, 4.00 | 99.9% |" in written


def test_the_plot_has_a_bar_for_each_server_but_the_ceiling(found: dict[str, Any], tmp_path: Path) -> None:
    bars = report.bars(found["loads"])
    assert [name for name, _, _ in bars[ONE_STEP]] == [SERVICE, REFERENCE, "Triton", "LitServe"]
    draw(bars, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")

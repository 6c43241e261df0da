"""The engine: artifacts are proven before they are used, and forecasts are those of the graph."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact import Trial
from service.engine import Engine
from service.errors import ArtifactError
from tests.artifacts import FAULTS, Kind, LstmReference, write_artifact, write_broken_artifact

KINDS: list[Kind] = ["drift", "lstm", "mean", "bidirectional"]
CONTEXT = 8

BROKEN = {
    "no metadata": "it has no metadata under the key 'leadtime'",
    "unreadable metadata": "its metadata is wrong at document",
    "contract 2": "this service reads contract version 1 only",
    "metadata contradicts the graph": "input 'values' is float32 (any, any, 1), but must be float32 (any, any, 3)",
    "wrong dtype": "input 'values' is float64 (any, any, 1), but must be float32 (any, any, 1)",
    "missing output": "output 'next_state' is missing",
    "unknown output": "output 'last' is not in the contract",
    "fixed batch": "input 'values' is float32 (1, any, 1), but must be float32 (any, any, 1)",
    "custom operator": "its graph uses an operator that is not standard ONNX",
    "unknown operator": "its graph uses an operator that is not standard ONNX",
    "external data": "its weights lie in another file: save the model as one file",
    "external data in a branch": "its weights lie in another file: save the model as one file",
    "weights in memory": "its weights lie in another file: save the model as one file",
    "custom operator in a branch": "its graph uses an operator that is not standard ONNX",
    "another trial": "its trial forecast is not the one that is stored in it",
    "failing run": "its graph fails on values of shape (2, 1, 1) (InvalidArgument)",
    "mixed rows": "its forecast for one window depends on the other windows of the batch",
    "wrong shape": "its output 'forecast' has the shape (2, 2) where (2, 1) is due",
    "not finite": "its output 'forecast' is not finite for a plain rising line",
    "newer ONNX": "it is of a newer ONNX version than onnxruntime",
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Kind, int], Engine]:
    folder = tmp_path_factory.mktemp("engines")
    return {
        (kind, features): Engine.open(
            write_artifact(folder / f"{kind}{features}.onnx", kind, features=features, context_length=CONTEXT)
        )
        for kind in KINDS
        for features in (1, 3)
    }


def drawn(seed: int, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(5.0, 3.0, shape).astype(np.float32)


def fault_of(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        Engine.open(path)
    return str(caught.value)


def test_an_engine_tells_what_its_artifact_says(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "model.onnx", "lstm", features=2, name="lab", context_length=5, minimum_window=3)
    engine = Engine.open(path)
    assert (engine.context_length, engine.minimum_window, engine.features, engine.state_size) == (5, 3, 2, 11)
    assert engine.metadata.name == "lab"
    assert engine.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_straight_line_goes_on_straight(engines: dict[tuple[Kind, int], Engine]) -> None:
    window = np.array([[[1], [2], [3]]], np.float32)
    assert engines["drift", 1].forecast(window, 3).ravel().tolist() == [4, 5, 6]


def test_the_mean_slides_over_its_own_forecasts(engines: dict[tuple[Kind, int], Engine]) -> None:
    window = np.array([[[1], [2], [6]]], np.float32)
    assert engines["mean", 1].forecast(window, 3).ravel().tolist() == [3, 3, 3]
    full = np.arange(1, CONTEXT + 1, dtype=np.float32).reshape(1, CONTEXT, 1)
    first, second = engines["mean", 1].forecast(full, 2).ravel().tolist()
    assert first == full.mean()
    assert second == pytest.approx((full.sum() - 1 + first) / CONTEXT)


@given(
    length=st.integers(2, 2 * CONTEXT),
    horizon=st.integers(1, 40),
    batch=st.sampled_from([1, 3, 64]),
    features=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_prefill_and_decode_of_an_lstm_are_its_recurrence(
    engines: dict[tuple[Kind, int], Engine], length: int, horizon: int, batch: int, features: int, seed: int
) -> None:
    windows = drawn(seed, batch, length, features)
    found = engines["lstm", features].forecast(windows, horizon)
    reference = LstmReference(features)
    for row in (0, batch - 1):
        expected = reference.forecast(windows[row], horizon, CONTEXT)
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-4)


def test_a_state_carries_the_same_recurrence_however_the_window_is_cut(tmp_path: Path) -> None:
    """With a window of |values| that stay 3, the scale of any part is that of the whole."""
    engine = Engine.open(write_artifact(tmp_path / "model.onnx", "lstm"))
    window = np.where(drawn(0, 2, 8, 1) > 5.0, 3.0, -3.0).astype(np.float32)
    state, forecasts = None, []
    for start, stop in ((0, 3), (3, 4), (4, 8)):
        forecast, state, _ = engine.run(np.ascontiguousarray(window[:, start:stop]), state)
        forecasts.append(forecast)
    np.testing.assert_allclose(forecasts[-1], engine.run(window).forecast, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_window_longer_than_the_context_the_end_counts(
    engines: dict[tuple[Kind, int], Engine], kind: Kind
) -> None:
    windows = drawn(1, 2, CONTEXT + 5, 1)
    engine = engines[kind, 1]
    assert np.array_equal(engine.forecast(windows, 4), engine.forecast(windows[:, -CONTEXT:], 4))


@pytest.mark.parametrize("kind", ["informed", "informed_mean"])
def test_what_is_known_of_each_step_goes_into_its_forecast(tmp_path: Path, kind: Kind) -> None:
    engine = Engine.open(write_artifact(tmp_path / "model.onnx", kind, exogenous=("price",), context_length=CONTEXT))
    windows, known = drawn(10, 40, CONTEXT + 2, 1), drawn(11, 40, CONTEXT + 2 + 2, 1)
    found = engine.forecast(windows, 3, known)
    series = windows[..., 0].astype(np.float64)
    for step in range(3):
        end = series.shape[1]
        used = slice(end - 1, end) if kind == "informed" else slice(end - CONTEXT, end)
        told = known[:, used, 0].mean(axis=1)
        np.testing.assert_allclose(found[:, step, 0], series[:, used].mean(axis=1) + told, rtol=1e-4)
        series = np.concatenate((series, found[:, step].astype(np.float64)), axis=1)


def test_known_inputs_of_another_shape_are_refused_naming_that_which_is_due(
    engines: dict[tuple[Kind, int], Engine], tmp_path: Path
) -> None:
    engine = Engine.open(write_artifact(tmp_path / "model.onnx", "informed", exogenous=("price",)))
    for known in (None, drawn(0, 2, 5, 1), drawn(0, 2, 6, 2)):
        with pytest.raises(ValueError, match=r"^what is known must be of shape \(2, 6, 1\)$"):
            engine.forecast(drawn(1, 2, 4, 1), 3, known)
    with pytest.raises(ValueError, match=r"^what is known must be of shape None$"):
        engines["drift", 1].forecast(drawn(1, 2, 4, 1), 3, drawn(0, 2, 6, 1))


def test_outputs_have_one_row_a_window(engines: dict[tuple[Kind, int], Engine]) -> None:
    step = engines["lstm", 3].run(drawn(2, 5, 4, 3))
    assert step.next_state is not None
    assert step.scale is not None
    assert (step.forecast.shape, step.next_state.shape, step.scale.shape) == ((5, 3), (5, 12), (5, 3))


def test_a_model_whose_window_is_slid_has_no_state_and_perhaps_no_scale(
    engines: dict[tuple[Kind, int], Engine],
) -> None:
    mean, bidirectional = (engines[kind, 1].run(drawn(3, 2, 4, 1)) for kind in ("mean", "bidirectional"))
    assert mean.next_state is None
    assert mean.scale is not None
    assert bidirectional.next_state is None
    assert bidirectional.scale is None


def test_no_state_stands_for_a_fresh_one(engines: dict[tuple[Kind, int], Engine]) -> None:
    engine = engines["lstm", 1]
    fresh = np.zeros((2, engine.state_size), np.float32)
    windows = drawn(4, 2, 6, 1)
    assert np.array_equal(engine.run(windows).forecast, engine.run(windows, fresh).forecast)


def test_more_windows_than_are_run_together_are_all_forecast(engines: dict[tuple[Kind, int], Engine]) -> None:
    windows = drawn(5, 100, 6, 1)
    alone = np.concatenate([engines["lstm", 1].forecast(window[None], 3) for window in windows])
    np.testing.assert_allclose(engines["lstm", 1].forecast(windows, 3), alone, rtol=1e-5, atol=1e-5)


def test_a_window_shorter_than_the_minimum_is_refused_naming_both_lengths(
    engines: dict[tuple[Kind, int], Engine],
) -> None:
    with pytest.raises(ValueError, match=r"^windows of 1 steps; at least 2 are needed$"):
        engines["drift", 1].forecast(drawn(6, 1, 1, 1), 1)


def test_a_horizon_below_one_is_refused(engines: dict[tuple[Kind, int], Engine]) -> None:
    with pytest.raises(ValueError, match=r"^horizon must be at least 1$"):
        engines["drift", 1].forecast(drawn(7, 1, 4, 1), 0)


def test_a_run_that_fails_is_an_artifact_error_of_its_shapes(engines: dict[tuple[Kind, int], Engine]) -> None:
    with pytest.raises(ArtifactError, match=r"^its graph fails on values of shape \(1, 4, 2\) \(InvalidArgument\)$"):
        engines["drift", 1].run(drawn(8, 1, 4, 2))


@pytest.mark.parametrize(("fault", "message"), BROKEN.items(), ids=BROKEN)
def test_a_broken_artifact_is_refused_in_plain_words(tmp_path: Path, fault: str, message: str) -> None:
    found = fault_of(write_broken_artifact(tmp_path / "model.onnx", fault))
    assert message in found
    assert str(tmp_path) not in found
    assert "onnxruntime_src" not in found


def test_every_way_of_breaking_an_artifact_is_tried() -> None:
    assert BROKEN.keys() == FAULTS.keys()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "model.onnx") == "it cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b"not a model", "it is not an ONNX file, or it is cut short", id="text"),
        pytest.param(b"\x08\x0a", "it is not an ONNX file, or it is cut short", id="no graph"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert fault_of(path) == message


@given(st.floats(0.01, 0.99))
@settings(max_examples=25)
def test_a_file_that_is_cut_short_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = write_artifact(tmp_path_factory.mktemp("cut") / "model.onnx", "lstm")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    fault_of(path)


def test_metadata_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    content = write_artifact(tmp_path / "model.onnx").read_bytes()
    with pytest.raises(ArtifactError, match="its metadata, or a name in its graph, is not text in UTF-8"):
        Engine.load(content.replace(b"A drift model", b"A dr\xefft model"))


def test_weights_in_the_working_directory_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_broken_artifact(tmp_path / "model.onnx", "external data")
    (tmp_path / "weights.bin").write_bytes(np.ones(1024, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    assert fault_of(path) == "its weights lie in another file: save the model as one file"


LINE = Trial(window=((1.0,), (2.0,), (3.0,)), forecast=((4.0,), (5.0,)))


def test_an_artifact_that_repeats_its_trial_forecast_is_opened(tmp_path: Path) -> None:
    engine = Engine.open(write_artifact(tmp_path / "model.onnx", trial=LINE))
    assert engine.metadata.trial == LINE


@pytest.mark.parametrize("known", [((2.0,), (3.0,), (4.0,), (5.0,)), None], ids=["told", "not told"])
def test_a_trial_tells_what_is_known_where_the_graph_takes_it(
    tmp_path: Path, known: tuple[tuple[float, ...], ...] | None
) -> None:
    trial = Trial(window=LINE.window, known=known, forecast=((7.0,), (12.0,)))
    path = write_artifact(tmp_path / "model.onnx", "informed", exogenous=("price",), trial=trial)
    if known is None:
        assert "the trial's known steps are not those that the graph takes" in fault_of(path)
    else:
        assert Engine.open(path).metadata.trial == trial


@pytest.mark.parametrize(("error", "is_sound"), [(0.001, True), (0.01, False)])
def test_a_trial_forecast_may_differ_by_a_thousandth_of_the_windows_range(
    tmp_path: Path, error: float, is_sound: bool
) -> None:
    trial = Trial(window=LINE.window, forecast=((4.0,), (5.0 + error,)))
    path = write_artifact(tmp_path / "model.onnx", trial=trial)
    if is_sound:
        Engine.open(path)
    else:
        assert fault_of(path).startswith("its trial forecast is not the one that is stored in it")


def test_weights_that_were_changed_after_export_are_noticed(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "model.onnx", "lstm", seed=1)
    window = LINE.window
    forecast = Engine.open(path).forecast(np.array([window], np.float32), 3)[0]
    trial = Trial(window=window, forecast=tuple(tuple(map(float, row)) for row in forecast))
    Engine.open(write_artifact(path, "lstm", seed=1, trial=trial))
    assert "trial forecast" in fault_of(write_artifact(path, "lstm", seed=2, trial=trial))


def test_an_artifact_may_be_removed_once_it_is_open(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "model.onnx")
    engine = Engine.open(path)
    path.unlink()
    assert engine.forecast(np.array([[[1], [2]]], np.float32), 1).item() == 3


def test_the_engine_needs_nothing_of_training() -> None:
    names = "tensorflow keras onnx pandas training"
    program = f"import sys, service.engine; sys.exit(any(name in sys.modules for name in '{names}'.split()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

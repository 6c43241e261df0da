"""Keras to ONNX: recording the graph, the check that both compute the same, and writing the artifact."""

import os
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from service.artifact import (
    FORECAST,
    KNOWN,
    METADATA_KEY,
    NEXT_STATE,
    SCALE,
    STATE,
    VALUES,
    Metadata,
    Trial,
    read_metadata,
)
from service.calendar import calendar_of
from service.engine import Engine, Step
from service.errors import ArtifactError
from service.window import Values
from training.errors import ExportError
from training.model import Forecaster
from training.native import Recorder

TOLERANCE: Final = 1e-4  # relative, of every forecast, state and scale
_DECODED: Final = 3
_TRIAL_SEED: Final = 1
_TRIAL_LENGTH: Final = 48


def export(network: Forecaster, metadata: Metadata, path: Path) -> None:
    """Write a network as an artifact, once its graph is proven to compute what Keras computes.

    Args:
        network: the fitted network.
        metadata: what the artifact is to say of itself.
        path: the file to write; it appears whole or not at all.

    Raises:
        ExportError: the graph breaks the contract, or computes something else.
    """
    graph = convert(network)
    unfinished = path.with_name(f".{path.name}.unchecked")
    try:
        _save(graph, metadata, unfinished)
        try:
            engine = Engine.open(unfinished)
        except ArtifactError as error:
            raise ExportError(f"the exported graph breaks the contract: {error}") from error
        check_parity(network, engine)
        _save(graph, metadata.model_copy(update={"trial": _trial(network, engine)}), unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_metadata(path: Path, metadata: Metadata) -> None:
    """Replace the metadata of an artifact, atomically; its trial forecast is the graph's, and stays."""
    unfinished = path.with_name(f".{path.name}.part")
    graph = onnx.load(path)
    trial = read_metadata({prop.key: prop.value for prop in graph.metadata_props}).trial
    _save(graph, metadata.model_copy(update={"trial": trial}), unfinished)
    unfinished.replace(path)


def convert(network: Forecaster) -> onnx.ModelProto:
    """Record a network as an ONNX graph of the contract's tensors, each recurrent layer one native node."""
    recorder = Recorder(network.network)
    row, size = ("batch", network.features), network.state_size
    inputs: dict[str, tuple[str | int, ...]] = {VALUES: ("batch", "time", network.features)}
    if size:
        inputs[STATE] = ("batch", size)
    if network.known.count:
        inputs[KNOWN] = ("batch", "time", network.known.count)
    symbols = {name: recorder.input(name) for name in inputs}
    forecast, next_state, scale = network.step(symbols[VALUES], symbols.get(STATE), recorder, known=symbols.get(KNOWN))
    outputs = {FORECAST: (forecast, row), SCALE: (scale, row)}
    if size:
        outputs[NEXT_STATE] = (next_state, ("batch", size))
    return recorder.model(inputs, outputs)


def check_parity(network: Forecaster, engine: Engine) -> None:
    """Compare Keras with onnxruntime, at two batch sizes and lengths.

    What a whole window gives is compared; then, where the state is carried, observed values passed one by one, and
    forecasts fed back, or handed out where the horizon is forecast at once.

    Raises:
        ExportError: they differ by more than `TOLERANCE`, naming the tensor, the shape and the difference.
    """
    rng = np.random.default_rng(0)
    for batch, length in ((1, engine.context_length), (3, engine.minimum_window)):
        values = _example(rng, batch, length + _DECODED, network.features)
        place = f"batch {batch}, window {length}"
        known = _example_of_known(rng, network, batch, length + _DECODED)
        within, beyond = (None, None) if known is None else (known[:, :length], known[:, length:])
        step = _check_window(network, engine, values[:, :length], within, place)
        inner = network.inward(values)
        if network.direct or step.next_state is None:
            fitted = np.asarray(network.outward(network.ahead(inner[:, :length], known=within)[0]))
            _check_iterated(engine, fitted if engine.state_size else fitted[:, :1], beyond, step, place)
        else:
            along, rolled, _ = network.sequence(inner, length, free=_DECODED, known=known)
            following = np.asarray(network.outward(along))[:, length - 1 :]
            _check_observed(engine, values[:, length:], following, beyond, step, place)
            _check_iterated(engine, np.asarray(network.outward(rolled)), beyond, step, place)


def _check_window(network: Forecaster, engine: Engine, window: Values, known: Values | None, place: str) -> Step:
    fresh = np.zeros((len(window), network.state_size), np.float32) if network.state_size else None
    step = engine.run(window, fresh, known)
    wanted = [None if part is None else np.asarray(part) for part in network.step(window, fresh, known=known)]
    for name, found, part in zip((FORECAST, NEXT_STATE, SCALE), step, wanted, strict=True):
        if part is not None:
            _compare(f"{name} after a window ({place})", found, part)
    return step


def _check_observed(
    engine: Engine, observed: Values, fitted: Values, known: Values | None, step: Step, place: str
) -> None:
    """Observed values, one by one: what is served reads on as what was fitted does."""
    for ahead in range(fitted.shape[1]):
        _compare(f"forecast {ahead} observed steps after a window ({place})", step.forecast, fitted[:, ahead])
        if ahead < observed.shape[1]:
            step = engine.run(observed[:, ahead : ahead + 1], step.next_state, _at(known, ahead))


def _check_iterated(engine: Engine, fitted: Values, known: Values | None, step: Step, place: str) -> None:
    """Forecasts passed one by one: what fitting forecasts from a window's end."""
    for ahead in range(fitted.shape[1]):
        _compare(f"forecast {ahead + 1} steps after a window ({place})", step.forecast, fitted[:, ahead])
        if ahead + 1 < fitted.shape[1]:
            step = engine.run(step.forecast[:, None], step.next_state, _at(known, ahead))


def _at(known: Values | None, ahead: int) -> Values | None:
    return None if known is None else known[:, ahead : ahead + 1]


def _compare(what: str, found: npt.NDArray[np.float32] | None, wanted: npt.NDArray[np.float32]) -> None:
    if found is None or found.shape != wanted.shape:
        raise ExportError(f"{what}: the exported graph gives another shape than Keras")
    difference = float(np.max(np.abs(found - wanted) / (np.abs(wanted) + 1.0)))
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{what}: the exported graph differs from Keras by {difference:.1e} (relative), more than {TOLERANCE:.0e}"
        )


def _example(rng: np.random.Generator, batch: int, length: int, features: int) -> npt.NDArray[np.float32]:
    """Series with a level, a season and noise, such that no two lags are equally good."""
    time = np.arange(length)[None, :, None]
    season = 3.0 * np.sin(2 * np.pi * time / rng.integers(5, 30, (batch, 1, features)))
    return (10.0 + season + rng.standard_normal((batch, length, features))).astype(np.float32)


def _example_of_known(rng: np.random.Generator, network: Forecaster, batch: int, length: int) -> Values | None:
    """What may be known of the steps of such series: days and hours far apart, and columns around their middle."""
    known = network.known
    if not known.count:
        return None
    moments = np.datetime64("2000-01-01", "s") + rng.integers(0, 2**30, batch * length).astype("timedelta64[s]")
    columns = np.array(known.centres) + np.array(known.sizes) * rng.standard_normal((batch * length, known.columns))
    both = np.concatenate((calendar_of(moments, known.calendar), columns), axis=1)
    return both.astype(np.float32).reshape(batch, length, known.count)


def _trial(network: Forecaster, engine: Engine) -> Trial:
    """A window in few digits, and what is computed of it now."""
    rng = np.random.default_rng(_TRIAL_SEED)
    length = max(engine.minimum_window, min(engine.context_length, _TRIAL_LENGTH))
    window = _example(rng, 1, length, network.features).round(2)
    known = _example_of_known(rng, network, 1, length + _DECODED)
    forecast = engine.forecast(window, _DECODED + 1, known)
    return Trial(
        window=_in_digits(window[0]),
        known=None if known is None else _in_digits(known[0]),
        forecast=_in_digits(forecast[0]),
    )


def _in_digits(rows: Values) -> tuple[tuple[float, ...], ...]:
    """32-bit floats as the shortest decimals that read back the same."""
    return tuple(tuple(float(str(number)) for number in row) for row in rows)


def _save(graph: onnx.ModelProto, metadata: Metadata, path: Path) -> None:
    del graph.metadata_props[:]
    graph.metadata_props.add(key=METADATA_KEY, value=metadata.model_dump_json())
    with path.open("wb") as stream:
        stream.write(graph.SerializeToString())
        stream.flush()
        os.fsync(stream.fileno())

"""Small real ONNX artifacts for tests: built in milliseconds, forecasts that can be worked out by hand or in numpy.

    kind            state    forecast
    drift           carried  last value + mean step between the window's first and last value (a straight line)
    lstm            carried  a native ONNX LSTM with seeded weights; `LstmReference` is its numpy twin
    mean            none     mean of the window (of its last `context_length` values)
    bidirectional   none     a native bidirectional LSTM with seeded weights over the window
    informed        carried  last value + all that is known of the step forecast
    informed_mean   none     mean of the window + mean of all that is known of the steps after each of its own

`drift` and `mean` also tell a scale that is easy to check: |mean step|, and the window's range.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.artifact import (
    FORECAST,
    KNOWN,
    METADATA_KEY,
    NEXT_STATE,
    SCALE,
    STATE,
    VALUES,
    ErrorTable,
    Frequency,
    Metadata,
    Provenance,
    Range,
    Trial,
)
from service.calendar import CalendarField

Kind = Literal["drift", "lstm", "mean", "bidirectional", "informed", "informed_mean"]
Floats = npt.NDArray[np.float32]

HIDDEN: Final = 4
_OPSET: Final = 18
_IR_VERSION: Final = 10
_ALL: Final = np.iinfo(np.int64).max


def write_artifact(
    path: Path,
    kind: Kind = "drift",
    *,
    features: int = 1,
    name: str = "default",
    version: str = "1",
    context_length: int = 8,
    minimum_window: int = 2,
    frequency: Frequency | None = None,
    season_length: int | None = None,
    errors: ErrorTable | None = None,
    non_negative: bool = False,
    logarithms: bool = False,
    error_inflation: float = 1.0,
    calendar: Sequence[CalendarField] = (),
    exogenous: Sequence[str] = (),
    trial: Trial | None = None,
    ranges: tuple[Range, ...] | None = None,
    seed: int = 0,
) -> Path:
    """Write an artifact to `path`, making its folders, and return `path`. Feature names are `x0`, `x1`, …"""
    model = build_model(kind, features=features, known=len(calendar) + len(exogenous), seed=seed)
    record = build_metadata(
        kind,
        features=features,
        name=name,
        version=version,
        context_length=context_length,
        minimum_window=minimum_window,
        frequency=frequency,
        season_length=season_length,
        errors=errors,
        non_negative=non_negative,
        logarithms=logarithms,
        error_inflation=error_inflation,
        calendar=calendar,
        exogenous=exogenous,
        trial=trial,
        ranges=ranges,
    )
    set_metadata(model, record.model_dump_json())
    return save(model, path)


def write_broken_artifact(path: Path, fault: str) -> Path:
    """Write an artifact that is broken in the way that the key `fault` of `FAULTS` names; return `path`."""
    model = build_model("drift")
    set_metadata(model, build_metadata("drift").model_dump_json())
    FAULTS[fault](model)
    return save(model, path)


def build_metadata(
    kind: Kind = "drift",
    *,
    features: int = 1,
    name: str = "default",
    version: str = "1",
    context_length: int = 8,
    minimum_window: int = 2,
    frequency: Frequency | None = None,
    season_length: int | None = None,
    errors: ErrorTable | None = None,
    non_negative: bool = False,
    logarithms: bool = False,
    error_inflation: float = 1.0,
    calendar: Sequence[CalendarField] = (),
    exogenous: Sequence[str] = (),
    trial: Trial | None = None,
    ranges: tuple[Range, ...] | None = None,
) -> Metadata:
    """The metadata that fits the graph of `build_model`."""
    return Metadata(
        name=name,
        version=version,
        description=f"A {kind} model for tests.",
        context_length=context_length,
        minimum_window=minimum_window,
        features=tuple(f"x{number}" for number in range(features)),
        state_size=state_size(kind, features),
        frequency=frequency,
        season_length=season_length,
        training=Provenance(
            created="2026-01-01T00:00:00Z",
            data="nothing: it is built by hand",
            series=1,
            observations=1,
            configuration={},
            libraries={"onnx": onnx.__version__},
        ),
        errors=errors,
        non_negative=non_negative,
        logarithms=logarithms,
        error_inflation=error_inflation,
        calendar=tuple(calendar),
        exogenous=tuple(exogenous),
        trial=trial,
        ranges=ranges,
    )


def build_model(kind: Kind = "drift", *, features: int = 1, known: int = 0, seed: int = 0) -> onnx.ModelProto:
    """The bare graph of a kind, without metadata; `known` numbers of each step are for the informed kinds."""
    if kind == "informed":
        return _informed(features, known)
    if kind == "informed_mean":
        return _informed_mean(features, known)
    if kind == "drift":
        return _drift(features)
    if kind == "mean":
        return _mean(features)
    if kind == "lstm":
        return _lstm(features, seed)
    return _bidirectional(features, seed)


def state_size(kind: Kind, features: int) -> int:
    """Floats carried per sequence by a kind; 0 for those whose window is slid."""
    if kind == "drift":
        return 1 + features
    if kind == "lstm":
        return 1 + features + 2 * HIDDEN
    return 1 if kind == "informed" else 0


def set_metadata(model: onnx.ModelProto, document: str) -> None:
    """Replace all metadata of a model by `document` under the contract's key."""
    helper.set_model_props(model, {METADATA_KEY: document})


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model to `path`, making its folders, and return `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


class LstmReference:
    """The `lstm` kind in numpy, one window at a time: what the graph must give."""

    def __init__(self, features: int = 1, seed: int = 0) -> None:
        self._weights = _lstm_weights(features, seed)

    def forecast(self, window: Floats, horizon: int, context_length: int = 8) -> npt.NDArray[np.float64]:
        """Forecast iteratively from one window: (time, features) to (horizon, features)."""
        steps = np.asarray(window, np.float64)[-context_length:]
        scale = np.abs(steps).mean(axis=0) + 1.0
        hidden, cell = np.zeros(HIDDEN), np.zeros(HIDDEN)
        for step in steps:
            hidden, cell = self._cell(step / scale, hidden, cell)
        forecasts = []
        for _ in range(horizon):
            forecasts.append(hidden @ self._weights["head"] * scale)
            hidden, cell = self._cell(forecasts[-1] / scale, hidden, cell)
        return np.stack(forecasts)

    def _cell(
        self, step: npt.NDArray[np.float64], hidden: npt.NDArray[np.float64], cell: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        weights = self._weights
        gates = weights["w"][0] @ step + weights["r"][0] @ hidden
        # ONNX keeps the gates in the order input, output, forget, cell.
        enter, leave, keep, fresh = np.split(gates, 4)
        cell = _sigmoid(keep) * cell + _sigmoid(enter) * np.tanh(fresh)
        return _sigmoid(leave) * np.tanh(cell), cell


def _sigmoid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-values))


def _drift(features: int) -> onnx.ModelProto:
    """State row: [carried flag, mean step]. While the flag is 0 the mean step is taken from the window."""
    nodes = [
        helper.make_node("Slice", [VALUES, "zero", "one", "one"], ["first3"]),
        helper.make_node("Slice", [VALUES, "minus", "all", "one"], ["last3"]),
        helper.make_node("Squeeze", ["first3", "one"], ["first"]),
        helper.make_node("Squeeze", ["last3", "one"], ["last"]),
        helper.make_node("Shape", [VALUES], ["length"], start=1, end=2),
        helper.make_node("Sub", ["length", "one"], ["gaps"]),
        helper.make_node("Max", ["gaps", "one"], ["divisor"]),
        helper.make_node("Cast", ["divisor"], ["divisor_float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["last", "first"], ["rise"]),
        helper.make_node("Div", ["rise", "divisor_float"], ["fresh_step"]),
        *_carried({"step": features}, "fresh_step"),
        helper.make_node("Add", ["last", "step"], [FORECAST]),
        helper.make_node("Abs", ["step"], [SCALE]),
        helper.make_node("Mul", ["flag", "zero_float"], ["flag_zero"]),
        helper.make_node("Add", ["flag_zero", "one_float"], ["flag_one"]),
        helper.make_node("Concat", ["flag_one", "step"], [NEXT_STATE], axis=1),
    ]
    return _model(nodes, {}, features, state_size("drift", features), scale=True)


def _mean(features: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMean", [VALUES, "one"], [FORECAST], keepdims=0),
        helper.make_node("ReduceMax", [VALUES, "one"], ["highest"], keepdims=0),
        helper.make_node("ReduceMin", [VALUES, "one"], ["lowest"], keepdims=0),
        helper.make_node("Sub", ["highest", "lowest"], [SCALE]),
    ]
    return _model(nodes, {}, features, 0, scale=True)


def _informed(features: int, known: int) -> onnx.ModelProto:
    """State row: a count of runs, which shows that it is carried."""
    nodes = [
        helper.make_node("Slice", [VALUES, "minus", "all", "one"], ["last3"]),
        helper.make_node("Squeeze", ["last3", "one"], ["last"]),
        helper.make_node("Slice", [KNOWN, "minus", "all", "one"], ["known3"]),
        helper.make_node("Squeeze", ["known3", "one"], ["known_last"]),
        helper.make_node("ReduceSum", ["known_last", "one"], ["told"], keepdims=1),
        helper.make_node("Add", ["last", "told"], [FORECAST]),
        helper.make_node("Abs", ["last"], [SCALE]),
        helper.make_node("Add", [STATE, "one_float"], [NEXT_STATE]),
    ]
    return _model(nodes, {}, features, 1, scale=True, known=known)


def _informed_mean(features: int, known: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMean", [VALUES, "one"], ["mean"], keepdims=0),
        helper.make_node("ReduceSum", [KNOWN, "two"], ["sums"], keepdims=1),
        helper.make_node("ReduceMean", ["sums", "one"], ["told"], keepdims=0),
        helper.make_node("Add", ["mean", "told"], [FORECAST]),
    ]
    return _model(nodes, {"two": np.array([2], np.int64)}, features, 0, scale=False, known=known)


def _lstm(features: int, seed: int) -> onnx.ModelProto:
    """State row: [carried flag, scale, hidden, cell]; scale = mean |value| of the window + 1."""
    nodes = [
        helper.make_node("Abs", [VALUES], ["sizes"]),
        helper.make_node("ReduceMean", ["sizes", "one"], ["size"], keepdims=0),
        helper.make_node("Add", ["size", "one_float"], ["fresh_scale"]),
        *_carried({"scale_used": features, "hidden": HIDDEN, "cell": HIDDEN}, "fresh_scale"),
        helper.make_node("Unsqueeze", ["scale_used", "one"], ["scale3"]),
        helper.make_node("Div", [VALUES, "scale3"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["time_first"], perm=[1, 0, 2]),
        helper.make_node("Unsqueeze", ["hidden", "zero"], ["hidden3"]),
        helper.make_node("Unsqueeze", ["cell", "zero"], ["cell3"]),
        helper.make_node(
            "LSTM",
            ["time_first", "w", "r", "", "", "hidden3", "cell3"],
            ["", "next_hidden3", "next_cell3"],
            hidden_size=HIDDEN,
        ),
        helper.make_node("Squeeze", ["next_hidden3", "zero"], ["next_hidden"]),
        helper.make_node("Squeeze", ["next_cell3", "zero"], ["next_cell"]),
        helper.make_node("MatMul", ["next_hidden", "head"], ["unscaled"]),
        helper.make_node("Mul", ["unscaled", "scale_used"], [FORECAST]),
        helper.make_node("Identity", ["scale_used"], [SCALE]),
        helper.make_node("Mul", ["flag", "zero_float"], ["flag_zero"]),
        helper.make_node("Add", ["flag_zero", "one_float"], ["flag_one"]),
        helper.make_node("Concat", ["flag_one", "scale_used", "next_hidden", "next_cell"], [NEXT_STATE], axis=1),
    ]
    return _model(nodes, _lstm_weights(features, seed), features, state_size("lstm", features), scale=True)


def _bidirectional(features: int, seed: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Transpose", [VALUES], ["time_first"], perm=[1, 0, 2]),
        helper.make_node(
            "LSTM", ["time_first", "w", "r"], ["", "hidden"], hidden_size=HIDDEN, direction="bidirectional"
        ),
        helper.make_node("Transpose", ["hidden"], ["batch_first"], perm=[1, 0, 2]),
        helper.make_node("Flatten", ["batch_first"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], [FORECAST]),
    ]
    return _model(nodes, _lstm_weights(features, seed, directions=2), features, 0, scale=False)


def _lstm_weights(features: int, seed: int, directions: int = 1) -> dict[str, Floats]:
    random = np.random.default_rng(seed)

    def drawn(*shape: int) -> Floats:
        return random.normal(0.0, 0.7, shape).astype(np.float32)

    return {
        "w": drawn(directions, 4 * HIDDEN, features),
        "r": drawn(directions, 4 * HIDDEN, HIDDEN),
        "head": drawn(directions * HIDDEN, features),
    }


def _carried(parts: Mapping[str, int], fresh: str) -> list[onnx.NodeProto]:
    """Nodes that split the state row into `flag` and parts; the first part is `fresh` instead while the flag is 0."""
    first = next(iter(parts))
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [1 + len(parts)], [1, *parts.values()])
    outputs = ["flag", f"{first}_before", *list(parts)[1:]]
    return [
        helper.make_node("Constant", [], ["part_sizes"], value=sizes),
        helper.make_node("Split", [STATE, "part_sizes"], outputs, axis=1),
        helper.make_node("Greater", ["flag", "zero_float"], ["is_carried"]),
        helper.make_node("Where", ["is_carried", f"{first}_before", fresh], [first]),
    ]


def _model(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, npt.NDArray[np.generic]],
    features: int,
    size: int,
    *,
    scale: bool,
    known: int = 0,
) -> onnx.ModelProto:
    inputs = [_float_tensor(VALUES, "batch", "time", features)]
    if known:
        inputs.append(_float_tensor(KNOWN, "batch", "time", known))
    outputs = [_float_tensor(FORECAST, "batch", features)]
    if size:
        inputs.append(_float_tensor(STATE, "batch", size))
        outputs.append(_float_tensor(NEXT_STATE, "batch", size))
    if scale:
        outputs.append(_float_tensor(SCALE, "batch", features))
    constants: dict[str, npt.NDArray[np.generic]] = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "minus": np.array([-1], np.int64),
        "all": np.array([_ALL], np.int64),
        "zero_float": np.array([0.0], np.float32),
        "one_float": np.array([1.0], np.float32),
        **weights,
    }
    used = {name for node in nodes for name in node.input}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used]
    graph = helper.make_graph(list(nodes), "test", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def _float_tensor(name: str, *shape: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _output(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    found: onnx.ValueInfoProto = next(output for output in model.graph.output if output.name == name)
    return found


def _drop_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def _unreadable_metadata(model: onnx.ModelProto) -> None:
    set_metadata(model, "not JSON")


def _contract_2(model: onnx.ModelProto) -> None:
    set_metadata(model, build_metadata().model_dump_json().replace('"contract":1', '"contract":2'))


def _contradiction(model: onnx.ModelProto) -> None:
    set_metadata(model, build_metadata(features=3).model_dump_json())


def _double_values(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    model.graph.input[0].name = "doubles"
    model.graph.node.insert(0, helper.make_node("Cast", ["doubles"], [VALUES], to=TensorProto.FLOAT))
    _rename(model, VALUES, "floats")
    model.graph.input[0].name = VALUES
    model.graph.node[0].input[0] = VALUES


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new


def _missing_output(model: onnx.ModelProto) -> None:
    model.graph.output.remove(_output(model, NEXT_STATE))


def _unknown_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(_float_tensor("last", "batch", 1))


def _fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _custom_operator(model: onnx.ModelProto) -> None:
    _replace_forecast(model, helper.make_node("Crystal", ["forecast_before"], [FORECAST], domain="crystal.ball"))
    model.opset_import.append(helper.make_opsetid("crystal.ball", 1))


def _unknown_operator(model: onnx.ModelProto) -> None:
    _replace_forecast(model, helper.make_node("Crystal", ["forecast_before"], [FORECAST]))


def _external_data(model: onnx.ModelProto) -> None:
    """Weights in `weights.bin` beside the file: a factor of 1,024 numbers, so that it is not folded away."""
    factor = TensorProto()
    factor.name = "factor"
    factor.data_type = TensorProto.FLOAT
    factor.dims.extend([1, 1024])
    factor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "4096")):
        factor.external_data.add(key=key, value=value)
    model.graph.initializer.append(factor)
    _replace_forecast(
        model,
        helper.make_node("MatMul", ["forecast_before", "factor"], ["products"]),
        helper.make_node("ReduceMean", ["products", "one"], [FORECAST], keepdims=1),
    )


def _weights_in_memory(model: onnx.ModelProto) -> None:
    """A place of weights that onnxruntime takes for an address in its own memory."""
    _external_data(model)
    model.graph.initializer[-1].external_data[0].value = "*/_ORT_MEM_ADDR_/*"


def _external_data_within(model: onnx.ModelProto) -> None:
    """Weights in another file, of a constant in a branch of a node."""
    outside = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="/etc/hostname")
    _branch(model, helper.make_node("Constant", [], ["branched"], value=outside))


def _custom_operator_within(model: onnx.ModelProto) -> None:
    _branch(model, helper.make_node("Crystal", ["one_float"], ["branched"], domain="crystal.ball"))
    model.opset_import.append(helper.make_opsetid("crystal.ball", 1))


def _branch(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Put a node that gives `branched` into a branch that is never taken."""
    branches = {
        "then_branch": helper.make_graph([node], "then", [], [_float_tensor("branched", 1)]),
        "else_branch": helper.make_graph(
            [helper.make_node("Identity", ["zero_float"], ["otherwise"])], "else", [], [_float_tensor("otherwise", 1)]
        ),
    }
    for name, value in (("zero_float", [0.0]), ("one_float", [1.0])):
        if name not in {tensor.name for tensor in model.graph.initializer}:
            model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array(False), "never"))
    _replace_forecast(
        model,
        helper.make_node("If", ["never"], ["nothing"], **branches),
        helper.make_node("Add", ["forecast_before", "nothing"], [FORECAST]),
    )


def _another_trial(model: onnx.ModelProto) -> None:
    """The straight line goes on to 4, not to 5."""
    trial = Trial(window=((1.0,), (2.0,), (3.0,)), forecast=((5.0,),))
    set_metadata(model, build_metadata(trial=trial).model_dump_json())


def _failing_run(model: onnx.ModelProto) -> None:
    """Only a window of 2 steps can be split into two single ones."""
    sizes = numpy_helper.from_array(np.array([1, 1], np.int64), "single_steps")
    model.graph.initializer.append(sizes)
    _replace_forecast(
        model,
        helper.make_node("Split", [VALUES, "single_steps"], ["earlier", "later"], axis=1),
        helper.make_node("Squeeze", ["later", "one"], ["later_row"]),
        helper.make_node("Add", ["forecast_before", "later_row"], [FORECAST]),
    )


def _mixed_rows(model: onnx.ModelProto) -> None:
    """Each forecast gets the batch's mean added."""
    _replace_forecast(
        model,
        helper.make_node("ReduceMean", ["forecast_before", "zero"], ["batch_mean"], keepdims=1),
        helper.make_node("Add", ["forecast_before", "batch_mean"], [FORECAST]),
    )


def _wrong_shape(model: onnx.ModelProto) -> None:
    """Declares (batch, 1), gives (batch, 2)."""
    _replace_forecast(model, helper.make_node("Concat", ["forecast_before", "forecast_before"], ["wide"], axis=1))
    two = numpy_helper.from_array(np.array([0, -1], np.int64), "row_shape")
    model.graph.initializer.append(two)
    model.graph.node.append(helper.make_node("Reshape", ["wide", "row_shape"], [FORECAST]))


def _not_finite(model: onnx.ModelProto) -> None:
    _replace_forecast(model, helper.make_node("Div", ["forecast_before", "zero_float"], [FORECAST]))


def _newer_onnx(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def _replace_forecast(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    _rename(model, FORECAST, "forecast_before")
    model.graph.node.extend(nodes)


FAULTS: Final[Mapping[str, Callable[[onnx.ModelProto], None]]] = {
    "no metadata": _drop_metadata,
    "unreadable metadata": _unreadable_metadata,
    "contract 2": _contract_2,
    "metadata contradicts the graph": _contradiction,
    "wrong dtype": _double_values,
    "missing output": _missing_output,
    "unknown output": _unknown_output,
    "fixed batch": _fixed_batch,
    "custom operator": _custom_operator,
    "unknown operator": _unknown_operator,
    "external data": _external_data,
    "external data in a branch": _external_data_within,
    "weights in memory": _weights_in_memory,
    "custom operator in a branch": _custom_operator_within,
    "another trial": _another_trial,
    "failing run": _failing_run,
    "mixed rows": _mixed_rows,
    "wrong shape": _wrong_shape,
    "not finite": _not_finite,
    "newer ONNX": _newer_onnx,
}

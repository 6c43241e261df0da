"""Recording a network's arithmetic as an ONNX graph, each recurrent layer as one native node.

A `Recorder` stands in for `training.operations.TensorFlow`: the network's own code runs once, with symbols in the place
of tensors, and each operation writes the node that computes the same. So nothing has to be recognised afterwards in a
graph that was made for something else, and nothing is in the graph that the code does not say.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.cells import ACTIVATIONS, native, numbers
from training.config import Network

_OPSET: Final = 18
_IR_VERSION: Final = 10
_END: Final = np.iinfo(np.int64).max


class Symbol:
    """A tensor of the graph that is being recorded."""

    __array_ufunc__ = None  # numpy's arrays leave arithmetic with symbols to these methods

    def __init__(self, recorder: "Recorder", name: str) -> None:
        self.recorder = recorder
        self.name = name

    def __add__(self, other: Any) -> "Symbol":
        return self.recorder.node("Add", self, other)

    def __radd__(self, other: Any) -> "Symbol":
        return self.recorder.node("Add", other, self)

    def __sub__(self, other: Any) -> "Symbol":
        return self.recorder.node("Sub", self, other)

    def __rsub__(self, other: Any) -> "Symbol":
        return self.recorder.node("Sub", other, self)

    def __mul__(self, other: Any) -> "Symbol":
        return self.recorder.node("Mul", self, other)

    def __rmul__(self, other: Any) -> "Symbol":
        return self.recorder.node("Mul", other, self)

    def __truediv__(self, other: Any) -> "Symbol":
        return self.recorder.node("Div", self, other)

    def __rtruediv__(self, other: Any) -> "Symbol":
        return self.recorder.node("Div", other, self)

    def __rmod__(self, other: Any) -> "Symbol":
        return self.recorder.node("Mod", other, self)

    def __lt__(self, other: Any) -> "Symbol":
        return self.recorder.node("Less", self, other)

    def __gt__(self, other: Any) -> "Symbol":
        return self.recorder.node("Greater", self, other)

    def __ge__(self, other: Any) -> "Symbol":
        return self.recorder.node("GreaterOrEqual", self, other)

    def __and__(self, other: Any) -> "Symbol":
        return self.recorder.node("And", self, other)

    def __or__(self, other: Any) -> "Symbol":
        return self.recorder.node("Or", self, other)


class Recorder:
    """Records operations as ONNX nodes; its methods are those of `training.operations.TensorFlow`."""

    training: Final = False
    mask: Final = None
    single: Final = False

    def __init__(self, network: Network) -> None:
        self._network = network
        self._scopes: list[list[onnx.NodeProto]] = [[]]
        self._recorded: list[dict[tuple[bytes, int], list[Symbol]]] = [{}]  # what the nodes of each scope give
        self._constants: dict[tuple[Any, ...], onnx.TensorProto] = {}
        self._count = 0

    def input(self, name: str) -> Symbol:
        return Symbol(self, name)

    def model(
        self, inputs: Mapping[str, Sequence[str | int]], outputs: Mapping[str, tuple[Symbol, Sequence[str | int]]]
    ) -> onnx.ModelProto:
        """The whole graph, of float32 inputs and outputs by name and shape, without what no output needs."""
        nodes = list(self._scopes[0])
        for name, (symbol, _) in outputs.items():
            nodes.append(helper.make_node("Identity", [symbol.name], [name]))
        nodes = _renamed(_needed(nodes, set(outputs)), set(outputs))
        used = _used(nodes)
        graph = helper.make_graph(
            nodes,
            "forecast",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (_, shape) in outputs.items()],
            [constant for constant in self._constants.values() if constant.name in used],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        onnx.checker.check_model(made)
        return made

    def node(self, operator: str, *inputs: Any, **attributes: Any) -> Symbol:
        """Record a node of one output; inputs are symbols, numbers, arrays, or None for those left out."""
        return self._nodes(operator, inputs, 1, attributes)[0]

    def unmasked(self) -> "Recorder":
        return self

    def concatenate(self, parts: Sequence[Any], axis: int = -1) -> Any:
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=axis)

    def split(self, x: Any, sizes: Sequence[int]) -> list[Any]:
        if len(sizes) == 1:
            return [x]
        return self._nodes("Split", [x, np.array(sizes)], len(sizes), {"axis": -1})

    def steps(self, x: Any, start: int | None, stop: int | None) -> Any:
        bounds = (np.array([start or 0]), np.array([_END if stop is None else stop]))
        return self.node("Slice", x, *bounds, np.array([0]))

    def chosen(self, x: Any, places: npt.NDArray[np.int64]) -> Any:
        return self.node("Gather", x, places, axis=0)

    def taken(self, x: Any, places: Any) -> Any:
        return self.node("GatherElements", x, places, axis=0)

    def gather_last(self, x: Any, places: Any) -> Any:
        return self.node("Gather", x, places, axis=-1)

    def padded(self, x: Any, before: int, after: int = 0) -> Any:
        return self.node("Pad", x, np.array([before, after]), np.float32(0), np.array([-1]))

    def repeated(self, x: Any, count: int) -> Any:
        return x if count == 1 else self.node("Tile", x, np.array([count, 1, 1]))

    def spread(self, x: Any, like: Any) -> Any:
        return self.node("Expand", x, self.node("Shape", like))

    def transpose(self, x: Any, order: Sequence[int]) -> Any:
        return self.node("Transpose", x, perm=list(order))

    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        return self.node("Reshape", x, np.array(shape))

    def squeeze(self, x: Any, axis: int) -> Any:
        return self.node("Squeeze", x, np.array([axis]))

    def unsqueeze(self, x: Any, axis: int) -> Any:
        return self.node("Unsqueeze", x, np.array([axis]))

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        return self.node("Where", condition, x, y)

    def maximum(self, x: Any, y: Any) -> Any:
        return self.node("Max", x, y)

    def clip(self, x: Any, low: float, high: float) -> Any:
        return self.node("Clip", x, np.float32(low), np.float32(high))

    def abs(self, x: Any) -> Any:
        return self.node("Abs", x)

    def sqrt(self, x: Any) -> Any:
        return self.node("Sqrt", x)

    def log(self, x: Any) -> Any:
        return self.node("Log", x)

    def exp(self, x: Any) -> Any:
        return self.node("Exp", x)

    def sin(self, x: Any) -> Any:
        return self.node("Sin", x)

    def looked_up(self, table: Any, places: Any) -> Any:
        rows = table if isinstance(table, np.ndarray) else numbers(table)
        return self.node("Gather", rows, self.squeeze(self.whole(places), 2), axis=0)

    def softmax(self, x: Any) -> Any:
        return self.node("Softmax", x, axis=-1)

    def max(self, x: Any, axis: int) -> Any:
        return self.node("ReduceMax", x, np.array([axis]))

    def sum(self, x: Any, axis: int) -> Any:
        return self.node("ReduceSum", x, np.array([axis]))

    def sum_of_sizes(self, x: Any, axis: int) -> Any:
        return self.node("ReduceL1", x, np.array([axis]))

    def mean(self, x: Any, axis: int) -> Any:
        return self.node("ReduceMean", x, np.array([axis]))

    def median(self, x: Any, count: int) -> Any:
        """From the larger half, sorted: its last, or the mean of its last two where the count is even."""
        larger = self._nodes("TopK", [x, np.array([count // 2 + 1])], 2, {"axis": 0})[0]
        return self.mean(self.steps(larger, -2, None), 0) if count % 2 == 0 else self.steps(larger, -1, None)

    def argmax(self, x: Any) -> Any:
        return self.node("Cast", self.node("ArgMax", x, axis=-1), to=TensorProto.FLOAT)

    def matmul(self, x: Any, y: Any) -> Any:
        return self.node("MatMul", x, y)

    def whole(self, x: Any) -> Any:
        return self.node("Cast", x, to=TensorProto.INT64)

    def length(self, x: Any) -> Any:
        return self.node("Cast", self.count(x), to=TensorProto.FLOAT)

    def count(self, x: Any) -> Any:
        return self.node("Shape", x, start=0, end=1)

    def places(self, x: Any, extra: int = 0) -> Any:
        stop = self.squeeze(self.count(x), 0)
        return self.node("Range", np.int64(0), stop + extra if extra else stop, np.int64(1))

    def if_any_below(self, x: Any, limit: float, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        some = self.node("ReduceMin", x, keepdims=0) < limit
        branches = [self._branch(name, body) for name, body in (("then", then), ("otherwise", otherwise))]
        return self.node("If", some, then_branch=branches[0], else_branch=branches[1])

    def dense(self, layers: Sequence[Any], x: Any) -> Any:
        given = self.node("MatMul", x, np.concatenate([numbers(layer.kernel) for layer in layers], axis=1))
        biases = [numbers(layer.bias) for layer in layers if layer.use_bias]
        return given + np.concatenate(biases) if biases else given

    def normalised(self, layer: Any, x: Any) -> Any:
        if layer is None:
            return x
        gamma, beta = numbers(layer.gamma), numbers(layer.beta)
        if not hasattr(layer, "moving_mean"):
            return self.node("LayerNormalization", x, gamma, beta, axis=-1, epsilon=layer.epsilon)
        factor = gamma / np.sqrt(numbers(layer.moving_variance) + np.float32(layer.epsilon))
        return x * factor + (beta - numbers(layer.moving_mean) * factor)

    def convolved(self, layer: Any, x: Any, before: Any) -> tuple[Any, Any]:
        kernel = numbers(layer.kernel)  # (steps, inputs, filters)
        steps, width, _ = kernel.shape
        flow = self.transpose(x, (1, 2, 0))  # (batch, inputs, time)
        if before is None:
            whole = self.padded(flow, steps - 1)
        else:
            whole = self.concatenate([self.reshape(before, (-1, width, steps - 1)), flow])
        convolved = self.node("Conv", whole, kernel.transpose(2, 1, 0), numbers(layer.bias))
        tail = self.node("Slice", whole, np.array([1 - steps]), np.array([_END]), np.array([2]))
        operator, slopes = ACTIVATIONS[layer.activation.__name__]
        active = self.node(operator, convolved, **({"alpha": slopes[0]} if slopes else {}))
        return self.transpose(active, (2, 0, 1)), self.reshape(tail, (1, -1, width * (steps - 1)))

    def recurred(self, directions: Sequence[Any], x: Any, before: Sequence[Any] | None) -> tuple[Any, Any, list[Any]]:
        made = native(self._network, directions)
        inputs: list[Any] = [x, made.inputs, made.recurrent, made.bias, None, *(before or ())]
        if made.peephole is not None:
            inputs += [None] * (7 - len(inputs))
            inputs.append(made.peephole)
        sequence, *after = self._nodes(made.operator, inputs, 1 + made.states, made.attributes)
        if len(directions) == 1:
            return self.squeeze(sequence, 1), after[0], after
        both = 2 * made.attributes["hidden_size"]
        sequence = self.reshape(self.transpose(sequence, (0, 2, 1, 3)), (0, 0, both))
        return sequence, self.reshape(self.transpose(after[0], (1, 0, 2)), (1, -1, both)), []

    def _nodes(self, operator: str, inputs: Sequence[Any], outputs: int, attributes: dict[str, Any]) -> list[Symbol]:
        """Record a node, unless one that computes the same has been, here or around this branch."""
        names = [self._named(held) for held in inputs]
        made = helper.make_node(operator, names, [], **attributes)
        key = (made.SerializeToString(deterministic=True), outputs)
        for recorded in self._recorded:
            if key in recorded:
                return recorded[key]
        found = [Symbol(self, self._fresh(operator)) for _ in range(outputs)]
        made.output.extend(symbol.name for symbol in found)
        self._scopes[-1].append(made)
        self._recorded[-1][key] = found
        return found

    def _branch(self, name: str, body: Callable[[], Any]) -> onnx.GraphProto:
        self._scopes.append([])
        self._recorded.append({})
        result = self.node("Identity", body())
        self._recorded.pop()
        nodes = _renamed(_needed(self._scopes.pop(), {result.name}), {result.name})
        output = helper.make_tensor_value_info(result.name, TensorProto.FLOAT, None)
        return helper.make_graph(nodes, name, [], [output])

    def _named(self, held: Any) -> str:
        if held is None:
            return ""
        if isinstance(held, Symbol):
            return held.name
        array = np.asarray(held, np.float32) if isinstance(held, float) else np.asarray(held)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(
                np.ascontiguousarray(array).reshape(array.shape), self._fresh("constant")
            )
        return self._constants[key].name

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"


def _used(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Names that nodes read, those inside their branches included."""
    names = {name for node in nodes for name in node.input}
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names |= _used(attribute.g.node) | {output.name for output in attribute.g.output}
    return names


def _needed(nodes: Sequence[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes that the wanted names rest on; what is left of them names no output that nobody reads."""
    kept: list[onnx.NodeProto] = []
    wanted = set(wanted)
    for node in reversed(nodes):
        if not wanted & set(node.output):
            continue
        for place, name in enumerate(node.output):
            if name not in wanted and node.op_type in ("LSTM", "GRU", "RNN"):
                node.output[place] = ""
        wanted |= _used([node])
        kept.append(node)
    return kept[::-1]


def _renamed(nodes: Sequence[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes without those that only give an output its name, where the one before can give it itself."""
    free = {name for node in nodes for name in node.output} - outputs
    kept, names = [], dict[str, str]()
    for node in nodes:
        if node.op_type == "Identity" and node.output[0] in outputs and node.input[0] in free:
            names[node.input[0]] = node.output[0]
            free.remove(node.input[0])
        else:
            kept.append(node)
    for node in kept:
        _rename(node, names)
    return kept


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for held in (node.input, node.output):
        for place, name in enumerate(held):
            held[place] = names.get(name, name)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            _rename(inner, names)

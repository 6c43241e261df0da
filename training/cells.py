"""The recurrent layers: Keras's for fitting, and their weights in the order in which native ONNX nodes want them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops

from training.config import Activation, Cell, Network

Array = npt.NDArray[np.float32]

_LEAK: Final = 0.2  # Keras's own slope of a leaky ReLU below zero
ACTIVATIONS: Final[dict[Activation, tuple[str, tuple[float, ...]]]] = {
    "tanh": ("Tanh", ()),
    "relu": ("Relu", ()),
    "leaky_relu": ("LeakyRelu", (_LEAK,)),
    "elu": ("Elu", (1.0,)),
}
# Where ONNX's gates stand in Keras's order: input, forget, candidate, output become input, output, forget, candidate.
_LSTM_GATES: Final = (0, 3, 1, 2)
_STATES: Final[dict[Cell, int]] = {"lstm": 2, "peephole_lstm": 2, "gru": 1, "rnn": 1}


@keras.saving.register_keras_serializable(package="leadtime")
class PeepholeLSTMCell(layers.Layer):  # type: ignore[misc]  # keras has no types
    """An LSTM cell whose gates also see the cell's own content (Gers & Schmidhuber 2000).

    The input and forget gates see the content before the step, the output gate that after it, each unit its own. The
    weights of that begin at zero: an unfitted cell is a plain LSTM.
    """

    def __init__(
        self,
        units: int,
        *,
        activation: Any = "tanh",
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.state_size = [units, units]
        self.output_size = units

    def build(self, input_shape: Any) -> None:
        four = 4 * self.units
        self.kernel = self.add_weight(shape=(input_shape[-1], four), initializer=self.kernel_initializer, name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, four), initializer=self.recurrent_initializer, name="recurrent_kernel"
        )
        self.bias = self.add_weight(shape=(four,), initializer="zeros", name="bias")
        forget = np.zeros(four, np.float32)
        forget[self.units : 2 * self.units] = 1.0  # begin by keeping what the cell holds
        self.bias.assign(forget)
        self.peephole = self.add_weight(shape=(3, self.units), initializer="zeros", name="peephole")
        self.built = True

    def call(self, inputs: Any, states: Sequence[Any], training: bool = False) -> tuple[Any, list[Any]]:
        """One step: inputs (batch, ·) and states [hidden, content], each (batch, units)."""
        hidden, content = states
        gates = ops.matmul(inputs, self.kernel) + ops.matmul(hidden, self.recurrent_kernel) + self.bias
        enter, keep, candidate, leave = ops.split(gates, 4, axis=-1)
        enter = ops.sigmoid(enter + self.peephole[0] * content)
        keep = ops.sigmoid(keep + self.peephole[1] * content)
        content = keep * content + enter * self.activation(candidate)
        hidden = ops.sigmoid(leave + self.peephole[2] * content) * self.activation(content)
        return hidden, [hidden, content]

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
        }


@dataclass(frozen=True, slots=True)
class Native:
    """A recurrent layer as one ONNX node: operator, attributes, and weights with the direction as first axis."""

    operator: Literal["LSTM", "GRU", "RNN"]
    attributes: dict[str, Any]
    inputs: Array  # W: (directions, gates · units, inputs)
    recurrent: Array  # R: (directions, gates · units, units)
    bias: Array  # B: (directions, 2 · gates · units)
    peephole: Array | None  # P: (directions, 3 · units)
    states: int  # hidden alone, or hidden and content


def recurrent(network: Network, units: int, *, name: str, backwards: bool = False) -> layers.Layer:
    """A layer of a configuration's kind, which gives its whole sequence and its last state."""
    made = {
        "activation": network.activation,
        "kernel_initializer": network.initialiser,
        "recurrent_initializer": network.recurrent_initialiser,
    }
    given = {"return_sequences": True, "return_state": True, "go_backwards": backwards, "name": name}
    if network.cell == "peephole_lstm":
        return layers.RNN(PeepholeLSTMCell(units, **made), **given)
    kind = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}[network.cell]
    return kind(units, **made, **given)


def numbers(variable: Any) -> Array:
    """A Keras variable's values."""
    values: Array = variable.numpy()
    return values


def states(cell: Cell) -> int:
    """How many vectors, each as wide as the layer, a cell carries from step to step."""
    return _STATES[cell]


def native(network: Network, directions: Sequence[layers.Layer]) -> Native:
    """The ONNX node that computes what a layer computes; two directions are the forward and the backward one."""
    cells = [layer.cell for layer in directions]
    convert = {"lstm": _lstm, "peephole_lstm": _lstm, "gru": _gru, "rnn": _rnn}[network.cell]
    weights = [convert(*(numbers(part) for part in (cell.kernel, cell.recurrent_kernel, cell.bias))) for cell in cells]
    peephole = None
    if network.cell == "peephole_lstm":
        # Keras's cell keeps them as input, forget, output; ONNX wants input, output, forget.
        peephole = np.stack([numbers(cell.peephole)[[0, 2, 1]].ravel() for cell in cells])
    operator, activations = _operator(network)
    attributes: dict[str, Any] = {"hidden_size": cells[0].units}
    if len(cells) == 2:
        attributes["direction"] = "bidirectional"
    if network.activation != "tanh":
        attributes["activations"] = [name for name, _ in activations] * len(cells)
        if alphas := [alpha for _, held in activations for alpha in held]:
            attributes["activation_alpha"] = alphas * len(cells)
    if operator == "GRU":
        attributes["linear_before_reset"] = 1
    inputs, again, bias = (np.stack(parts) for parts in zip(*weights, strict=True))
    return Native(operator, attributes, inputs, again, bias, peephole, states(network.cell))


def _operator(network: Network) -> tuple[Literal["LSTM", "GRU", "RNN"], list[tuple[str, tuple[float, ...]]]]:
    """The operator, and the activations of its gates in ONNX's order."""
    gate, own = ("Sigmoid", ()), ACTIVATIONS[network.activation]
    if network.cell == "gru":
        return "GRU", [gate, own]
    return ("RNN", [own]) if network.cell == "rnn" else ("LSTM", [gate, own, own])


def _lstm(kernel: Array, recurrent: Array, bias: Array) -> tuple[Array, Array, Array]:
    def ordered(columns: Array) -> Array:  # (·, 4 · units) to (4 · units, ·)
        gates = np.split(columns, 4, axis=-1)
        return np.concatenate([gates[place] for place in _LSTM_GATES], axis=-1).T

    return ordered(kernel), ordered(recurrent), np.concatenate([ordered(bias), np.zeros_like(bias)])


def _gru(kernel: Array, recurrent: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Keras's reset after the product is ONNX's linear_before_reset: both keep a bias for each of the two products."""
    return kernel.T, recurrent.T, bias.ravel()


def _rnn(kernel: Array, recurrent: Array, bias: Array) -> tuple[Array, Array, Array]:
    return kernel.T, recurrent.T, np.concatenate([bias, np.zeros_like(bias)])

"""LSTM layers computed over a whole sequence by one operation of TensorFlow, in place of Keras's loop over its steps.

`BlockLSTM` and its gradient run their steps in C++. In Keras's loop every sigmoid and product of a step is an operation
of its own, which takes longer to start than to compute where the layer is small. `BlockLSTMV2`, which has Keras's order
of gates, is not used: TensorFlow (2.21) computes its gradient as if it had the order of `BlockLSTM`.
"""

from collections.abc import Sequence
from typing import Any, Final

import keras
import tensorflow as tf
from keras import layers

from training.cells import PeepholeLSTMCell

# Multiplications and additions in the product of a step. Above, TensorFlow shares each product out among its threads,
# which costs more than the product, and Keras's loop is the quicker one.
_MOST_PER_STEP: Final = 2**20
_MOST_UNITS: Final = 64


def suits(layer: layers.Layer, inputs: Any) -> bool:
    """Whether the operation computes what a layer computes over inputs (time, batch, ·), and is quicker at it.

    That it is for up to 64 units and up to 2^20 multiplications in a step, batch · (inputs + units) · 4 · units, which
    is not known where the size of the batch is not.
    """
    cell = layer.cell
    batch, width = inputs.shape[1], inputs.shape[2]
    if batch is None or not isinstance(cell, layers.LSTMCell | PeepholeLSTMCell):
        return False
    if cell.activation is not keras.activations.tanh:
        return False
    work = batch * (width + cell.units) * 4 * cell.units
    return bool(0 < work <= _MOST_PER_STEP and cell.units <= _MOST_UNITS and inputs.shape[0] != 0)


def swept(layer: layers.Layer, inputs: Any, before: Sequence[Any] | None) -> tuple[Any, list[Any]]:
    """What a layer gives over inputs (time, batch, ·) of at least one step, from states (batch, units), zeros for None.

    Returns:
        Its outputs (time, batch, units), in the order of the inputs where it reads them backwards, too, and its states
        at its end, hidden and content.
    """
    cell = layer.cell
    hidden, content = before or [tf.zeros((tf.shape(inputs)[1], cell.units))] * 2
    peephole = tf.convert_to_tensor(cell.peephole) if isinstance(cell, PeepholeLSTMCell) else tf.zeros((3, cell.units))
    found = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.shape(inputs, tf.int64)[0],
        x=inputs[::-1] if layer.go_backwards else inputs,
        cs_prev=content,
        h_prev=hidden,
        w=_reordered(tf.concat([cell.kernel, cell.recurrent_kernel], axis=0)),
        b=_reordered(cell.bias),
        wci=peephole[0],
        wcf=peephole[1],
        wco=peephole[2],
        forget_bias=0.0,  # Keras's is part of the bias
        cell_clip=-1.0,  # none
        use_peephole=isinstance(cell, PeepholeLSTMCell),
    )
    outputs = found.h[::-1] if layer.go_backwards else found.h
    return outputs, [found.h[-1], found.cs[-1]]


def _reordered(gates: Any) -> Any:
    """Keras's input, forget, candidate, output as the operation's input, candidate, forget, output."""
    enter, keep, candidate, leave = tf.split(gates, 4, axis=-1)
    return tf.concat([enter, candidate, keep, leave], axis=-1)

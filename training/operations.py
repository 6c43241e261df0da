"""The arithmetic that networks are written in, as TensorFlow computes it; `training.native` records it as ONNX instead.

Sequences are (time, batch, ·): time comes first, as the native recurrent nodes want it, and what belongs to a whole
window is (1, batch, ·), so that the two meet without being reshaped. Reductions keep their axis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training import block_lstm


@dataclass(frozen=True)
class TensorFlow:
    """Computes with TensorFlow.

    Attributes:
        training: whether batch normalisation learns from what it sees.
        mask: (time, batch, 1), 1.0 where a step is real and 0.0 where it is padding; None where all are real.
        single: whether sequences are one step long, so that cells are called without the loop over time around them.
    """

    training: bool = False
    mask: Any = None
    single: bool = False

    def unmasked(self) -> "TensorFlow":
        """The same for a sequence without padding."""
        return replace(self, mask=None)

    def concatenate(self, parts: Sequence[Any], axis: int = -1) -> Any:
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis)

    def split(self, x: Any, sizes: Sequence[int]) -> list[Any]:
        """Split along the last axis."""
        return list(tf.split(x, sizes, axis=-1))

    def steps(self, x: Any, start: int | None, stop: int | None) -> Any:
        """Steps `start` to `stop` of the first axis."""
        return x[start:stop]

    def chosen(self, x: Any, places: npt.NDArray[np.int64]) -> Any:
        """Steps of the first axis by their places, which may count from the end."""
        return tf.gather(x, tf.shape(x)[0] + places if places[0] < 0 else places, axis=0)

    def taken(self, x: Any, places: Any) -> Any:
        """The same for places of their own in each row: `places` is (count, batch, features), whole numbers."""
        rows = tf.gather(tf.transpose(x, (1, 2, 0)), tf.transpose(places, (1, 2, 0)), axis=2, batch_dims=2)
        return tf.transpose(rows, (2, 0, 1))

    def gather_last(self, x: Any, places: Any) -> Any:
        """Numbers of the last axis by their places."""
        return tf.gather(x, places, axis=-1)

    def padded(self, x: Any, before: int, after: int = 0) -> Any:
        """Zeros laid before and after the last axis."""
        return tf.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[before, after]])

    def repeated(self, x: Any, count: int) -> Any:
        """The first axis, of one step, repeated."""
        return tf.repeat(x, count, axis=0)

    def spread(self, x: Any, like: Any) -> Any:
        """What belongs to a whole window, (1, batch, ·), at every step of a sequence of the same width."""
        return tf.broadcast_to(x, tf.shape(like))

    def transpose(self, x: Any, order: Sequence[int]) -> Any:
        return tf.transpose(x, order)

    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        """0 keeps the size that stands in its place; -1 stands for the rest."""
        return tf.reshape(x, [tf.shape(x)[place] if size == 0 else size for place, size in enumerate(shape)])

    def squeeze(self, x: Any, axis: int) -> Any:
        return tf.squeeze(x, axis)

    def unsqueeze(self, x: Any, axis: int) -> Any:
        return tf.expand_dims(x, axis)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        return tf.where(condition, x, y)

    def maximum(self, x: Any, y: Any) -> Any:
        return tf.maximum(x, y)

    def clip(self, x: Any, low: float, high: float) -> Any:
        return tf.clip_by_value(x, low, high)

    def abs(self, x: Any) -> Any:
        return tf.abs(x)

    def sqrt(self, x: Any) -> Any:
        return tf.sqrt(x)

    def log(self, x: Any) -> Any:
        return tf.math.log(x)

    def exp(self, x: Any) -> Any:
        return tf.exp(x)

    def sin(self, x: Any) -> Any:
        return tf.sin(x)

    def looked_up(self, table: Any, places: Any) -> Any:
        """Rows of a table (rows, ·), by their places as floats (time, batch, 1): (time, batch, ·)."""
        return tf.gather(table, self.whole(places)[..., 0])

    def softmax(self, x: Any) -> Any:
        return tf.nn.softmax(x, axis=-1)

    def max(self, x: Any, axis: int) -> Any:
        return tf.reduce_max(x, axis, keepdims=True)

    def sum(self, x: Any, axis: int) -> Any:
        return tf.reduce_sum(x, axis, keepdims=True)

    def sum_of_sizes(self, x: Any, axis: int) -> Any:
        return self.sum(tf.abs(x), axis)

    def mean(self, x: Any, axis: int) -> Any:
        return tf.reduce_mean(x, axis, keepdims=True)

    def median(self, x: Any, count: int) -> Any:
        """The median over the first axis, which has `count` steps."""
        middle = tf.sort(x, axis=0)[(count - 1) // 2 : count // 2 + 1]
        return self.mean(middle, 0)

    def argmax(self, x: Any) -> Any:
        """The place of the largest number of the last axis, as a float."""
        return tf.cast(tf.argmax(x, axis=-1), tf.float32)[..., None]

    def matmul(self, x: Any, y: Any) -> Any:
        return tf.matmul(x, y)

    def whole(self, x: Any) -> Any:
        """Floats as whole numbers, cut off."""
        return tf.cast(x, tf.int64)

    def length(self, x: Any) -> Any:
        """How many steps a sequence has, as a float."""
        return tf.cast(tf.shape(x)[0], tf.float32)

    def count(self, x: Any) -> Any:
        """How many steps a sequence has, as a whole number."""
        return tf.shape(x, tf.int64)[0]

    def places(self, x: Any, extra: int = 0) -> Any:
        """0, 1, … for each step of a sequence and `extra` more, whole numbers."""
        return tf.range(self.count(x) + extra)

    def if_any_below(self, x: Any, limit: float, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        """What `then` gives where any number is below the limit, else what `otherwise` gives."""
        return tf.cond(tf.reduce_min(x) < limit, then, otherwise)

    def dense(self, layers: Sequence[Any], x: Any) -> Any:
        """Dense layers over the same inputs, side by side."""
        return self.concatenate([layer(x) for layer in layers])

    def normalised(self, layer: Any, x: Any) -> Any:
        if layer is None:
            return x
        if hasattr(layer, "moving_mean"):  # batch normalisation
            mask = None if self.mask is None or x.shape[0] == 1 else self.mask[..., 0] > 0.5
            return layer(x, training=self.training, mask=mask)
        return layer(x)

    def convolved(self, layer: Any, x: Any, before: Any) -> tuple[Any, Any]:
        """A causal convolution over a sequence, and what it has to remember: its last inputs, as `before`."""
        kernel, width = layer.kernel_size[0], x.shape[-1]
        if self.mask is not None:
            x = x * self.mask  # as if nothing had been before the first real step
        if before is None:
            whole = tf.pad(x, [[kernel - 1, 0], [0, 0], [0, 0]])
        else:
            tail = tf.transpose(tf.reshape(before, (-1, width, kernel - 1)), (2, 0, 1))
            whole = tf.concat([tail, x], axis=0)
        convolved = tf.transpose(layer(tf.transpose(whole, (1, 0, 2))), (1, 0, 2))
        tail = tf.transpose(whole[1 - kernel :], (1, 2, 0))
        return convolved, tf.reshape(tail, (1, -1, width * (kernel - 1)))

    def recurred(self, directions: Sequence[Any], x: Any, before: Sequence[Any] | None) -> tuple[Any, Any, list[Any]]:
        """A recurrent layer over a sequence, from the states before it, fresh ones for None.

        Returns:
            The sequence that it gives, what it knows at its end (1, batch, ·), and its states, each (1, batch, units).
        """
        rows = None if before is None else [state[0] for state in before]
        swept = [self._swept(layer, x, rows) for layer in directions]
        outputs, ends = [output for output, _ in swept], [after[0][None] for _, after in swept]
        return self.concatenate(outputs), self.concatenate(ends), [state[None] for state in swept[-1][1]]

    def _swept(self, layer: Any, x: Any, rows: Sequence[Any] | None) -> tuple[Any, list[Any]]:
        """What one direction gives over a sequence, in the order of its steps, and its states at its end."""
        if self.single:
            output, after = layer.cell(x[0], rows)
            return output[None], list(after)
        if self.mask is None and block_lstm.suits(layer, x):
            return block_lstm.swept(layer, x, rows)
        mask = None if self.mask is None else tf.transpose(self.mask[..., 0] > 0.5)
        output, *after = layer(tf.transpose(x, (1, 0, 2)), initial_state=rows, mask=mask, training=self.training)
        output = tf.transpose(output, (1, 0, 2))
        return (output[::-1] if layer.go_backwards else output), after

"""The block operation: it computes what Keras's loop computes, forwards and backwards, where it is taken."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from training.block_lstm import suits, swept
from training.cells import recurrent
from training.config import Network

STEPS, BATCH, INPUTS, UNITS = 5, 3, 2, 4


def layer_of(*, cell: str = "lstm", backwards: bool = False, units: int = UNITS, **network: Any) -> Any:
    """A layer whose weights are all drawn, those too that begin at zero."""
    layer = recurrent(Network.model_validate({"cell": cell, **network}), units, name="layer", backwards=backwards)
    layer.build((None, None, INPUTS))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(0, 0.5, weight.shape) for weight in layer.get_weights()])
    return layer


def drawn(*shape: int) -> Any:
    return tf.constant(np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32))


def by_keras(layer: Any, inputs: Any, before: list[Any] | None) -> tuple[Any, list[Any]]:
    outputs, *states = layer(tf.transpose(inputs, (1, 0, 2)), initial_state=before)
    outputs = tf.transpose(outputs, (1, 0, 2))
    return (outputs[::-1] if layer.go_backwards else outputs), states


@pytest.mark.parametrize("steps", [1, STEPS])
@pytest.mark.parametrize("carried", [True, False], ids=["carried", "fresh"])
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("cell", ["lstm", "peephole_lstm"])
def test_outputs_states_and_gradients_are_those_of_keras(cell: str, backwards: bool, carried: bool, steps: int) -> None:
    layer = layer_of(cell=cell, backwards=backwards)
    inputs = drawn(steps, BATCH, INPUTS)
    before = [drawn(BATCH, UNITS), drawn(BATCH, UNITS) * 0.5] if carried else None
    found = []
    for compute in (swept, by_keras):
        with tf.GradientTape() as tape:
            sources = [inputs, *(before or ()), *(weight.value for weight in layer.trainable_variables)]
            tape.watch(sources)
            outputs, states = compute(layer, inputs, before)
            # each number of outputs and states counts differently
            sizes = [tf.reduce_sum(part * tf.cos(drawn(*part.shape))) for part in (outputs, *states)]
            total = tf.add_n(sizes)
        found.append((outputs, *states, *tape.gradient(total, sources)))

    for by_block, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(np.asarray(by_block), np.asarray(wanted), rtol=1e-4, atol=1e-5)


def test_it_is_taken_for_small_lstm_layers_alone() -> None:
    few = tf.zeros((STEPS, BATCH, INPUTS))

    assert suits(layer_of(), few)
    assert suits(layer_of(cell="peephole_lstm"), few)
    assert not suits(layer_of(units=65), few)
    assert not suits(layer_of(units=64), tf.zeros((STEPS, 128, INPUTS)))
    assert not suits(layer_of(activation="relu"), few)
    assert not any(suits(layer_of(cell=cell), few) for cell in ("gru", "rnn"))


def test_it_is_not_taken_where_a_product_has_no_size_or_one_that_is_not_known() -> None:
    for shape in ((STEPS, None, INPUTS), (STEPS, 0, INPUTS), (0, BATCH, INPUTS)):
        assert not suits(layer_of(), tf.keras.Input(batch_shape=shape))

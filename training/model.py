"""The network: a stacked LSTM with scaling, seasonal lags and a carried state, all inside the graph.

At each step the network sees the observation, its change, and what one season ago says about the next step. It answers
with weights over simple forecasts (the last value, the value one season ago, that season's change added to the last
value, the window's mean) and a correction, so that it starts from sensible references and learns when to trust which.

The state row that the service carries between steps is laid out as

    known (1) | location (F) | spread (F) | change (F) | recent values (R · F) | found seasons (4 · F) | h, c by layer

where `known` is 0 for a fresh row, F is the number of features and R how far back the longest lag reaches. The found
seasons are two lags and how strong each is; only a network that looks for them has these columns.
"""

from typing import Any, Final, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from training.config import Network

LONGEST_FOUND: Final = 168  # a week of hours: the longest season looked for in a window
FOUND_LAGS: Final = 2
_INPUT_LIMIT: Final = 10.0
_TINY: Final = 1e-6


class Scaled(NamedTuple):
    """A window's own measure, each (batch, features): its level, its spread and the size of its steps."""

    location: Any
    spread: Any
    change: Any

    @property
    def scale(self) -> Any:
        """What errors are divided by, in training and in the error table: between spread and step size."""
        return ops.sqrt(self.spread) * ops.sqrt(self.change)  # their product may overflow


class Carried(NamedTuple):
    """What passes from one step to the next; None where there is nothing yet, or nothing of the kind."""

    measure: Scaled
    recent: Any  # (batch, memory, features), centred
    periods: Any | None  # (batch, 2 · FOUND_LAGS, features)
    hidden: list[Any]  # [h, c] of each layer


@keras.saving.register_keras_serializable(package="leadtime")
class Forecaster(keras.Model):  # type: ignore[misc]  # keras has no types
    """A stacked unidirectional LSTM that maps observations in raw units to the next step in raw units.

    Args:
        features: observed values per step, all of them forecast.
        units: width of each LSTM layer; layers of equal width are joined by a residual sum.
        lags: lengths of the seasons that the network looks back; empty for none.
        found: whether two more are found in each window, by the autocorrelation of its changes.
        scaled: whether windows are scaled by their own level and spread.
    """

    def __init__(
        self, *, features: int, units: tuple[int, ...], lags: tuple[int, ...], found: bool, scaled: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.features = features
        self.units = tuple(units)
        self.lags = tuple(lags)
        self.found = found
        self.scaled = scaled
        self.seasons = len(self.lags) + (FOUND_LAGS if found else 0)
        self.memory = max((*self.lags, LONGEST_FOUND if found else 1))
        self.cells = [
            layers.LSTM(width, return_sequences=True, return_state=True, name=f"lstm_{index}")
            for index, width in enumerate(self.units)
        ]
        self.weigh = layers.Dense(features * self.candidates, kernel_initializer="zeros", name="weigh")
        self.correct = layers.Dense(features, kernel_initializer="zeros", name="correct")
        self.build()

    @classmethod
    def from_network(cls, network: Network, *, features: int, season: int | None) -> Self:
        """Build what a configuration asks for, over series of a known season or none."""
        if network.lags == "season":
            lags: tuple[int, ...] = () if season is None else (season,)
        else:
            lags = () if network.lags == "found" else tuple(network.lags)
        return cls(
            features=features,
            units=network.layers,
            lags=lags,
            found=network.lags == "found",
            scaled=network.scaling == "window",
        )

    @property
    def candidates(self) -> int:
        """Simple forecasts that the head weighs: last value, mean, and two per season."""
        return 2 + 2 * self.seasons

    @property
    def inputs_per_step(self) -> int:
        """Numbers that the first layer sees at each step."""
        per_feature = 3 + 2 * self.seasons + (FOUND_LAGS if self.found else 0)
        return self.features * per_feature

    @property
    def state_size(self) -> int:
        """Floats carried per sequence, laid out as the module says."""
        found = FOUND_LAGS if self.found else 0
        return 1 + self.features * (3 + self.memory + 2 * found) + 2 * sum(self.units)

    def build(self, input_shape: Any = None) -> None:
        width = self.inputs_per_step
        for cell, units in zip(self.cells, self.units, strict=True):
            cell.build((None, None, width))
            width = units
        self.weigh.build((None, None, width))
        self.correct.build((None, None, width))
        # Start near the best simple reference: the season's value where one is known, else the last value.
        bias = np.zeros((self.features, self.candidates), np.float32)
        bias[:, 2 if self.lags else 0] = 2.0
        self.weigh.bias.assign(bias.ravel())
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {
            "features": self.features,
            "units": self.units,
            "lags": self.lags,
            "found": self.found,
            "scaled": self.scaled,
        }

    def sequence(self, values: Any, context: Any, *, free: Any = None) -> tuple[Any, Any | None, Any]:
        """Forecast the next step at every step, for training: the window's measure is taken from its context alone.

        Args:
            values: (batch, time, features), raw units; time is at least `context`.
            context: leading steps that level, spread and found seasons are taken from.
            free: steps to forecast iteratively beyond the context, each forecast being fed back; None for none.

        Returns:
            Forecasts of the next step at every step (batch, time, features), iterative forecasts
            (batch, free, features) or None, and the scale (batch, features).
        """
        carried = self._begin(values[:, :context])
        level, scale = carried.measure.location[:, None], carried.measure.scale
        centred = values - level
        known, carried = self._run(centred[:, :context], carried)
        ahead, _ = self._run(centred[:, context:], carried)
        forecasts = ops.concatenate([known, ahead], axis=1) + level
        if free is None:
            return forecasts, None, scale
        return forecasts, self._roll(known[:, -1:], carried, free) + level, scale

    def step(self, values: Any, state: Any) -> tuple[Any, Any, Any]:
        """The artifact's graph: see `service.artifact` for the tensors."""
        hidden_sizes = [units for units in self.units for _ in range(2)]
        begun_size = self.state_size - 1 - sum(hidden_sizes)
        known, begun, *hidden = tf.split(state, [1, begun_size, *hidden_sizes], axis=1)
        fresh = known < 0.5
        # Decoding has no fresh row, and need not look for a measure and seasons in its single step.
        begun = tf.cond(
            tf.reduce_any(fresh),
            lambda: tf.where(fresh, self._packed(self._begin(values)), begun),
            lambda: tf.identity(begun),
        )
        carried = self._unpacked(begun, [hidden[place : place + 2] for place in range(0, len(hidden), 2)])
        location = carried.measure.location
        forecast, carried = self._run(values - location[:, None], carried, last_only=True)
        parts = [ops.ones_like(known), self._packed(carried), *(part for pair in carried.hidden for part in pair)]
        return forecast + location, ops.concatenate(parts, axis=1), carried.measure.scale

    def call(self, values: Any) -> Any:
        """Forecast the next step at every step, the whole window being its context."""
        carried = self._begin(values)
        level = carried.measure.location[:, None]
        forecasts, _ = self._run(values - level, carried)
        return forecasts + level

    def _begin(self, values: Any) -> Carried:
        """What a window of values (batch, time, features), raw units, begins with."""
        measure = self._measure(values)
        first = values[:, :1] - measure.location[:, None]
        periods = self._find(values, measure) if self.found else None
        return Carried(measure, ops.repeat(first, self.memory, axis=1), periods, [None] * len(self.cells))

    def _packed(self, carried: Carried) -> Any:
        """All that is carried but the cells' own state, as rows (batch, ·)."""
        parts = [*carried.measure, ops.reshape(carried.recent, (-1, self.memory * self.features))]
        if carried.periods is not None:
            parts.append(ops.reshape(carried.periods, (-1, 2 * FOUND_LAGS * self.features)))
        return ops.concatenate(parts, axis=1)

    def _unpacked(self, rows: Any, hidden: list[Any]) -> Carried:
        """The opposite of `_packed`."""
        counts = [1, 1, 1, self.memory, *([2 * FOUND_LAGS] if self.found else [])]
        parts = tf.split(rows, [self.features * count for count in counts], axis=1)
        recent, *periods = (
            ops.reshape(part, (-1, count, self.features)) for part, count in zip(parts[3:], counts[3:], strict=True)
        )
        return Carried(Scaled(*parts[:3]), recent, periods[0] if periods else None, hidden)

    def _measure(self, values: Any) -> Scaled:
        """Level, spread and step size of each window; never zero, never overflowing for values of any size."""
        if not self.scaled:
            zeros = ops.zeros_like(values[:, 0])
            return Scaled(zeros, zeros + 1.0, zeros + 1.0)
        magnitude = ops.max(ops.abs(values), axis=1)
        magnitude = ops.where(magnitude > 1e-30, magnitude, 1.0)
        small = values / magnitude[:, None]  # squares of it stay in range
        location = ops.mean(small, axis=1)
        spread = ops.sqrt(ops.mean(ops.square(small - location[:, None]), axis=1)) + _TINY
        # The sum over steps instead of the mean of differences keeps one step (decode) free of a division by zero.
        steps = ops.cast(ops.shape(values)[1], "float32")
        change = ops.sum(ops.abs(small[:, 1:] - small[:, :-1]), axis=1) / ops.maximum(steps - 1.0, 1.0)
        change = ops.maximum(change, 0.02 * spread)
        return Scaled(location * magnitude, spread * magnitude, change * magnitude)

    def _find(self, values: Any, measure: Scaled) -> Any:
        """The two seasons that the changes of each window repeat most at, and how much they do.

        Changes, not values, because a trend or a random walk correlates with itself at every short lag. The first
        season is found by the autocorrelation as it is, which favours short ones; the second by that divided by the
        overlap, which favours the longest that all others divide: a week beside a day.

        Returns:
            (batch, 2 · FOUND_LAGS, features): the lags in steps as floats, then their autocorrelations.
        """
        batch, time = ops.shape(values)[0], ops.shape(values)[1]
        rows = ops.reshape(ops.transpose(values, (0, 2, 1)), (-1, time))  # (batch · features, time)
        change = ops.reshape(measure.change, (-1, 1))
        first = rows[:, :1]
        before = ops.concatenate([first, rows[:, :-1]], axis=1)
        changes = ops.clip((rows - before) / change, -4.0, 4.0)
        padded = ops.concatenate([ops.zeros_like(ops.repeat(first, LONGEST_FOUND + 1, axis=1)), changes], axis=1)
        lags = np.arange(1, LONGEST_FOUND + 2)
        index = (LONGEST_FOUND + 1 - lags)[:, None] + tf.range(time)[None, :]
        shifted = tf.gather(padded, index, axis=1)  # (batch · features, lags, time)
        energy = ops.sum(ops.square(changes), axis=1, keepdims=True) + _TINY
        likeness = ops.squeeze(ops.matmul(shifted, changes[:, :, None]), axis=-1) / energy
        middle = likeness[:, 1:-1]  # of lags 2 … LONGEST_FOUND
        peak = ops.logical_and(middle > likeness[:, :-2], middle >= likeness[:, 2:])
        overlap = 1.0 - lags[1:-1].astype(np.float32) / ops.cast(ops.maximum(time, 2), "float32")
        peak = ops.logical_and(peak, (overlap > 0.45)[None, :])
        whole = ops.where(peak, middle, -1.0)
        level = ops.where(peak, middle / ops.maximum(overlap, 0.1)[None, :], -1.0)
        best = ops.stack([tf.argmax(whole, axis=1), tf.argmax(level, axis=1)], axis=1)
        strength = ops.stack([ops.max(whole, axis=1), ops.max(level, axis=1)], axis=1)
        found = ops.concatenate([ops.cast(best, "float32") + 2.0, strength], axis=1)
        return ops.transpose(ops.reshape(found, (batch, self.features, 2 * FOUND_LAGS)), (0, 2, 1))

    def _run(
        self, centred: Any, before: Carried, *, single: bool = False, last_only: bool = False
    ) -> tuple[Any, Carried]:
        """Roll the cells over centred observations (batch, time, features), from and to what is carried.

        A `single` step calls the cells themselves, without the loop over time around them. With `last_only` the
        forecast is (batch, features), else (batch, time, features).
        """
        measure, periods = before.measure, before.periods
        time = ops.shape(centred)[1]
        history = ops.concatenate([before.recent, centred], axis=1)  # (batch, memory + time, features)
        previous = history[:, self.memory - 1 : -1]
        seasonal = [self._season(history, lag) for lag in self.lags]
        if periods is not None:
            seasonal += [self._found_season(history, time, periods[:, index]) for index in range(FOUND_LAGS)]

        change = measure.change[:, None]
        ratio = ops.log(measure.spread / measure.change)[:, None] + ops.zeros_like(centred)
        inputs = [self._limited(centred / measure.spread[:, None]), self._limited((centred - previous) / change), ratio]
        candidates = [centred, ops.zeros_like(centred)]
        for ahead, now in seasonal:
            inputs += [self._limited((ahead - centred) / change), self._limited((ahead - now) / change)]
            candidates += [ahead, centred + ahead - now]
        if periods is not None:
            strength = periods[:, FOUND_LAGS:]
            inputs += [strength[:, index : index + 1] + ops.zeros_like(centred) for index in range(FOUND_LAGS)]

        flow = ops.concatenate(inputs, axis=-1)
        hidden = []
        for cell, initial in zip(self.cells, before.hidden, strict=True):
            if single:
                output, state = cell.cell(flow[:, 0], initial)
                output = output[:, None]
            else:
                output, *state = cell(flow, initial_state=initial)
            hidden.append(state)
            flow = output + flow if output.shape[-1] == flow.shape[-1] else output
        if last_only:
            flow = flow[:, -1]
            candidates = [candidate[:, -1] for candidate in candidates]
            change = measure.change
        batch = ops.shape(flow)[0]
        steps = [batch] if last_only else [batch, time]
        weights = ops.reshape(self.weigh(flow), (*steps, self.features, self.candidates))
        weights = ops.softmax(weights, axis=-1)
        forecast = ops.sum(weights * ops.stack(candidates, axis=-1), axis=-1) + self.correct(flow) * change
        return forecast, Carried(measure, history[:, -self.memory :], periods, hidden)

    def _roll(self, first: Any, carried: Carried, steps: Any) -> Any:
        """Iterate from a first forecast (batch, 1, features), feeding each back: (batch, steps, features)."""

        def feed(step: Any, forecast: Any, recent: Any, hidden: Any, rolled: Any) -> tuple[Any, ...]:
            before = carried._replace(recent=recent, hidden=hidden)
            following, after = self._run(forecast, before, single=True)
            return step + 1, following, after.recent, after.hidden, rolled.write(step, forecast[:, 0])

        start = (0, first, carried.recent, carried.hidden, tf.TensorArray(tf.float32, steps))
        *_, rolled = tf.while_loop(lambda step, *_: step < steps, feed, start, maximum_iterations=steps)
        return ops.transpose(rolled.stack(), (1, 0, 2))

    def _season(self, history: Any, lag: int) -> tuple[Any, Any]:
        """The values one season before the next step and before this one, each (batch, time, features)."""
        start = self.memory - lag
        return history[:, start + 1 : 1 - lag], history[:, start:-lag]

    def _found_season(self, history: Any, time: Any, period: Any) -> tuple[Any, Any]:
        """As `_season`, for a lag of its own in each row and feature: `period` is (batch, features)."""
        batch, length = ops.shape(history)[0], ops.shape(history)[1]
        flat = ops.reshape(ops.transpose(history, (0, 2, 1)), (-1,))
        rows = tf.range(batch * self.features) * length
        start = rows + self.memory - ops.cast(ops.reshape(period, (-1,)), "int32")
        now = start[:, None] + tf.range(time)[None, :]

        def taken(index: Any) -> Any:
            values = ops.reshape(tf.gather(flat, index), (batch, self.features, time))
            return ops.transpose(values, (0, 2, 1))

        return taken(now + 1), taken(now)

    @staticmethod
    def _limited(inputs: Any) -> Any:
        return ops.clip(inputs, -_INPUT_LIMIT, _INPUT_LIMIT)

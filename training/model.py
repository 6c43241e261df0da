"""The network: recurrent layers with scaling, seasonal lags and a carried state, all inside the graph.

At each step the network sees the observation, its change, and what one season ago says about the next step. Its head
answers with weights over simple forecasts (the last value, the value one season ago, that season's change added to the
last value, the window's mean) and a correction, so that it starts from sensible references and learns when to trust
which. A `plain` head sees the scaled values alone and answers through one dense layer.

The arithmetic is written once, in the operations of `training.operations`: computed by TensorFlow in fitting, recorded
as an ONNX graph by `training.native` in the export. Inside, time is the first axis.

The state row that the service carries between steps is laid out as

    begun (1) | [left (1) | ahead (H · F)] | location, spread, change, ratio, scale (F each) | recent values (R · F) |
    found seasons (4 · F) | recent exogenous (R · E) | the convolution's last inputs | states by layer

where `begun` is 0 for a fresh row, F is the number of features and R how far back the longest lag reaches. The found
seasons are two lags and how strong each is; only a network that looks for them has these columns. Only one that
forecasts its horizon of H steps at once has `ahead`, whose first step is the one that was given last, and `left`, how
many behind that are still to be given.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from training.cells import recurrent, states
from training.config import Network
from training.known import DAYS, Known
from training.measure import FOUND_LAGS, LONGEST_FOUND, Measure, found_seasons, measured
from training.native import Recorder
from training.operations import TensorFlow

_INPUT_LIMIT: Final = 10.0
_LEAST: Final = 1e-30  # what a value at or below zero counts as where logarithms are taken
_KNOWN_UNITS: Final = 32  # of the layer that makes of all that is known what the head adds up
_DAY_WIDTH: Final = 8  # numbers learnt of each day of the year
_LARGEST_LOGARITHM: Final = 88.0  # of what a 32-bit float can hold
_NORMALISATIONS: Final = {"layer": layers.LayerNormalization, "batch": layers.BatchNormalization}

Operations = TensorFlow | Recorder
Season = tuple[Any, Any]  # the values one season before the next step and before this one, each (time, batch, features)


class Carried(NamedTuple):
    """What passes from one step to the next; None where there is nothing of the kind."""

    measure: Measure
    recent: Any  # (memory, batch, features), centred
    periods: Any | None  # (2 · FOUND_LAGS, batch, features)
    exogenous: Any | None  # (memory, batch, exogenous), scaled, of the steps up to the last one that was told of
    hidden: list[list[Any]] | None  # of the convolution and each layer, each (1, batch, ·); None for fresh ones


class Reading(NamedTuple):
    """What the layers made of a sequence, beside what the head needs to know of it."""

    flow: Any  # (time, batch, ·): what the last layer gives at each step
    end: Any  # (1, batch, ·): what it knows at the end
    centred: Any  # (time, batch, features)
    history: Any  # (memory + time, batch, features), centred
    seasonal: list[Season]
    told: Any | None = None  # (time, batch, ·): what is known of the step after each
    days: Any | None = None  # (time, batch, 1): the day of the year of the step after each


@keras.saving.register_keras_serializable(package="leadtime")
class Forecaster(keras.Model):  # type: ignore[misc]  # keras has no types
    """Recurrent layers that map observations in raw units to the next step, or the whole horizon, in raw units.

    Args:
        network: which layers, head and scaling.
        features: observed values per step, all of them forecast.
        lags: lengths of the seasons that the network looks back; empty for none.
        horizon: steps that it forecasts at once; 1 for all but output `horizon`.
        known: what it is told of each step beforehand; nothing if not given.
    """

    def __init__(
        self,
        *,
        network: Network | dict[str, Any],
        features: int,
        lags: Sequence[int],
        horizon: int,
        known: Known | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.network = network if isinstance(network, Network) else Network.model_validate(network)
        self.features = features
        self.lags = tuple(lags)
        self.horizon = horizon
        self.known = known if isinstance(known, Known) else Known.model_validate(known or {})
        self.units = self.network.layers
        self.found = self.network.lags == "found"
        self.plain = self.network.head == "plain"
        self.direct = self.network.output == "horizon"
        self.seasons = len(self.lags) + (FOUND_LAGS if self.found else 0)
        self.memory = max((*self.lags, LONGEST_FOUND if self.found else 1))
        self._make_layers()
        self.build()

    @classmethod
    def from_network(
        cls, network: Network, *, features: int, season: int | None, horizon: int = 1, known: Known | None = None
    ) -> Self:
        """Build what a configuration asks for, over series of a known season or none.

        `horizon` counts the steps that output `horizon` forecasts at once; the others take no notice of it.
        """
        if network.lags == "season":
            lags: tuple[int, ...] = () if season is None else (season,)
        else:
            lags = () if network.lags == "found" else tuple(network.lags)
        at_once = horizon if network.output == "horizon" else 1
        return cls(network=network, features=features, lags=lags, horizon=at_once, known=known)

    @property
    def candidates(self) -> int:
        """Simple forecasts that the head weighs: last value, mean, and two per season."""
        return 2 + 2 * self.seasons

    @property
    def inputs_per_step(self) -> int:
        """Numbers that are seen at each step."""
        if self.plain:
            return self.features * (1 + self.seasons) + self.told_per_step
        per_feature = 3 + 2 * self.seasons + (FOUND_LAGS if self.found else 0)
        return self.features * per_feature + self.told_per_step

    @property
    def told_per_step(self) -> int:
        """Numbers that the layers are told of what is known: of the calendar, and of columns and their changes."""
        return self.known.calendar_width + self.known.columns * (2 + len(self.lags))

    @property
    def state_size(self) -> int:
        """Floats carried per sequence, laid out as the module says; 0 where the window is slid instead."""
        return sum(self._columns()) if self.network.carries else 0

    def build(self, input_shape: Any = None) -> None:
        width = self.inputs_per_step
        if self.convolution is not None:
            self.convolution.build((None, None, width))
            width = self.convolution.filters
        width = self._build_stack(self.cells, self.backward, self.norms, width)
        width = self._build_stack(self.decoder, [], [None] * len(self.decoder), width)
        if self.telling is not None:
            told = self.told_per_step + (_DAY_WIDTH if self.days is not None else 0)
            self.telling.build((None, None, told))
            width += self.told_per_step + _KNOWN_UNITS
        if self.days is not None:
            self.days.build((None, None))
        for layer in self.heads:
            layer.build((None, None, width))
        if not self.plain:
            # Start near the best simple reference: the season's value where one is known, else the last value.
            bias = np.zeros((self.horizon if self._dense_horizon else 1, self.features, self.candidates), np.float32)
            bias[..., 2 if self.lags else 0] = 2.0
            self.heads[0].bias.assign(bias.ravel())
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {
            "network": self.network.model_dump(mode="json"),
            "features": self.features,
            "lags": self.lags,
            "horizon": self.horizon,
            "known": self.known.model_dump(mode="json"),
        }

    def inward(self, values: Any, ops: Operations | None = None) -> Any:
        """Values in raw units as the units that the network is fitted in: the same, or their logarithms."""
        if self.network.transform == "none":
            return values
        ops = ops or TensorFlow()
        return ops.log(ops.maximum(values, _LEAST))

    def outward(self, values: Any, ops: Operations | None = None) -> Any:
        """The opposite of `inward`."""
        if self.network.transform == "none":
            return values
        ops = ops or TensorFlow()
        return ops.exp(ops.clip(values, -_LARGEST_LOGARITHM, _LARGEST_LOGARITHM))

    def sequence(
        self,
        values: Any,
        context: Any,
        *,
        free: Any = None,
        lengths: Any = None,
        training: bool = False,
        known: Any = None,
    ) -> tuple[Any, Any | None, Any]:
        """Forecast the next step at every step, for training: the window's measure is taken from its context alone.

        Args:
            values: (batch, time, features), as `inward` gives them; time is at least `context`.
            context: leading steps that level, spread and found seasons are taken from.
            free: steps to forecast iteratively beyond the context, each forecast being fed back; None for none.
            lengths: (batch,) how many of the context's steps are real, the last ones; None for all.
            training: whether batch normalisation learns.
            known: (batch, time, known), of the step after each, where anything is; time is then at least
                `context` + `free`.

        Returns:
            Forecasts of the next step at every step (batch, time, features), iterative forecasts
            (batch, free, features) or None, and the scale (batch, features).
        """
        beyond, within, values, known = self._prepared(values, context, lengths, training, known)
        told, following = (None, None) if known is None else (known[:context], known[context:])
        carried = self._begin(within, values[:context], told)
        level, scale = carried.measure.location, carried.measure.scale[0]
        centred = values - level
        reading, carried = self._read(within, centred[:context], carried, told)
        first = self._next(within, reading, carried.measure)
        reading, _ = self._read(beyond, centred[context:], carried, following)
        ahead = self._next(beyond, reading, carried.measure)
        forecasts = _batch_first(tf.concat([first, ahead], axis=0) + level)
        if free is None:
            return forecasts, None, scale
        return forecasts, _batch_first(self._roll(first[-1:], carried, free, following) + level), scale

    def ahead(
        self, values: Any, *, steps: Any = None, lengths: Any = None, training: bool = False, known: Any = None
    ) -> tuple[Any, Any]:
        """Forecast what follows windows (batch, time, features), given as `inward` does, from their ends alone.

        Args:
            values: the windows, all of them context.
            steps: how many steps to forecast, iteratively; None for one, and for output `horizon`, which forecasts all
                that it has at once.
            lengths: (batch,) how many of the steps are real, the last ones; None for all.
            training: whether batch normalisation learns.
            known: (batch, time + steps, known), of the step after each, where anything is.

        Returns:
            Forecasts (batch, steps, features) and the scale (batch, features).
        """
        context = tf.shape(values)[1]
        _, within, values, known = self._prepared(values, context, lengths, training, known)
        told, following = (None, None) if known is None else (known[:context], known[context:])
        carried = self._begin(within, values, told)
        level = carried.measure.location
        reading, carried = self._read(within, values - level, carried, told)
        if self.direct:
            forecasts = self._unfold(within, reading, carried)
        else:
            forecasts = self._next(within, reading, carried.measure, at_end=True)
            forecasts = forecasts if steps is None else self._roll(forecasts, carried, steps, following)
        return _batch_first(forecasts + level), carried.measure.scale[0]

    def step(
        self, values: Any, state: Any | None, ops: Operations | None = None, *, known: Any = None
    ) -> tuple[Any, Any | None, Any]:
        """The artifact's graph: see `service.artifact` for the tensors; without `state` where the window is slid.

        `ops` are the operations that it is computed, or recorded, in; TensorFlow's if not given.
        """
        ops = ops or TensorFlow()
        raw = ops.transpose(values, (1, 0, 2))
        values = self.inward(raw, ops)
        told = None if known is None else ops.transpose(known, (1, 0, 2))
        if state is None:
            carried = self._begin(ops, values, told)
            begun = queue = None
        else:
            begun, queue, carried = self._taken_up(ops, values, ops.unsqueeze(state, 0), told)
        location = carried.measure.location
        reading, carried = self._read(ops, values - location, carried, told)
        if self.direct:
            forecast, queue = self._handed_out(ops, ops.steps(raw, -1, None), reading, carried, queue)
        else:
            forecast = self.outward(self._next(ops, reading, carried.measure, at_end=True) + location, ops)
        scale = ops.squeeze(self._unit_of_errors(carried.measure), 0)
        if begun is None:
            return ops.squeeze(forecast, 0), None, scale
        row = [ops.maximum(begun, 1.0), *(queue or ()), *self._packed(ops, carried)]
        row += [part for parts in carried.hidden or () for part in parts]
        return ops.squeeze(forecast, 0), ops.squeeze(ops.concatenate(row), 0), scale

    def _unit_of_errors(self, measure: Measure) -> Any:
        """What the artifact's errors are divided by; with a transform it is that of transformed values.

        Of a network that measures by its season, the mean change over a season: chosen on M4's hourly series, whose
        intervals it narrows by a quarter.
        """
        return measure.change if self.network.scaling == "season" else measure.scale

    @property
    def _dense_horizon(self) -> bool:
        """Whether one dense layer gives the whole horizon, without a decoder that unfolds it."""
        return self.direct and not self.network.decoder

    def _make_layers(self) -> None:
        network = self.network
        self.convolution = None
        if network.convolution is not None:
            self.convolution = layers.Conv1D(
                network.convolution.filters,
                network.convolution.kernel,
                activation=network.convolution.activation,
                kernel_initializer=network.initialiser,
                name="convolution",
            )
        self.cells = [
            recurrent(network, units, name=f"{network.cell}_{index}") for index, units in enumerate(self.units)
        ]
        self.backward = [
            recurrent(network, units, name=f"{network.cell}_{index}_backwards", backwards=True)
            for index, units in enumerate(self.units)
            if network.bidirectional
        ]
        kind = _NORMALISATIONS.get(network.normalisation)
        self.norms = [None if kind is None else kind(name=f"normal_{index}") for index in range(len(self.units))]
        self.decoder = [
            recurrent(network, units, name=f"decoder_{index}") for index, units in enumerate(network.decoder)
        ]
        self.telling = layers.Dense(_KNOWN_UNITS, name="tell") if self.known.count else None
        self.days = layers.Embedding(DAYS, _DAY_WIDTH, name="days") if self.known.days else None
        at_once = self.features * (self.horizon if self._dense_horizon else 1)
        if self.plain:
            self.heads = [layers.Dense(at_once, name="answer")]
        else:
            self.heads = [
                layers.Dense(at_once * self.candidates, kernel_initializer="zeros", name="weigh"),
                layers.Dense(at_once, kernel_initializer="zeros", name="correct"),
            ]

    def _build_stack(self, cells: Sequence[Any], backward: Sequence[Any], norms: Sequence[Any], width: int) -> int:
        for index, cell in enumerate(cells):
            for layer in (cell, *backward[index : index + 1]):
                layer.build((None, None, width))
            width = cell.cell.units * (2 if backward else 1)
            if norms[index] is not None:
                norms[index].build((None, None, width))
        return width

    def _columns(self) -> list[int]:
        """Widths of the parts of a state row, those of what a window begins with being one."""
        found = 2 * FOUND_LAGS if self.found else 0
        queue = [1, self.horizon * self.features] if self.direct else []
        return [
            1,
            *queue,
            self.features * (5 + self.memory + found) + self.known.columns * self.memory,
            *(width for part in self._hidden() for width in part),
        ]

    def _hidden(self) -> list[list[int]]:
        """Widths of the states of the convolution, where there is one, and of each layer."""
        kept = [[units] * states(self.network.cell) for units in self.units]
        if self.convolution is None:
            return kept
        return [[self.inputs_per_step * (self.convolution.kernel_size[0] - 1)], *kept]

    def _prepared(
        self, values: Any, context: Any, lengths: Any, training: bool, known: Any
    ) -> tuple[TensorFlow, TensorFlow, Any, Any]:
        """Operations beyond and within the context, the values and what is known, time first, what is real in padding.

        In front of a series stands its first value, as often as anybody looks back: so it stands in padding, too.
        """
        values = tf.transpose(values, (1, 0, 2))
        known = None if known is None else tf.transpose(known, (1, 0, 2))
        beyond = TensorFlow(training=training)
        if lengths is None:
            return beyond, beyond, values, known
        padding = context - lengths  # (batch,)
        mask = tf.cast(tf.range(context)[:, None] >= padding[None, :], tf.float32)[..., None]
        within = TensorFlow(training=training, mask=mask)
        return (
            beyond,
            within,
            _filled(values, padding, mask, context),
            None if known is None else _filled(known, padding, mask, context),
        )

    def _begin(self, ops: Operations, values: Any, told: Any) -> Carried:
        """What a window of values (time, batch, features) begins with."""
        measure = measured(ops, values, self.network.scaling, self.lags[0] if self.lags else 1)
        first = ops.steps(values, None, 1) - measure.location
        periods = found_seasons(ops, values, measure) if self.found else None
        columns = None if told is None else self.known.split(ops, ops.steps(told, None, 1))[1]
        exogenous = None if columns is None else ops.repeated(columns, self.memory)
        return Carried(measure, ops.repeated(first, self.memory), periods, exogenous, None)

    def _taken_up(self, ops: Operations, values: Any, state: Any, told: Any) -> tuple[Any, list[Any] | None, Carried]:
        """The parts of a state row (1, batch, state_size): begun, the queue where there is one, and what is carried."""
        begun, *parts = ops.split(state, self._columns())
        queue = None
        if self.direct:
            left, ahead, *parts = parts
            queue = [left, ahead]
        held, *flat = parts
        # Decoding has no fresh row, and need not look for a measure and seasons in its single step.
        held = ops.if_any_below(
            begun,
            0.5,
            lambda: ops.where(begun < 0.5, ops.concatenate(self._packed(ops, self._begin(ops, values, told))), held),
            lambda: held,
        )
        rest = iter(flat)
        hidden = [[next(rest) for _ in widths] for widths in self._hidden()]
        return begun, queue, self._unpacked(ops, held, hidden)

    def _packed(self, ops: Operations, carried: Carried) -> list[Any]:
        """All that is carried but the hidden states, as parts of a row (1, batch, ·)."""
        parts = [*carried.measure, self._row(ops, carried.recent, self.memory, self.features)]
        if carried.periods is not None:
            parts.append(self._row(ops, carried.periods, 2 * FOUND_LAGS, self.features))
        if carried.exogenous is not None:
            parts.append(self._row(ops, carried.exogenous, self.memory, self.known.columns))
        return parts

    def _unpacked(self, ops: Operations, row: Any, hidden: list[list[Any]]) -> Carried:
        """The opposite of `_packed`."""
        sizes = [(1, self.features)] * len(Measure._fields) + [(self.memory, self.features)]
        sizes += [(2 * FOUND_LAGS, self.features)] if self.found else []
        sizes += [(self.memory, self.known.columns)] if self.known.columns else []
        parts = ops.split(row, [count * width for count, width in sizes])
        steps = [self._steps(ops, part, *size) for part, size in zip(parts, sizes, strict=True)]
        measure, (recent, *rest) = steps[: len(Measure._fields)], steps[len(Measure._fields) :]
        periods = rest[0] if self.found else None
        return Carried(Measure(*measure), recent, periods, rest[-1] if self.known.columns else None, hidden)

    def _row(self, ops: Operations, steps: Any, count: int, width: int) -> Any:
        """Steps (count, batch, width) as one row (1, batch, count · width)."""
        if count == 1:
            return steps
        if width == 1:
            return ops.transpose(steps, (2, 1, 0))
        return ops.reshape(ops.transpose(steps, (1, 0, 2)), (1, -1, count * width))

    def _steps(self, ops: Operations, row: Any, count: int, width: int) -> Any:
        """The opposite: a row (1, batch, count · width) as steps (count, batch, width)."""
        if count == 1:
            return row
        if width == 1:
            return ops.transpose(row, (2, 1, 0))
        return ops.transpose(ops.reshape(row, (-1, count, width)), (1, 0, 2))

    def _read(self, ops: Operations, centred: Any, before: Carried, known: Any) -> tuple[Reading, Carried]:
        """Roll the layers over centred observations (time, batch, features), from and to what is carried.

        `known`, (time, batch, known), is what is known of the step after each, where anything is.
        """
        history = ops.concatenate([before.recent, centred], axis=0)
        seasonal = [self._season(ops, history, lag) for lag in self.lags]
        if before.periods is not None:
            seasonal += self._seasons_found(ops, history, centred, before.periods)
        told, days, exogenous = self._told(ops, known, before.exogenous)
        inputs = self._inputs(ops, centred, history, seasonal, before)
        flow, end, hidden = self._stack(ops, inputs if told is None else ops.concatenate([inputs, told]), before.hidden)
        recent = ops.steps(centred if self.memory == 1 else history, -self.memory, None)
        reading = Reading(flow, end, centred, history, seasonal, told, days)
        return reading, Carried(before.measure, recent, before.periods, exogenous, hidden)

    def _told(self, ops: Operations, known: Any, before: Any) -> tuple[Any, Any, Any]:
        """What the layers are told of what is known, the days of the year, and the columns to be remembered.

        Of columns they are told, too, how they differ from those of the step before and of one season before, whose
        values owe something to them.
        """
        if not self.known.count:
            return None, None, None
        fields, columns = self.known.split(ops, known)
        parts = self.known.told(ops, fields)
        remembered = None
        if columns is not None:
            history = ops.concatenate([before, columns], axis=0)
            parts += [columns, columns - ops.steps(history, self.memory - 1, -1)]
            parts += [columns - ops.steps(history, self.memory - lag, -lag) for lag in self.lags]
            remembered = ops.steps(history, -self.memory, None)
        return ops.concatenate(parts), fields.get("day_of_year"), remembered

    def _next(self, ops: Operations, reading: Reading, measure: Measure, *, at_end: bool = False) -> Any:
        """Centred forecasts of the next step (time, batch, features): at every step, or at the end alone."""
        flow, centred, seasonal = reading.flow, reading.centred, reading.seasonal
        told, days = reading.told, reading.days
        if at_end:
            flow, centred = reading.end, ops.steps(centred, -1, None)
            told, days = (None if one is None else ops.steps(one, -1, None) for one in (told, days))
            seasonal = [(ops.steps(ahead, -1, None), ops.steps(now, -1, None)) for ahead, now in seasonal]
        if told is not None:
            flow = ops.concatenate([flow, told, self._made_of(ops, told, days)])
        return self._answer(ops, ops.dense(self.heads, flow), centred, seasonal, measure)

    def _made_of(self, ops: Operations, told: Any, days: Any) -> Any:
        """What one layer makes of all that is known, (time, batch, ·): a Monday in May is more than the two alone."""
        if self.days is not None:
            told = ops.concatenate([told, ops.looked_up(self.days.embeddings, days - 1.0)])
        return ops.maximum(ops.dense([self.telling], told), 0.0)

    def _inputs(self, ops: Operations, centred: Any, history: Any, seasonal: Sequence[Season], carried: Carried) -> Any:
        """What the first layer sees at each step: (time, batch, inputs_per_step)."""
        measure = carried.measure
        if self.plain:
            return ops.concatenate([centred, *(ahead for ahead, _ in seasonal)]) / self._beside(
                ops, [measure.spread] * (1 + self.seasons)
            )
        previous = ops.steps(history, self.memory - 1, -1)
        parts = [
            ops.concatenate([centred, centred - previous]) / ops.concatenate([measure.spread, measure.change]),
            ops.spread(measure.ratio, centred),
        ]
        if seasonal:
            differences = [ahead - other for ahead, now in seasonal for other in (centred, now)]
            parts.append(ops.concatenate(differences) / self._beside(ops, [measure.change] * len(differences)))
        if carried.periods is not None:
            strengths = [ops.steps(carried.periods, FOUND_LAGS + index, FOUND_LAGS + index + 1) for index in range(2)]
            parts += [ops.spread(strength, centred) for strength in strengths]
        return ops.clip(ops.concatenate(parts), -_INPUT_LIMIT, _INPUT_LIMIT)

    def _beside(self, ops: Operations, parts: list[Any]) -> Any:
        """The same measure for each of several parts; a single feature's fits them all."""
        return parts[0] if self.features == 1 else ops.concatenate(parts)

    def _stack(self, ops: Operations, inputs: Any, before: list[list[Any]] | None) -> tuple[Any, Any, list[list[Any]]]:
        """The layers over their inputs: their sequence, what they know at its end (1, batch, ·), and their states."""
        flow = inputs
        rest = iter([None] * (1 + len(self.cells)) if before is None else before)
        hidden = []
        if self.convolution is not None:
            tail = next(rest)
            flow, kept = ops.convolved(self.convolution, flow, None if tail is None else tail[0])
            hidden.append([kept])
        end = ops.steps(flow, -1, None)
        for index, cell in enumerate(self.cells):
            output, last, after = ops.recurred((cell, *self.backward[index : index + 1]), flow, next(rest))
            output = ops.normalised(self.norms[index], output)
            last = self._ends(ops, output) if ops.training else ops.normalised(self.norms[index], last)
            hidden.append(after)
            flow, end = self._joined(index, output, flow), self._joined(index, last, end)
        return flow, end, hidden

    def _ends(self, ops: Operations, output: Any) -> Any:
        """Where each direction ends: the last step, and of the backward half the first."""
        if not self.backward:
            return ops.steps(output, -1, None)
        half = output.shape[-1] // 2
        forward, backward = ops.split(output, [half, half])
        return ops.concatenate([ops.steps(forward, -1, None), ops.steps(backward, None, 1)])

    def _joined(self, index: int, output: Any, inputs: Any) -> Any:
        """A layer's output, with its inputs added where they are as wide."""
        both = 2 if self.network.bidirectional else 1
        before = self.convolution.filters if self.convolution is not None else self.inputs_per_step
        width = before if index == 0 else both * self.units[index - 1]
        return output + inputs if self.network.residual and width == both * self.units[index] else output

    def _answer(self, ops: Operations, given: Any, centred: Any, seasonal: Sequence[Season], measure: Measure) -> Any:
        """Centred forecasts (time, batch, features) from what the head gives and the simple forecasts beside it."""
        if self.plain:
            return given * measure.spread
        logits, correction = ops.split(given, [self.features * self.candidates, self.features])
        simple = [centred]
        for ahead, now in seasonal:
            simple += [ahead, centred + ahead - now]
        return self._weighted(ops, logits, simple) + correction * measure.change

    def _weighted(self, ops: Operations, logits: Any, simple: list[Any]) -> Any:
        """The mean of simple forecasts by softmax weights; the window's mean is one of them, and is 0 when centred."""
        parts = [1, 1] if len(simple) == 1 else [1, 1, len(simple) - 1]
        if self.features == 1:
            last, _, *others = ops.split(ops.softmax(logits), parts)
            answer = last * simple[0]
            return answer + ops.sum(others[0] * ops.concatenate(simple[1:]), 2) if others else answer
        weights = ops.softmax(ops.reshape(logits, (0, 0, self.features, self.candidates)))
        last, _, *others = ops.split(weights, parts)
        answer = ops.squeeze(last, 3) * simple[0]
        if not others:
            return answer
        stacked = ops.concatenate([ops.unsqueeze(one, 3) for one in simple[1:]])
        return answer + ops.squeeze(ops.sum(others[0] * stacked, 3), 3)

    def _unfold(self, ops: Operations, reading: Reading, carried: Carried) -> Any:
        """Centred forecasts of the whole horizon (horizon, batch, features), from what the layers know at the end."""
        if self.decoder:
            flow = ops.repeated(reading.end, self.horizon)
            for layer in self.decoder:
                flow, _, _ = ops.unmasked().recurred((layer,), flow, None)
            given = ops.dense(self.heads, flow)
        else:
            widths = [layer.units for layer in self.heads]
            parts = ops.split(ops.dense(self.heads, reading.end), widths)
            given = ops.concatenate(
                [
                    self._steps(ops, part, self.horizon, width // self.horizon)
                    for part, width in zip(parts, widths, strict=True)
                ]
            )
        history, leads = reading.history, np.arange(self.horizon)
        seasonal = [
            (ops.chosen(history, leads % lag - lag), ops.chosen(history, np.array([-1 - lag]))) for lag in self.lags
        ]
        if carried.periods is not None:
            for index in range(FOUND_LAGS):
                period = ops.whole(ops.steps(carried.periods, index, index + 1))
                start = ops.count(history) - period
                ahead = ops.taken(history, start + leads[:, None, None] % period)
                seasonal.append((ahead, ops.taken(history, start - 1)))
        return self._answer(ops, given, ops.steps(reading.centred, -1, None), seasonal, carried.measure)

    def _handed_out(
        self, ops: Operations, last: Any, reading: Reading, carried: Carried, queue: list[Any] | None
    ) -> tuple[Any, list[Any] | None]:
        """The next forecast (1, batch, features) of those made at once, and the queue that it leaves behind.

        A row whose last value is the forecast that was given last goes on with the next one. One that was told another
        value, or has none left, begins a new horizon there.
        """

        def afresh() -> Any:
            ahead = self._unfold(ops, reading, carried) + carried.measure.location
            return self._row(ops, self.outward(ahead, ops), self.horizon, self.features)

        widths = [self.features, *([self.features * (self.horizon - 1)] if self.horizon > 1 else [])]
        if queue is None:
            return ops.split(afresh(), widths)[0], None
        left, ahead = queue
        given, *rest = ops.split(ahead, widths)
        left = ops.where(ops.max(ops.abs(last - given), 2) > 0.0, 0.0, left)
        moved = ops.concatenate([*rest, given])
        ahead = ops.if_any_below(left, 0.5, lambda: ops.where(left < 0.5, afresh(), moved), lambda: moved)
        left = ops.where(left < 0.5, float(self.horizon - 1), left - 1.0)
        return ops.split(ahead, widths)[0], [left, ahead]

    def _roll(self, first: Any, carried: Carried, steps: Any, known: Any) -> Any:
        """Iterate from a first forecast (1, batch, features), feeding each back: (steps, batch, features).

        `known`, (at least steps, batch, known), is what is known of the step after each of them, where anything is.
        """
        ops = TensorFlow(single=True)
        columns = self.known.columns > 0

        def feed(step: Any, forecast: Any, recent: Any, held: Any, hidden: Any, rolled: Any) -> tuple[Any, ...]:
            before = carried._replace(recent=recent, hidden=hidden, exogenous=held if columns else None)
            reading, after = self._read(ops, forecast, before, None if known is None else known[step][None])
            following = self._next(ops, reading, carried.measure)
            held = after.exogenous if columns else held
            return step + 1, following, after.recent, held, after.hidden, rolled.write(step, forecast[0])

        held = carried.exogenous if columns else 0
        start = (0, first, carried.recent, held, carried.hidden, tf.TensorArray(tf.float32, steps))
        *_, rolled = tf.while_loop(lambda step, *_: step < steps, feed, start, maximum_iterations=steps)
        return rolled.stack()

    def _season(self, ops: Operations, history: Any, lag: int) -> Season:
        """The values one season before the next step and before this one."""
        start = self.memory - lag
        return ops.steps(history, start + 1, 1 - lag), ops.steps(history, start, -lag)

    def _seasons_found(self, ops: Operations, history: Any, centred: Any, periods: Any) -> list[Season]:
        """The same for the lags that were found, which each row and feature has of its own."""
        steps = ops.reshape(ops.places(centred, extra=1), (-1, 1, 1))
        seasons = []
        for index in range(FOUND_LAGS):
            period = ops.whole(ops.steps(periods, index, index + 1))
            both = ops.taken(history, self.memory - period + steps)
            seasons.append((ops.steps(both, 1, None), ops.steps(both, None, -1)))
        return seasons


def _filled(x: Any, padding: Any, mask: Any, context: Any) -> Any:
    """A sequence (time, batch, ·) with its first real step (batch,) laid into the padding of its context."""
    first = tf.gather(tf.transpose(x, (1, 0, 2)), padding, batch_dims=1)[None]
    return tf.concat([tf.where(mask > 0.5, x[:context], first), x[context:]], axis=0)


def _batch_first(sequence: Any) -> Any:
    return tf.transpose(sequence, (1, 0, 2))

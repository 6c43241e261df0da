"""Fitting a network to batches of windows: the loss, the epochs, early stopping, interruption and resumption."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Protocol

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.cells import numbers
from training.config import Config, Fitting
from training.model import Forecaster
from training.panel import Panel
from training.parts import Split, known_of
from training.windows import Batch, Stack, Windows

_SETTLING: Final = 12  # steps at a window's start whose forecasts have too little history to learn from
_CONTEXT_WEIGHT: Final = 0.2  # of steps inside the context, whose scale has seen what they forecast
_USUAL_MOMENTUM: Final = 0.9
_FORGETTING: Final = 9.0  # batches: averages are over about a ninth of those so far, until that is as many as asked for
_ERROR_LIMIT: Final = 30.0  # errors in units of a window's own scale teach nothing beyond: it was flat before a jump
_MOMENT: Final = 0.5  # seconds after which, at the latest, progress is told and an interrupt is heard
_MOST_AT_ONCE: Final = 64
_NUMBERS: Final = (((), tf.int32), ((None,), tf.int32), ((), tf.float32))  # of one batch, of each batch, a weight

Weights = list[npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class History:
    """Mean losses by epoch, and the epoch (from 1) whose weights were kept."""

    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    closing: list[float] = field(default_factory=list)  # of the closing epochs, which have no validation

    @property
    def best_epoch(self) -> int:
        """The epoch of the least validation loss, one that is no number being the worst; 0 before the first."""
        return next(iter(self.best_epochs(1)), 0)

    def best_epochs(self, count: int) -> list[int]:
        """At most `count` epochs, the one of the least validation loss first; after it, none without a loss."""
        losses = np.array(self.validation, float)
        order = np.argsort(np.where(np.isnan(losses), np.inf, losses), kind="stable")[:count]
        return [int(index) + 1 for place, index in enumerate(order) if place == 0 or np.isfinite(losses[index])]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted network and how its fitting went."""

    network: Forecaster
    history: History
    resumed_at: int  # the epoch that fitting went on from; 0 where it began afresh
    kept: dict[int, Weights]  # those of the best epochs by their number, the best one first
    closed: Weights | None  # what the best ones became in the closing epochs, where there were any


class Progress(Protocol):
    """What a fitting run tells while it runs; at the end of an epoch the network has the weights that were judged."""

    def batch(self, done: int, total: int) -> None: ...

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None: ...


def fit(panel: Panel, split: Split, config: Config, *, checkpoint: Path, progress: Progress) -> Fitted:
    """Fit the network that a configuration asks for to a panel's training part; see `fit_network`."""
    network = unfitted(panel, split, config)
    windows = Windows.cut(panel, split, config)
    closing = None
    if config.fitting.closing_epochs:
        closing = Windows.cut(panel, split.with_validation_in_training, config).epoch
    return fit_network(
        network,
        windows.epoch,
        windows.judged(),
        config.fitting,
        steps_per_epoch=windows.steps_per_epoch,
        checkpoint=checkpoint,
        progress=progress,
        keep=config.ensemble.checkpoints,
        closing=closing,
    )


def unfitted(panel: Panel, split: Split, config: Config) -> Forecaster:
    """The network that a configuration asks for over a panel, with the weights that its seed begins with."""
    keras.utils.set_random_seed(config.seed)
    return Forecaster.from_network(
        config.network,
        features=len(panel.features),
        season=panel.season,
        horizon=split.horizon,
        known=known_of(panel, split),
    )


def validation_loss(network: Forecaster, panel: Panel, split: Split, config: Config) -> float:
    """The mean loss of a fitted network on validation data, as each epoch is judged by."""
    run = _Run(network, None, config.fitting.model_copy(update={"average": None}))
    return run.judged(Windows.cut(panel, split, config).judged())


def fit_network(
    network: Forecaster,
    epochs: Callable[[int], Iterable[Batch]],
    validation: Sequence[Batch],
    fitting: Fitting,
    *,
    steps_per_epoch: int,
    checkpoint: Path,
    progress: Progress,
    keep: int = 1,
    closing: Callable[[int], Iterable[Batch]] | None = None,
) -> Fitted:
    """Fit a network, leaving it with the weights of its best epoch on validation data, or those after closing epochs.

    Args:
        network: the network, freshly initialised.
        epochs: the batches of an epoch, given its number from 0; the same ones whenever it is asked again.
        validation: batches that decide which epoch is kept and when to stop.
        fitting: rates, limits and patience.
        steps_per_epoch: how many batches `epochs` gives.
        checkpoint: file that holds the whole state of the run after each epoch; where it exists, the run goes on
            from it, and loses at most one epoch.
        progress: is told of each batch and epoch.
        keep: of how many epochs, the best ones, the weights are kept.
        closing: the batches of a closing epoch, given its number among all epochs; None for no closing epochs.
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        fitting.rate / 10,
        decay_steps=max(fitting.epochs * steps_per_epoch - fitting.warm_up, 1),
        alpha=0.1,
        warmup_target=fitting.rate,
        warmup_steps=fitting.warm_up,
    )
    optimizer = _optimizer(fitting, schedule)
    optimizer.build(network.trainable_variables)
    run = _Run(network, optimizer, fitting, keep)
    resumed_at = run.restore(checkpoint)
    total = fitting.epochs + (0 if closing is None else fitting.closing_epochs)
    for number in range(len(run.history.training), fitting.epochs):
        if run.history.closing or run.patience_is_spent():
            break
        loss = _epoch(run, epochs(number), steps_per_epoch, progress)
        run.record(loss, validation)
        run.save(checkpoint)
        with run.averaged():
            progress.epoch(number + 1, total, loss, run.history.validation[-1])
    kept = {epoch: run.kept[epoch] for epoch in run.history.best_epochs(keep)}
    closed = None
    if closing is not None and total > fitting.epochs:
        if not run.history.closing:
            run.go_on_from(kept[run.history.best_epoch], at_step=fitting.epochs * steps_per_epoch)
        for number in range(fitting.epochs + len(run.history.closing), total):
            run.history.closing.append(_epoch(run, closing(number), steps_per_epoch, progress))
            run.save(checkpoint)
            progress.epoch(number + 1, total, run.history.closing[-1], None)
        closed = run.weights()
    network.set_weights(kept[run.history.best_epoch] if closed is None else closed)
    return Fitted(network, run.history, resumed_at, kept, closed)


def losses_by_rate(
    network: Forecaster, batches: Sequence[Batch], fitting: Fitting, rates: Iterable[float]
) -> Iterator[float]:
    """Fit a network to the same batches again and again, each time at the next rate, and give their mean losses.

    A batch's loss is that before the step which it takes. A rate is not tried before its loss is asked for.
    """
    optimizer = _optimizer(fitting, 1.0)
    optimizer.build(network.trainable_variables)
    run = _Run(network, optimizer, fitting)
    for rate in rates:
        optimizer.learning_rate.assign(rate)
        yield float(np.mean([loss for found in run.learnt(batches) for loss in found]))


def _epoch(run: "_Run", batches: Iterable[Batch], steps: int, progress: Progress) -> float:
    """Learn from the batches of an epoch; their mean loss."""
    losses: list[float] = []
    for found in run.learnt(batches):
        losses += found
        progress.batch(len(losses), steps)
    return float(np.mean(losses))


def _optimizer(fitting: Fitting, schedule: Any) -> keras.optimizers.Optimizer:
    clipping = {"global_clipnorm": fitting.clip_norm or None, "clipvalue": fitting.clip_value}
    if fitting.optimiser == "adam":
        return keras.optimizers.Adam(schedule, **clipping)
    momentum = _USUAL_MOMENTUM if fitting.momentum is None else fitting.momentum
    return keras.optimizers.SGD(schedule, momentum=momentum, **clipping)


class _Run:
    """The state of a fitting run: everything that a checkpoint must hold."""

    def __init__(self, network: Forecaster, optimizer: Any, fitting: Fitting, keep: int = 1) -> None:
        self.network = network
        self.optimizer = optimizer
        self.fitting = fitting
        self.history = History()
        self.kept: dict[int, Weights] = {}  # of the best epochs, as many as are to be kept
        self._keep = keep
        averaged = network.trainable_variables if fitting.average is not None else []
        self._averages = [tf.Variable(weight, trainable=False) for weight in averaged]
        self._at_once = 1
        size, width = fitting.batch_size, network.known.count
        steps, each, weight = (tf.TensorSpec(shape, kind) for shape, kind in _NUMBERS)
        stack = tf.TensorSpec((None, size, None, network.features), tf.float32)
        window = tf.TensorSpec((None, None, network.features), tf.float32)
        told = {"lengths": tf.TensorSpec((None, size), tf.int32)} if fitting.lengths == "mixed" else {}
        told |= {"known": tf.TensorSpec((None, size, None, width), tf.float32)} if width else {}
        known = {"known": tf.TensorSpec((None, None, width), tf.float32)} if width else {}
        # It sorts what is added up by the names of nodes, so that two equal runs in one process would differ a little.
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
        # Compiled once for every length: compiling takes longer than an epoch over a short series.
        self._learn = tf.function(self._descend_along, input_signature=[stack, each, each, each, told])
        self._judge = tf.function(self._loss, input_signature=[window, steps, steps, known, weight])

    def learnt(self, batches: Iterable[Batch]) -> Iterator[list[float]]:
        """Learn from batches in their order, and give their losses, as many at a time as a moment suffices for.

        How many are learnt from at once changes nothing in what is learnt: it spares the way into the compiled function
        and out of it, which takes as long as a batch of a small network.
        """
        left = iter(batches)
        while taken := list(islice(left, self._at_once)):
            began = perf_counter()
            losses: list[float] = np.asarray(self._learn(*Stack.of(taken))).tolist()
            possible = int(len(taken) * _MOMENT / (perf_counter() - began))
            self._at_once = min(max(possible, 1), 2 * self._at_once, _MOST_AT_ONCE)
            yield losses

    def judged(self, batches: Sequence[Batch]) -> float:
        return float(
            np.mean(
                [float(self._judge(batch.values, batch.context, batch.free, _known(batch), 0.0)) for batch in batches]
            )
        )

    def patience_is_spent(self) -> bool:
        return len(self.history.validation) - self.history.best_epoch >= self.fitting.patience

    def record(self, training: float, validation: Sequence[Batch]) -> None:
        """End an epoch: judge the weights, the averaged ones where there are any, and keep them if they are good."""
        with self.averaged():
            loss = self.judged(validation)
            weights = self.network.get_weights()
        self.history.training.append(training)
        self.history.validation.append(loss)
        known = self.kept | {len(self.history.validation): weights}
        self.kept = {epoch: known[epoch] for epoch in self.history.best_epochs(self._keep)}

    def go_on_from(self, weights: Weights, *, at_step: int) -> None:
        """Take weights for those of the network and their averages, and the rate of a step."""
        self.network.set_weights(weights)
        for average, weight in zip(self._averages, self.network.trainable_variables, strict=False):
            average.assign(weight)
        self.optimizer.iterations.assign(at_step)

    def weights(self) -> Weights:
        """The network's weights, the averaged ones where there are any."""
        with self.averaged():
            weights: Weights = self.network.get_weights()
        return weights

    def save(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"weight_{index}": value for index, value in enumerate(self.network.get_weights())}
        for epoch, kept in self.kept.items():
            arrays |= {f"kept_{epoch}_{index}": value for index, value in enumerate(kept)}
        arrays |= {f"average_{index}": np.asarray(value) for index, value in enumerate(self._averages)}
        arrays |= {f"optimizer_{index}": np.asarray(value) for index, value in enumerate(self.optimizer.variables)}
        losses = asdict(self.history)
        unfinished = file.with_suffix(".part")
        with unfinished.open("wb") as stream:
            np.savez(stream, history=np.array(json.dumps(losses)), **arrays)
        unfinished.replace(file)

    def restore(self, file: Path) -> int:
        """Go on from a checkpoint, where there is one; returns the epochs that it had done, closing ones included."""
        if not file.exists():
            return 0
        with np.load(file) as saved:
            count = len(self.network.weights)
            self.network.set_weights([saved[f"weight_{index}"] for index in range(count)])
            for index, variable in enumerate(self.optimizer.variables):
                variable.assign(saved[f"optimizer_{index}"])
            for index, variable in enumerate(self._averages):
                variable.assign(saved[f"average_{index}"])
            self.history = History(**json.loads(str(saved["history"])))
            self.kept = {
                epoch: [saved[f"kept_{epoch}_{index}"] for index in range(count)]
                for epoch in self.history.best_epochs(self._keep)
            }
        return len(self.history.training) + len(self.history.closing)

    def _descend_along(self, values: Any, times: Any, contexts: Any, free: Any, told: dict[str, Any]) -> Any:
        """Descend by one batch after another of a `Stack`, and return their losses (batches,)."""

        def follow(place: Any, losses: Any) -> tuple[Any, Any]:
            batch_told = {name: part[place] for name, part in told.items()}
            if "known" in told:
                batch_told["known"] = batch_told["known"][:, -times[place] :]
            windows = values[place, :, -times[place] :]
            return place + 1, losses.write(place, self._descend(windows, contexts[place], free[place], batch_told))

        count = tf.shape(values)[0]
        losses = tf.TensorArray(tf.float32, count)
        # One batch begins when the one before has changed the weights.
        _, losses = tf.while_loop(lambda place, _: place < count, follow, (0, losses), parallel_iterations=1)
        return losses.stack()

    def _descend(self, values: Any, context: Any, free: Any, told: dict[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            loss = self._loss(values, context, free, told, _CONTEXT_WEIGHT, training=True)
        weights = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self._average()
        return loss

    def _average(self) -> None:
        """Let the averages follow the weights: at first closely, so that they forget where the weights began."""
        if self.fitting.average is None:
            return
        steps = tf.cast(self.optimizer.iterations, tf.float32)
        share = tf.minimum(self.fitting.average, steps / (steps + _FORGETTING))
        for average, weight in zip(self._averages, self.network.trainable_variables, strict=True):
            average.assign(share * average + (1.0 - share) * weight)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network with its averaged weights for a while; with its own where none are averaged."""
        variables = self.network.trainable_variables[: len(self._averages)]
        own = [numbers(variable) for variable in variables]
        for variable, average in zip(variables, self._averages, strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(variables, own, strict=True):
                variable.assign(value)

    def _loss(
        self, values: Any, context: Any, free: Any, told: dict[str, Any], context_weight: Any, training: bool = False
    ) -> Any:
        """The mean loss of a batch: of what the network's output forecasts, in units of each window's scale.

        `told` holds the `lengths` of the windows and what is `known`, where the network is told of them.
        """
        values = self.network.inward(values)
        if self.network.network.output == "sequence":
            return self._loss_along(values, context, free, told, context_weight, training)
        ahead = values[:, context : context + free]
        rolls = self._iterated and not self.network.direct
        forecasts, scale = self.network.ahead(
            values[:, :context], steps=free if rolls else None, training=training, **told
        )
        errors = self._error((ahead[:, : tf.shape(forecasts)[1]] - forecasts) / scale[:, None])
        loss = tf.reduce_mean(errors)
        return loss + tf.reduce_mean(errors[:, :1]) if rolls else loss

    def _loss_along(
        self, values: Any, context: Any, free: Any, told: dict[str, Any], context_weight: Any, training: bool
    ) -> Any:
        """The one-step loss at every step of the windows, plus the iterated one beyond their context."""
        forecasts, rolled, scale = self.network.sequence(
            values, context, free=free if self._iterated else None, training=training, **told
        )
        lengths = told.get("lengths")
        scale = scale[:, None]
        steps = tf.range(tf.shape(values)[1] - 1)
        errors = self._error((values[:, 1:] - forecasts[:, :-1]) / scale)
        if lengths is None:
            inside = tf.where(steps < tf.minimum(_SETTLING, context - 1), 0.0, context_weight)
            weights = tf.where(steps < context - 1, inside, 1.0)
            loss = tf.reduce_mean(tf.reduce_mean(errors, axis=(0, 2)) * weights) / tf.reduce_mean(weights)
        else:
            seen = steps - (context - lengths[:, None])  # (batch, time − 1): real steps before each
            inside = tf.where(seen < tf.minimum(_SETTLING, lengths[:, None] - 1), 0.0, context_weight)
            weights = tf.where(steps < context - 1, inside, 1.0)
            loss = tf.reduce_mean(tf.reduce_mean(errors, axis=2) * weights) / tf.reduce_mean(weights)
        if rolled is None:
            return loss
        return loss + tf.reduce_mean(self._error((values[:, context : context + free] - rolled) / scale))

    @property
    def _iterated(self) -> bool:
        return self.fitting.iterated and self.network.network.carries

    def _error(self, errors: Any) -> Any:
        """The loss of scaled errors, actual minus forecast."""
        fitting = self.fitting
        if self.network.network.scaling in ("window", "season"):
            errors = tf.clip_by_value(errors, -_ERROR_LIMIT, _ERROR_LIMIT)
        if fitting.quantile is not None:  # the pinball loss alone has one
            return tf.maximum(fitting.quantile * errors, (fitting.quantile - 1.0) * errors)
        if fitting.loss == "mse":
            return tf.square(errors)
        size = tf.abs(errors)
        if fitting.loss == "mae":
            return size
        # The Huber loss divided by its delta, so that a small delta makes it the absolute error.
        delta = fitting.huber_delta
        return tf.where(size <= delta, 0.5 * tf.square(errors) / delta, size - 0.5 * delta)


def _known(batch: Batch) -> dict[str, Any]:
    return {} if batch.known is None else {"known": batch.known}

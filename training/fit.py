"""Fitting a network to batches of windows: the loss, the epochs, early stopping, interruption and resumption."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.config import Config, Fitting
from training.data import Panel, Split
from training.model import Forecaster
from training.windows import Batch, Windows

_SETTLING: Final = 12  # steps at a window's start whose forecasts have too little history to learn from
_CONTEXT_WEIGHT: Final = 0.2  # of steps inside the context, whose scale has seen what they forecast
_USUAL_MOMENTUM: Final = 0.9
_ERROR_LIMIT: Final = 30.0  # errors in units of a window's own scale teach nothing beyond: it was flat before a jump


@dataclass(frozen=True, slots=True)
class History:
    """Mean losses by epoch, and the epoch (from 1) whose weights were kept."""

    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The epoch of the least validation loss, one that is no number being the worst; 0 before the first."""
        if not self.validation:
            return 0
        losses = np.array(self.validation)
        return int(np.argmin(np.where(np.isnan(losses), np.inf, losses))) + 1


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted network and how its fitting went."""

    network: Forecaster
    history: History
    resumed_at: int  # the epoch that fitting went on from; 0 where it began afresh


class Progress(Protocol):
    """What a fitting run tells while it runs."""

    def batch(self, done: int, total: int) -> None: ...

    def epoch(self, number: int, total: int, training: float, validation: float) -> None: ...


def fit(panel: Panel, split: Split, config: Config, *, checkpoint: Path, progress: Progress) -> Fitted:
    """Fit the network that a configuration asks for to a panel's training part; see `fit_network`."""
    keras.utils.set_random_seed(config.seed)
    network = Forecaster.from_network(
        config.network, features=len(panel.features), season=panel.season, horizon=split.horizon
    )
    windows = Windows.cut(panel, split, config)
    return fit_network(
        network,
        windows.epoch,
        windows.judged(),
        config.fitting,
        steps_per_epoch=windows.steps_per_epoch,
        checkpoint=checkpoint,
        progress=progress,
    )


def fit_network(
    network: Forecaster,
    epochs: Callable[[int], Iterable[Batch]],
    validation: Sequence[Batch],
    fitting: Fitting,
    *,
    steps_per_epoch: int,
    checkpoint: Path,
    progress: Progress,
) -> Fitted:
    """Fit a network, leaving it with the weights of its best epoch on validation data.

    Args:
        network: the network, freshly initialised.
        epochs: the batches of an epoch, given its number from 0; the same ones whenever it is asked again.
        validation: batches that decide which epoch is kept and when to stop.
        fitting: rates, limits and patience.
        steps_per_epoch: how many batches `epochs` gives.
        checkpoint: file that holds the whole state of the run after each epoch; where it exists, the run goes on
            from it, and loses at most one epoch.
        progress: is told of each batch and epoch.
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
    run = _Run(network, optimizer, fitting)
    resumed_at = run.restore(checkpoint)
    for number in range(resumed_at, fitting.epochs):
        if run.patience_is_spent():
            break
        losses = []
        for done, batch in enumerate(epochs(number), start=1):
            losses.append(run.learn(batch))
            progress.batch(done, steps_per_epoch)
        training = float(np.mean([float(loss) for loss in losses]))
        run.record(training, float(np.mean([float(run.judge(batch)) for batch in validation])))
        run.save(checkpoint)
        progress.epoch(number + 1, fitting.epochs, training, run.history.validation[-1])
    network.set_weights(run.best)
    return Fitted(network, run.history, resumed_at)


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
        yield float(np.mean([float(run.learn(batch)) for batch in batches]))


def _optimizer(fitting: Fitting, schedule: Any) -> keras.optimizers.Optimizer:
    clipping = {"global_clipnorm": fitting.clip_norm or None, "clipvalue": fitting.clip_value}
    if fitting.optimiser == "adam":
        return keras.optimizers.Adam(schedule, **clipping)
    momentum = _USUAL_MOMENTUM if fitting.momentum is None else fitting.momentum
    return keras.optimizers.SGD(schedule, momentum=momentum, **clipping)


class _Run:
    """The state of a fitting run: everything that a checkpoint must hold."""

    def __init__(self, network: Forecaster, optimizer: Any, fitting: Fitting) -> None:
        self.network = network
        self.optimizer = optimizer
        self.fitting = fitting
        self.history = History()
        self.best: list[npt.NDArray[np.float32]] = network.get_weights()
        window = tf.TensorSpec((None, None, network.features), tf.float32)
        steps, weight = tf.TensorSpec((), tf.int32), tf.TensorSpec((), tf.float32)
        lengths = [tf.TensorSpec((None,), tf.int32)] if fitting.lengths == "mixed" else []
        # Compiled once for every length: compiling takes longer than an epoch over a short series.
        self._learn = tf.function(self._descend, input_signature=[window, steps, steps, *lengths])
        self._judge = tf.function(self._loss, input_signature=[window, steps, steps, weight])

    def learn(self, batch: Batch) -> Any:
        return self._learn(*(part for part in batch if part is not None))

    def judge(self, batch: Batch) -> Any:
        return self._judge(batch.values, batch.context, batch.free, 0.0)

    def patience_is_spent(self) -> bool:
        return len(self.history.validation) - self.history.best_epoch >= self.fitting.patience

    def record(self, training: float, validation: float) -> None:
        self.history.training.append(training)
        self.history.validation.append(validation)
        if self.history.best_epoch == len(self.history.validation):
            self.best = self.network.get_weights()

    def save(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"weight_{index}": value for index, value in enumerate(self.network.get_weights())}
        arrays |= {f"best_{index}": value for index, value in enumerate(self.best)}
        arrays |= {f"optimizer_{index}": np.asarray(value) for index, value in enumerate(self.optimizer.variables)}
        losses = {"training": self.history.training, "validation": self.history.validation}
        unfinished = file.with_suffix(".part")
        with unfinished.open("wb") as stream:
            np.savez(stream, history=np.array(json.dumps(losses)), **arrays)
        unfinished.replace(file)

    def restore(self, file: Path) -> int:
        """Go on from a checkpoint, where there is one; returns the epochs that it had done."""
        if not file.exists():
            return 0
        with np.load(file) as saved:
            self.network.set_weights([saved[f"weight_{index}"] for index in range(len(self.network.weights))])
            self.best = [saved[f"best_{index}"] for index in range(len(self.network.weights))]
            for index, variable in enumerate(self.optimizer.variables):
                variable.assign(saved[f"optimizer_{index}"])
            self.history = History(**json.loads(str(saved["history"])))
        return len(self.history.training)

    def _descend(self, values: Any, context: Any, free: Any, lengths: Any = None) -> Any:
        with tf.GradientTape() as tape:
            loss = self._loss(values, context, free, _CONTEXT_WEIGHT, lengths, training=True)
        weights = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return loss

    def _loss(
        self, values: Any, context: Any, free: Any, context_weight: Any, lengths: Any = None, training: bool = False
    ) -> Any:
        """The mean loss of a batch: of what the network's output forecasts, in units of each window's scale."""
        values = self.network.inward(values)
        if self.network.network.output == "sequence":
            return self._loss_along(values, context, free, context_weight, lengths, training)
        ahead = values[:, context : context + free]
        rolls = self._iterated and not self.network.direct
        forecasts, scale = self.network.ahead(
            values[:, :context], steps=free if rolls else None, lengths=lengths, training=training
        )
        errors = self._error((ahead[:, : tf.shape(forecasts)[1]] - forecasts) / scale[:, None])
        loss = tf.reduce_mean(errors)
        return loss + tf.reduce_mean(errors[:, :1]) if rolls else loss

    def _loss_along(
        self, values: Any, context: Any, free: Any, context_weight: Any, lengths: Any, training: bool
    ) -> Any:
        """The one-step loss at every step of the windows, plus the iterated one beyond their context."""
        forecasts, rolled, scale = self.network.sequence(
            values, context, free=free if self._iterated else None, lengths=lengths, training=training
        )
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

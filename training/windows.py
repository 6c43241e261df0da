"""Windows cut from a panel's series for fitting: which steps belong to which part, and in which order they come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from training.config import Config
from training.panel import Panel
from training.parts import Split

_STEPS_LIMIT: Final = 200  # batches an epoch at most, so that long panels are validated and saved often enough
_VALIDATION_LIMIT: Final = 512  # windows judged after each epoch
# Lengths of context fitted on, as shares of the context length, and how often each is drawn.
_CONTEXT_SHARES: Final = {1.0: 0.6, 0.5: 0.2, 0.25: 0.1, 0.0: 0.1}
_AHEAD_LIMIT: Final = 48  # steps forecast iteratively in fitting: what is learnt there holds further on


Floats = npt.NDArray[np.float32]


class Batch(NamedTuple):
    """Windows with the leading steps that are context, and those behind it to be forecast from its end.

    Windows of unequal length are padded with zeros in front, so that what lies ahead stands in the same place.
    """

    values: npt.NDArray[np.float32]  # (batch, context + ahead, features)
    context: int
    free: int
    lengths: npt.NDArray[np.int32] | None = None  # (batch,) steps of context that are real; None where all are
    known: npt.NDArray[np.float32] | None = (
        None  # (batch, context + ahead, known) of the step after each; None: nothing
    )


class Stack(NamedTuple):
    """Batches of one size and of any lengths, the shorter ones padded with zeros in front, to be taken one by one."""

    values: Floats  # (batches, batch, time, features)
    times: npt.NDArray[np.int32]  # (batches,) steps of each that are not padding
    contexts: npt.NDArray[np.int32]  # (batches,)
    free: npt.NDArray[np.int32]  # (batches,)
    told: dict[str, npt.NDArray[Any]]  # `lengths` (batches, batch) and `known` (batches, batch, time, known), if any

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> Self:
        told: dict[str, npt.NDArray[Any]] = {}
        if lengths := [batch.lengths for batch in batches if batch.lengths is not None]:
            told["lengths"] = np.stack(lengths)
        if known := [batch.known for batch in batches if batch.known is not None]:
            told["known"] = _in_line(known)
        return cls(
            _in_line([batch.values for batch in batches]),
            np.array([batch.values.shape[1] for batch in batches], np.int32),
            np.array([batch.context for batch in batches], np.int32),
            np.array([batch.free for batch in batches], np.int32),
            told,
        )


def minimum_window(context: int, season: int | None) -> int:
    """The shortest window that a model of a context length is fitted to forecast from: a season and a step."""
    return min(context, 8 if season is None else season + 1)


def steps_ahead(horizon: int) -> int:
    """How many steps beyond the context fitting forecasts, for a model that is to be scored over a horizon."""
    return min(horizon, _AHEAD_LIMIT)


@dataclass(frozen=True, slots=True)
class Windows:
    """All series laid end to end, and where in them a window may start; nothing is copied until a batch is cut.

    Attributes:
        observations: (observations, features), raw units.
        known: (observations, known), what is known of the step after each; after a series' last, that of the last.
        training: starts of windows of `context + ahead` steps that lie wholly in a training part.
        validation: starts of windows whose last `ahead` steps lie in a validation part.
    """

    observations: npt.NDArray[np.float32]
    known: npt.NDArray[np.float32] | None
    training: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    context: int
    ahead: int
    minimum: int
    seed: int
    batch_size: int
    steps_per_epoch: int
    mixed: bool

    @classmethod
    def cut(cls, panel: Panel, split: Split, config: Config) -> Self:
        """Find the windows of a panel, each of whose series has a training part of at least one window."""
        context = config.network.context_length
        at_once = config.network.output == "horizon"
        ahead = split.horizon if at_once else steps_ahead(split.horizon)
        length = context + ahead
        offset = 0
        training, validation = [], []
        for series, part in zip(panel.series, split.boundaries, strict=True):
            training.append(offset + np.arange(0, part.train_end - length + 1))
            validation.append(offset + np.arange(part.train_end - context, part.validation_end - length + 1))
            offset += len(series.values)
        starts = np.concatenate(training)
        judged = np.concatenate(validation)
        size = config.fitting.batch_size
        steps = config.fitting.steps_per_epoch or int(np.clip(len(starts) // size, 1, _STEPS_LIMIT))
        return cls(
            observations=np.concatenate([series.values for series in panel.series]).astype(np.float32),
            known=_following(panel),
            training=starts,
            validation=judged[_evenly(len(judged), _VALIDATION_LIMIT)],
            context=context,
            ahead=ahead,
            minimum=minimum_window(context, panel.season),
            seed=config.seed,
            batch_size=size,
            steps_per_epoch=steps,
            mixed=config.fitting.lengths == "mixed",
        )

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch (from 0): always the same for the same number and seed."""
        rng = np.random.default_rng((self.seed, number))
        wanted = self.steps_per_epoch * self.batch_size
        starts = rng.choice(self.training, wanted, replace=wanted > len(self.training))
        # A shorter context is the end of the whole one, so that what lies ahead stays the same.
        if self.mixed:
            for values, known in self._cut(starts):
                lengths = rng.integers(self.minimum, self.context + 1, len(values), np.int32)
                yield self._padded(values, known, lengths)
            return
        contexts = rng.choice(self._contexts(), self.steps_per_epoch, p=list(_CONTEXT_SHARES.values()))
        for (values, known), context in zip(self._cut(starts), contexts, strict=True):
            first = self.context - context
            told = None if known is None else known[:, first:]
            yield Batch(values[:, first:], int(context), self.ahead, known=told)

    def judged(self) -> list[Batch]:
        """The validation batches, in the series' order."""
        return [Batch(values, self.context, self.ahead, known=known) for values, known in self._cut(self.validation)]

    def _padded(self, values: Floats, known: Floats | None, lengths: npt.NDArray[np.int32]) -> Batch:
        real = np.arange(values.shape[1]) >= self.context - lengths[:, None]
        padded = np.where(real[..., None], values, np.float32(0))
        return Batch(padded, self.context, self.ahead, lengths, known)

    def _contexts(self) -> list[int]:
        return [max(round(share * self.context), self.minimum) for share in _CONTEXT_SHARES]

    def _cut(self, starts: npt.NDArray[np.int64]) -> Iterator[tuple[Floats, Floats | None]]:
        """Windows (batch, context + ahead, features) from these starts on, and what is known of their steps."""
        steps = np.arange(self.context + self.ahead)
        for first in range(0, len(starts), self.batch_size):
            places = starts[first : first + self.batch_size, None] + steps
            yield self.observations[places], None if self.known is None else self.known[places]


def _following(panel: Panel) -> Floats | None:
    """What is known of the step after each, of all series end to end."""
    known = [series.known for series in panel.series if series.known is not None]
    return np.concatenate([part for one in known for part in (one[1:], one[-1:])]) if known else None


def _in_line(parts: Sequence[Floats]) -> Floats:
    """Arrays (batch, time, ·) as one (parts, batch, longest time, ·), their ends in line."""
    longest = max(part.shape[1] for part in parts)
    if all(part.shape[1] == longest for part in parts):
        return np.stack(parts)
    return np.stack([np.pad(part, ((0, 0), (longest - part.shape[1], 0), (0, 0))) for part in parts])


def _evenly(count: int, limit: int) -> npt.NDArray[np.int64]:
    """At most `limit` indices below `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).astype(np.int64))

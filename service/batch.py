"""Batches: rows of any requests that advance in lockstep, each run giving every one of them its next step."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.drift import Drift
from service.sequences import Group, Model, Request
from service.window import Values, slide


class Batch:
    """Rows that advance in lockstep: each run gives every one of them its next step.

    While no group of rows joins or leaves, the outputs of a run are the inputs of the next as they are, and steps are
    only put aside; they are dealt out to the groups when something changes.
    """

    __slots__ = ("_asking", "_due", "_state", "_steps", "_values", "begun", "ended", "groups", "is_new", "ran", "size")

    def __init__(self, groups: list[Group]) -> None:
        self.groups = groups
        self.ran = 0
        """The time steps that the last run covered, of each row."""
        self.size = sum([group.size for group in groups])
        self.is_new = True
        """Whether it has rows that were in no run yet."""
        self.begun = self.ended = 0.0
        """When its last run began and ended."""
        self._values = _stacked([group.request.window(place) for group in groups for place in group.places])
        self._state: Values | None = None
        self._steps: list[Values] = []
        self._due = min([group.remaining for group in groups])
        self._asking = any(group.request.scales is not None for group in groups)

    @property
    def due(self) -> bool:
        """Whether some row has all its steps."""
        return len(self._steps) >= self._due

    @property
    def steps_left(self) -> int:
        """Steps ahead that the rows still lack."""
        return sum([group.size * (group.remaining - len(self._steps)) for group in self.groups])

    @property
    def length(self) -> int:
        """The time steps that the next run covers, of each row."""
        length: int = self._values.shape[1]
        return length

    def show(self, drift: Drift) -> None:
        """Let the windows be looked at, before the first run."""
        drift.look(self._values)

    def run(self, model: Model) -> None:
        """Give every row its next step."""
        forecast, self._state, scale = model.run(self._values, self._state)
        self._steps.append(forecast)
        if self._asking:
            self._tell_scales(scale)
        if model.state_size:
            self._values = forecast[:, None]
        else:
            self._values = slide(self._values, forecast, model.context_length)

    def deal(self) -> list[tuple[Request, int]]:
        """Give every group the steps put aside; return what is not finite of them, as requests and places."""
        if not self._steps:
            return []
        block = self._steps[0][:, None] if len(self._steps) == 1 else np.stack(self._steps, axis=1)
        self._steps = []
        begin = 0
        for group in self.groups:
            group.put(block[begin : begin + group.size])
            begin += group.size
        self._due = min([group.remaining for group in self.groups])
        if np.logical_and.reduce(np.isfinite(block), axis=None):
            return []
        rows = [(group.request, place) for group in self.groups for place in group.places]
        return [row for row, steps in zip(rows, block, strict=True) if not np.isfinite(steps).all()]

    def let_go(self) -> None:
        """Let the groups go that are complete or not wanted any more, and with them what was put aside for them."""
        wanted = [group.wanted for group in self.groups]
        if all(wanted):
            return
        if not any(wanted):
            self.groups, self.size = [], 0
            return
        kept = np.repeat(wanted, [group.size for group in self.groups])
        self.groups = [group for group in self.groups if group.wanted]
        self.size = sum([group.size for group in self.groups])
        self._keep(kept)
        self._due = min([group.remaining for group in self.groups])

    def joined_by(self, other: "Batch") -> "Batch":
        """The rows of both batches as one; both must have dealt out their steps."""
        if not self.groups or not other.groups:
            return self if self.groups else other
        self.groups = self.groups + other.groups
        self.size += other.size
        self._values = np.concatenate((self._values, other._values))
        if self._state is not None and other._state is not None:
            self._state = np.concatenate((self._state, other._state))
        self._due = min(self._due, other._due)
        self._asking = self._asking or other._asking
        self.is_new = self.is_new or other.is_new
        return self

    def _keep(self, kept: npt.NDArray[np.bool_]) -> None:
        self._values = self._values[kept]
        self._steps = [step[kept] for step in self._steps]
        if self._state is not None:
            self._state = self._state[kept]

    def _tell_scales(self, scale: Values | None) -> None:
        """Tell the requests that ask for it the scale of their windows, as their first run gives it."""
        self._asking = False
        if scale is None:
            return
        begin = 0
        for group in self.groups:
            group.put_scale(scale[begin : begin + group.size])
            begin += group.size


class InformedBatch(Batch):
    """Rows of a model that takes what is known of each step beforehand, which each row has of its own.

    Whatever a row has read, the next that it will read stands first in `_ahead`, where those without any have zeros.
    """

    __slots__ = ("_ahead", "_known", "_read")

    def __init__(self, groups: list[Group]) -> None:
        super().__init__(groups)
        known = [group.request.known(place) for group in groups for place in group.places]
        self._known = _stacked([one[: self.length] for one in known])
        """(rows, time, known): what goes with the values of the next run."""
        self._ahead = _side_by_side([one[self.length :] for one in known])
        """(steps, rows, known): what goes with the values of those after it."""
        self._read = 0

    def run(self, model: Model) -> None:
        """Give every row its next step."""
        forecast, self._state, scale = model.run(self._values, self._state, self._known)
        self._steps.append(forecast)
        if self._asking:
            self._tell_scales(scale)
        carries = model.state_size > 0
        self._values = forecast[:, None] if carries else slide(self._values, forecast, model.context_length)
        # Nothing is ahead of rows that all have all their steps: they do not run again.
        if self._read < len(self._ahead):
            following = self._ahead[self._read]
            self._known = following[:, None] if carries else slide(self._known, following, model.context_length)
            self._read += 1

    def joined_by(self, other: "Batch") -> "Batch":
        """The rows of both batches as one; both must have dealt out their steps."""
        assert isinstance(other, InformedBatch), "batches of one model are of one kind"
        if self.groups and other.groups:
            self._known = np.concatenate((self._known, other._known))
            both = (self._ahead[self._read :], other._ahead[other._read :])
            self._ahead = np.concatenate([_padded(ahead, max(map(len, both))) for ahead in both], axis=1)
            self._read = 0
        return super().joined_by(other)

    def _keep(self, kept: npt.NDArray[np.bool_]) -> None:
        super()._keep(kept)
        self._known = self._known[kept]
        self._ahead = self._ahead[self._read :].compress(kept, axis=1)
        self._read = 0


def _stacked(windows: Sequence[Values]) -> Values:
    """Put windows of one length, (time, features), together as C-contiguous float32 (batch, time, features)."""
    if len(windows) == 1:
        return np.ascontiguousarray(windows[0], np.float32)[None]
    # One below the other and then cut apart: `np.stack` would make each of them three-dimensional first.
    together = np.concatenate(windows, dtype=np.float32)
    return together.reshape(len(windows), *windows[0].shape)


def _side_by_side(rows: Sequence[Values]) -> Values:
    """Put what is known of steps ahead, (steps, known) each, together as (steps of the longest, rows, known)."""
    found = np.zeros((max(map(len, rows)), len(rows), rows[0].shape[1]), np.float32)
    for place, row in enumerate(rows):
        found[: len(row), place] = row
    return found


def _padded(ahead: Values, steps: int) -> Values:
    """The same with zeros behind it, up to so many steps."""
    return np.pad(ahead, ((0, steps - len(ahead)), (0, 0), (0, 0)))

"""Batches: rows of any requests that advance in lockstep, each run giving every one of them its next step."""

from collections.abc import Sequence
from itertools import compress
from typing import Final

import numpy as np
import numpy.typing as npt

from service.drift import Drift
from service.sequences import Group, Model, Request
from service.window import Values, slide

# Steps of each row that are put aside at most. What joins and leaves has them copied, so they must not be many; and
# each time that there is no more room, every group is given its own.
_COLUMNS: Final = 32


class Batch:
    """Rows that advance in lockstep: each run gives every one of them its next step.

    While no group of rows joins or leaves, the outputs of a run are the inputs of the next as they are. Steps are put
    aside side by side, those of one run in one column for all rows, and a group is given its own when it is complete or
    the columns are full: what joins and leaves at every turn would otherwise cost each row a copy a step.
    """

    __slots__ = (
        "_aside",
        "_asking",
        "_column",
        "_due",
        "_state",
        "_values",
        "begun",
        "ended",
        "groups",
        "is_new",
        "ran",
        "size",
    )

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
        self._aside: Values | None = None
        """(rows, columns, features): the steps of each row that its request has not been given, and zeros before."""
        self._column = 0
        """The columns that are in use."""
        self._due = min(_COLUMNS, min([group.remaining for group in groups]))
        """The column after which steps are to be dealt out."""
        self._asking = any(group.request.scales is not None for group in groups)

    @property
    def due(self) -> bool:
        """Whether some row has all its steps, or there is no more room for them."""
        return self._column >= self._due

    @property
    def steps_left(self) -> int:
        """Steps ahead that the rows still lack."""
        return sum([group.size * (group.since + group.remaining - self._column) for group in self.groups])

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
        self._put_aside(forecast)
        if self._asking:
            self._tell_scales(scale)
        if model.state_size:
            self._values = forecast[:, None]
        else:
            self._values = slide(self._values, forecast, model.context_length)

    def deal(self) -> list[tuple[Request, int]]:
        """Give the groups that are complete their steps, and all where the columns are full.

        Returns:
            What is not finite of the steps put aside, as requests and places.
        """
        if self._aside is None:
            return []
        column, is_full = self._column, self._column == _COLUMNS
        aside, groups = self._aside[:, :column], self.groups
        begin = 0
        for group in groups:
            end, since = begin + group.size, group.since
            if is_full or since + group.remaining == column:
                group.put(aside[begin:end, since:] if since else aside[begin:end])
                group.since = column
            begin = end
        if is_full:
            # The requests may hold what they were given as it is: it is not written to again.
            self._aside, self._column = None, 0
            for group in groups:
                group.since = 0
        if np.logical_and.reduce(np.isfinite(aside), axis=None):
            return []
        rows = [(group.request, place) for group in groups for place in group.places]
        return [row for row, steps in zip(rows, aside, strict=True) if not np.isfinite(steps).all()]

    def let_go(self) -> None:
        """Let the groups go that are complete or not wanted any more, and with them what was put aside for them."""
        wanted = [group.remaining > 0 and not group.request.is_done for group in self.groups]
        if not any(wanted):
            self.groups, self.size = [], 0
            return
        if not all(wanted):
            kept = np.array(wanted)
            if self.size > len(wanted):
                kept = kept.repeat([group.size for group in self.groups])
            self.groups = list(compress(self.groups, wanted))
            self.size = sum([group.size for group in self.groups])
            self._keep(kept)
        self._look_ahead()

    def joined_by(self, other: "Batch") -> "Batch":
        """The rows of both batches as one."""
        if not self.groups or not other.groups:
            return self if self.groups else other
        column = max(self._column, other._column)
        for batch in (self, other):
            for group in batch.groups:
                group.since += column - batch._column
        groups = self.groups + other.groups
        if column:
            aside = np.zeros((self.size + other.size, _columns_for(groups), groups[0].request.features), np.float32)
            for rows, batch in ((slice(0, self.size), self), (slice(self.size, None), other)):
                if batch._aside is not None:
                    aside[rows, column - batch._column : column] = batch._aside[:, : batch._column]
            self._aside, self._column = aside, column
        self.groups = groups
        self.size += other.size
        self._values = np.concatenate((self._values, other._values))
        if self._state is not None and other._state is not None:
            self._state = np.concatenate((self._state, other._state))
        self._look_ahead()
        self._asking = self._asking or other._asking
        self.is_new = self.is_new or other.is_new
        return self

    def _put_aside(self, forecast: Values) -> None:
        """Keep the next step, (rows, features), of every row."""
        column = self._column
        if self._aside is None:
            self._aside = forecast[:, None]
        else:
            if column == self._aside.shape[1]:
                aside = np.empty((self.size, _columns_for(self.groups), forecast.shape[1]), np.float32)
                aside[:, :column] = self._aside
                self._aside = aside
            self._aside[:, column] = forecast
        self._column = column + 1

    def _look_ahead(self) -> None:
        self._due = min(_COLUMNS, min([group.since + group.remaining for group in self.groups]))

    def _keep(self, kept: npt.NDArray[np.bool_]) -> None:
        self._values = self._values[kept]
        if self._aside is not None:
            self._aside = self._aside[kept]
        if self._state is not None:
            self._state = self._state[kept]

    def _tell_scales(self, scale: Values | None) -> None:
        """Tell the requests that ask for it the scale of their windows, as their first run gives it."""
        self._asking = False
        if scale is None:
            return
        begin = 0
        for group in self.groups:
            # Others have had theirs told, and where windows slide, a later one would be told now.
            if group.since + 1 == self._column and group.remaining == group.request.horizon:
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
        self._put_aside(forecast)
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
        """The rows of both batches as one."""
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


def _columns_for(groups: Sequence[Group]) -> int:
    """How many columns the steps of some groups need."""
    return min(_COLUMNS, max([group.since + group.remaining for group in groups]))


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

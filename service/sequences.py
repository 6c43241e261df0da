"""The sequences of a request: the windows of one call, and how they are handed out to be run together."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np

from service.backlog import Work
from service.drift import Drift
from service.pace import Pace
from service.window import Values, end_of

NOT_IN_TIME: Final = "the forecast was not complete in the time that the request had"
"""What is said to a request whose time is up."""


class Model(Protocol):
    """What the scheduler needs of a model; `service.engine.Engine` is one."""

    @property
    def context_length(self) -> int:
        """Steps of a window that are used; of longer ones, the end."""

    @property
    def minimum_window(self) -> int:
        """The shortest window accepted, in steps."""

    @property
    def features(self) -> int:
        """Numbers per step."""

    @property
    def state_size(self) -> int:
        """Floats carried per sequence; 0 = the window is slid instead."""

    @property
    def known(self) -> int:
        """Numbers that are known of each step beforehand; 0 = none."""

    @property
    def pace(self) -> Pace:
        """How long its runs take."""

    @property
    def drift(self) -> Drift | None:
        """What looks at windows before their first run, if anything does."""

    def run(
        self, values: Values, state: Values | None, known: Values | None = None
    ) -> tuple[Values, Values | None, Values | None]:
        """Run (batch, time, features) from (batch, state_size), None = fresh, to (forecast, next state, scale).

        `known`, (batch, time, known), is what is known of the step after each, for a model that takes such.
        """


class Times:
    """When the stages of one request's forecasts began and ended, in seconds of `time.perf_counter`."""

    __slots__ = ("asked", "begun", "ended")

    def __init__(self) -> None:
        self.asked = 0.0
        """When the scheduler was asked; 0 as long as it has not been."""
        self.begun = 0.0
        """When the first run began that had a window of the request in it; 0 as long as none has."""
        self.ended = 0.0
        """When the last one ended; 0 as long as they are not complete."""


Tell = Callable[["Request", BaseException | None], None]
"""Told that a request is complete, or why it never will be."""


class Owner(Protocol):
    """Has a request's windows run."""

    def drop(self, request: "Request") -> None:
        """Let go of a request that is not wanted any more, at the next turn."""


class Request:
    """The windows of one call, handed out in order of length so that equal ones are prefilled together."""

    __slots__ = (
        "_context_length",
        "_forecasts",
        "_given_out",
        "_known",
        "_length_of_all",
        "_order",
        "_windows",
        "client",
        "deadline",
        "features",
        "horizon",
        "is_done",
        "missing",
        "owner",
        "scales",
        "steps_each",
        "steps_left",
        "tell",
        "times",
        "turn",
        "under_way",
        "waiting",
        "work",
    )
    owner: Owner
    """Who has its windows run."""

    def __init__(
        self,
        windows: Sequence[Values],
        horizon: int,
        model: Model,
        deadline: float,
        tell: Tell,
        scales: Values | None,
        known: Sequence[Values] | None,
        times: Times | None,
    ) -> None:
        self.horizon = horizon
        self.deadline = deadline
        self.tell = tell
        self.times = times
        self.is_done = False
        """Whether it is complete, has failed, or was given up."""
        self.client = 0
        """Whose it is."""
        self.missing = len(windows)
        self.scales = scales
        self.under_way = 0
        self.waiting = False
        self.turn = 0
        """How many time steps of its windows run before others have their turn."""
        self._forecasts: Values | None = None
        self.features = model.features
        """Numbers per step."""
        self._windows = windows
        self._known = known
        self._context_length = context = model.context_length
        self._order: Sequence[int] = range(len(windows))
        self._length_of_all: int | None = None
        """What every window is long, cut to the context; None where they differ."""
        rows, first = len(windows), len(windows[0])
        if rows == 1 or len({len(window) for window in windows}) == 1:
            self._length_of_all = first = min(first, context)
            steps = rows * first
        else:
            self._order = sorted(self._order, key=self._length)
            steps = sum(map(self._length, self._order))
        self.work = (
            Work(rows, steps, rows * (horizon - 1)) if model.state_size else Work(rows, steps * horizon, 0, horizon)
        )
        self.steps_left = steps
        """Time steps of the windows that have not been handed out."""
        self.steps_each = steps / rows + horizon - 1
        """Time steps that a window and its forecast take, on average."""
        self._given_out = 0

    @property
    def forecasts(self) -> Values:
        """(windows, horizon, features): the forecasts, once it is complete."""
        assert self._forecasts is not None, "nothing has been forecast yet"
        return self._forecasts

    @property
    def windows(self) -> int:
        """How many windows it has."""
        return len(self._order)

    @property
    def windows_left(self) -> int:
        """Windows that have not been handed out."""
        return len(self._order) - self._given_out

    @property
    def next_length(self) -> int | None:
        """The length, cut to the context, of the windows to be prefilled next; None where all have been."""
        if self._given_out == len(self._order):
            return None
        return self._length_of_all or self._length(self._order[self._given_out])

    def take(self, length: int, most: int) -> "Group":
        """Hand out up to `most` windows of a length, at least one."""
        begin, most = self._given_out, min(len(self._order), self._given_out + most)
        if self._length_of_all is not None:
            end = most
        else:
            end = begin + 1
            while end < most and self._length(self._order[end]) == length:
                end += 1
        self._given_out = end
        self.under_way += end - begin
        self.steps_left -= length * (end - begin)
        return Group(self, self._order[begin:end])

    def window(self, place: int) -> Values:
        """The part of a window that the model uses."""
        window = self._windows[place]
        return window if len(window) <= self._context_length else end_of(window, self._context_length)

    def known(self, place: int) -> Values:
        """What is known of the step after each of the part of a window that the model uses, and of all to come."""
        assert self._known is not None, "a model that takes what is known is given it"
        return self._known[place][-(self._length(place) + self.horizon - 1) :]

    def put(self, places: "slice | list[int]", begin: int, block: Values) -> None:
        """Take steps from `begin` on, (size, steps, features), of the forecasts of some windows."""
        if self._forecasts is None:
            if block.shape[:2] == (len(self._order), self.horizon):
                self._forecasts = np.ascontiguousarray(block)
                return
            self._forecasts = np.empty((len(self._order), self.horizon, self.features), np.float32)
        self._forecasts[places, begin : begin + block.shape[1]] = block

    def _length(self, place: int) -> int:
        return min(len(self._windows[place]), self._context_length)


class Group:
    """Windows of one request that set out together: their places in it, and how many steps each still lacks.

    They stay together to the end, so that a request of a thousand windows costs no thousand times as much bookkeeping.
    """

    __slots__ = ("_index", "places", "remaining", "request", "since", "size")

    def __init__(self, request: Request, places: Sequence[int]) -> None:
        self.request = request
        self.places = places
        self.size = len(places)
        self.remaining = request.horizon
        """The steps that its request has not been given."""
        self.since = 0
        """Where its batch has put them aside: the first column of them."""
        # Places that follow each other are written as one block.
        self._index = slice(places.start, places.stop) if isinstance(places, range) else list(places)

    def put(self, block: Values) -> None:
        """Take the next steps, (size, steps, features), of the forecasts."""
        self.request.put(self._index, self.request.horizon - self.remaining, block)
        self.remaining -= block.shape[1]

    def put_scale(self, scale: Values) -> None:
        """Take the scales, (size, features), of the windows."""
        if self.request.scales is not None:
            self.request.scales[self._index] = scale

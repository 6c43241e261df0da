"""The scheduler: continuous batching of forecasts on the event loop.

A forecast is one prefill run over its window and then one decode run for each further step. Every turn of the loop runs
one batch, of rows from any requests that wait, and then lets the loop go on: new windows join between steps, and those
leave that are complete or whose request was cancelled. Nothing waits for a timer or a thread.

Who goes first:
- models take turns, and in each model prefill and decode take turns;
- windows of one length are prefilled together, first come, first served, and lengths take turns;
- of long windows fewer run together, for every row of them holds the loop up and speeds nothing up;
- a request has at most one batch of windows under way, so one with a thousand windows leaves room for the others;
- where more rows decode than one batch holds, the batches take turns.

A one-step forecast therefore waits for a turn or two, however long the others are. All methods belong to one event
loop and none of them is for other threads.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from service.errors import Fault, ForecastOutOfRange, ShuttingDown
from service.window import Values, end_of, slide

# Time steps that one run covers, over all its rows, unless one window alone has more. Sharing a run saves what a step
# costs beside its arithmetic; from a few rows of some hundred steps on there is nothing left to save.
_STEPS_TOGETHER: Final = 4096

NOT_FINITE: Final = (
    "the forecast leaves the range of 32-bit floats; divide the series by a constant, and multiply the forecast by it"
)
"""What is at fault with a window whose forecast is not finite."""


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

    def run(self, values: Values, state: Values | None) -> tuple[Values, Values | None, Values | None]:
        """Run (batch, time, features) from (batch, state_size), None = fresh, to (forecast, next state, scale)."""


class Scheduler:
    """Runs all forecasts of one process, a batch at a time."""

    def __init__(self, *, max_batch: int = 16) -> None:
        """Run at most `max_batch` rows together; beyond about 16 nothing is gained per row."""
        self._max_batch = max_batch
        self._lanes: dict[int, _Lane] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    async def forecast(self, model: Model, windows: Sequence[Values], horizon: int) -> list[Values]:
        """Forecast each window, (time, features) of any length, to (horizon, features), in the order given.

        The windows must be finite float32 arrays of at least `model.minimum_window` steps, and the horizon at least 1.
        The arrays returned share memory with nothing that changes. Cancelling gives the rows up at the next turn.

        Raises:
            ForecastOutOfRange: a forecast is not finite; the fault's pointer is `/windows/<place>`.
            ShuttingDown: `close` has been called.
            Exception: whatever `model.run` raised.
        """
        if self._closing:
            raise ShuttingDown("the service is shutting down and takes no new forecasts")
        if not windows:
            return []
        request = _Request(windows, horizon, model.context_length, asyncio.get_running_loop().create_future())
        lane = self._lanes.get(id(model))
        if lane is None:
            lane = self._lanes[id(model)] = _Lane(model, self._max_batch)
        lane.admit(request)
        self._wake()
        try:
            return await request.future
        finally:
            if request.unfinished:
                lane.disturbed = True

    async def close(self) -> None:
        """Refuse new forecasts from now on, and wait until those under way are complete."""
        self._closing = True
        await self._idle.wait()

    def _wake(self) -> None:
        if self._idle.is_set():
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Run one batch of the model whose turn it is, and come back while there is anything to do."""
        key = next(iter(self._lanes))
        lane = self._lanes.pop(key)
        try:
            lane.turn()
        finally:
            if lane.busy:
                self._lanes[key] = lane
            if self._lanes:
                asyncio.get_running_loop().call_soon(self._turn)
            else:
                self._idle.set()


class _Request:
    """The windows of one call, handed out in order of length so that equal ones are prefilled together."""

    def __init__(
        self,
        windows: Sequence[Values],
        horizon: int,
        context_length: int,
        future: asyncio.Future[list[Values]],
    ) -> None:
        self.horizon = horizon
        self.future = future
        self.under_way = 0
        self.waiting = False
        self._windows = windows
        self._context_length = context_length
        self._places = deque(sorted(range(len(windows)), key=self._length))
        self._forecasts: dict[int, Values] = {}

    @property
    def unfinished(self) -> bool:
        """Whether some windows are not complete."""
        return len(self._forecasts) < len(self._windows)

    @property
    def next_length(self) -> int | None:
        """The length, cut to the context, of the windows to be prefilled next; None where all have been."""
        return self._length(self._places[0]) if self._places else None

    def take(self, length: int, most: int) -> list["_Row"]:
        """Hand out up to `most` windows of a length."""
        rows: list[_Row] = []
        while len(rows) < most and self.next_length == length:
            rows.append(_Row(self, self._places.popleft(), self.horizon))
        self.under_way += len(rows)
        return rows

    def window(self, place: int) -> Values:
        """The part of a window that the model uses."""
        return end_of(self._windows[place], self._context_length)

    def deliver(self, place: int, forecast: Values) -> None:
        """Keep a window's forecast; the last one answers the request."""
        self.under_way -= 1
        self._forecasts[place] = forecast
        if not self.unfinished and not self.future.done():
            self.future.set_result([self._forecasts[place] for place in range(len(self._windows))])

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            # Looked at here, for nobody may be left who would: a caller can be cancelled before it hears of it.
            self.future.exception()

    def _length(self, place: int) -> int:
        return min(len(self._windows[place]), self._context_length)


@dataclass(slots=True, eq=False)
class _Row:
    """One window on its way: its place in its request, and what is known of its forecast."""

    request: _Request
    place: int
    remaining: int
    parts: list[Values] = field(default_factory=list)

    def forecast(self) -> Values:
        return self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)


class _Batch:
    """Rows that advance in lockstep: each run gives every one of them its next step.

    While no row joins or leaves, the outputs of a run are the inputs of the next as they are, and steps are only put
    aside; they are dealt out to the rows when something changes.
    """

    def __init__(self, rows: list[_Row]) -> None:
        self.rows = rows
        self._values = _stacked([row.request.window(row.place) for row in rows])
        self._state: Values | None = None
        self._steps: list[Values] = []
        self._count_down()

    @property
    def due(self) -> bool:
        """Whether some row has all its steps."""
        return len(self._steps) >= self._due

    def run(self, model: Model) -> None:
        """Give every row its next step."""
        forecast, self._state, _ = model.run(self._values, self._state)
        self._steps.append(forecast)
        if model.state_size:
            self._values = forecast[:, None]
        else:
            self._values = slide(self._values, forecast, model.context_length)

    def deal(self) -> list[_Row]:
        """Give every row the steps put aside; return the rows of which one is not finite."""
        if not self._steps:
            return []
        block = self._steps[0][:, None] if len(self._steps) == 1 else np.stack(self._steps, axis=1)
        for row, part in zip(self.rows, block, strict=True):
            row.parts.append(part)
            row.remaining -= len(part)
        self._steps = []
        self._count_down()
        if np.isfinite(block).all():
            return []
        return [row for row, part in zip(self.rows, block, strict=True) if not np.isfinite(part).all()]

    def keep(self, wanted: Callable[[_Row], bool]) -> None:
        """Let the other rows go, and with them what was put aside for them."""
        kept = [place for place, row in enumerate(self.rows) if wanted(row)]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in kept]
        self._values = self._values[kept]
        self._steps = [step[kept] for step in self._steps]
        if self._state is not None:
            self._state = self._state[kept]
        self._count_down()

    @property
    def length(self) -> int:
        """The time steps that the next run covers, of each row."""
        length: int = self._values.shape[1]
        return length

    def can_take(self, other: "_Batch", most_rows: int) -> bool:
        """Whether the rows of another batch can advance in lockstep with these."""
        return len(self.rows) + len(other.rows) <= most_rows and self.length == other.length

    def take(self, other: "_Batch") -> None:
        """Take over the rows of another batch; both must have dealt out their steps."""
        self.rows = self.rows + other.rows
        self._values = np.concatenate((self._values, other._values))
        if self._state is not None and other._state is not None:
            self._state = np.concatenate((self._state, other._state))
        self._count_down()

    def _count_down(self) -> None:
        self._due = min((row.remaining for row in self.rows), default=0)


class _Lane:
    """The forecasts of one model."""

    def __init__(self, model: Model, max_batch: int) -> None:
        self.disturbed = False
        """Whether a request has failed or was cancelled since the last turn."""
        self._model = model
        self._max_batch = max_batch
        self._waiting: dict[int, deque[_Request]] = {}
        self._decoding: deque[_Batch] = deque()
        self._prefilled_last = False

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._decoding)

    def admit(self, request: _Request) -> None:
        """Put a request in the queue of its next windows' length, if it has any and not too many under way."""
        length = request.next_length
        if length is None or request.waiting or request.under_way >= self._max_batch or request.future.done():
            return
        request.waiting = True
        self._waiting.setdefault(length, deque()).append(request)

    def turn(self) -> None:
        """Run one batch, if there is anything to run."""
        if self.disturbed:
            self._sweep()
        self._prefilled_last = bool(self._waiting) and not (self._prefilled_last and self._decoding)
        if self._prefilled_last:
            rows = self._next_rows()
            self._advance(rows, None)
        elif self._decoding:
            batch = self._next_batch()
            if batch.rows:
                self._advance(batch.rows, batch)

    def _sweep(self) -> None:
        """Let go of everything that belongs to requests which have been failed or cancelled."""
        self.disturbed = False
        for batch in self._decoding:
            batch.keep(_is_wanted)
        self._decoding = deque(batch for batch in self._decoding if batch.rows)
        queues = {
            length: deque(request for request in queue if not request.future.done())
            for length, queue in self._waiting.items()
        }
        self._waiting = {length: queue for length, queue in queues.items() if queue}

    def _next_rows(self) -> list[_Row]:
        """Take up to a batch of windows of the length whose turn it is."""
        length = next(iter(self._waiting))
        queue = self._waiting.pop(length)
        most = self._most_rows(length)
        rows: list[_Row] = []
        served = []
        while queue and len(rows) < most:
            request = queue.popleft()
            request.waiting = False
            rows += request.take(length, min(most - len(rows), self._max_batch - request.under_way))
            served.append(request)
        if queue:
            self._waiting[length] = queue
        for request in served:
            self.admit(request)
        return rows

    def _next_batch(self) -> _Batch:
        """Take the batch whose turn it is, together with those behind it that it has room for."""
        batch = self._decoding.popleft()
        while self._decoding and batch.can_take(self._decoding[0], self._most_rows(batch.length)):
            other = self._decoding.popleft()
            self._settle(batch)
            self._settle(other)
            batch.take(other)
        return batch

    def _most_rows(self, length: int) -> int:
        """How many rows of so many time steps run together."""
        return max(1, min(self._max_batch, _STEPS_TOGETHER // length))

    def _advance(self, rows: list[_Row], batch: _Batch | None) -> None:
        """Run a batch, or a new one of the rows given; a failure is that of these rows' requests alone."""
        try:
            batch = batch or _Batch(rows)
            batch.run(self._model)
            if batch.due:
                self._settle(batch)
        except Exception as error:
            for row in rows:
                row.request.fail(error)
            return
        if batch.rows:
            self._decoding.append(batch)

    def _settle(self, batch: _Batch) -> None:
        """Deal out the steps put aside, answer what is complete, and make room for what waits behind it."""
        for row in batch.deal():
            row.request.fail(ForecastOutOfRange([Fault(f"/windows/{row.place}", NOT_FINITE)]))
        complete = [row for row in batch.rows if not row.remaining]
        for row in complete:
            row.request.deliver(row.place, row.forecast())
        batch.keep(_is_wanted)
        for row in complete:
            self.admit(row.request)


def _is_wanted(row: _Row) -> bool:
    return row.remaining > 0 and not row.request.future.done()


def _stacked(windows: Sequence[Values]) -> Values:
    """Put windows of one length, (time, features), together as C-contiguous float32 (batch, time, features)."""
    if len(windows) == 1:
        return np.ascontiguousarray(windows[0], np.float32)[None]
    return np.stack(windows, dtype=np.float32)

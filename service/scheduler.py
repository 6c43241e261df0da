"""The scheduler: continuous batching of forecasts on the event loop.

A forecast is one prefill run over its window and then one decode run for each further step. Every turn of the loop runs
one batch, of rows from any requests that wait, and then lets the loop go on: new windows join between steps, and those
leave that are complete, whose request was cancelled, or whose time is up. Nothing waits for a timer.

Who goes first:
- models take turns, and in each model prefill and decode take turns;
- windows of one length are prefilled together, first come, first served, and lengths take turns;
- of long windows fewer run together, for every row of them holds the loop up and speeds nothing up;
- a request that still has windows to prefill and room for them is not decoded meanwhile, for its windows then decode
  together, unless others decode beside it;
- a request has at most one batch of windows under way, so one with ten thousand leaves room for the others;
- where more rows decode than one batch holds, the batches take turns.

A one-step forecast therefore waits for a turn or two, however long the others are.

Who is not taken at all: a request that would not be complete in its time behind the work that is there
(`service/backlog.py` tells how long that takes, and `service/shares.py` whose requests are refused first), and one with
which more steps would wait than may, of a client that has its share of them. Where nothing is under way, everything is
taken.

Where a run takes place: on the loop while it is expected to be short, for nothing is quicker; else on a thread, and
the loop answers everybody else meanwhile. All methods belong to one event loop and none of them is for other threads.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from service.backlog import Backlog, Drag, Work
from service.drift import Drift
from service.errors import DeadlineExceeded, Fault, ForecastOutOfRange, Overloaded, ShuttingDown
from service.metrics import Cell, Metrics
from service.pace import Pace
from service.shares import Shares
from service.window import Values, end_of, slide

# Rows that are prefilled together. Sharing a run saves what a time step costs beside its arithmetic: from 16 to 64 rows
# a sixth of the time of a row, beyond nothing, and of a few rows of some hundred steps nothing either.
_ROWS_PREFILLED: Final = 64
_STEPS_PREFILLED: Final = 4096
_FEWEST_WORTH_SHARING: Final = 4

# Windows under way from which on it is worth asking, before a request is read, whether it would be late.
_CROWD: Final = 16

# Work that would fill so small a part of the time that a request has is no reason to look any closer.
_SURELY: Final = 4.0

# Turns of the loop that a run waits for while each of them brings another request.
_MOST_PUT_OFF: Final = 8

INLINE_SECONDS: Final = 0.004
"""A run that is expected to take longer leaves the loop."""

WINDOWS_UNDER_WAY: Final = "leadtime_windows_under_way"
QUEUE_STEPS: Final = "leadtime_queue_steps"
REQUESTS_GIVEN_UP: Final = "leadtime_requests_given_up"
REQUESTS_REFUSED: Final = "leadtime_requests_refused"
ROWS_OF_A_RUN: Final = "leadtime_run_rows"

LATE: Final = (
    "the forecast would not be complete in the time that the request has: send it again later, or give it more time"
)
"""What is said to a request that comes behind too many others."""
CROWDED: Final = "too many steps wait to be run: send it again later, or raise LEADTIME_MAX_STEPS"

_LEAST: Final = Work(1, 1, 0)

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


class Scheduler:
    """Runs all forecasts of one process, a batch at a time."""

    def __init__(
        self,
        *,
        max_batch: int = 1024,
        max_steps: int = 1 << 24,
        inline_seconds: float = INLINE_SECONDS,
        metrics: Metrics | None = None,
    ) -> None:
        """Run at most `max_batch` rows together, on the loop what takes up to `inline_seconds`; queue `max_steps`."""
        metrics = metrics or Metrics(None)
        self._windows = metrics.gauge(WINDOWS_UNDER_WAY)
        self._steps = metrics.gauge(QUEUE_STEPS)
        self._cancelled = metrics.counter(REQUESTS_GIVEN_UP, reason="cancelled")
        self._expired = metrics.counter(REQUESTS_GIVEN_UP, reason="expired")
        self._refused_late = metrics.counter(REQUESTS_REFUSED, reason="deadline")
        self._refused_for_steps = metrics.counter(REQUESTS_REFUSED, reason="steps")
        self.is_crowded = False
        """Whether so much is under way that it is worth asking how long a request would take, before it is read."""
        self._rows_run = metrics.histogram(ROWS_OF_A_RUN, (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024))
        self._max_batch = max_batch
        self._max_steps = max_steps
        self._inline_seconds = inline_seconds
        self._drag = Drag()
        self._shares = Shares()
        self._moment = 0.0
        """When the last turn ended, or work began after an idle time."""
        self._lanes: dict[int, _Lane] = {}
        """Those with something to run, in the order of their turns."""
        self._away: dict[int, _Lane] = {}
        """Those of which a batch runs on the thread."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._turn_is_due = False
        self._comers = 0
        """Requests that have come since the last look at it."""
        self._put_off = 0
        """How many times the turn that is due was put off."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    async def forecast(
        self,
        model: Model,
        windows: Sequence[Values],
        horizon: int,
        *,
        seconds: float | None = None,
        scales: Values | None = None,
        known: Sequence[Values] | None = None,
        times: Times | None = None,
        client: int = 0,
    ) -> Values:
        """Forecast each window, (time, features) of any length, to (windows, horizon, features), in the order given.

        The windows must be finite float32 arrays of at least `model.minimum_window` steps, and the horizon at least 1.
        Cancelling gives the rows up at the next turn, and so does the end of `seconds`. Where the model tells a scale,
        `scales`, (windows, features), is filled with that of each window. Where it takes what is known beforehand, each
        window has its own of `known`, (time + horizon - 1, known): of the step after each of its own, and so on. It is
        noted in `times` when it was asked, begun and ended. `client` is the number of whose request it is.

        Raises:
            ForecastOutOfRange: a forecast is not finite; the fault's pointer is `/windows/<place>`.
            Overloaded: it would take more than `seconds`, for others are before it, or more steps would wait than may.
            DeadlineExceeded: it took more than `seconds`.
            ShuttingDown: `close` has been called.
            Exception: whatever `model.run` raised.
        """
        if not windows:
            return np.empty((0, horizon, model.features), np.float32)
        future = asyncio.get_running_loop().create_future()

        def tell(_: Request, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                # Looked at here, for nobody may be left who would: a caller can be cancelled before it hears of it.
                future.exception()

        request = self.begin(
            model, windows, horizon, tell, seconds=seconds, scales=scales, known=known, times=times, client=client
        )
        try:
            await future
        except asyncio.CancelledError:
            self.give_up(request)
            raise
        return request.forecasts

    def begin(
        self,
        model: Model,
        windows: Sequence[Values],
        horizon: int,
        tell: Tell,
        *,
        seconds: float | None = None,
        scales: Values | None = None,
        known: Sequence[Values] | None = None,
        times: Times | None = None,
        client: int = 0,
    ) -> "Request":
        """Take a request on as `forecast` does, and have its end told, in a later turn of the loop, not waited for.

        It must have a window. `tell` must not raise.

        Raises:
            Overloaded: as `forecast` says.
            ShuttingDown: `close` has been called.
        """
        if self._closing:
            raise ShuttingDown("the service is shutting down and takes no new forecasts")
        key = id(model)
        lane = self._lanes.get(key) or self._away.get(key)
        if seconds is None:
            seconds = math.inf
        asked = perf_counter()
        request = Request(windows, horizon, model, asked + seconds, tell, scales, known, times)
        work = request.work
        if self._lanes or self._away:
            self._check_is_bearable(lane, work, seconds, client)
        if times is not None:
            times.asked = asked
        if lane is None:
            lane = self._lanes[key] = _Lane(model, self._max_batch, self._inline_seconds, self._shares)
        lane.welcome(request, client)
        self._comers += 1
        if not self._turn_is_due and self._lanes:
            if self._idle.is_set():
                self._idle.clear()
                self._moment = asked
            self._turn_is_due = True
            loop = self._loop = self._loop or asyncio.get_running_loop()
            loop.call_soon(self._turn, loop)
        return request

    def give_up(self, request: "Request", error: BaseException | None = None) -> None:
        """Stop working for somebody who is gone; where there is an error, they are told."""
        if not request.is_done:
            request.lane.drop(request)
            self._cancelled.add()
            if error is not None:
                request.tell(request, error)

    def least_seconds(self, model: Model, horizon: int, client: int = 0) -> float:
        """How long a client's window so far ahead would take at the least; 0 where nothing is under way."""
        if not self._lanes and not self._away:
            return 0.0
        key = id(model)
        lane = self._lanes.get(key) or self._away.get(key)
        if lane is not None and not lane.backlog.is_known:
            return 0.0
        work = Work(1, 1, horizon - 1) if model.state_size else Work(1, horizon, 0)
        return self._seconds_with(lane, work, client)

    def count_late(self) -> None:
        """Count a request that is refused because it would be late."""
        self._refused_late.add()

    async def close(self) -> None:
        """Refuse new forecasts from now on, and wait until those under way are complete."""
        self._closing = True
        await self._idle.wait()
        if self._thread is not None:
            self._thread.shutdown()

    def _check_is_bearable(self, lane: "_Lane | None", work: Work, seconds: float, client: int) -> None:
        """Refuse a request that would not be complete in its time, or would let too many steps wait."""
        more = work.prefill + work.decode
        if lane is not None and len(self._lanes) + len(self._away) == 1:
            steps = lane.backlog.prefill + lane.backlog.decode
            # Mostly this is enough to know.
            if (
                steps + more <= self._max_steps
                and (steps + more) * lane.backlog.worst_step * self._drag.factor * _SURELY < seconds
            ):
                return
        else:
            steps = sum(other.backlog.steps for other in (*self._lanes.values(), *self._away.values()))
        if steps and steps + more > self._max_steps and not self._shares.has_less(client, more):
            self._refused_for_steps.add()
            raise Overloaded(CROWDED, self._seconds_with(lane, _LEAST, client), "steps")
        if lane is not None and not lane.backlog.is_known:
            return
        late = self._seconds_with(lane, work, client) - seconds
        if late > 0:
            self.count_late()
            raise Overloaded(LATE, late)

    def _seconds_with(self, lane: "_Lane | None", work: Work, client: int) -> float:
        """How long a client's wait for more work of a lane is taken to be; others have turns in between."""
        caution = self._shares.caution(client, work.prefill + work.decode)
        taken = 0.0 if lane is None else lane.backlog.seconds_with(work, caution)
        if len(self._lanes) + len(self._away) > 1:
            turn = max(taken, self._inline_seconds)
            others = [
                other.backlog.seconds() for other in (*self._lanes.values(), *self._away.values()) if other is not lane
            ]
            taken += sum(min(seconds, turn) for seconds in others)
        return taken * self._drag.factor

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run one batch of the model whose turn it is, and come back while there is anything to do."""
        if self._comers and self._put_off < _MOST_PUT_OFF:
            # While requests come in, others are on their heels, and share a run that waits for them. The loop is not
            # idle meanwhile: it reads them.
            self._comers = 0
            self._put_off += 1
            loop.call_soon(self._turn, loop)
            return
        self._put_off = self._comers = 0
        self._turn_is_due = False
        key = next(iter(self._lanes))
        lane = self._lanes.pop(key)
        try:
            lane.expire(perf_counter(), self._expired)
            batch = lane.next_batch()
            if batch is not None:
                self._rows_run.observe(batch.size)
                if not lane.run_inline(batch):
                    self._run_on_thread(loop, key, lane, batch)
        finally:
            self._go_on(loop, key, lane)

    def _run_on_thread(self, loop: asyncio.AbstractEventLoop, key: int, lane: "_Lane", batch: "_Batch") -> None:
        def back(done: Future[None]) -> None:
            loop.call_soon_threadsafe(self._take_back, loop, key, lane, batch, done)

        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leadtime-run")
        self._away[key] = lane
        self._thread.submit(lane.run, batch).add_done_callback(back)

    def _take_back(
        self, loop: asyncio.AbstractEventLoop, key: int, lane: "_Lane", batch: "_Batch", done: Future[None]
    ) -> None:
        del self._away[key]
        try:
            lane.finish(batch, done.exception())
        finally:
            self._go_on(loop, key, lane)

    def _go_on(self, loop: asyncio.AbstractEventLoop, key: int, lane: "_Lane") -> None:
        expected = lane.expected_seconds()
        if expected:
            moment = perf_counter()
            if lane.backlog.is_known:
                self._drag.learn(expected, moment - self._moment)
            self._moment = moment
        if lane.busy and key not in self._away:
            self._lanes[key] = lane
        self.is_crowded = lane.backlog.rows > _CROWD or (self.is_crowded and len(self._lanes) + len(self._away) > 1)
        if lane.has_changed:
            lane.has_changed = False
            windows, steps = 0, 0.0
            for others in (self._lanes, self._away):
                for other in others.values():
                    windows, steps = windows + other.windows, steps + other.steps
            self._windows.set(windows)
            self._steps.set(steps)
        # Before the next turn, which answers would otherwise wait for, and now that whoever is told may ask again.
        for request, error in lane.told():
            request.tell(request, error)
        if self._lanes and not self._turn_is_due:
            self._turn_is_due = True
            loop.call_soon(self._turn, loop)
        elif not self._lanes and not self._away:
            self._idle.set()


class Request:
    """The windows of one call, handed out in order of length so that equal ones are prefilled together."""

    __slots__ = (
        "_context_length",
        "_features",
        "_forecasts",
        "_given_out",
        "_known",
        "_length_of_all",
        "_order",
        "_windows",
        "client",
        "deadline",
        "horizon",
        "is_done",
        "lane",
        "missing",
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
    lane: "_Lane"
    """Where its windows are run."""

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
        """How many of them run before others have their turn."""
        self._forecasts: Values | None = None
        self._features = model.features
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
        self.work = Work(rows, steps, rows * (horizon - 1)) if model.state_size else Work(rows, steps * horizon, 0)
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

    def take(self, length: int, most: int) -> "_Group":
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
        return _Group(self, self._order[begin:end])

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
                self._forecasts = block
                return
            self._forecasts = np.empty((len(self._order), self.horizon, self._features), np.float32)
        self._forecasts[places, begin : begin + block.shape[1]] = block

    def _length(self, place: int) -> int:
        return min(len(self._windows[place]), self._context_length)


class _Group:
    """Windows of one request that set out together: their places in it, and how many steps each still lacks.

    They stay together to the end, so that a request of a thousand windows costs no thousand times as much bookkeeping.
    """

    __slots__ = ("_index", "places", "remaining", "request", "size")

    def __init__(self, request: Request, places: Sequence[int]) -> None:
        self.request = request
        self.places = places
        self.size = len(places)
        self.remaining = request.horizon
        # Places that follow each other are written as one block.
        self._index = slice(places.start, places.stop) if isinstance(places, range) else list(places)

    @property
    def wanted(self) -> bool:
        return self.remaining > 0 and not self.request.is_done

    def put(self, block: Values) -> None:
        """Take the next steps, (size, steps, features), of the forecasts."""
        self.request.put(self._index, self.request.horizon - self.remaining, block)
        self.remaining -= block.shape[1]

    def put_scale(self, scale: Values) -> None:
        """Take the scales, (size, features), of the windows."""
        if self.request.scales is not None and self.remaining == self.request.horizon:
            self.request.scales[self._index] = scale


class _Batch:
    """Rows that advance in lockstep: each run gives every one of them its next step.

    While no group of rows joins or leaves, the outputs of a run are the inputs of the next as they are, and steps are
    only put aside; they are dealt out to the groups when something changes.
    """

    __slots__ = ("_asking", "_due", "_state", "_steps", "_values", "begun", "ended", "groups", "is_new", "ran", "size")

    def __init__(self, groups: list[_Group]) -> None:
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

    def joined_by(self, other: "_Batch") -> "_Batch":
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


class _InformedBatch(_Batch):
    """Rows of a model that takes what is known of each step beforehand, which each row has of its own.

    Whatever a row has read, the next that it will read stands first in `_ahead`, where those without any have zeros.
    """

    __slots__ = ("_ahead", "_known", "_read")

    def __init__(self, groups: list[_Group]) -> None:
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

    def joined_by(self, other: "_Batch") -> "_Batch":
        """The rows of both batches as one; both must have dealt out their steps."""
        assert isinstance(other, _InformedBatch), "batches of one model are of one kind"
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


class _Lane:
    """The forecasts of one model."""

    def __init__(self, model: Model, max_batch: int, inline_seconds: float, shares: Shares) -> None:
        self.has_changed = False
        """Whether windows have come or gone since it was last looked at."""
        self.windows = 0
        """Windows whose forecasts are not complete."""
        self.steps = 0.0
        """All time steps of them and of their forecasts."""
        self._disturbed = False
        """Whether a request has failed or was given up since the last turn."""
        self._shares = shares
        self._told: list[tuple[Request, BaseException | None]] = []
        self._model = model
        self._kind = _InformedBatch if model.known else _Batch
        self._max_batch = max_batch
        self._max_prefilled = min(max_batch, _ROWS_PREFILLED)
        self._max_under_way = max_batch if model.state_size else self._max_prefilled
        self._inline_seconds = inline_seconds
        self.backlog = Backlog(model.pace, _STEPS_PREFILLED, max_batch, slides=not model.state_size)
        self._expected_seconds = 0.0
        self._live: set[Request] = set()
        self._deadline = math.inf
        self._waiting: dict[int, deque[Request]] = {}
        self._decoding: deque[_Batch] = deque()
        self._prefilled_last = False

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._decoding)

    def told(self) -> list[tuple[Request, BaseException | None]]:
        """The requests that have come to their end since the last look, whose end is to be told."""
        told, self._told = self._told, []
        return told

    def welcome(self, request: Request, client: int) -> None:
        """Take a client's new request."""
        request.lane = self
        request.client, work = client, request.work
        self._shares.add(client, work.prefill + work.decode)
        request.turn = self.backlog.add(work)
        self._live.add(request)
        self.has_changed = True
        self.windows += request.missing
        self.steps += request.missing * request.steps_each
        if request.deadline < self._deadline:
            self._deadline = request.deadline
        self._admit(request)

    def drop(self, request: Request) -> None:
        """Let go of a request that is not wanted any more, at the next turn."""
        self._disturbed = True
        self._end(request)

    def expire(self, now: float, expired: Cell) -> None:
        """Fail the requests whose time is up, and count them."""
        if now < self._deadline:
            return
        for request in [request for request in self._live if request.deadline <= now and not request.is_done]:
            self._fail(request, DeadlineExceeded("the forecast was not complete in the time that the request had"))
            expired.add()
        self._deadline = min((request.deadline for request in self._live), default=math.inf)

    def next_batch(self) -> _Batch | None:
        """The batch whose turn it is, if there is any."""
        if self._disturbed:
            self._sweep()
        self._prefilled_last = bool(self._waiting) and not (self._prefilled_last and self._decoding_is_urgent)
        if not self._prefilled_last:
            return self._next_decoded() if self._decoding else None
        groups = self._next_groups()
        try:
            batch = self._kind(groups)
        except Exception as error:
            self._fail_groups(groups, error)
            return None
        if self._model.drift is not None:
            batch.show(self._model.drift)
        return batch if self._model.state_size else self._beside_those_under_way(batch)

    def run_inline(self, batch: _Batch) -> bool:
        """Run a batch at once, unless it is expected to take too long; return whether it was run."""
        if self._model.pace.expect(batch.size * batch.length) > self._inline_seconds:
            return False
        try:
            self.run(batch)
        except Exception as error:
            self.finish(batch, error)
        else:
            self.finish(batch, None)
        return True

    def run(self, batch: _Batch) -> None:
        """Run a batch, and learn how long that takes. Touches nothing that the loop may touch meanwhile."""
        batch.ran = batch.length
        steps = batch.size * batch.ran
        batch.begun = perf_counter()
        batch.run(self._model)
        batch.ended = perf_counter()
        self._model.pace.learn(steps, batch.ended - batch.begun)

    def expected_seconds(self) -> float:
        """How long the runs since the last look were expected to take."""
        seconds, self._expected_seconds = self._expected_seconds, 0.0
        return seconds

    def finish(self, batch: _Batch, error: BaseException | None) -> None:
        """Take a batch back from its run; a failure is that of its rows' requests alone."""
        self._count_off(batch)
        if error is None:
            try:
                if batch.is_new:
                    _note_begin(batch)
                if batch.due:
                    self._settle(batch)
            except Exception as failure:
                error = failure
        if error is not None:
            self._fail_groups(batch.groups, error)
        elif batch.groups:
            self._decoding.append(batch)

    def _count_off(self, batch: _Batch) -> None:
        """Take a run out of the backlog."""
        if batch.ran > 1 or not self._model.state_size:
            self._expected_seconds += self.backlog.count_off(batch.size * batch.ran, 0)
        else:
            self._expected_seconds += self.backlog.count_off(0, batch.size)

    @property
    def _decoding_is_urgent(self) -> bool:
        """Whether some of what decodes belongs to a request that waits for nothing else."""
        return any(not group.request.waiting for batch in self._decoding for group in batch.groups)

    def _admit(self, request: Request) -> None:
        """Put a request in the queue of its next windows' length, if it has any and not too many under way."""
        length = request.next_length
        if length is None or request.waiting or request.under_way >= self._max_under_way or request.is_done:
            return
        request.waiting = True
        queue = self._waiting.get(length)
        if queue is None:
            self._waiting[length] = deque((request,))
        else:
            queue.append(request)

    def _sweep(self) -> None:
        """Let go of everything that belongs to requests which have been failed or cancelled."""
        self._disturbed = False
        self.has_changed = True
        self._live = {request for request in self._live if not request.is_done}
        for batch in self._decoding:
            batch.let_go()
        self._decoding = deque(batch for batch in self._decoding if batch.groups)
        queues = {
            length: deque(request for request in queue if not request.is_done)
            for length, queue in self._waiting.items()
        }
        self._waiting = {length: queue for length, queue in queues.items() if queue}
        self._recount()

    def _recount(self) -> None:
        """Set the backlog to what is left for those who stay."""
        live, backlog = self._live, self.backlog
        if self._model.state_size:
            backlog.prefill = sum(request.steps_left for request in live)
            backlog.decode = sum(request.windows_left * (request.horizon - 1) for request in live)
            backlog.decode += sum(batch.steps_left for batch in self._decoding)
        else:
            backlog.prefill = sum(request.steps_left * request.horizon for request in live)
            backlog.prefill += sum(batch.steps_left * batch.length for batch in self._decoding)
        backlog.rows = sum(min(request.windows, self._max_batch) for request in live)
        backlog.turns = sum(request.turn for request in live)

    def _next_groups(self) -> list[_Group]:
        """Take up to a batch of windows of the length whose turn it is."""
        length = next(iter(self._waiting))
        queue = self._waiting.pop(length)
        most = self._most_rows(length)
        self.backlog.most_prefilled = most * length
        groups: list[_Group] = []
        while queue and most > 0:
            request = queue.popleft()
            request.waiting = False
            group = request.take(length, min(most, self._max_under_way - request.under_way))
            most -= group.size
            groups.append(group)
        if queue:
            self._waiting[length] = queue
        for group in groups:
            self._admit(group.request)
        return groups

    def _next_decoded(self) -> _Batch | None:
        """Take the batch whose turn it is, together with those behind it that it has room for."""
        batch = self._decoding.popleft()
        most = self._most_rows(batch.length)
        while self._decoding:
            other = self._decoding[0]
            if batch.length != other.length or batch.size + other.size > most:
                break
            self._decoding.popleft()
            self._settle(batch)
            self._settle(other)
            batch = batch.joined_by(other)
        return batch if batch.groups else None

    def _beside_those_under_way(self, batch: _Batch) -> _Batch:
        """New windows with those under way that have room for them: where windows slide, all runs are alike."""
        for other in self._decoding:
            if other.length == batch.length and other.size + batch.size <= self._most_rows(batch.length):
                self._decoding.remove(other)
                self._settle(other)
                return other.joined_by(batch)
        return batch

    def _most_rows(self, length: int) -> int:
        """How many rows of so many time steps run together."""
        rows = self._max_batch if length == 1 else max(1, min(self._max_prefilled, _STEPS_PREFILLED // length))
        while rows > _FEWEST_WORTH_SHARING and self._model.pace.expect(rows * length) > self._inline_seconds:
            rows //= 2
        return rows

    def _settle(self, batch: _Batch) -> None:
        """Deal out the steps put aside, answer what is complete, and make room for what waits behind it."""
        for request, place in batch.deal():
            self._fail(request, ForecastOutOfRange([Fault(f"/windows/{place}", NOT_FINITE)]))
        complete = [group for group in batch.groups if not group.remaining]
        self.has_changed = True
        batch.let_go()
        for group in complete:
            self._complete(group.request, group.size, batch.ended)

    def _fail_groups(self, groups: Sequence[_Group], error: BaseException) -> None:
        for group in groups:
            self._fail(group.request, error)

    def _complete(self, request: Request, windows: int, ended: float) -> None:
        """Know that so many more windows of a request have all their steps; the last ones complete it."""
        if request.is_done:
            return
        request.under_way -= windows
        if windows < request.missing:
            self._count_out(request, windows)
            self._admit(request)
            return
        if request.times is not None:
            request.times.ended = ended
        self._live.discard(request)
        self.backlog.remove(request.windows, request.turn)
        self._end(request)
        self._told.append((request, None))

    def _fail(self, request: Request, error: BaseException) -> None:
        self._disturbed = True
        if not request.is_done:
            self._live.discard(request)
            self._end(request)
            self._told.append((request, error))

    def _end(self, request: Request) -> None:
        request.is_done = True
        self._shares.remove(request.client, request.work.prefill + request.work.decode)
        self._count_out(request, request.missing)

    def _count_out(self, request: Request, windows: int) -> None:
        request.missing -= windows
        self.windows -= windows
        # To the last digit, for what is added up may be no whole number.
        self.steps = self.steps - windows * request.steps_each if self.windows else 0.0


def _note_begin(batch: _Batch) -> None:
    """Let the requests that a batch is the first of know when its run began."""
    batch.is_new = False
    for group in batch.groups:
        times = group.request.times
        if times is not None and not times.begun:
            times.begun = batch.begun


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

"""The scheduler: continuous batching of forecasts on the event loop.

A forecast is one prefill run over its window and then one decode run for each further step. Every turn of the loop runs
one batch, of rows from any requests that wait, and then lets the loop go on: new windows join between steps, and those
leave that are complete, whose request was cancelled, or whose time is up. Nothing waits for a timer.

Who goes first:
- models take turns, and in each model prefill and decode take turns: after a prefill run decode runs follow, one for
  every eight steps ahead that are asked of the windows that wait, at least one, and others come meanwhile and share the
  next;
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

Where to look: each model has a lane (`service/lane.py`), which has the windows of its requests (`service/sequences.py`)
run in batches (`service/batch.py`).

Where a run takes place: on the loop while it is expected to be short, for nothing is quicker; else on a thread, and
the loop answers everybody else meanwhile. All methods belong to one event loop and none of them is for other threads.
"""

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Final

import numpy as np

from service.backlog import Drag, Work
from service.batch import Batch
from service.errors import Overloaded, ShuttingDown
from service.lane import Lane
from service.metrics import Metrics
from service.sequences import Model, Request, Tell, Times
from service.shares import Shares
from service.window import Values

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
        self._lanes: dict[int, Lane] = {}
        """Those with something to run, in the order of their turns."""
        self._away: dict[int, Lane] = {}
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
    ) -> Request:
        """Take a request on as `forecast` does, and have its end told, in a later turn of the loop, not waited for.

        It must have a window.

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
            lane = self._lanes[key] = Lane(model, self._max_batch, self._inline_seconds, self._shares)
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

    @property
    def is_idle(self) -> bool:
        """Whether no forecast is under way."""
        return self._idle.is_set()

    def give_up(self, request: Request, error: BaseException | None = None) -> None:
        """Stop working for somebody who is gone; where there is an error, they are told."""
        if not request.is_done:
            request.owner.drop(request)
            self._cancelled.add()
            if error is not None:
                self._tell(asyncio.get_running_loop(), request, error)

    def least_seconds(self, model: Model, horizon: int, client: int = 0) -> float:
        """How long a client's window so far ahead would take at the least; 0 where nothing is under way."""
        if not self._lanes and not self._away:
            return 0.0
        key = id(model)
        lane = self._lanes.get(key) or self._away.get(key)
        if lane is not None and not lane.backlog.is_known:
            return 0.0
        work = Work(1, 1, horizon - 1) if model.state_size else Work(1, horizon, 0, horizon)
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

    def _check_is_bearable(self, lane: Lane | None, work: Work, seconds: float, client: int) -> None:
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

    def _seconds_with(self, lane: Lane | None, work: Work, client: int) -> float:
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

    def _run_on_thread(self, loop: asyncio.AbstractEventLoop, key: int, lane: Lane, batch: Batch) -> None:
        def back(done: Future[None]) -> None:
            loop.call_soon_threadsafe(self._take_back, loop, key, lane, batch, done)

        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leadtime-run")
        self._away[key] = lane
        self._thread.submit(lane.run, batch).add_done_callback(back)

    def _take_back(
        self, loop: asyncio.AbstractEventLoop, key: int, lane: Lane, batch: Batch, done: Future[None]
    ) -> None:
        del self._away[key]
        try:
            lane.finish(batch, done.exception())
        finally:
            self._go_on(loop, key, lane)

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, request: Request, error: BaseException | None) -> None:
        try:
            request.tell(request, error)
        except Exception as failure:
            # It is the fault of one, and must not keep the others from their answers and their turns.
            loop.call_exception_handler({"message": "telling of a forecast's end has failed", "exception": failure})

    def _go_on(self, loop: asyncio.AbstractEventLoop, key: int, lane: Lane) -> None:
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
            self._tell(loop, request, error)
        if self._lanes and not self._turn_is_due:
            self._turn_is_due = True
            loop.call_soon(self._turn, loop)
        elif not self._lanes and not self._away:
            self._idle.set()

"""The lane of a model: which of the forecasts from it are run next, together, and what becomes of them."""

import math
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Final

from service.backlog import Backlog
from service.batch import Batch, InformedBatch
from service.errors import DeadlineExceeded, Fault, ForecastOutOfRange
from service.metrics import Cell
from service.sequences import NOT_IN_TIME, Group, Model, Request
from service.shares import Shares

# Rows that are prefilled together. Sharing a run saves what a time step costs beside its arithmetic: from 16 to 64 rows
# a sixth of the time of a row, beyond nothing, and of a few rows of some hundred steps nothing either.
_ROWS_PREFILLED: Final = 64
_STEPS_PREFILLED: Final = 4096
_FEWEST_WORTH_SHARING: Final = 4

# What part of its steps ahead a window waits for company at the most, in decode runs of others. A prefill run of few
# rows takes longer than a decode run of many, and without a wait each turn would bring one.
_SHARE_WAITED: Final = 8  # an eighth

NOT_FINITE: Final = (
    "the forecast leaves the range of 32-bit floats; divide the series by a constant, and multiply the forecast by it"
)
"""What is at fault with a window whose forecast is not finite."""


class Lane:
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
        self._kind = InformedBatch if model.known else Batch
        self._max_batch = max_batch
        self._max_prefilled = min(max_batch, _ROWS_PREFILLED)
        self._max_under_way = max_batch if model.state_size else self._max_prefilled
        self._inline_seconds = inline_seconds
        self.backlog = Backlog(model.pace, _STEPS_PREFILLED, max_batch, slides=not model.state_size)
        self._expected_seconds = 0.0
        self._live: set[Request] = set()
        self._deadline = math.inf
        self._waiting: dict[int, deque[Request]] = {}
        self._shortest_waiting = 1
        """The least number of steps ahead that one of them asks for, or has asked for; 1 for those left over."""
        self._decoding: deque[Batch] = deque()
        self._decoded_since = 1
        """Decode runs since the last windows were prefilled."""

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._decoding)

    def told(self) -> list[tuple[Request, BaseException | None]]:
        """The requests that have come to their end since the last look, whose end is to be told."""
        told, self._told = self._told, []
        return told

    def welcome(self, request: Request, client: int) -> None:
        """Take a client's new request."""
        request.owner = self
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
            self._fail(request, DeadlineExceeded(NOT_IN_TIME))
            expired.add()
        self._deadline = min((request.deadline for request in self._live), default=math.inf)

    def next_batch(self) -> Batch | None:
        """The batch whose turn it is, if there is any."""
        if self._disturbed:
            self._sweep()
        if not self._waiting or self._decoding_is_due:
            self._decoded_since += 1
            return self._next_decoded() if self._decoding else None
        self._decoded_since = 0
        groups = self._next_groups()
        try:
            batch = self._kind(groups)
        except Exception as error:
            self._fail_groups(groups, error)
            return None
        if self._model.drift is not None:
            batch.show(self._model.drift)
        return batch if self._model.state_size else self._beside_those_under_way(batch)

    def run_inline(self, batch: Batch) -> bool:
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

    def run(self, batch: Batch) -> None:
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

    def finish(self, batch: Batch, error: BaseException | None) -> None:
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

    def _count_off(self, batch: Batch) -> None:
        """Take a run out of the backlog."""
        if batch.ran > 1 or not self._model.state_size:
            self._expected_seconds += self.backlog.count_off(batch.size * batch.ran, 0)
        else:
            self._expected_seconds += self.backlog.count_off(0, batch.size)

    @property
    def _decoding_is_due(self) -> bool:
        """Whether a decode run comes before the windows that wait."""
        if self._decoded_since and self._decoded_since * _SHARE_WAITED >= self._shortest_waiting:
            return False
        # Some of what decodes belongs to a request that waits for nothing else.
        return any(not group.request.waiting for batch in self._decoding for group in batch.groups)

    def _admit(self, request: Request) -> None:
        """Put a request in the queue of its next windows' length, if it has any and not too many under way."""
        length = request.next_length
        if length is None or request.waiting or request.under_way >= self._max_under_way or request.is_done:
            return
        request.waiting = True
        # Where windows slide, new ones run beside those under way, and need no company.
        steps = request.horizon if self._model.state_size else 1
        self._shortest_waiting = min(self._shortest_waiting, steps) if self._waiting else steps
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

    def _next_groups(self) -> list[Group]:
        """Take up to a batch of windows of the length whose turn it is."""
        length = next(iter(self._waiting))
        queue = self._waiting.pop(length)
        most = self._most_rows(length)
        self.backlog.most_prefilled = most * length
        groups: list[Group] = []
        while queue and most > 0:
            request = queue.popleft()
            request.waiting = False
            group = request.take(length, min(most, self._max_under_way - request.under_way))
            most -= group.size
            groups.append(group)
        if queue:
            self._waiting[length] = queue
        if self._waiting:
            # Those have waited for company already, and are not to do so again for each length before theirs.
            self._shortest_waiting = 1
        for group in groups:
            self._admit(group.request)
        return groups

    def _next_decoded(self) -> Batch | None:
        """Take the batch whose turn it is, together with those behind it that it has room for."""
        batch = self._decoding.popleft()
        most = self._most_rows(batch.length)
        while self._decoding:
            other = self._decoding[0]
            if batch.length != other.length or batch.size + other.size > most:
                break
            self._decoding.popleft()
            batch = batch.joined_by(other)
        return batch

    def _beside_those_under_way(self, batch: Batch) -> Batch:
        """New windows with those under way that have room for them: where windows slide, all runs are alike."""
        for other in self._decoding:
            if other.length == batch.length and other.size + batch.size <= self._most_rows(batch.length):
                self._decoding.remove(other)
                return other.joined_by(batch)
        return batch

    def _most_rows(self, length: int) -> int:
        """How many rows of so many time steps run together."""
        rows = self._max_batch if length == 1 else max(1, min(self._max_prefilled, _STEPS_PREFILLED // length))
        while rows > _FEWEST_WORTH_SHARING and self._model.pace.expect(rows * length) > self._inline_seconds:
            rows //= 2
        return rows

    def _settle(self, batch: Batch) -> None:
        """Deal out the steps put aside, answer what is complete, and make room for what waits behind it."""
        for request, place in batch.deal():
            self._fail(request, ForecastOutOfRange([Fault(f"/windows/{place}", NOT_FINITE)]))
        complete = [group for group in batch.groups if not group.remaining]
        self.has_changed = True
        batch.let_go()
        for group in complete:
            self._complete(group.request, group.size, batch.ended)

    def _fail_groups(self, groups: Sequence[Group], error: BaseException) -> None:
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
        self.has_changed = True
        request.missing -= windows
        self.windows -= windows
        # To the last digit, for what is added up may be no whole number.
        self.steps = self.steps - windows * request.steps_each if self.windows else 0.0


def _note_begin(batch: Batch) -> None:
    """Let the requests that a batch is the first of know when its run began."""
    batch.is_new = False
    for group in batch.groups:
        times = group.request.times
        if times is not None and not times.begun:
            times.begun = batch.begun

"""The scheduler under more load than it can take, on a clock that runs, parsing and refusing move on by what they cost.

So the outcome does not depend on the machine, and a second of overload takes much less than one.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from service import lane, scheduler
from service.drift import Drift
from service.errors import DeadlineExceeded, Overloaded
from service.pace import Pace
from service.scheduler import Scheduler
from service.window import Values

DEADLINE = 0.2
SECONDS = 0.9
WARM = 0.4
PARSE, ANSWER, REFUSAL = 30e-6, 20e-6, 8e-6


class Clock:
    """The time, which stands still but for what is said to take some."""

    now = 0.0


class ClockedLoop(asyncio.SelectorEventLoop):
    """An event loop that goes by a clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def time(self) -> float:
        return self._clock.now


class Costly:
    """A model whose runs cost time by their steps, give or take a fifth, and forecast nothing of interest."""

    minimum_window, features, known = 2, 1, 0
    drift: Drift | None = None

    def __init__(self, clock: Clock, *, state_size: int, context_length: int, run: float, step: float) -> None:
        self.state_size = state_size
        self.context_length = context_length
        self.pace = Pace()
        self._clock, self._run, self._step, self._rng = clock, run, step, random.Random(0)

    def run(
        self, values: Values, state: Values | None, known: Values | None = None
    ) -> tuple[Values, Values | None, Values | None]:
        rows, steps = values.shape[:2]
        self._clock.now += (self._run + self._step * rows * steps) * self._rng.uniform(0.9, 1.3)
        return values[:, -1], np.zeros((rows, 1), np.float32) if self.state_size else None, None


@dataclass
class Outcome:
    """How long answers and refusals took, and how many came too late."""

    answers: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    late: int = 0

    @property
    def goodput(self) -> int:
        return sum(taken <= DEADLINE for taken in self.answers)


SLID: dict[str, Any] = {"state_size": 0, "context_length": 30, "run": 60e-6, "step": 0.7e-6}
CARRIED: dict[str, Any] = {"state_size": 1, "context_length": 384, "run": 100e-6, "step": 3e-6}
KINDS = {"slid": (SLID, 30, 24), "slid far": (SLID, 30, 96), "carried, large": (CARRIED, 192, 24)}
"""Models, and the windows and horizons that they are asked for."""
CAPACITY = {"slid": 1500.0, "slid far": 375.0, "carried, large": 1100.0}


def offered(kind: str, times: float, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """What becomes of so many times the capacity, at random times."""
    return shared(kind, [times], monkeypatch)[0]


def shared(kind: str, loads: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """What becomes of the requests of clients that each send so many times the capacity, at random times."""
    clock = Clock()
    for module in (scheduler, lane):
        monkeypatch.setattr(module, "perf_counter", lambda: clock.now)
    sizes, length, horizon = KINDS[kind]
    model = Costly(clock, **sizes)
    window = np.ones((length, 1), np.float32)
    outcomes = [Outcome() for _ in loads]
    rngs = [random.Random(client) for client in range(1, len(loads) + 1)]

    async def scenario() -> None:
        forecasts, due, under_way = Scheduler(), [0.0] * len(loads), set[asyncio.Task[None]]()

        def would_be_late(client: int) -> bool:
            return forecasts.is_crowded and forecasts.least_seconds(model, horizon, client) > DEADLINE

        async def ask(client: int, came: float) -> None:
            told, outcome = came > WARM, outcomes[client]
            try:
                if would_be_late(client):
                    clock.now += REFUSAL
                    raise Overloaded("unread")
                clock.now += PARSE
                await forecasts.forecast(model, [window], horizon, seconds=DEADLINE, client=client)
                clock.now += ANSWER
                if told:
                    outcome.answers.append(clock.now - came)
            except Overloaded:
                if told:
                    outcome.refusals.append(clock.now - came)
            except DeadlineExceeded:
                outcome.late += told

        while clock.now < SECONDS:
            clock.now = max(clock.now, min(due)) if not under_way else clock.now
            while min(due) <= clock.now:
                client = due.index(min(due))
                task = asyncio.create_task(ask(client, due[client]))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                due[client] += rngs[client].expovariate(loads[client] * CAPACITY[kind])
            await asyncio.sleep(0)
        await asyncio.gather(*under_way)

    with asyncio.Runner(loop_factory=lambda: ClockedLoop(clock)) as runner:
        runner.run(scenario())
    return outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_be_answered_is_not_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = offered(kind, 0.9, monkeypatch)
    assert (len(outcome.refusals), outcome.late) == (0, 0)
    assert outcome.goodput == len(outcome.answers) > 0.8 * CAPACITY[kind] * (SECONDS - WARM)


@pytest.mark.parametrize("kind", KINDS)
def test_under_five_times_the_load_as_much_is_answered_in_time_as_before(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peak, outcome = offered(kind, 1.5, monkeypatch), offered(kind, 5.0, monkeypatch)
    assert outcome.goodput > 0.8 * peak.goodput > 0.8 * CAPACITY[kind] * (SECONDS - WARM)
    assert max(outcome.answers) < DEADLINE
    assert outcome.late <= 0.02 * outcome.goodput
    assert sorted(outcome.refusals)[int(0.99 * len(outcome.refusals))] < 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("others", [1, 10])
def test_who_asks_little_is_answered_beside_one_who_floods_and_as_much_is_answered_in_all(
    kind: str, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = offered(kind, 5.0, monkeypatch)
    flood, *rest = shared(kind, [5.0] + [0.02] * others, monkeypatch)
    assert [len(one.refusals) + one.late for one in rest] == [0] * others
    assert all(one.goodput == len(one.answers) > 0 for one in rest)
    assert flood.goodput + sum(one.goodput for one in rest) > 0.9 * alone.goodput


@pytest.mark.parametrize("kind", KINDS)
def test_those_who_flood_share_what_there_is_though_one_of_them_sends_four_times_as_much(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, less = shared(kind, [4.0, 1.0], monkeypatch)
    assert less.goodput > 0.8 * more.goodput
    assert more.late + less.late <= 0.02 * (more.goodput + less.goodput)

"""The scheduler: whatever shares a batch, each forecast is its own; and nobody waits long behind anybody.

Fairness is counted in runs of the model, never in time.
"""

import asyncio
import gc
import itertools
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.drift import Drift
from service.engine import Engine
from service.errors import ArtifactError, DeadlineExceeded, ForecastOutOfRange, Overloaded, ShuttingDown
from service.metrics import Metrics, collect
from service.pace import Pace
from service.scheduler import QUEUE_STEPS, WINDOWS_UNDER_WAY, Scheduler
from service.sequences import Model
from service.window import Values
from tests.artifacts import Kind, write_artifact

CONTEXT = 8
ALWAYS_INLINE = math.inf
ALWAYS_ON_A_THREAD = 0.0
LARGEST = float(np.finfo(np.float32).max)
KINDS: list[Kind] = ["drift", "lstm", "mean", "bidirectional", "informed", "informed_mean"]
Engines = dict[tuple[Kind, int], Engine]
Outcome = Values | BaseException
Answer = TypeVar("Answer")


class Recorder:
    """A model that counts the runs of the one it wraps, and fails on windows of one length if asked to."""

    def __init__(self, model: Model, failing_length: int | None = None) -> None:
        self.context_length = model.context_length
        self.minimum_window = model.minimum_window
        self.features = model.features
        self.state_size = model.state_size
        self.known = model.known
        self.pace = Pace()
        self.drift: Drift | None = None
        self.shapes: list[tuple[int, ...]] = []
        self._model = model
        self._failing_length = failing_length

    @property
    def runs(self) -> int:
        return len(self.shapes)

    def run(
        self, values: Values, state: Values | None, known: Values | None = None
    ) -> tuple[Values, Values | None, Values | None]:
        assert values.dtype == np.float32
        assert values.flags.c_contiguous
        self.shapes.append(values.shape)
        if values.shape[1] == self._failing_length:
            raise ArtifactError("its graph fails")
        if known is not None:
            assert known.dtype == np.float32
            assert known.flags.c_contiguous
            assert known.shape == (*values.shape[:2], self.known)
        return self._model.run(values, state, known)


class Held(Recorder):
    """A model whose first run waits until it is released."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.is_held = threading.Event()
        self.release = threading.Event()
        self.threads: set[str] = set()

    def run(
        self, values: Values, state: Values | None, known: Values | None = None
    ) -> tuple[Values, Values | None, Values | None]:
        self.threads.add(threading.current_thread().name)
        self.is_held.set()
        assert self.release.wait(30)
        return super().run(values, state, known)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    folder = tmp_path_factory.mktemp("engines")
    return {
        (kind, features): Engine.open(
            write_artifact(
                folder / f"{kind}{features}.onnx",
                kind,
                features=features,
                context_length=CONTEXT,
                exogenous=("price", "promotion") if kind.startswith("informed") else (),
            )
        )
        for kind in KINDS
        for features in (1, 2)
    }


@pytest.fixture
def model(engines: Engines) -> Recorder:
    return Recorder(engines["drift", 1])


def line(length: int = 4, start: float = 1.0) -> Values:
    """A window that rises by 1 a step; the drift model goes on from its end."""
    return np.arange(start, start + length, dtype=np.float32)[:, None]


def known_of(engine: Engine, windows: Sequence[Values], horizon: int) -> list[Values] | None:
    """What is known of each window's steps and of those ahead, different for each; None for a model that takes none."""
    if not engine.known:
        return None
    return [
        np.random.default_rng((place, len(window))).normal(0, 3, (len(window) + horizon - 1, 2)).astype(np.float32)
        for place, window in enumerate(windows)
    ]


def alone(engine: Engine, windows: Sequence[Values], horizon: int) -> list[Values]:
    """The forecast of each window by the engine, with what is known of its steps."""
    known = known_of(engine, windows, horizon)
    return [
        engine.forecast(window[None], horizon, None if known is None else known[place][None])[0]
        for place, window in enumerate(windows)
    ]


def inline(max_batch: int = 16) -> Scheduler:
    """A scheduler whose turns can be counted, for it never leaves the loop."""
    return Scheduler(max_batch=max_batch, inline_seconds=ALWAYS_INLINE)


def counted(folder: Path) -> dict[str, float]:
    """What a scheduler has counted in a folder: windows under way, and requests given up by reason."""
    return {
        key.labels[0][1] if key.labels else key.name: values[0]
        for key, values in collect(folder).items()
        if key.kind != "histogram"
    }


def run(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Run `work` on an event loop in debug mode, which complains of what nobody awaited."""

    async def main() -> Answer:
        return await work()

    return asyncio.run(main(), debug=True)


async def after_runs(model: Recorder, runs: int) -> None:
    """Let the loop turn until the model has run so many times."""
    while model.runs < runs:
        await asyncio.sleep(0)


async def some_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def agree(found: Values, expected: Sequence[Values]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@st.composite
def requests(draw: st.DrawFn) -> list[tuple[list[int], int, int]]:
    """Requests as (lengths of the windows, horizon, turns of the loop before it comes)."""
    lengths = st.lists(st.integers(2, CONTEXT + 3), min_size=1, max_size=9)
    one = st.tuples(lengths, st.integers(1, 12) | st.sampled_from((31, 32, 33, 66)), st.integers(0, 15))
    return draw(st.lists(one, min_size=1, max_size=6))


@given(
    asked=requests(),
    kind=st.sampled_from(KINDS),
    features=st.sampled_from([1, 2]),
    max_batch=st.integers(1, 5),
    inline_seconds=st.sampled_from([ALWAYS_ON_A_THREAD, ALWAYS_INLINE]),
    seed=st.integers(0, 99),
)
@settings(max_examples=120)
def test_any_mix_of_requests_gives_what_each_window_gives_alone(
    engines: Engines,
    asked: list[tuple[list[int], int, int]],
    kind: Kind,
    features: int,
    max_batch: int,
    inline_seconds: float,
    seed: int,
) -> None:
    engine = engines[kind, features]
    model = Recorder(engine)
    random = np.random.default_rng(seed)
    windows = [
        [random.normal(0.0, 3.0, (length, features)).astype(np.float32) for length in lengths]
        for lengths, _, _ in asked
    ]

    async def work() -> list[Values]:
        scheduler = Scheduler(max_batch=max_batch, inline_seconds=inline_seconds)

        async def request(place: int) -> Values:
            _, horizon, turns = asked[place]
            for _ in range(turns):
                await asyncio.sleep(0)
            known = known_of(engine, windows[place], horizon)
            return await scheduler.forecast(model, windows[place], horizon, known=known)

        answers = await asyncio.gather(*(request(place) for place in range(len(asked))))
        await scheduler.close()
        return answers

    answers = run(work)
    for place, (_, horizon, _) in enumerate(asked):
        agree(answers[place], alone(engine, windows[place], horizon))
    assert max(shape[0] for shape in model.shapes) <= max_batch
    assert sum(shape[0] for shape in model.shapes) == sum(len(lengths) * horizon for lengths, horizon, _ in asked)


@given(
    asked=requests(),
    leaving=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 25)), max_size=4),
    kind=st.sampled_from(KINDS),
    max_batch=st.integers(1, 5),
    inline_seconds=st.sampled_from([ALWAYS_ON_A_THREAD, ALWAYS_INLINE]),
)
@settings(max_examples=100)
def test_requests_that_leave_change_nothing_for_those_that_stay(
    engines: Engines,
    asked: list[tuple[list[int], int, int]],
    leaving: list[tuple[int, int]],
    kind: Kind,
    max_batch: int,
    inline_seconds: float,
) -> None:
    engine = engines[kind, 1]
    windows = [[line(length, place) for length in lengths] for place, (lengths, _, _) in enumerate(asked)]

    async def work() -> list[Outcome]:
        scheduler = Scheduler(max_batch=max_batch, inline_seconds=inline_seconds)

        async def request(place: int) -> Values:
            _, horizon, turns = asked[place]
            for _ in range(turns):
                await asyncio.sleep(0)
            known = known_of(engine, windows[place], horizon)
            return await scheduler.forecast(engine, windows[place], horizon, known=known)

        async def leave(place: int, turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            if place < len(tasks):
                tasks[place].cancel()

        tasks = [asyncio.create_task(request(place)) for place in range(len(asked))]
        leavers = [asyncio.create_task(leave(place, turns)) for place, turns in leaving]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*leavers)
        await scheduler.close()
        return answers

    gone = {place for place, _ in leaving}
    for place, answer in enumerate(run(work)):
        if isinstance(answer, BaseException):
            assert place in gone
            assert isinstance(answer, asyncio.CancelledError)
        else:
            agree(answer, alone(engine, windows[place], asked[place][1]))


@given(
    asked=st.lists(
        st.tuples(st.lists(st.sampled_from([1.0, 2.1e37, 4.1e37, 1.1e38]), min_size=1, max_size=5), st.integers(1, 20)),
        min_size=1,
        max_size=6,
    ),
    max_batch=st.integers(1, 5),
)
@settings(max_examples=60)
def test_requests_that_leave_the_range_fail_and_change_nothing_for_the_others(
    engines: Engines, asked: list[tuple[list[float], int]], max_batch: int
) -> None:
    """The steeper a line, the sooner it leaves the range: after 3, 8 or 16 steps, or never."""
    engine = engines["drift", 1]

    async def work() -> list[Outcome]:
        scheduler = inline(max_batch=max_batch)
        calls = [
            scheduler.forecast(
                engine, [line(2 + place % 2, 0.0) * slope for place, slope in enumerate(slopes)], horizon
            )
            for slopes, horizon in asked
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await scheduler.close()
        return answers

    for (slopes, horizon), answer in zip(asked, run(work), strict=True):
        lasts = [(1 + place % 2 + horizon) * slope for place, slope in enumerate(slopes)]
        if max(lasts) < LARGEST:
            assert not isinstance(answer, BaseException)
            np.testing.assert_allclose([forecast[-1, 0] for forecast in answer], lasts, rtol=1e-5)
        else:
            assert isinstance(answer, ForecastOutOfRange)
            (fault,) = answer.faults
            assert lasts[int(fault.pointer.removeprefix("/windows/"))] > LARGEST


@given(
    asked=requests(),
    asking=st.lists(st.booleans(), min_size=6, max_size=6),
    kind=st.sampled_from(KINDS),
    max_batch=st.integers(1, 5),
    inline_seconds=st.sampled_from([ALWAYS_ON_A_THREAD, ALWAYS_INLINE]),
)
@settings(max_examples=100)
def test_whoever_asks_for_scales_hears_that_of_each_window_and_no_later_one(
    engines: Engines,
    asked: list[tuple[list[int], int, int]],
    asking: list[bool],
    kind: Kind,
    max_batch: int,
    inline_seconds: float,
) -> None:
    engine = engines[kind, 2]
    random = np.random.default_rng(len(asked))
    windows = [[random.normal(0.0, 3.0, (steps, 2)).astype(np.float32) for steps in lengths] for lengths, _, _ in asked]
    scales = [np.full((len(lengths), 2), np.nan, np.float32) for lengths, _, _ in asked]

    async def work() -> None:
        scheduler = Scheduler(max_batch=max_batch, inline_seconds=inline_seconds)

        async def request(place: int) -> None:
            _, horizon, turns = asked[place]
            for _ in range(turns):
                await asyncio.sleep(0)
            told = scales[place] if asking[place] else None
            known = known_of(engine, windows[place], horizon)
            forecasts = await scheduler.forecast(engine, windows[place], horizon, scales=told, known=known)
            agree(forecasts, alone(engine, windows[place], horizon))

        await asyncio.gather(*(request(place) for place in range(len(asked))))
        await scheduler.close()

    run(work)
    for place, told in enumerate(scales):
        used = [window[None, -CONTEXT:] for window in windows[place]]
        zeros = [np.zeros((1, window.shape[1], 2), np.float32) if engine.known else None for window in used]
        own = [engine.run(window, known=known).scale for window, known in zip(used, zeros, strict=True)]
        for row, scale in zip(told, own, strict=True):
            if asking[place] and scale is not None:
                np.testing.assert_allclose(row, scale[0], rtol=1e-5)
            else:
                assert np.isnan(row).all(), "the graph tells none, or nobody asked"


def test_forecasts_come_back_in_the_order_of_their_windows(model: Recorder) -> None:
    async def work() -> Values:
        return await inline(max_batch=2).forecast(model, [line(5), line(2), line(4), line(2, start=7)], 2)

    assert [forecast.ravel().tolist() for forecast in run(work)] == [[6, 7], [3, 4], [5, 6], [9, 10]]


def test_of_a_window_longer_than_the_context_the_end_counts(model: Recorder) -> None:
    window = np.concatenate([np.full((5, 1), 1000, np.float32), line(CONTEXT)])

    async def work() -> Values:
        return await inline().forecast(model, [window], 1)

    assert run(work)[0].item() == CONTEXT + 1
    assert model.shapes == [(1, CONTEXT, 1)]


def test_no_windows_have_no_forecasts_and_cost_no_run(model: Recorder) -> None:
    async def work() -> Values:
        return await inline().forecast(model, [], 3)

    assert run(work).shape == (0, 3, 1)
    assert model.runs == 0


def test_requests_that_come_together_share_their_runs(model: Recorder) -> None:
    async def work() -> None:
        scheduler = inline(max_batch=16)
        await asyncio.gather(*(scheduler.forecast(model, [line()], 24) for _ in range(16)))

    run(work)
    assert model.shapes == [(16, 4, 1)] + [(16, 1, 1)] * 23


def test_windows_of_different_lengths_decode_together_once_they_are_prefilled(model: Recorder) -> None:
    async def work() -> None:
        await inline().forecast(model, [line(3), line(5), line(3)], 10)

    run(work)
    assert model.shapes == [(2, 3, 1), (1, 5, 1)] + [(3, 1, 1)] * 9


def test_windows_that_are_slid_are_run_together_where_their_lengths_are_equal(engines: Engines) -> None:
    model = Recorder(engines["mean", 1])

    async def work() -> None:
        await inline().forecast(model, [line(CONTEXT), line(CONTEXT + 3), line(CONTEXT)], 5)

    run(work)
    assert model.shapes == [(3, CONTEXT, 1)] * 5


def test_a_window_that_is_slid_joins_those_under_way_without_a_run_of_its_own(engines: Engines) -> None:
    model = Recorder(engines["mean", 1])

    async def work() -> None:
        scheduler = inline()
        first = asyncio.create_task(scheduler.forecast(model, [line(CONTEXT)], 20))
        await after_runs(model, 3)
        agree(
            await scheduler.forecast(model, [line(CONTEXT, 7)], 4),
            list(engines["mean", 1].forecast(line(CONTEXT, 7)[None], 4)),
        )
        agree(await first, list(engines["mean", 1].forecast(line(CONTEXT)[None], 20)))

    run(work)
    assert sorted(rows for rows, _, _ in model.shapes) == [1] * 16 + [2] * 4


@pytest.mark.parametrize(
    ("kind", "length", "rows"),
    [("lstm", 256, 16), ("lstm", 1000, 4), ("lstm", 5000, 1), ("mean", 1000, 4), ("mean", 5000, 1)],
)
def test_of_long_windows_fewer_run_together_so_that_the_loop_is_never_held_up_for_long(
    tmp_path: Path, kind: Kind, length: int, rows: int
) -> None:
    engine = Engine.open(write_artifact(tmp_path / "model.onnx", kind, context_length=length))
    model = Recorder(engine)

    async def work() -> Values:
        return await inline(max_batch=16).forecast(model, [line(length, start=place) for place in range(18)], 3)

    answer = run(work)
    assert len(answer) == 18
    assert model.shapes[0] == (rows, length, 1)
    assert max(shape[0] * shape[1] for shape in model.shapes) <= max(4096, length)
    expected = [engine.forecast(line(length, start=place)[None], 3)[0] for place in range(18)]
    agree(answer, expected)


@pytest.mark.parametrize("windows", [1, 16, 17, 1000])
def test_a_one_step_forecast_beside_a_long_one_waits_for_a_few_runs(model: Recorder, windows: int) -> None:
    async def work() -> int:
        scheduler = inline(max_batch=16)
        long = asyncio.create_task(scheduler.forecast(model, [line()] * windows, 1000))
        await after_runs(model, 50)
        before = model.runs
        await scheduler.forecast(model, [line()], 1)
        waited = model.runs - before
        long.cancel()
        await asyncio.wait([long])
        return waited

    assert run(work) <= 3


def test_a_request_of_many_one_step_windows_lets_others_in(model: Recorder) -> None:
    async def work() -> int:
        scheduler = inline(max_batch=16)
        many = asyncio.create_task(scheduler.forecast(model, [line()] * 1000, 1))
        await after_runs(model, 3)
        before = model.runs
        await scheduler.forecast(model, [line()], 1)
        waited = model.runs - before
        assert len(await many) == 1000
        return waited

    assert run(work) <= 2


def test_windows_of_many_lengths_take_turns_with_a_window_of_one(model: Recorder) -> None:
    async def work() -> int:
        scheduler = inline(max_batch=4)
        many = asyncio.create_task(scheduler.forecast(model, [line(2 + place % 6) for place in range(300)], 1))
        await after_runs(model, 3)
        before = model.runs
        await scheduler.forecast(model, [line()], 1)
        waited = model.runs - before
        await many
        return waited

    assert run(work) <= 2


def test_a_rush_of_windows_of_one_length_does_not_keep_another_length_out(model: Recorder) -> None:
    async def work() -> int:
        scheduler = inline(max_batch=4)

        async def client() -> None:
            while True:
                await scheduler.forecast(model, [line(3)], 1)

        rush = [asyncio.create_task(client()) for _ in range(20)]
        await after_runs(model, 20)
        before = model.runs
        await scheduler.forecast(model, [line(5)], 1)
        waited = model.runs - before
        for task in rush:
            task.cancel()
        await asyncio.wait(rush)
        return waited

    assert run(work) <= 3


def test_a_day_ahead_beside_a_request_of_a_thousand_windows_gets_half_of_the_runs(model: Recorder) -> None:
    async def work() -> int:
        scheduler = inline(max_batch=16)
        many = asyncio.create_task(scheduler.forecast(model, [line()] * 1000, 1000))
        await after_runs(model, 20)
        before = model.runs
        await scheduler.forecast(model, [line()], 24)
        waited = model.runs - before
        many.cancel()
        await asyncio.wait([many])
        return waited

    assert run(work) <= 2 * 24 + 3


def test_a_day_ahead_is_decoded_between_the_prefills_of_a_request_of_a_thousand_windows(model: Recorder) -> None:
    async def work() -> int:
        scheduler = inline(max_batch=1024)
        day = asyncio.create_task(scheduler.forecast(model, [line()], 24))
        await after_runs(model, 2)
        many = asyncio.create_task(scheduler.forecast(model, [line()] * 1000, 1000))
        before = model.runs
        await day
        waited = model.runs - before
        many.cancel()
        await asyncio.wait([many])
        return waited

    assert run(work) <= 2 * 24


def test_windows_wait_an_eighth_of_their_steps_for_company_while_others_decode(model: Recorder) -> None:
    async def work() -> list[tuple[int, ...]]:
        scheduler = inline()
        long = asyncio.create_task(scheduler.forecast(model, [line()], 400))
        await after_runs(model, 10)
        begin = model.runs
        asked = []
        for _ in range(12):
            asked.append(asyncio.create_task(scheduler.forecast(model, [line(8)], 40)))
            await after_runs(model, model.runs + 1)
        await asyncio.gather(*asked)
        long.cancel()
        await asyncio.wait([long])
        return model.shapes[begin:]

    shapes = run(work)
    prefilled = [place for place, (_, length, _) in enumerate(shapes) if length == 8]
    assert sum(shapes[place][0] for place in prefilled) == 12
    assert len(prefilled) == 3
    assert [later - earlier for earlier, later in itertools.pairwise(prefilled)] == [6, 6]


def test_windows_of_many_lengths_wait_for_company_once_and_not_for_each_length_before_theirs(model: Recorder) -> None:
    async def work() -> list[tuple[int, ...]]:
        scheduler = inline()
        long = asyncio.create_task(scheduler.forecast(model, [line()], 400))
        await after_runs(model, 10)
        begin = model.runs
        await asyncio.gather(*(scheduler.forecast(model, [line(length)], 80) for length in range(3, 8)))
        long.cancel()
        await asyncio.wait([long])
        return model.shapes[begin:]

    prefilled = [place for place, (_, length, _) in enumerate(run(work)) if length > 1]
    assert [later - earlier for earlier, later in itertools.pairwise(prefilled)] == [2, 2, 2, 2]


def test_a_window_of_few_steps_is_not_kept_waiting_by_those_that_wait_for_company(model: Recorder) -> None:
    async def work() -> int:
        scheduler = inline()
        asked = [asyncio.create_task(scheduler.forecast(model, [line()], 400))]
        await after_runs(model, 10)
        for _ in range(2):
            asked.append(asyncio.create_task(scheduler.forecast(model, [line(8)], 200)))
            await after_runs(model, model.runs + 2)
        before = model.runs
        await scheduler.forecast(model, [line(8)], 1)
        waited = model.runs - before
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        return waited

    assert run(work) <= 2
    assert [rows for rows, length, _ in model.shapes if length == 8] == [3]


def test_models_take_turns(engines: Engines) -> None:
    busy, other = Recorder(engines["lstm", 1]), Recorder(engines["drift", 1])

    async def work() -> int:
        scheduler = inline()
        long = asyncio.create_task(scheduler.forecast(busy, [line()], 1000))
        await after_runs(busy, 5)
        before = busy.runs
        await scheduler.forecast(other, [line()], 10)
        waited = busy.runs - before
        long.cancel()
        await asyncio.wait([long])
        return waited

    assert run(work) <= 12
    assert other.runs == 10


def test_a_cancelled_request_gives_its_rows_up(model: Recorder) -> None:
    async def work() -> None:
        scheduler = inline()
        gone = asyncio.create_task(scheduler.forecast(model, [line()] * 3, 1000))
        stays = asyncio.create_task(scheduler.forecast(model, [line()], 50))
        await after_runs(model, 10)
        before = model.runs
        gone.cancel()
        await after_runs(model, before + 5)
        assert model.shapes[before - 1] == (4, 1, 1)
        assert set(model.shapes[before + 1 :]) == {(1, 1, 1)}
        assert (await stays)[0][-1].item() == 54

    run(work)


def test_when_all_are_cancelled_nothing_runs_any_more(model: Recorder) -> None:
    async def work() -> None:
        scheduler = inline(max_batch=2)
        gone = [asyncio.create_task(scheduler.forecast(model, [line(), line(5)] * 9, 1000)) for _ in range(3)]
        await after_runs(model, 10)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        before = model.runs
        await some_turns()
        assert model.runs == before
        await scheduler.close()

    run(work)


def test_a_request_cancelled_before_its_first_run_costs_one_at_most(model: Recorder) -> None:
    async def work() -> None:
        scheduler = inline()
        gone = asyncio.create_task(scheduler.forecast(model, [line()], 10))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        await some_turns()
        assert model.runs <= 1
        assert len(await scheduler.forecast(model, [line()], 1)) == 1

    run(work)


def test_nothing_is_under_way_when_a_later_step_has_failed(engines: Engines, tmp_path: Path) -> None:
    model = Recorder(engines["drift", 1], failing_length=1)

    async def work() -> None:
        metrics = Metrics(tmp_path)
        scheduler = Scheduler(inline_seconds=ALWAYS_INLINE, metrics=metrics)
        with pytest.raises(ArtifactError):
            await scheduler.forecast(model, [line(4)], 3)
        await some_turns()
        found = counted(tmp_path)
        assert (found[WINDOWS_UNDER_WAY], found[QUEUE_STEPS]) == (0, 0)
        metrics.close()

    run(work)
    assert model.runs == 2


def test_a_failure_that_nobody_waits_for_any_more_is_not_complained_of(engines: Engines) -> None:
    model = Recorder(engines["drift", 1], failing_length=4)
    complaints: list[dict[str, object]] = []

    async def work() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        scheduler = inline()
        task = asyncio.create_task(scheduler.forecast(model, [line(4)], 1))
        await after_runs(model, 1)
        task.cancel()
        await asyncio.wait([task])
        del task
        gc.collect()

    run(work)
    assert model.runs == 1
    assert complaints == []


def test_a_forecast_out_of_range_names_its_window_and_spares_the_others(model: Recorder) -> None:
    huge = np.array([[-3e38], [3e38]], np.float32)

    async def work() -> tuple[Outcome, Outcome]:
        scheduler = inline()
        return await asyncio.gather(
            scheduler.forecast(model, [line(2), huge, line(2)], 5),
            scheduler.forecast(model, [line(2)], 5),
            return_exceptions=True,
        )

    failed, answered = run(work)
    assert isinstance(failed, ForecastOutOfRange)
    assert [fault.pointer for fault in failed.faults] == ["/windows/1"]
    assert "divide the series by a constant" in failed.faults[0].message
    assert not isinstance(answered, BaseException)
    assert answered[0].ravel().tolist() == [3, 4, 5, 6, 7]


def test_a_forecast_that_leaves_the_range_late_is_found_too(model: Recorder) -> None:
    steep = np.array([[0], [1e38]], np.float32)

    async def work() -> None:
        scheduler = inline()
        with pytest.raises(ForecastOutOfRange):
            await scheduler.forecast(model, [steep], 30)
        assert (await scheduler.forecast(model, [steep], 2))[0].ravel().tolist() == pytest.approx([2e38, 3e38])

    run(work)


def test_a_failing_run_fails_the_requests_of_its_batch_alone(engines: Engines) -> None:
    model = Recorder(engines["drift", 1], failing_length=5)

    async def work() -> tuple[tuple[Outcome, Outcome, Outcome], Values]:
        scheduler = inline()
        together = await asyncio.gather(
            scheduler.forecast(model, [line(4), line(5)], 3),
            scheduler.forecast(model, [line(5)], 3),
            scheduler.forecast(model, [line(4)], 3),
            return_exceptions=True,
        )
        return together, await scheduler.forecast(model, [line(6)], 1)

    (mixed, failing, answered), later = run(work)
    assert isinstance(mixed, ArtifactError)
    assert isinstance(failing, ArtifactError)
    assert not isinstance(answered, BaseException)
    assert answered[0].ravel().tolist() == [5, 6, 7]
    assert later[0].item() == 7


def test_windows_that_cannot_be_put_together_fail_their_request_alone(model: Recorder) -> None:
    """Callers check windows; one that does not must not stop the others."""

    async def work() -> None:
        scheduler = inline()
        with pytest.raises(ValueError, match="must match exactly"):
            await scheduler.forecast(model, [line(), np.ones((4, 2), np.float32)], 1)
        assert len(await scheduler.forecast(model, [line()], 1)) == 1
        await scheduler.close()

    run(work)


def test_nothing_runs_while_nothing_is_asked(model: Recorder) -> None:
    async def work() -> None:
        scheduler = inline()
        await scheduler.forecast(model, [line()], 3)
        await some_turns()
        assert model.runs == 3

    run(work)


def test_closing_finishes_what_has_begun_and_refuses_what_comes_after(model: Recorder) -> None:
    async def work() -> None:
        scheduler = inline()
        begun = asyncio.create_task(scheduler.forecast(model, [line()], 100))
        await after_runs(model, 5)
        closing = asyncio.create_task(scheduler.close())
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown, match="shutting down"):
            await scheduler.forecast(model, [line()], 1)
        await closing
        assert model.runs == 100
        assert (await begun)[0][-1].item() == 104

    run(work)


def test_an_idle_scheduler_closes_at_once() -> None:
    async def work() -> None:
        scheduler = inline()
        await scheduler.close()
        await scheduler.close()

    run(work)


def test_answers_share_no_memory_with_the_windows_asked(model: Recorder) -> None:
    window = line()

    async def work() -> Values:
        return await inline().forecast(model, [window], 3)

    assert not np.shares_memory(run(work)[0], window)


def test_while_a_long_run_is_on_the_thread_the_loop_answers_others(engines: Engines, tmp_path: Path) -> None:
    quick, slow = Recorder(engines["drift", 1]), Held(engines["lstm", 1])
    slow.pace.learn(4, 10.0)

    async def work() -> None:
        scheduler = Scheduler(metrics=Metrics(tmp_path))
        held = asyncio.create_task(scheduler.forecast(slow, [line()], 1))
        while not slow.is_held.is_set():
            await asyncio.sleep(0)
        await asyncio.gather(*(scheduler.forecast(quick, [line()], 5) for _ in range(3)))
        assert not held.done()
        assert counted(tmp_path)[WINDOWS_UNDER_WAY] == 1
        late = asyncio.create_task(scheduler.forecast(slow, [line()], 1))
        slow.release.set()
        agree(await held, [engines["lstm", 1].forecast(line()[None], 1)[0]])
        assert (await late).shape == (1, 1, 1)
        await scheduler.close()

    run(work)


def test_a_model_that_was_once_held_up_comes_back_to_the_loop(model: Recorder) -> None:
    model.pace.learn(4, 10.0)

    async def work() -> None:
        scheduler = Scheduler(inline_seconds=5.0)
        await scheduler.forecast(model, [line()], 1)
        await scheduler.close()

    run(work)
    assert model.pace.expect(4) < 5.0


def test_batches_that_were_once_held_up_become_as_large_again(model: Recorder) -> None:
    model.pace.learn(8 * 4, 1e-4)
    model.pace.learn(16 * 4, 10.0)

    async def work() -> None:
        scheduler = Scheduler(max_batch=16, inline_seconds=5.0)
        for _ in range(300):
            await scheduler.forecast(model, [line()] * 16, 1)
        await scheduler.close()

    run(work)
    assert model.shapes[0] == (8, 4, 1)
    assert model.shapes[-1] == (16, 4, 1)


def test_a_failure_on_the_thread_fails_the_requests_of_its_batch_alone(engines: Engines) -> None:
    model = Recorder(engines["drift", 1], failing_length=5)

    async def work() -> tuple[Outcome, Outcome]:
        scheduler = Scheduler(inline_seconds=ALWAYS_ON_A_THREAD)
        together = await asyncio.gather(
            scheduler.forecast(model, [line(5)], 3), scheduler.forecast(model, [line(4)], 3), return_exceptions=True
        )
        await scheduler.close()
        return together

    failed, answered = run(work)
    assert isinstance(failed, ArtifactError)
    assert not isinstance(answered, BaseException)
    assert answered.ravel().tolist() == [5, 6, 7]


@pytest.mark.parametrize("inline_seconds", [ALWAYS_INLINE, ALWAYS_ON_A_THREAD])
def test_a_request_whose_time_is_up_is_told_so_and_gives_its_rows_up(
    model: Recorder, inline_seconds: float, tmp_path: Path
) -> None:
    async def work() -> None:
        scheduler = Scheduler(max_steps=2**40, inline_seconds=inline_seconds, metrics=Metrics(tmp_path))
        stays = asyncio.create_task(scheduler.forecast(model, [line()], 3000))
        with pytest.raises(DeadlineExceeded):
            await scheduler.forecast(model, [line(), line(5)] * 20, 1_000_000, seconds=0.01)
        assert (counted(tmp_path)["expired"], counted(tmp_path)["cancelled"]) == (1, 0)
        assert (await stays)[0, -1, 0] == 3004
        assert model.shapes[-1] == (1, 1, 1)
        assert counted(tmp_path)[WINDOWS_UNDER_WAY] == 0
        await scheduler.close()

    run(work)


def test_a_request_that_is_complete_in_time_hears_nothing_of_its_deadline(model: Recorder, tmp_path: Path) -> None:
    async def work() -> None:
        scheduler = Scheduler(metrics=Metrics(tmp_path))
        assert (await scheduler.forecast(model, [line()], 5, seconds=60.0)).shape == (1, 5, 1)
        none = {"cancelled": 0, "expired": 0, "deadline": 0, "steps": 0, WINDOWS_UNDER_WAY: 0, QUEUE_STEPS: 0}
        assert counted(tmp_path) == none

    run(work)


def test_cancelled_requests_are_counted_and_no_window_of_them_stays_under_way(model: Recorder, tmp_path: Path) -> None:
    async def work() -> None:
        scheduler = Scheduler(metrics=Metrics(tmp_path))
        gone = [asyncio.create_task(scheduler.forecast(model, [line()] * 40, 1000)) for _ in range(3)]
        await after_runs(model, 10)
        assert counted(tmp_path)[WINDOWS_UNDER_WAY] == 120
        assert counted(tmp_path)[QUEUE_STEPS] == 120 * (4 + 999)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        await some_turns()
        none = {"cancelled": 3, "expired": 0, "deadline": 0, "steps": 0, WINDOWS_UNDER_WAY: 0, QUEUE_STEPS: 0}
        assert counted(tmp_path) == none

    run(work)


def test_windows_of_one_request_decode_together_once_all_of_them_are_prefilled(model: Recorder) -> None:
    async def work() -> None:
        await inline(max_batch=1024).forecast(model, [line()] * 1000, 24)

    run(work)
    assert model.shapes == [(64, 4, 1)] * 15 + [(40, 4, 1)] + [(1000, 1, 1)] * 23


def test_more_rows_decode_together_than_are_prefilled_together(model: Recorder) -> None:
    async def work() -> None:
        await inline(max_batch=128).forecast(model, [line()] * 200, 60)

    run(work)
    prefilled = [rows for rows, length, _ in model.shapes if length == 4]
    decoded = [rows for rows, length, _ in model.shapes if length == 1]
    assert max(prefilled) == 64
    assert max(decoded) == 128


def believing(model: Recorder, seconds: float) -> Recorder:
    """The same model, of which it is known that a run of any size takes so long."""
    for lesson in range(70):
        model.pace.learn(1 << (lesson % 13), seconds)
    return model


def test_a_request_that_would_be_late_behind_others_is_refused_at_once(model: Recorder, tmp_path: Path) -> None:
    async def scenario() -> None:
        scheduler = Scheduler(inline_seconds=ALWAYS_INLINE, metrics=Metrics(tmp_path))
        believing(model, 1.0)
        first = asyncio.ensure_future(scheduler.forecast(model, [line()], 500))
        await after_runs(model, 1)
        runs = model.runs
        with pytest.raises(Overloaded) as caught:
            await scheduler.forecast(model, [line()], 300, seconds=60)
        assert (caught.value.cause, model.runs) == ("deadline", runs)
        assert caught.value.seconds > 60
        await scheduler.forecast(model, [line()], 1, seconds=1e6)
        assert (await first).shape == (1, 500, 1)
        assert counted(tmp_path)["deadline"] == 1

    run(scenario)


def test_nobody_is_refused_by_what_the_first_runs_of_a_model_took(model: Recorder) -> None:
    async def scenario() -> None:
        scheduler = Scheduler(inline_seconds=ALWAYS_INLINE)
        for steps in (1, 4):
            model.pace.learn(steps, 1000.0)
        first = asyncio.ensure_future(scheduler.forecast(model, [line()], 10))
        await after_runs(model, 1)
        assert (await scheduler.forecast(model, [line()], 20, seconds=60)).shape == (1, 20, 1)
        await first

    run(scenario)


def test_a_service_that_is_idle_takes_every_request_whatever_it_expects(model: Recorder) -> None:
    async def scenario() -> None:
        forecasts = await inline().forecast(believing(model, 1000.0), [line()], 3, seconds=60)
        assert forecasts.shape == (1, 3, 1)

    run(scenario)


def test_no_more_steps_wait_than_may_unless_one_request_alone_has_more(model: Recorder, tmp_path: Path) -> None:
    async def scenario() -> None:
        scheduler = Scheduler(max_steps=1000, inline_seconds=ALWAYS_INLINE, metrics=Metrics(tmp_path))
        large = asyncio.ensure_future(scheduler.forecast(model, [line()] * 4, 400))
        await after_runs(model, 1)
        with pytest.raises(Overloaded) as caught:
            await scheduler.forecast(model, [line()], 1)
        assert caught.value.cause == "steps"
        await large
        await scheduler.forecast(model, [line()], 1)
        assert counted(tmp_path)["steps"] == 1

    run(scenario)


def test_a_client_is_not_refused_for_the_steps_of_another_as_long_as_it_has_less(model: Recorder) -> None:
    async def scenario() -> None:
        scheduler = Scheduler(max_steps=1000, inline_seconds=ALWAYS_INLINE)
        large = asyncio.ensure_future(scheduler.forecast(model, [line()] * 4, 400, client=1))
        await after_runs(model, 1)
        with pytest.raises(Overloaded):
            await scheduler.forecast(model, [line()], 1, client=1)
        with pytest.raises(Overloaded):
            await scheduler.forecast(model, [line()] * 4, 400, client=2)
        assert not large.done()
        assert (await scheduler.forecast(model, [line()], 1, client=2)).shape == (1, 1, 1)
        assert not large.done()
        await large

    run(scenario)


@pytest.mark.parametrize("kind", ["drift", "mean"])
def test_when_all_is_done_or_given_up_no_steps_are_left(engines: Engines, kind: Kind) -> None:
    async def scenario() -> None:
        scheduler, model = inline(), Recorder(engines[kind, 1])
        asked = [
            asyncio.ensure_future(scheduler.forecast(model, [line(length)] * count, horizon))
            for length, count, horizon in ((4, 30, 40), (5, 1, 1), (8, 3, 500), (4, 1, 1000))
        ]
        await after_runs(model, 20)
        lane = next(iter(scheduler._lanes.values()))
        assert lane.backlog.steps > 1000
        asked[2].cancel()
        asked[3].cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        backlog = lane.backlog
        assert (backlog.rows, backlog.turns, backlog.steps) == (0, 0, 0)

    run(scenario)


def test_one_who_asks_little_is_taken_beside_one_who_asks_for_ten_thousand_windows(model: Recorder) -> None:
    async def scenario() -> None:
        scheduler = Scheduler(inline_seconds=ALWAYS_INLINE)
        bulk = asyncio.ensure_future(scheduler.forecast(model, [line()] * 10_000, 24))
        await after_runs(model, 1)
        for _ in range(40):
            assert (await scheduler.forecast(model, [line()], 1, seconds=30)).shape == (1, 1, 1)
            assert not bulk.done()
        with pytest.raises(Overloaded):
            await scheduler.forecast(model, [line()] * 10_000, 24, seconds=1e-6)
        bulk.cancel()

    run(scenario)


def test_one_who_cannot_be_told_keeps_nobody_else_from_an_answer(model: Recorder) -> None:
    failures: list[dict[str, Any]] = []

    async def work() -> Values:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        scheduler = inline()

        def fail(*_: object) -> None:
            raise RuntimeError("nobody is there")

        scheduler.begin(model, [line()], 1, fail)
        answer = await scheduler.forecast(model, [line()], 3)
        await scheduler.close()
        return answer

    assert run(work).shape == (1, 3, 1)
    assert [str(failure["exception"]) for failure in failures] == ["nobody is there"]

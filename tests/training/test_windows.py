"""How windows are cut: nothing of a later part is ever fitted on, and every epoch can be had again."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import Config
from training.panel import Panel, Series
from training.parts import Boundary, Split
from training.windows import Batch, Stack, Windows, minimum_window, steps_ahead


def config(**fitting: object) -> Config:
    return Config.model_validate({"network": {"context_length": 12}, "fitting": {"batch_size": 4, **fitting}})


def counted(lengths: list[int], horizon: int) -> tuple[Panel, Split]:
    """Series whose values tell where they stand: 1000 times the series' place, plus the step."""
    series = tuple(
        Series(f"s{place}", np.arange(1000.0 * place, 1000.0 * place + length, dtype=np.float64)[:, None], None)
        for place, length in enumerate(lengths)
    )
    parts = tuple(Boundary(length - 2 * (horizon + 1), length - (horizon + 1)) for length in lengths)
    return Panel(series, ("x",), None, None, (), ""), Split(parts, horizon)


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(40, 80), min_size=1, max_size=4), seed=st.integers(0, 100))
def test_training_windows_lie_in_training_parts_and_never_span_two_series(lengths: list[int], seed: int) -> None:
    panel, split = counted(lengths, horizon=5)
    windows = Windows.cut(panel, split, config(steps_per_epoch=5).model_copy(update={"seed": seed}))

    for batch in windows.epoch(0):
        assert batch.values.shape[1] == batch.context + batch.free
        places, steps = np.divmod(batch.values[:, :, 0], 1000)
        assert (places == places[:, :1]).all()
        assert (np.diff(steps, axis=1) == 1).all()
        ends = np.array([split.boundaries[int(place)].train_end for place in places[:, 0]])
        assert (steps[:, -1] < ends).all()


def test_validation_windows_forecast_validation_parts_alone() -> None:
    panel, split = counted([60, 70], horizon=5)
    windows = Windows.cut(panel, split, config())

    judged = windows.judged()

    seen = set()
    for batch in judged:
        places, steps = np.divmod(batch.values[:, :, 0], 1000)
        for place, ahead in zip(places[:, 0], steps[:, batch.context :], strict=True):
            part = split.boundaries[int(place)]
            assert ahead.min() >= part.train_end
            assert ahead.max() < part.validation_end
            seen.add(int(place))
    assert seen == {0, 1}


def test_an_epoch_can_be_had_again_and_differs_from_the_next() -> None:
    panel, split = counted([80], horizon=5)
    windows = Windows.cut(panel, split, config(steps_per_epoch=3))

    first, again, other = (np.concatenate([b.values.ravel() for b in windows.epoch(n)]) for n in (0, 0, 1))

    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


def test_contexts_shorter_than_the_whole_are_fitted_on_too() -> None:
    panel, split = counted([80], horizon=5)
    windows = Windows.cut(panel, split, config(steps_per_epoch=60))

    contexts = {batch.context for batch in windows.epoch(0)}

    assert contexts == {12, 8}  # 8 is the shortest window accepted where no season is known


def test_windows_of_mixed_lengths_are_padded_with_zeros_in_front() -> None:
    panel, split = counted([80], horizon=5)
    windows = Windows.cut(panel, split, config(steps_per_epoch=20, lengths="mixed"))

    seen = set()
    for batch in windows.epoch(0):
        assert batch.context == 12
        assert batch.lengths is not None
        real = np.arange(batch.values.shape[1]) >= 12 - batch.lengths[:, None]
        assert (batch.values[~real] == 0).all()
        assert all((np.diff(row[mask, 0]) == 1).all() for row, mask in zip(batch.values, real, strict=True))
        seen |= set(batch.lengths.tolist())
    assert seen == set(range(8, 13))
    assert all(batch.lengths is None for batch in windows.judged())


def test_windows_of_a_network_that_forecasts_its_horizon_at_once_hold_the_whole_of_it() -> None:
    panel, split = counted([200], horizon=60)
    given = Config.model_validate({"network": {"context_length": 12, "output": "horizon"}, "data": {"horizon": 60}})

    assert {batch.free for batch in Windows.cut(panel, split, given).judged()} == {60}


def test_the_shortest_window_holds_a_season_and_a_step() -> None:
    assert minimum_window(192, 24) == 25
    assert minimum_window(192, None) == 8
    assert minimum_window(5, 24) == 5


def test_fitting_iterates_no_further_than_its_limit() -> None:
    assert steps_ahead(7) == 7
    assert steps_ahead(500) == 48


def test_batches_of_unequal_lengths_stand_in_one_stack_with_their_ends_in_line() -> None:
    rng = np.random.default_rng(0)
    batches = [Batch(rng.random((4, length, 2), np.float32), length - 3, 3) for length in (8, 12, 10)]

    stack = Stack.of(batches)

    assert stack.values.shape == (3, 4, 12, 2)
    assert stack.told == {}
    for place, batch in enumerate(batches):
        np.testing.assert_array_equal(stack.values[place, :, -stack.times[place] :], batch.values)
        assert (stack.contexts[place], stack.free[place]) == (batch.context, batch.free)


def test_a_stack_holds_lengths_and_what_is_known() -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([2, 5], np.int32)
    batches = [
        Batch(rng.random((2, length, 1), np.float32), length - 3, 3, lengths, rng.random((2, length, 4), np.float32))
        for length in (8, 9)
    ]

    told = Stack.of(batches).told

    np.testing.assert_array_equal(told["lengths"], [lengths, lengths])
    assert batches[0].known is not None
    np.testing.assert_array_equal(told["known"][0, :, 1:], batches[0].known)

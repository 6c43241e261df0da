"""Several networks in one file: the artifact answers what Keras's members, combined at each step, would."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from service.engine import Engine
from service.scheduler import Scheduler
from tests.contract.conftest import metadata_of, network_of
from tests.contract.test_cells import operators
from training.config import Combine, Network
from training.ensemble import Ensemble
from training.export import convert, export
from training.model import Forecaster

CONTEXT = 10
HORIZON = 4
COMBINED: dict[Combine, Any] = {"mean": np.mean, "median": np.median}
SHAPES: dict[str, tuple[Combine, int, dict[str, Any]]] = {
    "the mean of two": ("mean", 2, {"layers": [4, 4]}),
    "the median of three": ("median", 3, {"cell": "gru", "lags": [3]}),
    "the median of four, seasons found": ("median", 4, {"cell": "rnn", "lags": "found"}),
    "peepholes behind a convolution": (
        "mean",
        3,
        {"cell": "peephole_lstm", "convolution": {"filters": 3, "kernel": 3}, "normalisation": "batch"},
    ),
    "one step at a window's end": ("median", 3, {"output": "vector"}),
    "both directions": ("mean", 2, {"output": "vector", "bidirectional": True, "normalisation": "layer"}),
    "the horizon at once": ("median", 3, {"output": "horizon", "lags": [3]}),
    "the horizon at once, unfolded": ("mean", 2, {"output": "horizon", "decoder": [3]}),
    "a plain head": ("mean", 2, {"head": "plain", "scaling": 10.0}),
}


def members_of(count: int, features: int = 1, **network: Any) -> list[Forecaster]:
    given = Network.model_validate({"layers": [4], "lags": [], "context_length": CONTEXT, **network})
    return [network_of(given, features=features, seed=seed, horizon=HORIZON) for seed in range(count)]


def ensemble_of(members: Sequence[Forecaster], combine: Combine = "mean") -> Ensemble:
    return Ensemble.of(members[0], [member.get_weights() for member in members], combine)


def exported(path: Path, ensemble: Forecaster) -> Engine:
    metadata = metadata_of(ensemble).model_copy(update={"context_length": CONTEXT, "minimum_window": 4})
    export(ensemble, metadata, path)
    return Engine.open(path)


def windows(features: int = 1) -> Any:
    rng = np.random.default_rng(5)
    return (20 + rng.standard_normal((3, CONTEXT, features)).cumsum(axis=1)).astype(np.float32)


def iterated_apart(members: Sequence[Forecaster], given: Any, combine: Combine) -> Any:
    """Each member by itself in Keras, told at each step what all of them forecast together."""
    if members[0].direct:
        return COMBINED[combine]([np.asarray(member.ahead(given)[0]) for member in members], axis=0)
    carries = members[0].state_size > 0
    states: list[Any] = [np.zeros((len(given), one.state_size), np.float32) if carries else None for one in members]
    values, steps = given, []
    for _ in range(HORIZON):
        answers = [member.step(values, state) for member, state in zip(members, states, strict=True)]
        states = [state for _, state, _ in answers]
        combined = COMBINED[combine]([np.asarray(forecast) for forecast, _, _ in answers], axis=0)[:, None]
        steps.append(combined)
        values = combined if carries else np.concatenate([values[:, 1:], combined], axis=1)
    return np.concatenate(steps, axis=1)


@pytest.mark.parametrize(("combine", "count", "network"), SHAPES.values(), ids=SHAPES)
def test_what_is_served_over_several_steps_is_what_keras_members_combine_at_each(
    combine: Combine, count: int, network: dict[str, Any], tmp_path: Path
) -> None:
    features = 1 + count % 2
    members = members_of(count, features, **network)
    engine = exported(tmp_path / "model.onnx", ensemble_of(members, combine))
    given = windows(features)
    wanted = iterated_apart(members, given, combine)

    async def served() -> Any:
        return await Scheduler(max_batch=2).forecast(engine, list(given), HORIZON)

    shown = 1 if engine.state_size == 0 and members[0].direct else HORIZON
    np.testing.assert_allclose(asyncio.run(served())[:, :shown], wanted[:, :shown], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("features", [1, 2])
@pytest.mark.parametrize(("count", "steps"), [(1, 3), (2, CONTEXT)], ids=["one network", "as many steps as there are"])
def test_half_of_the_forecast_is_the_linear_autoregressions_where_there_is_one(
    features: int, count: int, steps: int, tmp_path: Path
) -> None:
    members = members_of(count, features, output="horizon", lags=[3])
    weights = np.random.default_rng(2).normal(0, 0.3, (steps - 1, HORIZON)).astype(np.float32)
    engine = exported(
        tmp_path / "model.onnx", Ensemble.of(members[0], [one.get_weights() for one in members], "mean", weights)
    )
    given = windows(features)
    last = given[:, -1:]
    linear = last + np.einsum("btf,th->bhf", given[:, -steps:-1] - last, weights)
    wanted = (iterated_apart(members, given, "mean") + linear) / 2

    async def served() -> Any:
        return await Scheduler(max_batch=2).forecast(engine, list(given), HORIZON)

    np.testing.assert_allclose(asyncio.run(served()), wanted, rtol=1e-4, atol=1e-4)


def test_an_ensemble_with_a_linear_autoregression_is_taken_up_again_as_it_was() -> None:
    members = members_of(1, output="horizon")
    weights = np.full((4, HORIZON), 0.1, np.float32)
    made = Ensemble.of(members[0], [members[0].get_weights()], "mean", weights)

    again = Ensemble.from_config(made.get_config())
    again.set_weights(made.get_weights())

    np.testing.assert_allclose(again.ahead(windows())[0], made.ahead(windows())[0])


def test_each_member_is_written_as_native_nodes_and_what_they_share_once(tmp_path: Path) -> None:
    members = members_of(5, layers=[4, 4], lags=[3])
    alone = operators(convert(members[0]).graph)

    exported(tmp_path / "model.onnx", ensemble_of(members, "median"))

    together = operators(onnx.load(tmp_path / "model.onnx").graph)
    assert together.count("LSTM") == 10
    assert not {"Loop", "Scan"} & set(together)
    for shared in ("ReduceL1", "ReduceMax", "Log", "Clip", "If"):  # of the measure, the inputs, and a fresh row
        assert together.count(shared) == alone.count(shared) > 0
    assert len(together) < 0.55 * 5 * len(alone)


def test_a_state_row_holds_what_is_common_once() -> None:
    one, three = (ensemble_of(members_of(count, layers=[4, 3], lags=[6])).state_size for count in (1, 3))

    assert three - one == 2 * 2 * (4 + 3)


@pytest.mark.parametrize("combine", COMBINED)
@pytest.mark.parametrize("count", [1, 3, 4])
def test_equal_members_forecast_as_one_of_them_does(combine: Combine, count: int, tmp_path: Path) -> None:
    member = members_of(1)[0]

    together = exported(tmp_path / "many.onnx", ensemble_of([member] * count, combine)).forecast(windows(), HORIZON)

    alone = exported(tmp_path / "one.onnx", member).forecast(windows(), HORIZON)
    np.testing.assert_allclose(together, alone, rtol=1e-5)


@pytest.mark.parametrize("combine", COMBINED)
def test_the_order_of_the_members_does_not_matter(combine: Combine, tmp_path: Path) -> None:
    members = members_of(4)

    first, second = (
        exported(tmp_path / "model.onnx", ensemble_of(order, combine)).forecast(windows(), HORIZON)
        for order in (members, [members[place] for place in (2, 0, 3, 1)])
    )

    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_the_scale_is_that_of_every_member(tmp_path: Path) -> None:
    members = members_of(3)

    found: Any = exported(tmp_path / "model.onnx", ensemble_of(members)).run(windows()).scale

    fresh = np.zeros((3, members[2].state_size), np.float32)
    np.testing.assert_allclose(found, np.asarray(members[2].step(windows(), fresh)[2]), rtol=1e-5)


def test_an_ensemble_of_logarithms_gives_their_geometric_mean(tmp_path: Path) -> None:
    members = members_of(2, transform="log")
    engine = exported(tmp_path / "model.onnx", ensemble_of(members))
    fresh = np.zeros((3, members[0].state_size), np.float32)

    apart = [np.asarray(member.step(windows(), fresh)[0]) for member in members]

    np.testing.assert_allclose(engine.forecast(windows(), 1)[:, 0], np.sqrt(apart[0] * apart[1]), rtol=1e-4)

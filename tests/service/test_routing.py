"""Routing: labels are worked out once, and a canary gets its share, by chance or by a request's key."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine import Engine
from service.labels import Labels, Shadow, Share
from service.routing import Routes, answering, routes_of
from service.versions import ServedModel
from tests.artifacts import write_artifact


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[ServedModel]:
    """Versions 4 (of two features), 3, 2 and 1, the newest first."""
    folder = tmp_path_factory.mktemp("models")
    path = write_artifact(folder / "model.onnx")
    wide = write_artifact(folder / "wide.onnx", features=2)
    engine = Engine.open(path)
    return [
        ServedModel("lab", "4", Engine.open(wide), wide),
        *(ServedModel("lab", version, engine, path) for version in ("3", "2", "1")),
    ]


def labels(stable: int | None = None, canary: float | None = None, of: int = 3, shadow: int | None = None) -> Labels:
    return Labels(
        stable=None if stable is None else str(stable),
        canary=None if canary is None else Share(version=str(of), share=canary),
        shadow=None if shadow is None else Shadow(version=str(shadow)),
    )


def routed(models: list[ServedModel], wanted: Labels, before: Routes | None = None) -> dict[str, str]:
    return routes_of(models, wanted, before)[0].labels


def faults(models: list[ServedModel], wanted: Labels) -> list[str]:
    return routes_of(models, wanted)[1]


def test_without_labels_the_newest_is_stable_and_is_found_as_it_is(models: list[ServedModel]) -> None:
    routes, found = routes_of(models)
    assert (routes.labels, found) == ({"stable": "4"}, [])
    assert routes.named[None] is routes.named["stable"] is routes.named["4"] is models[0]
    assert answering(models[0], []) is models[0]


def test_labels_are_found_by_name_and_stand_beside_the_stable_version_alone(models: list[ServedModel]) -> None:
    routes, found = routes_of(models[1:], labels(2, 0.5, shadow=1))
    assert (routes.labels, found) == ({"stable": "2", "canary": "3", "shadow": "1"}, [])
    assert {label: routes.named[label].version for label in ("stable", "canary", "shadow")} == routes.labels
    stable = routes.named[None]
    assert stable.canary is not None
    assert stable.shadow is not None
    assert (stable.canary.share, stable.shadow.share) == (0.5, 1.0)
    assert all(model.canary is None and model.shadow is None for key, model in routes.named.items() if key is not None)


def test_the_newest_version_without_another_label_is_stable_where_none_is_named(models: list[ServedModel]) -> None:
    assert routed(models[1:], labels(canary=0.1, of=3)) == {"stable": "2", "canary": "3"}
    assert routed(models[1:], labels(canary=0.1, of=3, shadow=2)) == {"stable": "1", "canary": "3", "shadow": "2"}


def test_a_stable_version_that_is_not_served_leaves_the_one_of_before(models: list[ServedModel]) -> None:
    before, _ = routes_of(models[1:], labels(2))
    routes, found = routes_of(models[1:], labels(9), before)
    assert (routes.labels, found) == ({"stable": "2"}, ["stable: version 9 is not served; there are: 1, 2, 3"])
    assert routed([models[1]], labels(9), before) == {"stable": "3"}


def test_a_canary_or_shadow_that_is_not_served_is_left_out_and_stable_stays(models: list[ServedModel]) -> None:
    wanted = labels(2, 0.1, of=7, shadow=8)
    assert routed(models[1:], wanted) == {"stable": "2"}
    assert [fault.partition(";")[0] for fault in faults(models[1:], wanted)] == [
        "canary: version 7 is not served",
        "shadow: version 8 is not served",
    ]


@pytest.mark.parametrize("wanted", [labels(3, 0.1, of=4), labels(3, shadow=4)], ids=["canary", "shadow"])
def test_a_version_of_other_features_cannot_stand_beside(models: list[ServedModel], wanted: Labels) -> None:
    assert routed(models, wanted) == {"stable": "3"}
    (fault,) = faults(models, wanted)
    assert fault.endswith("version 4 cannot forecast from what version 3 takes: its features are others")


def test_a_version_cannot_stand_beside_itself(models: list[ServedModel]) -> None:
    (fault,) = faults([models[1]], labels(canary=0.1, of=3))
    assert fault == "canary: version 3 is the stable one: name another"


def test_a_canary_that_needs_longer_windows_is_left_out_and_a_shadow_may(
    models: list[ServedModel], tmp_path: Path
) -> None:
    path = write_artifact(tmp_path / "model.onnx", minimum_window=5)
    longer = ServedModel("lab", "5", Engine.open(path), path)
    (fault,) = faults([longer, models[1]], labels(3, 0.1, of=5))
    assert fault.startswith("canary: version 5 needs windows of 5 steps, and would refuse some that version 3 answers")
    assert routed([longer, models[1]], labels(3, shadow=5)) == {"stable": "3", "shadow": "5"}


@given(st.floats(0, 1), st.binary(min_size=1, max_size=40))
def test_a_key_goes_the_same_way_every_time(models: list[ServedModel], share: float, key: bytes) -> None:
    stable = routes_of(models[1:], labels(2, share))[0].stable
    headers = [(b"host", b"x"), (b"x-routing-key", key)]
    assert len({answering(stable, headers).version for _ in range(5)}) == 1


@given(st.floats(0, 1), st.floats(0, 1), st.binary(min_size=1, max_size=40))
def test_a_larger_share_only_adds_keys(models: list[ServedModel], one: float, other: float, key: bytes) -> None:
    smaller, larger = (routes_of(models[1:], labels(2, share))[0].stable for share in sorted((one, other)))
    headers = [(b"x-routing-key", key)]
    if answering(smaller, headers).version == "3":
        assert answering(larger, headers).version == "3"


def test_keys_are_shared_out_as_asked_and_every_canary_has_others_first(models: list[ServedModel]) -> None:
    def chosen(of: int) -> set[int]:
        stable = routes_of(models[1:], labels(1, 0.2, of=of))[0].stable
        keys = range(5000)
        return {key for key in keys if answering(stable, [(b"x-routing-key", b"%d" % key)]).version == str(of)}

    # 1,000 of 5,000 are expected, with a standard deviation of 28; of both canaries, 200
    assert 850 < len(chosen(2)) < 1150
    assert 100 < len(chosen(2) & chosen(3)) < 300


@pytest.mark.parametrize(("share", "versions"), [(0.0, {"2"}), (1.0, {"3"}), (0.5, {"2", "3"})])
def test_requests_without_a_key_are_shared_out_by_chance(
    models: list[ServedModel], share: float, versions: set[str]
) -> None:
    stable = routes_of(models[1:], labels(2, share))[0].stable
    assert {answering(stable, []).version for _ in range(200)} == versions

"""Routing: which version of a model answers which request.

What labels ask for is worked out when they or the versions change, not for each request: of a model without a canary
and a shadow a request costs two look-ups and no more.

A canary takes its share by chance. Where a request names itself by a key, chance is a hash of that key: the same key
goes the same way every time, in every worker, and a larger share only adds keys to those that the canary has.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from random import random
from typing import Final

from service.errors import LabelsError
from service.labels import NO_LABELS, Labels, Share
from service.versions import Beside, ServedModel

ROUTING_KEY: Final = b"x-routing-key"
"""The header by which requests that belong together go to the same version."""

_DIGEST_BYTES: Final = 8
_PLACES: Final = float(1 << 8 * _DIGEST_BYTES)


@dataclass(frozen=True, slots=True)
class Routes:
    """The versions of one model, and which of them answers what."""

    versions: tuple[ServedModel, ...]
    """The newest first; at least one."""
    stable: ServedModel
    """What answers requests that name no version, with its canary and shadow."""
    named: Mapping[str | None, ServedModel] = field(compare=False)
    """What answers requests by the version or label that they name, or None."""

    @property
    def labels(self) -> dict[str, str]:
        """The version that each label in use stands for."""
        beside = {"canary": self.stable.canary, "shadow": self.stable.shadow}
        return {"stable": self.stable.version} | {
            label: found.model.version for label, found in beside.items() if found is not None
        }


def routes_of(
    versions: Sequence[ServedModel], labels: Labels = NO_LABELS, before: Routes | None = None
) -> tuple[Routes, list[str]]:
    """Work out who answers what.

    Where `stable` is not served, the version that was stable before goes on, and without one the newest that has no
    other label. A canary or a shadow that cannot take part is left out.

    Args:
        versions: the newest first; at least one.
        labels: what is asked for.
        before: what answered until now.

    Returns:
        The routes, and what is wrong with the labels.
    """
    faults: list[str] = []
    by_number = {model.version: model for model in versions}
    stable = _stable(by_number, labels, before, faults)
    canary = _beside("canary", stable, by_number, labels.canary, faults)
    shadow = _beside("shadow", stable, by_number, labels.shadow, faults)
    routed = replace(stable, canary=canary, shadow=shadow) if canary or shadow else stable
    named: dict[str | None, ServedModel] = {None: routed, "stable": stable}
    named.update(by_number)
    for label, beside in (("canary", canary), ("shadow", shadow)):
        if beside is not None:
            named[label] = beside.model
    return Routes(tuple(versions), routed, named), faults


def answering(model: ServedModel, headers: Iterable[tuple[bytes, bytes]]) -> ServedModel:
    """The version that answers a request in the place of a stable one: itself, or its canary."""
    canary = model.canary
    if canary is None:
        return model
    key = next((value for name, value in headers if name == ROUTING_KEY), None)
    place = random() if key is None else _place(canary.model, key)
    return canary.model if place < canary.share else model


def _place(canary: ServedModel, key: bytes) -> float:
    """Where a key lies between 0 and 1; every canary has other keys first."""
    drawn = blake2b(key, digest_size=_DIGEST_BYTES, key=f"{canary.name}/{canary.version}".encode()[:64])
    return int.from_bytes(drawn.digest()) / _PLACES


def _stable(
    by_number: Mapping[str, ServedModel], labels: Labels, before: Routes | None, faults: list[str]
) -> ServedModel:
    if labels.stable is not None:
        if labels.stable in by_number:
            return by_number[labels.stable]
        faults.append(f"stable: {_not_served(labels.stable, by_number)}")
        if before is not None and before.stable.version in by_number:
            return by_number[before.stable.version]
    others = {share.version for share in (labels.canary, labels.shadow) if share is not None}
    return next((model for number, model in by_number.items() if number not in others), next(iter(by_number.values())))


def _beside(
    label: str,
    stable: ServedModel,
    by_number: Mapping[str, ServedModel],
    share: Share | None,
    faults: list[str],
) -> Beside | None:
    if share is None:
        return None
    try:
        if share.version not in by_number:
            raise LabelsError(_not_served(share.version, by_number))
        model = by_number[share.version]
        _check_alike(stable, model, takes_its_place=label == "canary")
    except LabelsError as error:
        faults.append(f"{label}: {error}")
        return None
    return Beside(model, share.share)


def _not_served(version: str, by_number: Mapping[str, ServedModel]) -> str:
    return f"version {version} is not served; there are: {', '.join(sorted(by_number, key=int))}"


def _check_alike(stable: ServedModel, other: ServedModel, *, takes_its_place: bool) -> None:
    """Make sure that a version can forecast from requests that were made for another."""
    if other is stable:
        raise LabelsError(f"version {other.version} is the stable one: name another")
    one, two = stable.engine.metadata, other.engine.metadata
    for what in ("features", "exogenous", "calendar"):
        if getattr(one, what) != getattr(two, what):
            raise LabelsError(
                f"version {other.version} cannot forecast from what version {stable.version} takes: its {what} are "
                "others"
            )
    if takes_its_place and two.minimum_window > one.minimum_window:
        raise LabelsError(
            f"version {other.version} needs windows of {two.minimum_window} steps, and would refuse some that version "
            f"{stable.version} answers, which needs {one.minimum_window}"
        )

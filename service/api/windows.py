"""The windows of a checked request as arrays that a certain model accepts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from service.artifact import Metadata
from service.errors import Fault, InvalidRequest
from service.schemas import FAULTS_AT_MOST, ForecastRequest
from service.settings import Settings
from service.window import Values, end_of

LARGEST_ANSWER: Final = 1 << 20
"""Most numbers in one answer: windows × horizon × features."""

RawWindow = list[float] | list[list[float]]


@dataclass(frozen=True, slots=True)
class Windows:
    """A request's windows, cut to the model's context, and how they were sent."""

    arrays: list[Values]
    """Each (time, features)."""
    as_rows: list[bool]
    """Whether a window came as rows: its forecast goes out as it came in."""


def windows_for(request: ForecastRequest, metadata: Metadata, horizon: int, settings: Settings) -> Windows:
    """Turn the windows of `request` into float32 arrays for a model with `metadata`.

    Raises:
        InvalidRequest: a limit is passed, a row has not the model's number of features, or a window is too short.
    """
    raw = [request.window] if request.window is not None else request.windows or []
    features, context = len(metadata.features), metadata.context_length
    if not _within_limits(len(raw), horizon, features, settings):
        raise InvalidRequest(list(_limits_passed(len(raw), horizon, features, settings)))
    shortest, longest = metadata.minimum_window, settings.max_window_length
    if not all(shortest <= len(window) <= longest and _fits(window, features) for window in raw):
        told = (fault for place, window in _placed(request, raw) for fault in _check(place, window, metadata, settings))
        raise InvalidRequest(list(islice(told, FAULTS_AT_MOST)))
    return Windows(
        # Of a long window only the end is turned into an array.
        arrays=[np.array(end_of(window, context), np.float32).reshape(-1, features) for window in raw],
        as_rows=[isinstance(window[0], list) for window in raw],
    )


def _within_limits(windows: int, horizon: int, features: int, settings: Settings) -> bool:
    return (
        windows <= settings.max_windows
        and horizon <= settings.max_horizon
        and windows * horizon * features <= LARGEST_ANSWER
    )


def _fits(window: RawWindow, features: int) -> bool:
    """Whether every step of a window has as many numbers as the model has features."""
    if not isinstance(window[0], list):
        return features == 1
    return all(isinstance(row, list) and len(row) == features for row in window)


def _limits_passed(windows: int, horizon: int, features: int, settings: Settings) -> Iterator[Fault]:
    if windows > settings.max_windows:
        yield Fault("/windows", f"must hold at most {settings.max_windows} windows: send the others in another request")
    if horizon > settings.max_horizon:
        yield Fault("/horizon", f"must be at most {settings.max_horizon}")
    elif windows * horizon * features > LARGEST_ANSWER:
        yield Fault(
            "",
            f"asks for more than {LARGEST_ANSWER} numbers (windows × horizon × features): send fewer windows or a "
            f"shorter horizon",
        )


def _placed(request: ForecastRequest, raw: Sequence[RawWindow]) -> Iterator[tuple[str, RawWindow]]:
    if request.window is not None:
        yield "/window", raw[0]
        return
    for index, window in enumerate(raw):
        yield f"/windows/{index}", window


def _check(place: str, window: RawWindow, metadata: Metadata, settings: Settings) -> Iterator[Fault]:
    if len(window) > settings.max_window_length:
        yield Fault(place, f"has {len(window)} steps, but at most {settings.max_window_length} are accepted")
    elif len(window) < metadata.minimum_window:
        yield Fault(
            place, f"has {_count(len(window), 'step')}, but this model needs at least {metadata.minimum_window}"
        )
    else:
        yield from _check_features(place, window, metadata.features)


def _check_features(place: str, window: RawWindow, features: Sequence[str]) -> Iterator[Fault]:
    wanted = len(features)
    if not isinstance(window[0], list):
        if wanted > 1:
            yield Fault(
                place, f"holds single numbers, but this model has {wanted} features: send one row of {wanted} per step"
            )
        return
    for index, row in enumerate(window):
        if isinstance(row, list) and len(row) != wanted:
            yield Fault(f"{place}/{index}", f"has {_count(len(row), 'number')}, but this model has {_named(features)}")
            return


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _named(features: Sequence[str]) -> str:
    listed = ", ".join(features[:8]) + (", …" if len(features) > 8 else "")
    return f"{_count(len(features), 'feature')} ({listed})"

"""The windows of a checked request as arrays that a certain model accepts."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple

import numpy as np

from service.artifact import Metadata
from service.errors import Fault, InvalidRequest
from service.schemas import FAULTS_AT_MOST, ForecastRequest
from service.settings import Settings
from service.window import Values, end_of

LARGEST_ANSWER: Final = 1 << 20
"""Most numbers in one answer: windows × horizon × features."""

_WORTH_ONE_ARRAY: Final = 8

RawWindow = list[float] | list[list[float]]


class Windows(NamedTuple):
    """A request's windows, cut to what is used of them, and how they were sent."""

    arrays: list[Values]
    """Each (time, features)."""
    as_rows: list[bool]
    """Whether a window came as rows: its forecast goes out as it came in."""


def windows_for(
    request: ForecastRequest, metadata: Metadata, horizon: int, settings: Settings, steps: int | None = None
) -> Windows:
    """Turn the windows of `request` into float32 arrays for a model with `metadata`.

    They are cut to the model's context, or to `steps`.

    Raises:
        InvalidRequest: a limit is passed, a row has not the model's number of features, or a window is too short.
    """
    raw = [request.window] if request.window is not None else request.windows or []
    features, kept = len(metadata.features), steps or metadata.context_length
    check_limits(len(raw), horizon, features, settings)
    shortest, longest = metadata.minimum_window, settings.max_window_length
    for window in raw:
        if not (shortest <= len(window) <= longest and _fits(window, features)):
            raise InvalidRequest(list(islice(_faults(request, raw, metadata, settings), FAULTS_AT_MOST)))
    as_rows = [isinstance(window[0], list) for window in raw]
    # Of a long window only the end is turned into an array.
    ends = [end_of(window, kept) for window in raw]
    return Windows(_arrays(ends, features, any(as_rows)), as_rows)


def check_limits(windows: int, horizon: int, features: int, settings: Settings) -> None:
    """Refuse more windows or steps than are allowed.

    Raises:
        InvalidRequest: a limit is passed.
    """
    if (
        windows > settings.max_windows
        or horizon > settings.max_horizon
        or windows * horizon * features > LARGEST_ANSWER
    ):
        raise InvalidRequest(list(_limits_passed(windows, horizon, features, settings)))


def _arrays(windows: list[RawWindow], features: int, rows: bool) -> list[Values]:
    """Checked windows as arrays of (time, features)."""
    steps = len(windows[0])
    if rows or len(windows) < _WORTH_ONE_ARRAY or any(len(window) != steps for window in windows):
        return [np.array(window, np.float32).reshape(-1, features) for window in windows]
    # Many of one length: the numbers of all go into one array in half the time.
    numbers = np.fromiter(chain.from_iterable(windows), np.float32, len(windows) * steps)
    return list(numbers.reshape(len(windows), steps, 1))


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


def _faults(
    request: ForecastRequest, raw: Sequence[RawWindow], metadata: Metadata, settings: Settings
) -> Iterator[Fault]:
    for place, window in _placed(request, raw):
        yield from _check(place, window, metadata, settings)


def _placed(request: ForecastRequest, raw: Sequence[RawWindow]) -> Iterator[tuple[str, RawWindow]]:
    if request.window is not None:
        yield "/window", raw[0]
        return
    for index, window in enumerate(raw):
        yield f"/windows/{index}", window


def _check(place: str, window: RawWindow, metadata: Metadata, settings: Settings) -> Iterator[Fault]:
    fault = wrong_length(place, len(window), metadata, settings)
    if fault is not None:
        yield fault
    else:
        yield from _check_features(place, window, metadata.features)


def wrong_length(place: str, steps: int, metadata: Metadata, settings: Settings) -> Fault | None:
    """What is wrong with the length of a window, if anything is."""
    if steps > settings.max_window_length:
        return Fault(place, f"has {steps} steps, but at most {settings.max_window_length} are accepted")
    if steps < metadata.minimum_window:
        return Fault(place, f"has {_count(steps, 'step')}, but this model needs at least {metadata.minimum_window}")
    return None


def _check_features(place: str, window: RawWindow, features: Sequence[str]) -> Iterator[Fault]:
    wanted = len(features)
    if not isinstance(window[0], list):
        if wanted > 1:
            yield no_rows(place, wanted)
        return
    for index, row in enumerate(window):
        if isinstance(row, list) and len(row) != wanted:
            yield wrong_row(f"{place}/{index}", len(row), features)
            return


def no_rows(place: str, wanted: int) -> Fault:
    """The fault of a window of numbers for a model of several features."""
    return Fault(
        place, f"holds single numbers, but this model has {wanted} features: send one row of {wanted} per step"
    )


def wrong_row(place: str, numbers: int, features: Sequence[str]) -> Fault:
    """The fault of a row that has not one number for each feature."""
    return Fault(place, f"has {_count(numbers, 'number')}, but this model has {_named(features)}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _named(features: Sequence[str]) -> str:
    listed = ", ".join(features[:8]) + (", …" if len(features) > 8 else "")
    return f"{_count(len(features), 'feature')} ({listed})"

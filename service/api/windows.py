"""The windows of a checked request as arrays that a certain model accepts."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from struct import Struct
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
_FORMATS_KEPT: Final = 1024

RawWindow = list[float] | list[list[float]]


class Windows(NamedTuple):
    """A request's windows, cut to what is used of them, and how they were sent."""

    arrays: list[Values]
    """Each (time, features), and as long as what is known has not been taken from them (time, features + exogenous)."""
    as_rows: list[bool]
    """Whether a window came as rows: its forecast goes out as it came in."""
    known: list[Values] | None = None
    """What is known of the step after each of a window's, and so on to the horizon, each (time + horizon - 1, known);
    None for a model that takes nothing of the kind."""


def windows_for(
    request: ForecastRequest, metadata: Metadata, horizon: int, settings: Settings, steps: int | None = None
) -> Windows:
    """Turn the windows of `request` into float32 arrays for a model with `metadata`.

    They are cut to the model's context, or to `steps`.

    Raises:
        InvalidRequest: a limit is passed, a row has not the model's number of columns, or a window is too short.
    """
    features, kept = len(metadata.features), steps or metadata.context_length
    columns = features + len(metadata.exogenous)
    shortest, longest = metadata.minimum_window, settings.max_window_length
    single = request.window
    if (
        single is not None
        and columns == 1
        and horizon <= settings.max_horizon
        and shortest <= len(single) <= longest
        and not isinstance(single[0], list)
    ):
        # Most requests are no more than this, and are spared what follows.
        return Windows([_column(single[-kept:])], [False])
    raw = [single] if single is not None else request.windows or []
    check_limits(len(raw), horizon, features, settings)
    for window in raw:
        if not (shortest <= len(window) <= longest and _fits(window, columns)):
            raise InvalidRequest(list(islice(_faults(request, raw, metadata, settings), FAULTS_AT_MOST)))
    as_rows = [isinstance(window[0], list) for window in raw]
    # Of a long window only the end is turned into an array.
    ends = [end_of(window, kept) for window in raw]
    return Windows(_arrays(ends, columns, any(as_rows)), as_rows)


def _column(numbers: list[float]) -> Values:
    """Checked numbers as an array (time, 1) that cannot be written to: by way of bytes, in half of numpy's own time."""
    return np.frombuffer(_format(len(numbers)).pack(*numbers), np.float32)[:, None]


@lru_cache(_FORMATS_KEPT)
def _format(count: int) -> Struct:
    return Struct(f"{count}f")


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


def _arrays(windows: list[RawWindow], columns: int, rows: bool) -> list[Values]:
    """Checked windows as arrays of (time, columns)."""
    steps = len(windows[0])
    if rows or len(windows) < _WORTH_ONE_ARRAY or any(len(window) != steps for window in windows):
        return [np.array(window, np.float32).reshape(-1, columns) for window in windows]
    # Many of one length: the numbers of all go into one array in half the time.
    numbers = np.fromiter(chain.from_iterable(windows), np.float32, len(windows) * steps)
    return list(numbers.reshape(len(windows), steps, 1))


def _fits(window: RawWindow, columns: int) -> bool:
    """Whether every step of a window has as many numbers as the model has features and exogenous columns."""
    if not isinstance(window[0], list):
        return columns == 1
    return all(isinstance(row, list) and len(row) == columns for row in window)


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
        yield from _check_columns(place, window, metadata)


def wrong_length(place: str, steps: int, metadata: Metadata, settings: Settings) -> Fault | None:
    """What is wrong with the length of a window, if anything is."""
    if steps > settings.max_window_length:
        return Fault(place, f"has {steps} steps, but at most {settings.max_window_length} are accepted")
    if steps < metadata.minimum_window:
        return Fault(place, f"has {counted(steps, 'step')}, but this model needs at least {metadata.minimum_window}")
    return None


def _check_columns(place: str, window: RawWindow, metadata: Metadata) -> Iterator[Fault]:
    wanted = len(metadata.features) + len(metadata.exogenous)
    if not isinstance(window[0], list):
        if wanted > 1:
            yield no_rows(place, metadata)
        return
    for index, row in enumerate(window):
        if isinstance(row, list) and len(row) != wanted:
            yield wrong_row(f"{place}/{index}", len(row), metadata)
            return


def no_rows(place: str, metadata: Metadata) -> Fault:
    """The fault of a window of numbers for a model of several columns."""
    wanted = len(metadata.features) + len(metadata.exogenous)
    has = _columns(metadata) if metadata.exogenous else f"{wanted} features"
    return Fault(place, f"holds single numbers, but this model has {has}: send one row of {wanted} per step")


def wrong_row(place: str, numbers: int, metadata: Metadata) -> Fault:
    """The fault of a row that has not one number for each column."""
    return Fault(place, f"has {counted(numbers, 'number')}, but this model has {_columns(metadata)}")


def counted(number: int, noun: str) -> str:
    """A number of things in words."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def named(noun: str, names: Sequence[str]) -> str:
    """How many columns of a kind there are, and which."""
    listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"{counted(len(names), noun)} ({listed})"


def _columns(metadata: Metadata) -> str:
    features = named("feature", metadata.features)
    return f"{features} and {named('exogenous column', metadata.exogenous)}" if metadata.exogenous else features

"""The futures of exogenous columns, as a request tells them: one for each window, one row for each step ahead."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from service.api.windows import RawWindow, counted, named
from service.artifact import Metadata
from service.errors import Fault, InvalidRequest
from service.schemas import FAULTS_AT_MOST, ForecastRequest
from service.window import Values


def futures_for(request: ForecastRequest, metadata: Metadata, horizon: int) -> list[Values]:
    """The future of each window's exogenous columns, each (horizon, exogenous); of no columns where the model has none.

    Raises:
        InvalidRequest: a future is missing, or is not of the model's columns, or not of `horizon` steps; or one is sent
            that the model does not take.
    """
    windows = 1 if request.window is not None else len(request.windows or ())
    check_whether_told(request, metadata, windows, horizon)
    if not metadata.exogenous:
        return [np.empty((horizon, 0), np.float32)] * windows
    places = ["/future"] if request.future is not None else [f"/futures/{index}" for index in range(windows)]
    raw = [request.future] if request.future is not None else request.futures or []
    faults = list(islice(_faults(places, raw, metadata, horizon), FAULTS_AT_MOST))
    if faults:
        raise InvalidRequest(faults)
    return [np.array(future, np.float32).reshape(horizon, -1) for future in raw]


def check_whether_told(request: ForecastRequest, metadata: Metadata, windows: int, horizon: int) -> None:
    """Refuse a request that tells a future where there is none to tell, or none where one is needed.

    Raises:
        InvalidRequest: it is so, or there is not one future for each window.
    """
    name, other = ("future", "futures") if request.window is not None else ("futures", "future")
    told = getattr(request, name)
    if getattr(request, other) is not None:
        mend = (
            f"goes with {other.replace('future', 'window')}: send {name} instead"
            if metadata.exogenous
            else "is not asked for, for this model has no exogenous columns: leave it out"
        )
        raise InvalidRequest([Fault(f"/{other}", mend)])
    if told is None and metadata.exogenous:
        what = f"what its {_columns(metadata)} will be at "
        what += f"the {counted(horizon, 'step')} to be forecast" if horizon > 1 else "the step to be forecast"
        raise InvalidRequest([Fault(f"/{name}", f"is required by this model: send {what}")])
    if told is not None and not metadata.exogenous:
        raise InvalidRequest(
            [Fault(f"/{name}", "is not asked for, for this model has no exogenous columns: leave it out")]
        )


def wrong_count(futures: int, windows: int) -> Fault:
    """The fault of futures that are not one for each window."""
    return Fault("/futures", f"has length {futures}, but there are {windows} windows: send one for each")


def wrong_steps(place: str, steps: int, horizon: int) -> Fault:
    """The fault of a future that is too short or too long."""
    forecast = "1 is forecast: send that one" if horizon == 1 else f"{horizon} are forecast: send one for each"
    return Fault(place, f"has {counted(steps, 'step')}, but {forecast}")


def numbers_alone(place: str, metadata: Metadata) -> Fault:
    """The fault of a future of numbers for a model of several exogenous columns."""
    wanted = len(metadata.exogenous)
    return Fault(
        place, f"holds single numbers, but this model has {_columns(metadata)}: send one row of {wanted} per step"
    )


def wrong_row(place: str, numbers: int, metadata: Metadata) -> Fault:
    """The fault of a row that has not one number for each column."""
    return Fault(place, f"has {counted(numbers, 'number')}, but this model has {_columns(metadata)}")


def _faults(places: Sequence[str], raw: Sequence[RawWindow], metadata: Metadata, horizon: int) -> Iterator[Fault]:
    if len(raw) != len(places):
        yield wrong_count(len(raw), len(places))
        return
    wanted = len(metadata.exogenous)
    for place, future in zip(places, raw, strict=True):
        if len(future) != horizon:
            yield wrong_steps(place, len(future), horizon)
        elif not isinstance(future[0], list):
            if wanted > 1:
                yield numbers_alone(place, metadata)
        else:
            wrong = ((at, row) for at, row in enumerate(future) if isinstance(row, list) and len(row) != wanted)
            for at, row in islice(wrong, 1):
                yield wrong_row(f"{place}/{at}", len(row), metadata)


def _columns(metadata: Metadata) -> str:
    return named("exogenous column", metadata.exogenous)

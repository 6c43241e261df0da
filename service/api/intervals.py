"""What a request asks about the uncertainty of its forecasts: what has to be run for it, and the answer.

The windows themselves and the past of those that are long enough are forecast in one pass. All levels of a window rest
on the same errors, so that a higher level never lies inside a lower one.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from service.api.windows import LARGEST_ANSWER, Windows
from service.artifact import ErrorTable, Metadata
from service.errors import Fault, ForecastOutOfRange, InvalidRequest
from service.intervals import (
    FEWEST_ERRORS,
    MOST_ORIGINS,
    Errors,
    bounds,
    fewest_errors,
    highest_level,
    margins,
    own_errors,
    own_origins,
    sample_paths,
    steps_for,
    steps_useful,
)
from service.schemas import ForecastRequest
from service.settings import Settings
from service.window import Values, end_of

Entry = dict[str, Any]

# From so many numbers on, run and answered, the answer is put together on a thread.
_WORTH_A_THREAD: Final = 20_000
_LARGEST_SEED_DRAWN: Final = 2**53


@dataclass(frozen=True)
class Plan:
    """The windows that are run for a request, and what the answer is to hold."""

    windows: Windows
    """The request's windows, with as much of their past as is used."""
    origins: list[range]
    """For each window, the places in it that it is forecast from again; none where the artifact's errors serve."""
    rows: list[Values]
    """What is run: each window, then the windows before all origins."""
    known: list[Values] | None
    """What is known of the rows' steps beforehand, each (time + horizon - 1, known), where the model takes such."""
    horizon: int
    levels: Sequence[float]
    samples: int | None
    seed: int | None
    metadata: Metadata
    scales: Values
    """(rows, features), to be filled with the scale of each; NaN stands for a model that tells none."""

    @property
    def is_heavy(self) -> bool:
        """Whether the answer takes long enough to put together that others would wait for it."""
        numbers = len(self.rows) + len(self.origins) * (2 * len(self.levels) + (self.samples or 0))
        return numbers * self.horizon * len(self.metadata.features) > _WORTH_A_THREAD

    def fault_in_window(self, error: ForecastOutOfRange) -> ForecastOutOfRange:
        """The same error, told of the window whose past is at fault where it is not the window itself."""
        owners = [*range(len(self.origins)), *(place for place, own in enumerate(self.origins) for _ in own)]
        places = [int(fault.pointer.rpartition("/")[2]) for fault in error.faults]
        return ForecastOutOfRange(
            [Fault(f"/windows/{owners[at]}", fault.message) for at, fault in zip(places, error.faults, strict=True)]
        )

    def answer(self, forecasts: Values) -> tuple[Values, list[Entry]]:
        """The forecasts of the windows, (windows, horizon, features), and what stands beside each in the answer.

        `forecasts` are those of all rows. Takes milliseconds where there are many.
        """
        count = len(self.origins)
        told = np.nan_to_num(self.scales, nan=0.0, posinf=float(np.finfo(np.float32).max))
        scales = told[:count].astype(np.float64)
        errors = list(self._errors(forecasts, told))
        entries: list[Entry] = [{} for _ in range(count)]
        if self.levels:
            self._add_intervals(entries, forecasts[:count], scales, errors)
        if self.samples is not None:
            self._add_samples(entries, forecasts[:count], scales, errors)
        return forecasts[:count], entries

    def _errors(self, forecasts: Values, scales: Values) -> Iterator[Errors | None]:
        """Each window's own errors, brought to its scale; None where the artifact's serve."""
        begin = len(self.origins)
        for place, own in enumerate(self.origins):
            if not own:
                yield None
                continue
            rows = slice(begin, begin + len(own))
            begin = rows.stop
            ahead = np.asarray(own)[:, None] + 1 + np.arange(self.horizon)
            actual = self.windows.arrays[place][ahead]
            yield own_errors(
                actual,
                forecasts[rows],
                scales[rows],
                scales[place],
                logarithms=self.metadata.logarithms,
                inflation=self.metadata.error_inflation,
            )

    def _add_intervals(
        self, entries: list[Entry], forecasts: Values, scales: Errors, errors: Sequence[Errors | None]
    ) -> None:
        ranked = [None if one is None else np.sort(one, axis=0) for one in errors]
        table = self.metadata.errors.ranked[:, : self.horizon] if self.metadata.errors is not None else None
        below, above = np.empty(forecasts.shape), np.empty(forecasts.shape)
        about = {"logarithms": self.metadata.logarithms, "non_negative": self.metadata.non_negative}
        for level in self.levels:
            shared = None if table is None else margins(table, level)
            for place, own in enumerate(ranked):
                if own is not None:
                    below[place], above[place] = margins(own, level)
                elif shared is not None:
                    below[place], above[place] = (side * scales[place] for side in shared)
            lower, upper = bounds(forecasts, below, above, scales, **about)
            for place, entry in enumerate(entries):
                entry.setdefault("intervals", []).append(
                    {
                        "level": int(level) if level.is_integer() else level,
                        "lower": self._as_sent(place, lower[place]),
                        "upper": self._as_sent(place, upper[place]),
                        **self._basis(errors[place]),
                    }
                )

    def _add_samples(
        self, entries: list[Entry], forecasts: Values, scales: Errors, errors: Sequence[Errors | None]
    ) -> None:
        assert self.samples is not None
        about = {"logarithms": self.metadata.logarithms, "non_negative": self.metadata.non_negative}
        seed = secrets.randbelow(_LARGEST_SEED_DRAWN) if self.seed is None else self.seed
        for place, (entry, own) in enumerate(zip(entries, errors, strict=True)):
            # Errors of windows' own pasts are drawn from the same origins, for they were made at the same time, where
            # windows end together; those of the artifact have nothing to do with each other.
            which = (seed,) if own is not None else (seed, place)
            paths = own if own is not None else self._table.array[:, : self.horizon] * scales[place]
            drawn = sample_paths(forecasts[place], paths, self.samples, which, **about)
            entry["samples"] = drawn if self.windows.as_rows[place] else drawn.reshape(self.samples, -1)
            entry["samples_from"] = self._basis(own)

    def _as_sent(self, place: int, values: Values) -> Values:
        return values if self.windows.as_rows[place] else values.reshape(-1)

    def _basis(self, own: Errors | None) -> Entry:
        basis: Literal["window", "artifact"] = "artifact" if own is None else "window"
        return {"basis": basis, "errors": len(self._table.array) if own is None else len(own)}

    @property
    def _table(self) -> ErrorTable:
        assert self.metadata.errors is not None, "a plan rests on errors that there are"
        return self.metadata.errors


def steps_of_past(metadata: Metadata, horizon: int) -> int:
    """The steps of a window that may be of use for its intervals."""
    return steps_useful(metadata.context_length, horizon)


def plan_for(request: ForecastRequest, windows: Windows, metadata: Metadata, horizon: int, settings: Settings) -> Plan:
    """What has to be run for a request, and answered; its windows go back as far as `steps_of_past` says.

    Raises:
        InvalidRequest: there are not errors enough for a level, or for samples; a limit is passed, and what is run for
            intervals counts; or a seed is sent without samples.
    """
    if request.seed is not None and request.samples is None:
        raise InvalidRequest([Fault("/seed", "is that of samples: send samples too, or leave seed out")])
    context = metadata.context_length
    levels, samples = request.levels or (), request.samples
    _check_answer(len(windows.arrays), horizon, metadata, 2 * len(levels) + (samples or 0))
    needed = max(fewest_errors(max(levels)) if levels else 0, FEWEST_ERRORS if samples else 0)
    fault = _fault_of_table(needed, request, metadata, horizon, settings)
    origins = [
        own_origins(len(array), context, horizon, metadata.season_length, needed, plenty=fault is None)
        for array in windows.arrays
    ]
    if fault is not None and not all(origins):
        raise InvalidRequest([fault])
    rows = [end_of(array, context) for array in windows.arrays]
    for array, own in zip(windows.arrays, origins, strict=True):
        rows += [array[origin + 1 - context : origin + 1] for origin in own]
    known = None if windows.known is None else _known_of(windows.known, windows.arrays, origins, context, horizon)
    _check_work(len(windows.arrays), len(rows), horizon, metadata, settings)
    scales = np.full((len(rows), len(metadata.features)), np.nan, np.float32)
    return Plan(windows, origins, rows, known, horizon, levels, samples, request.seed, metadata, scales)


def _known_of(
    known: Sequence[Values], arrays: Sequence[Values], origins: Sequence[range], context: int, horizon: int
) -> list[Values]:
    """What is known of each row's steps: of the windows' ends and what follows, then the same of each origin."""
    rows = [one[-(min(len(array), context) + horizon - 1) :] for one, array in zip(known, arrays, strict=True)]
    for one, own in zip(known, origins, strict=True):
        rows += [one[origin + 1 - context : origin + horizon] for origin in own]
    return rows


def _check_answer(windows: int, horizon: int, metadata: Metadata, beside: int) -> None:
    if windows * horizon * len(metadata.features) * (1 + beside) > LARGEST_ANSWER:
        raise InvalidRequest(
            [
                Fault(
                    "",
                    f"asks for more than {LARGEST_ANSWER} numbers (windows × horizon × features × (1 + 2 × levels + "
                    f"samples)): send fewer windows, a shorter horizon, fewer levels or samples",
                )
            ]
        )


def _check_work(windows: int, rows: int, horizon: int, metadata: Metadata, settings: Settings) -> None:
    """Refuse more than a request may have run, its windows' pasts counted as windows; one alone may have its past."""
    too_many = windows > 1 and rows > settings.max_windows
    if too_many or rows * horizon * len(metadata.features) > LARGEST_ANSWER:
        raise InvalidRequest(
            [
                Fault(
                    "",
                    f"asks for too much: to find the errors of their past, {windows} windows are forecast from "
                    f"{rows - windows} earlier origins, which count as windows: send fewer windows, a shorter horizon, "
                    f"or only the last {metadata.context_length} steps of each to use the errors of the model's file",
                )
            ]
        )


def _fault_of_table(
    needed: int, request: ForecastRequest, metadata: Metadata, horizon: int, settings: Settings
) -> Fault | None:
    """What the errors in the artifact do not support, naming what they do, and which windows do without them."""
    table, samples = metadata.errors, request.samples is not None
    place = "/levels" if request.levels else "/samples"
    reach, count = (0, 0) if table is None else (len(table.errors[0]), len(table.array))
    mends = []
    if table is None:
        reason = "rests on errors, of which the model's file has none"
    elif reach < horizon:
        reason = f"rests on errors, which the model's file has for {reach} steps ahead"
        mends.append(f"ask for at most {reach}")
    elif request.levels and fewest_errors(max(request.levels)) > count:
        reason = f"rests on errors, of which the model's file has {count} for each step"
        mends += [f"ask for levels of at most {most:g}"] if (most := highest_level(count)) > 0 else []
    elif samples and (count < needed or not table.paths):
        place, reason = "/samples", "rests on whole paths of errors, of which the model's file has too few"
    else:
        return None
    if longer := _longer_windows(needed, metadata, horizon, settings):
        mends.append(longer)
    return Fault(place, f"{reason}: {', or '.join(mends) or 'leave it out'}")


def _longer_windows(needed: int, metadata: Metadata, horizon: int, settings: Settings) -> str | None:
    """The length from which on windows have errors enough of their own, where that can be."""
    steps = steps_for(needed, metadata.context_length, horizon)
    if needed > MOST_ORIGINS or steps > settings.max_window_length:
        return None
    return f"send windows of at least {steps} steps, whose own past has enough"

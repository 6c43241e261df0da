"""The parts of series: training, validation and test, one after another, and how long each must be."""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from training.config import Config
from training.errors import DataError
from training.known import Known
from training.panel import Panel, Series, known_in, listed

_DEFAULT_HORIZON: Final = 24
_LEAST_CONTEXT: Final = 8  # steps below which a context that nobody asked for is not worth fitting on
_ENOUGH_YEARS: Final = pd.Timedelta(days=4 * 365)


class Boundary(NamedTuple):
    """Where the parts of one series meet.

    Training is [0, train_end), validation [train_end, validation_end), test the rest.
    """

    train_end: int
    validation_end: int


@dataclass(frozen=True)
class Split:
    """The boundaries of each series of a panel, in the panel's order, and the lead times that test parts have room for.

    The horizon is as configured, else one season, else 24.
    """

    boundaries: tuple[Boundary, ...]
    horizon: int

    @property
    def with_validation_in_training(self) -> "Split":
        """The same with no validation part, all of it being training."""
        ends = (part.validation_end for part in self.boundaries)
        return Split(tuple(Boundary(end, end) for end in ends), self.horizon)


def suited(config: Config, rows: int, season: int | None) -> Config:
    """The configuration with a context that leaves training windows enough in the shortest series, of `rows` steps.

    A context that was asked for stays as it is, and so does the usual one where short series are to be left out or
    where what remains would hold no season.
    """
    if "context_length" in config.network.model_fields_set or config.data.skip_short:
        return config
    ahead = _horizon(season, config)
    room = rows - sum(_part_lengths(rows, ahead, config)) - ahead
    context = max(room * 2 // 3, config.ensemble.autoregression or 0)
    if not (season or _LEAST_CONTEXT) < context < config.network.context_length:
        return config
    return config.model_copy(update={"network": config.network.model_copy(update={"context_length": context})})


def split(panel: Panel, config: Config) -> Split:
    """Split each series by time: its last `test_share` is the test part, `validation_share` before that validation.

    Each of the two has at least horizon + 1 steps, or as many as are asked for and a horizon; training has the rest,
    longer than the context and one horizon.

    Raises:
        DataError: a series is too short for that.
    """
    ahead = _horizon(panel.season, config)
    boundaries = []
    for one in panel.series:
        rows = len(one.values)
        if rows < rows_needed(rows, ahead, config):
            raise DataError(_too_short("the data", [one], len(panel.series), ahead, config))
        test, validation = _part_lengths(rows, ahead, config)
        boundaries.append(Boundary(rows - test - validation, rows - test))
    return Split(tuple(boundaries), ahead)


def known_of(panel: Panel, split: Split) -> Known:
    """What a network over a panel is told beforehand, its columns in the scale of the panel's training parts.

    Nothing in a column that seldom differs from its middle lies further off than ten of what is taken for one. Each day
    of the year has something of its own where a training part has met it in four years: what is learnt of a day that
    came twice is the noise of two days.
    """
    parts = [(one, slice(0, part.train_end)) for one, part in zip(panel.series, split.boundaries, strict=True)]
    spans = [one.times[steps.stop - 1] - one.times[0] for one, steps in parts if one.times is not None]
    days = "day_of_year" in panel.calendar and max(spans) >= _ENOUGH_YEARS
    if not panel.exogenous:
        return Known(calendar=panel.calendar, days=days)
    columns = known_in(parts)[:, len(panel.calendar) :].astype(np.float64)
    centres, sizes = columns.mean(axis=0), np.maximum(columns.std(axis=0), np.ptp(columns, axis=0) / 10)
    whole = tuple(size if size > 0 else 1.0 for size in sizes)
    return Known(calendar=panel.calendar, centres=tuple(centres), sizes=whole, days=days)


def long_enough(
    source: str, series: tuple[Series, ...], season: int | None, config: Config, notes: list[str]
) -> tuple[Series, ...]:
    """The series that are long enough; the others are refused, or left out where that is asked for.

    Raises:
        DataError: a series is too short, or all of them are.
    """
    ahead = _horizon(season, config)
    short = [one for one in series if len(one.values) < rows_needed(len(one.values), ahead, config)]
    fitting = [one for one in series if len(one.values) >= rows_needed(len(one.values), ahead, config)]
    if short and not (fitting and config.data.skip_short):
        raise DataError(_too_short(source, short, len(series), ahead, config))
    if short:
        notes.append(f"{len(short)} of {len(series)} series were left out, because they are too short")
    return tuple(fitting)


def rows_needed(rows: int, ahead: int, config: Config) -> int:
    """The fewest steps that a series of `rows` must have: its test and validation parts, context and one horizon."""
    return sum(_part_lengths(rows, ahead, config)) + config.network.context_length + ahead + 1


def part_length(rows: int, ahead: int, share: float, steps: int | None) -> int:
    """Steps of a part that is held out: as many as are asked for and at least one horizon, else a share of the rows."""
    return max(round(rows * share), ahead + 1) if steps is None else max(steps, ahead)


def _horizon(season: int | None, config: Config) -> int:
    """The lead times scored: as configured, else one season, else 24."""
    return config.data.horizon or season or _DEFAULT_HORIZON


def _part_lengths(rows: int, ahead: int, config: Config) -> tuple[int, int]:
    """Steps of the test part and of the validation part."""
    data = config.data
    return (
        part_length(rows, ahead, data.test_share, data.test_steps),
        part_length(rows, ahead, data.validation_share, data.validation_steps),
    )


def _too_short(source: str, short: list[Series], total: int, ahead: int, config: Config) -> str:
    lengths = [len(one.values) for one in short]
    rows, context = min(lengths), config.network.context_length
    mends = ["give more data"]
    room = min(length - sum(_part_lengths(length, ahead, config)) for length in lengths) - ahead - 1
    if room >= 2:
        mends.append(f"use a shorter context (--context {room} fits)")
    if ahead > 1:
        mends.append("score a shorter horizon (--horizon)")
    what = f"too few rows: {rows} steps"
    if total > 1:
        what = f"too short: {listed([one.name for one in short])}, {len(short)} of {total} series, down to {rows} steps"
        mends.append("leave the short series out (--skip-short)")
    return (
        f"{source}: {what}, but a context of {context} and a horizon of {ahead} need "
        f"{_rows_enough(rows, ahead, config)} to train, validate and test on: {', or '.join(mends)}"
    )


def _rows_enough(rows: int, ahead: int, config: Config) -> int:
    """The fewest steps, not below `rows`, that suffice for a series; its parts grow with it, by rounded shares."""
    while rows < (needed := rows_needed(rows, ahead, config)):
        rows = needed
    return rows

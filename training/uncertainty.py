"""How far intervals reach around forecasts: by the artifact's errors, or by those of each window's own past.

Both are what the service does: the same errors, taken from the same origins, make the same margins. How much the errors
of a window's past are to be inflated, for a network errs less on what it was fitted on, is told by the validation part.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from service.artifact import MOST_INFLATED, ErrorTable, Metadata
from service.engine import Engine
from service.intervals import errors_of, fewest_errors, margins, own_errors, own_origins, steps_useful
from training.backtest import MODEL, Block, Roll, forecast, stride_of
from training.baselines import Values
from training.panel import Panel
from training.parts import Split

QUANTILES: Final = np.linspace(0.1, 0.9, 9)
"""The deciles that CRPS is taken from, as GIFT-Eval does."""


_LEVELS: Final = (80.0, 95.0)
_MOST_SERIES: Final = 200
_MOST_ORIGINS: Final = 200
_FEWEST_ORIGINS: Final = 20


@dataclass(frozen=True, eq=False)
class Reach:
    """How far from the forecasts of some origins intervals and quantiles lie: in raw units, or of logarithms.

    `margins` holds by level how far below and above, (origins, lead times, features) each; `quantiles` (origins, lead
    times, features, 9) lie as far from the forecast; `scale` (origins, features) is that of the windows.
    """

    margins: Mapping[float, tuple[Values, Values]]
    quantiles: Values
    scale: Values
    logarithms: bool


class TableErrors:
    """The errors that the artifact carries, over each window's scale, for the lead times that it has."""

    def __init__(self, table: ErrorTable, levels: Sequence[float], horizon: int, *, logarithms: bool = False) -> None:
        ranked = table.ranked[:, :horizon]
        self.horizon = ranked.shape[1]
        self._logarithms = logarithms
        self._margins = {level: margins(ranked, level) for level in levels}
        self._quantiles = np.moveaxis(np.quantile(ranked, QUANTILES, axis=0), 0, -1)

    def reach(self, scale: Values) -> Reach:
        """For windows of a scale (origins, features)."""
        unit = scale[:, None].astype(np.float64)
        return Reach(
            margins={level: (below * unit, above * unit) for level, (below, above) in self._margins.items()},
            quantiles=self._quantiles * unit[..., None],
            scale=scale,
            logarithms=self._logarithms,
        )


class OwnErrors:
    """The errors of forecasts from earlier origins, where all of the series up to an origin is sent as its window."""

    def __init__(self, engine: Engine, levels: Sequence[float], horizon: int) -> None:
        self.horizon = horizon
        self._engine = engine
        self._levels = tuple(levels)

    def reach(self, roll: Roll) -> tuple[npt.NDArray[np.bool_], Reach]:
        """Which origins (origins,) have enough of a past for errors of their own, and the reach of those.

        Raises:
            ArtifactError: the artifact's graph fails, or a forecast is not finite.
        """
        assert roll.scale is not None, "asked for of a model that tells scales"
        own = [self.origins_before(int(origin)) for origin in roll.origins]
        known = np.array([len(held) > 0 for held in own])
        places = np.flatnonzero(known)
        shape = (len(places), self.horizon, roll.actual.shape[2])
        logarithms, inflation = self._engine.metadata.logarithms, self._engine.metadata.error_inflation
        found = {level: (np.empty(shape), np.empty(shape)) for level in self._levels}
        quantiles = np.empty((*shape, len(QUANTILES)))
        if len(places):
            steps, actual, forecasts, scales = self._past(roll, np.unique(np.concatenate(own)).astype(np.int64))
            for row, place in enumerate(places):
                at = np.searchsorted(steps, own[place])
                errors = own_errors(
                    actual[at],
                    forecasts[at],
                    scales[at],
                    roll.scale[place],
                    logarithms=logarithms,
                    inflation=inflation,
                )
                ranked = np.sort(errors, axis=0)
                for level, (below, above) in found.items():
                    below[row], above[row] = margins(ranked, level)
                quantiles[row] = np.moveaxis(np.quantile(ranked, QUANTILES, axis=0), 0, -1)
        return known, Reach(found, quantiles, roll.scale[known], logarithms)

    def origins_before(self, origin: int) -> npt.NDArray[np.int64]:
        """Earlier origins, as steps of the series, whose forecasts have met all that came up to this one.

        There are none where they would be too few, or not far enough apart, for errors that say anything.
        """
        metadata: Metadata = self._engine.metadata
        context = self._engine.context_length
        steps = min(origin + 1, steps_useful(context, self.horizon))
        needed = fewest_errors(max(self._levels)) if self._levels else 1
        held = own_origins(
            steps, context, self.horizon, metadata.season_length, needed, plenty=metadata.errors is not None
        )
        return np.asarray(held, dtype=np.int64) + origin + 1 - steps

    def _past(
        self, roll: Roll, steps: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The origins, what came after them, what was forecast, and the windows' scales."""
        blocks = [
            Block(roll.series, part, int(steps[0]), {}, roll.spread[:1])
            for part in np.array_split(steps, 1 + len(steps) // 512)
        ]
        rolls = list(forecast(self._engine, blocks, self.horizon))
        scales = [one.scale for one in rolls if one.scale is not None]
        assert len(scales) == len(rolls), "a model tells the scale of every window, or of none"
        parts = ([one.actual for one in rolls], [one.forecasts[MODEL] for one in rolls], scales)
        actual, forecasts, scale = (np.concatenate(held).astype(np.float32) for held in parts)
        return steps, actual, forecasts, scale


def error_inflation(engine: Engine, panel: Panel, split: Split) -> float:
    """How many times as large as in windows' own pasts errors have to be taken for, that intervals hold; 1 to 3.

    From origins in the validation part, whose windows look back into the training part: so many times as far intervals
    of 80 % have to reach to hold 80 % of what came, and those of 95 % for 95 %; the mean of the two, a geometric one.
    `engine` has learnt nothing from the validation part. 1 where there are too few origins with enough of a past.

    Raises:
        ArtifactError: the artifact's graph fails, or a forecast is not finite.
    """
    own = OwnErrors(engine, _LEVELS, split.horizon)
    reached: dict[float, list[Values]] = {level: [] for level in _LEVELS}
    origins = 0
    for roll in forecast(engine, _validation_blocks(panel, split, own), split.horizon):
        if roll.scale is None:
            return 1.0
        known, reach = own.reach(roll)
        origins += int(known.sum())
        actual, forecasts = roll.actual[known], roll.forecasts[MODEL][known]
        errors = errors_of(actual, forecasts, logarithms=reach.logarithms)
        for level, (below, above) in reach.margins.items():
            margin = np.where(errors > 0, above, below)
            times = np.divide(errors, margin, out=np.where(errors == 0, 0.0, np.inf), where=margin != 0)
            reached[level].append(times.ravel())
    if origins < _FEWEST_ORIGINS:
        return 1.0
    needed = [np.quantile(np.concatenate(times), level / 100, method="higher") for level, times in reached.items()]
    return round(math.sqrt(math.prod(float(np.clip(times, 1.0, MOST_INFLATED)) for times in needed)), 3)


def _validation_blocks(panel: Panel, split: Split, own: OwnErrors) -> Iterator[Block]:
    """Origins whose whole horizon lies in the validation part, of some series with a past to take errors from."""
    parts = [
        (one, part, room)
        for one, part in zip(panel.series, split.boundaries, strict=True)
        if (room := part.validation_end - split.horizon - part.train_end + 1) > 0
        and len(own.origins_before(part.train_end - 1 + room - 1))
    ]
    if not parts:
        return
    chosen = np.unique(np.linspace(0, len(parts) - 1, min(len(parts), _MOST_SERIES)).astype(np.int64))
    parts = [parts[place] for place in chosen]
    stride = stride_of([room for _, _, room in parts], panel.season, _MOST_ORIGINS)
    for one, part, room in parts:
        steps = np.arange(part.train_end - 1, part.train_end - 1 + room, stride)
        yield Block(one, steps, int(steps[0]), {}, np.ones((1, len(panel.features))))

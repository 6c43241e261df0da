"""Sums of errors by method, lead time and series: what a backtest keeps of its forecasts, however many there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scoringrules

from service.artifact import Scores
from service.intervals import bounds, shifted
from training.baselines import Forecasts, Values
from training.metrics import smape_terms
from training.uncertainty import QUANTILES, Reach

Narrow = npt.NDArray[np.float32]

_POINTS, _ABSOLUTE, _SQUARED, _PERCENT, _SCALED, _SCALABLE, _MOVING = range(7)
_HITS, _SCORE, _WIDTH, _SCALED_SCORE = range(4)


@dataclass(frozen=True)
class IntervalScores:
    """How intervals of one level did: `coverage` in percent, their mean width and interval score, and MSIS.

    The interval score is Winkler's (1972), MSIS that of the M4 competition: over the divisor of MASE, None without one.
    """

    level: float
    coverage: float
    width: float
    score: float
    msis: float | None


class PointTally:
    """Errors of point forecasts."""

    def __init__(self, series: int, horizon: int) -> None:
        self._by_lead = np.zeros((7, horizon))
        self._by_series = np.zeros((7, series))

    def add(self, series: int, actual: Forecasts, forecast: Forecasts, spread: Values) -> None:
        """Count (origins, horizon, features) forecasts of one series; `spread` is (origins, features)."""
        error = np.abs(actual - forecast)
        scale = spread[:, None]
        scalable = np.broadcast_to(scale > 0, error.shape)
        terms = np.stack(
            [
                np.ones_like(error),
                error,
                np.square(error),
                smape_terms(actual, forecast),
                np.where(scalable, error, 0) / np.where(scale > 0, scale, 1),
                scalable,
                (actual != 0) | (forecast != 0),
            ]
        )
        self._by_lead += terms.sum(axis=(1, 3))
        self._by_series[:, series] += terms.sum(axis=(1, 2, 3))

    def over_all(self) -> Scores:
        """Over all lead times, each point with the same weight."""
        return _scores(self._by_lead.sum(axis=1))

    def at(self, lead: int) -> Scores:
        """At one lead time, from 1."""
        return _scores(self._by_lead[:, lead - 1])

    def of(self, series: int) -> Scores:
        """Of one series, over all lead times."""
        return _scores(self._by_series[:, series])

    def mae_by_series(self) -> Values:
        """(series,)"""
        return np.asarray(self._by_series[_ABSOLUTE] / np.maximum(self._by_series[_POINTS], 1))


class IntervalTally:
    """Coverage and scores of intervals, and CRPS.

    Lead times from `horizon` on have no intervals.
    """

    def __init__(self, levels: Sequence[float], series: int, horizon: int, *, non_negative: bool) -> None:
        self.levels = tuple(levels)
        self.horizon = horizon
        self._non_negative = non_negative
        self._by_lead = np.zeros((len(levels), 4, horizon))
        self._points = np.zeros(horizon)
        self._scalable = np.zeros(horizon)
        self._crps = np.zeros(horizon)
        self._size = 0.0
        self._by_series = np.zeros((len(levels), 4, series))
        self._points_by_series = np.zeros(series)
        self._scalable_by_series = np.zeros(series)
        self._crps_by_series = np.zeros(series)

    def bounds(self, forecast: Forecasts, reach: Reach) -> Mapping[float, tuple[Narrow, Narrow]]:
        """Lower and upper bounds by level, (origins, lead times, features), as the service sends them."""
        centre, scale = forecast[:, : self.horizon].astype(np.float32), reach.scale.astype(np.float64)
        return {
            level: bounds(centre, below, above, scale, logarithms=reach.logarithms, non_negative=self._non_negative)
            for level, (below, above) in reach.margins.items()
        }

    def add(self, series: int, actual: Forecasts, forecast: Forecasts, spread: Values, reach: Reach) -> None:
        """Count the intervals around (origins, horizon, features) forecasts of one series; `spread` as MASE has it."""
        actual, forecast = actual[:, : self.horizon], forecast[:, : self.horizon]
        divisor = spread[:, None]
        scalable = np.broadcast_to(divisor > 0, actual.shape)
        for index, (level, (lower, upper)) in enumerate(self.bounds(forecast, reach).items()):
            hits = (actual >= lower) & (actual <= upper)
            # flat, for the library drops axes of length one
            flat = scoringrules.interval_score(actual.ravel(), lower.ravel(), upper.ravel(), 1 - level / 100)
            score = np.reshape(flat, actual.shape)
            scaled = np.where(scalable, score, 0) / np.where(divisor > 0, divisor, 1)
            sums = np.stack([hits, score, upper - lower, scaled]).sum(axis=(1, 3))
            self._by_lead[index] += sums
            self._by_series[index, :, series] += sums.sum(axis=1)
        self._points += actual.shape[0] * actual.shape[2]
        self._scalable += scalable.sum(axis=(0, 2))
        self._points_by_series[series] += actual.size
        self._scalable_by_series[series] += scalable.sum()
        self._size += float(np.abs(actual).sum())
        ahead = shifted(forecast[..., None], reach.quantiles, logarithms=reach.logarithms)
        if self._non_negative:
            ahead = np.maximum(ahead, 0)
        crps = np.asarray(scoringrules.crps_quantile(actual, ahead, QUANTILES)).sum(axis=(0, 2))
        self._crps += crps
        self._crps_by_series[series] += crps.sum()

    @property
    def points(self) -> int:
        """Values that were scored, over all lead times."""
        return int(self._points.sum())

    def over_all(self) -> list[IntervalScores]:
        """By level, over all lead times that have intervals."""
        return [
            self._scores(level, sums.sum(axis=1), self._points.sum(), self._scalable.sum())
            for level, sums in zip(self.levels, self._by_lead, strict=True)
        ]

    def coverage_by_lead(self, level: float) -> Values:
        """In percent, (lead times,)."""
        return np.asarray(100 * self._by_lead[self.levels.index(level), _HITS] / self._points)

    def of(self, series: int) -> list[IntervalScores]:
        """Of one series by level, over all lead times that have intervals; none where it has no intervals."""
        points, scalable = self._points_by_series[series], self._scalable_by_series[series]
        if not points:
            return []
        sums = self._by_series[:, :, series]
        return [self._scores(level, held, points, scalable) for level, held in zip(self.levels, sums, strict=True)]

    @property
    def crps(self) -> float:
        """The mean over all points of twice the mean pinball loss of the deciles, in raw units."""
        return float(self._crps.sum() / self._points.sum())

    @property
    def weighted_quantile_loss(self) -> float | None:
        """CRPS over the mean absolute value, as in GIFT-Eval's tables; None where all values are zero."""
        return float(self._crps.sum() / self._size) if self._size else None

    def crps_of(self, series: int) -> float | None:
        """Of one series; None where it has no intervals."""
        points = self._points_by_series[series]
        return float(self._crps_by_series[series] / points) if points else None

    def crps_by_lead(self) -> Values:
        """(lead times,)"""
        return np.asarray(self._crps / self._points)

    def at(self, level: float, lead: int) -> IntervalScores:
        """At one lead time, from 1."""
        sums = self._by_lead[self.levels.index(level), :, lead - 1]
        return self._scores(level, sums, self._points[lead - 1], self._scalable[lead - 1])

    @staticmethod
    def _scores(level: float, sums: Values, points: float, scalable: float) -> IntervalScores:
        return IntervalScores(
            level=level,
            coverage=float(100 * sums[_HITS] / points),
            width=float(sums[_WIDTH] / points),
            score=float(sums[_SCORE] / points),
            msis=float(sums[_SCALED_SCORE] / scalable) if scalable else None,
        )


def _scores(sums: npt.NDArray[np.float64]) -> Scores:
    points = sums[_POINTS]
    return Scores(
        mae=float(sums[_ABSOLUTE] / points),
        rmse=float(np.sqrt(sums[_SQUARED] / points)),
        smape=float(sums[_PERCENT] / points) if sums[_MOVING] else None,
        mase=float(sums[_SCALED] / sums[_SCALABLE]) if sums[_SCALABLE] else None,
    )

"""From forecasts to the figures of a protocol, by the measures of the training package."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scoringrules

from benchmarks.accuracy.protocols import M4_NAIVE2, Measure, Protocol
from service.artifact import Metadata, Scores
from training.backtest import MODEL
from training.baselines import Forecasts, Origins, Values
from training.metrics import owa, seasonal_spread, spread_before
from training.panel import Panel, Series
from training.rolling import Outcome
from training.tally import PointTally

Figures = dict[Measure, float]

# Of a figure. Windows that run together round otherwise than alone, and a network that looks for seasons may then find
# another of two that are equally strong in a window: it forecasts that window differently.
_TOLERANCE: Final = 1e-4
_TOLERANCE_OF_FOUND: Final = 5e-3


@dataclass(frozen=True, eq=False)
class Answered:
    """What was forecast of one series from its origins, (origins, horizon, 1) each; bounds where a level was asked."""

    series: Series
    origins: Origins
    forecasts: Forecasts
    lower: Forecasts | None = None
    upper: Forecasts | None = None


def of_answers(protocol: Protocol, panel: Panel, answers: Sequence[Answered]) -> Figures:
    """The figures of forecasts that were asked for, one entry a series, in the panel's order."""
    tally = PointTally(len(answers), protocol.horizon)
    scaled, inside = [], []
    for place, one in enumerate(answers):
        values = one.series.values
        actual = values[one.origins[:, None] + 1 + np.arange(protocol.horizon)]
        spread = _spread(protocol, panel, one)
        tally.add(place, actual, one.forecasts, spread)
        if one.lower is not None and one.upper is not None:
            flat = (actual.ravel(), one.lower.ravel(), one.upper.ravel(), 1 - (protocol.level or 0) / 100)
            scaled.append(np.reshape(scoringrules.interval_score(*flat), actual.shape) / spread[:, None])
            inside.append((actual >= one.lower) & (actual <= one.upper))
    msis = float(np.mean(np.concatenate(scaled))) if scaled else None
    return _figures(protocol, panel, tally.over_all(), msis)


def of_backtest(protocol: Protocol, outcome: Outcome, method: str = MODEL) -> Figures:
    """The figures that a backtest found for the model or for one of the references."""
    intervals = outcome.intervals if method == MODEL else None
    msis = intervals.over_all()[-1].msis if intervals is not None else None
    return _figures(protocol, outcome.panel, outcome.scores[method], msis)


def differ(found: Figures, wanted: Figures, metadata: Metadata) -> str | None:
    """Say which figure differs by more than rounding makes it; None where none does."""
    network = metadata.training.configuration.get("network")
    looks = isinstance(network, dict) and network.get("lags") == "found"
    tolerance = _TOLERANCE_OF_FOUND if looks else _TOLERANCE
    for measure, figure in wanted.items():
        if measure not in found or abs(found[measure] - figure) > tolerance * abs(figure):
            return f"{measure} is {found.get(measure)} by the service and {figure} by the backtest"
    return None


def _spread(protocol: Protocol, panel: Panel, one: Answered) -> Values:
    """What MASE divides by at each origin, (origins, 1)."""
    season = protocol.mase_season or panel.season
    if protocol.own_past:
        return spread_before(one.series.values, one.origins, season)
    return np.repeat(seasonal_spread(one.series.values[: one.origins[0] + 1], season)[None], len(one.origins), axis=0)


def _figures(protocol: Protocol, panel: Panel, scores: Scores, msis: float | None) -> Figures:
    unit = 1.0
    if protocol.standardised_by is not None:
        unit = float(panel.series[0].values[: protocol.standardised_by].std())
    found: dict[Measure, float | None] = {
        "MAE": scores.mae / unit,
        "MSE": (scores.rmse / unit) ** 2,
        "sMAPE": scores.smape,
        "MASE": scores.mase,
        "MSIS": msis,
    }
    if scores.smape is not None and scores.mase is not None:
        found["OWA"] = owa(scores.smape, scores.mase, *M4_NAIVE2)
    return {measure: figure for measure in protocol.measures if (figure := found.get(measure)) is not None}

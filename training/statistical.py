"""Statistical references from statsmodels: exponential smoothing, Theta and ARIMA, each feature on its own.

Each is chosen and fitted once a series, on what lies before its first origin; from every origin it then forecasts with
those parameters and all that came before that origin, in one pass over the series.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter
from statsmodels.tools.sm_exceptions import ModelWarning
from statsmodels.tsa.arima.estimators.hannan_rissanen import hannan_rissanen
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from statsmodels.tsa.forecasting.theta import ThetaModel
from statsmodels.tsa.seasonal import STL
from statsmodels.tsa.statespace.sarimax import SARIMAX
from statsmodels.tsa.stattools import kpss

from training.baselines import Forecasts, Origins, Rule, Values, naive

Column = npt.NDArray[np.float64]
ColumnRule = Callable[[Column, Origins, int], npt.NDArray[np.float64]]
"""Forecasts of a series (time,) from origins (origins,) over a horizon: (origins, horizon)."""

_RECENT: Final = 1_000  # steps fitted on, or ten seasons where those are more
_SEASONS: Final = 10
_FEWEST: Final = 10  # steps that anything is fitted to
_LONGEST_SEASON: Final = 400  # a longer one is left out of account
_SEASONAL_STRENGTH: Final = 0.64  # from which ARIMA differences by season: Wang, Smith and Hyndman (2006)
_ORDERS: Final = ((1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (1, 1), (2, 1), (1, 2), (2, 2))
# What statsmodels and scipy raise on data that a model cannot be fitted to.
_UNFITTED: Final = (ValueError, ArithmeticError, IndexError, np.linalg.LinAlgError)


def rule_of(method: str, past: Values, season: int | None, unfitted: Counter[str]) -> Rule:
    """Fit a method of `METHODS` to the past (time, features) of one series.

    Where it cannot be fitted to a feature, the last value stands in for it, and `unfitted` counts that.
    """
    if season is not None and (season > _LONGEST_SEASON or len(past) < 3 * season):
        season = None
    begin = max(0, len(past) - max(_RECENT, _SEASONS * (season or 0)))
    rules: list[ColumnRule | None] = []
    for column in past[begin:].T:
        rules.append(_fitted(method, column, season))
        unfitted[method] += rules[-1] is None

    def rule(values: Values, origins: Origins, horizon: int) -> Forecasts:
        forecasts = naive(values, origins, horizon)
        for feature, forecast in enumerate(rules):
            if forecast is None:
                continue
            with _in_silence():
                found = forecast(values[begin : int(origins.max()) + 1, feature], origins - begin, horizon)
            forecasts[..., feature] = np.where(np.isfinite(found), found, forecasts[..., feature])
        return forecasts

    return rule


def _fitted(method: str, past: Column, season: int | None) -> ColumnRule | None:
    if len(past) < _FEWEST:
        return None
    with _in_silence():
        try:
            return METHODS[method](past, season)
        except _UNFITTED:
            return None


def ets(past: Column, season: int | None) -> ColumnRule:
    """Exponential smoothing with additive errors: of those without and with a damped trend and a season, the best AICc.

    Raises:
        ValueError: the past is too short.
    """
    seasonal: list[str | None] = [None]
    if season is not None and len(past) >= 10 + 2 * season:
        seasonal = ["add", "mul"] if (past > 0).all() else ["add"]
    shapes: list[dict[str, Any]] = [
        {"trend": trend, "damped_trend": trend is not None, "seasonal": form, "seasonal_periods": form and season}
        for trend in (None, "add")
        for form in seasonal
    ]
    fits = [
        (shape, ETSModel(past, error="add", initialization_method="heuristic", **shape).fit(disp=False))
        for shape in shapes
    ]
    shape, best = min(fits, key=lambda fit: float(fit[1].aicc) if np.isfinite(fit[1].aicc) else np.inf)
    parameters = dict(zip(best.model.param_names, best.params, strict=True))
    # What it began with stays: found anew, it would rest on more than was known at the first origin.
    begun = {f"initial_{part}": getattr(best.model, f"initial_{part}") for part in ("level", "trend", "seasonal")}
    damping = float(parameters.get("damping_trend", 1.0))

    def rule(values: Column, origins: Origins, horizon: int) -> npt.NDArray[np.float64]:
        model = ETSModel(values, error="add", initialization_method="known", **shape, **begun)
        states = np.asarray(model.smooth(best.params).states)  # (time, level, trend, season)
        ahead = states[origins, :1] + np.zeros(horizon)
        if shape["trend"]:
            ahead += states[origins, 1:2] * np.cumsum(damping ** np.arange(1, horizon + 1))
        if season is None or shape["seasonal"] is None:
            return np.asarray(ahead)
        parts = states[origins[:, None] + 1 - season + np.arange(horizon) % season, -1]
        return np.asarray(ahead + parts if shape["seasonal"] == "add" else ahead * parts)

    return rule


def theta(past: Column, season: int | None) -> ColumnRule:
    """The Theta method of Assimakopoulos and Nikolopoulos (2000), of two lines, its season by classical indices."""
    model = ThetaModel(past, period=season or 1, deseasonalize=season is not None)
    fitted = model.fit()
    alpha = float(fitted.params["alpha"])
    parts = fitted.forecast_components(season or 1)["seasonal"].to_numpy()
    indices = np.roll(parts, len(past) % (season or 1))  # by a step's place in the season, from the first step
    by_ratio = season is not None and model.method.startswith("mul")

    def rule(values: Column, origins: Origins, horizon: int) -> npt.NDArray[np.float64]:
        place = np.arange(len(values)) % len(indices)
        plain = values
        if season is not None:
            plain = values / indices[place] if by_ratio else values - indices[place]
        level, _ = lfilter([alpha], [1, alpha - 1], plain, zi=[(1 - alpha) * plain[0]])
        count = origins + 1.0
        further = np.arange(horizon) + np.zeros((len(origins), 1))
        if alpha > 0:
            further += ((1 - (1 - alpha) ** count) / alpha)[:, None]
        ahead = level[origins][:, None] + 0.5 * _slopes(plain, origins)[:, None] * further
        if season is None:
            return np.asarray(ahead)
        parts = indices[(origins[:, None] + np.arange(1, horizon + 1)) % season]
        return np.asarray(ahead * parts if by_ratio else ahead + parts)

    return rule


def arima(past: Column, season: int | None) -> ColumnRule:
    """ARIMA(p, d, q) with p and q by AIC (Hannan and Rissanen 1982), differenced by season and step where tests ask.

    The season is taken out by one difference where it is strong; a step where the KPSS test at 5 % rejects a level.

    Raises:
        ValueError: nothing changes but by season, and so there is nothing to estimate.
    """
    lag = season if season is not None and _strength(past, season) > _SEASONAL_STRENGTH else None
    steady = past if lag is None else past[lag:] - past[:-lag]
    step = bool(np.ptp(steady) and kpss(steady, regression="c", nlags="auto")[1] < 0.05)
    if step:
        steady = np.diff(steady)
    level = 0.0 if step or lag is not None else float(steady.mean())
    size = float((steady - level).std()) or 1.0
    changing = (steady - level) / size
    if not np.ptp(changing):
        raise ValueError("nothing is left to be estimated")
    p, q = min(_ORDERS, key=lambda order: _information(changing, *order))
    fitted = SARIMAX(changing, order=(p, 0, q)).fit(disp=False, maxiter=50, cov_type="none")

    def rule(values: Column, origins: Origins, horizon: int) -> npt.NDArray[np.float64]:
        apart = values if lag is None else values[lag:] - values[:-lag]
        changes = np.diff(apart) if step else apart
        passed = fitted.apply((changes - level) / size)
        behind = origins - (lag or 0)
        state = passed.predicted_state[:, behind - step + 1]  # of the step after each origin
        move, seen = (passed.model.ssm[name] for name in ("transition", "design"))
        ahead = np.empty((len(origins), horizon))
        for lead in range(horizon):
            ahead[:, lead] = (seen @ state)[0] * size + level
            state = move @ state
        if step:
            ahead = apart[behind][:, None] + np.cumsum(ahead, axis=1)
        for lead in range(horizon if lag is not None else 0):
            assert lag is not None
            ahead[:, lead] += values[origins + 1 + lead - lag] if lead < lag else ahead[:, lead - lag]
        return ahead

    return rule


METHODS: Final[Mapping[str, Callable[[Column, int | None], ColumnRule]]] = {"ets": ets, "theta": theta, "arima": arima}


def _slopes(values: Column, origins: Origins) -> Column:
    """The slope of the straight line of least squares through all values up to each origin."""
    steps = np.arange(len(values))
    count = origins + 1.0
    total, weighted = (np.cumsum(held)[origins] for held in (values, values * steps))
    middle = (count - 1) / 2
    return np.asarray((weighted - middle * total) / np.maximum(count * (count**2 - 1) / 12, 1e-300))


def _strength(past: Column, season: int) -> float:
    """How much of what varies beside the trend is season, from 0 to 1, by STL."""
    parts = STL(past, period=season).fit()
    beside = np.var(parts.seasonal + parts.resid)
    return 0.0 if beside == 0 else max(0.0, 1.0 - float(np.var(parts.resid) / beside))


def _information(values: Column, order: int, average: int) -> float:
    """AIC of an ARMA, infinite where it cannot be estimated."""
    try:
        _, found = hannan_rissanen(values, ar_order=order, ma_order=average, demean=False)
    except _UNFITTED:
        return np.inf
    variance = float(np.mean(np.square(found.resid)))
    return np.inf if variance <= 0 else len(values) * np.log(variance) + 2 * (order + average)


@contextmanager
def _in_silence() -> Iterator[None]:
    """Without the warnings of optimisers: what they find is scored, whether they have converged or not."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        for category in (ModelWarning, RuntimeWarning, UserWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield

"""The references that a model must beat: naive and seasonal naive."""

import numpy as np
import numpy.typing as npt

Origins = npt.NDArray[np.int64]
Forecasts = npt.NDArray[np.float64]


def naive(values: npt.NDArray[np.float64], origins: Origins, horizon: int) -> Forecasts:
    """Repeat the last observation.

    Args:
        values: one series, (time, features).
        origins: the step of the last observation of each forecast, (origins,).
        horizon: how many steps to forecast.

    Returns:
        (origins, horizon, features)
    """
    return np.repeat(values[origins][:, None], horizon, axis=1)


def seasonal_naive(values: npt.NDArray[np.float64], origins: Origins, horizon: int, season: int) -> Forecasts:
    """Repeat the last season before each origin.

    Args and returns as of `naive`; `season` is in steps.

    Raises:
        ValueError: an origin has less than a season of observations.
    """
    if len(origins) and origins.min() + 1 < season:
        raise ValueError(f"an origin with {origins.min() + 1} observations has no season of {season}")
    ahead = np.arange(horizon) % season  # a step's place in the season
    return np.asarray(values[origins[:, None] + 1 - season + ahead], dtype=np.float64)

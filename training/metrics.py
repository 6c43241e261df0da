"""Measures of forecasts that no library has exactly, each with the source of its definition."""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


def smape_terms(actual: Numbers, forecast: Numbers) -> Numbers:
    """M4's symmetric absolute percentage errors, in percent, of the same shape; 0 where value and forecast are both 0.

    Makridakis, Spiliotis and Assimakopoulos (2020), "The M4 Competition": 200 |y − f| / (|y| + |f|).
    """
    total = np.abs(actual) + np.abs(forecast)
    return np.asarray(200 * np.abs(actual - forecast) / np.where(total == 0, 1.0, total), dtype=np.float64)


def seasonal_spread(values: Numbers, season: int | None) -> Numbers:
    """What MASE and MSIS divide by: the mean absolute difference one season apart of (time, features), (features,).

    Hyndman and Koehler (2006), "Another look at measures of forecast accuracy". One step apart where no season is
    known; 0 where the values are too few.
    """
    lag = season or 1
    if len(values) <= lag:
        return np.zeros(values.shape[1])
    return np.asarray(np.mean(np.abs(values[lag:] - values[:-lag]), axis=0), dtype=np.float64)


def spread_before(values: Numbers, origins: npt.NDArray[np.int64], season: int | None) -> Numbers:
    """The seasonal spread of all that each origin has seen, (origins, features), as GIFT-Eval divides by it."""
    lag = season or 1
    apart = np.abs(values[lag:] - values[:-lag])
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(apart, axis=0)])
    count = np.maximum(origins + 1 - lag, 0)
    return np.asarray(sums[count] / np.maximum(count, 1)[:, None], dtype=np.float64)


def owa(smape: float, mase: float, naive_smape: float, naive_mase: float) -> float | None:
    """M4's overall weighted average: the mean of sMAPE and MASE, each over that of Naive2. None where one is 0.

    Makridakis, Spiliotis and Assimakopoulos (2020), "The M4 Competition".
    """
    if not naive_smape or not naive_mase:
        return None
    return (smape / naive_smape + mase / naive_mase) / 2

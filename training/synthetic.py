"""Generated example series, so that a first training needs no file; the same numbers on every machine."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

_LAB_SEASON: Final = 365
_LAB_STEPS: Final = 4 * _LAB_SEASON + 1  # 2001 to 2004, to the day
_LAB_START: Final = "2001-01-01"
_PANEL_SERIES: Final = 12
_PANEL_STEPS: Final = 8 * 7 * 24  # eight weeks of hours
_PANEL_START: Final = "2024-01-01"  # a Monday
_SHOP_STEPS: Final = 3 * 365 + 1  # 2022 to 2024, to the day
_SHOP_START: Final = "2022-01-01"


def lab() -> pd.DataFrame:
    """The lab series of the course "Sequences, Time Series and Prediction": a trend, a season of 365 and noise.

    Its time axis is 32-bit, as in the course's notebooks, so that the numbers are theirs to the last digit. The days
    from 2001 to 2004 are added.
    """
    time = np.arange(_LAB_STEPS, dtype=np.float32)
    phase = (time % _LAB_SEASON) / _LAB_SEASON
    pattern = np.where(phase < 0.4, np.cos(phase * 2 * np.pi), 1 / np.exp(3 * phase))
    # The course seeds the legacy generator; no other gives its noise.
    noise = np.random.RandomState(42).randn(_LAB_STEPS) * 5.0
    value = 10.0 + 0.05 * time + 40.0 * pattern + noise
    return pd.DataFrame({"time": pd.date_range(_LAB_START, periods=_LAB_STEPS, freq="D"), "value": value})


def panel(seed: int = 0) -> pd.DataFrame:
    """Hourly demand of twelve sites over eight weeks, in long form: columns site, time and demand.

    All sites share the shape of a day and of a week; each has its own level, swing, weekend and noise.
    """
    rng = np.random.default_rng(seed)
    hours = np.arange(_PANEL_STEPS)
    times = pd.date_range(_PANEL_START, periods=_PANEL_STEPS, freq="h")
    sites = []
    for number in range(1, _PANEL_SERIES + 1):
        demand = _demand(rng, hours)
        sites.append(pd.DataFrame({"site": f"site-{number:02}", "time": times, "demand": demand.round(2)}))
    return pd.concat(sites, ignore_index=True)


def shop(seed: int = 0) -> pd.DataFrame:
    """Daily sales of three years that hang on what the shop has planned: columns day, sales, price and promotion.

    The price stays for some weeks, promotions last some days, and before Christmas more is sold.
    """
    rng = np.random.default_rng(seed)
    days = pd.date_range(_SHOP_START, periods=_SHOP_STEPS, freq="D")
    price = np.repeat(rng.uniform(8, 12, _SHOP_STEPS // 25 + 1).round(1), 25)[:_SHOP_STEPS]
    promotion = np.repeat(rng.random(_SHOP_STEPS // 3 + 1) < 0.2, 3)[:_SHOP_STEPS].astype(np.int64)
    week = np.array([0.9, 0.85, 0.9, 1.0, 1.2, 1.4, 0.75])[days.day_of_week]
    christmas = np.where((days.month == 12) & (days.day < 24), 1.5, 1.0)
    noise = np.exp(rng.normal(0, 0.05, _SHOP_STEPS))
    sales = 120 * week * christmas * (price / 10) ** -1.5 * (1 + 0.6 * promotion) * noise
    return pd.DataFrame({"day": days, "sales": sales.round(), "price": price, "promotion": promotion})


def _demand(rng: np.random.Generator, hours: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    level = np.exp(rng.uniform(3.0, 6.0))
    peak, swing, evening = rng.uniform(9, 15), rng.uniform(0.25, 0.6), rng.uniform(0.1, 0.35)
    day = swing * np.cos(2 * np.pi * (hours - peak) / 24) + evening * np.cos(4 * np.pi * (hours - peak - 7) / 24)
    weekend = np.where(hours // 24 % 7 >= 5, 1 - rng.uniform(0.1, 0.5), 1.0)
    drift = np.cumsum(rng.normal(0, 0.004, len(hours)))
    noise = np.zeros(len(hours))
    shocks = rng.normal(0, rng.uniform(0.03, 0.08), len(hours))
    for step in range(1, len(hours)):
        noise[step] = 0.7 * noise[step - 1] + shocks[step]
    return np.asarray(level * np.maximum((1.2 + day) * weekend + drift + noise, 0.02), dtype=np.float64)

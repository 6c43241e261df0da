"""Public series that ship inside statsmodels, so that a first training needs no file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import numpy as np
import pandas as pd

from training.errors import DataError
from training.table import Table, suggestion


@dataclass(frozen=True)
class Dataset:
    """A data set: what it holds, what is forecast when no target is named, and how it becomes a table."""

    description: str
    target: str
    table: Callable[[pd.DataFrame], pd.DataFrame]


def load(name: str) -> tuple[Table, str]:
    """The table of a data set, and the column that is its usual target.

    Raises:
        DataError: there is no such data set.
    """
    if name not in DATASETS:
        raise DataError(f"there is no data set {name!r}{suggestion(name, DATASETS)}")
    raw: pd.DataFrame = import_module(f"statsmodels.datasets.{name}").load_pandas().data
    frame = DATASETS[name].table(raw)
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return Table(frame, f"data set {name}", "row"), DATASETS[name].target


def _with_dates(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.rename_axis("date").reset_index()


def _with_years(raw: pd.DataFrame) -> pd.DataFrame:
    named = raw.rename(columns={column: column.lower() for column in raw.columns})
    return named.assign(year=named["year"].astype(np.int64))


def _with_quarters(raw: pd.DataFrame) -> pd.DataFrame:
    quarters = raw["year"].astype(np.int64).astype("str") + "Q" + raw["quarter"].astype(np.int64).astype("str")
    return raw.drop(columns=["year", "quarter"]).assign(quarter=quarters)


def _by_month(raw: pd.DataFrame) -> pd.DataFrame:
    """One row a month, from one row a year."""
    values = raw.drop(columns="YEAR").to_numpy(dtype=np.float64).ravel()
    months = pd.date_range(f"{int(raw['YEAR'].iloc[0])}-01-01", periods=len(values), freq="MS")
    return pd.DataFrame({"month": months, "temperature": values})


DATASETS: Final[Mapping[str, Dataset]] = {
    "co2": Dataset("carbon dioxide on Mauna Loa, weekly, 1958-2001", "co2", _with_dates),
    "elnino": Dataset("sea surface temperature off Peru, monthly, 1950-2010", "temperature", _by_month),
    "macrodata": Dataset("economy of the United States, quarterly, 1959-2009", "realgdp", _with_quarters),
    "nile": Dataset("flow of the Nile at Aswan, yearly, 1871-1970", "volume", _with_years),
    "sunspots": Dataset("sunspots, yearly, 1700-2008", "sunactivity", _with_years),
}

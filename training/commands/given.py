"""What `fit`, `sweep` and `tune` are given alike: a table, and a configuration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from service.artifact import FREQUENCY_PATTERN
from service.calendar import CalendarField
from training.config import Config, read_config
from training.errors import ConfigError, DataError

if TYPE_CHECKING:
    from training.panel import Panel
    from training.parts import Split
    from training.table import Table

SEVERAL: Final = Parameter(consume_multiple=True, negative="")
"""An option that takes several values."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Given:
    """What `fit`, `sweep` and `tune` are given alike.

    Args:
        data: CSV (comma, semicolon or tab; UTF-8) or Parquet file, one row per time step (and series).
        dataset: Instead of a file, a public data set: co2, elnino, macrodata, nile or sunspots.
        target: Columns to forecast; several make one model of them all. The only column of numbers when not given.
        time: Column of timestamps, or of whole numbers that count steps. The only column of dates when not given.
        series: Column that tells series apart, for several in one table: one model is fitted on all of them.
        frequency: Spacing of the steps, such as h, 15min, D, W, M. Inferred from the time column when not given.
        season: Steps in a season, such as 24 for hours. Inferred from the frequency when not given.
        calendar: What the model reads of the calendar of each step. Requests then need an origin.
        exogenous: Columns that are known beforehand, such as prices. Requests then tell their future.
        context: Steps of history that the model looks at; 192 when not given, fewer where series are short.
        horizon: Steps ahead that are scored. One season when not given, else 24.
        fill_limit: Longest run of missing steps that is filled, linearly; 3 when not given.
        skip_short: Leave out series that are too short, instead of refusing the table.
        config: TOML file of settings; those on the command line win.
        seed: Number that all randomness comes from; 0 when not given.
    """

    data: Path | None = None
    dataset: str | None = None
    target: Annotated[list[str] | None, SEVERAL] = None
    time: str | None = None
    series: str | None = None
    frequency: str | None = None
    season: int | None = None
    calendar: Annotated[list[CalendarField] | None, SEVERAL] = None
    exogenous: Annotated[list[str] | None, SEVERAL] = None
    context: int | None = None
    horizon: int | None = None
    fill_limit: int | None = None
    skip_short: Annotated[bool | None, Parameter(negative="")] = None
    config: Path | None = None
    seed: int | None = None

    def read(self, overrides: Mapping[str, Any]) -> "tuple[Table, Config]":
        """The table and the configuration, other options of a command laid over the file's, too.

        Raises:
            ConfigError: as `read_config`.
            DataError: no table or two are named, or it cannot be read.
        """
        own = {
            "seed": self.seed,
            "data": {
                "target": tuple(self.target) if self.target else None,
                "time": self.time,
                "series": self.series,
                "frequency": frequency_code(self.frequency),
                "season": self.season,
                "calendar": tuple(self.calendar) if self.calendar else None,
                "exogenous": tuple(self.exogenous) if self.exogenous else None,
                "horizon": self.horizon,
                "fill_limit": self.fill_limit,
                "skip_short": self.skip_short,
            },
            "network": {"context_length": self.context},
        }
        given = read_config(self.config, own | dict(overrides))
        if (self.data is None) == (self.dataset is None):
            raise DataError("give either --data FILE or --dataset NAME")
        # pandas takes half a second to import: not before it is needed.
        from training.datasets import load
        from training.table import read_table

        if self.dataset is not None:
            table, usual = load(self.dataset)
            given = with_target(given, usual)
        else:
            table = read_table(Path(str(self.data)))
        if "name" not in given.model_fields_set:
            given = given.model_copy(update={"name": model_name(self.dataset or Path(str(self.data)).stem)})
        return table, given


NOTHING_GIVEN: Final = Given()


def prepared(table: "Table", config: Config) -> "tuple[Panel, Config, Split]":
    """A table's series, the configuration with a context that suits them, and where their parts meet."""
    from training.data import read_panel
    from training.parts import split, suited

    panel = read_panel(table, config)
    config = suited(config, min(len(one.values) for one in panel.series), panel.season)
    return panel, config, split(panel, config)


def model_name(text: str) -> str:
    """A legal model name from the name of a file or data set."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64] or "model"


def frequency_code(code: str | None) -> str | None:
    """The code of a frequency, if it is one.

    Raises:
        ConfigError: it is none.
    """
    if code is not None and not re.fullmatch(FREQUENCY_PATTERN, code):
        raise ConfigError("--frequency: use s, min, h, D, W, M, Q or Y, after a number where needed, such as 15min")
    return code


def with_target(config: Config, usual: str) -> Config:
    """The configuration with the column that is usual for a data set, where none is named."""
    if config.data.target:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"target": (usual,)})})

"""The frozen configuration of one training run, from defaults, a TOML file and the command line, in that order."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.artifact import LONGEST_CONTEXT, Frequency, ModelName
from training.errors import ConfigError

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=0.5)]

_LEGAL_NAME: Final = "letters, digits, '.', '_' and '-', at most 64, the first a letter or digit"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(_Section):
    """Which columns to read, and how to check and split them."""

    target: tuple[str, ...] = Field(default=(), description="Columns to forecast; several make a multivariate model.")
    time: str | None = Field(default=None, description="Column of timestamps, or of whole numbers counting steps.")
    series: str | None = Field(default=None, description="Column that identifies the series, for data in long form.")
    frequency: Frequency | None = Field(default=None, description="Spacing of observations; inferred when not given.")
    season: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Steps in a season; inferred from the frequency when not given."
    )
    fill_limit: int = Field(default=3, ge=0, description="Longest run of missing steps that is filled, linearly.")
    skip_short: bool = Field(default=False, description="Leave out series that are too short, instead of refusing.")
    horizon: Positive | None = Field(
        default=None, description="Lead times scored in the backtest; one season when not given, else 24."
    )
    validation_share: Share = Field(default=0.1, description="Part of each series, before the test part.")
    test_share: Share = Field(default=0.1, description="Last part of each series, scored once, never fitted on.")


class Network(_Section):
    """The stacked LSTM and the scaling around it."""

    layers: tuple[Positive, ...] = Field(default=(64, 64), min_length=1, description="Units of each LSTM layer.")
    context_length: int = Field(
        default=192, ge=1, le=LONGEST_CONTEXT, description="Steps of history that the network is given."
    )
    scaling: Literal["window", "none"] = Field(
        default="window", description="`window`: by each window's own level and spread; `none`: raw values."
    )
    lags: tuple[Annotated[int, Field(ge=2)], ...] | Literal["season", "found"] = Field(
        default="season",
        description="Seasons whose last values the network sees: the known season, periods found in each window, or "
        "a list of lengths.",
    )


class Fitting(_Section):
    """How the network is fitted."""

    epochs: Positive = 60
    steps_per_epoch: Positive | None = Field(default=None, description="Batches an epoch; derived from the data.")
    batch_size: Positive = 32
    learning_rate: float = Field(default=2e-3, gt=0)
    clip_norm: float = Field(default=1.0, gt=0, description="Largest global norm of a gradient.")
    patience: Positive = Field(default=8, description="Epochs without improvement on validation before stopping.")
    huber_delta: float = Field(default=0.1, gt=0, description="Scaled error from which the Huber loss is linear.")
    warm_up: int = Field(default=100, ge=0, description="Batches over which the learning rate rises to its value.")


class Config(_Section):
    """Everything that decides what a training run produces."""

    name: ModelName = "default"
    description: str = Field(default="", max_length=2000)
    seed: int = Field(default=0, ge=0, lt=2**31)
    data: Data = Data()
    network: Network = Network()
    fitting: Fitting = Fitting()


def read_config(file: Path | None, overrides: Mapping[str, Mapping[str, Any] | Any]) -> Config:
    """Read a TOML file of `[data]`, `[network]`, `[fitting]` sections and lay the command line's values over it.

    Args:
        file: the TOML file, or None for the defaults.
        overrides: values by key, or by section and key; those that are None do not override.

    Raises:
        ConfigError: the file is missing or not TOML, or a key is unknown or holds what it cannot hold.
    """
    document: dict[str, Any] = {}
    if file is not None:
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{file}: no such file") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{file}: not a readable TOML file: {error}") from None
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            section = document.setdefault(key, {})
            if isinstance(section, dict):
                section.update({name: held for name, held in value.items() if held is not None})
        elif value is not None:
            document[key] = value
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        if (place, first["type"]) == ("name", "string_pattern_mismatch"):
            source = "configuration key name" if overrides.get("name") is None else "--name"
            raise ConfigError(f"{source}: {_LEGAL_NAME}") from None
        raise ConfigError(f"configuration key {place}: {first['msg']}") from None

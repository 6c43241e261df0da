"""The frozen configuration of one training run, from defaults, a TOML file and the command line, in that order."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from service.artifact import LONGEST_CONTEXT, Frequency, ModelName
from service.calendar import CalendarField
from training.errors import ConfigError

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=0.5)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Cell = Literal["lstm", "gru", "rnn", "peephole_lstm"]
Output = Literal["sequence", "vector", "horizon"]
Activation = Literal["tanh", "relu", "leaky_relu", "elu"]
Initialiser = Literal["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal"]
Combine = Literal["mean", "median"]
RecurrentInitialiser = Literal["orthogonal", "identity", "glorot_uniform", "glorot_normal"]

_IN_WORDS: Final = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "peephole_lstm": "LSTM with peepholes"}
_LEGAL_NAME: Final = "letters, digits, '.', '_' and '-', at most 64, the first a letter or digit"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(_Section):
    """Which columns to read, and how to check and split them."""

    target: tuple[str, ...] = Field(default=(), description="Columns to forecast; several make a multivariate model.")
    time: str | None = Field(default=None, description="Column of timestamps, or of whole numbers counting steps.")
    series: str | None = Field(default=None, description="Column that identifies the series, for data in long form.")
    frequency: Frequency | None = Field(default=None, description="Spacing of observations; inferred when not given.")
    calendar: tuple[CalendarField, ...] = Field(
        default=(),
        description="What the model reads of the calendar: `hour`, `weekday`, `day_of_month`, `month`, `day_of_year`.",
    )
    exogenous: tuple[str, ...] = Field(
        default=(), description="Columns that are known beforehand, also of the steps to be forecast."
    )
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
    validation_steps: Positive | None = Field(
        default=None, description="The validation part in steps, the same for every series, in place of its share."
    )
    test_steps: Positive | None = Field(
        default=None, description="The test part in steps, the same for every series, in place of its share."
    )


class Convolution(_Section):
    """A causal convolution in front of the recurrent layers; its last inputs are part of the carried state."""

    filters: Positive = Field(description="Numbers that it gives the first layer at each step.")
    kernel: int = Field(
        default=3, ge=2, le=1024, description="Steps that it looks at: the present one and those before."
    )
    activation: Activation = Field(default="relu", description="`tanh`, `relu`, `leaky_relu` or `elu`.")


class Network(_Section):
    """The recurrent layers, what stands in front of and behind them, and the scaling around it all."""

    cell: Cell = Field(default="lstm", description="Kind of every recurrent layer.")
    layers: tuple[Positive, ...] = Field(default=(64, 64), min_length=1, description="Units of each recurrent layer.")
    bidirectional: bool = Field(
        default=False,
        description="Whether each layer also reads the window backwards; such a network carries no state.",
    )
    output: Output = Field(
        default="sequence",
        description="`sequence`: learns the next step at every step of a window; `vector`: at its end alone; "
        "`horizon`: learns the whole horizon at once at its end.",
    )
    horizon: Positive | None = Field(
        default=None, description="Steps that output `horizon` gives at once; data.horizon where not given."
    )
    decoder: tuple[Positive, ...] = Field(
        default=(), description="Units of the recurrent layers that unfold the horizon; none: one dense layer."
    )
    carry: bool | None = Field(
        default=None,
        description="Whether the served model carries its state, or its window is slid; all but `vector` do.",
    )
    convolution: Convolution | None = Field(
        default=None, description="A causal convolution in front; none if not given."
    )
    activation: Activation = Field(default="tanh", description="Of the recurrent layers' candidates and outputs.")
    initialiser: Initialiser = Field(default="glorot_uniform", description="Of the weights on a layer's inputs.")
    recurrent_initialiser: RecurrentInitialiser = Field(
        default="orthogonal", description="Of the weights on a layer's own last output."
    )
    normalisation: Literal["none", "layer", "batch"] = Field(
        default="none", description="Of what each recurrent layer gives the next one."
    )
    residual: bool = Field(default=True, description="Whether a layer as wide as its inputs is added to them.")
    head: Literal["references", "plain"] = Field(
        default="references",
        description="`references`: weights over simple forecasts, and a correction; `plain`: one dense layer over what "
        "is seen of the scaled values alone.",
    )
    context_length: int = Field(
        default=192, ge=1, le=LONGEST_CONTEXT, description="Steps of history that the network is given."
    )
    transform: Literal["none", "log"] = Field(
        default="none",
        description="`log`: fitted on and forecast in logarithms, of series that are above zero throughout.",
    )
    scaling: Literal["window", "season", "none"] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default="window",
        description="`window`: by each window's own level and spread; `season`: by the level of its last season, and "
        "by how much it differs from one season to the next; `none`: raw values; a number: values are divided by it, "
        "and forecasts multiplied.",
    )
    lags: tuple[Annotated[int, Field(ge=2)], ...] | Literal["season", "found"] = Field(
        default="season",
        description="Seasons whose last values the network sees: the known season, periods found in each window, or "
        "a list of lengths.",
    )

    @property
    def carries(self) -> bool:
        """Whether the served model carries its state between steps; else its window is slid.

        What learns at a window's end alone has never seen its state carried further, and does not unless it is told to.
        """
        return not self.bidirectional and (self.output != "vector" if self.carry is None else self.carry)

    @property
    def summary(self) -> str:
        """The recurrent layers in words, such as `bidirectional GRU of 32 and 32 units`."""
        units = " and ".join(str(units) for units in self.layers)
        return f"{'bidirectional' if self.bidirectional else 'stacked'} {_IN_WORDS[self.cell]} of {units} units"

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.bidirectional and self.carry:
            raise _contradiction(
                "network.carry",
                "a bidirectional network reads its window from both ends and cannot carry a state: leave carry away, "
                "or make it false",
            )
        if self.bidirectional and self.output == "sequence":
            raise _contradiction(
                "network.output",
                "at each step of a sequence a bidirectional network has already read the next one: may be 'vector' or "
                "'horizon' with network.bidirectional",
            )
        if self.output != "horizon" and self.horizon is not None:
            raise _contradiction("network.horizon", "goes with network.output = 'horizon' alone: leave it away")
        if self.output != "horizon" and self.decoder:
            raise _contradiction("network.decoder", "goes with network.output = 'horizon' alone: leave it away")
        if self.scaling == "season" and (self.lags == "found" or not self.lags):
            raise _contradiction(
                "network.scaling",
                "'season' goes with network.lags of 'season' or a list of lengths, the first of which is the season",
            )
        if self.lags == "found" and self.head == "plain":
            raise _contradiction(
                "network.lags",
                "'found' goes with network.head = 'references' alone: may be 'season' or a list of lengths",
            )
        return self


class Fitting(_Section):
    """How the network is fitted."""

    epochs: Positive = 60
    steps_per_epoch: Positive | None = Field(default=None, description="Batches an epoch; derived from the data.")
    batch_size: Positive = 32
    lengths: Literal["equal", "mixed"] = Field(
        default="equal",
        description="Of the windows in a batch; `mixed`: each has a context of its own, padded in front and masked.",
    )
    optimiser: Literal["adam", "sgd"] = "adam"
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="Of optimiser `sgd`; 0.9 where not given."
    )
    learning_rate: Rate | Literal["auto"] = Field(
        default=2e-3, description="The highest that is reached; `auto`: what a sweep of rates over the data suggests."
    )
    clip_norm: float = Field(default=1.0, ge=0, description="Largest global norm of a gradient; 0 = any.")
    clip_value: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Largest size of each number of a gradient, with clip_norm = 0; any where not given."
    )
    patience: Positive = Field(default=8, description="Epochs without improvement on validation before stopping.")
    loss: Literal["huber", "mae", "mse", "pinball"] = Field(
        default="huber", description="Of errors in units of the scale."
    )
    huber_delta: float = Field(default=0.1, gt=0, description="Scaled error from which the Huber loss is linear.")
    quantile: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Share of observations that loss `pinball` puts below the forecast."
    )
    iterated: bool = Field(
        default=True, description="Whether forecasts fed back are learnt from too, where the state is carried."
    )
    warm_up: int = Field(default=100, ge=0, description="Batches over which the learning rate rises to its value.")
    closing_epochs: int = Field(
        default=0,
        ge=0,
        description="Epochs that follow on the training and validation parts together, from the weights that were "
        "kept. The errors by which intervals are made are those from before.",
    )
    average: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Share that each batch keeps of a running average of the weights, which is then what is judged and "
        "served; none where not given.",
    )

    @property
    def rate(self) -> float:
        """The learning rate as a number; ValueError for `auto`, which the sweep has to replace first."""
        return float(self.learning_rate)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.loss == "pinball" and self.quantile is None:
            raise _contradiction("fitting.quantile", "loss 'pinball' needs one: may be a number between 0 and 1")
        if self.loss != "pinball" and self.quantile is not None:
            raise _contradiction("fitting.quantile", "goes with fitting.loss = 'pinball' alone: leave it away")
        if self.optimiser != "sgd" and self.momentum is not None:
            raise _contradiction("fitting.momentum", "goes with fitting.optimiser = 'sgd' alone: leave it away")
        if self.clip_value is not None and self.clip_norm > 0:
            raise _contradiction(
                "fitting.clip_value", "a gradient is clipped in one way: leave it away, or set fitting.clip_norm to 0"
            )
        return self


class Ensembling(_Section):
    """How many networks the artifact holds, and how their forecasts become one."""

    seeds: Positive = Field(default=1, description="Networks fitted, from `seed` and as many seeds after it.")
    checkpoints: Positive = Field(
        default=1, description="Epochs of each seed whose weights are members, those of least validation loss."
    )
    combine: Combine = Field(default="mean", description="Of the members' forecasts, at each step.")
    autoregression: Annotated[int, Field(ge=2, le=LONGEST_CONTEXT)] | None = Field(
        default=None,
        description="With network.output `horizon`: steps that a linear autoregression sees, which is fitted by least "
        "squares, and whose forecasts and those of the networks are averaged; none where not given.",
    )


class Tuning(_Section):
    """Among which networks and ways of fitting `tune` looks for the best; `fit` takes no notice of it."""

    width: tuple[Positive, ...] = Field(default=(32, 64, 128), min_length=1, description="Units of every layer.")
    depth: tuple[Positive, ...] = Field(default=(1, 2, 3), min_length=1, description="Numbers of layers.")
    context_length: tuple[Annotated[int, Field(ge=1, le=LONGEST_CONTEXT)], ...] | None = Field(
        default=None,
        min_length=1,
        description="Where not given: that of the network, half of it, and twice it, as far as the series are long "
        "enough.",
    )
    learning_rate: tuple[Rate, Rate] = Field(default=(3e-4, 1e-2), description="The lowest and the highest.")
    loss: tuple[Literal["huber", "mae", "mse"], ...] | None = Field(
        default=None, min_length=1, description="Where not given: all three; with fitting.loss `pinball` that alone."
    )
    cell: tuple[Cell, ...] | None = Field(
        default=None, min_length=1, description="Where not given: that of the network alone."
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.learning_rate[0] > self.learning_rate[1]:
            raise _contradiction("tune.learning_rate", "the first number is the lowest rate, the second the highest")
        return self


class Config(_Section):
    """Everything that decides what a training run produces."""

    name: ModelName = "default"
    description: str = Field(default="", max_length=2000)
    seed: int = Field(default=0, ge=0, lt=2**31)
    data: Data = Data()
    network: Network = Network()
    fitting: Fitting = Fitting()
    ensemble: Ensembling = Ensembling()
    tune: Tuning = Field(default=Tuning(), exclude=True)  # no part of what a run produces

    @property
    def seeds(self) -> range:
        """The seeds of the networks that are fitted."""
        return range(self.seed, self.seed + self.ensemble.seeds)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        epochs = min(self.fitting.epochs, self.fitting.patience + 1)
        if self.ensemble.checkpoints > epochs:
            raise _contradiction(
                "ensemble.checkpoints",
                f"fitting may stop after {epochs} epochs (fitting.epochs, fitting.patience) and has no more to take: "
                f"may be at most {epochs}",
            )
        if self.fitting.closing_epochs and self.ensemble.checkpoints > 1:
            raise _contradiction(
                "fitting.closing_epochs",
                "they go on from one epoch of each seed: leave them away, or ensemble.checkpoints",
            )
        if self.ensemble.autoregression is not None and self.network.output != "horizon":
            raise _contradiction("ensemble.autoregression", "goes with network.output = 'horizon' alone: leave it away")
        if (self.ensemble.autoregression or 0) > self.network.context_length:
            raise _contradiction(
                "ensemble.autoregression",
                f"it would see more steps than the networks are given (network.context_length): may be at most "
                f"{self.network.context_length}",
            )
        if min(self.tune.context_length or (LONGEST_CONTEXT,)) < (self.ensemble.autoregression or 1):
            raise _contradiction(
                "tune.context_length",
                f"the linear autoregression would see more steps (ensemble.autoregression): may be at least "
                f"{self.ensemble.autoregression}",
            )
        if self.fitting.loss == "pinball" and self.tune.loss is not None:
            raise _contradiction(
                "tune.loss", "with fitting.loss = 'pinball' a quantile is fitted, and no other loss does: leave it away"
            )
        if self.network.output == "vector" and self.network.carry and not self.fitting.iterated:
            raise _contradiction(
                "network.carry",
                "with network.output = 'vector' a state is carried well only where iterated forecasts are learnt from: "
                "leave carry away, or fitting.iterated",
            )
        if self.network.output == "horizon" and (self.data.calendar or self.data.exogenous):
            raise _contradiction(
                "network.output",
                "'horizon' forecasts all steps before it is told what is known of them: may be 'sequence' or 'vector' "
                "with data.calendar or data.exogenous",
            )
        horizon = self.network.horizon
        if horizon is not None and horizon != self.data.horizon:
            raise _contradiction(
                "network.horizon",
                "the horizon given at once must be the one that is scored: leave it away, or give data.horizon the "
                "same number",
            )
        return self


def read_config(file: Path | None, overrides: Mapping[str, Mapping[str, Any] | Any]) -> Config:
    """Read a TOML file of sections such as `[data]` or `[network]`, and lay the command line's values over it.

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
        raise ConfigError(_in_words(error.errors(include_url=False, include_input=False), overrides)) from None


def _contradiction(key: str, message: str) -> PydanticCustomError:
    """What two keys say against each other, told under the first one's name."""
    return PydanticCustomError("contradiction", "{message}", {"key": key, "message": message})


def _in_words(faults: list[ErrorDetails], overrides: Mapping[str, Any]) -> str:
    first = faults[0]
    if first["type"] == "contradiction":
        return f"configuration key {first['ctx']['key']}: {first['ctx']['message']}"
    place, section = _key(first["loc"])
    if (place, first["type"]) == ("name", "string_pattern_mismatch"):
        source = "configuration key name" if overrides.get("name") is None else "--name"
        return f"{source}: {_LEGAL_NAME}"
    if first["type"] == "extra_forbidden":
        return f"configuration key {place}: there is no such key; there may be {', '.join(section.model_fields)}"
    # A key that may hold several kinds of things has a fault for each of them.
    told = dict.fromkeys(fault["msg"] for fault in faults if _key(fault["loc"])[0] == place)
    return f"configuration key {place}: {'; or '.join(told)}"


def _key(location: tuple[int | str, ...]) -> tuple[str, type[BaseModel]]:
    """The name of the key that a fault lies in, without what lies inside its value, and the section around it."""
    section: type[BaseModel] = Config
    parts: list[str] = []
    for part in location:
        parts.append(str(part))
        field = section.model_fields.get(str(part))
        inner = None if field is None else _section(field.annotation)
        if inner is None:
            break
        section = inner
    return ".".join(parts), section


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, where it holds one."""
    found = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in found if issubclass(kind, BaseModel)), None)

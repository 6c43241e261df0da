"""Requests and answers of the native protocol, as pydantic models.

Requests are validated once, straight from their bytes. Numbers are strict: no booleans, no text, no NaN or infinity,
and nothing that 32-bit floats cannot hold. A field that is not sent is left out, not null. Of a name that an object
holds twice, the last counts, as in Python's own `json`.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from service.artifact import VERSION_PATTERN, Backtest, Frequency, Metadata, ModelName, Provenance
from service.intervals import highest_level
from service.settings import WINDOWS_CEILING
from service.timestamps import LONGEST_ORIGIN

LARGEST_NUMBER: Final = 3e38
"""A little below the largest 32-bit float, 3.4e38."""

# Labels of the two kinds of window, of future and of origin, by which faults tell which kind was meant.
NUMBERS: Final = "numbers"
ROWS: Final = "rows"
ONE: Final = "one"
EACH: Final = "each"

# Kinds of fault beside pydantic's own.
ONE_OF: Final = "one_of"
NULL: Final = "null"
REPEATED: Final = "repeated"

FAULTS_AT_MOST: Final = 20
MOST_LEVELS: Final = 10
MOST_SAMPLES: Final = 1000
LARGEST_SEED: Final = 2**53 - 1

Number = Annotated[float, Field(strict=True, ge=-LARGEST_NUMBER, le=LARGEST_NUMBER, allow_inf_nan=False)]
# The first fault of a window is enough: without `fail_fast` a body of millions of faults takes seconds to refuse.
Numbers = Annotated[list[Number], Field(min_length=1, fail_fast=True, title="Numbers")]
Rows = Annotated[list[Numbers], Field(min_length=1, fail_fast=True, title="Rows")]
# From left to right, so that a list of numbers is known as one by its first element, without a second reading.
Window = Annotated[
    Annotated[Numbers, Tag(NUMBERS)] | Annotated[Rows, Tag(ROWS)], Field(union_mode="left_to_right", title="Window")
]
Future = Annotated[
    Annotated[Numbers, Tag(NUMBERS)] | Annotated[Rows, Tag(ROWS)], Field(union_mode="left_to_right", title="Future")
]
_VERSION_OR_LABEL: Final = f"{VERSION_PATTERN}|^(stable|canary|shadow)$"
Level = Annotated[float, Field(strict=True, gt=0, lt=100, allow_inf_nan=False)]
OriginText = Annotated[str, Field(max_length=LONGEST_ORIGIN)]


def _without_repeats(levels: list[float]) -> list[float]:
    if len(set(levels)) != len(levels):
        raise PydanticCustomError(REPEATED, "levels repeat")
    return levels


def _absent_not_null(schema: dict[str, Any]) -> None:
    """Describe a field that is left out, and never null, where it has nothing to say."""
    del schema["default"]
    kinds = [kind for kind in schema.pop("anyOf") if kind != {"type": "null"}]
    schema |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


Basis = Literal["window", "artifact"]
_BASIS: Final = (
    "`window`: errors of forecasts from earlier origins in the window itself; `artifact`: errors that the model's file "
    "holds, from data that it was not fitted on."
)


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ForecastRequest(_Payload):
    """What to forecast from: exactly one of `window` and `windows`."""

    model_config = ConfigDict(
        strict=True, json_schema_extra={"oneOf": [{"required": ["window"]}, {"required": ["windows"]}]}
    )

    window: Window | None = Field(
        default=None,
        json_schema_extra=_absent_not_null,
        description="The past observations, oldest first, none left out: numbers for one feature, or one row of "
        "numbers per step for several, in the order of the model's `features` and, behind them, its `exogenous` "
        "columns. Send as much as there is: of a window longer than the model's context length the end is used.",
        examples=[[20.7, 17.9, 18.8, 14.6, 15.8], [[1194, 16.4], [1094, 14.6], [1120, 15.0]]],
    )
    windows: Annotated[list[Window], Field(min_length=1, max_length=WINDOWS_CEILING)] | None = Field(
        default=None,
        json_schema_extra=_absent_not_null,
        description="Several windows, each forecast for itself; their lengths may differ.",
        examples=[[[20.7, 17.9, 18.8], [3.1, 3.4, 3.3, 3.6]]],
    )
    future: Future | None = Field(
        default=None,
        json_schema_extra=_absent_not_null,
        description="With `window`, for a model that has `exogenous` columns, and only for such: what they will be at "
        "each step that is forecast, numbers for one column or rows of numbers.",
        examples=[[1, 0, 0], [[9.5, 1], [9.5, 0], [11, 0]]],
    )
    futures: Annotated[list[Future], Field(min_length=1, max_length=WINDOWS_CEILING)] | None = Field(
        default=None,
        json_schema_extra=_absent_not_null,
        description="With `windows`: a `future` for each of them.",
        examples=[[[1, 0, 0], [0, 0, 1]]],
    )
    model: ModelName | None = Field(
        default=None,
        json_schema_extra=_absent_not_null,
        description="The model's name; without it, the service's default model.",
        examples=["default"],
    )
    version: Annotated[str, Field(pattern=_VERSION_OR_LABEL)] | None = Field(
        default=None,
        json_schema_extra=_absent_not_null,
        description="The model's version: its number, or the label `stable`, `canary` or `shadow` where one has it. "
        "Without it, the stable version answers, or a share of the requests its canary.",
        examples=["1", "canary"],
    )
    origin: Annotated[OriginText, Tag(ONE)] | Annotated[list[OriginText], Field(fail_fast=True), Tag(EACH)] | None = (
        Field(
            default=None,
            json_schema_extra=_absent_not_null,
            description="When the window's last observation was made, in ISO 8601: a date, a local time, a time with "
            "an offset or Z, or with a time zone in brackets. The answer then has timestamps, in the same form. With "
            "`windows`, one text holds for all of them, and a list has one text for each. A model that reads the "
            "`calendar` cannot do without: send the time that the clock showed of which its table told.",
            examples=["2024-03-30T12:00:00+01:00[Europe/Berlin]", ["2024-03-30", "2024-06-30"]],
        )
    )
    frequency: Frequency | None = Field(
        default=None,
        json_schema_extra=_absent_not_null,
        description="The spacing of the timestamps: s, min, h, D, W, M, Q or Y, or a multiple such as 15min. Without "
        "it, the model's own frequency, which a model that reads the `calendar` has to keep.",
        examples=["h", "15min", "D", "M"],
    )
    levels: (
        Annotated[
            list[Level],
            Field(min_length=1, max_length=MOST_LEVELS, fail_fast=True, json_schema_extra={"uniqueItems": True}),
            AfterValidator(_without_repeats),
        ]
        | None
    ) = Field(
        default=None,
        json_schema_extra=_absent_not_null,
        description="Nominal coverages, in percent, of intervals around each step: how many of 100 such intervals are "
        "to hold what comes. They rest on the errors of forecasts from the window's own past, where it goes back far "
        "enough beyond the model's context length, and else on errors that the model's file holds.",
        examples=[[80, 95]],
    )
    samples: int | None = Field(
        default=None,
        ge=1,
        le=MOST_SAMPLES,
        json_schema_extra=_absent_not_null,
        description="How many futures to draw, each a whole path over the horizon, so that sums and other figures over "
        "several steps can be taken of each.",
        examples=[100],
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=LARGEST_SEED,
        json_schema_extra=_absent_not_null,
        description="With `samples`: the same seed draws the same futures again.",
        examples=[1],
    )

    @model_validator(mode="after")
    def _say_one_thing(self) -> Self:
        for name in self.model_fields_set:
            if getattr(self, name) is None:
                raise PydanticCustomError(NULL, "{field} must not be null", {"field": name})
        if (self.window is None) == (self.windows is None):
            raise PydanticCustomError(ONE_OF, "must hold exactly one of window and windows")
        return self


class MultiStepRequest(ForecastRequest):
    """What to forecast from, and how many steps ahead."""

    horizon: int = Field(ge=1, description="How many steps to forecast.", examples=[24])


class Interval(_Payload):
    """Where each step will lie with a certain coverage."""

    level: float = Field(description="The nominal coverage in percent, as asked for.", examples=[80])
    lower: list[float] | list[list[float]] = Field(
        description="The lower bound of each step, in the shape of `values`.", examples=[[14.1, 13.9, 13.6]]
    )
    upper: list[float] | list[list[float]] = Field(
        description="The upper bound of each step, in the shape of `values`.", examples=[[17.8, 18.4, 18.7]]
    )
    basis: Basis = Field(description=_BASIS, examples=["window"])
    errors: int = Field(ge=1, description="How many errors of each lead time it rests on.", examples=[200])


class Samples(_Payload):
    """What the sampled futures rest on."""

    basis: Basis = Field(description=_BASIS, examples=["window"])
    errors: int = Field(ge=1, description="How many paths of errors they were drawn from.", examples=[200])


class Forecast(_Payload):
    """The forecast of one window."""

    values: list[float] | list[list[float]] = Field(
        description="The forecast steps in order: numbers where the window was numbers, rows where it was rows.",
        examples=[[15.9, 16.2, 16.1]],
    )
    timestamps: list[str] | None = Field(
        default=None,
        description="The time of each step, in the form of the origin; only where an origin was sent.",
        examples=[["2024-03-31", "2024-04-01", "2024-04-02"]],
        json_schema_extra=_absent_not_null,
    )
    intervals: list[Interval] | None = Field(
        default=None,
        description="An interval for each level, in their order; only where `levels` were sent. That of a higher level "
        "holds that of a lower one, and each holds the forecast, except that none goes below zero where the model says "
        "that nothing does.",
        json_schema_extra=_absent_not_null,
    )
    samples: list[list[float]] | list[list[list[float]]] | None = Field(
        default=None,
        description="Sampled futures, each over the whole horizon and in the shape of `values`; only where they were "
        "asked for.",
        examples=[[[15.1, 15.7, 14.9], [16.4, 17.0, 17.3]]],
        json_schema_extra=_absent_not_null,
    )
    samples_from: Samples | None = Field(
        default=None, description="What the sampled futures rest on.", json_schema_extra=_absent_not_null
    )


class ForecastAnswer(_Payload):
    """The forecasts of all windows of a request, in the order of the windows."""

    model: str = Field(description="The model that answered.", examples=["default"])
    version: str = Field(description="Its version.", examples=["1"])
    horizon: int = Field(description="How many steps each forecast has.", examples=[3])
    forecasts: list[Forecast] = Field(description="One forecast for each window.")


class ErrorTableSize(_Payload):
    """How large a model's table of held-out errors is; the table itself stays in the artifact."""

    origins: int = Field(description="Origins that the errors were taken from.", examples=[200])
    lead_times: int = Field(description="Lead times that it covers.", examples=[48])
    errors: int = Field(description="Errors in it, over all features and lead times.", examples=[9600])
    highest_level: float = Field(description="The highest level of intervals that it supports.", examples=[99])
    paths: bool = Field(description="Whether futures can be sampled from it.")


class VersionFacts(_Payload):
    """What one version of a model says of itself."""

    model: str = Field(description="The model's name, as requests give it.", examples=["default"])
    version: str = Field(description="The version, as requests give it.", examples=["1"])
    digest: str = Field(description="The artifact's SHA-256 digest.", examples=["sha256:9f86d081884c7d65…"])
    description: str = Field(description="What the model is, in words.")
    context_length: int = Field(description="Steps of a window that are used; of longer ones, the end.", examples=[192])
    minimum_window: int = Field(description="The shortest window accepted, in steps.", examples=[2])
    features: list[str] = Field(description="The features of a row, in order.", examples=[["value"]])
    exogenous: list[str] = Field(
        description="Columns that follow the features in the rows of a window, and that `future` tells of each step to "
        "be forecast, in order.",
        examples=[[], ["price", "promotion"]],
    )
    calendar: list[str] = Field(
        description="What the model reads of the calendar: `hour`, `weekday`, `day_of_month`, `month`, `day_of_year`. "
        "Where it reads any, requests need an `origin`.",
        examples=[[], ["hour", "weekday"]],
    )
    frequency: str | None = Field(description="The spacing of observations it was made for; null = any.")
    season_length: int | None = Field(description="Steps in a season; null = none known.")
    non_negative: bool = Field(description="Whether no observation, and so no interval, goes below zero.")
    logarithms: bool = Field(
        description="Whether errors are of logarithms: intervals then widen as the forecast grows, and shrink with it."
    )
    error_inflation: float = Field(
        description="How many times as large as they were errors of a window's own past are taken for, in intervals: "
        "the model may have been fitted on that past.",
        examples=[1.0],
    )
    carries_state: bool = Field(
        description="Whether steps are decoded from a carried state; otherwise the window is slid."
    )
    training: Provenance = Field(description="How the model came to be.")
    backtest: Backtest | None = Field(description="Scores beside the naive references on the same origins.")
    error_table: ErrorTableSize | None = Field(description="How many held-out errors the artifact carries.")

    @classmethod
    def of(cls, *, model: str, version: str, digest: str, metadata: Metadata) -> Self:
        """The facts of an artifact that is served under the name `model` and `version`."""
        return cls(
            model=model,
            version=version,
            digest=digest,
            description=metadata.description,
            context_length=metadata.context_length,
            minimum_window=metadata.minimum_window,
            features=list(metadata.features),
            exogenous=list(metadata.exogenous),
            calendar=list(metadata.calendar),
            frequency=metadata.frequency,
            season_length=metadata.season_length,
            non_negative=metadata.non_negative,
            logarithms=metadata.logarithms,
            error_inflation=metadata.error_inflation,
            carries_state=metadata.state_size > 0,
            training=metadata.training,
            backtest=metadata.backtest,
            error_table=_size_of_errors(metadata),
        )


class BesideFacts(_Payload):
    """A version that takes part in a share of the requests that name none."""

    version: str = Field(description="The version.", examples=["4"])
    share: float = Field(description="The share of requests, 0 to 1.", examples=[0.05])


class ModelFacts(_Payload):
    """One model, its versions, and which of them answers what."""

    model: str = Field(description="The model's name.", examples=["default"])
    stable: str = Field(description="The version that answers requests that name none.", examples=["3"])
    canary: BesideFacts | None = Field(
        description="The version that answers a share of them in its place; null = none."
    )
    shadow: BesideFacts | None = Field(
        description="The version that forecasts a share of them as well, for comparison alone; null = none."
    )
    versions: list[VersionFacts] = Field(
        description="Its versions, newest first: the last few, and those that have a label."
    )


class RejectedFile(_Payload):
    """A file in the models' folder that is not served, or labels that are not heeded."""

    place: str = Field(
        description="Where it lies in that folder: the model and the version, or the model and its `labels.toml`.",
        examples=["hourly/2", "hourly/labels.toml"],
    )
    reason: str = Field(description="Why it is not, in one line, and the mend where there is one.")


class ModelList(_Payload):
    """Every model that is served."""

    default: str = Field(description="The model of requests that name none.", examples=["default"])
    models: list[ModelFacts] = Field(description="The models, by name.")
    rejected: list[RejectedFile] = Field(description="Files that are not served or heeded, with the reasons.")


class Health(_Payload):
    """The state of the service."""

    status: str = Field(description="`live` or `ready`.", examples=["ready"])


class FaultEntry(_Payload):
    """One thing that is wrong with a request."""

    pointer: str = Field(
        description="Where: a JSON pointer (RFC 6901) into the body; empty for the whole body.",
        examples=["/windows/3/17"],
    )
    message: str = Field(
        description="What must be there.",
        examples=["must be a number: text, true, false, null, lists and objects are not"],
    )


class Problem(_Payload):
    """A problem document (RFC 9457): why a request was not answered."""

    type: str = Field(
        description="The kind of problem: a reference that can be read.", examples=["/problems/not-found"]
    )
    title: str = Field(description="The kind in words, always the same for a type.", examples=["Not found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(
        description="This occurrence in words.", examples=["there is no such model; there are: default"]
    )
    errors: list[FaultEntry] | None = Field(
        default=None,
        description=f"What is wrong with the body, place by place: at most {FAULTS_AT_MOST} of them; only with 422.",
        json_schema_extra=_absent_not_null,
    )


class ProblemKind(_Payload):
    """One kind of problem, explained."""

    type: str = Field(description="The reference that problem documents carry.", examples=["/problems/not-found"])
    title: str = Field(description="The kind in words.", examples=["Not found"])
    status: int = Field(description="The HTTP status that goes with it.", examples=[404])
    meaning: str = Field(description="When it is answered, and what to do.")


def _size_of_errors(metadata: Metadata) -> ErrorTableSize | None:
    table = metadata.errors
    if table is None:
        return None
    return ErrorTableSize(
        origins=table.origins,
        lead_times=len(table.errors[0]),
        errors=table.array.size,
        highest_level=highest_level(len(table.array)),
        paths=table.paths,
    )

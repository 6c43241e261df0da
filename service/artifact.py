"""The artifact contract, version 1: what one self-describing `model.onnx` holds.

Everything that a forecast needs is inside the graph, in raw units; the service knows no model internals.

    tensor          dtype, shape                      meaning
    in  values      float32 (batch, time, features)   observations: a whole window at prefill, one step at decode
    in  state       float32 (batch, state_size)       opaque row per sequence; all zeros = fresh
    in  known       float32 (batch, time, known)      what is known beforehand of the step that follows each value
    out forecast    float32 (batch, features)         the next step, raw units
    out next_state  float32 (batch, state_size)       to pass with the next value
    out scale       float32 (batch, features)         the window's scale, by which `errors` are normalised

A graph with neither `state` nor `next_state` is legal: its window is slid instead. `scale` may be missing from a graph
whose metadata has no `errors`. `known` is there where the metadata name `calendar` fields or `exogenous` columns: at
time t it holds, in raw units, the numbers of `service.calendar` and then the exogenous values of the step that is
forecast once `values` has been read up to t. The metadata is JSON in the ONNX `metadata_props` under `METADATA_KEY`.

This module is the contract's only definition: the service owns it, the training package conforms. It imports neither
onnxruntime nor anything of HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from service.calendar import CalendarField
from service.errors import ArtifactError

CONTRACT_VERSION: Final = 1
METADATA_KEY: Final = "leadtime"
LONGEST_CONTEXT: Final = 65536
MOST_INFLATED: Final = 3.0
"""How many times as large as they were the errors of a window's own past are taken for at most."""
FILE_NAME: Final = "model.onnx"
DIGEST_NAME: Final = f"{FILE_NAME}.sha256"
"""The file beside it that holds its digest, as `sha256sum` writes it."""
SIGNATURE_NAME: Final = f"{FILE_NAME}.sig"
"""The file beside it that holds its signature, as `python -m service sign` writes it."""

VALUES: Final = "values"
STATE: Final = "state"
KNOWN: Final = "known"
FORECAST: Final = "forecast"
NEXT_STATE: Final = "next_state"
SCALE: Final = "scale"

MODEL_NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
VERSION_PATTERN: Final = r"^[1-9][0-9]{0,8}$"
FREQUENCY_PATTERN: Final = r"^([1-9][0-9]{0,3})?(s|min|h|D|W|M|Q|Y)$"

_FLOAT: Final = "float32"
_LARGEST: Final = 3e38  # a little below the largest 32-bit float

Name = TypeVar("Name", bound=str)


def _without_repeats(names: tuple[Name, ...]) -> tuple[Name, ...]:
    if len(set(names)) != len(names):
        raise ValueError("names repeat")
    return names


ModelName = Annotated[str, Field(pattern=MODEL_NAME_PATTERN, examples=["default"])]
Version = Annotated[str, Field(pattern=VERSION_PATTERN, examples=["1"])]
Frequency = Annotated[str, Field(pattern=FREQUENCY_PATTERN, examples=["h", "15min", "D", "M"])]
FeatureNames = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_without_repeats)]
ExogenousNames = Annotated[tuple[str, ...], AfterValidator(_without_repeats)]
CalendarFields = Annotated[tuple[CalendarField, ...], AfterValidator(_without_repeats)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Steps = Annotated[tuple[tuple[Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)], ...], ...], Field(min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scores(_Record):
    """Errors of one method over all origins, lead times, features and series, each point with the same weight.

    MASE divides by the mean absolute one-season difference before the test part (Hyndman & Koehler 2006), sMAPE is
    M4's, in percent. Either is None where its divisor is zero.
    """

    mae: NotNegative
    rmse: NotNegative
    smape: NotNegative | None
    mase: NotNegative | None


class Backtest(_Record):
    """Scores on rolling origins of the test part, which fitting never saw, beside references on the same origins."""

    horizon: int = Field(ge=1, description="Lead times scored.")
    origins: int = Field(ge=1, description="Forecast origins, summed over all series.")
    first_origin: str | None = Field(default=None, description="ISO 8601; None where the data has no time column.")
    last_origin: str | None = None
    one_step: dict[str, Scores] = Field(description="Scores at lead time 1, by method.")
    multi_step: dict[str, Scores] = Field(description="Scores over all lead times, by method.")
    mae_by_lead_time: dict[str, tuple[NotNegative, ...]] = Field(description="MAE at each lead time, by method.")
    verdict: str = Field(description="In plain words, whether the model beats the better naive reference.")


class ErrorTable(_Record):
    """Held-out errors for intervals: signed, actual minus forecast, divided by the window's `scale`.

    Where the metadata say `logarithms`, they are the logarithm of actual over forecast, divided so.

    `errors[feature][lead time − 1]` is a tuple of equal length for every feature and lead time. Where `paths` is true,
    its places are origins: those of one place, over all features and lead times, were made by one forecast. Otherwise
    each tuple is sorted for itself.
    """

    origins: int = Field(ge=1, description="Origins that the errors were taken from.")
    errors: tuple[tuple[tuple[Finite, ...], ...], ...]
    paths: bool = Field(default=False, description="Whether a place is one origin at all lead times.")

    @cached_property
    def array(self) -> npt.NDArray[np.float64]:
        """The errors as (errors, lead times, features)."""
        return np.ascontiguousarray(np.array(self.errors, np.float64).transpose(2, 1, 0))

    @cached_property
    def ranked(self) -> npt.NDArray[np.float64]:
        """The errors as (errors, lead times, features), each lead time and feature sorted for itself."""
        return np.sort(self.array, axis=0)


class Member(_Record):
    """One of several networks whose forecasts are combined, and how it does alone."""

    seed: int = Field(ge=0, description="Number that all its randomness came from.")
    epoch: int = Field(ge=1, description="Whose weights it has.")
    validation_loss: float | None = Field(description="As fitting judged it; None where it was no number.")
    one_step: Scores
    multi_step: Scores


class Provenance(_Record):
    """How the model came to be."""

    created: str = Field(description="ISO 8601, UTC.")
    data: str = Field(description="What it was fitted on, in words.")
    data_digest: str | None = Field(default=None, description="`sha256:…` of the observations.")
    series: int = Field(ge=1, description="Series fitted on.")
    observations: int = Field(ge=1, description="Observations fitted on.")
    configuration: dict[str, object] = Field(description="The whole training configuration, seed included.")
    libraries: dict[str, str] = Field(description="Versions of the libraries that made the file.")
    validation_loss: float | None = Field(default=None, description="Of the model, as fitting judges it.")
    members: tuple[Member, ...] = Field(default=(), description="The networks that it is of, where they are several.")


class Trial(_Record):
    """A window, and the forecast of it that the graph gave when the file was made, and has to give wherever it is.

    Steps are rows, in raw units; a number counts as the 32-bit float that is nearest.
    """

    window: Steps = Field(description="(time, features)")
    known: Steps | None = Field(default=None, description="(time + horizon - 1, known), where the graph takes it.")
    forecast: Steps = Field(description="(horizon, features), each step fed back.")

    @property
    def window_array(self) -> npt.NDArray[np.float32]:
        """(time, features)"""
        return np.array(self.window, np.float32)

    @property
    def known_array(self) -> npt.NDArray[np.float32]:
        """(time + horizon - 1, known)"""
        return np.array(self.known, np.float32)

    @property
    def forecast_array(self) -> npt.NDArray[np.float32]:
        """(horizon, features)"""
        return np.array(self.forecast, np.float32)


class Range(_Record):
    """The smallest and the largest value of one feature, in raw units."""

    low: Finite
    high: Finite


class Metadata(_Record):
    """What an artifact says of itself."""

    contract: Literal[1] = CONTRACT_VERSION
    name: ModelName
    version: Version
    description: str = Field(max_length=2000)
    context_length: int = Field(
        ge=1, le=LONGEST_CONTEXT, description="Steps of a window that are used; of longer ones, the end."
    )
    minimum_window: int = Field(ge=1, description="The shortest window accepted, in steps.")
    features: FeatureNames
    state_size: int = Field(ge=0, description="Floats carried per sequence; 0 = the window is slid instead.")
    frequency: Frequency | None = Field(description="Spacing of observations; None = any.")
    season_length: int | None = Field(ge=2, description="Steps in a season; None = none known.")
    non_negative: bool = Field(default=False, description="Whether no observation can be below zero.")
    logarithms: bool = Field(
        default=False, description="Whether errors, and the scale that they are divided by, are of logarithms."
    )
    error_inflation: float = Field(
        default=1.0,
        ge=1.0,
        le=MOST_INFLATED,
        allow_inf_nan=False,
        description="How many times as large as in a window's own past errors are to be taken for: the past may have "
        "been fitted on, and what follows has not.",
    )
    calendar: CalendarFields = Field(
        default=(), description="What the model reads of the calendar of each step: see `service.calendar`."
    )
    exogenous: ExogenousNames = Field(
        default=(), description="Columns beside the features that are given, also for the steps to be forecast."
    )
    ranges: tuple[Range, ...] | None = Field(
        default=None, description="What each feature ranged over in what it was fitted on; None = nothing to compare."
    )
    training: Provenance
    backtest: Backtest | None = None
    errors: ErrorTable | None = None
    trial: Trial | None = Field(default=None, description="What a sound copy of the file computes.")

    @property
    def known(self) -> int:
        """Numbers that are known of each step beforehand."""
        return len(self.calendar) + len(self.exogenous)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a graph; a dimension is a number, or None where it is free."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join('any' if size is None else str(size) for size in self.shape)})"


def read_metadata(properties: Mapping[str, str]) -> Metadata:
    """Read the metadata of an artifact from its ONNX `metadata_props`.

    Raises:
        ArtifactError: there is none, it is of another contract version, or a field is missing or wrong.
    """
    if METADATA_KEY not in properties:
        raise ArtifactError(
            f"it has no metadata under the key {METADATA_KEY!r}: write it with `python -m training fit`, or add the "
            f"contract's metadata to it"
        )
    try:
        metadata = Metadata.model_validate_json(properties[METADATA_KEY])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        if place == "contract":
            raise ArtifactError(f"this service reads contract version {CONTRACT_VERSION} only") from None
        raise ArtifactError(f"its metadata is wrong at {place}: {first['msg']}") from None
    _check_consistency(metadata)
    return metadata


def check_graph(metadata: Metadata, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Check that a graph's inputs and outputs are those that its metadata promises.

    Raises:
        ArtifactError: naming every tensor that is missing, unknown, or of another type or shape.
    """
    features = len(metadata.features)
    wanted_inputs = {VALUES: Tensor(VALUES, _FLOAT, (None, None, features))}
    wanted_outputs = {FORECAST: Tensor(FORECAST, _FLOAT, (None, features))}
    scale = Tensor(SCALE, _FLOAT, (None, features))
    if metadata.errors is not None or any(tensor.name == SCALE for tensor in outputs):
        wanted_outputs[SCALE] = scale
    if metadata.state_size:
        wanted_inputs[STATE] = Tensor(STATE, _FLOAT, (None, metadata.state_size))
        wanted_outputs[NEXT_STATE] = Tensor(NEXT_STATE, _FLOAT, (None, metadata.state_size))
    if metadata.known:
        wanted_inputs[KNOWN] = Tensor(KNOWN, _FLOAT, (None, None, metadata.known))
    faults = _differences("input", wanted_inputs, inputs) + _differences("output", wanted_outputs, outputs)
    if faults:
        raise ArtifactError("its graph is not what its metadata promises: " + "; ".join(faults))


def _differences(kind: str, wanted: Mapping[str, Tensor], found: Sequence[Tensor]) -> list[str]:
    present = {tensor.name: tensor for tensor in found}
    faults = [f"{kind} {name!r} is missing" for name in wanted if name not in present]
    faults += [f"{kind} {name!r} is not in the contract" for name in present if name not in wanted]
    for name, want in wanted.items():
        have = present.get(name)
        if have is not None and not _fits(want, have):
            faults.append(f"{kind} {name!r} is {have}, but must be {want}")
    return faults


def _fits(want: Tensor, have: Tensor) -> bool:
    """Free dimensions must be free; fixed ones must be equal, or left free by the graph."""
    if have.dtype != want.dtype or len(have.shape) != len(want.shape):
        return False
    return all(have_size is None or have_size == size for size, have_size in zip(want.shape, have.shape, strict=True))


def _check_consistency(metadata: Metadata) -> None:
    if metadata.minimum_window > metadata.context_length:
        raise ArtifactError(
            f"its metadata contradicts itself: minimum_window {metadata.minimum_window} is above context_length "
            f"{metadata.context_length}"
        )
    if metadata.calendar and metadata.frequency is None:
        raise ArtifactError(
            "its metadata contradicts itself: it reads the calendar, but has no frequency to tell the times of steps by"
        )
    if both := set(metadata.exogenous) & set(metadata.features):
        raise ArtifactError(f"its metadata contradicts itself: {min(both)!r} is both a feature and exogenous")
    if metadata.ranges is not None and len(metadata.ranges) != len(metadata.features):
        raise ArtifactError(
            f"its metadata contradicts itself: ranges for {len(metadata.ranges)} features, but it has "
            f"{len(metadata.features)}"
        )
    if any(one.low > one.high for one in metadata.ranges or ()):
        raise ArtifactError("its metadata contradicts itself: a range ends before it begins")
    if metadata.trial is not None:
        _check_trial(metadata, metadata.trial)
    table = metadata.errors
    if table is not None:
        if len(table.errors) != len(metadata.features):
            raise ArtifactError(
                f"its metadata contradicts itself: errors for {len(table.errors)} features, but it has "
                f"{len(metadata.features)}"
            )
        if len({len(feature) for feature in table.errors}) > 1:
            raise ArtifactError("its metadata contradicts itself: the error table's features differ in lead times")
        lengths = {len(row) for feature in table.errors for row in feature}
        if len(lengths) > 1:
            raise ArtifactError("its metadata contradicts itself: the error table's rows differ in length")
        if not lengths or 0 in lengths:
            raise ArtifactError("its metadata contradicts itself: the error table holds no errors")


def _check_trial(metadata: Metadata, trial: Trial) -> None:
    features, time, horizon = len(metadata.features), len(trial.window), len(trial.forecast)
    known = trial.known or ()
    if {len(row) for row in (*trial.window, *trial.forecast)} != {features}:
        raise ArtifactError(f"its metadata contradicts itself: rows of the trial are not of its {features} features")
    if time < metadata.minimum_window:
        raise ArtifactError("its metadata contradicts itself: the trial's window is shorter than minimum_window")
    if len(known) != (time + horizon - 1 if metadata.known else 0) or {len(row) for row in known} - {metadata.known}:
        raise ArtifactError(
            "its metadata contradicts itself: the trial's known steps are not those that the graph takes"
        )

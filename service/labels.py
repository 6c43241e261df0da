"""Labels: which of a model's versions answers whom, from `labels.toml` in the model's folder.

    stable = 3                              # answers requests that name no version; without it, the newest
    canary = { version = 4, share = 0.05 }  # answers a twentieth of them in its place
    shadow = { version = 5, share = 0.2 }   # forecasts a fifth of them as well, for nobody but the metrics

Each line may be left out. Whoever changes the file writes it under another name and renames it.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from service.artifact import Version
from service.errors import LabelsError

LABELS_NAME: Final = "labels.toml"

Label = Literal["stable", "canary", "shadow"]

_LONGEST: Final = 65_536


def _as_text(version: object) -> object:
    return str(version) if isinstance(version, int) and not isinstance(version, bool) else version


_Number = Annotated[Version, BeforeValidator(_as_text)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(_Table):
    """A version, and the share of requests that it takes part in."""

    version: _Number
    share: float = Field(strict=True, ge=0, le=1, allow_inf_nan=False)


class Shadow(Share):
    """A version, and the share of requests that it forecasts as well: all unless told otherwise."""

    share: float = Field(default=1.0, strict=True, ge=0, le=1, allow_inf_nan=False)


class Labels(_Table):
    """What a file of labels says."""

    stable: _Number | None = None
    canary: Share | None = None
    shadow: Shadow | None = None

    @property
    def versions(self) -> set[str]:
        """All versions that have a label."""
        beside = [label.version for label in (self.canary, self.shadow) if label is not None]
        return {*beside, *([self.stable] if self.stable is not None else [])}


NO_LABELS: Final = Labels()


def read_labels(path: Path) -> Labels:
    """Read a file of labels.

    Raises:
        LabelsError: it cannot be read, is not TOML, or says something that cannot be.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST + 1).decode()
    except OSError as error:
        raise LabelsError(f"it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LabelsError("it is not text in UTF-8") from error
    if len(text) > _LONGEST:
        raise LabelsError(f"it has more than {_LONGEST} bytes")
    try:
        labels = Labels.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise LabelsError(f"it is not TOML: {error}") from error
    except RecursionError as error:
        raise LabelsError("it is not TOML that can be read: its lists lie too deep in each other") from error
    except ValidationError as error:
        raise LabelsError("; ".join(_fault(fault["loc"], fault["type"]) for fault in error.errors())) from error
    for name, beside in (("canary", labels.canary), ("shadow", labels.shadow)):
        if beside is not None and beside.version == labels.stable:
            raise LabelsError(f"{name} and stable are both version {labels.stable}: name two")
    return labels


def _fault(location: tuple[int | str, ...], kind: str) -> str:
    place = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        known = "stable, canary, shadow" if len(location) == 1 else "version, share"
        return f"there is no key {place!r}; there are: {known}"
    if kind == "missing":
        return f"{place} is missing"
    if location[-1] == "share":
        return f"{place} must be a number from 0.0 to 1.0, such as 0.05 for one request in twenty"
    if location[-1] in ("canary", "shadow"):
        return f"{place} must be a table, such as {{ version = 4, share = 0.05 }}"
    return f"{place} must be the number of a version, such as 3"

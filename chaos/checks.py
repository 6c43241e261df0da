"""What a kind of chaos promises, beside what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One promise."""

    what: str
    found: str
    promised: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Options:
    """How much is done of everything; the defaults take minutes."""

    rate: int = 2000
    """Requests a second, while the service is reloaded, restarted and killed."""
    reloads: int = 20
    restarts: int = 10
    kills: int = 3
    patience: float = 10.0
    """Seconds that a request may take before it counts as failed."""
    seconds: float = 3.0
    """How long each bad client goes on at a time, and how long it is quiet between."""
    rounds: int = 5
    """How often each bad client has its turn."""
    requests: int = 200_000
    """Mutated requests, half of them over connections."""
    files: int = 20_000
    """Mutated artifacts and tables, three quarters of them artifacts."""
    minutes: float = 5.0
    """How long the soak is."""
    seed: int = 1


def count(what: str, found: int, most: int = 0) -> Check:
    """That something does not happen, or at most so often."""
    return Check(what, f"{found:,}", f"{most:,}" if not most else f"at most {most:,}", found <= most)


def least(what: str, found: float, wanted: float) -> Check:
    """That there is so much of something."""
    return Check(what, f"{found:,.10g}", f"at least {wanted:,.10g}", found >= wanted)


def within(what: str, found: float, most: float, unit: str) -> Check:
    """That something measured is within a bound."""
    return Check(what, f"{found:.2f} {unit}", f"at most {most:g} {unit}", found <= most)


def result(checks: Sequence[Check], **details: Any) -> dict[str, Any]:
    """What a kind found, as it is kept."""
    return {"checks": [asdict(check) for check in checks], **details}


def checks_in(found: Mapping[str, Any]) -> list[Check]:
    """The checks of what was kept."""
    return [Check(**check) for check in found["checks"]]

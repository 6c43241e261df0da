"""Every error that Leadtime raises on purpose, as one tree without HTTP status codes.

    LeadtimeError
    ├── ArtifactError            a model file cannot be used
    ├── LabelsError              a file of labels cannot be used
    ├── SettingsError            the environment asks for something that cannot be
    ├── KeysError                a file of API keys cannot be used
    ├── SigningError             a key of signatures cannot be used, or a file cannot be signed
    ├── Unauthenticated          the request has no key, or one that is not known
    ├── Forbidden                the request's key lacks a scope
    ├── TooManyRequests          the client sends more than its rate allows
    ├── UnreadableBody           the request body is not JSON, or no sound Arrow stream
    ├── BodyTooLarge             the request body has more bytes than the limit
    ├── UnsupportedMediaType     the request body is in another format
    ├── InvalidHeader            a header of the request holds what it cannot hold
    ├── InvalidRequest           the body can be read but says something that cannot be answered
    │   └── ForecastOutOfRange   the numbers are so large that the forecast is not finite
    ├── NotFound                 no such model or version
    ├── Overloaded               there is too much to do for the request to be complete in its time
    ├── DeadlineExceeded         the time that the request had is up
    └── ShuttingDown             the service finishes what it has and takes nothing new

`service.api.problems` alone knows which status each becomes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request: where (an RFC 6901 JSON pointer) and how to mend it."""

    pointer: str
    message: str


class LeadtimeError(Exception):
    """The root: catching it catches every error that Leadtime raises on purpose."""


class ArtifactError(LeadtimeError):
    """A model file cannot be used; the message names the file's fault and, where there is one, the mend."""


class LabelsError(LeadtimeError):
    """A model's file of labels cannot be used, or names what is not served; the message says what and where."""


class SettingsError(LeadtimeError):
    """A setting is unknown or holds a value that it cannot hold."""


class KeysError(LeadtimeError):
    """A file of API keys cannot be used; the message names the place and the mend, and repeats nothing secret."""


class SigningError(LeadtimeError):
    """A key of signatures cannot be used, or a file cannot be signed; the message names the place and the mend."""


class Unauthenticated(LeadtimeError):
    """The request needs an API key, and has none that is known."""


class Forbidden(LeadtimeError):
    """The request may not be made with this key; `scope` is the scope that it lacks."""

    def __init__(self, message: str, scope: str = "") -> None:
        super().__init__(message)
        self.scope = scope


class TooManyRequests(LeadtimeError):
    """The client sends more requests than its rate allows; the next may come in `seconds`."""

    def __init__(self, message: str, seconds: float = 1.0) -> None:
        super().__init__(message)
        self.seconds = seconds


class UnreadableBody(LeadtimeError):
    """The request body is not a JSON document, or not a sound Arrow stream."""


class BodyTooLarge(LeadtimeError):
    """The request body has more bytes than the limit."""


class UnsupportedMediaType(LeadtimeError):
    """The request body is declared to be in a format that the endpoint does not read."""


class InvalidHeader(LeadtimeError):
    """A header of the request holds something that it cannot hold; the message names it and what it may hold."""


class InvalidRequest(LeadtimeError):
    """The request is readable, but cannot be answered; `faults` says where and why, never repeating a value."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(f"{fault.pointer or '(body)'}: {fault.message}" for fault in faults))
        self.faults = tuple(faults)

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[Fault, ...]]]:
        """Pickle the faults; they come from another process where a body is large."""
        return type(self), (self.faults,)


class ForecastOutOfRange(InvalidRequest):
    """The window's numbers lead to a forecast that 32-bit floats cannot hold."""


class NotFound(LeadtimeError):
    """No model, or no version of it, has the name asked for; the message lists the names that exist."""


class Overloaded(LeadtimeError):
    """Nothing was done for the request, for it would have waited too long; it may be sent again in `seconds`.

    `cause` is `deadline` where it would not have been complete in its time, and `steps` where too many steps wait.
    """

    def __init__(self, message: str, seconds: float = 1.0, cause: str = "deadline") -> None:
        super().__init__(message)
        self.seconds = seconds
        self.cause = cause


class DeadlineExceeded(LeadtimeError):
    """The forecast was not complete within the time that the request had."""


class ShuttingDown(LeadtimeError):
    """The service finishes the forecasts that it has begun, and takes no new ones."""

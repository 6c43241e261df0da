"""What the headers of a forecast's request say: the formats of body and answer, and how long the answer may take."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from service.api.access import secrets_of
from service.api.body import too_large
from service.errors import InvalidHeader, UnsupportedMediaType
from service.settings import Settings

JSON: Final = b"application/json"
ARROW: Final = b"application/vnd.apache.arrow.stream"
TIMEOUT: Final = b"x-request-timeout-ms"

_WEIGHT: Final = re.compile(rb";?\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*(?:;|$)")
_LONGEST_TIMEOUT: Final = 9  # digits of milliseconds: eleven days


class Wishes(NamedTuple):
    """What the headers of a request for a forecast say."""

    seconds: float
    """How long the answer may take."""
    from_arrow: bool
    """Whether the body is an Arrow stream and not JSON."""
    to_arrow: bool
    """Whether the answer is to be one."""
    secrets: tuple[bytes, ...]
    """What is presented as keys."""


def read_headers(headers: Iterable[tuple[bytes, bytes]], settings: Settings) -> Wishes:
    """Check the headers of a request for a forecast.

    A length that is announced is believed only where it is too large. The timeout asked for counts up to the limit.

    Raises:
        UnsupportedMediaType: the body is declared to be other than JSON or an Arrow stream, or compressed.
        BodyTooLarge: it is announced to have more bytes than the limit.
        InvalidHeader: the timeout is not a whole number of milliseconds.
    """
    arrow, accepted = False, b""
    seconds = settings.request_seconds
    for name, value in headers:
        if name == b"content-length":
            # So many digits pass any limit, and Python refuses to read thousands of them.
            announced = value[:20]
            if announced.isdigit() and int(announced) > settings.max_body_bytes:
                raise too_large(settings.max_body_bytes)
        elif name == b"content-type":
            if value != JSON:
                arrow = _is_arrow(value)
        elif name == b"content-encoding":
            if value.strip().lower() != b"identity":
                raise UnsupportedMediaType("the body must not be compressed: send it without a Content-Encoding")
        elif name == TIMEOUT:
            seconds = min(seconds, _seconds(value))
        elif name == b"accept":
            accepted = accepted + b"," + value if accepted else value
    to_arrow = arrow if accepted in (b"", b"*/*") else _wants_arrow(accepted, arrow)
    return Wishes(seconds, arrow, to_arrow, secrets_of(headers))


def _is_arrow(content_type: bytes) -> bool:
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == ARROW:
        return True
    if media_type in (b"", JSON) or (media_type.startswith(b"application/") and media_type.endswith(b"+json")):
        return False
    raise UnsupportedMediaType(
        f"the body must be JSON or an Arrow stream: send it with the header Content-Type: {JSON.decode()} or "
        f"{ARROW.decode()}"
    )


def _wants_arrow(accepted: bytes, otherwise: bool) -> bool:
    """Whether Accept names Arrow before JSON; where it names neither, or both alike, `otherwise`."""
    accepted = accepted.lower()
    if not otherwise and ARROW not in accepted:
        return False
    weights = {ARROW: 0.0, JSON: 0.0}
    for part in accepted.split(b","):
        media_type, _, parameters = part.partition(b";")
        if (name := media_type.strip()) in weights:
            weights[name] = _weight(parameters)
    return otherwise if weights[ARROW] == weights[JSON] else weights[ARROW] > weights[JSON]


def _weight(parameters: bytes) -> float:
    """The weight that a media type in Accept has; one that is refused has less than one that is not named."""
    match = _WEIGHT.search(parameters)
    return float(match[1]) or -1.0 if match else 1.0


def _seconds(timeout: bytes) -> float:
    timeout = timeout.strip()
    if not timeout.isdigit() or len(timeout) > _LONGEST_TIMEOUT or int(timeout) == 0:
        raise InvalidHeader(
            "the header X-Request-Timeout-Ms must be a whole number of milliseconds, 1 or more, in at most "
            f"{_LONGEST_TIMEOUT} digits"
        )
    return int(timeout) / 1000

"""What the headers of a forecast's request say: the body's format and length, and how long the answer may take."""

from collections.abc import Iterable
from typing import Final

from service.api.body import too_large
from service.errors import InvalidHeader, UnsupportedMediaType
from service.settings import Settings

JSON: Final = b"application/json"
TIMEOUT: Final = b"x-request-timeout-ms"

_LONGEST_TIMEOUT: Final = 9  # digits of milliseconds: eleven days


def read_headers(headers: Iterable[tuple[bytes, bytes]], settings: Settings) -> float:
    """Check the headers of a request that carries JSON; return how many seconds its answer may take.

    A length that is announced is believed only where it is too large. The timeout asked for counts up to the limit.

    Raises:
        UnsupportedMediaType: the body is declared to be other than JSON, or compressed.
        BodyTooLarge: it is announced to have more bytes than the limit.
        InvalidHeader: the timeout is not a whole number of milliseconds.
    """
    seconds = settings.request_seconds
    for name, value in headers:
        if name == b"content-length":
            # So many digits pass any limit, and Python refuses to read thousands of them.
            announced = value[:20]
            if announced.isdigit() and int(announced) > settings.max_body_bytes:
                raise too_large(settings.max_body_bytes)
        elif name == b"content-type":
            if value != JSON:
                _check_media_type(value)
        elif name == b"content-encoding":
            if value.strip().lower() != b"identity":
                raise UnsupportedMediaType("the body must not be compressed: send it without a Content-Encoding")
        elif name == TIMEOUT:
            seconds = min(seconds, _seconds(value))
    return seconds


def _check_media_type(content_type: bytes) -> None:
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type in (b"", JSON) or (media_type.startswith(b"application/") and media_type.endswith(b"+json")):
        return
    raise UnsupportedMediaType(f"the body must be JSON: send it with the header Content-Type: {JSON.decode()}")


def _seconds(timeout: bytes) -> float:
    timeout = timeout.strip()
    if not timeout.isdigit() or len(timeout) > _LONGEST_TIMEOUT or int(timeout) == 0:
        raise InvalidHeader(
            "the header X-Request-Timeout-Ms must be a whole number of milliseconds, 1 or more, in at most "
            f"{_LONGEST_TIMEOUT} digits"
        )
    return int(timeout) / 1000

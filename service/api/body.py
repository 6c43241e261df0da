"""Reading a request's body within the limits, before anything looks into it."""

from typing import Final

from starlette.requests import Request

from service.errors import BodyTooLarge, UnsupportedMediaType

_JSON: Final = "application/json"


async def read_json_body(request: Request, max_bytes: int) -> bytes:
    """Return the body's bytes, at most `max_bytes`; the length that is announced is believed only when too large.

    Raises:
        UnsupportedMediaType: the body is declared to be other than JSON, or compressed.
        BodyTooLarge: it has more bytes than the limit.
    """
    headers = request.headers
    _check_media_type(headers.get("content-type", ""))
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("the body must not be compressed: send it without a Content-Encoding")
    # So many digits pass any limit, and Python refuses to read thousands of them.
    announced = headers.get("content-length", "0")[:20]
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    return await _read(request, max_bytes)


async def _read(request: Request, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    length = 0
    async for part in request.stream():
        length += len(part)
        if length > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


def _check_media_type(content_type: str) -> None:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in ("", _JSON) or (media_type.startswith("application/") and media_type.endswith("+json")):
        return
    raise UnsupportedMediaType(f"the body must be JSON: send it with the header Content-Type: {_JSON}")


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has more than {max_bytes} bytes: send fewer or shorter windows, or raise LEADTIME_MAX_BODY_BYTES"
    )

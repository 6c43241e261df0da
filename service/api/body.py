"""Reading a request's body within the limits, before anything looks into it."""

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from service.errors import BodyTooLarge


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """Return the body's bytes, at most `max_bytes`.

    Raises:
        BodyTooLarge: it has more bytes than the limit.
        ClientDisconnect: the client has hung up.
    """
    message = await receive()
    part = _part(message)
    if len(part) > max_bytes:
        raise too_large(max_bytes)
    if not message.get("more_body", False):
        return part
    parts, length = [part], len(part)
    while message.get("more_body", False):
        message = await receive()
        part = _part(message)
        length += len(part)
        if length > max_bytes:
            raise too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


def too_large(max_bytes: int) -> BodyTooLarge:
    """The error of a body with more bytes than the limit."""
    return BodyTooLarge(
        f"the body has more than {max_bytes} bytes: send fewer or shorter windows, or raise LEADTIME_MAX_BODY_BYTES"
    )


def _part(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    part: bytes = message.get("body", b"")
    return part

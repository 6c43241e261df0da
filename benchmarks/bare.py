"""The reference that the service is measured against: an ASGI application that reads nothing and answers `{}`.

No service on the same server can be quicker, so the ratio to it says what the forecast and its HTTP handling cost,
whatever the machine.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"2")],
}
_BODY = {"type": "http.response.body", "body": b"{}"}


async def application(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer every HTTP request with `{}`."""
    if scope["type"] == "http":
        await send(_START)
        await send(_BODY)

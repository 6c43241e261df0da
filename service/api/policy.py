"""What every answer tells a browser, whatever it answers; and which pages of other origins may read answers.

An answer is data, not a page: nothing may guess another type for it, show it as a page's part, or keep it. A page says
for itself what it needs. Clients other than browsers pass all of this over.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
)
"""The headers of an answer that says nothing else in their place."""

LINES: Final = b"".join(b"%b: %b\r\n" % header for header in HEADERS)
"""The same as they go over the wire."""

_SECONDS_OF_PREFLIGHT: Final = 600


class Policy:
    """An application whose every answer has the headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(header for header in HEADERS if header[0] not in said)]
            await send(message)

        await self._app(scope, receive, send_more)


class OtherOrigins:
    """An application whose answers pages of some other origins may read.

    What is answered to everybody else is the application's own, without a word about origins: no cache keeps it.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        # Keys go in headers, so that no cookies are taken.
        self._shared = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "WWW-Authenticate", "X-Request-Id"],
            max_age=_SECONDS_OF_PREFLIGHT,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_from_a_page = scope["type"] == "http" and comes_from_a_page(scope["headers"])
        await (self._shared if is_from_a_page else self._app)(scope, receive, send)


def comes_from_a_page(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser sent this for a page, of this origin or another."""
    return any(name == b"origin" for name, _ in headers)

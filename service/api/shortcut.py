"""The short way to a forecast: around the framework, whose machinery costs as much time as the forecast itself.

Routing, documentation and every other path are the framework's. A `POST` to one of the paths given here goes straight
to its answer; what it answers, errors included, is what the framework's way would have.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import answer_to
from service.errors import LeadtimeError

Answer = Callable[[Scope, Receive], Awaitable[bytes]]
"""Answers a request with the JSON body of a 200, or raises."""


class Shortcut:
    """An application that answers some paths by itself, and passes everything else on."""

    def __init__(self, app: ASGIApp, answers: Mapping[str, Answer]) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = None
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            answer = self._answers.get(scope["path"])
        if answer is None:
            await self._app(scope, receive, send)
            return
        try:
            content = await answer(scope, receive)
        except (LeadtimeError, ClientDisconnect) as error:
            await answer_to(error)(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(content)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

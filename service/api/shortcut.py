"""The short way to a forecast: around the framework, whose machinery costs as much time as the forecast itself.

Routing, documentation and every other path are the framework's. A `POST` to one of the paths given here goes straight
to its answer; what it answers, errors included, is what the framework's way would have. A request from a page of
another origin takes the framework's way, where such may read answers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.headers import Wishes
from service.api.observation import Observed
from service.api.policy import HEADERS, comes_from_a_page
from service.api.problems import answer_to, reason_of
from service.api.state import Service
from service.api.trip import Trip, trip_of
from service.errors import LeadtimeError

Content = tuple[bytes, bytes]
"""Body and media type of a 200."""

End = Callable[[Content | None, BaseException | None], None]
"""Told of an answer, or why there is none."""


class Inquiry(Protocol):
    """A request on the short way, whose head has been read."""

    def ask(self, body: bytes, end: End) -> bool:
        """Have `end` told of the answer to this body, now or later; False where it takes `complete`.

        Raises:
            LeadtimeError: it cannot be answered; nothing will be told.
        """

    def give_up(self, error: LeadtimeError | None = None) -> None:
        """Stop working on what was asked; where there is an error, that is what is told."""

    async def complete(self, receive: Receive) -> Content:
        """The answer, where `ask` told of none; raises why there is none."""


class Answer(Protocol):
    """Answers the requests to one path."""

    async def __call__(self, scope: Scope, receive: Receive) -> Content:
        """Answer a request, of whose scope it reads headers, client and state; raises why there is no answer."""

    def inquire(
        self,
        service: Service,
        headers: Sequence[tuple[bytes, bytes]],
        client: tuple[str, int] | None,
        trip: Trip | None,
        wishes: Wishes | None = None,
    ) -> Inquiry:
        """Begin with a request's head; `wishes` is what its headers say, where that has been read before.

        Raises:
            LeadtimeError: it cannot be answered.
        """


class Answered(NamedTuple):
    """A whole response, but for the headers that every one has."""

    status: int
    headers: list[tuple[bytes, bytes]]
    content: bytes


class Shortcut:
    """An application that answers some paths by itself, and passes everything else on."""

    def __init__(self, app: ASGIApp, answers: Mapping[str, Answer], *, for_other_origins: bool = False) -> None:
        """Go around `app` to `answers`, by their paths; where it answers other origins, not for requests from one."""
        self._app = app
        self._answers = answers
        self._observed = Observed(self._answer)
        self._for_other_origins = for_other_origins

    def find(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Answer | None:
        """The answer to requests of this method, path and headers, if there is a short way to it."""
        if method != "POST" or (self._for_other_origins and comes_from_a_page(headers)):
            return None
        return self._answers.get(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, by the messages of ASGI."""
        answer = None
        if scope["type"] == "http" and not scope.get("root_path"):
            answer = self.find(scope["method"], scope["path"], scope["headers"])
        await (self._app if answer is None else self._observed)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        trip = trip_of(scope)
        if trip is not None:
            trip.route = scope["path"]
        status, headers, content = await respond(self._answers[scope["path"]], scope, receive)
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS]})
        await send({"type": "http.response.body", "body": content})


async def respond(answer: Answer, scope: Scope, receive: Receive) -> Answered:
    """The response to a request, whether it is answered or refused.

    Raises:
        Exception: whatever failed that no client is told of.
    """
    try:
        body, media_type = await answer(scope, receive)
    except (LeadtimeError, ClientDisconnect) as error:
        return refused(error, trip_of(scope))
    return Answered(200, [(b"content-length", b"%d" % len(body)), (b"content-type", media_type)], body)


def refused(error: LeadtimeError | ClientDisconnect, trip: Trip | None) -> Answered:
    """The response that says why there is no answer.

    Raises:
        LeadtimeError: the error itself, where it is none that a client is told of.
    """
    response = answer_to(error)
    if trip is not None:
        trip.refuse(reason_of(error), error)
    return Answered(response.status_code, response.raw_headers, bytes(response.body))

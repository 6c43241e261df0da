"""Kinds of route: one behind the check of who may ask, and one whose endpoint does everything itself."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from service.api.access import SCOPES, secrets_of
from service.api.state import service_of


class GuardedRoute(APIRoute):
    """A route that lets a request pass only where its endpoint's scope allows it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint behind the check.

        Raises:
            KeyError: the endpoint is not in `SCOPES`.
        """
        handler = super().get_route_handler()
        (asked,) = {SCOPES[method, self.path_format] for method in self.methods or ()}
        if asked is None:
            return handler

        async def guarded(request: Request) -> Response:
            scope = request.scope
            service_of(request).access.admit(asked, secrets_of(scope["headers"]), scope.get("client"))
            return await handler(request)

        return guarded


class DirectRoute(APIRoute):
    """A route that OpenAPI describes like any other, but that goes straight to its endpoint.

    Parameters, dependencies and response models are for the document only: their machinery costs as much time as a
    forecast does. The check of who may ask is the endpoint's as well.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself."""
        return self.endpoint

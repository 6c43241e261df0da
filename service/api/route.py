"""Routes whose endpoint reads the request and writes the response itself."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response


class DirectRoute(APIRoute):
    """A route that OpenAPI describes like any other, but that goes straight to its endpoint.

    Parameters, dependencies and response models are for the document only: their machinery costs as much time as a
    forecast does.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself."""
        return self.endpoint

"""HEAD wherever there is GET, which routes of the framework leave out; probes ask that way."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """An application that answers HEAD as it would GET; the server leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            # A copy, for by its own one the server knows what was asked.
            asked = {**scope, "method": "GET"}

            async def send_as_asked(message: Message) -> None:
                scope["route"] = asked.get("route")  # which is counted before the answer ends
                await send(message)

            await self._app(asked, receive, send_as_asked)
            return
        await self._app(scope, receive, send)

"""The client at the other end: work that nobody waits for any more is given up."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

Result = TypeVar("Result")


async def while_connected(receive: Receive, work: Awaitable[Result]) -> Result:
    """The outcome of `work`, which is cancelled when the client hangs up. The body must have been received.

    Raises:
        ClientDisconnect: the client has hung up.
        Exception: whatever `work` raised.
    """
    working = asyncio.ensure_future(work)
    # Nothing follows the body but the message that the connection is closed.
    watching = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()

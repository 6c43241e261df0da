"""Work for a client that may hang up."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from service.api.connection import while_connected


def a_client(hung_up: asyncio.Event) -> Receive:
    async def receive() -> Message:
        await hung_up.wait()
        return {"type": "http.disconnect"}

    return receive


def test_work_is_cancelled_when_the_client_hangs_up() -> None:
    async def scenario() -> None:
        hung_up, cancelled = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            hung_up.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        with pytest.raises(ClientDisconnect):
            await while_connected(a_client(hung_up), work())
        await cancelled.wait()

    asyncio.run(scenario())


def test_the_outcome_of_work_is_given_while_the_client_waits() -> None:
    async def scenario() -> None:
        async def work() -> int:
            return 5

        assert await while_connected(a_client(asyncio.Event()), work()) == 5

    asyncio.run(scenario())


def test_a_failure_of_work_is_passed_on() -> None:
    async def scenario() -> None:
        async def work() -> None:
            raise LookupError("no")

        with pytest.raises(LookupError, match="no"):
            await while_connected(a_client(asyncio.Event()), work())

    asyncio.run(scenario())


def test_work_is_cancelled_with_the_request() -> None:
    async def scenario() -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        waiting = asyncio.create_task(while_connected(a_client(asyncio.Event()), work()))
        await begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await cancelled.wait()

    asyncio.run(scenario())

"""Large bodies in JSON, read beside the loop.

The parser holds the interpreter's lock: a megabyte of numbers would have everybody else wait for 30 ms, on whichever
thread it were read. So a body of many values is sent to a process of its own (`service.api.aside`), which sends the
windows back as 32-bit floats. It is started when it is first needed, in half a second, and ended when it has not been
needed for a while, for it takes 50 to 100 MB. Bodies are read one after another.
"""

import asyncio
import logging
import os
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

from service.api.aside import LENGTH, Aside, message
from service.artifact import Metadata
from service.errors import LeadtimeError, Overloaded
from service.metrics import Metrics
from service.scheduler import REQUESTS_REFUSED
from service.schemas import ForecastRequest
from service.settings import Settings

_MANY_BYTES: Final = 65_536
_MANY_VALUES: Final = 32_768  # read within 2 ms, and sent there and back hardly quicker
_IDLE_SECONDS: Final = 60.0
# The largest bodies are read within a second. Whoever takes so long does not read any more.
_PATIENCE_SECONDS: Final = 20.0
_NICER: Final = 10  # whoever waits for a small forecast goes first
# Not by `-m`, which would name what it sends after `__main__`.
_PROGRAM: Final = "from service.api.aside import main; main()"
# Bytes of bodies that wait, read within some seconds. What is beyond them would wait in vain, and fill the memory.
_MOST_WAITING: Final = 1 << 26
_CROWDED: Final = (
    "too many large requests wait to be read: send it again later, or as an Arrow stream, which takes no time to read"
)
_ENDED: Final = "the process that reads large requests has ended: send the request again, or a smaller one"

_log: Final = logging.getLogger("leadtime.reader")


def is_large(body: bytes) -> bool:
    """Whether reading a body in JSON takes so long that others would notice. Values have commas between them."""
    if len(body) <= _MANY_BYTES:
        return False
    values = 0
    for first in range(0, len(body), _MANY_BYTES):  # for where there are many, counting all of them takes long
        values += body.count(b",", first, first + _MANY_BYTES)
        if values > _MANY_VALUES:
            return True
    return False


class Reader:
    """The process that reads, from the side of the one that serves."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        """Count in `metrics` what it cannot read."""
        self._refused = (metrics or Metrics(None)).counter(REQUESTS_REFUSED, reason="reader")
        self._turns = asyncio.Lock()
        self._bytes = 0
        """Of bodies that are read or wait to be."""
        self._process: asyncio.subprocess.Process | None = None
        self._ending: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator["Turn"]:
        """Wait until it reads for nobody else; a body has so many bytes.

        Raises:
            Overloaded: too many wait.
        """
        if self._bytes and self._bytes + size > _MOST_WAITING:
            self._refused.add()
            raise Overloaded(_CROWDED, cause="reader")
        self._bytes += size
        try:
            await self._turns.acquire()
            if self._ending is not None:
                self._ending.cancel()
            turn = Turn(self)
            try:
                yield turn
            finally:
                turn.end(self._release)
        finally:
            self._bytes -= size

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if self._ending is not None:
            self._ending.cancel()
        if process is not None:
            _end(process)
            await process.wait()

    async def ask(self, *said: object) -> Any:
        """What the process answers.

        Raises:
            Overloaded: it has ended, or does not answer.
        """
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                process = self._process
                if process is None or process.returncode is not None:
                    process = self._process = await _started()
                return await _answer(process, said)
        except (OSError, EOFError, TimeoutError) as error:
            _log.warning("the process that reads large requests has ended, or does not answer: %r", error)
            process, self._process = self._process, None
            if process is not None:
                with suppress(ProcessLookupError):
                    process.kill()
            self._refused.add()
            raise Overloaded(_ENDED, cause="reader") from None

    def _release(self) -> None:
        self._turns.release()
        self._ending = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._rest)

    def _rest(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end(process)


class Turn:
    """One body, read in the other process. What has been asked is waited for, also when nobody wants to know it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._asked: asyncio.Task[Any] | None = None

    async def read(self, body: bytes, *, is_one_step: bool) -> ForecastRequest:
        """The question that a body asks; of its steps others stand in their place.

        Raises:
            UnreadableBody, InvalidRequest: as `service.api.faults.parse` does.
            Overloaded: it cannot be read at the moment.
        """
        return cast(ForecastRequest, await self._ask("read", (is_one_step, body)))

    async def take(self, metadata: Metadata, horizon: int, settings: Settings, steps: int | None) -> Aside:
        """The question's windows, as `service.api.windows.windows_for` makes them.

        Raises:
            InvalidRequest: as that does.
            Overloaded: they cannot be had at the moment.
        """
        few = metadata.model_copy(update={"errors": None, "trial": None})  # which may be large, and are not needed
        return Aside(await self._ask("take", (few, horizon, settings, steps)))

    def end(self, release: Any) -> None:
        """Call `release` when nothing that was asked is yet to be answered."""
        if self._asked is None or self._asked.done():
            release()
        else:
            self._asked.add_done_callback(lambda asked: (asked.exception(), release()))

    async def _ask(self, way: str, arguments: tuple[object, ...]) -> Any:
        self._asked = asyncio.create_task(self._reader.ask(way, arguments))
        answer = await asyncio.shield(self._asked)
        if isinstance(answer, LeadtimeError):
            raise answer
        return answer


async def _started() -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, stdin=pipe, stdout=pipe)
    if sys.platform != "win32":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICER)
    return process


async def _answer(process: asyncio.subprocess.Process, said: tuple[object, ...]) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(message(said))
    await process.stdin.drain()
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    return pickle.loads(await process.stdout.readexactly(length))


def _end(process: asyncio.subprocess.Process) -> None:
    """Close what it hears by; it ends by itself."""
    if process.stdin is not None:
        process.stdin.close()

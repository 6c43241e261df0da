"""Clients that behave badly, beside one that does not."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop

from benchmarks.servers import tree
from chaos.checks import Check, Options, count, result, within
from chaos.load import Answered, Load, Numbers, percentiles
from chaos.service import Instance, ServiceFailed
from chaos.versions import QUESTIONS, Versions

TITLE: Final = "Clients that behave badly"

_POLITE: Final = 200.0
_SLOW: Final = 500
_SLOWER_AT_MOST: Final = 2.0
_UNNOTICED_MS: Final = 1.0  # a percentile below this counts as this: the client's own clock is no finer
_MEGABYTES: Final = 64.0
_DESCRIPTORS: Final = 16
_PATIENCE: Final = 30.0
_LARGEST: Final = 2**26

_HEAD: Final = b"POST /forecast HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
_BODY: Final = b'{"window": [1, 2, 3, 4]}'
_SOUND: Final = _HEAD + b"content-length: %d\r\n\r\n" % len(_BODY) + _BODY

Client = Callable[[int], Awaitable[None]]
"""What a bad client does once, or until it is cut off, on the port that it is given."""


async def _slowly(port: int) -> None:
    """A byte a second."""
    async with _connection(port) as (_, writer):
        for place in range(len(_SOUND)):
            writer.write(_SOUND[place : place + 1])
            await asyncio.sleep(1)


async def _half_closed(port: int) -> None:
    """The end of what is sent, in the middle of a request or behind it."""
    for request in (_SOUND[:-5], _SOUND, b""):
        async with _connection(port) as (reader, writer):
            writer.write(request)
            writer.write_eof()
            await reader.read()


async def _hang_up(port: int) -> None:
    """A request, and gone."""
    async with _connection(port) as (_, writer):
        writer.write(_SOUND)
    await asyncio.sleep(0.001)


async def _flood(port: int) -> None:
    """Connections that say nothing, and go again."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(50):
            await stack.enter_async_context(_connection(port))
        await asyncio.sleep(0.05)


async def _oversized(port: int) -> None:
    """A body that is said to be too large, and sent."""
    async with _connection(port) as (reader, writer):
        writer.write(_HEAD + b"content-length: 1000000000\r\n\r\n")
        await _send_on(writer, b"9" * 65_536, 64)
        await reader.read(_LARGEST)


async def _endless_body(port: int) -> None:
    """Chunks without end."""
    async with _connection(port) as (_, writer):
        writer.write(_HEAD + b"transfer-encoding: chunked\r\n\r\n")
        await _send_on(writer, b"4000\r\n" + b" " * 16_384 + b"\r\n", 4096)


async def _endless_headers(port: int) -> None:
    """Headers without end."""
    async with _connection(port) as (_, writer):
        writer.write(_HEAD)
        await _send_on(writer, b"x-more: " + b"a" * 1000 + b"\r\n", 4096)


async def _headers_of_keys(port: int) -> None:
    """A head that is as large as it may be, of nothing but keys that nobody knows."""
    async with _connection(port) as (reader, writer):
        writer.write(_HEAD + b"x-api-key: a\r\n" * 4000 + b"content-length: %d\r\n\r\n" % len(_BODY) + _BODY)
        await reader.read(_LARGEST)


async def _endless_trailers(port: int) -> None:
    """Headers without end, behind a body."""
    async with _connection(port) as (_, writer):
        writer.write(_HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n" % (len(_BODY), _BODY))
        await _send_on(writer, b"a:\r\n" * 1000, 4096)


async def _behind_a_slow_request(port: int) -> None:
    """A request that takes a while, and others without end behind it."""
    body = b'{"window": [1, 2, 3, 4], "horizon": 1000}'
    head = _HEAD.replace(b"/forecast", b"/forecast/multi-step")
    async with _connection(port) as (_, writer):
        writer.write(head + b"transfer-encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        async with asyncio.timeout(1):
            await _send_on(writer, _SOUND * 100, 4096)


async def _deep_json(port: int) -> None:
    """Lists in lists, 100,000 deep."""
    await _ask(port, b'{"window": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    await asyncio.sleep(0.02)


async def _huge_json(port: int) -> None:
    """A megabyte of numbers that are too many for a window, now and then."""
    await _ask(port, b'{"window": [' + b"1," * 500_000 + b"1]}")
    await asyncio.sleep(0.5)


async def _invalid_utf_8(port: int) -> None:
    """Bytes that are no text."""
    await _ask(port, b'{"window": [1, 2], "model": "' + b"\xff\xfe\xed\xa0\x80" * 200 + b'"}')
    await asyncio.sleep(0.005)


async def _wrong_lengths(port: int) -> None:
    """Lengths that are not those of what follows."""
    for length in (b"-1", b"5", b"99999", b"1e3", b"18446744073709551617"):
        async with _connection(port) as (reader, writer):
            writer.write(_HEAD + b"content-length: %b\r\n\r\n" % length + _BODY)
            await _read_for_a_while(reader)


async def _pipelined(port: int) -> None:
    """A hundred requests in one go, whose answers are read slowly, or not at all."""
    async with _connection(port) as (reader, writer):
        writer.write(_SOUND * 100)
        await reader.read(1000)
        await asyncio.sleep(0.2)


async def _chunked_nonsense(port: int) -> None:
    """Chunks that are none."""
    for chunks in (
        b"zz\r\n",
        b"-5\r\nabcde\r\n",
        b"5\r\nabcdefgh\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"5;" + b"x" * 9000,
    ):
        async with _connection(port) as (reader, writer):
            writer.write(_HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks)
            await _read_for_a_while(reader)


BAD: Final[Mapping[str, tuple[Client, int]]] = {
    "500 slow clients, a byte a second": (_slowly, _SLOW),
    "half-closed connections": (_half_closed, 4),
    "clients that hang up": (_hang_up, 4),
    "floods of connections": (_flood, 4),
    "oversized bodies": (_oversized, 2),
    "endless bodies": (_endless_body, 2),
    "endless headers": (_endless_headers, 2),
    "heads of keys": (_headers_of_keys, 2),
    "endless headers behind a body": (_endless_trailers, 2),
    "requests without end behind a slow one": (_behind_a_slow_request, 2),
    "deep JSON": (_deep_json, 2),
    "huge JSON": (_huge_json, 1),
    "invalid UTF-8": (_invalid_utf_8, 2),
    "wrong lengths": (_wrong_lengths, 4),
    "pipelining without reading": (_pipelined, 4),
    "chunks that are none": (_chunked_nonsense, 4),
}
"""The bad clients, and how many of each are there at once."""


def run(options: Options) -> dict[str, Any]:
    """Let each kind of bad client come and go, while a polite one asks on; compare how the polite one fares."""
    checks: list[Check] = []
    kinds: dict[str, dict[str, float]] = {}
    turns: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        versions = Versions(Path(folder))
        with (
            Instance(Path(folder)) as instance,
            Load(instance.port, QUESTIONS, _POLITE, connections=8, patience=options.patience) as load,
            _apart(instance, load),
        ):
            _warm_up(instance)
            worker = instance.workers
            for name, (client, number) in BAD.items():
                memory, descriptors = instance.memory(), instance.descriptors()
                turns[name] = [_turn(instance.port, client, number, options.seconds) for _ in range(options.rounds)]
                left = _descriptors_left(instance, descriptors)
                kinds[name] = {"megabytes": instance.memory() - memory, "descriptors": left}
            same = instance.workers == worker
            answered = load.finish()
            tracebacks = instance.tracebacks
    for name, kept in kinds.items():
        kept |= _slowed(answered, turns[name])
        checks += [
            within(f"{name}: p50 of a polite client beside, of that without them", kept["p50"], _SLOWER_AT_MOST, "×"),
            within(f"{name}: p99 likewise", kept["p99"], _SLOWER_AT_MOST, "×"),
            within(f"{name}: more resident memory after", kept["megabytes"], _MEGABYTES, "MB"),
            count(f"{name}: more open descriptors after", max(0, int(kept["descriptors"])), _DESCRIPTORS),
        ]
    wrong = versions.wrong(answered)
    checks += [
        count("requests of the polite client that failed", len(answered.failures)),
        count("wrong answers", len(wrong)),
        count("workers that ended", int(not same)),
        count("tracebacks", tracebacks),
    ]
    return result(
        checks,
        kinds=kinds,
        rounds=options.rounds,
        seconds=options.seconds,
        rate=_POLITE,
        requests=answered.asked,
        failures=[failure.reason for failure in answered.failures[:10]] + wrong[:10],
    )


def _turn(port: int, client: Client, number: int, seconds: float) -> tuple[float, float, float]:
    """A quiet time and one with bad clients; returns when each began, and the end."""
    quiet = time.monotonic()
    time.sleep(seconds)
    begin = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_for_a_while(port, client, number, seconds))
    return quiet, begin, time.monotonic()


async def _for_a_while(port: int, client: Client, number: int, seconds: float) -> None:
    async def go_on() -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await client(port)
            await asyncio.sleep(0.001)

    async with asyncio.timeout(_PATIENCE + seconds):
        tasks = [asyncio.create_task(go_on()) for _ in range(number)]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _slowed(answered: Answered, turns: list[tuple[float, float, float]]) -> dict[str, float]:
    """How many times as long the polite client waits beside the bad ones, and how long without and with them."""
    without = percentiles(_together(answered.milliseconds(quiet, begin) for quiet, begin, _ in turns))
    beside = percentiles(_together(answered.milliseconds(begin, end) for _, begin, end in turns))
    ratios = {name: beside[name] / max(without[name], _UNNOTICED_MS) for name in without}
    return {
        **ratios,
        **{f"{name}_without": without[name] for name in without},
        **{f"{name}_beside": beside[name] for name in beside},
    }


def _together(parts: Any) -> Numbers:
    return np.concatenate(list(parts))


@contextlib.contextmanager
def _apart(instance: Instance, load: Load) -> Iterator[None]:
    """Keep bad clients from the service's core, and have the polite one go before them on the other.

    Otherwise it would be measured how a machine of two cores shares them among three programs.
    """
    cores = os.sched_getaffinity(0)
    first, *others = sorted(cores)
    if others:
        for process in tree(instance.process):
            for thread in Path(f"/proc/{process}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {first})
        os.sched_setaffinity(load.process, others)
        os.sched_setaffinity(0, others)
    with contextlib.suppress(PermissionError):
        # It has its turn as soon as it has something to do, as if the core were its own.
        os.sched_setscheduler(load.process, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _warm_up(instance: Instance) -> None:
    """Have everything done once, so that what is kept for good is kept before memory is looked at."""
    for client, number in BAD.values():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_for_a_while(instance.port, client, number, 0.2))


def _descriptors_left(instance: Instance, before: int) -> float:
    """How many more descriptors are open than before, once the service has had time to notice."""
    with contextlib.suppress(ServiceFailed):
        instance.wait_until(lambda: instance.descriptors() <= before, "rid of connections", _PATIENCE)
    return instance.descriptors() - before


async def _read_for_a_while(reader: asyncio.StreamReader) -> None:
    # Not by `wait_for`, which in Python 3.11 may take being cancelled for its own timeout.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await reader.read()


@contextlib.asynccontextmanager
async def _connection(port: int) -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LARGEST)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _send_on(writer: asyncio.StreamWriter, part: bytes, times: int) -> None:
    for _ in range(times):
        writer.write(part)
        await writer.drain()


async def _ask(port: int, body: bytes) -> None:
    async with _connection(port) as (reader, writer):
        writer.write(_HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await reader.read()

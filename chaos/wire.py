"""Mutated requests over connections, and what comes back."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import uvloop

from chaos.mutations import mutated_bytes
from chaos.questions import Question, mutated_question
from chaos.responses import Garbled, fault_in, responses_in

_AT_ONCE: Final = 64
_QUIET: Final = 0.1  # seconds after which a service that says nothing may wait for more
_PATIENCE: Final = 60.0
_LARGEST: Final = 2**26

# What comes behind each: a service that has understood where the mutated request ends answers this one, and closes.
_LAST: Final = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"

_METHODS: Final = (b"POST", b"GET", b"PUT", b"post", b"PRI", b"CONNECT", b"P\xd6ST", b"", b"X" * 300)
_VERSIONS: Final = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.10", b"http/1.1", b"")
_FRAMINGS: Final = (
    b"content-length: 0",
    b"content-length: -1",
    b"content-length: +5",
    b"content-length: 99999999999999999999999",
    b"content-length: 0x10",
    b"content-length: 5, 5",
    b"content-length:",
    b"transfer-encoding: chunked",
    b"transfer-encoding: gzip, chunked",
    b"transfer-encoding: chunked, identity",
    b"Transfer-Encoding : chunked",
    b"connection: upgrade\r\nupgrade: websocket",
    b"connection: upgrade, http2-settings\r\nupgrade: h2c",
    b"connection: close",
    b"expect: 200-ok",
    b" folded: over",
    b"host: another",
    b"no colon",
    b"\x00: \x00",
    b"x: " + b"a" * 70_000,
    b"\r\n".join(b"x-%d: y" % number for number in range(300)),
)


@dataclass
class Asked:
    """What became of requests."""

    statuses: Counter[str] = field(default_factory=Counter)
    """How many were answered with each status; those that were not, in words."""
    failures: list[str] = field(default_factory=list)


def asked_by_wire(port: int, count: int, seed: int, first: int = 0) -> Asked:
    """Send so many mutated requests, each over a connection of its own, many at once."""
    asked = Asked()
    numbers = iter(range(first, first + count))

    async def ask_on() -> None:
        for number in numbers:
            try:
                await asyncio.wait_for(_ask(port, seed, number, asked), _PATIENCE)
            except TimeoutError:
                asked.failures.append(f"wire {seed}/{number}: no end within {_PATIENCE:.0f} s")
            except OSError as error:
                asked.failures.append(f"wire {seed}/{number}: {error!r}")

    async def ask_all() -> None:
        await asyncio.gather(*(ask_on() for _ in range(_AT_ONCE)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask_all())
    return asked


def mutated_request(seed: int, number: int) -> bytes:
    """The bytes of a mutated request."""
    rng = random.Random(f"{seed}/wire/{number}")
    question = mutated_question(rng)
    way = rng.random()
    if way < 0.5:
        return question.written()
    if way < 0.65:
        return _chunked(question, rng)
    if way < 0.8:
        head, _, body = question.written().partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        place = rng.randrange(1, len(lines) + 1)
        lines[place:place] = rng.sample(_FRAMINGS, rng.randrange(1, 3))
        if rng.random() < 0.3:
            first = lines[0].split(b" ")
            lines[0] = b" ".join([rng.choice(_METHODS), *first[1:-1], rng.choice(_VERSIONS)])
        return b"\r\n".join([*lines, b"", body])
    return mutated_bytes(question.written(), rng)


def _chunked(question: Question, rng: random.Random) -> bytes:
    """The request with its body in chunks, some of them wrong."""
    head = [f"{question.method} {question.path} HTTP/1.1".encode("utf-8", "replace"), b"host: localhost"]
    head += [b"%b: %b" % header for header in question.headers]
    chunks, body = [], question.body
    while body:
        size = rng.randrange(1, len(body) + 1)
        chunks.append(b"%x\r\n%b\r\n" % (size, body[:size]))
        body = body[size:]
    chunks.append(b"0\r\n\r\n")
    text = b"".join(chunks)
    if rng.random() < 0.6:
        text = mutated_bytes(text, rng)
    return b"\r\n".join([*head, b"transfer-encoding: chunked", b"", text])


async def _ask(port: int, seed: int, number: int, asked: Asked) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = mutated_request(seed, number)
    writer.write(request + _LAST)
    received = b""
    try:
        received, waits = await _received(reader, port)
    finally:
        writer.transport.abort()
    try:
        responses, rest = responses_in(received, to_head=request.startswith(b"HEAD "))
    except Garbled as error:
        asked.failures.append(f"wire {seed}/{number}: what came is no HTTP: {error}")
        return
    if rest:
        asked.failures.append(f"wire {seed}/{number}: an answer broke off: {rest[:120]!r}")
    for response in responses:
        if (fault := fault_in(response)) is not None:
            asked.failures.append(f"wire {seed}/{number}: {fault} {request[:300]!r}")
    told = [str(response.status) for response in responses if response.status >= 200]
    asked.statuses[told[0] if told else "waits for more" if waits else "closed"] += 1


async def _received(reader: asyncio.StreamReader, port: int) -> tuple[bytes, bool]:
    """What comes until the end, and whether instead the service waits for more.

    It does where it says nothing, though it has answered somebody else who asked later.
    """
    received, has_answered_others = b"", False
    while True:
        try:
            part = await asyncio.wait_for(reader.read(_LARGEST), _QUIET)
        except TimeoutError:
            if has_answered_others:
                return received, True
            await _answered(port)
            has_answered_others = True
            continue
        except ConnectionError:  # closed while it was still being sent to
            return received, False
        if not part:
            return received, False
        received += part


async def _answered(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_LAST)
    await reader.read()
    writer.close()

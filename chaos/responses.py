"""Responses as they come over a connection, and what is wrong with one."""

import json
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from service.api.headers import ARROW
from service.api.problems import KINDS, MEDIA_TYPE

_END_OF_HEAD: Final = b"\r\n\r\n"
_MAY_FAIL: Final = frozenset({503, 504})
"""What of the statuses from 500 on is documented as no failure of the service."""


@dataclass(frozen=True, slots=True)
class Response:
    """One response; names of headers are in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Garbled(Exception):
    """What came is no HTTP."""


def responses_in(received: bytes, *, to_head: bool = False) -> tuple[list[Response], bytes]:
    """The responses that have come whole, and what came behind them; the first may be one to HEAD, without a body.

    Raises:
        Garbled: it is none.
    """
    found = []
    while received:
        head, separator, rest = received.partition(_END_OF_HEAD)
        if not separator:
            break
        status, headers = _head(head)
        bare = status < 200 or status in (204, 304) or (to_head and status != 400)
        to_head = to_head and status < 200
        length = 0 if bare else int(headers.get(b"content-length", b"0"))
        if len(rest) < length:
            break
        found.append(Response(status, headers, rest[:length]))
        received = rest[length:]
    return found, received


def fault_in(response: Response) -> str | None:
    """Say what is wrong with a response to a mutated request, or None where it is one that the documents promise."""
    status = response.status
    if status >= 500 and status not in _MAY_FAIL:
        return f"status {status}: {response.body[:200]!r}"
    kind = response.headers.get(b"content-type", b"").partition(b";")[0]
    if kind == MEDIA_TYPE.encode():
        return _fault_in_problem(status, response.body)
    if status >= 400 and kind != b"text/plain":
        return None if not response.body else f"status {status} as {kind!r}"
    if kind == b"application/json" and response.body:
        try:
            json.loads(response.body, parse_constant=_refuse)
        except ValueError as error:
            return f"status {status}, whose body is no JSON: {error}"
    if kind == ARROW:
        try:
            pa.ipc.open_stream(response.body).read_all().validate(full=True)
        except pa.ArrowException as error:
            return f"status {status}, whose body is no Arrow stream: {error}"
    return None


def _fault_in_problem(status: int, body: bytes) -> str | None:
    if not body:  # an answer to HEAD
        return None
    try:
        document = json.loads(body, parse_constant=_refuse)
    except ValueError as error:
        return f"status {status}, whose problem document is no JSON: {error}"
    name = str(document.get("type", "")).removeprefix("/problems/")
    known = KINDS.get(name)
    if document.get("status") != status or (known is not None and known.status != status):
        return f"status {status}, but the problem document is of {document.get('status')}, {name}"
    if status >= 400 and known is None and name != "about:blank":
        return f"a problem that is not documented: {name}"
    return None


def _head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if version != b"HTTP/1.1" or not rest[:3].isdigit():
        raise Garbled(repr(first[:80]))
    headers = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise Garbled(repr(line[:80]))
        headers[name.strip().lower()] = value.strip()
    return int(rest[:3]), headers


def _refuse(constant: str) -> Any:
    raise ValueError(f"it holds {constant}, which JSON has not")

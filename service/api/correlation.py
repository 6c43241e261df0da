"""What joins a request to what others know of it: its id, and the trace that it is part of.

An id that a client sends (`X-Request-Id`) is taken over, where it is such that it can go into any log or header as it
is; otherwise, and where there is none, the request is given one. A trace is joined as W3C's Trace Context says
(https://www.w3.org/TR/trace-context/): a `traceparent` that is not sound counts as none.
"""

import os
import re
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple

REQUEST_ID: Final = b"x-request-id"
TRACE_PARENT: Final = b"traceparent"

_SOUND_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
_SOUND_PARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-[0-9a-f]{2}(?:-[!-~]*)?"
)
_VERSION_0_BYTES: Final = 55
_MADE_TOGETHER: Final = 256


class Correlation(NamedTuple):
    """What a request's headers say of it."""

    request_id: bytes | None
    """As the client sent it; None where it is to be given one."""
    trace_id: str | None
    """Of the trace that it is part of, 32 hexadecimal digits."""


NONE: Final = Correlation(None, None)


def read_correlation(headers: Iterable[tuple[bytes, bytes]]) -> Correlation:
    """Read a request's headers, their names in lower case; what is not sound counts as not sent."""
    request_id, parents = None, []
    for name, value in headers:
        if name == REQUEST_ID:
            request_id = value if request_id is None and _SOUND_ID.fullmatch(value) else request_id
        elif name == TRACE_PARENT:
            parents.append(value)
    # Of several nobody knows which is meant.
    trace_id = _trace_id(parents[0]) if len(parents) == 1 else None
    return NONE if request_id is None and trace_id is None else Correlation(request_id, trace_id)


def new_request_id() -> bytes:
    """An id that no other request has: 16 hexadecimal digits, by chance."""
    return next(_IDS)


def _trace_id(parent: bytes) -> str | None:
    found = _SOUND_PARENT.fullmatch(parent.strip())
    if found is None or (parent.startswith(b"00") and len(parent.strip()) != _VERSION_0_BYTES):
        return None
    return found[1].decode()


def _ids() -> Iterator[bytes]:
    """Ids without an end, made many at a time: one by one they would take three times as long."""
    apart = Struct("16s" * _MADE_TOGETHER).unpack
    while True:
        yield from apart(os.urandom(_MADE_TOGETHER * 8).hex().encode())


_IDS: Final = _ids()

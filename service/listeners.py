"""The sockets that the service listens on: one for each worker, which outlive the workers.

Workers that share one socket take connections as they come to it: the first to wake takes all that wait, and a client
that opens its connections at once has them all at one worker. With `SO_REUSEPORT` the kernel spreads connections over
several sockets (https://lwn.net/Articles/542629/). But what waits at a socket is reset when nobody holds it any more.
So all of them are held by the process that does not serve, and a worker that dies leaves what waits to others.
"""

import ctypes
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, Final

# Linux spreads connections over sockets with one address; others give them all to one of the sockets.
_SPREADS: Final = sys.platform == "linux"

_ATTACH_FILTER: Final = 26
# Classic BPF, https://docs.kernel.org/networking/filter.html: of the segments that come to the socket drop those with
# SYN and without ACK, attempts to connect; a segment begins with TCP's header, whose flags are its byte 13.
_NO_ATTEMPTS: Final = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),
        (0x54, 0, 0, 0x12),
        (0x15, 0, 1, 0x02),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
    )
)
_INSTRUCTION_BYTES: Final = 8


def bind(host: str, port: int, workers: int) -> list[socket.socket]:
    """Bind to an address, which is yet to be listened at; port 0 = any free one.

    There is a socket for each worker where the system spreads connections over them, and one for all where it does not.

    Raises:
        OSError: the address cannot be bound to, or somebody listens there.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    several = _SPREADS and workers > 1
    if several:  # another service that shares it as well would have its share of the connections
        _bound(family, kind, protocol, address, shared=False).close()
    found: list[socket.socket] = []
    try:
        for _ in range(workers if several else 1):
            found.append(_bound(family, kind, protocol, address, shared=several))
            address = found[0].getsockname()
    except OSError:
        for listener in found:
            listener.close()
        raise
    return found


def url_of(listener: socket.socket, scheme: str) -> str:
    """Where a socket is to be reached."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def refuse_new(listener: socket.socket) -> None:
    """Let nobody begin to connect any more, for everybody who holds the socket, where the system can do that.

    Who has begun gets through, and can be waited for; who tries anew is not answered, tries again after a second, and
    is refused once the socket is closed. A socket that is just closed resets those who have connected since it was
    last looked at, and may have sent a request.
    """
    program = ctypes.create_string_buffer(_NO_ATTEMPTS)
    count = len(_NO_ATTEMPTS) // _INSTRUCTION_BYTES
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", count, ctypes.addressof(program)))


def allow_files(most: int) -> None:
    """Let this process and its workers have so many files open, connections among them, as far as the system allows."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _bound(family: int, kind: int, protocol: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener

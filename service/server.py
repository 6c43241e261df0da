"""The server processes: uvicorn's, each worker with a listening socket of its own.

Workers that share one socket take connections as they come to it: the first to wake takes all that wait, and a client
that opens its connections at once has them all at one worker. With `SO_REUSEPORT` the kernel spreads connections over
the workers' sockets (https://lwn.net/Articles/542629/).
"""

import logging
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from uvicorn import Config, Server
from uvicorn.supervisors import Multiprocess

FAILED: Final = 3
"""The exit code where the server did not start."""

_log: Final = logging.getLogger("uvicorn.error")


def serve(config: Config) -> int:
    """Serve until told to stop, with as many processes as `config` asks for; return the exit code."""
    if config.workers == 1:
        server = Server(config)
        server.run()
        return 0 if server.started else FAILED
    if not hasattr(socket, "SO_REUSEPORT"):
        with config.bind_socket() as shared:
            Multiprocess(config, sockets=[shared]).run()
        return 0
    try:
        _check_is_free(config.host, config.port)
        address = Address(config.host, config.port)
    except OSError as error:
        _log.error(error)
        return FAILED
    with address:
        host, port = address.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        scheme = "https" if config.is_ssl else "http"
        _log.info("Uvicorn running on %s://%s:%d (Press CTRL+C to quit)", scheme, name, port)
        Multiprocess(config, sockets=[address]).run()
    return 0


class Address(socket.socket):
    """A socket that keeps an address without listening; sent to another process, it is a new one bound to the same."""

    def __init__(self, host: str, port: int) -> None:
        """Bind to an address, which others may be bound to as well; port 0 = any free one.

        Raises:
            OSError: the address cannot be bound to, or somebody listens there who does not share it.
        """
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        super().__init__(family, kind, protocol)
        try:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self.bind(address)
        except OSError:
            self.close()
            raise

    def __reduce__(self) -> tuple[Callable[[str, int], "Address"], tuple[Any, ...]]:
        return Address, self.getsockname()[:2]


def _check_is_free(host: str, port: int) -> None:
    """Raise OSError where somebody listens at an address, another service that would share it among them."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def allow_files(most: int) -> None:
    """Let this process and its workers have so many files open, connections among them, as far as the system allows."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

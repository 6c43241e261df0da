"""Rate limits: how many requests a client may send in how much time, counted by all workers together.

Each client has a bucket of as many requests as its rate names, which fills up evenly. What is kept of a bucket is one
number: when it will be full again (the generic cell rate algorithm, ITU-T I.371). So a client that has been quiet needs
no room, and two workers never have to agree on more than one number, which each writes at once: where both take a
request of one client in the same microsecond, one of the two may not be counted.
"""

import mmap
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from time import monotonic
from typing import Final

from service.disk import reserve

FORM: Final = "a rate such as 100/second, 5000/hour or 1/10 seconds"

_BUCKETS: Final = 65_536
_WAYS: Final = 8  # buckets among which a client's may be
_BYTES: Final = 8
_FILE: Final = "rates.table"
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE: Final = re.compile(r"([1-9]\d{0,8})\s*(?:/|\bper\b)\s*([1-9]\d{0,8})?\s*([a-z]+?)s?", re.IGNORECASE)
_HOSTS_REMEMBERED: Final = 4096
# How much too early a request may come, as a share of the time for one and in seconds: a bucket that is emptied at once
# may seem overdrawn by what rounding adds up to.
_SLACK: Final = 1e-6
_LEAST_SLACK: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so many seconds; that many may also come at once."""

    requests: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Read `<requests>/<unit>` or `<requests>/<number> <unit>`, the unit a second, minute, hour or day.

        Raises:
            ValueError: it is none of that, or names no requests or no time.
        """
        found = _RATE.fullmatch(text.strip())
        unit = _SECONDS.get(found[3].lower()) if found else None
        if found is None or unit is None:
            raise ValueError(f"it must be {FORM}")
        return cls(int(found[1]), int(found[2] or 1) * unit)


class Limiter:
    """The buckets of all clients, in memory that the workers share."""

    def __init__(self, folder: Path | None) -> None:
        """Keep them in a file of `folder`, or where there is none for this process alone."""
        size = 2 * _BUCKETS * _BYTES
        if folder is None:
            self._map = mmap.mmap(-1, size)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                reserve(file, size)
                self._map = mmap.mmap(file, size)
            finally:
                os.close(file)
        table = memoryview(self._map)
        self._clients = table[: size // 2].cast("Q")
        self._full_at = table[size // 2 :].cast("d")

    def wait(self, client: int, rate: Rate) -> float:
        """Count a request of a client, if its rate allows one now; else the seconds until it will.

        `client` is a number from `client_number` or `address_number`.
        """
        now = monotonic()
        place = self._place(client, now)
        full_at = self._full_at[place]
        # Further off than a whole bucket only where the rate was another one, or the machine has been started anew.
        slack = _SLACK * rate.seconds / rate.requests + _LEAST_SLACK
        if not now < full_at <= now + rate.seconds + slack:
            full_at = now
        full_at += rate.seconds / rate.requests
        wait = full_at - now - rate.seconds
        if wait > slack:
            return wait
        self._full_at[place] = full_at
        self._clients[place] = client
        return 0.0

    def close(self) -> None:
        """Let go of the memory."""
        self._clients.release()
        self._full_at.release()
        self._map.close()

    def _place(self, client: int, now: float) -> int:
        """Where a client's bucket is, or could be: in the place of a full one, else of the one that is full first."""
        first = client % _BUCKETS // _WAYS * _WAYS
        clients, full_at = self._clients, self._full_at
        for place in range(first, first + _WAYS):
            if clients[place] == client:
                return place
        place = min(range(first, first + _WAYS), key=full_at.__getitem__)
        full_at[place] = 0.0
        return place


def client_number(name: str) -> int:
    """The number by which a client of this name is known; never 0."""
    return int.from_bytes(blake2b(name.encode(), digest_size=_BYTES).digest(), "little") or 1


@lru_cache(_HOSTS_REMEMBERED)
def address_number(host: str) -> int:
    """The number by which the clients at an address are known; of IPv6 all those of one /64, which is one network's."""
    try:
        address = ip_address(host)
    except ValueError:  # a socket of the file system has none
        return client_number(f"address {host}")
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64)
    return client_number(f"address {address}")

"""Who may ask for what, and how often: every endpoint's scope, and the check before it.

Without a file of keys nobody is asked for one, and the endpoints that change something are closed to all.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from service.errors import Forbidden, TooManyRequests, Unauthenticated
from service.keys import Key, Keyring, ScopeName
from service.limits import Limiter, Rate, address_number

SCOPES: Final[Mapping[tuple[str, str], ScopeName | None]] = {
    ("POST", "/forecast"): "forecast",
    ("POST", "/forecast/multi-step"): "forecast",
    ("GET", "/models"): "metadata",
    ("POST", "/models/refresh"): "admin",
    ("GET", "/models/{name}"): "metadata",
    ("GET", "/models/{name}/versions/{version}"): "metadata",
    ("GET", "/metrics"): "metadata",
    ("GET", "/health/live"): None,
    ("GET", "/health/ready"): None,
    ("GET", "/problems/{name}"): None,
    ("GET", "/"): None,
    ("GET", "/docs"): None,
    ("GET", "/redoc"): None,
    ("GET", "/openapi.json"): None,
}
"""The scope that a key must have for each endpoint; None: open to all. Documentation says nothing of what is served."""

_BEARER: Final = b"bearer "
# Each is compared with all that are known; nobody has reason to send more than one.
_MOST_PRESENTED: Final = 2


class Access:
    """The check of one process's requests."""

    def __init__(self, keyring: Keyring | None, anonymous: Rate | None, limiter: Limiter) -> None:
        """Ask for keys of `keyring`, where there is one, and let clients without a key send as many as `anonymous`."""
        self._keyring = keyring
        self._anonymous = anonymous
        self._limiter = limiter

    def admit(self, scope: ScopeName, secrets: Iterable[bytes], client: tuple[str, int] | None) -> int:
        """Let a request with these secrets pass that an endpoint of this scope may answer, and count it.

        Returns its client's number: that is its key's, or where there are no keys that of its address.

        Raises:
            Unauthenticated: it has no key that is known.
            Forbidden: its key lacks the scope; or the scope is `admin`, and there are no keys.
            TooManyRequests: its key's rate, or that of the clients without one, does not allow it now.
        """
        keyring = self._keyring
        if keyring is None:
            if scope == "admin":
                raise Forbidden("this needs a key with the scope admin, and LEADTIME_KEYS names no file of keys", scope)
            return self._count_anonymous(client)
        presented = False
        for secret in secrets:
            presented = True
            key = keyring.keys.find(secret)
            if key is not None:
                self._admit_key(key, scope)
                return key.number
        # Guessing is counted as well.
        self._count_anonymous(client)
        if presented:
            raise Unauthenticated("this key is not known: it may have been taken back")
        raise Unauthenticated("this needs a key: send it with the header Authorization: Bearer, or X-API-Key")

    def client_of(self, secrets: Iterable[bytes], client: tuple[str, int] | None) -> int:
        """The number of a request's client, as far as it is known without a check; else that of its address."""
        if self._keyring is not None:
            for secret in secrets:
                key = self._keyring.keys.recall(secret)
                if key is not None:
                    return key.number
        return _number(client)

    def refresh(self) -> None:
        """Look whether the file of keys has changed."""
        if self._keyring is not None:
            self._keyring.refresh()

    def _admit_key(self, key: Key, scope: ScopeName) -> None:
        if scope not in key.scopes:
            raise Forbidden(f"this key lacks the scope {scope}", scope)
        if key.limit is not None:
            _wait(self._limiter.wait(key.number, key.limit), key.limit)

    def _count_anonymous(self, client: tuple[str, int] | None) -> int:
        number = _number(client)
        if self._anonymous is not None:
            _wait(self._limiter.wait(number, self._anonymous), self._anonymous)
        return number


def secrets_of(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, ...]:
    """What a request's headers present as keys, as far as it is looked at."""
    found: list[bytes] = []
    for name, value in headers:
        if name == b"x-api-key":
            found.append(value)
        elif name == b"authorization" and value[:7].lower() == _BEARER:
            found.append(value[7:].strip())
        if len(found) == _MOST_PRESENTED:
            break
    return tuple(found)


def _number(client: tuple[str, int] | None) -> int:
    return address_number("" if client is None else client[0])


def _wait(seconds: float, rate: Rate) -> None:
    if seconds > 0:
        raise TooManyRequests(f"more than {rate.requests} requests in {rate.seconds} s: wait before the next", seconds)

"""API keys: named secrets with scopes, of which a file holds the hashes.

A secret is 256 random bits, so that one round of SHA-256 is as good as a slow hash: nobody guesses it either way. The
file is TOML, with a table for each key:

    [[key]]
    name = "dashboard"
    scopes = ["forecast", "metadata"]
    limit = "100/second"
    sha256 = "…"

No message repeats what the file holds, but for names that are found sound: somebody may have put a secret there.
"""

import hmac
import json
import logging
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, get_args

from service.errors import KeysError
from service.limits import FORM, Rate, client_number
from service.stamp import settled, stamp_of

ScopeName = Literal["forecast", "metadata", "admin"]
SCOPES: Final[tuple[ScopeName, ...]] = get_args(ScopeName)

MOST_KEYS: Final = 1000
PREFIX: Final = "leadtime_"
"""What every secret begins with, so that people and scanners for leaked secrets know it."""

_RANDOM_BYTES: Final = 32
_MOST_REMEMBERED: Final = 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_FIELDS: Final = ("name", "scopes", "limit", "sha256")

_log: Final = logging.getLogger("leadtime.keys")


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its secret."""

    name: str
    scopes: frozenset[ScopeName]
    limit: Rate | None
    digest: bytes
    """SHA-256 of the secret."""
    number: int
    """By which its requests are counted."""


class Keys:
    """The keys of one reading of the file; never changed."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = tuple(keys)
        self._known: dict[bytes, Key] = {}

    def find(self, secret: bytes) -> Key | None:
        """The key that has this secret.

        A secret that was found is remembered, and not hashed again. The memory's own look-up gives nothing away: it
        goes by a hash that is keyed with a secret of the process.
        """
        key = self._known.get(secret)
        if key is None:
            key = self._compare(sha256(secret).digest())
            if key is not None:
                if len(self._known) >= _MOST_REMEMBERED:
                    self._known.clear()
                self._known[secret] = key
        return key

    def recall(self, secret: bytes) -> Key | None:
        """The key that has this secret, if it is remembered."""
        return self._known.get(secret)

    def _compare(self, digest: bytes) -> Key | None:
        found = None
        for key in self.keys:  # all of them, so that the time does not tell which
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


class Keyring:
    """The keys of a file, read anew when it changes."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            KeysError: it cannot be used.
        """
        self._path = path
        self._stamp = stamp_of(path)
        self.keys = read_keys(path)
        self._tell()

    def refresh(self) -> None:
        """Look at the file, and where it has changed read it; where it cannot be used, say so and keep the keys."""
        if stamp_of(self._path) == self._stamp:
            return
        self._stamp = settled(lambda: stamp_of(self._path))
        try:
            self.keys = read_keys(self._path)
        except KeysError as error:
            _log.error("%s; the keys from before stay", error)
        else:
            self._tell()

    def _tell(self) -> None:
        names = ", ".join(key.name for key in self.keys.keys)
        if names:
            _log.info("keys: %s", names)
        else:
            _log.warning("%s holds no key: every request that needs one is refused", self._path.name)


def read_keys(path: Path) -> Keys:
    """Read a file of keys.

    Raises:
        KeysError: it cannot be read, or a key in it cannot be used; in one line that names the place and the mend.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KeysError(f"{path.name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeysError(f"{path.name} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\((at [^()]*)\)$", str(error))
        raise KeysError(f"{path.name} is not TOML{' ' + place[1] if place else ''}") from None
    try:
        return Keys(_keys(document))
    except ValueError as error:
        raise KeysError(f"{path.name}: {error}") from None


def add_key(path: Path, name: str, scopes: Sequence[str], limit: str | None = None) -> str:
    """Make a key, put it at the end of a file, which is made where there is none, and return its secret.

    The file is replaced as a whole, so that a service that reads it never sees a part.

    Raises:
        KeysError: the file cannot be used or written, holds a key of this name already, or what is given is not sound.
    """
    secret = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    table: dict[str, Any] = {"name": name, "scopes": list(scopes)}
    table |= {} if limit is None else {"limit": limit}
    table["sha256"] = sha256(secret.encode()).hexdigest()
    try:
        _key(table)
    except ValueError as error:
        raise KeysError(str(error)) from None
    before = ""
    if path.exists():
        if name in {key.name for key in read_keys(path).keys}:
            raise KeysError(f"{path.name} has a key {name} already: take another name, or take that key out")
        before = path.read_text(encoding="utf-8").rstrip("\n")
    # Of what has been found sound, JSON is TOML.
    lines = ["[[key]]", *(f"{field} = {json.dumps(value)}" for field, value in table.items())]
    _write(path.resolve(), "\n".join([before, "", *lines] if before else lines) + "\n")
    return secret


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        # It holds no secrets, and the service may run as somebody else.
        new.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        new.replace(path)
    except OSError as error:
        raise KeysError(f"{path.name} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            new.unlink()


def _keys(document: Mapping[str, Any]) -> list[Key]:
    tables = document.get("key", [])
    if (
        document.keys() - {"key"}
        or not isinstance(tables, list)
        or not all(isinstance(table, dict) for table in tables)
    ):
        raise ValueError("it must hold nothing but a table [[key]] for each key")
    if len(tables) > MOST_KEYS:
        raise ValueError(f"it holds more than {MOST_KEYS} keys")
    keys: list[Key] = []
    for number, table in enumerate(tables, start=1):
        try:
            key = _key(table)
        except ValueError as error:
            raise ValueError(f"key {number}: {error}") from None
        if any(key.name == other.name for other in keys):
            raise ValueError(f"key {number}: name: another key has it already")
        if any(key.digest == other.digest for other in keys):
            raise ValueError(f"key {number}: sha256: another key has it already")
        keys.append(key)
    return keys


def _key(table: Mapping[str, Any]) -> Key:
    if table.keys() - set(_FIELDS):
        raise ValueError(f"it may have {', '.join(_FIELDS)}, and nothing else")
    name, scopes, digest = table.get("name"), table.get("scopes"), table.get("sha256")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            "name: it must be at most 64 letters, digits, dots, hyphens and underscores, the first a letter or digit"
        )
    if not isinstance(scopes, list) or not scopes or any(scope not in SCOPES for scope in scopes):
        raise ValueError(f"scopes: it must be a list of one or more of {', '.join(SCOPES)}")
    if not isinstance(digest, str) or not _HASH.fullmatch(digest):
        raise ValueError("sha256: it must be the 64 digits that `python -m service keys new` writes")
    limit = None
    if "limit" in table:
        try:
            limit = Rate.parse(str(table["limit"]))
        except ValueError:
            raise ValueError(f"limit: it must be {FORM}") from None
    return Key(name, frozenset(scopes), limit, bytes.fromhex(digest), client_number(f"key {name}"))

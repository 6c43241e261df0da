"""Versions: one `model.onnx` each, tried when its file changes, and served once it is sound.

A file is never taken for what it is not yet. Whoever writes one gives it another name first and renames it, so that it
appears whole. Where a copy comes bit by bit nevertheless, a `model.onnx.sha256` beside it, as `sha256sum` writes it,
says what it is going to be; until it is, the file is looked at again and again. Where signatures are asked for, nothing
of the file is read for what it says before its own has been found sound.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.artifact import DIGEST_NAME, FILE_NAME, SIGNATURE_NAME
from service.engine import Engine, digest_of, read_artifact
from service.errors import ArtifactError
from service.signing import SigningKeys
from service.stamp import Stamp, stamp_of

_MOST_TOLD: Final = 600
_DIGEST: Final = re.compile(rb"([0-9a-fA-F]{64})(?:[ \t]+\*?([^\r\n]+))?[\r\n]*", re.DOTALL)
_LONGEST_DIGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version of a model, open and checked. Whoever holds it may use it, also after it was replaced or removed."""

    name: str
    version: str
    engine: Engine
    path: Path
    canary: "Beside | None" = None
    """The version that answers a share of the requests in its place; only of that which is found without a version."""
    shadow: "Beside | None" = None
    """The version that makes a share of its forecasts as well, to be compared; only of that as well."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A version that stands beside another one, and the share of requests, 0 to 1, that it takes part in."""

    model: ServedModel
    share: float


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one file: how it was when it was last tried, what is served for it, and why it is not itself."""

    stamp: Stamp | None
    """None where it is to be tried again at the next look, however it is."""
    served: ServedModel | None
    fault: str | None


class _Unsettled(ArtifactError):
    """The file is not what it is going to be, or cannot be read for the moment."""


def look_at(
    name: str, version: str, path: Path, before: Entry | None, signing_keys: SigningKeys | None = None
) -> Entry:
    """Open the file of a version, unless it is as it was when it was tried before.

    With `signing_keys`, one of them must have signed it. Where it cannot be used, its former content stays, and the
    reason is told in one line.
    """
    stamp = stamp_of(path) + stamp_of(path.with_name(DIGEST_NAME))
    if signing_keys is not None:
        stamp += stamp_of(path.with_name(SIGNATURE_NAME)) + signing_keys.stamp
    if before is not None and before.stamp == stamp:
        return before
    former = before.served if before is not None else None
    try:
        content, digest = _settled(path)
        if signing_keys is not None:
            _check_signature(digest, path.with_name(SIGNATURE_NAME), signing_keys)
        if former is not None and former.engine.digest == digest:
            return Entry(stamp, former, None)
        return Entry(stamp, ServedModel(name, version, Engine.load(content), path), None)
    except _Unsettled as error:
        return Entry(None, former, _told(error, former))
    except ArtifactError as error:
        return Entry(stamp, former, _told(error, former))
    # A file from outside may fail in ways that nobody has thought of; it must not keep the others from being looked at.
    except Exception as error:
        fault = ArtifactError(f"it cannot be opened ({type(error).__name__})")
        return Entry(stamp, former, _told(fault, former))


def one_line(text: str) -> str:
    """Escape what a folder or a file may say but a log line or an answer may not: line ends, bytes that are no text."""
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return line if len(line) <= _MOST_TOLD else f"{line[:_MOST_TOLD]} …"


def _told(error: ArtifactError, former: ServedModel | None) -> str:
    fault = one_line(str(error))
    return fault if former is None else f"{fault} (the file's former content is still served)"


def _settled(path: Path) -> tuple[bytes, str]:
    """The content of a file that is whole, as far as can be told, and its digest."""
    before = stamp_of(path)
    try:
        content = read_artifact(path)
    except ArtifactError as error:
        raise _Unsettled(str(error)) from error
    if stamp_of(path) != before:
        raise _Unsettled("it is being written")
    digest = digest_of(content)
    _check_digest(digest, path.with_name(DIGEST_NAME))
    return content, digest


def _check_digest(digest: str, path: Path) -> None:
    """Compare with the digest that the file beside it names, where there is one."""
    try:
        with path.open("rb") as file:
            line = file.read(_LONGEST_DIGEST)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _Unsettled(f"{DIGEST_NAME} beside it cannot be read: {error.strerror}") from error
    found = _DIGEST.fullmatch(line)
    if found is None or (found[2] is not None and found[2].strip().rpartition(b"/")[2] != FILE_NAME.encode()):
        raise _Unsettled(f"{DIGEST_NAME} beside it is not what `sha256sum {FILE_NAME}` writes")
    if digest != f"sha256:{found[1].decode().lower()}":
        raise _Unsettled(f"its digest is not the one in {DIGEST_NAME}: it is being copied, or was changed")


def _check_signature(digest: str, path: Path, keys: SigningKeys) -> None:
    try:
        signature = keys.read_signature(path)
    except FileNotFoundError:
        raise ArtifactError(f"it is not signed: {path.name} is not beside it (`python -m service sign`)") from None
    except OSError as error:
        raise _Unsettled(f"{path.name} beside it cannot be read: {error.strerror}") from error
    if not signature.is_of(digest):
        raise _Unsettled(
            f"{path.name} is not its signature by {signature.signer.name}: it is being copied, or was changed"
        )

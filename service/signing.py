"""Signatures of model files: made with somebody's private key, and checked with the public ones that the service has.

They are Ed25519 (RFC 8032). What is signed is a text which says what it is for, and which file it is about by its
SHA-256, so that no signature of anything else is ever one of a model:

    leadtime model sha256:<64 digits>

`model.onnx.sig` beside the file holds one line. Its second word says which key to try, and is believed no further:

    ed25519 <the first 16 digits of the SHA-256 of the public key's 32 bytes> <the signature in base64>

The library `cryptography` is that of the extra `signatures`; nothing of it is imported before it is needed.
"""

import logging
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.artifact import FILE_NAME
from service.errors import ArtifactError, SigningError
from service.stamp import Stamp, settled, stamp_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SETTING: Final = "LEADTIME_SIGNING_KEYS"
PRIVATE_SUFFIX: Final = ".key"
PUBLIC_SUFFIX: Final = ".pem"
"""Of a folder, the files that are read as public keys."""

_PURPOSE: Final = "leadtime model"
_ID_DIGITS: Final = 16
_LONGEST_LINE: Final = 4096
_LINE: Final = re.compile(rb"ed25519 ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)\r?\n?")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)

_log: Final = logging.getLogger("leadtime.signing")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key with which signatures are checked."""

    name: str
    """Of its file, without the ending."""
    key: "Ed25519PublicKey"


@dataclass(frozen=True, slots=True)
class Signature:
    """What is said to be the signature of a file, by a key that is known."""

    signer: PublicKey
    value: bytes

    def is_of(self, digest: str) -> bool:
        """Whether its key has signed the file of this digest."""
        from cryptography.exceptions import InvalidSignature

        try:
            self.signer.key.verify(self.value, _message(digest))
        except InvalidSignature:
            return False
        return True


class SigningKeys:
    """The public keys of a file or a folder, read anew when they change."""

    def __init__(self, path: Path) -> None:
        """Read them.

        Raises:
            SigningError: they cannot be used.
        """
        self._path = path
        self.stamp = _stamp(path)
        """What tells these keys from those before."""
        self._keys = read_signing_keys(path)
        self._tell()

    def refresh(self) -> None:
        """Look at the files, and read them where they have changed; say so and keep the keys where they are no use."""
        if _stamp(self._path) == self.stamp:
            return
        self.stamp = settled(lambda: _stamp(self._path))
        try:
            self._keys = read_signing_keys(self._path)
        except SigningError as error:
            _log.error("%s; the keys from before stay", error)
        else:
            self._tell()

    def read_signature(self, path: Path) -> Signature:
        """Read what lies beside a model file.

        Raises:
            ArtifactError: it is no signature, or by a key that is not among these.
            OSError: it cannot be read.
        """
        with path.open("rb") as file:
            found = _LINE.fullmatch(file.read(_LONGEST_LINE))
        if found is None:
            raise ArtifactError(f"{path.name} beside it is not what `python -m service sign` writes")
        signer = self._keys.get(found[1].decode())
        if signer is None:
            raise ArtifactError(f"it is signed with the key {found[1].decode()}, which is none of {SETTING}")
        return Signature(signer, b64decode(found[2]))

    def _tell(self) -> None:
        named = ", ".join(f"{key.name} ({number})" for number, key in self._keys.items())
        _log.info("models must be signed with one of these keys: %s", named)


def read_signing_keys(path: Path) -> Mapping[str, PublicKey]:
    """Read the public keys of a file, or of the files of a folder that end in `.pem`, by their ids.

    Raises:
        SigningError: there is none, or one cannot be used; in one line that names the file and the mend.
    """
    try:
        _require_library()
        keys = {_id(key.key): key for file in _files(path) for key in _public_keys(file)}
        if not keys:
            raise SigningError(
                f"{path.name} holds no public key: put those of whoever signs there, as NAME{PUBLIC_SUFFIX}"
            )
    except OSError as error:
        raise SigningError(f"{SETTING}: {path.name} cannot be read: {error.strerror}") from None
    except SigningError as error:
        raise SigningError(f"{SETTING}: {error}") from None
    return keys


def make_signing_key(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a key, and put its private and its public part into two files of a folder; return their places.

    Raises:
        SigningError: one of them is there already or cannot be written, or the name is not sound.
    """
    _require_library()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not _NAME.fullmatch(name):
        raise SigningError(
            "the name must be at most 64 letters, digits, dots, hyphens and underscores, the first a letter or digit"
        )
    private, public = folder / f"{name}{PRIVATE_SUFFIX}", folder / f"{name}{PUBLIC_SUFFIX}"
    for path in (private, public):
        if path.exists():
            raise SigningError(f"{path} is there already: take another name")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _create(private, secret, 0o600)
    _create(
        public,
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        0o644,
    )
    return private, public


def sign(key: Path, model: Path) -> Path:
    """Sign a file, or the `model.onnx` of a folder, with a private key; return the place of the signature, beside it.

    Raises:
        SigningError: the key or the file cannot be used, or the signature cannot be written.
    """
    _require_library()
    private = _private_key(key)
    path = model / FILE_NAME if model.is_dir() else model
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SigningError(f"{path} cannot be read: {error.strerror}") from None
    value = b64encode(private.sign(_message(f"sha256:{sha256(content).hexdigest()}"))).decode()
    beside = path.with_name(f"{path.name}.sig")
    new = path.with_name(f".{beside.name}.new")
    try:
        new.write_text(f"ed25519 {_id(private.public_key())} {value}\n", encoding="ascii")
        new.replace(beside)
    except OSError as error:
        raise SigningError(f"{beside} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            new.unlink()
    return beside


def _message(digest: str) -> bytes:
    return f"{_PURPOSE} {digest}".encode()


def _id(key: "Ed25519PublicKey") -> str:
    return sha256(key.public_bytes_raw()).hexdigest()[:_ID_DIGITS]


def _require_library() -> None:
    if find_spec("cryptography") is None:
        raise SigningError(
            "signatures need the library cryptography, which is not installed: install locks/signatures.txt"
        )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix == PUBLIC_SUFFIX and not file.name.startswith("."))


def _stamp(path: Path) -> Stamp:
    try:
        return tuple(number for file in _files(path) for number in stamp_of(file))
    except OSError:
        return ()


def _public_keys(file: Path) -> list[PublicKey]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        blocks = list(_PEM.finditer(file.read_bytes()))
    except OSError as error:
        raise SigningError(f"{file.name} cannot be read: {error.strerror}") from None
    if any(block[1].endswith(b"PRIVATE KEY") for block in blocks):
        raise SigningError(f"{file.name} holds a private key: give the service the public one alone")
    if not blocks:
        raise SigningError(f"{file.name} holds no public key (PEM)")
    keys = []
    for block in blocks:
        try:
            key = load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise SigningError(f"{file.name} holds something else than public Ed25519 keys (PEM)")
        keys.append(PublicKey(file.stem, key))
    return keys


def _private_key(file: Path) -> "Ed25519PrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise SigningError(f"{file} cannot be read: {error.strerror}") from None
    except TypeError:
        raise SigningError(f"the key in {file} is encrypted: give it without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{file} holds no private Ed25519 key (PEM), as `python -m service signing-keys new` writes")
    return key


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet, and which from its first byte nobody may read who shall not."""
    try:
        path.touch(mode, exist_ok=False)
        path.write_bytes(content)
    except OSError as error:
        raise SigningError(f"{path} cannot be written: {error.strerror}") from None

"""TLS: whose certificate the service shows, and which clients' it asks for.

A certificate is good for some weeks, and a service runs for months: the files are looked at whenever a client connects,
and read anew where they have changed.
"""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.errors import SettingsError
from service.stamp import Stamp, stamp_of

# With forward secrecy and authenticated encryption, for TLS 1.2; all of 1.3 are such (RFC 9325).
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"

_log: Final = logging.getLogger("leadtime.tls")


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a certificate, with those that signed it behind it, its key, and who signs clients' certificates."""

    certificate: Path
    key: Path | None
    """Without one, it is in the file of the certificate."""
    client_ca: Path | None
    """Without one, clients need no certificate."""

    def context(self, *_: object) -> ssl.SSLContext:
        """What a server needs of it, which keeps up with the files of certificate and key.

        A server that calls this by itself may pass what it likes.

        Raises:
            SettingsError: a file cannot be used; in one line that names the setting.
        """
        context = _context(self)
        context.sni_callback = _Renewal(self, context)
        return context


class _Renewal:
    """Called as each client begins to connect."""

    def __init__(self, tls: Tls, context: ssl.SSLContext) -> None:
        self._tls = tls
        self._context = context
        self._stamps = _stamps(tls)

    def __call__(self, connection: ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
        stamps = _stamps(self._tls)
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._context = _context(self._tls)
            except SettingsError as error:
                _log.error("%s; the certificate from before stays", error)
            else:
                _log.info("a new certificate is shown from now on")
        connection.context = self._context


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    for setting, path in (("CERTIFICATE", tls.certificate), ("KEY", tls.key), ("CLIENT_CA", tls.client_ca)):
        if path is None:
            continue
        try:
            path.open("rb").close()
        except OSError as error:
            raise SettingsError(f"LEADTIME_TLS_{setting}: {path.name} cannot be read: {error.strerror}") from None
    try:
        context.load_cert_chain(tls.certificate, tls.key, _no_password)
    except (ssl.SSLError, _KeyIsEncrypted) as error:
        raise SettingsError(f"LEADTIME_TLS_CERTIFICATE: {_why_not(error, tls)}") from None
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError:
            raise SettingsError(f"LEADTIME_TLS_CLIENT_CA: {tls.client_ca.name} holds no certificate (PEM)") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class _KeyIsEncrypted(Exception):
    """The key's file asks for a password."""


def _no_password() -> str:
    raise _KeyIsEncrypted


def _why_not(error: Exception, tls: Tls) -> str:
    if isinstance(error, _KeyIsEncrypted):
        return f"the key in {(tls.key or tls.certificate).name} is encrypted: give it without a password"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return (
            f"the certificate in {tls.certificate.name} is not that of the key in {(tls.key or tls.certificate).name}"
        )
    holder = tls.certificate.name if tls.key is None else f"{tls.certificate.name} with {tls.key.name}"
    return f"{holder} must hold a certificate and its key (PEM)"


def _stamps(tls: Tls) -> tuple[Stamp, ...]:
    return tuple(stamp_of(path) for path in (tls.certificate, tls.key or tls.certificate))

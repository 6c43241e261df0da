"""TLS with certificates that are made for the occasion: shown, asked for, renewed, and refused."""

import json
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from service.errors import SettingsError
from service.settings import Settings
from service.tls import Tls
from tests.artifacts import write_artifact
from tests.end_to_end.process import PATIENCE, ROOT, environment, stop

BODY = b'{"window": [1, 2, 3]}'


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def folder(authority: trustme.CA, tmp_path: Path) -> Path:
    """A model, and a certificate with its key."""
    write_artifact(tmp_path / "models" / "default" / "1" / "model.onnx")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    write_certificate(authority, tmp_path)
    return tmp_path


def write_certificate(authority: trustme.CA, folder: Path) -> bytes:
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(folder / "key.pem")
    made.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextmanager
def speaking_tls(folder: Path, context: ssl.SSLContext, **settings: object) -> Iterator[int]:
    """The service on the port that is given, with the certificate of `folder`."""
    given = {
        "models": folder / "models",
        "tls_certificate": folder / "certificate.pem",
        "tls_key": folder / "key.pem",
        "workers": 1,
        "port": 0,
        "notice_seconds": 0,
    }
    variables = {f"LEADTIME_{name.upper()}": str(value) for name, value in (given | settings).items()}
    log = folder / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"], cwd=ROOT, env=environment(**variables), stderr=stderr
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            found = re.search(r"https://127\.0\.0\.1:(\d+)", log.read_text())
            with suppress(ConnectionError, ssl.SSLEOFError):
                if found and ask(int(found[1]), context)[0] == 200:
                    break
            time.sleep(0.02)
        yield int(found[1])
    finally:
        assert stop(process) == 0


def ask(port: int, context: ssl.SSLContext, head: bytes = b"") -> tuple[int, bytes, bytes | None, str | None]:
    """A forecast over a connection of its own: status, content, the certificate that is shown, and the TLS version."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(
            b"POST /forecast HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%bContent-Length: %d\r\n\r\n%b"
            % (head, len(BODY), BODY)
        )
        answer = b""
        while part := connection.recv(65_536):
            answer += part
        if not answer:
            raise ConnectionError("the server closed the connection")
        return int(answer[9:12]), answer, connection.getpeercert(binary_form=True), connection.version()


@pytest.mark.parametrize("workers", [1, 2])
def test_forecasts_travel_over_tls(folder: Path, authority: trustme.CA, workers: int) -> None:
    context = trusting(authority)
    with speaking_tls(folder, context, workers=workers) as port:
        status, answer, _, version = ask(port, context)
        assert (status, version) == (200, "TLSv1.3")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["model"] == "default"
        assert b"\r\nx-content-type-options: nosniff\r\n" in answer

        older = trusting(authority)
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        assert ask(port, older)[3] == "TLSv1.2"

        with pytest.raises(ssl.SSLCertVerificationError):
            ask(port, ssl.create_default_context())

        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain:
            plain.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            with suppress(ConnectionResetError):
                assert not plain.recv(100).startswith(b"HTTP/1.1 200")


def test_who_connects_and_begins_no_handshake_is_hung_up_on(folder: Path, authority: trustme.CA) -> None:
    with (
        speaking_tls(folder, trusting(authority)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as silent,
    ):
        began = time.monotonic()
        assert silent.recv(1) == b""
        assert time.monotonic() - began > 4


def test_ciphers_without_forward_secrecy_are_refused(folder: Path, authority: trustme.CA) -> None:
    context = trusting(authority)
    with speaking_tls(folder, context) as port:
        weak = trusting(authority)
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("AES256-SHA256:AES128-SHA")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(port, weak)


def test_where_an_authority_of_clients_is_named_only_its_own_are_answered(folder: Path, authority: trustme.CA) -> None:
    known = trusting(authority)
    authority.issue_cert("client@example.org").configure_cert(known)
    stranger = trusting(authority)
    trustme.CA().issue_cert("client@example.org").configure_cert(stranger)
    with speaking_tls(folder, known, tls_client_ca=folder / "ca.pem") as port:
        assert ask(port, known)[0] == 200
        for context in (trusting(authority), stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(port, context)


def test_a_renewed_certificate_is_shown_without_a_restart(folder: Path, authority: trustme.CA) -> None:
    context = trusting(authority)
    with speaking_tls(folder, context, workers=2) as port:
        before = ask(port, context)[2]
        (folder / "certificate.pem").write_text("half of it")
        assert ask(port, context)[2] == before
        after = write_certificate(authority, folder)
        assert after != before
        assert {ask(port, context)[2] for _ in range(6)} == {after}
    assert "the certificate from before stays" in (folder / "log").read_text()


def encrypt(folder: Path) -> None:
    key = load_pem_private_key((folder / "key.pem").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    (folder / "key.pem").write_bytes(locked)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no certificate": (
        lambda folder: (folder / "certificate.pem").unlink(),
        "LEADTIME_TLS_CERTIFICATE: certificate.pem cannot be read: No such file or directory",
    ),
    "no key": (
        lambda folder: (folder / "key.pem").unlink(),
        "LEADTIME_TLS_KEY: key.pem cannot be read: No such file or directory",
    ),
    "no PEM": (
        lambda folder: (folder / "certificate.pem").write_text("x"),
        "LEADTIME_TLS_CERTIFICATE: certificate.pem with key.pem must hold a certificate and its key (PEM)",
    ),
    "another's key": (
        lambda folder: trustme.CA().issue_cert("x.org").private_key_pem.write_to_path(folder / "key.pem"),
        "LEADTIME_TLS_CERTIFICATE: the certificate in certificate.pem is not that of the key in key.pem",
    ),
    "an encrypted key": (
        encrypt,
        "LEADTIME_TLS_CERTIFICATE: the key in key.pem is encrypted: give it without a password",
    ),
    "no authority": (
        lambda folder: (folder / "ca.pem").write_text("x"),
        "LEADTIME_TLS_CLIENT_CA: ca.pem holds no certificate (PEM)",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_files_that_cannot_be_used_are_refused_by_the_settings_name(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    tls = Tls(folder / "certificate.pem", folder / "key.pem", folder / "ca.pem")
    tls.context()
    spoil(folder)
    with pytest.raises(SettingsError) as caught:
        tls.context()
    assert str(caught.value) == message


def test_a_certificate_may_bring_its_key(folder: Path) -> None:
    both = folder / "both.pem"
    both.write_text((folder / "certificate.pem").read_text() + (folder / "key.pem").read_text())
    Tls(both, None, None).context()


@pytest.mark.parametrize("name", ["TLS_KEY", "TLS_CLIENT_CA"])
def test_a_key_without_a_certificate_ends_the_start_in_one_line(folder: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=f"^LEADTIME_{name}: it needs LEADTIME_TLS_CERTIFICATE beside it$"):
        _ = Settings.from_environment({f"LEADTIME_{name}": str(folder / "key.pem")}).tls

"""Signatures of models: made, checked, refused, and asked of every file of the folder and of none of the bundled."""

import logging
import re
import shutil
import stat
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from service import __main__ as command
from service.errors import SigningError
from service.metrics import Metrics
from service.registry import Registry
from service.signing import PublicKey, Signature, SigningKeys, make_signing_key, read_signing_keys, sign
from tests.artifacts import Kind, write_artifact
from tests.end_to_end.process import ROOT, environment
from tests.service.test_registry import counted

KEY = Ed25519PrivateKey.generate()
DIGEST = f"sha256:{sha256(b'a model').hexdigest()}"


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A folder with the public key of `release`; the private one is in `private`."""
    return make("release", tmp_path).parent


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder with private keys."""
    return tmp_path / "private"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def make(name: str, folder: Path) -> Path:
    """Make a key whose parts lie in `private` and in `public`, and return the place of the public one."""
    (folder / "private").mkdir(exist_ok=True)
    (folder / "public").mkdir(exist_ok=True)
    _, made = make_signing_key(folder / "private", name)
    return made.rename(folder / "public" / made.name)


def put(models: Path, place: str, kind: Kind = "drift", key: Path | None = None) -> Path:
    """Put a version into its place as a whole, signed where a key is given."""
    coming = models / f".coming-{place.replace('/', '-')}"
    write_artifact(coming / "model.onnx", kind)
    if key is not None:
        sign(key, coming)
    (models / place).parent.mkdir(parents=True, exist_ok=True)
    return coming.rename(models / place) / "model.onnx"


def opened(models: Path, public: Path, metrics: Metrics | None = None) -> Registry:
    return Registry.open(models, models / "none", metrics=metrics, signing_keys=SigningKeys(public))


def beside(path: Path) -> Path:
    return path.with_name("model.onnx.sig")


def test_a_key_is_two_files_of_which_only_the_owner_reads_the_private_one(tmp_path: Path) -> None:
    private, public = make_signing_key(tmp_path, "release")
    assert (private, public) == (tmp_path / "release.key", tmp_path / "release.pem")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert public.read_text().startswith("-----BEGIN PUBLIC KEY-----\n")
    assert {key.name for key in read_signing_keys(public).values()} == {"release"}


@pytest.mark.parametrize("there", ["release.key", "release.pem"])
def test_a_key_that_is_there_is_never_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(SigningError, match=rf"{there} is there already: take another name"):
        make_signing_key(tmp_path, "release")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(there, "mine")]


@pytest.mark.parametrize("name", ["", "../release", ".release", "a b", "a" * 65])
def test_the_name_of_a_key_is_a_sound_name_of_a_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(SigningError, match="the name must be at most 64 letters"):
        make_signing_key(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_signature_is_of_one_file_and_one_purpose(tmp_path: Path, public: Path, private: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"a model")
    assert sign(private / "release.key", model) == beside(model)
    signature = SigningKeys(public).read_signature(beside(model))
    assert signature.signer.name == "release"
    assert signature.is_of(DIGEST)
    assert not signature.is_of(f"sha256:{sha256(b'another').hexdigest()}")
    key = serialization.load_pem_private_key((private / "release.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    number = beside(model).read_text().split()[1]
    for message in (b"a model", DIGEST.encode(), f"another purpose {DIGEST}".encode()):
        beside(model).write_text(f"ed25519 {number} {b64encode(key.sign(message)).decode()}\n")
        assert not SigningKeys(public).read_signature(beside(model)).is_of(DIGEST)


@given(place=st.integers(0, 63), bit=st.integers(0, 7))
def test_a_signature_with_any_bit_changed_is_none(place: int, bit: int) -> None:
    signer = PublicKey("release", KEY.public_key())
    value = bytearray(KEY.sign(f"leadtime model {DIGEST}".encode()))
    assert Signature(signer, bytes(value)).is_of(DIGEST)
    value[place] ^= 1 << bit
    assert not Signature(signer, bytes(value)).is_of(DIGEST)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_openssl_makes_and_checks_the_same_signatures(tmp_path: Path, public: Path, private: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"a model")
    line = sign(private / "release.key", tmp_path).read_text()
    (tmp_path / "message").write_text(f"leadtime model {DIGEST}")
    value = openssl("pkeyutl", "-sign", "-inkey", private / "release.key", "-rawin", "-in", tmp_path / "message")
    public_bytes = openssl("pkey", "-pubin", "-in", public / "release.pem", "-outform", "DER")[-32:]
    number = sha256(public_bytes).hexdigest()[:16]
    assert line == f"ed25519 {number} {b64encode(value).decode()}\n"


def openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


def test_a_model_with_a_sound_signature_is_served(models: Path, public: Path, private: Path) -> None:
    put(models, "lab/1", key=private / "release.key")
    registry = opened(models, public)
    assert registry.find("lab").version == "1"
    assert dict(registry.rejected) == {}


def mend(path: Path, change: Callable[[str], str]) -> None:
    beside(path).write_text(change(beside(path).read_text()))


def with_another_value(line: str) -> str:
    return f"{line[:30]}{'A' if line[30] != 'A' else 'B'}{line[31:]}"


def test_a_file_without_a_signature_leaves_the_old_one_serving_and_is_told_logged_and_counted(
    tmp_path: Path, models: Path, public: Path, private: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(models, "lab/1", key=private / "release.key")
    metrics = Metrics(tmp_path / "counts")
    registry = opened(models, public, metrics)
    before = registry.find("lab")
    put(models, "lab/2", "mean")
    for _ in range(2):
        assert registry.refresh() is False
        assert registry.find("lab") is before
    assert dict(registry.rejected) == {"lab/2": UNSIGNED}
    assert caplog.messages.count(f"lab/2: not served: {UNSIGNED}") == 1
    found = counted(tmp_path / "counts")
    assert (found["leadtime_model_loads lab refused"], found["leadtime_model_files_refused"]) == (1, 1)
    sign(private / "release.key", models / "lab" / "2")
    assert registry.refresh() is True
    assert registry.find("lab").version == "2"
    assert dict(registry.rejected) == {}


UNSIGNED = "it is not signed: model.onnx.sig is not beside it (`python -m service sign`)"
BAD: dict[str, tuple[Callable[[str], str], str]] = {
    "empty": (lambda _: "", "model.onnx.sig beside it is not what `python -m service sign` writes"),
    "no text": (lambda _: "\0é", "model.onnx.sig beside it is not what `python -m service sign` writes"),
    "cut short": (lambda line: line[:-9], "model.onnx.sig beside it is not what `python -m service sign` writes"),
    "of another kind": (
        lambda line: line.replace("ed25519", "rsa"),
        "model.onnx.sig beside it is not what `python -m service sign` writes",
    ),
    "two lines": (lambda line: line + line, "model.onnx.sig beside it is not what `python -m service sign` writes"),
    "endless": (lambda line: line * 100_000, "model.onnx.sig beside it is not what `python -m service sign` writes"),
    "by another key": (
        lambda line: f"ed25519 0123456789abcdef {line.split()[2]}\n",
        "it is signed with the key 0123456789abcdef, which is none of LEADTIME_SIGNING_KEYS",
    ),
    "changed": (
        with_another_value,
        "model.onnx.sig is not its signature by release: it is being copied, or was changed",
    ),
}


@pytest.mark.parametrize(("change", "fault"), BAD.values(), ids=BAD)
def test_a_bad_signature_is_refused_with_its_fault_and_a_sound_one_taken_up(
    models: Path, public: Path, private: Path, change: Callable[[str], str], fault: str
) -> None:
    path = put(models, "lab/1", key=private / "release.key")
    sound = beside(path).read_text()
    beside(path).write_text(change(sound))
    registry = opened(models, public)
    assert (registry.models(), dict(registry.rejected)) == ([], {"lab/1": fault})
    beside(path).write_text(sound)
    assert registry.refresh() is True
    assert dict(registry.rejected) == {}


def test_what_cannot_be_read_is_no_signature(models: Path, public: Path) -> None:
    beside(put(models, "lab/1")).mkdir()
    registry = opened(models, public)
    assert dict(registry.rejected) == {"lab/1": "model.onnx.sig beside it cannot be read: Is a directory"}


def test_a_signature_by_another_key_under_the_name_of_one_that_is_known_is_refused(
    tmp_path: Path, models: Path, public: Path, private: Path
) -> None:
    path = put(models, "lab/1", key=private / "release.key")
    known = beside(path).read_text().split()[1]
    make_signing_key(private, "thief")
    sign(private / "thief.key", path)
    beside(path).write_text(f"ed25519 {known} {beside(path).read_text().split()[2]}\n")
    (fault,) = opened(models, public).rejected.values()
    assert fault.startswith("model.onnx.sig is not its signature by release")


def test_a_signed_file_that_is_replaced_by_another_is_served_from_its_former_content(
    models: Path, public: Path, private: Path
) -> None:
    path = put(models, "lab/1", key=private / "release.key")
    registry = opened(models, public)
    before = registry.find("lab")
    write_artifact(path.with_name(".coming.onnx"), "mean").replace(path)
    assert registry.refresh() is False
    assert registry.find("lab") is before
    assert registry.rejected["lab/1"].endswith("(the file's former content is still served)")
    sign(private / "release.key", path)
    assert registry.refresh() is True
    assert registry.find("lab").engine.digest != before.engine.digest


def test_nothing_of_a_file_is_opened_before_its_signature_is_found_sound(
    models: Path, public: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening: list[bytes] = []
    monkeypatch.setattr("service.versions.Engine.load", opening.append)
    put(models, "lab/1")
    mend(put(models, "lab/2", key=private / "release.key"), with_another_value)
    assert sorted(opened(models, public).rejected) == ["lab/1", "lab/2"]
    assert opening == []


def test_the_bundled_models_come_with_the_code_and_need_no_signature(
    tmp_path: Path, models: Path, public: Path
) -> None:
    put(tmp_path / "bundled", "default/1")
    put(models, "default/2")
    registry = Registry.open(models, tmp_path / "bundled", signing_keys=SigningKeys(public))
    assert registry.find("default").path == tmp_path / "bundled" / "default" / "1" / "model.onnx"
    assert list(registry.rejected) == ["default/2"]


def test_several_keys_are_good_at_once_of_a_folder_and_of_one_file(
    tmp_path: Path, models: Path, public: Path, private: Path
) -> None:
    second = make("second", tmp_path)
    put(models, "lab/1", key=private / "release.key")
    put(models, "lab/2", key=private / "second.key")
    both = tmp_path / "both.pem"
    both.write_text("# of 2026\n" + (public / "release.pem").read_text() + second.read_text())
    for keys in (public, both):
        assert [model.version for model in opened(models, keys).routes("lab").versions] == ["2", "1"]


def test_a_key_that_comes_lets_its_models_in_and_one_that_goes_lets_in_no_more(
    tmp_path: Path, models: Path, public: Path, private: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put(models, "lab/1", key=private / "release.key")
    make_signing_key(private, "second")
    put(models, "lab/2", key=private / "second.key")
    registry = opened(models, public)
    assert registry.find("lab").version == "1"
    shutil.copy(private / "second.pem", public)
    assert registry.refresh() is True
    assert registry.find("lab").version == "2"
    assert any(
        re.fullmatch(r"models must be .*: release \(\w{16}\), second \(\w{16}\)", line) for line in caplog.messages
    )
    (public / "release.pem").unlink()
    assert registry.refresh() is False
    assert registry.rejected["lab/1"].endswith(
        "which is none of LEADTIME_SIGNING_KEYS (the file's former content is still served)"
    )
    put(models, "lab/3", key=private / "release.key")
    assert registry.refresh() is False
    assert registry.find("lab").version == "2"
    assert sorted(registry.rejected) == ["lab/1", "lab/3"]
    assert [model.version for model in opened(models, public).routes("lab").versions] == ["2"]


def test_keys_that_become_unusable_leave_those_from_before(
    models: Path, public: Path, private: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(models, "lab/1", key=private / "release.key")
    registry = opened(models, public)
    shutil.rmtree(public)
    put(models, "lab/2", key=private / "release.key")
    for _ in range(2):
        registry.refresh()
    assert registry.find("lab").version == "2"
    told = "LEADTIME_SIGNING_KEYS: public cannot be read: No such file or directory; the keys from before stay"
    assert caplog.messages.count(told) == 1


def pem(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


ENCRYPTED = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
)
PRIVATE = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

BAD_KEYS: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "release.pem cannot be read: No such file or directory"),
    "no PEM": (b"\xff", "release.pem holds no public key (PEM)"),
    "a private key": (PRIVATE, "release.pem holds a private key: give the service the public one alone"),
    "an encrypted private key": (ENCRYPTED, "release.pem holds a private key: give the service the public one alone"),
    "a key of another kind": (
        pem(X25519PrivateKey.generate()),
        "release.pem holds something else than public Ed25519 keys (PEM)",
    ),
    "a damaged key": (
        b"-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n",
        "release.pem holds something else than public Ed25519 keys (PEM)",
    ),
}


@pytest.mark.parametrize(("content", "fault"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_public_keys_that_are_no_use_are_told_in_one_line(tmp_path: Path, content: bytes | None, fault: str) -> None:
    file = tmp_path / "release.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SigningError) as caught:
        read_signing_keys(file)
    assert str(caught.value) == f"LEADTIME_SIGNING_KEYS: {fault}"


def test_a_folder_without_public_keys_is_told_and_other_files_in_it_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / ".hidden.pem").write_text("nothing")
    with pytest.raises(SigningError) as caught:
        read_signing_keys(tmp_path)
    assert str(caught.value) == (
        f"LEADTIME_SIGNING_KEYS: {tmp_path.name} holds no public key: put those of whoever signs there, as NAME.pem"
    )
    make_signing_key(tmp_path, "release")  # the private one beside it is passed over, too
    assert [key.name for key in read_signing_keys(tmp_path).values()] == ["release"]


BAD_PRIVATE_KEYS = {
    "missing": (None, "{key} cannot be read: No such file or directory"),
    "encrypted": (ENCRYPTED, "the key in {key} is encrypted: give it without a password"),
    "public": (
        pem(KEY),
        "{key} holds no private Ed25519 key (PEM), as `python -m service signing-keys new` writes",
    ),
}


@pytest.mark.parametrize(("content", "fault"), BAD_PRIVATE_KEYS.values(), ids=BAD_PRIVATE_KEYS)
def test_private_keys_that_are_no_use_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, fault: str
) -> None:
    key, model = tmp_path / "mine.key", tmp_path / "model.onnx"
    model.write_bytes(b"a model")
    if content is not None:
        key.write_bytes(content)
    assert command.main(["sign", str(key), str(model)]) == 2
    assert capsys.readouterr().err == f"leadtime: {fault.format(key=key)}\n"
    assert not beside(model).exists()


def test_a_model_that_is_not_there_is_told(
    tmp_path: Path, public: Path, private: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["sign", str(private / "release.key"), str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"leadtime: {tmp_path / 'model.onnx'} cannot be read: No such file or directory\n"


def test_the_commands_make_a_key_and_sign_several_models_with_it(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(models, "lab/1")
    put(models, "lab/2")
    assert command.main(["signing-keys", "new", "release", "--folder", str(tmp_path)]) == 0
    private, public = tmp_path / "release.key", tmp_path / "release.pem"
    assert capsys.readouterr().out == (
        f"{private} signs models: keep it from whoever may not, the service included.\n"
        f"{public} is what LEADTIME_SIGNING_KEYS needs.\n"
    )
    folder, file = models / "lab" / "1", models / "lab" / "2" / "model.onnx"
    assert command.main(["sign", str(private), str(folder), str(file)]) == 0
    assert capsys.readouterr().out.split() == [str(folder / "model.onnx.sig"), str(beside(file))]
    assert [file.name for file in sorted(folder.iterdir())] == ["model.onnx", "model.onnx.sig"]
    assert dict(opened(models, public).rejected) == {}
    assert opened(models, public).find("lab").version == "2"


WITHOUT = """
import sys
sys.modules["cryptography"] = None
from service.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "leadtime: LEADTIME_SIGNING_KEYS: signatures need"),
        (["signing-keys", "new", "release"], "leadtime: signatures need"),
        (["sign", "release.key", "model.onnx"], "leadtime: signatures need"),
    ],
    ids=["the setting", "a new key", "a signature"],
)
def test_the_extra_that_is_missing_is_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    variables = {} if arguments else {"LEADTIME_SIGNING_KEYS": str(tmp_path), "LEADTIME_PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (
        2,
        f"{said} the library cryptography, which is not installed: install locks/signatures.txt\n",
    )


def test_nothing_of_it_is_imported_where_nobody_asks_for_it() -> None:
    program = (
        "import sys, service.__main__, service.app as app\n"
        "from service.settings import Settings\n"
        "from fastapi.testclient import TestClient\n"
        "with TestClient(app.create_app(Settings.from_environment({}))) as client:\n"
        "    assert client.get('/models').status_code == 200\n"
        "print([name for name in sys.modules if name.startswith('cryptography')])\n"
    )
    variables = environment(PYTHONWARNINGS="ignore")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr

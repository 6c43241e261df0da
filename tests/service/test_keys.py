"""Files of API keys: made, read, read anew, and compared."""

import hmac
import logging
import re
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from service import __main__ as command
from service import keys
from service.errors import KeysError
from service.keys import PREFIX, Keyring, Keys, add_key, read_keys
from service.limits import Rate

HASH = sha256(b"secret").hexdigest()
GOOD = f'[[key]]\nname = "a"\nscopes = ["forecast"]\nsha256 = "{HASH}"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_new_key_is_known_by_its_secret_and_by_nothing_else(file: Path) -> None:
    secret = add_key(file, "dashboard", ["forecast", "metadata"], "100/second")
    found = read_keys(file).find(secret.encode())
    assert found is not None
    assert (found.name, set(found.scopes), found.limit) == ("dashboard", {"forecast", "metadata"}, Rate(100, 1))
    for other in (secret[:-1], secret + "x", secret.upper(), "", found.digest.hex()):
        assert read_keys(file).find(other.encode()) is None


def test_a_secret_has_256_random_bits_and_tells_what_it_is(file: Path) -> None:
    first, second = add_key(file, "a", ["forecast"]), add_key(file, "b", ["forecast"])
    assert first != second
    assert all(re.fullmatch(PREFIX + r"[A-Za-z0-9_-]{43}", secret) for secret in (first, second))


def test_the_file_holds_hashes_alone_and_keeps_what_a_person_wrote_into_it(file: Path) -> None:
    file.write_text("# who: the dashboards\n" + GOOD)
    secret = add_key(file, "b", ["admin"])
    text = file.read_text()
    assert text.startswith("# who: the dashboards\n" + GOOD)
    assert secret not in text
    assert secret.removeprefix(PREFIX) not in text
    assert [key.name for key in read_keys(file).keys] == ["a", "b"]
    assert list(file.parent.iterdir()) == [file]


def test_a_file_keeps_its_permissions_and_its_link(file: Path) -> None:
    real = file.with_name("real.toml")
    real.write_text(GOOD)
    real.chmod(0o640)
    file.symlink_to(real)
    add_key(file, "b", ["forecast"])
    assert file.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert len(read_keys(real).keys) == 2


def test_a_secret_that_is_known_is_hashed_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = add_key(file, "a", ["forecast"]).encode()
    known = read_keys(file)
    assert known.find(secret) is not None
    monkeypatch.setattr(keys, "sha256", None)
    assert known.find(secret) is not None


def test_of_secrets_that_are_not_known_nothing_is_remembered(file: Path) -> None:
    add_key(file, "a", ["forecast"])
    known = read_keys(file)
    for number in range(5000):
        assert known.find(b"guess %d" % number) is None
    assert known._known == {}


def test_every_key_is_compared_however_early_one_fits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = [add_key(file, name, ["forecast"]) for name in "abc"]
    compared = []
    real = hmac.compare_digest

    def watched(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    found = read_keys(file).find(secrets[0].encode())
    assert found is not None
    assert found.name == "a"
    assert len(compared) == 3


BAD = {
    "missing": (None, "keys.toml cannot be read: No such file or directory"),
    "not UTF-8": (b"\xff", "keys.toml is not UTF-8"),
    "not TOML": (b'[[key]]\nname = "a\n', "keys.toml is not TOML at line 2, column 10"),
    "something else beside": (b"x = 1", "keys.toml: it must hold nothing but a table [[key]] for each key"),
    "keys that are no tables": (b"key = [1]", "keys.toml: it must hold nothing but a table [[key]] for each key"),
    "one table": (b"[key]", "keys.toml: it must hold nothing but a table [[key]] for each key"),
    "no name": (b"[[key]]", "keys.toml: key 1: name: it must be at most 64 letters, digits, dots, hyphens and "),
    "an odd name": (GOOD.replace('"a"', '"a b"').encode(), "keys.toml: key 1: name: it must be at most 64 letters"),
    "no scopes": (b'[[key]]\nname = "a"', "keys.toml: key 1: scopes: it must be a list of one or more of forecast, "),
    "an unknown scope": (GOOD.replace("forecast", "root").encode(), "keys.toml: key 1: scopes: it must be a list"),
    "a scope that is no text": (GOOD.replace('"forecast"', "[1]").encode(), "keys.toml: key 1: scopes: it must be"),
    "no hash": (b'[[key]]\nname = "a"\nscopes = ["admin"]', "keys.toml: key 1: sha256: it must be the 64 digits that"),
    "the secret in its place": (
        GOOD.replace(HASH, "hunter2").encode(),
        "keys.toml: key 1: sha256: it must be the 64 digits that `python -m service keys new` writes",
    ),
    "a bad rate": ((GOOD + 'limit = "often"').encode(), "keys.toml: key 1: limit: it must be a rate such as"),
    "an unknown field": ((GOOD + "secret = 1").encode(), "keys.toml: key 1: it may have name, scopes, limit, sha256,"),
    "a name twice": ((GOOD + GOOD).encode(), "keys.toml: key 2: name: another key has it already"),
    "a hash twice": ((GOOD + GOOD.replace('"a"', '"b"')).encode(), "keys.toml: key 2: sha256: another key has it"),
    "too many": ((GOOD * 1001).encode(), "keys.toml: it holds more than 1000 keys"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_used_is_refused_in_one_line_that_repeats_no_secret(
    file: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(KeysError) as caught:
        read_keys(file)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_changed_file_is_read_anew_and_an_unchanged_one_is_not(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = add_key(file, "a", ["forecast"])
    ring = Keyring(file)
    keys_before = ring.keys
    ring.refresh()
    assert ring.keys is keys_before
    second = add_key(file, "b", ["forecast"])
    with caplog.at_level(logging.INFO):
        ring.refresh()
    assert caplog.messages == ["keys: a, b"]
    assert ring.keys.find(first.encode()) is not None
    assert ring.keys.find(second.encode()) is not None


def test_a_key_that_is_taken_out_is_known_no_more_though_it_was_in_use(file: Path) -> None:
    secret = add_key(file, "a", ["forecast"]).encode()
    ring = Keyring(file)
    assert ring.keys.find(secret) is not None
    file.write_text("")
    ring.refresh()
    assert ring.keys.find(secret) is None


def test_a_file_that_is_emptied_and_then_filled_is_read_when_it_is_whole(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = [add_key(file, name, ["forecast"]).encode() for name in "ab"]
    ring = Keyring(file)
    text = file.read_bytes()
    end_of_first = text.index(b"[[key]]", 1)
    parts = iter([text[:end_of_first], text[end_of_first:]])

    def write_on(_: float) -> None:
        with file.open("ab") as written:
            written.write(next(parts, b""))

    monkeypatch.setattr("service.stamp.time.sleep", write_on)
    caplog.set_level(logging.INFO)
    file.write_bytes(b"")
    ring.refresh()
    assert caplog.messages == ["keys: a, b"]
    assert all(ring.keys.find(secret) is not None for secret in secrets)


def test_a_file_that_is_written_without_end_is_read_all_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_key(file, "a", ["forecast"])
    ring = Keyring(file)
    monkeypatch.setattr("service.stamp._AT_MOST_SECONDS", 0.05)

    def write_on(_: float) -> None:
        with file.open("a") as written:
            written.write("#")

    monkeypatch.setattr("service.stamp.time.sleep", write_on)
    second = add_key(file, "b", ["forecast"]).encode()
    ring.refresh()
    assert ring.keys.find(second) is not None


@pytest.mark.parametrize("content", [b"[[key]]", b"\xff", None], ids=["no key", "not UTF-8", "gone"])
def test_a_file_that_has_become_bad_leaves_the_keys_and_says_so_once(
    file: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    secret = add_key(file, "a", ["forecast"]).encode()
    ring = Keyring(file)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    for _ in range(3):
        ring.refresh()
    assert ring.keys.find(secret) is not None
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().endswith("; the keys from before stay")


def test_a_file_without_keys_lets_nobody_in_and_says_so(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("")
    assert Keyring(file).keys.find(b"") is None
    assert caplog.messages == ["keys.toml holds no key: every request that needs one is refused"]


def test_no_keys_know_nobody() -> None:
    assert Keys([]).find(b"x") is None


def test_the_command_prints_the_secret_once_and_writes_its_hash(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEADTIME_KEYS", str(file))
    assert command.main(["keys", "new", "ops", "--scopes", "metadata", "admin", "--limit", "5/second"]) == 0
    printed = capsys.readouterr()
    secret = printed.out.removesuffix("\n")
    assert secret not in printed.err
    found = read_keys(file).find(secret.encode())
    assert found is not None
    assert (found.name, set(found.scopes), found.limit) == ("ops", {"metadata", "admin"}, Rate(5, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a b"], "name: it must be at most 64 letters, digits, dots, hyphens and underscores"),
        (["b", "--limit", "5"], "limit: it must be a rate such as 100/second"),
        (["a"], "keys.toml has a key a already: take another name, or take that key out"),
        (["b", "--file", "/nowhere/keys.toml"], "keys.toml cannot be written: No such file or directory"),
    ],
    ids=["name", "limit", "twice", "folder"],
)
def test_a_key_that_cannot_be_made_is_refused_in_one_line_and_nothing_is_written(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    file.write_text(GOOD)
    assert command.main(["keys", "new", "--file", str(file), *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"leadtime: {message}")
    assert printed.err.count("\n") == 1
    assert file.read_text() == GOOD


def test_without_a_file_the_command_asks_for_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEADTIME_KEYS", raising=False)
    assert command.main(["keys", "new", "a"]) == 2
    assert capsys.readouterr().err == (
        "leadtime: name the file of keys: --file keys.toml, or LEADTIME_KEYS in the environment\n"
    )

"""Whose request it is: its key's, and where there is none that is known, its address's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.access import Access, secrets_of
from service.keys import Keyring, add_key
from service.limits import Limiter, address_number, client_number

HERE, THERE = ("192.0.2.1", 1234), ("192.0.2.2", 1234)


@pytest.fixture
def limiter() -> Iterator[Limiter]:
    limiter = Limiter(None)
    yield limiter
    limiter.close()


def test_without_keys_a_client_is_an_address_whatever_it_sends(limiter: Limiter) -> None:
    access = Access(None, None, limiter)
    headers = [(b"x-api-key", b"anything")]
    assert (
        access.admit("forecast", secrets_of(headers), HERE)
        == access.client_of(secrets_of(headers), HERE)
        == address_number(HERE[0])
    )
    assert access.client_of(secrets_of(headers), THERE) != access.client_of(secrets_of(headers), HERE)
    assert access.client_of(secrets_of(headers), None) == access.client_of([], None)


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_key_is_one_client_wherever_it_comes_from_once_it_was_checked(
    limiter: Limiter, tmp_path: Path, header: str
) -> None:
    secret = add_key(tmp_path / "keys.toml", "dashboard", ["forecast"])
    access = Access(Keyring(tmp_path / "keys.toml"), None, limiter)
    value = f"Bearer {secret}" if header == "authorization" else secret
    headers = [(b"host", b"x"), (header.encode(), value.encode())]
    assert access.client_of(secrets_of(headers), HERE) == address_number(HERE[0])
    key = access.admit("forecast", secrets_of(headers), HERE)
    assert key == access.client_of(secrets_of(headers), HERE) == access.client_of(secrets_of(headers), THERE)
    assert key not in (address_number(HERE[0]), address_number(THERE[0]), client_number(""))


def test_of_thousands_of_keys_in_one_request_two_are_looked_at() -> None:
    headers = [(b"x-api-key", b"a"), (b"authorization", b"Bearer b"), *[(b"x-api-key", b"c")] * 5000]
    assert secrets_of(headers) == (b"a", b"b")


def test_a_key_that_is_not_known_is_an_address(limiter: Limiter, tmp_path: Path) -> None:
    add_key(tmp_path / "keys.toml", "dashboard", ["forecast"])
    access = Access(Keyring(tmp_path / "keys.toml"), None, limiter)
    assert access.client_of([b"leadtime_unknown"], HERE) == address_number(HERE[0])

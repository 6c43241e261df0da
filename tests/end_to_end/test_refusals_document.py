"""`docs/refusals.md` is true: every bad request and file of the tests, with what is said of it today.

After a change of a message, `WRITE_REFUSALS=1 make test PYTEST_ARGS=tests/end_to_end/test_refusals_document.py` writes
it anew.
"""

import os
import re
from pathlib import Path

import httpx
import pytest

from service.api.problems import DEADLINE_EXCEEDED, HEAD_TOO_LARGE, MALFORMED_REQUEST, OVERLOADED, REQUEST_TIMEOUT
from service.errors import KeysError
from service.keys import read_keys
from service.protocol import TOO_MANY
from service.scheduler import CROWDED, LATE
from service.signing import SETTING
from tests.end_to_end.test_bad_requests import REQUESTS, Bad
from tests.service.test_keys import BAD as BAD_KEYS
from tests.service.test_signing import BAD as BAD_SIGNATURES
from tests.service.test_signing import BAD_KEYS as BAD_SIGNING_KEYS
from tests.service.test_signing import UNSIGNED
from tests.training.tables import hourly
from tests.training.test_refusals import ARGUMENTS, FILES, Make
from training.__main__ import main

DOCUMENT = Path(__file__).parents[2] / "docs" / "refusals.md"

HEAD = """# What is refused, and what is said of it

Each line is a test. The place of a fault in a request is an RFC 6901 pointer; that in a file is a line and a column.
Messages never repeat what a body or a cell holds.

## Requests

The service of these tests has small limits, and a model whose windows have at least 2 steps.

| request | status | place | message |
|---|---|---|---|
"""

CONNECTIONS_HEAD = """
## Connections and load

After what is marked with * the connection is closed; each with status 503 has the header `Retry-After`.

| what comes | status | message |
|---|---|---|
"""

CONNECTIONS = {
    "what is no HTTP *": (MALFORMED_REQUEST.status, MALFORMED_REQUEST.detail),
    "a request that comes too slowly *": (REQUEST_TIMEOUT.status, REQUEST_TIMEOUT.detail),
    "a request line and headers that are too large *": (HEAD_TOO_LARGE.status, HEAD_TOO_LARGE.detail),
    "a connection too many *": (OVERLOADED.status, TOO_MANY),
    "a forecast that would be late": (OVERLOADED.status, LATE),
    "a forecast with which too many steps would wait": (OVERLOADED.status, CROWDED),
    "a forecast that is late all the same": (DEADLINE_EXCEEDED.status, DEADLINE_EXCEEDED.detail),
}
"""What the tests of connections, slow clients and overload bring about, in the service's own words."""

KEYS_HEAD = """
## Files of API keys

At the start each ends with exit code 2; while the service runs it is logged, and the keys from before stay.

| file | message |
|---|---|
"""

SIGNATURES_HEAD = """
## Signatures of models

Where signatures are asked for, a file is refused as any other bad file is:

| signature | message |
|---|---|
"""

SIGNING_KEYS_HEAD = """
Keys end the start with exit code 2; while the service runs it is logged, and the keys from before stay.

| file | message |
|---|---|
"""

FILES_HEAD = """
## Files and arguments of `python -m training fit`

Each ends with exit code 2, and nothing is written.

| file or argument | message |
|---|---|
"""


def test_the_document_lists_every_refusal_as_it_is_today(
    client: httpx.Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "10000")  # a message in a box is not wrapped
    requests = "".join(_request_row(client, bad) for bad in REQUESTS)
    files = "".join(
        _row(name, _said(_case(tmp_path, number), make, ("--data", "{file}", *arguments), capsys))
        for number, (name, (make, arguments, _)) in enumerate(FILES.items())
    )
    arguments = "".join(
        _row(name, _said(_case(tmp_path, len(FILES) + number), _good_file, given, capsys))
        for number, (name, (given, _)) in enumerate(ARGUMENTS.items())
    )
    connections = "".join(_row(name, str(status), said) for name, (status, said) in CONNECTIONS.items())
    keys = "".join(_row(name, _said_of_keys(tmp_path, content)) for name, (content, _) in BAD_KEYS.items())
    signatures = _row("missing", UNSIGNED) + "".join(_row(name, said) for name, (_, said) in BAD_SIGNATURES.items())
    signing_keys = "".join(_row(name, f"{SETTING}: {said}") for name, (_, said) in BAD_SIGNING_KEYS.items())
    written = (
        f"{HEAD}{requests}{CONNECTIONS_HEAD}{connections}{KEYS_HEAD}{keys}"
        f"{SIGNATURES_HEAD}{signatures}{SIGNING_KEYS_HEAD}{signing_keys}{FILES_HEAD}{files}{arguments}"
    )

    if os.environ.get("WRITE_REFUSALS"):
        DOCUMENT.write_text(written, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == written


def _request_row(client: httpx.Client, bad: Bad) -> str:
    response = client.post(bad.path, content=bad.body, headers={"content-type": "application/json"} | bad.headers)
    problem = response.json()
    error = (problem.get("errors") or [{"pointer": "", "message": problem["detail"]}])[0]
    place = f"`{error['pointer']}`" if error["pointer"] else "–"
    return _row(bad.name, str(response.status_code), place, error["message"])


def _said_of_keys(folder: Path, content: bytes | None) -> str:
    file = folder / "keys.toml"
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(KeysError) as caught:
        read_keys(file)
    return str(caught.value)


def _case(tmp_path: Path, number: int) -> Path:
    folder = tmp_path / str(number)
    folder.mkdir()
    return folder


def _said(folder: Path, make: Make, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    file = folder / "data.csv"
    make(file)
    filled = [argument.replace("{file}", str(file)) for argument in arguments]
    capsys.readouterr()
    assert main(["fit", *filled, "--output", str(folder / "models")]) == 2
    said = capsys.readouterr().err.replace(f"{folder}/", "")
    plain = re.sub(r"[╭╮╰╯─│]+", " ", said)  # the frame around a usage error
    return re.sub(r"\s+", " ", plain).strip().removeprefix("error: ")


def _good_file(path: Path) -> None:
    hourly().to_csv(path, index=False)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"

"""The README is true: its commands run, in their order, and answer as it says; its tables are those of the code.

After a change of the bundled model or of an answer, `WRITE_README=1 make test PYTEST_ARGS=tests/test_readme.py` writes
the answers of today into it.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from service.app import create_app
from service.settings import PREFIX, Settings
from training.config import read_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()

# Commands that another place runs for real: this suite itself, a measurement, a container engine.
RUN_ELSEWHERE = re.compile(r"^(git clone|make (test|check|bench|model|install)\b|docker )")
SERVE = re.compile(r"^((?:LEADTIME_[A-Z_]+=\S+ +)*)make serve$")
ADDRESS = "http://127.0.0.1:8000"
READY = re.compile(r"http://127\.0\.0\.1:(\d+)")


@dataclass
class Block:
    """One fenced block: its language, its lines, and the line of the README that it begins on."""

    language: str
    line: int
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def commands(self) -> list[str]:
        """The commands of a console block: each begins with `$ ` and goes on until the next one."""
        return [command for command in re.split(r"^\$ ", self.text, flags=re.MULTILINE) if command]


def blocks() -> list[Block]:
    found: list[Block] = []
    inside = False
    for number, line in enumerate(README.splitlines(), start=1):
        if line.startswith("```"):
            inside = not inside
            if inside:
                found.append(Block(line.removeprefix("```"), number))
        elif inside:
            found[-1].lines.append(line)
    return found


class Story:
    """The README's commands, run one after another in one folder, with the service of the moment on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: subprocess.Popen[str] | None = None
        self.port = 0

    def run(self, command: str) -> str:
        """Run one command; gives what it printed."""
        if RUN_ELSEWHERE.match(command):
            return ""
        if serve := SERVE.match(command):
            self.serve(dict(pair.split("=", 1) for pair in serve[1].split()))
            return ""
        command = command.replace(ADDRESS, f"http://127.0.0.1:{self.port}")
        command = re.sub(r"--epochs \d+", "--epochs 1", command)  # the fit itself, not its quality, is shown here
        done = subprocess.run(
            ["bash", "-ec", command], cwd=self.folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run_python(self, program: str) -> str:
        """Run a program; gives what it printed."""
        (self.folder / "example.py").write_text(program.replace(ADDRESS, f"http://127.0.0.1:{self.port}"))
        return self.run(".venv/bin/python example.py")

    def serve(self, settings: dict[str, str]) -> None:
        """Do what `make serve` does, after ending the service that was there before."""
        self.stop()
        self.server = subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=self.folder,
            env=environment() | {"LEADTIME_PORT": "0"} | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.server.stdout is not None
        seen = []
        for line in self.server.stdout:
            seen.append(line)
            if found := READY.search(line):
                self.port = int(found[1])
                self.wait_until_a_worker_listens()
                return
        raise AssertionError("the service ended before it was ready:\n" + "".join(seen))

    def wait_until_a_worker_listens(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise AssertionError("no worker listens")

    def stop(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            self.server.communicate()
            assert self.server.returncode in (0, -signal.SIGTERM)
            self.server = None


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    interpreter = tmp_path / ".venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    interpreter.chmod(0o755)
    told = Story(tmp_path)
    yield told
    told.stop()


def test_the_commands_run_in_their_order_and_answer_as_written(story: Story) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    printed, answers = "", 0
    for block in blocks():
        if block.language == "console":
            for command in block.commands():
                printed = story.run(command)
        elif block.language == "python":
            printed = story.run_python(block.text)
            assert printed
        elif block.language == "json":
            answer = json.loads(printed)
            if os.environ.get("WRITE_README"):
                write(block, answer)
            else:
                assert shape(answer) == shape(json.loads(block.text)), f"README.md, line {block.line}"
            answers += 1
    assert answers >= 3


def write(block: Block, answer: object) -> None:
    """Put an answer into the README in the place of a block's lines."""
    old, new = f"```json\n{block.text}\n```", f"```json\n{laid_out(answer)}\n```"
    file = ROOT / "README.md"
    file.write_text(file.read_text().replace(old, new, 1))


def laid_out(value: object, indent: str = "") -> str:
    """JSON for people: a line for each member, and short lists of plain values on one line."""
    deeper = indent + "  "
    if isinstance(value, dict):
        members = [f"{deeper}{json.dumps(name)}: {laid_out(part, deeper)}" for name, part in value.items()]
        return "{\n" + ",\n".join(members) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        return "[" + ", ".join(laid_out(part, indent) for part in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def shape(value: Any) -> Any:
    """What of an answer must be as written: everything but the digits of numbers with a fraction."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return float if isinstance(value, float) else value


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ |\S=\S+ )make ([a-z-]+)", README))
    assert named
    assert named <= targets


def test_the_configuration_file_is_one_that_training_reads(tmp_path: Path) -> None:
    (written,) = (block.text for block in blocks() if block.language == "toml")
    (tmp_path / "run.toml").write_text(written)
    config = read_config(tmp_path / "run.toml", {})
    assert config.model_dump(exclude_unset=True, mode="json") == tomllib.loads(written)


def test_every_file_that_is_linked_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, code marks taken off, without its head."""
    _, _, rest = README.partition(f"\n## {heading}\n")
    assert rest, f"there is no heading {heading!r}"
    table = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in table[2:]]


def shown(default: object) -> str:
    if default is None or default is PydanticUndefined:
        return "–"
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_the_table_of_settings_is_that_of_the_code() -> None:
    written = {name: default for name, default, _ in rows("Settings")}
    code = {PREFIX + name.upper(): shown(field.default) for name, field in Settings.model_fields.items()}
    assert written == code | {"LEADTIME_WORKERS": "cores"}


def test_the_table_of_endpoints_is_that_of_the_openapi_document() -> None:
    written = {tuple(cells[0].split()) for cells in rows("Endpoints")}
    described = create_app(Settings.from_environment({})).openapi()["paths"]
    pages = {("GET", "/docs"), ("GET", "/redoc"), ("GET", "/openapi.json")}
    assert written == pages | {(method.upper(), path) for path, methods in described.items() for method in methods}


def test_every_limit_names_the_setting_that_moves_it() -> None:
    named = {cell for _, _, cell in rows("Limits") if cell.startswith(PREFIX)}
    assert named == {PREFIX + name.upper() for name in Settings.model_fields if name.startswith("max_")} - {
        f"{PREFIX}MAX_BATCH"
    }

"""`python -m chaos.files KIND FIRST COUNT SEED`: open mutated files, in a process that may die of it.

For each file a line is printed before it is opened and another one after, so that whoever started this process knows
which one it died of or hangs in. What is printed after is `valid`, `refused`, or what went wrong. `opened` starts such
processes, and goes on behind a file that one of them did not survive.

Artifacts go the way of the service: a file in its place, looked at as the registry looks at it, and, where it is
served for sound, a forecast from it. Tables go the way of training: read, and made into checked series.
"""

import json
import os
import queue
import random
import resource
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Literal

import numpy as np
import onnx

from benchmarks.questions import ROOT
from chaos.mutations import mutated_bytes, mutated_document, mutated_message
from service.artifact import METADATA_KEY, ErrorTable, Trial
from service.errors import ArtifactError
from service.versions import look_at
from tests.artifacts import build_metadata, build_model, set_metadata
from training.config import Config
from training.data import read_panel
from training.errors import TrainingError
from training.table import read_table

Kind = Literal["artifacts", "tables"]

_PROGRAM: Final = ("-m", "chaos.files")
_PATIENCE: Final = 60.0  # seconds that one file may take on a busy machine
_START: Final = 120.0
_MEMORY: Final = 8 * 2**30  # addresses: a file that asks for more is refused it, and the machine lives on
_DEATHS_AT_MOST: Final = 50
_UNFORESEEN: Final = "it cannot be opened ("
_SCALED: Final = 1e3


@dataclass
class Opened:
    """What became of files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """How many were valid and how many refused."""
    failures: list[str] = field(default_factory=list)
    """What each of the others did, with its number."""
    peak_megabytes: float = 0.0

    @property
    def count(self) -> int:
        """How many were opened."""
        return self.outcomes.total() + len(self.failures)


def opened(kind: Kind, count: int, seed: int, first: int = 0) -> Opened:
    """Open so many mutated files in processes of their own, each file with a limit of time and memory."""
    found = Opened()
    end = first + count
    while first < end and len(found.failures) < _DEATHS_AT_MOST:
        first = _until_a_death(kind, first, end, seed, found)
    return found


def _until_a_death(kind: Kind, first: int, end: int, seed: int, found: Opened) -> int:
    """Open files in one process for as long as it lives; return the number of the next file."""
    command = [sys.executable, *_PROGRAM, kind, str(first), str(end - first), str(seed)]
    patience = _START
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=complaints, text=True) as process,
    ):
        assert process.stdout is not None
        reader, lines = _lines_of(process.stdout)
        current: int | None = None
        try:
            while (line := lines.get(timeout=patience)) is not None:
                patience = _PATIENCE
                number, _, outcome = line.strip().partition(" ")
                if number == "peak":
                    found.peak_megabytes = max(found.peak_megabytes, float(outcome))
                elif outcome == "begin":
                    current = int(number)
                else:
                    current, first = None, int(number) + 1
                    _take(found, kind, seed, number, outcome)
            fault = "the process ended with status {}: {}"
        except queue.Empty:
            process.kill()
            fault = f"took more than {patience:.0f} s"
        status = process.wait()
        reader.join()
        complaints.seek(0)
        said = complaints.read().decode(errors="replace").strip()[-300:]
    if status == 0:
        return end
    found.failures.append(f"{kind} {seed}/{current}: {fault.format(status, said)}")
    return (first if current is None else current) + 1


def _take(found: Opened, kind: Kind, seed: int, number: str, outcome: str) -> None:
    if outcome in ("valid", "refused"):
        found.outcomes[outcome] += 1
    else:
        found.failures.append(f"{kind} {seed}/{number}: {outcome}")


def _lines_of(stream: IO[str]) -> tuple[threading.Thread, "queue.Queue[str | None]"]:
    """Who reads the lines of a stream, and the lines as they come, with None at their end."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return reader, lines


def main() -> None:
    kind, first, count, seed = sys.argv[1], *map(int, sys.argv[2:5])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    # Nobody may see what C++ code prints on the way.
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    open_one = _open_artifact if kind == "artifacts" else _open_table
    samples = _artifacts() if kind == "artifacts" else _tables()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            rng = random.Random(f"{seed}/{kind}/{number}")
            content = _mutated(kind, rng.choice(samples), rng)
            told.write(f"{number} begin\n")
            told.write(f"{number} {_outcome(open_one, Path(folder), content)}\n")
    told.write(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}\n")


def content_of(kind: Kind, seed: int, number: int) -> bytes:
    """The mutated file of a number, to look at what it is that something died of."""
    rng = random.Random(f"{seed}/{kind}/{number}")
    return _mutated(kind, rng.choice(_artifacts() if kind == "artifacts" else _tables()), rng)


def _outcome(open_one: Callable[[Path, bytes], str], folder: Path, content: bytes) -> str:
    try:
        return open_one(folder, content)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {place.filename.rpartition('/')[2]}:{place.lineno}: {str(error)[:200]!r}"


def _open_artifact(folder: Path, content: bytes) -> str:
    path = folder / "model.onnx"
    path.write_bytes(content)
    entry = look_at("default", "1", path, None)
    if entry.served is None:
        assert entry.fault is not None
        return entry.fault if _UNFORESEEN in entry.fault else "refused"
    engine = entry.served.engine
    window = np.linspace(1, 2, engine.minimum_window * engine.features, dtype=np.float32)
    known = None if not engine.known else np.zeros((1, engine.minimum_window + 2, engine.known), np.float32)
    with suppress(ArtifactError):  # what a graph does at other shapes than those tried is the graph's own business
        forecast = engine.forecast(window.reshape(1, -1, engine.features), 3, known)
        assert forecast.shape == (1, 3, engine.features)
    return "valid"


def _open_table(folder: Path, content: bytes) -> str:
    path = folder / "data.csv"
    path.write_bytes(content)
    try:
        table = read_table(path)
        read_panel(table, Config.model_validate({"data": {"target": [str(table.frame.columns[-1])]}}))
    except TrainingError as error:
        message = str(error)
        return "refused" if message and "\n" not in message else f"an error that is no line: {message!r}"
    return "valid"


def _mutated(kind: str, sample: bytes, rng: random.Random) -> bytes:
    if kind == "tables":
        return mutated_bytes(sample, rng) if rng.random() < 0.5 else _mutated_cells(sample, rng)
    way = rng.random()
    if way < 0.4:
        return mutated_bytes(sample, rng)
    model = onnx.ModelProto.FromString(sample)
    if way < 0.7:
        with suppress(ValueError):  # what the message cannot hold
            mutated_message(model, rng)
    else:
        document = json.loads(model.metadata_props[0].value)
        model.metadata_props[0].value = mutated_document(document, rng).decode("utf-8", "replace")
        assert model.metadata_props[0].key == METADATA_KEY
    return bytes(model.SerializeToString())


def _artifacts() -> list[bytes]:
    """Sound artifacts of several kinds, with all that metadata may have."""
    errors = ErrorTable(origins=3, errors=(((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0)),), paths=True)
    trial = Trial(window=((1.0,), (2.0,), (3.0,)), forecast=((4.0,), (5.0,)))
    documents = {
        "drift": build_metadata("drift", errors=errors, trial=trial),
        "lstm": build_metadata("lstm", season_length=4, frequency="h"),
        "mean": build_metadata("mean", errors=errors),
        "bidirectional": build_metadata("bidirectional"),
        "informed": build_metadata("informed", calendar=("weekday",), exogenous=("price",), frequency="D"),
    }
    written = []
    for kind, document in documents.items():
        model = build_model(kind, known=document.known)  # type: ignore[arg-type]
        set_metadata(model, document.model_dump_json())
        written.append(bytes(model.SerializeToString()))
    return written


def _tables() -> list[bytes]:
    """Sound tables in the forms that people write."""
    rng = random.Random(0)
    rows = [(f"2024-{1 + day // 28:02}-{1 + day % 28:02}", 100 + rng.gauss(0, 9)) for day in range(300)]
    hours = [f"2024-01-{1 + hour // 24:02}T{hour % 24:02}:00:00+01:00" for hour in range(600)]
    return [
        _lines("time,value", (f"{time},{value:.3f}" for time, value in rows)),
        _lines("value", (f"{value:.3f}" for _, value in rows)),
        _lines("step;load", (f"{step};{value:.1f}" for step, (_, value) in enumerate(rows))),
        b"\xef\xbb\xbf" + _lines("time\tload", (f"{hour}\t{rng.gauss(0, 1):.3f}" for hour in hours)),
        _lines('"the ""time""",value', (f'"{time}",{value * _SCALED:.0f}' for time, value in rows), "\r\n"),
        _lines("day,value", (f"{time[8:]}.{time[5:7]}.{time[:4]},{value:.2f}" for time, value in rows)),
    ]


def _lines(header: str, rows: Sequence[str] | object, end: str = "\n") -> bytes:
    return end.join([header, *rows, ""]).encode()  # type: ignore[misc]


_CELLS: Final = (
    b"",
    b"NA",
    b"-",
    b"1e400",
    b"1,5",
    b"nan",
    b"inf",
    b"0x10",
    b'"',
    b"2024-02-30",
    b"1_0",
    b"\xff",
    b"9" * 400,
)


def _mutated_cells(sample: bytes, rng: random.Random) -> bytes:
    """A table with one to some three rows or cells of it changed."""
    lines = sample.splitlines(keepends=True)
    for _ in range(1 + int(rng.expovariate(0.8))):
        place = rng.randrange(len(lines))
        what = rng.randrange(6)
        if what == 0:
            del lines[place:]
        elif what == 1:
            lines[place:place] = lines[place : place + 1] * rng.choice((1, 5))
        elif what == 2:
            lines[place : place + rng.choice((1, 5, 50))] = []
        elif what == 3:
            rng.shuffle(lines)
        else:
            separator = b";" if b";" in lines[place] else b"\t" if b"\t" in lines[place] else b","
            cells = lines[place].split(separator)
            cells[rng.randrange(len(cells))] = rng.choice(_CELLS)
            lines[place] = separator.join(cells)
        if not lines:
            break
    return b"".join(lines)


if __name__ == "__main__":
    main()

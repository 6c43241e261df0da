"""CSV files in blocks: plain ones and all others are read alike, faults are told by line, and memory is bounded."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import delimited
from training.delimited import read_delimited
from training.errors import DataError

_PLAIN = st.text(st.characters(categories=["L", "N"], include_characters=" .-:é"), max_size=6)
_HEADER = ["time", "site", "load"]


def written(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_bytes(text.encode())
    return path


def cells(frame: pd.DataFrame) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in frame.to_numpy(dtype=object)]


def by_line(text: str) -> tuple[list[int], list[list[str]]]:
    """What the csv module finds: the line that each record begins at, and the records."""
    reader, lines, rows, line = csv.reader(io.StringIO(text, newline="")), [], [], 1
    for row in reader:
        if any(cell.strip() for cell in row):
            lines.append(line)
            rows.append(row)
        line = reader.line_num + 1
    return lines[1:], rows[1:]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(_PLAIN, min_size=3, max_size=3), min_size=1, max_size=5),
    end=st.sampled_from(["\n", "\r\n"]),
    quoted=st.booleans(),
    ended=st.booleans(),
)
def test_plain_and_quoted_files_hold_the_same_cells_at_the_same_lines(
    rows: list[list[str]], end: str, quoted: bool, ended: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL).writerows(
        [_HEADER, *rows]
    )
    whole = text.getvalue() if ended else text.getvalue().removesuffix(end)

    frame = read_delimited(written(tmp_path_factory.mktemp("csv"), whole))

    assert list(frame.columns) == _HEADER
    assert (frame.index.tolist(), cells(frame)) == by_line(whole)


def test_a_plain_file_is_not_read_record_by_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(delimited, "_any")

    frame = read_delimited(written(tmp_path, "time,load\n2024-01-01,1\n2024-01-02,\n"))

    assert cells(frame) == [["2024-01-01", "1"], ["2024-01-02", ""]]


def test_lines_are_counted_through_empty_ones_and_cells_of_several_lines(tmp_path: Path) -> None:
    text = 'time,"load,\nin MW"\n1,2\n\n"3\n3",4\n , \n5,6\n\n'

    frame = read_delimited(written(tmp_path, text))

    assert list(frame.columns) == ["time", "load,\nin MW"]
    assert cells(frame) == [["1", "2"], ["3\n3", "4"], ["5", "6"]]
    assert frame.index.tolist() == [3, 5, 8]


def test_an_empty_line_of_one_column_is_a_missing_value_unless_nothing_follows(tmp_path: Path) -> None:
    frame = read_delimited(written(tmp_path, "load\n1\n\n3\n\n\n"))

    assert cells(frame) == [["1"], [""], ["3"]]
    assert frame.index.tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("late", "told"),
    [(b"1,2,3\n", "line 70002: 3 cells, but the header has 2"), (b"1,\xff\n", "line 70002: not UTF-8 text")],
    ids=["a cell too many", "another encoding"],
)
def test_a_fault_is_told_by_its_line_however_late_it_comes(late: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"time,load\n" + b"1,2\n" * 70_000 + late)

    with pytest.raises(DataError, match=told):
        read_delimited(path)


_MEASURED = """
import re, sys
from pathlib import Path
from training.config import Config
from training.data import read_panel
from training.table import read_table

def most() -> int:  # kibibytes; what getrusage tells is not less than the parent process had
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

before = most()
panel = read_panel(read_table(Path(sys.argv[1])), Config.model_validate({"data": {"series": "site"}}))
print(len(panel.series), most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units elsewhere")
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_reading_a_panel_takes_a_bounded_number_of_bytes_a_row(suffix: str, tmp_path: Path) -> None:
    series, steps = 400, 1000
    times = pd.date_range("2024-01-01", periods=steps, freq="h").strftime("%Y-%m-%d %H:%M:%S")
    values = np.random.default_rng(0).normal(100, 10, series * steps).round(3)
    names = np.repeat([f"site{number:04d}" for number in range(series)], steps)
    frame = pd.DataFrame({"time": np.tile(times, series), "site": names, "load": values})
    path = tmp_path / f"data.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)

    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(path)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )

    found, kibibytes = map(int, done.stdout.split())
    assert found == series
    assert kibibytes * 1024 < 200 * series * steps + 100e6  # beside what libraries take when they are first used

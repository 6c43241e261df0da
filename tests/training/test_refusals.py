"""What `fit` refuses: each bad file or argument ends with exit code 2, one message, and nothing written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.tables import hourly, long_form, values
from training.__main__ import main

Make = Callable[[Path], None]

_LOAD = ("--target", "load")


def csv(text: str) -> Make:
    return body(text.encode())


def frame(made: pd.DataFrame) -> Make:
    return lambda path: made.to_csv(path, index=False)


def body(content: bytes) -> Make:
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


def with_cell(row: int, column: str, text: str) -> Make:
    table = hourly().astype(object)
    table.loc[row, column] = text
    return frame(table)


def with_times(times: list[str], name: str = "time") -> Make:
    return frame(pd.DataFrame({name: times, "load": values(len(times))}))


def without_rows(first: int, last: int) -> Make:
    return frame(hourly().drop(index=range(first, last + 1)))


def nothing(path: Path) -> None:
    """Leave the file away."""


def folder(path: Path) -> None:
    path.mkdir()


def wide(path: Path) -> None:
    table = pd.DataFrame(np.ones((3, 40)), columns=[f"V{step}" for step in range(1, 41)])
    table.to_csv(path, index=False)


def wide_by_date(path: Path) -> None:
    days = [str(day.date()) for day in pd.date_range("2024-01-01", periods=30)]
    pd.DataFrame(np.ones((3, 30)), columns=days).assign(site=["a", "b", "c"]).to_csv(path, index=False)


_JITTER = [str(time) for time in pd.date_range("2024-01-01", periods=600, freq="h")]
_JITTER[70] = "2024-01-03 22:13:00"
_RANDOM = pd.to_datetime("2024-01-01") + pd.to_timedelta(
    np.cumsum(np.random.default_rng(0).integers(1, 100_000, 600)), unit="s"
)

FILES: dict[str, tuple[Make, tuple[str, ...], str]] = {
    "a file that does not exist": (nothing, _LOAD, "no such file"),
    "a folder": (folder, _LOAD, "this is a folder"),
    "an empty file": (body(b""), _LOAD, "the file is empty"),
    "a file of blank lines": (body(b"\n\n  \n"), _LOAD, "the file is empty"),
    "a byte-order mark alone": (body(b"\xef\xbb\xbf\n"), _LOAD, "the file is empty"),
    "a file of empty cells": (csv(",,\n,,\n"), _LOAD, "the file is empty"),
    "a header without rows": (csv("time,load\n"), _LOAD, "has a header, but no rows"),
    "a file without a header": (csv("1,2\n3,4\n"), _LOAD, "add a header line"),
    "a picture": (body(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), _LOAD, "not a text file"),
    "a file in UTF-16": (body("time,load\n1,2\n".encode("utf-16")), _LOAD, "not a text file"),
    "a file in Latin-1": (body("time,load\n1,2\n2,gr\xf6\xdfer\n".encode("latin-1")), _LOAD, "line 3: not UTF-8"),
    "a damaged Parquet file": (body(b"PAR1 and nothing more"), _LOAD, "not a readable Parquet file"),
    "a quote that is never closed": (csv('time,load\n1,"2\n3,4\n'), _LOAD, "not a readable CSV file"),
    "a line with too many cells": (csv("time,load\n1,2\n2,3,4\n"), _LOAD, "line 3: 3 cells, but the header has 2"),
    "a header that repeats a name": (csv("load,load\n1,2\n"), _LOAD, "'load' more than once"),
    "a target that is misspelt": (frame(hourly()), ("--target", "laod"), "did you mean 'load'?"),
    "a target in other letters": (frame(hourly()), ("--target", "LOAD"), "did you mean 'load'?"),
    "a time column that is not there": (frame(hourly()), (*_LOAD, "--time", "when"), "no column 'when'; there are"),
    "a series column that is not there": (frame(long_form()), (*_LOAD, "--series", "sit"), "did you mean 'site'?"),
    "a target named twice": (frame(hourly()), ("--target", "load", "load"), "named twice"),
    "a target that is the time": (frame(hourly()), ("--target", "time", "--time", "time"), "cannot be a target and"),
    "time and series in one": (frame(hourly()), (*_LOAD, "--time", "time", "--series", "time"), "time and the series"),
    "no target among several": (frame(hourly().assign(wind=values(600, 1))), (), "with --target, of 'load', 'wind'"),
    "no column of numbers": (csv("time,load\n2024-01-01,a\n2024-01-02,b\n"), (), "no column holds numbers"),
    "text in numbers": (with_cell(7, "load", "twelve"), _LOAD, "line 9, column 'load': text where a number must be"),
    "a decimal comma": (csv('time;load\n2024-01-01;"1,5"\n2024-01-02;2,5\n'), _LOAD, "with a decimal point"),
    "a thousands point and a decimal comma": (with_cell(3, "load", "1.420,24"), _LOAD, "with a decimal point"),
    "a thousands comma": (with_cell(3, "load", "1,420.24"), _LOAD, "with a decimal point"),
    "a currency sign before a number": (with_cell(3, "load", "$1,420.24"), _LOAD, "without separators or currency"),
    "a currency sign after a number": (with_cell(3, "load", "1 420,24 €"), _LOAD, "without separators or currency"),
    "a date in numbers": (with_cell(3, "load", "10.10.2024"), _LOAD, "; write a number"),
    "an infinite value": (with_cell(3, "load", "inf"), _LOAD, "line 5, column 'load': an infinite"),
    "a value beyond 32 bits": (with_cell(3, "load", "1e39"), _LOAD, "far too large"),
    "true and false": (csv("load\nTrue\nFalse\n"), _LOAD, "text where a number must be"),
    "a column without any value": (csv("time,load\n2024-01-01,\n2024-01-02,NA\n"), _LOAD, "holds no value at all"),
    "a missing time": (with_cell(4, "time", ""), _LOAD, "line 6, column 'time': the time is missing"),
    "a time that is none": (
        with_cell(4, "time", "soon"),
        (*_LOAD, "--time", "time"),
        "line 6, column 'time': not a date",
    ),
    "a month that is none": (
        with_times(["2024-01-01", "2024-13-02", "2024-01-03"]),
        _LOAD,
        "line 3, column 'time': not",
    ),
    "an offset on some times": (
        with_times(["2024-01-01T00:00Z", "2024-01-01T01:00", "2024-01-01T02:00Z"]),
        _LOAD,
        "line 3, column 'time': no offset from UTC",
    ),
    "days that might be months": (
        with_times([f"{month}/1/2024" for month in range(1, 13)]),
        _LOAD,
        "days and months cannot be told apart",
    ),
    "times that repeat": (with_times([*_JITTER[:5], *_JITTER[4:50]]), _LOAD, "line 6 and line 7 have the same time"),
    "series that are not told apart": (frame(long_form()), _LOAD, "tells them apart with --series"),
    "a time between two steps": (with_times(_JITTER), _LOAD, "line 72 lies between two steps of frequency h"),
    "times without any spacing": (with_times([str(time) for time in _RANDOM]), _LOAD, "the times are uneven"),
    "two rows in one step": (
        frame(hourly()),
        (*_LOAD, "--frequency", "M"),
        "line 2 and line 3 fall into the same step of frequency M",
    ),
    "a frequency far too fine": (
        frame(hourly()),
        (*_LOAD, "--frequency", "s"),
        "frequency s does not fit",
    ),
    "a gap in time": (without_rows(100, 111), _LOAD, "12 missing steps in a row after line 101 (2024-01-05 03:00:00)"),
    "a gap, and its mend": (without_rows(100, 111), _LOAD, "--fill-limit 12"),
    "a gap in values": (
        frame(hourly().assign(load=lambda table: table["load"].where((table.index < 9) | (table.index > 20)))),
        _LOAD,
        "12 missing steps in a row after line 10",
    ),
    "a series that is constant": (frame(hourly().assign(load=7)), _LOAD, "column 'load': constant"),
    "one constant series of three": (
        frame(long_form().assign(load=lambda table: table["load"].where(table["site"] != "site-1", 7))),
        (*_LOAD, "--series", "site"),
        "column 'load' of series 'site-1': constant",
    ),
    "too few rows": (frame(hourly(90)), _LOAD, "too few rows: 90 steps, but a context of 192"),
    "too few rows for a context": (
        frame(hourly(200)),
        (*_LOAD, "--context", "192"),
        "200 steps, but a context of 192 and a horizon of 24 need 271",
    ),
    "too few rows, and the mend": (frame(hourly(200)), (*_LOAD, "--context", "192"), "--context 125 fits"),
    "two rows": (frame(hourly(2)), _LOAD, "too few rows"),
    "one series too short": (
        frame(long_form().drop(index=range(1300, 1800))),
        (*_LOAD, "--series", "site"),
        "too short: 'site-2', 1 of 3 series",
    ),
    "a row without its series": (
        frame(long_form().assign(site=lambda table: table["site"].where(table.index != 8, ""))),
        (*_LOAD, "--series", "site"),
        "line 10, column 'site': the name of the series is missing",
    ),
    "wide data by step": (wide, ("--target", "V2"), "wide data are not read"),
    "wide data by date": (wide_by_date, ("--target", "2024-01-01"), "pandas.melt"),
    "wide data and no such column": (wide, ("--target", "load", "--time", "V1"), "pandas.melt"),
    "two columns of times": (
        frame(hourly().assign(read=lambda table: table["time"])),
        _LOAD,
        "several columns hold times ('time', 'read'): name one with --time",
    ),
    "a calendar without times": (
        frame(hourly().drop(columns="time")),
        (*_LOAD, "--calendar", "hour"),
        "--calendar reads a time column, and there is none",
    ),
    "a calendar of counted steps": (
        frame(hourly().assign(time=range(600))),
        (*_LOAD, "--time", "time", "--calendar", "hour"),
        "--calendar reads dates, and the time column counts steps",
    ),
    "a calendar of working days": (
        frame(hourly().assign(time=pd.bdate_range("2024-01-01", periods=600))),
        (*_LOAD, "--calendar", "weekday"),
        "--calendar needs steps of one frequency, which working days have not",
    ),
    "an exogenous column of words": (
        frame(hourly().assign(price="cheap")),
        (*_LOAD, "--exogenous", "price"),
        "column 'price': text where a number must be",
    ),
    "an exogenous column that never changes": (
        frame(hourly().assign(price=5)),
        (*_LOAD, "--exogenous", "price"),
        "the exogenous column 'price' is constant and tells nothing",
    ),
}

ARGUMENTS: dict[str, tuple[tuple[str, ...], str]] = {
    "no data": ((*_LOAD,), "either --data FILE or --dataset NAME"),
    "two sources of data": (("--data", "{file}", "--dataset", "co2"), "either --data FILE or --dataset NAME"),
    "an unknown data set": (("--dataset", "co3"), "did you mean 'co2'?"),
    "a frequency that is none": (("--data", "{file}", "--frequency", "hourly"), "use s, min, h, D, W, M, Q or Y"),
    "a season of one": (("--data", "{file}", "--season", "1"), "data.season"),
    "a field that the calendar has not": (("--data", "{file}", "--calendar", "minute"), "--calendar"),
    "a field of the calendar twice": (
        ("--data", "{file}", *_LOAD, "--calendar", "hour", "hour"),
        "the calendar's 'hour' is named twice",
    ),
    "an exogenous column that is not there": (
        ("--data", "{file}", *_LOAD, "--exogenous", "price"),
        "no column 'price'",
    ),
    "an exogenous column that is the target": (
        ("--data", "{file}", *_LOAD, "--exogenous", "load"),
        "column 'load' cannot be exogenous and a target",
    ),
    "no epochs": (("--data", "{file}", "--epochs", "0"), "fitting.epochs"),
    "a context beyond the longest": (("--data", "{file}", "--context", "65537"), "network.context_length"),
    "a seed that is negative": (("--data", "{file}", "--seed", "-1"), "seed"),
    "epochs in words": (("--data", "{file}", "--epochs", "ten"), "--epochs"),
    "an unknown option": (("--data", "{file}", "--epoch", "3"), "Did you mean --epochs"),
    "an illegal model name": (
        ("--data", "{file}", "--name", "../up"),
        "--name: letters, digits, '.', '_' and '-', at most 64",
    ),
    "a configuration that does not exist": (("--data", "{file}", "--config", "none.toml"), "no such file"),
    "a gap in a data set": (("--dataset", "co2"), "--fill-limit 18"),
}


@pytest.mark.parametrize(("make", "arguments", "fragment"), FILES.values(), ids=FILES.keys())
def test_a_bad_file_is_refused_with_a_message_and_nothing_is_written(
    make: Make, arguments: tuple[str, ...], fragment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "data.csv")
    before = sorted(tmp_path.rglob("*"))
    code = main(["fit", "--data", str(tmp_path / "data.csv"), *arguments, "--output", str(tmp_path / "models")])
    captured = capsys.readouterr()
    assert code == 2
    assert fragment in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("arguments", "fragment"), ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_a_bad_argument_is_refused_with_a_message_and_nothing_is_written(
    arguments: tuple[str, ...], fragment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "data.csv"
    hourly().to_csv(file, index=False)
    filled = [argument.replace("{file}", str(file)) for argument in arguments]
    code = main(["fit", *filled, "--output", str(tmp_path / "models")])
    captured = capsys.readouterr()
    assert code == 2
    assert fragment in captured.err
    assert list(tmp_path.iterdir()) == [file]


def test_an_unknown_configuration_key_is_refused_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hourly().to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "run.toml").write_text("[fitting]\nepoch = 3\n")
    arguments = ["--data", str(tmp_path / "data.csv"), "--config", str(tmp_path / "run.toml")]
    assert main(["fit", *arguments, "--output", str(tmp_path / "models")]) == 2
    assert "fitting.epoch" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_an_illegal_name_in_a_configuration_is_refused_in_words_naming_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text('name = "my model"\n')
    assert main(["fit", "--config", str(tmp_path / "run.toml"), "--output", str(tmp_path / "models")]) == 2
    assert capsys.readouterr().err == (
        "error: configuration key name: letters, digits, '.', '_' and '-', at most 64, the first a letter or digit\n"
    )


def test_an_output_that_is_a_file_is_refused_before_fitting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hourly().to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "models").write_text("mine")
    assert main(["fit", "--data", str(tmp_path / "data.csv"), "--output", str(tmp_path / "models")]) == 2
    assert "this is a file" in capsys.readouterr().err
    assert (tmp_path / "models").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "fragment"),
    [(None, "cannot be read"), (b"", "it is empty"), (b"time,load\n1,2\n", "not an ONNX file")],
    ids=["missing", "empty", "a table"],
)
def test_describing_what_is_no_artifact_ends_with_exit_code_2(
    content: bytes | None, fragment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    assert main(["describe", str(tmp_path / "model.onnx")]) == 2
    assert fragment in capsys.readouterr().err


def test_an_unknown_sample_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "labs"]) == 2
    assert "lab" in capsys.readouterr().err


def test_a_message_never_repeats_a_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_cell(7, "load", "SECRET-VALUE")(tmp_path / "data.csv")
    main(["fit", "--data", str(tmp_path / "data.csv"), *_LOAD, "--output", str(tmp_path / "models")])
    assert "SECRET" not in capsys.readouterr().err

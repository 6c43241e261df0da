"""Arrow streams: read as JSON is read, refused in the same words, and never outside of their bytes."""

import json
import struct
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from service.api.arrow import Table, read_request, write_answer
from service.api.faults import parse
from service.api.ipc import MOST_BATCHES, MOST_METADATA
from service.api.windows import Windows, windows_for
from service.artifact import Metadata
from service.errors import InvalidRequest, LeadtimeError, UnreadableBody, UnsupportedMediaType
from service.schemas import ForecastRequest, MultiStepRequest
from service.settings import Settings
from tests.artifacts import build_metadata
from tests.streams import NUMBERS, ROWS, read, stream, written

ONE_STEP = TypeAdapter(ForecastRequest)
MULTI_STEP = TypeAdapter(MultiStepRequest)
LIMITS = Settings(max_windows=8, max_window_length=20, max_horizon=30)


def model(features: int = 1) -> Metadata:
    return build_metadata(
        "drift",
        features=features,
        name="default",
        version="1",
        context_length=8,
        minimum_window=2,
        frequency=None,
        season_length=None,
        errors=None,
    )


def windows_of(body: bytes, features: int = 1, limits: Settings = LIMITS) -> Windows:
    question, table = read_request(MULTI_STEP, body, limits)
    return table.windows_for(model(features), question.horizon, limits)


def faults_of(ask: Callable[[], Any]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as refused:
        ask()
    return [(fault.pointer, fault.message) for fault in refused.value.faults]


# --- what is read ---------------------------------------------------------------------------------------------------

TYPES: dict[str, Any] = {
    "float32": pa.list_(pa.float32()),
    "float64": pa.list_(pa.float64()),
    "float16": pa.list_(pa.float16()),
    "int8": pa.list_(pa.int8()),
    "uint16": pa.list_(pa.uint16()),
    "int32": pa.list_(pa.int32()),
    "int64": pa.list_(pa.int64()),
    "uint64": pa.list_(pa.uint64()),
    "large list": pa.large_list(pa.float32()),
    "fixed list": pa.list_(pa.float32(), 3),
    "rows": pa.list_(pa.list_(pa.float32())),
    "rows of one size": pa.list_(pa.list_(pa.float64(), 3)),
    "large lists of large rows": pa.large_list(pa.large_list(pa.int16())),
    "fixed lists of fixed rows": pa.list_(pa.list_(pa.float32(), 3), 3),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("rows_per_batch", [None, 1])
def test_every_type_of_list_and_number_is_read(name: str, rows_per_batch: int | None) -> None:
    step = [1, 2, 3]
    window = [[value, value + 1, value + 2] for value in step] if "rows" in name else step
    numbers = pa.array([window, window], TYPES[name])
    body = stream({"window": numbers}, {"horizon": "2"}, rows_per_batch=rows_per_batch)

    found = windows_of(body, 3 if "rows" in name else 1)

    assert found.as_rows == ["rows" in name] * 2
    for array in found.arrays:
        assert array.dtype == np.float32
        assert array.tolist() == (window if "rows" in name else [[1], [2], [3]])


def test_windows_of_32_bit_floats_are_views_of_the_body() -> None:
    body = stream({"window": pa.array([[1, 2, 3], [4, 5]], NUMBERS)}, {"horizon": "1"})
    whole = np.frombuffer(body, np.uint8)
    for array in windows_of(body).arrays:
        assert np.shares_memory(array, whole)


def test_of_a_long_window_the_end_goes_on() -> None:
    body = stream({"window": [list(range(20)), list(range(10))]}, {"horizon": "1"})
    assert [array.ravel().tolist() for array in windows_of(body).arrays] == [
        list(range(12, 20)),
        list(range(2, 10)),
    ]


def test_a_part_of_an_array_is_read_where_it_lies() -> None:
    whole = pa.array([[float("nan")], [1.0, 2.0], [3.0, 4.0, 5.0], [None, float("inf")]], NUMBERS)
    rows = pa.array([[[float("nan")]], [[1.0], [2.0]], [[3.0], [4.0]], [[]], None], ROWS)
    assert [a.ravel().tolist() for a in windows_of(stream({"window": whole[1:3]}, {"horizon": "1"})).arrays] == [
        [1, 2],
        [3, 4, 5],
    ]
    assert [a.ravel().tolist() for a in windows_of(stream({"window": rows[1:3]}, {"horizon": "1"})).arrays] == [
        [1, 2],
        [3, 4],
    ]


def test_the_older_version_of_the_format_is_read() -> None:
    body = stream({"window": [[1, 2, 3]]}, {"horizon": "1"}, metadata_version=pa.ipc.MetadataVersion.V4)
    assert len(windows_of(body).arrays) == 1


def test_a_stream_may_end_without_a_mark() -> None:
    body = stream({"window": [[1, 2, 3]]}, {"horizon": "1"})
    assert len(windows_of(body[:-8]).arrays) == 1


def test_what_libraries_write_into_the_schema_is_passed_over() -> None:
    frame = pa.table({"window": [[1.0, 2.0]]}).to_pandas()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    assert b"pandas" in table.schema.metadata
    table = table.replace_schema_metadata({**table.schema.metadata, "ARROW:schema": "x", "horizon": "1"})
    assert len(windows_of(written(table)).arrays) == 1


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_origins_are_text_of_any_kind(kind: Any) -> None:
    origins = ["2024-01-01", "2024-03-30T12:00+01:00[Europe/Berlin]", "2024-03-01"]
    table = {"window": [[1, 2]] * 3, "origin": pa.array(origins, kind)}
    question, _ = read_request(ONE_STEP, stream(table, {"frequency": "D"}, rows_per_batch=2), LIMITS)
    assert question.origin == origins


def test_fields_of_the_whole_request_are_metadata_of_the_schema() -> None:
    metadata = {"model": "panel", "version": "2", "frequency": "h", "origin": "2024-01-01T00:00", "horizon": "24"}
    question, table = read_request(MULTI_STEP, stream({"window": [[1, 2]]}, metadata), LIMITS)
    assert question.model_dump(include=set(metadata)) == metadata | {"horizon": 24}
    assert len(table) == 1


# --- what is refused as in JSON -------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
REFUSED: dict[str, tuple[Any, list[Any], dict[str, str], int]] = {
    "null among numbers": (NUMBERS, [[1, 2], [1, None, 2]], {}, 1),
    "NaN": (NUMBERS, [[1, NAN]], {}, 1),
    "an infinity": (NUMBERS, [[1, 2], [1, 2], [-INF, 2]], {}, 1),
    "too large for 32 bits": (pa.list_(pa.float64()), [[1, 2], [1, 2, 3, 1e39]], {}, 1),
    "a little too small": (NUMBERS, [[1, -3.1e38]], {}, 1),
    "a null window": (NUMBERS, [[1, 2], None], {}, 1),
    "an empty window": (NUMBERS, [[1, 2], []], {}, 1),
    "an empty row": (ROWS, [[[1], []]], {}, 1),
    "a null row": (ROWS, [[[1], None]], {}, 1),
    "null in a row": (ROWS, [[[1, 2, 3]], [[1, 2, 3], [1, 2, None]]], {}, 3),
    "NaN in a row of one size": (pa.list_(pa.list_(pa.float32(), 3)), [[[1, 2, 3], [1, NAN, 3]]], {}, 3),
    "too short": (NUMBERS, [[1, 2], [1]], {}, 1),
    "too long": (NUMBERS, [[1] * 21], {}, 1),
    "numbers for three features": (NUMBERS, [[1, 2], [1, 2, 3]], {}, 3),
    "a row too narrow": (ROWS, [[[1, 2, 3]] * 2, [[1, 2, 3], [1, 2]]], {}, 3),
    "a row of one size too wide": (pa.list_(pa.list_(pa.float32(), 3)), [[[1, 2, 3]] * 2] * 2, {}, 1),
    "several faults": (NUMBERS, [[1, None], [1, 2], [NAN], [], None, [1, 2]], {}, 1),
    "faults in every window": (NUMBERS, [[NAN]] * 8, {}, 1),
    "no windows": (NUMBERS, [], {}, 1),
    "too many windows": (NUMBERS, [[1, 2]] * 9, {}, 1),
    "too far ahead": (NUMBERS, [[1, 2]], {"horizon": "31"}, 1),
    "horizon 0": (NUMBERS, [[1, 2]], {"horizon": "0"}, 1),
    "horizon -1": (NUMBERS, [[1, 2]], {"horizon": "-1"}, 1),
    "horizon 3.0": (NUMBERS, [[1, 2]], {"horizon": "3.0"}, 1),
    "a model that is no name": (NUMBERS, [[1, 2]], {"model": "../x"}, 1),
    "a version with a leading zero": (NUMBERS, [[1, 2]], {"version": "01"}, 1),
    "an unknown frequency": (NUMBERS, [[1, 2]], {"origin": "2024-01-01", "frequency": "daily"}, 1),
    "a very long origin": (NUMBERS, [[1, 2]], {"origin": "2" * 101}, 1),
    "a misspelt field": (NUMBERS, [[1, 2]], {"modle": "default"}, 1),
    "an unknown field": (NUMBERS, [[1, 2]], {"temperature": "0"}, 1),
    "a field with a long name": (NUMBERS, [[1, 2]], {"x" * 1000: "0"}, 1),
    "numbers and metadata": (NUMBERS, [[1, NAN]], {"version": "x"}, 1),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("rows_per_batch", [None, 2])
def test_what_is_refused_is_refused_in_the_words_and_at_the_place_that_it_has_in_json(
    name: str, rows_per_batch: int | None
) -> None:
    kind, windows, fields, features = REFUSED[name]
    metadata = {"horizon": "3"} | fields
    body = stream({"window": pa.array(windows, kind)}, metadata, rows_per_batch=rows_per_batch)
    horizon = metadata["horizon"]
    in_json = {"windows": windows, **metadata, "horizon": int(horizon) if horizon.strip("-").isdigit() else horizon}

    def ask_in_json() -> None:
        question = parse(MULTI_STEP, json.dumps(in_json).replace(" 1e+39", " 1e39").encode())
        windows_for(question, model(features), question.horizon, LIMITS)

    assert faults_of(lambda: windows_of(body, features)) == faults_of(ask_in_json)


def test_of_very_many_faults_the_first_twenty_are_told() -> None:
    wide = Settings(max_windows=65_536)
    body = stream({"window": pa.array([[1, 2]] + [[1, NAN]] * 40_000, NUMBERS)}, {"horizon": "1"})
    assert [place for place, _ in faults_of(lambda: windows_of(body, 1, wide))] == [
        f"/windows/{window}/1" for window in range(1, 21)
    ]


def test_a_fault_far_inside_a_long_window_is_found() -> None:
    wide = Settings(max_window_length=1_000_000)
    numbers = np.ones(300_000, np.float32)
    numbers[250_001] = np.nan
    body = stream({"window": pa.array([numbers, numbers[:250_000], numbers], NUMBERS)}, {"horizon": "1"})
    assert [place for place, _ in faults_of(lambda: windows_of(body, 1, wide))] == [
        "/windows/0/250001",
        "/windows/2/250001",
    ]


# --- what only a stream can have wrong ------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"window": pa.array([[1, 2, 3]] * 2, NUMBERS)}
TYPE = "must be a column of windows: in each row a list of numbers"
FAULTY: dict[str, tuple[bytes, str, str]] = {
    "no column": (stream({}), "/window", f"is missing, and {TYPE}"),
    "a misspelt window": (stream({"windw": [[1, 2]]}), "/windw", "did you mean window?"),
    "a misspelt column": (stream(GOOD | {"orgin": ["x", "y"]}), "/orgin", "did you mean origin?"),
    "the name that JSON has": (stream({"windows": [[1, 2]]}), "/windows", "did you mean window?"),
    "an unknown column": (stream(GOOD | {"temperature": [1, 2]}), "/temperature", "leave it out"),
    "a model for each window": (stream(GOOD | {"model": ["a", "b"]}), "/model", "must be metadata of the Arrow schema"),
    "two columns of one name": (
        written(pa.Table.from_arrays([GOOD["window"]] * 2, names=["window", "window"])),
        "/window",
        "must be one column",
    ),
    "numbers without lists": (stream({"window": [1.0, 2.0]}), "/window", TYPE),
    "text": (stream({"window": ["1, 2"]}), "/window", TYPE),
    "lists of text": (stream({"window": [["1"]]}), "/window", TYPE),
    "lists of booleans": (stream({"window": [[True, False]]}), "/window", TYPE),
    "lists of decimals": (stream({"window": pa.array([[1, 2]], pa.list_(pa.decimal128(5, 2)))}), "/window", TYPE),
    "lists of nothing": (stream({"window": [[], []]}), "/window", TYPE),
    "lists of lists of lists": (stream({"window": [[[[1.0]]]]}), "/window", TYPE),
    "lists of no size": (stream({"window": pa.array([[], []], pa.list_(pa.float32(), 0))}), "/window", TYPE),
    "structures": (stream({"window": [{"a": 1}]}), "/window", TYPE),
    "a map": (stream({"window": pa.array([[(1, 2)]], pa.map_(pa.int32(), pa.int32()))}), "/window", TYPE),
    "origins that are times": (
        stream(GOOD | {"origin": pa.array([0, 1], pa.timestamp("s"))}),
        "/origin",
        "must be a column of text",
    ),
    "origins in a dictionary": (
        stream(GOOD | {"origin": pa.array(["2024-01-01"] * 2).dictionary_encode()}),
        "/origin",
        "not dictionary-encoded",
    ),
    "a null origin": (stream(GOOD | {"origin": ["2024-01-01", None]}), "/origin/1", "must be an ISO 8601 date or time"),
    "a very long origin": (
        stream(GOOD | {"origin": ["2024-01-01", "2" * 1000]}),
        "/origin/1",
        "must be an ISO 8601 date or time",
    ),
    "origins twice": (
        stream(GOOD | {"origin": ["2024-01-01"] * 2}, {"origin": "2024-01-01"}),
        "/origin",
        "is both a column and metadata",
    ),
    "windows in the metadata": (stream(GOOD, {"windows": "[[1, 2]]"}), "/windows", "must be a column, named window"),
    "too much metadata": (
        stream(GOOD, {f"pandas{number}": "" for number in range(MOST_METADATA + 1)}),
        "",
        f"has more than {MOST_METADATA} metadata",
    ),
    "a horizon for one step": (stream(GOOD, {"horizon": "2"}), "/horizon", "POST /forecast/multi-step only"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_what_only_a_stream_can_have_wrong_is_told_with_its_place(name: str) -> None:
    body, pointer, message = FAULTY[name]
    places = faults_of(lambda: read_request(ONE_STEP, body, LIMITS))
    assert places[0][0] == pointer
    assert message in places[0][1]


def test_a_number_too_long_to_read_is_no_horizon() -> None:
    body = stream(GOOD, {"horizon": "9" * 5000})
    assert [place for place, _ in faults_of(lambda: read_request(MULTI_STEP, body, LIMITS))] == ["/horizon"]


def changed(body: bytes, old: bytes, new: bytes) -> bytes:
    assert body.count(old) == 1
    return body.replace(old, new)


FILE = pa.BufferOutputStream()
with pa.ipc.new_file(FILE, pa.table(GOOD).schema) as file_writer:
    file_writer.write_table(pa.table(GOOD))
SOUND = stream(GOOD)
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the body is empty"),
    "JSON": (b'{"window": [1, 2, 3]}', "does not begin as messages of Arrow 0.15"),
    "a few bytes": (b"\xff\xff\xff\xff", "does not begin with a schema"),
    "a file": (FILE.getvalue().to_pybytes(), "is an Arrow file: send a stream"),
    "the messages of old": (stream(GOOD, use_legacy_format=True), "Arrow 0.15"),
    "an end without a beginning": (SOUND[-8:], "does not begin with a schema"),
    "cut in the schema": (SOUND[:100], "ends within a message"),
    "cut in a batch": (SOUND[:-20], "ends within a message"),
    "cut before a length": (SOUND[:-4], "ends within a message"),
    "bytes behind the end": (SOUND + b"\0", "bytes follow its end"),
    "two streams": (SOUND + SOUND, "bytes follow its end"),
    "two schemas": (SOUND[: SOUND.index(b"\xff\xff\xff\xff", 4)] * 2, "neither a schema in the first place"),
    "no schema": (SOUND[SOUND.index(b"\xff\xff\xff\xff", 4) :], "does not begin with a schema"),
    "lists that go back": (
        changed(SOUND, struct.pack("<3i", 0, 3, 6), struct.pack("<3i", 0, 6, 3)),
        "do not follow on one another",
    ),
    "lists that go too far": (
        changed(SOUND, struct.pack("<3i", 0, 3, 6), struct.pack("<3i", 0, 3, 60)),
        "go beyond their entries",
    ),
    "lists that begin before the first number": (
        changed(SOUND, struct.pack("<3i", 0, 3, 6), struct.pack("<3i", -3, 3, 6)),
        "do not follow on one another",
    ),
    "very many batches": (
        stream({"window": [[1, 2]] * (MOST_BATCHES + 1)}, rows_per_batch=1),
        f"more than {MOST_BATCHES} record batches",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_sound_stream_is_refused_saying_why(name: str) -> None:
    body, message = UNREADABLE[name]
    with pytest.raises(UnreadableBody, match=message):
        read_request(ONE_STEP, body, Settings(max_windows=5000))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_buffers_are_refused_with_the_mend(compression: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="write it without lz4 or zstd"):
        read_request(ONE_STEP, stream(GOOD, compression=compression), LIMITS)


# --- hostile bytes --------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    kind = pa.float32()
    for _ in range(depth):
        kind = pa.list_(kind)
    return stream({"window": pa.array([], kind)})


SEEDS = [
    *(
        stream({"window": pa.array([[1, 2, 3]] * 3, kind), "origin": ["2024-01-01"] * 3}, {"horizon": "2"})
        for name, kind in TYPES.items()
        if "rows" not in name
    ),
    stream({"window": pa.array([[[1, 2, 3]] * 3] * 2, ROWS)}, {"horizon": "2"}, rows_per_batch=1),
    stream({"window": pa.array([[1, None], None, [2, 3]], NUMBERS)}, {"horizon": "2"}),
    stream({"window": [[1, 2]], "origin": pa.array(["a text that is in no view"], pa.string_view())}),
    stream(GOOD, compression="zstd"),
    nested(60),
]
LENGTHS = [0, 1, -1, 2**31 - 1, -(2**31), 2**62, -(2**63), 2**32, 255]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A stream, with some of its bytes changed, cut out, doubled or replaced by a length that is a lie."""
    body = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(body)))
        kind = draw(st.sampled_from(["flip", "length", "cut", "end", "double"]))
        if kind == "flip" and place < len(body):
            body[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "length":
            place -= place % 8
            body[place : place + 8] = struct.pack("<q", draw(st.sampled_from(LENGTHS)))
        elif kind == "cut":
            del body[place : place + draw(st.integers(1, 16))]
        elif kind == "end":
            del body[place:]
        else:
            body[place:place] = body[place : place + 64]
    return bytes(body)


@given(body=damaged() | st.binary(max_size=200), features=st.sampled_from([1, 3]))
@settings(max_examples=1500)
def test_hostile_bytes_are_read_or_refused_and_never_fail(body: bytes, features: int) -> None:
    try:
        found = windows_of(body, features)
    except LeadtimeError:
        return
    for array in found.arrays:
        assert array.shape[1] == features
        assert 2 <= len(array) <= 8
        assert np.isfinite(array).all()


# --- properties -----------------------------------------------------------------------------------------------------


@st.composite
def requests(draw: st.DrawFn) -> tuple[Any, list[Any], int]:
    """A type of windows, windows that a model of so many features takes, and the number."""
    features = draw(st.integers(1, 3))
    rows = features > 1 or draw(st.booleans())
    number = draw(st.sampled_from([pa.float32(), pa.float64(), pa.int32(), pa.int64()]))
    values: st.SearchStrategy[Any] = st.integers(-(2**31), 2**31 - 1)
    if pa.types.is_floating(number):
        values = st.floats(-(2.0**124), 2.0**124, width=number.bit_width)
    elif number == pa.int64():
        values = st.integers(-(2**63), 2**63 - 1)
    step = st.lists(values, min_size=features, max_size=features) if rows else values
    sizes = draw(st.sampled_from([(2, 2), (2, 12)]))
    windows = draw(st.lists(st.lists(step, min_size=sizes[0], max_size=sizes[1]), min_size=1, max_size=8))
    inner = draw(st.sampled_from([pa.list_(number), pa.large_list(number), pa.list_(number, features)]))
    kind = draw(st.sampled_from([pa.list_, pa.large_list]))(inner if rows else number)
    return kind, windows, features


@given(request=requests(), rows_per_batch=st.sampled_from([None, 1, 3]))
@example(request=(pa.list_(pa.int64()), [[2**53 + 1, 2**63 - 1]], 1), rows_per_batch=None)
def test_any_windows_become_the_very_arrays_that_json_becomes(
    request: tuple[Any, list[Any], int], rows_per_batch: int | None
) -> None:
    kind, windows, features = request
    body = stream({"window": pa.array(windows, kind)}, {"horizon": "1"}, rows_per_batch=rows_per_batch)
    question = parse(ONE_STEP, json.dumps({"windows": windows}).encode())

    expected = windows_for(question, model(features), 1, LIMITS)
    found = windows_of(body, features)

    assert found.as_rows == expected.as_rows
    for ours, theirs in zip(found.arrays, expected.arrays, strict=True):
        assert ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(("windows", "horizon", "features"), list(product((1, 3), (1, 5), (1, 2))))
@pytest.mark.parametrize("with_times", [False, True])
def test_an_answer_is_read_by_the_reference_as_it_was_written(
    windows: int, horizon: int, features: int, with_times: bool
) -> None:
    forecasts = np.random.default_rng(0).normal(size=(windows, horizon, features)).astype(np.float32)
    times = [[f"2024-0{window + 1}-{step:02}" for step in range(horizon)] for window in range(windows)]
    rows = features > 1

    table = read(
        write_answer({"model": "m", "horizon": "5"}, forecasts, [rows] * windows, times if with_times else None)
    )

    expected = forecasts if rows else forecasts[:, :, 0]
    assert table["values"].to_pylist() == expected.tolist()
    assert table.schema.metadata == {b"model": b"m", b"horizon": b"5"}
    assert table.column_names == (["values", "timestamps"] if with_times else ["values"])
    if with_times:
        assert table["timestamps"].to_pylist() == times


def test_timestamps_that_all_windows_share_are_written_for_each() -> None:
    times = ["2024-01-01", "2024-01-02"]
    table = read(write_answer({}, np.zeros((3, 2, 1), np.float32), [False] * 3, [times] * 3))
    assert table["timestamps"].to_pylist() == [times] * 3


def test_the_answer_is_of_rows_where_any_window_came_as_rows() -> None:
    table = read(write_answer({}, np.ones((2, 2, 1), np.float32), [False, True], None))
    assert table["values"].to_pylist() == [[[1.0], [1.0]]] * 2


def test_a_table_counts_its_windows() -> None:
    _, table = read_request(ONE_STEP, stream({"window": [[1, 2]] * 5}, rows_per_batch=2), LIMITS)
    assert isinstance(table, Table)
    assert len(table) == 5

"""Requests and answers as Arrow streams, for whoever sends thousands of windows; they say what those in JSON say.

A stream has a row for each window: the column `window`, and perhaps `future` and `origin`. What holds for the whole
request is metadata of the schema. What is wrong is told at the place that it would have in JSON, `/windows/3/17`, in
the same words. Numbers are looked at by numpy where they lie; a window of 32-bit floats goes on as a view of the body.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from service.api.faults import (
    EMPTY_ROW,
    EMPTY_ROW_OF_FUTURE,
    EMPTY_WINDOW,
    FIELDS,
    NO_ROW,
    NO_WINDOWS,
    NUMBER,
    check,
    pointer_to,
    unknown_field,
)
from service.api.futures import check_whether_told, numbers_alone, wrong_steps
from service.api.futures import wrong_row as wrong_row_of_future
from service.api.ipc import (
    FLOAT,
    LIST,
    LISTS,
    MOST_METADATA,
    NUMBERS,
    TEXT,
    TEXTS,
    Array,
    Column,
    Field,
    Integers,
    Schema,
    Written,
    read_stream,
    write_stream,
)
from service.api.windows import Windows, check_limits, no_rows, wrong_length, wrong_row
from service.artifact import Metadata
from service.errors import Fault, InvalidRequest
from service.schemas import FAULTS_AT_MOST, LARGEST_NUMBER, ForecastRequest
from service.settings import Settings
from service.window import Values

Question = TypeVar("Question", bound=ForecastRequest)

_COLUMNS: Final = ("window", "future", "origin")
_LISTS: Final = (
    "in each row a list of numbers, or a list of rows of numbers (list, large_list or fixed_size_list of any float or "
    "int)"
)
_STEPS: Final = {
    "window": f"must be a column of windows: {_LISTS}",
    "future": f"must be a column of the windows' futures: {_LISTS}",
}
_ORIGIN: Final = "must be a column of text, not dictionary-encoded: an ISO 8601 date or time for each window"
_STANDS_FOR_THE_COLUMN: Final = [[0.0]]
# What libraries write into a schema for themselves.
_OF_LIBRARIES: Final = re.compile("ARROW:.*|pandas|huggingface|r", re.DOTALL)
_BLOCK: Final = 65_536
_WHOLE_NUMBER: Final = re.compile("-?[0-9]{1,4000}")


@dataclass(frozen=True)
class _Part:
    """The windows of one record batch, or their futures."""

    name: Literal["window", "future"]
    first: int
    """The place in the request of its first window."""
    windows: Column
    rows: Column | None
    """The rows of the windows, where they are rows."""
    numbers: Column

    @cached_property
    def bounds(self) -> Integers:
        """Where each window begins and ends, in steps: (windows + 1,)."""
        return _bounds(self.windows)

    @cached_property
    def lengths(self) -> Integers:
        """How many steps each window has: (windows,)."""
        return np.diff(self.bounds)

    @property
    def steps(self) -> tuple[int, int]:
        """Where the first window begins and the last one ends."""
        bounds = self.bounds
        return int(bounds[0]), int(bounds[-1])

    @cached_property
    def widths(self) -> Integers:
        """How many numbers each step has, from the first window's first on; one entry where all are known alike."""
        if self.rows is None:
            return np.ones(1, np.int64)
        if self.rows.bounds is None:
            return np.array([self.rows.field.size])
        first, last = self.steps
        return np.diff(self.rows.bounds[first : last + 1])

    @property
    def used(self) -> Array:
        """The numbers of all windows, one after another."""
        first, last = self.steps
        assert self.numbers.numbers is not None
        return self.numbers.numbers[self.number_at(first) : self.number_at(last)]

    def number_at(self, step: int) -> int:
        """The place of a step's first number."""
        if self.rows is None:
            return step
        return step * self.rows.field.size if self.rows.bounds is None else int(self.rows.bounds[step])

    def step_of(self, number: int) -> int:
        """The step that a number belongs to."""
        if self.rows is None:
            return number
        if self.rows.bounds is None:
            return number // self.rows.field.size
        return int(np.searchsorted(self.rows.bounds, number, side="right")) - 1

    def window_of(self, step: int) -> int:
        """The window that a step belongs to."""
        return int(np.searchsorted(self.bounds, step, side="right")) - 1


class Table:
    """The windows of a request, and perhaps their futures, which hold finite numbers."""

    def __init__(self, parts: Sequence[_Part], futures: Sequence[_Part] = ()) -> None:
        self._parts = parts
        self._futures = futures

    def __len__(self) -> int:
        return sum(part.windows.length for part in self._parts)

    def windows_for(self, metadata: Metadata, horizon: int, settings: Settings) -> Windows:
        """The windows as float32 arrays for a model with `metadata`.

        Raises:
            InvalidRequest: a limit is passed, a row has not the model's number of features, or a window is too short.
        """
        check_limits(len(self), horizon, len(metadata.features), settings)
        if not all(_fits(part, metadata, settings) for part in self._parts):
            told = (fault for part in self._parts for fault in _misfits(part, metadata, settings))
            raise InvalidRequest(list(islice(told, FAULTS_AT_MOST)))
        return Windows(
            arrays=[
                array for part in self._parts for array in _arrays(part, _columns(metadata), metadata.context_length)
            ],
            as_rows=[part.rows is not None for part in self._parts for _ in range(part.windows.length)],
        )

    def futures_for(self, request: ForecastRequest, metadata: Metadata, horizon: int) -> list[Values]:
        """The future of each window's exogenous columns, each (horizon, exogenous); of no columns where there are none.

        Raises:
            InvalidRequest: the column is missing, or is not of the model's columns, or not of `horizon` steps; or it is
                sent to a model that does not take it.
        """
        check_whether_told(request, metadata, len(self), horizon)
        wanted = len(metadata.exogenous)
        if not wanted:
            return [np.empty((horizon, 0), np.float32)] * len(self)
        told = (fault for part in self._futures for fault in _misfits_of_future(part, metadata, horizon))
        if faults := list(islice(told, FAULTS_AT_MOST)):
            raise InvalidRequest(faults)
        return [array for part in self._futures for array in _arrays(part, wanted, horizon)]


def read_request(schema: TypeAdapter[Question], body: bytes, settings: Settings) -> tuple[Question, Table]:
    """Read a request; of the question, `windows` and `futures` stand for the table and are not to be looked at.

    Raises:
        UnreadableBody: the body is no sound Arrow stream.
        UnsupportedMediaType: its buffers are compressed.
        InvalidRequest: it is one, but not such as `schema` describes; the first 20 faults are told.
    """
    about, batches = read_stream(body)
    _check_columns(about)
    fields = _fields(about)
    parts: list[_Part] = []
    futures: list[_Part] = []
    origins: list[str | None] = []
    count = 0
    for batch in batches:
        if count + batch.length > settings.max_windows:
            check_limits(count + batch.length, 1, 1, settings)
        columns = {column.field.name: column for column in batch.columns()}
        if batch.length:
            parts.append(_part("window", count, columns["window"]))
            if "future" in columns:
                futures.append(_part("future", count, columns["future"]))
            count += batch.length
        if "origin" in columns:
            origins += columns["origin"].texts or ()
    if "origin" in {field.name for field in about.fields}:
        fields["origin"] = origins
    if "future" in {field.name for field in about.fields}:
        fields["futures"] = _STANDS_FOR_THE_COLUMN
    return _checked(schema, fields, [*parts, *futures]), Table(parts, futures)


def write_answer(
    metadata: dict[str, str], forecasts: Values, as_rows: Sequence[bool], times: Sequence[Sequence[str]] | None
) -> bytes:
    """The answer, (windows, horizon, features), as a stream with a row for each window.

    `values` holds numbers, or rows where any window came as rows; `timestamps` is there where there are any.
    """
    windows, horizon, features = forecasts.shape
    numbers = (forecasts.size, [forecasts])
    steps = (windows, [_starts(windows, horizon)])
    one = Field("item", FLOAT)
    if any(as_rows):
        rows = Field("item", LIST, child=one)
        inner = (windows * horizon, [_starts(windows * horizon, features)])
        columns = [Written(Field("values", LIST, child=rows), [steps, inner, numbers])]
    else:
        columns = [Written(Field("values", LIST, child=one), [steps, numbers])]
    if times is not None:
        field = Field("timestamps", LIST, child=Field("item", TEXT))
        columns.append(Written(field, [steps, (windows * horizon, _texts(times))]))
    return write_stream(columns, metadata)


def _starts(count: int, size: int) -> npt.NDArray[np.int32]:
    """Where lists of one size begin and end."""
    return np.arange(count + 1, dtype=np.int32) * np.int32(size)


def _texts(times: Sequence[Sequence[str]]) -> list[Array]:
    """Where texts begin and end, and the texts; timestamps are ASCII."""
    repeated = len(times) if all(row is times[0] for row in times) else 1
    texts = times[0] if repeated > 1 else [text for row in times for text in row]
    lengths = np.tile(np.fromiter(map(len, texts), np.int32, len(texts)), repeated)
    content = "".join(texts).encode("ascii") * repeated
    return [np.concatenate(([0], np.cumsum(lengths))).astype(np.int32), np.frombuffer(content, np.uint8)]


def _check_columns(about: Schema) -> None:
    faults: list[Fault] = []
    seen: set[str] = set()
    for field in about.fields:
        name = field.name
        if name in seen:
            faults.append(Fault(pointer_to((name,)), "must be one column, not several of one name"))
        elif name in _STEPS:
            if not _holds_steps(field):
                faults.append(Fault(f"/{name}", _STEPS[name]))
        elif name == "origin":
            if field.kind not in TEXTS or field.encoded:
                faults.append(Fault("/origin", _ORIGIN))
        elif name in FIELDS and name not in ("windows", "futures"):
            faults.append(Fault(pointer_to((name,)), "must be metadata of the Arrow schema, not a column"))
        else:
            faults.append(unknown_field(name, _COLUMNS))
        seen.add(name)
    if "window" not in seen and not faults:
        faults.append(Fault("/window", f"is missing, and {_STEPS['window']}"))
    if faults:
        raise InvalidRequest(faults[:FAULTS_AT_MOST])


def _holds_steps(field: Field) -> bool:
    """Whether a column has lists of numbers, or lists of lists of them."""
    depth = 0
    inside: Field | None = field
    while inside is not None and inside.kind in LISTS:
        inside, depth = inside.child, depth + 1
    return inside is not None and depth in (1, 2) and _holds_numbers(inside)


def _holds_numbers(field: Field) -> bool:
    return field.kind in NUMBERS and field.dtype is not None and not field.encoded


def _fields(about: Schema) -> dict[str, Any]:
    """The fields of the request that its schema's metadata hold."""
    if about.more_metadata:
        raise InvalidRequest([Fault("", f"has more than {MOST_METADATA} metadata in its schema: leave out the others")])
    fields: dict[str, Any] = {}
    for name, value in about.metadata:
        if _OF_LIBRARIES.fullmatch(name):
            continue
        if name.removesuffix("s") in _STEPS:
            column = name.removesuffix("s")
            raise InvalidRequest([Fault(pointer_to((name,)), f"must be a column, named {column}, not metadata")])
        if name == "origin" and any(field.name == "origin" for field in about.fields):
            raise InvalidRequest(
                [Fault("/origin", "is both a column and metadata: send one for each window, or one for all of them")]
            )
        fields[name] = int(value) if name == "horizon" and _WHOLE_NUMBER.fullmatch(value) else value
    return fields


def _checked(schema: TypeAdapter[Question], fields: dict[str, Any], parts: Sequence[_Part]) -> Question:
    faults = [fault for part in parts if not _is_sound(part) for fault in _unsound(part)]
    if not parts:
        faults.append(Fault("/windows", NO_WINDOWS))
    try:
        question = check(schema, {"windows": _STANDS_FOR_THE_COLUMN, **fields})
    except InvalidRequest as error:
        faults += error.faults
    if faults:
        raise InvalidRequest(faults[:FAULTS_AT_MOST])
    return question


def _part(name: Literal["window", "future"], first: int, windows: Column) -> _Part:
    inside = windows.child
    assert inside is not None
    if inside.field.kind in LISTS:
        assert inside.child is not None
        return _Part(name, first, windows, inside, inside.child)
    return _Part(name, first, windows, None, inside)


def _bounds(lists: Column) -> Integers:
    if lists.bounds is not None:
        return lists.bounds
    return np.arange(lists.length + 1, dtype=np.int64) * lists.field.size


def _is_sound(part: _Part) -> bool:
    """Whether windows have only numbers that are allowed, and have them; a quick look."""
    columns = (part.windows, part.numbers) if part.rows is None else (part.windows, part.rows, part.numbers)
    if (
        any(column.valid is not None for column in columns)
        or part.lengths.min() == 0
        or part.widths.min(initial=1) == 0
    ):
        return False
    used = part.used
    # NaN comes through min and max, and is in no range.
    return used.dtype.kind != "f" or (float(used.min()) >= -LARGEST_NUMBER and float(used.max()) <= LARGEST_NUMBER)


def _unsound(part: _Part) -> Iterator[Fault]:
    """The first fault of each window that has any, in order; places are counted as in JSON."""
    lengths, valid = part.lengths, part.windows.valid
    found: list[tuple[int, int, int, str]] = []
    if valid is not None:
        found += [(window, -1, -1, FIELDS[part.name]) for window in np.flatnonzero(~valid)[:FAULTS_AT_MOST].tolist()]
    found += [(window, -1, -1, EMPTY_WINDOW) for window in np.flatnonzero(lengths == 0)[:FAULTS_AT_MOST].tolist()]
    found += _bad_rows(part)
    found += _bad_numbers(part)
    told: set[int] = set()
    for window, step, number, message in sorted(found, key=lambda fault: fault[:3]):
        if window not in told:
            told.add(window)
            place = (part.first + window, *(index for index in (step, number) if index >= 0))
            yield Fault(pointer_to((f"{part.name}s", *place)), message)


def _bad_rows(part: _Part) -> Iterator[tuple[int, int, int, str]]:
    """Window, step, no place in it, and what is wrong, of the first row in each window that is null or empty."""
    rows, widths = part.rows, part.widths
    if rows is None or (rows.valid is None and widths.min(initial=1) > 0):
        return
    first, last = part.steps

    def bad(begin: int, end: int) -> npt.NDArray[np.bool_]:
        empty = np.zeros(end - begin, np.bool_) if rows.bounds is None else widths[begin - first : end - first] == 0
        return empty if rows.valid is None else empty | ~rows.valid[begin:end]

    for step in _first_in_each(first, last, bad, lambda step: int(part.bounds[part.window_of(step) + 1])):
        null = rows.valid is not None and not rows.valid[step]
        empty = EMPTY_ROW if part.name == "window" else EMPTY_ROW_OF_FUTURE
        yield (*_place(part, step), -1, NO_ROW if null else empty)


def _bad_numbers(part: _Part) -> Iterator[tuple[int, int, int, str]]:
    """Window, step, place in its row, and what is wrong, of the first number in each window that may not be."""
    numbers, valid = part.numbers.numbers, part.numbers.valid
    assert numbers is not None

    def bad(begin: int, end: int) -> npt.NDArray[np.bool_]:
        # As 64-bit floats, for 32-bit ones do not hold the bound.
        wrong = ~(np.abs(numbers[begin:end].astype(np.float64)) <= LARGEST_NUMBER)
        return wrong if valid is None else wrong | ~valid[begin:end]

    def following(number: int) -> int:
        return part.number_at(int(part.bounds[part.window_of(part.step_of(number)) + 1]))

    first, last = part.steps
    for number in _first_in_each(part.number_at(first), part.number_at(last), bad, following):
        step = part.step_of(number)
        kind = "less_than_equal" if np.isfinite(numbers[number]) else "finite_number"
        if valid is not None and not valid[number]:
            kind = "float_type"
        yield (*_place(part, step), -1 if part.rows is None else number - part.number_at(step), NUMBER[kind])


def _first_in_each(
    begin: int, end: int, bad: Callable[[int, int], npt.NDArray[np.bool_]], following: Callable[[int], int]
) -> Iterator[int]:
    """The first bad place in each window, of at most 20 windows; `following` says where the window after one begins.

    Goes on in blocks, so that neither the time nor the memory that it takes depends on how many places are bad.
    """
    found = 0
    while begin < end and found < FAULTS_AT_MOST:
        block = bad(begin, min(begin + _BLOCK, end))
        first = int(block.argmax())
        if block[first]:
            found += 1
            yield begin + first
            begin = following(begin + first)
        else:
            begin += len(block)


def _place(part: _Part, step: int) -> tuple[int, int]:
    """The window that a step belongs to, and the step's place there."""
    window = part.window_of(step)
    return window, step - int(part.bounds[window])


def _fits(part: _Part, metadata: Metadata, settings: Settings) -> bool:
    columns, lengths, widths = _columns(metadata), part.lengths, part.widths
    return bool(
        lengths.min() >= metadata.minimum_window
        and lengths.max() <= settings.max_window_length
        and (part.rows is not None or columns == 1)
        and (widths == columns).all()
    )


def _columns(metadata: Metadata) -> int:
    """Numbers in a row of a window."""
    return len(metadata.features) + len(metadata.exogenous)


def _misfits(part: _Part, metadata: Metadata, settings: Settings) -> Iterator[Fault]:
    columns = _columns(metadata)
    for window, (begin, steps) in enumerate(zip(part.bounds.tolist(), part.lengths.tolist(), strict=False)):
        place = f"/windows/{part.first + window}"
        fault = wrong_length(place, steps, metadata, settings)
        if fault is not None:
            yield fault
        elif part.rows is None:
            if columns > 1:
                yield no_rows(place, metadata)
        else:
            for row, width in _other_widths(part, begin, steps, columns):
                yield wrong_row(f"{place}/{row}", width, metadata)


def _misfits_of_future(part: _Part, metadata: Metadata, horizon: int) -> Iterator[Fault]:
    wanted = len(metadata.exogenous)
    if (part.lengths == horizon).all() and (part.rows is not None or wanted == 1) and (part.widths == wanted).all():
        return
    for window, (begin, steps) in enumerate(zip(part.bounds.tolist(), part.lengths.tolist(), strict=False)):
        place = f"/futures/{part.first + window}"
        if steps != horizon:
            yield wrong_steps(place, steps, horizon)
        elif part.rows is None:
            if wanted > 1:
                yield numbers_alone(place, metadata)
        else:
            for row, width in _other_widths(part, begin, steps, wanted):
                yield wrong_row_of_future(f"{place}/{row}", width, metadata)


def _other_widths(part: _Part, begin: int, steps: int, wanted: int) -> Iterator[tuple[int, int]]:
    """The first row of one window that has not as many numbers as it must have, if any: its place and its numbers."""
    first, _ = part.steps
    own = part.widths if len(part.widths) == 1 else part.widths[begin - first : begin - first + steps]
    for row in np.flatnonzero(own != wanted)[:1].tolist():
        yield row, int(own[row])


def _arrays(part: _Part, columns: int, most: int) -> Iterable[Values]:
    """The ends of the windows, of up to so many steps, each (time, columns)."""
    steps = _as_float32(part.used).reshape(-1, columns)
    lengths = part.lengths
    if (lengths == lengths[0]).all():
        return iter(steps.reshape(len(lengths), -1, columns)[:, -most:])
    ends = np.cumsum(lengths).tolist()
    return (steps[max(end - length, end - most) : end] for end, length in zip(ends, lengths.tolist(), strict=True))


def _as_float32(numbers: Array) -> Values:
    if numbers.dtype.kind != "f" and numbers.dtype.itemsize == 8:
        numbers = numbers.astype(np.float64)  # as JSON's whole numbers are
    return np.require(numbers, np.float32, "A")

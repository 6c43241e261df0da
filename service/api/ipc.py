"""Arrow's IPC streams: record batches as bytes, in the part of the format that forecasts need.

Reading takes flatbuffers through `struct` and everything else through numpy's views, both of which look where the bytes
end; counts and offsets are compared with what there is before anything is made of them. So no bytes can lead outside of
the body, and what is read costs no more than the body is long. Arrays are views into the body, not copies.

Read are plain lists of numbers, rows of them, and text; what else a schema holds is named, and not looked into.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from flatbuffers import number_types as flags
from flatbuffers.builder import Builder
from flatbuffers.table import Table

from service.errors import UnreadableBody, UnsupportedMediaType

Integers = npt.NDArray[np.signedinteger[Any]]
Array = npt.NDArray[Any]

# Kinds of type in a schema, as the format numbers them.
INTEGER: Final = 2
FLOAT: Final = 3
TEXT: Final = 5
LIST: Final = 12
FIXED_LIST: Final = 16
LARGE_TEXT: Final = 20
LARGE_LIST: Final = 21
TEXT_VIEW: Final = 24

LISTS: Final = (LIST, FIXED_LIST, LARGE_LIST)
TEXTS: Final = (TEXT, LARGE_TEXT, TEXT_VIEW)
NUMBERS: Final = (INTEGER, FLOAT)

MOST_BATCHES: Final = 1024
"""Record batches in one stream: each costs some time of its own, however few windows it holds."""
MOST_COLUMNS: Final = 24
MOST_METADATA: Final = 64
LONGEST_KEY: Final = 65
"""Bytes of a metadata key or column name that are read: one more than any name is long."""
LONGEST_VALUE: Final = 4096
LONGEST_TEXT: Final = 404
"""Bytes of an entry of a text column that are read: more than any origin is long."""

_MOST_PARTS: Final = 4096  # of a record batch: nodes, or buffers
_DEEPEST: Final = 3  # a list of lists of numbers
_MARK: Final = 0xFFFFFFFF
_SCHEMA: Final = 1
_RECORD_BATCH: Final = 3
_VERSIONS: Final = (3, 4)  # V4 and V5; lists and text lie alike in both
_FLOATS: Final = {0: "<f2", 1: "<f4", 2: "<f8"}
_OFFSETS: Final = {LIST: "<i4", LARGE_LIST: "<i8", TEXT: "<i4", LARGE_TEXT: "<i8"}
_WHOLE: Final = struct.Struct("<I")
_VIEW: Final = np.dtype([("length", "<i4"), ("prefix", "V4"), ("buffer", "<i4"), ("offset", "<i4")])
_ALIGNMENT: Final = 8


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or what the lists of one hold."""

    name: str
    kind: int
    size: int = 0
    """Entries of each list, where all have the same number."""
    dtype: str | None = None
    """Of numbers, what numpy calls them; None where it knows none such."""
    child: "Field | None" = None
    encoded: bool = False
    """Whether it is kept as places in a dictionary."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What a stream says of its columns. Of more than `MOST_COLUMNS` or `MOST_METADATA` the rest is left out."""

    fields: Sequence[Field]
    metadata: Sequence[tuple[str, str]]
    more_metadata: bool


@dataclass(frozen=True, slots=True)
class Column:
    """The entries of a field in one batch."""

    field: Field
    length: int
    valid: npt.NDArray[np.bool_] | None
    """Which entries are there; None where all are."""
    bounds: Integers | None = None
    """(length + 1,): list i holds the entries bounds[i] to bounds[i + 1] of the child; None for lists of one size."""
    child: "Column | None" = None
    numbers: Array | None = None
    texts: Sequence[str | None] | None = None


def read_stream(body: bytes) -> tuple[Schema, Iterator["Batch"]]:
    """Read a stream's schema; its batches are read as they are asked for.

    Raises:
        UnreadableBody: it is no stream, is cut short, or contradicts itself; asking for batches raises it, too.
        UnsupportedMediaType: its buffers are compressed; told when a batch is asked for.
    """
    messages = _messages(body)
    first = next(messages, None)
    if first is None or first.kind != _SCHEMA:
        raise _damaged("it does not begin with a schema")
    with _no_way_out():
        schema = _read_schema(first.header)
    return schema, _batches(schema, messages)


def _batches(schema: Schema, messages: Iterator["_Message"]) -> Iterator["Batch"]:
    for number, (kind, header, content) in enumerate(messages, 1):
        if kind != _RECORD_BATCH:
            raise _damaged("it holds a message that is neither a schema in the first place nor a record batch")
        if number > MOST_BATCHES:
            raise UnreadableBody(
                f"the Arrow stream has more than {MOST_BATCHES} record batches: write fewer and larger ones"
            )
        with _no_way_out():
            batch = Batch(schema, header, content)
        yield batch


def _messages(body: bytes) -> Iterator["_Message"]:
    if not body:
        raise UnreadableBody("the body is empty: send an Arrow stream with a column window")
    if body[:6] == b"ARROW1":
        raise UnreadableBody("the body is an Arrow file: send a stream, such as pyarrow.ipc.new_stream writes")
    view, at = memoryview(body), 0
    while at < len(view):
        if len(view) - at < 8:
            raise _damaged("it ends within a message" if at else "it does not begin with a schema")
        mark, length = _WHOLE.unpack_from(view, at)[0], _WHOLE.unpack_from(view, at + 4)[0]
        if mark != _MARK:
            raise _damaged("a message does not begin as messages of Arrow 0.15 and later do")
        at += 8
        if length == 0:
            if at < len(view):
                raise _damaged("bytes follow its end")
            return
        if length > len(view) - at:
            raise _damaged("it ends within a message")
        with _no_way_out():
            message = _Reader.root(view[at : at + length])
            size = message.number(3, flags.Int64Flags)
            header = message.table(2)
            kind = message.number(1, flags.Uint8Flags)
            version = message.number(0, flags.Int16Flags)
        at += length
        if header is None or version not in _VERSIONS:
            raise _damaged("a message is of no version that is read")
        if not 0 <= size <= len(view) - at:
            raise _damaged("it ends within a message")
        yield _Message(kind, header, view[at : at + size])
        at += size


class _Message(NamedTuple):
    kind: int
    header: "_Reader"
    content: memoryview


def _damaged(how: str) -> UnreadableBody:
    return UnreadableBody(f"the body is not a sound Arrow stream: {how}")


@contextmanager
def _no_way_out() -> Iterator[None]:
    """Say of bytes that lead outside of a message that the stream is damaged."""
    try:
        yield
    except (struct.error, IndexError, OverflowError, TypeError, ValueError) as error:
        raise _damaged("a message refers to what lies outside of it") from error


class _Reader:
    """A table of a flatbuffer; slots are counted as in the format's definition."""

    __slots__ = ("_table",)

    def __init__(self, table: Any) -> None:
        self._table = table

    @classmethod
    def root(cls, content: memoryview) -> "_Reader":
        return cls(Table(content, _WHOLE.unpack_from(content, 0)[0]))

    def number(self, slot: int, kind: Any) -> int:
        return int(self._table.GetSlot(4 + 2 * slot, 0, kind))

    def table(self, slot: int) -> "_Reader | None":
        at = self._at(slot)
        return None if at is None else self._table_at(at)

    def tables(self, slot: int) -> Iterator["_Reader"]:
        count, start = self._vector(slot)
        return (self._table_at(start + 4 * place) for place in range(count))

    def count(self, slot: int) -> int:
        return self._vector(slot)[0]

    def text(self, slot: int, longest: int) -> str:
        """The beginning of a text."""
        count, start = self._vector(slot)
        return bytes(self._table.Bytes[start : start + min(count, longest)]).decode("utf-8", "replace")

    def integers(self, slot: int, width: int) -> list[list[int]]:
        """Structures of some 64-bit integers each; of very many, the first."""
        count, start = self._vector(slot)
        count = min(count, _MOST_PARTS)
        if not count:
            return []
        return np.frombuffer(self._table.Bytes, "<i8", count * width, start).reshape(count, width).tolist()

    def _vector(self, slot: int) -> tuple[int, int]:
        """How many entries a vector has, and where they begin. None has more entries than there are bytes."""
        at = self._at(slot)
        if at is None:
            return 0, 0
        start = self._table.Indirect(at)
        count = _WHOLE.unpack_from(self._table.Bytes, start)[0]
        if count > len(self._table.Bytes) - start:
            raise ValueError("a vector is longer than the message")
        return count, start + 4

    def _at(self, slot: int) -> int | None:
        offset = self._table.Offset(4 + 2 * slot)
        return int(self._table.Pos + offset) if offset else None

    def _table_at(self, at: int) -> "_Reader":
        return _Reader(Table(self._table.Bytes, self._table.Indirect(at)))


def _read_schema(header: _Reader) -> Schema:
    if header.number(0, flags.Int16Flags) != 0:
        raise UnreadableBody("the Arrow stream is big-endian: write it in little-endian order")
    return Schema(
        fields=[_read_field(field, 1) for field in islice(header.tables(1), MOST_COLUMNS)],
        metadata=[
            (pair.text(0, LONGEST_KEY), pair.text(1, LONGEST_VALUE)) for pair in islice(header.tables(2), MOST_METADATA)
        ],
        more_metadata=header.count(2) > MOST_METADATA,
    )


def _read_field(field: _Reader, depth: int) -> Field:
    kind, about = field.number(2, flags.Uint8Flags), field.table(3)
    size, dtype = 0, None
    if about is not None and kind == FIXED_LIST:
        size = about.number(0, flags.Int32Flags)
    elif about is not None and kind == FLOAT:
        dtype = _FLOATS.get(about.number(0, flags.Int16Flags))
    elif about is not None and kind == INTEGER:
        bits, signed = about.number(0, flags.Int32Flags), about.number(1, flags.BoolFlags)
        dtype = f"<{'i' if signed else 'u'}{bits // 8}" if bits in (8, 16, 32, 64) else None
    child = None
    if kind in LISTS and depth < _DEEPEST and field.count(5) == 1 and (kind != FIXED_LIST or size > 0):
        child = _read_field(next(field.tables(5)), depth + 1)
    return Field(field.text(0, LONGEST_KEY), kind, size, dtype, child, encoded=field.table(4) is not None)


class Batch:
    """A record batch. The nodes and buffers of its columns come in one order, which is gone through once."""

    def __init__(self, schema: Schema, header: _Reader, content: memoryview) -> None:
        """Look at the description of a batch; `columns` reads it."""
        if header.table(3) is not None:
            raise UnsupportedMediaType(
                "the buffers of the Arrow stream must not be compressed: write it without lz4 or zstd"
            )
        self.length = header.number(0, flags.Int64Flags)
        self._schema = schema
        self._nodes = iter(header.integers(1, 2))
        self._buffers = iter(header.integers(2, 2))
        self._extra_buffers = (count for (count,) in header.integers(4, 1))
        self._content = content

    def columns(self) -> list[Column]:
        """The columns, which must be of kinds that are read, once.

        Raises:
            UnreadableBody: the batch contradicts itself.
        """
        with _no_way_out():
            return [self._column(field, self.length) for field in self._schema.fields]

    def _column(self, field: Field, expected: int | None = None) -> Column:
        length, nulls = self._next(self._nodes)
        if not 0 <= nulls <= length or expected not in (None, length):
            raise _damaged("it has a column of another length than its batch")
        valid = self._valid(length, nulls)
        if field.kind in TEXTS:
            return Column(field, length, valid, texts=list(self._texts(field, length, valid)))
        if field.kind in NUMBERS:
            return Column(field, length, valid, numbers=self._array(np.dtype(field.dtype), length))
        offsets = self._offsets(field, length) if field.kind in _OFFSETS else None
        assert field.child is not None  # whoever asks for batches has looked at the schema
        child = self._column(field.child)
        if offsets is None:
            if length * field.size > child.length:
                raise _damaged("its lists go beyond their entries")
        elif offsets[-1] > child.length:
            raise _damaged("its lists go beyond their entries")
        return Column(field, length, valid, bounds=offsets, child=child)

    def _valid(self, length: int, nulls: int) -> npt.NDArray[np.bool_] | None:
        bitmap = self._buffer()
        if not nulls:
            return None
        if len(bitmap) * 8 < length:
            raise _damaged("it does not say which entries are null")
        bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), count=length, bitorder="little").view(np.bool_)
        return None if bits.all() else bits

    def _offsets(self, field: Field, length: int) -> Integers:
        """Where lists or texts begin and end: from 0 on, and never back."""
        buffer = self._buffer()
        dtype = np.dtype(_OFFSETS[field.kind])
        if not length:  # writers may leave it out
            return np.zeros(1, dtype)
        offsets = self._view(buffer, dtype, length + 1)
        if offsets[0] < 0 or (offsets[1:] < offsets[:-1]).any():
            raise _damaged("its lists do not follow on one another")
        return offsets

    def _texts(self, field: Field, length: int, valid: npt.NDArray[np.bool_] | None) -> Iterator[str | None]:
        there = [True] * length if valid is None else valid.tolist()
        if field.kind == TEXT_VIEW:
            pieces = self._viewed(length)
        else:
            bounds, content = self._offsets(field, length).tolist(), self._buffer()
            if bounds[-1] > len(content):
                raise _damaged("its text goes beyond its end")
            pieces = (content[begin : min(end, begin + LONGEST_TEXT)] for begin, end in pairwise(bounds))
        for present, piece in zip(there, pieces, strict=True):
            yield str(piece, "utf-8", "replace") if present else None

    def _viewed(self, length: int) -> Iterator[memoryview]:
        """The beginnings of texts that lie in their views where they are short, and else in further buffers."""
        own = self._buffer()
        views = self._view(own, _VIEW, length)
        content = [self._buffer() for _ in range(self._next(self._extra_buffers))]
        for place, (size, _, buffer, offset) in enumerate(views.tolist()):
            if size <= 12:
                yield own[place * 16 + 4 : place * 16 + 4 + max(size, 0)]
                continue
            if not 0 <= buffer < len(content) or not 0 <= offset <= len(content[buffer]) - size:
                raise _damaged("its text goes beyond its end")
            yield content[buffer][offset : offset + min(size, LONGEST_TEXT)]

    def _array(self, dtype: np.dtype[Any], length: int) -> Array:
        return self._view(self._buffer(), dtype, length)

    def _view(self, buffer: memoryview, dtype: np.dtype[Any], length: int) -> Array:
        if length * dtype.itemsize > len(buffer):
            raise _damaged("a buffer is too short for its entries")
        return np.frombuffer(buffer, dtype, length) if length else np.empty(0, dtype)

    def _buffer(self) -> memoryview:
        offset, size = self._next(self._buffers)
        if offset < 0 or size < 0 or offset + size > len(self._content):
            raise _damaged("a buffer goes beyond its message")
        return self._content[offset : offset + size]

    def _next(self, parts: Iterator[Any]) -> Any:
        try:
            return next(parts)
        except StopIteration:
            raise _damaged("a record batch has fewer parts than its columns need") from None


@dataclass(frozen=True, slots=True)
class Written:
    """A column to be written: for each field from the outside in, how many entries, and its buffers after the nulls."""

    field: Field
    parts: Sequence[tuple[int, Sequence[Array]]]


def write_stream(columns: Sequence[Written], metadata: Mapping[str, str]) -> bytes:
    """Write columns of one length as a stream of one record batch."""
    parts = [part for column in columns for part in column.parts]
    nodes = [(length, 0) for length, _ in parts]
    pieces: list[bytes | memoryview] = []
    places: list[tuple[int, int]] = []
    size = 0
    for _, arrays in parts:
        places.append((size, 0))  # no nulls
        for array in arrays:
            content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            padding = -len(content) % _ALIGNMENT
            places.append((size, len(content)))
            pieces += (content, bytes(padding))
            size += len(content) + padding
    schema = _message(_SCHEMA, 0, lambda builder: _write_schema(builder, columns, metadata))
    batch = _message(_RECORD_BATCH, size, lambda builder: _write_batch(builder, parts[0][0], nodes, places))
    return b"".join((schema, batch, *pieces, _WHOLE.pack(_MARK), _WHOLE.pack(0)))


def _message(kind: int, size: int, write: Any) -> bytes:
    builder = Builder(1024)
    header = write(builder)
    builder.StartObject(5)
    builder.PrependInt64Slot(3, size, 0)
    builder.PrependUOffsetTRelativeSlot(2, header, 0)
    builder.PrependUint8Slot(1, kind, 0)
    builder.PrependInt16Slot(0, _VERSIONS[-1], 0)
    builder.Finish(builder.EndObject())
    content = bytes(builder.Output())
    content += bytes(-len(content) % _ALIGNMENT)
    return _WHOLE.pack(_MARK) + _WHOLE.pack(len(content)) + content


def _write_schema(builder: Any, columns: Sequence[Written], metadata: Mapping[str, str]) -> int:
    pairs = []
    for name, value in metadata.items():
        key, text = builder.CreateString(name), builder.CreateString(value)
        builder.StartObject(2)
        builder.PrependUOffsetTRelativeSlot(0, key, 0)
        builder.PrependUOffsetTRelativeSlot(1, text, 0)
        pairs.append(builder.EndObject())
    fields = _vector(builder, [_write_field(builder, column.field) for column in columns])
    about = _vector(builder, pairs)
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(1, fields, 0)
    builder.PrependUOffsetTRelativeSlot(2, about, 0)
    return int(builder.EndObject())


def _write_field(builder: Any, field: Field) -> int:
    children = _vector(builder, [_write_field(builder, field.child)] if field.child is not None else [])
    name = builder.CreateString(field.name)
    builder.StartObject(1)
    if field.kind == FLOAT:
        builder.PrependInt16Slot(0, 1, 0)  # 32 bits
    about = builder.EndObject()
    builder.StartObject(7)
    builder.PrependUOffsetTRelativeSlot(5, children, 0)
    builder.PrependUOffsetTRelativeSlot(3, about, 0)
    builder.PrependUint8Slot(2, field.kind, 0)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    return int(builder.EndObject())


def _write_batch(builder: Any, length: int, nodes: Sequence[tuple[int, int]], places: Sequence[tuple[int, int]]) -> int:
    buffers, entries = _pairs(builder, places), _pairs(builder, nodes)
    builder.StartObject(5)
    builder.PrependInt64Slot(0, length, 0)
    builder.PrependUOffsetTRelativeSlot(1, entries, 0)
    builder.PrependUOffsetTRelativeSlot(2, buffers, 0)
    return int(builder.EndObject())


def _vector(builder: Any, tables: Sequence[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())


def _pairs(builder: Any, pairs: Sequence[tuple[int, int]]) -> int:
    builder.StartVector(16, len(pairs), 8)
    for first, second in reversed(pairs):
        builder.PrependInt64(second)
        builder.PrependInt64(first)
    return int(builder.EndVector())

"""Mutations: sound things made unsound, by a seed, in bytes and in structure.

Bytes are flipped, cut, repeated and overwritten with the numbers at which programs go wrong; a document's parts are
replaced, renamed, repeated and nested; the fields of a protobuf message likewise. Two mutations of one seed are equal.
"""

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

Mutation = Callable[[bytes, random.Random], bytes]

# Where whole numbers of 8, 16, 32 and 64 bits turn over, and what lies beside.
_EDGES: Final = sorted(
    {edge + near for bits in (7, 8, 15, 16, 31, 32, 63) for edge in (2**bits, -(2**bits)) for near in (-1, 0, 1)}
    | {0, 1, -1, 2, 10, 100, 1000, 10_000}
)
_TEXTS: Final = (
    "",
    " ",
    "0",
    "-1",
    "1e999",
    "NaN",
    "null",
    "../../../etc/passwd",
    "a" * 300,
    "\0",
    "\r\n",
    "\u202e",
    "\U0001d518",
    "ß" * 65,
    "\ud800",
    "%s%n",
    "1970-01-01",
    "9999-12-31T23:59:59",
    "2024-02-30",
    "2024-03-31T02:30:00[Europe/Berlin]",
    "canary",
    "stable",
    "__class__",
)
_NUMBERS: Final = (*_EDGES, 0.5, -0.0, 1e-320, 3.4e38, 3.5e38, 1e308, -1e308, float("nan"), float("inf"), -float("inf"))
_OTHERS: Final[tuple[Any, ...]] = (None, True, False, [], {}, [[]], [{}], {"": None})
_DEEP: Final = 300
_LARGE: Final = 3000


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """The bytes with one to some eight places of them changed."""
    for _ in range(1 + int(rng.expovariate(0.7))):
        content = rng.choice(_OF_BYTES)(content, rng)
    return content


def mutated_document(document: Any, rng: random.Random) -> bytes:
    """A JSON document with one to some four of its parts changed, as text; now and then that is no JSON any more."""
    for _ in range(1 + int(rng.expovariate(1.0))):
        document = _changed(document, rng)
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def mutated_message(message: Message, rng: random.Random) -> None:
    """Change one to some four fields of a protobuf message, or of messages in it, in its place."""
    for _ in range(1 + int(rng.expovariate(0.8))):
        _change_message(message, rng)


def _flip(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"\xff"
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def _overwrite(content: bytes, rng: random.Random) -> bytes:
    """A number at an edge, of one to eight bytes, in either order."""
    form = rng.choice(("B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(form)
    number = struct.pack(form, rng.choice(_EDGES) % 2 ** (8 * size))
    place = rng.randrange(max(1, len(content)))
    return content[:place] + number + content[place + size :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _slice(content: bytes, rng: random.Random) -> tuple[int, int]:
    begin = rng.randrange(len(content) + 1)
    return begin, min(len(content), begin + 1 + int(rng.expovariate(1 / 16)))


def _delete(content: bytes, rng: random.Random) -> bytes:
    begin, end = _slice(content, rng)
    return content[:begin] + content[end:]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    begin, end = _slice(content, rng)
    times = rng.choice((1, 1, 1, 2, 10, 200))
    return content[:end] + content[begin:end] * times + content[end:]


def _move(content: bytes, rng: random.Random) -> bytes:
    begin, end = _slice(content, rng)
    part, rest = content[begin:end], content[:begin] + content[end:]
    place = rng.randrange(len(rest) + 1)
    return rest[:place] + part + rest[place:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.randbytes(rng.randrange(1, 9)) + content[place:]


def _blank(content: bytes, rng: random.Random) -> bytes:
    begin, end = _slice(content, rng)
    return content[:begin] + rng.choice((b"\0", b"\xff", b" ", b"9")) * (end - begin) + content[end:]


_OF_BYTES: Final[Sequence[Mutation]] = (_flip, _flip, _overwrite, _cut, _delete, _repeat, _move, _insert, _blank)


def _changed(document: Any, rng: random.Random) -> Any:
    """The document with one part changed: itself, or one in it."""
    if isinstance(document, dict) and document and rng.random() < 0.85:
        name = rng.choice(list(document))
        if rng.random() < 0.7:
            return {**document, name: _changed(document[name], rng)}
        return _changed_members(document, name, rng)
    if isinstance(document, list) and document and rng.random() < 0.8:
        place = rng.randrange(len(document))
        if rng.random() < 0.7:
            return [*document[:place], _changed(document[place], rng), *document[place + 1 :]]
        return _changed_items(document, place, rng)
    return _another(document, rng)


def _changed_members(document: dict[str, Any], name: str, rng: random.Random) -> dict[str, Any]:
    what = rng.randrange(3)
    if what == 0:
        return {key: value for key, value in document.items() if key != name}
    if what == 1:
        return {(rng.choice(_TEXTS) if key == name else key): value for key, value in document.items()}
    return {**document, rng.choice((*_TEXTS, *document)): _another(document[name], rng)}


def _changed_items(items: list[Any], place: int, rng: random.Random) -> list[Any]:
    what = rng.randrange(4)
    if what == 0:
        return items[:place] + items[place + 1 :]
    if what == 1:
        return items[: place + 1] + items[place : place + 1] * rng.choice((1, 10, _LARGE)) + items[place + 1 :]
    if what == 2:
        return items[:place]
    return rng.sample(items, len(items))


def _another(value: Any, rng: random.Random) -> Any:
    what = rng.randrange(6)
    if what == 0:
        return rng.choice(_TEXTS)
    if what == 1:
        return rng.choice(_NUMBERS)
    if what == 2:
        return rng.choice(_OTHERS)
    if what == 3:
        return [value] * rng.choice((1, 2, 20))
    if what == 4:
        for _ in range(rng.choice((1, 2, 10, _DEEP))):
            value = [value] if rng.random() < 0.7 else {"a": value}
        return value
    return str(value) if not isinstance(value, str) else [value]


def _change_message(message: Message, rng: random.Random) -> None:
    """Change a field of a message, or go into one of those that lie in it."""
    present = [field for field, _ in message.ListFields()]
    within = [field for field in present if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE]
    if within and rng.random() < 0.85:
        value = getattr(message, rng.choice(within).name)
        inner = rng.choice(value) if isinstance(value, Sequence) or hasattr(value, "add") else value
        _change_message(inner, rng)
        return
    fields = present if present and rng.random() < 0.8 else list(message.DESCRIPTOR.fields)
    if fields:
        _change_field(message, rng.choice(fields), rng)


def _change_field(message: Message, field: Any, rng: random.Random) -> None:
    value = getattr(message, field.name)
    if field.is_repeated:
        _change_repeated(value, field, rng)
    elif rng.random() < 0.15:
        message.ClearField(field.name)
    elif field.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE:
        setattr(message, field.name, _scalar(field, value, rng))


def _change_repeated(values: Any, field: Any, rng: random.Random) -> None:
    what = rng.randrange(4)
    place = rng.randrange(len(values)) if len(values) else 0
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        if what == 0 and len(values):
            del values[place]
        elif what == 1 and len(values) > 1:
            values[place].CopyFrom(values[rng.randrange(len(values))])
        elif what == 2 and len(values):
            values.add().CopyFrom(values[place])
        else:
            values.add()
    elif what == 0 and len(values):
        del values[place]
    elif what == 1 and len(values):
        values[place] = _scalar(field, values[place], rng)
    else:
        values.append(_scalar(field, values[place] if len(values) else None, rng))


def _scalar(field: Any, value: Any, rng: random.Random) -> Any:
    kind = field.cpp_type
    if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64):
        bits = 31 if kind == FieldDescriptor.CPPTYPE_INT32 else 63
        near = (value or 0) + rng.choice((-1, 1, 2, 16))
        return max(-(2**bits), min(2**bits - 1, near if rng.random() < 0.5 else rng.choice(_EDGES)))
    if kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64):
        return rng.choice(_EDGES) % 2 ** (32 if kind == FieldDescriptor.CPPTYPE_UINT32 else 64)
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return float(rng.choice((0.0, -1.0, 1e30, 1e-30, float("nan"), float("inf"), 0.5)))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return not value
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if field.type == FieldDescriptor.TYPE_BYTES:
        return mutated_bytes(bytes(value or b""), rng)
    return rng.choice((mutated_bytes((value or "").encode(), rng).decode("utf-8", "replace"), *_PLAIN))


_PLAIN: Final = tuple(text for text in _TEXTS if text.isprintable() and "\ud800" not in text)

"""What an ONNX file may name beside itself: weights in other files, and operators that are not ONNX's own.

Either is refused before onnxruntime sees the file. A place of weights is a path, or, to onnxruntime, an address in
memory; no file from outside should have it look there. The file is read as what it is, a protobuf message
(https://protobuf.dev/programming-guides/encoding/), with the field numbers of `onnx.proto`
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); what is not looked for is passed over unread.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from service.errors import ArtifactError

STANDARD_DOMAINS: Final = frozenset({b"", b"ai.onnx", b"ai.onnx.ml"})
"""The domains of ONNX's own operators."""

UNREADABLE: Final = "it is not an ONNX file, or it is cut short"
EXTERNAL: Final = "its weights lie in another file: save the model as one file"
NOT_STANDARD: Final = "its graph uses an operator that is not standard ONNX: export it with standard operators only"

Kind = Literal["model", "training", "function", "graph", "node", "attribute", "tensor", "sparse"]

# Where messages lie in others, by field number, as far as a tensor or a node may lie in them.
_PARTS: Final[Mapping[Kind, Mapping[int, Kind]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_DOMAIN_OF_NODE: Final = 7
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_IN_ANOTHER_FILE: Final = 1

# Graphs lie in attributes of nodes, and so in each other; protobuf's own readers stop at 100 messages.
_DEEPEST: Final = 100
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_LONGEST_VARINT: Final = 10


def check_stands_alone(content: bytes) -> None:
    """Check that an ONNX file names nothing beside itself.

    Raises:
        ArtifactError: it does, or it is no protobuf message.
    """
    _check("model", memoryview(content), 0)


def _check(kind: Kind, message: memoryview, depth: int) -> None:
    if depth > _DEEPEST:
        raise ArtifactError(UNREADABLE)
    parts = _PARTS[kind]
    for field, value in _fields(message):
        if isinstance(value, int):
            if kind == "tensor" and field == _DATA_LOCATION and value == _IN_ANOTHER_FILE:
                raise ArtifactError(EXTERNAL)
        elif field in parts:
            _check(parts[field], value, depth + 1)
        elif kind == "tensor" and field == _EXTERNAL_DATA:
            raise ArtifactError(EXTERNAL)
        elif kind == "node" and field == _DOMAIN_OF_NODE and bytes(value) not in STANDARD_DOMAINS:
            raise ArtifactError(NOT_STANDARD)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message by their numbers: whole numbers, and everything that has a length; others are left out.

    Raises:
        ArtifactError: it is no protobuf message.
    """
    place, end = 0, len(message)
    while place < end:
        tag, place = _varint(message, place)
        field, wire = tag >> 3, tag & 7
        if not field:
            raise ArtifactError(UNREADABLE)
        if wire == _VARINT:
            number, place = _varint(message, place)
            yield field, number
        elif wire == _BYTES:
            length, place = _varint(message, place)
            if length > end - place:
                raise ArtifactError(UNREADABLE)
            yield field, message[place : place + length]
            place += length
        elif wire in (_FIXED_32, _FIXED_64):
            place += 4 if wire == _FIXED_32 else 8
        else:
            raise ArtifactError(UNREADABLE)
    if place > end:
        raise ArtifactError(UNREADABLE)


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of 7 bits in each byte, the lowest first, and where it ends."""
    number = 0
    for count, byte in enumerate(message[place : place + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return number, place + count + 1
    raise ArtifactError(UNREADABLE)

"""Sound requests of every kind, from which mutated ones are made, and models that answer them."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from chaos.mutations import mutated_bytes, mutated_document
from service.api.headers import ARROW, JSON
from service.artifact import ErrorTable
from tests.artifacts import write_artifact

Headers = list[tuple[bytes, bytes]]

_ERRORS: Final = ErrorTable(
    origins=59, errors=(tuple(tuple(float(lead * size) for size in range(-29, 30)) for lead in (1, 2, 3)),), paths=True
)
_ONE: Final = "/forecast"
_SEVERAL: Final = "/forecast/multi-step"
_LINE: Final = [1.5, 2, 3.25, 4, 5, 6, 7, 8]

_DOCUMENTS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    (_ONE, {"window": _LINE}),
    (_ONE, {"windows": [_LINE, _LINE[:3], [-1e6, 1e6]], "model": "default", "version": "stable"}),
    (_ONE, {"model": "panel", "windows": [[[1, 2, 3], [4, 5, 6]]], "origin": ["2024-02-28T23:00:00+01:00"]}),
    (_SEVERAL, {"window": _LINE, "horizon": 3, "levels": [50, 80]}),
    (_SEVERAL, {"window": _LINE * 20, "horizon": 2, "samples": 5, "seed": 1}),
    (_SEVERAL, {"window": _LINE, "horizon": 6, "origin": "2024-02-29", "frequency": "M"}),
    (_SEVERAL, {"model": "sales", "window": [1, 2, 3], "future": [[1, 0], [2, 0]], "horizon": 2}),
    (_SEVERAL, {"model": "diary", "windows": [[1, 2]], "futures": [[0, 1]], "horizon": 2, "origin": "2024-05-01"}),
)
_OTHERS: Final = (
    ("GET", "/models"),
    ("GET", "/models/default"),
    ("GET", "/models/default/versions/1"),
    ("POST", "/models/refresh"),
    ("GET", "/health/ready"),
    ("GET", "/problems/not-found"),
    ("GET", "/metrics"),
    ("HEAD", "/docs"),
    ("OPTIONS", "/forecast"),
    ("GET", "/openapi.json"),
)
_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-request-timeout-ms", b"1000"),
    (b"accept", b"application/json, application/vnd.apache.arrow.stream;q=0.5"),
    (b"accept", b"*/*"),
    (b"content-encoding", b"identity"),
    (b"authorization", b"Bearer nobody"),
    (b"x-api-key", b"nobody"),
    (b"x-routing-key", b"a series"),
    (b"x-request-id", b"4f1c"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    (b"origin", b"https://example.org"),
    (b"expect", b"100-continue"),
    (b"if-none-match", b'"a"'),
    (b"cookie", b"a=b"),
)


@dataclass(frozen=True, slots=True)
class Question:
    """One request, by its parts."""

    method: str
    path: str
    headers: Headers
    body: bytes

    def written(self) -> bytes:
        """The request as it goes over a connection."""
        head = [f"{self.method} {self.path} HTTP/1.1".encode("utf-8", "surrogatepass"), b"host: localhost"]
        head += [b"%b: %b" % header for header in self.headers]
        if self.body or self.method == "POST":
            head.append(b"content-length: %d" % len(self.body))
        return b"\r\n".join([*head, b"", self.body])


def make_models(folder: Path) -> Path:
    """Write the models that answer the sound requests."""
    for version in ("1", "2"):
        write_artifact(folder / "default" / version / "model.onnx", version=version, errors=_ERRORS)
    write_artifact(folder / "panel" / "1" / "model.onnx", features=3, name="panel", frequency="h")
    write_artifact(folder / "sales" / "1" / "model.onnx", "informed", name="sales", exogenous=("price", "promotion"))
    write_artifact(
        folder / "diary" / "1" / "model.onnx",
        "informed",
        name="diary",
        calendar=("weekday",),
        exogenous=("promotion",),
        frequency="D",
    )
    return folder


def mutated_question(rng: random.Random) -> Question:
    """A request whose path, headers or body are not what they should be: most often the body."""
    what = rng.random()
    if what < 0.12:
        method, path = rng.choice(_OTHERS)
        path = _mutated_text(path, rng) if rng.random() < 0.6 else path
        return Question(method, path, _mutated_headers([], rng), b"" if rng.random() < 0.8 else rng.randbytes(20))
    if what < 0.42:
        path, body, kind = rng.choice(_STREAMS)
        return Question("POST", path, _mutated_headers([(b"content-type", kind)], rng), mutated_bytes(body, rng))
    path, document = rng.choice(_DOCUMENTS)
    if rng.random() < 0.1:
        path = _ONE if path == _SEVERAL else _SEVERAL
    body = mutated_document(document, rng)
    if rng.random() < 0.3:
        body = mutated_bytes(body, rng)
    return Question("POST", path, _mutated_headers([(b"content-type", JSON)], rng), body)


def _mutated_headers(headers: Headers, rng: random.Random) -> Headers:
    if rng.random() < 0.6:
        return headers
    headers = [*headers, *rng.sample(_HEADERS, rng.randrange(1, 4))]
    place = rng.randrange(len(headers))
    name, value = headers[place]
    # Values as a connection can bring them: neither line ends nor NUL, which the server's parser refuses.
    value = bytes(byte for byte in mutated_bytes(value, rng) if byte >= 32 or byte == 9)[:2000]
    return [*headers[:place], (name, value), *headers[place + 1 :]]


def _mutated_text(path: str, rng: random.Random) -> str:
    """A path with some of it changed that is still one word."""
    changed = mutated_bytes(path.encode(), rng).decode("utf-8", "replace")[:3000]
    return "/" + "".join(letter if 33 <= ord(letter) < 127 else f"%{ord(letter) % 256:02X}" for letter in changed[1:])


def _stream(columns: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    table = pa.table(dict(columns)).replace_schema_metadata(dict(metadata or {}))
    target = BytesIO()
    with pa.ipc.new_stream(target, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return target.getvalue()


_NUMBERS: Final = pa.list_(pa.float32())
_STREAMS: Final = (
    (_ONE, _stream({"window": pa.array([_LINE, _LINE[:4]], _NUMBERS)}), ARROW),
    (
        _SEVERAL,
        _stream(
            {"window": pa.array([_LINE] * 3, pa.large_list(pa.float64())), "origin": ["2024-01-31"] * 3},
            {"horizon": "4", "frequency": "M"},
        ),
        ARROW,
    ),
    (
        _SEVERAL,
        _stream(
            {
                "window": pa.array([[1, 2, 3]], pa.list_(pa.int16())),
                "future": pa.array([[[1, 0], [2, 1]]], pa.list_(pa.list_(pa.float64(), 2))),
            },
            {"horizon": "2", "model": "sales"},
        ),
        ARROW,
    ),
    (
        _ONE,
        _stream({"window": pa.array([[[1, 2, 3]] * 2], pa.list_(pa.list_(pa.float32())))}, {"model": "panel"}),
        ARROW,
    ),
)

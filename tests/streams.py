"""Arrow streams for tests, written and read by pyarrow, the reference for the format."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

import pyarrow as pa
from pyarrow import ipc

MEDIA_TYPE: Final = "application/vnd.apache.arrow.stream"
NUMBERS: Final = pa.list_(pa.float32())
ROWS: Final = pa.list_(pa.list_(pa.float32()))


def stream(
    columns: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
    *,
    rows_per_batch: int | None = None,
    **options: Any,
) -> bytes:
    """A stream of columns (lists, or pyarrow's arrays), with metadata in its schema."""
    return written(pa.table(dict(columns)).replace_schema_metadata(dict(metadata or {})), rows_per_batch, **options)


def written(table: Any, rows_per_batch: int | None = None, **options: Any) -> bytes:
    """A table as a stream."""
    target = BytesIO()
    with ipc.new_stream(target, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return target.getvalue()


def read(body: bytes) -> Any:
    """The table in a stream, looked through as strictly as pyarrow can."""
    with ipc.open_stream(body) as reader:
        table = reader.read_all()
    table.validate(full=True)
    return table

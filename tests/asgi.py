"""Requests as a server hands them to an application, without a server."""

from collections.abc import Mapping, Sequence
from typing import Any


def scope_of(
    path: str, headers: Sequence[tuple[bytes, bytes]], state: Mapping[str, Any], method: str = "POST"
) -> dict[str, Any]:
    """The scope of an HTTP request, which always has the same id."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [*headers, (b"x-request-id", b"the-same")],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "state": state,
    }

"""Logging: one line an event, on standard error, for people or for programs."""

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

import orjson

Format = Literal["text", "json"]


class Marks(NamedTuple):
    """By what a request can be found again."""

    request_id: str
    trace_id: str | None
    """Of the W3C trace that it is part of, 32 hexadecimal digits; None where it is part of none."""

    def fields(self) -> dict[str, str]:
        """What a log line says of it."""
        return {"request_id": self.request_id} | ({"trace_id": self.trace_id} if self.trace_id else {})


MARKS: Final[ContextVar[Marks | None]] = ContextVar("marks", default=None)
"""Those of the request that is being answered, where what goes wrong with it may be logged."""

FIELDS: Final = "fields"
"""The attribute of a record that holds what it says beside its message, by name."""

_LINE: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_configuration(level: str, form: Format = "text") -> dict[str, Any]:
    """A configuration for `logging.config.dictConfig`: messages from `level` on, the server's and the service's."""
    formatter = {"()": "service.log.JsonLines"} if form == "json" else {"()": "service.log.Lines", "fmt": _LINE}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        # It tells of every change of a file; what came of it is told by the registry.
        "loggers": {"watchfiles": {"level": "WARNING"}},
        "root": {"handlers": ["stderr"], "level": level.upper()},
    }


class Lines(logging.Formatter):
    """Lines for people: the message, and behind it what else is known, as `name=value`."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """One line, but for a traceback."""
        said = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        line = super().formatMessage(record)
        return f"{line} {said}" if said else line


class JsonLines(logging.Formatter):
    """A JSON object a line, a traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        document: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(document, default=str).decode()
        except TypeError:  # text that is no UTF-8, such as names of files
            plain = {name: ascii(value)[1:-1] if isinstance(value, str) else value for name, value in document.items()}
            return orjson.dumps(plain, default=str).decode()


def _fields(record: logging.LogRecord) -> dict[str, object]:
    said: dict[str, object] = dict(getattr(record, FIELDS, {}))
    marks = MARKS.get()
    return said if marks is None else marks.fields() | said

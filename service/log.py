"""Logging: one line an event, on standard error."""

from typing import Any


def log_configuration(level: str) -> dict[str, Any]:
    """A configuration for `logging.config.dictConfig`: messages from `level` on, the server's and the service's."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        # It tells of every change of a file; what came of it is told by the registry.
        "loggers": {"watchfiles": {"level": "WARNING"}},
        "root": {"handlers": ["stderr"], "level": level.upper()},
    }

"""What OpenTelemetry's usual environment variables ask the service for.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ lists them.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from service.errors import SettingsError

EXPORTER: Final = "OTEL_TRACES_EXPORTER"
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_PROTOCOL: Final = "http/protobuf"
_NEEDED: Final = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


def is_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces, by an exporter or by the address of a collector.

    Raises:
        SettingsError: it asks for what there is not; or the extra `otel` is not installed.
    """
    exporter = environ.get(EXPORTER, "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    if not exporter and not any(environ.get(name, "").strip() for name in ENDPOINTS):
        return False
    if exporter not in ("", "otlp", "console"):
        raise SettingsError(f"{EXPORTER}: it must be otlp, console or none")
    for name in PROTOCOLS:
        if environ.get(name, _PROTOCOL).strip().lower() not in ("", _PROTOCOL):
            raise SettingsError(f"{name}: it must be {_PROTOCOL}: traces are sent in no other way")
    if not all(map(_is_installed, _NEEDED)):
        raise SettingsError(
            "OTEL_* variables ask for traces, and OpenTelemetry is not installed: install locks/otel.txt, or set "
            "OTEL_SDK_DISABLED=true"
        )
    return True


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False

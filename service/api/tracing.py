"""Traces of requests, by OpenTelemetry, where its usual environment variables ask for them.

The libraries are those of the extra `otel`, and nothing of them is imported otherwise. A request's spans are put
together when its answer is out, from the times that were taken on its way, which costs nothing until then.
"""

from collections.abc import Callable, Mapping
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any, Final, Protocol

from service.api.trip import Trip
from service.otel import EXPORTER, is_asked_for

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

_FAILURE: Final = 500


class Tracing(Protocol):
    """What takes traces of requests."""

    def record(self, trip: Trip, status: int, ended: float) -> str | None:
        """Take the trace of a request that was answered at `ended`; the trace's id, where it is kept."""

    def close(self) -> None:
        """Send what is left, as long as the exporter's time-out allows."""


def tracing_from(environ: Mapping[str, str]) -> Tracing | None:
    """The traces that the environment asks for, if it does.

    Raises:
        SettingsError: it asks for what cannot be.
    """
    if not is_asked_for(environ):
        return None
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    exporter: SpanExporter
    if environ.get(EXPORTER, "").strip().lower() == "console":
        exporter = ConsoleSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    return Traces(exporter, environ)


class Traces:
    """One process's traces: a span for a request, and in it one each for reading it, for its wait and for its runs."""

    def __init__(self, exporter: "SpanExporter", environ: Mapping[str, str]) -> None:
        """Send to `exporter`, in batches and from a thread of its own."""
        from opentelemetry import propagate, trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        # Sampling, limits, time-outs and the rest are read from the environment by the library itself.
        self._provider: TracerProvider = TracerProvider(
            resource=Resource.create({} if named else {SERVICE_NAME: "leadtime"})
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("leadtime")
        self._extract: Callable[[Mapping[str, str]], Context] = propagate.extract
        self._within: Callable[[Span], Context] = trace.set_span_in_context
        self._server = trace.SpanKind.SERVER
        self._failed = trace.Status(trace.StatusCode.ERROR)

    def record(self, trip: Trip, status: int, ended: float) -> str | None:
        """Take the trace of a request that was answered at `ended`; the trace's id, where it is kept."""
        epoch = time_ns() - int(perf_counter() * 1e9)  # nanoseconds since 1970 at which perf_counter was 0

        def at(seconds: float) -> int:
            return epoch + int(seconds * 1e9)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in trip.headers}
        span = self._tracer.start_span(
            f"{trip.method} {trip.route}".strip(),
            self._extract(headers),
            self._server,
            _attributes(trip, status),
            start_time=at(trip.came),
        )
        if not span.is_recording():
            return None
        if status >= _FAILURE:
            span.set_status(self._failed)
        if trip.ended:
            context = self._within(span)
            stages = (
                ("parse", trip.came, trip.asked),
                ("wait", trip.asked, trip.begun),
                ("run", trip.begun, trip.ended),
            )
            for name, begun, done in stages:
                self._tracer.start_span(name, context, start_time=at(begun)).end(at(done))
        span.end(at(ended))
        return f"{span.get_span_context().trace_id:032x}"

    def close(self) -> None:
        """Send what is left, as long as the exporter's time-out allows."""
        self._provider.shutdown()


def _attributes(trip: Trip, status: int) -> dict[str, Any]:
    """By the names of OpenTelemetry's conventions where those have some."""
    said: dict[str, Any] = {
        "http.request.method": trip.method,
        "http.route": trip.route,
        "http.response.status_code": status,
        "leadtime.request_id": trip.request_id.decode(),
    }
    if trip.model is not None:
        said |= {"leadtime.model": trip.model.name, "leadtime.version": trip.model.version}
    if trip.refused:
        said["error.type"] = trip.refused
    return said

"""What the service counts of itself, for Prometheus."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from service.api.cache import CACHE_BYTES, CACHE_LOOKUPS
from service.api.observation import (
    PARSE_SECONDS,
    REQUEST_SECONDS,
    REQUESTS,
    RUN_SECONDS,
    WAIT_SECONDS,
)
from service.api.openapi import describe_errors
from service.api.problems import INTERNAL_ERROR
from service.api.route import GuardedRoute
from service.api.state import service_of
from service.drift import WINDOWS, WINDOWS_OUTSIDE
from service.metrics import Key
from service.registry import FILES_REFUSED, MODEL_LOADS, VERSIONS_SERVED
from service.scheduler import QUEUE_STEPS, REQUESTS_GIVEN_UP, REQUESTS_REFUSED, ROWS_OF_A_RUN, WINDOWS_UNDER_WAY
from service.shadows import SHADOW_DIFFERENCE, SHADOW_FORECASTS
from service.supervisor import WORKERS_REPLACED, WORKERS_SERVING

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_MEANINGS: Final = {
    REQUESTS: "Requests, by route, model and version that were to answer, and status; 499: the client was gone.",
    REQUEST_SECONDS: "From a request's last byte to its answer's last, of those that were answered.",
    PARSE_SECONDS: "Of that, until its windows were read and checked.",
    WAIT_SECONDS: "Of that, from then until the first run began that had one of its windows in it.",
    RUN_SECONDS: "Of that, from then until its last run ended; others share the runs, and have some in between.",
    WINDOWS_UNDER_WAY: "Windows whose forecasts have been begun or wait to be, at the moment.",
    REQUESTS_GIVEN_UP: "Requests given up: the client had hung up (cancelled), or the time was up (expired).",
    REQUESTS_REFUSED: "Requests that were refused or failed, by reason: predicted to be late (deadline), too many "
    "steps wait (steps), too many connections (connections), the client sends or reads too slowly (slow), or the name "
    "of the problem that was answered.",
    QUEUE_STEPS: "Time steps of the windows under way and of their forecasts, each in full until it is complete.",
    ROWS_OF_A_RUN: "Sequences that the model ran at once.",
    MODEL_LOADS: "Model files tried, by how it went: loaded or refused. Each worker tries for itself.",
    VERSIONS_SERVED: "Workers that serve a version, under its label if it has one.",
    CACHE_LOOKUPS: "Requests that were looked for among the answers kept, by result: hit or miss.",
    CACHE_BYTES: "Bytes of the answers kept.",
    WORKERS_SERVING: "Workers that serve, where there are several.",
    WORKERS_REPLACED: "Workers replaced: they died, stood still (hung), or were asked to stop.",
    FILES_REFUSED: "Files that are not served and labels that are not heeded, counted by each worker.",
    WINDOWS: "Windows that a version was run on, of versions whose file tells the range seen in training.",
    WINDOWS_OUTSIDE: "Of those, windows with a value outside that range.",
    SHADOW_FORECASTS: "Requests that a shadow followed, by what became of it: compared, left out or failed.",
    SHADOW_DIFFERENCE: "How far a shadow's forecast was from the answer: sum of |a - b| over mean sum of |a| and |b|.",
}

router = APIRouter(tags=["health"], route_class=GuardedRoute)


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Numbers for Prometheus",
    response_class=PlainTextResponse,
    responses=describe_errors(INTERNAL_ERROR),
)
async def get_metrics(request: Request) -> Response:
    """What all workers have counted since the service started, in Prometheus' text format."""
    text = await run_in_threadpool(lambda: _exposition(service_of(request).metrics.total()))
    return Response(text, media_type=MEDIA_TYPE)


def _exposition(found: Mapping[Key, Sequence[float]]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Found(found))
    return generate_latest(registry)


class _Found(Collector):
    def __init__(self, found: Mapping[Key, Sequence[float]]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for key, values in sorted(self._found.items()):
            family = families.get(key.name)
            if family is None:
                family = families[key.name] = _FAMILIES[key.kind](
                    key.name, _MEANINGS[key.name], labels=[label for label, _ in key.labels]
                )
            labels = [value for _, value in key.labels]
            if isinstance(family, HistogramMetricFamily):
                family.add_metric(labels, _buckets(key.bounds, values), sum_value=values[-1])
            elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
                family.add_metric(labels, values[0])
        return families.values()


_FAMILIES: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}


def _buckets(bounds: Sequence[float], values: Sequence[float]) -> list[tuple[str, float]]:
    """Counts up to each bound, as Prometheus wants them."""
    buckets = []
    total = 0.0
    for bound, count in zip([*map(str, bounds), "+Inf"], values, strict=False):
        total += count
        buckets.append((bound, total))
    return buckets

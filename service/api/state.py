"""What the endpoints of one process share, from the application's lifespan."""

from dataclasses import dataclass
from typing import TypedDict, cast

from starlette.requests import Request

from service.api.access import Access
from service.api.observation import Observer
from service.metrics import Metrics
from service.registry import Registry
from service.scheduler import Scheduler
from service.settings import Settings
from service.shadows import Shadows


@dataclass(slots=True)
class Service:
    """One process of the service, running."""

    settings: Settings
    registry: Registry
    scheduler: Scheduler
    metrics: Metrics
    shadows: Shadows
    access: Access
    observer: Observer
    draining: bool = False
    """Whether a stop has been asked for: readiness says so, while requests are still answered."""


class State(TypedDict):
    """What the lifespan yields."""

    service: Service


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    return cast(State, request.scope["state"])["service"]

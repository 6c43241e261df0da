"""What the endpoints of one process share, from the application's lifespan."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypedDict, cast

from starlette.requests import Request

from service.api.access import Access
from service.api.cache import Cache
from service.api.observation import Observer
from service.api.reader import Reader
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
    reader: Reader
    cache: Cache | None = None
    """Answers that were given; None where none are kept."""
    draining: bool = False
    """Whether a stop has been asked for: readiness says so, while requests are still answered."""
    have_others_look: Callable[[], Awaitable[object]] | None = None
    """Has the service's other processes look at models and keys, and waits for them; None where there are none."""

    def look(self) -> None:
        """Look now at the models' folder and the file of keys; it takes its time, and belongs on a thread."""
        self.registry.refresh()
        self.access.refresh()


class State(TypedDict):
    """What the lifespan yields."""

    service: Service


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    return cast(State, request.scope["state"])["service"]

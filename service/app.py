"""The assembly of the service."""

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from fastapi import FastAPI
from starlette.types import ASGIApp

from service.api import docs, forecast, health, metrics, models, problems
from service.api.access import Access
from service.api.cache import Cache
from service.api.head import HeadAsGet
from service.api.journal import Journal
from service.api.observation import Observed, Observer
from service.api.openapi import TITLE, build_openapi
from service.api.policy import OtherOrigins, Policy
from service.api.reader import Reader
from service.api.shortcut import Shortcut
from service.api.state import Service, State
from service.api.tracing import tracing_from
from service.keys import Keyring
from service.limits import Limiter
from service.metrics import Metrics
from service.registry import Registry
from service.scheduler import Scheduler
from service.settings import Settings
from service.shadows import Shadows
from service.signing import SigningKeys
from service.watch import Watch

BUNDLED: Final = Path(__file__).parent / "models"

_OBJECTS_UNTIL_COLLECTION: Final = 10_000

_log: Final = logging.getLogger("leadtime.service")


class Application(FastAPI):
    """The service as an ASGI application; its OpenAPI document is built when it is first asked for."""

    origins: Sequence[str] = ()
    """Other origins, whose pages may read answers."""

    def build_middleware_stack(self) -> ASGIApp:
        """The application within what every answer has, those of failures included."""
        app = super().build_middleware_stack()
        return Observed(Policy(OtherOrigins(app, self.origins) if self.origins else app))

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            self.openapi_schema = build_openapi(self)
        return self.openapi_schema


def create_app(
    settings: Settings, *, owns_process: bool = False, environ: Mapping[str, str] = MappingProxyType({})
) -> FastAPI:
    """Assemble the service; models are opened when it starts. It sets the process up for itself where it owns it.

    `environ` holds what OpenTelemetry is told, beside the settings.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        counts = Metrics(settings.metrics)
        scheduler = Scheduler(max_batch=settings.max_batch, max_steps=settings.max_steps, metrics=counts)
        signing_keys = None if settings.signing_keys is None else SigningKeys(settings.signing_keys)
        registry = Registry.open(
            settings.models, BUNDLED, newest=settings.versions, metrics=counts, signing_keys=signing_keys
        )
        shadows = Shadows(counts)
        keyring = None if settings.keys is None else Keyring(settings.keys)
        limiter = Limiter(settings.metrics)
        access = Access(keyring, settings.anonymous_limit, limiter)
        observer = _observer(settings, counts, environ)
        service = Service(settings, registry, scheduler, counts, shadows, access, observer, Reader(counts))
        if settings.cache_bytes:
            service.cache = Cache(settings.cache_bytes, counts)
        if owns_process:
            _spare_the_collector()
        watching = _watch(settings, registry)
        watching_keys = asyncio.create_task(_watch_keys(access, settings.refresh_seconds))
        yield {"service": service}
        watching_keys.cancel()
        with suppress(asyncio.CancelledError):
            await watching_keys
        await service.scheduler.close()
        await service.reader.close()
        if watching is not None:
            await asyncio.to_thread(watching.close)
        await asyncio.to_thread(shadows.close)
        limiter.close()
        await asyncio.to_thread(observer.close)
        counts.close()

    application = Application(
        title=TITLE,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # without an exporter it would only cost time
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    application.origins = settings.cors_origins or ()
    application.add_middleware(HeadAsGet)
    problems.install(application)
    for router in (forecast.router, models.router, health.router, metrics.router):
        application.include_router(router)
    docs.install(application)
    return application


def application_from_environment() -> ASGIApp:
    """The service as the environment sets it, with the short way to its forecasts, for a server's worker process."""
    settings = Settings.from_environment(os.environ)
    application = create_app(settings, owns_process=True, environ=os.environ)
    return Shortcut(application, forecast.ANSWERS, for_other_origins=settings.cors_origins is not None)


def _spare_the_collector() -> None:
    """Let the collector of cycles pass over what is there for good, and look at the rest less often.

    Otherwise it takes a tenth of the time under load: a request leaves no cycles, but many objects while it waits.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_UNTIL_COLLECTION, *gc.get_threshold()[1:])


def _observer(settings: Settings, counts: Metrics, environ: Mapping[str, str]) -> Observer:
    """What is noted of requests, as the settings have it."""
    return Observer(
        counts if settings.request_metrics == "on" else None,
        None if settings.access_log == "off" else Journal(settings.access_log),
        tracing_from(environ),
    )


def _watch(settings: Settings, registry: Registry) -> Watch | None:
    """Have the models' folder looked through when it changes, on a thread, for opening a model takes a while."""
    if settings.models is None or settings.refresh_seconds == 0:
        return None
    return Watch(settings.models, settings.refresh_seconds, registry.refresh)


async def _watch_keys(access: Access, seconds: float) -> None:
    """Look at the file of keys every so many seconds, on a thread, for files may be far away."""
    while seconds > 0:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(access.refresh)
        except Exception:
            _log.exception("the file of keys could not be looked at; the keys from before stay")

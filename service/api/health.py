"""Whether the process lives, and whether requests should come to it."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.api.openapi import describe_errors
from service.api.problems import INTERNAL_ERROR, NOT_READY, problem
from service.api.route import DirectRoute
from service.api.state import Service, service_of
from service.errors import NotFound
from service.schemas import Health

router = APIRouter(prefix="/health", tags=["health"], route_class=DirectRoute)


@router.get(
    "/live",
    operation_id="getLiveness",
    summary="Is the process alive?",
    response_model=Health,
    responses=describe_errors(INTERNAL_ERROR),
)
async def live(request: Request) -> Response:
    """Answers as long as the event loop turns. Restart the process where it does not."""
    return _health("live")


@router.get(
    "/ready",
    operation_id="getReadiness",
    summary="Is the service ready?",
    response_model=Health,
    responses=describe_errors(INTERNAL_ERROR, NOT_READY),
)
async def ready(request: Request) -> Response:
    """Answers 200 while requests should come here, and 503 while the service stops or has no default model."""
    reason = _why_not(service_of(request))
    if reason is not None:
        return problem(NOT_READY, reason, headers={"Retry-After": "1"})
    return _health("ready")


def _why_not(service: Service) -> str | None:
    if service.draining:
        return "the service is stopping"
    try:
        service.registry.find(service.settings.default_model, None)
    except NotFound:
        return "the default model is not there"
    return None


def _health(status: str) -> Response:
    return Response(Health(status=status).model_dump_json(), media_type="application/json")

"""Which models are served, and what their artifacts say of themselves."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Path
from starlette.requests import Request

from service.api.openapi import describe_errors
from service.api.problems import INTERNAL_ERROR, NOT_FOUND
from service.api.route import GuardedRoute
from service.api.state import service_of
from service.routing import Routes
from service.schemas import BesideFacts, ModelFacts, ModelList, RejectedFile, VersionFacts
from service.versions import Beside, ServedModel

_ERRORS: Final = describe_errors(NOT_FOUND, INTERNAL_ERROR)

Name = Annotated[str, Path(description="The model's name.", examples=["default"])]
VersionName = Annotated[str, Path(description="The version, or a label that it has.", examples=["1", "stable"])]

router = APIRouter(prefix="/models", tags=["models"], route_class=GuardedRoute)


@router.get("", operation_id="listModels", summary="List the models", responses=describe_errors(INTERNAL_ERROR))
async def list_models(request: Request) -> ModelList:
    """Every model with its versions, who answers what, and the files that are not served, with the reasons."""
    service = service_of(request)
    registry = service.registry
    return ModelList(
        default=service.settings.default_model,
        models=[_facts(routes) for routes in registry.models()],
        rejected=[RejectedFile(place=place, reason=reason) for place, reason in registry.rejected.items()],
    )


@router.post(
    "/refresh", operation_id="refreshModels", summary="Look for new models", responses=describe_errors(INTERNAL_ERROR)
)
async def refresh_models(request: Request) -> ModelList:
    """Look through the models' folder now, and answer when what is new has been opened, with what is served then.

    All workers do so, and look at the file of keys as well.
    """
    service = service_of(request)
    others = [] if service.have_others_look is None else [service.have_others_look()]
    await asyncio.gather(asyncio.to_thread(service.look), *others)
    return await list_models(request)


@router.get("/{name}", operation_id="getModel", summary="Describe a model", responses=_ERRORS)
async def get_model(request: Request, name: Name) -> ModelFacts:
    """The versions of one model, newest first, and who answers what."""
    return _facts(service_of(request).registry.routes(name))


@router.get("/{name}/versions/{version}", operation_id="getVersion", summary="Describe a version", responses=_ERRORS)
async def get_version(request: Request, name: Name, version: VersionName) -> VersionFacts:
    """What one version of a model says of itself: how it was made, and its scores beside the naive references."""
    return _version(service_of(request).registry.find(name, version))


def _facts(routes: Routes) -> ModelFacts:
    stable = routes.stable
    return ModelFacts(
        model=stable.name,
        stable=stable.version,
        canary=_beside(stable.canary),
        shadow=_beside(stable.shadow),
        versions=[_version(served) for served in routes.versions],
    )


def _beside(beside: Beside | None) -> BesideFacts | None:
    return None if beside is None else BesideFacts(version=beside.model.version, share=beside.share)


def _version(served: ServedModel) -> VersionFacts:
    engine = served.engine
    return VersionFacts.of(model=served.name, version=served.version, digest=engine.digest, metadata=engine.metadata)

"""Which models are served, and what their artifacts say of themselves."""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Path
from starlette.requests import Request

from service.api.openapi import describe_errors
from service.api.problems import INTERNAL_ERROR, NOT_FOUND
from service.api.route import GuardedRoute
from service.api.state import service_of
from service.registry import ServedModel
from service.schemas import ModelFacts, ModelList, RejectedFile, VersionFacts

_ERRORS: Final = describe_errors(NOT_FOUND, INTERNAL_ERROR)

Name = Annotated[str, Path(description="The model's name.", examples=["default"])]
VersionNumber = Annotated[str, Path(description="The version.", examples=["1"])]

router = APIRouter(prefix="/models", tags=["models"], route_class=GuardedRoute)


@router.get("", operation_id="listModels", summary="List the models", responses=describe_errors(INTERNAL_ERROR))
async def list_models(request: Request) -> ModelList:
    """Every model with all its versions, and the files in the models' folder that are not served, with the reasons."""
    service = service_of(request)
    registry = service.registry
    return ModelList(
        default=service.settings.default_model,
        models=[_facts(versions) for versions in registry.models()],
        rejected=[RejectedFile(place=place, reason=reason) for place, reason in registry.rejected.items()],
    )


@router.get("/{name}", operation_id="getModel", summary="Describe a model", responses=_ERRORS)
async def get_model(request: Request, name: Name) -> ModelFacts:
    """All versions of one model, newest first."""
    return _facts(service_of(request).registry.versions(name))


@router.get("/{name}/versions/{version}", operation_id="getVersion", summary="Describe a version", responses=_ERRORS)
async def get_version(request: Request, name: Name, version: VersionNumber) -> VersionFacts:
    """What one version of a model says of itself: how it was made, and its scores beside the naive references."""
    return _version(service_of(request).registry.find(name, version))


def _facts(versions: Sequence[ServedModel]) -> ModelFacts:
    return ModelFacts(model=versions[0].name, versions=[_version(served) for served in versions])


def _version(served: ServedModel) -> VersionFacts:
    engine = served.engine
    return VersionFacts.of(model=served.name, version=served.version, digest=engine.digest, metadata=engine.metadata)

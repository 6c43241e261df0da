"""The documentation that the service carries with it: pages, their assets, the OpenAPI document, kinds of problem.

Nothing comes from outside: the pages work where no network is, under a content-security policy that allows no other
host and no script inside a page.
"""

from pathlib import Path
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, FastAPI
from fastapi import Path as PathParameter
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service.api.openapi import describe_errors
from service.api.problems import INTERNAL_ERROR, KINDS, NOT_FOUND
from service.errors import NotFound
from service.schemas import ProblemKind

_ASSETS: Final = Path(__file__).parent / "assets"
# Redoc puts in an empty style element, which it fills by script, and one with the rules of its scroll bar. Both are
# known by their digests: a newer Redoc may need others, and the page tests say so.
_REDOC_STYLES: Final = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
)


# A browser keeps them, and asks whether they have changed.
_REVALIDATED: Final = "no-cache"


def _headers(styles: str) -> dict[str, str]:
    policy = (
        f"default-src 'none'; script-src 'self'; style-src {styles}; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {"Cache-Control": _REVALIDATED, "Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}


router = APIRouter()


def install(application: FastAPI) -> None:
    """Add the documentation to `application`."""
    application.include_router(router)
    application.mount("/docs/assets", _Assets(directory=_ASSETS))


class _Assets(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or that there is none."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = _REVALIDATED
        return response


@router.get("/", include_in_schema=False)
async def home() -> Response:
    """Lead a person who opens the bare address to the documentation."""
    return RedirectResponse("docs")


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """Swagger UI, in which requests can be tried out."""
    return FileResponse(_ASSETS / "docs.html", headers=_headers("'self'"))


@router.get("/redoc", include_in_schema=False)
async def redoc() -> Response:
    """Redoc, for reading."""
    return FileResponse(_ASSETS / "redoc.html", headers=_headers(f"'self' {_REDOC_STYLES}"))


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """The OpenAPI document, built when it is first asked for."""
    application: FastAPI = request.app
    return Response(orjson.dumps(application.openapi()), media_type="application/json")


@router.get(
    "/problems/{name}",
    tags=["problems"],
    operation_id="getProblem",
    summary="Explain a kind of problem",
    responses=describe_errors(NOT_FOUND, INTERNAL_ERROR),
)
async def get_problem(
    name: Annotated[str, PathParameter(description="The last part of a problem's type.", examples=["invalid-request"])],
) -> ProblemKind:
    """Explain what the `type` of a problem document stands for."""
    if name not in KINDS:
        raise NotFound(f"there is no such kind of problem; there are: {', '.join(KINDS)}")
    kind = KINDS[name]
    return ProblemKind(type=kind.type, title=kind.title, status=kind.status, meaning=kind.meaning)

"""The OpenAPI document: what FastAPI knows of the routes, and what they all have in common."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from backend.api.auth import OWN_TOKEN, PROTECTED
from backend.api.bodies import REFERENCE, Body
from backend.api.models import ApiError

KEY: Final = "masterKey"
SCHEMES: Final = {
    KEY: {"type": "http", "scheme": "bearer", "description": "The platform's master key, exactly `Bearer <key>`."}
}
REFUSED: Final = {
    "400": "What is wrong with the request, in `issues` field by field.",
    "401": "The key is missing or wrong.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
}

_ERROR: Final = {"$ref": REFERENCE.format(model=ApiError.__name__)}
_REFUSAL: Final = {"application/json": {"schema": _ERROR}}


class Route(APIRoute):
    """A route whose answers' models, which only document, are left to the document.

    FastAPI would make them ready for each route by itself, which takes a tenth of the platform's start.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        responses: dict[int | str, dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        told = {status: {**response, "model": None} for status, response in (responses or {}).items()}
        super().__init__(path, endpoint, responses=told, **options)
        self.documented: Callable[[], APIRoute] = partial(APIRoute, path, endpoint, responses=responses, **options)


def install(app: FastAPI, *models: type[Body]) -> None:
    """Give `app` its document, with the schemas of request models."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            routes = [route.documented() if isinstance(route, Route) else route for route in app.routes]
            document = get_openapi(title=app.title, version=app.version, routes=routes)
            known: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in models]
            _, schemas = models_json_schema([*known, (ApiError, "serialization")], ref_template=REFERENCE)
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(schemas["$defs"])
            components["securitySchemes"] = SCHEMES
            for name in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(name, None)
            for path, operation in _operations(document):
                _complete(path, operation)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            yield path, operation


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Add who may call an operation, and the refusals that no route names itself."""
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own: here it is 400
    for response in responses.values():
        for content in response.get("content", {}).values():
            if content.get("schema") == _ERROR:  # which FastAPI puts under the media type of the route
                response["content"] = _REFUSAL
                break
    refusals = []
    if path.startswith(PROTECTED):
        protected = not OWN_TOKEN.fullmatch(path)
        operation["security"] = [{KEY: []}] if protected else []
        refusals += ["401"] if protected else []
    if "requestBody" in operation:
        refusals += ["400", "408", "413"]
    for status in refusals:
        responses.setdefault(
            status,
            {"description": REFUSED[status], "content": _REFUSAL},
        )

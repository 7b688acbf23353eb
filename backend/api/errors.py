"""One shape for every refusal: `{"error": text, "code": CODE, "issues": [...]}` (LAP REST 1.2)."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from backend.domain.problems import Problem
from backend.services.errors import (
    Conflict,
    Ended,
    HarnessFailed,
    Invalid,
    NotFound,
    ServiceError,
    TookTooLong,
    Unavailable,
)
from backend.store.errors import StoreAway

logger = logging.getLogger(__name__)

MAX_ISSUES: Final = 100

_CODES: Final = {
    401: "UNAUTHORIZED",
    404: "NOT_FOUND",
    409: "CONFLICT",
    410: "CONFLICT",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}
_STATUSES: Final[dict[type[ServiceError], int]] = {
    Invalid: 400,
    NotFound: 404,
    Conflict: 409,
    Ended: 410,
    HarnessFailed: 502,
    Unavailable: 503,
    TookTooLong: 504,
}


def refusal(
    status: int, text: str, issues: Sequence[Problem] = (), headers: dict[str, str] | None = None
) -> JSONResponse:
    """The response for a request that is not carried out."""
    code = _CODES.get(status, "INVALID" if status < 500 else "INTERNAL")
    body: dict[str, Any] = {"error": text, "code": code}
    if issues:
        body["issues"] = [
            {"path": list(issue.path), "message": issue.message, "code": issue.code} for issue in issues[:MAX_ISSUES]
        ]
    return JSONResponse(body, status, headers)


def problems_of(error: ValidationError | RequestValidationError) -> list[Problem]:
    """What a request model found wrong, without the values."""
    return [
        Problem(tuple(issue["loc"]), issue["msg"].removeprefix("Value error, "), issue["type"])
        for issue in error.errors()
    ]


def install(app: FastAPI) -> None:
    """Give `app` the handlers that turn exceptions into refusals."""

    @app.exception_handler(ServiceError)
    async def refused(_request: Request, error: ServiceError) -> JSONResponse:
        if isinstance(error, Invalid):
            return refusal(400, _line(error.problems), error.problems)
        status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 500)
        return refusal(status, str(error))

    @app.exception_handler(StoreAway)
    async def away(_request: Request, error: StoreAway) -> JSONResponse:
        logger.error("%s", error)
        return refusal(503, "the platform's database does not answer: try again; the platform's log says why")

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        problems = problems_of(error)
        return refusal(400, _line(problems), problems)

    @app.exception_handler(StarletteHTTPException)
    async def http(_request: Request, error: HTTPException) -> JSONResponse:
        standard = error.detail == HTTPStatus(error.status_code).phrase
        text = error.detail.lower() if standard else error.detail
        return refusal(error.status_code, text, headers=dict(error.headers or {}))


def _line(problems: Sequence[Problem]) -> str:
    """All problems on one line; a message that does not name its field gets the path before it."""
    texts = []
    for problem in problems[:MAX_ISSUES]:
        path = ".".join(map(str, problem.path))
        named = not path or problem.message.startswith(str(problem.path[0])) or path in problem.message
        texts.append(problem.message if named else f"{path}: {problem.message}")
    return "; ".join(texts)

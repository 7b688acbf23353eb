"""Routes on what the vault has seen of a session (LAP REST 3.9)."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from backend.api.context import documented_refusals, services_of
from backend.api.document import Route
from backend.api.models import Interception
from backend.api.query import clamped, words
from backend.store import egress, views

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000

router = APIRouter(prefix="/api/v1/managed_agents/sessions", tags=["egress"], route_class=Route)


@router.get("/{session_id}/interceptions", responses={200: {"model": list[Interception]}, **documented_refusals(404)})
async def interceptions(
    request: Request, session_id: str, limit: str | None = None, kind: str | None = None
) -> Response:
    """Requests in which credentials were put in (`swapped`), that were refused (`blocked`), or that had stubs which
    were not for their host (`missed`), the oldest first: the last `limit` up to 1000 (100), `kind` comma-separated.
    """
    services = services_of(request)
    await services.sessions.get(session_id)
    async with services.database.read() as tx:
        rows = await egress.seen(tx, session_id, clamped(limit, DEFAULT_LIMIT, 1, MAX_LIMIT), words(kind))
    return JSONResponse([views.interception(row) for row in rows])


@router.get("/{session_id}/vault-keys", responses={200: {"model": list[str]}, **documented_refusals(404)})
async def vault_keys(request: Request, session_id: str) -> Response:
    """The names of the credentials that the session's sandbox holds stubs of."""
    services = services_of(request)
    session = await services.sessions.get(session_id)
    if services.vault is None or session["task_arn"] is None:
        return JSONResponse([])
    return JSONResponse(await services.vault.keys(session["task_arn"]))

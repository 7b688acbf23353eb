"""Routes of what agents remember (LAP REST 7.1, 3.11)."""

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from backend.api.auth import agent_of
from backend.api.bodies import documented, read_json
from backend.api.context import Responses, documented_refusals, services_of
from backend.api.document import Route
from backend.api.models import ApiMemory, MemoryCreate, MemoryPatch, SessionMemoryCreate
from backend.api.query import MAX_NUMBER, clamped, flag
from backend.services.errors import NotFound
from backend.store import views

DEFAULT_LIMIT = 50
MAX_LIMIT = 200

router = APIRouter(prefix="/api/v1/managed_agents/agents/{agent_id}/memory", tags=["memory"], route_class=Route)
of_sessions = APIRouter(
    prefix="/api/v1/managed_agents/sessions/{session_id}/memory", tags=["memory"], route_class=Route
)

_MANY: Responses = {200: {"model": list[ApiMemory]}, **documented_refusals(404)}
_NEW: Responses = {200: {"model": ApiMemory}, **documented_refusals(400, 404, 409, 413)}
_ONE: Responses = {200: {"model": ApiMemory}, **documented_refusals(400, 404, 413)}


@router.get("", responses=_MANY)
async def page(
    request: Request,
    agent_id: str,
    q: str = "",
    tag: str = "",
    include_disabled: str | None = None,
    limit: str | None = None,
    offset: str | None = None,
) -> Response:
    """What the agent remembers, in the order sessions are told it: highest `priority`, then most used, then newest.

    `q` is a case-insensitive part of the text, `tag` one of the tags, both must fit. Disabled memories come only with
    `include_disabled=true`. `limit` 1..200 (50), `offset`. Looking does not count as use, but for an
    agent that searches with a token of its own.
    """
    return await _page(request, agent_id, q, tag, include_disabled, limit, offset)


@router.post("", responses=_NEW, openapi_extra=documented(MemoryCreate))
async def create(request: Request, agent_id: str) -> Response:
    """Remember something. New sessions are told up to 20 pinned memories and the first of the others."""
    body = await read_json(request, MemoryCreate)
    own = {"source": "agent"} if agent_of(request) else {}
    return JSONResponse(views.memory(await services_of(request).memory.create(agent_id, body.given() | own)))


@router.patch("/{memory_id}", responses=_ONE, openapi_extra=documented(MemoryPatch))
async def change(request: Request, agent_id: str, memory_id: str) -> Response:
    """Change the fields that are present; `disabled` keeps a memory from sessions without losing it."""
    body = await read_json(request, MemoryPatch)
    return JSONResponse(views.memory(await services_of(request).memory.change(agent_id, memory_id, body.given())))


@router.delete("/{memory_id}", status_code=204, responses=documented_refusals(404))
async def delete(request: Request, agent_id: str, memory_id: str) -> Response:
    """Forget something."""
    await services_of(request).memory.delete(agent_id, memory_id)
    return Response(status_code=204)


@of_sessions.get("", responses=_MANY)
async def page_of_session(
    request: Request,
    session_id: str,
    q: str = "",
    tag: str = "",
    include_disabled: str | None = None,
    limit: str | None = None,
    offset: str | None = None,
) -> Response:
    """What the session's agent remembers, see the agent's own list."""
    agent_id = await _agent(request, session_id)
    return await _page(request, agent_id, q, tag, include_disabled, limit, offset)


@of_sessions.post("", responses=_NEW, openapi_extra=documented(SessionMemoryCreate))
async def create_of_session(request: Request, session_id: str) -> Response:
    """Remember something for the session's agent; `source` is the agent unless given, `source_session_id` this one."""
    body = await read_json(request, SessionMemoryCreate)
    memory = services_of(request).memory
    values = {"source": body.source, "source_session_id": session_id, **body.given()}
    own = {"source": "agent"} if agent_of(request) else {}
    return JSONResponse(views.memory(await memory.create(await _agent(request, session_id), values | own)))


async def _agent(request: Request, session_id: str) -> str:
    """The session's agent. An agent that asks itself learns of no session but its own."""
    asking = agent_of(request)
    try:
        agent_id = await services_of(request).memory.agent_of(session_id)
    except NotFound:
        if asking is None:
            raise
        agent_id = ""
    if asking not in (None, agent_id):
        raise HTTPException(401, "unauthorized")
    return agent_id


async def _page(
    request: Request,
    agent_id: str,
    q: str,
    tag: str,
    include_disabled: str | None,
    limit: str | None,
    offset: str | None,
) -> Response:
    rows = await services_of(request).memory.page(
        agent_id,
        limit=clamped(limit, DEFAULT_LIMIT, 1, MAX_LIMIT),
        offset=clamped(offset, 0, 0, MAX_NUMBER),
        search=q.strip(),
        tag=tag.strip(),
        include_disabled=flag(include_disabled),
        counted=agent_of(request) is not None,
    )
    return JSONResponse([views.memory(row) for row in rows])

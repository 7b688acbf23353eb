"""Routes of agents (LAP REST 2)."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from backend.api.bodies import AGENT_LIMIT, documented, read_json
from backend.api.context import documented_refusals, services_of
from backend.api.document import Route
from backend.api.models import AgentCreate, AgentPage, AgentPatch, ApiAgent
from backend.api.query import MAX_NUMBER, clamped
from backend.store import agents, views

DEFAULT_LIMIT = 50
MAX_LIMIT = 200

router = APIRouter(prefix="/api/v1/managed_agents/agents", tags=["agents"], route_class=Route)

_ONE: dict[int | str, dict[str, Any]] = {200: {"model": ApiAgent}, **documented_refusals(400, 404, 413)}


@router.post("", openapi_extra=documented(AgentCreate), responses=_ONE)
async def create(request: Request) -> Response:
    """Create an agent. `skill_ids` append their skills to the prompt."""
    body = await read_json(request, AgentCreate, AGENT_LIMIT)
    row = await services_of(request).agents.create(body.given())
    return JSONResponse(views.agent(row))


@router.get("", responses={200: {"model": AgentPage}})
async def page(
    request: Request,
    limit: str | None = None,
    offset: str | None = None,
    sort: str | None = None,
    order: str | None = None,
    search: str = "",
) -> Response:
    """List agents: `limit` 1..200 (50), `offset`, `sort` created_at|name|harness_id|sessions, `order` asc|desc (desc),
    `search` in name, id and harness. Values that make no sense count as absent.
    """
    effective_limit = clamped(limit, DEFAULT_LIMIT, 1, MAX_LIMIT)
    effective_offset = clamped(offset, 0, 0, MAX_NUMBER)
    async with services_of(request).database.read() as tx:
        rows, total = await agents.page(
            tx,
            limit=effective_limit,
            offset=effective_offset,
            sort=next((known for known in agents.SORTS if known == sort), "created_at"),
            descending=order != "asc",
            search=search.strip(),
        )
    data = [
        {
            **views.agent(row),
            "session_count": row["session_count"],
            "has_active_session": bool(row["has_active_session"]),
        }
        for row in rows
    ]
    return JSONResponse({"data": data, "total": total, "limit": effective_limit, "offset": effective_offset})


@router.get("/{agent_id}", responses={200: {"model": ApiAgent}, **documented_refusals(404)})
async def get(request: Request, agent_id: str) -> Response:
    """One agent."""
    return JSONResponse(views.agent(await services_of(request).agents.get(agent_id)))


@router.patch("/{agent_id}", openapi_extra=documented(AgentPatch), responses=_ONE)
async def change(request: Request, agent_id: str) -> Response:
    """Change the fields that are present. Harness, repository, requirements and skills stay what they are.

    `env_vars` replaces all; the value `********` keeps what is stored for its key.
    """
    body = await read_json(request, AgentPatch, AGENT_LIMIT)
    row = await services_of(request).agents.change(agent_id, body.given())
    return JSONResponse(views.agent(row))


@router.delete("/{agent_id}", status_code=204, responses=documented_refusals(404, 409))
async def delete(request: Request, agent_id: str) -> Response:
    """Stop all sessions of an agent, remove their sandboxes, then remove the agent and its sessions."""
    await services_of(request).agents.delete(agent_id)
    return Response(status_code=204)

"""Routes of agent tokens, with which an agent may use parts of the API in its own name (LAP REST 1.1)."""

import time

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from backend.api.bodies import documented, read_json
from backend.api.context import documented_refusals, services_of
from backend.api.document import Route
from backend.api.errors import refusal
from backend.api.models import AccessToken, AgentTokens, RefreshRequest, TokenRequest
from backend.domain import agent_tokens
from backend.services.errors import agent_not_found
from backend.store import agents

router = APIRouter(tags=["agent tokens"], route_class=Route)

_SECRET = {"cache-control": "no-store"}


@router.post(
    "/api/v1/managed_agents/agents/{agent_id}/token",
    responses={200: {"model": AgentTokens}, **documented_refusals(400, 404, 413)},
    openapi_extra=documented(TokenRequest),
)
async def mint(request: Request, agent_id: str) -> Response:
    """Tokens for an agent: one to use for 15 minutes, and one to get new ones with for a day.

    Nothing gives them to the agent: that is up to who asks, for instance through a session's `env_vars`.
    """
    body = await read_json(request, TokenRequest)
    services = services_of(request)
    async with services.database.read() as tx:
        if not await agents.known(tx, agent_id):
            raise agent_not_found(agent_id)
    key, now = services.settings.agent_token_key, time.time()
    return JSONResponse(
        {
            "access_token": agent_tokens.mint(key, agent_tokens.ACCESS, agent_id, body.scope, now),
            "expires_in": agent_tokens.LIFETIMES[agent_tokens.ACCESS],
            "refresh_token": agent_tokens.mint(key, agent_tokens.REFRESH, agent_id, body.scope, now),
            "refresh_expires_in": agent_tokens.LIFETIMES[agent_tokens.REFRESH],
            "token_type": "Bearer",
            "agent_id": agent_id,
            "scope": [name for name in agent_tokens.SCOPES if name in body.scope],
        },
        headers=_SECRET,
    )


@router.post(
    "/api/v1/agent-auth/refresh",
    responses={200: {"model": AccessToken}, **documented_refusals(400, 401, 413)},
    openapi_extra=documented(RefreshRequest),
)
async def refresh(request: Request) -> Response:
    """A new access token for a refresh token; needs no other key."""
    body = await read_json(request, RefreshRequest)
    services = services_of(request)
    key, now = services.settings.agent_token_key, time.time()
    claims = agent_tokens.verify(key, agent_tokens.REFRESH, body.refresh_token, now)
    if claims is not None:
        async with services.database.read() as tx:
            claims = claims if await agents.known(tx, claims.agent_id) else None
    if claims is None:
        return refusal(401, "invalid refresh token")
    return JSONResponse(
        {
            "access_token": agent_tokens.mint(key, agent_tokens.ACCESS, claims.agent_id, claims.scope, now),
            "expires_in": agent_tokens.LIFETIMES[agent_tokens.ACCESS],
            "token_type": "Bearer",
        },
        headers=_SECRET,
    )

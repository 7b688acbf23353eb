"""Routes of skills (LAP REST 7.2)."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from backend.api.bodies import documented, read_json
from backend.api.context import Responses, documented_refusals, services_of
from backend.api.document import Route
from backend.api.models import (
    ApiSkill,
    AttachedSkill,
    DetachedSkill,
    SkillAttach,
    SkillCreate,
    SkillList,
    SkillPatch,
    SkillVersionList,
)
from backend.api.query import MAX_NUMBER, clamped
from backend.domain.problems import Problem
from backend.domain.skills import MAX_SKILLS, VERSIONS_KEPT
from backend.services.errors import Invalid
from backend.store import skills, views
from backend.store.database import Row

DEFAULT_VERSIONS = 20

router = APIRouter(prefix="/api/v1/skills", tags=["skills"], route_class=Route)
attaching = APIRouter(prefix="/api/v1/managed_agents/agents/{agent_id}/skill", tags=["skills"], route_class=Route)

_ONE: Responses = {200: {"model": ApiSkill}, **documented_refusals(404)}


@router.get("", responses={200: {"model": SkillList}})
async def page(request: Request, limit: str | None = None, offset: str | None = None) -> Response:
    """Skills, newest first: all, unless `limit` (up to 1000) and `offset` say less."""
    async with services_of(request).database.read() as tx:
        rows = await skills.newest_first(
            tx, limit=clamped(limit, MAX_SKILLS, 1, MAX_SKILLS), offset=clamped(offset, 0, 0, MAX_NUMBER)
        )
    return JSONResponse({"data": [views.skill(row) for row in rows]})


@router.post(
    "",
    status_code=201,
    responses={201: {"model": ApiSkill}, **documented_refusals(400, 409, 413)},
    openapi_extra=documented(SkillCreate),
)
async def create(request: Request) -> Response:
    """Add a skill to the library."""
    body = await read_json(request, SkillCreate)
    return JSONResponse(views.skill(await services_of(request).skills.create(body.given())), 201)


@router.get("/{skill_id}", responses=_ONE)
async def get(request: Request, skill_id: str) -> Response:
    """One skill."""
    return JSONResponse(views.skill(await services_of(request).skills.get(skill_id)))


@router.patch(
    "/{skill_id}",
    responses={**_ONE, **documented_refusals(400, 413)},
    openapi_extra=documented(SkillPatch),
)
async def change(request: Request, skill_id: str) -> Response:
    """Change the fields that are present. A replaced content is kept as a version.

    Sandboxes made from now on get the new content as a file; blocks in prompts stay as they were attached. The header
    `X-Session-Id` names the session that made the change.
    """
    body = await read_json(request, SkillPatch)
    row = await services_of(request).skills.change(skill_id, body.given(), request.headers.get("x-session-id"))
    return JSONResponse(views.skill(row))


@router.delete("/{skill_id}", status_code=204, responses=documented_refusals(404))
async def delete(request: Request, skill_id: str) -> Response:
    """Remove a skill and its versions from the library. Agents keep the block in their prompt."""
    await services_of(request).skills.delete(skill_id)
    return Response(status_code=204)


@router.get("/{skill_id}/versions", responses={200: {"model": SkillVersionList}, **documented_refusals(404)})
async def versions(request: Request, skill_id: str, limit: str | None = None, offset: str | None = None) -> Response:
    """Contents the skill had before, the last replaced one first: `limit` 1..100 (20), `offset`; 100 are kept."""
    rows = await services_of(request).skills.versions(
        skill_id,
        limit=clamped(limit, DEFAULT_VERSIONS, 1, VERSIONS_KEPT),
        offset=clamped(offset, 0, 0, MAX_NUMBER),
    )
    return JSONResponse({"data": [views.skill_version(row) for row in rows]})


@attaching.post(
    "",
    responses={200: {"model": AttachedSkill}, **documented_refusals(400, 404, 409, 413)},
    openapi_extra=documented(SkillAttach),
)
async def attach(request: Request, agent_id: str) -> Response:
    """Append a skill's block to the agent's prompt: one of the library, or `content` as it is given.

    `save_to_library` also adds that content to the library. A skill that is attached already stays as it is.
    """
    body = await read_json(request, SkillAttach)
    service = services_of(request).skills
    skill: Row | None
    if body.skill_id is not None and body.content is None:
        agent, skill = await service.attach(agent_id, body.skill_id)
    elif body.content is not None and body.skill_id is None:
        agent, skill = await service.attach_content(
            agent_id,
            body.content,
            name=body.name,
            description=body.description,
            save=body.save_to_library,
        )
    else:
        raise Invalid([Problem(("skill_id",), "give either skill_id or content", "one_of")])
    shown = {"skill": views.skill(skill)} if skill else {}
    return JSONResponse({"agent": views.agent(agent), **shown})


@attaching.delete("", responses={200: {"model": DetachedSkill}, **documented_refusals(404)})
async def detach(request: Request, agent_id: str, skill_id: str | None = None) -> Response:
    """Take the block of `skill_id`, or all blocks, out of the agent's prompt; the rest of the prompt stays."""
    agent = await services_of(request).skills.detach(agent_id, skill_id)
    return JSONResponse({"agent": views.agent(agent)})

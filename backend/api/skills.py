"""Routes of skills (LAP REST 7.2)."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from backend.api.context import services_of
from backend.api.models import SkillList
from backend.store import skills, views

router = APIRouter(prefix="/api/v1/skills", tags=["skills"])


@router.get("", responses={200: {"model": SkillList}})
async def page(request: Request) -> Response:
    """All skills, newest first."""
    async with services_of(request).database.read() as tx:
        rows = await skills.newest_first(tx)
    return JSONResponse({"data": [views.skill(row) for row in rows]})

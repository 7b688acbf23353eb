"""What an operator asks of the whole platform (LAP REST 7.8)."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from backend.api.context import services_of
from backend.api.models import AdminStats
from backend.services import stats

router = APIRouter(prefix="/api/v1/admin", tags=["operation"])


@router.get("/stats", responses={200: {"model": AdminStats}})
async def admin_stats(request: Request) -> Response:
    """The warm pool, sessions and agents in numbers, and what the workers did last."""
    services = services_of(request)
    return JSONResponse(await stats.gather(services.database, services.pool, services.settings))

"""What an operator asks of the whole platform (LAP REST 7.8), and does to its warm pool."""

from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from backend.api.context import asked_by, documented_refusals, services_of
from backend.api.document import Route
from backend.api.models import AdminStats, PlatformProblems, PooledSandboxes, PoolFlushed, PoolPass
from backend.services import stats

router = APIRouter(prefix="/api/v1/admin", tags=["operation"], route_class=Route)


@router.get("/stats", responses={200: {"model": AdminStats}})
async def admin_stats(request: Request) -> Response:
    """The warm pool, sessions and agents in numbers, and what the workers did last."""
    services = services_of(request)
    return JSONResponse(await stats.gather(services.database, services.pool, services.settings))


@router.get("/problems", responses={200: {"model": PlatformProblems}})
async def problems(request: Request) -> Response:
    """What keeps the platform from its work at present, the oldest first; empty when all is well."""
    return JSONResponse({"data": [problem._asdict() for problem in services_of(request).problems.now]})


@router.get("/warm_pool", responses={200: {"model": PooledSandboxes}})
async def warm_pool(request: Request) -> Response:
    """Every sandbox of the warm pool."""
    services = services_of(request)
    return JSONResponse({"data": await stats.pooled(services.database, services.settings)})


@router.post("/warm_pool/top_up", responses={200: {"model": PoolPass}, **documented_refusals(409)})
async def top_up(request: Request) -> Response:
    """Fill the warm pool now, agents whose sandboxes kept failing included. 409 when the pool is off."""
    return JSONResponse(asdict(await services_of(request).pool.top_up_now(asked_by(request))))


@router.post("/warm_pool/flush", responses={200: {"model": PoolFlushed}})
async def flush(request: Request, agent_id: str | None = None) -> Response:
    """Throw away every sandbox of the warm pool, or those of one agent. Sessions keep theirs; the pool fills again."""
    return JSONResponse({"flushed": await services_of(request).pool.flush(agent_id, asked_by(request))})

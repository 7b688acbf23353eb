"""Whether the platform answers, without any key."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from backend.api.models import Health

router = APIRouter(tags=["health"])


@router.get("/healthz", responses={200: {"model": Health}})
async def healthz(request: Request) -> Response:
    """Version and start of this platform process."""
    state = request.app.state
    return JSONResponse({"ok": True, "version": request.app.version, "started_at": state.started_at})

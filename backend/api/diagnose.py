"""Routes of the diagnosis: one session (seed 000), and all of them."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from backend.api.context import documented_refusals, services_of
from backend.api.models import FleetDiagnosis, SessionDiagnosis

router = APIRouter(prefix="/api/v1/managed_agents", tags=["diagnosis"])


@router.get("/sessions/{session_id}/diagnose", responses={200: {"model": SessionDiagnosis}, **documented_refusals(404)})
async def session(request: Request, session_id: str) -> Response:
    """Everything known of a session, and what follows from it: read `detected_issues` first, then `hints`."""
    return JSONResponse(await services_of(request).diagnosis.of_session(session_id))


@router.get("/diagnose", responses={200: {"model": FleetDiagnosis}})
async def fleet(request: Request) -> Response:
    """What is wrong with each active session, and with those that ended in the last 24 hours; worst first."""
    return JSONResponse(await services_of(request).diagnosis.fleet())

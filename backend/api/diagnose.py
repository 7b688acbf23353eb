"""Routes of the diagnosis: one session (seed 000), all of them, and the machines under them."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from backend.api.context import documented_refusals, services_of
from backend.api.document import Route
from backend.api.models import FleetDiagnosis, Nodes, SessionDiagnosis

router = APIRouter(prefix="/api/v1/managed_agents", tags=["diagnosis"], route_class=Route)


@router.get("/sessions/{session_id}/diagnose", responses={200: {"model": SessionDiagnosis}, **documented_refusals(404)})
async def session(request: Request, session_id: str) -> Response:
    """Everything known of a session, and what follows from it: read `detected_issues` first, then `hints`."""
    return JSONResponse(await services_of(request).diagnosis.of_session(session_id))


@router.get("/diagnose", responses={200: {"model": FleetDiagnosis}})
async def fleet(request: Request) -> Response:
    """What is wrong with each active session, and with those that ended in the last 24 hours; worst first."""
    return JSONResponse(await services_of(request).diagnosis.fleet())


@router.get("/nodes", responses={200: {"model": Nodes}})
async def nodes(request: Request) -> Response:
    """The machines that sandboxes run on, what they have, what is requested of them, and whose sandboxes they hold."""
    return JSONResponse(await services_of(request).diagnosis.nodes())

"""Metrics for Prometheus (LAP REST 7.7), for who has the master key."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from backend.api.context import services_of
from backend.api.document import Route
from backend.services.metrics import CONTENT_TYPE

router = APIRouter(prefix="/api/v1", tags=["operation"], route_class=Route)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Counters since the start of this platform process, and gauges of the present, in the text format 0.0.4."""
    return Response(await services_of(request).metrics.text(), headers={"content-type": CONTENT_TYPE})

"""Whether the platform answers, and whether it can work, without any key and without telling strangers why not."""

import asyncio
import logging
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from backend.api.context import services_of
from backend.api.document import Route
from backend.api.models import Health, Readiness, Welcome
from backend.services.container import Services
from backend.store import stats

logger = logging.getLogger(__name__)

READY_TIMEOUT = 5.0

router = APIRouter(tags=["health"], route_class=Route)


@router.get("/", responses={200: {"model": Welcome}})
async def welcome(request: Request) -> Response:
    """What this is, for whoever opens the address in a browser."""
    return JSONResponse(
        {
            "name": request.app.title,
            "about": "Runs coding agents in sandboxes. The console `lapconsole` and the command `lap` work on it; "
            "it has no pages of its own.",
            "version": request.app.version,
            "api": "/api/v1/managed_agents",
            "authorization": "Bearer <master key>",
            "documentation": "/openapi.json",
            "health": "/healthz",
        }
    )


@router.get("/healthz", responses={200: {"model": Health}})
async def healthz(request: Request) -> Response:
    """Version and start of this platform process, the state of its vault, and whether sandboxes are isolated."""
    state = request.app.state
    health = {"ok": True, "version": request.app.version, "started_at": state.started_at}
    services = services_of(request)
    return JSONResponse(health | {"vault": _vault(services), "isolation": await _isolation(services)})


def _vault(services: Services) -> dict[str, str | None]:
    if services.vault is None:
        return {"state": "off", "reason": "sandboxes hold real credentials: LAP_VAULT is off, or they run elsewhere"}
    # Why it is down may name files, which is nothing for strangers.
    running = services.vault.status.state == "on"
    return {"state": "on", "reason": None} if running else {"state": "down", "reason": "the platform's log says why"}


async def _isolation(services: Services) -> dict[str, Any] | None:
    if services.local is None:
        return None
    told = await services.local.isolation()
    # What bubblewrap said may name files, too.
    return told | {"reason": "the platform's log says why"} if "/" in (told["reason"] or "") else told


@router.get("/readyz", responses={200: {"model": Readiness}, 503: {"model": Readiness}})
async def readyz(request: Request) -> Response:
    """Whether the database answers, sandboxes can be listed, and the reconciler runs. The log says what does not.

    A part in `problems` alone, such as a cluster that is away, is no reason to send nobody here: the rest works.
    """
    services = services_of(request)
    problem = await _problem(services)
    if problem:
        logger.warning("not ready: %s", problem)
    # What is the matter may name addresses, which is nothing for strangers.
    parts = dict.fromkeys(f"{each.part}: the platform's log says why" for each in services.problems.now)
    return JSONResponse({"ok": problem is None, "problems": [*parts]}, 503 if problem else 200)


async def _problem(services: Services) -> str | None:
    if not services.reconciler.fresh:
        return "the reconciler has not got through a tick for long"
    doing = "asking the database"
    try:
        async with asyncio.timeout(READY_TIMEOUT):
            async with services.database.read() as tx:
                await stats.agent_count(tx)
            doing = "listing the sandboxes"
            await services.driver.list()
    except TimeoutError:
        return f"{doing} took longer than {READY_TIMEOUT:g} s"
    except Exception as error:
        return f"{doing} failed: {error!r}"
    return None

"""The platform as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from backend.api import (
    admin,
    agent_tokens,
    agents,
    auth,
    diagnose,
    document,
    egress,
    errors,
    events,
    health,
    integrations,
    memory,
    messages,
    metrics,
    sessions,
    skills,
    tty,
)
from backend.api.models import (
    AgentCreate,
    AgentPatch,
    BindingCreate,
    MemoryCreate,
    MemoryPatch,
    MessageCreate,
    PhaseReport,
    RefreshRequest,
    SessionCreate,
    SessionMemoryCreate,
    SkillAttach,
    SkillCreate,
    SkillPatch,
    TokenRequest,
)
from backend.domain import clock
from backend.sandboxes.contract import SandboxDriver
from backend.services.container import open_services
from backend.settings import Settings

VERSION = "0.1.0"


def create_app(settings: Settings, driver: SandboxDriver | None = None) -> FastAPI:
    """The application; its lifespan opens the services. `settings` have their keys, see `Settings.with_keys`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings, driver) as services:
            app.state.services = services
            app.state.started_at = clock.now()
            yield

    app = FastAPI(
        title="lapconsole platform",
        version=VERSION,
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect would lose the method and the key
        docs_url=None,  # its page loads scripts from elsewhere; the document itself is at /openapi.json
        redoc_url=None,
    )
    app.add_middleware(auth.Gate, master_key=settings.master_key_value, agent_token_key=settings.agent_token_key)
    errors.install(app)
    document.install(
        app,
        AgentCreate,
        AgentPatch,
        SessionCreate,
        PhaseReport,
        MessageCreate,
        MemoryCreate,
        MemoryPatch,
        SessionMemoryCreate,
        SkillCreate,
        SkillPatch,
        SkillAttach,
        BindingCreate,
        TokenRequest,
        RefreshRequest,
    )
    # Not `include_router`, which looks for a route twice. What is asked for most comes first: they are gone through.
    for router in (
        *(messages.router, sessions.router, sessions.creation, events.router, tty.router),
        *(module.router for module in (health, agents, diagnose, egress, memory, skills, admin, metrics)),
        *(agent_tokens.router, integrations.router, memory.of_sessions, skills.attaching),
    ):
        app.router.routes.extend(router.routes)
    return app

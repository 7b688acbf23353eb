"""What every route needs: the services, and how a session looks to the one who asks."""

from collections.abc import Mapping
from typing import Any, cast

from fastapi import Request

from backend.api.models import ApiError
from backend.domain import sessions
from backend.services.container import Services
from backend.store import views
from backend.store.database import Row

Responses = dict[int | str, dict[str, Any]]


def services_of(request: Request) -> Services:
    """The services of the app that got the request."""
    return cast(Services, request.app.state.services)


def session_json(request: Request, row: Row) -> dict[str, Any]:
    """ApiSession for the sender of `request`, who has the master key: with `tty_url` and `tty_token`."""
    services = services_of(request)
    view: Mapping[str, Any] = views.session(row)
    tty_url = None
    if view["supports_tui"] and view["status"] == sessions.READY:
        base = services.settings.lap_base_url or str(request.base_url).rstrip("/")
        tty_url = f"{base.replace('http', 'ws', 1)}/api/v1/managed_agents/sessions/{row['id']}/tty"
    return {**view, "tty_url": tty_url, "tty_token": services.sessions.tty_token(row)}


def documented_refusals(*statuses: int) -> Responses:
    """`responses` of a route that may refuse with these."""
    return {status: {"model": ApiError} for status in statuses}

"""What every route needs: the services, and how a session looks to the one who asks."""

from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, cast

from fastapi import Request

from backend.api.auth import agent_of
from backend.api.models import ApiError
from backend.domain import sessions
from backend.services.container import Services
from backend.store import views
from backend.store.database import Row
from backend.store.sessions import Told

Responses = dict[int | str, dict[str, Any]]


def services_of(request: Request) -> Services:
    """The services of the app that got the request."""
    return cast(Services, request.app.state.services)


def asked_by(request: Request) -> str:
    """Who asks, for the event log: "master key", or an agent with a token of its own."""
    agent_id = agent_of(request)
    return "master key" if agent_id is None else f"agent {agent_id}"


def session_json(request: Request, row: Row) -> dict[str, Any]:
    """ApiSession for the sender of `request`, who has the master key: with `tty_url` and `tty_token`."""
    services = services_of(request)
    view: Mapping[str, Any] = views.session(row)
    ready = view["supports_tui"] and view["status"] == sessions.READY
    tty_url = _tty_url(request, row["id"]) if ready else None
    return {**view, "tty_url": tty_url, "tty_token": services.sessions.tty_token(row)}


def session_texts(request: Request, found: Iterable[Told]) -> list[str]:
    """The same as JSON, of sessions that were read to be shown."""
    service = services_of(request).sessions
    texts = []
    for told in found:
        tty_url = token = None
        if told.supports_tui:
            token = service.token(told.id, told.tty_token)
            tty_url = _tty_url(request, told.id) if told.status == sessions.READY else None
        texts.append(f'{told.text[:-1]},"tty_url":{_json(tty_url)},"tty_token":{_json(token)}}}')
    return texts


def _json(text: str | None) -> str:
    return "null" if text is None else encode_basestring_ascii(text)


def _tty_url(request: Request, session_id: str) -> str:
    base = services_of(request).settings.lap_base_url or str(request.base_url).rstrip("/")
    return f"{base.replace('http', 'ws', 1)}/api/v1/managed_agents/sessions/{session_id}/tty"


def documented_refusals(*statuses: int) -> Responses:
    """`responses` of a route that may refuse with these."""
    return {status: {"model": ApiError} for status in statuses}

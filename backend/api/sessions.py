"""Routes of sessions (LAP REST 3)."""

import hmac
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from backend.api import bodies
from backend.api.context import asked_by, documented_refusals, services_of, session_json, session_texts
from backend.api.document import Route
from backend.api.downloads import Passed
from backend.api.errors import refusal
from backend.api.models import (
    ApiSession,
    CreatedSession,
    EndedSession,
    MendedSession,
    PhaseNoted,
    PhaseReport,
    ScreenCells,
    SessionCreate,
)
from backend.api.query import MAX_NUMBER, clamped, number, words
from backend.domain import env_vars
from backend.domain.agents import supports_tui
from backend.domain.problems import Problem
from backend.domain.sessions import DEAD
from backend.services.errors import Invalid, Unavailable, session_not_found
from backend.services.sessions import MAX_SCROLLBACK
from backend.store import integrations, sessions
from backend.store.database import Row

DEFAULT_LIMIT = 50
MAX_LIMIT = 200

DEFAULT_LOG_LINES, MAX_LOG_LINES = 500, 5_000
DEFAULT_LOG_SECONDS, MAX_LOG_SECONDS = 600, 3_600

SCREEN_TYPES = {"text": "text/plain; charset=utf-8", "cells": "application/json", "svg": "image/svg+xml"}
CAST_TYPE = "application/x-asciicast"

NO_IMAGES = "initial_attachments were not sent: the agent's harness has a terminal and takes no attachments"
NO_ROOM = "initial_attachments were not sent: too many others wait for their sessions to be ready"
NOT_TO_THIS_PROGRAM = "initial_prompt was not sent: {} replaces the harness's program, which might not take it"
NO_RECORDING = "nothing will be recorded: the agent's harness has no terminal"

router = APIRouter(prefix="/api/v1/managed_agents/sessions", tags=["sessions"], route_class=Route)
creation = APIRouter(prefix="/api/v1/managed_agents/agents", tags=["sessions"], route_class=Route)


@creation.post(
    "/{agent_id}/session",
    responses={200: {"model": CreatedSession}, **documented_refusals(400, 404)},
    openapi_extra=bodies.documented(SessionCreate, required=False),
)
async def create(request: Request, agent_id: str) -> Response:
    """Create a session, which starts a sandbox. Answers at once, with status `creating`."""
    body = await bodies.read_bytes(request, bodies.SESSION_LIMIT)
    wanted = await bodies.parse_long(body or b"{}", SessionCreate)
    images = [attachment.part() for attachment in wanted.initial_attachments]
    if problems := env_vars.problems(wanted.env_vars):
        raise Invalid(problems)
    row = await services_of(request).sessions.create(
        agent_id,
        title=wanted.title or None,
        env_vars=wanted.env_vars,
        initial_prompt=wanted.initial_prompt or None,
        recording=wanted.given().get("recording"),
        skill_ids=wanted.skill_ids,
        attachments=images,
    )
    warnings = list(row["warnings"])
    tui = supports_tui(row["harness_id"])
    if images and tui:
        warnings.append(NO_IMAGES)
    elif images and not services_of(request).messages.hold(row["id"], wanted.initial_prompt, images):
        warnings.append(NO_ROOM)
    if wanted.initial_prompt and tui and row["harness_id"] in services_of(request).settings.harness_commands:
        variable = f"LAP_HARNESS_COMMAND_{row['harness_id'].replace('-', '_').upper()}"
        warnings.append(NOT_TO_THIS_PROGRAM.format(variable))
    if row["recording"] and not supports_tui(row["harness_id"]):
        warnings.append(NO_RECORDING)
    if unknown := [skill_id for skill_id in wanted.skill_ids if skill_id not in row["skill_ids"]]:
        warnings.append(f"skill_ids that do not exist were left out: {', '.join(unknown)}")
    return JSONResponse(session_json(request, row) | {"warnings": warnings})


@router.get("", responses={200: {"model": list[ApiSession]}})
async def page(
    request: Request,
    limit: str | None = None,
    offset: str | None = None,
    agent_id: str | None = None,
    status: str | None = None,
) -> Response:
    """List sessions, newest first: `limit` up to 200 (50), `offset`, `agent_id`, `status` (comma-separated)."""
    wanted = number(limit, DEFAULT_LIMIT)
    async with services_of(request).database.read() as tx:
        found = await sessions.page_told(
            tx,
            limit=min(wanted, MAX_LIMIT) if wanted > 0 else DEFAULT_LIMIT,
            offset=clamped(offset, 0, 0, MAX_NUMBER),
            agent_id=agent_id,
            statuses=words(status),
        )
    return Response(f"[{','.join(session_texts(request, found))}]", media_type="application/json")


@router.get("/{session_id}", responses={200: {"model": ApiSession}, **documented_refusals(404)})
async def get(request: Request, session_id: str) -> Response:
    """One session, with the whole `response`: lists and events cut a long one, and say so with `truncated`."""
    async with services_of(request).database.read() as tx:
        told = await sessions.told(tx, session_id)
        # One query less where nothing comes from elsewhere.
        origin = await integrations.origin(tx, session_id) if services_of(request).integrations.linear else None
    if told is None:
        raise session_not_found(session_id)
    if not told.truncated and origin is None:
        return Response(session_texts(request, [told])[0], media_type="application/json")
    row = await services_of(request).sessions.get(session_id)
    whole = await _whole_response(request, row)
    return JSONResponse(session_json(request, row) | whole | {"origin": origin})


@router.delete("/{session_id}", responses={200: {"model": EndedSession}, **documented_refusals(404)})
async def delete(request: Request, session_id: str) -> Response:
    """End a session and remove its sandbox; it stays listed as `dead`. Idempotent."""
    _, was_dead = await services_of(request).sessions.delete(session_id, asked_by(request))
    return JSONResponse({"id": session_id, "status": DEAD if was_dead else "deleted"})


@router.post("/{session_id}/stop", responses={200: {"model": EndedSession}, **documented_refusals(404)})
async def stop(request: Request, session_id: str) -> Response:
    """Interrupt the agent, then end the session and remove its sandbox. Idempotent."""
    await services_of(request).sessions.stop(session_id, asked_by(request))
    return JSONResponse({"id": session_id, "status": DEAD})


@router.post("/{session_id}/restart", responses={200: {"model": ApiSession}, **documented_refusals(404, 409, 502)})
async def restart(request: Request, session_id: str) -> Response:
    """Give a settled session a new sandbox; answers once it is ready and has been told what was said before.

    `warnings` says what is not as it was: the session's own `env_vars` are not kept.
    """
    try:
        row = await services_of(request).messages.restart(session_id, asked_by(request))
    except Unavailable as error:
        return refusal(502, str(error))
    return JSONResponse(session_json(request, row) | await _whole_response(request, row))


@router.post("/{session_id}/mend", responses={200: {"model": MendedSession}, **documented_refusals(404, 409)})
async def mend(request: Request, session_id: str) -> Response:
    """Put back what is missing around a session's running sandbox, such as its Service; nothing in it is touched.

    409 says why not: nothing is missing, there is no sandbox, or it cannot be put back.
    """
    did = await services_of(request).sessions.mend(session_id, asked_by(request))
    return JSONResponse({"id": session_id, "did": did})


@router.get(
    "/{session_id}/sandbox_logs",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented_refusals(404)},
)
async def sandbox_logs(
    request: Request, session_id: str, tailLines: str | None = None, sinceSeconds: str | None = None
) -> Response:
    """The end of the sandbox's log: `tailLines` up to 5000 (500), `sinceSeconds` up to 3600 (600)."""
    log = await services_of(request).sessions.sandbox_log(
        session_id,
        clamped(tailLines, DEFAULT_LOG_LINES, 1, MAX_LOG_LINES),
        clamped(sinceSeconds, DEFAULT_LOG_SECONDS, 1, MAX_LOG_SECONDS),
    )
    return PlainTextResponse(log)


@router.get(
    "/{session_id}/screen",
    response_class=Response,
    responses={
        200: {
            "model": ScreenCells,
            "content": {"text/plain": {"schema": {"type": "string"}}, "image/svg+xml": {"schema": {"type": "string"}}},
        },
        **documented_refusals(400, 404, 409, 502),
    },
)
async def screen(
    request: Request, session_id: str, format: str | None = None, scrollback: str | None = None
) -> Response:
    """What the session's terminal shows now: `format` text (rows joined by newlines), cells (JSON) or svg, with up to
    `scrollback` lines before it (0; up to 10000).
    """
    form = format or "text"
    if form not in SCREEN_TYPES:
        message = f"format must be one of {', '.join(SCREEN_TYPES)}"
        raise Invalid([Problem(("format",), message, "unknown")])
    try:
        download = await services_of(request).sessions.screen(
            session_id, form, clamped(scrollback, 0, 0, MAX_SCROLLBACK)
        )
    except Unavailable as error:
        return refusal(502, str(error))
    return Passed(download, SCREEN_TYPES[form])


@router.get(
    "/{session_id}/recording",
    response_class=Response,
    responses={
        200: {"content": {CAST_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
        **documented_refusals(404, 502),
    },
)
async def recording(request: Request, session_id: str) -> Response:
    """The recording of the session's terminal as asciicast v3: so far, or, once it has ended, whole."""
    try:
        download = await services_of(request).sessions.recording(session_id)
    except Unavailable as error:
        return refusal(502, str(error))
    return Passed(download, CAST_TYPE, {"content-disposition": f'attachment; filename="{session_id}.cast"'})


async def _whole_response(request: Request, row: Row) -> dict[str, Any]:
    """`response` as it is, where the row has only its beginning."""
    if not row["response"] or not row["response"].get("truncated"):
        return {}
    full = await services_of(request).messages.full_response(row["id"])
    return {"response": full} if full else {}


@router.post(
    "/{session_id}/phase",
    responses={200: {"model": PhaseNoted}, **documented_refusals(401)},
    openapi_extra=bodies.documented(PhaseReport),
)
async def phase(request: Request, session_id: str) -> Response:
    """Where a harness reports its own phases; it authorizes with `Bearer <session_id>` (LAP REST 3.10)."""
    given = request.headers.get("authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {session_id}".encode()):
        return refusal(401, "invalid harness progress token")
    report = await bodies.read_json(request, PhaseReport)
    noted = await services_of(request).sessions.report_phase(session_id, report.phase, report.detail)
    return JSONResponse({"ok": noted})

"""Routes of sessions at work: messages, streams, history (LAP REST 3.6-3.9)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from backend.api import bodies
from backend.api.context import Responses, documented_refusals, services_of
from backend.api.document import Route
from backend.api.downloads import Passed
from backend.api.models import Aborted, LogEntry, MessageCreate, MessageReply, SpokenMessage, TerminalInstead
from backend.api.query import flag
from backend.domain import messages
from backend.domain.problems import Problem
from backend.services.agent_client import HarnessRefused
from backend.services.errors import HarnessFailed, Invalid
from backend.services.exchange import Said
from backend.services.messages import Call
from backend.services.sessions import Download

MESSAGE_LIMIT = bodies.SESSION_LIMIT

EVENT_HEADERS = {
    "cache-control": "no-cache, no-transform",
    "connection": "keep-alive",
    "x-accel-buffering": "no",
}
EVENT_STREAM: Responses = {
    200: {
        "description": "Server-sent events: each frame is `data: ` and a JSON object with a `type`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}

_NOT_A_MESSAGE = (400, 413, 422)
"""How a harness answers to what it cannot read."""

router = APIRouter(prefix="/api/v1/managed_agents/sessions", tags=["messages"], route_class=Route)


@router.post(
    "/{session_id}/message",
    responses={
        200: {"model": MessageReply | TerminalInstead},
        **documented_refusals(400, 404, 408, 409, 413, 502, 503, 504),
    },
    openapi_extra=bodies.documented(MessageCreate),
)
async def message(request: Request, session_id: str, if_busy: str | None = None) -> Response:
    """Say something and wait for the agent's answer, up to 30 minutes.

    One message at a time: another one waits its turn, or is refused with 409 when `if_busy` (here or in the body) is
    `refuse`. 404 also while the session is not ready. The answer is the harness's own message; should the client go
    away meanwhile, it will be in the session's `response` and `messages`. 502 tells that the sandbox did not answer,
    and whether the session ended with it; 504 that the agent took too long.
    """
    said, wait = await _said(request, if_busy)
    try:
        reply = await services_of(request).messages.send(session_id, said, wait=wait)
    except HarnessRefused as refused:
        if refused.status in _NOT_A_MESSAGE:
            raise Invalid([Problem(("parts",), str(refused), "refused")]) from refused
        raise HarnessFailed(f"harness request failed: {refused}") from refused
    if reply is None:
        return JSONResponse({"text": messages.TUI_MESSAGE})
    return Response(reply, media_type="application/json")


@router.post(
    "/{session_id}/message_stream",
    response_class=StreamingResponse,
    responses={**EVENT_STREAM, **documented_refusals(400, 404, 408, 409, 413, 503)},
    openapi_extra=bodies.documented(MessageCreate),
)
async def message_stream(request: Request, session_id: str, if_busy: str | None = None) -> Response:
    """Say something and follow the turn: frames `ready`, `harness_event` with `event`, then `done`, or `error` with
    `message`. At most 10 minutes; the turn goes on without its watcher.
    """
    said, wait = await _said(request, if_busy)
    return _streamed(await services_of(request).messages.send_streaming(session_id, said, wait=wait))


@router.get(
    "/{session_id}/events",
    response_class=StreamingResponse,
    responses={**EVENT_STREAM, **documented_refusals(404, 409, 503)},
)
async def events(request: Request, session_id: str) -> Response:
    """Watch a ready session until its turn ends: frames `ready`, `harness_event`, then `done`, or `error`.

    At most 10 minutes. Watching does not count as use.
    """
    return _streamed(await services_of(request).messages.events(session_id))


@router.get(
    "/{session_id}/stream",
    response_class=StreamingResponse,
    responses={**EVENT_STREAM, **documented_refusals(404, 410, 503, 504)},
)
async def stream(request: Request, session_id: str, follow: str | None = None) -> Response:
    """Watch a session, waiting up to a minute for it to be ready: a frame `stream.opened`, then the harness's events
    as they are. Ends with the turn, or with `follow=1` after 30 minutes. Watching does not count as use.
    """
    return _streamed(await services_of(request).messages.stream(session_id, follow=flag(follow)))


@router.get("/{session_id}/messages", responses={200: {"model": list[SpokenMessage]}, **documented_refusals(404, 502)})
async def history(request: Request, session_id: str) -> Response:
    """All that was said, oldest first, also when the session has ended."""
    return await _json(await services_of(request).messages.messages(session_id))


@router.get("/{session_id}/log", responses={200: {"model": list[LogEntry]}})
async def log(request: Request, session_id: str) -> Response:
    """What happened in the session, one line each, oldest first; empty for a session that does not exist."""
    return await _json(await services_of(request).messages.log(session_id))


@router.post("/{session_id}/abort", responses={200: {"model": Aborted}, **documented_refusals(404, 502)})
async def abort(request: Request, session_id: str) -> Response:
    """Interrupt what the agent is doing. The message it was about is answered, with an error in its `info`."""
    await services_of(request).messages.abort(session_id)
    return JSONResponse({"ok": True})


_PASSED: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"description": "What the harness answers, whatever that is.", "content": {"*/*": {"schema": {}}}},
        "default": {"description": "A status of the harness's own.", "content": {"*/*": {"schema": {}}}},
        404: {"description": "No such session, or the harness's own.", "content": {"*/*": {"schema": {}}}},
        **documented_refusals(409, 410, 413, 502, 503, 504),
    },
}


@router.get("/{session_id}/opencode/{path:path}", operation_id="opencode_get", **_PASSED)
@router.post("/{session_id}/opencode/{path:path}", operation_id="opencode_post", **_PASSED)
@router.delete("/{session_id}/opencode/{path:path}", operation_id="opencode_delete", **_PASSED)
async def opencode(request: Request, session_id: str, path: str) -> Response:
    """Pass a call through to the harness, waiting up to a minute for the session to be ready.

    A message sent this way is a turn like any other: it waits its turn, and is kept.
    """
    body = await bodies.read_bytes(request, MESSAGE_LIMIT) if request.method == "POST" else None
    call = Call(request.method, path, request.url.query, body, request.headers.get("content-type"))
    passage = await services_of(request).messages.passage(session_id, call)
    response = Passed(Download(passage.body, passage.held), passage.content_type)
    response.status_code = passage.status
    return response


async def _said(request: Request, if_busy: str | None) -> tuple[Said, bool]:
    """What a request wants said, and whether it may wait. Raises Invalid."""
    wanted = await bodies.parse_long(await bodies.read_bytes(request, MESSAGE_LIMIT), MessageCreate)
    choice = if_busy or wanted.if_busy
    if choice not in ("wait", "refuse"):
        raise Invalid([Problem(("if_busy",), "if_busy must be wait or refuse", "unknown")])
    if wanted.attachments or not wanted.parts:
        text = [{"type": "text", "text": wanted.text}] if wanted.text.strip() else []
        parts = [*text, *(attachment.part() for attachment in wanted.attachments)]
    else:
        parts = wanted.parts
    if not parts:
        raise Invalid([Problem(("text",), "the message is empty: give text, parts or attachments", "missing")])
    return Said(parts), choice == "wait"


def _streamed(frames: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(frames, media_type="text/event-stream; charset=utf-8", headers=EVENT_HEADERS)


async def _json(value: list[dict[str, Any]]) -> Response:
    # In a thread: a long history would hold up everything else.
    return await asyncio.to_thread(JSONResponse, value) if len(value) > 20 else JSONResponse(value)

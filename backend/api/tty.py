"""The terminal of a session: a WebSocket proxy to its harness (LAP REST 3.11, LAP harness 1.8)."""

import asyncio
import contextlib
import logging

from fastapi import APIRouter, Response, WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from backend.services.container import Services
from backend.services.sessions import Terminal, TerminalRefused

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
PING_INTERVAL = 20.0
MAX_FRAME_BYTES = 16 * 1024 * 1024

router = APIRouter()


@router.websocket("/api/v1/managed_agents/sessions/{session_id}/tty")
async def tty(websocket: WebSocket, session_id: str) -> None:
    """Joins a viewer with the session's terminal.

    The token is the session's `tty_token`, as `Authorization: Bearer` (which wins) or `?token=`; the master key is
    refused. Before the upgrade: 401 wrong token or no such session, 503 not ready, 502 the harness does not answer.
    """
    services: Services = websocket.app.state.services
    try:
        terminal = await services.sessions.terminal(session_id, _token(websocket))
    except TerminalRefused as refused:
        await websocket.send_denial_response(Response(status_code=refused.status))
        return
    try:
        upstream = await connect(
            terminal.url,
            additional_headers={"Authorization": f"Bearer {terminal.token}"},
            compression=None,
            max_size=MAX_FRAME_BYTES,
            open_timeout=CONNECT_TIMEOUT,
            ping_interval=PING_INTERVAL,
            proxy=None,
        )
    except (OSError, TimeoutError, InvalidHandshake) as error:
        logger.warning("session %s: the harness refused a terminal: %s", session_id, error)
        await websocket.send_denial_response(Response(status_code=502))
        return
    async with upstream:
        await websocket.accept()
        await _splice(websocket, upstream, terminal)


def _token(websocket: WebSocket) -> str | None:
    scheme, _, value = websocket.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return websocket.query_params.get("token")


async def _splice(websocket: WebSocket, upstream: ClientConnection, terminal: Terminal) -> None:
    """Pass frames both ways, unchanged in kind and content, until either side closes."""
    both = [
        asyncio.create_task(_to_harness(websocket, upstream, terminal)),
        asyncio.create_task(_to_viewer(websocket, upstream, terminal)),
    ]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        for result in await asyncio.gather(*both, return_exceptions=True):
            if isinstance(result, Exception):
                logger.error("a terminal proxy failed", exc_info=result)


async def _to_harness(websocket: WebSocket, upstream: ClientConnection, terminal: Terminal) -> None:
    with contextlib.suppress(ConnectionClosed):
        while (message := await websocket.receive())["type"] == "websocket.receive":
            data = message.get("bytes")
            await upstream.send(message["text"] if data is None else data)
            terminal.touch()


async def _to_viewer(websocket: WebSocket, upstream: ClientConnection, terminal: Terminal) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        try:
            async for frame in upstream:
                if isinstance(frame, str):
                    await websocket.send_text(frame)
                else:
                    await websocket.send_bytes(frame)
                terminal.touch()
        except ConnectionClosed as closed:
            logger.info("the harness cut a terminal: %s", closed)
            await websocket.close(1011, "the sandbox ended the connection")
            return
        # An empty close (1005) and the like cannot be sent on.
        await websocket.close(1001 if upstream.close_code == 1001 else 1000)

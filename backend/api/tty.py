"""The terminal of a session: a WebSocket proxy to its harness (LAP REST 3.11, LAP harness 1.8).

Subprotocol, kinds of frames and close codes are the harness's and the viewer's business: they are passed through.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine
from typing import Any, NamedTuple

from fastapi import APIRouter, Response, WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from backend.services.container import Services
from backend.services.sessions import Terminal, TerminalRefused

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
CLOSE_TIMEOUT = 0.5
"""For the harness to answer a close; less than a platform that ends has for everything."""
TAKE_TIMEOUT = 30.0
"""For the harness to take what is typed. Meanwhile nobody would notice that the viewer is gone."""
SEND_TIMEOUT = 10.0
"""For a viewer to take the close, and what is still before it."""
LAST_KEYS_TIMEOUT = 1.0
"""For a viewer to close its side, once it gets nothing any more."""
PING_INTERVAL = 20.0
PING_TIMEOUT = 60.0
"""The harness's pong comes after all it has sent before, which waits for the viewer."""
MAX_FRAME_BYTES = 16 * 1024 * 1024
RECEIVE_BUFFER = 65_536
MAX_REASON_BYTES = 123
PASSABLE = frozenset({1000, 1001, 1008, 1009, 1011, 1012})
"""Close codes below 3000 that mean the same to the other side."""

router = APIRouter()


class Close(NamedTuple):
    """Why a connection ends."""

    code: int
    reason: str = ""


@router.websocket("/api/v1/managed_agents/sessions/{session_id}/tty")
async def tty(websocket: WebSocket, session_id: str) -> None:
    """Joins a viewer with the session's terminal.

    The token is the session's `tty_token`, as `Authorization: Bearer` (which wins) or `?token=`; the master key is
    refused. Before the upgrade: 401 wrong token or no such session, 503 not ready, 502 the harness does not answer.
    The subprotocol `lap.tty.2`, or none for the original protocol, is what the harness makes of the viewer's offer.
    """
    services: Services = websocket.app.state.services
    try:
        terminal = await services.sessions.terminal(session_id, _token(websocket))
    except TerminalRefused as refused:
        await websocket.send_denial_response(Response(status_code=refused.status))
        return
    await websocket.receive()  # the request to connect; until it is answered only the viewer's end can follow
    try:
        upstream = await _unless_gone(websocket, _connect(terminal, websocket.scope["subprotocols"]))
    except (OSError, TimeoutError, InvalidHandshake) as error:
        logger.warning("session %s: the harness refused a terminal: %s", session_id, error)
        await websocket.send_denial_response(Response(status_code=502))
        return
    if upstream is None:
        return
    try:
        await websocket.accept(upstream.subprotocol)
        await _splice(websocket, upstream, terminal)
    finally:
        upstream.transport.abort()  # closed already, unless that failed


def _token(websocket: WebSocket) -> str | None:
    scheme, _, value = websocket.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return websocket.query_params.get("token")


async def _connect(terminal: Terminal, subprotocols: list[str]) -> ClientConnection:
    upstream = await connect(
        terminal.url,
        additional_headers={"Authorization": f"Bearer {terminal.token}"},
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        compression=None,
        max_size=MAX_FRAME_BYTES,
        open_timeout=CONNECT_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
        proxy=None,
    )
    # What has left the harness it can no longer skip for a slow viewer.
    upstream.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return upstream


async def _unless_gone(
    websocket: WebSocket, connecting: Coroutine[Any, Any, ClientConnection]
) -> ClientConnection | None:
    """The connection; None when the viewer is gone before. Raises what connecting raises."""
    gone = asyncio.create_task(websocket.receive())
    working = asyncio.create_task(connecting)
    try:
        await asyncio.wait({gone, working}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (gone, working):
            task.cancel()
        await asyncio.wait({gone, working})


async def _splice(websocket: WebSocket, upstream: ClientConnection, terminal: Terminal) -> None:
    """Pass frames both ways until either side closes, then tell the other side why."""
    to_harness = asyncio.create_task(_to_harness(websocket, upstream, terminal))
    to_viewer = asyncio.create_task(_to_viewer(websocket, upstream, terminal))
    both = (to_harness, to_viewer)
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if to_viewer.done() and not to_viewer.cancelled() and to_viewer.exception() is None and not to_viewer.result():
            # The viewer gets nothing any more, but may have typed something before.
            await asyncio.wait({to_harness}, timeout=LAST_KEYS_TIMEOUT)
    finally:
        for task in both:
            task.cancel()
        ends = await asyncio.gather(*both, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            logger.error("a terminal proxy failed", exc_info=end)
    by_viewer, by_harness = ends
    await _close_harness(upstream, by_viewer if isinstance(by_viewer, Close) else Close(1001))
    if not isinstance(by_viewer, Close):
        await _close_viewer(websocket, by_harness if isinstance(by_harness, Close) else Close(1011))


async def _to_harness(websocket: WebSocket, upstream: ClientConnection, terminal: Terminal) -> Close:
    """Until the viewer closes; why it did."""
    while (message := await websocket.receive())["type"] == "websocket.receive":
        data = message.get("bytes")
        # That the harness has closed is for the other direction to find, after all that came before.
        with contextlib.suppress(ConnectionClosed):
            try:
                async with asyncio.timeout(TAKE_TIMEOUT):
                    await upstream.send(message["text"] if data is None else data)
            except TimeoutError:
                logger.warning("a harness has taken nothing for %g s: cutting its terminal off", TAKE_TIMEOUT)
                upstream.transport.abort()
        terminal.touch()
    return _passable(message.get("code"), message.get("reason"), Close(1001))


async def _to_viewer(websocket: WebSocket, upstream: ClientConnection, terminal: Terminal) -> Close | None:
    """Until the harness closes: then why; None when it is the viewer who is gone."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        with contextlib.suppress(ConnectionClosed):
            async for frame in upstream:
                if isinstance(frame, str):
                    await websocket.send_text(frame)
                else:
                    await websocket.send_bytes(frame)
                terminal.touch()
        return _passable(upstream.close_code, upstream.close_reason, Close(1011, "the sandbox ended the connection"))
    return None


async def _close_harness(upstream: ClientConnection, close: Close) -> None:
    """Bounded, also when the harness neither answers nor reads."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await upstream.close(*close)


async def _close_viewer(websocket: WebSocket, close: Close) -> None:
    """Bounded, also when the viewer does not read; the server then cuts it off."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
        async with asyncio.timeout(SEND_TIMEOUT):
            await websocket.close(*close)


def _passable(code: int | None, reason: str | None, otherwise: Close) -> Close:
    """A close as it may be sent: not all that are received may (RFC 6455 7.4)."""
    if code == 1005:
        return Close(1000)  # closed without a code
    if code in PASSABLE or (code is not None and 3000 <= code <= 4999):
        return Close(code, (reason or "").encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore"))
    return otherwise

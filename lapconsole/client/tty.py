"""A session's terminal over a WebSocket: keys out, screen bytes in (LAP harness 1.3-1.7), and who drives."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from lapconsole.client import tty_messages, urls
from lapconsole.client.causes import cause_of, unusable_proxy
from lapconsole.client.errors import BadInput, TtyClosed, TtyRefused, Unreachable, status_line

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

CONNECT_SECONDS = 10.0
SEND_SECONDS = 10.0
PING_SECONDS = 30.0  # load balancers close a connection that is idle for 60 s
_CLOSE_SECONDS = 2.0

# Received but not yet read: above this many frames the connection is no longer read, and the platform waits. Little is
# kept, here and in the system: what is on its way can no longer be skipped, and a key's echo comes after it.
_QUEUED_FRAMES = 8
_RECEIVE_BUFFER = 65_536
_FRAME_BYTES = 16 << 20  # a repaint is one frame, scrollback and all


class Tty:
    """One attachment to a session's terminal. Iterate for what the terminal shows, until it ends.

    With the original protocol all frames are terminal output; their boundaries mean nothing, and an escape sequence may
    be split between two. Where `two_way` is true bytes are output, and text is for `tty_messages.read`.
    After the end, `closed` says why.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.closed: TtyClosed | None = None

    @classmethod
    async def connect(
        cls, url: str, token: str | None, *, offer: bool = False, connect_seconds: float = CONNECT_SECONDS
    ) -> Tty:
        """Attach to a terminal, given what `urls.tty_address` says.

        `offer` the newer protocol: the harness then waits for a hello, if `two_way` says that it knows it.
        The token goes in a header, and only where that is refused, in the query. Raises TtyRefused with the platform's
        HTTP status, Unreachable when there is no answer, BadInput for an address that cannot be one.
        """
        try:
            return cls(await _connect(url, token, offer, connect_seconds))
        except TtyRefused as refused:
            if refused.status != 401 or not token:
                raise
        return cls(await _connect(urls.with_token(url, token), token, offer, connect_seconds))

    @property
    def two_way(self) -> bool:
        """Whether the harness speaks the newer protocol."""
        return self._connection.subprotocol == tty_messages.PROTOCOL

    async def __aenter__(self) -> Tty:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                yield await self._connection.recv()
        except ConnectionClosed:
            self._ended()

    async def send(self, keys: bytes) -> None:
        """Type `keys`, exactly as they are. Raises TtyClosed when the terminal has ended."""
        await self._send(keys)

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the size of the screen shown here. Raises TtyClosed when the terminal has ended."""
        await self.say(type="resize", **size_fields(columns, rows))

    async def say(self, **message: str | int) -> None:
        """Send a control message. Raises TtyClosed when the terminal has ended."""
        await self._send(json.dumps(message))

    async def aclose(self) -> None:
        """Detach. The agent goes on."""
        await self._connection.close()
        self._ended()

    async def _send(self, message: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._connection.send(message)
        except ConnectionClosed:
            raise self._ended() from None
        except TimeoutError:
            # The far side takes nothing any more; a half-sent frame cannot be taken back.
            self._connection.transport.abort()
            self.closed = TtyClosed(1006, f"nothing was accepted for {SEND_SECONDS:g} s")
            raise self.closed from None

    def _ended(self) -> TtyClosed:
        if self.closed is None:
            code = self._connection.close_code
            self.closed = TtyClosed(1006 if code is None else code, self._connection.close_reason or "")
        return self.closed


def size_fields(columns: int, rows: int) -> dict[str, int]:
    """A size as messages tell it, within what a harness takes (LAP harness 1.4)."""
    return {
        "cols": min(max(columns, 1), tty_messages.MAX_COLUMNS),
        "rows": min(max(rows, 1), tty_messages.MAX_ROWS),
    }


async def _connect(url: str, token: str | None, offer: bool, seconds: float) -> ClientConnection:
    loopback = urls.is_loopback(url)
    if token and not (token.isascii() and token.isprintable()):
        raise BadInput("the session's terminal token holds characters that cannot be sent")
    ready = await asyncio.to_thread(_prepare, url.startswith("wss:"))
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI
    from websockets.typing import Subprotocol

    class Connect(connect):
        """Follows no redirect: the token is for this address only."""

        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc

    address = url.partition("?")[0]
    try:
        async with asyncio.timeout(seconds):
            connection = await Connect(
                url,
                additional_headers={"authorization": f"Bearer {token}"} if token else None,
                subprotocols=list(map(Subprotocol, tty_messages.OFFER)) if offer else None,
                user_agent_header="lapconsole",
                ssl=ready,
                proxy=None if loopback else True,
                compression=None,
                open_timeout=None,
                ping_interval=PING_SECONDS,
                ping_timeout=PING_SECONDS,
                close_timeout=_CLOSE_SECONDS,
                max_size=_FRAME_BYTES,
                max_queue=_QUEUED_FRAMES,
            )
            peer = connection.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            return connection
    except InvalidStatus as error:
        raise TtyRefused(error.response.status_code, _refusal(error.response.status_code)) from None
    except InvalidURI as error:
        raise BadInput(f"{address!r} is not a terminal address") from error
    except (InvalidProxy, ImportError, ValueError) as error:
        raise unusable_proxy(error) from error
    except (InvalidHandshake, OSError, EOFError) as error:
        raise Unreachable(address, cause_of(error, f"timed out after {seconds:g} s")) from error


def _prepare(tls: bool) -> ssl.SSLContext | None:
    """Import websockets and read the system's certificates, both slow, off the event loop."""
    import websockets.asyncio.client  # noqa: F401

    return ssl.create_default_context() if tls else None


def _refusal(status: int) -> str:
    """What a refused upgrade means, and what to do (LAP REST 3.11)."""
    said = f"the terminal refused the connection: {status_line(status)}"
    if status in (401, 403):
        return f"{said}; the session's terminal token is not accepted, restart the session"
    if status == 404:
        return f"{said}; the session is gone, or the platform does not serve terminals at this address"
    if status in (502, 503, 504):
        return f"{said}; the session's sandbox is not running, see its status and log"
    if 300 <= status < 400:
        return f"{said}; the platform redirects, use the address it redirects to"
    return said

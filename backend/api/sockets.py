"""The platform's end of WebSockets: little is buffered for a slow peer, and one that is gone holds nothing for long."""

import asyncio
import socket
from typing import Any, Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HIGH_WATER: Final = 16_384
SEND_BUFFER: Final = 65_536
"""Bytes that may lie in the system's buffer: what is in there a viewer has to see before the present."""
CLOSE_SECONDS: Final = 10.0
"""How long a peer may take to read the last of a connection that is closed."""
SHUTDOWN_SECONDS: Final = 1.0
"""The same when the platform ends."""


class TerminalSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol with small buffers, and with an end to every close."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        patient = cast(asyncio.Transport, transport)
        patient.set_write_buffer_limits(high=HIGH_WATER)
        connection = patient.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        super().connection_made(cast(asyncio.Transport, _Impatient(patient)))

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent and not self.transport.is_closing():
            # Not closed yet: the viewer's answer comes after what it typed before it knew, which is still passed on.
            self.stop_keepalive()
            self.conn.send_close(1012)
            self.transport.write(b"".join(self.conn.data_to_send()))
        else:
            super().shutdown()
        asyncio.get_running_loop().call_later(SHUTDOWN_SECONDS, self.transport.abort)


class _Impatient:
    """A transport whose `close` does not wait for ever for a peer that no longer reads."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.close()
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

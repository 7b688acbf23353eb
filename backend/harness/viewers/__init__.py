"""The WebSockets on `/tty`, one protocol a module: how a request becomes a viewer.

With `lap.tty.2` (see protocol2) a viewer's hello says `watch`, `drive`, or `offer`: to drive only if nobody else does.
With the original protocol whoever types or resizes drives.
"""

import asyncio
from collections.abc import Sequence

from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from backend.harness.terminal import Terminal
from backend.harness.viewers.connection import Viewer
from backend.harness.viewers.original import OriginalViewer
from backend.harness.viewers.protocol2 import SUBPROTOCOL, Protocol2Viewer


def accept(
    terminal: Terminal, transport: asyncio.Transport, target: str, headers: list[tuple[str, str]]
) -> Viewer | None:
    """Answers an upgrade request; the viewer that `transport` now belongs to, None when the request is not valid."""
    handshake = ServerProtocol(select_subprotocol=_choose)
    response = handshake.accept(Request(target, Headers(headers)))
    handshake.send_response(response)
    transport.writelines(handshake.data_to_send())
    if response.status_code != 101:
        transport.close()
        return None
    viewer = (OriginalViewer if handshake.subprotocol is None else Protocol2Viewer)(terminal, transport)
    viewer.begin()
    return viewer


def _choose(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours if it is offered; whoever offers only others gets the original protocol."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None

"""The gate before all routes: the master key, and the last place where an unexpected error is caught."""

import hashlib
import hmac
import logging
import re

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.errors import refusal

logger = logging.getLogger(__name__)

PROTECTED = "/api/"
"""Everything below needs the master key; terminals bring their own token and check it themselves."""
OWN_TOKEN = re.compile(r"/api/v1/managed_agents/sessions/[^/]+/phase")
"""Routes that check a token of their own."""


class Gate:
    """Lets requests through that carry exactly `Authorization: Bearer <master key>` (LAP REST 1.1).

    An error nobody expected becomes a 500 without detail, and a line in the log with all of it.
    """

    def __init__(self, app: ASGIApp, master_key: str) -> None:
        self._app = app
        self._expected = _digest(b"Bearer " + master_key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path.startswith(PROTECTED) and not OWN_TOKEN.fullmatch(path) and not self._authorized(scope):
            await refusal(401, "unauthorized")(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise  # the server can only cut the connection
            await refusal(500, "internal error")(scope, receive, send)

    def _authorized(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(_digest(given[0]), self._expected)


def _digest(value: bytes) -> bytes:
    # Of equal length whatever was sent, so that the comparison tells nothing about the key's length either.
    return hashlib.sha256(value).digest()

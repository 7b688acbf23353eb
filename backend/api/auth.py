"""The gate before all routes: the master key, agents' own tokens, and where unexpected errors end (LAP REST 1.1)."""

import hashlib
import hmac
import logging
import re
import time

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.errors import refusal
from backend.domain import agent_tokens
from backend.domain.agent_tokens import Claims

logger = logging.getLogger(__name__)

PROTECTED = "/api/"
"""Everything below needs the master key; terminals bring their own token and check it themselves."""
OWN_TOKEN = re.compile(
    r"/api/v1/managed_agents/sessions/[^/]+/phase"
    r"|/api/v1/agent-auth/refresh"
    r"|/api/integrations/oauth/[^/]+/callback"
    r"|/api/integrations/webhooks/[^/]+"
)
"""Routes that check a token, state or signature of their own."""
OF_AGENT = re.compile(r"/api/v1/managed_agents/agents/(?P<agent_id>[^/]+)/memory(/[^/]+)?")
OF_SESSION = re.compile(r"/api/v1/managed_agents/sessions/[^/]+/memory")
"""Also for agents with a token, as OF_AGENT; here the route sees to it that the session is the agent's."""
OF_SKILL = re.compile(r"/api/v1/skills/[^/]+")


def agent_of(request: Request) -> str | None:
    """The agent that asks with a token of its own; None when it is someone with the master key."""
    claims: Claims | None = request.scope.get("state", {}).get("agent_token")
    return claims.agent_id if claims else None


class Gate:
    """Lets requests through that carry exactly `Authorization: Bearer <master key>`, and to some routes agents too.

    An error nobody expected becomes a 500 without detail, and a line in the log with all of it.
    """

    def __init__(self, app: ASGIApp, master_key: str, agent_token_key: bytes) -> None:
        self._app = app
        self._agent_token_key = agent_token_key
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
        if len(given) != 1:
            return False
        return hmac.compare_digest(_digest(given[0]), self._expected) or self._is_agent(scope, given[0])

    def _is_agent(self, scope: Scope, given: bytes) -> bool:
        """Whether an agent's token is good for what is asked; the routes find it with `agent_of`."""
        wanted = _wanted(scope)
        if wanted is None or not given.startswith(b"Bearer "):
            return False
        token = given[len(b"Bearer ") :].decode("latin-1")
        claims = agent_tokens.verify(self._agent_token_key, agent_tokens.ACCESS, token, time.time())
        if claims is None or not claims.allow(*wanted):
            return False
        scope["state"] = {**scope.get("state", {}), "agent_token": claims}
        return True


def _wanted(scope: Scope) -> tuple[str, str | None] | None:
    """The scope a token needs, and the agent it must be of (None: any); None where agents have no business."""
    path = scope["path"]
    if match := OF_AGENT.fullmatch(path):
        return "memory", match["agent_id"]
    if OF_SESSION.fullmatch(path):
        return "memory", None
    if scope["method"] == "PATCH" and OF_SKILL.fullmatch(path):
        return "skills", None
    return None


def _digest(value: bytes) -> bytes:
    # Of equal length whatever was sent, so that the comparison tells nothing about the key's length either.
    return hashlib.sha256(value).digest()

"""Tokens for agents: what an agent may do on the platform, signed and for a while (LAP REST 1.1).

A token is `b64url(claims JSON) "." b64url(HMAC-SHA256 over that text)`, without padding. Claims:
`{"kind": "access"|"refresh", "agent_id", "scope": [...], "iat", "exp"}`, times in unix seconds.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

SCOPES: Final = ("memory", "automations", "skills", "issues", "artifacts")
ACCESS: Final = "access"
REFRESH: Final = "refresh"
LIFETIMES: Final = {ACCESS: 900, REFRESH: 86_400}
"""Seconds."""
MAX_LENGTH: Final = 2_048
_PURPOSE: Final = b"lapconsole agent tokens"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says, once its signature and times are checked."""

    agent_id: str
    scope: tuple[str, ...]

    def allow(self, scope: str, agent_id: str | None = None) -> bool:
        """Whether it is for this, and for this agent; None is any agent."""
        return scope in self.scope and agent_id in (None, self.agent_id)


def derived_key(secret: bytes) -> bytes:
    """A key of its own made from another secret: HKDF-SHA256 (RFC 5869) without salt, its first block."""
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), secret, hashlib.sha256)
    return hmac.digest(extracted, _PURPOSE + b"\x01", hashlib.sha256)


def mint(key: bytes, kind: str, agent_id: str, scope: Collection[str], now: float) -> str:
    """A new token; `kind` is ACCESS or REFRESH, `scope` some of SCOPES."""
    issued = int(now)
    claims = {
        "kind": kind,
        "agent_id": agent_id,
        "scope": [name for name in SCOPES if name in scope],
        "iat": issued,
        "exp": issued + LIFETIMES[kind],
    }
    payload = _encoded(json.dumps(claims, separators=(",", ":")).encode())
    return f"{payload}.{_encoded(_signature(key, payload))}"


def verify(key: bytes, kind: str, token: str, now: float) -> Claims | None:
    """What a token of that kind says at `now`; None when it is none of ours, or not valid then."""
    payload, dot, signature = token.partition(".")
    if len(token) > MAX_LENGTH or not token.isascii() or not dot:
        return None
    # The text is compared, not what it decodes to: base64 has several spellings of the same bytes.
    if not hmac.compare_digest(_encoded(_signature(key, payload)), signature):
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return _checked(claims, kind, now)


def _checked(claims: Any, kind: str, now: float) -> Claims | None:
    if not isinstance(claims, dict) or claims.get("kind") != kind:
        return None
    agent_id, scope, expires = claims.get("agent_id"), claims.get("scope"), claims.get("exp")
    if not isinstance(agent_id, str) or not isinstance(scope, list):
        return None
    if isinstance(expires, bool) or not isinstance(expires, int | float) or now >= expires:
        return None
    return Claims(agent_id, tuple(name for name in scope if isinstance(name, str)))


def _signature(key: bytes, payload: str) -> bytes:
    return hmac.digest(key, payload.encode(), hashlib.sha256)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

"""The one place that knows a platform's addresses."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from lapconsole.client.errors import BadInput
from lapconsole.client.models import Session, safe_line

_API = "/api/v1"
_MANAGED = f"{_API}/managed_agents"

HEALTH = "/healthz"
EVENTS = f"{_API}/events"
EVENT_LOG = f"{_API}/events/log"
AGENTS = f"{_MANAGED}/agents"
SESSIONS = f"{_MANAGED}/sessions"
SKILLS = f"{_API}/skills"
ADMIN_STATS = f"{_API}/admin/stats"
WARM_POOL = f"{_API}/admin/warm_pool"
DIAGNOSE = f"{_MANAGED}/diagnose"
NODES = f"{_MANAGED}/nodes"
PROBLEMS = f"{_API}/admin/problems"

_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def agent(agent_id: str) -> str:
    """One agent."""
    return f"{AGENTS}/{_segment(agent_id)}"


def agent_sessions(agent_id: str) -> str:
    """Where a session of the agent is created."""
    return f"{agent(agent_id)}/session"


def agent_memory(agent_id: str, memory_id: str | None = None) -> str:
    """What an agent remembers: all of it, or one memory."""
    path = f"{agent(agent_id)}/memory"
    return f"{path}/{_segment(memory_id)}" if memory_id is not None else path


def agent_skill(agent_id: str) -> str:
    """Where skills are attached to an agent, and detached."""
    return f"{agent(agent_id)}/skill"


def skill(skill_id: str, action: str | None = None) -> str:
    """One skill, or its versions."""
    path = f"{SKILLS}/{_segment(skill_id)}"
    return f"{path}/{action}" if action else path


def session(session_id: str, action: str | None = None) -> str:
    """One session, or one of its calls: stop, restart, mend, messages, stream, abort, sandbox_logs, recording,
    diagnose, interceptions, vault-keys."""
    path = f"{SESSIONS}/{_segment(session_id)}"
    return f"{path}/{action}" if action else path


def base_address(text: str) -> str:
    """A platform's address as typed, in normal form: scheme, host, optional port and path, no slash at the end.

    Without a scheme, https is meant, or http for a loopback address. Raises BadInput.
    """
    text = text.strip()
    if "://" not in text:
        text = f"{'http' if _is_loopback(_split(f'//{text}').hostname) else 'https'}://{text}"
    parts = _split(text)
    if parts.scheme not in ("http", "https"):
        raise BadInput(f"{text!r} is not an address of a platform: it must begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise BadInput("the address holds a user or password; give the key separately")
    if parts.query or parts.fragment:
        raise BadInput(f"{text!r} is not an address of a platform: leave out what follows '?' or '#'")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def is_loopback(address: str) -> bool:
    """Whether the address is on this machine, where no proxy must be asked."""
    return _is_loopback(_split(address).hostname)


@dataclass(frozen=True, slots=True)
class TtyAddress:
    """Where a session's terminal is. `token` is the session's own; the platform key is never sent to a terminal."""

    url: str
    token: str | None


def tty_address(base: str, of: Session, fallback: str | None = None) -> TtyAddress:
    """Where to attach to a session.

    `tty_url` may be ws(s), http(s), or relative to the platform. Without one the address comes from `sandbox_url`
    (LAP REST 3.2), or is `fallback` where that one is inside a cluster. Raises BadInput saying why there is none.
    """
    if of.ended or of.supports_tui is False:  # platforms may still show where the sandbox was
        raise BadInput(_why_no_terminal(of))
    if of.tty_url:
        url = of.tty_url if "://" in of.tty_url else f"{base}/{of.tty_url.lstrip('/')}"
    elif _reachable(base, of.sandbox_url):
        url = f"{(of.sandbox_url or '').rstrip('/')}/tty"
    elif fallback:
        url = fallback
    else:
        raise BadInput(_why_no_terminal(of))
    return TtyAddress(_websocket(base, url), of.tty_token)


def with_token(url: str, token: str) -> str:
    """The address with `token` in its query, for terminals that look only there (seed 001)."""
    return f"{url}{'&' if urlsplit(url).query else '?'}token={quote(token, safe='')}"


def _websocket(base: str, url: str) -> str:
    parts, base_parts = _split(url), _split(base)
    scheme = _WEBSOCKET_SCHEMES.get(parts.scheme)
    if scheme is None or " " in url:
        raise BadInput(f"the platform gave a terminal address that is none: {url[:200]!r}")
    # A platform behind a TLS proxy may not know it: never send the token in clear where the platform speaks TLS.
    if base_parts.scheme == "https" and parts.hostname == base_parts.hostname and parts.port is None:
        scheme = "wss"
    return urlunsplit((scheme, parts.netloc, parts.path, parts.query, ""))


def _reachable(base: str, sandbox_url: str | None) -> bool:
    """Whether a sandbox can be reached from here: not inside a cluster, not on a remote platform's own loopback."""
    if not sandbox_url:
        return False
    host = _split(sandbox_url).hostname
    if host is None or host.endswith((".svc", ".svc.cluster.local")):
        return False
    return is_loopback(base) or not _is_loopback(host)


def _why_no_terminal(of: Session) -> str:
    if of.supports_tui is False:
        return f"{of.harness_id or 'this harness'} has no terminal to attach to"
    if of.status == "creating":
        return f"the session is still coming up ({of.phase or 'creating'}); attach when it is ready"
    if of.ended:
        return f"the session is {of.status}: {of.failure_reason or 'no reason given'}; restart it first"
    if of.sandbox_url:
        return f"the platform gave no terminal address, and the sandbox ({of.sandbox_url}) cannot be reached from here"
    return "the platform gave neither a terminal address nor a sandbox address"


def _segment(identifier: str) -> str:
    """An id as one path segment; "." and ".." would climb out of it."""
    if not identifier or identifier in (".", "..") or len(identifier) > 200:
        raise BadInput(f"{identifier[:40]!r} is not an id")
    return quote(identifier, safe="")


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018  (raises on a port that is none)
        host = parts.hostname
        if not host:
            raise ValueError("it names no host")
        if "[" in parts.netloc:
            ipaddress.IPv6Address(host)
        elif not host.isprintable() or " " in host:
            raise ValueError("the name of the host holds blanks or control characters")
        else:
            host.encode("idna")
    except ValueError as error:
        raise BadInput(f"{safe_line(address)[:200]!r} is not an address: {safe_line(str(error))}") from None
    return parts


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

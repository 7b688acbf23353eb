"""Linear's webhooks: whether one is genuine and fresh, and what it asks for.

A delivery carries `Linear-Signature` (hex HMAC-SHA256 of the raw body with the webhook secret) and `Linear-Delivery`
(its id); its body has `type`, `action`, `organizationId` and `webhookTimestamp` (ms).
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

FRESH_SECONDS: Final = 60.0
MAX_ID: Final = 200
MAX_LINE: Final = 500
MAX_TEXT: Final = 50_000

_THREAD_OPENING: Final = "This thread is for an agent session"
"""How the comment begins that Linear writes by itself where an issue is delegated."""


class BadPayload(ValueError):
    """A signed body that is not as Linear documents it."""


@dataclass(frozen=True, slots=True)
class Issue:
    """An issue, as far as an agent is told of it."""

    id: str
    ref: str
    title: str
    url: str
    description: str


@dataclass(frozen=True, slots=True)
class Event:
    """What a delivery asks for.

    `kind`: "opened" (an agent session was opened: by a mention, with a comment, or by delegation), "prompted" (`text`
    was said in one), "stopped" (it is to stop), "assigned" or "unassigned" (an issue, by plain webhooks).
    """

    kind: str
    agent_session_id: str = ""
    issue: Issue | None = None
    author: str = ""
    text: str = ""

    def json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> "Event":
        """What `json` gave."""
        issue = Issue(**values["issue"]) if values["issue"] else None
        return cls(**{**values, "issue": issue})


def is_genuine(secret: str, body: bytes, signature: str) -> bool:
    """Whether Linear signed the body. Compares in constant time."""
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode())


def parsed(body: bytes) -> dict[str, Any]:
    """The body as an object. Raises BadPayload."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise BadPayload("invalid json") from None
    if not isinstance(payload, dict):
        raise BadPayload("invalid json: not an object")
    return payload


def is_fresh(payload: Mapping[str, Any], now: float) -> bool:
    """Whether it was sent within FRESH_SECONDS of `now` (unix seconds)."""
    sent = payload.get("webhookTimestamp")
    if isinstance(sent, bool) or not isinstance(sent, int | float) or not 0 < sent < 2**53:
        return False
    return abs(now - sent / 1000) <= FRESH_SECONDS


def workspace_of(payload: Mapping[str, Any]) -> str:
    """The id of the workspace it comes from. Raises BadPayload."""
    if not (found := _identifier(payload.get("organizationId"))):
        raise BadPayload("could not resolve workspace: organizationId is missing")
    return found


def event_of(payload: Mapping[str, Any], app_user_id: str) -> Event | None:
    """What is asked for; None for what is no affair of ours, our own doings included. Raises BadPayload."""
    kind, action = payload.get("type"), payload.get("action")
    if kind == "AgentSessionEvent" and action in ("created", "prompted"):
        return _session_event(payload, str(action), app_user_id)
    if kind == "Issue":
        return _issue_event(payload, app_user_id)
    if kind == "AppUserNotification" and action in ("issueAssignedToYou", "issueUnassignedFromYou"):
        issue = _issue(_object(_object(payload, "notification"), "issue"))
        return Event("assigned" if action == "issueAssignedToYou" else "unassigned", issue=issue)
    return None


def _session_event(payload: Mapping[str, Any], action: str, app_user_id: str) -> Event | None:
    session = _object(payload, "agentSession")
    session_id = _required_id(session, "agentSession")
    if action == "created":
        if session.get("creatorId") == app_user_id or _user_id(session.get("creator")) == app_user_id:
            return None
        issue = session.get("issue")
        comment = session.get("comment")
        said = _text(comment.get("body")) if isinstance(comment, dict) else ""
        return Event(
            "opened",
            session_id,
            issue=_issue(issue) if isinstance(issue, dict) else None,
            author=_name(session.get("creator")),
            text="" if said.startswith(_THREAD_OPENING) else said,
        )
    activity = _object(payload, "agentActivity")
    if app_user_id in (activity.get("userId"), _user_id(activity.get("user"))):
        return None
    if activity.get("signal") == "stop":
        return Event("stopped", session_id)
    content = activity.get("content")
    said = _text(content.get("body") if isinstance(content, dict) else None) or _text(activity.get("body"))
    return Event("prompted", session_id, text=said) if said.strip() else None


def _issue_event(payload: Mapping[str, Any], app_user_id: str) -> Event | None:
    data, action = _object(payload, "data"), payload.get("action")
    if _user_id(payload.get("actor")) == app_user_id:
        return None
    before = payload.get("updatedFrom")
    before = before if isinstance(before, dict) else {}
    names = ("assigneeId", "delegateId")
    has = app_user_id in (data.get(name) for name in names)
    # Who it was is told only of what has changed.
    had = app_user_id in (before.get(name, data.get(name)) for name in names)
    if action == "remove":
        return Event("unassigned", issue=_issue(data)) if has else None
    had = had and action == "update"
    if action not in ("create", "update") or has == had:
        return None
    return Event("assigned" if has else "unassigned", issue=_issue(data))


def _issue(data: Mapping[str, Any]) -> Issue:
    issue_id = _required_id(data, "issue")
    return Issue(
        issue_id,
        ref=_line(data.get("identifier")) or issue_id[:MAX_ID],
        title=_line(data.get("title")),
        url=_line(data.get("url")),
        description=_text(data.get("description")),
    )


def _object(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = payload.get(name)
    if not isinstance(value, dict):
        raise BadPayload(f"{name} is missing")
    return value


def _required_id(thing: Mapping[str, Any], what: str) -> str:
    if not (found := _identifier(thing.get("id"))):
        raise BadPayload(f"{what} has no id")
    return found


def _identifier(value: Any) -> str:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable() else ""


def _user_id(user: Any) -> str | None:
    return _identifier(user.get("id")) if isinstance(user, dict) else None


def _name(user: Any) -> str:
    return _line(user.get("name")) if isinstance(user, dict) else ""


def _line(value: Any) -> str:
    return " ".join(value[: 4 * MAX_LINE].split())[:MAX_LINE] if isinstance(value, str) else ""


def _text(value: Any) -> str:
    return value.replace("\0", "")[:MAX_TEXT] if isinstance(value, str) else ""

"""What the events of an API harness say of its agent's activity: `{"type", "properties"}`, named as opencode does."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from backend.domain import activity
from backend.domain.activity import IDLE, WAITING, Known, Source

REQUESTS_LIMIT: Final = 100
PARTS_LIMIT: Final = 1000

_ABORTED: Final = "MessageAbortedError"


def said(known: Known, kind: str, properties: Mapping[str, Any], at: float) -> Known:
    """An event of the agent's one conversation or of its parts: what a sub-agent asks, a person has to answer."""
    if known.over:
        return known
    if kind in ("session.created", "session.updated"):
        return _related(known, properties)
    topic, _, verb = kind.partition(".")
    if topic in ("permission", "question"):
        return _request(replace(known, source=Source.BUS), topic, verb, properties, at)
    if _text(properties, "sessionID") in known.parts:
        return known
    if kind.startswith("message.part."):
        return known if known.statuses else _works(known, at)
    status = _object(properties, "status")
    match kind, _text(status, "type"):
        case "session.status", "busy":
            return _works(replace(known, statuses=True), at)
        case "session.status", "retry":
            return _works(replace(known, statuses=True), at, _text(status, "message"))
        case ("session.status", "idle") | ("session.idle", _):
            return _stops(known, "turn_finished", at)
        case "session.aborted", _:
            return _stops(known, "interrupted", at)
        case "session.error", _:
            error = _object(properties, "error")
            if _text(error, "name") == _ABORTED:
                return _stops(known, "interrupted", at)
            told = (_text(_object(error, "data"), "message"), _text(properties, "message"), _text(error, "name"))
            words = next(filter(None, told), "")
            return _stops(known, "error", at, words)
    return known


def _works(known: Known, at: float, message: str = "") -> Known:
    known = replace(known, source=Source.BUS)
    return known if known.now.state == WAITING else activity.work(known, at, message)


def _stops(known: Known, reason: str, at: float, message: str = "") -> Known:
    """One end is told in up to three ways, and in any order: why it ended counts more than that it did."""
    now = known.now
    if known.source is Source.BUS and now.state == IDLE:
        if reason == "turn_finished" or now.reason != "turn_finished":
            return known
        at = now.since
    return activity.stop(replace(known, source=Source.BUS), reason, at, message)


def _request(known: Known, topic: str, verb: str, properties: Mapping[str, Any], at: float) -> Known:
    if verb in ("asked", "updated"):
        words = _question(properties) if topic == "question" else _permission(properties)
        request = (_text(properties, "id"), topic, words or None)
        others = tuple(other for other in known.requests if other[0] != request[0])
        return _waits(replace(known, requests=(*others, request)[-REQUESTS_LIMIT:]), at)
    if verb in ("replied", "rejected"):
        answered = _text(properties, "requestID") or _text(properties, "permissionID") or _text(properties, "id")
        left = tuple(request for request in known.requests if request[0] != answered)
        if left != known.requests:
            return _waits(replace(known, requests=left), at)
    return known


def _waits(known: Known, at: float) -> Known:
    """For the answer to the oldest request; it works on once there is none left."""
    if not known.requests:
        return activity.work(known, at) if known.now.state == WAITING else known
    _, reason, message = known.requests[0]
    return activity.wait(known, reason, message, at)


def _related(known: Known, properties: Mapping[str, Any]) -> Known:
    info = _object(properties, "info")
    if _text(info, "parentID") and len(known.parts) < PARTS_LIMIT:
        return replace(known, parts=known.parts | {_text(info, "id")})
    return known


def _permission(properties: Mapping[str, Any]) -> str:
    """`bash: touch zzz`; opencode named the fields otherwise before 1.1."""
    what = _text(properties, "permission") or _text(properties, "type")
    for name in ("patterns", "pattern"):
        value = properties.get(name)
        patterns = value if isinstance(value, list) else [value]
        if words := ", ".join(pattern for pattern in patterns if isinstance(pattern, str)):
            return f"{what}: {words}" if what else words
    return ": ".join(filter(None, (what, _text(properties, "title"))))


def _question(properties: Mapping[str, Any]) -> str:
    questions = properties.get("questions")
    first = questions[0] if isinstance(questions, list) and questions else properties
    return _text(first, "question") if isinstance(first, Mapping) else ""


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, Mapping) else {}

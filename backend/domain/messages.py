"""What is said in a session: bounds on it, how it is kept, replayed and summed up (LAP REST 3.6-3.9).

A message is `{"info": {"id", "role", "time": {"created", "completed"?} (ms), "error"?, ...}, "parts": [...]}` as the
harnesses give it (LAP harness 2.2); an event is `{"type", "properties"}` of their bus (LAP harness 2.3).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from backend.domain import clock

Message = Mapping[str, Any]
Part = Mapping[str, Any]

TUI_MESSAGE: Final = "this is a TUI harness — connect to /tty"

IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
MAX_ATTACHMENTS: Final = 10
ATTACHMENT_BYTES: Final = 5_242_880
MAX_BASE64: Final = ATTACHMENT_BYTES * 4 // 3 + 4
MAX_PARTS: Final = 100

PART_TEXT: Final = 100_000
"""Characters kept of a text in the history, and of a tool's input and output."""
MESSAGE_TEXT: Final = 400_000
"""Characters kept of all parts of one message."""
KEPT_MESSAGES: Final = 2_000
KEPT_CHARACTERS: Final = 16_000_000
"""How much history one session keeps; the oldest goes first."""
RESPONSE_TEXT: Final = 200_000
"""Characters of a reply that a session's `response` holds."""
SHORT_RESPONSE: Final = 2_000
"""The same in lists and in the event log."""
REPLAY_TEXT: Final = 200_000
REPLAY_OUTPUT: Final = 2_000
DETAIL_TEXT: Final = 600
TITLE_TEXT: Final = 120
MAX_ENTRIES: Final = 2_000
MAX_WARNINGS: Final = 20
WARNING_TEXT: Final = 1_000

LOCAL: Final = "local_"
"""How ids begin that the platform gives to messages whose id in the harness it does not know."""
PENDING: Final = "pending-"

_PREAMBLE: Final = "<lap_session_id>"
_REPLAY: Final = "<previous_session_history>"
_REPLAY_NOTE: Final = (
    "<system_instructions>The sandbox of this conversation was replaced by a new one. What was said before follows, "
    "for you to know. Do nothing about it now: answer with one short line, and wait.</system_instructions>"
)
_OPAQUE_TEXT: Final = 4_000
_ALWAYS: Final = ("server.connected", "server.heartbeat")


def attachment_fits(content: str) -> bool:
    """Whether the base64 text of an attachment is small enough (LAP REST 3.1)."""
    return len(content) * 0.75 <= ATTACHMENT_BYTES


def image(mime_type: str, content: str) -> dict[str, Any]:
    """The part for an image given as base64."""
    return {"type": "image", "source": {"type": "base64", "media_type": mime_type, "data": content}}


def preamble(session_id: str, base_url: str | None) -> dict[str, Any]:
    """The part before the first message: which session this is, as warm sandboxes are made before there is one."""
    text = f"{_PREAMBLE}{session_id}</lap_session_id>"
    if base_url:
        text += f"\n<lap_session_url>{base_url}/sessions/{session_id}</lap_session_url>"
    return {"type": "text", "text": text}


def takes_preamble(parts: Sequence[Part]) -> bool:
    """Whether a first message may have something before it: not when it is a command of the agent's."""
    return not text_of(parts).lstrip().startswith("/")


def text_of(parts: Iterable[Part]) -> str:
    """The texts of parts, without the preamble, one below the other."""
    texts = (part["text"] for part in parts if part.get("type") == "text" and isinstance(part.get("text"), str))
    return "\n".join(text for text in texts if not text.startswith(_PREAMBLE))


def is_message(value: Any) -> bool:
    """Whether `value` has the shape of a message."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("info"), dict)
        and isinstance(value.get("parts"), list)
        and all(isinstance(part, dict) for part in value["parts"])
    )


def shown(message: Message) -> dict[str, Any] | None:
    """A message as users see it: without the preamble; None when it is the platform's own replay."""
    parts = list(message["parts"])
    if message["info"].get("role") == "user":
        text = text_of(parts)
        if _REPLAY in text and text.startswith(("<system_instructions>", _REPLAY)):
            return None
        begun = [part for part in parts if not str(part.get("text", "")).startswith(_PREAMBLE)]
        # Some harnesses join the texts they get into one.
        parts = begun or [{**part, "text": _without_preamble(str(part.get("text", "")))} for part in parts]
    return {**message, "parts": parts}


def error_of(info: Mapping[str, Any]) -> str | None:
    """What a message says went wrong, on one line; None when nothing did."""
    error = info.get("error")
    if not error:
        return None
    if isinstance(error, dict):
        data = error.get("data")
        error = (data.get("message") if isinstance(data, dict) else None) or error.get("message") or error.get("name")
    return " ".join(str(error).split())[:WARNING_TEXT] or "an error"


def is_final(messages: Sequence[Message]) -> bool:
    """Whether the turn that the last user message began is over."""
    if not messages or messages[-1]["info"].get("role") != "assistant":
        return False
    info = messages[-1]["info"]
    if info.get("error"):
        return True
    completed = isinstance(time := info.get("time"), dict) and time.get("completed")
    return bool(completed) and info.get("finish") not in ("tool-calls", "unknown")


def created_ms(info: Mapping[str, Any]) -> int | None:
    """When a message began, in ms since 1970; None when it does not tell."""
    time = info.get("time")
    created = time.get("created") if isinstance(time, dict) else None
    if isinstance(created, bool) or not isinstance(created, int | float) or not 0 < created < 2**53:
        return None
    return int(created)


def kept(message: Message) -> dict[str, Any]:
    """A message as the history keeps it: images leave a note, long texts are cut."""
    room, parts = MESSAGE_TEXT, []
    for part in message["parts"][: 20 * MAX_PARTS]:
        smaller = _kept_part(part, room)
        room -= len(json.dumps(smaller, ensure_ascii=False))
        if room < 0:
            parts.append({"type": "text", "text": "[the rest of this message is not kept]"})
            break
        parts.append(smaller)
    info = message["info"] if len(json.dumps(message["info"], ensure_ascii=False)) <= PART_TEXT else {}
    names = ("id", "sessionID", "role", "time", "error")
    return {"info": info or {name: message["info"].get(name) for name in names}, "parts": parts}


def response(message: Message) -> dict[str, Any]:
    """What a session's `response` holds of a reply: `{"parts": [{"type": "text", "text"}], "info": {...}}`."""
    room, parts, cut = RESPONSE_TEXT, [], False
    for part in message["parts"]:
        if part.get("type") == "text" and isinstance(part.get("text"), str) and room:
            text = part["text"][:room]
            room -= len(text)
            cut = cut or len(text) < len(part["text"])
            parts.append({"type": "text", "text": text})
    names = ("id", "role", "time", "tokens", "cost")
    info = {name: value for name in names if (value := message["info"].get(name)) is not None}
    if error := error_of(message["info"]):
        info["error"] = {"name": "AgentError", "data": {"message": error}}
    if len(json.dumps(info)) > 2 * SHORT_RESPONSE:
        info = {"id": str(info.get("id"))[:100]}
    return {"parts": parts, "info": info, **({"truncated": True} if cut else {})}


def short(response: Mapping[str, Any]) -> dict[str, Any]:
    """A `response` for lists and the event log; `truncated` tells that there is more."""
    room, parts = SHORT_RESPONSE, []
    for part in response["parts"]:
        if not room:
            break
        parts.append({"type": "text", "text": part["text"][:room]})
        room -= len(parts[-1]["text"])
    whole = sum(len(part["text"]) for part in response["parts"]) <= SHORT_RESPONSE
    return dict(response) if whole else {**response, "parts": parts, "truncated": True}


def replay(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The parts that tell a new sandbox what was said before (LAP REST 3.6); the oldest is left out when it is long."""
    told: list[dict[str, Any]] = []
    room = REPLAY_TEXT
    for message in reversed(messages):
        smaller = {
            "role": message["info"].get("role"),
            "parts": [_replayed_part(part) for part in message["parts"] if part.get("type") in ("text", "tool")],
        }
        room -= len(json.dumps(smaller, ensure_ascii=False))
        if room < 0:
            break
        told.append(smaller)
    text = json.dumps(told[::-1], ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    history = f"{_REPLAY}<msgs>{text}</msgs></previous_session_history>"
    return [{"type": "text", "text": _REPLAY_NOTE}, {"type": "text", "text": history}]


def session_of(event: Mapping[str, Any]) -> str | None:
    """The harness's session that an event is about."""
    properties = event.get("properties")
    if not isinstance(properties, dict):
        return None
    for holder in (properties, properties.get("info"), properties.get("part")):
        if isinstance(holder, dict) and isinstance(holder.get("sessionID"), str):
            return str(holder["sessionID"])
    return None


def concerns(event: Mapping[str, Any], harness_session_id: str) -> bool:
    """Whether a watcher of that session gets the event (LAP REST 3.8)."""
    return event.get("type") in _ALWAYS or session_of(event) == harness_session_id


def is_idle(event: Mapping[str, Any]) -> bool:
    """Whether the event says that a turn is over."""
    return event.get("type") == "session.idle"


def is_progress(event: Mapping[str, Any]) -> bool:
    """Whether the event shows that a turn has begun."""
    if event.get("type") in (*_ALWAYS, "session.idle", "session.updated"):
        return False
    if event.get("type") == "session.status":
        status = event["properties"].get("status")
        return isinstance(status, dict) and status.get("type") != "idle"
    return True


class Gathered:
    """The assistant's parts of the turn that runs, put together from its events."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, Any]] = {}
        self._users: set[str] = set()
        self._room = MESSAGE_TEXT
        self.error: str | None = None

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The parts so far, in the order they began."""
        return [dict(part) for part in self._parts.values() if part.get("type") in ("text", "reasoning", "tool")]

    def take(self, event: Mapping[str, Any]) -> None:
        """Note an event of this session."""
        properties = event.get("properties")
        if not isinstance(properties, dict) or self._room <= 0:
            return
        match event.get("type"):
            case "session.error":
                self.error = error_of({"error": properties.get("error") or properties.get("message") or "an error"})
            case "message.updated" if isinstance(info := properties.get("info"), dict) and info.get("role") == "user":
                user = str(info.get("id"))
                self._users.add(user)
                self._parts = {key: part for key, part in self._parts.items() if part.get("messageID") != user}
            case "message.part.updated" if isinstance(part := properties.get("part"), dict):
                message_id = str(properties.get("messageID") or part.get("messageID"))
                if message_id not in self._users:
                    smaller = _kept_part(part, PART_TEXT)
                    self._room -= len(json.dumps(smaller, ensure_ascii=False)) if part.get("type") == "tool" else 0
                    self._parts[str(part.get("id"))] = {**smaller, "messageID": message_id}
            case "message.part.delta" if isinstance(delta := properties.get("delta"), str):
                kind = "text" if properties.get("field") in (None, "text") else "reasoning"
                fresh = {"type": kind, "text": "", "messageID": str(properties.get("messageID"))}
                part = self._parts.setdefault(str(properties.get("partID")), fresh)
                if fresh["messageID"] not in self._users and isinstance(part.get("text"), str):
                    part["text"] += delta
                    self._room -= len(delta)


def log_entries(session: Mapping[str, Any], messages: Sequence[Message]) -> list[dict[str, Any]]:
    """What happened in a session, one line each (LAP REST 3.9, `log`), oldest first."""
    sandbox = None
    entries: list[dict[str, Any]] = []
    for message in messages:
        info = message["info"]
        at = _iso(created_ms(info)) or session["created_at"]
        of = info.get("sessionID")
        if of and sandbox and of != sandbox:
            entries.append(_entry(f"recovered-{of}", "recovered", at, "Continued in a new sandbox"))
        sandbox = of or sandbox
        entries += _user_entries(message, at) if info.get("role") == "user" else _assistant_entries(message, at)
    entries = entries[-MAX_ENTRIES:]
    entries.insert(0, _entry(f"created-{session['id']}", "created", session["created_at"], "Session created"))
    if session["stopped_at"]:
        reason = session["failure_reason"] or session["status"]
        ended = _entry(f"ended-{session['id']}", "ended", session["stopped_at"], f"Session {session['status']}", reason)
        entries.append(ended | {"status": session["status"]})
    return entries


def _user_entries(message: Message, at: str) -> list[dict[str, Any]]:
    text = text_of(message["parts"])
    return [_entry(str(message["info"].get("id")), "user", at, _line(text) or "(attachments)", text)]


def _assistant_entries(message: Message, at: str) -> list[dict[str, Any]]:
    info, entries = message["info"], []
    for index, part in enumerate(message["parts"]):
        entry_id = str(part.get("id") or f"{info.get('id')}-{index}")
        text = str(part.get("text") or "")
        match part.get("type"):
            case "reasoning" if text:
                entries.append(_entry(entry_id, "thinking", at, _line(text), text))
            case "tool":
                state = part["state"] if isinstance(part.get("state"), dict) else {}
                told = state.get("error") or state.get("output") or state.get("input") or ""
                told = told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
                entry = _entry(entry_id, "tool", at, str(part.get("tool") or "tool")[:TITLE_TEXT], told)
                entries.append(entry | {"status": str(state.get("status") or "")[:40]})
            case "text" if text:
                entries.append(_entry(entry_id, "assistant", at, _line(text), text))
    if error := error_of(info):
        entries.append(_entry(f"{info.get('id')}-error", "response", at, error, error) | {"status": "error"})
    elif entries and entries[-1]["kind"] == "assistant":
        entries[-1]["kind"] = "response"
    if entries and (meta := _meta(info)):
        entries[-1]["meta"] = meta
    return entries


def _meta(info: Mapping[str, Any]) -> str:
    """How long a message took and what it cost, e.g. `1.2s · 186 tok`."""
    told = []
    begun, time = created_ms(info), info.get("time")
    completed = time.get("completed") if isinstance(time, dict) else None
    if begun is not None and isinstance(completed, int | float):
        told.append(f"{max(completed - begun, 0) / 1000:.1f}s")
    tokens = info.get("tokens")
    if isinstance(tokens, dict) and isinstance(tokens.get("output"), int):
        told.append(f"{tokens['output']} tok")
    return " · ".join(told)


def _entry(entry_id: str, kind: str, at: str, title: str, detail: str = "") -> dict[str, Any]:
    entry = {"id": entry_id[:200], "kind": kind, "at": at, "title": title}
    return entry | ({"detail": _cut(detail, DETAIL_TEXT)} if detail else {})


def _line(text: str) -> str:
    return _cut(" ".join(text[: 4 * TITLE_TEXT].split()), TITLE_TEXT)


def _iso(ms: int | None) -> str | None:
    try:
        return None if ms is None else clock.text(datetime.fromtimestamp(ms / 1000, UTC))
    except (OverflowError, OSError, ValueError):
        return None


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _kept_part(part: Part, room: int) -> dict[str, Any]:
    limit = max(min(PART_TEXT, room), 0)
    match part.get("type"):
        case "text" | "reasoning":
            texts = {"text": _cut(str(part.get("text") or ""), limit)}
            return {name: part[name] for name in ("id", "type") if name in part} | texts
        case "tool":
            state = part["state"] if isinstance(part.get("state"), dict) else {}
            smaller = {name: _kept_value(value, limit) for name, value in state.items()}
            return {name: part[name] for name in ("id", "type", "tool", "callID") if name in part} | {"state": smaller}
        case "image" | "file":
            mime = part.get("mime") or (part["source"].get("media_type") if _is_object(part.get("source")) else None)
            return {"type": part["type"], "mime": str(mime)[:100], "omitted": True}
    fits = len(json.dumps(part, ensure_ascii=False)) <= min(_OPAQUE_TEXT, limit)
    return dict(part) if fits else {"type": str(part.get("type"))[:100], "omitted": True}


def _kept_value(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return _cut(value, limit)
    text = json.dumps(value, ensure_ascii=False)
    return value if len(text) <= limit else _cut(text, limit)


def _replayed_part(part: Part) -> dict[str, Any]:
    if part.get("type") == "text":
        return {"type": "text", "text": str(part.get("text") or "")}
    state = part["state"] if _is_object(part.get("state")) else {}
    names = ("status", "input", "output", "error")
    told = {name: _kept_value(state[name], REPLAY_OUTPUT) for name in names if state.get(name) is not None}
    return {"type": "tool", "tool": part.get("tool"), "state": told}


def _without_preamble(text: str) -> str:
    for mark in ("</lap_session_url>\n", "</lap_session_id>\n"):
        if text.startswith(_PREAMBLE) and mark in text:
            return text.partition(mark)[2]
    return text


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)

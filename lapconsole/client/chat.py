"""Talking to a session by messages: its transcript, kept up to date by the event bus, and the sending of one turn.

Transcripts and bus events are those of LAP harness 2.2 and 2.3; the calls are LAP REST 3.7-3.9.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus

from lapconsole.client import feed, urls
from lapconsole.client.asking import QUESTION, Wish
from lapconsole.client.errors import ClientError, PlatformError, Unreachable
from lapconsole.client.models import Json, as_count, as_list, as_object, safe_line, safe_text
from lapconsole.client.platform import Platform

# Harnesses send a heartbeat every 10 to 15 s; a stream silent for longer than this is broken.
IDLE_SECONDS = 45.0
# A turn may wait for the one before it, and may take half an hour itself (LAP REST 3.7).
TURN_SECONDS = 1860.0

MOST_MESSAGES = 5000
MOST_PARTS = 2000
MOST_CHARACTERS = 1_000_000

USER, ASSISTANT, NOTICE = "user", "assistant", "notice"
TEXT, REASONING, TOOL = "text", "reasoning", "tool"

_PREAMBLE = re.compile(r"^(?:<(lap_session_id|lap_session_url|system_instructions)>.*?</\1>\s*)+", re.DOTALL)
_HISTORY = re.compile(r"<previous_session_history>.*?</previous_session_history>\s*", re.DOTALL)

_STOPPED = ("AbortError", "MessageAbortedError")
_WORKING = ("busy", "retry")
_CUT = "\n… cut here: this part is longer than the console keeps"


class TurnFailed(ClientError):
    """The platform took a message, and its turn broke off or could not be begun. `taken` is False for the latter."""

    def __init__(self, message: str, *, taken: bool) -> None:
        super().__init__(message)
        self.taken = taken


@dataclass(slots=True)
class ChatPart:
    """A piece of a message: `kind` is text, reasoning, tool, or another word, for which `text` says what it is.

    Of a tool `status` is pending, running, completed or error; `text` is its output, or why it failed.
    """

    id: str
    kind: str
    text: str = ""
    tool: str = ""
    status: str = ""
    input: Json = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: object, place: int = 0) -> ChatPart | None:
        """Read a part; None for one that says nothing to a person. `place` names one without an id."""
        data = as_object(value)
        kind, id = _string(data, "type"), safe_line(_string(data, "id")) or f"part-{place}"
        if kind in (TEXT, REASONING, "thinking"):
            if data.get("synthetic") is True or data.get("ignored") is True:
                return None
            text = _string(data, "text") or _string(data, "thinking")
            return cls(id, TEXT if kind == TEXT else REASONING, _bounded(_without_preamble(text)))
        if kind == TOOL:
            state = as_object(data.get("state"))
            said = _string(state, "error") or _string(state, "output")
            input, name = as_object(state.get("input")), safe_line(_string(data, "tool")) or "tool"
            return cls(id, TOOL, _bounded(said), name, safe_line(_string(state, "status")), input)
        if kind == "image_count":
            return cls(id, "image", f"{as_count(data.get('count')) or 0} image(s)")
        if kind in ("image", "file"):
            named = _string(data, "filename") or _string(data, "name") or _string(data, "mime")
            return cls(id, "image", safe_line(named)[:200] or kind)
        return None


@dataclass(slots=True)
class ChatMessage:
    """One message of a transcript; `role` is user, assistant or notice. `error` is "" or one line with the cause."""

    id: str
    role: str
    created: datetime | None = None
    completed: datetime | None = None
    error: str = ""
    tokens: int | None = None
    cost: float | None = None
    parts: dict[str, ChatPart] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: object, place: int = 0) -> ChatMessage:
        """Read `{info, parts}`."""
        data = as_object(value)
        info = as_object(data.get("info"))
        message = cls(safe_line(_string(info, "id")) or f"message-{place}", USER)
        message.take_info(info)
        for number, item in enumerate(as_list(data.get("parts"))[:MOST_PARTS]):
            if (part := ChatPart.from_json(item, number)) is not None:
                message.parts[part.id] = part
        return message

    def take_info(self, info: Json) -> None:
        """Take over an `info` object; what it does not say stays."""
        role = _string(info, "role")
        self.role = ASSISTANT if role == ASSISTANT else USER if role == USER else self.role
        time = as_object(info.get("time"))
        self.created = _moment(time.get("created")) or self.created
        self.completed = _moment(time.get("completed")) or self.completed
        tokens = as_count(as_object(info.get("tokens")).get("output"))
        self.tokens = self.tokens if tokens is None else tokens
        cost = info.get("cost")
        if isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < 1e9:
            self.cost = float(cost)
        self.error = error_text(info.get("error")) or self.error

    @property
    def text(self) -> str:
        """Its text parts, as one."""
        return "\n".join(part.text for part in self.parts.values() if part.kind == TEXT and part.text)


class Conversation:
    """A transcript that bus events keep up to date. `working` says whether a turn runs, None where that is unknown."""

    def __init__(self) -> None:
        self.messages: dict[str, ChatMessage] = {}
        self.working: bool | None = None
        self.wishes: dict[str, Wish] = {}
        """What the agent waits for, by id, oldest first."""
        self._notices = 0

    def seed(self, messages: Iterable[ChatMessage], since: Iterable[Json] = ()) -> None:
        """Begin anew with the transcript as read, and the events that came while it was being read.

        Those may be in it already. What replaces a part is harmless then; of what is appended only the rest is.
        """
        kept = list(messages)[-MOST_MESSAGES:]
        self.messages = {message.id: message for message in kept}
        self.working = _unfinished(kept)
        grown: dict[tuple[str, str], str] = {}
        for event in since:
            key = _part_key(event)
            part = self._part(*key) if key is not None else None
            if key is not None and part is not None and event.get("type") == "message.part.delta":
                grown[key] = grown.get(key, "") + _delta(event)
            else:
                if key is not None:
                    grown.pop(key, None)
                self.apply(event)
        for key, text in grown.items():
            if (part := self._part(*key)) is not None:
                part.text = _bounded(part.text + text[overlap(part.text, text) :])

    def apply(self, event: Json) -> str | None:
        """Take over one bus event; gives the id of the message it changed."""
        properties = as_object(event.get("properties"))
        match event.get("type"):
            case "message.updated":
                return self._message_updated(as_object(properties.get("info")))
            case "message.part.updated":
                return self._part_updated(properties)
            case "message.part.delta":
                return self._part_grown(event)
            case "message.removed":
                return self._removed(_string(properties, "messageID"))
            case "session.idle":
                self.working = False
                self.wishes.clear()
            case "session.status":
                status = _string(as_object(properties.get("status")), "type") or _string(properties, "status")
                self.working = status in _WORKING
            case "session.aborted":
                self.working = False
                last = next(reversed(self.messages.values()), None)
                # An answer that was being given says itself that it was stopped.
                return self.note("The turn was stopped.") if last is None or last.role != ASSISTANT else None
            case "session.error":
                return self._failed(properties)
            case "permission.asked" | "question.asked" as type:
                return self._asked(Wish.from_json(type.partition(".")[0], properties))
            case "permission.replied" | "question.replied" | "question.rejected":
                self.wishes.pop(_string(properties, "requestID"), None)
        return None

    def _asked(self, wish: Wish | None) -> str | None:
        if wish is None or wish.id in self.wishes:
            return None
        self.wishes[wish.id] = wish
        what = "asks a question" if wish.kind == QUESTION else "asks for permission"
        return self.note(f"The agent {what}: {wish.words}")

    def note(self, words: str) -> str:
        """Add a line that is no message, such as the cause of an error; gives its id."""
        self._notices += 1
        message = ChatMessage(f"notice-{self._notices}", NOTICE)
        message.parts["0"] = ChatPart("0", TEXT, words)
        self._add(message)
        return message.id

    def _message_updated(self, info: Json) -> str | None:
        id = safe_line(_string(info, "id"))
        if not id:
            return None
        new = id not in self.messages
        message = self._add(ChatMessage(id, USER)) if new else self.messages[id]
        message.take_info(info)
        if message.error:
            self._told_twice(message)
        elif new or message.role == ASSISTANT:  # what was asked is still written to when the turn is over
            self.working = message.completed is None or self.working
        return id

    def _told_twice(self, message: ChatMessage) -> None:
        """Drop the note of an error that the message itself tells now."""
        last = next(reversed(self.messages.values()))
        if last.role == NOTICE and last.text.endswith(message.error):
            del self.messages[last.id]

    def _part_updated(self, properties: Json) -> str | None:
        data = as_object(properties.get("part"))
        message_id = safe_line(_string(properties, "messageID") or _string(data, "messageID"))
        if not message_id:
            return None
        message = self.messages.get(message_id) or self._add(ChatMessage(message_id, ASSISTANT))
        part = ChatPart.from_json(data, len(message.parts))
        if part is None or (part.id not in message.parts and len(message.parts) >= MOST_PARTS):
            return None
        message.parts[part.id] = part
        self._at_work(message)
        return message_id

    def _part_grown(self, event: Json) -> str | None:
        key = _part_key(event)
        if key is None or not (text := _delta(event)):
            return None
        message = self.messages.get(key[0]) or self._add(ChatMessage(key[0], ASSISTANT))
        part = message.parts.get(key[1])
        if part is None:
            if len(message.parts) >= MOST_PARTS:
                return None
            kind = TEXT if _string(as_object(event.get("properties")), "field") in ("", "text") else REASONING
            part = message.parts[key[1]] = ChatPart(key[1], kind)
        if len(part.text) < MOST_CHARACTERS:
            part.text += text
        self._at_work(message)
        return message.id

    def _at_work(self, message: ChatMessage) -> None:
        if message.role == ASSISTANT and message.completed is None:
            self.working = True

    def _removed(self, message_id: str) -> str | None:
        return message_id if self.messages.pop(message_id, None) is not None else None

    def _failed(self, properties: Json) -> str | None:
        self.working = False
        words = error_text(properties.get("error")) or safe_line(_string(properties, "message")) or "the turn failed"
        last = next(reversed(self.messages.values()), None)
        told = last is not None and last.role != USER and (words in (last.error, last.text) or last.error != "")
        return None if told else self.note(f"The turn failed: {words}")

    def _add(self, message: ChatMessage) -> ChatMessage:
        self.messages[message.id] = message
        while len(self.messages) > MOST_MESSAGES:
            self.messages.pop(next(iter(self.messages)))
        return message

    def _part(self, message_id: str, part_id: str) -> ChatPart | None:
        message = self.messages.get(message_id)
        return message.parts.get(part_id) if message is not None else None


# The calls


async def transcript(platform: Platform, session_id: str) -> tuple[ChatMessage, ...]:
    """A session's messages, oldest first; of one that has ended what the platform has kept."""
    rows = await platform.messages(session_id)
    if len(rows) > 100:
        return await asyncio.to_thread(_messages, rows)
    return _messages(rows)


async def follow(
    platform: Platform, session_id: str, *, idle_seconds: float = IDLE_SECONDS
) -> AsyncGenerator[Json, None]:
    """The session's bus events as they happen, whoever caused them; ends when the platform ends the stream.

    The first, "stream.opened", says that from here on nothing is missed. Raises Unreachable when it breaks or falls
    silent. Close it (`aclosing`) when leaving early.
    """
    frames = _frames(platform, "GET", urls.session(session_id, "stream"), {"follow": 1}, None, idle_seconds)
    async with aclosing(frames):
        async for frame in frames:
            yield frame


async def send(
    platform: Platform, session_id: str, text: str, *, idle_seconds: float = TURN_SECONDS
) -> AsyncGenerator[Json, None]:
    """Send one message, and give the bus events of its turn until that is over. It is never sent a second time.

    The first yielded is {"type": "ready"}: the platform has taken it. Raises TurnFailed, PlatformError when it was
    refused, Unreachable when nobody knows whether it arrived.
    """
    path, taken = urls.session(session_id, "message_stream"), False
    frames = _frames(platform, "POST", path, None, {"text": text}, idle_seconds)
    async with aclosing(frames):
        async for frame in frames:
            match frame.get("type"):
                case "ready":
                    taken = True
                    yield frame
                case "harness_event":
                    yield as_object(frame.get("event"))
                case "done":
                    return
                case "error":
                    words = _string(frame, "message")
                    told = safe_line(_string(frame, "detail") or words) or "the platform does not say why"
                    # Before it was handed to the harness nothing has happened that sending again would repeat.
                    raise TurnFailed(told, taken=taken and words not in _NOT_BEGUN)
    raise Unreachable(platform.base_url, "the connection was closed in the middle of a turn")


_NOT_BEGUN = ("harness event stream failed", "prompt_async failed")


async def _frames(
    platform: Platform,
    method: str,
    path: str,
    query: Mapping[str, str | int] | None,
    body: Mapping[str, object] | None,
    idle_seconds: float,
) -> AsyncGenerator[Json, None]:
    """The JSON objects of a stream of server-sent events."""
    headers = feed.STREAM_HEADERS
    stream = platform.stream(path, query=query, headers=headers, method=method, body=body, answer_seconds=idle_seconds)
    async with stream as response:
        if not feed.is_stream(response):
            raise PlatformError(HTTPStatus.NOT_FOUND, "FOREIGN", "the platform answered with no stream of events")
        async with aclosing(feed.read(platform, response, idle_seconds, "stream")) as events:
            async for event in events:
                yield event.data


# Reading


def error_text(error: object) -> str:
    """The cause in an `error` of a message or an event (`{name, data: {message}}` or a text), as one line."""
    if isinstance(error, str):
        return safe_line(error).strip()[:2000]
    data = as_object(error)
    if _string(data, "name") in _STOPPED:
        return "stopped"
    message = _string(as_object(data.get("data")), "message") or _string(data, "message")
    return safe_line(message or _string(data, "name")).strip()[:2000]


def overlap(old: str, new: str) -> int:
    """How many of the first characters of `new` are the last ones of `old`."""
    return next((size for size in range(min(len(old), len(new)), 0, -1) if old.endswith(new[:size])), 0)


def _messages(rows: Sequence[object]) -> tuple[ChatMessage, ...]:
    return tuple(ChatMessage.from_json(row, place) for place, row in enumerate(rows))


def _unfinished(messages: Sequence[ChatMessage]) -> bool | None:
    """Whether a transcript ends in the middle of a turn; None where it does not show."""
    if not messages:
        return False
    last = messages[-1]
    if last.role == ASSISTANT and (last.completed is not None or last.error):
        return False
    return None


def _part_key(event: Json) -> tuple[str, str] | None:
    properties = as_object(event.get("properties"))
    part = as_object(properties.get("part"))
    message_id = _string(properties, "messageID") or _string(part, "messageID")
    part_id = _string(properties, "partID") or _string(part, "id")
    return (safe_line(message_id), safe_line(part_id)) if message_id and part_id else None


def _without_preamble(text: str) -> str:
    """What a person said, without what the platform said before it to the agent (LAP REST 3.6, 3.7)."""
    if not text.startswith("<"):
        return text
    return _PREAMBLE.sub("", _HISTORY.sub("[the conversation so far, told to a new sandbox]\n", text))


def _delta(event: Json) -> str:
    return safe_text(_string(as_object(event.get("properties")), "delta"))


def _string(data: Json, key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _bounded(text: str) -> str:
    text = safe_text(text)
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + _CUT


def _moment(value: object) -> datetime | None:
    """A time in milliseconds, or in ISO 8601."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000, UTC)
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


__all__ = [
    "ASSISTANT",
    "NOTICE",
    "REASONING",
    "TEXT",
    "TOOL",
    "USER",
    "ChatMessage",
    "ChatPart",
    "Conversation",
    "TurnFailed",
    "error_text",
    "follow",
    "overlap",
    "send",
    "transcript",
]

"""Talks to the agent's server behind one harness: messages, events, and what is passed through (LAP harness 2)."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from backend.domain import messages
from backend.services import http1
from backend.services.harness_client import HarnessUnreachable

PROMPT_SECONDS: Final = 60.0
LIST_SECONDS: Final = 60.0
EVENT_SILENCE: Final = 30.0
"""Seconds without a byte on /event, which sends a heartbeat every 10 s, before the link counts as broken."""
PIECE_SECONDS: Final = 1_800.0
"""How long a passed-through call may be silent: it may be a whole turn of the agent's."""
MAX_REPLY: Final = 32 * 1024 * 1024
MAX_LIST: Final = 32 * 1024 * 1024
MAX_EVENT: Final = 8 * 1024 * 1024
MAX_REFUSAL: Final = 64 * 1024
IN_THREAD: Final = 256 * 1024
"""JSON above this size is parsed in a thread, as it would hold up everything else."""


class HarnessRefused(Exception):
    """The harness answers, and refuses; with its status and body."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body
        super().__init__(f"the harness answered {status}: {_reason(body)}")

    @property
    def unknown_session(self) -> bool:
        """Whether it says that it does not know the session (LAP REST 3.7)."""
        return self.status == 404 and _reason(self.body) == "not found"


class NoMessage(Exception):
    """The harness answered something that is no message, as one does that has lost its agent (LAP REST 3.7)."""


class NotDelivered(HarnessUnreachable):
    """The harness could not be reached at all: the agent has got nothing of the call."""


@dataclass(frozen=True, slots=True)
class Target:
    """The agent's session in one sandbox."""

    url: str
    token: str = field(repr=False)
    harness_session_id: str

    @property
    def path(self) -> str:
        """Of the session's calls."""
        return f"{self.url}/session/{self.harness_session_id}"


@dataclass(frozen=True, slots=True)
class Reply:
    """The message that ended a turn, as it came and as it reads."""

    raw: bytes
    message: Mapping[str, Any]


class AgentClient:
    """Calls to agents' servers."""

    def __init__(self) -> None:
        self._connections = http1.Connections()

    def close(self) -> None:
        """Keep no connection any more."""
        self._connections.close()

    async def message(self, target: Target, body: bytes, seconds: float) -> Reply:
        """Say something and wait for the answer.

        Raises HarnessRefused, NoMessage, HarnessUnreachable, TimeoutError.
        """
        async with asyncio.timeout(seconds):
            status, raw = await self._call("POST", "/message", target, body, MAX_REPLY)
        if status >= 300:
            raise HarnessRefused(status, raw)
        try:
            message = await _parsed(raw)
        except ValueError:
            message = None
        if not messages.is_message(message):
            raise NoMessage("the harness answered something that is no message")
        return Reply(raw, message)

    async def prompt(self, target: Target, body: bytes) -> None:
        """Say something; the answer comes through `events`. Raises HarnessRefused, HarnessUnreachable."""
        try:
            async with asyncio.timeout(PROMPT_SECONDS):
                status, raw = await self._call("POST", "/prompt_async", target, body, MAX_REFUSAL)
        except TimeoutError as error:
            raise _unreachable(error) from error
        if status >= 300:
            raise HarnessRefused(status, raw)

    async def messages(self, target: Target, seconds: float = LIST_SECONDS) -> list[dict[str, Any]]:
        """All that was said in the session, oldest first. Raises HarnessUnreachable."""
        try:
            async with asyncio.timeout(seconds):
                status, raw = await self._call("GET", "/message", target, None, MAX_LIST)
        except TimeoutError as error:
            raise _unreachable(error) from error
        if status != 200:
            raise HarnessUnreachable(f"the harness did not tell its messages: {status} {_reason(raw)}")
        try:
            found = await _parsed(raw)
        except ValueError as error:
            raise HarnessUnreachable("the harness told messages that are no JSON") from error
        if not isinstance(found, list):
            raise HarnessUnreachable("the harness told messages that are no list")
        return [message for message in found if messages.is_message(message)]

    async def abort(self, target: Target, seconds: float = 5.0) -> None:
        """End the turn that runs. Raises HarnessRefused, HarnessUnreachable."""
        try:
            async with asyncio.timeout(seconds):
                status, raw = await self._call("POST", "/abort", target, b"{}", MAX_REFUSAL)
        except TimeoutError as error:
            raise _unreachable(error) from error
        if status >= 300:
            raise HarnessRefused(status, raw)

    @asynccontextmanager
    async def events(self, target: Target) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The events that concern the session, from now on. Raises HarnessUnreachable, also later."""
        headers = _headers(target.token) | {"accept": "text/event-stream"}
        try:
            async with self._connections.stream("GET", f"{target.url}/event", headers, silence=EVENT_SILENCE) as answer:
                if answer.status != 200:
                    raise HarnessUnreachable(f"the harness does not tell its events: {answer.status}")
                yield _events(answer, target.harness_session_id)
        except http1.CallError as error:
            raise _unreachable(error) from error

    @asynccontextmanager
    async def forward(
        self, url: str, token: str, method: str, path: str, body: bytes | None, content_type: str | None
    ) -> AsyncIterator[http1.Answer]:
        """Any call, its answer yet to be read with `pieces`. `path` begins with a slash. Raises HarnessUnreachable."""
        headers = _headers(token) | ({"content-type": content_type} if content_type else {})
        try:
            async with self._connections.stream(method, f"{url}{path}", headers, body, silence=PIECE_SECONDS) as answer:
                yield answer
        except http1.CallError as error:
            raise _unreachable(error) from error

    async def _call(self, method: str, path: str, target: Target, body: bytes | None, limit: int) -> tuple[int, bytes]:
        headers = _headers(target.token) | ({"content-type": "application/json"} if body is not None else {})
        try:
            return await self._connections.call(method, f"{target.path}{path}", headers, body, limit=limit)
        except http1.TooLongError as error:
            raise HarnessUnreachable(f"the harness sent {error}") from error
        except http1.CallError as error:
            raise _unreachable(error) from error


async def pieces(answer: http1.Answer) -> AsyncIterator[bytes]:
    """A passed-through body as it arrives. Raises HarnessUnreachable."""
    try:
        async for piece in answer.pieces:
            yield piece
    except http1.CallError as error:
        raise _unreachable(error) from error


async def _events(answer: http1.Answer, harness_session_id: str) -> AsyncIterator[dict[str, Any]]:
    buffer = b""
    async for chunk in pieces(answer):
        *lines, buffer = (buffer + chunk).split(b"\n")
        if len(buffer) > MAX_EVENT:
            raise HarnessUnreachable(f"the harness sent an event longer than {MAX_EVENT} bytes")
        for line in lines:
            if line.startswith(b"data:") and line.strip() != b"data:":
                event = _event(line[5:])
                if messages.concerns(event, harness_session_id):
                    yield event


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HarnessUnreachable("the harness sent an event that is no JSON") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise HarnessUnreachable("the harness sent an event without a type")
    if not isinstance(event.get("properties"), dict):
        event["properties"] = {}
    return event


async def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw) if len(raw) <= IN_THREAD else await asyncio.to_thread(json.loads, raw)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _headers(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "accept-encoding": "identity"}


def _reason(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        error = body.decode(errors="replace")
    return " ".join(str(error).split())[:500]


def _unreachable(error: Exception) -> HarnessUnreachable:
    what = str(error) or type(error).__name__
    if isinstance(error, http1.NotReachedError):
        return NotDelivered(f"the harness cannot be reached: {what}")
    return HarnessUnreachable(f"the link to the harness broke: {what}")

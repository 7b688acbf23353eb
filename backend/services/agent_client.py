"""Talks to the agent's server behind one harness: messages, events, and what is passed through (LAP harness 2)."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from backend.domain import messages
from backend.services.harness_client import HarnessUnreachable

CONNECT_SECONDS: Final = 5.0
PROMPT_SECONDS: Final = 60.0
LIST_SECONDS: Final = 60.0
EVENT_SILENCE: Final = 30.0
"""Seconds without a byte on /event, which sends a heartbeat every 10 s, before the link counts as broken."""
PIECE_SECONDS: Final = 1_800.0
"""How long a passed-through call may be silent: it may be a whole turn of the agent's."""
KEEP_ALIVE_SECONDS: Final = 15.0
"""How long a connection is kept for the next call: well below the 60 s after which a harness closes it."""
KEPT_CONNECTIONS: Final = 32
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
    """Calls to agents' servers over one pool, which keeps connections for a moment: the next message then is faster."""

    def __init__(self) -> None:
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS, keepalive_expiry=KEEP_ALIVE_SECONDS
        )
        # Harnesses are on loopback or in the cluster: the operator's proxy settings are not for them.
        self._http = httpx.AsyncClient(trust_env=False, limits=limits)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def message(self, target: Target, body: bytes, seconds: float) -> Reply:
        """Say something and wait for the answer.

        Raises HarnessRefused, NoMessage, HarnessUnreachable, TimeoutError.
        """
        try:
            async with asyncio.timeout(seconds):
                response = await self._send("POST", f"{target.path}/message", target, body, seconds)
                raw = await _whole(response, MAX_REPLY)
        except httpx.TransportError as error:
            raise _unreachable(error) from error
        if response.status_code >= 300:
            raise HarnessRefused(response.status_code, raw)
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
                response = await self._send("POST", f"{target.path}/prompt_async", target, body, PROMPT_SECONDS)
                raw = await _whole(response, MAX_REFUSAL)
        except (httpx.TransportError, TimeoutError) as error:
            raise _unreachable(error) from error
        if response.status_code >= 300:
            raise HarnessRefused(response.status_code, raw)

    async def messages(self, target: Target, seconds: float = LIST_SECONDS) -> list[dict[str, Any]]:
        """All that was said in the session, oldest first. Raises HarnessUnreachable."""
        try:
            async with asyncio.timeout(seconds):
                response = await self._send("GET", f"{target.path}/message", target, None, seconds)
                raw = await _whole(response, MAX_LIST)
        except (httpx.TransportError, TimeoutError) as error:
            raise _unreachable(error) from error
        if response.status_code != 200:
            raise HarnessUnreachable(f"the harness did not tell its messages: {response.status_code} {_reason(raw)}")
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
                response = await self._send("POST", f"{target.path}/abort", target, b"{}", seconds)
                raw = await _whole(response, MAX_REFUSAL)
        except (httpx.TransportError, TimeoutError) as error:
            raise _unreachable(error) from error
        if response.status_code >= 300:
            raise HarnessRefused(response.status_code, raw)

    @asynccontextmanager
    async def events(self, target: Target) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The events that concern the session, from now on. Raises HarnessUnreachable, also later."""
        timeout = httpx.Timeout(CONNECT_SECONDS, read=EVENT_SILENCE)
        headers = _headers(target.token) | {"accept": "text/event-stream"}
        try:
            async with self._http.stream("GET", f"{target.url}/event", headers=headers, timeout=timeout) as response:
                if response.status_code != 200:
                    raise HarnessUnreachable(f"the harness does not tell its events: {response.status_code}")
                yield _events(response, target.harness_session_id)
        except httpx.TransportError as error:
            raise _unreachable(error) from error

    @asynccontextmanager
    async def forward(
        self, url: str, token: str, method: str, path: str, body: bytes | None, content_type: str | None
    ) -> AsyncIterator[httpx.Response]:
        """Any call, its answer yet to be read. `path` begins with a slash. Raises HarnessUnreachable."""
        headers = _headers(token) | ({"content-type": content_type} if content_type else {})
        timeout = httpx.Timeout(CONNECT_SECONDS, read=PIECE_SECONDS)
        try:
            request = self._http.build_request(method, f"{url}{path}", content=body, headers=headers, timeout=timeout)
            response = await self._http.send(request, stream=True)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise _unreachable(error) from error
        try:
            yield response
        finally:
            await response.aclose()

    async def _send(self, method: str, url: str, target: Target, body: bytes | None, seconds: float) -> httpx.Response:
        request = self._http.build_request(
            method,
            url,
            content=body,
            headers=_headers(target.token) | ({"content-type": "application/json"} if body is not None else {}),
            timeout=httpx.Timeout(seconds, connect=CONNECT_SECONDS),
        )
        return await self._http.send(request, stream=True)


async def pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """A passed-through body as it arrives. Raises HarnessUnreachable."""
    try:
        async for piece in response.aiter_raw():
            yield piece
    except httpx.TransportError as error:
        raise _unreachable(error) from error


async def _events(response: httpx.Response, harness_session_id: str) -> AsyncIterator[dict[str, Any]]:
    buffer = b""
    try:
        async for chunk in response.aiter_raw():
            *lines, buffer = (buffer + chunk).split(b"\n")
            if len(buffer) > MAX_EVENT:
                raise HarnessUnreachable(f"the harness sent an event longer than {MAX_EVENT} bytes")
            for line in lines:
                if line.startswith(b"data:") and line.strip() != b"data:":
                    event = _event(line[5:])
                    if messages.concerns(event, harness_session_id):
                        yield event
    except httpx.TransportError as error:
        raise _unreachable(error) from error


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


async def _whole(response: httpx.Response, limit: int) -> bytes:
    """The body, and the connection free for the next call."""
    body = bytearray()
    try:
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > limit:
                raise HarnessUnreachable(f"the harness sent more than {limit} bytes")
    finally:
        await response.aclose()
    return bytes(body)


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
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL):
        return NotDelivered(f"the harness cannot be reached: {what}")
    return HarnessUnreachable(f"the link to the harness broke: {what}")

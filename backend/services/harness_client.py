"""Talks to the harness program of one sandbox (wire contract: backend/harness/server.py)."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from backend.domain import activity, terminal
from backend.services import http1

PROBE_TIMEOUT = 3.0
HAND_OVER_TIMEOUT = 60.0
WATCH_SILENCE = 30.0
"""Seconds without a byte on /watch, which sends a keepalive every 10 s, before the link counts as broken."""
MAX_STATE_BYTES = 256 * 1024
FETCH_SILENCE = 10.0
"""Seconds the harness may take for an answer, and for each piece of it."""
MAX_REFUSAL_BYTES = 64 * 1024
MAX_VIEWERS = 10_000


class HarnessUnreachable(Exception):
    """The harness did not answer, or not as its contract says; the text names what happened."""


class HarnessHasNone(Exception):
    """The harness answers, but does not have what was asked for."""


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """A phase the harness has entered, with its detail."""

    phase: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class HarnessState:
    """One frame of /watch. `setup` is waiting, running, done or failed; `failure` says why it failed.

    `terminal` and `attached` are as in domain.terminal, `activity` as in domain.activity; None when the harness does
    not tell.
    """

    setup: str = "waiting"
    phases: tuple[PhaseReport, ...] = ()
    detail: str | None = None
    failure: str | None = None
    viewers: int = 0
    agent: dict[str, Any] = field(default_factory=dict)
    terminal: dict[str, Any] | None = None
    attached: list[dict[str, Any]] | None = None
    activity: dict[str, Any] | None = None
    session: str | None = None
    """The id by which the agent's server knows the session, once the set-up is done; None for a terminal."""

    @property
    def works(self) -> bool:
        """Whether the set-up is done and the agent runs."""
        return self.setup == "done" and bool(self.agent.get("running"))

    @classmethod
    def from_json(cls, data: Any) -> "HarnessState":
        if not isinstance(data, dict):
            raise HarnessUnreachable("the harness sent a state that is no object")
        phases = tuple(
            PhaseReport(str(entry["phase"]), entry.get("detail"))
            for entry in data.get("phases") or ()
            if isinstance(entry, dict) and "phase" in entry
        )
        viewers = data.get("viewers")
        return cls(
            setup=str(data.get("setup", "waiting")),
            phases=phases,
            detail=data.get("phase_detail"),
            failure=data.get("failure"),
            viewers=min(max(viewers, 0), MAX_VIEWERS) if isinstance(viewers, int) else 0,
            agent=data.get("agent") or {},
            terminal=terminal.terminal(data.get("terminal")),
            attached=terminal.attached(data.get("attached")),
            activity=activity.shown(data.get("activity")),
            session=_session_id(data.get("session")),
        )


class HarnessClient:
    """Calls to harnesses. Each on a connection of its own: between two of them there is more time than one is kept."""

    def __init__(self) -> None:
        self._connections = http1.Connections(kept=0)

    async def healthy(self, url: str) -> bool:
        """Whether the harness answers. Any status below 500 counts (LAP REST 4.3)."""
        try:
            status, _ = await self._call("GET", f"{url}/healthz", None)
        except http1.CallError:
            return False
        return status < 500

    async def state(self, url: str, token: str) -> HarnessState:
        """The present state. Raises HarnessUnreachable, also when the token is wrong."""
        try:
            status, body = await self._call("GET", f"{url}/state", token)
        except http1.CallError as error:
            raise HarnessUnreachable(f"the harness does not tell its state: {error}") from error
        if status != 200:
            raise HarnessUnreachable(f"the harness refused to tell its state with {status}")
        try:
            return HarnessState.from_json(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise HarnessUnreachable("the harness sent a state that is no JSON") from error

    async def open_session(self, url: str, token: str, body: dict[str, Any]) -> str:
        """Hand over what the session needs, which starts the set-up. Returns the harness's own session id."""
        data = await asyncio.to_thread(_encoded, body)  # up to 32 MB
        try:
            status, told = await self._call("POST", f"{url}/session", token, data, seconds=HAND_OVER_TIMEOUT)
        except http1.CallError as error:
            raise HarnessUnreachable(f"the harness did not take the session: {error}") from error
        if status != 200:
            raise HarnessUnreachable(f"the harness refused the session with {status}: {_reason(told)}")
        try:
            return str(json.loads(told)["id"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise HarnessUnreachable("the harness answered without a session id") from error

    async def abort(self, url: str, token: str, harness_session_id: str, timeout: float = 5.0) -> None:
        """Ask the agent to stop what it does. Best effort."""
        with suppress(http1.CallError):
            await self._call("POST", f"{url}/session/{harness_session_id}/abort", token, b"{}", seconds=timeout)

    @asynccontextmanager
    async def fetch(
        self, url: str, token: str, path: str, params: dict[str, str], max_bytes: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a GET, piece by piece. Raises HarnessHasNone for a 404, else HarnessUnreachable, also later."""
        target = f"{url}{path}?{urlencode(params)}" if params else f"{url}{path}"
        try:
            async with self._connections.stream("GET", target, _headers(token), silence=FETCH_SILENCE) as answer:
                if answer.status != 200:
                    reason = await _refusal(answer)
                    if answer.status == 404:
                        raise HarnessHasNone(reason)
                    raise HarnessUnreachable(f"the harness refused {path} with {answer.status}: {reason}")
                yield _pieces(answer, max_bytes)
        except http1.CallError as error:
            raise HarnessUnreachable(f"the harness did not answer {path}: {error}") from error

    @asynccontextmanager
    async def watch(self, url: str, token: str) -> AsyncIterator[AsyncIterator[HarnessState]]:
        """The harness's states, the present one first; ends or raises HarnessUnreachable when the link breaks."""
        try:
            async with self._connections.stream(
                "GET", f"{url}/watch", _headers(token), silence=WATCH_SILENCE
            ) as answer:
                if answer.status != 200:
                    raise HarnessUnreachable(f"the harness refused to be watched with {answer.status}")
                yield _states(answer)
        except http1.CallError as error:
            raise HarnessUnreachable(f"the link to the harness broke: {error}") from error

    async def _call(
        self, method: str, url: str, token: str | None, body: bytes | None = None, *, seconds: float = PROBE_TIMEOUT
    ) -> tuple[int, bytes]:
        headers = _headers(token) | ({"content-type": "application/json"} if body is not None else {})
        try:
            async with asyncio.timeout(seconds):
                return await self._connections.call(method, url, headers, body, limit=MAX_STATE_BYTES)
        except TimeoutError:
            raise http1.CallError(f"no answer within {seconds:g} s") from None


def _session_id(told: Any) -> str | None:
    """An id that can stand in a path; None for anything else."""
    return told if isinstance(told, str) and re.fullmatch(r"[A-Za-z0-9_.~-]{1,200}", told) else None


async def _states(answer: http1.Answer) -> AsyncIterator[HarnessState]:
    buffer = b""
    async for chunk in answer.pieces:
        *lines, buffer = (buffer + chunk).split(b"\n")
        if len(buffer) > MAX_STATE_BYTES:
            raise HarnessUnreachable(f"the harness sent a state longer than {MAX_STATE_BYTES} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                try:
                    state = json.loads(line[5:])
                except (ValueError, RecursionError) as error:
                    raise HarnessUnreachable("the harness sent a state that is no JSON") from error
                yield HarnessState.from_json(state)


async def _pieces(answer: http1.Answer, max_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    try:
        async for piece in answer.pieces:
            size += len(piece)
            if size > max_bytes:
                raise HarnessUnreachable(f"the harness sent more than {max_bytes} bytes")
            yield piece
    except http1.CallError as error:
        raise HarnessUnreachable(f"the link to the harness broke: {error}") from error


async def _refusal(answer: http1.Answer) -> str:
    body = b""
    async for piece in answer.pieces:
        body += piece
        if len(body) > MAX_REFUSAL_BYTES:
            break
    return _reason(body)


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body.decode(errors="replace")[:500]


def _encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _headers(token: str | None) -> dict[str, str]:
    plain = {"accept-encoding": "identity"}
    return plain if token is None else {"authorization": f"Bearer {token}", **plain}

"""Talks to the harness program of one sandbox (wire contract: backend/harness/server.py)."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from backend.domain import activity, terminal

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
    """Calls to harnesses over one shared connection pool."""

    def __init__(self) -> None:
        # Harnesses are on loopback or in the cluster: the operator's proxy settings are not for them.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._http = httpx.AsyncClient(trust_env=False, limits=limits)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def healthy(self, url: str) -> bool:
        """Whether the harness answers. Any status below 500 counts (LAP REST 4.3)."""
        try:
            response = await self._http.get(f"{url}/healthz", timeout=PROBE_TIMEOUT)
        except httpx.HTTPError:
            return False
        return response.status_code < 500

    async def state(self, url: str, token: str) -> HarnessState:
        """The present state. Raises HarnessUnreachable, also when the token is wrong."""
        try:
            response = await self._http.get(f"{url}/state", headers=_bearer(token), timeout=PROBE_TIMEOUT)
        except httpx.HTTPError as error:
            raise HarnessUnreachable(f"the harness does not tell its state: {_cause(error)}") from error
        if response.status_code != 200:
            raise HarnessUnreachable(f"the harness refused to tell its state with {response.status_code}")
        try:
            return HarnessState.from_json(response.json())
        except ValueError as error:
            raise HarnessUnreachable("the harness sent a state that is no JSON") from error

    async def open_session(self, url: str, token: str, body: dict[str, Any]) -> str:
        """Hand over what the session needs, which starts the set-up. Returns the harness's own session id."""
        try:
            response = await self._http.post(
                f"{url}/session", json=body, headers=_bearer(token), timeout=HAND_OVER_TIMEOUT
            )
        except httpx.HTTPError as error:
            raise HarnessUnreachable(f"the harness did not take the session: {_cause(error)}") from error
        if response.status_code != 200:
            raise HarnessUnreachable(f"the harness refused the session with {response.status_code}: {_text(response)}")
        try:
            return str(response.json()["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise HarnessUnreachable("the harness answered without a session id") from error

    async def abort(self, url: str, token: str, harness_session_id: str, timeout: float = 5.0) -> None:
        """Ask the agent to stop what it does. Best effort."""
        try:
            await self._http.post(
                f"{url}/session/{harness_session_id}/abort", json={}, headers=_bearer(token), timeout=timeout
            )
        except httpx.HTTPError:
            return

    @asynccontextmanager
    async def fetch(
        self, url: str, token: str, path: str, params: dict[str, str], max_bytes: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a GET, piece by piece. Raises HarnessHasNone for a 404, else HarnessUnreachable, also later."""
        timeout = httpx.Timeout(PROBE_TIMEOUT, read=FETCH_SILENCE)
        try:
            async with self._http.stream(
                "GET",
                f"{url}{path}",
                params=params,
                headers={**_bearer(token), "Accept-Encoding": "identity"},
                timeout=timeout,
            ) as response:
                if response.status_code != 200:
                    reason = await _refusal(response)
                    if response.status_code == 404:
                        raise HarnessHasNone(reason)
                    raise HarnessUnreachable(f"the harness refused {path} with {response.status_code}: {reason}")
                yield _pieces(response, max_bytes)
        except httpx.HTTPError as error:
            raise HarnessUnreachable(f"the harness did not answer {path}: {_cause(error)}") from error

    @asynccontextmanager
    async def watch(self, url: str, token: str) -> AsyncIterator[AsyncIterator[HarnessState]]:
        """The harness's states, the present one first; ends or raises HarnessUnreachable when the link breaks."""
        timeout = httpx.Timeout(PROBE_TIMEOUT, read=WATCH_SILENCE)
        try:
            async with self._http.stream("GET", f"{url}/watch", headers=_bearer(token), timeout=timeout) as response:
                if response.status_code != 200:
                    raise HarnessUnreachable(f"the harness refused to be watched with {response.status_code}")
                yield _states(response)
        except httpx.HTTPError as error:
            raise HarnessUnreachable(f"the link to the harness broke: {_cause(error)}") from error


def _session_id(told: Any) -> str | None:
    """An id that can stand in a path; None for anything else."""
    return told if isinstance(told, str) and re.fullmatch(r"[A-Za-z0-9_.~-]{1,200}", told) else None


async def _states(response: httpx.Response) -> AsyncIterator[HarnessState]:
    buffer = b""
    async for chunk in response.aiter_raw():
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


async def _pieces(response: httpx.Response, max_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    try:
        async for piece in response.aiter_raw():
            size += len(piece)
            if size > max_bytes:
                raise HarnessUnreachable(f"the harness sent more than {max_bytes} bytes")
            yield piece
    except httpx.HTTPError as error:
        raise HarnessUnreachable(f"the link to the harness broke: {_cause(error)}") from error


async def _refusal(response: httpx.Response) -> str:
    body = b""
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_REFUSAL_BYTES:
            break
    try:
        return str(json.loads(body)["error"])[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body.decode(errors="replace")[:500]


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _cause(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _text(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return response.text[:500]

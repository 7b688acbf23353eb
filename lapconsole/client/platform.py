"""A platform's REST interface: one method a call, typed answers, errors that say what happened (LAP REST 1-5)."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from lapconsole.client import urls
from lapconsole.client.causes import cause_of, unusable_proxy
from lapconsole.client.diagnosis import Fleet
from lapconsole.client.egress import Interception, Walls, interceptions_from
from lapconsole.client.errors import NOT_LAP, BadInput, PlatformError, Problem, Unreachable, Unsupported, status_line
from lapconsole.client.knowledge import Memory, SkillVersion, memories_from
from lapconsole.client.models import (
    Agent,
    Diagnosis,
    Event,
    EventPage,
    Page,
    Session,
    SessionList,
    Skill,
    agents_from,
    as_count,
    as_list,
    as_object,
    safe_line,
    safe_text,
    sessions_from,
)
from lapconsole.client.nodes import Nodes, PlatformProblem
from lapconsole.client.pool import Pool, PooledSandbox, PoolStats

if TYPE_CHECKING:
    import httpx

PAGE = 200  # the most rows a platform gives at once (LAP REST 2.4, 3.3)

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
TURN_SECONDS = 1860.0  # a turn may take half an hour (LAP REST 3.7)
BRING_UP_SECONDS = 900.0  # restart answers only when the new sandbox is ready (LAP REST 3.6)

_MEGABYTE = 1 << 20
LIST_BYTES = 64 * _MEGABYTE
ANSWER_BYTES = 8 * _MEGABYTE
# A recording ends at 64 MB unless the platform is set otherwise.
RECORDING_BYTES = 72 * _MEGABYTE
RECORDING_SECONDS = 300.0

# JSON above this size is parsed off the event loop.
_PARSE_INLINE_BYTES = 256 * 1024
_MESSAGE_LENGTH = 500
_MAX_PAGES = 500


class Platform:
    """A client of one platform. Nothing is opened before the first call; `aclose` when done.

    Calls raise PlatformError when the platform answers with an error, Unreachable when it does not answer, and
    BadInput for an id that cannot be one. The key goes to this address only: redirects are never followed.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.base_url = urls.base_address(base_url)
        self._key = _checked_key(key)
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Platform({self.base_url!r})"

    async def __aenter__(self) -> Platform:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. A later call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def health(self) -> dict[str, object]:
        """Check that a platform answers and takes the key. Gives its health document, {} where it has none."""
        await self.agents(limit=1)
        try:
            return as_object(await self._call("GET", urls.HEALTH))
        except PlatformError:
            return {}

    async def walls(self) -> Walls:
        """How sandboxes are shut in, as far as the platform tells."""
        try:
            return Walls.from_json(as_object(await self._call("GET", urls.HEALTH)))
        except PlatformError:
            return Walls()

    async def problems(self) -> tuple[PlatformProblem, ...]:
        """What keeps the platform from its work, the oldest first; () also where it does not tell."""
        try:
            rows = _rows(await self._call("GET", urls.PROBLEMS))
        except PlatformError as error:
            if error.status in (404, 405):
                return ()
            raise
        return tuple(one for one in map(PlatformProblem.from_json, rows) if one.message)

    async def nodes(self) -> Nodes:
        """The machines sandboxes run on. Raises Unsupported where the platform does not tell of them."""
        try:
            return Nodes.from_json(await self._call("GET", urls.NODES, limit=LIST_BYTES))
        except PlatformError as error:
            if error.status in (404, 405):
                raise Unsupported("this platform does not tell of nodes") from None
            raise

    # Agents

    async def agents(
        self, limit: int = 50, offset: int = 0, search: str = "", sort: str = "created_at", order: str = "desc"
    ) -> Page[Agent]:
        """Part of the agents. `sort` is created_at, name, harness_id or sessions; `order` asc or desc."""
        query: dict[str, str | int] = {"limit": limit, "offset": offset, "sort": sort, "order": order}
        if search:
            query["search"] = search
        try:
            answer = await self._call("GET", urls.AGENTS, query=query, limit=LIST_BYTES)
        except PlatformError as error:
            if error.status in (404, 405, 501):  # every platform has this list
                raise PlatformError(error.status, NOT_LAP, f"{urls.AGENTS} gives {error.status_line}") from None
            raise
        rows = agents_from(_rows(answer))
        data = as_object(answer)
        total, used_limit, used_offset = (as_count(data.get(key)) for key in ("total", "limit", "offset"))
        return Page(
            rows,
            total=len(rows) if total is None else total,
            limit=limit if used_limit is None else used_limit,
            offset=offset if used_offset is None else used_offset,
        )

    async def all_agents(self) -> list[Agent]:
        """Every agent, newest first."""
        found: dict[str, Agent] = {}
        offset = 0
        for _ in range(_MAX_PAGES):
            page = await self.agents(limit=PAGE, offset=offset)
            found.update((agent.id, agent) for agent in page.rows)
            offset += len(page.rows)
            if not page.rows or offset >= page.total:
                break
        return list(found.values())

    async def agent(self, agent_id: str) -> Agent:
        """One agent."""
        return _agent(await self._call("GET", urls.agent(agent_id)))

    async def create_agent(self, fields: Mapping[str, object]) -> Agent:
        """Create an agent from the fields of LAP REST 2.1."""
        return _agent(await self._call("POST", urls.AGENTS, body=fields))

    async def update_agent(self, agent_id: str, fields: Mapping[str, object]) -> Agent:
        """Change the given fields of an agent (LAP REST 2.5)."""
        return _agent(await self._call("PATCH", urls.agent(agent_id), body=fields))

    async def delete_agent(self, agent_id: str) -> None:
        """Delete an agent and with it all its sessions."""
        await self._call("DELETE", urls.agent(agent_id), seconds=120)

    # Sessions

    async def sessions(self, limit: int = PAGE, agent_id: str | None = None, offset: int = 0) -> tuple[Session, ...]:
        """The newest sessions. Platforms without the `offset` extension ignore it and answer from the start."""
        query: dict[str, str | int] = {"limit": limit}
        if agent_id is not None:
            query["agent_id"] = agent_id
        if offset:
            query["offset"] = offset
        answer = await self._call("GET", urls.SESSIONS, query=query, limit=LIST_BYTES)
        rows = _rows(answer)
        # A platform that knows no limit may give thousands.
        return await asyncio.to_thread(sessions_from, rows) if len(rows) > PAGE else sessions_from(rows)

    async def all_sessions(self) -> SessionList:
        """Every session the platform lists: all of them where it pages, else the newest 200."""
        found: dict[str, Session] = {}
        for _ in range(_MAX_PAGES):
            known = len(found)
            rows = await self.sessions(limit=PAGE, offset=known)
            found.update((session.id, session) for session in rows)
            # A short page is the last one, and one longer than asked for is all there is (LAP REST 3.3).
            if len(rows) != PAGE:
                return SessionList(tuple(found.values()), complete=True)
            if len(found) == known:  # the same rows again: this platform cannot page
                break
        return SessionList(tuple(found.values()), complete=False)

    async def session(self, session_id: str) -> Session:
        """One session."""
        return _session(await self._call("GET", urls.session(session_id)))

    async def create_session(self, agent_id: str, fields: Mapping[str, object] | None = None) -> Session:
        """Start a session of an agent, with the fields of LAP REST 3.1. Returns while it is still coming up."""
        return _session(await self._call("POST", urls.agent_sessions(agent_id), body=fields or {}))

    async def stop_session(self, session_id: str) -> None:
        """End a session and release its sandbox; its row stays, as dead."""
        try:
            await self._call("POST", urls.session(session_id, "stop"))
        except PlatformError as error:
            if error.status not in (404, 405):
                raise
            # Some platforms have no stop; their delete does just that (LAP REST 3.5).
            await self.delete_session(session_id)

    async def delete_session(self, session_id: str) -> None:
        """End a session and remove its sandbox. Done already is no error."""
        await self._call("DELETE", urls.session(session_id))

    async def restart_session(self, session_id: str) -> Session:
        """Give a session a new sandbox. On some platforms this returns only when it is up, minutes later."""
        return _session(await self._call("POST", urls.session(session_id, "restart"), seconds=BRING_UP_SECONDS))

    async def mend_session(self, session_id: str) -> str:
        """Have what is missing around a session's sandbox put back; what was done, in a line.

        Raises Unsupported where the platform cannot.
        """
        try:
            answer = as_object(await self._call("POST", urls.session(session_id, "mend"), seconds=120))
        except PlatformError as error:
            if error.status == 405 or (error.status == 404 and not error.message.endswith(f"{session_id} not found")):
                raise Unsupported("this platform cannot put a Service back: recreate the session") from None
            raise
        did = answer.get("did")
        return safe_line(did) if isinstance(did, str) else ""

    async def sandbox_logs(
        self, session_id: str, *, tail_lines: int | None = None, since_seconds: int | None = None
    ) -> str:
        """The end of a sandbox's log; "" when there is no sandbox. Defaults are the platform's: 500 lines, 600 s."""
        asked = {"tailLines": tail_lines, "sinceSeconds": since_seconds}
        query = {key: value for key, value in asked.items() if value is not None}
        data = await self._bytes("GET", urls.session(session_id, "sandbox_logs"), query=query)
        return safe_text(data.decode("utf-8", errors="replace"))

    async def recording(self, session_id: str) -> bytes:
        """The asciicast of a session's terminal: so far, or whole once it has ended. Raises Unsupported without one."""
        try:
            return await self._bytes(
                "GET", urls.session(session_id, "recording"), seconds=RECORDING_SECONDS, limit=RECORDING_BYTES
            )
        except PlatformError as error:
            if error.status in (404, 405):
                raise Unsupported("nothing of this session is recorded") from None
            raise

    async def diagnose(self, session_id: str) -> Diagnosis:
        """What the platform finds about a session (seed 000)."""
        return Diagnosis.from_json(await self._call("GET", urls.session(session_id, "diagnose"), seconds=60))

    async def fleet(self) -> Fleet:
        """What the platform finds about all its sessions. Raises Unsupported where it looks at one at a time."""
        try:
            return Fleet.from_json(await self._call("GET", urls.DIAGNOSE, seconds=60, limit=LIST_BYTES))
        except PlatformError as error:
            if error.status in (404, 405):
                raise Unsupported("this platform looks at one session at a time") from None
            raise

    # Egress (LAP REST 3.9)

    async def interceptions(self, session_id: str, *, limit: int = 100, agent_id: str = "") -> tuple[Interception, ...]:
        """The newest of what the vault saw of a session. Raises Unsupported where it does not tell."""
        try:
            rows = _rows(await self._call("GET", urls.session(session_id, "interceptions"), query={"limit": limit}))
        except PlatformError as error:
            if error.status in (404, 405) and not error.message.endswith(f"{session_id} not found"):
                raise Unsupported("this platform does not tell what leaves a sandbox") from None
            raise
        return interceptions_from(rows, session_id, agent_id)

    async def vault_keys(self, session_id: str) -> tuple[str, ...]:
        """The names of the credentials that a session's sandbox has stubs of."""
        rows = _rows(await self._call("GET", urls.session(session_id, "vault-keys")))
        return tuple(safe_line(name) for name in rows if isinstance(name, str))

    # Messages (LAP REST 3.7-3.9; streams of them are in lapconsole.client.chat)

    async def messages(self, session_id: str) -> list[object]:
        """A session's transcript, oldest first, as sent; of one that has ended what the platform has kept."""
        return _rows(await self._call("GET", urls.session(session_id, "messages"), seconds=60, limit=LIST_BYTES))

    async def message(self, session_id: str, text: str) -> dict[str, object]:
        """Send one message and wait for the whole answer, `{info, parts}`; also for its turn and through half an hour.

        Raises Unreachable when the link breaks: then nobody knows whether it arrived, and it is not sent again.
        """
        path = urls.session(session_id, "message")
        return as_object(await self._call("POST", path, body={"text": text}, seconds=TURN_SECONDS, limit=LIST_BYTES))

    async def abort(self, session_id: str) -> None:
        """Stop the turn that runs."""
        await self._call("POST", urls.session(session_id, "abort"), body={})

    async def passed(self, method: str, session_id: str, path: str, body: Mapping[str, object] | None = None) -> object:
        """A call of the harness's own, passed through: its answer."""
        return await self._call(method, urls.session(session_id, f"opencode/{path}"), body=body)

    async def skills(self) -> tuple[Skill, ...]:
        """The library of skills."""
        rows = _rows(await self._call("GET", urls.SKILLS, limit=LIST_BYTES))
        return tuple(skill for skill in map(Skill.from_json, rows) if skill.name)

    async def event_log(
        self,
        after: int | None = None,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        types: tuple[str, ...] = (),
        limit: int = 200,
    ) -> EventPage:
        """Past events, oldest first. Raises Unsupported where the platform keeps none."""
        asked: dict[str, str | int | None] = {
            "after": after,
            "session_id": session_id,
            "agent_id": agent_id,
            "types": ",".join(types) or None,
            "limit": limit,
        }
        query = {key: value for key, value in asked.items() if value is not None}
        try:
            answer = as_object(await self._call("GET", urls.EVENT_LOG, query=query, limit=LIST_BYTES))
        except PlatformError as error:
            if error.status in (404, 405):
                raise Unsupported("this platform keeps no event log") from None
            raise
        return EventPage(
            tuple(Event.from_json(item) for item in as_list(answer.get("data"))), as_count(answer.get("next"))
        )

    # Memory (LAP REST 7.1)

    async def memories(self, agent_id: str) -> tuple[Memory, ...]:
        """All an agent remembers, disabled ones too where the platform lists them.

        Never searched on the platform: some count each memory that is found as used.
        """
        found: dict[str, Memory] = {}
        for _ in range(_MAX_PAGES):
            known = len(found)
            query: dict[str, str | int] = {"include_disabled": "true", "limit": PAGE, "offset": known}
            rows = memories_from(
                _rows(await self._call("GET", urls.agent_memory(agent_id), query=query, limit=LIST_BYTES))
            )
            found.update((memory.id, memory) for memory in rows)
            if len(rows) != PAGE or len(found) == known:
                break
        return tuple(found.values())

    async def create_memory(self, agent_id: str, fields: Mapping[str, object]) -> Memory:
        """Have an agent remember something."""
        return Memory.from_json(await self._call("POST", urls.agent_memory(agent_id), body=fields))

    async def update_memory(self, agent_id: str, memory_id: str, fields: Mapping[str, object]) -> Memory:
        """Change the given fields of a memory."""
        return Memory.from_json(await self._call("PATCH", urls.agent_memory(agent_id, memory_id), body=fields))

    async def delete_memory(self, agent_id: str, memory_id: str) -> None:
        """Have an agent forget something."""
        await self._call("DELETE", urls.agent_memory(agent_id, memory_id))

    # Skills (LAP REST 7.2)

    async def skill(self, skill_id: str) -> Skill:
        """One skill of the library."""
        return Skill.from_json(await self._call("GET", urls.skill(skill_id)))

    async def create_skill(self, fields: Mapping[str, object]) -> Skill:
        """Add a skill to the library."""
        return Skill.from_json(await self._call("POST", urls.SKILLS, body=fields))

    async def update_skill(self, skill_id: str, fields: Mapping[str, object]) -> Skill:
        """Change the given fields of a skill; a content that is replaced becomes a version."""
        return Skill.from_json(await self._call("PATCH", urls.skill(skill_id), body=fields))

    async def delete_skill(self, skill_id: str) -> None:
        """Remove a skill from the library."""
        await self._call("DELETE", urls.skill(skill_id))

    async def skill_versions(self, skill_id: str) -> tuple[SkillVersion, ...]:
        """Contents a skill had before, the last replaced one first. Raises Unsupported where none are kept."""
        try:
            rows = _rows(await self._call("GET", urls.skill(skill_id, "versions"), query={"limit": 100}))
        except PlatformError as error:
            if error.status in (404, 405):
                raise Unsupported("this platform does not show former versions") from None
            raise
        return tuple(map(SkillVersion.from_json, rows))

    async def attach_skill(self, agent_id: str, skill_id: str) -> Agent:
        """Append a skill's block to an agent's prompt; the agent as it is then."""
        answer = await self._call("POST", urls.agent_skill(agent_id), body={"skill_id": skill_id})
        return _agent(as_object(answer).get("agent"))

    async def detach_skill(self, agent_id: str, skill_id: str) -> Agent:
        """Take a skill's block out of an agent's prompt; the agent as it is then."""
        answer = await self._call("DELETE", urls.agent_skill(agent_id), query={"skill_id": skill_id})
        return _agent(as_object(answer).get("agent"))

    # The warm pool (LAP REST 6, 7.8)

    async def pool(self) -> Pool:
        """The warm pool. Raises Unsupported where the platform does not tell of it."""
        try:
            stats = as_object(await self._call("GET", urls.ADMIN_STATS)).get("warm_pool")
        except PlatformError as error:
            if error.status in (404, 405):
                raise Unsupported("this platform does not tell of its warm pool") from None
            raise
        try:
            rows = _rows(await self._call("GET", urls.WARM_POOL))
        except PlatformError as error:
            if error.status not in (404, 405):
                raise
            return Pool(PoolStats.from_json(stats), None)
        sandboxes = tuple(one for one in map(PooledSandbox.from_json, rows) if one.id)
        return Pool(PoolStats.from_json(stats), sandboxes)

    async def top_up_pool(self) -> int:
        """Have the pool filled now; how many sandboxes are begun."""
        answer = await self._call("POST", f"{urls.WARM_POOL}/top_up", seconds=120)
        return as_count(as_object(answer).get("provisioned")) or 0

    async def flush_pool(self, agent_id: str | None = None) -> int:
        """Have every sandbox of the pool replaced, or those of one agent; how many go."""
        query = {} if agent_id is None else {"agent_id": agent_id}
        answer = await self._call("POST", f"{urls.WARM_POOL}/flush", query=query, seconds=120)
        return as_count(as_object(answer).get("flushed")) or 0

    # Transport

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: Mapping[str, object] | None = None,
        answer_seconds: float | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """A call whose answer the caller reads as it comes; the caller bounds the time of each read.

        Raises PlatformError for any answer but 2xx, Unreachable when none comes in time or it breaks off.
        """
        seconds = self._answer_seconds if answer_seconds is None else answer_seconds
        client = await self._open()
        with self._failures(seconds):
            request = client.build_request(
                method, path, params=query, headers=headers, json=body, timeout=self._timeout(None)
            )
            async with asyncio.timeout(seconds):
                response = await client.send(request, stream=True)
            try:
                if not response.is_success:
                    async with asyncio.timeout(self._answer_seconds):
                        raise _error(response, await _read(response, ANSWER_BYTES))
                yield response
            finally:
                await response.aclose()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, object] | None = None,
        seconds: float | None = None,
        limit: int = ANSWER_BYTES,
    ) -> object:
        """The JSON of an answer; None for an empty one."""
        data = await self._bytes(method, path, query=query, body=body, seconds=seconds, limit=limit)
        if not data.strip():
            return None
        try:
            return await asyncio.to_thread(json.loads, data) if len(data) > _PARSE_INLINE_BYTES else json.loads(data)
        except (ValueError, RecursionError):
            raise _foreign("the answer is not JSON") from None

    async def _bytes(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, object] | None = None,
        seconds: float | None = None,
        limit: int = ANSWER_BYTES,
    ) -> bytes:
        """The body of a successful answer, of at most `limit` bytes, complete within `seconds`."""
        seconds = self._answer_seconds if seconds is None else seconds
        client = await self._open()
        with self._failures(seconds):
            request = client.build_request(method, path, params=query, json=body, timeout=self._timeout(seconds))
            async with asyncio.timeout(seconds):
                response = await client.send(request, stream=True)
                try:
                    data = await _read(response, limit)
                finally:
                    await response.aclose()
        if not response.is_success:
            raise _error(response, data)
        return data

    def _timeout(self, read_seconds: float | None) -> httpx.Timeout:
        import httpx

        return httpx.Timeout(self._answer_seconds, connect=self._connect_seconds, read=read_seconds)

    @contextmanager
    def _failures(self, seconds: float) -> Iterator[None]:
        """Turns whatever the transport raises into Unreachable."""
        import httpx

        try:
            yield
        except httpx.ConnectTimeout:
            raise Unreachable(self.base_url, f"timed out after {self._connect_seconds:g} s") from None
        except httpx.RemoteProtocolError as error:
            broken_off = str(error).startswith(("peer closed", "Server disconnected"))
            cause = "the connection was closed in the middle of an answer" if broken_off else "the answer is not HTTP"
            raise Unreachable(self.base_url, cause) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unreachable(self.base_url, cause_of(error, f"timed out after {seconds:g} s")) from error

    async def _open(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                # Importing httpx and reading the system's certificates takes long enough to be seen.
                self._client = await asyncio.to_thread(_new_client, self.base_url, self._key)
            return self._client


def _new_client(base_url: str, key: str) -> httpx.AsyncClient:
    import httpx

    try:
        return httpx.AsyncClient(
            base_url=base_url,
            headers={"authorization": f"Bearer {key}", "user-agent": "lapconsole", "accept": "application/json, */*"},
            follow_redirects=False,
            verify=ssl.create_default_context(),
            trust_env=not urls.is_loopback(base_url),
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=4),
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise unusable_proxy(error) from error


async def _read(response: httpx.Response, limit: int) -> bytes:
    """The whole body; raises PlatformError when it is longer than `limit` bytes."""
    data = bytearray()
    async for part in response.aiter_bytes():
        data += part
        if len(data) > limit:
            raise PlatformError(response.status_code, "TOO_LARGE", f"the answer is larger than {limit // _MEGABYTE} MB")
    return bytes(data)


def _error(response: httpx.Response, body: bytes) -> PlatformError:
    """The error an answer carries: `error` may be a string, an array or an object (LAP REST 1.2)."""
    status = response.status_code
    if response.is_redirect:
        target = safe_line(response.headers.get("location", "elsewhere"))[:_MESSAGE_LENGTH]
        return PlatformError(status, "REDIRECT", f"the platform redirects to {target}; use that address instead")
    try:
        data: object = json.loads(body)
    except (ValueError, RecursionError):
        return PlatformError(status, "", _plain(body, response.headers.get("content-type", "")) or status_line(status))
    fields = as_object(data)
    error = fields.get("error", fields.get("detail"))
    issues = _problems(fields.get("issues")) or _problems(error)
    code = fields.get("code")
    return PlatformError(
        status,
        safe_line(code) if isinstance(code, str) else "",
        _message(error) or "; ".join(_told(issue) for issue in issues)[:_MESSAGE_LENGTH] or status_line(status),
        issues,
    )


def _message(error: object) -> str:
    if isinstance(error, dict):
        return _message(error.get("error")) or _message(error.get("message"))
    return safe_line(error).strip()[:_MESSAGE_LENGTH] if isinstance(error, str) else ""


def _problems(entries: object) -> tuple[Problem, ...]:
    problems = []
    for entry in as_list(entries)[:50]:
        fields = as_object(entry)
        path = ".".join(str(part) for part in as_list(fields.get("path")) if isinstance(part, str | int))
        code = fields.get("code")
        message = _message(entry) or _message(fields.get("msg"))
        if message:
            problems.append(Problem(safe_line(path), message, safe_line(code) if isinstance(code, str) else ""))
    return tuple(problems)


def _told(issue: Problem) -> str:
    return f"{issue.path}: {issue.message}" if issue.path else issue.message


def _plain(body: bytes, content_type: str) -> str:
    """The first line of a text answer; nothing of a page meant for a browser."""
    text = body[:4096].decode("utf-8", errors="replace").strip()
    if "html" in content_type or text.startswith("<"):
        return ""
    return safe_line(text.splitlines()[0])[:_MESSAGE_LENGTH] if text else ""


def _foreign(what: str) -> PlatformError:
    return PlatformError(200, NOT_LAP, f"{what}; check that the address is that of a platform")


def _rows(answer: object) -> list[object]:
    """The entries of a list, bare or in the envelope {"data": [...]}."""
    rows = answer.get("data") if isinstance(answer, dict) else answer
    if not isinstance(rows, list):
        raise _foreign("the answer is not a list")
    return rows


def _agent(answer: object) -> Agent:
    agent = Agent.from_json(answer)
    if not agent.id:
        raise _foreign("the answer is not an agent")
    return agent


def _session(answer: object) -> Session:
    session = Session.from_json(answer)
    if not session.id:
        raise _foreign("the answer is not a session")
    return session


def _checked_key(key: str) -> str:
    """The key without surrounding blanks; one a header cannot carry is refused."""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise BadInput("the key holds characters that cannot be sent; copy it again")
    return key

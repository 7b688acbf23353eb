"""Brings one session from `creating` to `ready`: the state machine of the ten phases (seed 000, LAP REST 4)."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.domain import clock, env_vars, phases, repositories, sessions
from backend.sandboxes.contract import Sandbox, SandboxDriver, SandboxError, SandboxSpec, SandboxState
from backend.services.errors import VaultError
from backend.services.harness_client import HarnessClient, HarnessState, HarnessUnreachable

logger = logging.getLogger(__name__)

PROBE_INTERVAL = 0.25
LONGEST_INTERVAL = 1.0
"""Seconds between looks at a sandbox that has been pending for a while: hundreds may be, when a cluster is full."""
DETAIL_SECONDS = 1.0
LOG_LINES_IN_REASON = 12
BEFORE_RUNNING = ("creating_sandbox", "pod_pending")
REASON_LIMIT = 4_000
"""Longest `failure_reason` in characters."""


class BringUpFailed(Exception):
    """The session cannot become ready; the text is its `failure_reason`."""


class Superseded(Exception):
    """The row is no longer this bring-up's to write: the session was stopped, deleted or started again meanwhile."""


@dataclass(frozen=True, slots=True)
class Warm:
    """A sandbox that is set up already."""

    sandbox: Sandbox
    harness_session_id: str


@dataclass(frozen=True, slots=True)
class Launch:
    """What one bring-up needs to know. It holds secrets and lives in memory only."""

    session_id: str
    agent_id: str
    harness_id: str
    sandbox_name: str
    token: str = field(repr=False)
    hand_over: Mapping[str, Any] = field(repr=False)
    """Body of the harness's POST /session."""
    memory_ids: tuple[str, ...] = ()
    """The memories in its prompt, which are used once the session is ready."""
    recording: bool = False
    """Whether the terminal is recorded; what is recorded outlives the sandbox."""
    adopt: Sandbox | None = None
    """A running sandbox that an earlier platform process made for this session."""
    warm: Warm | None = None
    """A sandbox of the warm pool that this session has claimed. `sandbox_name` is for another, should it not work."""


Write = Callable[[Mapping[str, Any], str], Awaitable[bool]]
"""Writes values to the row and an event of the given type if the row still belongs to this bring-up."""


Seal = Callable[[str, str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Makes of a hand-over what the sandbox of that name, of that agent, may see of it. Raises VaultError."""


async def unsealed(_sandbox: str, _agent_id: str, hand_over: Mapping[str, Any]) -> Mapping[str, Any]:
    """All of it: where there is no vault."""
    return hand_over


class BringUp:
    """One attempt to bring up one session."""

    def __init__(
        self,
        launch: Launch,
        driver: SandboxDriver,
        harness: HarnessClient,
        write: Write,
        timeouts: Mapping[str, float],
        total_seconds: float,
        seal: Seal = unsealed,
    ) -> None:
        self._launch = launch
        self._hand_over = launch.hand_over
        self._seal = seal
        self._driver = driver
        self._harness = harness
        self._write = write
        self._timeouts = timeouts
        self._total_seconds = total_seconds
        self._phase = phases.PHASES[0]
        self._detail: str | None = None
        self._detail_at = 0.0

    async def run(self) -> Sandbox:
        """Returns with the row `ready`. Raises BringUpFailed or Superseded; the caller then removes the sandbox."""
        try:
            async with asyncio.timeout(self._total_seconds):
                if self._launch.warm and await self._take_warm(self._launch.warm):
                    return self._launch.warm.sandbox
                await self._seal_hand_over()
                sandbox = self._launch.adopt or await self._create()
                await self._while_alive(self._set_up(sandbox))
        except TimeoutError as error:
            last = f"{self._phase}: {self._detail}" if self._detail else self._phase
            raise BringUpFailed(
                f"creating timeout: not ready after {self._total_seconds:.0f} s, last phase {last}"
            ) from error
        return sandbox

    async def _take_warm(self, warm: Warm) -> bool:
        """Be ready with a sandbox of the warm pool; False when it works no more, with the row as for a cold start."""
        try:
            state = await self._harness.state(warm.sandbox.url, self._launch.token)
            reason = None if state.works else "its agent has ended"
        except HarnessUnreachable as error:
            reason = str(error)
        if reason is None:
            await self._be_ready(state.session or warm.harness_session_id)
            return True
        logger.warning("session %s: warm sandbox %s: %s", self._launch.session_id, warm.sandbox.name, reason)
        await self._update({"task_arn": self._launch.sandbox_name, "sandbox_url": None, "isolation": None})
        try:
            await self._driver.delete(warm.sandbox.name)
        except SandboxError as error:  # the reconciler tries again
            logger.error("sandbox %s: %s", warm.sandbox.name, error)
        return False

    async def _be_ready(self, harness_session_id: str) -> None:
        await self._update(
            {
                "status": sessions.READY,
                "phase": "ready",
                "phase_detail": None,
                "harness_session_id": harness_session_id,
                "ready_at": clock.now(),
            },
            "session.ready",
        )

    async def _seal_hand_over(self) -> None:
        launch = self._launch
        name = launch.adopt.name if launch.adopt else launch.sandbox_name
        try:
            self._hand_over = await self._seal(name, launch.agent_id, launch.hand_over)
        except VaultError as error:
            raise BringUpFailed(str(error)) from error

    async def _create(self) -> Sandbox:
        launch = self._launch
        async with self._in_phase("creating_sandbox") as deadline, self._noting_what_it_waits_for(deadline):
            try:
                sandbox = await self._driver.create(
                    SandboxSpec(
                        name=launch.sandbox_name,
                        session_id=launch.session_id,
                        agent_id=launch.agent_id,
                        harness_id=launch.harness_id,
                        token=launch.token,
                        env=_network_environment(self._hand_over["env"]),
                        repository=_local_repository(self._hand_over),
                    )
                )
            except SandboxError as error:
                raise BringUpFailed(str(error)) from error
        await self._update({"sandbox_url": sandbox.url, "isolation": dict(sandbox.isolation)})
        return sandbox

    async def _set_up(self, sandbox: Sandbox) -> None:
        async with self._in_phase("pod_pending") as deadline, self._noting_what_it_waits_for(deadline):
            intervals = _intervals(LONGEST_INTERVAL)
            while await self._driver.state(sandbox.name) is SandboxState.PENDING:
                await asyncio.sleep(next(intervals))
        await self._enter("pod_running")
        if self._hand_over.get("files"):
            # The files travel in the hand-over and are written before the agent starts; the phase says they are next.
            await self._enter("injecting_files", f"{len(self._hand_over['files'])} files")
        async with self._in_phase("waiting_harness"):
            while not await self._harness.healthy(sandbox.url):
                await asyncio.sleep(PROBE_INTERVAL)
        try:
            async with self._in_phase("harness_ready"):
                harness_session_id = await self._harness.open_session(
                    sandbox.url, self._launch.token, dict(self._hand_over)
                )
            state = await self._follow(sandbox)
        except HarnessUnreachable as error:
            raise BringUpFailed(f"{error}. {await self._last_words()}") from error
        await self._be_ready(state.session or harness_session_id)

    async def _follow(self, sandbox: Sandbox) -> HarnessState:
        """Pass on the phases the harness reports until its set-up is done; its state then."""
        loop = asyncio.get_running_loop()
        limit = self._limit(self._phase)
        seen = 0
        try:
            async with (
                asyncio.timeout(limit) as deadline,
                self._harness.watch(sandbox.url, self._launch.token) as states,
            ):
                async for state in states:
                    for report in state.phases[seen:]:
                        if report.phase in phases.HARNESS_REPORTED:
                            await self._enter(report.phase, report.detail)
                            limit = self._limit(report.phase)
                            deadline.reschedule(loop.time() + limit)
                    seen = len(state.phases)
                    if _done(state):
                        return state
                    await self._note_detail(state.detail)
        except TimeoutError as error:
            raise BringUpFailed(await self._too_long(self._phase, limit)) from error
        raise BringUpFailed(f"the harness closed the link during set-up. {await self._last_words()}")

    async def _note_detail(self, detail: str | None) -> None:
        """Pass on what the harness says within a phase, such as git's progress; not more often than it can be read."""
        now = asyncio.get_running_loop().time()
        if detail and detail != self._detail and now - self._detail_at >= DETAIL_SECONDS:
            self._detail, self._detail_at = detail, now
            await self._update({"phase_detail": detail[: phases.DETAIL_LIMIT]})

    async def _while_alive(self, work: Awaitable[None]) -> None:
        """Run `work`, but fail at once when the sandbox's process ends."""
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self._driver.wait_gone(self._launch.sandbox_name))
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            else:
                raise BringUpFailed(
                    f"the sandbox ended during {self._phase}: {gone.result()}. {await self._last_words()}"
                )
        finally:
            working.cancel()
            gone.cancel()
            await asyncio.gather(working, gone, return_exceptions=True)

    @asynccontextmanager
    async def _in_phase(self, phase: str) -> AsyncIterator[asyncio.Timeout]:
        await self._enter(phase)
        limit = self._limit(phase)
        try:
            async with asyncio.timeout(limit) as deadline:
                yield deadline
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise BringUpFailed(await self._too_long(phase, limit)) from error

    @asynccontextmanager
    async def _noting_what_it_waits_for(self, deadline: asyncio.Timeout) -> AsyncIterator[None]:
        noting = asyncio.create_task(self._note_what_it_waits_for(deadline))
        try:
            yield
        finally:
            noting.cancel()
            await asyncio.gather(noting, return_exceptions=True)  # what it cannot write, the next phase cannot either

    async def _note_what_it_waits_for(self, deadline: asyncio.Timeout) -> None:
        """Tell what keeps the sandbox; the phase's time stands still while whoever runs sandboxes is away."""
        loop = asyncio.get_running_loop()
        limit = self._limit(self._phase)
        for interval in _intervals(min(LONGEST_INTERVAL, limit / 4)):
            await asyncio.sleep(interval)
            if self._driver.away():
                deadline.reschedule(loop.time() + limit)
            await self._note_detail(await self._driver.waiting_for(self._launch.sandbox_name))

    async def _enter(self, phase: str, detail: str | None = None) -> None:
        self._phase = phase
        self._detail, self._detail_at = detail, asyncio.get_running_loop().time()
        detail = detail[: phases.DETAIL_LIMIT] if detail else None
        await self._update({"phase": phase, "phase_detail": detail}, "session.phase")

    async def _update(self, values: Mapping[str, Any], event: str = "session.updated") -> None:
        if not await self._write(values, event):
            raise Superseded

    def _limit(self, phase: str) -> float:
        return self._timeouts.get(phase, phases.DEFAULT_TIMEOUTS.get(phase, self._total_seconds))

    async def _too_long(self, phase: str, limit: float) -> str:
        waiting = await self._driver.waiting_for(self._launch.sandbox_name) if phase in BEFORE_RUNNING else None
        return (
            f"{phase} took longer than {limit:g} s (LAP_PHASE_TIMEOUT_SECONDS_{phase.upper()} sets the limit). "
            f"{f'It waited for this: {waiting}' if waiting else await self._last_words()}"
        )

    async def _last_words(self) -> str:
        log = await self._driver.logs(self._launch.sandbox_name, LOG_LINES_IN_REASON)
        return f"Last lines of its log:\n{log.strip()}" if log.strip() else "Its log is empty."


def _intervals(longest: float) -> Iterator[float]:
    """Seconds until each next look: a fifth of the time so far, as most is over soon."""
    interval = min(PROBE_INTERVAL, longest)
    while True:
        yield interval
        interval = min(interval * 1.2, longest)


def _local_repository(hand_over: Mapping[str, Any]) -> Path | None:
    path = repositories.local_path(hand_over.get("repo_url") or "")
    return Path(path) if path else None


def _network_environment(own: Mapping[str, str]) -> dict[str, str]:
    """The platform's own proxy and certificate settings, for what set-up fetches, unless the sandbox has its `own`."""
    names = {name for name in os.environ if name in env_vars.NETWORK or name.startswith("UV_")}
    if "HTTPS_PROXY" in own:  # all there is to say of proxies is said
        names -= {name for name in names if name.lower().endswith("_proxy")} | {"SSL_CERT_DIR"}
    return {name: os.environ[name] for name in names if name not in own}


def _done(state: HarnessState) -> bool:
    if state.setup == "failed":
        raise BringUpFailed(state.failure or "the harness could not set up the session and did not say why")
    return state.setup == "done"

"""Each change of activity, caused in the real Claude Code and Codex against the loopback model."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.harness.conftest import WAIT, RunningHarness, Tty2
from tests.loopback_model import ERROR, MODEL, LoopbackModel

PASTE_SECONDS = 0.3
"""Codex takes an Enter that comes sooner for a part of what was pasted."""
DIALOG_SECONDS = 1.2
"""A dialog heeds no key that may have been meant for what was there before."""
AGENTS = [("claude-code", "claude"), ("codex", "codex")]

Started = Callable[..., Awaitable["Agent"]]


class Agent:
    """A running agent, a person at its terminal, and each activity that was told."""

    def __init__(self, harness: RunningHarness, harness_id: str, model: LoopbackModel) -> None:
        self.harness = harness
        self.harness_id = harness_id
        self.model = model
        self.told: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self._tty: Tty2
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, **body: Any) -> None:
        self._tasks.append(asyncio.create_task(self._watch()))
        llm = {"base": self.model.url, "key": "sk-loopback"}
        state = await self.harness.ready(harness_id=self.harness_id, command=None, llm=llm, model=MODEL, **body)
        assert state["setup"] == "done", state["failure"]

    async def attach(self) -> None:
        self._tty = await self.harness.attach2()
        self._tasks.append(asyncio.create_task(self._receive()))

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def prompt(self, text: str) -> None:
        await self._tty.type(f"\x1b[200~{text}\x1b[201~")
        await asyncio.sleep(PASTE_SECONDS)
        await self._tty.type("\r")

    async def key(self, key: str) -> None:
        await asyncio.sleep(DIALOG_SECONDS)
        await self._tty.type(key)

    async def until(self, state: str, reason: str | None) -> dict[str, Any]:
        """The next activity told that is like this."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT):
                while True:
                    self._news.clear()
                    for place, told in enumerate(self.told):
                        if (told["state"], told["reason"]) == (state, reason):
                            del self.told[: place + 1]
                            return told
                    await self._news.wait()
        raise AssertionError(f"told instead: {self.told}; the screen: {self._tty.screen.text()}")

    async def settled(self) -> list[dict[str, Any]]:
        """What else is told while nothing happens."""
        await asyncio.sleep(0.5)
        return self.told

    async def _watch(self) -> None:
        last = None
        async with contextlib.aclosing(self.harness.states()) as states:
            async for state in states:
                if (now := state["activity"]) != last:
                    last = now
                    self.told.append(now)
                    self._news.set()

    async def _receive(self) -> None:
        while True:
            await self._tty.receive()


@pytest.fixture
async def start_agent(start: Callable[..., Awaitable[RunningHarness]]) -> AsyncIterator[Started]:
    agents: list[Agent] = []
    async with LoopbackModel() as model:

        async def begin(harness_id: str, **body: Any) -> Agent:
            program = dict(AGENTS)[harness_id]
            if shutil.which(program) is None:
                pytest.skip(f"needs {program}")
            agent = Agent(await start(), harness_id, model)
            agents.append(agent)
            await agent.begin(**body)
            return agent

        yield begin
        for agent in agents:
            await agent.end()


@pytest.mark.parametrize("harness_id", [name for name, _ in AGENTS])
async def test_every_change(start_agent: Started, harness_id: str) -> None:
    agent = await start_agent(harness_id)
    await agent.until("unknown", "started")
    began = await agent.until("idle", "started")
    await agent.attach()
    assert all(told["reason"] == "started" for told in await agent.settled() if told["state"] == "idle")

    await agent.prompt("wait")
    working = await agent.until("working", None)
    assert working["since"] > began["since"]
    async with asyncio.timeout(10):
        while not agent.model.holding:
            await asyncio.sleep(0.02)
    agent.model.release()
    finished = await agent.until("idle", "turn_finished")
    assert finished["since"] > working["since"]

    command = "escalate: touch zzz" if harness_id == "codex" else "tool: touch zzz"
    await agent.prompt(command)
    await agent.until("working", None)
    asking = await agent.until("waiting_for_input", "permission")
    if asking["message"] is None:
        asking = await agent.until("waiting_for_input", "permission")
    assert asking["message"] == "Bash: touch zzz"
    await agent.key("\r")
    answered = await agent.until("working", None)
    assert answered["since"] > asking["since"]
    await agent.until("idle", "turn_finished")

    await agent.prompt(command.replace("zzz", "yyy"))
    await agent.until("waiting_for_input", "permission")
    await agent.key("\x1b")
    await agent.until("idle", "interrupted")

    await agent.prompt("slow")
    await agent.until("working", None)
    await asyncio.sleep(1)
    await agent.key("\x1b")
    await agent.until("idle", "interrupted")

    await agent.prompt("error")
    await agent.until("working", None)
    failed = await agent.until("idle", "error")
    assert harness_id == "codex" or ERROR in failed["message"]

    await agent.prompt("hello again")
    await agent.until("working", None)
    await agent.until("idle", "turn_finished")
    assert await agent.settled() == []

    await agent.key("\x03" if harness_id == "codex" else "\x03\x03")
    exited = await agent.until("idle", "exited")
    assert exited["message"] == "exit code 0"

    await agent.attach()  # Which starts it anew.
    await agent.until("unknown", "started")
    again = await agent.until("idle", "started")
    assert again["since"] > exited["since"]
    os.kill((await agent.harness.state())["agent"]["pid"], signal.SIGKILL)
    crashed = await agent.until("idle", "crashed")
    assert crashed["message"] == "signal 9 (SIGKILL)"


async def test_a_question_of_claude_code(start_agent: Started) -> None:
    agent = await start_agent("claude-code", initial_prompt="ask: tea or coffee")
    asking = await agent.until("waiting_for_input", "question")
    assert asking["message"].startswith("tea or coffee")
    await agent.attach()
    await agent.key("\r")
    await agent.until("working", None)
    await agent.until("idle", "turn_finished")


async def test_a_new_conversation(start_agent: Started) -> None:
    agent = await start_agent("claude-code")
    await agent.until("idle", "started")
    await agent.attach()
    await agent.prompt("hello")
    await agent.until("idle", "turn_finished")
    await agent.prompt("/clear")
    await agent.until("idle", "started")
    assert [told["reason"] for told in await agent.settled()] == []

"""Claude Code behind the claude-agent-sdk: what the SDK tells becomes parts of a turn. Slow to load."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ClaudeSDKClient,
    Message,
    ResultMessage,
    StreamEvent,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from backend.harness.sdk.session import Prompt, Settings
from backend.harness.sdk.turn import Turn

MAX_LINE = 128 * 1024 * 1024
"""Bytes of one message of Claude Code's."""
CLOSE_SECONDS = 3.0
UNFIT_TOOLS = ["AskUserQuestion", "Monitor", "ScheduleWakeup"]
"""Nobody could answer the first; the others begin turns that nobody has asked for."""

_GROWING = {"text_delta": ("text", "text"), "thinking_delta": ("reasoning", "thinking")}
"""Kind of part, and where its text is, by the kind of delta."""
_OPENING: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "reasoning", "text": ""},
}


class Client:
    """One process of Claude Code with one conversation."""

    def __init__(self, settings: Settings, resume: str | None, say: Callable[[str], None]) -> None:
        self.alive = False
        self.conversation = resume
        self._model = settings.model
        self._cost = 0.0
        self._source = ""
        self._turn: Turn | None = None
        self._over = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._sdk = ClaudeSDKClient(
            ClaudeAgentOptions(
                model=settings.model,
                resume=resume,
                cwd=settings.directory,
                permission_mode="bypassPermissions",
                disallowed_tools=UNFIT_TOOLS,
                include_partial_messages=True,
                setting_sources=["user", "project", "local"],
                system_prompt={"type": "preset", "preset": "claude_code"},
                extra_args={"append-system-prompt-file": settings.prompt_file} if settings.prompt_file else {},
                max_buffer_size=MAX_LINE,
                stderr=say,
            )
        )

    async def start(self) -> None:
        """Raises what the SDK raises."""
        await self._sdk.connect()
        self.alive = True
        self._reading = asyncio.create_task(self._read())

    async def ask(self, turn: Turn, prompt: Prompt) -> None:
        """Runs the turn to its end. Raises what the SDK raises."""
        if prompt.model is not None and prompt.model != self._model:
            await self._sdk.set_model(prompt.model)
            self._model = prompt.model
        self._turn = turn
        self._over.clear()
        try:
            await self._sdk.query(_sent(turn.prompt_id, prompt))
            if not self.alive:
                raise ConnectionError("Claude Code ended")
            await self._over.wait()
        finally:
            self._turn = None

    async def interrupt(self) -> None:
        """Asks it to stop the turn. Raises what the SDK raises."""
        await self._sdk.interrupt()

    async def close(self) -> None:
        """Ends the process, and so the turn under way."""
        self.alive = False
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        with suppress(Exception):  # It is to go, in whatever state it is.
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._sdk.disconnect()

    async def _read(self) -> None:
        """Takes all that comes, also between turns: an old message must never be taken for a new turn's."""
        reason = "Claude Code ended"
        try:
            async for message in self._sdk.receive_messages():
                self._take(message)
        except Exception as error:
            reason = str(error) or type(error).__name__
        finally:
            self.alive = False
            if self._turn is not None:
                self._turn.fail("SDKError", reason)
            self._over.set()

    def _take(self, message: Message) -> None:
        turn = self._turn
        if isinstance(message, ResultMessage):
            total = message.total_cost_usd or 0.0
            cost, self._cost = total - self._cost if total >= self._cost else total, total  # `/clear` starts it anew.
            self.conversation = message.session_id
            if turn is not None and _answers(message, turn):
                _finish(turn, message, cost)
                self._over.set()
        elif turn is None or getattr(message, "parent_tool_use_id", None) is not None:
            return  # What sub-agents say is for the one that asked them.
        elif isinstance(message, StreamEvent):
            self._take_piece(turn, message.event)
        elif isinstance(message, AssistantMessage) and message.error is None:
            for block in message.content:
                if part := _part(block):
                    turn.complete(message.message_id or "", part)
        elif isinstance(message, UserMessage) and isinstance(message.content, list):
            for block in message.content:
                if isinstance(block, ToolResultBlock):
                    turn.result(block.tool_use_id, _text(block.content), bool(block.is_error))

    def _take_piece(self, turn: Turn, event: dict[str, Any]) -> None:
        """A piece of the model's answer, as its API streams it."""
        match event:
            case {"type": "message_start", "message": {"id": str(source)}}:
                self._source = source
            case {"type": "content_block_start", "index": int(index), "content_block": {"type": str(kind)} as block}:
                if kind == "tool_use":
                    turn.open(self._source, index, _tool(str(block.get("name")), str(block.get("id")), {}))
                elif kind in _OPENING:
                    turn.open(self._source, index, _OPENING[kind])
            case {"type": "content_block_delta", "index": int(index), "delta": {"type": str(kind)} as delta}:
                if kind in _GROWING:
                    part, key = _GROWING[kind]
                    turn.grow(self._source, index, part, str(delta.get(key, "")))


async def _sent(prompt_id: str, prompt: Prompt) -> AsyncIterator[dict[str, Any]]:
    message = {"role": "user", "content": prompt.blocks}
    yield {"type": "user", "message": message, "parent_tool_use_id": None, "uuid": prompt_id}


def _answers(message: ResultMessage, turn: Turn) -> bool:
    """Whether a result is this turn's: Claude Code may begin a turn of its own before it."""
    known = {message.user_message_uuid, *(message.user_message_uuids or ())} - {None}
    return turn.prompt_id in known or (not known and (message.origin is None or message.origin["kind"] == "human"))


def _finish(turn: Turn, message: ResultMessage, cost: float) -> None:
    usage = message.usage or {}
    cache = {"read": usage.get("cache_read_input_tokens", 0), "write": usage.get("cache_creation_input_tokens", 0)}
    tokens = {"input": usage.get("input_tokens", 0), "output": usage.get("output_tokens", 0), "reasoning": 0}
    facts = {"tokens": tokens | {"cache": cache}, "cost": round(cost, 6)}
    if message.is_error or turn.aborted:
        turn.fail("ResultError", message.result or "; ".join(message.errors or ()) or message.subtype, facts)
    else:
        turn.end(facts)


def _part(block: Any) -> dict[str, Any] | None:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    if isinstance(block, ThinkingBlock):
        return {"type": "reasoning", "text": block.thinking}
    if isinstance(block, ToolUseBlock):
        return _tool(block.name, block.id, block.input)
    return None


def _tool(name: str, call_id: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool", "tool": name, "callID": call_id, "state": {"status": "running", "input": arguments}}


def _text(content: Any) -> str:
    """What a tool gave back, as text."""
    if isinstance(content, list):
        return "\n".join(str(block.get("text", f"[{block.get('type')}]")) for block in content)
    return str(content or "")

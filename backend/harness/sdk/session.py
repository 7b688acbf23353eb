"""A session: its messages, one turn at a time, and the Claude Code that answers. Starts before the SDK is loaded."""

import asyncio
import importlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from backend.harness.sdk.turn import Message, Turn, now

if TYPE_CHECKING:
    from backend.harness.sdk.client import Client

IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
MAX_MESSAGES = 2_000
"""Messages kept; the oldest go."""
MAX_WAITING = 100
"""Turns that may wait for the one under way."""
ABORT_SECONDS = 4.0
"""Time for Claude Code to stop a turn before it is killed."""

_DATA_URL = re.compile(r"data:([a-z/]+);base64,")


class Deleted(Exception):
    """The session is gone, and with it the turns that waited."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the adapter hands over."""

    model: str | None
    prompt_file: str | None
    directory: Path


@dataclass(frozen=True, slots=True)
class Prompt:
    """A user's message, checked: blocks as the model's API takes them. Claude Code finds a command in the last text."""

    blocks: list[dict[str, Any]]
    model: str | None

    @classmethod
    def from_json(cls, body: Any) -> "Prompt":
        """Of `{"parts", "model"?}`; parts that are neither text nor image are left out. Raises ValueError."""
        if not isinstance(body, dict) or not isinstance(body.get("parts"), list):
            raise ValueError("the body must be an object with parts")
        texts, images = [], []
        for part in body["parts"]:
            if not isinstance(part, dict):
                raise ValueError("a part must be an object")
            if part.get("type") == "text" and isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif part.get("type") in ("image", "file"):
                images.append(_image(part))
        blocks = [*images, *({"type": "text", "text": text} for text in texts if text.strip())]
        if not blocks:
            raise ValueError("the message has neither text nor image")
        return cls(blocks, _model(body.get("model")))


class Session:
    """`publish` tells an event's type and properties, to which the session adds its id."""

    def __init__(
        self,
        session_id: str,
        title: str | None,
        settings: Settings,
        publish: Callable[[str, Mapping[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self.id = session_id
        self.title = title
        self.messages: list[Message] = []
        self._settings = settings
        self._publish_anywhere = publish
        self._say = say
        self._turns = asyncio.Lock()
        self._waiting = 0
        self._deleted = False
        self._turn: Turn | None = None
        self._over = asyncio.Event()
        """Set while no turn is under way."""
        self._over.set()
        self._client: Client | None = None
        self._conversation: str | None = None
        """Claude Code's own name for it, by which a new process goes on with it."""
        self._starting = asyncio.create_task(self._prepare())

    @property
    def full(self) -> bool:
        """Whether too many turns wait already."""
        return self._waiting >= MAX_WAITING

    async def ask(self, prompt: Prompt) -> Message:
        """One turn, after those that were asked for before it; the assistant's message. Raises Deleted."""
        self._waiting += 1
        try:
            async with self._turns:
                if self._deleted:
                    raise Deleted
                return await self._answer(prompt)
        finally:
            self._waiting -= 1

    async def abort(self) -> None:
        """Ends the turn under way, and waits for its end."""
        turn, client = self._turn, self._client
        if turn is None:
            return
        turn.aborted = True
        if client is not None:
            with suppress(Exception):  # Whatever it is: a process that cannot be asked to stop is killed.
                async with asyncio.timeout(ABORT_SECONDS):
                    await client.interrupt()
                    await self._over.wait()
                    return
            self._say("Claude Code did not stop its turn: it is killed")
            await client.close()
        await self._over.wait()

    async def close(self) -> None:
        """Ends the turn under way, those that wait, and Claude Code."""
        self._deleted = True
        await self.abort()
        self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    async def _answer(self, prompt: Prompt) -> Message:
        first = not self.messages
        self._add_user(prompt)
        turn = self._turn = Turn(self.id, self._publish)
        self._over.clear()
        self.messages.append(turn.message)
        try:
            self._publish("session.status", {"status": {"type": "busy"}})
            if first:
                self._publish("session.connected", {})
            self._publish("message.updated", {"info": turn.message["info"]})
            client = await self._connected()
            if turn.aborted:
                turn.fail("AbortError", "")
            else:
                await client.ask(turn, prompt)
        except Exception as error:  # The agent's failures are answers, too: the caller finds them in the message.
            turn.fail("SDKError", str(error) or type(error).__name__)
        finally:
            turn.end()
            self._turn = None
            self._over.set()
        return turn.message

    def _add_user(self, prompt: Prompt) -> None:
        message_id = f"user_{uuid4().hex}"
        info = {"id": message_id, "sessionID": self.id, "role": "user", "time": {"created": now()}}
        texts = [block["text"] for block in prompt.blocks if block["type"] == "text"]
        images = len(prompt.blocks) - len(texts)
        found: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts]
        found += [{"type": "image_count", "count": images}] if images else []
        place = {"messageID": message_id, "sessionID": self.id}
        parts = [{"id": f"{message_id}_p{number}"} | place | part for number, part in enumerate(found)]
        self.messages.append({"info": info, "parts": parts})
        del self.messages[:-MAX_MESSAGES]
        self._publish("message.updated", {"info": info})
        for part in parts:
            self._publish("message.part.updated", {"messageID": message_id, "part": part})

    async def _connected(self) -> "Client":
        """Claude Code, started anew if it has ended. Raises what the SDK raises."""
        await asyncio.wait([self._starting])
        if self._client is None or not self._client.alive:
            if self._client is not None:
                self._say("Claude Code has ended: starting it anew")
                self._conversation = self._client.conversation
            await self._start()
        assert self._client is not None
        return self._client

    async def _prepare(self) -> None:
        """Starts Claude Code before the first message needs it. One that cannot be started says so at that."""
        try:
            await self._start()
        except Exception as error:
            self._say(f"Claude Code could not be started ahead: {error}")

    async def _start(self) -> None:
        module = await asyncio.to_thread(importlib.import_module, "backend.harness.sdk.client")
        client: Client = module.Client(self._settings, self._conversation, self._say)
        await client.start()
        self._client = client

    def _publish(self, kind: str, properties: Mapping[str, Any]) -> None:
        self._publish_anywhere(kind, {**properties, "sessionID": self.id})


def _model(asked: Any) -> str | None:
    """The gateway's name for a model; a provider that is not the platform's gateway is a part of that."""
    if asked is None:
        return None
    if not isinstance(asked, dict) or not isinstance(asked.get("modelID"), str):
        raise ValueError("model must have a modelID")
    provider = asked.get("providerID")
    name = asked["modelID"] if provider in (None, "", "litellm") else f"{provider}/{asked['modelID']}"
    return name or None


def _image(part: Mapping[str, Any]) -> dict[str, Any]:
    """An image part of ours, or a file part of opencode's, as the model's API takes it. Raises ValueError."""
    source = part.get("source")
    if part["type"] == "file":
        url = str(part.get("url", ""))
        found = _DATA_URL.match(url)
        source = {"type": "base64", "media_type": found[1], "data": url[found.end() :]} if found else None
    if (
        not isinstance(source, Mapping)
        or source.get("type") != "base64"
        or source.get("media_type") not in IMAGE_TYPES
        or not isinstance(source.get("data"), str)
    ):
        raise ValueError(f"an image needs base64 data of {', '.join(IMAGE_TYPES)}")
    return {"type": "image", "source": {key: source[key] for key in ("type", "media_type", "data")}}

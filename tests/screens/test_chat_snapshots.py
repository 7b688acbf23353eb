"""How a conversation looks at the three sizes, at rest and while the agent works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from textual.pilot import Pilot

from lapconsole.client.chat import ChatMessage
from lapconsole.screens.chat import ChatScreen
from tests.conversation import STARTED, message, text, tool
from tests.screens.scene import NIGHTLY, console, session

SIZES = {"80x24": (80, 24), "120x35": (120, 35), "200x50": (200, 50)}
ROW = session(1, NIGHTLY, "ready", title="Nightly upgrade")

ANSWER = """## What I changed

The nightly job failed because **httpx 0.29** renamed `proxies` to `proxy`. I did three things:

1. Took the new name in `client/session.py`, and kept the old one for *older* releases.
2. Pinned nothing: the range in `pyproject.toml` holds.
   - Tests cover both names.
3. Told the [release notes](https://example.org/notes) of it.

```python
def client(proxy: str | None = None) -> httpx.Client:
    return httpx.Client(**{PROXY: proxy})
```

| Python | before | after |
|--------|--------|-------|
| 3.11   | failed | 214 passed |

> One test is still slow: `test_retries` takes 4 s.
"""
TALK = [
    message("u1", "user", text("The nightly upgrade is red again.\nFind out why, and mend it.")),
    message(
        "m1",
        "assistant",
        {"type": "reasoning", "text": "The job broke with the release of yesterday.\nI look at its log first."},
        tool("Bash", "\n".join(f"line {n}" for n in range(41)), command="gh run view --log-failed | tail -40"),
        tool("Read", "def client", file_path="client/session.py"),
        tool("Edit", "String to replace not found in file.", "error", file_path="client/session.py"),
        tool("Edit", "done", file_path="client/session.py"),
        text(ANSWER),
        tokens={"output": 1842},
        cost=0.0421,
    ),
    message("u2", "user", text("Thanks. Is the slow test ours?")),
    {
        "info": {"id": "m2", "role": "assistant", "time": {"created": STARTED}},
        "parts": [
            {"id": "p1", **tool("Bash", status="running", command="pytest --durations=5 tests/test_retries.py")},
            {"id": "p2", "type": "text", "text": "It is: `test_retries` waits for"},
        ],
    },
]


class Scene:
    """The conversation in one state, and the keys that lead there."""

    def __init__(self, messages: list[dict[str, Any]], *, working: bool = False, keys: tuple[str, ...] = ()) -> None:
        self.messages = messages
        self.working = working
        self.keys = keys


SCENES = {
    "chat": Scene(TALK[:2]),
    "chat-working": Scene(TALK, working=True),
    "chat-unfolded": Scene(TALK[:2], keys=("tab", "p", "p", "space")),
    "chat-new": Scene([]),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SCENES)
def test_looks(snap_compare: Any, monkeypatch: pytest.MonkeyPatch, name: str, size: str) -> None:
    scene = SCENES[name]

    async def follow(*_: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"type": "stream.opened"}
        if scene.working:
            yield {"type": "session.status", "properties": {"status": {"type": "busy"}}}
        await asyncio.Event().wait()

    async def transcript(*_: Any) -> tuple[ChatMessage, ...]:
        await asyncio.sleep(0)
        return tuple(map(ChatMessage.from_json, scene.messages))

    monkeypatch.setattr("lapconsole.screens.chat.follow", follow)
    monkeypatch.setattr("lapconsole.screens.chat.transcript", transcript)

    async def prepare(pilot: Pilot[None]) -> None:
        pilot.app.open_chat(ROW.id)
        async with asyncio.timeout(10):
            while not isinstance(pilot.app.screen, ChatScreen) or pilot.app.screen._link != "live":
                await pilot.pause()
            while scene.working and not pilot.app.screen._conversation.working:
                await pilot.pause()
        await pilot.press(*scene.keys)
        if name == "chat-working":
            pilot.app.screen.prompt.insert("And while you are at it:\nmake it fast")
        await pilot.pause()
        await pilot.pause()

    assert snap_compare(console(rows=[ROW]), terminal_size=SIZES[size], run_before=prepare)

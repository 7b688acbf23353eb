"""What the agent tells past the screen, as it reaches the state and its watchers."""

import asyncio
import base64
import contextlib
import time
from typing import Any

import pytest

from backend.harness.notices import NO_FACTS, Facts, after
from backend.harness.state import State
from backend.harness.text import fit
from lapconsole.terminal.emulator import Emulator
from tests.harness.conftest import RunningHarness, bash


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def facts(stream: str) -> Any:
    """The JSON of what a program tells with `stream`."""
    emulator, state = Emulator(20, 5), State()
    emulator.feed(stream)
    state.terminal, _ = after(NO_FACTS, emulator.take_notices())
    return state.snapshot()["terminal"]


def test_nothing_is_told_at_first() -> None:
    assert facts("text") == {
        "title": "",
        "bell_at": None,
        "notification": None,
        "progress": None,
        "agent_state": None,
    }


@pytest.mark.parametrize(
    ("stream", "notification"),
    [
        ("\x1b]9;hello\x07", {"title": "", "body": "hello"}),
        ("\x1b]777;notify;Title;the body\x1b\\", {"title": "Title", "body": "the body"}),
        ("\x1b]9;" + "x" * 3_000 + "\x07", {"title": "", "body": "x" * 1_024}),
        ("\x1b]9;a\u202eb\x07", {"title": "", "body": "a b"}),
    ],
)
def test_a_notification(stream: str, notification: dict[str, str]) -> None:
    told = facts(stream)["notification"]
    assert told.pop("at").endswith("Z")
    assert told == notification


@pytest.mark.parametrize(
    ("stream", "progress"),
    [
        ("\x1b]9;4;1;37\x07", {"state": "normal", "value": 37}),
        ("\x1b]9;4;3\x07", {"state": "indeterminate", "value": 0}),
        ("\x1b]9;4;2;999\x07", {"state": "error", "value": 100}),
        ("\x1b]9;4;1;50\x07\x1b]9;4;0\x07", {"state": "none", "value": 0}),
        ("\x1b]9;4;7;1\x07", None),
    ],
)
def test_progress(stream: str, progress: dict[str, Any] | None) -> None:
    assert facts(stream)["progress"] == progress


def test_an_agents_state() -> None:
    told = facts(
        f"\x1b]7501;state=blocked:app=claude-code:kind=permission:title={b64('T')}:msg={b64('approve Bash')}\x07"
    )
    state = told["agent_state"]
    assert state.pop("at").endswith("Z")
    assert state == {
        "state": "blocked",
        "app": "claude-code",
        "kind": "permission",
        "title": "T",
        "message": "approve Bash",
    }


@pytest.mark.parametrize("stream", ["\x1b]7501;state=dancing:app=x\x07", "\x1b]7501;app=x\x07", "\x1b]7501;?\x07"])
def test_an_unknown_agents_state_is_none(stream: str) -> None:
    assert facts(stream)["agent_state"] is None


def test_bells_close_together_are_one() -> None:
    now, urgent = after(NO_FACTS, [])
    emulator = Emulator(20, 5)
    emulator.feed("\x07x\x07")
    now, urgent = after(now, emulator.take_notices())
    assert now.bell_at is not None
    assert not urgent
    emulator.feed("\x07")
    assert after(now, emulator.take_notices())[0] == now


def test_the_same_state_again_is_no_news() -> None:
    emulator = Emulator(20, 5)
    emulator.feed("\x1b]7501;state=working:app=codex\x07")
    first, urgent = after(NO_FACTS, emulator.take_notices())
    assert urgent
    emulator.feed("\x1b]7501;state=working:app=codex\x07")
    assert after(first, emulator.take_notices()) == (first, False)
    emulator.feed("\x1b]7501;state=done:app=codex\x07")
    assert after(first, emulator.take_notices())[1]


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("a\n\tb", 9, "a b"),
        ("\x9b31m", 9, "31m"),
        ("x" * 99, 5, "xxxxx"),
        ("\ud800", 5, ""),
        ("👩\u200d💻", 5, "👩\u200d💻"),
    ],
)
def test_texts_are_made_fit(text: str, limit: int, shown: str) -> None:
    assert fit(text, limit) == shown


async def frames(state: State, change: Any) -> list[float]:
    """When frames came, in seconds after `change` was made."""
    loop, at = asyncio.get_running_loop(), []
    began = loop.time()
    stop = state.watch(lambda _: at.append(loop.time() - began))
    change()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await asyncio.Event().wait()
    stop()
    state.close()
    return at[1:]


async def test_watchers_hear_of_what_is_urgent_at_once_and_of_a_flood_of_it_in_between() -> None:
    state = State()

    def tell(number: int) -> None:
        notification = {"title": "", "body": str(number), "at": time.time()}
        state.update(terminal=Facts(notification=notification), urgent=True)

    def change() -> None:
        state.update(columns=55)  # Waits for its time, which the urgent ones do not.
        for number in range(100):
            tell(number)

    at = await frames(state, change)
    assert len(at) == 1
    assert b'"body": "99"' in state.frame()


async def test_the_harness_tells_it_all(harness: RunningHarness) -> None:
    script = (
        r"printf '\033]2;my title\007\007\033]9;look here\007\033]9;4;1;42\007"
        r"\033]7501;state=working:app=codex\033\\'; read -r _; exit 3"
    )
    await harness.ready(command=bash(script))
    state = await harness.until(lambda state: state["terminal"]["agent_state"] is not None)
    terminal = state["terminal"]
    assert (state["title"], terminal["title"]) == ("my title", "my title")
    assert terminal["bell_at"].endswith("Z")
    assert terminal["notification"]["body"] == "look here"
    assert terminal["progress"] == {"state": "normal", "value": 42}
    assert terminal["agent_state"]["state"] == "working"
    tty = await harness.attach2()
    await tty.type("\r")
    await tty.closed()
    ended = (await harness.state())["terminal"]
    assert (ended["progress"], ended["agent_state"]) == (None, None)
    assert ended["title"] == "my title"

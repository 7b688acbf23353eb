"""lap in a real terminal: attaching, detaching, and giving the terminal back as it was."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from tests.cli.commands import LAP, InTerminal, until
from tests.cli.scripted import KEY, SESSION_ID, Script, agent, session

Env = dict[str, str]


def attached(platform: Script, env: Env, size: tuple[int, int] = (80, 24)) -> InTerminal:
    lap = InTerminal(LAP, "coder", env=env, size=size)
    lap.expect("hello from the agent")
    return lap


def assert_whole(lap: InTerminal) -> None:
    """The terminal has its modes back, and nothing a program may have switched on is left."""
    assert lap.mode() == lap.before
    for reset in ("\x1b[?1000l", "\x1b[?2004l", "\x1b[<99u", "\x1b[?25h"):
        assert reset in lap.shown


def test_keys_go_to_the_agent_as_they_are(platform: Script, env: Env) -> None:
    with attached(platform, env) as lap:
        lap.expect("size 80x24")
        lap.type("\x03\x1a\x1c\x11\x1b[A\r{")
        until(lambda: platform.typed == b"\x03\x1a\x1c\x11\x1b[A\r{", "the keys")
        lap.type("a\x04b")
        until(lambda: platform.typed.endswith(b"a\x04b"), "Ctrl-D among other keys")
        lap.type("\x04")
        assert lap.end() == 0
        assert_whole(lap)
        assert "[connection closed code=1000]" in lap.shown and f"lap --resume {SESSION_ID}" in lap.shown
    until(lambda: platform.attached == 0, "the detach")


def test_the_size_follows_the_terminal(platform: Script, env: Env) -> None:
    with attached(platform, env, size=(120, 35)) as lap:
        lap.expect("size 120x35")
        lap.resize((97, 31))
        lap.expect("size 97x31")
        lap.type("\x04")
        assert lap.end() == 0
    # The same size may be told twice, but never another, and none again after it.
    assert [size for size, _ in groupby(platform.sizes)] == [(120, 35), (97, 31)]


@pytest.mark.parametrize(("drawn", "told_again"), [("", False), ("\x1b[?1049h", True)])
def test_the_agents_exit_is_told_again_where_its_screen_has_gone(
    platform: Script, env: Env, drawn: str, told_again: bool
) -> None:
    platform.greeting = f"{drawn}hello from the agent"
    with attached(platform, env) as lap:
        lap.type("exit")
        assert lap.end() == 0
        assert_whole(lap)
        after = lap.shown.rpartition("\x1b[?25h")[2]
        assert ("[bridge] process exited (code=7, signal=0)\r\n" in after) is told_again
        assert "[connection closed code=1000]" in after


@pytest.mark.parametrize(
    ("drawn", "left"),
    [
        ("", False),
        ("\x1b[?1049h", True),
        ("\x1b[?1006;1049h", True),
        ("\x1b[?1049h\x1b[?47l", False),
        ("\x1b[?1049l\x1b[?1h", False),
    ],
)
def test_the_alternate_screen_is_left_if_the_agent_is_on_it(platform: Script, env: Env, drawn: str, left: bool) -> None:
    platform.greeting = f"{drawn}hello from the agent"
    with attached(platform, env) as lap:
        lap.type("\x04")
        assert lap.end() == 0
        assert_whole(lap)
        assert ("\x1b[?1049l" in lap.shown) is left


def test_what_was_on_the_screen_goes_to_the_scrollback(platform: Script, env: Env) -> None:
    with InTerminal(LAP, "coder", env=env, size=(80, 24)) as lap:
        lap.expect("(press Ctrl-D to detach)\r\n")
        lap.expect("\r\n" * 24 + "hello from the agent")
        lap.type("\x04")
        assert lap.end() == 0


def test_an_end_by_signal_leaves_the_terminal_whole(platform: Script, env: Env) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        with attached(platform, env) as lap:
            lap.expect("size 80x24")
            lap.process.send_signal(number)
            assert lap.end() == 128 + number
            assert_whole(lap)
            assert "Traceback" not in lap.shown


def test_modes_are_set_again_after_a_stop(platform: Script, env: Env) -> None:
    with attached(platform, env) as lap:
        lap.expect("size 80x24")
        raw = lap.mode()
        lap.restore()
        lap.process.send_signal(signal.SIGCONT)
        until(lambda: lap.mode() == raw, "the raw mode")
        lap.expect("size 80x24")
        lap.type("\x04")
        assert lap.end() == 0 and lap.mode() == lap.before


def test_an_interrupt_while_it_comes_up(platform: Script, env: Env) -> None:
    platform.readings = [session("creating", "pod_pending")]
    with InTerminal(LAP, "coder", env=env) as lap:
        lap.expect("pod_pending")
        lap.type("\x03")
        assert lap.end() == 130 and f"lap --resume {SESSION_ID}" in lap.shown and "Traceback" not in lap.shown


def test_the_picker(platform: Script, env: Env) -> None:
    platform.agents = [agent(f"agent-{n}") for n in range(60)] + [agent("plain", harness_id="opencode", tui=False)]
    with InTerminal(LAP, env=env) as lap:
        lap.expect("Pick an agent  ↑/↓ to move, Enter to open, q to cancel")
        lap.expect("❯ agent-0 ")
        lap.type("\x1b[B\x1b[B")
        lap.expect("❯ agent-2 ")
        lap.type("k")
        lap.expect("❯ agent-1 ")
        lap.type("\r")
        lap.expect("hello from the agent")
        lap.type("\x04")
        assert lap.end() == 0
    assert platform.asked(f"POST /api/v1/managed_agents/agents/{platform.agents[1]['id']}/session")


def test_the_picker_is_left_without_a_session(platform: Script, env: Env) -> None:
    platform.agents = [agent("one"), agent("two")]
    for key, code in (("q", 0), ("\x1b", 0), ("\x03", 130)):
        with InTerminal(LAP, env=env) as lap:
            lap.expect("❯ one")
            lap.type(key)
            assert lap.end() == code
            assert lap.mode() == lap.before and "\x1b[?25h" in lap.shown
    assert not platform.asked("POST")


def test_a_single_agent_is_opened_without_asking_after_the_first_login(
    env: Env, home: Path, serve: Callable[[Script], Script]
) -> None:
    script = serve(Script())
    with InTerminal(LAP, env=env) as lap:
        lap.expect("No agent platform configured.")
        lap.expect("Agent platform URL:")
        lap.type(f"{script.base}\n")
        lap.expect("Master key:")
        lap.type(f"{KEY}xy\x7f\b\n")
        lap.expect("•" * (len(KEY) + 2))
        lap.expect("✓ saved to")
        lap.expect("hello from the agent")
        lap.type("\x04")
        assert lap.end() == 0
        assert lap.mode() == lap.before
    assert json.loads((home / ".lap" / "config.json").read_text()) == {"base": script.base, "key": KEY}


def test_an_interrupted_login_saves_nothing(env: Env, home: Path) -> None:
    with InTerminal(LAP, "login", env=env) as lap:
        lap.expect("Agent platform URL:")
        lap.type("http://127.0.0.1:1\n")
        lap.expect("Master key:")
        lap.type("abc\x03")
        assert lap.end() == 130
        assert lap.mode() == lap.before and "Traceback" not in lap.shown and "abc" not in lap.shown
    assert not (home / ".lap").exists()

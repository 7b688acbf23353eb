"""The agent's terminal over a WebSocket: frames, sizes, exits, many viewers, floods (LAP harness 1.4-1.6)."""

import asyncio
import hashlib
import os
from typing import Any

import pytest

from lapconsole.terminal.emulator import Emulator
from tests.harness.conftest import WAIT, RunningHarness, Tty, bash


def screen(tty_bytes: str, columns: int = 100, rows: int = 30) -> list[str]:
    emulator = Emulator(columns, rows)
    emulator.feed(tty_bytes)
    return emulator.text()


async def typed(harness: RunningHarness, *frames: str | bytes | list[str]) -> str:
    """What the agent reads, up to a final `!`, when a viewer sends `frames`."""
    await harness.ready(
        command=bash("stty raw -echo; echo ready; IFS= read -r -d '!' keys; printf '[[%s]]' \"$keys\"; sleep 9")
    )
    tty = await harness.attach()
    await tty.until("ready")
    for frame in frames:
        await tty.socket.send(frame)
    await tty.socket.send(b"!")
    return (await tty.until("]]")).partition("[[")[2].removesuffix("]]")


async def test_output_is_text_and_keys_may_be_binary_or_text(harness: RunningHarness) -> None:
    await harness.ready()
    tty = await harness.attach()
    await tty.socket.send(b"echo bin$((1+1))\r")
    await tty.until("bin2")
    await tty.socket.send("echo text$((1+1))\r")
    await tty.until("text2")
    state = await harness.state()
    assert state["viewers"] == 1
    assert state["last_input_at"].endswith("Z")
    assert state["last_output_at"].endswith("Z")


@pytest.mark.parametrize(
    ("frames", "read"),
    [
        ([b'{"type":"ping"}'], '{"type":"ping"}'),
        ([b'{"type":"resize","cols":9,"rows":9}'], '{"type":"resize","cols":9,"rows":9}'),
        (['{"type":"ping"}', "x"], "x"),
        (['{"type":"else"}'], '{"type":"else"}'),
        (["{not json"], "{not json"),
        (["{}"], "{}"),
        (['{"type":["ping"]}'], '{"type":["ping"]}'),
        (["[1] "], "[1] "),
        (['{"type":"resize","cols":"9","rows":9}', "x"], "x"),
        (['{"type":"resize"}', '{"type":"resize","cols":true,"rows":1e999}', "x"], "x"),
        (["", b"", "x"], "x"),
    ],
)
async def test_only_a_text_frame_is_a_control_message(
    harness: RunningHarness, frames: list[str | bytes], read: str
) -> None:
    assert await typed(harness, *frames) == read


async def test_a_fragmented_message_is_one_message(harness: RunningHarness) -> None:
    assert await typed(harness, ["be", "fo", "re"], '{"type":"ping"}') == "before"


@pytest.mark.parametrize(
    ("columns", "rows", "size"),
    [(120, 35, "35 120"), (90.7, 20.2, "20 90"), (0, -5, "1 1"), (10_000, 10_000, "300 500")],
)
async def test_a_resize_is_clamped_and_reaches_the_agent(
    harness: RunningHarness, columns: float, rows: float, size: str
) -> None:
    await harness.ready(command=bash("stty -echo; echo ready; while read -r _; do stty size; done"))
    tty = await harness.attach()
    await tty.until("ready")
    await tty.resize(columns, rows)
    await tty.type("\r")
    expected = [int(word) for word in size.split()]
    await tty.until(size if expected[1] > 4 else "1")
    state = await harness.state()
    assert [state["rows"], state["columns"]] == expected


async def test_the_first_size_is_100_by_30(harness: RunningHarness) -> None:
    await harness.ready()
    tty = await harness.attach()
    await tty.type("echo size-$(stty size)\r")
    await tty.until("size-30 100")


async def test_the_agent_survives_a_detach_and_a_new_viewer_gets_the_present_screen(harness: RunningHarness) -> None:
    state = await harness.ready()
    first = await harness.attach()
    await first.type("printf '\\033[1;32mgre\\303\\244n\\033[0m ✻\\n'; seq 3; echo do''ne\r")
    await first.until("done")
    await first.socket.close()
    await harness.until(lambda state: state["viewers"] == 0)

    second = await harness.attach()
    painted = str(await second.socket.recv())
    rows = [row for row in screen(painted) if row]
    assert "greän ✻" in rows
    assert rows[rows.index("greän ✻") + 1 :][:4] == ["1", "2", "3", "done"]
    assert (await harness.state())["agent"]["pid"] == state["agent"]["pid"]


async def test_a_repaint_never_splits_what_follows_it(harness: RunningHarness) -> None:
    script = "stty raw -echo; printf 'a\\303'; read -rn1 _; printf '\\244\\033[3'; read -rn1 _; printf 1mred; sleep 9"
    await harness.ready(command=bash(script))
    first = await harness.attach()
    await first.until("a")
    second = await harness.attach()
    await second.until("a")
    await first.type("x")
    assert (await second.until("ä")).endswith("ä")
    third = await harness.attach()
    await third.until("aä")
    await first.type("x")
    assert (await third.until("red")).endswith("\x1b[31mred")
    assert (await second.until("red")).endswith("\x1b[31mred")


async def test_two_viewers_see_the_same_and_the_one_who_types_sets_the_size(harness: RunningHarness) -> None:
    await harness.ready()
    big, small = await harness.attach(120, 40), await harness.attach(80, 24)
    await harness.until(lambda state: (state["columns"], state["viewers"]) == (80, 2))
    await small.type("echo by-$((20+20))\r")
    await big.until("by-40")
    await small.until("by-40")
    await big.type("stty size\r")
    await small.until("40 120")
    state = await harness.state()
    assert (state["columns"], state["rows"]) == (120, 40)


async def test_the_agents_questions_are_answered_once_and_not_passed_on(harness: RunningHarness) -> None:
    script = "stty raw -echo; echo ready; read -rn1 _; printf '\\033[5n'; read -rd n reply; printf '[[%q]]' \"$reply\""
    await harness.ready(command=bash(script))
    tty = await harness.attach()
    await tty.until("ready")
    await tty.type("x")
    shown = await tty.until("]]")
    assert "\x1b[5n" not in shown
    assert shown.endswith("[[$'\\E[0']]")  # Once: a second answer would be typed.


@pytest.mark.parametrize(
    ("ending", "code", "number"), [("exit 7", 7, None), ("kill -9 $$", None, 9), ("exit", 0, None)]
)
async def test_the_end_of_the_agent_is_told_and_an_attach_starts_it_anew(
    harness: RunningHarness, ending: str, code: int | None, number: int | None
) -> None:
    state = await harness.ready()
    tty = await harness.attach()
    await tty.type(f"echo last wo''rds; {ending}\r")
    close_code, seen = await tty.closed()
    assert close_code == 1000
    assert "last words" in seen
    assert seen.endswith(f"\r\n\x1b[2m[bridge] process exited (code={code or 0}, signal={number or 0})\x1b[0m\r\n")
    ended = await harness.state()
    assert ended["agent"] == {"running": False, "pid": None, "exit_code": code, "signal": number}
    assert ended["setup"] == "done"
    assert ended["viewers"] == 0

    again = await harness.attach()
    await again.type("echo ag''ain\r")
    assert "last words" not in await again.until("again")
    fresh = await harness.state()
    assert fresh["agent"]["running"]
    assert fresh["agent"]["pid"] != state["agent"]["pid"]


async def test_all_output_comes_before_the_end_also_when_something_keeps_the_terminal_open(
    harness: RunningHarness,
) -> None:
    script = "stty raw -echo; echo ready; read -rn1 _; sleep 99 & seq 20000; exit 5"
    await harness.ready(command=bash(script))
    tty = await harness.attach()
    await tty.until("ready")
    await tty.type("x")
    _, seen = await tty.closed()
    # Who fell behind has only the last of it, by a repaint.
    assert "20000" in "\n".join(screen(seen))
    assert "(code=5, signal=0)" in seen


async def test_a_flood_holds_nobody_up_and_a_stalled_viewer_comes_back_to_the_present(harness: RunningHarness) -> None:
    await harness.ready()
    stalled = await harness.attach()
    await stalled.type("echo in''side\r")
    await stalled.until("inside")
    stalled.socket.transport.pause_reading()
    watching = await harness.attach()
    await watching.type("seq 100000; echo fl''ood over\r")
    await watching.until("flood over")  # The agent is not held up by the viewer that reads nothing.
    await watching.type("echo present-$((1+1))\r")
    await watching.until("present-2")

    stalled.socket.transport.resume_reading()
    seen = await stalled.until("present-2")
    assert len(seen) < 550_000  # Of the flood's 690,000 it missed the middle.
    assert [row for row in screen(seen) if row][-1].endswith("present-2")


async def test_keys_interrupt_a_flood(harness: RunningHarness) -> None:
    await harness.ready()
    tty = await harness.attach()
    await tty.type("yes flood\r")
    await tty.until("flood\r\nflood")
    await tty.type("\x03")
    await tty.type("echo still-$((1+1))\r")
    await tty.until("still-2")


async def test_a_large_paste_arrives_whole(harness: RunningHarness) -> None:
    await harness.ready(command=bash("stty raw -echo; echo ready; head -c 1500000 | md5sum; sleep 9"))
    tty = await harness.attach()
    await tty.until("ready")
    paste = os.urandom(750_000).hex().encode()
    for start in range(0, len(paste), 500_000):
        await tty.socket.send(paste[start : start + 500_000])
    await tty.until(hashlib.md5(paste).hexdigest())


async def test_a_viewer_that_breaks_off_is_forgotten(harness: RunningHarness) -> None:
    await harness.ready()
    tty = await harness.attach()
    await harness.until(lambda state: state["viewers"] == 1)
    tty.socket.transport.abort()
    await harness.until(lambda state: state["viewers"] == 0)


async def test_a_message_that_is_too_large_ends_the_viewer_only(harness: RunningHarness) -> None:
    await harness.ready()
    tty = await harness.attach()
    await tty.socket.send(b"x" * (5 * 1024 * 1024))
    code, _ = await tty.closed()
    assert code == 1009
    again = await harness.attach()
    await again.type("echo al''ive\r")
    await again.until("alive")


async def test_pings_are_answered(harness: RunningHarness) -> None:
    await harness.ready()
    tty = await harness.attach()
    pong = await tty.socket.ping()
    await asyncio.wait_for(pong, WAIT)


async def test_the_title_is_part_of_the_state(harness: RunningHarness) -> None:
    await harness.ready()
    tty = await harness.attach()
    await tty.type("printf '\\033]0;my title\\007'\r")
    await harness.until(lambda state: state["title"] == "my title")


async def test_a_program_that_vanished_is_told_to_the_viewer(harness: RunningHarness, tmp_path: Any) -> None:
    program = tmp_path / "agent"
    program.write_text("#!/bin/sh\nread -r _\n")
    program.chmod(0o755)
    await harness.ready(command=str(program))
    tty = await harness.attach()
    program.unlink()
    await tty.type("\r")
    await tty.closed()
    again: Tty = await harness.attach()
    code, seen = await again.closed()
    assert code == 1000
    assert f"[bridge] cannot run {program}" in seen

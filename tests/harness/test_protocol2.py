"""Terminal protocol 2 at the wire: hello, driving and watching, sizes, repaints, the end, and bad input."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from backend.harness.log import Log
from backend.harness.server import Connection, Harness, digest_of
from backend.harness.state import State
from backend.harness.viewers import protocol2
from backend.harness.viewers.protocol2 import SUBPROTOCOL
from tests.harness.conftest import TOKEN, WAIT, RunningHarness, Tty2, bash

COUNTS_KEYS = bash("stty raw -echo; echo ready; while IFS= read -rn1 key; do printf '<%s>' \"$key\"; done")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["lap.tty.2"], "lap.tty.2"), (["x", "lap.tty.2", "y"], "lap.tty.2"), (["lap.tty.3"], None)],
)
async def test_the_subprotocol_is_negotiated(harness: RunningHarness, offered: list[str], chosen: str | None) -> None:
    await harness.ready()
    async with connect(
        f"ws://{harness.address}/tty?token={TOKEN}",
        subprotocols=[Subprotocol(name) for name in offered],
        proxy=None,
    ) as viewer:
        assert viewer.subprotocol == chosen


async def test_hello_is_answered_with_welcome_and_one_repaint(harness: RunningHarness) -> None:
    await harness.ready(command=bash("printf '\\033[1;31mred\\033[m plain'; sleep 99"))
    tty = Tty2(await harness.connect2())
    await tty.hello("alice@host", "drive", cols=80, rows=24)
    welcome, repaint, painted = [await tty.receive() for _ in range(3)]
    assert welcome is not None
    viewer = welcome["viewers"][0]
    assert welcome == {
        "type": "welcome",
        "viewer": viewer["id"],
        "mode": "drive",
        "cols": 80,
        "rows": 24,
        "viewers": [viewer],
    }
    assert viewer.pop("since").endswith("Z")
    assert viewer == {"id": welcome["viewer"], "name": "alice@host", "mode": "drive", "cols": 80, "rows": 24}
    assert repaint == {"type": "repaint", "scrollback": 0, "skipped": 0}
    assert painted is None
    assert tty.screen.text()[0] == "red plain"
    assert tty.screen.row(0)[0].style.bold


async def test_a_driver_gives_the_screen_its_size_before_the_repaint(harness: RunningHarness) -> None:
    await harness.ready(command=bash("trap 'clear; stty size' WINCH; echo ready; while :; do sleep 0.1; done"))
    tty = await harness.attach2(cols=81, rows=25)
    assert tty.size == (81, 25)
    await tty.shows("25 81")
    state = await harness.state()
    assert (state["columns"], state["rows"]) == (81, 25)


async def test_who_offers_to_drive_does_so_only_where_nobody_else_does(harness: RunningHarness) -> None:
    await harness.ready()
    first = Tty2(await harness.connect2())
    await first.hello("first", "offer", cols=90, rows=20)
    assert (await first.control("welcome"))["mode"] == "drive"
    assert first.size == (90, 20)
    second = Tty2(await harness.connect2())
    await second.hello("second", "offer", cols=70, rows=10)
    assert (await second.control("welcome"))["mode"] == "watch"
    assert second.size == (90, 20)
    await first.viewers(("first", "drive"), ("second", "watch"))


async def test_binary_is_typed_as_it_is_and_text_is_never_typed(harness: RunningHarness) -> None:
    await harness.ready(command=COUNTS_KEYS)
    tty = await harness.attach2()
    await tty.shows("ready")
    typed = '{"type":"watch"}'
    for text in ("keys", "{}", "", "[]", '{"type":"unknown"}', '{"type":"ping"}', '{"type":["drive"]}', "{" * 20_000):
        await tty.socket.send(text)
    await tty.type(typed)
    await tty.shows("".join(f"<{key}>" for key in typed))
    assert "<k>" not in "".join(tty.screen.text())


async def test_what_a_watcher_types_is_dropped(harness: RunningHarness) -> None:
    await harness.ready(command=COUNTS_KEYS)
    watcher, driver = await harness.attach2("eve", "watch"), await harness.attach2("alice")
    await watcher.shows("ready")
    await watcher.type("xyz")
    await watcher.send(type="drive")
    await watcher.control("mode", mode="drive", by="eve")
    await watcher.type("1")
    await watcher.shows("<1>")
    assert "<x>" not in "".join(watcher.screen.text())
    await driver.control("mode", mode="watch", by="eve")
    await driver.type("abc")
    await driver.send(type="drive")
    await driver.control("mode", mode="drive")
    await driver.type("2")
    await driver.shows("<2>")
    assert "ready<1><2>" in "".join(driver.screen.text()).replace(" ", "")


async def test_everybody_is_told_who_is_there_and_so_is_the_platform(harness: RunningHarness) -> None:
    await harness.ready()
    alice = await harness.attach2("alice", "drive")
    bob = await harness.attach2("bob", "watch", cols=70, rows=20)
    await alice.viewers(("alice", "drive"), ("bob", "watch"))
    state = await harness.until(lambda state: len(state["attached"]) == 2)
    assert [(one["name"], one["mode"], set(one)) for one in state["attached"]] == [
        ("alice", "drive", {"name", "mode", "since"}),
        ("bob", "watch", {"name", "mode", "since"}),
    ]
    await bob.send(type="drive")
    await alice.viewers(("alice", "watch"), ("bob", "drive"))
    await bob.send(type="watch")
    await alice.viewers(("alice", "watch"), ("bob", "watch"))
    await bob.socket.close()
    await alice.viewers(("alice", "watch"))
    await alice.socket.close()
    state = await harness.until(lambda state: state["viewers"] == 0)
    assert state["attached"] == []


async def test_the_drivers_size_wins_and_stays_without_a_driver(harness: RunningHarness) -> None:
    await harness.ready()
    alice = await harness.attach2("alice", cols=90, rows=28)
    bob = await harness.attach2("bob", "watch", cols=60, rows=20)
    assert bob.size == (90, 28)
    await bob.send(type="resize", cols=50, rows=10)
    await alice.send(type="resize", cols=95, rows=29)
    await bob.control("size", cols=95, rows=29)
    await bob.repainted()
    await alice.control("size", cols=95, rows=29)
    await bob.send(type="drive")
    await alice.control("size", cols=50, rows=10)
    await alice.repainted()
    await bob.socket.close()
    await harness.until(lambda state: state["viewers"] == 1)
    late = await harness.attach2("late", "watch", cols=33, rows=11)
    assert late.size == (50, 10)
    assert [control for control in alice.controls if control["type"] == "size"] == [
        {"type": "size", "cols": 95, "rows": 29},
        {"type": "size", "cols": 50, "rows": 10},
    ]


async def test_a_viewer_of_the_original_protocol_takes_the_drive_by_a_size_or_a_key(harness: RunningHarness) -> None:
    await harness.ready(command=COUNTS_KEYS)
    alice = await harness.attach2("alice")
    original = await harness.attach(77, 22)
    await alice.control("mode", mode="watch", by="lap")
    await alice.control("size", cols=77, rows=22)
    await original.until("ready")
    await alice.send(type="drive")
    await alice.control("size", cols=100, rows=30)
    await original.type("k")
    await alice.control("size", cols=77, rows=22)
    await alice.shows("<k>")
    await alice.viewers(("alice", "watch"), ("lap", "drive"))


async def test_an_original_viewer_drives_when_nobody_does_and_is_painted_without_a_size(
    harness: RunningHarness,
) -> None:
    await harness.ready(command=bash("echo only once; sleep 99"))
    original = await harness.attach()
    assert "only once" in await original.until("only once")
    watcher = await harness.attach2("bob", "watch")
    assert [(one["name"], one["mode"], one["cols"]) for one in watcher.controls[0]["viewers"]] == [
        ("lap", "drive", None),
        ("bob", "watch", 100),
    ]


async def test_an_original_viewer_gets_its_first_repaint_after_its_first_size(harness: RunningHarness) -> None:
    await harness.ready(command=bash("echo only once; sleep 99"))
    original = await harness.attach(64, 20)
    await original.until("only once")
    await original.resize(65, 20)
    await harness.until(lambda state: state["columns"] == 65)
    await original.until("only once")  # The second size repaints; before the first nothing did.
    assert "only once" not in original.seen


@pytest.mark.parametrize("asked", [0, 5, 50, 10_000, 10**30, -3, "9", None, True])
async def test_scrollback_comes_on_request(harness: RunningHarness, asked: Any) -> None:
    await harness.ready(command=bash("seq 100; printf end; sleep 99"))
    tty = Tty2(await harness.connect2())
    await tty.hello("alice", "watch", scrollback=asked)
    announced = await tty.repainted()
    expected = {5: 5, 50: 50, 10_000: 71, 10**30: 71}.get(asked if not isinstance(asked, bool) else 0, 0)
    assert announced["scrollback"] == expected
    assert tty.screen.scrollback_lines == expected
    assert tty.screen.text()[-1] == "end"
    await tty.send(type="repaint", scrollback=20)
    assert (await tty.repainted())["scrollback"] == 20
    assert "".join(run.text for run in tty.screen.scrollback_row(0)) == "52"


async def test_output_after_a_repaint_follows_it_without_a_gap(harness: RunningHarness) -> None:
    await harness.ready(command=bash("for n in {1..4000}; do echo line $n; done; echo over; sleep 99"))
    viewers = [await harness.attach2(f"viewer {n}", "watch", scrollback=10_000) for n in range(5)]
    for tty in viewers:
        await tty.shows("over")
        lines = ["".join(run.text for run in tty.screen.scrollback_row(n)) for n in range(tty.screen.scrollback_lines)]
        numbers = [line for line in (*lines, *tty.screen.text()) if line.startswith("line ")]
        assert numbers[-1] == "line 4000"
        assert numbers == [f"line {n}" for n in range(4001 - len(numbers), 4001)]


@pytest.mark.parametrize(("ending", "code", "number"), [("exit 7", 7, None), ("kill -9 $$", None, 9)])
async def test_the_end_of_the_agent_is_told_after_its_last_words(
    harness: RunningHarness, ending: str, code: int | None, number: int | None
) -> None:
    await harness.ready()
    driver, watcher = await harness.attach2("alice"), await harness.attach2("bob", "watch")
    await driver.type(f"echo last wo''rds; {ending}\r")
    for tty in (driver, watcher):
        assert await tty.closed() == (1000, "")
        assert tty.controls[-1] == {"type": "exit", "code": code, "signal": number}
        assert b"[bridge]" not in tty.output
        assert any("last words" in row for row in tty.screen.text())
    again = await harness.attach2("carol", cols=66, rows=22)
    await again.type("stty size\r")
    await again.shows("22 66")


async def test_the_harness_says_that_it_goes(start: Callable[..., Any]) -> None:
    harness: RunningHarness = await start()
    await harness.ready()
    tty = await harness.attach2()
    stopping = asyncio.create_task(harness.stop())
    assert (await tty.closed())[0] == 1001
    await stopping


async def test_an_agent_that_cannot_start_again_is_the_reason_of_the_close(
    harness: RunningHarness, tmp_path: Any
) -> None:
    program = tmp_path / "agent"
    program.write_text("#!/bin/sh\nread -r _\n")
    program.chmod(0o755)
    await harness.ready(command=str(program))
    tty = await harness.attach2()
    program.unlink()
    await tty.type("\r")
    assert (await tty.closed())[0] == 1000
    late = Tty2(await harness.connect2())
    await late.hello("bob", "drive")
    code, reason = await late.closed()
    assert code == 1011
    assert reason.startswith("cannot run ")


@pytest.mark.parametrize(
    "first",
    [
        b"keys",
        b"",
        "keys",
        "{",
        "[]",
        "null",
        "{}",
        '{"type":"drive"}',
        '{"type":["hello"]}',
        '{"type":"resize","cols":10,"rows":10}',
        pytest.param("[" * 5_000, id="deep"),
        pytest.param(json.dumps({"type": "hello", "name": "x" * 1_000_000}), id="huge hello"),
        pytest.param('{"type":"hello","cols":' + "9" * 6_000 + "}", id="huge number"),
        b"\xff\xfe\x00",
    ],
)
async def test_who_does_not_begin_with_a_hello_is_sent_away(harness: RunningHarness, first: str | bytes) -> None:
    await harness.ready()
    tty = Tty2(await harness.connect2())
    await tty.socket.send(first)
    assert await tty.closed() == (1008, "the first message must be a hello")
    assert tty.controls == []
    state = await harness.state()
    assert (state["viewers"], state["columns"]) == (0, 100)


async def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(protocol2, "HELLO_SECONDS", 0.05)
    terminal = SimpleNamespace(detach=lambda viewer: None)
    setup = SimpleNamespace(begin=lambda body: None, session_id="tty", tui=True, terminal=terminal)
    harness = Harness(digest_of(TOKEN), State(), Log(tmp_path / "log"), lambda: setup)  # type: ignore[arg-type, return-value]
    harness.begin(b"")
    server = await asyncio.get_running_loop().create_server(lambda: Connection(harness), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    silent = Tty2(await connect(f"ws://127.0.0.1:{port}/tty?token={TOKEN}", subprotocols=[SUBPROTOCOL], proxy=None))
    assert await silent.closed() == (1008, "no hello came")
    server.close()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("alice@host", "alice@host"),
        ("  x  ", "x"),
        ("a\x1b[31mb\x00\r\nc\x9bd", "a [31mb c d"),
        ("\u202eevil\u2066", "evil"),
        ("\ud83d", "unnamed"),
        pytest.param("x" * 10_000, "x" * 64, id="long"),
        pytest.param("✻" * 100, "✻" * 64, id="long in bytes"),
        ("", "unnamed"),
        (None, "unnamed"),
        ({"a": 1}, "unnamed"),
    ],
)
async def test_a_name_is_made_fit(harness: RunningHarness, name: Any, shown: str) -> None:
    await harness.ready()
    tty = await harness.attach2(name, "watch")
    assert [viewer["name"] for viewer in tty.controls[0]["viewers"]] == [shown]
    assert [viewer["name"] for viewer in (await harness.state())["attached"]] == [shown]


@pytest.mark.parametrize(
    ("size", "screen"),
    [
        ({"cols": 0, "rows": 0}, (1, 1)),
        ({"cols": -5, "rows": 10**9}, (1, 300)),
        ({"cols": 10**9, "rows": 1}, (500, 1)),
        ({"cols": 90.7, "rows": 20.2}, (90, 20)),
        ({"cols": 1e999, "rows": 10}, (100, 30)),
        ({"cols": float("nan"), "rows": 10}, (100, 30)),
        ({"cols": "80", "rows": 24}, (100, 30)),
        ({"cols": True, "rows": 24}, (100, 30)),
        ({"cols": None}, (100, 30)),
    ],
)
async def test_a_size_is_brought_within_bounds_or_ignored(
    harness: RunningHarness, size: dict[str, Any], screen: tuple[int, int]
) -> None:
    await harness.ready()
    first = await harness.attach2("alice", "drive", **size)
    assert first.size == screen
    second = await harness.attach2("bob", "drive")
    await second.send(type="resize", cols=55, rows=15)
    await second.control("size", cols=55, rows=15)
    await second.send(**{"type": "resize", **size})
    await second.send(type="repaint")
    if screen != (100, 30):
        await second.control("size", cols=screen[0], rows=screen[1])
    await second.repainted()
    assert second.size == (screen if screen != (100, 30) else (55, 15))


@pytest.mark.parametrize("mode", ["watch", "", None, "DRIVE", ["drive"], 1])
async def test_only_drive_drives(harness: RunningHarness, mode: Any) -> None:
    await harness.ready()
    tty = await harness.attach2("alice", mode, cols=60, rows=20)
    assert (tty.controls[0]["mode"], tty.size) == ("watch", (100, 30))


async def test_a_second_hello_changes_nothing(harness: RunningHarness) -> None:
    await harness.ready()
    tty = await harness.attach2("alice", "watch")
    await tty.hello("mallory", "drive", cols=10, rows=5)
    await tty.send(type="repaint")
    await tty.repainted()
    assert [control["type"] for control in tty.controls].count("welcome") == 1
    state = await harness.state()
    assert [(one["name"], one["mode"]) for one in state["attached"]] == [("alice", "watch")]
    assert state["columns"] == 100


async def test_a_fight_for_the_drive_ends_with_one_driver_and_its_size(harness: RunningHarness) -> None:
    await harness.ready()
    fighters = [await harness.attach2(f"fighter {n}", "watch", cols=50 + n, rows=20 + n) for n in range(4)]
    for fighter in fighters * 10:
        await fighter.send(type="drive")
        await fighter.type("x")
    judge = await harness.attach2("judge", "drive", cols=99, rows=33)
    await judge.send(type="watch")
    await fighters[2].send(type="drive")
    state = await harness.until(lambda state: (state["columns"], state["rows"]) == (52, 22))
    assert [one["mode"] for one in state["attached"]].count("drive") == 1
    for tty in (*fighters, judge):
        async with asyncio.timeout(WAIT):
            while tty.size != (52, 22):
                await tty.receive()
            await tty.repainted()


async def test_a_storm_of_sizes_ends_with_the_last(harness: RunningHarness) -> None:
    await harness.ready()
    driver, watcher = await harness.attach2("alice"), await harness.attach2("bob", "watch")
    for number in range(300):
        await driver.send(type="resize", cols=40 + number % 60, rows=10 + number % 20)
    await driver.send(type="resize", cols=88, rows=26)
    await watcher.control("size", cols=88, rows=26)
    await watcher.repainted()
    assert len([control for control in watcher.controls if control["type"] == "size"]) < 200


async def test_every_wish_for_a_repaint_is_met_by_at_least_the_last_one(harness: RunningHarness) -> None:
    await harness.ready(command=bash("seq 300; sleep 99"))
    tty = await harness.attach2("alice", "watch")
    for number in range(100):
        await tty.send(type="repaint", scrollback=number)
    async with asyncio.timeout(WAIT):
        while (await tty.repainted())["scrollback"] != 99:
            pass
    assert tty.screen.scrollback_lines == 99


async def leave_before_the_hello(socket: ClientConnection, tty: Tty2) -> None:
    socket.transport.abort()


async def leave_after_the_hello(socket: ClientConnection, tty: Tty2) -> None:
    await tty.hello("leaver", "drive", scrollback=10_000)
    socket.transport.abort()


async def leave_after_the_welcome(socket: ClientConnection, tty: Tty2) -> None:
    await tty.hello("leaver", "drive", cols=61, rows=21, scrollback=10_000)
    await tty.control("welcome")
    socket.transport.abort()


async def leave_while_driving(socket: ClientConnection, tty: Tty2) -> None:
    await tty.hello("leaver", "drive")
    await tty.repainted()
    await tty.send(type="resize", cols=62, rows=22)
    await tty.type("\r")
    await tty.send(type="repaint", scrollback=10_000)
    socket.transport.abort()


async def leave_politely(socket: ClientConnection, tty: Tty2) -> None:
    await tty.hello("leaver", "drive", scrollback=10_000)
    await socket.close()


async def leave_in_the_middle_of_a_message(socket: ClientConnection, tty: Tty2) -> None:
    await tty.hello("leaver", "drive")

    async def parts() -> Any:
        yield b"ab"
        await tty.control("welcome")
        socket.transport.abort()

    await socket.send(parts())


@pytest.mark.parametrize(
    "leave",
    [
        leave_before_the_hello,
        leave_after_the_hello,
        leave_after_the_welcome,
        leave_while_driving,
        leave_politely,
        leave_in_the_middle_of_a_message,
    ],
)
async def test_a_viewer_may_leave_at_any_point(harness: RunningHarness, leave: Any) -> None:
    await harness.ready(command="bash --norc -c 'seq 2000; exec bash --norc --noprofile -i'")
    socket = await harness.connect2()
    try:
        await leave(socket, Tty2(socket))
    except OSError:
        pass  # Of a connection we have just broken.
    await harness.until(lambda state: state["viewers"] == 0)
    tty = await harness.attach2()
    await tty.type("echo al''ive\r")
    await tty.shows("alive")
    assert [one["name"] for one in (await harness.state())["attached"]] == ["alice@host"]
    assert "Traceback" not in harness.log()


async def test_one_viewer_too_many_is_sent_away(harness: RunningHarness) -> None:
    await harness.ready()
    present = [await harness.attach2(f"viewer {n}", "watch") for n in range(64)]
    late = Tty2(await harness.connect2())
    await late.hello("late", "drive")
    code, reason = await late.closed()
    assert code == 1011
    assert "64 viewers are attached" in reason
    original = await harness.attach()
    assert "64 viewers are attached" in (await original.closed())[1]
    await present[0].socket.close()
    await harness.until(lambda state: state["viewers"] == 63)
    await harness.attach2("now", "watch")


async def test_a_message_that_is_too_large_ends_the_viewer_only(harness: RunningHarness) -> None:
    await harness.ready()
    tty = await harness.attach2()
    await tty.socket.send(b"x" * (5 * 1024 * 1024))
    assert (await tty.closed())[0] == 1009
    await harness.attach2("bob", "watch")

"""A flood of output: viewers that cannot keep up, and keys that must not wait. Bounds are generous: machines differ."""

import asyncio
import contextlib
import socket
import statistics
import time

from tests.harness.conftest import TOKEN, WAIT, RunningHarness, Tty2, bash

SLOW_BYTES = 15_000
"""A second, of a thin link."""
FLOOD = "yes the quick brown fox jumps over the lazy dog"


async def attach_narrow(harness: RunningHarness, name: str) -> Tty2:
    """A viewer whose system takes little ahead, as over a thin link."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    narrow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1_400)  # Loopback's would not fit into that buffer.
    narrow.setblocking(False)
    host, port = harness.address.split(":")
    await asyncio.get_running_loop().sock_connect(narrow, (host, int(port)))
    tty = Tty2(await harness.connect2(sock=narrow, max_queue=1))
    await tty.hello(name, "watch")
    await tty.repainted()
    return tty


async def trickle(tty: Tty2) -> None:
    """Receives, as slowly as over a thin link."""
    taken = 0
    while True:
        await tty.receive()
        await asyncio.sleep((len(tty.output) - taken) / SLOW_BYTES)
        taken = len(tty.output)


async def test_a_flood_with_a_fast_a_slow_and_a_dead_viewer(harness: RunningHarness) -> None:
    await harness.ready()
    fast = await harness.attach2("fast", "drive")
    slow, dead = await attach_narrow(harness, "slow"), await attach_narrow(harness, "dead")
    dead.socket.transport.pause_reading()
    slow_reading = asyncio.create_task(trickle(slow))
    await fast.type(f"{FLOOD}\r")
    await fast.shows("quick brown")

    async with asyncio.timeout(3 * WAIT):  # The child goes on writing whatever the slow and the dead do not read.
        while len(fast.output) < 800_000:
            await fast.receive()
        while not any(control.get("skipped", 0) > 0 for control in slow.controls):
            await fast.receive()

    began = time.monotonic()
    await fast.type("\x03")
    fast_reading = asyncio.create_task(fast.shows("^C"))
    await asyncio.wait_for(fast_reading, WAIT)
    assert time.monotonic() - began < 2  # 0.03 where nothing else runs.

    await fast.type("clear; echo pre''sent\r")
    await fast.shows("present")
    async with asyncio.timeout(3 * WAIT):
        while "present" not in slow.screen.text() or slow.screen.text() != fast.screen.text():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(fast.receive(), 0.05)
    slow_reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await slow_reading
    assert len(slow.output) < len(fast.output) / 2

    dead.socket.transport.resume_reading()
    await dead.shows("present")
    assert dead.screen.text() == fast.screen.text()
    written = len(fast.output) + skipped(fast)
    assert 1_000_000 < skipped(dead) + len(dead.output) < 2 * written


def skipped(tty: Tty2) -> int:
    """Bytes of output that this viewer was not sent."""
    return sum(control["skipped"] for control in tty.controls if control["type"] == "repaint")


async def test_a_flood_comes_as_some_frames_a_second_also_to_who_could_take_it(harness: RunningHarness) -> None:
    """After that it comes whole again, and what was skipped is told."""
    flood = f"{FLOOD} | head -c 5000000; printf present"
    await harness.ready(command=bash(f"stty -echo; echo ready; read -r _; {flood}; read -r _; seq 9"))
    tty = await harness.attach2("fast", "drive", cols=80, rows=24)
    await tty.shows("ready")
    await tty.type("\r")
    await tty.shows("present")
    assert len(tty.output) < 4_000_000
    assert len(tty.output) + skipped(tty) > 5_000_000
    before = skipped(tty)
    await tty.type("\r")
    await tty.control("exit")
    assert skipped(tty) == before
    assert "9" in tty.screen.text()


async def test_control_messages_reach_a_viewer_that_was_skipped(harness: RunningHarness) -> None:
    await harness.ready()
    fast, dead = await harness.attach2("fast", "drive"), await attach_narrow(harness, "dead")
    dead.socket.transport.pause_reading()
    await fast.type("seq 100000; echo fl''ood over\r")
    await fast.shows("flood over")
    await fast.send(type="resize", cols=70, rows=20)
    await fast.control("size", cols=70, rows=20)
    for number in range(5):
        await (await harness.attach2(f"passer {number}", "watch")).socket.close()
    await fast.send(type="resize", cols=71, rows=21)
    await fast.control("size", cols=71, rows=21)
    await fast.type("exit 3\r")
    assert await fast.closed() == (1000, "")

    dead.socket.transport.resume_reading()
    assert await dead.closed() == (1000, "")
    assert dead.controls[-1] == {"type": "exit", "code": 3, "signal": None}
    assert dead.size == (71, 21)
    assert dead.screen.text() == fast.screen.text()


async def test_a_viewer_that_takes_nothing_is_cut_off_after_the_end(harness: RunningHarness) -> None:
    await harness.ready()
    fast, dead = await harness.attach2("fast", "drive"), await attach_narrow(harness, "dead")
    dead.socket.transport.pause_reading()
    await fast.type("seq 100000; exit\r")
    await fast.closed()
    await harness.until(lambda state: state["viewers"] == 0)
    again = await harness.attach2("again")
    await again.type("echo al''ive\r")
    await again.shows("alive")


async def test_an_original_viewer_that_stalls_gets_the_present_too(harness: RunningHarness) -> None:
    await harness.ready(command=bash("stty -echo; echo ready; read -r _; seq 200000; printf present; sleep 99"))
    fast = await harness.attach2("fast")
    await fast.shows("ready")
    stalled = await harness.attach()
    await stalled.until("ready")
    stalled.socket.transport.pause_reading()
    await fast.send(type="drive")
    await fast.type("\r")
    await fast.shows("present")
    stalled.socket.transport.resume_reading()
    seen = await stalled.until("present")
    assert len(seen) < 1_000_000  # Of 1,488,895.


async def test_others_are_answered_while_a_great_screen_is_drawn(harness: RunningHarness) -> None:
    colors = "for ((i=0; i<20000; i++)); do printf '\\033[38;2;%d;%d;%dmx' $((i%256)) $((i/7%256)) $((i/3%256)); done"
    await harness.ready(command=bash(f"sleep 0.5; {colors}; printf '\\033[mdo''ne'; sleep 99"))
    tty = await harness.attach2("alice", "drive", cols=500, rows=100)
    await tty.shows("done")
    painting = asyncio.create_task(repaint_often(tty))
    taken = []
    for _ in range(50):
        began = time.monotonic()
        response = await harness.http.get("/healthz", headers={"Authorization": f"Bearer {TOKEN}"})
        assert response.status_code == 200
        taken.append(time.monotonic() - began)
    painting.cancel()
    assert statistics.median(taken) < 1.0  # It takes longer to draw than this when all is done on the loop.


async def repaint_often(tty: Tty2) -> None:
    while True:
        await tty.send(type="repaint", scrollback=1)
        await tty.repainted()
        await tty.send(type="resize", cols=499 if tty.size[0] == 500 else 500, rows=100)
        await tty.control("size")

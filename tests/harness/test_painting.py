"""Still copies and repaints of them: exact, and untouched by what follows."""

import asyncio
import random

import pytest

from backend.harness import painting
from backend.harness.painting import Painter, paint
from lapconsole.terminal.emulator import Emulator

STREAMS = [
    "plain\r\n" * 50,
    "\x1b[1;31mred\x1b[m \x1b[48;5;9mback\x1b[m wide 日本 👩\u200d💻 e\u0301\r\n" * 40,
    "primary\x1b[?1049h\x1b[2J\x1b[5;5Halternate\x1b[?25l\x1b[?2004h\x1b[3;9r\x1b[?6h",
    "x" * 1000 + "\x1b7\x1b[10;10H\x1b]2;title\x07\x1b]4;1;#102030\x07\x1b(0lqk\x1b[>5u",
]


def emulator(stream: str) -> Emulator:
    terminal = Emulator(40, 12)
    terminal.feed(stream)
    return terminal


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("scrollback", [0, 7, 10_000])
def test_a_still_copy_is_painted_as_the_original_was(stream: str, scrollback: int) -> None:
    original = emulator(stream)
    expected, lines = original.repaint(scrollback), original.scrollback_lines
    copy = original.copy()
    chance = random.Random(5)
    for _ in range(200):
        original.feed(
            chance.choice(["\x1b[2J", "\x1b[H", "text\r\n" * 9, "\x1bc", "\x1b[?1049l", "\x1b[?1049h", "\x1b[L"])
        )
    original.resize(17, 5)
    assert paint(copy, scrollback) == (expected, min(scrollback, lines))


def test_painting_changes_nothing_of_the_original() -> None:
    original = emulator(STREAMS[1])
    before = original.snapshot()
    paint(original.copy(), 10_000)
    paint(original.copy(), 0)
    assert original.snapshot() == before


def test_a_repaint_that_would_be_too_large_has_less_scrollback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painting, "MAX_REPAINT", 20_000)
    original = emulator("".join(f"\x1b[38;5;{n % 256}mline {n}\r\n" for n in range(5_000)))
    data, scrollback = paint(original.copy(), 10_000)
    assert len(data) <= 20_000
    assert 300 < scrollback < 5_000
    shown = Emulator(40, 12)
    shown.feed(data)
    assert shown.scrollback_lines == scrollback
    assert shown.text() == original.text()


async def test_each_state_is_drawn_once_for_all() -> None:
    original, painter = emulator(STREAMS[0]), Painter()
    called: list[str] = []
    first, second = painter.repaint(original, 0), painter.repaint(original, 0)
    assert first is second
    assert painter.repaint(original, 5) is not first
    painter.changed()
    later = painter.repaint(original, 0)
    assert later is not first
    for name, repaint in (("first", first), ("second", second), ("later", later)):
        repaint.order(lambda name=name: called.append(name))
    async with asyncio.timeout(10):
        while len(called) < 3:
            await asyncio.sleep(0)
    assert first.data == later.data == original.repaint()
    painter.close()


async def test_a_repaint_that_nobody_wants_any_more_is_not_drawn() -> None:
    original, painter = emulator(STREAMS[0]), Painter()
    called: list[str] = []
    blocker = asyncio.ensure_future(painter.draw(original, lambda _: original.snapshot()))
    await asyncio.sleep(0)
    dropped = painter.repaint(original, 0)
    dropped.order(lambda: called.append("dropped"))
    dropped.cancel()
    anew = painter.repaint(original, 0)
    assert anew is not dropped
    anew.order(lambda: called.append("anew"))
    async with asyncio.timeout(10):
        while not called:
            await asyncio.sleep(0)
    await blocker
    assert called == ["anew"]
    painter.close()

"""The emulator against recordings of real programs and the screens tmux showed for them.

The recordings are not part of the repository: LAP_RECORDINGS names their folder, else `../shared/recordings` is tried.
"""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from lapconsole.terminal.emulator import Emulator, Style

FOLDER = Path(os.environ.get("LAP_RECORDINGS") or Path(__file__).parents[3] / "shared/recordings")
NAMES = sorted(path.stem for path in FOLDER.glob("*.bin"))

pytestmark = pytest.mark.skipif(not NAMES, reason=f"no recordings in {FOLDER}")


class Recording:
    """What a program wrote, and what must be on the screen at its checkpoints."""

    def __init__(self, name: str) -> None:
        about = json.loads((FOLDER / f"{name}.json").read_text())
        self.columns, self.lines = about["cols"], about["rows"]
        self.checkpoints = about["checkpoints"]
        self.output = (FOLDER / f"{name}.bin").read_bytes()
        consensus = json.loads((FOLDER / "consensus.json").read_text())[name]
        # Rows on whose widths tmux and the second emulator differ: Unicode decides, see the test of widths below.
        self.disputed = [set(checkpoint["diff_rows"]) for checkpoint in consensus]

    def emulator(self) -> Emulator:
        return Emulator(self.columns, self.lines)


@pytest.fixture(params=NAMES)
def recording(request: pytest.FixtureRequest) -> Recording:
    return Recording(request.param)


def test_text_cursor_and_modes_at_each_checkpoint(recording: Recording) -> None:
    emulator = recording.emulator()
    fed = 0
    for checkpoint, disputed in zip(recording.checkpoints, recording.disputed, strict=True):
        emulator.feed(recording.output[fed : checkpoint["offset"]])
        fed = checkpoint["offset"]
        where = checkpoint["label"]
        shown = (FOLDER / checkpoint["plain"]).read_text().split("\n")[: recording.lines]
        for y, (mine, theirs) in enumerate(zip(emulator.text(), shown, strict=False)):
            assert y in disputed or mine == theirs.rstrip(" "), (where, y)
        check_state(emulator, checkpoint["state"])


def check_state(emulator: Emulator, state: dict[str, Any]) -> None:
    modes, screen = emulator.modes, emulator.screen
    assert emulator.cursor == (min(state["cursor_x"], emulator.columns - 1), state["cursor_y"])
    mine = {
        "cursor_flag": emulator.cursor_visible,
        "alternate_on": emulator.alternate,
        "insert_flag": screen.insert,
        "keypad_cursor_flag": modes.application_cursor,
        "keypad_flag": modes.application_keypad,
        "mouse_standard_flag": modes.mouse == 1000,
        "mouse_button_flag": modes.mouse == 1002,
        "mouse_all_flag": modes.mouse == 1003,
        "mouse_sgr_flag": modes.mouse_sgr,
        "origin_flag": screen.origin,
        "wrap_flag": screen.autowrap,
        "scroll_region_upper": screen.top,
        "scroll_region_lower": screen.bottom,
    }
    assert mine == {name: state[name] for name in mine}


def test_styles_at_each_checkpoint(recording: Recording) -> None:
    emulator = recording.emulator()
    fed = 0
    for checkpoint, disputed in zip(recording.checkpoints, recording.disputed, strict=True):
        emulator.feed(recording.output[fed : checkpoint["offset"]])
        fed = checkpoint["offset"]
        captured = Emulator(recording.columns + 20, recording.lines)  # wider: disputed rows must not wrap
        captured.feed("\r\n".join((FOLDER / checkpoint["screen"]).read_text().split("\n")[: recording.lines]))
        for y in range(recording.lines):
            if y not in disputed:
                assert visible(emulator, y) == visible(captured, y), (checkpoint["label"], y)


def visible(emulator: Emulator, y: int) -> list[tuple[str, Style]]:
    """The cells of a row as (character, style), without what a capture lacks: blanks at the end, and links."""
    found = []
    for run in emulator.row(y):
        found += [(character, run.style._replace(link="")) for character in run.text]
    while found and found[-1][0] == " ":
        found.pop()
    return found


def test_chunks_make_no_difference(recording: Recording) -> None:
    whole = recording.emulator()
    whole.feed(recording.output)
    replies = whole.take_replies()
    for size in (1, 7, 997):
        if size == 1 and len(recording.output) > 30_000:
            continue
        apart = recording.emulator()
        for start in range(0, len(recording.output), size):
            apart.feed(recording.output[start : start + size])
        assert apart.snapshot() == whole.snapshot()
        assert apart.take_replies() == replies


def test_repaint_and_snapshot_are_exact_at_each_checkpoint(recording: Recording) -> None:
    emulator = recording.emulator()
    fed = 0
    garbage = b"\x1b[?1049hzz\x1b[3;5r\x1b[?6h\x1b[41mXX\x1b[4h\x1b(0\x1b[?7l\x1b]0;x\x07\x1b[?1003h\x1b[>7u\x1b[3"
    for checkpoint in recording.checkpoints:
        emulator.feed(recording.output[fed : checkpoint["offset"]])
        fed = checkpoint["offset"]
        restored = Emulator(1, 1)
        restored.restore(emulator.snapshot())
        assert restored.snapshot() == emulator.snapshot()
        for before in (b"", garbage):
            viewer = recording.emulator()
            viewer.feed(before)
            viewer.feed(emulator.repaint())
            assert_same_screen(viewer, emulator)


def assert_same_screen(one: Emulator, other: Emulator) -> None:
    assert [one.row(y) for y in range(one.lines)] == [other.row(y) for y in range(other.lines)]
    assert (one.cursor, one.title, one.alternate) == (other.cursor, other.title, other.alternate)
    assert one.modes == other.modes


@pytest.mark.parametrize("name", [name for name in NAMES if "unicode" in name])
def test_widths_where_other_terminals_differ(name: str) -> None:
    """Emoji with VS16, keycaps, flags, skin tones and ZWJ families are two columns each: the line breaks follow."""
    recording = Recording(name)
    emulator = recording.emulator()
    emulator.feed(recording.output[: recording.checkpoints[0]["offset"]])
    rows = emulator.text()
    first = next(y for y, row in enumerate(rows) if row.startswith("Emoji: "))
    joined = rows[first] + rows[first + 1]
    assert "skin \U0001f44d\U0001f3fd | ZWJ \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" in joined
    assert "\U0001f3f3\ufe0f\u200d\U0001f308" in joined


def test_mutated_recordings_never_raise(recording: Recording) -> None:
    chance = random.Random(recording.columns)
    output = bytearray(recording.output[:20_000])
    for _ in range(len(output) // 40):
        output[chance.randrange(len(output))] = chance.randrange(256)
    emulator = recording.emulator()
    for start in range(0, len(output), 1000):
        emulator.feed(bytes(output[start : start + 1000]))
        emulator.resize(chance.randrange(1, 120), chance.randrange(1, 40))
    assert len(emulator.text()) == emulator.lines

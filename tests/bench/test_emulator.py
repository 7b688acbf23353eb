"""How fast the emulator takes output in, against stock pyte in the same run: the ratio holds where seconds do not."""

import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest

from lapconsole.terminal.emulator import Emulator

FOLDER = Path(os.environ.get("LAP_RECORDINGS") or Path(__file__).parents[3] / "shared/recordings")
SIZE = 150_000  # bytes of each stream, short recordings are repeated
CHUNK = 8192
ROUNDS = 3

# Private sequences that make pyte raise: without them it can take all of each stream, as the emulator must.
_CRASHES = re.compile(rb"\x1b\[\?[0-9;]*[ABCDGHJKLMPXdmnrs]")

pytestmark = pytest.mark.bench


def synthetic() -> dict[str, tuple[int, int, bytes]]:
    """Streams that stress one thing each, by name: columns, lines, output."""
    scroll = b"".join(b"%06d the quick brown fox jumps over the lazy dog, and back again\r\n" % i for i in range(3000))
    colors = b"".join(b"\x1b[38;2;%d;%d;%dmx" % (i % 256, i * 7 % 256, i * 3 % 256) for i in range(8000))
    frame = b"\x1b[?2026h\x1b[H" + b"".join(
        b"\x1b[%d;3H\x1b[1;3%dmrow %d\x1b[0m \x1b[48;5;%dmvalue %d\x1b[K" % (y, y % 8, y, y, y * y)
        for y in range(1, 50)
    )
    wide = "日本語テスト 中文测试 한국어 \U0001f600\U0001f389 ".encode() * 1500
    return {
        "ascii, scrolling": (200, 50, scroll),
        "truecolour": (200, 50, colors),
        "full redraws": (200, 50, (frame + b"\x1b[?2026l") * 50),
        "wide characters": (200, 50, wide),
    }


def recorded() -> dict[str, tuple[int, int, bytes]]:
    streams = {}
    for path in sorted(FOLDER.glob("*.bin")):
        columns, lines = path.stem.rsplit(".", 1)[1].split("x")
        output = _CRASHES.sub(b"", path.read_bytes())
        streams[path.stem] = (int(columns), int(lines), output * max(1, SIZE // len(output)))
    return streams


def seconds(feed: Callable[[bytes], None], output: bytes) -> float:
    start = time.process_time()
    for position in range(0, len(output), CHUNK):
        feed(output[position : position + CHUNK])
    return time.process_time() - start


def test_emulator_is_several_times_as_fast_as_pyte() -> None:
    ratios = {}
    print(f"\n{'':26}{'pyte MB/s':>10}{'ours MB/s':>10}{'ratio':>8}")
    for name, (columns, lines, output) in (synthetic() | recorded()).items():
        pytes, ours = [], []
        for _ in range(ROUNDS):
            pytes.append(seconds(pyte.ByteStream(pyte.Screen(columns, lines)).feed, output))
            ours.append(seconds(Emulator(columns, lines).feed, output))
        ratios[name] = min(pytes) / min(ours)
        speeds = [len(output) / min(each) / 1e6 for each in (pytes, ours)]
        print(f"{name:26}{speeds[0]:10.2f}{speeds[1]:10.2f}{ratios[name]:7.1f}x")
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    print(f"{'geometric mean':46}{mean:7.1f}x")
    assert mean >= 4
    for name, ratio in ratios.items():
        assert ratio >= (1.2 if "wide" in name or "unicode" in name else 3), name

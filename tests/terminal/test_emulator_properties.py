"""The emulator under arbitrary input: it never raises, its state stays sound, and repaint and snapshot stay exact."""

from itertools import pairwise

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lapconsole.terminal.cells import compact, expand
from lapconsole.terminal.emulator import Emulator
from lapconsole.terminal.scrollback import logical, rewrap

# fmt: off
FRAGMENTS = [
    "a", "hello world", "x" * 30, " ", "日本語", "é", "e\u0301", "\u2764", "\ufe0f", "\ufe0e", "\u200d",
    "\U0001f469", "\U0001f4bb", "\U0001f1ef", "\U0001f1f5", "\U0001f44d\U0001f3fd", "\u200b", "\u0928\u093f",
    "\u0938\u094d", "\u0924", "\u1112\u1161", "─│┌", "\r", "\n", "\r\n", "\b", "\t", "\x0e", "\x0f", "\x7f",
    "\x18", "\x1b", "\x9b", "\x1b[m", "\x1b[31m", "\x1b[44m", "\x1b[7m", "\x1b[38;2;1;2;3m", "\x1b[4:3m",
    "\x1b]8;;http://x\x07", "\x1b]8;;\x07", "\x1b[H", "\x1b[2;3H", "\x1b[99;99H", "\x1b[5G", "\x1b[A",
    "\x1b[B", "\x1b[C", "\x1b[D", "\x1b[3d", "\x1b[Z", "\x1b[2I", "\x1b[J", "\x1b[1J", "\x1b[2J", "\x1b[3J",
    "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[X", "\x1b[3X", "\x1b[@", "\x1b[2P", "\x1b[L", "\x1b[M", "\x1b[2S",
    "\x1b[T", "\x1b[9b", "\x1bD", "\x1bM", "\x1bE", "\x1bH", "\x1b[g", "\x1b[3g", "\x1b7", "\x1b8",
    "\x1b[2;4r", "\x1b[r", "\x1b[?69h", "\x1b[2;5s", "\x1b[?69l", "\x1b[s", "\x1b[u", "\x1b[?6h", "\x1b[?6l",
    "\x1b[?7l", "\x1b[?7h", "\x1b[4h", "\x1b[4l", "\x1b[20h", "\x1b[20l", "\x1b[?45h", "\x1b[?5h",
    "\x1b[?1049h", "\x1b[?1049l", "\x1b[?47h", "\x1b[?47l", "\x1b[?1047h", "\x1b[?1047l", "\x1b[?1h", "\x1b=",
    "\x1b[?25l", "\x1b[?1003h", "\x1b[?1006h", "\x1b[?2004h", "\x1b[?2026h", "\x1b[>7u", "\x1b[<u",
    "\x1b[=5;2u", "\x1b[>4;2m", "\x1b[3 q", "\x1b(0", "\x1b(B", "\x1b)0", "\x1bn", "\x1bc", "\x1b[!p",
    "\x1b#8", "\x1b]2;t\x07", "\x1b]4;3;#123456\x07", "\x1b]52;c;", "\x1bP$qm", "\x1b\\", "\x1b[c", "\x1b[6n",
    "\x1b]11;?\x07", "\x1b[22t", "\x1b[23t", "\x1b[1;", "\x1b]",
]
# fmt: on

output = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=40)
sizes = st.tuples(st.integers(1, 24), st.integers(1, 8))
many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check_sound(emulator: Emulator) -> None:
    """Each row covers all columns, wide characters are whole, and the cursor and margins are on the screen."""
    screen = emulator.screen
    assert len(screen.rows) == emulator.lines == len(emulator.text())
    for y, row in enumerate(screen.rows):
        assert len(row.chars) == len(row.styles) == emulator.columns
        assert sum(run.width for run in emulator.row(y)) == emulator.columns
        assert row.chars[0] != ""
        if row.plain:
            assert all(len(cell) == 1 for cell in row.chars)
    x, y = emulator.cursor
    assert 0 <= x < emulator.columns
    assert 0 <= y < emulator.lines
    assert 0 <= screen.top <= screen.bottom < emulator.lines
    assert 0 <= screen.left <= screen.right < emulator.columns
    assert all(0 <= tab < emulator.columns for tab in screen.tabs)


@many
@given(st.binary(max_size=300), sizes)
def test_random_bytes(data: bytes, size: tuple[int, int]) -> None:
    emulator = Emulator(*size, scrollback=50)
    emulator.feed(data)
    check_sound(emulator)


@many
@given(output, sizes)
@example(["日", "\x1b[?69h", "\x1b[2;5s", "\x1b[99;99H", "日"], (5, 2))
def test_sequences_in_any_order(parts: list[str], size: tuple[int, int]) -> None:
    emulator = Emulator(*size, scrollback=50)
    for part in parts:
        emulator.feed(part)
        check_sound(emulator)
    emulator.take_replies().decode()


@many
@given(output, sizes, st.lists(st.integers(0, 400), max_size=8))
def test_chunks_make_no_difference(parts: list[str], size: tuple[int, int], cuts: list[int]) -> None:
    data = "".join(parts).encode("utf-8", "surrogatepass")
    whole, apart = Emulator(*size), Emulator(*size)
    whole.feed(data)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in pairwise(edges):
        apart.feed(data[start:end])
    assert apart.snapshot() == whole.snapshot()
    assert apart.take_replies() == whole.take_replies()


@many
@given(output, sizes)
def test_snapshot_is_exact(parts: list[str], size: tuple[int, int]) -> None:
    emulator = Emulator(*size, scrollback=20)
    emulator.feed("".join(parts))
    restored = Emulator(3, 3)
    restored.restore(emulator.snapshot())
    assert restored.snapshot() == emulator.snapshot()
    for text in ("more\x1b8\n\x1b[?1049l日", "\x1b[23t\x1b[?6l"):
        emulator.feed(text)
        restored.feed(text)
    assert restored.snapshot() == emulator.snapshot()


@many
@given(output, output, sizes)
def test_repaint_is_exact_on_any_terminal(parts: list[str], before: list[str], size: tuple[int, int]) -> None:
    emulator, viewer = Emulator(*size), Emulator(*size)
    emulator.feed("".join(parts))
    viewer.feed("".join(before))
    viewer.feed(emulator.repaint())
    assert [viewer.row(y) for y in range(viewer.lines)] == [emulator.row(y) for y in range(emulator.lines)]
    assert state(viewer) == state(emulator)


def state(emulator: Emulator) -> dict[str, object]:
    """All of the state that a repaint restores, beside the cells."""
    screen, saved = emulator.screen, emulator.screen.buffer.saved
    return {
        "cursor": emulator.cursor,
        "alternate": emulator.alternate,
        "title": emulator.title,
        "modes": emulator.modes,
        "palette": emulator.palette,
        "style": screen.pen.style,
        "charsets": (emulator.charsets, emulator.charset),
        "margins": (screen.top, screen.bottom, screen.left, screen.right, screen.margin_mode),
        "switches": (screen.autowrap, screen.insert, screen.origin, screen.reverse_wrap),
        "tabs": screen.tabs,
        "kitty": [screen.primary.kitty_flags, screen.buffer.kitty_flags],
        "saved": (saved.x, saved.y, saved.pen.style, saved.charsets, saved.charset, saved.origin),
    }


@many
@given(output, sizes)
def test_rows_that_change_are_dirty(parts: list[str], size: tuple[int, int]) -> None:
    emulator = Emulator(*size)
    for part in parts:
        before = [emulator.row(y) for y in range(emulator.lines)]
        emulator.take_dirty()
        emulator.feed(part)
        changed = {y for y in range(emulator.lines) if emulator.row(y) != before[y]}
        assert changed <= emulator.take_dirty() <= set(range(emulator.lines))


@many
@given(st.text("ab 日é\n", max_size=200), st.lists(sizes, min_size=1, max_size=8))
def test_resizing_loses_no_text(text: str, resizes: list[tuple[int, int]]) -> None:
    emulator = Emulator(24, 6)
    emulator.feed(text.replace("\n", "\r\n"))
    before = all_text(emulator)
    for size in resizes:
        emulator.resize(*size)
        check_sound(emulator)
    emulator.resize(24, 6)
    assert all_text(emulator) == before


@many
@given(output, sizes, st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_lines_are_rewrapped_as_their_cells_are(parts: list[str], size: tuple[int, int], widths: list[int]) -> None:
    """In compact form, which is quick, and a piece at a time."""
    emulator = Emulator(*size, scrollback=50)
    emulator.feed("".join(parts) + "\r\n" * size[1])
    lines = list(emulator.screen.history.copy().lines)
    for width in widths:
        history, expected = emulator.screen.history.copy(), []
        for group in logical(map(expand, lines)):
            expected += [compact(row) for row in rewrap(group, width)]
        while not history.work(width, 0.0):
            assert len(history) > 0
        assert list(history.wrapped(width)) == expected


@many
@given(output, output, sizes)
def test_a_copy_shares_nothing(parts: list[str], after: list[str], size: tuple[int, int]) -> None:
    emulator = Emulator(*size, scrollback=20)
    emulator.feed("".join(parts))
    before = emulator.snapshot()
    copy = emulator.copy()
    emulator.feed("".join(after))
    assert copy.snapshot() == before
    copy.feed("".join(after))
    assert copy.snapshot() == emulator.snapshot()


def all_text(emulator: Emulator) -> list[str]:
    """The text of scrollback and screen, without blank lines at the end."""
    history = ["".join(run.text for run in emulator.scrollback_row(i)) for i in range(emulator.scrollback_lines)]
    lines = [line.rstrip(" ") for line in history + emulator.text()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


@many
@given(output, st.lists(sizes, max_size=6))
def test_resize_storms(parts: list[str], resizes: list[tuple[int, int]]) -> None:
    emulator = Emulator(20, 5, scrollback=30)
    for position, part in enumerate(parts):
        emulator.feed(part)
        if resizes:
            emulator.resize(*resizes[position % len(resizes)])
            check_sound(emulator)


@given(st.binary(max_size=200))
def test_restoring_garbage_is_refused_and_changes_nothing(data: bytes) -> None:
    emulator = Emulator(10, 3)
    emulator.feed("text")
    before = emulator.snapshot()
    try:
        emulator.restore(data)
    except ValueError:
        assert emulator.snapshot() == before

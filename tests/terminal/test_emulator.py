"""The emulator's interface: scrollback, resizing, repaint, snapshots, bounds, and what it may import."""

import re
import subprocess
import sys
import tracemalloc

import pytest
from wcwidth import iter_graphemes, wcwidth

from lapconsole.terminal import parser, widths
from lapconsole.terminal.emulator import Emulator, Notice, Run, Style


def history(emulator: Emulator) -> list[str]:
    return ["".join(run.text for run in emulator.scrollback_row(i)) for i in range(emulator.scrollback_lines)]


def numbered(count: int) -> str:
    return "\r\n".join(f"line {number}" for number in range(count))


# Rows and dirtiness


def test_row_is_runs_of_one_style_over_all_columns() -> None:
    emulator = Emulator(8, 2)
    emulator.feed("a\x1b[1mbc\x1b[m日")
    assert emulator.row(0) == [Run("a", Style(), 1), Run("bc", Style(bold=True), 2), Run("日   ", Style(), 5)]
    assert emulator.text() == ["abc日", ""]


def test_take_dirty_names_changed_rows_once() -> None:
    emulator = Emulator(10, 4)
    assert emulator.take_dirty() == {0, 1, 2, 3}
    emulator.feed("a\x1b[3;1Hb")
    assert emulator.take_dirty() == {0, 2}
    assert emulator.take_dirty() == set()
    emulator.feed("\x1b[2;3r\x1b[3;1H\n")
    assert emulator.take_dirty() == {1, 2}


# Scrollback


def test_scrollback_keeps_lines_with_their_styles() -> None:
    emulator = Emulator(10, 2)
    emulator.feed("\x1b[31mred\x1b[m 日\r\n\x1b]8;;http://x\x07link\x1b]8;;\x07\r\nlast\r\n")
    assert emulator.scrollback_row(0) == [Run("red", Style(fg=1), 3), Run(" 日", Style(), 3)]
    assert emulator.scrollback_row(1) == [Run("link", Style(link="http://x"), 4)]
    assert emulator.text() == ["last", ""]


@pytest.mark.parametrize("limit", [0, 3, 700, 5000])
def test_scrollback_keeps_the_newest_lines(limit: int) -> None:
    emulator = Emulator(20, 2, scrollback=limit)
    emulator.feed(numbered(1502))
    assert history(emulator) == [f"line {number}" for number in range(max(0, 1500 - limit), 1500)]


def test_alternate_screen_has_no_scrollback() -> None:
    emulator = Emulator(20, 2)
    emulator.feed("\x1b[?1049h" + numbered(10))
    assert emulator.scrollback_lines == 0


def test_a_region_at_the_top_feeds_the_scrollback_and_others_do_not() -> None:
    emulator = Emulator(20, 4)
    emulator.feed("\x1b[1;3ra\r\nb\r\nc\r\nd\x1b[2;4r\x1b[4;1H\n\n")
    assert history(emulator) == ["a"]


def test_ed_3_clears_the_scrollback() -> None:
    emulator = Emulator(20, 2)
    emulator.feed(numbered(10) + "\x1b[3J")
    assert emulator.scrollback_lines == 0


@pytest.mark.parametrize(
    "line",
    ["x" * 120, "日" * 60, "".join(f"\x1b[38;2;{i};{i};9;48;2;1;{i};{i}mx" for i in range(120))],
    ids=["plain", "wide", "each cell its own colours"],
)
def test_a_line_of_120_columns_takes_less_than_4_kb(line: str) -> None:
    emulator = Emulator(120, 10)
    emulator.feed(line)
    tracemalloc.start()
    for _ in range(3000):
        emulator.feed("\r\n" + line)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / 3000 < 4096


# Resizing


def test_narrower_and_wider_again_gives_the_same_screen() -> None:
    emulator = Emulator(40, 6)
    emulator.feed("a long line that wraps when narrow\r\n\x1b[32mgreen\x1b[m and 日本語\r\n$ ")
    before = [emulator.row(y) for y in range(6)]
    for columns, lines in [(10, 6), (7, 3), (25, 2), (40, 6)]:
        emulator.resize(columns, lines)
    assert [emulator.row(y) for y in range(6)] == before
    assert emulator.cursor == (2, 2)


def test_narrower_wraps_and_the_cursor_follows_its_text() -> None:
    emulator = Emulator(20, 4)
    emulator.feed("0123456789abcde")
    emulator.resize(10, 4)
    assert emulator.text() == ["0123456789", "abcde", "", ""]
    assert emulator.cursor == (5, 1)


def test_a_wide_character_wrapped_early_leaves_no_gap_when_wider() -> None:
    emulator = Emulator(5, 3)
    emulator.feed("abcd日本")
    assert emulator.text() == ["abcd", "日本", ""]
    emulator.resize(20, 3)
    assert emulator.text() == ["abcd日本", "", ""]


def test_a_line_broken_by_the_program_is_not_joined() -> None:
    emulator = Emulator(5, 3)
    emulator.feed("abcde\r\nfg")
    emulator.resize(10, 3)
    assert emulator.text() == ["abcde", "fg", ""]


def test_lower_moves_lines_to_the_scrollback_and_higher_brings_them_back() -> None:
    emulator = Emulator(20, 6)
    emulator.feed(numbered(6))
    emulator.resize(20, 2)
    assert history(emulator) == [f"line {number}" for number in range(4)]
    assert emulator.text() == ["line 4", "line 5"]
    emulator.resize(20, 6)
    assert emulator.text() == [f"line {number}" for number in range(6)]
    assert emulator.scrollback_lines == 0


def test_blank_rows_below_the_cursor_go_first() -> None:
    emulator = Emulator(20, 6)
    emulator.feed("only\r\ntwo")
    emulator.resize(20, 3)
    assert (emulator.text(), emulator.scrollback_lines) == (["only", "two", ""], 0)


def test_scrollback_is_rewrapped_too() -> None:
    emulator = Emulator(10, 2)
    emulator.feed("0123456789abc\r\n" + numbered(5))
    emulator.resize(20, 2)
    assert history(emulator)[0] == "0123456789abc"


def test_alternate_screen_is_cropped_and_the_primary_one_kept() -> None:
    emulator = Emulator(10, 4)
    emulator.feed("main text\x1b[?1049h\x1b[4;1H0123456789")
    emulator.resize(5, 2)
    assert emulator.text() == ["", "01234"]
    assert emulator.cursor == (4, 1)
    emulator.resize(10, 4)
    emulator.feed("\x1b[?1049l!")
    assert emulator.text() == ["main text!", "", "", ""]


def test_resize_resets_the_margins() -> None:
    emulator = Emulator(10, 6)
    emulator.feed("\x1b[2;3r")
    emulator.resize(10, 5)
    emulator.feed("\x1b[5;1Hx\n")
    assert emulator.text() == ["", "", "", "x", ""]


@pytest.mark.parametrize("size", [(0, 0), (-5, 3), (1, 1), (500, 200), (10**9, 10**9)])
def test_any_size_is_taken_and_bounded(size: tuple[int, int]) -> None:
    for emulator in (Emulator(*size), Emulator(80, 24)):
        emulator.resize(*size)
        emulator.feed("日本\x1b[2J\x1b[99;99Hx\n\x1b[5L\x1b[3P\x1b[L\u26a0\ufe0f\x1b[?1049hy")
        assert 1 <= emulator.columns <= 1000
        assert len(emulator.text()) == emulator.lines <= 1000


# Repaint and snapshot


def test_repaint_with_scrollback_hands_the_newest_lines_on() -> None:
    emulator, viewer = Emulator(20, 3), Emulator(20, 3)
    emulator.feed("\x1b[44mblue\x1b[m\r\n" + numbered(10))
    viewer.feed("old\r\n" * 10)
    viewer.feed(emulator.repaint(scrollback=100))
    assert history(viewer) == history(emulator)
    assert [viewer.scrollback_row(i) for i in range(8)] == [emulator.scrollback_row(i) for i in range(8)]
    assert [viewer.row(y) for y in range(3)] == [emulator.row(y) for y in range(3)]
    viewer.feed(emulator.repaint(scrollback=2))
    assert history(viewer) == history(emulator)[-2:]


def test_repaint_keeps_what_the_alternate_screen_hides() -> None:
    emulator, viewer = Emulator(20, 3), Emulator(20, 3)
    emulator.feed("shell$ \x1b[?1049hfull screen")
    viewer.feed(emulator.repaint())
    for each in (emulator, viewer):
        each.feed("\x1b[?1049lls")
    assert viewer.text() == emulator.text() == ["shell$ ls", "", ""]


def test_a_repainted_terminal_rewraps_as_the_original() -> None:
    emulator, viewer = Emulator(10, 4), Emulator(10, 4)
    emulator.feed("a line that wraps 日本語日本語")
    viewer.feed(emulator.repaint())
    for each in (emulator, viewer):
        each.resize(30, 4)
    assert viewer.text() == emulator.text()


def test_repaint_ends_a_sequence_the_terminal_is_in() -> None:
    emulator = Emulator(10, 2)
    emulator.feed("ok")
    for unfinished in (b"\x1b]0;title", b"\x1b[12", b"\x1bP+q", b"\xe6\x97"):
        viewer = Emulator(10, 2)
        viewer.feed(unfinished)
        viewer.feed(emulator.repaint())
        assert viewer.text() == ["ok", ""]


def test_snapshot_goes_on_in_the_middle_of_anything() -> None:
    for cut in (b"\xe6\x97", b"\x1b[3", b"\x1b]2;ti", "\U0001f469\u200d".encode()):
        emulator, restored = Emulator(10, 2), Emulator(3, 1)
        emulator.feed(cut)
        restored.restore(emulator.snapshot())
        for each in (emulator, restored):
            each.feed(b"\xa5m\x07x")
        assert restored.snapshot() == emulator.snapshot()


def test_snapshot_with_full_scrollback_is_small() -> None:
    emulator = Emulator(120, 40)
    emulator.feed("\r\n".join(f"{number} the \x1b[33mquick\x1b[m brown fox" for number in range(10_040)))
    assert len(emulator.snapshot()) < 200_000


@pytest.mark.parametrize("data", [b"", b"x", b"x\x9c", b"\x00" * 100])
def test_restore_refuses_what_is_no_snapshot(data: bytes) -> None:
    emulator = Emulator(10, 2)
    emulator.feed("text")
    with pytest.raises(ValueError, match="not a terminal snapshot"):
        emulator.restore(data)
    assert emulator.text() == ["text", ""]


# Colours, replies, notices


def test_colours_told_to_programs_are_settable() -> None:
    emulator = Emulator(10, 2)
    emulator.foreground, emulator.background = (0, 0, 0), (255, 255, 255)
    emulator.feed("\x1b]11;?\x07\x1b[?996n")
    assert emulator.take_replies() == b"\x1b]11;rgb:ffff/ffff/ffff\x07\x1b[?997;2n"
    assert emulator.take_replies() == b""


def test_a_change_of_scheme_is_reported_to_who_asked() -> None:
    emulator = Emulator(10, 2)
    emulator.set_colors((0, 0, 0), (255, 255, 255))
    assert emulator.take_replies() == b""
    emulator.feed("\x1b[?2031h")
    emulator.set_colors((255, 255, 255), (0, 0, 0))
    emulator.set_colors((200, 200, 200), (1, 1, 1))
    assert emulator.take_replies() == b"\x1b[?997;1n"


def test_replies_and_notices_nobody_takes_are_bounded() -> None:
    emulator = Emulator(10, 2)
    emulator.feed("\x1b[c\x1b]2;t\x07" * 5000)
    assert len(emulator.take_replies()) < 20_000
    assert len(emulator.take_notices()) == 256


def test_clipboard_is_capped() -> None:
    emulator = Emulator(10, 2)
    emulator.feed("\x1b]52;c;" + "QUJD" * 50_000 + "\x07")
    emulator.feed("\x1b]52;c;" + "QUJD" * 10 + "\x07")
    assert emulator.take_notices() == [Notice("clipboard", "ABC" * 10, {"selection": "c"})]


def test_endless_strings_and_sequences_take_bounded_memory() -> None:
    for start in ("\x1b]2;", "\x1bP", "\x1b_", "\x1b[", "\x1b("):
        emulator = Emulator(10, 2)
        emulator.feed(start)
        for _ in range(20):
            emulator.feed("1" * 65536 if start[-1] != "(" else " " * 65536)
        assert len(emulator.parser.state()[1]) <= parser.MAX_STRING
        emulator.feed("\x18ok")
        assert emulator.text()[0].endswith("ok")


def test_endless_combining_marks_and_styles_take_bounded_memory() -> None:
    emulator = Emulator(10, 2)
    emulator.feed("e" + "\u0301" * 100_000 + "\r\n")
    assert len(emulator.screen.rows[0].chars[0]) <= widths.MAX_CLUSTER
    tracemalloc.start()
    for red in range(20):
        emulator.feed("".join(f"\x1b[38;2;{red};{green};0mx\x1b[{red}{green}C\r" for green in range(256)))
    for number in range(4500):
        emulator.feed(f"\x1b]8;;http://host/{number}\x07x\r")
    for number in range(20):
        emulator.feed(
            "\x1b[" + f"{number};" * 10_000 + "m\x1b[" + f"{number};" * 10_000 + "H\x1bP+q" + "41" * 9999 + "\x1b\\"
        )
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 8_000_000


# Widths


@pytest.mark.parametrize(("characters", "columns"), [(widths.NARROW, 1), (widths.WIDE, 2)])
def test_fast_classes_agree_with_wcwidth(characters: str, columns: int) -> None:
    """Each member has that width, and never joins a letter, an emoji, or another member before it."""
    for character in re.findall(f"[{characters}]", "".join(map(chr, range(0x20, 0x1FFFF)))):
        assert wcwidth(character) == columns, hex(ord(character))
        for before in ("a", "日", "\U0001f469", "\U0001f1ef", "\u0301", "\ufe0f"):
            assert len(list(iter_graphemes("x" + before + character))) >= 2, hex(ord(character))
            assert not widths.joins(before, character), hex(ord(character))


# Imports


def test_emulator_is_headless() -> None:
    check = (
        "import sys, lapconsole.terminal.emulator; "
        "sys.exit(bool({'textual', 'rich', 'httpx', 'websockets'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=30)

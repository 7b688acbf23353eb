"""Looking back without a screen: frozen documents, what is selected and copied, search, links, and their keys."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.strip import Strip

from lapconsole.terminal import clipboard
from lapconsole.terminal.document import Document, Place, Span
from lapconsole.terminal.emulator import Emulator
from lapconsole.terminal.input import paste_risk
from lapconsole.terminal.links import links, openable
from lapconsole.terminal.paint import REVERSE, marked
from lapconsole.terminal.review import Mark, Review, Unit, Wish
from lapconsole.terminal.search import MAX_HITS, Search

LIMIT = 1_000_000


def terminal(text: str, columns: int = 20, lines: int = 5, scrollback: int = 10_000) -> Emulator:
    emulator = Emulator(columns, lines, scrollback=scrollback)
    emulator.feed(text.replace("\n", "\r\n"))
    return emulator


def document(text: str, columns: int = 20, lines: int = 5) -> Document:
    return Document.of(terminal(text, columns, lines))


def review(text: str, columns: int = 20, lines: int = 5) -> Review:
    made = document(text, columns, lines)
    return Review(made, lines, len(made) - lines)


def press(view: Review, *keys: str) -> Wish | None:
    wish = None
    for key in keys:
        wish = view.key(key)
    return wish


def find(view: Review, needle: str) -> list[str]:
    view.find(needle)
    while view.search_on(float("inf")):
        pass
    assert view.search is not None
    return [view.document.text(*span, LIMIT) for span in view.search.hits]


NUMBERED = "\n".join(f"line {n}" for n in range(100))
WRAPPED = "one two three four five six seven\nshort"


# Documents


def test_wrapped_lines_are_copied_as_they_were_written() -> None:
    whole = document(WRAPPED)
    assert whole.text(Place(0, 0), Place(2, 20), LIMIT) == WRAPPED
    assert whole.text(Place(0, 4), Place(1, 3), LIMIT) == "two three four five six"[:19]


def test_trailing_blanks_are_left_out_but_not_those_within_a_wrapped_line() -> None:
    whole = document("a   \n" + "b" * 18 + "  c", 20)
    assert whole.text(Place(0, 0), Place(2, 20), LIMIT) == "a\n" + "b" * 18 + "  c"


def test_wide_characters_and_fillers() -> None:
    whole = document("x" * 19 + "日本\n" + "👩\u200d💻 ok")
    assert whole.text(Place(0, 18), Place(1, 2), LIMIT) == "x日"
    assert whole.text(Place(2, 0), Place(2, 5), LIMIT) == "👩\u200d💻 ok"
    joined = whole.joined(whole.group(0))
    assert joined.text == "x" * 19 + "日本"
    assert joined.span(19, 20) == Span(Place(1, 0), Place(1, 2))
    assert joined.span(20, 21) == Span(Place(1, 2), Place(1, 4))
    assert joined.offset(Place(1, 2)) == 20


def test_words_and_lines_reach_over_wraps() -> None:
    whole = document("see https://example.org/a/b?c=d here")
    span = whole.word(Place(1, 2))
    assert whole.text(*span, LIMIT) == "https://example.org/a/b?c=d"
    assert whole.text(*whole.word(Place(0, 3)), LIMIT) == " "
    assert whole.text(*whole.whole_lines(1, 1), LIMIT) == "see https://example.org/a/b?c=d here"


def test_too_much_text_is_not_put_together() -> None:
    whole = document("x" * 20 + "\n" + "\n".join("y" * 20 for _ in range(100)))
    assert len(whole.text(Place(0, 0), Place(100, 20), 50)) < 100


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab 日\u0301👩\u200d\n", max_size=60), max_size=6), st.integers(2, 12))
def test_every_place_has_an_offset_and_back(texts: list[str], columns: int) -> None:
    whole = document("\n".join(texts), columns, 4)
    seen = []
    for group in whole.groups_back():
        seen = [*group, *seen]
        joined = whole.joined(group)
        for offset in range(len(joined.text)):
            place = joined.place(offset)
            assert joined.text[joined.offset(place)] == whole.characters(place.line)[place.column][0]
            start, end = joined.span(offset, offset + 1)
            assert start <= place < end
    assert seen == list(range(len(whole)))


def test_the_same_lines_are_found_in_a_later_document() -> None:
    emulator = terminal(NUMBERED, scrollback=90)
    before = Document.of(emulator)
    emulator.feed("\r\nmore" * 30)
    later = Document.of(emulator)
    shift = before.shift_to(later)
    assert before.characters(50) == later.characters(50 + shift)
    emulator.feed("\x1b[3J")
    assert before.shift_to(Document.of(emulator)) < 0


# Search


@pytest.mark.parametrize(
    ("needle", "found"),
    [
        ("line 9", ["line 9"] * 11),
        ("LINE", []),
        ("e 42", ["e 42"]),
        (".", []),
    ],
)
def test_search_is_literal_and_smart_about_case(needle: str, found: list[str]) -> None:
    search = Search(document(NUMBERED), needle)
    search.work(float("inf"))
    assert search.done
    assert len(search.hits) == len(found)


def test_search_ignores_case_until_it_is_given() -> None:
    assert find(review("Error\nerror ERROR"), "error") == ["ERROR", "error", "Error"]
    assert find(review("Error\nerror ERROR"), "Error") == ["Error"]


def test_search_over_wraps_and_wide_characters() -> None:
    view = review("one two three four five six 日本 seven")
    assert find(view, "four five") == ["four five"]
    assert find(view, "本 s") == ["本 s"]
    assert list(view.marks(0)) == []
    find(view, "four five")
    assert list(view.marks(0)) == [Mark(14, 20, "current")]
    assert list(view.marks(1)) == [Mark(0, 3, "current")]


def test_search_goes_in_slices_and_stops_at_its_limit() -> None:
    whole = document("a" * 20 + "\n" + ("a" * 20 + "\n") * 700)
    ticks = iter(range(10_000))
    search = Search(whole, "a", clock=lambda: next(ticks))
    search.work(0)
    assert 0 < len(search.hits) < 1000
    assert not search.done
    search.work(float("inf"))
    assert search.full
    assert len(search.hits) <= MAX_HITS + 20


def test_hits_from_the_newest_on_and_round_the_end() -> None:
    view = review(NUMBERED)
    find(view, "line 1")
    assert view.hit == 0
    view.settle()
    newest = view.search.hits[0].start.line
    assert newest == 19
    assert view.top <= 19 < view.top + 5
    press(view, "n")
    assert view.search.hits[view.hit].start.line == 18
    press(view, "N", "N")
    assert view.search.hits[view.hit].start.line == 1


def test_a_search_starts_from_what_is_in_sight() -> None:
    view = review(NUMBERED)
    press(view, "home")
    view.scroll(-50)
    find(view, "line")
    assert view.search.hits[view.hit].start.line == view.top + 4


# Keys


def test_scrolling() -> None:
    view = review(NUMBERED)
    press(view, "up", "k")
    assert view.lines_back == 2
    press(view, "pageup")
    assert view.lines_back == 6
    press(view, "home", "up")
    assert view.top == 0
    press(view, "G")
    assert view.lines_back == 0
    assert press(view, "q") is Wish.LEAVE
    assert press(view, "slash") is Wish.SEARCH
    assert press(view, "y") is None


def test_selecting_by_keys() -> None:
    view = review(NUMBERED)
    press(view, "v")
    assert view.cursor == Place(99, 0)
    assert view.selection is None
    press(view, "k", "k", "v", "l", "l", "j")
    assert view.text(LIMIT) == "line 97\nlin"
    assert press(view, "y") is Wish.COPY
    press(view, "o", "end")
    assert view.text(LIMIT) == "7\nlin"
    press(view, "V")
    assert view.text(LIMIT) == "line 97\nline 98"
    assert press(view, "escape") is None
    assert view.selection is None
    assert press(view, "escape") is None
    assert press(view, "escape") is Wish.LEAVE


def test_the_cursor_moves_by_words_and_whole_wide_characters() -> None:
    view = review("one 日本 three\ntwo")
    press(view, "v", "k", "0", "w")
    assert view.cursor == Place(0, 4)
    press(view, "l")
    assert view.cursor == Place(0, 6)
    press(view, "v", "h")
    assert view.text(LIMIT) == "日本"
    press(view, "w", "w")
    assert view.cursor == Place(1, 0)
    press(view, "b")
    assert view.cursor == Place(0, 9)


def test_a_cursor_beyond_the_edge_scrolls() -> None:
    view = review(NUMBERED)
    press(view, "v", *["k"] * 10)
    assert view.cursor == Place(89, 0)
    assert view.top == 89
    press(view, "pageup")
    assert view.cursor == Place(85, 0)


def test_everything_can_be_selected_and_every_key_pressed_in_any_order() -> None:
    view = review("")
    for key in ("up", "v", "V", "G", "g", "y", "o", "n", "w", "b", "$", "pageup", "end", "escape", "ctrl+x", "h"):
        press(view, key)
    assert view.text(LIMIT) == "" or view.text(LIMIT).isspace()


@pytest.mark.parametrize(("unit", "text"), [(Unit.CELL, "o thre"), (Unit.WORD, "two three"), (Unit.LINE, WRAPPED[:33])])
def test_selecting_by_cells_words_and_lines(unit: Unit, text: str) -> None:
    view = review(WRAPPED)
    view.select(Place(0, 6), unit, extend=False)
    view.select(Place(0, 11), unit, extend=True)
    assert view.text(LIMIT) == text


def test_going_on_in_a_later_or_rebuilt_document() -> None:
    emulator = terminal(NUMBERED)
    whole = Document.of(emulator)
    view = Review(whole, 5, len(whole) - 5)
    view.scroll(10)
    before = view.document.characters(view.top)
    emulator.feed("\r\nmore" * 7)
    view.renew(Document.of(emulator))
    assert view.document.characters(view.top) == before
    assert view.lines_back == 17
    view.renew(document(NUMBERED + "\nmore" * 7), rebuilt=True)
    assert view.document.characters(view.top) == before
    view.resize(3)
    assert view.lines_back == 17


# Marks


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "bc", "日", " ", "é"]), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(-2, 20), st.integers(-2, 20)), max_size=4),
)
def test_marks_change_the_style_of_their_cells_only(pieces: list[str], spans: list[tuple[int, int]]) -> None:
    bold = RichStyle(bold=True)
    strip = Strip([Segment(piece, bold) for piece in pieces])
    drawn = marked(strip, [(start, end, REVERSE) for start, end in spans])
    assert drawn.cell_length == strip.cell_length
    if strip.text.isascii():
        assert drawn.text == strip.text
        column = 0
        for text, style, _ in drawn:
            inside = any(start <= column < end for start, end in spans)
            assert bool(style.reverse) == inside
            assert style.bold
            column += len(text)


def test_what_is_reversed_is_turned_back() -> None:
    strip = Strip([Segment("ab", RichStyle(reverse=True))])
    drawn = list(marked(strip, [(0, 1, REVERSE)]))
    assert [bool(style.reverse) for _, style, _ in drawn] == [False, True]


# Links


def test_links_are_found_newest_first_and_once() -> None:
    text = (
        "see https://a.example/x. (https://b.example/y(z)), again https://a.example/x\n"
        "\x1b]8;;https://c.example/hidden\x1b\\here\x1b]8;;\x1b\\ <http://d.example> ftp://no.example"
    )
    assert links(document(text, 30, 10)) == [
        "https://c.example/hidden",
        "http://d.example",
        "https://a.example/x",
        "https://b.example/y(z)",
    ]


@pytest.mark.parametrize(
    ("address", "yes"),
    [
        ("https://a.example", True),
        ("mailto:a@b.example", True),
        ("file:///etc/passwd", False),
        ("javascript:x", False),
        ("https://a\x1b", False),
        ("http://[", False),
    ],
)
def test_only_web_and_mail_is_opened(address: str, yes: bool) -> None:
    assert openable(address) is yes


# Clipboard and paste


def test_inside_tmux_the_sequence_is_wrapped() -> None:
    assert clipboard.through_tmux("hé", {}) == ""
    wrapped = clipboard.through_tmux("hé", {"TMUX": "/tmp/tmux,1,0"})
    assert wrapped == f"\x1bPtmux;\x1b\x1b]52;c;{base64.b64encode('hé'.encode()).decode()}\x07\x1b\\"


async def test_tmux_missing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    await clipboard.into_tmux("text")


@pytest.mark.parametrize(
    ("text", "risk"),
    [("a", (1, 0)), ("a\n", (1, 0)), ("a\r\nb\rc\nd", (4, 0)), ("a\tb\x1b[201~\x03", (1, 2)), ("", (1, 0))],
)
def test_what_a_paste_would_do(text: str, risk: tuple[int, int]) -> None:
    assert paste_risk(text) == risk

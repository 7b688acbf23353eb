"""The terminal widget with a real emulator: what it shows, when it shows it, and what it makes of keys and mouse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.style import Style as RichStyle
from textual import events
from textual.app import App, ComposeResult
from textual.message import Message

from lapconsole.terminal import surface, widget
from lapconsole.terminal.emulator import Emulator
from lapconsole.terminal.paint import paint
from lapconsole.terminal.widget import Mode, TerminalView
from tests.waiting import until


class Terminal(App[None]):
    """A terminal and nothing else; keeps what it posts."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS = ()

    def __init__(self) -> None:
        super().__init__()
        self.posted: list[Message] = []

    def compose(self) -> ComposeResult:
        yield TerminalView(scrollback=200)

    def on_mount(self) -> None:
        self.view.focus()

    @property
    def view(self) -> TerminalView:
        return self.query_one(TerminalView)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "quit"

    @property
    def typed(self) -> bytes:
        return b"".join(message.data for message in self.posted if isinstance(message, TerminalView.Input))

    def of(self, kind: type[Message]) -> list[Any]:
        return [message for message in self.posted if isinstance(message, kind)]

    def on_event_(self, message: Message) -> None:
        self.posted.append(message)

    on_surface_resized = on_surface_title_changed = on_surface_bell = on_event_
    on_terminal_view_input = on_terminal_view_command = on_terminal_view_mode_changed = on_event_
    on_terminal_view_offline = on_terminal_view_refused = on_terminal_view_copied = on_event_
    on_terminal_view_paste_asked = on_terminal_view_offered = on_terminal_view_looked_back = on_event_

    @property
    def commands(self) -> list[str]:
        return [message.name for message in self.posted if isinstance(message, TerminalView.Command)]


def shown(view: TerminalView) -> list[str]:
    """The rows as drawn, without trailing blanks."""
    return [view.render_line(y).text.rstrip() for y in range(view.size.height)]


def style_at(view: TerminalView, x: int, y: int) -> RichStyle:
    return next(iter(view.render_line(y).crop(x, x + 1))).style or RichStyle.null()


def running(size: tuple[int, int] = (40, 10)) -> Any:
    return Terminal().run_test(size=size)


async def feed(pilot: Any, data: str | bytes) -> None:
    """Feed the view and wait until it shows all of it."""
    view = pilot.app.view
    view.feed(data)
    await until(lambda: not view._waiting and not view._stale, "the output is shown")
    await pilot.pause()


async def test_shows_what_the_program_prints() -> None:
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, "hello\r\n\x1b[31mred\x1b[0m 日本\r\n\x1b[1;38;2;1;2;3;48;5;240mx")
        assert shown(view)[:3] == ["hello", "red 日本", "x"]
        assert style_at(view, 0, 1).color.number == 1
        assert style_at(view, 0, 2).color.triplet == (1, 2, 3)
        assert style_at(view, 0, 2).bgcolor.number == 240
        assert style_at(view, 0, 2).bold
        assert view.render_line(1).cell_length == 40
        assert len(pilot.app.of(TerminalView.Resized)) == 1
        assert (view.emulator.columns, view.emulator.lines) == (40, 10)


@pytest.mark.parametrize(
    ("sgr", "attribute"),
    [
        *(("1", "bold"), ("2", "dim"), ("3", "italic"), ("4", "underline"), ("21", "underline2"), ("4:3", "underline")),
        *(("5", "blink"), ("7", "reverse"), ("8", "conceal"), ("9", "strike"), ("53", "overline")),
    ],
)
def test_every_style_is_drawn(sgr: str, attribute: str) -> None:
    emulator = Emulator(4, 1)
    emulator.feed(f"\x1b[{sgr}mx")
    segment = next(iter(paint(emulator.row(0), 4, RichStyle())))
    assert getattr(segment.style, attribute)


def test_links_cannot_smuggle_escape_sequences() -> None:
    emulator = Emulator(20, 1)
    emulator.feed("\x1b]8;;https://example.org/a\x1b\\ok\x1b]8;;\x1b\\\x1b]8;;javascript:x\x1b\\no\x1b]8;;\x1b\\")
    links = [segment.style.link for segment in paint(emulator.row(0), 20, RichStyle()) if segment.style is not None]
    assert links[:2] == ["https://example.org/a", None]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(
        st.text(max_size=30)
        | st.binary(max_size=30)
        | st.sampled_from(
            ["\x1b[", "\x1b]0;", "\x1b[8;5H", "日本", "👩\u200d💻", "\u0301", "\x9b", "\x1b[?1049h", "\x1b[31;7m"]
        ),
        max_size=30,
    )
)
def test_rows_are_exact_and_free_of_control_characters(chunks: list[str | bytes]) -> None:
    emulator = Emulator(20, 5)
    for chunk in chunks:
        emulator.feed(chunk)
    for y in range(5):
        strip = paint(emulator.row(y), 20, RichStyle())
        assert sum(segment.cell_length for segment in strip) == 20
        assert not re.search("[\x00-\x1f\x7f-\x9f]", strip.text)


async def test_only_changed_rows_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, "one\r\ntwo\r\nthree\x1b[?25l")
        regions: list[Any] = []
        monkeypatch.setattr(view, "refresh", lambda *given, **_: regions.extend(given))
        await feed(pilot, "\x1b[2;1HTWO\x1b[3;1Hthree")
        assert [(region.y, region.height) for region in regions] == [(1, 1)]


async def test_a_new_theme_repaints_everything() -> None:
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, "hello")
        before = style_at(view, 0, 0).bgcolor
        pilot.app.theme = "textual-light"
        await until(lambda: style_at(view, 0, 0).bgcolor != before, "the new background")
        assert shown(view)[0] == "hello"
        assert style_at(view, 20, 9).bgcolor == style_at(view, 0, 0).bgcolor


async def test_cursor_is_drawn_in_its_shape() -> None:
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, "ab日\x1b[1;2H")
        assert style_at(view, 1, 0).reverse
        await feed(pilot, "\x1b[4 q")
        assert style_at(view, 1, 0).underline
        await feed(pilot, "\x1b[6 q\x1b[1;9H")
        assert shown(view)[0] == "ab日    ▏"
        await feed(pilot, "\x1b[2 q\x1b[1;3H")
        assert style_at(view, 2, 0).reverse
        assert shown(view)[0] == "ab日"
        await feed(pilot, "\x1b[?25l")
        assert not style_at(view, 2, 0).reverse


async def test_typing() -> None:
    async with running() as pilot:
        await pilot.press("h", "i", "enter", "ctrl+c", "ctrl+q", "ctrl+p", "tab", "escape", "up")
        assert pilot.app.typed == b"hi\r\x03\x11\x10\t\x1b\x1b[A"
        await feed(pilot, "\x1b[?1h\x1b[>1u")
        await pilot.press("up", "escape")
        assert pilot.app.typed.endswith(b"\x1b[A\x1b[27u")
        assert pilot.app.is_running


async def test_paste() -> None:
    async with running() as pilot:
        view = pilot.app.view
        view.post_message(events.Paste("a\nb"))
        await pilot.pause()
        await feed(pilot, "\x1b[?2004h")
        view.post_message(events.Paste("a\nb"))
        await pilot.pause()
        assert pilot.app.typed == b"a\rb\x1b[200~a\rb\x1b[201~"


async def test_replies_of_the_emulator_are_not_typed() -> None:
    async with running() as pilot:
        await feed(pilot, "\x1b[c\x1b[6n\x1b[>c\x1b]11;?\x07")
        assert pilot.app.typed == b""
        assert pilot.app.view.emulator.take_replies() == b""


async def test_title_and_bell() -> None:
    async with running() as pilot:
        await feed(pilot, "\x1b]0;work\x07\a")
        assert [message.title for message in pilot.app.of(TerminalView.TitleChanged)] == ["work"]
        assert len(pilot.app.of(TerminalView.Bell)) == 1


async def test_animated_titles_and_endless_bells_are_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as pilot:
        monkeypatch.setattr(surface, "TITLE_SECONDS", 0.2)
        for n in range(50):
            await feed(pilot, f"\x1b]0;title {n}\x07\a")
        titles = pilot.app.of(TerminalView.TitleChanged)
        await until(lambda: pilot.app.of(TerminalView.TitleChanged)[-1].title == "title 49", "the last title")
        assert len(titles) < 25
        assert len(pilot.app.of(TerminalView.Bell)) < 25


async def test_focus_is_reported() -> None:
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, "\x1b[?1004h")
        pilot.app.post_message(events.AppBlur())
        await until(lambda: pilot.app.typed == b"\x1b[O", "focus lost")
        pilot.app.post_message(events.AppFocus())
        await until(lambda: pilot.app.typed == b"\x1b[O\x1b[I", "focus back")
        assert view.has_focus


# The one key kept


async def test_command_mode() -> None:
    async with running() as pilot:
        app, view = pilot.app, pilot.app.view
        await pilot.press("ctrl+right_square_bracket", "x", "q")
        assert view.mode is Mode.COMMAND
        assert app.typed == b""
        await pilot.press("escape", "x")
        assert view.mode is Mode.LIVE
        await pilot.press("ctrl+right_square_bracket", "ctrl+right_square_bracket")
        await pilot.press("ctrl+right_square_bracket", "right_square_bracket")
        assert app.typed == b"x\x1d\x1d"
        assert not app.commands
        await pilot.press("ctrl+right_square_bracket", "d")
        assert app.commands == ["detach"]
        assert app.typed == b"x\x1d\x1d"


async def test_the_kept_key_under_the_kitty_protocol() -> None:
    async with running() as pilot:
        await feed(pilot, "\x1b[>1u")
        await pilot.press("ctrl+right_square_bracket", "right_square_bracket")
        assert pilot.app.typed == b"\x1b[93;5u"


async def test_nothing_is_typed_or_lost_to_the_console_while_offline() -> None:
    async with running() as pilot:
        app = pilot.app
        app.view.connected = False
        await pilot.press("a", "enter", "ctrl+q")
        app.view.post_message(events.Paste("secret"))
        await pilot.pause()
        assert app.typed == b""
        assert [message.key for message in app.of(TerminalView.Offline)] == ["a", "enter", "ctrl+q"]
        await pilot.press("ctrl+right_square_bracket", "d")
        assert app.commands == ["detach"]


# Scrollback


def numbered(count: int) -> str:
    return "\r\n".join(f"line {n}" for n in range(count))


async def test_scrollback_by_command_mode() -> None:
    async with running() as pilot:
        app, view = pilot.app, pilot.app.view
        await feed(pilot, numbered(50))
        await pilot.press("ctrl+right_square_bracket", "s", "up")
        assert shown(view) == [f"line {n}" for n in range(39, 49)]
        await pilot.press("pageup")
        assert shown(view)[0] == "line 30"
        await pilot.press("home")
        assert shown(view)[0] == "line 0"
        await pilot.press("x")
        assert app.typed == b""
        await pilot.press("q")
        assert view.mode is Mode.LIVE
        assert shown(view)[9] == "line 49"


async def test_a_view_scrolled_back_stays_while_output_comes() -> None:
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, numbered(50))
        await pilot.press("shift+pageup")
        before = shown(view)
        await feed(pilot, "\r\nmore" * 20)
        assert shown(view) == before
        await pilot.press("shift+pagedown")
        assert shown(view)[0] == "line 40"
        await pilot.press("a")
        assert pilot.app.typed == b"a"
        assert view.lines_back == 0
        assert shown(view)[9] == "more"


async def test_typing_goes_back_to_the_live_screen_whatever_came_meanwhile() -> None:
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, numbered(50))
        await pilot.press("shift+pageup")
        await feed(pilot, "\r\nmore" * 30)
        await pilot.press("a")
        assert view.lines_back == 0
        assert shown(view) == ["more"] * 10


async def test_an_erased_scrollback_leaves_the_view_usable() -> None:
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, numbered(50))
        await pilot.press("shift+pageup")
        await feed(pilot, "\x1b[2J\x1b[3J\x1b[Hfresh")
        pilot.app.theme = "textual-light"
        await pilot.press("shift+pageup", "a")
        assert view.lines_back == 0
        assert shown(view)[0] == "fresh"


async def test_the_wheel_scrolls_or_goes_to_the_program() -> None:
    async with running() as pilot:
        app, view = pilot.app, pilot.app.view

        async def wheel(kind: type[events.MouseEvent]) -> None:
            view.post_message(kind(view, 3, 4, 0, 0, 0, False, False, False))
            await pilot.pause()

        await feed(pilot, numbered(50))
        await wheel(events.MouseScrollUp)
        assert view.lines_back == 3
        await wheel(events.MouseScrollDown)
        assert view.lines_back == 0
        await feed(pilot, "\x1b[?1049h")
        await wheel(events.MouseScrollUp)
        assert app.typed == b"\x1b[A" * 3
        await feed(pilot, "\x1b[?1000h\x1b[?1006h")
        await wheel(events.MouseScrollDown)
        assert app.typed == b"\x1b[A" * 3 + b"\x1b[<65;4;5M"


async def test_mouse_reports() -> None:
    async with running() as pilot:
        await feed(pilot, "\x1b[?1002h\x1b[?1006h")
        await pilot.mouse_down(TerminalView, offset=(2, 1))
        await pilot.hover(TerminalView, offset=(4, 1))
        await pilot.hover(TerminalView, offset=(4, 1))
        await pilot.mouse_up(TerminalView, offset=(4, 1))
        assert pilot.app.typed.endswith(b"\x1b[<0;3;2M\x1b[<32;5;2M\x1b[<0;5;2m")
        assert pilot.app.mouse_captured is None


# Size and pace


async def test_resize_is_told_once_it_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "RESIZE_SECONDS", 0.5)
    async with running() as pilot:
        app, view = pilot.app, pilot.app.view
        await feed(pilot, "hello")
        for width in range(41, 60):
            await pilot.resize_terminal(width, 12)
        await until(lambda: app.of(TerminalView.Resized)[-1].columns == 59, "the last size")
        assert len(app.of(TerminalView.Resized)) < 10
        assert (view.emulator.columns, view.emulator.lines) == (59, 12)
        assert shown(view)[0] == "hello"


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The first row of the screen at each frame."""
    taken: list[str] = []
    draw = TerminalView._draw

    def spy(self: TerminalView, rows: Any) -> None:
        taken.append(self.emulator.text()[0])
        draw(self, rows)

    monkeypatch.setattr(TerminalView, "_draw", spy)
    yield taken


async def test_frames_are_whole_under_back_to_back_synchronized_updates(frames: list[str]) -> None:
    async with running() as pilot:
        view = pilot.app.view
        for n in range(400):
            view.feed(f"\x1b[?2026h\x1b[1;1Hhalf{n}\x1b[1;1H{'x' * 500}\x1b[1;1Hdone{n:04}\x1b[K\x1b[?2026l\x1b[?2026h")
        view.feed("\x1b[?2026l")
        await until(lambda: not view._waiting and not view._stale, "all is shown")
        drawn = [row for row in frames if row]
        assert len(drawn) > 1
        assert all(re.fullmatch(r"done\d{4}", row) for row in drawn)


async def test_a_synchronized_update_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as pilot:
        view = pilot.app.view
        view.feed("\x1b[?2026hstuck")
        await until(lambda: shown(view)[0] == "stuck", "the held frame", seconds=5)


async def test_frames_wait_while_the_outer_terminal_is_behind(
    monkeypatch: pytest.MonkeyPatch, frames: list[str]
) -> None:
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, "first")
        frames.clear()
        behind = True
        monkeypatch.setattr(view, "_link_behind", lambda: behind)
        for n in range(20):
            view.feed(f"\x1b[1;1H{n:05}")
        await until(lambda: not view._waiting, "the output is taken")
        assert frames == []
        behind = False
        await until(lambda: frames == ["00019"], "one frame, of the present")


async def test_a_flood_leaves_room_for_keys() -> None:
    async with running() as pilot:
        app, view = pilot.app, pilot.app.view
        view.feed("0123456789abcdef\r\n" * 60_000)
        assert view._backlog > surface.HIGH_WATER_BYTES
        view.post_message(events.Key("k", "k"))
        await until(lambda: app.typed == b"k", "the key")
        assert view._waiting
        view._waiting.clear()
        view._backlog = view._taken = 0
        await view.ready()


async def test_output_before_the_mount_is_kept() -> None:
    app = Terminal()
    early = TerminalView()
    early.feed("early")
    async with app.run_test(size=(40, 10)) as pilot:
        await app.mount(early)
        await until(lambda: shown(early)[:1] == ["early"], "the early output")
        await pilot.pause()


# Repaints and other sizes


async def test_a_repaint_replaces_everything_and_drops_what_waits() -> None:
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, "\x1b]0;old\x07\x1b[?1000hold" + "\r\nold" * 30)
        source = Emulator(30, 6)
        source.feed("\r\n".join(f"new {n}" for n in range(20)))
        view.feed("never shown" * 10_000)
        view.repaint(source.repaint(14), 30, 6)
        await until(lambda: view.emulator.columns == 30, "the repaint")
        await feed(pilot, "!")
        assert shown(view)[:6] == [*(f"new {n}" for n in range(14, 19)), "new 19!"]
        assert view.emulator.scrollback_lines == 14
        assert view.emulator.modes.mouse == 0
        view.follow_size()
        assert view.emulator.columns == 40


async def test_a_repaint_that_is_not_fresh_keeps_the_scrollback() -> None:
    async with running() as pilot:
        view = pilot.app.view
        source = Emulator(40, 10)
        source.feed(numbered(50))
        view.repaint(source.repaint(40), 40, 10)
        await until(lambda: view.emulator.scrollback_lines == 40, "the scrollback")
        source.resize(30, 5)
        view.repaint(source.repaint(), 30, 5, fresh=False)
        await feed(pilot, "!")
        assert view.emulator.text() == [*(f"line {n}" for n in range(45, 49)), "line 49!"]
        assert view.emulator.scrollback_lines == 45


# Selecting with the mouse


async def drag(pilot: Any, start: tuple[int, int], end: tuple[int, int], **held: bool) -> None:
    await pilot.mouse_down(TerminalView, offset=start, **held)
    await pilot.hover(TerminalView, offset=end)
    await pilot.mouse_up(TerminalView, offset=end, **held)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(App, "copy_to_clipboard", lambda app, text: texts.append(text))
    monkeypatch.delenv("TMUX", raising=False)
    return texts


async def test_dragging_copies_and_the_live_screen_comes_back(
    copied: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widget, "LINGER_SECONDS", 0.05)
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, "one two three\r\n" + "x" * 45)
        await pilot.mouse_down(TerminalView, offset=(4, 0))
        await feed(pilot, "\x1b[Hchanged meanwhile")
        await pilot.hover(TerminalView, offset=(2, 1))
        assert shown(view)[0] == "one two three"
        assert style_at(view, 6, 0).reverse
        assert not style_at(view, 2, 0).reverse
        await pilot.mouse_up(TerminalView, offset=(2, 1))
        await until(lambda: shown(view)[0] == "changed meanwhile", "the live screen")
        assert copied == ["two three\nxxx"]
        assert pilot.app.typed == b""


async def test_double_and_triple_clicks(copied: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widget, "CLICK_SECONDS", 60.0)
    async with running() as pilot:
        await feed(pilot, "see https://example.org/a/long/path/that-wraps now")
        for _ in range(3):
            await drag(pilot, (3, 1), (3, 1))
        assert copied == [
            "https://example.org/a/long/path/that-wraps",
            "see https://example.org/a/long/path/that-wraps now",
        ]


async def test_a_program_with_the_mouse_keeps_it_unless_shift_is_held(copied: list[str]) -> None:
    async with running() as pilot:
        await feed(pilot, "hello there\x1b[?1002h\x1b[?1006h")
        await drag(pilot, (0, 0), (4, 0))
        assert copied == []
        typed = pilot.app.typed
        assert typed
        await drag(pilot, (0, 0), (4, 0), shift=True)
        assert copied == ["hello"]
        assert pilot.app.typed == typed


async def test_who_watches_selects_and_types_nothing(copied: list[str]) -> None:
    async with running() as pilot:
        app, view = pilot.app, pilot.app.view
        await feed(pilot, "hello there\x1b[?1002h\x1b[?1006h\x1b[?1004h")
        view.driving = False
        await drag(pilot, (0, 0), (4, 0))
        assert copied == ["hello"]
        await pilot.press("escape", "x")
        view.post_message(events.Paste("text"))
        app.post_message(events.AppBlur())
        await pilot.pause()
        assert app.typed == b""
        assert len(app.of(TerminalView.Refused)) == 2  # the first key brought the live screen back


async def test_dragging_beyond_the_top_scrolls(copied: list[str]) -> None:
    async with running() as pilot:
        view = pilot.app.view
        await feed(pilot, numbered(50))
        await pilot.mouse_down(TerminalView, offset=(3, 5))
        view._select_to(0, -3)
        await until(lambda: view.lines_back == 40, "the oldest line")
        view._end_selection()
        assert copied[0].startswith("line 0\nline 1\n")
        assert len(copied[0].splitlines()) == 46


async def test_a_search_holds_the_loop_for_moments_only() -> None:
    async with running((120, 35)) as pilot:
        view = pilot.app.view
        view.emulator = Emulator(120, 35)
        await feed(pilot, "\r\n".join(f"{n} {'needle in a haystack ' * 5}" for n in range(5000)))
        await pilot.press("ctrl+right_square_bracket", "slash", "h")
        steps = 0

        def count() -> bool:
            nonlocal steps
            steps += 1
            return view.review.search.done

        await until(count, "all hits")
        assert view.review.search.full
        assert shown(view)[-1].startswith("4999")
        await pilot.press("escape", "q")
        assert view.review is None

"""The log view: follows, holds perfectly still, finds, and says what it left out."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult

from lapconsole import themes
from lapconsole.widgets import log_view
from lapconsole.widgets.log_view import ANEW_LINE, GAP_LINE, LogView, overlap


class Host(App[None]):
    def compose(self) -> ComposeResult:
        yield LogView(id="log")

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return themes.VARIABLES

    @property
    def log_view(self) -> LogView:
        return self.query_one(LogView)

    def shown(self) -> list[str]:
        view = self.log_view
        return [view.render_line(y).text.rstrip() for y in range(1, view.size.height)]


def tail(first: int, last: int) -> str:
    return "".join(f"line {number}\n" for number in range(first, last + 1))


@pytest.mark.parametrize(
    ("old", "new", "known"),
    [
        ("", "abc", 0),
        ("abc", "abc", 3),
        ("abc", "bcd", 2),
        ("abc", "xyz", 0),
        ("aaa", "aaaa", 3),
        ("abcabc", "abcd", 3),
        ("abc", "", 0),
    ],
)
def test_overlap(old: str, new: str, known: int) -> None:
    assert overlap(list(old), list(new)) == known


async def test_opens_at_the_end_and_follows() -> None:
    async with Host().run_test(size=(40, 11)) as pilot:
        host, view = pilot.app, pilot.app.query_one(LogView)
        assert isinstance(host, Host)
        assert host.shown()[0] == "Nothing has been logged yet."
        view.feed(tail(1, 30))
        await pilot.pause()
        assert host.shown() == [f"line {number}" for number in range(21, 31)]
        view.feed(tail(20, 33))
        await pilot.pause()
        assert host.shown()[-1] == "line 33"
        assert len(view.text) == 33
        view.feed(tail(20, 33))
        view.feed("")
        assert len(view.text) == 33


async def test_held_it_does_not_move_and_counts_what_comes() -> None:
    async with Host().run_test(size=(60, 11)) as pilot:
        host, view = pilot.app, pilot.app.query_one(LogView)
        assert isinstance(host, Host)
        view.feed(tail(1, 50))
        view.focus()
        await pilot.press("pageup")
        before = host.shown()
        view.feed(tail(40, 70))
        await pilot.pause()
        assert host.shown() == before
        assert view.title == "Log · held still · 20 new lines below"
        await pilot.press("end")
        assert host.shown()[-1] == "line 70"
        assert view.title == "Log · following"
        await pilot.press("space")
        assert not view.following
        await pilot.press("pagedown")
        assert view.following


async def test_held_it_does_not_move_when_old_lines_fall_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_view, "MAXIMUM_LINES", 60)
    async with Host().run_test(size=(40, 11)) as pilot:
        host, view = pilot.app, pilot.app.query_one(LogView)
        assert isinstance(host, Host)
        view.feed(tail(1, 55))
        view.focus()
        await pilot.press("pageup")
        before = host.shown()
        view.feed(tail(50, 75))
        await pilot.pause()
        assert view.text[0] == "line 16"
        assert host.shown() == before


async def test_says_when_lines_were_missed() -> None:
    async with Host().run_test(size=(70, 11)) as pilot:
        view = pilot.app.query_one(LogView)
        view.feed(tail(1, 5))
        view.feed(tail(900, 902))
        assert view.text[5] == GAP_LINE


async def test_wrap_and_cut() -> None:
    async with Host().run_test(size=(21, 11)) as pilot:
        host, view = pilot.app, pilot.app.query_one(LogView)
        assert isinstance(host, Host)
        view.feed("0123456789abcdefghijklmnopq\nend")
        view.focus()
        await pilot.pause()
        assert host.shown()[:3] == ["0123456789abcdefghij", "klmnopq", "end"]
        await pilot.press("w")
        assert host.shown()[:2] == ["0123456789abcdefghi…", "end"]


async def test_search_goes_round_and_marks() -> None:
    async with Host().run_test(size=(60, 11)) as pilot:
        host, view = pilot.app, pilot.app.query_one(LogView)
        assert isinstance(host, Host)
        view.feed("".join(f"line {number} {'ERROR' if number % 20 == 0 else 'fine'}\n" for number in range(1, 100)))
        view.focus()
        await pilot.pause()
        view.search("error")
        await pilot.pause()
        assert "match 4 of 4" in view.title
        assert "line 80 ERROR" in host.shown()
        await pilot.press("N")
        assert "line 60 ERROR" in host.shown()
        await pilot.press("n", "n")
        assert "match 1 of 4" in view.title
        view.search("nowhere")
        assert 'nothing matches "nowhere"' in view.title
        view.search("")
        assert "matches" not in view.title


async def test_escape_sequences_of_an_agent_are_only_text() -> None:
    async with Host().run_test(size=(60, 11)) as pilot:
        host, view = pilot.app, pilot.app.query_one(LogView)
        assert isinstance(host, Host)
        view.feed("\x1b[31mred\x1b[0m\x1b]52;c;aGk=\x07\n\x1b[2J50%\r100%\n")
        await pilot.pause()
        assert host.shown()[:2] == ["red", "100%"]


async def test_the_log_of_a_new_sandbox_is_no_gap() -> None:
    async with Host().run_test(size=(40, 11)) as pilot:
        view = pilot.app.query_one(LogView)
        view.feed(tail(1, 5), asked=10)
        view.feed("other 1\nother 2\n", asked=10)
        assert view.text[5:] == [ANEW_LINE, "other 1", "other 2"]
        view.feed(tail(20, 29), asked=10)
        assert view.text[8] == GAP_LINE


async def test_a_line_that_was_read_half_is_replaced_by_the_whole() -> None:
    async with Host().run_test(size=(40, 11)) as pilot:
        view = pilot.app.query_one(LogView)
        view.feed("one\ntwo\nReceiving: 10%", asked=10)
        view.feed("one\ntwo\nReceiving: 100%, done\nthree\n", asked=10)
        assert view.text == ["one", "two", "Receiving: 100%, done", "three"]

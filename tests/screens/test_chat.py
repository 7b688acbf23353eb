"""The chat screen: what is said shows as it is said, is sent once, and survives whatever happens to the link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot

from lapconsole.app import LapConsole
from lapconsole.client.models import Activity, Event
from lapconsole.client.models import Session as SessionRow
from lapconsole.client.platform import Platform
from lapconsole.screens.chat import ChatLine, ChatScreen
from lapconsole.screens.outbox import Outgoing
from tests.conversation import STARTED, Session, message, served, text, tool
from tests.screens.scene import DOCS, NIGHTLY, NOW, console, session

SIZE = (80, 24)
ROW = session(1, NIGHTLY, "ready", title="Nightly upgrade")


async def until(condition: Callable[[], object], pilot: Pilot[None]) -> None:
    """Let the app work until the condition holds."""
    try:
        async with asyncio.timeout(10):
            while not condition():
                await pilot.pause()
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within 10 s; shown:\n{shown(pilot)}") from None


def shown(pilot: Pilot[None]) -> str:
    """What the transcript, the line and the text show."""
    screen = pilot.app.screen
    if not isinstance(screen, ChatScreen):
        return type(screen).__name__
    view = screen.transcript
    rows = [view.render_line(y).text.rstrip() for y in range(view.size.height)]
    return "\n".join([*rows, screen.query_one(ChatLine).render_line(0).text.rstrip(), screen.prompt.text])


@asynccontextmanager
async def chatting(
    talk: Session, size: tuple[int, int] = SIZE, row: SessionRow = ROW
) -> AsyncIterator[tuple[Pilot[None], LapConsole]]:
    async with served(talk) as base, Platform(base, "sk-test") as platform:
        app = console(rows=[row], platform=platform)
        async with app.run_test(size=size) as pilot:
            await pilot.press("a")
            await until(lambda: isinstance(app.screen, ChatScreen), pilot)
            yield pilot, app


async def live(pilot: Pilot[None]) -> None:
    await until(lambda: pilot.app.screen._link == "live", pilot)


async def say(pilot: Pilot[None], words: str) -> None:
    pilot.app.screen.prompt.insert(words)
    await pilot.press("enter")


HISTORY = [
    message("u1", "user", text("Bring the handbook up to date")),
    message(
        "m1",
        "assistant",
        {"type": "reasoning", "text": "The handbook is old.\nI look first."},
        tool("Bash", "a.md\nb.md", command="ls docs"),
        tool("Edit", "no such file", "error", file_path="docs/c.md"),
        text("# Done\nI changed **two** files:\n- `a.md`\n- b.md\n```python\nprint('x')\n```"),
        tokens={"output": 42},
        cost=0.0123,
    ),
]


async def test_a_transcript_shows_folded_and_unfolds() -> None:
    talk = Session()
    talk.messages = list(HISTORY)
    async with chatting(talk) as (pilot, _app):
        await live(pilot)
        await until(lambda: "12s · ↓ 42 tokens · $0.0123" in shown(pilot), pilot)
        told = shown(pilot)
        assert "user  02:56" in told and "nightly-upgrade  02:56" in told
        assert "▸ thought  The handbook is old. I look first." in told
        assert "▸ Bash  ls docs  ✓ 2 lines" in told and "a.md\n" not in told.partition("Done")[0]
        assert "▸ Edit  docs/c.md  ✗ failed" in told and "no such file" in told
        assert "# Done" not in told and "I changed two files:" in told and "print('x')" in told and "```" not in told
        await pilot.press("ctrl+o")
        await until(lambda: "▾ Bash" in shown(pilot), pilot)
        await pilot.press("ctrl+home")
        assert "command: ls docs" in shown(pilot) and "b.md" in shown(pilot) and "I look first." in shown(pilot)
        await pilot.press("ctrl+o", "tab")
        await until(lambda: "▸ Bash" in shown(pilot), pilot)
        await pilot.press("space")  # the last one above is chosen
        await until(lambda: "▾ Edit" in shown(pilot), pilot)
        await pilot.press("p", "p", "n", "o")
        await until(lambda: "▾ Bash" in shown(pilot) and "▾ Edit" in shown(pilot), pilot)


async def test_a_message_is_sent_once_and_its_answer_streams() -> None:
    talk = Session()
    async with chatting(talk) as (pilot, app):
        await live(pilot)
        await until(lambda: "No messages yet." in shown(pilot), pilot)
        await say(pilot, "please hold the line")
        await until(lambda: talk.holding, pilot)
        await until(lambda: "echo: please h" in shown(pilot), pilot)
        assert "working 0s" in shown(pilot) and "echo: please hold the line" not in shown(pilot)
        talk.release()
        await until(lambda: "echo: please hold the line" in shown(pilot) and "42 tokens" in shown(pilot), pilot)
        assert talk.received == ["please hold the line"]
        await until(lambda: "working" not in shown(pilot), pilot)
        assert shown(pilot).count("please hold the line") == 2 and app.screen.prompt.text == ""


async def test_lines_and_pastes_go_out_whole() -> None:
    talk = Session()
    async with chatting(talk) as (pilot, app):
        await live(pilot)
        await pilot.press("o", "n", "e", "ctrl+j", "t", "w", "o", "backslash", "enter", "3")
        assert app.screen.prompt.text == "one\ntwo\n3" and not talk.received
        app.screen.prompt.post_message(events.Paste("\r\n".join(["four", "five"])))
        await until(lambda: app.screen.prompt.text.endswith("five"), pilot)
        long = "\n".join(f"row {n}" for n in range(5000))
        app.screen.prompt.post_message(events.Paste(long))
        await until(lambda: "[paste 1: 5000 lines" in app.screen.prompt.text, pilot)
        assert not talk.received
        await pilot.press("enter")
        await until(lambda: talk.received, pilot)
        assert talk.received == [f"one\ntwo\n3four\nfive{long}"]
        await pilot.press("ctrl+home")
        await until(lambda: "▸ 4995 more lines" in shown(pilot), pilot)  # what was asked does not hide the answer


async def test_what_others_say_shows_live() -> None:
    talk = Session()
    async with chatting(talk) as (pilot, _app):
        await live(pilot)
        await talk.turn("from somebody else, with a tool")
        await until(lambda: "echo: from somebody else" in shown(pilot), pilot)
        assert "▸ Bash  pytest -x tests  ✓ 2 lines" in shown(pilot) and not talk.received


async def test_twice_escape_stops_the_turn_and_once_does_not() -> None:
    talk = Session()
    async with chatting(talk) as (pilot, app):
        await live(pilot)
        await say(pilot, "hold it")
        await until(lambda: talk.holding, pilot)
        await say(pilot, "and then this")
        await until(lambda: "waits for the turn before it" in shown(pilot), pilot)
        await pilot.press("escape")
        assert "again stops the turn" in shown(pilot) and talk.aborted == 0
        await pilot.press("escape")
        await until(lambda: talk.aborted == 1, pilot)
        await until(lambda: "✗ stopped" in shown(pilot), pilot)
        assert app.screen.prompt.text == "and then this" and talk.received == ["hold it"]
        await until(lambda: not app.screen._busy, pilot)
        await pilot.press("escape")
        await until(lambda: not isinstance(app.screen, ChatScreen), pilot)
        await pilot.press("a")
        await until(lambda: isinstance(app.screen, ChatScreen) and app.screen.prompt.text == "and then this", pilot)


async def test_messages_wait_for_the_turn_before_them() -> None:
    talk = Session()
    async with chatting(talk) as (pilot, app):
        await live(pilot)
        await say(pilot, "hold one")
        await until(lambda: talk.holding, pilot)
        await say(pilot, "two")
        await pilot.press("ctrl+d")  # sending goes on without the screen
        await until(lambda: not isinstance(app.screen, ChatScreen), pilot)
        talk.release()
        await until(lambda: talk.received == ["hold one", "two"], pilot)
        await pilot.press("a")
        await until(lambda: "echo: two" in shown(pilot), pilot)


async def test_after_a_broken_link_it_begins_anew_and_says_so() -> None:
    talk = Session()
    talk.messages = list(HISTORY)
    async with chatting(talk) as (pilot, app):
        await live(pilot)
        await until(lambda: "I changed two files" in shown(pilot), pilot)
        talk.faults["stream"] = [503, 503]
        talk.drop()
        await until(lambda: "stale" in shown(pilot), pilot)
        assert "scripted; again in" in shown(pilot) and "I changed two files" in shown(pilot)
        talk.messages.append(message("u2", "user", text("said meanwhile")))
        await say(pilot, "too early")
        assert "Not sent: the link is lost" in shown(pilot) and app.screen.prompt.text == "too early"
        await live(pilot)
        await until(lambda: "said meanwhile" in shown(pilot), pilot)
        assert talk.received == []


@pytest.mark.parametrize(("fault", "back"), [("break", False), ("lose", True)])
async def test_when_the_link_breaks_while_sending_the_transcript_decides(fault: str, back: bool) -> None:
    talk = Session()
    async with chatting(talk) as (pilot, app):
        await live(pilot)
        talk.faults["send"] = [fault]
        await say(pilot, "just once")
        if back:
            await until(lambda: "the link broke while it was sent" in shown(pilot), pilot)
            talk.drop()
            await until(lambda: app.screen.prompt.text == "just once", pilot)
            assert "seems not to have arrived" in shown(pilot) and talk.received == []
            await pilot.press("enter")
        await until(lambda: "echo: just once" in shown(pilot), pilot)
        await until(lambda: not app.screen._busy, pilot)
        assert talk.received == ["just once"] and app.screen.prompt.text == ""


@pytest.mark.parametrize("fault", ["refuse", 409, 404])
async def test_a_refused_message_is_back_in_the_text(fault: Any) -> None:
    talk = Session()
    async with chatting(talk) as (pilot, app):
        await live(pilot)
        talk.faults["send"] = [fault]
        await say(pilot, "try this")
        await until(lambda: app.screen.prompt.text == "try this", pilot)
        assert len(app.problems) == 1 and app.problems[0].what == "Send a message"
        assert not app.screen._outbox.waiting
        await pilot.press("enter")
        await until(lambda: talk.received == ["try this"], pilot)


async def test_an_error_shows_with_its_cause() -> None:
    talk = Session()
    async with chatting(talk) as (pilot, app):
        await live(pilot)
        await say(pilot, "error please")
        await until(lambda: "✗ the model refused: no credit" in shown(pilot), pilot)
        talk.tell("session.error", error={"name": "Overloaded", "data": {"message": "try later"}})
        await asyncio.sleep(0)
        await until(lambda: not app.screen._conversation.working, pilot)


async def test_a_reader_is_not_moved_by_what_comes() -> None:
    talk = Session()
    talk.messages = [message(f"u{n}", "user", text(f"question {n}")) for n in range(300)]
    async with chatting(talk) as (pilot, _app):
        await live(pilot)
        await until(lambda: "question 299" in shown(pilot), pilot)
        await pilot.press("pageup", "pageup")
        before = shown(pilot).splitlines()[:15]
        await talk.turn("more, long")
        await until(lambda: "2 new messages below" in shown(pilot), pilot)
        assert shown(pilot).splitlines()[:15] == before
        await pilot.press("ctrl+end")
        await until(lambda: "line 199 of many" in shown(pilot), pilot)
        await pilot.press("ctrl+home")
        await until(lambda: "question 0" in shown(pilot), pilot)


async def test_a_page_up_at_the_top_shows_earlier_messages_without_a_jump() -> None:
    talk = Session()
    talk.messages = [message(f"u{n}", "user", text(f"question {n}")) for n in range(450)]
    async with chatting(talk) as (pilot, app):
        await live(pilot)
        await until(lambda: "question 449" in shown(pilot), pilot)
        view = app.screen.transcript
        view._go(0)
        assert "250 earlier messages" in shown(pilot)
        await pilot.press("ctrl+up")
        assert "question 249" in shown(pilot) and "question 250" in shown(pilot)
        await pilot.press("pageup")
        assert "question 240" in shown(pilot)


async def test_one_that_comes_up_or_has_ended_takes_no_messages() -> None:
    talk = Session()
    talk.messages = list(HISTORY)
    dead = replace(ROW, status="dead", failure_reason="idle for 24 h")
    async with chatting(talk) as (pilot, app):
        await live(pilot)
        app.model.apply(Event("session.dead", session=dead))
        app.model.flush()
        await until(lambda: "idle for 24 h" in shown(pilot), pilot)
        await say(pilot, "hello?")
        assert "Not sent: the session is dead; ctrl+r restarts it" in shown(pilot)
        await until(lambda: "I changed two files" in shown(pilot), pilot)
        coming = replace(ROW, status="creating", phase="cloning_repo")
        app.model.apply(Event("session.phase", session=coming))
        app.model.flush()
        await until(lambda: "cloning_repo" in shown(pilot), pilot)
        await pilot.press("enter")
        assert "still coming up" in shown(pilot) and not talk.received
        talk.messages.append(message("u9", "user", text("from the new sandbox")))
        app.model.apply(Event("session.ready", session=replace(ROW, ready_at=NOW)))
        app.model.flush()
        await until(lambda: "from the new sandbox" in shown(pilot), pilot)
        await live(pilot)
        await pilot.press("enter")
        await until(lambda: talk.received == ["hello?"], pilot)


async def test_a_platform_without_a_stream_is_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapconsole.screens.chat.POLL_SECONDS", 0.02)
    talk = Session()
    talk.has_stream = False
    async with chatting(talk) as (pilot, app):
        await until(lambda: app.screen._link == "polling", pilot)
        await say(pilot, "still works")
        await until(lambda: "echo: still works" in shown(pilot), pilot)
        assert talk.received == ["still works"]


async def test_a_failed_abort_is_told() -> None:
    talk = Session()
    async with chatting(talk) as (pilot, app):
        await live(pilot)
        await say(pilot, "hold on")
        await until(lambda: talk.holding, pilot)
        talk.faults["abort"] = [500]
        await pilot.press("ctrl+c", "ctrl+c")
        await until(lambda: app.problems, pilot)
        assert app.problems[0].what == "Stop the turn"
        talk.release()
        await until(lambda: not app.screen._busy, pilot)


async def test_what_a_sandbox_says_cannot_drive_the_terminal() -> None:
    talk = Session()
    evil = "\x1b[2J\x07\u202eevil\x9b1m"
    talk.messages = [
        message("u1", "user", text(evil)),
        message("m1", "assistant", tool(evil, evil, command=evil), text(f"```{evil}\n{evil}\n```\n|{evil}|")),
    ]
    async with chatting(talk) as (pilot, _app):
        await live(pilot)
        await pilot.press("ctrl+o")
        await until(lambda: "evil" in shown(pilot), pilot)
        assert all(character.isprintable() or character == "\n" for character in shown(pilot))


def test_the_start_of_history_is_known() -> None:
    assert STARTED // 1000 == 1_773_457_000
    assert DOCS.supports_tui is False


PERMISSION = {
    "id": "per_1",
    "permission": "bash",
    "patterns": ["rm -r build"],
    "metadata": {"command": "rm -r build"},
    "always": ["rm *"],
}
QUESTIONS = {
    "id": "que_1",
    "questions": [
        {"question": "Tea or coffee?", "options": [{"label": "Tea", "description": "green"}, {"label": "Coffee"}]},
        {"question": "Milk?", "options": [{"label": "Yes"}, {"label": "No"}]},
    ],
}
ASKS = replace(ROW, harness_id="opencode")


async def test_a_permission_is_given_but_not_by_enter_alone() -> None:
    talk = Session()
    async with chatting(talk, row=ASKS) as (pilot, _):
        await live(pilot)
        for keys, reply in ((("enter",), "reject"), (("down", "enter"), "once"), (("down", "down", "enter"), "always")):
            talk.tell("permission.asked", **PERMISSION)
            await until(lambda: "asks  ctrl+t answers: bash: rm -r build" in shown(pilot), pilot)
            await pilot.press("ctrl+t")
            await until(lambda: shown(pilot) == "Pick", pilot)
            await pilot.press(*keys)
            await until(lambda reply=reply: talk.answers[-1:] == [("permission/per_1/reply", {"reply": reply})], pilot)
            await until(lambda: "ctrl+t answers" not in shown(pilot), pilot)
        assert "The agent asks for permission: bash: rm -r build" in shown(pilot)


async def test_questions_asked_before_are_answered_one_after_the_other() -> None:
    talk = Session()
    talk.wishes["question"] = [QUESTIONS]
    async with chatting(talk, row=ASKS) as (pilot, _):
        await until(lambda: "ctrl+t answers: Tea or coffee?" in shown(pilot), pilot)
        await pilot.press("ctrl+t")
        await until(lambda: shown(pilot) == "Pick", pilot)
        await pilot.press("escape")  # answers nothing
        await until(lambda: shown(pilot) != "Pick", pilot)
        await pilot.press("ctrl+t")
        for _ in QUESTIONS["questions"]:
            await until(lambda: shown(pilot) == "Pick", pilot)
            await pilot.press("down", "enter")
            await pilot.pause()
        await until(lambda: talk.answers == [("question/que_1/reply", {"answers": [["Tea"], ["Yes"]]})], pilot)
        talk.tell("question.asked", **(QUESTIONS | {"id": "que_2"}))
        await until(lambda: "ctrl+t answers" in shown(pilot), pilot)
        await pilot.press("ctrl+t", "enter")
        await until(lambda: shown(pilot) == "Pick", pilot)
        await pilot.press("enter")
        await until(lambda: talk.answers[-1][0] == "question/que_2/reject", pilot)


async def test_a_stream_that_ends_before_it_begins_is_no_link() -> None:
    talk = Session()
    talk.faults["stream"] = ["empty"]
    async with chatting(talk) as (pilot, app):
        await until(lambda: app.screen._link == "lost", pilot)
        assert "ended before it began" in app.screen._cause
        await live(pilot)


async def test_a_message_of_which_nobody_knows_is_not_given_back_while_the_agent_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lapconsole.screens.chat.AGAIN_SECONDS", 0.02)
    talk = Session()
    talk.messages = [message("u1", "user", text("somebody else's"))]
    works = replace(ROW, activity=Activity("working"))
    async with chatting(talk, row=works) as (pilot, app):
        await live(pilot)
        app.screen._outbox.waiting.append(Outgoing("sent once", state="unsure"))
        before = talk.followers[-1]
        talk.drop()
        await until(lambda: talk.followers and talk.followers[-1] is not before, pilot)
        talk.tell("session.updated", info={})
        await until(lambda: not app.screen._events and app.screen._seeded, pilot)
        assert app.screen.prompt.text == ""
        app.model.apply(Event("session.updated", session=replace(works, activity=Activity("idle"))))
        app.model.flush()
        await until(lambda: app.screen.prompt.text == "sent once", pilot)

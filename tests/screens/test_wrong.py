"""Sessions in trouble, diagnoses and the egress list: what is said, what is asked, what is sent, and staying useful."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from lapconsole.app import LapConsole
from lapconsole.client.egress import Switch, Walls
from lapconsole.client.errors import PlatformError, Unreachable, Unsupported
from lapconsole.client.fixes import command_of
from lapconsole.client.models import Event
from lapconsole.live.model import Link, LinkState
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.diagnose import DiagnoseScreen
from lapconsole.screens.diagnosis import DiagnosisScreen
from lapconsole.screens.egress import EgressScreen
from lapconsole.screens.session import SessionScreen
from lapconsole.screens.triage import Triage
from lapconsole.terminal import clipboard
from lapconsole.widgets.findings import short_words
from tests.screens.scene import NOW, PAYMENTS, Clock, ScriptedPlatform, ago, session
from tests.screens.test_screens import sheet, top_line, until
from tests.screens.wrong import (
    BUSY,
    CLONE,
    DEAD_NODE,
    LOG,
    OF_SILENT,
    SILENT,
    diagnosis,
    issue,
    rows,
    seen,
    with_trouble,
)

SIZE = (120, 35)
NARROW = (80, 24)


def scripted(app: LapConsole) -> Any:
    assert isinstance(app.platform, ScriptedPlatform)
    return app.platform


def told(app: LapConsole, name: str) -> str:
    """A sheet's words, however they are wrapped."""
    return " ".join(sheet(app, name).split())


async def in_diagnose(app: LapConsole, pilot: Pilot[None]) -> DiagnoseScreen:
    await pilot.press("d")
    await until(lambda: isinstance(app.screen, DiagnoseScreen) and app.screen._read_at, pilot)
    assert isinstance(app.screen, DiagnoseScreen)
    return app.screen


async def in_egress(app: LapConsole, pilot: Pilot[None], key: str = "6") -> EgressScreen:
    await pilot.press(key)
    await until(lambda: isinstance(app.screen, EgressScreen) and app.screen.known, pilot)
    assert isinstance(app.screen, EgressScreen)
    return app.screen


def cursor_on(app: LapConsole, number: int) -> None:
    app.screen.table.move_to(str(number))  # type: ignore[attr-defined]


# -- the list and the page


async def test_trouble_is_said_in_words_counts_as_needing_a_person_and_comes_first() -> None:
    app = with_trouble()
    async with app.run_test(size=NARROW):
        lines = [app.screen.table.render_line(y).text for y in range(2, 7)]  # type: ignore[attr-defined]
        assert "✗ trouble" in lines[0] and "harness silent +1" in lines[0]
        assert "✗ failed" in lines[1] and "clone failed" in lines[1]
        assert "▲ creating" in lines[2] and "slow" in lines[2]
        assert "2 need you" in top_line(app) and "1 failed" in top_line(app) and "too long" not in top_line(app)


def test_what_the_whole_machine_has_needs_nobody_at_a_session() -> None:
    busy = replace(session(1, PAYMENTS), issues=(issue(BUSY),))
    assert not busy.needs_you and busy.trouble is None
    assert replace(busy, issues=(issue(BUSY), issue(SILENT))).trouble == issue(SILENT)
    assert not replace(busy, status="dead", issues=(issue(SILENT),)).needs_you


async def test_a_finding_that_comes_and_goes_changes_counts_and_order() -> None:
    well = session(1, PAYMENTS)
    app = with_trouble()
    triage = Triage(app.model, Clock())
    before = triage.needing
    app.model.update_sessions([replace(well, issues=(issue(SILENT),))])
    triage.changed([well.id])
    assert (triage.needing, triage.worst(1)[0].status) == (before + 1, "ready")
    app.model.update_sessions([well])
    triage.changed([well.id])
    assert triage.needing == before
    app.model.remove_sessions([rows()[4].id])
    assert triage.calm["ready"] >= 0  # also before it is told


async def test_the_page_has_findings_and_cures_on_top() -> None:
    app = with_trouble()
    async with app.run_test(size=NARROW) as pilot:
        await pilot.press("enter")
        assert isinstance(app.screen, SessionScreen)
        words = told(app, "summary")
        assert "harness silent: the sandbox runs, but its harness does not answer" in words
        assert "fix: read the sandbox's log" in words and "d diagnose it" in words
        assert words.index("isolated") < words.index("harness silent")


async def test_a_sandbox_without_walls_is_said_to_be_so() -> None:
    app = with_trouble()
    async with app.run_test(size=SIZE) as pilot:
        app.screen.table.move_to(rows()[5].id)  # type: ignore[attr-defined]
        await pilot.press("enter")
        assert "not isolated: bwrap was not found" in told(app, "summary")


# -- diagnose


async def test_one_key_tells_evidence_cause_and_cure() -> None:
    app = with_trouble()
    async with app.run_test(size=NARROW) as pilot:
        await pilot.press("down")
        await in_diagnose(app, pilot)
        words = told(app, "report")
        assert "clone failed serious clone_failed the repository could not be cloned" in words
        assert "fix: correct the agent's branch and restart the session > fatal: Remote branch" in words
        assert "Sandbox there is none: the session has ended" in words
        assert "Counting" not in words and "l unfolds its end" in words
        await pilot.press("l")
        await until(lambda: "End of its log" in told(app, "report"), pilot)
        assert LOG.splitlines()[-1] in told(app, "report")


async def test_it_is_read_again_on_a_key_and_when_the_session_changes() -> None:
    app = with_trouble(diagnose=OF_SILENT)
    async with app.run_test(size=SIZE) as pilot:
        screen = await in_diagnose(app, pilot)
        assert "does not answer: no answer within 2 s" in told(app, "report")
        scripted(app).script["diagnose"] = diagnosis()
        await pilot.press("r")
        await until(lambda: "Nothing is wrong" in told(app, "report"), pilot)
        scripted(app).script["diagnose"] = OF_SILENT
        well = replace(screen.session, issues=())
        app.model.apply(Event("session.updated", session=well))
        await until(lambda: "harness silent" in told(app, "report"), pilot)
        assert len(scripted(app).called("diagnose")) == 3


async def test_while_the_platform_is_away_it_tells_what_is_known_and_how_old_that_is() -> None:
    app = with_trouble(diagnose=Unreachable("http://10.2.0.4:3000", "timed out"))
    app.model.set_link(Link(LinkState.STALE, ago(42), "timed out", 3))
    async with app.run_test(size=NARROW) as pilot:
        await pilot.press("d")
        await until(lambda: app.screen.query_one("#notice").display, pilot)
        await until(lambda: "harness silent" in told(app, "report"), pilot)
        assert "fix: read the sandbox's log" in told(app, "report")
        scripted(app).script["diagnose"] = OF_SILENT
        app.model.set_link(Link(LinkState.LIVE, NOW))
        await until(lambda: not app.screen.query_one("#notice").display, pilot)
        app.model.remove_sessions([app.screen.session.id])  # type: ignore[attr-defined]
        await until(lambda: "was deleted" in str(app.screen.query_one("#notice").render()), pilot)


async def test_a_platform_without_diagnose_is_said_plainly() -> None:
    app = with_trouble(diagnose=PlatformError(404, "", "404 Not Found"))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("d")
        await until(lambda: "has no diagnose" in str(app.screen.query_one("#notice").render()), pilot)


async def test_strange_answers_are_shown_as_far_as_they_go() -> None:
    strange = diagnosis(
        {"code": "x\x1b[2J", "severity": 7, "message": None},
        pod={"exists": True, "phase": 3, "container_statuses": ["?", {"terminated_exit_code": 137}]},
        node={"exists": True, "capacity": {"memory_bytes": "much"}, "load": [1]},
        harness_probe=[],
        pod_logs_tail={"text": 5},
        events=[None, {"reason": "Failed\x07"}],
    )
    app = with_trouble(diagnose=strange)
    async with app.run_test(size=NARROW) as pilot:
        await in_diagnose(app, pilot)
        words = told(app, "report")
        assert "ended: exit code 137" in words and "\x1b" not in words and "Failed" in words


@pytest.mark.parametrize(
    ("key", "title", "sent"),
    [
        ("R", "Recreate payments-api", ("restart_session", (rows()[4].id,))),
        ("D", "Delete payments-api", ("delete_session", (rows()[4].id,))),
        ("m", "Recreate the Service of payments-api", ("mend_session", (rows()[4].id,))),
        ("u", "Fill the warm pool now", ("top_up_pool", ())),
        ("F", "Replace the warm sandboxes of payments-api", ("flush_pool", (PAYMENTS.id,))),
    ],
)
async def test_each_cure_asks_and_does_nothing_without_a_yes(key: str, title: str, sent: Any) -> None:
    app = with_trouble(diagnose=OF_SILENT, restart_session=rows()[4], top_up_pool=1)
    async with app.run_test(size=SIZE) as pilot:
        await in_diagnose(app, pilot)
        for answer in ("enter", "y"):
            await pilot.press(key)
            await until(lambda: isinstance(app.screen, Confirm), pilot)
            assert isinstance(app.screen, Confirm) and app.screen._title.startswith(title) and app.screen._effects
            await pilot.press(answer)
            await until(lambda: isinstance(app.screen, DiagnoseScreen), pilot)
            if answer == "enter":
                assert not scripted(app).called(sent[0])
        await until(lambda: scripted(app).called(sent[0]) == [sent[1]], pilot)


async def test_it_is_copied_as_text_and_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMUX", raising=False)
    app = with_trouble(diagnose=OF_SILENT)
    async with app.run_test(size=SIZE) as pilot:
        await in_diagnose(app, pilot)
        await pilot.press("y")
        text = app.clipboard
        assert text.startswith(f"session {rows()[4].id}\n") and "fix: read the sandbox's log" in text
        assert LOG.splitlines()[-1] in text and "R restart" not in text
        await pilot.press("Y")
        assert json.loads(app.clipboard)["detected_issues"][0]["code"] == "harness_unreachable"
        monkeypatch.setattr(clipboard, "LIMIT_BYTES", 10)
        await pilot.press("y")
        assert json.loads(app.clipboard)  # what was there stays


def test_a_command_is_shown_only_where_the_cure_names_one() -> None:
    assert command_of(issue(DEAD_NODE)) == (
        "kubectl drain ip-10-0-3-7.ec2.internal --ignore-daemonsets --delete-emptydir-data"
    )
    said = {**SILENT, "recommended_action": "kubectl describe pod lap-1 shows why its readiness probe fails"}
    assert command_of(issue(said)) == "kubectl describe pod lap-1"
    assert command_of(issue(CLONE)) == "" and short_words(issue({"code": "disk_full"})) == "disk full"


# -- all sessions


async def test_all_findings_are_grouped_and_counted_and_lead_to_their_session() -> None:
    app = with_trouble(diagnose=OF_SILENT)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("5")
        await until(lambda: isinstance(app.screen, DiagnosisScreen) and app.screen.known, pilot)
        assert "✗ 1 clone failed ✗ 1 harness silent ▲ 3 machine busy ▲ 1 slow" in told(app, "facts")
        found = [app.screen.collection.entities[id].issue.code for id in app.screen.table.view]  # type: ignore[attr-defined]
        assert found[:2] == ["clone_failed", "harness_unreachable"] and found[2:5] == ["machine_busy"] * 3
        await pilot.press("down", "enter")
        assert isinstance(app.screen, DiagnoseScreen) and app.screen.session.id == rows()[4].id
        await pilot.press("escape", "o")
        assert isinstance(app.screen, SessionScreen) and app.screen.session.id == rows()[4].id


async def test_it_looks_again_after_sessions_have_changed_and_not_without() -> None:
    app = with_trouble()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("5")
        await until(lambda: isinstance(app.screen, DiagnosisScreen) and app.screen.known, pilot)
        for _ in range(5):
            app._tick()
        assert len(scripted(app).called("fleet")) == 1
        app.model.apply(Event("session.updated", session=rows()[6]))
        app._tick()
        await until(lambda: len(scripted(app).called("fleet")) == 2, pilot)


async def test_a_platform_that_cannot_look_at_all_says_so() -> None:
    app = with_trouble(fleet=Unsupported("this platform looks at one session at a time"))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("5")
        await until(lambda: isinstance(app.screen, DiagnosisScreen) and app.screen.known, pilot)
        # What comes with the sessions is there all the same.
        assert "✗ 1 clone failed ✗ 1 harness silent ▲ 2 machine busy ▲ 1 slow" in told(app, "facts")
        assert "as it came with the sessions" in told(app, "facts")
        app.model.remove_sessions(list(app.model.sessions))
        await until(lambda: not app.screen.table.view, pilot)  # type: ignore[attr-defined]
        assert app.screen.table.empty == ("This platform looks at one session at a time.",)  # type: ignore[attr-defined]


# -- egress


async def test_what_was_blocked_comes_first_and_news_come_in() -> None:
    app = with_trouble()
    async with app.run_test(size=SIZE) as pilot:
        screen = await in_egress(app, pilot)
        assert list(screen.table.view) == ["1", "2", "5", "6", "7", "4", "3"]
        assert "● vault on · isolated ✗ 18 blocked ▲ 1 missed ✓ 1 swapped" in told(app, "facts")
        new = seen(9, "blocked", "new.example.com", age=0)
        app.model.apply(Event("egress.blocked", session_id=rows()[4].id, agent_id=PAYMENTS.id, data={"egress": new}))
        app.model.apply(Event("egress.blocked", data={"egress": "nonsense"}))
        await until(lambda: screen.table.view[0] == "9", pilot)
        assert "19 blocked" in told(app, "facts")
        app._tick()
        assert len(scripted(app).called("interceptions")) == len(rows())  # once each: events tell


async def test_it_is_narrowed_down_to_a_session() -> None:
    app = with_trouble()
    async with app.run_test(size=SIZE) as pilot:
        screen = await in_egress(app, pilot)
        app.model.apply(
            Event("egress.blocked", session_id=rows()[6].id, data={"egress": seen(9, "blocked", "a.example", of=6)})
        )
        await until(lambda: len(screen.table.view) == 8, pilot)
        cursor_on(app, 9)
        await pilot.press("f")
        assert list(screen.table.view) == ["9"] and "1 blocked" in told(app, "facts")
        await pilot.press("f")
        assert len(screen.table.view) == 8


async def test_of_one_session_only_that_is_read() -> None:
    app = with_trouble()
    async with app.run_test(size=SIZE) as pilot:
        await in_egress(app, pilot, "e")
        assert scripted(app).called("interceptions") == [(rows()[4].id,)]


async def test_a_blocked_host_is_allowed_after_asking_and_what_others_changed_is_kept() -> None:
    meanwhile = replace(PAYMENTS, allow_out=("*.github.com", "added.example"))
    app = with_trouble(agent=meanwhile, update_agent=replace(PAYMENTS, allow_out=("ads.test",)))
    async with app.run_test(size=SIZE) as pilot:
        await in_egress(app, pilot)
        cursor_on(app, 2)
        await pilot.press("a")
        assert isinstance(app.screen, Confirm)
        said = " ".join(app.screen._effects)
        assert "ads.test is added to allow_out of agent payments-api" in said and "14 running sessions" in said
        await pilot.press("enter", "a", "y")
        await until(lambda: scripted(app).called("update_agent"), pilot)
        sent = {"allow_out": ["*.github.com", "added.example", "ads.test"]}
        assert scripted(app).called("update_agent") == [(PAYMENTS.id, sent)]
        await until(lambda: "may reach it now" in told(app, "detail"), pilot)


@pytest.mark.parametrize(
    ("number", "words"),
    [(5, "refused to every sandbox"), (7, "deny_out refuses it, which wins"), (4, "worth nothing there")],
)
async def test_what_no_rule_can_allow_is_not_asked_for(number: int, words: str) -> None:
    app = with_trouble()
    async with app.run_test(size=SIZE) as pilot:
        await in_egress(app, pilot)
        cursor_on(app, number)
        await until(lambda: words in told(app, "detail"), pilot)
        await pilot.press("a")
        assert isinstance(app.screen, EgressScreen)


async def test_a_vault_that_is_off_is_said_plainly() -> None:
    app = with_trouble(walls=Walls(Switch(False, "LAP_VAULT is off")), interceptions=())
    async with app.run_test(size=NARROW) as pilot:
        screen = await in_egress(app, pilot)
        assert "vault off" in told(app, "facts") and "hold their real credentials" in told(app, "facts")
        assert screen.table.empty[0] == "The vault is off, so nothing is seen."


async def test_a_vault_that_is_down_is_closed() -> None:
    app = with_trouble(walls=Walls(Switch(False, "it ended", True)), interceptions=())
    async with app.run_test(size=NARROW) as pilot:
        await in_egress(app, pilot)
        assert "vault down (it ended): nothing leaves the sandboxes" in told(app, "facts")


@pytest.mark.parametrize("error", [Unreachable("http://10.2.0.4", "timed out"), Unsupported("it does not tell")])
async def test_what_cannot_be_read_says_why(error: Exception) -> None:
    app = with_trouble(interceptions=error)
    async with app.run_test(size=NARROW) as pilot:
        screen = await in_egress(app, pilot)
        assert screen.trouble or screen.missing == "it does not tell"


@pytest.mark.parametrize(
    ("walls", "words"),
    [
        (Walls(Switch(True), Switch(True)), "● live · isolated"),
        (Walls(Switch(True), Switch(False, "no bwrap")), "● live · not isolated"),
        (Walls(Switch(False), Switch(False)), "● live · vault off, not isolated"),
        (Walls(Switch(False, "ended", True)), "● live · vault down"),
        (Walls(), "● live "),
    ],
)
async def test_the_line_on_top_says_how_sandboxes_are_shut_in(walls: Walls, words: str) -> None:
    app = with_trouble(walls=walls)
    async with app.run_test(size=SIZE) as pilot:
        app._tick()
        await until(lambda: scripted(app).called("walls"), pilot)
        await until(lambda: words in top_line(app), pilot)

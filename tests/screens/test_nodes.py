"""Nodes, cures and what is amiss on the platform: what is said, what is asked, what is sent, and staying useful."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from textual.pilot import Pilot

from lapconsole.app import LapConsole
from lapconsole.client.errors import PlatformError, Unreachable, Unsupported
from lapconsole.client.nodes import PlatformProblem
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.diagnose import DiagnoseScreen
from lapconsole.screens.diagnosis import DiagnosisScreen
from lapconsole.screens.nodes import NodeScreen, NodesScreen
from lapconsole.screens.problems import ProblemsScreen
from lapconsole.screens.session import SessionScreen
from tests.screens.nodes import AWAY, CLUSTER, FULL, PROBLEMS, UNSURE, away, in_cluster, laptop, pending
from tests.screens.scene import ago
from tests.screens.test_screens import top_line, until
from tests.screens.test_wrong import in_diagnose, scripted, told
from tests.screens.wrong import NOTHING, OF_FAILED, diagnosis, rows

SIZE = (120, 35)
NARROW = (80, 24)


async def in_nodes(app: LapConsole, pilot: Pilot[None]) -> NodesScreen:
    await pilot.press("7")
    await until(lambda: isinstance(app.screen, NodesScreen) and app.screen.known, pilot)
    assert isinstance(app.screen, NodesScreen)
    return app.screen


def lines(app: LapConsole) -> list[str]:
    table = app.screen.table  # type: ignore[attr-defined]
    return [table.render_line(y).text for y in range(2, 2 + len(table.view))]


# -- nodes


async def test_what_is_amiss_comes_first_in_words() -> None:
    app = in_cluster()
    async with app.run_test(size=NARROW) as pilot:
        await in_nodes(app, pilot)
        first, second, third, fourth = lines(app)
        assert "✗ silent" in first and "ip-10-0-3-7" in first and "unreachable" in first
        assert "172% over" in second and "▲ low disk" in second
        assert "▲ cordoned" in third and "● ready" in fourth and "gpu=true" in fourth
        assert "4 nodes · 3 ready · ✗ 1 not ready · ▲ 1 oversubscribed · 8 sandboxes" in told(app, "facts")


async def test_a_node_leads_to_the_sessions_on_it() -> None:
    app = in_cluster()
    async with app.run_test(size=NARROW) as pilot:
        await in_nodes(app, pilot)
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, NodeScreen) and app.screen.known, pilot)
        words = told(app, "facts")
        assert "✗ silent for 4m NodeStatusUnknown" in words and "Kubelet stopped posting node status." in words
        assert "run: kubectl drain ip-10-0-3-7.ec2.internal --ignore-daemonsets --delete-emptydir-data" in words
        trouble, _, warm = lines(app)
        assert "✗ trouble" in trouble and "of no session" in warm
        await pilot.press("c")
        assert app.clipboard == "kubectl drain ip-10-0-3-7.ec2.internal --ignore-daemonsets --delete-emptydir-data"
        await pilot.press("d")
        assert isinstance(app.screen, DiagnoseScreen) and app.screen.session.id == rows()[4].id
        await pilot.press("escape", "enter")
        assert isinstance(app.screen, SessionScreen) and app.screen.session.id == rows()[4].id
        await pilot.press("escape", "end", "enter")  # a warm one has no session to go to
        assert isinstance(app.screen, NodeScreen)


async def test_this_machine_alone_is_told_by_how_busy_it_is() -> None:
    app = laptop()
    async with app.run_test(size=NARROW) as pilot:
        await in_nodes(app, pilot)
        words = told(app, "facts")
        assert "load 2.3 on 8 processors, 11.0 of 32.0 GB memory free, 184.0 GB disk free" in words
        assert "load 2.3" in lines(app)[0] and "66% used" in lines(app)[0]
        await pilot.press("c")
        assert not app.clipboard  # no Kubernetes has it


async def test_it_is_read_again_while_it_is_on_top_and_says_how_old_it_is_when_it_cannot_be() -> None:
    app = in_cluster()
    async with app.run_test(size=NARROW) as pilot:
        await in_nodes(app, pilot)
        for _ in range(6):
            app._tick()
        await until(lambda: len(scripted(app).called("nodes")) == 2, pilot)
        scripted(app).script["nodes"] = Unreachable("http://10.2.0.4:3000", "timed out")
        for _ in range(5):
            app._tick()
        await until(lambda: "as of 03:07:21Z" in told_notice(app), pilot)
        assert len(lines(app)) == 4  # what was known stays
        await pilot.press("1")
        asked = len(scripted(app).called("nodes"))
        for _ in range(8):
            app._tick()
        await pilot.pause()
        assert len(scripted(app).called("nodes")) == asked


def told_notice(app: LapConsole) -> str:
    return str(app.screen.query_one("#notice").render())


async def test_a_platform_without_nodes_says_so_and_is_not_asked_again() -> None:
    app = in_cluster(nodes=Unsupported("this platform does not tell of nodes"))
    async with app.run_test(size=NARROW) as pilot:
        screen = await in_nodes(app, pilot)
        assert screen.table.empty == ("This platform does not tell of nodes.",)
        for _ in range(8):
            app._tick()
        await pilot.pause()
        assert len(scripted(app).called("nodes")) == 1


async def test_what_the_platform_cannot_see_is_said_with_the_nodes() -> None:
    app = in_cluster(nodes=UNSURE)
    async with app.run_test(size=NARROW) as pilot:
        await in_nodes(app, pilot)
        assert f"✗ {AWAY}" in told(app, "facts")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, NodeScreen) and app.screen.known, pilot)
        assert "requested not known: may not list pods in all namespaces (403)" in told(app, "facts")


async def test_a_node_that_is_gone_is_said_to_be() -> None:
    app = in_cluster(nodes=type(CLUSTER)((), ()))
    async with app.run_test(size=NARROW) as pilot:
        app.open_node("ip-10-0-9-9")
        await until(lambda: isinstance(app.screen, NodeScreen) and app.screen.known, pilot)
        assert "There is no node ip-10-0-9-9: it was removed" in told(app, "facts")


# -- diagnose


async def test_containers_conditions_and_events_are_told_with_since_when() -> None:
    app = in_cluster()
    async with app.run_test(size=NARROW) as pilot:
        await in_diagnose(app, pilot)
        words = told(app, "report")
        assert "service missing serious service_missing" in words and "m mend R recreate" in words
        assert "harness waits: CrashLoopBackOff" in words and "before: OOMKilled, exit code 137, 1m ago" in words
        assert "clone (init) ended: Completed, exit code 0" in words and "restarted 4 times" in words
        assert "Ready False for 5m: containers with unready status: [harness]" in words
        assert "9s ago BackOff: Back-off restarting failed container harness" in words and "(12 times)" in words
        assert "notes low disk" in words and "requested cpu 172 %, memory 88 %" in words
        assert "name lap/s-5e550000" in words and "ContainersReady" not in words
        await pilot.press("c")
        assert app.clipboard == "kubectl describe pod s-5e550000 -n lap"
        await pilot.press("n")
        await until(lambda: isinstance(app.screen, NodeScreen) and app.screen.known, pilot)
        assert FULL["name"] in told(app, "facts")


async def test_partial_data_says_its_reason() -> None:
    app = pending()
    async with app.run_test(size=NARROW) as pilot:
        await in_diagnose(app, pilot)
        words = told(app, "report")
        assert f"as last seen {AWAY}" in words and "PodScheduled False for 2m: 0/4 nodes are available" in words
        await pilot.press("n")
        assert isinstance(app.screen, DiagnoseScreen)  # it is on no node


async def test_what_was_known_at_the_end_is_told_of_a_session_that_has_ended() -> None:
    at_end = {"at": ago(300).isoformat(), "pod": {**OF_POD, "phase": "Failed"}, "sandbox_cr": NOTHING}
    ended = diagnosis(pod=NOTHING, service=NOTHING, last_inspection=at_end)
    app = in_cluster(diagnose=ended)
    async with app.run_test(size=NARROW) as pilot:
        await in_diagnose(app, pilot)
        words = told(app, "report")
        assert "As it was when the session ended, 5m ago Sandbox failed, for 1m" in words


OF_POD: dict[str, Any] = {"exists": True, "name": "s-1", "age_ms": 60_000, "conditions": [], "container_statuses": []}


# -- cures


@pytest.mark.parametrize(
    ("row", "sent"),
    [
        (1, ["stop_session", "restart_session"]),  # it hangs while it comes up
        (4, ["restart_session"]),
        (0, ["restart_session"]),
    ],
)
async def test_any_session_can_be_recreated(row: int, sent: list[str]) -> None:
    app = in_cluster()
    of = rows()[row]
    async with app.run_test(size=SIZE) as pilot:
        app.open_diagnosis(of.id)
        await pilot.press("R", "y")
        await until(lambda: scripted(app).called("restart_session") == [(of.id,)], pilot)
        calls = [name for name, _, _ in scripted(app).calls if name.endswith("_session")]
        assert calls == sent


async def test_without_restart_one_like_it_takes_its_place() -> None:
    app = in_cluster(restart_session=PlatformError(405, "", "Method Not Allowed"))
    of = rows()[4]
    async with app.run_test(size=SIZE) as pilot:
        app.open_diagnosis(of.id)
        await pilot.press("R", "y")
        await until(lambda: scripted(app).called("create_session"), pilot)
        assert scripted(app).called("delete_session") == [(of.id,)]
        assert scripted(app).called("create_session") == [(of.agent_id, {"title": of.title})]


async def test_why_nothing_could_be_mended_is_told() -> None:
    app = in_cluster(mend_session=PlatformError(409, "CONFLICT", "the Service is there: nothing is missing"))
    async with app.run_test(size=SIZE) as pilot:
        await in_diagnose(app, pilot)
        await pilot.press("m", "y")
        await until(lambda: app.problems, pilot)
        assert app.problems[0].why == "the Service is there: nothing is missing"


async def test_what_has_ended_is_not_mended_and_nothing_is_copied_where_nothing_is_to_run() -> None:
    app = in_cluster(diagnose=OF_FAILED)
    async with app.run_test(size=SIZE) as pilot:
        app.open_diagnosis(rows()[0].id)
        await pilot.press("m", "c")
        assert isinstance(app.screen, DiagnoseScreen) and not app.clipboard


async def test_the_cures_are_at_hand_in_the_list_of_all_findings() -> None:
    app = in_cluster(top_up_pool=2)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("5")
        await until(lambda: isinstance(app.screen, DiagnosisScreen) and app.screen.known, pilot)
        await pilot.press("home", "down")
        assert "l log" not in told(app, "detail") and "R recreate" in told(app, "detail")
        silent = rows()[4].id
        for key, name, args in (
            ("R", "restart_session", (silent,)),
            ("m", "mend_session", (silent,)),
            ("u", "top_up_pool", ()),
            ("D", "delete_session", (silent,)),
        ):
            await pilot.press(key)
            await until(lambda: isinstance(app.screen, Confirm), pilot)
            await pilot.press("y")
            await until(lambda name=name, args=args: scripted(app).called(name) == [args], pilot)  # type: ignore[misc]
        await pilot.press("n")
        await until(lambda: isinstance(app.screen, NodesScreen), pilot)


# -- what is amiss on the platform


async def look(app: LapConsole, pilot: Pilot[None]) -> None:
    """Have the console ask the platform how it is."""
    asked = len(scripted(app).called("problems"))
    for _ in range(10):
        app._tick()
    await until(lambda: len(scripted(app).called("problems")) > asked, pilot)
    for work in [work for work in app.workers if work.group == "state"]:
        await work.wait()


async def test_what_does_not_work_is_on_the_top_line_and_in_the_list_until_it_is_over() -> None:
    app = away()
    async with app.run_test(size=NARROW) as pilot:
        await look(app, pilot)
        assert "▲ Kubernetes does not answer 4m +1" in top_line(app) and "2 need you · 1 failed" in top_line(app)
        assert [problem.why for problem in app.problems] == [problem.message for problem in PROBLEMS]
        await look(app, pilot)
        assert len(app.problems) == 2  # told once
        await pilot.press("exclamation_mark")
        assert isinstance(app.screen, ProblemsScreen)
        words = " ".join("".join(text for text, _ in line) for line in app.screen.sheet.lines)
        assert words.count("Kubernetes does not answer") == 1 and "▲ sandboxes for 4m" in words
        assert 'add "list" and "watch"' in " ".join(words.split())
        await pilot.press("escape")
        app.clock.now += timedelta(minutes=3)  # type: ignore[attr-defined]
        scripted(app).script["problems"] = (PlatformProblem("sandboxes", f"{AWAY} 9", PROBLEMS[0].since),)
        await look(app, pilot)
        assert "▲ Kubernetes does… 7m" in top_line(app) and "1 too long   ! 2" in top_line(app)  # all has room
        assert app.problems[1].advice == "It was over at 03:10:21Z." and not app.problems[0].advice


async def test_a_platform_that_does_not_tell_leaves_what_was_known() -> None:
    app = away()
    async with app.run_test(size=NARROW) as pilot:
        await look(app, pilot)
        scripted(app).script["problems"] = Unreachable("http://10.2.0.4:3000", "timed out")
        await look(app, pilot)
        assert len(app.amiss) == 2

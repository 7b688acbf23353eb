"""The bring-up timeline: states, durations, and what is said at its end."""

from datetime import timedelta

from lapconsole.client.models import PHASES
from lapconsole.widgets.parts import Look, plain
from lapconsole.widgets.timeline import State, steps, timeline_lines
from lapconsole.widgets.words import UNICODE
from tests.screens.scene import NOW, PAYMENTS, ago, session

LOOK = Look(NOW, UNICODE)


def text(lines: list) -> str:
    return "\n".join(plain(line) for line in lines)


def test_a_creating_session_runs_in_its_phase() -> None:
    creating = session(1, PAYMENTS, "creating", age=20, phase="cloning_repo")
    reached = {
        "creating_sandbox": ago(20),
        "pod_pending": ago(19.5),
        "waiting_harness": ago(16),
        "cloning_repo": ago(12),
    }
    found = {step.phase: step for step in steps(creating, reached, NOW)}
    assert list(found) == list(PHASES)
    assert found["creating_sandbox"].seconds == 0.5
    assert found["pod_pending"].seconds == 3.5
    assert found["pod_running"].state is State.SKIPPED
    assert found["cloning_repo"].state is State.ACTIVE
    assert found["cloning_repo"].seconds == 12
    assert found["installing_deps"].state is State.TODO


def test_phases_reported_side_by_side_are_timed_in_the_order_they_came() -> None:
    """The harness may report listening before the platform says ready (LAP REST 4.2)."""
    creating = session(1, PAYMENTS, "creating", age=20, phase="harness_ready", furthest=9)
    reached = {"waiting_harness": ago(10), "harness_listening": ago(8), "harness_ready": ago(3)}
    found = {step.phase: step for step in steps(creating, reached, NOW)}
    assert found["harness_listening"].seconds == 5
    assert found["harness_ready"].state is State.ACTIVE
    assert found["harness_ready"].seconds == 3


def test_a_failed_session_broke_where_it_was() -> None:
    failed = session(1, PAYMENTS, "failed", age=100, phase="cloning_repo")
    reached = {"creating_sandbox": ago(100), "cloning_repo": ago(90)}
    found = {step.phase: step for step in steps(failed, reached, NOW)}
    assert found["cloning_repo"].state is State.BROKEN
    assert found["cloning_repo"].seconds == 40  # it stopped 50 s ago
    assert "✗ failed after 50s" in text(timeline_lines(failed, reached, LOOK, 80))


def test_a_ready_session_seen_only_now_has_no_times() -> None:
    lines = timeline_lines(session(1, PAYMENTS), {}, LOOK, 80)
    assert "✓ cloning_repo" in text(lines)
    assert "● ready after 9.4s" in text(lines)


def test_a_bring_up_that_takes_too_long_says_what_to_do() -> None:
    stuck = session(1, PAYMENTS, "creating", age=200, phase="pod_pending")
    assert "longer than it should take" in text(
        timeline_lines(stuck, {"pod_pending": NOW - timedelta(seconds=200)}, LOOK, 80)
    )


def test_lines_fit_narrow_panes() -> None:
    stuck = session(1, PAYMENTS, "creating", age=200, phase="installing_deps", phase_detail="x" * 300)
    assert all(len(plain(line)) <= 60 for line in timeline_lines(stuck, {"pod_pending": ago(3)}, LOOK, 50))

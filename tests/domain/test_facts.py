"""The small tables of the domain: phases, harnesses, statuses, time, egress entries."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from backend.domain import agents, clock, hosts, phases, sessions


def test_phases_as_documented() -> None:
    assert phases.PHASES == (
        "creating_sandbox",
        "pod_pending",
        "pod_running",
        "injecting_files",
        "waiting_harness",
        "harness_ready",
        "cloning_repo",
        "installing_deps",
        "harness_listening",
        "ready",
    )
    assert {"cloning_repo", "installing_deps", "harness_listening"} == phases.HARNESS_REPORTED
    assert [phases.step(phase) for phase in phases.PHASES] == list(range(1, 11))
    assert set(phases.DEFAULT_TIMEOUTS) == set(phases.PHASES) - {"ready"}
    with pytest.raises(ValueError, match="tuple"):
        phases.step("warming_up")


def test_harnesses_as_documented() -> None:
    assert list(agents.HARNESSES) == ["opencode", "claude-agent-sdk", "claude-code", "codex"]
    assert [agents.supports_tui(harness) for harness in agents.HARNESSES] == [False, False, True, True]
    assert not agents.supports_tui("unknown")


def test_title_preview() -> None:
    assert sessions.title_preview("  fix\n the   bug ") == "fix the bug"
    assert sessions.title_preview("x" * 60) == "x" * 60
    assert sessions.title_preview("x" * 61) == "x" * 59 + "…"


def test_time_is_utc_with_milliseconds() -> None:
    moment = datetime(2026, 5, 15, 22, 33, 26, 283_999, tzinfo=UTC)
    assert clock.text(moment) == "2026-05-15T22:33:26.283Z"
    assert clock.text(moment.astimezone(timezone(timedelta(hours=9)))) == "2026-05-15T22:33:26.283Z"
    assert clock.parse("2026-05-15T22:33:26.283Z") == moment.replace(microsecond=283_000)
    assert 0 <= clock.seconds_since(clock.now()) < 5
    with pytest.raises(ValueError, match="zone"):
        clock.parse("2026-05-15T22:33:26")


@pytest.mark.parametrize("entry", ["example.com", "*.example.com", "10.0.0.0/8", "127.0.0.1", "my_host"])
def test_egress_entries(entry: str) -> None:
    assert hosts.problem(entry) is None


@pytest.mark.parametrize("entry", ["", "*", "https://x", "a b", "x/123", "a\n", "a" * 254, "é.com"])
def test_refused_egress_entries(entry: str) -> None:
    assert hosts.problem(entry)

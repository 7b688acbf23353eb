"""Interceptions, walls and the diagnosis of all sessions, as read from what platforms send."""

from __future__ import annotations

from typing import Any

import pytest

from lapconsole.client.diagnosis import Fleet
from lapconsole.client.egress import Interception, Switch, Walls, interceptions_from, isolation_of
from lapconsole.client.models import Diagnosis, Event, Session

OURS = {
    "id": 7,
    "timestamp": "2026-11-22T23:25:02.036Z",
    "session_id": "s1",
    "kind": "blocked",
    "method": "TCP",
    "host": "db.example",
    "port": 5432,
    "path": "",
    "rule": "allow_out: no entry matches",
    "count": 3,
}


def test_an_interception_is_read_whole() -> None:
    one = Interception.from_json(OURS, agent_id="a1")
    assert (one.id, one.session_id, one.agent_id, one.kind, one.count) == ("7", "s1", "a1", "blocked", 3)
    assert (one.place, one.allowable, one.entry) == ("db.example:5432", True, "db.example:5432")


def test_one_of_another_platform_says_less() -> None:
    """LAP REST 3.9."""
    lean = {"timestamp": "2026-01-01T00:00:00Z", "method": "GET", "host": "h", "path": "/p"}
    swapped = {**lean, "stubs_swapped": ["stub_github_token_0a1b"]}
    rows = interceptions_from([swapped, {**lean, "host": "b", "blocked": True}, {"host": 3}, None], "s1")
    assert [(one.kind, one.host, one.session_id) for one in rows] == [("swapped", "h", "s1"), ("blocked", "b", "s1")]
    assert rows[0].keys == ("GITHUB_TOKEN",) and rows[0].id != rows[1].id
    assert not rows[1].allowable  # nobody said which rule


@pytest.mark.parametrize(
    ("fields", "entry"),
    [
        ({"method": "CONNECT", "port": 443}, "db.example"),
        ({"method": "CONNECT", "port": 8443}, "db.example:8443"),
        ({"method": "DNS", "port": 53}, "db.example"),
        ({"method": "TCP", "port": 443}, "db.example:443"),
        ({"method": "TCP", "port": 22, "host": "fd00::1"}, "[fd00::1]:22"),
    ],
)
def test_the_entry_that_allows_it(fields: dict[str, Any], entry: str) -> None:
    assert Interception.from_json({**OURS, **fields}).entry == entry


def test_tails_of_credentials_are_not_kept() -> None:
    prints = [{"stub": "stub_k_1", "credential": "KEY", "real_tail": "9z"}]
    one = Interception.from_json({**OURS, "kind": "swapped", "real_value_fingerprint": prints})
    assert one.keys == ("KEY",) and "9z" not in repr(one)


def test_events_of_the_vault_and_no_others() -> None:
    assert Interception.from_event(Event.from_json({"type": "egress.blocked", "egress": OURS})) is not None
    for other in ({"type": "session.updated", "egress": OURS}, {"type": "egress.blocked", "egress": 1}):
        assert Interception.from_event(Event.from_json(other)) is None


@pytest.mark.parametrize(
    ("value", "switch"),
    [
        (None, Switch()),
        ("off", Switch(False)),
        ({"state": "on", "reason": None}, Switch(True)),
        ({"state": "down", "reason": "ended"}, Switch(False, "ended", True)),
        ({"filesystem": True, "network": "vault", "reason": None}, Switch(True)),
        ({"filesystem": True, "network": "open", "reason": "no passt"}, Switch(False, "no passt")),
        ({"filesystem": False, "network": "open", "reason": "not isolated: no bwrap"}, Switch(False, "no bwrap")),
        ({"pid_namespace": True}, Switch()),
        (["on"], Switch()),
    ],
)
def test_walls(value: Any, switch: Switch) -> None:
    assert Walls.from_json({"vault": value, "isolation": value}) == Walls(switch, switch)
    assert isolation_of(value if isinstance(value, dict) else None) == (switch if isinstance(value, dict) else Switch())


def test_findings_come_worst_first_from_issues_and_hints() -> None:
    low, high = {"code": "a", "severity": "info"}, {"code": "b", "severity": "high", "evidence": ["x\x1b[2J", 3]}
    diagnosis = Diagnosis.from_json({"detected_issues": [low], "hints": [high, "a word", 5]})
    assert [(one.code, one.message) for one in diagnosis.findings] == [("b", ""), ("a", ""), ("", "a word")]
    assert diagnosis.findings[0].evidence == ("x [2J",)
    assert Session.from_json({"id": "s", "status": "ready", "issues": [low, high]}).issues[0].code == "b"
    assert Session.from_json({"id": "s", "status": "ready", "issues": "none"}).issues == ()
    entry = {"session_id": "s", "detected_issues": [low], "hints": [high]}
    fleet = Fleet.from_json({"data": [entry, {"session_id": ""}, 4], "elapsed_ms": -1})
    assert (len(fleet.sessions), fleet.counts, fleet.elapsed_ms) == (1, {"a": 1, "b": 1}, None)
    assert Fleet.from_json(None).sessions == ()

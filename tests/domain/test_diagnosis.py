"""The diagnosis: each issue and hint, what must not cause one, and that nobody faces an empty list."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain import diagnosis, phases
from backend.domain.diagnosis import clone_problem, detected_issues, hints

CODES = (
    "dead_node_assigned",
    "stale_node_host_cache_suspect",
    "pod_image_pull_backoff",
    "pod_not_ready_old",
    "harness_unreachable",
    "node_oversubscribed",
    "service_missing",
    "warm_pool_empty_for_agent",
)


def report(**parts: Any) -> dict[str, Any]:
    """A session that has been creating for a minute in a healthy sandbox, with parts exchanged."""
    healthy: dict[str, Any] = {
        "session": {"status": "creating", "phase": "waiting_harness", "creating_ms": 60_000, "failure_reason": None},
        "pod": {
            "exists": True,
            "name": "s-1",
            "phase": "Running",
            "node_name": "n1",
            "age_ms": 60_000,
            "container_statuses": [{"name": "harness", "ready": True, "restart_count": 0}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
        "sandbox_cr": {"exists": True},
        "service": {"exists": True},
        "node": {
            "exists": True,
            "name": "n1",
            "ready_status": "True",
            "capacity": {"cpu_millicores": 4000, "memory_bytes": 8 * 2**30},
            "allocated_requests": {"cpu_millicores": 4000, "memory_bytes": 8 * 2**30},
        },
        "warm_pool": {"provisioning": 0, "warm": 1, "claimed": 0, "dead": 0},
        "warm_pool_size": 2,
        "harness_probe": {"reachable": True, "status": 200},
        "pod_logs_tail": {"available": True, "text": "hello\n\nTraceback\nboom"},
    }
    for name, value in parts.items():
        mixed = isinstance(value, dict) and isinstance(healthy.get(name), dict)
        healthy[name] = {**healthy[name], **value} if mixed else value
    return healthy


def codes(found: list[Any]) -> list[str]:
    for finding in found:
        assert finding["severity"] in ("high", "med", "info")
        assert finding["message"]
        assert finding["recommended_action"]
    return [finding["code"] for finding in found]


OLD = {"creating_ms": 121_000}
WAITING = {"name": "harness", "ready": False, "waiting_reason": "ErrImagePull", "waiting_message": "no such image"}


def test_nothing_is_wrong_with_a_young_session() -> None:
    assert codes(detected_issues(report())) == []
    assert codes(hints(report())) == []


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("dead_node_assigned", {"node": {"ready_status": "False"}}),
        ("dead_node_assigned", {"node": {"ready_status": "Unknown"}}),
        ("dead_node_assigned", {"node": {"exists": False}}),
        ("stale_node_host_cache_suspect", {"session": OLD}),
        ("stale_node_host_cache_suspect", {"session": OLD, "harness": {"setup": "done"}}),
        ("pod_image_pull_backoff", {"pod": {"phase": "Pending", "container_statuses": [WAITING]}}),
        ("pod_not_ready_old", {"pod": {"conditions": [{"type": "Ready", "status": "False", "age_ms": 180_001}]}}),
        ("pod_not_ready_old", {"pod": {"conditions": [{"type": "Ready", "status": "False"}], "age_ms": 200_000}}),
        ("harness_unreachable", {"harness_probe": {"reachable": False, "error": "refused"}}),
        ("node_oversubscribed", {"node": {"allocated_requests": {"cpu_millicores": 6001, "memory_bytes": 0}}}),
        ("node_oversubscribed", {"node": {"allocated_requests": {"memory_bytes": 13 * 2**30}}}),
        ("service_missing", {"service": {"exists": False}}),
        ("warm_pool_empty_for_agent", {"warm_pool": {"warm": 0, "claimed": 3}}),
    ],
)
def test_each_issue(code: str, parts: dict[str, Any]) -> None:
    assert codes(detected_issues(report(**parts))) == [code]


@pytest.mark.parametrize(
    "parts",
    [
        {"node": {"exists": False, "error": "forbidden"}},
        {"node": {"ready_status": "False", "error": "as of an hour ago"}},
        {"pod": {"error": "as of an hour ago", "container_statuses": [WAITING]}},
        {"node": {"exists": None}},
        {"warm_pool": {"warm": 0, "error": "no database"}},
        {"warm_pool": {"warm": None}},
        {"pod": {"conditions": [{"type": "Ready", "status": "False", "age_ms": 0}], "age_ms": 10**9}},
        {"node": {"ready_status": None}},
        {"node": {"allocated_requests": {"cpu_millicores": 6000}}},  # exactly 150 % is not above it
        {"node": {"allocated_requests": None}},
        {"node": {"capacity": {"cpu_millicores": 0}}},
        {"service": {"exists": False, "error": "throttled"}},
        {"service": {}},
        {"harness_probe": None},
        {"harness_probe": {"reachable": False}, "pod": {"phase": "Pending"}},
        {"warm_pool": {"warm": 0, "provisioning": 1}},
        {"warm_pool": {"warm": 0}, "warm_pool_size": 0},
        {"session": {"creating_ms": 120_000}},
        {"session": {**OLD, "status": "ready"}},
        {"session": OLD, "harness": {"setup": "running"}},  # a slow clone is no stale cache
        {"session": OLD, "harness_probe": None},
        {"session": OLD, "service": {"exists": None}},
        {"session": {"status": "ready"}, "pod": {"conditions": [], "age_ms": 10**9}},
        {"pod": {"conditions": [{"type": "Ready", "status": "False", "age_ms": 180_000}]}},
    ],
)
def test_what_is_no_issue(parts: dict[str, Any]) -> None:
    assert codes(detected_issues(report(**parts))) == []


FAILED = {"status": "failed", "creating_ms": None}
PENDING = {"pod": {"phase": "Pending"}}


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("clone_failed", {"session": {**FAILED, "failure_reason": "git clone failed: Check it.\ngit said: not found"}}),
        ("requirements_failed", {"session": {**FAILED, "failure_reason": "uv pip install failed: no nosuch==1"}}),
        (
            "program_missing",
            {"session": {**FAILED, "failure_reason": "the program 'codex' of harness codex was not found"}},
        ),
        ("phase_timeout", {"session": {**FAILED, "failure_reason": "cloning_repo took longer than 600 s (LAP_...)"}}),
        ("out_of_memory", {"session": {"status": "dead", "failure_reason": "oom killed: the sandbox ended by itself"}}),
        ("session_ended", {"session": {**FAILED, "failure_reason": "something new"}}),
        ("container_terminated", {"pod": {"container_statuses": [{"name": "harness", "terminated_exit_code": 1}]}}),
        ("out_of_memory", {"pod": {"container_statuses": [{"name": "harness", "terminated_reason": "OOMKilled"}]}}),
        ("restart_loop", {"pod": {"container_statuses": [{"name": "harness", "ready": True, "restart_count": 3}]}}),
        ("sandbox_gone", {"session": {"status": "ready"}, "pod": {"exists": False}}),
        (
            "unschedulable",
            {"pod": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: cpu"}]}},
        ),
        ("volume_failed", {**PENDING, "events": [{"reason": "FailedMount", "message": "no such secret"}]}),
        ("network_failed", {**PENDING, "events": [{"reason": "FailedCreatePodSandBox", "message": "no IP"}]}),
        (
            "quota_exceeded",
            {
                "session": {"phase": "pod_pending"},
                "pod": {"exists": False},
                "events": [{"reason": "Failed", "message": "exceeded quota: pods"}],
            },
        ),
        (
            "agent_exited",
            {"session": {"status": "ready"}, "harness": {"agent": {"running": False, "exit_code": 3, "signal": None}}},
        ),
        ("vault_not_ready", {"vault": {"ready": False, "reason": "it ended"}}),
        ("disk_full", {"node": {"load": {"disk_free_bytes": 1000}}}),
        ("disk_full", {"pod_logs_tail": {"available": True, "text": "write: No space left on device"}}),
        ("memory_short", {"node": {"load": {"memory_available_bytes": 2**20}}}),
        ("machine_busy", {"node": {"load": {"load_1m": 40.0}}}),
        ("slow_phase", {"session": {**OLD, "phase": "cloning_repo"}, "harness": {"setup": "running"}}),
    ],
)
def test_each_hint(code: str, parts: dict[str, Any]) -> None:
    assert codes(hints(report(**parts))) == [code]


@pytest.mark.parametrize("reason", ["deleted", "stopped", "idle timeout"])
def test_an_end_that_was_wanted_needs_no_hint(reason: str) -> None:
    assert hints(report(session={"status": "dead", "failure_reason": reason, "creating_ms": None})) == []


def test_evidence_is_the_end_of_the_log() -> None:
    gone = {"container_statuses": [{"name": "harness", "terminated_exit_code": 1}]}
    assert hints(report(pod=gone))[0]["evidence"] == ["hello", "Traceback", "boom"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("branch", "fatal: Remote branch nope not found in upstream origin"),
        ("auth", "fatal: could not read Username for 'https://github.com'"),
        ("tls", "fatal: unable to access 'https://x/': server certificate verification failed. CAfile: none"),
        ("tls", "fatal: unable to access 'https://x/': SSL certificate problem: self-signed certificate"),
        ("egress", "fatal: unable to access 'https://x/': CONNECT tunnel failed, response 403"),
        ("network", "fatal: unable to access: Could not resolve host: nowhere"),
        ("disk", "fatal: write error: No space left on device"),
        ("not found", "fatal: '/nope' does not appear to be a git repository"),
        ("other", "fatal: the weather"),
    ],
)
def test_why_a_clone_failed(kind: str, text: str) -> None:
    assert clone_problem(text) == kind


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    phase=st.sampled_from([None, *phases.PHASES]),
    pod=st.dictionaries(
        st.sampled_from(["exists", "phase", "age_ms"]), st.sampled_from([None, True, False, "Running"])
    ),
    node=st.none() | st.just({}),
    probe=st.none() | st.fixed_dictionaries({"reachable": st.booleans()}),
)
def test_a_stuck_session_always_has_something_said_about_it(phase: Any, pod: Any, node: Any, probe: Any) -> None:
    stuck = {"status": "creating", "phase": phase, "creating_ms": 121_000}
    facts = {"session": stuck, "pod": pod, "node": node, "harness_probe": probe}
    assert detected_issues(facts) or hints(facts)


def mutated(value: Any) -> st.SearchStrategy[Any]:
    """`value` with parts of it missing, or of any other type."""
    other = anything | st.sampled_from([None, 10**400, float("nan"), float("inf"), -1, "True", True, [], {}])
    if isinstance(value, dict):
        keys = st.fixed_dictionaries({}, optional={key: mutated(each) for key, each in value.items()})
        return keys | other
    if isinstance(value, list):
        return st.tuples(*map(mutated, value)).map(list) | other
    return st.just(value) | other


FULL = report(
    session={"phase_detail": "3 %", "failure_reason": "creating timeout"},
    pod={
        "reason": "Evicted",
        "message": "low on memory",
        "namespace": "lap",
        "container_statuses": [
            {**WAITING, "restart_count": 3, "image": "r/i:1", "last_terminated_exit_code": 1, "init": True},
            {"name": "vault", "terminated_reason": "OOMKilled", "terminated_exit_code": 137},
        ],
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "x", "message": "y", "age_ms": 200_000},
            {"type": "PodScheduled", "status": "False", "message": "Insufficient cpu"},
        ],
    },
    sandbox_cr={"conditions": [{"type": "Suspended", "status": "True"}, {"type": "Ready", "status": "False"}]},
    node={"load": {"load_1m": 9.0, "disk_free_bytes": 1}, "conditions": [{"type": "DiskPressure", "status": "True"}]},
    events=[{"reason": "FailedMount", "message": "exceeded quota"}, {"reason": "Unhealthy", "message": "refused"}],
    harness={"setup": "done", "agent": {"running": False, "exit_code": 1, "signal": None}},
    vault={"ready": False, "reason": "gone"},
    problems=["away"],
)


@given(facts=mutated(FULL).filter(lambda value: isinstance(value, dict)))
def test_the_codes_are_a_closed_set_in_order_whatever_the_facts(facts: dict[str, Any]) -> None:
    found = codes(detected_issues(facts))
    assert found == [code for code in CODES if code in found]
    told = codes(hints(facts))
    assert not set(told) & set(CODES)
    assert len(told) == len(set(told))


@given(
    facts=mutated(FULL).filter(lambda value: isinstance(value, dict)),
    failed=st.sets(st.sampled_from(["pod", "service", "node", "warm_pool"]), min_size=1),
)
def test_a_part_that_could_not_be_had_decides_no_issue(facts: dict[str, Any], failed: set[str]) -> None:
    without = {**facts, **{part: {} for part in failed}}
    for part in failed:
        facts[part] = {**(facts.get(part) if isinstance(facts.get(part), dict) else {}), "error": "it failed"}
    assert codes(detected_issues(facts)) == codes(detected_issues(without))


def test_severities_are_those_of_the_contract() -> None:
    assert diagnosis.CODES == CODES
    told = detected_issues(
        report(
            session=OLD,
            node={"ready_status": "False", "allocated_requests": {"cpu_millicores": 9000}},
            pod={"container_statuses": [WAITING], "conditions": [{"type": "Ready", "age_ms": 200_000}]},
            service={"exists": False},
            harness_probe={"reachable": False},
            warm_pool={"warm": 0},
        )
    )
    told += [each for each in detected_issues(report(session=OLD)) if each["code"].startswith("stale")]
    assert {each["code"]: each["severity"] for each in told} == {
        "dead_node_assigned": "high",
        "stale_node_host_cache_suspect": "high",
        "pod_image_pull_backoff": "high",
        "pod_not_ready_old": "med",
        "harness_unreachable": "high",
        "node_oversubscribed": "med",
        "service_missing": "high",
        "warm_pool_empty_for_agent": "info",
    }


def test_commands_name_the_namespace() -> None:
    old = [{"type": "Ready", "status": "False", "age_ms": 200_000}]
    issue = detected_issues(report(pod={"namespace": "lap", "conditions": old}))[0]
    assert "kubectl describe pod s-1 -n lap" in issue["recommended_action"]


def test_what_was_seen_before_it_failed_comes_before_how_long_it_took() -> None:
    unscheduled = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "cpu"}]}
    failed = {**FAILED, "failure_reason": "pod_pending took longer than 300 s (LAP_...)"}
    assert codes(hints(report(session=failed, pod=unscheduled))) == ["unschedulable", "phase_timeout"]


def test_git_in_the_log_of_a_session_that_is_well_is_the_agents_own() -> None:
    log = {"text": "fatal: repository 'https://x/' not found"}
    assert hints(report(session={"status": "ready"}, pod_logs_tail=log)) == []
    ended = {"container_statuses": [{"name": "harness", "terminated_exit_code": 128}]}
    assert codes(hints(report(pod=ended, pod_logs_tail=log))) == ["clone_failed", "container_terminated"]

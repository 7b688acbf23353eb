"""The diagnosis of pods as a real cluster told of them: each way of failing has its cause and its cure."""

from typing import Any

import pytest

from backend.domain.diagnosis import CODES, Finding, detected_issues, hints
from backend.sandboxes.kubernetes.inspecting import inspect
from tests.kubernetes.seen import NAMES, NODE, Seen, ago, failure, service

CREATING = {"status": "creating", "phase": "pod_pending", "creating_ms": 100_000, "failure_reason": None}


def report(seen: Seen, log: Any = None, **parts: Any) -> dict[str, Any]:
    """The facts of a session in that sandbox."""
    found = inspect(seen, "s-1")
    return {
        "session": CREATING,
        "pod": found.pod,
        "sandbox_cr": found.sandbox_cr,
        "service": found.service,
        "node": found.node,
        "events": found.events,
        "pod_logs_tail": log or {"available": False, "error": "none"},
        "harness_probe": None,
        "warm_pool": {"provisioning": 0, "warm": 0, "claimed": 0, "dead": 0},
        "warm_pool_size": 0,
        **parts,
    }


def by_code(found: list[Finding]) -> dict[str, Finding]:
    return {finding["code"]: finding for finding in found}


def text_of(finding: Finding) -> str:
    return "\n".join([finding["message"], finding["recommended_action"], *finding.get("evidence", [])])


# What each must be told by: issues (after 90 s), hints, and words of the first of these.
TABLE: dict[str, tuple[set[str], set[str], list[str]]] = {
    "bad-command": (
        set(),
        {"container_terminated", "restart_loop"},
        ["exit code 128", "StartError", "/nonexistent: no such file", "kubectl logs f-bad-command -c main -n golden"],
    ),
    "completed": (set(), {"container_terminated"}, ["exit code 0", "Completed", "done"]),
    "config-error": (
        set(),
        {"config_error"},
        ["CreateContainerConfigError", 'configmap "absent" not found', "kubectl get configmaps -n golden"],
    ),
    "crash": (
        set(),
        {"container_terminated", "restart_loop"},
        ["exit code 3", "boom", "kubectl logs f-crash -c main -n golden --previous"],
    ),
    "deadline": (
        set(),
        {"deadline_exceeded", "container_terminated"},
        ["DeadlineExceeded", "longer than the specified deadline"],
    ),
    "failed": (set(), {"container_terminated"}, ["exit code 7", "x"]),
    "init-fail": (
        set(),
        {"init_failed", "restart_loop"},
        ["init container i", "exit code 1", "kubectl logs init-fail -c i -n golden --previous"],
    ),
    "missing-image-never": (
        {"pod_image_pull_backoff"},
        {"image_pull_failed"},
        ["ErrImageNeverPull", "localhost/nope:1"],
    ),
    "not-ready": (set(), {"probe_failing"}, ["Readiness probe failed", "connection refused"]),
    "oom": (set(), {"out_of_memory", "restart_loop"}, ["OOMKilled", "exit code 137", "memory limit"]),
    "pull-error": (
        {"pod_image_pull_backoff"},
        {"image_pull_failed"},
        ["ErrImagePull", "connection refused"],
    ),
    "unschedulable": (set(), {"unschedulable"}, ["Insufficient cpu", "kubectl describe nodes"]),
}


@pytest.mark.parametrize("name", NAMES)
def test_each_recorded_failure(name: str) -> None:
    issues, found, words = TABLE[name]
    seen, log = failure(name)
    facts = report(seen, log)
    assert set(by_code(detected_issues(facts))) == issues
    assert set(by_code(hints(facts))) == found
    first = (detected_issues(facts) + hints(facts))[0]
    for word in words:
        assert word in text_of(first)


@pytest.mark.parametrize("name", NAMES)
def test_no_command_names_a_pod_that_is_gone(name: str) -> None:
    seen, log = failure(name, age_seconds=240)
    seen.service_ = None
    facts = report(seen, log, session={"status": "failed", "failure_reason": "creating timeout"})
    found = [*detected_issues(facts), *hints(facts)]
    assert by_code(found).keys() >= TABLE[name][1]
    assert "service_missing" not in by_code(found)
    for finding in found:
        for command in ("logs", "describe pod", "patch"):
            assert f"kubectl {command}" not in finding["recommended_action"]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"completed", "failed", "deadline"}))
def test_after_three_minutes_it_is_not_ready_for_long(name: str) -> None:
    seen, log = failure(name, age_seconds=240)
    found = by_code(detected_issues(report(seen, log)))
    assert "pod_not_ready_old" in found
    assert "kubectl describe pod" in found["pod_not_ready_old"]["recommended_action"]
    assert "-n golden" in found["pod_not_ready_old"]["recommended_action"]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"unschedulable"}))
def test_a_node_that_is_lost(name: str) -> None:
    seen, log = failure(name)
    conditions = [each for each in NODE["status"]["conditions"] if each["type"] != "Ready"]
    lost = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "lastTransitionTime": ago(50)}
    seen.nodes = {"node1": {**NODE, "status": {**NODE["status"], "conditions": [*conditions, lost]}}}
    issue = by_code(detected_issues(report(seen, log)))["dead_node_assigned"]
    assert "Ready is Unknown, NodeStatusUnknown" in issue["message"]
    assert "kubectl drain node1" in issue["recommended_action"]
    seen.nodes = {}
    assert "does not exist" in by_code(detected_issues(report(seen, log)))["dead_node_assigned"]["message"]
    seen.unseen = {"nodes": "not permitted: list nodes"}
    assert "dead_node_assigned" not in by_code(detected_issues(report(seen, log)))


def running(**status: Any) -> Seen:
    """A pod of ours that runs well."""
    container = {"name": "harness", "ready": True, "restartCount": 0, "state": {"running": {"startedAt": ago(100)}}}
    vault = {**container, "name": "vault"}
    well = {
        "phase": "Running",
        "containerStatuses": [container, vault],
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": ago(99)},
            {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": ago(99)},
        ],
    }
    metadata = {"name": "s-1", "namespace": "lap", "uid": "u", "creationTimestamp": ago(130)}
    return Seen(
        pod_={"metadata": metadata, "spec": {"nodeName": "node1"}, "status": {**well, **status}},
        sandbox_={"metadata": metadata, "status": {"nodeName": "node1"}},
        service_=service("s-1"),
        nodes={"node1": NODE},
    )


ANSWERS = {"reachable": True, "status": 200}


def test_a_sandbox_that_is_well_has_nothing() -> None:
    events = [
        {"reason": reason, "message": "once"} for reason in ("FailedMount", "FailedCreatePodSandBox", "Unhealthy")
    ]
    seen = running()
    seen.events = [*events, {"reason": "FailedScheduling", "message": "0/1 nodes"}, {"reason": "Started"}]
    facts = report(seen, session={**CREATING, "status": "ready"}, harness_probe=ANSWERS)
    assert (detected_issues(facts), hints(facts)) == ([], [])


SOAK_LOG = """[vault] sourced stubs (1 key)
Cloning into '/work/repo'...
fatal: unable to access 'https://git.example/r.git/': server certificate verification failed. CAfile: none CRLfile: none
"""


def test_a_wedged_session_whose_sidecar_lives_has_its_cause() -> None:
    """The harness has ended, the vault lives, so the pod is Running; and no service, for the platform is inside."""
    vault = {"name": "vault", "ready": True, "restartCount": 0, "state": {"running": {"startedAt": ago(100)}}}
    ended = {"exitCode": 128, "reason": "Error", "finishedAt": ago(100)}
    harness = {"name": "harness", "ready": False, "restartCount": 0, "state": {"terminated": ended}}
    seen = running(
        containerStatuses=[harness, vault],
        conditions=[
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastTransitionTime": ago(100)}
        ],
    )
    seen.requests = None
    seen.unseen = {"requests": "not permitted: list pods of all namespaces"}
    session = {**CREATING, "phase": "waiting_harness", "creating_ms": 119_000}
    facts = report(seen, {"available": True, "text": SOAK_LOG}, session=session)
    found = by_code(hints(facts))
    assert list(found) == ["clone_failed", "container_terminated"]
    assert "certificate" in found["clone_failed"]["message"]
    assert "vault's authority" in found["clone_failed"]["recommended_action"]
    assert "exit code 128" in found["container_terminated"]["message"]
    assert "server certificate verification failed" in text_of(found["container_terminated"])
    assert "kubectl logs s-1 -c harness -n lap" in found["container_terminated"]["recommended_action"]
    without_log = by_code(hints(report(seen, session=session)))
    assert list(without_log) == ["container_terminated"]


PENDING = {"phase": "Pending", "containerStatuses": [], "conditions": [{"type": "PodScheduled", "status": "True"}]}


def waiting(reason: str, said: str = "", name: str = "harness") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": said}}
    return {"containerStatuses": [{"name": name, "image": "r/i:1", "restartCount": 0, "ready": False, "state": state}]}


def pod_event(reason: str, said: str) -> dict[str, Any]:
    return {"reason": reason, "message": said, "involvedObject": {"kind": "Pod", "uid": "u"}}


EVICTED = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 60Mi."
QUOTA = 'pods "s-1" is forbidden: exceeded quota: lap, requested: cpu=100m, used: cpu=2, limited: cpu=2'
PODSEC = 'pods "s-1" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'


@pytest.mark.parametrize(
    ("code", "status", "events", "word"),
    [
        ("volume_failed", PENDING, [("FailedMount", 'secret "vault-ca" not found')], "vault-ca"),
        ("volume_failed", PENDING, [("FailedAttachVolume", "Multi-Attach error")], "Multi-Attach"),
        ("network_failed", PENDING, [("FailedCreatePodSandBox", "failed to assign an IP address")], "assign an IP"),
        ("evicted", {"phase": "Failed", "reason": "Evicted", "message": EVICTED}, [], "low on resource: memory"),
        ("pod_failed", {"phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough"}, [], "OutOfcpu"),
        (
            "config_error",
            {**PENDING, **waiting("CreateContainerConfigError", 'secret "x" not found')},
            [],
            "get secrets",
        ),
        ("config_error", {**PENDING, **waiting("CreateContainerError", "context deadline")}, [], "context deadline"),
        ("image_pull_failed", {**PENDING, **waiting("InvalidImageName", "couldn't parse")}, [], "not one of an image"),
        ("vault_not_ready", waiting("CreateContainerError", "no such binary", "vault"), [], "no such binary"),
    ],
)
def test_what_else_keeps_a_pod_from_running(code: str, status: Any, events: Any, word: str) -> None:
    seen = running(**status)
    seen.events = [pod_event(*event) for event in events]
    found = by_code(hints(report(seen)))
    assert code in found
    assert word in text_of(found[code])
    assert found[code]["severity"] == "high"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("pull access denied, repository does not exist or may require authorization: 401", "pull secret"),
        ('rpc error: code = NotFound: "r/i:1": not found', "push it"),
        ("dial tcp: lookup registry: no such host", "registry's name"),
    ],
)
def test_what_the_registry_said_is_in_the_events(said: str, words: str) -> None:
    seen = running(**{**PENDING, **waiting("ImagePullBackOff", 'Back-off pulling image "r/i:1"')})
    seen.events = [pod_event("Failed", f'Failed to pull image "r/i:1": {said}')]
    facts = report(seen)
    assert list(by_code(detected_issues(facts))) == ["pod_image_pull_backoff"]
    hint = by_code(hints(facts))["image_pull_failed"]
    assert words in hint["recommended_action"]
    assert any(said in line for line in hint["evidence"])


@pytest.mark.parametrize(("code", "said"), [("quota_exceeded", QUOTA), ("pod_refused", PODSEC)])
def test_a_pod_that_may_not_be(code: str, said: str) -> None:
    condition = {"type": "Ready", "status": "False", "reason": "ReconcilerError", "message": f"Error seen: {said}"}
    seen = Seen(sandbox_={"metadata": {"namespace": "lap"}, "status": {"conditions": [condition]}})
    found = by_code(hints(report(seen)))
    assert said[:40] in found[code]["message"]
    seen = Seen(sandbox_={"metadata": {}, "status": {}}, events=[{"reason": "FailedCreate", "message": said}])
    assert code in by_code(hints(report(seen)))
    seen = running()
    seen.events = [{"reason": "FailedCreate", "message": said}]
    assert hints(report(seen)) == []  # it was made after all


def test_pre_empted_and_gone() -> None:
    seen = Seen(events=[{"reason": "Preempted", "message": "Preempted by pod 7 on node n1"}])
    found = by_code(hints(report(seen, session={**CREATING, "status": "ready"})))
    assert list(found) == ["evicted", "sandbox_gone"]
    assert "higher priority" in found["evicted"]["recommended_action"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("TaintManagerEviction", "Cancelling deletion of Pod lap/s-1"),
        ("Failed", 'Failed to pull image "r/i:1": pull access is forbidden'),
    ],
)
def test_what_befell_an_earlier_pod_is_no_cause(reason: str, said: str) -> None:
    seen = Seen(events=[{"reason": reason, "message": said}])
    assert list(by_code(hints(report(seen, session={**CREATING, "status": "ready"})))) == ["sandbox_gone"]


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("0/2 nodes are available: 2 Insufficient memory.", "kubectl describe nodes"),
        ("0/1 nodes are available: 1 Too many pods.", "add nodes"),
        ("0/1 nodes are available: 1 node(s) were unschedulable.", "kubectl uncordon"),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {gpu: }.", "without that taint"),
        ("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.", "label a node"),
        ('0/1 nodes are available: persistentvolumeclaim "data" not found.', "kubectl get pvc"),
        ("Scheduling is blocked due to non-empty scheduling gates", "on purpose"),
        ("", "add nodes"),
    ],
)
def test_what_the_scheduler_says_has_its_cure(said: str, cure: str) -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    found = by_code(hints(report(running(phase="Pending", containerStatuses=[], conditions=[scheduled]))))
    assert cure in found["unschedulable"]["recommended_action"]
    assert said in found["unschedulable"]["message"]


def test_pressure_on_its_node() -> None:
    seen = running()
    pressed = {"type": "MemoryPressure", "status": "True", "reason": "KubeletHasInsufficientMemory"}
    seen.nodes = {"node1": {**NODE, "status": {**NODE["status"], "conditions": [pressed]}}}
    found = by_code(hints(report(seen)))
    assert "is short of memory" in found["node_pressure"]["message"]
    assert "kubectl describe node node1" in found["node_pressure"]["recommended_action"]


@pytest.mark.parametrize(
    ("problem", "action"),
    [
        ("not permitted: list nodes (403)", "auth can-i"),
        ("Kubernetes does not answer since 10:00: connection refused", "/readyz"),
    ],
)
def test_a_cluster_that_cannot_be_seen_decides_nothing_and_says_so(problem: str, action: str) -> None:
    kinds = ("pods", "sandboxes", "services", "nodes", "events", "requests")
    seen = Seen(unseen=dict.fromkeys(kinds, problem))
    facts = report(seen, problems=[problem], harness_probe={"reachable": False, "error": "refused"})
    assert detected_issues(facts) == []
    (hint,) = hints(facts)
    assert (hint["code"], hint["severity"]) == ("cluster_unseen", "info")
    assert problem in hint["message"]
    assert action in hint["recommended_action"]
    stuck = {**facts, "session": {**CREATING, "creating_ms": 130_000}}
    assert list(by_code(hints(stuck))) == ["cluster_unseen", "slow_phase"]


def test_what_was_last_seen_before_the_cluster_went_away_decides_no_issue() -> None:
    seen, log = failure("pull-error", age_seconds=400)
    seen.unseen = dict.fromkeys(("pods", "services", "nodes"), "Kubernetes is away since 10:00")
    seen.service_ = None
    facts = report(seen, log, problems=["Kubernetes is away since 10:00"])
    assert detected_issues(facts) == []
    assert "image_pull_failed" in by_code(hints(facts))  # but it still explains


def test_all_eight_can_be_told_of_a_cluster() -> None:
    seen = running()
    old = {**CREATING, "creating_ms": 130_000}
    told = set(by_code(detected_issues(report(seen, session=old, harness_probe=ANSWERS))))
    seen.service_ = None
    seen.requests = (3001, 0, 9)
    told |= set(by_code(detected_issues(report(seen, harness_probe={"reachable": False, "error": "refused"}))))
    seen.nodes = {}
    told |= set(by_code(detected_issues(report(seen, warm_pool_size=1))))
    seen, log = failure("pull-error", age_seconds=400)
    told |= set(by_code(detected_issues(report(seen, log))))
    assert told == set(CODES)

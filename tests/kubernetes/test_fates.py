"""What recorded pods say of why they ended, and what they wait for."""

import json
from typing import Any

import pytest

from backend.sandboxes.kubernetes import fates
from tests.kubernetes.seen import FAILURES

RECORDED = json.loads(json.dumps(FAILURES).replace('"main"', '"harness"'))


def recorded(case: str) -> tuple[dict[str, Any], dict[str, Any] | None, list[dict[str, Any]]]:
    found = RECORDED[case]
    return found["pod"], found["sandbox"], found["events"]


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("completed", "exit code 0"),
        ("failed", "exit code 7"),
        ("deadline", "DeadlineExceeded: Pod was active on the node longer than the specified deadline"),
        ("init-fail", None),  # it is tried again
        ("not-ready", None),
        ("unschedulable", None),
        ("pull-error", None),
    ],
)
def test_recorded_ends(case: str, why: str | None) -> None:
    pod, _, _ = recorded(case)
    assert fates.ending(pod) == why
    assert fates.runs(pod) is (case == "not-ready")


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unschedulable", "0/1 nodes are available: 1 Insufficient cpu."),
        ("missing-image-never", 'ErrImageNeverPull: Container image "localhost/nope:1" is not present'),
        ("pull-error", 'ErrImagePull: failed to pull and unpack image "127.0.0.1:1/nope:1"'),
        ("config-error", 'CreateContainerConfigError: configmap "absent" not found'),
        ("init-fail", "init container i: CrashLoopBackOff: back-off 20s restarting failed container=i"),
    ],
)
def test_recorded_waits(case: str, words: str) -> None:
    said = fates.waiting(*recorded(case))
    assert said is not None
    assert said.startswith(words)
    assert len(said) <= fates.LINE_LIMIT


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"uid": "u", **metadata}, "spec": {"containers": []}, "status": status}


def ended(code: int, **more: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "harness", "state": {"terminated": {"exitCode": code, **more}}}]}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            pod(ended(1, message="2026-01-01T00:00:00Z first\n2026-01-01T00:00:00Z last words\n\n")),
            "exit code 1: last words",
        ),
        (pod(ended(0, message="all is well")), "exit code 0"),
        (pod(ended(137)), "signal 9 (SIGKILL)"),
        (pod(ended(255)), "exit code 255"),
        (pod(ended(137, reason="OOMKilled")), "out of memory"),
        (pod(ended(143), deletionTimestamp="2026-01-01T00:00:00Z"), "its pod was deleted"),
        (pod({**ended(137), "reason": "Evicted", "message": "low on\nmemory"}), "Evicted: low on memory"),
        (
            pod(
                ended(137)
                | {
                    "conditions": [
                        {
                            "type": "DisruptionTarget",
                            "status": "True",
                            "reason": "PreemptionByScheduler",
                            "message": "default-scheduler: preempting",
                        }
                    ]
                },
                deletionTimestamp="2026-01-01T00:00:00Z",
            ),
            "PreemptionByScheduler: default-scheduler: preempting",
        ),
        (pod({"phase": "Failed"}), "its pod is Failed"),
        (
            pod(
                {
                    "phase": "Failed",
                    "initContainerStatuses": [{"name": "prepare", "state": {"terminated": {"exitCode": 3}}}],
                    "containerStatuses": [{"name": "harness", "state": {"waiting": {"reason": "PodInitializing"}}}],
                }
            ),
            "init container prepare failed: exit code 3",
        ),
        # A sidecar lives, the pod counts as Running: the harness has ended all the same.
        (pod({"phase": "Running", **ended(1)}), "exit code 1"),
        (pod({"phase": "Running"}), None),
        (pod({}), None),
        ({"metadata": {}}, None),
    ],
)
def test_ends(body: dict[str, Any], why: str | None) -> None:
    assert fates.ending(body) == why


def test_what_keeps_the_controller() -> None:
    made = {"metadata": {}, "status": {}}
    assert "controller has not made its pod" in str(fates.waiting(None, made, []))
    quota = 'pods "s-1" is forbidden: exceeded quota: small, requested: cpu=1, used: cpu=4, limited: cpu=4'
    told = {"conditions": [{"type": "Ready", "status": "False", "reason": "ReconcilerError", "message": quota}]}
    assert fates.waiting(None, {"metadata": {}, "status": told}, []) == quota
    assert fates.waiting(None, None, []) is None


def test_what_the_events_tell() -> None:
    creating = {"containerStatuses": [{"name": "harness", "state": {"waiting": {"reason": "ContainerCreating"}}}]}

    def event(reason: str, message: str, kind: str = "Normal", uid: str = "u") -> dict[str, Any]:
        return {"reason": reason, "message": message, "type": kind, "involvedObject": {"kind": "Pod", "uid": uid}}

    waits = pod(creating)
    assert fates.waiting(waits, None, []) == "ContainerCreating"
    pulling = event("Pulling", 'Pulling image "big:1"')
    assert fates.waiting(waits, None, [event("Scheduled", "assigned"), pulling]) == 'Pulling image "big:1"'
    mount = event("FailedMount", "no such secret", "Warning")
    assert fates.waiting(waits, None, [pulling, mount]) == "FailedMount: no such secret"
    assert (
        fates.waiting(waits, None, [event("FailedMount", "of an earlier pod", "Warning", "v")]) == "ContainerCreating"
    )
    first = {"name": "prepare", "state": {"running": {}}}
    assert fates.waiting(pod({"initContainerStatuses": [first]}), None, []) == "init container prepare runs"

"""What is read from the cluster's objects: the shapes of the diagnose answer, and what is not known."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.sandboxes.kubernetes.inspecting import EVENT_LIMIT, addresses, event_facts, inspect, node_of
from tests.kubernetes.seen import FAILURES, NAMES, NODE, Seen, ago, failure, service


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_pod_has_the_shape_of_the_answer(name: str) -> None:
    seen, _ = failure(name)
    found = inspect(seen, name)
    status = FAILURES[name]["pod"]["status"]
    pod = found.pod
    assert (pod["exists"], pod["name"], pod["namespace"]) == (
        True,
        FAILURES[name]["pod"]["metadata"]["name"],
        "golden",
    )
    assert pod["phase"] == status["phase"]
    assert pod["pod_ips"] == ([status["podIP"]] if "podIP" in status else [])
    assert 89_000 <= pod["age_ms"] <= 120_000
    assert pod["restart_count"] == sum(
        each["restartCount"] for kind in ("initContainerStatuses", "containerStatuses") for each in status.get(kind, [])
    )
    assert [each["type"] for each in pod["conditions"]] == [each["type"] for each in status["conditions"]]
    assert all(0 <= each["age_ms"] <= pod["age_ms"] for each in pod["conditions"])
    assert found.events[-1]["message"] == FAILURES[name]["events"][-1]["message"]
    assert all(event["at"] and event["count"] for event in found.events)
    assert "error" not in {**found.pod, **found.sandbox_cr, **found.service, **found.node}
    json.dumps([found.pod, found.sandbox_cr, found.service, found.node, found.events], allow_nan=False)


def test_a_crash_loop_tells_how_it_ended_before() -> None:
    seen, _ = failure("oom")
    container = inspect(seen, "oom").pod["container_statuses"][0]
    assert container["waiting_reason"] == "CrashLoopBackOff"
    assert (container["last_terminated_reason"], container["last_terminated_exit_code"]) == ("OOMKilled", 137)
    assert container["restart_count"] == 2
    assert "terminated_reason" not in container
    assert "init" not in container


def test_init_containers_are_told_apart_but_for_sidecars() -> None:
    seen, _ = failure("init-fail")
    pod = inspect(seen, "init-fail").pod
    assert [(each["name"], each.get("init")) for each in pod["container_statuses"]] == [("i", True), ("main", None)]
    seen.pod_["spec"]["initContainers"][0]["restartPolicy"] = "Always"  # type: ignore[index]
    pod = inspect(seen, "init-fail").pod
    assert [each.get("init") for each in pod["container_statuses"]] == [None, None]


def test_an_ended_container_has_its_message() -> None:
    seen, _ = failure("deadline")
    pod = inspect(seen, "deadline").pod
    assert (pod["reason"], pod["message"][:14]) == ("DeadlineExceeded", "Pod was active")
    container = pod["container_statuses"][0]
    assert (container["terminated_reason"], container["terminated_exit_code"]) == ("Error", 137)


def test_the_sandbox_object() -> None:
    seen, _ = failure("unschedulable")
    found = inspect(seen, "unschedulable")
    assert found.node == {"exists": False}
    cr = found.sandbox_cr
    assert (cr["exists"], cr["service"], cr["pod_ips"]) == (True, "f-unschedulable", [])
    assert cr["raw_status"]["selector"]
    scheduled = next(each for each in cr["conditions"] if each["type"] == "PodScheduled")
    assert (scheduled["status"], scheduled["reason"]) == ("False", "Unschedulable")
    assert "Insufficient cpu" in scheduled["message"]


def test_the_service_in_front() -> None:
    found = inspect(Seen(service_=service("s-1")), "s-1").service
    assert found["cluster_ip"] == "10.96.0.7"
    assert found["ports"] == [{"port": 4096, "target_port": 4096, "node_port": 30123, "protocol": "TCP"}]
    assert found["node_port"] == 30123
    assert 59_000 <= found["age_ms"] <= 90_000


def test_a_node_with_what_is_requested_of_it() -> None:
    tainted = {
        **NODE,
        "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule", "timeAdded": "x"}]},
    }
    node = node_of(Seen(nodes={"node1": tainted}, requests=(3005, 38 * 2**30, 7)), "node1")
    assert (node["name"], node["ready_status"], node["ready_reason"]) == ("node1", "True", "KubeletReady")
    assert (node["internal_ip"], node["external_ip"]) == ("10.250.0.1", None)
    assert node["capacity"] == {"cpu_millicores": 2000, "memory_bytes": 24684096 * 1024}
    assert node["allocatable"] == {"cpu_millicores": 2000, "memory_bytes": 24632896 * 1024}
    assert node["allocated_requests"] == {"cpu_millicores": 3005, "memory_bytes": 38 * 2**30}
    assert (node["pod_count"], node["allocated_pct"]) == (7, {"cpu": 150, "memory": 161})
    assert (node["unschedulable"], node["taints"]) == (True, [{"key": "k", "effect": "NoSchedule"}])


def test_requests_that_are_not_known_say_why() -> None:
    denied = "not permitted: list pods in all namespaces"
    node = node_of(Seen(nodes={"node1": NODE}, requests=None, unseen={"requests": denied}), "node1")
    assert (node["allocated_requests"], node["allocated_pct"], node["pod_count"]) == (None, None, None)
    assert node["allocation_error"] == denied
    assert "error" not in node


def test_a_missing_node_is_not_one_that_cannot_be_seen() -> None:
    assert node_of(Seen(), "n1") == {"exists": False, "name": "n1"}
    away = node_of(Seen(unseen={"nodes": "not permitted: list nodes"}), "n1")
    assert away == {"exists": False, "name": "n1", "error": "not permitted: list nodes"}
    stale = node_of(Seen(nodes={"node1": NODE}, unseen={"nodes": "Kubernetes is away since 10:00"}), "node1")
    assert (stale["exists"], stale["error"]) == (True, "Kubernetes is away since 10:00")


def test_nothing_there_and_nothing_known() -> None:
    nothing = {"exists": False}
    found = inspect(Seen(), "s-1")
    assert (found.pod, found.sandbox_cr, found.service, found.node) == (nothing, nothing, nothing, nothing)
    kinds = ("pods", "sandboxes", "services")
    found = inspect(Seen(unseen={kind: f"no {kind} yet" for kind in kinds}), "s-1")
    assert [part["error"] for part in (found.pod, found.sandbox_cr, found.service)] == [f"no {k} yet" for k in kinds]


def test_the_node_of_a_pod_that_is_gone_is_the_sandboxes() -> None:
    found = inspect(Seen(sandbox_={"status": {"nodeName": "node1"}}, nodes={"node1": NODE}), "s-1")
    assert found.node["name"] == "node1"


def test_events_of_an_earlier_pod_are_left_out() -> None:
    events = [
        {"reason": "Old", "involvedObject": {"kind": "Pod", "uid": "old"}},
        {"reason": "Of the sandbox", "involvedObject": {"kind": "Sandbox", "uid": "s"}},
        {"reason": "New", "involvedObject": {"kind": "Pod", "uid": "new"}, "eventTime": "2026-11-22T14:25:20.311593Z"},
    ]
    assert [each["reason"] for each in event_facts(events, "new")] == ["Of the sandbox", "New"]
    assert event_facts(events, "new")[-1]["at"] == "2026-11-22T14:25:20.311Z"
    assert len(event_facts(events)) == 3
    last = ago(3)
    series = {"series": {"count": 9, "lastObservedTime": last}, "eventTime": ago(50)}
    (event,) = event_facts([series])
    assert (event["count"], event["at"]) == (9, last.replace("Z", ".000Z"))
    assert len(event_facts([{}] * 99)) == EVENT_LIMIT


def test_a_pod_made_in_place_of_its_own_is_not_its_pod() -> None:
    seen, _ = failure("crash")
    own = seen.pod_["metadata"]["uid"]  # type: ignore[index]
    assert inspect(seen, "crash", own).pod["exists"] is True
    found = inspect(seen, "crash", "another")
    assert (found.pod, found.events) == ({"exists": False}, [])


def test_addresses_are_objects_or_texts() -> None:
    assert addresses([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]) == ["10.0.0.1", "fd00::1"]
    assert addresses(["10.0.0.1"]) == ["10.0.0.1"]
    assert addresses(None) == addresses([None, {}, 3]) == []


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("2026-11-22T14:25:20Z"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "status", "spec", "conditions", "containerStatuses", "state", "waiting", "ports"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
objects = st.none() | st.dictionaries(st.sampled_from(["metadata", "status", "spec", "involvedObject"]), anything)


@given(pod=objects, sandbox=objects, front=objects, node=objects, events=st.lists(objects.filter(bool), max_size=3))
def test_whatever_the_objects_are_nothing_breaks(pod: Any, sandbox: Any, front: Any, node: Any, events: Any) -> None:
    found = inspect(Seen(pod, sandbox, front, {"node1": node} if node else {}, events), "s-1")
    node_of(Seen(nodes={"node1": node} if node else {}), "node1")
    json.dumps([found.pod, found.service, found.node, found.events])

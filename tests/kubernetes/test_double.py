"""The double against what a real API server answered to the same requests (recordings/).

Both answers are compared without what differs from run to run: uids, times, versions, addresses, random names. What
else differs is in ACCEPTED, with the reason.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kubernetes.double import Double

Json = dict[str, Any]
FOLDER = Path(__file__).parent / "recordings"
NAMESPACE = "golden"
OPTIONS = {"namespace": NAMESPACE, "cpu": "2", "memory": "24632896Ki", "claims": True}

ACCEPTED: dict[str, str] = {
    r"lifecycle\.5\.": "the double has no proxy to the ports of pods",
    r"errors\.discovery_group\.body\.resources\[0\]\.storageVersionHash": "a hash of what only the real one stores",
    r"claims\..*\.status\.selector": "a hash of a random name",
    r"nodes\..*\.(capacity\.memory|declaredFeatures|images|nodeInfo\.kernelVersion)": "facts of the machine it ran on",
}
"""Where (a pattern for the path of a difference) and why an answer may differ from the recorded one."""

_UNSTABLE = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID"),
    (r"\b(10|127)\.\d+\.\d+\.\d+\b", "IP"),
    (r"(containerd://|sha256:)[0-9a-f]{64}", "ID"),
    (r"kube-api-access-\w{5}", "kube-api-access"),
    (r"\.[0-9a-f]{16}$", ".EVENT"),
    (r"\bwp-\w{5}\b", "wp-RANDOM"),
)


def stable(value: Any, key: str = "") -> Any:
    """`value` without what differs from run to run."""
    if key == "resources" and value == {"limits": {"memory": "9007199254740988Ki"}}:
        return {}  # How a cgroup without a limit reads, now and then.
    if isinstance(value, dict):
        return {name: stable(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [stable(item) for item in value]
    if key in ("resourceVersion", "machineID", "systemUUID", "timeAdded") or key.endswith("-template-hash"):
        return key.upper()
    if isinstance(value, str):
        for pattern, name in _UNSTABLE:
            value = re.sub(pattern, name, value)
    return value


def differences(recorded: Any, answered: Any, path: str) -> Iterator[str]:
    """The paths at which two values differ, each with both sides."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        for key in sorted({*recorded, *answered}):
            if key in recorded and key in answered:
                yield from differences(recorded[key], answered[key], f"{path}.{key}")
            else:
                missing, there = ("recorded", answered) if key in answered else ("answered", recorded)
                yield f"{path}.{key}: not {missing}: {there[key]!r}"
    elif isinstance(recorded, list) and isinstance(answered, list) and len(recorded) == len(answered):
        for number, (one, other) in enumerate(zip(recorded, answered, strict=True)):
            yield from differences(one, other, f"{path}[{number}]")
    elif recorded != answered:
        yield f"{path}: {recorded!r} != {answered!r}"


def check(recorded: Any, answered: Any, path: str) -> None:
    found = [
        difference
        for difference in differences(stable(recorded), stable(answered), path)
        if not any(re.match(pattern, difference) for pattern in ACCEPTED)
    ]
    assert not found, "\n".join(found)


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.fixture
def http(double: Double) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {double.token}"}
    with httpx.Client(base_url=double.url, headers=headers, timeout=20, trust_env=False) as client:
        yield client


def send(http: httpx.Client, request: Json) -> httpx.Response:
    content = None if request.get("body") is None else json.dumps(request["body"])
    headers = {"Content-Type": request["contentType"]} if content else {}
    query = request.get("query")
    return http.request(request["method"], request["path"], params=query, content=content, headers=headers)


def replay(http: httpx.Client, step: Json, path: str) -> None:
    """Send a recorded request and compare the whole answer."""
    compare(step, send(http, step["request"]), path)


def compare(step: Json, answer: httpx.Response, path: str) -> None:
    wanted = step["response"]
    kind = answer.headers.get("content-type")
    body = answer.json() if kind == "application/json" else answer.text
    got = {"status": answer.status_code, "body": body}
    got |= {"contentType": kind} if "contentType" in wanted else {}
    got |= {"warning": answer.headers["warning"]} if "warning" in answer.headers else {}
    check(wanted, got, path)


def sandbox(name: str, spec: Json | None = None) -> Json:
    container = {"name": "main", "image": "localhost/box:1", "imagePullPolicy": "Never"}
    container |= {"ports": [{"containerPort": 8080}]}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container], **(spec or {})}}
    return {"metadata": {"name": name}, "spec": {"podTemplate": template, "service": True}}


def watched(http: httpx.Client, path: str, last: str | int, since: str = "1") -> list[Json]:
    """The events of a watch up to the first that is of type `last`, or so many."""
    events: list[Json] = []
    with http.stream("GET", path, params={"watch": "1", "resourceVersion": since}) as response:
        for line in response.iter_lines():
            events.append(json.loads(line))
            if last in (events[-1]["type"], len(events)):
                break
    return events


SANDBOXES = f"/apis/agents.x-k8s.io/v1beta1/namespaces/{NAMESPACE}/sandboxes"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


def told(obj: Json | None) -> Any:
    """What a Sandbox says of itself, to wait for."""
    conditions = (obj or {}).get("status", {}).get("conditions", ())
    return [(entry["type"], entry["status"], entry["reason"], entry["observedGeneration"]) for entry in conditions]


@pytest.mark.parametrize("double", [OPTIONS], indirect=True)
def test_a_sandbox_lives_as_recorded(double: Double, http: httpx.Client) -> None:
    recorded = load("lifecycle")
    deleted = None
    for number, step in enumerate(recorded["steps"]):
        request, body = step["request"], step["response"]["body"]
        if request["method"] == "GET" and request["path"] == f"{SANDBOXES}/life" and body["kind"] == "Sandbox":
            double.wait("pods", "life", partial(_is_other, deleted))
            double.wait("sandboxes", "life", lambda obj, body=body: told(obj) == told(body))
        if request["method"] == "DELETE":
            deleted = double.get("pods", "life")
        replay(http, step, f"lifecycle.{number}")
    for kind, path in (("pods", PODS), ("sandboxes", SANDBOXES)):
        ends = sum(event["type"] == "DELETED" for event in recorded[kind])
        events: list[Json] = []
        for _ in range(ends):
            since = events[-1]["object"]["metadata"]["resourceVersion"] if events else "1"
            events += watched(http, path, "DELETED", since)
        # The real kubelet may tell two states of a pod at once.
        states(recorded[kind], events, f"lifecycle.{kind}", more=1 if kind == "pods" else 0)
    events = watched(http, f"/api/v1/namespaces/{NAMESPACE}/events", len(recorded["events"]))
    states(recorded["events"], events, "lifecycle.events")


def _is_other(deleted: Json | None, pod: Json | None) -> bool:
    """Whether a pod is not the one that was deleted."""
    return pod is None or deleted is None or pod["metadata"]["uid"] != deleted["metadata"]["uid"]


def states(recorded: list[Json], answered: list[Json], path: str, more: int = 0) -> None:
    """The recorded states in their order, and at most `more` between them; one told twice in a row counts once."""

    def known(events: list[Json]) -> list[Any]:
        result: list[Any] = []
        for event in events:
            state = stable({**event, "object": {**event["object"], "spec": None}})
            if not result or result[-1] != state:
                result.append(state)
        return result

    wanted, got = known(recorded), known(answered)
    for number, state in enumerate(wanted):
        if len(got) - len(wanted[number:]) > 0 and more and state != got[0] and state in got:
            del got[0]
            more -= 1
        check(state, got.pop(0), f"{path}.{number}")
    assert not got


_SAME = ("bad-command", "completed", "config-error", "crash", "deadline", "failed", "init-fail", "not-ready", "oom")
OUTCOMES = {name: name for name in (*_SAME, "pull-error")}
OUTCOMES |= {"missing-image-never": "image-never", "unschedulable": "running"}
"""The outcome to script for each recorded failure; the last one comes by itself."""


@pytest.mark.parametrize("failure", OUTCOMES)
@pytest.mark.parametrize("double", [OPTIONS], indirect=True)
def test_a_pod_fails_as_recorded(double: Double, http: httpx.Client, failure: str) -> None:
    recorded = load("failures")[failure]
    name = recorded["pod"]["metadata"]["name"]
    double.script(name, OUTCOMES[failure])
    if recorded.get("sandbox"):
        made = http.post(SANDBOXES, json={"metadata": {"name": name}, "spec": recorded["sandbox"]["spec"]})
        double.wait("sandboxes", name, lambda obj: _matches(obj, recorded["sandbox"]))
        check(recorded["sandbox"]["status"], http.get(f"{SANDBOXES}/{name}").json()["status"], f"{failure}.sandbox")
    else:
        made = http.post(PODS, json={"metadata": {"name": name}, "spec": _asked(recorded["pod"]["spec"])})
        phase = recorded["pod"]["status"]["phase"]
        double.wait("pods", name, lambda pod: pod is not None and _arrived(pod, phase))
    assert made.status_code == 201, made.text
    check(recorded["pod"], {**http.get(f"{PODS}/{name}").json()}, f"{failure}.pod")
    selector = {"fieldSelector": f"involvedObject.name={name},involvedObject.kind=Pod"}
    events = http.get(f"/api/v1/namespaces/{NAMESPACE}/events", params=selector).json()["items"]
    check(_short(recorded["events"]), _short(events), f"{failure}.events")
    compare({"response": recorded["log"]}, http.get(f"{PODS}/{name}/log"), f"{failure}.log")
    if "log_previous" in recorded:
        answer = http.get(f"{PODS}/{name}/log", params={"previous": "true"})
        compare({"response": recorded["log_previous"]}, answer, f"{failure}.log_previous")


def _matches(obj: Json | None, recorded: Json) -> bool:
    return told(obj) == told(recorded) and _messages(obj) == _messages(recorded)


def _messages(obj: Json | None) -> list[str]:
    return [entry["message"] for entry in (obj or {}).get("status", {}).get("conditions", ())]


def _arrived(pod: Json, phase: str) -> bool:
    states = [entry["state"] for entry in pod["status"].get("initContainerStatuses", ())]
    return pod["status"]["phase"] == phase and all("waiting" in state or phase != "Pending" for state in states)


def _asked(spec: Json) -> Json:
    """What of a pod's spec its author wrote."""
    wanted = ("restartPolicy", "terminationGracePeriodSeconds", "activeDeadlineSeconds")
    own = {key: spec[key] for key in wanted if key in spec}
    for part in ("initContainers", "containers"):
        if part in spec:
            drop = ("volumeMounts",)
            own[part] = [{key: value for key, value in each.items() if key not in drop} for each in spec[part]]
    return own


def _short(events: list[Json]) -> list[Json]:
    keys = ("type", "reason", "message", "source", "reportingComponent", "count")
    places = (event["involvedObject"].get("fieldPath") for event in events)
    short = [{key: event.get(key) for key in keys} | {"at": place} for event, place in zip(events, places, strict=True)]
    # The scheduler tells the same again with each try, the double once.
    return [event for number, event in enumerate(short) if number == 0 or short[number - 1] != event]


@pytest.mark.parametrize("double", [OPTIONS], indirect=True)
def test_errors_and_special_cases_are_as_recorded(double: Double, http: httpx.Client) -> None:
    recorded = load("errors")
    double.faults.pause_controller()  # The real one was slower than these requests.
    assert http.post(SANDBOXES, json=sandbox("dup")).is_success
    for name, step in recorded.items():
        if "request" in step:
            replay(http, step, f"errors.{name}")
    anonymous = httpx.get(f"{double.url}{SANDBOXES}")
    compare(recorded["401"], anonymous, "errors.401")
    double.faults.forbid("list", "sandboxes")
    compare(recorded["403"], http.get(SANDBOXES), "errors.403")
    double.faults.clear()
    assert http.get(SANDBOXES).is_success


@pytest.mark.parametrize("double", [OPTIONS], indirect=True)
def test_logs_are_as_recorded(double: Double, http: httpx.Client) -> None:
    recorded = load("logs")
    http.post(PODS, json={"metadata": {"name": "logs"}, "spec": {"containers": [{"name": "main", "image": "box:1"}]}})
    double.wait("pods", "logs", lambda pod: pod is not None and pod["status"]["phase"] == "Running")
    lines = [f"line {number}\n" for number in range(1, 10)]
    double.age_log("logs", lines)
    for number, query in enumerate(recorded["queries"]):
        replay(http, query, f"logs.{number}")
    with http.stream("GET", f"{PODS}/logs/log", params={"follow": "true", "tailLines": "1"}) as response:
        head, *chunks = recorded["follow"]
        check(head, {"status": response.status_code, "headers": dict(response.headers)}, "logs.follow")
        texts = response.iter_text()
        for number, chunk in enumerate(chunks):
            if number:
                double.write_log("logs", f"line {9 + number}\n")
            assert next(texts) == chunk["chunk"]
        double.faults.delete_pod("logs")
        assert list(texts) == []


@pytest.mark.parametrize("double", [OPTIONS], indirect=True)
def test_nodes_are_as_recorded(double: Double, http: httpx.Client) -> None:
    recorded = load("nodes")
    for name in ("list", "cordon"):
        replay(http, recorded[name], f"nodes.{name}")
    double.wait("nodes", "node1", lambda node: node is not None and "taints" in node["spec"])
    for name in ("uncordon", "lease"):
        replay(http, recorded[name], f"nodes.{name}")
    node = double.wait("nodes", "node1", lambda node: node is not None and "taints" not in node["spec"])
    assert node is not None and node["spec"] == {}


@pytest.mark.parametrize("double", [OPTIONS], indirect=True)
def test_claims_are_as_recorded(double: Double, http: httpx.Client) -> None:
    recorded = load("claims")
    template, pool, claim, claimed, filled = recorded["steps"]
    replay(http, template, "claims.template")
    replay(http, pool, "claims.pool")
    double.wait("sandboxwarmpools", "wp", _is_filled)
    replay(http, claim, "claims.claim")
    first = "agents.x-k8s.io/claim-first-ready-at"
    double.wait("sandboxclaims", "cl", lambda obj: first in (obj or {})["metadata"].get("annotations", {}))
    double.wait("sandboxwarmpools", "wp", _is_filled)
    replay(http, claimed, "claims.claimed")
    replay(http, filled, "claims.filled")
    # A pool that has just been made may be told of at once; the real controller does so in steps.
    claims = "/apis/extensions.agents.x-k8s.io/v1beta1/namespaces/golden"
    told = watched(http, f"{claims}/sandboxclaims", len(recorded["sandboxclaims"]) - 1)
    states([event for event in recorded["sandboxclaims"] if not _is_dated(event)], told, "claims.claims")
    shown = {name: [event["object"] for event in recorded["sandboxes"]] for name in ("taken", "new")}
    taken = [obj for obj in shown["taken"] if obj["metadata"]["generation"] == 2][-1]
    new = [obj for obj in shown["new"] if obj["metadata"]["generation"] == 1][-1]
    made = {obj["metadata"]["generation"]: obj for obj in http.get(SANDBOXES).json()["items"]}
    check(taken, made[2], "claims.taken")
    check({**new, "spec": made[1]["spec"]}, made[1], "claims.new")
    first = recorded["sandboxes"][0]["object"]["spec"]
    check(first, made[1]["spec"], "claims.new.spec")


def _is_dated(event: Json) -> bool:
    """Whether a claim tells when it first was ready, which the controller takes back in the next moment."""
    told = event["object"]["metadata"].get("annotations", {})
    return str(told.get("agents.x-k8s.io/claim-first-ready-at", "unknown")) != "unknown"


def _is_filled(pool: Json | None) -> bool:
    return bool(pool and pool.get("status", {}).get("readyReplicas"))

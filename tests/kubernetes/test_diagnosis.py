"""Each of the eight issues, and the hints, made in a cluster and recognised through the API."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.app import create_app
from backend.domain import diagnosis as rules
from backend.services import diagnosis as service
from backend.settings import Settings
from tests.kubernetes.double import Double
from tests.waiting import until

API = "/api/v1/managed_agents"
WAIT = 30.0


class Platform:
    """The platform in this process, its sandboxes in the double."""

    def __init__(self, http: httpx.AsyncClient, double: Double, agent: Mapping[str, Any]) -> None:
        self.http = http
        self.double = double
        self.agent = agent

    async def create(self, outcome: str = "running") -> dict[str, Any]:
        """A session whose pod comes to that; returns when there is the pod."""
        self.double.script("s-", outcome)
        response = await self.http.post(f"{API}/agents/{self.agent['id']}/session", json={})
        assert response.status_code == 200, response.text
        session: dict[str, Any] = response.json()
        await self.double.until("pods", session["task_arn"], lambda pod: pod is not None and "status" in pod)
        return session

    async def diagnose(self, session: Mapping[str, Any]) -> dict[str, Any]:
        response = await self.http.get(f"{API}/sessions/{session['id']}/diagnose")
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def told(self, session: Mapping[str, Any], *wanted: str) -> dict[str, Any]:
        """The answer once all of these are among its issues and hints; the findings by their code."""
        last: dict[str, Any] = {}

        async def all_there() -> bool:
            last["answer"] = await self.diagnose(session)
            return set(wanted) <= found(last["answer"]).keys()

        try:
            await until(all_there, f"the diagnosis tells {', '.join(wanted)}", WAIT)
        except AssertionError:
            answer = last["answer"]
            parts = {key: answer[key] for key in ("session", "pod", "service", "node", "events", "last_inspection")}
            raise AssertionError(f"not {wanted} but {found(answer)}, of {parts}") from None
        return found(last["answer"])

    async def issues(self, session: Mapping[str, Any], holds: Callable[[Collection[str]], bool]) -> None:
        """Waits until that is so of the codes noted with the session."""

        async def noted() -> bool:
            row = (await self.http.get(f"{API}/sessions/{session['id']}")).json()
            return holds([each["code"] for each in row["issues"]])

        await until(noted, "the session's issues are as they should be", WAIT)


def found(answer: Mapping[str, Any]) -> dict[str, Any]:
    issues, hints = answer["detected_issues"], answer["hints"]
    assert {each["code"] for each in issues} <= set(rules.CODES)
    assert not {each["code"] for each in hints} & set(rules.CODES)
    return {each["code"]: each for each in (*issues, *hints)}


def words(finding: Mapping[str, Any]) -> str:
    return "\n".join([finding["message"], finding["recommended_action"], *finding.get("evidence", [])])


@contextlib.asynccontextmanager
async def opened(double: Double, directory: Path, **settings: Any) -> AsyncIterator[Platform]:
    loaded = Settings.load(
        data_dir=directory,
        master_key="test-master-key",
        sandboxes="kubernetes",
        vault="off",
        kubeconfig=str(double.kubeconfig),
        k8s_namespace=double.namespace,
        **settings,
    ).with_keys()
    app = create_app(loaded)
    key = {"Authorization": "Bearer test-master-key"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://platform", headers=key) as http,
    ):
        agent = (await http.post(f"{API}/agents", json={"model": "m", "harness_id": "claude-code"})).json()
        platform = Platform(http, double, agent)
        try:
            yield platform
        finally:
            await http.delete(f"{API}/agents/{agent['id']}")


@pytest.fixture
async def platform(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Platform]:
    monkeypatch.setattr(service, "TICK_SECONDS", 0.1)
    async with opened(double, tmp_path) as platform:
        yield platform


# How pods come to an end, or to none: codes that must be told, and words of the first.
WAYS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("pull-error", ("pod_image_pull_backoff", "image_pull_failed"), "connection refused"),
    ("pull-backoff", ("pod_image_pull_backoff", "image_pull_failed"), "ImagePullBackOff"),
    ("image-never", ("pod_image_pull_backoff", "image_pull_failed"), "K8S_IMAGE_PULL_POLICY"),
    ("config-error", ("config_error",), "kubectl get configmaps -n default"),
    ("unschedulable", ("unschedulable",), "Insufficient"),
    ("no-network", ("network_failed",), "no IP addresses available"),
    ("missing-volume", ("volume_failed",), 'secret "absent" not found'),
    ("crash:3", ("container_terminated",), "exit code 3"),
    ("bad-command", ("container_terminated",), "no such file or directory"),
    ("completed", ("container_terminated",), "exit code 0"),
    ("oom", ("out_of_memory",), "OOMKilled"),
    ("evicted", ("evicted",), "low on resource: memory"),
    ("deadline", ("deadline_exceeded",), "longer than the specified deadline"),
)


async def test_each_way_a_pod_fails(platform: Platform) -> None:
    sessions = [(await platform.create(outcome), codes, word) for outcome, codes, word in WAYS]
    for session, codes, word in sessions:
        assert word in words((await platform.told(session, *codes))[codes[0]])
        await platform.issues(session, lambda noted, codes=codes: set(codes) <= set(noted))
    fleet = (await platform.http.get(f"{API}/diagnose")).json()
    told = {
        entry["session_id"]: {each["code"] for each in entry["detected_issues"] + entry["hints"]}
        for entry in fleet["data"]
    }
    for session, codes, _ in sessions:
        assert set(codes) <= told[session["id"]]


async def test_a_failed_clone_is_told_after_its_pod_is_gone(platform: Platform) -> None:
    session = await platform.create()
    name = session["task_arn"]
    await platform.double.until("pods", name, lambda pod: pod is not None and pod["status"]["phase"] == "Running")
    said = "fatal: unable to access 'https://git.example/r.git/': server certificate verification failed. CAfile: none"
    platform.double.write_log(name, f"Cloning into '/sandbox/home/r'...\n{said}\n")
    platform.double.turn(name, "failed:128")
    told = await platform.told(session, "clone_failed", "container_terminated")
    assert "certificate" in told["clone_failed"]["message"]
    assert said in told["clone_failed"]["evidence"]
    assert "exit code 128" in told["container_terminated"]["message"]
    await platform.double.until("pods", name, lambda pod: pod is None)
    assert "clone_failed" in found(await platform.diagnose(session))


async def test_a_namespace_that_is_full(platform: Platform) -> None:
    quota = 'services "s-np" is forbidden: exceeded quota: lap, requested: services=1, used: services=5'
    platform.double.faults.fail(9, 403, "Forbidden", quota, verb="create", resource="services")
    session = await platform.create("unschedulable")
    told = await platform.told(session, "quota_exceeded")
    assert "kubectl describe quota" in told["quota_exceeded"]["recommended_action"]


async def test_what_befalls_a_sandbox_that_runs(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "SUSPECT_SECONDS", 0.1)  # its harness is a port that nobody listens on
    double, session = platform.double, await platform.create()
    name = session["task_arn"]
    told = await platform.told(session, "harness_unreachable")
    assert set(told) <= {"harness_unreachable", "slow_phase"}
    await platform.issues(session, lambda noted: "harness_unreachable" in noted)

    double.faults.delete_service(f"{name}-np")
    await platform.told(session, "service_missing")
    await platform.issues(session, lambda noted: "service_missing" in noted)
    assert (await platform.http.post(f"{API}/sessions/{session['id']}/mend")).status_code == 200
    await platform.issues(session, lambda noted: "service_missing" not in noted)

    container = {"name": "c", "resources": {"requests": {"cpu": "12", "memory": "1Gi"}}}
    spec = {"nodeName": "node1", "containers": [container]}
    double.put("pods", {"metadata": {"name": "greedy", "namespace": "kube-system"}, "spec": spec, "status": {}})
    told = await platform.told(session, "node_oversubscribed")
    assert "15" in told["node_oversubscribed"]["message"]  # per cent of 8 processors

    node = double.get("nodes", "node1")
    assert node is not None
    pressed = [
        {**each, "status": "True"} if each["type"] == "DiskPressure" else each for each in node["status"]["conditions"]
    ]
    double.edit("nodes", "node1", status={**node["status"], "conditions": pressed})
    await platform.told(session, "node_pressure")

    double.faults.node_lost("node1")
    told = await platform.told(session, "dead_node_assigned")
    assert "kubectl drain node1" in told["dead_node_assigned"]["recommended_action"]
    assert "Unknown" in told["dead_node_assigned"]["message"]
    (row,) = (await platform.http.get(f"{API}/nodes")).json()["data"]
    assert (row["name"], row["ready_status"]) == ("node1", "Unknown")
    assert [each["session_id"] for each in row["sandboxes"]] == [session["id"]]
    double.faults.node_back("node1")


async def test_a_pod_that_does_not_get_ready(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("NOT_READY_SECONDS", "PROBES_FAIL_SECONDS"):
        monkeypatch.setattr(rules, limit, 0.0)
    session = await platform.create("not-ready")
    told = await platform.told(session, "pod_not_ready_old", "probe_failing")
    assert f"kubectl describe pod {session['task_arn']} -n default" in told["pod_not_ready_old"]["recommended_action"]
    assert "Readiness probe failed" in told["probe_failing"]["message"]


async def test_an_init_container_that_fails(platform: Platform) -> None:
    session = await platform.create("creating")
    name = session["task_arn"]
    pod = platform.double.get("pods", name)
    assert pod is not None
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container"}}
    ended = {"terminated": {"exitCode": 2, "reason": "Error", "message": "no such key"}}
    status = {"name": "prepare", "ready": False, "restartCount": 4, "state": state, "lastState": ended}
    platform.double.edit("pods", name, status={**pod["status"], "initContainerStatuses": [status]})
    told = await platform.told(session, "init_failed", "restart_loop")
    assert "exit code 2" in told["init_failed"]["message"]
    assert "no such key" in words(told["init_failed"])


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A harness that says that it is well, but not when it is asked for its health: bring-up waits for ever."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, body = ("200 OK", '{"setup": "waiting"}') if " /state " in head else ("503 Service Unavailable", "{}")
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
    await writer.drain()
    writer.close()


async def test_healthy_for_long_and_still_creating(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "SUSPECT_SECONDS", 0.1)
    session = await platform.create()
    service_name = f"{session['task_arn']}-np"
    await platform.double.until("services", service_name, lambda each: each is not None)
    front, node = platform.double.get("services", service_name), platform.double.get("nodes", "node1")
    assert front is not None
    assert node is not None
    (host,) = (each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")
    server = await asyncio.start_server(answer, host, front["spec"]["ports"][0]["nodePort"])
    async with server:
        told = await platform.told(session, "stale_node_host_cache_suspect")
        assert "harness_unreachable" not in told
        assert "recreate the session" in told["stale_node_host_cache_suspect"]["recommended_action"]
        await platform.issues(session, lambda noted: "stale_node_host_cache_suspect" in noted)


async def test_an_empty_warm_pool(double: Double, tmp_path: Path) -> None:
    double.script("w-", "failed")
    async with opened(double, tmp_path, warm_pool_size=1, reconcile_interval_seconds=600) as platform:
        session = await platform.create("unschedulable")
        told = await platform.told(session, "warm_pool_empty_for_agent")
        assert told["warm_pool_empty_for_agent"]["severity"] == "info"


async def test_a_cluster_that_is_away(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await platform.create("unschedulable")
    await platform.issues(session, lambda noted: "unschedulable" in noted)
    platform.double.faults.go_away()
    told = await platform.told(session, "cluster_unseen")
    assert "kubectl get --raw /readyz" in told["cluster_unseen"]["recommended_action"]
    assert "unschedulable" in told  # the last that was known
    started = time.monotonic()
    answered = await platform.diagnose(session)
    assert time.monotonic() - started < service.LOG_SECONDS + 5
    assert answered["pod_logs_tail"]["available"] is False
    monkeypatch.setattr("backend.sandboxes.kubernetes.cluster.TRUSTED_SECONDS", 0.0)

    async def old() -> Any:
        return (answer := await platform.diagnose(session))["pod"].get("error") and answer

    answered = await until(old, "what is shown of the pod is said to be old", WAIT)
    assert answered["pod"]["exists"] is True
    assert "since" in answered["pod"]["error"]
    assert answered["detected_issues"] == []
    await platform.issues(session, lambda noted: "unschedulable" in noted)
    platform.double.faults.come_back()

    async def seen_again() -> bool:
        return "cluster_unseen" not in found(await platform.diagnose(session))

    await until(seen_again, "the cluster is seen again", WAIT)
    assert "error" not in (await platform.diagnose(session))["pod"]


async def test_what_is_not_permitted_is_said_and_decides_nothing(double: Double, tmp_path: Path) -> None:
    for verb in ("list", "watch"):
        double.faults.forbid(verb, "nodes")
    double.faults.forbid("get", "daemonsets")
    async with opened(double, tmp_path, k8s_node_host="127.0.0.1") as platform:
        session = await platform.create()
        told = await platform.told(session, "cluster_unseen")
        assert "nodes" in words(told["cluster_unseen"])
        assert "kubectl auth can-i" in told["cluster_unseen"]["recommended_action"]
        answered = await platform.diagnose(session)
        assert answered["node"]["exists"] is False
        assert "nodes" in answered["node"]["error"]
        assert answered["pod"]["exists"] is True
        assert "dead_node_assigned" not in found(answered)
        assert answered["image_cache"]["daemonset_exists"] is False

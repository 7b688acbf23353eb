"""What is known of a cluster: indexes that follow, waiting for changes, and what is told when it cannot be seen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.sandboxes.kubernetes import cluster as clusters
from backend.sandboxes.kubernetes import event_store, requests
from backend.sandboxes.kubernetes.client import KubernetesClient
from backend.sandboxes.kubernetes.cluster import Cluster
from backend.sandboxes.kubernetes.event_store import EventStore
from backend.sandboxes.kubernetes.informer import Pace
from backend.sandboxes.kubernetes.requests import NodeRequests
from tests.kubernetes.double import Double
from tests.kubernetes.scripted import (
    Answered,
    FakeApi,
    Reply,
    Request,
    ScriptedServer,
    Settings,
    recorded_watches,
    settings_for,
    status,
)
from tests.waiting import until

QUICK = Pace(first=0.01, most=0.05, denied=0.1)
LAP = "/api/v1/namespaces/lap"
SANDBOXES = "/apis/agents.x-k8s.io/v1beta1/namespaces/lap/sandboxes"
OURS = {"litellm-agent-id": "a", "litellm-session-id": "s"}


class Seen:
    """A cluster, and the server it sees."""

    def __init__(self, api: FakeApi, server: ScriptedServer, cluster: Cluster) -> None:
        self.api = api
        self.server = server
        self.cluster = cluster

    async def sandbox(self, name: str, *, labels: dict[str, str] = OURS, pod: str = "") -> None:
        annotations = {clusters.POD_NAME: pod} if pod else {}
        await self.api.put(SANDBOXES, name, metadata={"labels": labels, "annotations": annotations})

    async def pod(self, name: str, node: str = "", **requests: str) -> None:
        spec = {"nodeName": node, "containers": [{"resources": {"requests": requests}}]}
        await self.api.put(f"{LAP}/pods", name, spec=spec)
        await self.api.put("/api/v1/pods", name, spec=spec, metadata={"namespace": "lap"})

    async def event(self, kind: str, about: str, message: str, name: str = "", at: str = "") -> None:
        await self.api.put(
            f"{LAP}/events",
            name or f"{about}.{self.api.version}",
            involvedObject={"kind": kind, "name": about, "uid": "u"},
            message=message,
            lastTimestamp=at or "2026-11-22T14:25:06Z",
        )

    def messages(self, name: str) -> list[str]:
        return [event["message"] for event in self.cluster.events_of(name)]


@asynccontextmanager
async def seeing(*, start: bool = True) -> AsyncIterator[Seen]:
    api = FakeApi()
    async with ScriptedServer(api) as server:
        client = await KubernetesClient.connect(settings_for(server.url))
        cluster = Cluster(client, pace=QUICK)
        try:
            if start:
                cluster.start()
                assert await cluster.wait_synced(20)
                await until(lambda: len([r for r in server.requests if r.watches]) == 6, "it watches six kinds")
            yield Seen(api, server, cluster)
        finally:
            await cluster.close()
            await client.close()
            await until(lambda: not server.connections, "no connection is left")


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    async with seeing() as one:
        yield one


@pytest.fixture
async def unstarted() -> AsyncIterator[Seen]:
    async with seeing(start=False) as one:
        yield one


class TestObjects:
    async def test_nothing(self, seen: Seen) -> None:
        cluster = seen.cluster
        assert (cluster.names(), cluster.sandbox("a"), cluster.pod("a"), cluster.service("a")) == ([], None, None, None)
        assert (cluster.node("n"), cluster.nodes(), cluster.events_of("a")) == (None, {}, [])
        assert cluster.requests_on("n") == (0, 0, 0)
        assert cluster.problems() == []
        assert cluster.synced

    async def test_only_ours_are_named(self, seen: Seen) -> None:
        for name, labels in (("b", OURS), ("a", OURS | {"x": "y"}), ("c", {}), ("d", {"litellm-agent-id": "a"})):
            await seen.sandbox(name, labels=labels)
        await until(lambda: seen.cluster.sandbox("d"), "all have come")
        assert seen.cluster.names() == ["a", "b"]

    async def test_the_pod_has_the_name_of_the_sandbox_or_the_one_it_tells(self, seen: Seen) -> None:
        await seen.pod("a")
        await seen.pod("pool-1")
        await until(lambda: seen.cluster.pod("pool-1"), "both have come")
        pod = seen.cluster.pod("a")
        assert pod is not None
        assert pod["metadata"]["name"] == "a"
        await seen.sandbox("a", pod="pool-1")
        await until(lambda: seen.cluster.sandbox("a"), "it has come")
        pod = seen.cluster.pod("a")
        assert pod is not None
        assert pod["metadata"]["name"] == "pool-1"

    async def test_the_pod_is_known_until_it_is_gone(self, seen: Seen) -> None:
        await seen.sandbox("a", pod="pool-1")
        await seen.pod("pool-1")
        await until(lambda: seen.cluster.pod("a"), "both have come")
        await seen.api.remove(SANDBOXES, "a")
        await until(lambda: not seen.cluster.sandbox("a"), "it is gone")
        assert seen.cluster.pod("a")
        changed = seen.cluster.changed("a")
        await seen.api.remove(f"{LAP}/pods", "pool-1")
        await asyncio.wait_for(changed, 20)
        assert seen.cluster.pod("a") is None
        assert not seen.cluster._pod_names
        assert not seen.cluster._sandbox_by_pod

    async def test_the_service_is_ours_and_not_the_controllers(self, seen: Seen) -> None:
        await seen.api.put(f"{LAP}/services", "a")
        await seen.api.put(f"{LAP}/services", "a-np")
        await until(lambda: seen.cluster.service("a"), "it has come")
        service = seen.cluster.service("a")
        assert service is not None
        assert service["metadata"]["name"] == "a-np"

    async def test_nodes_are_kept_without_their_images(self, seen: Seen) -> None:
        await seen.api.put("/api/v1/nodes", "n1", status={"images": [{"names": ["x"]}], "addresses": []})
        await until(lambda: seen.cluster.node("n1"), "it has come")
        assert seen.cluster.nodes().keys() == {"n1"}
        assert (seen.cluster.node("n1") or {})["status"] == {"addresses": []}


class TestEvents:
    async def test_are_those_of_pod_sandbox_and_services_in_order(self, seen: Seen) -> None:
        await seen.sandbox("a", pod="pool-1")
        await seen.event("Pod", "pool-1", "third", at="2026-11-22T14:25:07Z")
        await seen.event("Sandbox", "a", "first", at="2026-11-22T14:25:05Z")
        await seen.event("Service", "a-np", "second", at="2026-11-22T14:25:05.000001Z")
        await seen.event("Service", "a", "fourth", at="2026-11-22T14:25:07Z")
        await seen.event("Pod", "a", "of another pod")
        await seen.event("ConfigMap", "a", "of another kind")
        await seen.event("Pod", "b", "of another sandbox")
        await until(lambda: seen.messages("b"), "all have come")
        assert seen.messages("a") == ["first", "second", "third", "fourth"]

    async def test_a_repeated_event_moves_to_the_end(self, seen: Seen) -> None:
        await seen.event("Pod", "a", "pulling", name="one", at="2026-11-22T14:25:05Z")
        await seen.event("Pod", "a", "failed", name="two", at="2026-11-22T14:25:06Z")
        await seen.event("Pod", "a", "pulling again", name="one", at="2026-11-22T14:25:07Z")
        await until(lambda: "pulling again" in seen.messages("a"), "it has come")
        assert seen.messages("a") == ["failed", "pulling again"]

    async def test_stay_when_the_cluster_forgets_them(self, seen: Seen) -> None:
        await seen.event("Pod", "a", "stuck", name="one")
        await until(lambda: seen.messages("a"), "it has come")
        await seen.api.remove(f"{LAP}/events", "one")
        await seen.event("Pod", "a", "later")
        await until(lambda: len(seen.messages("a")) == 2, "both are there")

    def test_the_newest_of_an_object_stay(self) -> None:
        store = EventStore()
        for number in [*range(0, 120, 2), *range(1, 120, 2)]:
            store.add(_event("a", number))
        assert [event["message"] for event in store.about([("Pod", "a")])] == [str(n) for n in range(70, 120)]
        assert len(store) == event_store.PER_OBJECT

    def test_the_newest_of_all_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(event_store, "IN_ALL", 100)
        monkeypatch.setattr(event_store, "_SLACK", 10)
        store = EventStore()
        for number in range(1000):
            store.add(_event(f"pod-{number // 5}", number))
            assert len(store) <= 110
        assert [event["message"] for event in store.about([("Pod", "pod-199")])] == [str(n) for n in range(995, 1000)]
        assert store.about([("Pod", "pod-0")]) == []

    def test_of_any_shape_are_taken(self) -> None:
        store = EventStore()
        for about in (None, 5, {}, {"kind": "Pod"}, {"kind": "Pod", "name": 5}):
            event = {"involvedObject": about, "metadata": {"name": "x"}}
            assert store.add(event_store.trimmed(event)) is None
        odd = {
            "involvedObject": {"kind": "Pod", "name": "a"},
            "lastTimestamp": 5,
            "series": "x",
            "metadata": {"name": "x"},
        }
        assert store.add(event_store.trimmed(odd)) == ("Pod", "a")

    def test_recorded_ones_come_in_the_order_they_happened(self) -> None:
        store = EventStore()
        recorded = [each["object"] for each in recorded_watches()["events"]]
        for event in reversed(recorded):
            store.add(event_store.trimmed(event))
        reasons = [event["reason"] for event in store.about([("Pod", "life")])]
        assert reasons == [event["reason"] for event in recorded if event["involvedObject"]["kind"] == "Pod"]


def _event(about: str, number: int) -> dict[str, Any]:
    return {
        "involvedObject": {"kind": "Pod", "name": about},
        "message": str(number),
        "lastTimestamp": f"2026-11-22T14:{number // 60 % 60:02}:{number % 60:02}Z",
        "metadata": {"name": f"e{number}", "resourceVersion": str(number)},
    }


class TestRequests:
    async def test_are_summed_by_node_as_pods_come_and_go(self, seen: Seen) -> None:
        await seen.pod("a", "n1", cpu="100m", memory="1Gi")
        await seen.pod("b", "n1", cpu="1.5")
        await seen.pod("c", "n2", cpu="1")
        await seen.pod("d", "", cpu="1")
        await until(lambda: seen.cluster.requests_on("n2") == (1000, 0, 1), "all have come")
        assert seen.cluster.requests_on("n1") == (1600, 1 << 30, 2)
        await seen.api.remove("/api/v1/pods", "a")
        await until(lambda: seen.cluster.requests_on("n1") == (1500, 0, 1), "it has gone")

    async def test_are_not_known_when_the_list_of_all_pods_is_forbidden(self, unstarted: Seen) -> None:
        _forbid(unstarted, "/api/v1/pods", "pods")
        unstarted.cluster.start()
        await unstarted.cluster.wait_synced(20)
        await until(unstarted.cluster.problems, "it says so")
        assert unstarted.cluster.requests_on("n1") is None
        assert unstarted.cluster.synced
        assert "may not list pods in all namespaces (403)" in str(unstarted.cluster.unknown("requests"))

    @pytest.mark.parametrize(
        ("spec", "amount"),
        [
            ({}, (0, 0)),
            ({"containers": [{}, {"resources": {}}, {"resources": {"requests": None}}, 5]}, (0, 0)),
            ({"containers": [{"cpu": "100m", "memory": "64Mi"}, {"cpu": "0.2", "memory": "1e6"}]}, (300, 68108864)),
            ({"containers": [{"cpu": "nonsense", "memory": [1]}, {"cpu": 2}]}, (2000, 0)),
            # The greatest of what runs before the rest counts, not the sum...
            ({"initContainers": [{"cpu": "1"}, {"cpu": "3"}], "containers": [{"cpu": "2"}]}, (3000, 0)),
            # ...but what stays is added to all that comes after it.
            (
                {"initContainers": [{"cpu": "1", "stays": True}, {"cpu": "3"}], "containers": [{"cpu": "2"}]},
                (4000, 0),
            ),
            ({"initContainers": [{"cpu": "3"}, {"cpu": "1", "stays": True}], "containers": [{"cpu": "3"}]}, (4000, 0)),
            ({"containers": [{"cpu": "1"}], "overhead": {"cpu": "250m", "memory": "120Mi"}}, (1250, 125829120)),
            ({"containers": [{"cpu": "1"}], "resources": {"requests": {"cpu": "4"}}}, (4000, 0)),
        ],
    )
    def test_of_one_pod(self, spec: dict[str, Any], amount: tuple[int, int]) -> None:
        def container(short: Any) -> Any:
            if not isinstance(short, dict) or "resources" in short:
                return short
            stays = {"restartPolicy": "Always"} if short.pop("stays", False) else {}
            return {"resources": {"requests": short}, **stays}

        spec = {
            key: [container(each) for each in value] if "ontainers" in key else value for key, value in spec.items()
        }
        assert requests.of_pod(spec) == amount

    @pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
    def test_of_a_pod_that_has_ended_do_not_count(self, phase: str) -> None:
        sums = NodeRequests()
        spec = {"nodeName": "n1", "containers": [{"resources": {"requests": {"cpu": "1"}}}]}
        running = requests.trimmed({"metadata": {"name": "a"}, "spec": spec, "status": {"phase": "Running"}})
        ended = requests.trimmed({"metadata": {"name": "a"}, "spec": spec, "status": {"phase": phase}})
        sums.change(None, running)
        assert sums.on("n1") == (1000, 0, 1)
        sums.change(running, ended)
        assert sums.on("n1") == (0, 0, 0)

    @settings(max_examples=50, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "n1", "n2", None]), st.integers(0, 9))))
    def test_sums_are_those_of_the_pods_there_are(self, changes: list[tuple[str, str | None, int]]) -> None:
        sums, pods = NodeRequests(), dict[str, dict[str, Any]]()
        for name, node, cpu in changes:
            old = pods.pop(name, None)
            if node is not None:
                spec = {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": str(cpu)}}}]}
                pods[name] = requests.trimmed({"metadata": {"name": name}, "spec": spec})
            sums.change(old, pods.get(name))
        for node in ("n1", "n2"):
            there = [pod for pod in pods.values() if pod["node"] == node]
            assert sums.on(node) == (sum(pod["requests"][0] for pod in there), 0, len(there))


class TestChanges:
    async def test_of_every_part_wake_who_waits(self, seen: Seen) -> None:
        async def change(part: str) -> None:
            if part == "sandbox":
                await seen.sandbox("a")
            elif part == "pod":
                await seen.pod("a", "n1")
            elif part == "service":
                await seen.api.put(f"{LAP}/services", "a-np")
            elif part == "event":
                await seen.event("Pod", "a", "told")
            else:
                await seen.api.put("/api/v1/nodes", "n1", status={"conditions": [{"type": "Ready", "status": "False"}]})

        await seen.sandbox("other")
        for part in ("sandbox", "pod", "service", "event", "node"):
            waiters = [seen.cluster.changed("a") for _ in range(3)]
            other = seen.cluster.changed("other")
            await asyncio.sleep(0)
            await change(part)
            await asyncio.wait_for(asyncio.gather(*waiters), 20)
            other.cancel()

    async def test_of_a_pod_with_another_name_are_those_of_its_sandbox(self, seen: Seen) -> None:
        await seen.sandbox("a", pod="pool-1")
        await until(lambda: seen.cluster.sandbox("a"), "it has come")
        for change in (seen.pod("pool-1"), seen.event("Pod", "pool-1", "told")):
            changed = seen.cluster.changed("a")
            await change
            await asyncio.wait_for(changed, 20)

    async def test_count_from_the_call_on(self, seen: Seen) -> None:
        changed = seen.cluster.changed("a")
        await seen.sandbox("a")
        await until(lambda: seen.cluster.sandbox("a"), "it has come")
        assert changed.done()
        assert not seen.cluster.changed("a").done()

    async def test_are_not_kept_for_who_gave_up(self, seen: Seen) -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(seen.cluster.changed("a"), 0.001)
        await asyncio.sleep(0)
        assert not seen.cluster._waiters

    async def test_who_waits_is_cancelled_at_the_end(self, seen: Seen) -> None:
        waiters = [seen.cluster.changed(name) for name in ("a", "a", "b")]
        await seen.cluster.close()
        assert all(waiter.cancelled() for waiter in waiters)
        assert seen.cluster.changed("a").cancelled()

    async def test_are_told_until_told_to_stop_also_after_a_failure(self, seen: Seen) -> None:
        def fail(name: str) -> None:
            raise ValueError(name)

        names: list[str] = []
        seen.cluster.on_change(fail)
        stop = seen.cluster.on_change(names.append)
        await seen.sandbox("a")
        await until(lambda: names == ["a"], "it was told")
        stop()
        stop()
        await seen.sandbox("b")
        await until(lambda: seen.cluster.sandbox("b"), "it has come")
        assert names == ["a"]

    async def test_of_a_node_are_not_its_heartbeats(self, seen: Seen) -> None:
        nodes: list[str] = []
        seen.cluster.on_nodes(nodes.append)
        await seen.pod("a", "n1")
        for beat in (1, 2, 3):
            ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": str(beat)}
            await seen.api.put("/api/v1/nodes", "n1", status={"conditions": [ready]})
        await seen.api.put("/api/v1/nodes", "n1", spec={"unschedulable": True}, status={"conditions": [ready]})
        await seen.api.remove("/api/v1/nodes", "n1")
        await until(lambda: len(nodes) == 3, "it came, was cordoned and went")
        assert nodes == ["n1"] * 3


class TestTrouble:
    async def test_away_is_one_line(self, seen: Seen) -> None:
        await seen.sandbox("a")
        await until(lambda: seen.cluster.names() == ["a"], "it has come")
        await seen.server.stop()
        await until(seen.cluster.problems, "it says so")
        [line] = seen.cluster.problems()
        where = f"cannot reach the Kubernetes API at 127.0.0.1:{seen.server.port}: connection refused, since "
        assert line.startswith(where)
        assert line.endswith("Z: sandboxes go on, but what is shown of them is old")
        assert seen.cluster.names() == ["a"]
        assert seen.cluster.unknown("pods") is None  # not yet
        await seen.server.start()
        await until(lambda: not seen.cluster.problems(), "all is well")

    async def test_what_was_seen_is_trusted_for_a_while(self, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
        await seen.server.stop()
        await until(seen.cluster.problems, "it says so")
        monkeypatch.setattr(clusters, "TRUSTED_SECONDS", 0)
        away = "connection refused, since"
        await until(lambda: away in str(seen.cluster.unknown("pods")), "it knows of the pods that it does not")

    async def test_never_reached(self, unstarted: Seen) -> None:
        cluster = unstarted.cluster
        assert cluster.unknown("pods") == "pods have not been listed yet"
        await unstarted.server.stop()
        cluster.start()
        assert not await cluster.wait_synced(0.05)
        await until(cluster.problems, "it says so")
        assert len(cluster.problems()) == 1
        await until(lambda: "connection refused" in str(cluster.unknown("sandboxes")), "it knows nothing")
        await unstarted.server.start()
        assert await cluster.wait_synced(20)

    async def test_forbidden_is_a_line_for_each_and_the_others_go_on(self, unstarted: Seen) -> None:
        _forbid(unstarted, "/api/v1/nodes", "nodes")
        unstarted.cluster.start()
        await unstarted.sandbox("a")
        await until(lambda: unstarted.cluster.names() == ["a"], "it has come")
        await until(unstarted.cluster.problems, "it says so")
        [line] = unstarted.cluster.problems()
        cause, _, step = line.partition(", since ")
        assert cause == "may not list nodes (403)"
        assert step.endswith("Z: give the platform's service account list and watch on nodes")
        assert str(unstarted.cluster.unknown("nodes")).startswith("may not list nodes (403), since ")
        assert unstarted.cluster.unknown("sandboxes") is None

    async def test_not_installed(self, unstarted: Seen) -> None:
        unstarted.api.groups.clear()
        unstarted.cluster.start()
        await until(unstarted.cluster.problems, "it says so")
        [line] = unstarted.cluster.problems()
        assert line.startswith("agent-sandbox is not installed in the cluster, since ")
        assert not unstarted.cluster.synced

    async def test_another_kind_of_server_is_told_as_such(self, unstarted: Seen) -> None:
        async def web(_request: Request, reply: Reply) -> None:
            await reply.text("<html>no such page", 404, content_type="text/html")
            raise Answered

        unstarted.api.before = web
        unstarted.cluster.start()
        await until(lambda: len(unstarted.cluster.problems()) == 6, "it says so")
        told = [
            line for line in unstarted.cluster.problems() if line.startswith("the server knows no nodes (404), since ")
        ]
        assert told[0].endswith("Z: check that the address in the kubeconfig is that of a Kubernetes API")

    async def test_wrong_credentials_are_one_line(self, unstarted: Seen) -> None:
        async def refuse(_request: Request, reply: Reply) -> None:
            await reply.json(status(401, "Unauthorized", "Unauthorized"), 401)
            raise Answered

        unstarted.api.before = refuse
        unstarted.cluster.start()
        await until(lambda: unstarted.cluster.unknown("requests") and unstarted.cluster.problems(), "it says so")
        [line] = unstarted.cluster.problems()
        assert "does not accept the platform's credentials (401), since " in line

    def test_times_of_another_day_have_it(self) -> None:
        assert clusters._moment("2020-01-02T03:04:05.678Z") == "2020-01-02 03:04:05Z"


def _forbid(seen: Seen, path: str, plural: str) -> None:
    async def deny(request: Request, reply: Reply) -> None:
        if request.path == path:
            text = (
                f'{plural} is forbidden: User "u" cannot list resource "{plural}" in API group "" at the cluster scope'
            )
            await reply.json(status(403, "Forbidden", text), 403)
            raise Answered

    seen.api.before = deny


@asynccontextmanager
async def of_double(double: Double) -> AsyncIterator[tuple[KubernetesClient, Cluster]]:
    client = await KubernetesClient.connect(Settings(kubeconfig=str(double.kubeconfig), k8s_namespace=double.namespace))
    cluster = Cluster(client, pace=QUICK)
    cluster.start()
    try:
        assert await cluster.wait_synced(30)
        yield client, cluster
    finally:
        await cluster.close()
        await client.close()


def _sandbox(name: str) -> dict[str, Any]:
    container = {"name": "harness", "image": "x", "resources": {"requests": {"cpu": "100m"}}}
    return {
        "apiVersion": "agents.x-k8s.io/v1beta1",
        "kind": "Sandbox",
        "metadata": {"name": name, "labels": OURS},
        "spec": {"podTemplate": {"spec": {"containers": [container]}}},
    }


@pytest.mark.parametrize("double", [{"tls": True}], indirect=True)
async def test_a_sandbox_through_an_unruly_life(double: Double) -> None:
    async with of_double(double) as (client, cluster):
        resource = await client.sandboxes()
        await client.create(resource, _sandbox("s-1"))
        await until(lambda: _is_ready(cluster, "s-1"), "it is ready")
        assert cluster.requests_on("node1") == (100, 0, 1)
        assert "Scheduled" in [event.get("reason") for event in cluster.events_of("s-1")]

        before = (cluster.pod("s-1") or {})["metadata"]["uid"]
        double.faults.go_away()
        await until(cluster.problems, "the server is away")
        double.faults.expire()
        double.faults.delete_pod("s-1")
        double.faults.come_back()
        await until(lambda: _is_ready(cluster, "s-1") and _uid(cluster, "s-1") != before, "another pod is ready")
        await until(lambda: not cluster.problems(), "all is well")

        double.faults.throttle(3, verb="watch")
        double.faults.cut_watches()
        double.faults.node_lost("node1")
        await until(lambda: not _is_ready(cluster, "s-1"), "the node is lost")
        await client.delete(resource, "s-1")
        await until(lambda: not cluster.names(), "it is gone")


def _uid(cluster: Cluster, name: str) -> str | None:
    return (cluster.pod(name) or {}).get("metadata", {}).get("uid")


def _is_ready(cluster: Cluster, name: str) -> bool:
    conditions = (cluster.pod(name) or {}).get("status", {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@pytest.mark.parametrize("double", [{"versions": ("v1alpha1",)}], indirect=True)
async def test_an_old_agent_sandbox(double: Double) -> None:
    async with of_double(double) as (client, cluster):
        resource = await client.sandboxes()
        assert resource.version == "v1alpha1"
        await client.create(resource, _sandbox("s-1") | {"apiVersion": "agents.x-k8s.io/v1alpha1"})
        await until(lambda: cluster.pod("s-1"), "it has a pod")


async def test_a_quiet_cluster_is_not_asked_anything(double: Double) -> None:
    async with of_double(double) as (_, cluster):
        await until(lambda: sum(double.open_watches().values()) == 6, "it watches six kinds")
        before = sum(double.counts.values())
        for _ in range(100):
            cluster.names(), cluster.events_of("a"), cluster.nodes(), cluster.problems()
        assert sum(double.counts.values()) == before

"""The Kubernetes driver on a cluster: making, watching and removing sandboxes, also while the API fails."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.sandboxes.contract import SandboxError, SandboxSpec, SandboxState
from backend.sandboxes.kubernetes import making, manifests
from backend.sandboxes.kubernetes.client import KubernetesClient
from backend.sandboxes.kubernetes.cluster import Cluster
from backend.sandboxes.kubernetes.driver import KubernetesDriver
from backend.sandboxes.kubernetes.manifests import PodSettings
from backend.settings import Settings
from tests.kubernetes.double import Double
from tests.waiting import until

AGENT = "1c5a1c9e-8f39-4d0e-9f52-58c8f3f0a002"
SESSION = "0b5a1c9e-8f39-4d0e-9f52-58c8f3f0a001"
NAME = "s-0b5a1c9e8f394d0e9f5258c8f3f0a001"
SPEC = SandboxSpec(NAME, SESSION, AGENT, "codex", "token-of-the-harness")
IMAGES = {"codex": "sandbox:1"}
WAIT = 30.0

Opening = Callable[..., AbstractAsyncContextManager[KubernetesDriver]]


@contextlib.asynccontextmanager
async def opened(
    cluster: Double, pods: PodSettings | None = None, *, wait: float = WAIT, **options: Any
) -> AsyncIterator[KubernetesDriver]:
    """A driver on the double."""
    settings = Settings.load(kubeconfig=str(cluster.kubeconfig), k8s_namespace=cluster.namespace)
    client = await KubernetesClient.connect(settings)
    seen = Cluster(client)
    seen.start()
    await seen.wait_synced(wait)
    driver = KubernetesDriver(client, seen, pods or PodSettings(IMAGES), **options)
    try:
        yield driver
    finally:
        await driver.close()


@pytest.fixture
async def cluster() -> AsyncIterator[Double]:
    """A double: most of what is tried here cannot be had of a real cluster."""
    async with Double(nodes=2) as cluster:
        yield cluster


@pytest.fixture
async def driver(cluster: Double) -> AsyncIterator[KubernetesDriver]:
    async with opened(cluster) as driver:
        yield driver


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other sooner."""
    monkeypatch.setattr(making, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(making, "MAX_DELAY", 0.1)
    monkeypatch.setattr(making, "PATIENCE", 0.3)


async def in_state(driver: KubernetesDriver, state: SandboxState, name: str = NAME) -> None:
    async def reached() -> bool:
        return await driver.state(name) is state

    await until(reached, f"{name} is {state}", WAIT)


async def running(driver: KubernetesDriver, spec: SandboxSpec = SPEC) -> str:
    """Make a sandbox that runs; its URL."""
    sandbox = await driver.create(spec)
    await in_state(driver, SandboxState.RUNNING, spec.name)
    return sandbox.url


async def gone(driver: KubernetesDriver, name: str = NAME) -> str:
    return await asyncio.wait_for(driver.wait_gone(name), WAIT)


async def waiting_for(driver: KubernetesDriver, words: str) -> None:
    async def said() -> bool:
        return words in (await driver.waiting_for(NAME) or "")

    await until(said, f"it waits for {words!r}", WAIT)


def left(cluster: Double) -> list[str]:
    """All that is left of sandboxes in the cluster."""
    return [each["metadata"]["name"] for kind in ("sandboxes", "services", "pods") for each in cluster.list(kind)]


async def nothing_left(cluster: Double) -> None:
    await until(lambda: not left(cluster), "nothing is left", WAIT)


class TestLife:
    async def test_from_creation_to_removal(self, cluster: Double, driver: KubernetesDriver) -> None:
        sandbox = await driver.create(SPEC)
        service = cluster.get("services", f"{NAME}-np")
        assert service is not None
        node = cluster.get("nodes", "node1")
        assert node is not None
        host = next(each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")
        assert sandbox.url == f"http://{host}:{service['spec']['ports'][0]['nodePort']}"
        assert sandbox.isolation == {
            "pid_namespace": True,
            "filesystem": True,
            "network": "open",
            "reason": None,
            "limits": {"memory_mb": 4096, "cpus": 2.0, "disk_mb": 20480, "by": "kubernetes"},
        }
        await in_state(driver, SandboxState.RUNNING)
        assert await driver.list() == [NAME]
        assert await driver.logs(NAME, 10) == "hello\n"
        inspection = await driver.inspect(NAME)
        assert inspection.pod["phase"] == "Running"
        assert inspection.service["exists"]
        waiter = asyncio.create_task(driver.wait_gone(NAME))
        await driver.delete(NAME)
        assert left(cluster) == []
        assert await asyncio.wait_for(waiter, WAIT)
        assert await driver.state(NAME) is SandboxState.GONE
        assert await driver.list() == []
        await driver.delete(NAME)

    async def test_an_unknown_sandbox_is_gone(self, driver: KubernetesDriver) -> None:
        assert await driver.state("s-unknown") is SandboxState.GONE
        assert await gone(driver, "s-unknown") == "gone"
        assert await driver.logs("s-unknown", 10) == ""
        assert await driver.waiting_for("s-unknown") is None
        await driver.delete("s-unknown")

    async def test_in_the_cluster_the_address_is_the_services(self, cluster: Double) -> None:
        async with opened(cluster, PodSettings(IMAGES, service_type="ClusterIP")) as driver:
            sandbox = await driver.create(SPEC)
            service = cluster.get("services", f"{NAME}-np")
            assert service is not None
            assert sandbox.url == f"http://{service['spec']['clusterIP']}:4096"

    async def test_a_host_may_forward_node_ports(self, cluster: Double) -> None:
        async with opened(cluster, node_host="nodes.example") as driver:
            assert (await driver.create(SPEC)).url.startswith("http://nodes.example:")

    async def test_it_lives_on_without_the_driver(self, cluster: Double, driver: KubernetesDriver) -> None:
        await running(driver)
        await driver.close()
        async with opened(cluster) as second:
            assert await second.state(NAME) is SandboxState.RUNNING
            cluster.turn(NAME, "failed:9")
            assert await gone(second) == "exit code 9"

    async def test_an_older_agent_sandbox(self) -> None:
        async with Double(versions=("v1alpha1",)) as cluster, opened(cluster) as driver:
            await running(driver)
            await driver.delete(NAME)
            assert left(cluster) == []

    async def test_who_deletes_is_told(self, cluster: Double) -> None:
        told: list[str] = []

        async def released(name: str) -> None:
            told.append(name)

        async with opened(cluster, released=released) as driver:
            await driver.create(SPEC)
            await driver.delete(NAME)
            assert told == [NAME]

    async def test_the_nodes_and_who_is_on_them(self, driver: KubernetesDriver) -> None:
        await running(driver)
        nodes = await driver.nodes()
        assert [node["name"] for node in nodes] == ["node1", "node2"]
        assert [name for node in nodes for name in node["sandboxes"]] == [NAME]
        assert all(node["ready_status"] == "True" for node in nodes)


class TestRefused:
    @pytest.mark.parametrize("name", ["", "1s", "S_1", "a" * 61])
    async def test_a_bad_name(self, driver: KubernetesDriver, name: str) -> None:
        with pytest.raises(SandboxError, match="no sandbox name"):
            await driver.create(replace(SPEC, name=name))

    async def test_a_repository_of_this_machine(self, driver: KubernetesDriver, tmp_path: Path) -> None:
        with pytest.raises(SandboxError, match="pods do not see"):
            await driver.create(replace(SPEC, repository=tmp_path))

    @pytest.mark.parametrize("resource", ["sandboxes", "services"])
    async def test_without_the_right_to(self, cluster: Double, driver: KubernetesDriver, resource: str) -> None:
        cluster.faults.forbid("create", resource)
        with pytest.raises(SandboxError, match=f"create.*{resource}"):
            await driver.create(SPEC)
        assert left(cluster) == []

    async def test_what_the_schema_refuses(self, cluster: Double, driver: KubernetesDriver) -> None:
        cluster.faults.fail(1, 422, "Invalid", "spec.podTemplate: Required value", "create", "sandboxes")
        with pytest.raises(SandboxError, match=r"spec\.podTemplate"):
            await driver.create(SPEC)

    async def test_without_agent_sandbox(self) -> None:
        async with Double(versions=()) as cluster, opened(cluster, wait=0.1) as driver:
            with pytest.raises(SandboxError, match="agent-sandbox"):
                await driver.create(SPEC)
            assert await driver.state(NAME) is SandboxState.PENDING  # nobody can tell

    async def test_a_namespace_that_is_not_there(self, cluster: Double, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cluster, "namespace", "absent")
        async with opened(cluster, wait=1.0) as driver:
            with pytest.raises(SandboxError, match="absent"):
                await driver.create(SPEC)

    async def test_no_node_to_reach_it_at(self, cluster: Double, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("backend.sandboxes.kubernetes.driver.NODES_SECONDS", 0.1)
        for node in ("node1", "node2"):
            cluster.faults.node_lost(node)
        async with opened(cluster) as driver:
            with pytest.raises(SandboxError, match="K8S_NODE_HOST"):
                await driver.create(SPEC)
        for kind in ("sandboxes", "services"):
            assert cluster.list(kind) == []


class TestNames:
    async def test_two_creations_of_one_sandbox_are_one(self, cluster: Double, driver: KubernetesDriver) -> None:
        first, second = await asyncio.gather(driver.create(SPEC), driver.create(SPEC))
        assert first == second
        assert len(cluster.list("sandboxes")) == 1

    async def test_anothers_name_is_taken(self, cluster: Double, driver: KubernetesDriver) -> None:
        await running(driver)
        with pytest.raises(SandboxError, match="not this session's"):
            await driver.create(replace(SPEC, session_id="0b5a1c9e-8f39-4d0e-9f52-58c8f3f0a009"))
        assert await driver.state(NAME) is SandboxState.RUNNING

    async def test_the_sandbox_of_an_earlier_start_makes_room(self, cluster: Double, driver: KubernetesDriver) -> None:
        await running(driver)
        await driver.create(replace(SPEC, token="another-token"))
        await in_state(driver, SandboxState.RUNNING)
        [sandbox] = cluster.list("sandboxes")
        assert manifests.digest_of(sandbox) == manifests.digest("another-token")

    async def test_a_foreign_service_stays(self, cluster: Double, driver: KubernetesDriver) -> None:
        body = manifests.service({"apiVersion": "v1", "kind": "X", "metadata": {"name": NAME, "uid": "u"}}, "ClusterIP")
        cluster.put("services", {**body, "metadata": {"name": f"{NAME}-np", "namespace": cluster.namespace}})
        with pytest.raises(SandboxError, match="not the platform's"):
            await driver.create(SPEC)

    async def test_a_foreign_sandbox_is_not_deleted(self, cluster: Double, driver: KubernetesDriver) -> None:
        body = manifests.sandbox(SPEC, PodSettings(IMAGES), "v1beta1")
        body["metadata"] = {"name": NAME, "namespace": cluster.namespace}
        cluster.put("sandboxes", body)
        await asyncio.wait_for(cluster.until("pods", NAME, lambda pod: pod is not None), WAIT)
        await driver.delete(NAME)
        assert cluster.get("sandboxes", NAME) is not None


class TestDeletedMeanwhile:
    async def test_while_it_is_made(self, cluster: Double, driver: KubernetesDriver) -> None:
        cluster.faults.delay(0.3, "create", "services")
        creation = asyncio.create_task(driver.create(SPEC))
        await cluster.until("sandboxes", NAME, lambda sandbox: sandbox is not None)
        await driver.delete(NAME)
        with pytest.raises(SandboxError, match="deleted while"):
            await creation
        assert left(cluster) == []

    async def test_while_the_api_is_away(self, cluster: Double, driver: KubernetesDriver) -> None:
        cluster.faults.fail(1000, 503, "ServiceUnavailable", "not now", "create", "services")
        creation = asyncio.create_task(driver.create(SPEC))
        await waiting_for(driver, "not now")
        await driver.delete(NAME)
        with pytest.raises(SandboxError, match="deleted while"):
            await creation
        assert left(cluster) == []

    @pytest.mark.parametrize("verb", ["sandboxes", "services"])
    async def test_a_cancelled_creation_leaves_nothing(
        self, cluster: Double, driver: KubernetesDriver, verb: str
    ) -> None:
        cluster.faults.delay(0.3, "create", verb)
        creation = asyncio.create_task(driver.create(SPEC))
        await until(lambda: cluster.counts["create", verb], "it is being made")
        creation.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creation
        await driver.close()
        assert left(cluster) == []


class TestTheApiFails:
    @pytest.mark.parametrize("resource", ["sandboxes", "services"])
    async def test_for_a_while(self, cluster: Double, driver: KubernetesDriver, resource: str) -> None:
        cluster.faults.fail(2, 503, "ServiceUnavailable", "etcd is busy", "create", resource)
        await running(driver)

    @pytest.mark.parametrize("resource", ["sandboxes", "services"])
    async def test_too_many_requests(self, cluster: Double, driver: KubernetesDriver, resource: str) -> None:
        cluster.faults.throttle(1, 1, "create", resource)
        await running(driver)

    @pytest.mark.parametrize("resource", ["sandboxes", "services"])
    async def test_an_answer_is_lost(self, cluster: Double, driver: KubernetesDriver, resource: str) -> None:
        cluster.faults.break_off(1, "create", resource)
        await running(driver)
        assert len(cluster.list("sandboxes")) == 1

    async def test_it_goes_and_comes_back(self, cluster: Double, driver: KubernetesDriver) -> None:
        await asyncio.to_thread(cluster.faults.go_away)
        creation = asyncio.create_task(driver.create(SPEC))
        await waiting_for(driver, "cannot reach the Kubernetes API")
        assert await driver.state(NAME) is SandboxState.PENDING
        await asyncio.to_thread(cluster.faults.come_back)
        await asyncio.wait_for(creation, WAIT)
        await in_state(driver, SandboxState.RUNNING)

    @pytest.mark.parametrize("resource", ["sandboxes", "services"])
    async def test_it_goes_in_the_middle(self, cluster: Double, driver: KubernetesDriver, resource: str) -> None:
        cluster.faults.fail(10_000, 503, "ServiceUnavailable", "the API is overloaded", "create", resource)
        creation = asyncio.create_task(driver.create(SPEC))
        await waiting_for(driver, "the API is overloaded")
        await asyncio.to_thread(cluster.faults.go_away)
        await waiting_for(driver, "cannot reach the Kubernetes API")
        cluster.faults.clear()
        await asyncio.to_thread(cluster.faults.come_back)
        await asyncio.wait_for(creation, WAIT)
        await in_state(driver, SandboxState.RUNNING)

    async def test_nothing_is_gone_that_cannot_be_seen(self, cluster: Double, driver: KubernetesDriver) -> None:
        await running(driver)
        waiter = asyncio.create_task(driver.wait_gone(NAME))
        await asyncio.to_thread(cluster.faults.go_away)
        assert await driver.state(NAME) is SandboxState.RUNNING
        assert "cannot be read" in await driver.logs(NAME, 10)
        with pytest.raises(SandboxError, match="delete it again"):
            await driver.delete(NAME)
        assert await driver.state(NAME) is SandboxState.RUNNING
        assert not waiter.done()
        await asyncio.to_thread(cluster.faults.delete_sandbox, NAME)
        await asyncio.to_thread(cluster.faults.come_back)
        assert "deleted" in await asyncio.wait_for(waiter, WAIT)

    async def test_watches_that_break_change_nothing(self, cluster: Double, driver: KubernetesDriver) -> None:
        await running(driver)
        waiter = asyncio.create_task(driver.wait_gone(NAME))
        for fault in (cluster.faults.cut_watches, cluster.faults.expire):
            fault()
            assert await driver.state(NAME) is SandboxState.RUNNING
        cluster.turn(NAME, "failed:5")
        assert await asyncio.wait_for(waiter, WAIT) == "exit code 5"

    async def test_made_and_deleted_while_the_watch_was_cut(
        self, cluster: Double, driver: KubernetesDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("backend.sandboxes.kubernetes.lives.UNSEEN_SECONDS", 0.05)
        monkeypatch.setattr("backend.sandboxes.kubernetes.driver.UNSEEN_SECONDS", 0.1)
        cluster.faults.fail(3, 503, verb="watch")
        cluster.faults.cut_watches()
        cluster.faults.pause_controller()
        await driver.create(SPEC)
        await asyncio.to_thread(cluster.faults.delete_sandbox, NAME)
        assert await gone(driver) == "its Sandbox was deleted"


class TestEnds:
    @pytest.mark.parametrize(
        ("outcome", "why"),
        [
            ("failed:7", "exit code 7"),
            ("failed:139", "signal 11 (SIGSEGV)"),
            ("completed", "exit code 0"),
            ("oom", "out of memory: the 4096Mi limit of the sandbox was reached"),
            ("evicted", "Evicted: The node was low on resource: memory."),
            ("deadline", "DeadlineExceeded: Pod was active on the node longer than the specified deadline"),
            ("bad-command", "StartError: failed to create containerd task"),
        ],
    )
    async def test_by_itself(self, cluster: Double, driver: KubernetesDriver, outcome: str, why: str) -> None:
        await running(driver)
        waiter = asyncio.create_task(driver.wait_gone(NAME))
        await asyncio.to_thread(cluster.turn, NAME, outcome)
        assert (await asyncio.wait_for(waiter, WAIT)).startswith(why)
        assert await driver.state(NAME) is SandboxState.GONE

    async def test_its_pod_is_deleted_by_hand(self, cluster: Double, driver: KubernetesDriver) -> None:
        await running(driver)
        waiter = asyncio.create_task(driver.wait_gone(NAME))
        await asyncio.to_thread(cluster.faults.delete_pod, NAME)
        assert (await asyncio.wait_for(waiter, WAIT)).startswith("its pod was deleted")
        # The controller makes another, in which nothing is set up.
        await cluster.until("pods", NAME, lambda pod: pod is not None and pod["status"].get("phase") == "Running")

        async def shown() -> bool:
            return not (await driver.inspect(NAME)).pod["exists"]

        await until(shown, "its pod is not there", WAIT)
        assert await driver.state(NAME) is SandboxState.GONE
        assert await driver.logs(NAME, 10) == ""

    async def test_its_sandbox_is_deleted_by_hand(self, cluster: Double, driver: KubernetesDriver) -> None:
        await running(driver)
        waiter = asyncio.create_task(driver.wait_gone(NAME))
        await asyncio.to_thread(cluster.faults.delete_sandbox, NAME)
        assert await asyncio.wait_for(waiter, WAIT) == "its Sandbox was deleted"

    async def test_its_node_is_lost(self, cluster: Double, driver: KubernetesDriver) -> None:
        await running(driver)
        [pod] = cluster.list("pods")
        waiter = asyncio.create_task(driver.wait_gone(NAME))
        await asyncio.to_thread(cluster.faults.node_lost, pod["spec"]["nodeName"])

        async def noticed() -> bool:
            return (await driver.inspect(NAME)).node.get("ready_status") != "True"

        await until(noticed, "the node is not Ready", WAIT)
        assert await driver.state(NAME) is SandboxState.RUNNING
        assert not waiter.done()
        await asyncio.to_thread(cluster.faults.node_removed, pod["spec"]["nodeName"])
        assert "pod" in await asyncio.wait_for(waiter, WAIT)


class TestWaiting:
    @pytest.mark.parametrize(
        ("outcome", "words"),
        [
            ("image-never", 'ErrImageNeverPull: Container image "sandbox:1" is not present'),
            ("pull-error", "ErrImagePull: failed to pull"),
            ("pull-backoff", "ImagePullBackOff: Back-off pulling"),
            ("config-error", 'CreateContainerConfigError: configmap "absent" not found'),
            ("no-network", "FailedCreatePodSandBox: Failed to create pod sandbox"),
            ("missing-volume", "FailedMount: MountVolume.SetUp failed"),
            ("unschedulable", "nodes are available"),
            ("creating", "ContainerCreating"),
        ],
    )
    async def test_for_the_kubelet(self, cluster: Double, driver: KubernetesDriver, outcome: str, words: str) -> None:
        cluster.script(NAME, outcome)
        await driver.create(SPEC)
        await waiting_for(driver, words)
        assert await driver.state(NAME) is SandboxState.PENDING
        assert await driver.logs(NAME, 10) == ""
        await driver.delete(NAME)
        assert left(cluster) == []

    async def test_for_the_controller(self, cluster: Double, driver: KubernetesDriver) -> None:
        cluster.faults.pause_controller()
        await driver.create(SPEC)
        await waiting_for(driver, "controller")
        assert await driver.state(NAME) is SandboxState.PENDING
        cluster.faults.resume_controller()
        await in_state(driver, SandboxState.RUNNING)

    async def test_for_room(self, cluster: Double) -> None:
        async with opened(cluster, PodSettings(IMAGES, cpu_request="50", cpus=64)) as driver:
            await driver.create(SPEC)
            await waiting_for(driver, "0/2 nodes are available: 2 Insufficient cpu")


class TestAddresses:
    async def test_it_moves_away_from_a_lost_node(self, cluster: Double, driver: KubernetesDriver) -> None:
        moves: list[tuple[str, str]] = []
        driver.on_moved = lambda name, url: moves.append((name, url))
        url = await running(driver)
        driver.follow_address(NAME, url)
        assert moves == []
        nodes = {node["name"]: node["internal_ip"] for node in await driver.nodes()}
        [host] = [name for name, address in nodes.items() if f"//{address}:" in url]
        [other] = nodes.keys() - {host}
        await asyncio.to_thread(cluster.faults.node_lost, host)
        await until(lambda: moves, "it has moved", WAIT)
        assert moves == [(NAME, url.replace(nodes[host], nodes[other]))]
        await asyncio.to_thread(cluster.faults.node_back, host)
        await until(lambda: driver._cluster.nodes(), "seen")
        assert len(moves) == 1

    async def test_an_address_that_went_while_nobody_looked(self, cluster: Double, driver: KubernetesDriver) -> None:
        moves: list[str] = []
        driver.on_moved = lambda _name, url: moves.append(url)
        url = await running(driver)
        driver.follow_address(NAME, "http://10.9.9.9:30000")
        await until(lambda: moves == [url], "it has moved", WAIT)

    async def test_mend_puts_the_service_back(self, cluster: Double, driver: KubernetesDriver) -> None:
        moves: list[str] = []
        driver.on_moved = lambda _name, url: moves.append(url)
        driver.follow_address(NAME, await running(driver))
        with pytest.raises(SandboxError, match="nothing to mend"):
            await driver.mend(NAME)
        await asyncio.to_thread(cluster.faults.delete_service, f"{NAME}-np")

        async def missing() -> bool:
            return not (await driver.inspect(NAME)).service["exists"]

        await until(missing, "the Service is missing", WAIT)
        assert await driver.mend(NAME) == f"recreated Service {NAME}-np"
        service = cluster.get("services", f"{NAME}-np")
        assert service is not None
        port = service["spec"]["ports"][0]["nodePort"]
        await until(lambda: [url for url in moves if url.endswith(f":{port}")], "the new port is told", WAIT)
        await driver.delete(NAME)
        assert left(cluster) == []

    async def test_what_is_gone_cannot_be_mended(self, driver: KubernetesDriver) -> None:
        with pytest.raises(SandboxError, match="cannot be mended: gone"):
            await driver.mend(NAME)

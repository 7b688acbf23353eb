"""One whole cluster on an event loop: store, controllers, scheduler, kubelets, nodes and the traffic of Services."""

import asyncio
import random
from collections.abc import Callable, Iterable

from tests.kubernetes.double import nodes
from tests.kubernetes.double.claims import ClaimController
from tests.kubernetes.double.controller import SandboxController, is_ready
from tests.kubernetes.double.kubelet import Kubelet
from tests.kubernetes.double.network import Endpoint, Network
from tests.kubernetes.double.processes import Command, Processes
from tests.kubernetes.double.scheduler import Scheduler
from tests.kubernetes.double.store import Change, Object, Store, labels

PRIORITIES = {"platform-critical": 2_000_000, "sandbox-active": 1_000, "sandbox-warm": 100}


class Cluster:
    """Without a `command` pods have no processes, and nobody listens at the addresses of Services."""

    def __init__(self, namespaces: Iterable[str], *, legacy: bool, claims: bool, command: Command | None) -> None:
        self.store, self.network = Store(), Network()
        self.processes = Processes(command) if command else None
        for name in dict.fromkeys(("default", "kube-system", "kube-node-lease", *namespaces)):
            spec, status = {"finalizers": ["kubernetes"]}, {"phase": "Active"}
            meta = {"name": name, "labels": {"kubernetes.io/metadata.name": name}}
            self.store.create("namespaces", {"metadata": meta, "spec": spec, "status": status})
        for name, value in PRIORITIES.items():
            body = {"metadata": {"name": name}, "value": value, "preemptionPolicy": "PreemptLowerPriority"}
            self.store.create("priorityclasses", body)
        self.controller = SandboxController(self.store, legacy=legacy)
        self.claims = ClaimController(self.store) if claims else None
        self.scheduler = Scheduler(self.store)
        self.kubelet = Kubelet(self.store, self.network.pod_address, self.processes, self.scheduler.refuse)
        self.store.listeners.append(self._changed)

    def add_node(self, name: str, *, cpu: str, memory: str, pods: int) -> None:
        nodes.register(self.store, name, self.network.node_address(), cpu=cpu, memory=memory, pods=pods)

    def turn(self, namespace: str, name: str, outcome: str) -> None:
        """Bring a pod to another outcome; one that was not to be scheduled is tried again."""
        self.kubelet.turn(self.store.entry("pods", namespace, name).obj, outcome)
        self.scheduler.retry()

    async def close(self) -> None:
        if self.processes is not None:
            await self.processes.close()
        await self.network.close()

    def _changed(self, change: Change) -> None:
        entry, plural = change.entry, change.entry.resource.plural
        soon = asyncio.get_running_loop().call_soon
        if change.type == "ADDED" and self.store.owners_gone(entry.obj):
            soon(self._remove_orphan, plural, entry.meta.get("namespace", ""), entry.meta["name"])
        if plural == "nodes":
            if change.type == "MODIFIED":
                soon(self._node_changed, entry.meta["name"])
            for service in tuple(self.store.all("services")) if self.processes else ():
                self._serve(service)
        elif plural == "services":
            if change.type != "DELETED":
                self._serve(entry.obj)
                return
            self.network.serve(entry.meta["uid"], (), lambda _: None)
            for port in entry.obj["spec"].get("ports", ()):
                self.network.free_port(port.get("nodePort", 0))

    def _remove_orphan(self, plural: str, namespace: str, name: str) -> None:
        obj = self.store.get(plural, namespace, name)
        if obj is not None and self.store.owners_gone(obj):
            self.store.delete(plural, namespace, name)

    def _node_changed(self, name: str) -> None:
        node = self.store.get("nodes", "", name)
        if node is not None:
            nodes.mark_cordoned(self.store, node)

    def _serve(self, service: Object) -> None:
        spec = service["spec"]
        if self.processes is None or spec.get("clusterIP") == "None" or not spec.get("selector"):
            return
        ends: list[Endpoint] = [(spec["clusterIP"], port["port"]) for port in spec["ports"]]
        for node in self.store.all("nodes"):
            for address in {entry["address"] for entry in node["status"]["addresses"] if entry["type"].endswith("IP")}:
                if node["metadata"]["name"] not in self.kubelet.lost and address.startswith("127."):
                    ends += [(address, port["nodePort"]) for port in spec["ports"] if "nodePort" in port]
        self.network.serve(service["metadata"]["uid"], ends, self._picker(service))

    def _picker(self, service: Object) -> Callable[[Endpoint], Endpoint | None]:
        spec, namespace = service["spec"], service["metadata"]["namespace"]

        def pick(at: Endpoint) -> Endpoint | None:
            wanted = "port" if at[0] == spec["clusterIP"] else "nodePort"
            target = next(port["targetPort"] for port in spec["ports"] if port.get(wanted) == at[1])
            ready = [
                pod["status"]["podIP"]
                for pod in self.store.all("pods")
                if pod["metadata"]["namespace"] == namespace
                and spec["selector"].items() <= labels(pod).items()
                and is_ready(pod)
            ]
            return (random.choice(ready), int(target)) if ready else None

        return pick

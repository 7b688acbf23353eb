"""What can go wrong on purpose: refused, late and broken requests, lost watches and nodes, objects deleted by hand."""

import signal
from typing import TYPE_CHECKING, Any

from tests.kubernetes.double import errors, nodes
from tests.kubernetes.double.rules import Rule

if TYPE_CHECKING:
    from tests.kubernetes.double.double import Double


class Faults:
    """The faults of one double. Every method may be called from any thread and has worked when it returns.

    `verb` is get, list, watch, create, update, patch, delete or deletecollection; `resource` what RBAC says ("pods",
    "pods/log"); None means any. What is bound to a number of requests ends by itself, the rest with `clear`.
    """

    def __init__(self, double: "Double") -> None:
        self._double = double

    # Requests

    def cut_watches(self, resource: str | None = None) -> None:
        """End the open watches, as a proxy or a restarting server does."""
        self._call(self._double.server.cut_watches, resource)

    def cut_logs(self) -> None:
        """Break the connections of logs that are being followed."""
        self._call(self._double.server.cut_logs)

    def expire(self) -> None:
        """Forget all past changes: watches end, going on from any known version answers 410, so do list tokens."""
        self._call(self._double.cluster.store.compact)
        self.cut_watches()

    def bookmark(self) -> None:
        """A bookmark now to every watch that takes them."""
        self._call(self._double.server.bookmark)

    def go_away(self) -> None:
        """Refuse connections and cut those there are; the cluster itself goes on."""
        self._double.run(self._double.server.close())

    def come_back(self) -> None:
        """Listen again, at the same port."""
        self._double.run(self._double.listen())

    def throttle(self, count: int, retry_after: int = 1, verb: str | None = None, resource: str | None = None) -> None:
        """429 with Retry-After for the next `count` requests."""
        self._add(Rule(verb, resource, left=count, refusal=errors.throttled(retry_after)))

    def forbid(self, verb: str | None = None, resource: str | None = None, namespace: str | None = None) -> None:
        """403, as without the right in RBAC; `namespace` "" is at the scope of the cluster, None at any."""
        self._add(Rule(verb, resource, namespace, forbid=True))

    def fail(
        self, count: int, code: int = 500, reason: str = "InternalError", message: str = "Internal error occurred",
        verb: str | None = None, resource: str | None = None,
    ) -> None:  # fmt: skip
        """Another refusal for the next `count` requests; nothing is done."""
        self._add(Rule(verb, resource, left=count, refusal=errors.Refused(code, reason, message)))

    def delay(
        self, seconds: float, verb: str | None = None, resource: str | None = None, count: int | None = None
    ) -> None:
        """Answer only after `seconds`."""
        self._add(Rule(verb, resource, left=count, delay=seconds))

    def break_off(self, count: int, verb: str | None = None, resource: str | None = None) -> None:
        """Do what is asked, but cut the connection in the middle of the answer."""
        self._add(Rule(verb, resource, left=count, broken=True))

    def clear(self) -> None:
        """Away with all rules about requests."""
        self._call(self._double.rules.rules.clear)

    # The controller

    def pause_controller(self) -> None:
        """The controller of agent-sandbox does nothing until `resume_controller`."""
        self._double.cluster.controller.paused = True

    def resume_controller(self) -> None:
        self._call(self._double.cluster.controller.resume)

    # Nodes

    def node_lost(self, name: str, *, evict: bool = False) -> None:
        """A node falls silent: NotReady, its pods too, its addresses dead; `evict`: and 300 seconds have passed."""

        def lose() -> None:
            cluster = self._double.cluster
            cluster.kubelet.lost.add(name)
            for running in cluster.kubelet.processes_on(name):
                running.signal(signal.SIGSTOP)
            nodes.silent(cluster.store, name)
            if evict:
                nodes.evict(cluster.store, name)

        self._call(lose)

    def node_back(self, name: str) -> None:
        def resume() -> None:
            cluster = self._double.cluster
            cluster.kubelet.lost.discard(name)
            for running in cluster.kubelet.processes_on(name):
                running.signal(signal.SIGCONT)
            nodes.back(cluster.store, name)
            cluster.kubelet.retry(name)

        self._call(resume)

    def node_removed(self, name: str) -> None:
        """The node and its pods are gone for good."""
        self._call(nodes.remove, self._double.cluster.store, name)

    def add_node(self, name: str, *, cpu: str = "8", memory: str = "32Gi", pods: int = 110) -> None:
        def add() -> None:
            self._double.cluster.add_node(name, cpu=cpu, memory=memory, pods=pods)

        self._call(add)

    def cordon(self, name: str, *, cordoned: bool = True) -> None:
        def change() -> None:
            store = self._double.cluster.store
            node = store.entry("nodes", "", name).obj
            spec = {key: value for key, value in node["spec"].items() if key != "unschedulable"}
            store.patch("nodes", node, spec={**spec, "unschedulable": True} if cordoned else spec)

        self._call(change)

    def node_addresses(self, name: str, addresses: dict[str, str]) -> None:
        """Other addresses, by type: {"ExternalIP": "127.1.0.9"}; NodePorts answer at each of them."""

        def change() -> None:
            store = self._double.cluster.store
            node = store.entry("nodes", "", name).obj
            listed = [{"type": kind, "address": address} for kind, address in addresses.items()]
            store.patch("nodes", node, status={**node["status"], "addresses": listed})

        self._call(change)

    # By hand

    def delete(self, resource: str, name: str, *, grace: int | None = None) -> None:
        """As `kubectl delete` by somebody else."""
        store, namespace = self._double.cluster.store, self._double.namespace
        self._call(lambda: store.delete(resource, "" if resource == "nodes" else namespace, name, grace=grace))

    def delete_pod(self, name: str, *, grace: int | None = None) -> None:
        self.delete("pods", name, grace=grace)

    def delete_service(self, name: str) -> None:
        self.delete("services", name)

    def delete_sandbox(self, name: str) -> None:
        self.delete("sandboxes", name)

    def _add(self, rule: Rule) -> None:
        self._call(self._double.rules.rules.append, rule)

    def _call(self, function: Any, *args: Any) -> None:
        self._double.call(function, *args)

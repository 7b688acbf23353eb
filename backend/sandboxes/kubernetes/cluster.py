"""What is known of the cluster: everything about our sandboxes, from watches, indexed, without asking anybody."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from backend.domain import clock
from backend.sandboxes.kubernetes import event_store, requests
from backend.sandboxes.kubernetes.client import (
    ALL,
    EVENTS,
    NODES,
    PODS,
    SERVICES,
    ApiError,
    Forbidden,
    KubernetesClient,
    Senseless,
    Unreachable,
)
from backend.sandboxes.kubernetes.event_store import EventStore
from backend.sandboxes.kubernetes.informer import Informer, Pace, trimmed
from backend.sandboxes.kubernetes.manifests import is_ours, service_name
from backend.sandboxes.kubernetes.requests import NodeRequests

Json = dict[str, Any]

POD_NAME: Final = "agents.x-k8s.io/pod-name"
"""Annotation of a Sandbox whose pod has another name than its own."""
TRUSTED_SECONDS: Final = 30.0
"""What was seen counts as what is for so long after the server was last heard from."""

_log = logging.getLogger(__name__)


class Cluster:
    """The state of our namespace and of the nodes, kept by watches. Objects are raw JSON: never change them.

    All methods but `close` and `wait_synced` answer at once from memory, and only on the event loop. While the API is
    away they tell the last known state; `unknown` and `problems` say so.
    """

    def __init__(self, client: KubernetesClient, *, pace: Pace | None = None) -> None:
        def informer(resource: Any, on_change: Any, **more: Any) -> Informer:
            return Informer(client, resource, on_change, on_back=self._retry_all, pace=pace, **more)

        self._events = EventStore()
        self._requests = NodeRequests()
        self._pod_names: dict[str, str] = {}
        self._sandbox_by_pod: dict[str, str] = {}
        """Both ways, of sandboxes that have told the name of their pod; for as long as either is there."""
        self._informers: dict[str, Informer] = {
            "sandboxes": informer(lambda: client.sandboxes(again=True), self._sandbox_changed),
            "pods": informer(PODS, self._pod_changed),
            "services": informer(SERVICES, self._service_changed),
            "nodes": informer(NODES, self._node_changed, trim=_trimmed_node),
            "events": informer(EVENTS, self._event_came, trim=event_store.trimmed, hold=False),
            "requests": informer(PODS, self._requests_changed, namespace=ALL, trim=requests.trimmed),
        }
        self._essential = [self._informers[kind] for kind in ("sandboxes", "pods", "services")]
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._callbacks: list[Callable[[str], None]] = []
        self._node_callbacks: list[Callable[[str], None]] = []
        self._closed = False

    def start(self) -> None:
        """Begin to list and watch; never raises for the cluster's sake. Call once, on the loop."""
        for informer in self._informers.values():
            informer.start()

    async def close(self) -> None:
        """End all watches; who waits in `changed` is cancelled. The client stays open, it is the caller's."""
        self._closed = True
        await asyncio.gather(*(informer.close() for informer in self._informers.values()))
        for waiter in [waiter for waiters in self._waiters.values() for waiter in waiters]:
            waiter.cancel()

    async def wait_synced(self, timeout: float) -> bool:
        """Wait until `synced`, at most `timeout` seconds; returns `synced`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for informer in self._essential:
                    await informer.wait_synced()
        return self.synced

    @property
    def synced(self) -> bool:
        """Sandboxes, pods and services have been listed at least once."""
        return all(informer.synced for informer in self._essential)

    def names(self) -> list[str]:
        """Names of the sandboxes with our labels, sorted."""
        return sorted(name for name, sandbox in self._informers["sandboxes"].items.items() if is_ours(sandbox))

    def sandbox(self, name: str) -> Json | None:
        """The Sandbox object."""
        return self._informers["sandboxes"].items.get(name)

    def pod(self, name: str) -> Json | None:
        """The pod of sandbox `name`: its annotation names it, else it has the same name."""
        return self._informers["pods"].items.get(self._pod_name(name))

    def service(self, name: str) -> Json | None:
        """Our Service of the sandbox, `<name>-np`."""
        return self._informers["services"].items.get(service_name(name))

    def node(self, node_name: str) -> Json | None:
        """The node, without its images."""
        return self._informers["nodes"].items.get(node_name)

    def nodes(self) -> Mapping[str, Json]:
        """All nodes by name."""
        return self._informers["nodes"].items

    def events_of(self, name: str) -> list[Json]:
        """Events about the sandbox's pod, Sandbox and Services: the newest 50, newest last."""
        services = (service_name(name), name)
        about = [("Pod", self._pod_name(name)), ("Sandbox", name), *(("Service", each) for each in services)]
        return self._events.about(about)

    def requests_on(self, node_name: str) -> tuple[int, int, int] | None:
        """What the pods on a node request: (CPU in thousandths, memory in bytes, pods); None while not known."""
        pods = self._informers["requests"]
        return self._requests.on(node_name) if pods.synced and not isinstance(pods.error, Forbidden) else None

    def changed(self, name: str) -> asyncio.Future[None]:
        """Await it: done at the next change about the sandbox (its Sandbox, pod, Service, events, or its node).

        Counts from this call on, not from the await: get it, look, then await it, and no change is lost.
        `asyncio.wait_for(cluster.changed(name), 5)` is fine. Cancelled when the cluster closes.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed:
            waiter.cancel()
            return waiter
        self._waiters.setdefault(name, set()).add(waiter)
        waiter.add_done_callback(lambda done: self._forget(name, done))
        return waiter

    def on_change(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with the sandbox's name at each change about one; returns what ends that.

        Also for objects in the namespace that are no sandbox of ours, with the name one would have.
        """
        return _registered(self._callbacks, callback)

    def on_nodes(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with a node's name when it comes, goes or changes in more than the time of its heartbeat."""
        return _registered(self._node_callbacks, callback)

    def unknown(self, kind: str) -> str | None:
        """Why what is told of a kind may not be what there is: not permitted, not listed yet, or away since when.

        `kind` is "sandboxes", "pods", "services", "nodes", "events" or "requests" (see inspecting.Kind). None while
        it can be trusted, also for half a minute after a watch broke: absence is a fact then, and decides a diagnosis.
        """
        informer = self._informers[kind]
        error, since = informer.error, informer.since
        if error is None or since is None:
            return None if informer.synced else f"{kind} have not been listed yet"
        if informer.synced and isinstance(error, Unreachable) and clock.seconds_since(since) < TRUSTED_SECONDS:
            return None
        return f"{error.cause}, since {_moment(since)}"

    def problems(self) -> list[str]:
        """What keeps us from seeing the cluster as it is: cause, since when, next step, a line each; [] when well."""
        found: dict[object, tuple[ApiError, str]] = {}
        for informer in self._informers.values():
            error, since = informer.error, informer.since
            if error is None or since is None:
                continue
            # Away for one kind is away for all: one line. What is forbidden is forbidden for each.
            away = isinstance(error, Unreachable) and not isinstance(error, Senseless)
            topic = Unreachable if away else error.cause
            known = found.get(topic)
            found[topic] = (error, min(since, known[1]) if known else since)
        return [
            f"{error.cause}, since {_moment(since)}: "
            + (error.step or "sandboxes go on, but what is shown of them is old")
            for error, since in found.values()
        ]

    def _pod_name(self, name: str) -> str:
        return self._pod_names.get(name, name)

    def _retry_all(self) -> None:
        for informer in self._informers.values():
            informer.retry()

    def _sandbox_changed(self, name: str, _old: Json | None, now: Json | None) -> None:
        before = self._pod_names.get(name)
        if now is not None and (told := _annotated(now)) != before:
            self._unlink(name)
            if told:
                self._pod_names[name] = told
                self._sandbox_by_pod[told] = name
        elif now is None and before not in self._informers["pods"].items:
            self._unlink(name)
        self._changed(name)

    def _pod_changed(self, pod_name: str, _old: Json | None, now: Json | None) -> None:
        name = self._sandbox_by_pod.get(pod_name, pod_name)
        if now is None and self.sandbox(name) is None:
            self._unlink(name)
        self._changed(name)

    def _unlink(self, name: str) -> None:
        if (pod_name := self._pod_names.pop(name, None)) is not None and self._sandbox_by_pod.get(pod_name) == name:
            del self._sandbox_by_pod[pod_name]

    def _service_changed(self, name: str, _old: Json | None, _now: Json | None) -> None:
        self._changed(_of_service(name))

    def _event_came(self, _key: str, _old: Json | None, now: Json | None) -> None:
        about = self._events.add(now) if now is not None else None
        if about is None:
            return
        kind, name = about
        if kind == "Pod":
            self._changed(self._sandbox_by_pod.get(name, name))
        else:
            self._changed(_of_service(name) if kind == "Service" else name)

    def _node_changed(self, node_name: str, old: Json | None, now: Json | None) -> None:
        if _lasting(old) == _lasting(now):
            return
        for callback in list(self._node_callbacks):
            _call(callback, node_name)
        for pod_name, pod in self._informers["pods"].items.items():
            if (pod.get("spec") or {}).get("nodeName") == node_name:
                self._changed(self._sandbox_by_pod.get(pod_name, pod_name))

    def _requests_changed(self, _key: str, old: Json | None, now: Json | None) -> None:
        self._requests.change(old, now)

    def _changed(self, name: str) -> None:
        for waiter in self._waiters.pop(name, ()):
            if not waiter.done():
                waiter.set_result(None)
        for callback in list(self._callbacks):
            _call(callback, name)

    def _forget(self, name: str, waiter: asyncio.Future[None]) -> None:
        if (waiters := self._waiters.get(name)) is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[name]


def _registered(callbacks: list[Callable[[str], None]], callback: Callable[[str], None]) -> Callable[[], None]:
    callbacks.append(callback)

    def end() -> None:
        with contextlib.suppress(ValueError):
            callbacks.remove(callback)

    return end


def _call(callback: Callable[[str], None], name: str) -> None:
    try:
        callback(name)
    except Exception:
        _log.exception("what follows from a change of %s failed", name)


def _annotated(sandbox: Json) -> str | None:
    """The pod's name that a Sandbox tells."""
    name = (sandbox["metadata"].get("annotations") or {}).get(POD_NAME)
    return name if name and isinstance(name, str) else None


def _of_service(name: str) -> str:
    """The sandbox whose Service has this name; the controller's own has the sandbox's."""
    return name.removesuffix(service_name(""))


def _trimmed_node(node: Json) -> Json:
    status = node.get("status")
    if isinstance(status, dict):
        for key in ("images", "volumesInUse", "volumesAttached"):
            status.pop(key, None)
    return trimmed(node)


def _lasting(node: Json | None) -> Any:
    """The node without the time of its heartbeats; None for none."""
    if node is None:
        return None
    status = node.get("status") or {}
    conditions = [(each.get("type"), each.get("status"), each.get("reason")) for each in status.get("conditions") or ()]
    facts = [status.get(key) for key in ("addresses", "capacity", "allocatable")]
    return conditions, facts, node.get("spec"), node["metadata"].get("labels")


def _moment(stored: str) -> str:
    """A time of domain.clock to the second; with its day when that is not today."""
    text = stored[:19] + "Z"
    return text[11:] if stored[:10] == clock.now()[:10] else text.replace("T", " ")

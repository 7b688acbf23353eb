"""The scheduler: gives a pod the node with the most room, or says why none will do."""

import asyncio
from collections import Counter

from tests.kubernetes.double.controller import condition
from tests.kubernetes.double.events import tell
from tests.kubernetes.double.objects import quantity, requests
from tests.kubernetes.double.store import Change, Object, Store, now

_DONE = ("Failed", "Succeeded")
_UNHELPFUL = "Preemption is not helpful for scheduling."
_NO_VICTIMS = "No preemption victims found for incoming pod."


class Scheduler:
    """Schedules pods as they come and, when room may have come up, those that had to wait."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: dict[tuple[str, str], None] = {}
        self._waiting: dict[tuple[str, str], None] = {}
        self._used: dict[str, dict[tuple[str, str], tuple[float, float]]] = {}
        """Node -> pod -> what it asked for."""
        self._sums: dict[str, list[float]] = {}
        """Node -> [cpu, memory, pods] asked for."""
        self.refuse: dict[tuple[str, str], str] = {}
        """Pods that are not to be scheduled, and why."""
        store.listeners.append(self._changed)

    def _changed(self, change: Change) -> None:
        entry = change.entry
        if entry.resource.plural == "pods":
            key = (entry.meta["namespace"], entry.meta["name"])
            node = entry.obj["spec"].get("nodeName")
            ended = change.type == "DELETED" or entry.obj["status"].get("phase") in _DONE
            if node and ended:
                self._release(node, key)
            elif node and key not in self._used.get(node, {}):
                self._reserve(node, key, entry.obj)
            elif not node and change.type == "ADDED":
                self._enqueue(key)
            if ended:
                self._waiting.pop(key, None)
        elif entry.resource.plural == "nodes" and self._room(change):
            self.retry()

    @staticmethod
    def _room(change: Change) -> bool:
        """Whether a change of a node may let pods in."""
        if change.type != "MODIFIED" or change.old is None:
            return change.type == "ADDED"
        new, old = change.entry.obj, change.old.obj
        ready = [(condition(obj, "Ready") or {}).get("status") for obj in (new, old)]
        return (
            new["spec"] != old["spec"]
            or ready[0] != ready[1]
            or new["status"]["allocatable"] != old["status"]["allocatable"]
        )

    def retry(self) -> None:
        for key in self._waiting:
            self._enqueue(key)

    def _enqueue(self, key: tuple[str, str]) -> None:
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._work)
        self._queue[key] = None

    def _reserve(self, node: str, key: tuple[str, str], pod: Object) -> None:
        cpu, memory = self._used.setdefault(node, {})[key] = requests(pod)
        sums = self._sums.setdefault(node, [0.0, 0.0, 0])
        self._sums[node] = [sums[0] + cpu, sums[1] + memory, sums[2] + 1]

    def _release(self, node: str, key: tuple[str, str]) -> None:
        taken = self._used.get(node, {}).pop(key, None)
        if taken is not None:
            sums = self._sums[node]
            self._sums[node] = [sums[0] - taken[0], sums[1] - taken[1], sums[2] - 1]
            self.retry()

    def _work(self) -> None:
        queue, self._queue = self._queue, {}
        for namespace, name in queue:
            pod = self._store.get("pods", namespace, name)
            if pod is not None and not pod["spec"].get("nodeName") and not pod["metadata"].get("deletionTimestamp"):
                self._schedule(pod)

    def _schedule(self, pod: Object) -> None:
        meta = pod["metadata"]
        key = (meta["namespace"], meta["name"])
        why, best = self._choose(pod)
        why = self.refuse.get(key, why if best is None else None)
        if best is None or why is not None:
            self._waiting[key] = None
            old = condition(pod, "PodScheduled")
            if old is None or old.get("message") != why:
                entry = {"type": "PodScheduled", "status": "False", "lastProbeTime": None, "lastTransitionTime": now()}
                entry |= {"observedGeneration": meta["generation"], "reason": "Unschedulable", "message": why}
                self._store.patch("pods", pod, status={**pod["status"], "conditions": [entry]})
                tell(self._store, pod, "Pod", "Warning", "FailedScheduling", str(why), source="default-scheduler")
            return
        self._waiting.pop(key, None)
        bound = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}
        spec, status = {**pod["spec"], "nodeName": best}, {**pod["status"], "conditions": [bound]}
        generation = meta["generation"]  # Binding is no change of the spec by its author.
        bound_pod = self._store.patch("pods", pod, spec=spec, status=status, generation=generation).obj
        text = f"Successfully assigned {key[0]}/{key[1]} to {best}"
        tell(self._store, bound_pod, "Pod", "Normal", "Scheduled", text, source="default-scheduler")

    def _choose(self, pod: Object) -> tuple[str | None, str | None]:
        """Why no node will do, or the node with the fewest pods that will."""
        cpu, memory = requests(pod)
        wanted = pod["spec"].get("nodeSelector") or {}
        nodes = list(self._store.all("nodes"))
        reasons: Counter[str] = Counter()
        helpful: Counter[str] = Counter()
        fitting: list[tuple[float, str]] = []
        for node in nodes:
            name, limit = node["metadata"]["name"], node["status"]["allocatable"]
            sums = self._sums.get(name, [0.0, 0.0, 0])
            found: list[str] = []
            hopeless = True
            if node["spec"].get("unschedulable"):
                found.append("node(s) were unschedulable")
            elif (condition(node, "Ready") or {}).get("status") != "True":
                found.append("node(s) had untolerated taint(s)")
            elif any(node["metadata"]["labels"].get(label) != value for label, value in wanted.items()):
                found.append("node(s) didn't match Pod's node affinity/selector")
            else:
                room = {"cpu": (cpu, sums[0]), "memory": (memory, sums[1])}
                short = [
                    part for part, (ask, used) in room.items() if ask > 0 and used + ask > quantity(limit[part]) + 1e-9
                ]
                hopeless = any(room[part][0] > quantity(limit[part]) for part in short)
                found += [f"Insufficient {part}" for part in short]
                if sums[2] + 1 > int(limit["pods"]):
                    found.append("Too many pods")
            reasons.update(found)
            if found:
                helpful[_UNHELPFUL if hopeless else _NO_VICTIMS] += 1
            else:
                fitting.append((sums[2], name))
        if fitting:
            return None, min(fitting)[1]
        if not nodes:
            return "no nodes available to schedule pods", None
        total = f"0/{len(nodes)} nodes are available"
        listed, preempting = (
            ", ".join(sorted(f"{count} {text}" for text, count in counter.items())) for counter in (reasons, helpful)
        )
        return f"{total}: {listed}. no new claims to deallocate, preemption: {total}: {preempting}", None

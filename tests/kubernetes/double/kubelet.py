"""The kubelets of all nodes: bring bound pods to where their outcome says, and end deleted ones."""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.kubernetes.double.events import tell
from tests.kubernetes.double.logs import Line
from tests.kubernetes.double.outcomes import Plan, Told, plan
from tests.kubernetes.double.processes import LogFile, Processes, Running
from tests.kubernetes.double.status import Identity, pod_status
from tests.kubernetes.double.store import Change, Object, Store, now

Key = tuple[str, str]
_LOG_LINES = 20_000


@dataclass
class Pod:
    """What runs for one pod."""

    identity: Identity
    plan: Plan | None = None
    lines: list[Line] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be more lines, or an end to them."""
    running: Running | None = None
    file: LogFile | None = None

    def read(self) -> list[Line]:
        """All lines so far."""
        self.lines += self.file.read() if self.file is not None else []
        del self.lines[:-_LOG_LINES]
        return list(self.lines)

    def write(self, text: str) -> None:
        self.lines += [(time.time(), line) for line in text.splitlines(keepends=True)]
        self.more.set()


class Kubelet:
    """Runs pods: `processes` for their containers, or none and outcomes by script."""

    def __init__(
        self, store: Store, pod_address: Callable[[], str], processes: Processes | None, refuse: dict[Key, str]
    ) -> None:
        self._store, self._pod_address, self._processes, self._refuse = store, pod_address, processes, refuse
        self.pods: dict[str, Pod] = {}
        """By uid."""
        self._queue: dict[Key, None] = {}
        self.lost: set[str] = set()
        """Nodes that do nothing."""
        self.scripts: list[tuple[str, str]] = []
        """(prefix of a pod's name, outcome), the latest first."""
        self._turned: dict[str, str] = {}
        """Outcomes by uid that came later than the script."""
        store.listeners.append(self._changed)

    def outcome(self, pod: Object) -> str:
        meta = pod["metadata"]
        if meta.get("uid") in self._turned:
            return self._turned[meta["uid"]]
        return next((outcome for prefix, outcome in self.scripts if meta["name"].startswith(prefix)), "running")

    def turn(self, pod: Object, outcome: str) -> None:
        """Bring a pod that is there to another outcome."""
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._refuse.pop(key, None)
        self._turned[pod["metadata"]["uid"]] = outcome
        run = self.pods.get(pod["metadata"]["uid"])
        if run is None:
            return
        self._arrive(pod, run, outcome)
        if run.running is not None and run.plan is not None and "running" not in run.plan.state:
            running, run.running = run.running, None
            running.kill()

    def write_log(self, pod: Object, text: str) -> None:
        """What the container writes from now on."""
        self.pods[pod["metadata"]["uid"]].write(text)

    def age_log(self, pod: Object, lines: Sequence[str]) -> None:
        """As if the container had written just these, one each second until now."""
        at = time.time()
        self.pods[pod["metadata"]["uid"]].lines = [(at - len(lines) + 0.5 + n, line) for n, line in enumerate(lines)]

    def retry(self, node: str) -> None:
        """Do what a node left undone while it was lost."""
        for pod in self._store.all("pods"):
            if pod["spec"].get("nodeName") == node:
                self._enqueue((pod["metadata"]["namespace"], pod["metadata"]["name"]))

    def is_there(self, namespace: str, name: str, run: Pod) -> bool:
        """Whether `run` is that of the pod which has the name now."""
        pod = self._store.get("pods", namespace, name)
        return pod is not None and self.pods.get(pod["metadata"]["uid"]) is run

    def processes_on(self, node: str) -> list[Running]:
        on_node = (pod for pod in self._store.all("pods") if pod["spec"].get("nodeName") == node)
        runs = (self.pods.get(pod["metadata"]["uid"]) for pod in on_node)
        return [run.running for run in runs if run is not None and run.running is not None]

    def _changed(self, change: Change) -> None:
        entry = change.entry
        if entry.resource.plural != "pods":
            return
        key = (entry.meta["namespace"], entry.meta["name"])
        if change.type == "DELETED":
            self._refuse.pop(key, None)
            self._turned.pop(entry.meta["uid"], None)
            run = self.pods.pop(entry.meta["uid"], None)
            if run is not None:
                run.more.set()
                if run.running is not None:
                    run.running.kill()
        elif change.type == "ADDED" and self.outcome(entry.obj) == "unschedulable":
            nodes = sum(1 for _ in self._store.all("nodes"))
            total = f"0/{nodes} nodes are available"
            unhelpful = f"preemption: {total}: {nodes} Preemption is not helpful for scheduling."
            self._refuse[key] = f"{total}: {nodes} Insufficient cpu. no new claims to deallocate, {unhelpful}"
        elif entry.obj["spec"].get("nodeName"):
            ending = entry.meta.get("deletionTimestamp")
            known = change.old.meta.get("deletionTimestamp") if change.old else None
            if entry.meta["uid"] not in self.pods or (ending and not known):
                self._enqueue(key)

    def _enqueue(self, key: Key) -> None:
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._work)
        self._queue[key] = None

    def _work(self) -> None:
        queue, self._queue = self._queue, {}
        for namespace, name in queue:
            pod = self._store.get("pods", namespace, name)
            if pod is None or pod["spec"].get("nodeName") in self.lost:
                continue
            if pod["metadata"].get("deletionTimestamp"):
                self._end(pod)
            elif pod["metadata"]["uid"] not in self.pods:
                self._start(pod)

    # Starting

    def _start(self, pod: Object) -> None:
        meta = pod["metadata"]
        number = uuid.uuid4().hex * 2
        run = Pod(Identity(self._pod_address(), f"containerd://{number}", f"sha256:{number[::-1]}"))
        self.pods[meta["uid"]] = run
        outcome = self.outcome(pod)
        waiting = {"reason": "PodInitializing" if pod["spec"].get("initContainers") else "ContainerCreating"}
        pod = self._put(pod, run, Plan(state={"waiting": waiting}, networked=False), address=False)
        if self._processes is not None and outcome == "running":
            self._start_process(pod, run)
        else:
            self._arrive(pod, run, outcome)

    def _arrive(self, pod: Object, run: Pod, outcome: str) -> None:
        """All that is told on the way to an outcome."""
        if run.plan is None:
            pod = {**pod, "status": {**pod["status"], "podIP": run.identity.address}}
        made = plan(outcome, pod, run.identity.container_id)
        before = run.plan
        run.plan = made
        if made.log is not None and (before is None or before.log is None):
            run.lines.clear()
            run.write(made.log)
        run.more.set()
        current = self._current(pod)
        for number, event in enumerate(event for event in made.events if before is None or event not in before.events):
            self._tell(current, made, event)
            if number == 0 and made.networked and before is None:
                creating = Plan(state={"waiting": {"reason": "ContainerCreating"}})
                current = self._put(current, run, creating, address=False)
        self._put(self._current(pod), run, made)

    def _tell(self, pod: Object, made: Plan, event: Told) -> None:
        part = "initContainers" if made.init else "containers"
        where = "" if event.pod else f"spec.{part}{{{pod['spec'][part][0]['name']}}}"
        place = {"host": pod["spec"].get("nodeName", ""), "field": where}
        tell(self._store, pod, "Pod", event.type, event.reason, event.message, count=event.count, **place)

    def _start_process(self, pod: Object, run: Pod) -> None:
        assert self._processes is not None
        made = plan("running", pod, run.identity.container_id)
        container = pod["spec"]["containers"][0]
        for event in made.events:
            self._tell(pod, made, event)
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        run.running = self._processes.start(pod, run.identity.address, lambda code: self._exited(key, run, code))
        run.file = run.file or LogFile(run.running.log)
        run.plan = made
        made.log = ""
        probed = "readinessProbe" in container
        made.ready = not probed
        self._put(self._current(pod), run, made)
        if probed:
            run.running.probe(container["readinessProbe"], run.identity.address, lambda: self._ready(key, run))

    def _ready(self, key: Key, run: Pod) -> None:
        if self.is_there(*key, run) and run.plan is not None:
            run.plan.ready = True
            self._put(self._store.entry("pods", *key).obj, run, run.plan)

    def _exited(self, key: Key, run: Pod, code: int) -> None:
        """The process of a pod has ended with this exit code, by itself or because its pod is to end."""
        if run.running is None:  # It was turned to another outcome.
            return
        run.running = None
        run.more.set()
        if not self.is_there(*key, run):
            return
        pod = self._store.entry("pods", *key).obj
        if pod["metadata"].get("deletionTimestamp"):
            self._finish(pod, run, code)
            return
        run.plan = plan(f"{'completed' if code == 0 else 'failed'}:{code}", pod, run.identity.container_id)
        self._put(pod, run, run.plan)

    # Ending

    def _end(self, pod: Object) -> None:
        meta = pod["metadata"]
        run = self.pods.get(meta["uid"])
        if run is None:  # Deleted before it was started.
            self._store.delete("pods", meta["namespace"], meta["name"], grace=0)
            return
        running = run.plan is not None and "running" in run.plan.state
        container = pod["spec"]["containers"][0]["name"]
        if run.plan is not None and running:
            self._tell(pod, run.plan, Told("Normal", "Killing", f"Stopping container {container}"))
        if run.plan is not None:
            pod = self._put(pod, run, run.plan)
        if run.running is not None:
            run.running.end(meta["deletionGracePeriodSeconds"])
        elif pod["spec"]["nodeName"] not in self.lost:
            self._finish(pod, run, 137 if running else None)

    def _finish(self, pod: Object, run: Pod, code: int | None) -> None:
        """The last state of a pod that is being deleted, then its end; `code` of what was running."""
        if code is not None:
            at = now()
            ended: Object = {
                "containerID": run.identity.container_id,
                "exitCode": code,
                "startedAt": at,
                "finishedAt": at,
            }
            ended["reason"] = "Completed" if code == 0 else "Error"
            run.plan = Plan("Succeeded" if code == 0 else "Failed", {"terminated": ended}, log="")
            pod = self._put(pod, run, run.plan)
        # Its last state is for others to see before it is gone.
        asyncio.get_running_loop().call_soon(self._forget, pod)

    def _forget(self, pod: Object) -> None:
        meta = pod["metadata"]
        there = self._store.get("pods", meta["namespace"], meta["name"])
        if there is not None and there["metadata"]["uid"] == meta["uid"]:
            self._store.delete("pods", meta["namespace"], meta["name"], grace=0)

    # Status

    def _current(self, pod: Object) -> Object:
        return self._store.entry("pods", pod["metadata"]["namespace"], pod["metadata"]["name"]).obj

    def _put(self, pod: Object, run: Pod, made: Plan, *, address: bool = True) -> Object:
        node = self._store.get("nodes", "", pod["spec"]["nodeName"])
        host = node["status"]["addresses"][0]["address"] if node else pod["status"].get("hostIP", "")
        status = pod_status(pod, host, run.identity, made, address=address)
        return self._store.patch("pods", pod, status=status).obj

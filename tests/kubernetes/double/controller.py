"""The controller of agent-sandbox: keeps a pod and a headless Service for each Sandbox and tells its state."""

import asyncio
from typing import Any

from tests.kubernetes.double.errors import Refused
from tests.kubernetes.double.objects import new_pod, new_service
from tests.kubernetes.double.store import Change, Object, Store, annotations, now

HASH = "agents.x-k8s.io/sandbox-name-hash"
POD_NAME = "agents.x-k8s.io/pod-name"
_PROPAGATED = "agents.x-k8s.io/propagated-labels"


def name_hash(text: str) -> str:
    """FNV-1a, 32 bits, as hexadecimal digits."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{value:08x}"


def condition(obj: Object, type_: str) -> Object | None:
    """The condition of that type in an object's status."""
    found = (entry for entry in obj.get("status", {}).get("conditions", ()) if entry["type"] == type_)
    return next(found, None)


def is_ready(pod: Object) -> bool:
    ready = condition(pod, "Ready")
    return ready is not None and ready["status"] == "True"


def owner(obj: Object, kind: str, api_version: str) -> list[Object]:
    """The ownerReferences of what belongs to `obj`."""
    meta = obj["metadata"]
    reference = {"apiVersion": api_version, "kind": kind, "name": meta["name"], "uid": meta["uid"]}
    return [{**reference, "controller": True, "blockOwnerDeletion": True}]


class SandboxController:
    """Reconciles a Sandbox after each change of it, its pod or its Service. `legacy`: as v1alpha1 alone knew it."""

    def __init__(self, store: Store, *, legacy: bool) -> None:
        self._store, self._legacy = store, legacy
        self._queue: dict[tuple[str, str], None] = {}
        self.paused = False
        store.listeners.append(self._changed)

    def _changed(self, change: Change) -> None:
        entry = change.entry
        plural = entry.resource.plural
        if plural not in ("sandboxes", "pods", "services"):
            return
        name = entry.meta["name"]
        if plural != "sandboxes":
            owners = entry.meta.get("ownerReferences") or ()
            name = next((owner["name"] for owner in owners if owner.get("kind") == "Sandbox"), "")
        if name:
            self.enqueue(entry.meta.get("namespace", ""), name)

    def enqueue(self, namespace: str, name: str) -> None:
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._work)
        self._queue[namespace, name] = None

    def _work(self) -> None:
        if self.paused:
            return
        queue, self._queue = self._queue, {}
        for namespace, name in queue:
            self._reconcile(namespace, name)

    def resume(self) -> None:
        """Do what waited while it was paused."""
        self.paused = False
        self._work()

    def _reconcile(self, namespace: str, name: str) -> None:
        sandbox = self._store.get("sandboxes", namespace, name)
        if sandbox is None or sandbox["metadata"].get("deletionTimestamp"):
            return
        suspended = sandbox["spec"].get("operatingMode") == "Suspended"
        pod_name = annotations(sandbox).get(POD_NAME, name)
        pod = self._store.get("pods", namespace, pod_name)
        problem = None
        if pod is None and POD_NAME in annotations(sandbox):
            left = {key: value for key, value in annotations(sandbox).items() if key != POD_NAME}
            sandbox = self._store.patch("sandboxes", sandbox, annotations=left or None).obj
        if suspended:
            if pod is not None and not pod["metadata"].get("deletionTimestamp"):
                pod = self._store.delete("pods", namespace, pod_name).obj
        elif pod is None:
            try:
                pod = self._make_pod(sandbox)
            except Refused as refused:
                problem = f"Error seen: {refused}"
            else:
                marked = {**annotations(sandbox), POD_NAME: name}
                sandbox = self._store.patch("sandboxes", sandbox, annotations=marked).obj
        served = self._legacy or sandbox["spec"].get("service") is True
        if served and self._store.get("services", namespace, name) is None:
            self._make_service(sandbox)
        status = self._status(sandbox, pod, problem, served=served)
        self._store.patch("sandboxes", sandbox, status=status)

    def _make_pod(self, sandbox: Object) -> Object:
        meta, template = sandbox["metadata"], sandbox["spec"]["podTemplate"]
        wanted = template.get("metadata") or {}
        propagated = ",".join(sorted(wanted.get("labels") or {}))
        noted = {**(wanted.get("annotations") or {}), **({_PROPAGATED: propagated} if propagated else {})}
        pod_meta: Object = {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": {**(wanted.get("labels") or {}), HASH: name_hash(meta["name"])},
            "ownerReferences": owner(sandbox, "Sandbox", self._api_version()),
        }
        if noted:
            pod_meta["annotations"] = noted
        return self._store.create("pods", new_pod(self._store, {"metadata": pod_meta, "spec": template["spec"]})).obj

    def _make_service(self, sandbox: Object) -> None:
        meta, spec = sandbox["metadata"], sandbox["spec"]["podTemplate"]["spec"]
        ports = [
            {"name": port.get("name") or f"p-{port['containerPort']}-tcp", "port": port["containerPort"]}
            for container in spec["containers"]
            for port in container.get("ports", ())
        ]
        selector = {HASH: name_hash(meta["name"])}
        made: Object = {"name": meta["name"], "namespace": meta["namespace"], "labels": selector}
        made["ownerReferences"] = owner(sandbox, "Sandbox", self._api_version())
        wanted: Object = {"clusterIP": "None", "selector": selector, "ports": ports}
        if not ports:
            del wanted["ports"]
        service = new_service({"metadata": made, "spec": wanted}, str, int)
        self._store.create("services", service)

    def _api_version(self) -> str:
        return f"agents.x-k8s.io/{'v1alpha1' if self._legacy else 'v1beta1'}"

    def _status(self, sandbox: Object, pod: Object | None, problem: str | None, *, served: bool) -> Object:
        meta = sandbox["metadata"]
        old = sandbox.get("status", {})
        conditions = self._conditions(sandbox, pod, problem, served=served)
        status: Object = {"conditions": _merged(old.get("conditions", []), conditions, meta["generation"])}
        status["selector"] = f"{HASH}={name_hash(meta['name'])}"
        if served:
            status |= {"service": meta["name"], "serviceFQDN": f"{meta['name']}.{meta['namespace']}.svc.cluster.local"}
        if pod is not None:
            if node := pod["spec"].get("nodeName"):
                status["nodeName"] = node
            if addresses := pod["status"].get("podIPs"):
                status["podIPs"] = [entry["ip"] for entry in addresses]
        return status

    def _conditions(self, sandbox: Object, pod: Object | None, problem: str | None, *, served: bool) -> list[Any]:
        """(type, status, reason, message) of each condition there is."""
        suspended = sandbox["spec"].get("operatingMode") == "Suspended"
        phase = pod["status"]["phase"] if pod else None
        found: list[Any] = []
        if not suspended:
            found.append(("Suspended", "False", "NotSuspended", "Sandbox is not suspended"))
        elif pod:
            found.append(("Suspended", "False", "PodTerminating", "Pod is terminating. Sandbox is suspending"))
        else:
            found.append(("Suspended", "True", "PodTerminated", "Pod has been terminated. Sandbox is suspended"))
        if pod:
            scheduled = condition(pod, "PodScheduled")
            unknown = ("Unknown", "PodSchedulingUnknown", "Pod has not reported a PodScheduled condition yet")
            told = scheduled and (
                scheduled["status"],
                scheduled.get("reason", "PodScheduled"),
                scheduled.get("message", ""),
            )
            found.append(("PodScheduled", *(told or unknown)))
        with_service = "; Service Exists" if served else ""
        if problem is not None:
            found.append(("Ready", "False", "ReconcilerError", problem))
        elif suspended:
            found.append(("Ready", "False", "SandboxSuspended", f"Sandbox is {'suspending' if pod else 'suspended'}"))
        elif phase == "Failed":
            found.append(("Ready", "False", "PodFailed", "Pod failed"))
        elif phase == "Succeeded":
            found.append(("Ready", "False", "PodSucceeded", "Pod succeeded"))
        elif pod and is_ready(pod):
            found.append(("Ready", "True", "DependenciesReady", f"Pod is Ready{with_service}"))
        elif phase == "Running":
            found.append(("Ready", "False", "DependenciesNotReady", f"Pod is Running but not Ready{with_service}"))
        else:
            text = f"Pod exists with phase: {phase}{with_service}"
            found.append(("Ready", "False", "DependenciesNotReady", text))
        if phase in ("Failed", "Succeeded"):
            found.append(("Finished", "True", f"Pod{phase}", f"Pod {phase.lower()}"))
        return [entry for entry in found if entry[0] == "Ready"] if self._legacy else found


def _merged(old: list[Object], wanted: list[Any], generation: int) -> list[Object]:
    """The conditions in their old places, new ones last; the transition time changes with the status only."""
    by_type = {entry[0]: entry for entry in wanted}
    before = {entry["type"]: entry for entry in old}
    order = [type_ for type_ in before if type_ in by_type] + [type_ for type_ in by_type if type_ not in before]
    result: list[Object] = []
    for type_ in order:
        _, status, reason, message = by_type[type_]
        same = type_ in before and before[type_]["status"] == status
        since = before[type_]["lastTransitionTime"] if same else now()
        entry = {"type": type_, "status": status, "observedGeneration": generation, "lastTransitionTime": since}
        result.append({**entry, "reason": reason, "message": message})
    return result

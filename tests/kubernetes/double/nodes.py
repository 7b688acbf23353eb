"""The nodes: as they register, and what the node controller does when one is silent, gone or back."""

import uuid

from tests.kubernetes.double.controller import condition
from tests.kubernetes.double.events import tell
from tests.kubernetes.double.store import Object, Store, micro_now, now

_HEALTHY = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)
_SILENT = ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
_UNREACHABLE = "node.kubernetes.io/unreachable"
_CORDONED = "node.kubernetes.io/unschedulable"


def register(store: Store, name: str, address: str, *, cpu: str, memory: str, pods: int) -> None:
    """A new node and its lease."""
    machine = uuid.uuid4().hex
    resources = {"cpu": cpu, "ephemeral-storage": "264212084Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0"}
    resources |= {"memory": memory, "pods": str(pods)}
    arch = {"beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    attach = "volumes.kubernetes.io/controller-managed-attach-detach"
    info = {
        "architecture": "amd64",
        "operatingSystem": "linux",
        "osImage": "Debian GNU/Linux 12 (bookworm)",
        "kernelVersion": "6.18.44",
        "containerRuntimeVersion": "containerd://1.6.20",
        "kubeletVersion": "v1.36.2",
        "kubeProxyVersion": "",
        "machineID": machine,
        "systemUUID": machine,
        "bootID": str(uuid.uuid4()),
    }
    at = now()
    node: Object = {
        "metadata": {
            "name": name,
            "labels": {**arch, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            "annotations": {"node.alpha.kubernetes.io/ttl": "0", attach: "true"},
        },
        "spec": {},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "allocatable": {**resources, "ephemeral-storage": "267847642337"},
            "capacity": resources,
            "conditions": [
                {"type": kind, "status": status, "reason": reason, "message": text, **_times(at, at)}
                for kind, status, reason, text in _HEALTHY
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "images": [],
            "nodeInfo": info,
        },
    }
    entry = store.create("nodes", node)
    reference = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": entry.meta["uid"]}
    meta = {"name": name, "namespace": "kube-node-lease", "ownerReferences": [reference]}
    spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro_now()}
    store.create("leases", {"metadata": meta, "spec": spec})


def _times(beat: str, since: str) -> dict[str, str]:
    return {"lastHeartbeatTime": beat, "lastTransitionTime": since}


def silent(store: Store, name: str) -> None:
    """What is told of a node whose kubelet has not been heard of for a while: its pods are not ready any more."""
    node = store.entry("nodes", "", name).obj
    conditions = [
        {**entry, "status": _SILENT[0], "reason": _SILENT[1], "message": _SILENT[2], "lastTransitionTime": now()}
        for entry in node["status"]["conditions"]
    ]
    taints = [
        *(taint for taint in node["spec"].get("taints", ()) if taint["key"] != _UNREACHABLE),
        *({"key": _UNREACHABLE, "effect": effect, "timeAdded": now()} for effect in ("NoSchedule", "NoExecute")),
    ]
    spec, status = {**node["spec"], "taints": taints}, {**node["status"], "conditions": conditions}
    node = store.patch("nodes", node, spec=spec, status=status).obj
    text = f"Node {name} status is now: NodeNotReady"
    tell(store, node, "Node", "Normal", "NodeNotReady", text, source="node-controller")
    for pod in pods_on(store, name):
        ready = condition(pod, "Ready")
        if ready is None or ready["status"] != "True":
            continue
        changed = [
            {**entry, "status": "False", "lastTransitionTime": now()} if entry["type"] == "Ready" else entry
            for entry in pod["status"]["conditions"]
        ]
        pod = store.patch("pods", pod, status={**pod["status"], "conditions": changed}).obj
        tell(store, pod, "Pod", "Warning", "NodeNotReady", "Node is not ready", source="node-controller")


def back(store: Store, name: str) -> None:
    node = store.entry("nodes", "", name).obj
    said = {kind: (status, reason, text) for kind, status, reason, text in _HEALTHY}
    conditions = []
    for entry in node["status"]["conditions"]:
        status, reason, text = said[entry["type"]]
        conditions.append({**entry, "status": status, "reason": reason, "message": text, **_times(now(), now())})
    spec = {key: value for key, value in node["spec"].items() if key != "taints"}
    taints = [taint for taint in node["spec"].get("taints", ()) if taint["key"] != _UNREACHABLE]
    if taints:
        spec["taints"] = taints
    store.patch("nodes", node, spec=spec, status={**node["status"], "conditions": conditions})
    for pod in pods_on(store, name):
        inner = condition(pod, "ContainersReady")
        if inner is not None and inner["status"] == "True":
            changed = [
                {**entry, "status": "True", "lastTransitionTime": now()} if entry["type"] == "Ready" else entry
                for entry in pod["status"]["conditions"]
            ]
            store.patch("pods", pod, status={**pod["status"], "conditions": changed})


def evict(store: Store, name: str) -> None:
    """What the taint manager does after 300 seconds of silence."""
    for pod in pods_on(store, name):
        meta = pod["metadata"]
        text = f"Marking for deletion Pod {meta['namespace']}/{meta['name']}"
        tell(store, pod, "Pod", "Normal", "TaintManagerEviction", text, source="taint-eviction-controller")
        store.delete("pods", meta["namespace"], meta["name"])


def remove(store: Store, name: str) -> None:
    """The node's object, then its pods, which nobody else could end."""
    store.delete("nodes", "", name)
    for pod in pods_on(store, name):
        store.delete("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], grace=0)


def mark_cordoned(store: Store, node: Object) -> None:
    """Keep the taint of a node in step with its `unschedulable`."""
    taints = [taint for taint in node["spec"].get("taints", ()) if taint["key"] != _CORDONED]
    if bool(node["spec"].get("unschedulable")) == (len(taints) < len(node["spec"].get("taints", ()))):
        return
    if node["spec"].get("unschedulable"):
        taints.append({"key": _CORDONED, "effect": "NoSchedule", "timeAdded": now()})
    spec = {**node["spec"], "taints": taints}
    store.patch("nodes", node, spec=spec if taints else {key: value for key, value in spec.items() if key != "taints"})


def pods_on(store: Store, name: str) -> list[Object]:
    return [pod for pod in store.all("pods") if pod["spec"].get("nodeName") == name]

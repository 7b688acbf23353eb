"""The status of a pod, made of where its containers are."""

from dataclasses import dataclass

from tests.kubernetes.double.controller import condition
from tests.kubernetes.double.outcomes import Plan
from tests.kubernetes.double.store import Object, now

_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
_Told = tuple[str, str | None, str | None]
"""Status, reason and message of a condition."""


@dataclass(frozen=True)
class Identity:
    """What a pod is given as it starts."""

    address: str
    container_id: str
    image_id: str


def pod_status(pod: Object, host: str, identity: Identity, made: Plan, *, address: bool) -> Object:
    """The new status; `address`: whether the pod's own is known yet."""
    spec, old = pod["spec"], pod["status"]
    generation = pod["metadata"].get("generation", 1)
    states = _states(spec, identity, made)
    status: Object = {
        "observedGeneration": generation,
        "phase": made.phase,
        "conditions": _conditions(old, made, states, generation),
        "message": made.message,
        "reason": made.reason,
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "startTime": old.get("startTime", now()),
        "qosClass": old.get("qosClass"),
        "resources": _totals(spec),
    }
    if made.networked and (address or old.get("podIP")):
        status |= {"podIP": identity.address, "podIPs": [{"ip": identity.address}]}
    status |= {kind: found for kind, found in states.items() if found}
    if allocated := states["containerStatuses"][0].get("allocatedResources"):
        status["allocatedResources"] = allocated
    return {key: value for key, value in status.items() if value is not None}


def _states(spec: Object, identity: Identity, made: Plan) -> dict[str, list[Object]]:
    """The statuses of the containers: the plan is the first one's, the others do as well as they can."""
    initializing = Plan(state={"waiting": {"reason": "PodInitializing"}})
    waits = made.state.get("waiting", {}).get("reason")
    at = now()
    done: Object = {"containerID": identity.container_id, "exitCode": 0, "reason": "Completed"}
    ended = Plan(state={"terminated": {**done, "startedAt": at, "finishedAt": at}}, log="")
    first = initializing if made.init or waits == "PodInitializing" else made
    if made.phase in ("Failed", "Succeeded"):
        others = ended
    elif first is initializing or waits == "ContainerCreating":
        others = first
    else:
        others = Plan(state={"running": {"startedAt": at}}, ready=True, log="")
    plans = [first, *[others] * (len(spec["containers"]) - 1)]
    ended.ready = True
    before = made if made.init else ended if made.networked else initializing
    return {
        "containerStatuses": [
            _container(entry, identity, each) for entry, each in zip(spec["containers"], plans, strict=True)
        ],
        "initContainerStatuses": [_container(entry, identity, before) for entry in spec.get("initContainers", ())],
    }


def _conditions(old: Object, made: Plan, states: dict[str, list[Object]], generation: int) -> list[Object]:
    over = made.phase in ("Failed", "Succeeded")
    unready = " ".join(entry["name"] for entry in states["containerStatuses"] if not entry["ready"])
    ready: _Told = ("True", None, None)
    if over:
        ready = ("False", "PodCompleted" if made.phase == "Succeeded" else "PodFailed", None)
    elif unready:
        ready = ("False", "ContainersNotReady", f"containers with unready status: [{unready}]")
    initialized: _Told = ("True", "PodCompleted" if made.phase == "Succeeded" else None, None)
    if made.init:
        incomplete = " ".join(entry["name"] for entry in states["initContainerStatuses"])
        initialized = ("False", "ContainersNotInitialized", f"containers with incomplete status: [{incomplete}]")
    networked: _Told = ("True" if made.networked and not over else "False", None, None)
    told = dict(zip(_CONDITIONS, (networked, initialized, ready, ready, ("True", None, None)), strict=True))
    result: list[Object] = []
    for type_, (status, reason, message) in told.items():
        before = condition({"status": old}, type_)
        since = before["lastTransitionTime"] if before and before["status"] == status else now()
        entry: Object = {"type": type_, "observedGeneration": generation, "status": status, "lastProbeTime": None}
        entry |= {"lastTransitionTime": since, "reason": reason, "message": message}
        result.append({key: value for key, value in entry.items() if value is not None or key == "lastProbeTime"})
    return result


def _container(container: Object, identity: Identity, made: Plan) -> Object:
    started = made.log is not None
    entry: Object = {
        "name": container["name"],
        "state": made.state,
        "lastState": made.last,
        "ready": made.ready,
        "restartCount": made.restarts,
        "image": container["image"],
        "imageID": identity.image_id if started else "",
        "started": "running" in made.state,
    }
    if started:
        entry |= {"containerID": identity.container_id, "resources": container.get("resources", {})}
        if asked := container.get("resources", {}).get("requests"):
            entry["allocatedResources"] = asked
    if mounts := container.get("volumeMounts"):
        disabled = {"recursiveReadOnly": "Disabled"}
        entry["volumeMounts"] = [{**mount, **disabled} if mount.get("readOnly") else mount for mount in mounts]
    return entry


def _totals(spec: Object) -> Object:
    """The pod's resources: those of its container when just one asks for any."""
    asking = [entry["resources"] for entry in spec["containers"] if entry.get("resources")]
    return asking[0] if len(asking) == 1 else {}

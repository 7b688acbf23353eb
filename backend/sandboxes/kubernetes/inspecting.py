"""What the cluster's objects say of one sandbox and of its node, in the shapes of the diagnose answer (LAP REST 5.1).

Pure: raw objects of Kubernetes in, plain JSON out. An object that is not there is told apart from one that cannot be
known: only the latter's part has an `error`, which says why. A part may have both facts and an `error`: the facts are
then those of the last time they could be read.
"""

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, Protocol

from backend.domain import clock
from backend.domain.quantities import cpu_millicores, memory_bytes
from backend.sandboxes.contract import Inspection

Object = Mapping[str, Any]
Kind = Literal["sandboxes", "pods", "services", "nodes", "events", "requests"]

EVENT_LIMIT: Final = 50
TEXT_LIMIT: Final = 2_000
"""Characters of a message: kubelet and scheduler say more than anybody reads."""


class View(Protocol):
    """Objects as last seen in the cluster; None is "there is none", if `unknown` of their kind is None."""

    def sandbox(self, name: str) -> Object | None: ...

    def pod(self, name: str) -> Object | None:
        """The pod of the sandbox of that name."""
        ...

    def service(self, name: str) -> Object | None:
        """The service of ours in front of it."""
        ...

    def node(self, node_name: str) -> Object | None: ...

    def events_of(self, name: str) -> Sequence[Object]:
        """Of the sandbox, its pod and its service, newest last."""
        ...

    def requests_on(self, node_name: str) -> tuple[int, int, int] | None:
        """(millicores, bytes, pods) that the pods on a node request; None when that is not known."""
        ...

    def unknown(self, kind: Kind) -> str | None:
        """Why what is seen of a kind may not be what there is; None while it is."""
        ...


def inspect(view: View, name: str, own_pod: str | None = None) -> Inspection:
    """The sandbox `name`, of which some or all parts may be gone.

    `own_pod` is the uid of its pod, where that is known: another of that name, made in its place, is not its pod.
    """
    now = time.time()
    pod, sandbox = view.pod(name), view.sandbox(name)
    if own_pod is not None and pod is not None and _of(pod, "metadata").get("uid") != own_pod:
        pod = None
    node_name = _text(_of(pod, "spec"), "nodeName") or _text(_of(sandbox, "status"), "nodeName")
    return Inspection(
        pod=_part(pod_facts(pod, now), view.unknown("pods")),
        sandbox_cr=_part(sandbox_facts(sandbox, now), view.unknown("sandboxes")),
        service=_part(service_facts(view.service(name), now), view.unknown("services")),
        node=node_of(view, node_name, now) if node_name else {"exists": False},
        events=event_facts(view.events_of(name), own_pod or _text(_of(pod, "metadata"), "uid")),
    )


def node_of(view: View, name: str, now: float | None = None) -> dict[str, Any]:
    """A node as the part `node`."""
    facts = node_facts(view.node(name), view.requests_on(name), time.time() if now is None else now)
    facts.setdefault("name", name)
    if facts["exists"] and facts["allocated_requests"] is None:
        facts["allocation_error"] = view.unknown("requests") or "the requests of all pods are not known yet"
    return _part(facts, view.unknown("nodes"))


def pod_facts(pod: Object | None, now: float) -> dict[str, Any]:
    """The part `pod`. Statuses of init containers have `init`; what ended before the last restart is in `last_...`."""
    if pod is None:
        return {"exists": False}
    metadata, status = _of(pod, "metadata"), _of(pod, "status")
    spec = _of(pod, "spec")
    sidecars = {each.get("name") for each in _list(spec, "initContainers") if each.get("restartPolicy") == "Always"}
    containers = [
        *(_container(each, init=each.get("name") not in sidecars) for each in _list(status, "initContainerStatuses")),
        *(_container(each, init=False) for each in _list(status, "containerStatuses")),
    ]
    facts = {
        "exists": True,
        "name": _text(metadata, "name"),
        "namespace": _text(metadata, "namespace"),
        "phase": _text(status, "phase"),
        "pod_ip": _text(status, "podIP"),
        "pod_ips": addresses(status.get("podIPs")),
        "node_name": _text(spec, "nodeName"),
        "age_ms": _age_ms(metadata.get("creationTimestamp"), now),
        "restart_count": sum(each["restart_count"] for each in containers),
        "container_statuses": containers,
        "conditions": _conditions(status, now),
    }
    for key in ("reason", "message"):
        if said := _text(status, key):
            facts[key] = said
    if "deletionTimestamp" in metadata:
        facts["deleting_ms"] = _age_ms(metadata["deletionTimestamp"], now)
    return facts


def sandbox_facts(sandbox: Object | None, now: float) -> dict[str, Any]:
    """The part `sandbox_cr`."""
    if sandbox is None:
        return {"exists": False}
    metadata, status = _of(sandbox, "metadata"), _of(sandbox, "status")
    return {
        "exists": True,
        "name": _text(metadata, "name"),
        "namespace": _text(metadata, "namespace"),
        "age_ms": _age_ms(metadata.get("creationTimestamp"), now),
        "conditions": _conditions(status, now),
        "pod_ips": addresses(status.get("podIPs")),
        "service": _text(status, "service"),
        "raw_status": dict(status),
    }


def service_facts(service: Object | None, now: float) -> dict[str, Any]:
    """The part `service`; `node_port` is that of its first port."""
    if service is None:
        return {"exists": False}
    metadata, spec = _of(service, "metadata"), _of(service, "spec")
    ports = [
        {
            "port": port.get("port"),
            "target_port": port.get("targetPort"),
            "node_port": port.get("nodePort"),
            "protocol": port.get("protocol", "TCP"),
        }
        for port in _list(spec, "ports")
    ]
    return {
        "exists": True,
        "name": _text(metadata, "name"),
        "type": _text(spec, "type"),
        "cluster_ip": _text(spec, "clusterIP"),
        "age_ms": _age_ms(metadata.get("creationTimestamp"), now),
        "ports": ports,
        "node_port": ports[0]["node_port"] if ports else None,
    }


def node_facts(node: Object | None, requests: tuple[int, int, int] | None, now: float) -> dict[str, Any]:
    """The part `node`. `allocated_pct` is of capacity and rounded, to be read; who decides divides for itself."""
    if node is None:
        return {"exists": False}
    metadata, status = _of(node, "metadata"), _of(node, "status")
    conditions = _conditions(status, now)
    ready = next((each for each in conditions if each["type"] == "Ready"), {})
    at = {each.get("type"): each.get("address") for each in reversed(_list(status, "addresses"))}
    capacity = _resources(status, "capacity")
    allocated = {"cpu_millicores": requests[0], "memory_bytes": requests[1]} if requests else None
    return {
        "exists": True,
        "name": _text(metadata, "name"),
        "ready_status": ready.get("status"),
        "ready_reason": ready.get("reason"),
        "internal_ip": at.get("InternalIP"),
        "external_ip": at.get("ExternalIP"),
        "age_ms": _age_ms(metadata.get("creationTimestamp"), now),
        "unschedulable": bool(_of(node, "spec").get("unschedulable")),
        "taints": [
            {key: taint[key] for key in ("key", "value", "effect") if key in taint}
            for taint in _list(_of(node, "spec"), "taints")
        ],
        "conditions": conditions,
        "capacity": capacity,
        "allocatable": _resources(status, "allocatable"),
        "allocated_requests": allocated,
        "pod_count": requests[2] if requests else None,
        "allocated_pct": {
            "cpu": _percent(allocated["cpu_millicores"], capacity["cpu_millicores"]),
            "memory": _percent(allocated["memory_bytes"], capacity["memory_bytes"]),
        }
        if allocated
        else None,
    }


def event_facts(events: Sequence[Object], own: str | None = None) -> list[dict[str, Any]]:
    """The last EVENT_LIMIT events, newest last, without those of pods of another uid than `own`."""
    found = []
    for event in events:
        about = _of(event, "involvedObject")
        if own and about.get("kind") == "Pod" and about.get("uid", own) != own:
            continue
        series = _of(event, "series")
        found.append(
            {
                "reason": _text(event, "reason"),
                "message": _text(event, "message"),
                "at": _moment(event, series),
                "type": _text(event, "type"),
                "kind": _text(about, "kind"),
                "name": _text(about, "name"),
                "count": series.get("count") or event.get("count") or 1,
            }
        )
    return found[-EVENT_LIMIT:]


def addresses(told: Any) -> list[str]:
    """IP addresses of a pod, which tells objects, or of a Sandbox, which tells plain texts."""
    entries = told if isinstance(told, list) else []
    found = [each.get("ip") if isinstance(each, Mapping) else each for each in entries]
    return [each for each in found if isinstance(each, str)]


def _container(status: Object, *, init: bool) -> dict[str, Any]:
    state = _of(status, "state")
    restarts = status.get("restartCount")
    facts: dict[str, Any] = {
        "name": _text(status, "name"),
        "ready": bool(status.get("ready")),
        "restart_count": restarts if isinstance(restarts, int) else 0,
        "image": _text(status, "image"),
    }
    if init:
        facts["init"] = True
    if waiting := _of(state, "waiting"):
        facts |= _told("waiting", waiting, ("reason", "message"))
    if ended := _of(state, "terminated"):
        facts |= _ending("terminated", ended)
    if before := _of(_of(status, "lastState"), "terminated"):
        facts |= _ending("last_terminated", before)
    return facts


def _ending(prefix: str, ended: Object) -> dict[str, Any]:
    code = {f"{prefix}_exit_code": ended["exitCode"]} if isinstance(ended.get("exitCode"), int) else {}
    at = {f"{prefix}_at": ended["finishedAt"]} if isinstance(ended.get("finishedAt"), str) else {}
    return _told(prefix, ended, ("reason", "message")) | code | at


def _told(prefix: str, source: Object, keys: Sequence[str]) -> dict[str, Any]:
    return {f"{prefix}_{key}": said for key in keys if (said := _text(source, key))}


def _conditions(status: Object, now: float) -> list[dict[str, Any]]:
    return [
        {
            **{key: said for key in ("type", "status", "reason", "message") if (said := _text(each, key)) is not None},
            "age_ms": _age_ms(each.get("lastTransitionTime"), now),
        }
        for each in _list(status, "conditions")
        if each.get("type")
    ]


def _resources(status: Object, name: str) -> dict[str, int | None]:
    resources = _of(status, name)
    return {
        "cpu_millicores": _millicores(str(resources.get("cpu", ""))),
        "memory_bytes": _bytes(str(resources.get("memory", ""))),
    }


_millicores = lru_cache(256)(cpu_millicores)
_bytes = lru_cache(256)(memory_bytes)


def _percent(part: int, whole: int | None) -> int | None:
    return round(100 * part / whole) if whole else None


def _moment(event: Object, series: Object) -> str | None:
    """When an event was last seen, in the form of `clock`."""
    last = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    last = last or event.get("firstTimestamp") or _of(event, "metadata").get("creationTimestamp")
    return _stored(last) if isinstance(last, str) else None


def _age_ms(moment: Any, now: float) -> int | None:
    seconds = _seconds(moment)
    return None if seconds is None else round((now - seconds) * 1000)


def _seconds(moment: Any) -> float | None:
    return _parsed(moment) if isinstance(moment, str) else None


@lru_cache(4096)
def _stored(moment: str) -> str | None:
    """The same moment in the form of `clock`."""
    try:
        return clock.text(clock.parse(moment))
    except (ValueError, OverflowError):
        return None


@lru_cache(4096)
def _parsed(moment: str) -> float | None:
    """Seconds since 1970; objects of a fleet have many times, and most of them stay."""
    try:
        return clock.parse(moment).timestamp()
    except (ValueError, OverflowError):
        return None


def _part(facts: dict[str, Any], unknown: str | None) -> dict[str, Any]:
    return facts if unknown is None else {**facts, "error": unknown}


def _of(source: Object | None, key: str) -> Object:
    value = source.get(key) if source else None
    return value if isinstance(value, dict) else {}


def _list(source: Object, key: str) -> list[Object]:
    value = source.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(source: Object, key: str) -> str | None:
    value = source.get(key)
    return value[:TEXT_LIMIT] if isinstance(value, str) else None

"""What the API server serves: each resource, its versions and verbs, and discovery's answers about them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CRUD = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_CUSTOM = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
"""The order in which discovery lists the verbs of custom resources."""


@dataclass(frozen=True)
class Resource:
    """A resource of the API. `versions`: those that exist, the stored one first."""

    group: str
    versions: tuple[str, ...]
    plural: str
    kind: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    custom: bool = False
    fields: tuple[str, ...] = ()
    """What a fieldSelector may name beside name and namespace."""
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False, hash=False)

    @property
    def full(self) -> str:
        """The name in messages: plural.group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def api_version(self, version: str) -> str:
        return f"{self.group}/{version}" if self.group else version


_POD_FIELDS = ("spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP")
_EVENT_FIELDS = (
    *(f"involvedObject.{name}" for name in ("kind", "name", "namespace", "uid", "resourceVersion", "fieldPath")),
    *("reason", "type", "source", "reportingComponent"),
)
_CORE = (
    Resource("", ("v1",), "namespaces", "Namespace", False, ("status",), ("ns",), fields=("status.phase",)),
    Resource("", ("v1",), "nodes", "Node", False, ("status",), ("no",), fields=("spec.unschedulable",)),
    Resource("", ("v1",), "pods", "Pod", True, ("log", "status"), ("po",), fields=_POD_FIELDS),
    Resource("", ("v1",), "services", "Service", True, ("status",), ("svc",), fields=("spec.clusterIP", "spec.type")),
    Resource("", ("v1",), "events", "Event", True, (), ("ev",), fields=_EVENT_FIELDS),
    Resource("", ("v1",), "secrets", "Secret", True, fields=("type",)),
    Resource("", ("v1",), "configmaps", "ConfigMap", True, (), ("cm",)),
    Resource("apps", ("v1",), "deployments", "Deployment", True, ("status",), ("deploy",)),
    Resource("apps", ("v1",), "daemonsets", "DaemonSet", True, ("status",), ("ds",)),
    Resource("apps", ("v1",), "replicasets", "ReplicaSet", True, ("status",), ("rs",)),
    Resource("coordination.k8s.io", ("v1",), "leases", "Lease"),
    Resource("networking.k8s.io", ("v1",), "networkpolicies", "NetworkPolicy", True, (), ("netpol",)),
    Resource("scheduling.k8s.io", ("v1",), "priorityclasses", "PriorityClass", False, (), ("pc",)),
)


def _resolve(node: Any, shared: list[Any]) -> Any:
    """The schema with {"$ref": number} replaced; what is shared stays one object."""
    if isinstance(node, list):
        return [_resolve(item, shared) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), int):
        return shared[node["$ref"]]
    return {key: _resolve(value, shared) for key, value in node.items()}


def _custom() -> tuple[Resource, ...]:
    """The resources of agent-sandbox, from its CustomResourceDefinitions without their descriptions."""
    data = json.loads((Path(__file__).parent / "crds.json").read_text())
    shared = data["shared"]
    # Parts refer only to parts with a lower or a higher number, never in a circle: resolve until nothing is left.
    while any('"$ref":' in json.dumps(part) for part in shared):
        for number, part in enumerate(shared):
            shared[number] = _resolve(part, shared)
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in data["resources"]:
        found.setdefault(entry["names"]["plural"], []).append(entry)
    return tuple(
        Resource(
            entries[0]["group"],
            tuple(entry["version"] for entry in entries),
            plural,
            entries[0]["names"]["kind"],
            True,
            tuple(entries[0]["subresources"]),
            tuple(entries[0]["names"]["shortNames"]),
            True,
            schemas={entry["version"]: _resolve(entry["schema"], shared) for entry in entries},
        )
        for plural, entries in found.items()
    )


ALL: dict[str, Resource] = {resource.plural: resource for resource in (*_CORE, *_custom())}
CLAIMS = "extensions.agents.x-k8s.io"


class Catalog:
    """The resources one double serves: `versions` of agent-sandbox, with or without its extensions (claims)."""

    def __init__(self, versions: tuple[str, ...], *, claims: bool) -> None:
        self.served: dict[tuple[str, str, str], Resource] = {}
        """By group, version and plural."""
        for resource in ALL.values():
            known = ("v1beta1",) if claims else ()  # The older form of the extensions is not converted.
            wanted = known if resource.group == CLAIMS else versions
            for version in resource.versions:
                if not resource.custom or version in wanted:
                    self.served[resource.group, version, resource.plural] = resource

    def groups(self) -> dict[str, list[str]]:
        """Group -> versions, the preferred one first."""
        found: dict[str, list[str]] = {}
        for group, version, _ in self.served:
            versions = found.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return found

    def discovery(self, path: str) -> dict[str, Any] | None:
        """The answer to /api, /apis, /apis/GROUP, /api/v1 and /apis/GROUP/VERSION; None when there is no such group."""
        groups = self.groups()
        if path == "/api":
            addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:443"}]
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}
        if path == "/apis":
            listed = [self._group(group, versions) for group, versions in groups.items() if group]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        parts = path.strip("/").split("/")
        if parts == ["api", "v1"]:
            return self._resources("", "v1")
        if parts[0] != "apis" or len(parts) > 3 or parts[1] not in groups or parts[1] == "":
            return None
        if len(parts) == 2:
            return {"kind": "APIGroup", "apiVersion": "v1", **self._group(parts[1], groups[parts[1]])}
        return self._resources(parts[1], parts[2]) if parts[2] in groups[parts[1]] else None

    @staticmethod
    def _group(group: str, versions: list[str]) -> dict[str, Any]:
        entries = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
        return {"name": group, "versions": entries, "preferredVersion": entries[0]}

    def _resources(self, group: str, version: str) -> dict[str, Any]:
        listed: list[dict[str, Any]] = []
        for (of_group, of_version, plural), resource in self.served.items():
            if (of_group, of_version) != (group, version):
                continue
            common = {"kind": resource.kind, "namespaced": resource.namespaced}
            entry = {**common, "name": plural, "singularName": resource.kind.lower()}
            entry["verbs"] = list(_CUSTOM if resource.custom else _CRUD)
            if resource.short:
                entry["shortNames"] = list(resource.short)
            listed.append(entry)
            for name in resource.subresources:
                verbs = ["get"] if name == "log" else ["get", "patch", "update"]
                listed.append({**common, "name": f"{plural}/{name}", "singularName": "", "verbs": verbs})
        name = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}

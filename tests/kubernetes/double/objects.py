"""What the API server adds to pods and services, and how quantities read."""

import random
import re
from collections.abc import Callable
from functools import lru_cache

from tests.kubernetes.double import errors
from tests.kubernetes.double.resources import ALL
from tests.kubernetes.double.store import Object, Store

_UNITS = {
    "": 1,
    "m": 0.001,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


@lru_cache(1024)
def quantity(text: str | int | float) -> float:
    """ "100m" -> 0.1, "512Mi" -> 536870912.0. Raises ValueError."""
    match = re.fullmatch(r"([0-9.]+)(m|[kMGT]i?|Ki)?", str(text))
    if match is None or match[2] == "ki":
        raise ValueError(f"not a quantity: {text}")
    return float(match[1]) * _UNITS[match[2] or ""]


def suffix(length: int = 5) -> str:
    """What generateName appends."""
    return "".join(random.choices(_ALPHABET, k=length))


def requests(pod: Object) -> tuple[float, float]:
    """CPU in cores and memory in bytes: of all containers together, or of the hungriest init container."""
    totals = []
    for name in ("cpu", "memory"):
        amounts = [
            [quantity(container.get("resources", {}).get("requests", {}).get(name, 0)) for container in part]
            for part in (pod["spec"].get("containers", ()), pod["spec"].get("initContainers", ()))
        ]
        totals.append(max(sum(amounts[0]), max(amounts[1], default=0.0)))
    return totals[0], totals[1]


def quality(spec: Object) -> str:
    """The quality of service class of a pod."""
    resources = [container.get("resources", {}) for container in spec["containers"]]
    if not any(part.get("requests") or part.get("limits") for part in resources):
        return "BestEffort"
    guaranteed = all({"cpu", "memory"} <= set(part.get("limits", ())) for part in resources)
    return "Guaranteed" if guaranteed and all(p.get("requests") == p["limits"] for p in resources) else "Burstable"


def _container(container: Object, token: Object | None) -> Object:
    resources = dict(container.get("resources") or {})
    if resources.get("limits"):
        resources["requests"] = {**resources["limits"], **resources.get("requests", {})}
    image = container.get("image", "")
    latest = ":" not in image.rpartition("/")[2] or image.endswith(":latest")
    made = {
        "image": image,
        "imagePullPolicy": "Always" if latest else "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        **container,
        "resources": resources,
    }
    if "ports" in made:
        made["ports"] = [{"protocol": "TCP", **port} for port in made["ports"]]
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe in made:
            defaults = {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}
            made[probe] = {**defaults, **made[probe]}
            if "httpGet" in made[probe]:
                made[probe]["httpGet"] = {"path": "/", "scheme": "HTTP", **made[probe]["httpGet"]}
    if token:
        made["volumeMounts"] = [*made.get("volumeMounts", ()), token]
    return made


def _token_volume(name: str) -> Object:
    def config(map_name: str, item: str) -> Object:
        return {"configMap": {"items": [{"key": item, "path": item}], "name": map_name}}

    namespace = {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        config("kube-root-ca.crt", "ca.crt"),
        {"downwardAPI": {"items": [namespace]}},
        config("openshift-service-ca.crt", "service-ca.crt"),
    ]
    return {"name": name, "projected": {"defaultMode": 420, "sources": sources}}


def new_pod(store: Store, obj: Object) -> Object:
    """A pod as it is stored. Raises Refused: 403 for an unknown priority class, 422 without containers."""
    name, spec = obj["metadata"]["name"], dict(obj.get("spec") or {})
    if not spec.get("containers"):
        cause = {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers"}
        raise errors.invalid("Pod", "", name, [cause])
    priority = 0
    if class_name := spec.get("priorityClassName"):
        found = store.get("priorityclasses", "", class_name)
        if found is None:
            why = f"no PriorityClass with name {class_name} was found"
            raise errors.not_admitted(ALL["pods"], name, why)
        priority = found.get("value", 0)
    volume = f"kube-api-access-{suffix()}"
    mounts = spec.get("automountServiceAccountToken", True)
    token = {"mountPath": _TOKEN, "name": volume, "readOnly": True} if mounts else None
    tolerations = [
        {"effect": "NoExecute", "key": f"node.kubernetes.io/{key}", "operator": "Exists", "tolerationSeconds": 300}
        for key in ("not-ready", "unreachable")
    ]
    account = spec.get("serviceAccountName", "default")
    spec = {
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
        **spec,
        "priority": priority,
        "serviceAccount": account,
        "serviceAccountName": account,
        "tolerations": [*spec.get("tolerations", ()), *tolerations],
    }
    for part in ("initContainers", "containers"):
        if part in spec:
            spec[part] = [_container(container, token) for container in spec[part]]
    if token:
        spec["volumes"] = [*spec.get("volumes", ()), _token_volume(volume)]
    return {"metadata": obj["metadata"], "spec": spec, "status": {"phase": "Pending", "qosClass": quality(spec)}}


def new_service(obj: Object, cluster_ip: Callable[[], str], node_port: Callable[[int], int]) -> Object:
    """A service as it is stored; the callbacks give addresses. Raises Refused (422) without ports."""
    spec = dict(obj.get("spec") or {})
    if not spec.get("ports") and spec.get("clusterIP") != "None":
        cause = {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.ports"}
        raise errors.invalid("Service", "", obj["metadata"]["name"], [cause])
    kind = spec.get("type", "ClusterIP")
    address = spec.get("clusterIP") or cluster_ip()
    ports = [{"protocol": "TCP", "targetPort": port["port"], **port} for port in spec.get("ports", ())]
    if kind in ("NodePort", "LoadBalancer"):
        ports = [{**port, "nodePort": node_port(port.get("nodePort", 0))} for port in ports]
        spec.setdefault("externalTrafficPolicy", "Cluster")
    spec = {
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "sessionAffinity": "None",
        **spec,
        "clusterIP": address,
        "clusterIPs": [address],
        "type": kind,
        "ports": ports,
    }
    return {"metadata": obj["metadata"], "spec": spec, "status": {"loadBalancer": {}}}

"""The Kubernetes objects of a sandbox (LAP REST 10): its Sandbox and the Service in front of it. Pure; no secrets."""

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backend.domain import env_vars
from backend.sandboxes.contract import SandboxSpec

Json = dict[str, Any]

CONTAINER: Final = "harness"
PORT: Final = 4096
ROOT: Final = "/sandbox"
"""What the harness writes to; everything else is read-only."""
AGENT_LABEL: Final = "litellm-agent-id"
SESSION_LABEL: Final = "litellm-session-id"
WARM_LABEL: Final = "litellm-warm-task-id"
NAME_LABEL: Final = "litellm-sandbox-name"
TOKEN_DIGEST: Final = "LAP_TOKEN_SHA256"
GRACE_SECONDS: Final = 10
"""How long a harness may take to end its agent."""
MAX_SKEW: Final = 2
"""By how many an agent's sandboxes may be unevenly spread over the nodes."""
TMP_MB: Final = 2048
RUN_MB: Final = 1024
"""For files the platform puts at absolute paths, the recording, and sockets."""

_NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,58}[a-z0-9])?")
"""Both `<name>` and `<name>-np` must be names of a Service."""


@dataclass(frozen=True, slots=True)
class PodSettings:
    """What the operator decides about pods. Quantities are as Kubernetes writes them; "" leaves a part out."""

    images: Mapping[str, str]
    """By harness id."""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: Sequence[str] = ()
    cpu_request: str = "100m"
    memory_request: str = "512Mi"
    cpus: float = 2.0
    memory_mb: int = 4096
    disk_mb: int = 20_480
    """For the agent's home, in which it works."""
    priority_active: str = ""
    priority_warm: str = ""
    runtime_class: str = ""
    user: int = 1000
    service_type: str = "NodePort"


def is_name(name: str) -> bool:
    """Whether a sandbox may be called so."""
    return _NAME.fullmatch(name) is not None


def service_name(name: str) -> str:
    """The Service in front of a sandbox. `<name>` itself is the controller's, where it makes one."""
    return f"{name}-np"


def digest(token: str) -> str:
    """What the cluster gets to see of a harness token."""
    return hashlib.sha256(token.strip().encode()).hexdigest()


def digest_of(sandbox: Mapping[str, Any]) -> str | None:
    """The digest of the token that a Sandbox's harness takes."""
    containers = sandbox["spec"]["podTemplate"]["spec"]["containers"]
    variables = (each for container in containers for each in container.get("env") or ())
    return next((each.get("value") for each in variables if each.get("name") == TOKEN_DIGEST), None)


def labels(spec: SandboxSpec) -> dict[str, str]:
    """Whose the sandbox is."""
    owner = {SESSION_LABEL: spec.session_id} if spec.session_id else {WARM_LABEL: _task_id(spec.name)}
    return {AGENT_LABEL: spec.agent_id, **owner}


def is_ours(body: Mapping[str, Any]) -> bool:
    """Whether an object is part of a sandbox of the platform."""
    found = body["metadata"].get("labels") or {}
    return AGENT_LABEL in found and (SESSION_LABEL in found or WARM_LABEL in found)


def sandbox(spec: SandboxSpec, settings: PodSettings, version: str) -> Json:
    """The Sandbox, in a version of agent-sandbox."""
    marks = labels(spec)
    return {
        "apiVersion": f"agents.x-k8s.io/{version}",
        "kind": "Sandbox",
        "metadata": {"name": spec.name, "labels": marks},
        "spec": {
            "podTemplate": {
                "metadata": {"labels": {**marks, NAME_LABEL: spec.name}},
                "spec": _pod(spec, settings),
            },
        },
    }


def service(owner: Mapping[str, Any], service_type: str) -> Json:
    """The Service in front of the sandbox `owner`, as the API server knows it: it goes when that goes."""
    metadata = owner["metadata"]
    name = metadata["name"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service_name(name),
            "labels": dict(metadata.get("labels") or {}),
            "ownerReferences": [
                {
                    "apiVersion": owner["apiVersion"],
                    "kind": owner["kind"],
                    "name": name,
                    "uid": metadata["uid"],
                }
            ],
        },
        "spec": {
            "type": service_type,
            "selector": {NAME_LABEL: name},
            "ports": [{"name": "harness", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
            # The harness says itself when it is ready, and must be reachable while it is not.
            "publishNotReadyAddresses": True,
        },
    }


def limits(settings: PodSettings) -> dict[str, Any]:
    """The limits as the session page shows them."""
    return {
        "memory_mb": settings.memory_mb,
        "cpus": settings.cpus,
        "disk_mb": settings.disk_mb,
        "by": "kubernetes",
    }


def _pod(spec: SandboxSpec, settings: PodSettings) -> Json:
    priority = settings.priority_active if spec.session_id else settings.priority_warm
    volumes = {
        "run": (ROOT, RUN_MB),
        "home": (f"{ROOT}/home", settings.disk_mb),
        "tmp": (f"{ROOT}/tmp", TMP_MB),
    }
    mounts = [{"name": name, "mountPath": path} for name, (path, _) in volumes.items()]
    pod: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.user,
            "fsGroup": settings.user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": MAX_SKEW,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {AGENT_LABEL: spec.agent_id}},
            }
        ],
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.images[spec.harness_id],
                "imagePullPolicy": settings.image_pull_policy,
                # -P: the working directory is no place to import from.
                "command": ["python", "-P", "-m", "backend.harness"],
                "args": ["--listen", f"0.0.0.0:{PORT}", "--root", ROOT],
                "workingDir": f"{ROOT}/home",
                "env": _environment(spec),
                "ports": [{"name": "harness", "containerPort": PORT, "protocol": "TCP"}],
                "readinessProbe": {
                    "httpGet": {"path": "/healthz", "port": PORT},
                    "periodSeconds": 5,
                    "timeoutSeconds": 3,
                    "failureThreshold": 3,
                },
                "resources": _resources(settings),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                # The end of the log outlives the container, in its status.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [
            {"name": name, "emptyDir": {"sizeLimit": f"{megabytes}Mi"}} for name, (_, megabytes) in volumes.items()
        ],
    }
    if priority:
        pod["priorityClassName"] = priority
    if settings.runtime_class:
        pod["runtimeClassName"] = settings.runtime_class
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return pod


def _resources(settings: PodSettings) -> Json:
    return {
        "requests": {"cpu": settings.cpu_request, "memory": settings.memory_request},
        "limits": {"cpu": f"{round(settings.cpus * 1000)}m", "memory": f"{settings.memory_mb}Mi"},
    }


def _environment(spec: SandboxSpec) -> list[Json]:
    """The harness's. The platform's own proxy and certificate settings mean another machine; CONTAINER_ENV_ is for
    pods, and travels in the hand-over.
    """
    given = {
        name: value for name, value in spec.env.items() if name not in env_vars.NETWORK and not name.startswith("UV_")
    }
    own = {
        "HOME": f"{ROOT}/home",
        "TMPDIR": f"{ROOT}/tmp",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        TOKEN_DIGEST: digest(spec.token),
    }
    # The kubelet would replace "$(NAME)" by another variable's value.
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in {**given, **own}.items()]


def _task_id(name: str) -> str:
    """The id of a warm task, of which its sandbox's name is made."""
    try:
        return str(uuid.UUID(hex=name.removeprefix("w-")))
    except ValueError:
        return name

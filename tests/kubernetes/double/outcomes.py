"""What can become of a pod's containers: status, events and logs of each outcome, as a kubelet tells them.

An outcome is a name, with an exit code after a colon where one makes sense: "running", "crash:3".
"""

from dataclasses import dataclass, field, replace

from tests.kubernetes.double.store import Object, now

_DEADLINE = "Pod was active on the node longer than the specified deadline"
_EVICTED = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 64Mi. "
_NO_NETWORK = 'Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "0": plugin type="bridge" failed (add): no IP addresses available in range set'  # noqa: E501
_NO_VOLUME = 'MountVolume.SetUp failed for volume "data" : secret "absent" not found'
OUTCOMES = (
    *("running", "creating", "not-ready", "crash", "bad-command", "oom", "completed", "failed", "deadline", "evicted"),
    *("config-error", "image-never", "pull-error", "pull-backoff", "init-fail", "unschedulable", "no-network"),
    "missing-volume",
)


@dataclass(frozen=True)
class Told:
    """An event about a pod's container or, `pod`, about all of it."""

    type: str
    reason: str
    message: str
    count: int = 1
    pod: bool = False


@dataclass
class Plan:
    """Where a pod ends up. `state`, `last` and `events` are those of its first container."""

    phase: str = "Pending"
    state: Object = field(default_factory=dict)
    last: Object = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    events: list[Told] = field(default_factory=list)
    log: str | None = None
    """What the container has written; None when it never ran."""
    reason: str | None = None
    message: str | None = None
    networked: bool = True
    init: bool = False
    """Whether state, last and events are the first init container's."""


def plan(outcome: str, pod: Object, container_id: str) -> Plan:
    """The end of `outcome` for a pod with its restart policy."""
    name, _, code = outcome.partition(":")
    container = pod["spec"]["initContainers" if name == "init-fail" else "containers"][0]
    image = container["image"]
    present = f'Container image "{image}" already present on machine and can be accessed by the pod'
    started = [Told("Normal", "Pulled", present), Told("Normal", "Created", "Container created")]
    started.append(Told("Normal", "Started", "Container started"))
    if name in ("running", "not-ready"):
        made = Plan(
            "Running", {"running": {"startedAt": now()}}, ready=name == "running", events=started, log="hello\n"
        )
        if name == "not-ready":
            made.events.append(Told("Warning", "Unhealthy", _unhealthy(container, pod), 25))
        return made
    if name in ("crash", "failed", "completed", "oom", "bad-command", "init-fail"):
        return _ended(name, code, pod, container_id, started)
    if name in ("deadline", "evicted"):
        ended = {
            "containerID": container_id,
            "exitCode": 137,
            "reason": "Error",
            "startedAt": now(),
            "finishedAt": now(),
        }
        made = Plan("Failed", {"terminated": ended}, events=started, log="")
        made.reason, made.message = ("DeadlineExceeded", _DEADLINE) if name == "deadline" else ("Evicted", _EVICTED)
        kind, count = ("Normal", 4) if name == "deadline" else ("Warning", 1)
        made.events.append(Told(kind, made.reason, made.message, count, pod=True))
        made.events.append(Told("Normal", "Killing", f"Stopping container {container['name']}"))
        return made
    if name == "creating":
        return Plan(state={"waiting": {"reason": "ContainerCreating"}}, networked=False)
    if name in ("no-network", "missing-volume"):
        told = ("FailedCreatePodSandBox", _NO_NETWORK) if name == "no-network" else ("FailedMount", _NO_VOLUME)
        state = {"waiting": {"reason": "ContainerCreating"}}
        return Plan(state=state, networked=False, events=[Told("Warning", *told, 3, pod=True)])
    return _not_started(name, container, present)


def _not_started(name: str, container: Object, present: str) -> Plan:
    image = container["image"]
    if name == "config-error":
        text = missing(container) or 'configmap "absent" not found'
        events = [Told("Normal", "Pulled", present, 4), Told("Warning", "Failed", f"Error: {text}", 4)]
        return Plan(state=_waiting("CreateContainerConfigError", text), events=events)
    if name == "image-never":
        text = f'Container image "{image}" is not present with pull policy of Never'
        reason = "ErrImageNeverPull"
        events = [Told("Warning", reason, text, 4), Told("Warning", "Failed", f"Error: {reason}", 4)]
        return Plan(state=_waiting(reason, text), events=events)
    path, _, tag = image.rpartition(":")
    host, _, repository = path.partition("/")
    refused = f'failed to do request: Head "http://{host}/v2/{repository}/manifests/{tag}": dial tcp {host}: connect: connection refused'  # noqa: E501
    text = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {refused}'
    events = [
        Told("Normal", "Pulling", f'Pulling image "{image}"', 2),
        Told("Warning", "Failed", f'Failed to pull image "{image}": {text}', 2),
        Told("Warning", "Failed", "Error: ErrImagePull", 2),
        Told("Normal", "BackOff", f'Back-off pulling image "{image}"', 2),
        Told("Warning", "Failed", "Error: ImagePullBackOff", 2),
    ]
    if name == "pull-backoff":
        state = _waiting("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {text}')
    else:
        state = _waiting("ErrImagePull", text)
    return Plan(state=state, events=events)


def _ended(name: str, code: str, pod: Object, container_id: str, started: list[Told]) -> Plan:
    """A container that ended by itself: over and over, or once when the pod does not restart it."""
    meta, policy = pod["metadata"], pod["spec"].get("restartPolicy", "Always")
    container = pod["spec"]["initContainers" if name == "init-fail" else "containers"][0]
    command = (container.get("command") or ["/nonexistent"])[0]
    start_error = f'failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "{command}": stat {command}: no such file or directory: unknown'  # noqa: E501
    defaults = {"crash": 3, "failed": 7, "completed": 0, "oom": 137, "bad-command": 128, "init-fail": 1}
    exit_code = int(code) if code else defaults[name]
    reasons = {"oom": "OOMKilled", "bad-command": "StartError", "completed": "Completed"}
    ended: Object = {"containerID": container_id, "exitCode": exit_code, "reason": reasons.get(name, "Error")}
    ended |= {"startedAt": now(), "finishedAt": now()}
    log = {"crash": "boom\n", "failed": "x\n", "completed": "done\n"}.get(name, "")
    if name == "bad-command":
        ended |= {"message": start_error, "startedAt": "1970-01-01T00:00:00Z"}
        started = [*started[:2], Told("Warning", "Failed", f"Error: {start_error}")]
    init = name == "init-fail"
    if policy == "Never" or (policy == "OnFailure" and exit_code == 0):
        phase = "Succeeded" if exit_code == 0 else "Failed"
        return Plan(phase, {"terminated": ended}, events=started, log=log, init=init)
    called = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
    state = _waiting("CrashLoopBackOff", f"back-off 20s restarting failed container={container['name']} pod={called}")
    events = [replace(told, count=3) for told in started]
    backing = f"Back-off restarting failed container {container['name']} in pod {called}"
    events.append(Told("Warning", "BackOff", backing, 4 if name in ("crash", "bad-command") else 3))
    phase = "Pending" if init else "Running"
    return Plan(phase, state, {"terminated": ended}, 2, events=events, log=log, init=init)


def missing(container: Object) -> str | None:
    """The first thing `envFrom` names, in the words for its absence."""
    for source in container.get("envFrom", ()):
        for kind in ("configMap", "secret"):
            if f"{kind}Ref" in source:
                return f'{kind.lower()} "{source[f"{kind}Ref"]["name"]}" not found'
    return None


def _waiting(reason: str, message: str) -> Object:
    return {"waiting": {"reason": reason, "message": message}}


def _unhealthy(container: Object, pod: Object) -> str:
    probe = container.get("readinessProbe", {}).get("httpGet", {"path": "/", "port": 4096})
    at = f"{pod['status'].get('podIP', '127.0.0.1')}:{probe['port']}"
    return f'Readiness probe failed: Get "http://{at}{probe["path"]}": dial tcp {at}: connect: connection refused'

"""What the objects of a sandbox say of its harness: whether it runs, what it waits for, why it has ended. Pure."""

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from backend.sandboxes.kubernetes.manifests import CONTAINER

Object = Mapping[str, Any]

LINE_LIMIT: Final = 400
"""Characters; kubelet and scheduler say more than fits a line."""
_CREATING: Final = ("ContainerCreating", "PodInitializing")
"""Why a container waits, when nothing is wrong."""
_SIGNALLED: Final = 128
_LOG_STAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z ")


def runs(pod: Object) -> bool:
    """Whether the harness's container runs."""
    return "running" in _state(_status_of(pod, CONTAINER))


def ending(pod: Object) -> str | None:
    """Why the harness of a pod has ended, in one line; None while it may still run, or begin to."""
    status = _of(pod, "status")
    terminated = _of(_state(_status_of(pod, CONTAINER)), "terminated")
    failed = status.get("phase") in ("Failed", "Succeeded")
    if not terminated and not failed:
        return None
    for why in (_pod_reason(pod), _exit(terminated, pod) if terminated else _init_failure(pod)):
        if why:
            return _line(why)
    return f"its pod is {status.get('phase')}"


def waiting(pod: Object | None, sandbox: Object | None, events: Sequence[Object]) -> str | None:
    """What keeps a harness from running, in one line."""
    said = _of_sandbox(sandbox, events) if pod is None else _of_pod(pod, events)
    return _line(said) if said else None


def _pod_reason(pod: Object) -> str | None:
    """Why the whole pod came to its end, when not by itself."""
    status = _of(pod, "status")
    disruption = _condition(pod, "DisruptionTarget")
    if reason := status.get("reason"):  # Evicted, DeadlineExceeded, NodeLost, Shutdown...
        return _joined(str(reason), status.get("message"))
    if disruption.get("status") == "True":
        return _joined(str(disruption.get("reason")), disruption.get("message"))
    return "its pod was deleted" if _of(pod, "metadata").get("deletionTimestamp") else None


def _exit(terminated: Object, pod: Object) -> str:
    reason, code = terminated.get("reason"), terminated.get("exitCode")
    if reason == "OOMKilled":
        limit = next(
            (_memory_limit(each) for each in _of(pod, "spec").get("containers") or () if _is_harness(each)), ""
        )
        return f"out of memory: the {limit} limit of the sandbox was reached" if limit else "out of memory"
    if reason not in (None, "Error", "Completed"):  # StartError, ContainerCannotRun, ContainerStatusUnknown...
        return _joined(str(reason), terminated.get("message"))
    number = terminated.get("signal") or (code - _SIGNALLED if isinstance(code, int) and code > _SIGNALLED else 0)
    try:
        ended = f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        ended = f"exit code {code}"
    words = [line for line in str(terminated.get("message") or "").splitlines() if line.strip()]
    return _joined(ended, _LOG_STAMP.sub("", words[-1]) if words and code else None)


def _init_failure(pod: Object) -> str | None:
    for each in _of(pod, "status").get("initContainerStatuses") or ():
        ended = _of(_state(each), "terminated")
        if ended and ended.get("exitCode"):
            return f"init container {each.get('name')} failed: {_exit(ended, {})}"
    return None


def _of_pod(pod: Object, events: Sequence[Object]) -> str | None:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return str(scheduled.get("message") or scheduled.get("reason") or "not scheduled yet")
    own = [each for each in events if _of(each, "involvedObject").get("uid") == _of(pod, "metadata").get("uid")]
    status = _of(pod, "status")
    for each in status.get("initContainerStatuses") or ():
        state = _state(each)
        if "terminated" in state or each.get("ready"):
            continue
        if why := _waits(each, own):
            return f"init container {each.get('name')}: {why}"
        return f"init container {each.get('name')} runs"
    harness = _status_of(pod, CONTAINER)
    return _waits(harness, own) if harness else _latest(own)


def _waits(container: Object, events: Sequence[Object]) -> str | None:
    why = _of(_state(container), "waiting")
    if not why:
        return None
    reason = str(why.get("reason") or "waiting")
    return _latest(events) or reason if reason in _CREATING else _joined(reason, why.get("message"))


def _latest(events: Sequence[Object]) -> str | None:
    """What the last event says: of a mount, a network, an image..."""
    for each in reversed(events):
        if each.get("type") == "Warning":
            return _joined(str(each.get("reason")), each.get("message"))
        if each.get("reason") == "Pulling":
            return str(each.get("message"))
        if each.get("reason") in ("Pulled", "Created", "Started"):
            return None
    return None


def _of_sandbox(sandbox: Object | None, events: Sequence[Object]) -> str | None:
    if sandbox is None:
        return None
    if not _of(sandbox, "status").get("conditions"):
        return "the agent-sandbox controller has not made its pod yet"
    ready = _condition(sandbox, "Ready")
    if ready.get("status") == "False" and ready.get("message"):
        return str(ready["message"])
    return _latest([each for each in events if _of(each, "involvedObject").get("kind") == "Sandbox"])


def _status_of(pod: Object, name: str) -> Object:
    statuses: Iterator[Object] = iter(_of(pod, "status").get("containerStatuses") or ())
    return next((each for each in statuses if each.get("name") == name), {})


def _state(container: Object) -> Object:
    return _of(container, "state")


def _condition(body: Object, kind: str) -> Object:
    conditions: Iterator[Object] = iter(_of(body, "status").get("conditions") or ())
    return next((each for each in conditions if each.get("type") == kind), {})


def _is_harness(container: Object) -> bool:
    return container.get("name") == CONTAINER


def _memory_limit(container: Object) -> str:
    return str(_of(_of(container, "resources"), "limits").get("memory") or "")


def _of(body: Object, key: str) -> Object:
    value = body.get(key)
    return value if isinstance(value, Mapping) else {}


def _joined(reason: str, message: Any) -> str:
    return f"{reason}: {message}" if message else reason


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LINE_LIMIT else f"{text[: LINE_LIMIT - 1]}…"

"""What is wrong with a session, read from facts: the eight issues of seed 000, and hints that explain the rest.

Facts are a report in the shape of the diagnose answer (LAP REST 5.1), with `problems`, what keeps the platform from
seeing its sandboxes. Nothing here guesses: a fact that is missing, null or of another type decides nothing, and a part
with an `error` decides no issue. The eight codes are a closed set that other programs match; what else can be said is
a hint.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NotRequired, TypedDict

from backend.domain import phases, sessions

Report = Mapping[str, Any]

HIGH: Final = "high"
MEDIUM: Final = "med"
INFO: Final = "info"

SUSPECT_SECONDS: Final = 120.0
"""How long a session may be creating before somebody should be told what it waits for."""
NOT_READY_SECONDS: Final = 180.0
PROBES_FAIL_SECONDS: Final = 60.0
"""How long a container that runs may not be ready: until then it starts."""
OVERSUBSCRIBED: Final = 1.5
RESTARTS: Final = 3
LOW_DISK_BYTES: Final = 256 * 1024 * 1024
LOW_MEMORY: Final = 0.03
BUSY_LOAD: Final = 4.0
"""Runnable processes for each processor, over the last minute, from which on everything is slow."""
EVIDENCE_LINES: Final = 5
EVIDENCE_LIMIT: Final = 300
SAID_LIMIT: Final = 600
"""Characters of what the cluster says that go into a message."""

PULL_REASONS: Final = frozenset({"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull"})


class Finding(TypedDict):
    """One entry of `detected_issues` or of `hints`; `evidence` are lines that show it."""

    code: str
    severity: str
    message: str
    recommended_action: str
    evidence: NotRequired[list[str]]


def detected_issues(report: Report) -> list[Finding]:
    """The issues of seed 000 that hold, in its order (triggers: LAP REST 5.2, column R)."""
    return [finding for rule in _ISSUES.values() if (finding := rule(report)) is not None]


def hints(report: Report) -> list[Finding]:
    """What else explains the session's state, most telling first.

    Never empty for a session that failed, or that is creating for longer than SUSPECT_SECONDS. Empty for one that
    ended as somebody wanted.
    """
    if ended_as_wanted(_part(report, "session")):
        return []
    found: dict[str, Finding] = {}
    for rule in _HINTS:
        for finding in rule(report):
            found.setdefault(finding["code"], finding)
    if all(finding["severity"] == INFO for finding in found.values()):
        found |= {finding["code"]: finding for finding in _last_resort(report)}
    return list(found.values())


def ended_as_wanted(session: Report) -> bool:
    """Whether a session is over because somebody, or its idle timeout, ended it."""
    return session.get("status") in sessions.ENDED and session.get("failure_reason") in _WANTED_ENDS


def to_keep(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """What of them stays with the session as its `issues`: those worth somebody's attention, without evidence."""
    kept = [finding for finding in findings if finding["severity"] in (HIGH, MEDIUM)]
    return [{name: value for name, value in finding.items() if name != "evidence"} for finding in kept]


def clone_problem(text: str) -> str:
    """Which way a git clone failed: a key of _CLONE_WORDS, "other" when git says nothing known."""
    return next((kind for kind, pattern in _CLONE_PROBLEMS if re.search(pattern, text)), "other")


# The eight


def _dead_node(report: Report) -> Finding | None:
    node, pod = _sound(report, "node"), _sound(report, "pod")
    if pod.get("exists") is not True:
        return None
    if node.get("exists") is True:
        ready = _text(node, "ready_status")
        if not ready or ready == "True":
            return None
        reason = _text(node, "ready_reason")
        state = f"is not ready (Ready is {ready}{f', {reason}' if reason else ''})"
    elif node.get("exists") is False and _text(pod, "node_name"):
        state = "does not exist any more"
    else:
        return None
    name = _text(node, "name") or _text(pod, "node_name")
    return {
        "code": "dead_node_assigned",
        "severity": HIGH,
        "message": f"the sandbox is on node {name}, which {state}",
        "recommended_action": f"kubectl drain {name} --ignore-daemonsets --delete-emptydir-data, remove the node, and "
        "restart the session: it comes up on a healthy node",
    }


def _stale_node_host(report: Report) -> Finding | None:
    age = _creating_seconds(report)
    pod = _sound(report, "pod")
    containers = [each for each in _mappings(pod, "container_statuses") if not each.get("init")]
    healthy = (
        pod.get("phase") == "Running"
        and bool(containers)
        and all(container.get("ready") is True for container in containers)
        and _sound(report, "service").get("exists") is True
        and _part(report, "harness_probe").get("reachable") is True
    )
    # While the harness clones or installs it is healthy, too, and the session rightly is not ready.
    busy = _part(report, "harness").get("setup") in ("running", "failed")
    if age is None or age <= SUSPECT_SECONDS or not healthy or busy:
        return None
    return {
        "code": "stale_node_host_cache_suspect",
        "severity": HIGH,
        "message": f"sandbox, service and harness are healthy, but the session is creating for {age:.0f} s: what the "
        "platform, or a proxy before it, remembers of the node's address may be out of date",
        "recommended_action": "restart the platform (kubectl rollout restart deployment/lap-platform -n <namespace>), "
        "and any proxy before it, then recreate the session: addresses are then looked up anew",
    }


def _image_pull(report: Report) -> Finding | None:
    for container in _mappings(_sound(report, "pod"), "container_statuses"):
        if (reason := _text(container, "waiting_reason")) in PULL_REASONS:
            return {
                "code": "pod_image_pull_backoff",
                "severity": HIGH,
                "message": f"the image of container {_text(container, 'name')} cannot be pulled ({reason})"
                f"{_after_colon(_text(container, 'waiting_message'))}",
                "recommended_action": "check the image's name (K8S_HARNESS_IMAGE), that the node reaches the registry, "
                "and that K8S_IMAGE_PULL_POLICY is not Never where images have to be pulled",
            }
    return None


def _not_ready_old(report: Report) -> Finding | None:
    pod = _sound(report, "pod")
    conditions = _mappings(pod, "conditions")
    ready = _condition(pod, "Ready")
    if pod.get("exists") is not True or not conditions or ready.get("status") == "True":
        return None
    age_ms = _number(ready, "age_ms")
    age_ms = _number(pod, "age_ms") if age_ms is None else age_ms
    if age_ms is None or age_ms <= NOT_READY_SECONDS * 1000:
        return None
    return {
        "code": "pod_not_ready_old",
        "severity": MEDIUM,
        "message": f"the sandbox is not ready for {age_ms / 1000:.0f} s{_after_colon(_text(ready, 'message'))}",
        "recommended_action": f"{_describe(report)} shows why its readiness probe fails",
    }


def _harness_unreachable(report: Report) -> Finding | None:
    probe = _part(report, "harness_probe")
    if _sound(report, "pod").get("phase") != "Running" or probe.get("reachable") is not False:
        return None
    return {
        "code": "harness_unreachable",
        "severity": HIGH,
        "message": f"the sandbox runs, but its harness does not answer: {_text(probe, 'error') or 'no answer'}",
        "recommended_action": "read the sandbox's log for errors at its start: the harness may still be cloning or "
        "installing; when it does not recover, restart the session",
    }


def _oversubscribed(report: Report) -> Finding | None:
    node = _sound(report, "node")
    capacity, requested = _part(node, "capacity"), _part(node, "allocated_requests")
    for name, unit in (("cpu_millicores", "CPU"), ("memory_bytes", "memory")):
        has, wants = _number(capacity, name), _number(requested, name)
        if has and has > 0 and wants is not None and wants / has > OVERSUBSCRIBED:
            return {
                "code": "node_oversubscribed",
                "severity": MEDIUM,
                "message": f"the {unit} requests on node {_text(node, 'name')} are {100 * wants / has:.0f} % of what "
                "it has",
                "recommended_action": "add nodes, delete sessions nobody needs, or lower WARM_POOL_SIZE",
            }
    return None


def _service_missing(report: Report) -> Finding | None:
    if _sound(report, "pod").get("exists") is not True or _sound(report, "service").get("exists") is not False:
        return None
    if _has_ended(report):  # both are gone since
        return None
    return {
        "code": "service_missing",
        "severity": HIGH,
        "message": "the sandbox runs, but the service in front of it does not exist",
        "recommended_action": "recreate the service (the session's mend), or delete the session and create it again: "
        "the platform makes both together",
    }


def _pool_empty(report: Report) -> Finding | None:
    pool = _sound(report, "warm_pool")
    size = _number(report, "warm_pool_size")
    if not size or size < 0 or _number(pool, "warm") != 0 or _number(pool, "provisioning") != 0:
        return None
    return {
        "code": "warm_pool_empty_for_agent",
        "severity": INFO,
        "message": "the warm pool has nothing for this agent, so its sessions start cold (only agents used lately get "
        "warm sandboxes)",
        "recommended_action": "wait for the next tick of the worker, or top the pool up; the worker's log tells of "
        "sandboxes that could not be made",
    }


_ISSUES: Final[Mapping[str, Callable[[Report], Finding | None]]] = {
    "dead_node_assigned": _dead_node,
    "stale_node_host_cache_suspect": _stale_node_host,
    "pod_image_pull_backoff": _image_pull,
    "pod_not_ready_old": _not_ready_old,
    "harness_unreachable": _harness_unreachable,
    "node_oversubscribed": _oversubscribed,
    "service_missing": _service_missing,
    "warm_pool_empty_for_agent": _pool_empty,
}
CODES: Final[tuple[str, ...]] = tuple(_ISSUES)
"""The closed set, in order."""


# Hints: what set-up says


def _failed_clone(report: Report) -> Iterator[Finding]:
    said = _failure(report)
    if "git clone failed" not in said and "git was not found" not in said:
        # The harness ended before it could tell: what git said is in the log.
        said = "\n".join(_GIT_SAYS.findall(f"{said}\n{_log(report)}")) if _set_up_failed(report) else ""
    if said:
        kind = clone_problem(said)
        yield {
            "code": "clone_failed",
            "severity": HIGH,
            "message": f"the repository could not be cloned ({_CLONE_WORDS[kind]})",
            "recommended_action": _CLONE_ACTIONS[kind],
            "evidence": _lines(said),
        }


def _failed_setup(report: Report) -> Iterator[Finding]:
    said = _failure(report)
    for code, pattern, message, action in _SETUP_HINTS:
        if re.search(pattern, said):
            yield {
                "code": code,
                "severity": HIGH,
                "message": message,
                "recommended_action": action,
                "evidence": _lines(said),
            }
            return


def _agent_ended(report: Report) -> Iterator[Finding]:
    agent = _part(_part(report, "harness"), "agent")
    code, signal = agent.get("exit_code"), agent.get("signal")
    if (
        _part(report, "session").get("status") != sessions.READY
        or agent.get("running") is not False
        or (code is None and signal is None)
    ):
        return
    yield {
        "code": "agent_exited",
        "severity": INFO if code == 0 else MEDIUM,
        "message": f"the agent's program has ended ({f'signal {signal}' if signal else f'exit code {code}'}); the "
        "sandbox is still there",
        "recommended_action": "attach to start it again, or restart the session for a fresh sandbox",
        "evidence": _last_lines(report),
    }


# Hints: what containers say


def _failed_init(report: Report) -> Iterator[Finding]:
    for container in _mappings(_part(report, "pod"), "container_statuses"):
        ending = _ending(container)
        if container.get("init") and ending and ending.code != 0:
            name = _text(container, "name")
            yield {
                "code": "init_failed",
                "severity": HIGH,
                "message": f"the sandbox cannot begin: its init container {name} ended with {ending.words}",
                "recommended_action": f"{_logs(report, container)} shows what it said; mend the cause and restart the "
                "session",
                "evidence": [ending.said] if ending.said else [],
            }


def _terminated(report: Report) -> Iterator[Finding]:
    """The harness's container, or another of the agent's, ended: also while a sidecar lives and the pod is Running."""
    for container in _mappings(_part(report, "pod"), "container_statuses"):
        ending = _ending(container)
        name = _text(container, "name") or "a container"
        if ending is None or container.get("init") or _is_vault(container):
            continue
        yield {
            "code": "out_of_memory" if ending.memory else "container_terminated",
            "severity": HIGH,
            "message": f"{name} ended: {ending.words}"[:SAID_LIMIT],
            "recommended_action": "raise the sandbox's memory limit (LAP_SANDBOX_MEMORY_MB) or let the agent do less "
            "at once, then restart the session"
            if ending.memory
            else f"{_logs(report, container)}: read the last lines, mend the cause, and restart the session",
            "evidence": _last_lines(report) or ([ending.said] if ending.said else []),
        }


def _restarting(report: Report) -> Iterator[Finding]:
    for container in _mappings(_part(report, "pod"), "container_statuses"):
        count = _number(container, "restart_count") or 0
        if count < RESTARTS and container.get("waiting_reason") != "CrashLoopBackOff":
            continue
        yield {
            "code": "restart_loop",
            "severity": HIGH,
            "message": f"{_text(container, 'name')} was restarted {count:.0f} times"
            f"{_after_colon(_text(container, 'waiting_message'))}",
            "recommended_action": f"{_logs(report, container)}: read what it says before it ends; the reason is there",
            "evidence": _last_lines(report),
        }


def _bad_config(report: Report) -> Iterator[Finding]:
    for container in _mappings(_part(report, "pod"), "container_statuses"):
        reason, said = _text(container, "waiting_reason"), _text(container, "waiting_message")
        if reason not in _CONFIG_REASONS:
            continue
        missing = _MISSING.search(said)
        yield {
            "code": "config_error",
            "severity": HIGH,
            "message": f"container {_text(container, 'name')} cannot be started ({reason}){_after_colon(said)}",
            "recommended_action": (
                f"create it, then restart the session; those there are: kubectl get {missing['kind']}s"
                + _namespace(report)
                if missing
                else f"{_describe(report)} shows what the node makes of it; correct the sandbox's settings and restart "
                "the session"
            ),
        }


def _image(report: Report) -> Iterator[Finding]:
    pod = _part(report, "pod")
    for container in _mappings(pod, "container_statuses"):
        reason = _text(container, "waiting_reason")
        if reason not in PULL_REASONS and reason not in _IMAGE_REASONS:
            continue
        # "Back-off pulling image" hides what the registry said; that is in the events.
        told = [message for event in _events(report) if "pull" in (message := _text(event, "message")).lower()]
        said = "\n".join([_text(container, "waiting_message"), *told])
        kind = next((kind for kind, pattern in _PULL_PROBLEMS if re.search(pattern, f"{reason} {said}")), "other")
        yield {
            "code": "image_pull_failed",
            "severity": HIGH,
            "message": f"container {_text(container, 'name')} has no image{_image_name(container)}: "
            + _PULL_WORDS[kind],
            "recommended_action": _PULL_ACTIONS[kind],
            "evidence": _lines(said),
        }
        return


def _probes_fail(report: Report) -> Iterator[Finding]:
    pod = _part(report, "pod")
    age_ms = _number(_condition(pod, "Ready"), "age_ms")
    running = [each for each in _mappings(pod, "container_statuses") if not _ending(each)]
    waits = any(each.get("ready") is False and not _text(each, "waiting_reason") for each in running)
    if pod.get("phase") != "Running" or not waits or age_ms is None or age_ms < PROBES_FAIL_SECONDS * 1000:
        return
    for event in reversed(_events(report)):
        if _text(event, "reason") == "Unhealthy":
            yield {
                "code": "probe_failing",
                "severity": MEDIUM,
                "message": f"it runs, but does not get ready: {_text(event, 'message')}"[:SAID_LIMIT],
                "recommended_action": "read the sandbox's log: what should answer the probe has not come up",
                "evidence": _last_lines(report),
            }
            return


def _vault_away(report: Report) -> Iterator[Finding]:
    vault = _part(report, "vault")
    if vault.get("ready") is False:
        yield {
            "code": "vault_not_ready",
            "severity": HIGH,
            "message": f"nothing leaves the sandbox: the vault does not work ({_text(vault, 'reason') or 'no reason'})",
            "recommended_action": "see the platform's log; it starts the vault again by itself. In a cluster, where it "
            "connects again, see the vault's pods: kubectl get pods -l app=lap-vault",
        }
    for container in _mappings(_part(report, "pod"), "container_statuses"):
        ending, waits = _ending(container), _text(container, "waiting_reason")
        if _is_vault(container) and (ending or waits not in ("", *_STARTING)):
            yield {
                "code": "vault_not_ready",
                "severity": HIGH,
                "message": "nothing leaves the sandbox: its vault "
                + (f"ended: {ending.words}" if ending else f"does not start ({waits})")
                + _after_colon(_text(container, "waiting_message")),
                "recommended_action": f"{_logs(report, container)} shows why; then restart the session",
                "evidence": [ending.said] if ending and ending.said else [],
            }


# Hints: what the cluster says of the pod


def _pod_ended(report: Report) -> Iterator[Finding]:
    """The whole pod was ended from outside: evicted, pre-empted, out of time, refused by its node."""
    pod = _part(report, "pod")
    reason, said = _text(pod, "reason"), _text(pod, "message")
    target = _condition(pod, "DisruptionTarget")
    if not reason and target.get("status") == "True":
        reason, said = _text(target, "reason") or "DisruptionTarget", _text(target, "message")
    if not reason and pod.get("exists") is not True:
        told = [
            event
            for event in _events(report)
            if _text(event, "reason") in _EVICTED and not _text(event, "message").startswith("Cancelling")
        ]
        if told:
            reason, said = _text(told[-1], "reason"), _text(told[-1], "message")
    if not reason:
        return
    code, message, action = (
        ("evicted", "the cluster ended the sandbox", _EVICTED[reason])
        if reason in _EVICTED
        else ("deadline_exceeded", "the sandbox was ended: it had lived as long as it may", _DEADLINE)
        if reason == "DeadlineExceeded"
        else ("pod_failed", "the sandbox was ended by its node", "restart the session: it gets another place")
    )
    yield {
        "code": code,
        "severity": HIGH,
        "message": f"{message} ({reason}){_after_colon(said)}",
        "recommended_action": action,
    }


def _unschedulable(report: Report) -> Iterator[Finding]:
    pod, sandbox = _part(report, "pod"), _part(report, "sandbox_cr")
    condition = _condition(pod, "PodScheduled")
    if not condition and pod.get("exists") is not True:
        condition = _condition(sandbox, "PodScheduled")
        if _text(condition, "reason") != "Unschedulable":  # the controller's own reasons are not the scheduler's
            return
    if condition.get("status") != "False":
        return
    said = _text(condition, "message") or _text(condition, "reason")
    kind = next((kind for kind, pattern in _NO_ROOM if re.search(pattern, said)), "capacity")
    yield {
        "code": "unschedulable",
        "severity": HIGH,
        "message": f"the scheduler finds no place for the sandbox: {said or 'it does not say why'}"[:SAID_LIMIT],
        "recommended_action": _NO_ROOM_ACTIONS[kind],
    }


def _held_up(report: Report) -> Iterator[Finding]:
    """Volumes and network that keep a scheduled pod from starting. Events of a pod that has got them are history."""
    pod = _part(report, "pod")
    if pod.get("exists") is not True or pod.get("phase") != "Pending":
        return
    if _condition(pod, "PodReadyToStartContainers").get("status") == "True":
        return
    for event in reversed(_events(report)):
        reason, said = _text(event, "reason"), _text(event, "message")
        for code, reasons, action in _EVENT_HINTS:
            if reason in reasons:
                yield {
                    "code": code,
                    "severity": HIGH,
                    "message": f"{reason}: {said}"[:SAID_LIMIT],
                    "recommended_action": action,
                }


def _refused(report: Report) -> Iterator[Finding]:
    """No pod came to be: a quota, or a rule of the cluster, is against it."""
    if _part(report, "pod").get("exists") is True:
        return
    ready = _condition(_part(report, "sandbox_cr"), "Ready")
    not_made = [_text(ready, "message")] if ready.get("status") == "False" else []
    not_made += [_text(event, "message") for event in _events(report) if _text(event, "reason") == "FailedCreate"]
    others = [_text(event, "message") for event in _events(report)]
    for said in (*not_made, *others, _failure(report)):
        if "exceeded quota" in said:
            yield {
                "code": "quota_exceeded",
                "severity": HIGH,
                "message": f"the namespace's quota leaves no room for the sandbox: {said}"[:SAID_LIMIT],
                "recommended_action": "delete sessions nobody needs, or raise the quota: kubectl describe quota"
                + _namespace(report),
            }
            return
    for said in not_made:
        if "forbidden" in said or "denied the request" in said or ready.get("reason") == "ReconcilerError":
            yield {
                "code": "pod_refused",
                "severity": HIGH,
                "message": f"the cluster refuses the sandbox's pod: {said}"[:SAID_LIMIT],
                "recommended_action": "change what the message names: the namespace's admission rules (Pod Security, "
                "limit ranges, webhooks), or the sandbox's settings",
            }
            return


def _node_pressed(report: Report) -> Iterator[Finding]:
    node = _part(report, "node")
    pressed = [each for each in _mappings(node, "conditions") if _text(each, "type") in _PRESSURES]
    for condition in pressed:
        if condition.get("status") == "True":
            kind, name = _text(condition, "type"), _text(node, "name")
            yield {
                "code": "node_pressure",
                "severity": MEDIUM,
                "message": f"node {name} {_PRESSURES[kind]} ({kind}){_after_colon(_text(condition, 'message'))}",
                "recommended_action": f"kubectl describe node {name} shows what uses it up; sessions may be evicted "
                "from it, new ones go elsewhere",
            }
            return


def _sandbox_gone(report: Report) -> Iterator[Finding]:
    session, pod = _part(report, "session"), _sound(report, "pod")
    begun = session.get("status") == sessions.READY or session.get("phase") not in (None, *_WITHOUT_POD)
    if session.get("status") in sessions.ACTIVE and begun and pod.get("exists") is False:
        yield {
            "code": "sandbox_gone",
            "severity": HIGH,
            "message": "the session's sandbox does not exist any more",
            "recommended_action": "restart the session",
        }


def _suspended(report: Report) -> Iterator[Finding]:
    if _condition(_part(report, "sandbox_cr"), "Suspended").get("status") == "True":
        name = _text(_part(report, "sandbox_cr"), "name") or "<name>"
        yield {
            "code": "sandbox_suspended",
            "severity": HIGH,
            "message": "the sandbox was suspended, so that nothing of it runs",
            "recommended_action": "restart the session, or resume the sandbox: "
            f"kubectl patch sandbox {name}{_namespace(report)} "
            """--type=merge -p '{"spec":{"operatingMode":"Running"}}'""",
        }


def _unseen(report: Report) -> Iterator[Finding]:
    """Why parts of the report are missing or old."""
    told = report.get("problems")
    problems = [each for each in told if isinstance(each, str) and each] if isinstance(told, list | tuple) else []
    if problems:
        denied = re.search(r"not permitted|forbidden|may not|\(403\)", " ".join(problems), re.IGNORECASE)
        yield {
            "code": "cluster_unseen",
            "severity": INFO,
            "message": f"the platform does not see all there is, so parts of this may be missing or old: {problems[0]}"[
                :SAID_LIMIT
            ],
            "recommended_action": "grant the platform's service account what is named; what it may is shown by: "
            "kubectl auth can-i --list"
            if denied
            else "nothing is lost meanwhile, and the platform tries again by itself; whether an API server is well is "
            "shown by: kubectl get --raw /readyz",
            "evidence": [each[:EVIDENCE_LIMIT] for each in problems[:EVIDENCE_LINES]],
        }


def _timed_out(report: Report) -> Iterator[Finding]:
    said = _failure(report)
    if re.search(r"took longer than [\d.]+ s|creating timeout", said):
        yield {
            "code": "phase_timeout",
            "severity": HIGH,
            "message": f"a phase of the start took too long{_after_colon(said.splitlines()[0][:EVIDENCE_LIMIT])}",
            "recommended_action": "see what it waited for in the log; LAP_PHASE_TIMEOUT_SECONDS_<PHASE> sets the limit",
            "evidence": _lines(said),
        }


# Hints: what this machine says, where sandboxes are on it


def _machine(report: Report) -> Iterator[Finding]:
    load, capacity = _part(_part(report, "node"), "load"), _part(_part(report, "node"), "capacity")
    free, said = _number(load, "disk_free_bytes"), f"{_failure(report)} {_log(report)[-2000:]}"
    if (free is not None and free < LOW_DISK_BYTES) or "No space left on device" in said:
        in_cluster = bool(_namespace(report))
        yield {
            "code": "disk_full",
            "severity": HIGH,
            "message": f"the {'sandbox' if in_cluster else 'platform'}'s disk is full"
            + (f": {free / 2**20:.0f} MB are left" if free is not None else ""),
            "recommended_action": "let the agent write less, or give sandboxes more ephemeral storage, then restart "
            "the session"
            if in_cluster
            else "free disk space where the platform keeps its data, then restart the session",
        }
    left, total = _number(load, "memory_available_bytes"), _number(capacity, "memory_bytes")
    if left is not None and total and total > 0 and left / total < LOW_MEMORY:
        yield {
            "code": "memory_short",
            "severity": HIGH,
            "message": f"the machine has {left / 2**20:.0f} MB of memory left of {total / 2**20:.0f}",
            "recommended_action": "delete sessions nobody needs",
        }
    running, millicores = _number(load, "load_1m"), _number(capacity, "cpu_millicores")
    if running is not None and millicores and millicores > 0 and running / (millicores / 1000) > BUSY_LOAD:
        yield {
            "code": "machine_busy",
            "severity": MEDIUM,
            "message": f"the machine is overloaded: {running:.0f} processes want its {millicores / 1000:.0f} "
            "processors",
            "recommended_action": "delete sessions nobody needs, or wait: everything takes longer meanwhile",
        }


_HINTS: Final[Sequence[Callable[[Report], Iterator[Finding]]]] = (
    _failed_clone,
    _pod_ended,
    _failed_init,
    _terminated,
    _failed_setup,
    _bad_config,
    _image,
    _sandbox_gone,
    _suspended,
    _unschedulable,
    _held_up,
    _refused,
    _vault_away,
    _restarting,
    _probes_fail,
    _agent_ended,
    _node_pressed,
    _machine,
    _timed_out,
    _unseen,
)


def _last_resort(report: Report) -> Iterator[Finding]:
    """What the record alone says, so that nobody stands before an empty list."""
    session, age = _part(report, "session"), _creating_seconds(report)
    status, said = session.get("status"), _failure(report)
    if status in sessions.ENDED and said:
        yield {
            "code": "session_ended",
            "severity": HIGH if status == sessions.FAILED else MEDIUM,
            "message": said.splitlines()[0][:EVIDENCE_LIMIT],
            "recommended_action": "restart the session; its log says more",
            "evidence": _last_lines(report),
        }
    elif age is not None and age > SUSPECT_SECONDS:
        phase = _text(session, "phase") or "creating_sandbox"
        yield {
            "code": "slow_phase",
            "severity": MEDIUM,
            "message": f"the session is creating for {age:.0f} s and is in {phase}: {_WAITS_FOR.get(phase, phase)}",
            "recommended_action": "read the sandbox's log; the phase fails by itself after "
            f"{phases.DEFAULT_TIMEOUTS.get(phase, 600):g} s unless LAP_PHASE_TIMEOUT_SECONDS_{phase.upper()} says "
            "otherwise",
            "evidence": _lines(detail) if (detail := _text(session, "phase_detail")) else _last_lines(report),
        }


_WAITS_FOR: Final = {
    "creating_sandbox": "the sandbox is being made",
    "pod_pending": "the sandbox has no place to run yet",
    "pod_running": "the sandbox runs, its harness has not begun",
    "injecting_files": "the agent's files are handed over",
    "waiting_harness": "the harness has not opened its port",
    "harness_ready": "the harness has not taken the session",
    "cloning_repo": "git clones the repository",
    "installing_deps": "the requirements are being installed",
    "harness_listening": "the agent's program has not come up",
}
_WITHOUT_POD: Final = ("creating_sandbox", "pod_pending")
"""Phases in which it is no news that there is no pod."""
_WANTED_ENDS: Final = ("deleted", "stopped", "idle timeout", "agent deleted")

_GIT_SAYS: Final = re.compile(
    r"^.*(?:fatal: (?:unable to access|could not read|repository|Remote branch|Authentication failed|the remote end"
    r"|unable to (?:connect|look up)|'[^']*' does not appear)|certificate verification failed"
    r"|Permission denied \(publickey).*$",
    re.MULTILINE,
)
_CLONE_PROBLEMS: Final = (
    ("branch", r"Remote branch .* not found|agent's branch"),
    ("tls", r"certificate verification failed|SSL certificate problem|gnutls_handshake|[Ss]elf[- ]signed"),
    ("egress", r"CONNECT tunnel failed, response 403|HTTP code 403 from proxy"),
    (
        "auth",
        r"could not read (Username|Password)|Authentication failed|Check the credentials|Permission denied"
        r"|returned error: 40[13]",
    ),
    ("disk", r"No space left|Disk quota"),
    (
        "network",
        r"host could not be reached|Could not resolve|Failed to connect|Connection (refused|timed out|reset)"
        r"|Network is unreachable|unable to (connect|look up)",
    ),
    ("not found", r"not found|does not exist|does not appear to be a git repository|returned error: 404"),
)
_CLONE_WORDS: Final = {
    "branch": "it has no such branch",
    "tls": "the certificate of its host is not trusted in the sandbox",
    "egress": "the sandbox may not reach its host",
    "auth": "the credentials do not open it",
    "network": "its host cannot be reached",
    "disk": "the disk is full",
    "not found": "there is none at this address, or it is private",
    "other": "see what git said",
}
_CLONE_ACTIONS: Final = {
    "branch": "correct the agent's branch and restart the session",
    "tls": "see that the vault's authority is mounted into the sandbox and trusted there (the vault answers for every "
    "host), or add the authority of the proxy in between; then restart the session",
    "egress": "allow the repository's host in the agent's egress rules and restart the session",
    "auth": "set GIT_TOKEN on the platform or GITHUB_TOKEN in the agent's env_vars, with access to it",
    "network": "check the repository's address, the network, proxies and the agent's egress rules",
    "disk": "free disk space where the platform keeps its data",
    "not found": "correct the agent's repo_url; a private repository needs a token that may read it",
    "other": "read what git said, correct the agent, and restart the session",
}
_SETUP_HINTS: Final = (
    (
        "requirements_failed",
        r"uv pip install failed|uv was not found|installing took longer",
        "the agent's requirements could not be installed",
        "correct the agent's requirements and restart the session",
    ),
    (
        "program_missing",
        r"the program .* was not found",
        "the program of the agent's harness is not installed",
        "install it where the platform runs, as the message says, and restart the session",
    ),
    (
        "out_of_memory",
        r"out of memory|oom killed",
        "the sandbox used more memory than it may",
        "raise LAP_SANDBOX_MEMORY_MB or let the agent do less at once, then restart the session",
    ),
    (
        "env_lost",
        r"restarted before the sandbox had got this session's own env_vars",
        "the platform was restarted while the session came up, and its own env_vars are never stored",
        "create the session again with its env_vars",
    ),
)
_STARTING: Final = ("ContainerCreating", "PodInitializing")
_CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_MISSING: Final = re.compile(r'(?P<kind>configmap|secret) "[^"]*" not found')
_IMAGE_REASONS: Final = frozenset(
    {"InvalidImageName", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"}
)
_PULL_PROBLEMS: Final = (
    ("never", r"ErrImageNeverPull"),
    ("name", r"InvalidImageName|invalid reference format"),
    ("auth", r"401|403|[Uu]nauthorized|[Aa]uthorization|authentication|access denied|denied:"),
    ("not found", r"not found|manifest unknown|does not exist|404"),
    ("network", r"connection refused|no such host|i/o timeout|timed out|no route to host|unreachable|TLS|x509"),
)
_PULL_WORDS: Final = {
    "never": "the node does not have it, and K8S_IMAGE_PULL_POLICY is Never",
    "name": "its name is not one of an image",
    "auth": "the registry does not give it to this cluster",
    "not found": "the registry has none of this name",
    "network": "the node does not reach the registry",
    "other": "it cannot be pulled",
}
_PULL_ACTIONS: Final = {
    "never": "load the image onto the nodes, or set K8S_IMAGE_PULL_POLICY=IfNotPresent",
    "name": "correct K8S_HARNESS_IMAGE, or the agent's harness_image",
    "auth": "give the namespace's service account the registry's pull secret (kubectl create secret docker-registry)",
    "not found": "correct the image's name and tag (K8S_HARNESS_IMAGE, or the agent's harness_image), or push it",
    "network": "check the registry's name, and the way there from the node",
    "other": "read what the node said, and correct the image's name or the way to its registry",
}
_NO_ROOM: Final = (
    ("gated", r"scheduling gates"),
    ("volume", r"PersistentVolumeClaim|persistentvolumeclaim|volume"),
    ("capacity", r"Insufficient|Too many pods"),
    ("cordoned", r"were unschedulable"),
    ("taint", r"untolerated taint|had taint"),
    ("selector", r"node affinity|node selector|didn't match"),
)
_NO_ROOM_ACTIONS: Final = {
    "gated": "something in the cluster holds it back on purpose: what sets scheduling gates on its pods says why",
    "capacity": "add nodes, delete sessions nobody needs, or lower what a sandbox requests; what is taken is "
    "shown by: kubectl describe nodes",
    "cordoned": "let the nodes take pods again (kubectl uncordon <node>), or add others",
    "taint": "add nodes without that taint, or remove it from those there are: kubectl describe nodes",
    "selector": "label a node as the sandbox wants it (kubectl get nodes --show-labels), or change its settings",
    "volume": "create or bind what the message names; what is pending is shown by: kubectl get pvc",
}
_EVENT_HINTS: Final = (
    (
        "volume_failed",
        frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"}),
        "check the volume, its claim and the secret or config map it comes from",
    ),
    (
        "network_failed",
        frozenset({"FailedCreatePodSandBox", "NetworkNotReady"}),
        "the node's network plugin cannot give the sandbox an address: check its addresses left, or drain the node",
    ),
)
_EVICTED: Final = {
    "Evicted": "free what the node is short of, or lower what sandboxes may use; then restart the session",
    "TerminationByKubelet": "free what the node is short of, or lower what sandboxes may use; then restart the session",
    "Preempted": "add nodes: pods of higher priority took its place; then restart the session",
    "Preempting": "add nodes: pods of higher priority took its place; then restart the session",
    "PreemptionByScheduler": "add nodes: pods of higher priority took its place; then restart the session",
    "TaintManagerEviction": "restart the session: its node does not keep pods any more",
    "DeletionByTaintManager": "restart the session: its node does not keep pods any more",
    "EvictionByEvictionAPI": "restart the session: its node was drained",
    "DeletionByPodGC": "restart the session: its node is gone",
    "NodeLost": "restart the session: its node is gone",
    "NodeShutdown": "restart the session: its node was shut down",
    "Terminated": "restart the session: its node was shut down",
}
_DEADLINE: Final = "restart the session; what sets activeDeadlineSeconds on its pods decides how long they live"
_PRESSURES: Final = {
    "MemoryPressure": "is short of memory",
    "DiskPressure": "is short of disk space",
    "PIDPressure": "has too many processes",
    "NetworkUnavailable": "has no network",
}
_EXIT_WORDS: Final = {
    126: "its program may not be executed",
    127: "its program was not found",
    128: "its program could not be started, or git failed",
    137: "it was killed",
    139: "it crashed",
    143: "it was told to end",
}


class _Ending:
    """How a container ended, in words."""

    def __init__(self, container: Mapping[str, Any], prefix: str) -> None:
        self.reason = _text(container, f"{prefix}_reason")
        self.code = _number(container, f"{prefix}_exit_code")
        self.said = _text(container, f"{prefix}_message").strip()[-EVIDENCE_LIMIT:]
        self.memory = self.reason == "OOMKilled" or "out of memory" in self.reason.lower()

    @property
    def words(self) -> str:
        """`Error, exit code 128 (its program could not be started, or git failed): ...`."""
        code = "" if self.code is None else f", exit code {self.code:.0f}"
        meaning = _EXIT_WORDS.get(int(self.code), "") if self.code is not None and not self.memory else ""
        return f"{self.reason or 'ended'}{code}{f' ({meaning})' if meaning else ''}{_after_colon(self.said)}"


def _ending(container: Mapping[str, Any]) -> _Ending | None:
    """How it ended, or ended before it was to be started again; None while it runs or has not run."""
    if "terminated_reason" in container or "terminated_exit_code" in container:
        now = _Ending(container, "terminated")
        if now.reason or now.code is not None:
            return now
    waits = _text(container, "waiting_reason")
    if not waits or waits in _STARTING:
        return None
    before = _Ending(container, "last_terminated")
    return before if before.reason or before.code is not None else None


def _set_up_failed(report: Report) -> bool:
    """Whether the harness gave up, or ended, before the session was ready."""
    status = _part(report, "session").get("status")
    ended = any(
        _ending(each) and not each.get("init") and not _is_vault(each)
        for each in _mappings(_part(report, "pod"), "container_statuses")
    )
    gave_up = ended or _part(report, "harness").get("setup") == "failed"
    return status == sessions.FAILED or (status == sessions.CREATING and gave_up)


def _is_vault(container: Mapping[str, Any]) -> bool:
    return "vault" in _text(container, "name")


def _image_name(container: Mapping[str, Any]) -> str:
    image = _text(container, "image")
    return f" ({image})" if image else ""


def _namespace(report: Report) -> str:
    name = _text(_part(report, "pod"), "namespace") or _text(_part(report, "sandbox_cr"), "namespace")
    return f" -n {name}" if name else ""


def _describe(report: Report) -> str:
    """The command that shows a pod's events; of one that is gone, where they are kept."""
    if _has_ended(report):
        return "what was last seen of it"
    return f"kubectl describe pod {_text(_part(report, 'pod'), 'name') or '<name>'}{_namespace(report)}"


def _logs(report: Report, container: Mapping[str, Any]) -> str:
    """The command that shows a container's log, where it is one of a pod that is there; else where the log is."""
    namespace = _namespace(report)
    if not namespace or _has_ended(report):
        return "the sandbox's log"
    previous = " --previous" if _text(container, "waiting_reason") else ""
    return f"kubectl logs {_text(_part(report, 'pod'), 'name')} -c {_text(container, 'name')}{namespace}{previous}"


def _has_ended(report: Report) -> bool:
    return _part(report, "session").get("status") in sessions.ENDED


def _events(report: Report) -> list[Mapping[str, Any]]:
    return _mappings(report, "events")


def _condition(part: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((each for each in _mappings(part, "conditions") if each.get("type") == kind), {})


def _creating_seconds(report: Report) -> float | None:
    """How long the session is creating, None when it is not."""
    session = _part(report, "session")
    age = _number(session, "creating_ms")
    return age / 1000 if session.get("status") == sessions.CREATING and age is not None else None


def _failure(report: Report) -> str:
    return _text(_part(report, "session"), "failure_reason")


def _log(report: Report) -> str:
    tail = _part(report, "pod_logs_tail")
    return _text(tail, "text") if tail.get("available") is True else ""


def _last_lines(report: Report) -> list[str]:
    return _lines(_log(report))


def _lines(text: str) -> list[str]:
    lines = [line.strip()[:EVIDENCE_LIMIT] for line in text.splitlines() if line.strip()]
    return lines[-EVIDENCE_LINES:]


def _after_colon(said: str) -> str:
    return f": {said[:SAID_LIMIT]}" if said else ""


def _sound(report: Report, name: str) -> Mapping[str, Any]:
    """A part that could be had; {} for one with an error: it decides no issue."""
    part = _part(report, name)
    return {} if part.get("error") else part


_NOTHING: Final[Mapping[str, Any]] = {}


def _part(report: Report, name: str) -> Mapping[str, Any]:
    value = report.get(name)
    return value if isinstance(value, dict) else _NOTHING


def _mappings(part: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = part.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(part: Mapping[str, Any], name: str) -> str:
    value = part.get(name)
    return value if isinstance(value, str) else ""


def _number(part: Mapping[str, Any], name: str) -> float | None:
    value = part.get(name)
    if type(value) is not int and type(value) is not float:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None

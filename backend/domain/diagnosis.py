"""What is wrong with a session, read from facts: the eight issues of seed 000, and hints that explain the rest.

Facts are a report in the shape of the diagnose answer (LAP REST 5.1). Nothing here guesses: a fact that is missing or
null decides nothing. The eight codes are a closed set that other programs match; what else can be said is a hint.
"""

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
OVERSUBSCRIBED: Final = 1.5
RESTARTS: Final = 3
LOW_DISK_BYTES: Final = 256 * 1024 * 1024
LOW_MEMORY: Final = 0.03
BUSY_LOAD: Final = 4.0
"""Runnable processes for each processor, over the last minute, from which on everything is slow."""
EVIDENCE_LINES: Final = 5
EVIDENCE_LIMIT: Final = 300

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
    return [finding for rule in _ISSUES if (finding := rule(report)) is not None]


def hints(report: Report) -> list[Finding]:
    """What else explains the session's state, most telling first.

    Never empty for a session that failed, or that is creating for longer than SUSPECT_SECONDS.
    """
    found = [finding for rule in _HINTS for finding in rule(report)]
    return found or list(_last_resort(report))


def clone_problem(text: str) -> str:
    """Which way a git clone failed: "branch", "auth", "network", "disk", "not found" or "other"."""
    return next((kind for kind, pattern in _CLONE_PROBLEMS if re.search(pattern, text)), "other")


# The eight


def _dead_node(report: Report) -> Finding | None:
    node, pod = _part(report, "node"), _part(report, "pod")
    if not pod.get("exists"):
        return None
    if node.get("exists"):
        ready = node.get("ready_status")
        if not ready or ready == "True":
            return None
        state = f"is not ready (Ready is {ready})"
    elif pod.get("node_name") and "error" not in node:
        state = "does not exist any more"
    else:
        return None
    name = node.get("name") or pod.get("node_name")
    return {
        "code": "dead_node_assigned",
        "severity": HIGH,
        "message": f"the sandbox is on node {name}, which {state}",
        "recommended_action": f"kubectl drain {name} --ignore-daemonsets --delete-emptydir-data, remove the node, and "
        "restart the session: it comes up on a healthy node",
    }


def _stale_node_host(report: Report) -> Finding | None:
    age = _creating_seconds(report)
    containers = _containers(report)
    healthy = (
        _part(report, "pod").get("phase") == "Running"
        and bool(containers)
        and all(container.get("ready") for container in containers)
        and _part(report, "service").get("exists")
        and _part(report, "harness_probe").get("reachable")
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
        "recommended_action": "restart the platform (kubectl rollout restart deployment/<platform>), then recreate "
        "the session",
    }


def _image_pull(report: Report) -> Finding | None:
    for container in _containers(report):
        if container.get("waiting_reason") in PULL_REASONS:
            said = container.get("waiting_message")
            return {
                "code": "pod_image_pull_backoff",
                "severity": HIGH,
                "message": f"the image of container {container.get('name')} cannot be pulled "
                f"({container['waiting_reason']}){f': {said}' if said else ''}",
                "recommended_action": "check the image's name (K8S_HARNESS_IMAGE), that the node reaches the registry, "
                "and that K8S_IMAGE_PULL_POLICY is not Never where images have to be pulled",
            }
    return None


def _not_ready_old(report: Report) -> Finding | None:
    pod = _part(report, "pod")
    ready = next((each for each in _conditions(report) if each.get("type") == "Ready"), None)
    if not pod.get("exists") or not _conditions(report) or (ready and ready.get("status") == "True"):
        return None
    age_ms = (ready or {}).get("age_ms") or pod.get("age_ms")
    if not isinstance(age_ms, int | float) or age_ms <= NOT_READY_SECONDS * 1000:
        return None
    return {
        "code": "pod_not_ready_old",
        "severity": MEDIUM,
        "message": f"the sandbox is not ready for {age_ms / 1000:.0f} s",
        "recommended_action": f"kubectl describe pod {pod.get('name') or '<name>'} shows why its readiness probe fails",
    }


def _harness_unreachable(report: Report) -> Finding | None:
    probe = _part(report, "harness_probe")
    if _part(report, "pod").get("phase") != "Running" or probe.get("reachable") is not False:
        return None
    return {
        "code": "harness_unreachable",
        "severity": HIGH,
        "message": f"the sandbox runs, but its harness does not answer: {probe.get('error') or 'no answer'}",
        "recommended_action": "read the sandbox's log for errors at its start; when it does not recover, restart the "
        "session",
    }


def _oversubscribed(report: Report) -> Finding | None:
    node = _part(report, "node")
    capacity, requested = _part(node, "capacity"), _part(node, "allocated_requests")
    for name, unit in (("cpu_millicores", "CPU"), ("memory_bytes", "memory")):
        has, wants = capacity.get(name), requested.get(name)
        if has and isinstance(wants, int | float) and wants / has > OVERSUBSCRIBED:
            return {
                "code": "node_oversubscribed",
                "severity": MEDIUM,
                "message": f"the {unit} requests on node {node.get('name')} are {100 * wants / has:.0f} % of what it "
                "has",
                "recommended_action": "add nodes, delete sessions nobody needs, or lower WARM_POOL_SIZE",
            }
    return None


def _service_missing(report: Report) -> Finding | None:
    service = _part(report, "service")
    if not _part(report, "pod").get("exists") or service.get("exists") is not False or "error" in service:
        return None
    return {
        "code": "service_missing",
        "severity": HIGH,
        "message": "the sandbox runs, but the service in front of it does not exist",
        "recommended_action": "delete the session and create it again: the platform makes both together",
    }


def _pool_empty(report: Report) -> Finding | None:
    pool = _part(report, "warm_pool")
    if not report.get("warm_pool_size") or pool.get("warm") or pool.get("provisioning") or not pool:
        return None
    return {
        "code": "warm_pool_empty_for_agent",
        "severity": INFO,
        "message": "the warm pool has nothing for this agent, so its sessions start cold (only agents used lately get "
        "warm sandboxes)",
        "recommended_action": "wait for the next tick of the worker, or top the pool up; the worker's log tells of "
        "sandboxes that could not be made",
    }


_ISSUES: Final[Sequence[Callable[[Report], Finding | None]]] = (
    _dead_node,
    _stale_node_host,
    _image_pull,
    _not_ready_old,
    _harness_unreachable,
    _oversubscribed,
    _service_missing,
    _pool_empty,
)


# Hints


def _sandbox_gone(report: Report) -> Iterator[Finding]:
    session, pod = _part(report, "session"), _part(report, "pod")
    begun = session.get("status") == sessions.READY or session.get("phase") not in (None, "creating_sandbox")
    if session.get("status") in sessions.ACTIVE and begun and pod.get("exists") is False and "error" not in pod:
        yield {
            "code": "sandbox_gone",
            "severity": HIGH,
            "message": "the session's sandbox does not exist any more",
            "recommended_action": "restart the session",
        }


def _terminated(report: Report) -> Iterator[Finding]:
    for container in _containers(report):
        reason, code = container.get("terminated_reason"), container.get("terminated_exit_code")
        if reason is None and code is None:
            continue
        memory = reason == "OOMKilled" or "out of memory" in str(reason).lower()
        how = f"{reason or 'ended'}{f', exit code {code}' if code is not None else ''}"
        yield {
            "code": "out_of_memory" if memory else "container_terminated",
            "severity": HIGH,
            "message": f"{container.get('name')} ended: {how}",
            "recommended_action": "raise the memory limit (LAP_SANDBOX_MEMORY_MB) or let the agent do less at once, "
            "then restart the session"
            if memory
            else "read the last lines of its log, mend the cause, and restart the session",
            "evidence": _last_lines(report),
        }


def _restarting(report: Report) -> Iterator[Finding]:
    for container in _containers(report):
        if (count := container.get("restart_count") or 0) >= RESTARTS:
            yield {
                "code": "restart_loop",
                "severity": HIGH,
                "message": f"{container.get('name')} was restarted {count} times",
                "recommended_action": "read what it says before it ends; the reason is there",
                "evidence": _last_lines(report),
            }


def _unschedulable(report: Report) -> Iterator[Finding]:
    for condition in _conditions(report):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            said = condition.get("message") or condition.get("reason") or "it does not say why"
            yield {
                "code": "unschedulable",
                "severity": HIGH,
                "message": f"the scheduler finds no place for the sandbox: {said}",
                "recommended_action": "add nodes, delete sessions nobody needs, or lower what a sandbox requests",
            }


def _cluster_events(report: Report) -> Iterator[Finding]:
    for event in report.get("events") or ():
        reason, said = str(event.get("reason")), str(event.get("message") or "")
        for code, reasons, action in _EVENT_HINTS:
            if reason in reasons or (code == "quota_exceeded" and "exceeded quota" in said):
                yield {
                    "code": code,
                    "severity": HIGH,
                    "message": f"{reason}: {said}"[:EVIDENCE_LIMIT],
                    "recommended_action": action,
                }
                break


def _failed_clone(report: Report) -> Iterator[Finding]:
    said = _failure(report)
    if "git clone failed" in said or "git was not found" in said:
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
    ended = agent.get("exit_code") is not None or agent.get("signal") is not None
    if _part(report, "session").get("status") != sessions.READY or agent.get("running") is not False or not ended:
        return
    how = f"signal {agent['signal']}" if agent.get("signal") else f"exit code {agent.get('exit_code')}"
    yield {
        "code": "agent_exited",
        "severity": INFO if agent.get("exit_code") == 0 else MEDIUM,
        "message": f"the agent's program has ended ({how}); the sandbox is still there",
        "recommended_action": "attach to start it again, or restart the session for a fresh sandbox",
        "evidence": _last_lines(report),
    }


def _vault_away(report: Report) -> Iterator[Finding]:
    vault = _part(report, "vault")
    if vault.get("ready") is False:
        yield {
            "code": "vault_not_ready",
            "severity": HIGH,
            "message": f"nothing leaves the sandbox: the vault does not work ({vault.get('reason') or 'no reason'})",
            "recommended_action": "see the platform's log; it starts the vault again by itself",
        }


def _machine(report: Report) -> Iterator[Finding]:
    load, capacity = _part(_part(report, "node"), "load"), _part(_part(report, "node"), "capacity")
    free, said = load.get("disk_free_bytes"), f"{_failure(report)} {_log(report)[-2000:]}"
    if (isinstance(free, int) and free < LOW_DISK_BYTES) or "No space left on device" in said:
        yield {
            "code": "disk_full",
            "severity": HIGH,
            "message": "the platform's disk is full"
            + (f": {free // 2**20} MB are left" if isinstance(free, int) else ""),
            "recommended_action": "free disk space where the platform keeps its data, then restart the session",
        }
    left, total = load.get("memory_available_bytes"), capacity.get("memory_bytes")
    if isinstance(left, int) and total and left / total < LOW_MEMORY:
        yield {
            "code": "memory_short",
            "severity": HIGH,
            "message": f"the machine has {left // 2**20} MB of memory left of {total // 2**20}",
            "recommended_action": "delete sessions nobody needs",
        }
    running, millicores = load.get("load_1m"), capacity.get("cpu_millicores")
    if isinstance(running, int | float) and millicores and running / (millicores / 1000) > BUSY_LOAD:
        yield {
            "code": "machine_busy",
            "severity": MEDIUM,
            "message": f"the machine is overloaded: {running:.0f} processes want its {millicores // 1000} processors",
            "recommended_action": "delete sessions nobody needs, or wait: everything takes longer meanwhile",
        }


_HINTS: Final[Sequence[Callable[[Report], Iterator[Finding]]]] = (
    _failed_clone,
    _failed_setup,
    _terminated,
    _sandbox_gone,
    _restarting,
    _unschedulable,
    _cluster_events,
    _agent_ended,
    _vault_away,
    _machine,
)


def _last_resort(report: Report) -> Iterator[Finding]:
    """What the record alone says, so that nobody stands before an empty list."""
    session, age = _part(report, "session"), _creating_seconds(report)
    status, said = session.get("status"), _failure(report)
    if status in sessions.ENDED and said and said not in _WANTED_ENDS:
        yield {
            "code": "session_ended",
            "severity": HIGH if status == sessions.FAILED else MEDIUM,
            "message": said.splitlines()[0][:EVIDENCE_LIMIT],
            "recommended_action": "restart the session; its log says more",
            "evidence": _last_lines(report),
        }
    elif age is not None and age > SUSPECT_SECONDS:
        phase = str(session.get("phase") or "creating_sandbox")
        yield {
            "code": "slow_phase",
            "severity": MEDIUM,
            "message": f"the session is creating for {age:.0f} s and is in {phase}: {_WAITS_FOR.get(phase, phase)}",
            "recommended_action": "read the sandbox's log; the phase fails by itself after "
            f"{phases.DEFAULT_TIMEOUTS.get(phase, 600):g} s unless LAP_PHASE_TIMEOUT_SECONDS_{phase.upper()} says "
            "otherwise",
            "evidence": [detail] if (detail := session.get("phase_detail")) else _last_lines(report),
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
_WANTED_ENDS: Final = ("deleted", "stopped", "idle timeout")

_CLONE_PROBLEMS: Final = (
    ("branch", r"Remote branch .* not found|agent's branch"),
    ("auth", r"could not read (Username|Password)|Authentication failed|Check the credentials|Permission denied"),
    ("disk", r"No space left|Disk quota"),
    ("network", r"host could not be reached|Could not resolve|Connection (refused|timed out)"),
    ("not found", r"not found|does not exist|does not appear to be a git repository"),
)
_CLONE_WORDS: Final = {
    "branch": "it has no such branch",
    "auth": "the credentials do not open it",
    "network": "its host cannot be reached",
    "disk": "the disk is full",
    "not found": "there is none at this address, or it is private",
    "other": "see what git said",
}
_CLONE_ACTIONS: Final = {
    "branch": "correct the agent's branch and restart the session",
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
        "phase_timeout",
        r"took longer than [\d.]+ s",
        "a phase of the start took too long",
        "see what it waited for in the log; LAP_PHASE_TIMEOUT_SECONDS_<PHASE> sets the limit",
    ),
    (
        "env_lost",
        r"restarted before the sandbox had got this session's own env_vars",
        "the platform was restarted while the session came up, and its own env_vars are never stored",
        "create the session again with its env_vars",
    ),
)
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
    (
        "quota_exceeded",
        frozenset({"FailedCreate"}),
        "raise the namespace's quota or delete sessions nobody needs",
    ),
)


def _part(report: Report, name: str) -> Mapping[str, Any]:
    value = report.get(name)
    return value if isinstance(value, Mapping) else {}


def _containers(report: Report) -> list[Mapping[str, Any]]:
    return [each for each in _part(report, "pod").get("container_statuses") or () if isinstance(each, Mapping)]


def _conditions(report: Report) -> list[Mapping[str, Any]]:
    return [each for each in _part(report, "pod").get("conditions") or () if isinstance(each, Mapping)]


def _creating_seconds(report: Report) -> float | None:
    """How long the session is creating, None when it is not."""
    session = _part(report, "session")
    age = session.get("creating_ms")
    return age / 1000 if session.get("status") == sessions.CREATING and isinstance(age, int | float) else None


def _failure(report: Report) -> str:
    return str(_part(report, "session").get("failure_reason") or "")


def _log(report: Report) -> str:
    tail = _part(report, "pod_logs_tail")
    return str(tail.get("text") or "") if tail.get("available") else ""


def _last_lines(report: Report) -> list[str]:
    return _lines(_log(report))


def _lines(text: str) -> list[str]:
    lines = [line.strip()[:EVIDENCE_LIMIT] for line in text.splitlines() if line.strip()]
    return lines[-EVIDENCE_LINES:]

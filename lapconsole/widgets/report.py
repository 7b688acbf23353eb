"""A diagnosis as lines: findings first, then what is known of sandbox, service, node, warm pool and harness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lapconsole.client.models import Diagnosis, Issue, as_list, as_object, safe_line, safe_text
from lapconsole.keys import BY_ID, Keymap
from lapconsole.widgets.fields import LABEL, indented
from lapconsole.widgets.findings import finding_lines
from lapconsole.widgets.parts import Look, Part, Parts, wrap_parts
from lapconsole.widgets.words import age, clean, clean_lines

EVENTS_SHOWN = 5
_GIB = 2**30
_MIB = 2**20

# What a finding is mended with, where that is a key of the screen.
_CURES: Mapping[str, tuple[str, ...]] = {
    "agent_exited": ("attach", "restart"),
    "clone_failed": ("edit", "restart"),
    "disk_full": ("delete",),
    "machine_busy": ("delete",),
    "memory_short": ("delete",),
    "node_oversubscribed": ("delete", "flush"),
    "program_missing": ("restart",),
    "requirements_failed": ("edit", "restart"),
    "service_missing": ("restart", "delete"),
    "slow_phase": ("log",),
    "vault_not_ready": ("egress",),
    "warm_pool_empty_for_agent": ("top_up",),
}
_ANY_CURE = ("log", "restart")

Row = tuple[str, str, str]
"""Label, words, tone."""


def findings_lines(findings: tuple[Issue, ...], look: Look, width: int, keymap: Keymap | None = None) -> list[Parts]:
    """Every finding with evidence, cause, cure, and the keys for that, where there are keys to press."""
    lines: list[Parts] = []
    for issue in findings:
        lines += finding_lines(issue, look, width)
        cures: list[Part] = []
        if keymap is not None:
            for action in (BY_ID[f"diagnose.{name}"] for name in _CURES.get(issue.code, _ANY_CURE)):
                cures += [(f"  {keymap.first(action.id)}", "key"), (f" {action.hint}", "muted")]
        lines += [tuple(cures), ()] if cures else [()]
    return lines


def facts_lines(diagnosis: Diagnosis, look: Look, width: int) -> list[Parts]:
    """What the platform knows of each part; a part that could not be had says why."""
    data, lines = diagnosis.data, list[Parts]()
    for title, rows in _SECTIONS:
        said = list(rows(data))
        for place, (label, words, tone) in enumerate(said):
            name = title if place == 0 else f"  {label}" if label else ""
            text = f"{label}: {words}" if place == 0 and label else words
            lines += wrap_parts((f"{name:<{LABEL}}", "strong" if place == 0 else "muted"), clean(text), tone, width)
    return lines


def log_lines(diagnosis: Diagnosis, width: int) -> list[Parts]:
    """The end of the sandbox's log, or why there is none."""
    tail = as_object(diagnosis.data.get("pod_logs_tail"))
    text = tail.get("text")
    if not isinstance(text, str) or not text.strip():
        return [((f"no log: {_line(tail.get('error')) or 'nothing was written'}", "muted"),)]
    return [part for line in clean_lines(safe_text(text)) for part in indented(line, "plain", width)]


# Each section gives its rows; the first is its summary.


def _sandbox(data: Mapping[str, object]) -> Iterator[Row]:
    pod, cr = as_object(data.get("pod")), as_object(data.get("sandbox_cr"))
    if not pod.get("exists"):
        ended = as_object(data.get("session")).get("status") in ("failed", "dead")
        yield from _absent(pod, "there is none: the session has ended" if ended else "there is none")
        return
    phase = _line(pod.get("phase")) or "phase not told"
    extra = [f"for {_ago(pod.get('age_ms'))}"] if pod.get("age_ms") is not None else []
    if restarts := pod.get("restart_count"):
        extra.append(f"restarted {restarts} times")
    yield "", ", ".join([phase.lower(), *extra]), "good" if phase == "Running" else "warn"
    yield "name", _line(pod.get("name")), "plain"
    for container in map(as_object, as_list(pod.get("container_statuses"))):
        words, tone = _container(container)
        yield _line(container.get("name")) or "container", words, tone
    for condition in map(as_object, as_list(pod.get("conditions"))):
        if condition.get("status") != "True":
            why = _line(condition.get("message")) or _line(condition.get("reason"))
            yield _line(condition.get("type")), f"{condition.get('status')}{f': {why}' if why else ''}", "warn"
    if cr.get("exists") is False:
        yield "Sandbox object", "does not exist", "bad"


def _container(container: Mapping[str, Any]) -> tuple[str, str]:
    reason, code = container.get("terminated_reason"), container.get("terminated_exit_code")
    if reason is not None or code is not None:
        told = [_line(reason), "" if code is None or "exit code" in _line(reason) else f"exit code {code}"]
        return f"ended: {', '.join(filter(None, told))}", "bad"
    if waiting := _line(container.get("waiting_reason")):
        said = _line(container.get("waiting_message"))
        return f"waits: {waiting}{f', {said}' if said else ''}", "warn"
    return ("ready", "plain") if container.get("ready") else ("not ready", "warn")


def _service(data: Mapping[str, object]) -> Iterator[Row]:
    service = as_object(data.get("service"))
    if not service.get("exists"):
        yield from _absent(service, "there is none")
        return
    port, address = service.get("node_port"), _line(service.get("cluster_ip"))
    yield "", ", ".join(filter(None, [address, f"port {port}" if port else ""])) or "exists", "plain"


def _node(data: Mapping[str, object]) -> Iterator[Row]:
    node = as_object(data.get("node"))
    if not node.get("exists"):
        yield from _absent(node, "not known: there is no sandbox on one")
        return
    ready = _line(node.get("ready_status"))
    why = f" ({_line(node.get('ready_reason'))})" if node.get("ready_reason") else ""
    state = "ready" if ready == "True" else f"not ready{why}" if ready else "does not tell whether it is ready"
    yield "", f"{_line(node.get('name'))}, {state}", "plain" if ready == "True" else "bad"
    has, load = as_object(node.get("capacity")), as_object(node.get("load"))
    words = [_cpus(has.get("cpu_millicores")), _bytes(has.get("memory_bytes"), "memory")]
    if isinstance(pods := node.get("pod_count"), int):
        words.append(f"{pods} sandboxes on it")
    yield "capacity", ", ".join(filter(None, words)), "plain"
    asked = as_object(node.get("allocated_pct"))
    told = [f"{name} {value:.0f} %" for name, value in asked.items() if isinstance(value, int | float)]
    if told:
        yield "requested", ", ".join(told), "plain"
    busy = load.get("load_1m")
    words = [
        f"{busy:.1f}" if isinstance(busy, int | float) else "",
        _bytes(load.get("memory_available_bytes"), "memory free"),
        _bytes(load.get("disk_free_bytes"), "disk free"),
    ]
    if any(words):
        yield "load", ", ".join(filter(None, words)), "plain"


def _pool(data: Mapping[str, object]) -> Iterator[Row]:
    pool = as_object(data.get("warm_pool"))
    counts = {"warm": "warm", "provisioning": "coming up", "claimed": "in use", "dead": "to be removed"}
    told = [f"{pool[key]} {words}" for key, words in counts.items() if pool.get(key)]
    if pool:
        yield "", ", ".join(told) or "nothing warm for this agent", "plain"


def _harness(data: Mapping[str, object]) -> Iterator[Row]:
    probe, harness = as_object(data.get("harness_probe")), as_object(data.get("harness"))
    if not probe:
        yield "", "was not asked: there is none to ask", "muted"
        return
    if not probe.get("reachable"):
        yield "", f"does not answer: {_line(probe.get('error')) or 'no reason is given'}", "bad"
        return
    yield "", "answers" if probe.get("status") in (None, 200) else f"answers {probe.get('status')}", "good"
    if failure := _line(harness.get("failure")):
        yield "failed", failure, "bad"
    elif setup := _line(harness.get("setup")):
        yield "set-up", setup, "plain"
    agent = as_object(harness.get("agent"))
    if agent.get("running"):
        yield "agent", f"runs{f', process {pid}' if (pid := agent.get('pid')) else ''}", "plain"
    elif agent.get("signal") is not None or agent.get("exit_code") is not None:
        how = f"signal {agent['signal']}" if agent.get("signal") else f"exit code {agent.get('exit_code')}"
        yield "agent", f"has ended: {how}", "warn"


def _vault(data: Mapping[str, object]) -> Iterator[Row]:
    vault = as_object(data.get("vault"))
    if vault:
        ready = vault.get("ready")
        words = "works" if ready else f"does not work: {_line(vault.get('reason')) or 'no reason is given'}"
        yield "", words, "good" if ready else "bad"


def _events(data: Mapping[str, object]) -> Iterator[Row]:
    for event in map(as_object, as_list(data.get("events"))[-EVENTS_SHOWN:]):
        said = ": ".join(filter(None, (_line(event.get("reason")), _line(event.get("message")))))
        if said:
            yield "", said, "plain"


_SECTIONS: tuple[tuple[str, Callable[[Mapping[str, object]], Iterator[Row]]], ...] = (
    ("Sandbox", _sandbox),
    ("Service", _service),
    ("Node", _node),
    ("Warm pool", _pool),
    ("Harness", _harness),
    ("Vault", _vault),
    ("Cluster events", _events),
)


def _absent(part: Mapping[str, object], words: str) -> Iterator[Row]:
    if error := _line(part.get("error")):
        yield "", f"cannot be told: {error}" if not part.get("name") else error, "warn"
    else:
        yield "", words, "muted"


def _ago(milliseconds: object) -> str:
    return age(milliseconds / 1000) if isinstance(milliseconds, int | float) else "?"


def _cpus(millicores: object) -> str:
    return f"{millicores / 1000:g} processors" if isinstance(millicores, int | float) else ""


def _bytes(number: object, what: str) -> str:
    if not isinstance(number, int | float):
        return ""
    return f"{number / _GIB:.1f} GB {what}" if number >= _GIB else f"{number / _MIB:.0f} MB {what}"


def _line(value: object) -> str:
    return safe_line(value) if isinstance(value, str) else ""

"""A diagnosis as lines: findings first, then what is known of sandbox, service, node, warm pool and harness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from lapconsole.client.fixes import POOL, RECREATE, SERVICE, fixes_of
from lapconsole.client.models import (
    Diagnosis,
    Issue,
    as_count,
    as_list,
    as_object,
    moment_of,
    safe_line,
    safe_text,
    seconds_since,
)
from lapconsole.client.nodes import Node
from lapconsole.keys import BY_ID, Keymap
from lapconsole.widgets.fields import LABEL, indented
from lapconsole.widgets.findings import finding_lines
from lapconsole.widgets.parts import Look, Part, Parts, wrap_parts
from lapconsole.widgets.words import age, clean, clean_lines, plural

EVENTS_SHOWN = 5
_GIB = 2**30
_MIB = 2**20

# The actions that do what can be done about a finding, where they have another name.
KEYS: Mapping[str, str] = {RECREATE: "restart", SERVICE: "mend", POOL: "top_up"}

_ONLY_WHERE_IT_HELPS = ("mend", "command", "top_up")

Row = tuple[str, str, str]
"""Label, words, tone."""


def findings_lines(findings: tuple[Issue, ...], look: Look, width: int, keymap: Keymap | None = None) -> list[Parts]:
    """Every finding with evidence, cause, cure, and the keys for that, where there are keys to press."""
    lines: list[Parts] = []
    for issue in findings:
        lines += finding_lines(issue, look, width)
        cures: list[Part] = []
        if keymap is not None:
            for action in (BY_ID[f"diagnose.{KEYS.get(fix, fix)}"] for fix in fixes_of(issue)):
                cures += [(f"  {keymap.first(action.id)}", "key"), (f" {action.hint}", "muted")]
        lines += [tuple(cures), ()] if cures else [()]
    return lines


def hints_first(scope: str, hints: Sequence[str], issues: Iterable[Issue]) -> list[str]:
    """The hints of a screen with what helps against these findings first, and nothing that is of no use."""
    cures = dict.fromkeys(f"{scope}.{KEYS.get(fix, fix)}" for issue in issues for fix in fixes_of(issue))
    idle = {f"{scope}.{name}" for name in _ONLY_WHERE_IT_HELPS} - cures.keys()
    first = [cure for cure in cures if cure in hints]
    return [*first, *(hint for hint in hints if hint not in cures and hint not in idle)]


def facts_lines(diagnosis: Diagnosis, look: Look, width: int) -> list[Parts]:
    """What the platform knows of each part; a part that could not be had says why."""
    data, lines = diagnosis.data, list[Parts]()
    if kept := as_object(data.get("last_inspection")):  # of a session that has ended: nothing is there any more
        data = {**data, **kept}
        seconds = seconds_since(moment_of(kept.get("at")), look.now)
        before = "" if seconds is None else f", {age(seconds)} ago"
        lines.append(((f"As it was when the session ended{before}", "strong"),))
    for title, rows in _SECTIONS:
        said = list(rows(data, look.now))
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


def _sandbox(data: Mapping[str, object], now: datetime) -> Iterator[Row]:
    pod, cr = as_object(data.get("pod")), as_object(data.get("sandbox_cr"))
    if not pod.get("exists"):
        ended = as_object(data.get("session")).get("status") in ("failed", "dead")
        yield from _absent(pod, "there is none: the session has ended" if ended else "there is none")
        if cr.get("exists"):  # its pod is gone, or was never made: the controller says why
            yield from _conditions(cr)
        return
    phase = _line(pod.get("phase")) or "phase not told"
    extra = [f"for {_ago(pod.get('age_ms'))}"] if pod.get("age_ms") is not None else []
    if restarts := as_count(pod.get("restart_count")):
        extra.append(f"restarted {plural(restarts, 'time')}")
    if pod.get("deleting_ms") is not None:
        extra.append(f"being deleted for {_ago(pod.get('deleting_ms'))}")
    yield "", ", ".join([phase.lower(), *extra]), "good" if phase == "Running" else "warn"
    yield from _outdated(pod)
    if why := ": ".join(filter(None, (_line(pod.get("reason")), _line(pod.get("message"))))):
        yield "why", why, "warn"
    yield "name", "/".join(filter(None, (_line(pod.get("namespace")), _line(pod.get("name"))))), "plain"
    for container in map(as_object, as_list(pod.get("container_statuses"))):
        words, tone = _container(container, now)
        init = " (init)" if container.get("init") else ""
        yield f"{_line(container.get('name')) or 'container'}{init}", words, tone
    yield from _conditions(pod)
    if cr.get("exists") is False and not cr.get("error"):
        yield "Sandbox object", "does not exist", "bad"


def _conditions(part: Mapping[str, object]) -> Iterator[Row]:
    """What is not as it should be; a pod that is not ready says so once, not for its containers again."""
    told = [one for one in map(as_object, as_list(part.get("conditions"))) if one.get("status") != "True"]
    for one in told:
        name, why = _line(one.get("type")), _line(one.get("message")) or _line(one.get("reason"))
        if name == "Suspended" or (name == "ContainersReady" and len(told) > 1):
            continue
        since = f" for {_ago(one.get('age_ms'))}" if one.get("age_ms") is not None else ""
        yield name, f"{one.get('status')}{since}{f': {why}' if why else ''}", "warn"


def _container(container: Mapping[str, Any], now: datetime) -> tuple[str, str]:
    before = _ending(container, "last_terminated", now)
    earlier = f"; before: {before}" if before else ""
    if ended := _ending(container, "terminated", now):
        return f"ended: {ended}", "muted" if container.get("init") and "exit code 0" in ended else "bad"
    if waiting := _line(container.get("waiting_reason")):
        said = _line(container.get("waiting_message"))
        return f"waits: {waiting}{f', {said}' if said else ''}{earlier}", "warn"
    words, tone = ("ready", "plain") if container.get("ready") else ("not ready", "warn")
    return f"{words}{earlier}", "warn" if before else tone


def _ending(container: Mapping[str, Any], key: str, now: datetime) -> str:
    """`OOMKilled, exit code 137, 2m ago: last words`; "" when it has not ended."""
    reason, code = _line(container.get(f"{key}_reason")), container.get(f"{key}_exit_code")
    told = [reason, "" if code is None or "exit code" in reason else f"exit code {code}"]
    if not any(told):
        return ""
    seconds = seconds_since(moment_of(container.get(f"{key}_at")), now)
    told.append("" if seconds is None else f"{age(seconds)} ago")
    said = _line(container.get(f"{key}_message"))
    return f"{', '.join(filter(None, told))}{f': {said}' if said else ''}"


def _service(data: Mapping[str, object], now: datetime) -> Iterator[Row]:
    service = as_object(data.get("service"))
    if not service.get("exists"):
        yield from _absent(service, "there is none")
        return
    port, address = service.get("node_port"), _line(service.get("cluster_ip"))
    words = (_line(service.get("type")), address, f"port {port}" if port else "")
    yield "", ", ".join(filter(None, words)) or "exists", "plain"
    yield from _outdated(service)
    if name := _line(service.get("name")):
        yield "name", name, "plain"


def _node(data: Mapping[str, object], now: datetime) -> Iterator[Row]:
    node = as_object(data.get("node"))
    if not node.get("exists"):
        yield from _absent(node, "not known: there is no sandbox on one")
        return
    ready, told = _line(node.get("ready_status")), Node.from_json(node)
    why = f" ({_line(node.get('ready_reason'))})" if node.get("ready_reason") and ready != "True" else ""
    state = "ready" if ready == "True" else f"not ready{why}" if ready else "does not tell whether it is ready"
    since = "" if told.seconds is None or ready == "True" else f" for {age(told.seconds)}"
    yield "", f"{_line(node.get('name'))}, {state}{since}", "plain" if ready == "True" else "bad"
    yield from _outdated(node)
    has, load = as_object(node.get("capacity")), as_object(node.get("load"))
    words = [_cpus(has.get("cpu_millicores")), _bytes(has.get("memory_bytes"), "memory")]
    if isinstance(pods := node.get("pod_count"), int):
        words.append(f"{pods} {'sandbox' if load else 'pod'}{'' if pods == 1 else 'es' if load else 's'} on it")
    yield "capacity", ", ".join(filter(None, words)), "plain"
    if marks := (*told.pressures, *(["cordoned"] if told.unschedulable else []), *told.taints):
        yield "notes", ", ".join(marks), "warn" if told.pressures else "plain"
    asked = as_object(node.get("allocated_pct"))
    shares = [f"{name} {value:.0f} %" for name, value in asked.items() if isinstance(value, int | float)]
    if shares:
        yield "requested", ", ".join(shares), "warn" if told.oversubscribed else "plain"
    elif told.unknown_requests:
        yield "requested", f"not known: {told.unknown_requests}", "warn"
    busy = load.get("load_1m")
    words = [
        f"{busy:.1f}" if isinstance(busy, int | float) else "",
        _bytes(load.get("memory_available_bytes"), "memory free"),
        _bytes(load.get("disk_free_bytes"), "disk free"),
    ]
    if any(words):
        yield "load", ", ".join(filter(None, words)), "plain"


def _pool(data: Mapping[str, object], now: datetime) -> Iterator[Row]:
    pool = as_object(data.get("warm_pool"))
    counts = {"warm": "warm", "provisioning": "coming up", "claimed": "in use", "dead": "to be removed"}
    told = [f"{pool[key]} {words}" for key, words in counts.items() if pool.get(key)]
    if pool:
        yield "", ", ".join(told) or "nothing warm for this agent", "plain"


def _harness(data: Mapping[str, object], now: datetime) -> Iterator[Row]:
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


def _vault(data: Mapping[str, object], now: datetime) -> Iterator[Row]:
    vault = as_object(data.get("vault"))
    if vault:
        ready = vault.get("ready")
        words = "works" if ready else f"does not work: {_line(vault.get('reason')) or 'no reason is given'}"
        yield "", words, "good" if ready else "bad"


def _events(data: Mapping[str, object], now: datetime) -> Iterator[Row]:
    for event in map(as_object, as_list(data.get("events"))[-EVENTS_SHOWN:]):
        said = ": ".join(filter(None, (_line(event.get("reason")), _line(event.get("message")))))
        if said:
            seconds, count = seconds_since(moment_of(event.get("at")), now), as_count(event.get("count")) or 1
            before = "" if seconds is None else f"{age(seconds)} ago "
            often = f" ({count} times)" if count > 1 else ""
            yield "", f"{before}{said}{often}", "warn" if event.get("type") == "Warning" else "plain"


_SECTIONS: tuple[tuple[str, Callable[[Mapping[str, object], datetime], Iterator[Row]]], ...] = (
    ("Sandbox", _sandbox),
    ("Service", _service),
    ("Node", _node),
    ("Warm pool", _pool),
    ("Harness", _harness),
    ("Vault", _vault),
    ("Cluster events", _events),
)


def _outdated(part: Mapping[str, object]) -> Iterator[Row]:
    """Why what is told of a part may not be that of now."""
    if error := _line(part.get("error")):
        yield "as last seen", error, "warn"


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

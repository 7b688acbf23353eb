"""Nodes in words: cells of their list, and all facts of one."""

from __future__ import annotations

from collections.abc import Iterable

from lapconsole.client.nodes import OVERSUBSCRIBED, Node, NodeCondition
from lapconsole.widgets.fields import field_lines
from lapconsole.widgets.parts import Look, Part, Parts, wrap_parts
from lapconsole.widgets.words import age, clean, plural

_GIB = 2**30
_LOW_DISK = _GIB


def ready_parts(node: Node, look: Look) -> Parts:
    """`● ready`, `✗ not ready`, `▲ cordoned`: it takes nothing new; `✗ silent`: nobody heard of it lately.

    `✗ gone`: it was removed; `▲ not seen`: the platform may not look, or cannot.
    """
    glyphs = look.glyphs
    if not node.exists:
        return ((f"{glyphs.stuck} not seen", "warn"),) if node.error else ((f"{glyphs.failed} gone", "bad"),)
    if node.ready == "Unknown":
        return ((f"{glyphs.failed} silent", "bad"),)
    if not node.is_ready:
        return ((f"{glyphs.failed} not ready", "bad"),)
    return ((f"{glyphs.stuck} cordoned", "warn"),) if node.unschedulable else ((f"{glyphs.ready} ready", "good"),)


def cpu_parts(node: Node, look: Look) -> Parts:
    """What is requested of its processors, else how busy it is."""
    if node.cpu_percent is None and node.load_1m is not None:
        return ((f"load {node.load_1m:.1f}", "plain"),)
    return _percent(node.cpu_percent, look)


def memory_parts(node: Node, look: Look) -> Parts:
    """What is requested of its memory, else how much is used."""
    if node.memory_percent is None and node.memory_free is not None and node.memory_bytes:
        return ((f"{100 - 100 * node.memory_free // node.memory_bytes}% used", "plain"),)
    return _percent(node.memory_percent, look)


def _percent(percent: int | None, look: Look) -> Parts:
    if percent is None:
        return ((look.glyphs.dash, "muted"),)
    return ((f"{percent}% over", "bad"),) if percent > OVERSUBSCRIBED else ((f"{percent}%", "plain"),)


def marks_parts(node: Node, look: Look) -> Parts:
    """What it runs out of, and which taints keep sandboxes off it."""
    warned = [*node.pressures]
    if node.disk_free is not None and node.disk_free < _LOW_DISK:
        warned.append("low disk")
    parts: list[Part] = [(f"{look.glyphs.stuck} {', '.join(warned)}", "warn")] if warned else []
    if node.taints:
        names = (taint.partition(":")[0] for taint in node.taints)
        parts.append((f"{', ' if parts else ''}{', '.join(names)}", "muted"))
    return tuple(parts) or ((look.glyphs.dash, "muted"),)


def machine_words(node: Node) -> str:
    """`load 2.3 on 8 processors, 11.0 of 32.0 GB memory free, 184.0 GB disk free`, as far as it is told."""
    words = []
    if node.load_1m is not None:
        on = f" on {plural(node.cpu_millicores // 1000, 'processor')}" if node.cpu_millicores else ""
        words.append(f"load {node.load_1m:.1f}{on}")
    if node.memory_free is not None:
        of = f" of {node.memory_bytes / _GIB:.1f}" if node.memory_bytes else ""
        words.append(f"{node.memory_free / _GIB:.1f}{of} GB memory free")
    if node.disk_free is not None:
        words.append(f"{node.disk_free / _GIB:.1f} GB disk free")
    return ", ".join(words)


def drain_line(node: Node) -> str:
    """The command that empties a node, for a person to run; "" for a machine that no Kubernetes has."""
    if node.load_1m is not None or node.ready == "":
        return ""
    return f"kubectl drain {node.name} --ignore-daemonsets --delete-emptydir-data"


def node_lines(node: Node, look: Look, width: int, elapsed: float) -> list[Parts]:
    """All facts of a node, what is amiss first; `elapsed` seconds ago they were read."""
    since = "" if node.seconds is None else f" for {age(node.seconds + elapsed)}"
    name = ((f"{clean(node.name)}  ", "strong"), *ready_parts(node, look), (since, "muted"))
    lines: list[Parts] = [(*name, ("" if node.is_ready else f"  {clean(node.reason)}", "muted"))]
    if node.error:
        lines += wrap_parts((f"{look.glyphs.stuck} ", "warn"), clean(node.error), "plain", width)
    for words in _amiss(node):
        lines += wrap_parts((f"{look.glyphs.stuck} ", "warn"), clean(words), "plain", width)
    told = " · ".join(filter(None, map(_condition_words, node.conditions)))
    lines += field_lines(
        (
            ("requested", _requested(node)),
            ("has", _capacity(node)),
            ("now", machine_words(node)),
            ("taints", ", ".join(node.taints)),
            ("address", ", ".join(filter(None, dict.fromkeys((node.external_ip, node.internal_ip))))),
            ("conditions", told if look.glyphs.dot == "·" else told.replace("·", look.glyphs.dot)),
        ),
        width,
    )
    if not node.is_ready and (command := drain_line(node)):
        lines += wrap_parts(("run: ", "key"), clean(command), "key", width)
    return lines


def _amiss(node: Node) -> Iterable[str]:
    for one in node.conditions:
        bad = one.status != "True" if one.type == "Ready" else one.status == "True"
        if bad and (said := one.message or one.reason):
            yield f"{one.type}: {said}"
    if node.oversubscribed:
        yield (
            f"oversubscribed: more than {OVERSUBSCRIBED} % of what it has is requested; add nodes, delete sessions "
            "nobody needs, or lower WARM_POOL_SIZE"
        )
    if node.unschedulable:
        yield "cordoned: nothing new is put on it until kubectl uncordon"


def _condition_words(one: NodeCondition) -> str:
    """`DiskPressure False 3h`, for those that are not told above."""
    seconds = "" if one.seconds is None else f" {age(one.seconds)}"
    return f"{one.type} {one.status}{seconds}"


def _requested(node: Node) -> str:
    if node.cpu_percent is None and node.memory_percent is None:
        return f"not known: {node.unknown_requests}" if node.unknown_requests else ""
    told = ((node.cpu_percent, "CPU"), (node.memory_percent, "memory"))
    return ", ".join(f"{percent} % of its {what}" for percent, what in told if percent is not None)


def _capacity(node: Node) -> str:
    words = []
    if node.cpu_millicores:
        words.append(f"{node.cpu_millicores / 1000:g} processors")
    if node.memory_bytes:
        words.append(f"{node.memory_bytes / _GIB:.1f} GB memory")
    if node.pods is not None and node.load_1m is None:
        words.append(f"{plural(node.pods, 'pod')} on it")
    return ", ".join(words)

"""What a platform tells of the machines under its sandboxes, and of what keeps it from its work, as typed values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from lapconsole.client.models import as_count, as_list, as_object, moment_of, safe_line

OVERSUBSCRIBED = 150
"""Percent of what a node has, from which on too much was promised (seed 000)."""

_PRESSURES = {
    "DiskPressure": "low disk",
    "MemoryPressure": "low memory",
    "NetworkUnavailable": "no network",
    "PIDPressure": "low PIDs",
}
_CLAUSE = re.compile(r"[:;,] | \(| since | for ")


@dataclass(frozen=True, slots=True)
class NodeSandbox:
    """A sandbox on a node, and the session in it; `session_id` is "" for one that no session has."""

    name: str
    session_id: str = ""
    agent_name: str | None = None
    status: str = ""

    @classmethod
    def from_json(cls, value: object) -> NodeSandbox:
        """Read one entry of `sandboxes`: an object, or the name alone."""
        data = {"name": value} if isinstance(value, str) else as_object(value)
        session_id, agent_name, status = (_line(data.get(key)) for key in ("session_id", "agent_name", "status"))
        return cls(_line(data.get("name")), session_id, agent_name or None, status)

    @property
    def id(self) -> str:
        """Unlike that of any other."""
        return self.name


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """Something a node says of itself; `status` is True, False or Unknown."""

    type: str
    status: str = ""
    reason: str = ""
    message: str = ""
    seconds: float | None = None
    """For how long, when it was read."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine sandboxes run on (`node` of LAP REST 5.1). What is not told is None or empty.

    One that does not `exist` is known only from what is on it: it is gone, or `error` says why it is not seen. `ready`
    is True, False or Unknown, `seconds` for how long; percents are of what the node has. `load_1m` and what is
    free are told only by a platform that runs its sandboxes beside itself.
    """

    name: str
    exists: bool = True
    ready: str = ""
    reason: str = ""
    seconds: float | None = None
    unschedulable: bool = False
    cpu_percent: int | None = None
    memory_percent: int | None = None
    unknown_requests: str = ""
    cpu_millicores: int | None = None
    memory_bytes: int | None = None
    pods: int | None = None
    load_1m: float | None = None
    memory_free: int | None = None
    disk_free: int | None = None
    internal_ip: str = ""
    external_ip: str = ""
    taints: tuple[str, ...] = ()
    conditions: tuple[NodeCondition, ...] = ()
    sandboxes: tuple[NodeSandbox, ...] = ()
    error: str = ""

    @classmethod
    def from_json(cls, value: object) -> Node:
        """Read one entry of the nodes; `name` is "" when there is none."""
        data = as_object(value)
        capacity, asked, load = (as_object(data.get(key)) for key in ("capacity", "allocated_pct", "load"))
        conditions = tuple(one for one in map(_condition, as_list(data.get("conditions"))) if one.type)
        own = next((one.seconds for one in conditions if one.type == "Ready"), None)
        busy = load.get("load_1m")
        return cls(
            name=_line(data.get("name")),
            exists=data.get("exists") is not False,
            ready=_line(data.get("ready_status")),
            reason=_line(data.get("ready_reason")),
            seconds=_seconds(data.get("age_ms")) if own is None else own,
            unschedulable=data.get("unschedulable") is True,
            cpu_percent=as_count(asked.get("cpu")),
            memory_percent=as_count(asked.get("memory")),
            unknown_requests=_line(data.get("allocation_error")),
            cpu_millicores=as_count(capacity.get("cpu_millicores")),
            memory_bytes=as_count(capacity.get("memory_bytes")),
            pods=as_count(data.get("pod_count")),
            load_1m=float(busy) if isinstance(busy, int | float) and not isinstance(busy, bool) else None,
            memory_free=as_count(load.get("memory_available_bytes")),
            disk_free=as_count(load.get("disk_free_bytes")),
            internal_ip=_line(data.get("internal_ip")),
            external_ip=_line(data.get("external_ip")),
            taints=tuple(filter(None, map(_taint, as_list(data.get("taints"))))),
            conditions=conditions,
            sandboxes=tuple(one for one in map(NodeSandbox.from_json, as_list(data.get("sandboxes"))) if one.name),
            error=_line(data.get("error")),
        )

    @property
    def id(self) -> str:
        """Unlike that of any other."""
        return self.name

    @property
    def is_ready(self) -> bool:
        """Whether it takes work; one that does not tell is taken for well."""
        return self.exists and self.ready in ("True", "")

    @property
    def oversubscribed(self) -> bool:
        """Whether far more was promised than it has."""
        return max(self.cpu_percent or 0, self.memory_percent or 0) > OVERSUBSCRIBED

    @property
    def pressures(self) -> tuple[str, ...]:
        """What it runs out of, or lacks: `low disk`."""
        found = (one.type for one in self.conditions if one.status == "True" and one.type != "Ready")
        return tuple(_PRESSURES.get(name, name) for name in found)

    @property
    def address(self) -> str:
        """Where it is reached from outside, else from inside."""
        return self.external_ip or self.internal_ip


@dataclass(frozen=True, slots=True)
class Nodes:
    """All nodes, and what keeps the platform from seeing them as they are."""

    nodes: tuple[Node, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: object) -> Nodes:
        """Read the answer of GET .../nodes."""
        data = as_object(value)
        nodes = tuple(one for one in map(Node.from_json, as_list(data.get("data"))) if one.name)
        problems = (as_object(one).get("message", one) for one in as_list(data.get("problems")))
        return cls(nodes, tuple(safe_line(one) for one in problems if isinstance(one, str)))


@dataclass(frozen=True, slots=True)
class PlatformProblem:
    """Something on the platform that does not work: which part, what is the matter, and since when."""

    part: str
    message: str
    since: datetime | None = None

    @classmethod
    def from_json(cls, value: object) -> PlatformProblem:
        """Read one entry of the problems; `message` is "" when there is none."""
        data = as_object(value)
        return cls(_line(data.get("part")), _line(data.get("message")), moment_of(data.get("since")))

    @property
    def what(self) -> str:
        """Whose problem it is, as a heading: `Platform: sandboxes`."""
        return f"Platform: {self.part}" if self.part else "Platform"

    @property
    def key(self) -> tuple[str, datetime | None]:
        """The same for the same problem, whatever it counts meanwhile."""
        return self.part, self.since

    @property
    def brief(self) -> str:
        """Its first words, for a line that has little room."""
        return _CLAUSE.split(self.message, maxsplit=1)[0]


def _condition(value: object) -> NodeCondition:
    data = as_object(value)
    type_, status, reason, message = (_line(data.get(key)) for key in ("type", "status", "reason", "message"))
    return NodeCondition(type_, status, reason, message, _seconds(data.get("age_ms")))


def _taint(value: object) -> str:
    """`gpu=true:NoSchedule`; those of Kubernetes itself by their last word."""
    data = as_object(value)
    key, own, effect = (_line(data.get(part)) for part in ("key", "value", "effect"))
    if not key:
        return ""
    name = key.removeprefix("node.kubernetes.io/").removeprefix("node-role.kubernetes.io/")
    return f"{name}{f'={own}' if own else ''}{f':{effect}' if effect else ''}"


def _seconds(milliseconds: object) -> float | None:
    told = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    return max(0.0, milliseconds / 1000) if told else None  # type: ignore[operator]


def _line(value: object) -> str:
    return safe_line(value) if isinstance(value, str) else ""

"""What a platform tells of the traffic that leaves sandboxes, and of the walls around them, as typed values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from lapconsole.client.models import Event, as_count, as_list, as_object, moment_of, safe_line

BLOCKED = "blocked"
MISSED = "missed"
SWAPPED = "swapped"

_HTTP_PORTS = (80, 443)


@dataclass(frozen=True, slots=True)
class Interception:
    """A request the vault has seen: `kind` is blocked, missed (a stub that is not for its host) or swapped.

    `keys` name the credentials it is about, `rule` what decided; `count` is how often since it was last told.
    """

    id: str
    at: datetime | None = None
    session_id: str = ""
    agent_id: str = ""
    kind: str = ""
    method: str = ""
    host: str = ""
    port: int | None = None
    path: str = ""
    rule: str = ""
    count: int = 1
    keys: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: object, session_id: str = "", agent_id: str = "") -> Interception:
        """Read one interception of a session, also of a platform that says less (LAP REST 3.9)."""
        data = as_object(value)
        missed = as_list(data.get("stubs_missed"))
        kind = BLOCKED if data.get("blocked") is True else MISSED if missed else SWAPPED
        stubs = missed or as_list(data.get("stubs_swapped"))
        names = [as_object(one).get("credential") for one in as_list(data.get("real_value_fingerprint"))]
        at, of = data.get("timestamp"), _line(data.get("session_id")) or session_id
        number = as_count(data.get("id"))
        method, host, path = (_line(data.get(key)) for key in ("method", "host", "path"))
        return cls(
            id=f"{of}/{at}/{method}/{host}{path}" if number is None else str(number),
            at=moment_of(at),
            session_id=of,
            agent_id=agent_id,
            kind=_line(data.get("kind")) or kind,
            method=method,
            host=host,
            port=as_count(data.get("port")),
            path=path,
            rule=_line(data.get("rule")),
            count=as_count(data.get("count")) or 1,
            keys=tuple(
                dict.fromkeys(safe_line(name) for name in names if isinstance(name, str))
                or dict.fromkeys(_stub_name(stub) for stub in stubs if isinstance(stub, str))
            ),
        )

    @classmethod
    def from_event(cls, event: Event) -> Interception | None:
        """Read an event `egress.blocked`, `.missed` or `.swapped`; None for any other."""
        if not event.type.startswith("egress.") or not isinstance(event.data.get("egress"), dict):
            return None
        return cls.from_json(event.data["egress"], event.session_id or "", event.agent_id or "")

    @property
    def place(self) -> str:
        """The host, with its port where that is not usual."""
        if self.port is None or self.port in _HTTP_PORTS or self.method == "DNS":
            return self.host
        return f"{self.host}:{self.port}"

    @property
    def allowable(self) -> bool:
        """Whether it was refused for want of an entry in `allow_out`: nothing else is mended by one."""
        return self.kind == BLOCKED and self.rule.startswith("allow_out")

    @property
    def entry(self) -> str:
        """The entry of `allow_out` that lets it through. What is no HTTP passes only where its port is named."""
        if self.method != "TCP" or self.port is None:
            return self.place
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Switch:
    """Whether something is on, None where the platform does not tell; `reason` says why it is not.

    `down`: it is meant to be on, and does not work.
    """

    on: bool | None = None
    reason: str = ""
    down: bool = False


@dataclass(frozen=True, slots=True)
class Walls:
    """What `/healthz` says of the vault, and of how sandboxes are shut in."""

    vault: Switch = Switch()
    isolation: Switch = Switch()

    @classmethod
    def from_json(cls, health: Mapping[str, object]) -> Walls:
        """Read a health document; one that says nothing of either is fine."""
        return cls(_switch(health.get("vault")), _switch(health.get("isolation")))


def isolation_of(value: Mapping[str, object] | None) -> Switch:
    """Whether a session's sandbox is isolated, by its `isolation`."""
    return _switch(dict(value)) if value else Switch()


def interceptions_from(values: Iterable[object], session_id: str, agent_id: str = "") -> tuple[Interception, ...]:
    """All entries that name a host."""
    found = (Interception.from_json(value, session_id, agent_id) for value in values)
    return tuple(one for one in found if one.host)


def _switch(value: object) -> Switch:
    """From `true`, a word, or an object with a reason."""
    if isinstance(value, bool):
        return Switch(value)
    if isinstance(value, str):
        return Switch(_WORDS.get(value), down=value == "down")
    data = as_object(value)
    reason = _line(data.get("reason")).removeprefix("not isolated: ")
    if "filesystem" in data and "network" in data:
        # Its own files only, and no way out but the vault, or none.
        return Switch(data["filesystem"] is True and data["network"] != "open", reason)
    told = next((data[key] for key in ("isolated", "on", "ready", "state", "status") if key in data), None)
    on = told if isinstance(told, bool) else _WORDS.get(told) if isinstance(told, str) else None
    return Switch(on, reason, told == "down")


_WORDS = {"on": True, "isolated": True, "off": False, "down": False, "not isolated": False, "none": False}


def _stub_name(stub: str) -> str:
    """`stub_github_token_<hex>` is the stub of GITHUB_TOKEN."""
    return safe_line(stub.removeprefix("stub_").rpartition("_")[0]).upper()


def _line(value: object) -> str:
    return safe_line(value) if isinstance(value, str) else ""

"""What the vault knows of each sandbox: its rules, its credentials, and what it was seen doing."""

import base64
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backend.domain import egress, stubs
from backend.domain.egress import Policy, Rule, Verdict
from backend.domain.stubs import Credential, Encode, Needles, Replacer

PATH_LIMIT: Final = 512
NOTES: Final = 2_000
"""Different notes kept until the platform takes them."""
_BASICS: Final = 64
_SCOPES: Final = 256
_STUBS_NOTED: Final = 16
_SECRET_PARAMETER: Final = re.compile(
    r"([?&;][^=&;#]*(?:token|secret|key|pass|pwd|auth|sig|credential|code)[^=&;#]*=)[^&;#]*", re.IGNORECASE
)

SWAPPED: Final = "swapped"
BLOCKED: Final = "blocked"
MISSED: Final = "missed"


class Malformed(ValueError):
    """The platform sent what is no session."""


@dataclass(frozen=True, slots=True)
class Held:
    """A credential and where it may go: `hosts` None is any allowed host, over TLS."""

    credential: Credential
    hosts: Sequence[Rule] | None

    def goes_to(self, host: str, port: int, *, secure: bool) -> bool:
        if self.hosts is None:
            return secure
        # In the clear only where the port is named, which nobody does by accident.
        return any(rule.takes_name(host, port) and (secure or rule.port is not None) for rule in self.hosts)


class Scope:
    """The credentials of one session as one target may see them."""

    __slots__ = ("_by_encoder", "inside", "outside")

    def __init__(self, held: Sequence[Held], host: str, port: int, secure: bool) -> None:
        self.inside = [each.credential for each in held if each.goes_to(host, port, secure=secure)]
        self.outside = {
            each.credential.stub.encode(): each.credential.name
            for each in held
            if not each.goes_to(host, port, secure=secure)
        }
        self._by_encoder: dict[Encode, Needles] = {}

    def forward(self, encode: Encode) -> Needles:
        found = self._by_encoder.get(encode)
        if found is None:
            found = self._by_encoder[encode] = Needles(stubs.forward(self.inside, encode))
        return found


@dataclass(slots=True)
class Note:
    """One thing seen, and how often since it was last told."""

    kind: str
    method: str
    host: str
    port: int
    path: str
    rule: str
    stubs: tuple[str, ...]
    at: float
    count: int = 1


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where requests go that are sent to the explicit proxy itself: the LLM gateway, if sandboxes cannot name it."""

    secure: bool
    host: str
    port: int


class Session:
    """One sandbox."""

    def __init__(self, name: str, data: Mapping[str, Any], noted: Callable[[], None]) -> None:
        """Raises Malformed."""
        self.name = name
        self.connections: set[Any] = set()
        self.names_of: OrderedDict[str, str] = OrderedDict()
        """Names by the addresses that were told for them."""
        self._noted = noted
        self._notes: dict[tuple[Any, ...], Note] = {}
        self.dropped = 0
        self.closed = False
        self.replace(data)

    def replace(self, data: Mapping[str, Any]) -> None:
        """Take new rules and credentials. Raises Malformed, and keeps the old ones then."""
        try:
            token = str(data["token"])
            policy = _policy(data["policy"])
            held = [_held(each) for each in data["credentials"]]
            gateway = Gateway(**data["gateway"]) if data.get("gateway") else None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Malformed(f"not a session: {error!r}") from error
        self._authorization = b"Basic " + base64.b64encode(f"{self.name}:{token}".encode())
        self.policy = policy
        self.gateway = gateway
        self.held = held
        self.by_stub = {each.credential.stub.encode(): each.credential for each in held}
        self._plain_backward = stubs.backward(each.credential for each in held)
        self.backward = Needles(self._plain_backward)
        self._basics: OrderedDict[bytes, bytes] = OrderedDict()
        self._scopes: dict[tuple[str, int, bool], Scope] = {}
        self._masked: dict[str, str] = {}
        self._verdicts: dict[tuple[str, int], Verdict] = {}

    def authorized(self, value: bytes) -> bool:
        return hmac.compare_digest(value, self._authorization)

    def verdict(self, host: str, port: int) -> Verdict:
        found = self._verdicts.get((host, port))
        if found is None:
            if len(self._verdicts) >= _SCOPES:
                self._verdicts.clear()
            found = self._verdicts[host, port] = self.policy.of_name(host, port)
        return found

    def scope(self, host: str, port: int, *, secure: bool) -> Scope:
        key = (host, port, secure)
        found = self._scopes.get(key)
        if found is None:
            if len(self._scopes) >= _SCOPES:
                self._scopes.clear()
            found = self._scopes[key] = Scope(self.held, host, port, secure)
        return found

    def remember_basic(self, real: bytes, stub: bytes) -> None:
        """A Basic value with a real credential in it, to be put back should a server repeat it."""
        if self._basics.get(real) == stub:
            return
        self._basics[real] = stub
        if len(self._basics) > _BASICS:
            self._basics.popitem(last=False)
        self.backward = Needles({**self._plain_backward, **self._basics})

    def note(
        self, kind: str, method: str, host: str, port: int, path: str, rule: str, seen: Iterable[str] = ()
    ) -> None:
        """Note something; the same again only counts."""
        names = tuple(sorted(set(seen)))[:_STUBS_NOTED]
        key = (kind, method[:32], host[:300], port, self.masked(path), rule, names)
        found = self._notes.get(key)
        if found is not None:
            found.count += 1
            return
        if len(self._notes) >= NOTES:
            self.dropped += 1
            return
        self._notes[key] = Note(*key, at=time.time())
        self._noted()

    def masked(self, path: str) -> str:
        """A path fit to be shown: without credentials, and not endless."""
        if (known := self._masked.get(path)) is not None:
            return known
        data = Replacer(self.backward).whole(path[: 4 * PATH_LIMIT].encode("utf-8", "replace"))
        text = "".join(letter if letter.isprintable() else "?" for letter in data.decode("utf-8", "replace"))
        shown = _SECRET_PARAMETER.sub(r"\1***", text)[:PATH_LIMIT]
        if len(self._masked) >= _SCOPES:
            self._masked.clear()
        self._masked[path] = shown
        return shown

    def take_notes(self) -> tuple[list[Note], int]:
        """All notes since the last time, and how many more there were."""
        notes, self._notes = list(self._notes.values()), {}
        dropped, self.dropped = self.dropped, 0
        return notes, dropped

    def close(self) -> None:
        """Nothing goes out any more."""
        self.closed = True
        self.policy = Policy()
        self.held, self.by_stub, self.backward = [], {}, Needles({})
        self._basics.clear()
        self._scopes.clear()
        self._masked.clear()
        self._verdicts.clear()
        for connection in tuple(self.connections):
            connection.abort()


@dataclass(slots=True)
class Sessions:
    """All sandboxes the vault serves."""

    noted: Callable[[], None]
    by_name: dict[str, Session] = field(default_factory=dict)

    def open(self, name: str, data: Mapping[str, Any]) -> Session:
        """Add a session, or give one new rules. Raises Malformed."""
        session = self.by_name.get(name)
        if session is None:
            session = self.by_name[name] = Session(name, data, self.noted)
        else:
            session.replace(data)
        return session

    def close(self, name: str) -> None:
        if session := self.by_name.pop(name, None):
            session.close()

    def authorized(self, value: bytes) -> Session | None:
        """Whose proxy authorization that is."""
        session = self.claimed(value)
        scheme, _, rest = value.partition(b" ")
        right = (session or _NOBODY).authorized(scheme.title() + b" " + rest.strip())
        return session if right else None

    def claimed(self, value: bytes) -> Session | None:
        """Whose proxy authorization it says that it is."""
        try:
            pair = base64.b64decode(value.partition(b" ")[2].strip(), validate=True)
            return self.by_name.get(pair.partition(b":")[0].decode())
        except ValueError:
            return None

    def of_stub(self, stub: bytes) -> Session | None:
        """Whose stub that is."""
        return next((session for session in self.by_name.values() if stub in session.by_stub), None)


def _held(data: Mapping[str, Any]) -> Held:
    hosts = data.get("hosts")
    credential = Credential(str(data["name"]), str(data["stub"]), str(data["value"]))
    if not stubs.PATTERN.fullmatch(credential.stub.encode()):
        raise ValueError("a stub that is none")
    return Held(credential, None if hosts is None else egress.rules(hosts))


def _policy(data: Mapping[str, Any]) -> Policy:
    allow = [str(entry) for entry in data["allow"]]
    return Policy(
        # A list of which no entry can match allows nothing, and is not an empty one.
        allow=egress.rules(allow) or ([egress.NOTHING] if allow else []),
        deny=egress.rules(data["deny"]),
        granted=[(str(host), int(port), str(by)) for host, port, by in data.get("granted", ())],
        reachable=frozenset((str(host), int(port)) for host, port in data.get("reachable", ())),
        gateways=frozenset((str(host), int(port)) for host, port in data.get("gateways", ())),
        public=bool(data.get("public")),
    )


_NOBODY: Final = Session(
    "", {"token": secrets.token_hex(16), "policy": {"allow": [], "deny": []}, "credentials": []}, lambda: None
)
"""Takes as long to be no one as anybody does."""

"""Where a sandbox may connect to: hosts in one form, allow and deny lists, and addresses that are never reachable.

Pure: who resolves names and opens connections asks here, first with the name, then with every address it has.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MAX_HOST: Final = 253

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABELS: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.ASCII)
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+", re.ASCII)
_METADATA_NAMES: Final = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254")
)
_THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")
_NAT64: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))


class BadHost(ValueError):
    """No host name or address that could be connected to."""


def normal(host: str) -> str:
    """`host` in the one form that rules compare: a lower-case ASCII name without a dot at its end, or an IP address.

    IPv4 in any form that a resolver takes (decimal, octal, hexadecimal, fewer than four parts) and IPv4 within IPv6
    come out as plain IPv4; IPv6 has no brackets. Raises BadHost.
    """
    host = host.strip(" ")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if ":" in host:
        return str(_ipv6(host))
    if not host.isascii():
        host = _ascii(host)
    host = host.lower().removesuffix(".")
    if len(host) > MAX_HOST or not _LABELS.fullmatch(host):
        raise BadHost("not a host name")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return str(_ipv4(host))
    return host


def address(host: str) -> Address | None:
    """The address that a normal host is, None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def split(authority: str, default_port: int | None = None) -> tuple[str, int]:
    """A normal host and the port of `host[:port]`. Raises BadHost, also for user names in it and for no port at all."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:@\[\]/?#\\\s]+)(?::([0-9]{1,5}))?", authority)
    if found is None:
        raise BadHost("not a host with a port")
    port = int(found[2]) if found[2] else default_port
    if port is None or not 0 < port < 65_536:
        raise BadHost("no port")
    return normal(found[1]), port


def special(ip: Address) -> str | None:
    """Why nothing in a sandbox may connect to `ip`, None for ordinary addresses, private ones too."""
    for each in (ip, *_embedded(ip)):
        if each in _METADATA:
            return "a metadata address"
        if each.is_loopback:
            return "a loopback address"
        if each.is_link_local:
            return "a link-local address"
        if each.is_unspecified or (each.version == 4 and each in _THIS_NETWORK):
            return "no address of a host"
        if each.is_multicast:
            return "a multicast address"
        if each.version == 4 and each.is_reserved:
            return "a reserved address"
    return None


def private(ip: Address) -> bool:
    """Whether only a network of one's own leads there."""
    return any(not each.is_global for each in (ip, *_embedded(ip)))


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of a list. A name matches itself, `*.name` also all below it, an IP or CIDR the addresses in it."""

    text: str
    name: str | None
    below: bool
    network: Network | None
    port: int | None

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """From what `hosts.problem` accepts. Raises BadHost for what can match no host."""
        entry, port = _without_port(text.strip())
        if "/" in entry or (":" in entry and not entry.startswith("*")):
            try:
                network = ipaddress.ip_network(_plain_network(entry), strict=False)
            except ValueError:
                raise BadHost(f"{text} is no network") from None
            return cls(text, None, False, network, port)
        below = entry.startswith("*.")
        host = normal(entry[2:] if below else entry)
        ip = address(host)
        if ip is not None:
            return cls(text, None, False, ipaddress.ip_network(ip), port)
        return cls(text, host, below, None, port)

    def takes_name(self, host: str, port: int) -> bool:
        """Whether it is about a normal host, name or address, by what it is called."""
        if self.port is not None and self.port != port:
            return False
        if self.name is not None:
            return host == self.name or (self.below and host.endswith(f".{self.name}"))
        ip = address(host)
        return ip is not None and self._holds(ip)

    def takes_address(self, ip: Address, port: int) -> bool:
        """Whether it is about an address that a name has."""
        return self.port in (None, port) and self._holds(ip)

    def _holds(self, ip: Address) -> bool:
        if self.network is None:
            return False
        return any(each.version == self.network.version and each in self.network for each in (ip, *_embedded(ip)))


NOTHING: Final = Rule("", None, False, None, None)
"""Matches nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says. `rule` names what decided: an entry with its list, or why there is none."""

    allowed: bool
    rule: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The lists of one agent (LAP harness 5.3, except that deny always wins).

    `granted` are exact targets that need no entry in the allow list, with what grants them: the repository's host.
    `reachable` are exact targets that may be special addresses. Of them, `gateways` are not subject to the lists.
    `public`: private addresses are refused, too, unless something names them: `reachable`, `granted`, or an entry of
    the allow list that is an address, a network or an exact name.
    """

    allow: Sequence[Rule] = ()
    deny: Sequence[Rule] = ()
    granted: Sequence[tuple[str, int, str]] = ()
    reachable: Collection[tuple[str, int]] = ()
    gateways: Collection[tuple[str, int]] = ()
    public: bool = False

    def of_name(self, host: str, port: int) -> Verdict:
        """The verdict on a normal host before anything is resolved."""
        if (host, port) in self.gateways:
            return Verdict(True, "LLM gateway")
        if host in _METADATA_NAMES:
            return Verdict(False, "always refused: a metadata address")
        ip = address(host)
        if (host == "localhost" or host.endswith(".localhost")) and (host, port) not in self.reachable:
            return Verdict(False, "always refused: a loopback address")
        if ip is not None and (refused := self._always(host, port, ip)):
            return refused
        for rule in self.deny:
            if rule.takes_name(host, port):
                return Verdict(False, f"deny_out: {rule.text}")
        for rule in self.allow:
            if rule.takes_name(host, port):
                return Verdict(True, f"allow_out: {rule.text}")
        for granted_host, granted_port, by in self.granted:
            if (host, port) == (granted_host, granted_port):
                return Verdict(True, by)
        if self.allow:
            return Verdict(False, "allow_out: no entry matches")
        return Verdict(True, "no allow_out")

    def of_addresses(self, host: str, port: int, addresses: Iterable[Address]) -> Verdict:
        """The verdict on all addresses that a name, allowed by `of_name`, was resolved to: one bad one is enough."""
        if (host, port) in self.gateways:
            return Verdict(True, "LLM gateway")
        for ip in addresses:
            if refused := self._always(host, port, ip):
                return refused
            for rule in self.deny:
                if rule.takes_address(ip, port):
                    return Verdict(False, f"deny_out: {rule.text} ({host} is {ip})")
            if self.public and not self._names(host, port, ip) and private(ip):
                return Verdict(False, f"refused unless allow_out names it: {host} is {ip}, a private address")
        return Verdict(True, "its addresses")

    def names_port(self, host: str, port: int) -> bool:
        """Whether an entry of the allow list names the port, which opens it for more than HTTP."""
        return any(rule.port == port and rule.takes_name(host, port) for rule in self.allow)

    def _names(self, host: str, port: int, ip: Address) -> bool:
        """Whether somebody has meant just that host, or that address."""
        if (host, port) in self.reachable or any((host, port) == (each[0], each[1]) for each in self.granted):
            return True
        exact = (rule for rule in self.allow if not rule.below)
        return any(rule.takes_address(ip, port) or rule.takes_name(host, port) for rule in exact)

    def _always(self, host: str, port: int, ip: Address) -> Verdict | None:
        if (host, port) in self.reachable:
            return None
        reason = special(ip)
        return Verdict(False, f"always refused: {reason}") if reason else None


def rules(entries: Iterable[str]) -> list[Rule]:
    """The rules of a list; entries that can match nothing are left out."""
    found = []
    for entry in entries:
        try:
            found.append(Rule.parse(entry))
        except BadHost:
            continue
    return found


def covered(entry: str, allow: Sequence[str]) -> bool:
    """Whether every host that `entry` can match is allowed by a list, which allows all when it is empty."""
    if not allow:
        return True
    try:
        wanted = Rule.parse(entry)
    except BadHost:
        return False
    return any(_covers(rule, wanted) for rule in rules(allow))


def _covers(rule: Rule, wanted: Rule) -> bool:
    if rule.port not in (None, wanted.port):
        return False
    if wanted.network is not None:
        return (
            rule.network is not None
            and rule.network.version == wanted.network.version
            and wanted.network.subnet_of(rule.network)  # type: ignore[arg-type]
        )
    if rule.name is None or wanted.name is None:
        return False
    if wanted.below and not rule.below:
        return False
    return wanted.name == rule.name or (rule.below and wanted.name.endswith(f".{rule.name}"))


def _without_port(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        inner, _, port = entry[1:].partition("]")
        return inner, int(port[1:]) if port else None
    if entry.count(":") == 1:
        entry, _, port = entry.partition(":")
        return entry, int(port)
    return entry, None


def _plain_network(entry: str) -> str:
    base, slash, bits = entry.partition("/")
    return f"{normal(base)}{slash}{bits}"


def _embedded(ip: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """IPv4 addresses that an IPv6 address leads to: mapped, 6to4, Teredo, NAT64."""
    if ip.version == 4:
        return ()
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if any(ip in network for network in _NAT64) and int(ip) > 1:
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return tuple(each for each in found if each is not None)


def _ascii(host: str) -> str:
    import idna  # its tables take memory, and few hosts need them

    try:
        return idna.encode(host, uts46=True, transitional=False).decode()
    except idna.IDNAError:
        pass
    # Digits of other scripts come out as an address, which is no domain name to the library.
    try:
        mapped = idna.uts46_remap(host, False, False)
    except idna.IDNAError:
        raise BadHost("not a host name") from None
    if not mapped.isascii():
        raise BadHost("not a host name")
    return mapped


def _ipv6(host: str) -> Address:
    try:
        ip = ipaddress.IPv6Address(host)
    except ValueError:
        raise BadHost("not an IPv6 address") from None
    if ip.scope_id is not None:
        raise BadHost("an address with a zone")
    return ip.ipv4_mapped or ip


def _ipv4(host: str) -> ipaddress.IPv4Address:
    """As inet_aton reads it: the last part fills all that is left."""
    parts = host.split(".")
    if len(parts) > 4:
        raise BadHost("not an IPv4 address")
    numbers = []
    for part in parts:
        if not _NUMBER.fullmatch(part):
            raise BadHost("not an IPv4 address")
        numbers.append(_number(part))
    *firsts, last = numbers
    if any(number > 255 for number in firsts) or last >= 256 ** (4 - len(firsts)):
        raise BadHost("not an IPv4 address")
    value = last
    for index, number in enumerate(firsts):
        value += number << (8 * (3 - index))
    return ipaddress.IPv4Address(value)


def _number(text: str) -> int:
    try:
        if text.startswith("0x"):
            return int(text[2:] or "0", 16)
        return int(text, 8 if text.startswith("0") and len(text) > 1 else 10)
    except ValueError:
        raise BadHost("not an IPv4 address") from None

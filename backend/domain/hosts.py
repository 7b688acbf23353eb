"""Which texts may stand in an egress list: a domain, `*.` wildcard, IP or CIDR (LAP REST 2.1), or with a port."""

import ipaddress
import re
from typing import Final

MAX_LENGTH: Final = 253
MAX_PORT: Final = 65_535

_ENTRY: Final = re.compile(r"(?:\*\.)?[A-Za-z0-9._-]+(?:/\d{1,2})?(?::(?P<port>\d{1,5}))?", re.ASCII)
_IPV6: Final = re.compile(
    r"(?P<open>\[)?(?P<net>[0-9A-Fa-f:.]+(?:/\d{1,3})?)(?(open)\](?::(?P<port>\d{1,5}))?)", re.ASCII
)


def problem(entry: str) -> str | None:
    """Why `entry` (trimmed) cannot stand in `allow_out` or `deny_out`, or None."""
    if 0 < len(entry) <= MAX_LENGTH:
        found = _ENTRY.fullmatch(entry) or _IPV6.fullmatch(entry)
        if found and _is_port(found["port"]) and (found.re is _ENTRY or _is_ipv6(found["net"])):
            return None
    return "must be a domain, *.wildcard, IP, or CIDR"


def _is_port(text: str | None) -> bool:
    return text is None or 0 < int(text) <= MAX_PORT


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_network(text, strict=False).version == 6
    except ValueError:
        return False

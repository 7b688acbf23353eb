"""Which texts may stand in an egress list: a domain, `*.` wildcard, IP or CIDR (LAP REST 2.1)."""

import re
from typing import Final

MAX_LENGTH: Final = 253

_ENTRY: Final = re.compile(r"(\*\.)?[A-Za-z0-9._-]+(/\d{1,2})?", re.ASCII)


def problem(entry: str) -> str | None:
    """Why `entry` (trimmed) cannot stand in `allow_out` or `deny_out`, or None."""
    if 0 < len(entry) <= MAX_LENGTH and _ENTRY.fullmatch(entry):
        return None
    return "must be a domain, *.wildcard, IP, or CIDR"

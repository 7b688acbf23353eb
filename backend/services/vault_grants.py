"""What a sandbox is granted: its stubs, and where its credentials may go besides where their lists say."""

import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backend.domain.egress import BadHost, address, normal, special


@dataclass(slots=True)
class Grant:
    """What one sandbox was given: who proves with `token` to be it, and its stubs by name."""

    token: str = field(repr=False)
    stubs: dict[str, str] = field(repr=False)
    plain_env: dict[str, str] = field(repr=False)
    """Values of the operator's own variables among them, which no agent stores."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The LLM gateway as the settings name it."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, base: str) -> "Gateway | None":
        parts = urlsplit(base)
        secure = parts.scheme == "https"
        try:
            port = parts.port or (443 if secure else 80)
            return cls(secure, normal(parts.hostname or ""), port, parts.path.rstrip("/"))
        except (BadHost, ValueError):
            return None

    @property
    def entry(self) -> str:
        """As it stands in a list of hosts."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def hidden(self) -> bool:
        """Whether it is on the machine's loopback, which in a sandbox is another."""
        ip = address(self.host)
        return self.host == "localhost" or (ip is not None and ip.is_loopback)


def clone_target(body: Mapping[str, Any]) -> tuple[str, int, str] | None:
    """Host, port and list entry of the repository's host; None when no token is sent there through the vault."""
    parts = urlsplit(body.get("repo_url") or "")
    if parts.scheme not in ("https", "http"):
        return None
    try:
        host, port = normal(parts.hostname or ""), parts.port or (443 if parts.scheme == "https" else 80)
    except (BadHost, ValueError):
        return None
    ip = address(host)
    if host == "localhost" or (ip is not None and special(ip)):
        return None
    return host, port, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bundle(ours: str) -> str:
    """A vault's certificates together with those that the system trusts. Reads files."""
    paths = ssl.get_default_verify_paths()
    system = paths.cafile or paths.openssl_cafile
    theirs = ""
    with contextlib.suppress(OSError):
        theirs = Path(system).read_text()
    if not theirs:
        with contextlib.suppress(ImportError, OSError):
            import certifi

            theirs = Path(certifi.where()).read_text()
    return f"{theirs.rstrip()}\n{ours}"

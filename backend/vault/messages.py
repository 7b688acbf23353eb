"""Requests and responses as both versions of HTTP share them."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from backend.vault.bodies import Body
from backend.vault.link import Change, Link, unchanged

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"transfer-encoding", b"upgrade", b"http2-settings", b"expect"),
    }
)

_USUAL: Final = frozenset({b"close", b"keep-alive", b"upgrade", b"te", b""})


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Request:
    """A request to one target. `path` is as it stands in the request line; `host` is normal."""

    method: str
    secure: bool
    host: str
    port: int
    path: bytes
    headers: Headers
    body: Body | None
    length: int | None
    """Of the body, if it was said."""
    http2: bool
    """Whether the client speaks HTTP/2."""
    upgrade: bytes | None = None
    """What the client wants to go on with on this connection."""
    shown: str = ""
    """The path as the client wrote it, for notes."""

    @property
    def authority(self) -> bytes:
        return authority(self.host, self.port, secure=self.secure)


@dataclass(slots=True)
class Response:
    """An answer. `length` None: unknown, or none."""

    status: int
    reason: bytes
    headers: Headers
    body: Body | None
    length: int | None = None
    upgraded: Link | None = None
    """The connection to go on with, after status 101."""
    forth: Change = unchanged
    back: Change = unchanged
    """What becomes of bytes on it, to the server and from it."""
    close: Callable[[], None] = _nothing
    """Gives up what is not read."""
    ours: bool = False
    """Whether the vault itself has written it, and so all its headers are meant."""
    trailers: Headers | None = None
    """Of HTTP/2, once the body has ended."""


class Unfit(ValueError):
    """A head that cannot be written: something in it would be read as more than it is."""


def head(first: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The first line and the headers as HTTP/1.1 writes them. Raises Unfit."""
    parts = [first]
    for name, content in headers:
        parts += (name, b": ", content, b"\r\n")
    data = b"".join(parts)
    # One line for each, whatever any of them holds.
    lines = len(parts) // 4 + 1
    if data.count(b"\n") != lines or data.count(b"\r") != lines or b"\0" in data:
        raise Unfit("a line break or NUL in a header")
    return data + b"\r\n"


def size(target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Bytes of a head, about."""
    return len(target) + len(b"".join([part for header in headers for part in header]))


@functools.lru_cache(256)
def authority(host: str, port: int, *, secure: bool) -> bytes:
    """As it stands in Host."""
    shown = f"[{host}]" if ":" in host else host
    return (shown if port == (443 if secure else 80) else f"{shown}:{port}").encode()


def value(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The values of a header, joined as a list; b"" when there is none."""
    found = [content for key, content in headers if key.lower() == name]
    return found[0] if len(found) == 1 else b", ".join(found)


def index(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """What `value` finds, of all headers at once."""
    found: dict[bytes, bytes] = {}
    for written, content in headers:
        name = written.lower()
        found[name] = found[name] + b", " + content if name in found else content
    return found


def end_to_end(headers: Iterable[tuple[bytes, bytes]], also: Sequence[bytes] = ()) -> Headers:
    """The headers that are meant for the other end."""
    kept: Headers = []
    named: set[bytes] = set()
    for header in headers:
        name = header[0].lower()
        if name in _HOP_BY_HOP:
            if name == b"connection":
                named.update(each.strip() for each in header[1].lower().split(b","))
        elif name not in also:
            kept.append(header)
    if named - _USUAL:
        kept = [header for header in kept if header[0].lower() not in named]
    return kept

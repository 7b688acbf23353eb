"""Heads of HTTP/1.1 as nearly everybody writes them, each read by one expression; all others are for h11 to judge.

What is taken here h11 takes too, and reads the same: a test holds both beside each other. So nothing passes that h11
refuses, and most messages cost a fraction of its time.
"""

import re
from dataclasses import dataclass
from typing import Final

from backend.vault.limits import HEAD_BYTES
from backend.vault.messages import Headers, index

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_FIELDS: Final = rb"((?:" + _TOKEN + rb": ?+(?:[\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*+)?+\r\n)++)\r\n"
_REQUEST: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]++) HTTP/1\.1\r\n" + _FIELDS)
_RESPONSE: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*+)\r\n" + _FIELDS)
_FIELD: Final = re.compile(rb"([^:]++): ?+([^\r]*+)\r\n")
_SINGLE: Final = (b"host", b"content-length", b"transfer-encoding")
_MAX_DIGITS: Final = 15


@dataclass(slots=True)
class RequestHead:
    """The head of a request. `said` has all headers by lower-case name."""

    method: bytes
    target: bytes
    version: bytes
    headers: Headers
    said: dict[bytes, bytes]
    end: int = 0
    """Where in the data it ends."""

    @property
    def chunked(self) -> bool:
        return b"transfer-encoding" in self.said

    @property
    def length(self) -> int | None:
        """Of the body, if it is said."""
        counted = self.said.get(b"content-length")
        return int(counted) if counted else None


@dataclass(slots=True)
class ResponseHead:
    """The head of a final response whose body has a length."""

    status: int
    reason: bytes
    headers: Headers
    said: dict[bytes, bytes]
    length: int
    end: int


def request(data: bytes) -> RequestHead | None:
    """The head that `data` begins with. None: it is not plain, not whole, or its body not of a known length."""
    found = _REQUEST.match(data)
    if found is None:
        return None
    method, target, block = found.groups()
    fields = _fields(block)
    if fields is None or found.end() > HEAD_BYTES:
        return None
    headers, said = fields
    if b"host" not in said or b"expect" in said or b"upgrade" in said:
        return None
    return RequestHead(method, target, b"1.1", headers, said, found.end())


def response(data: bytes) -> ResponseHead | None:
    """The head that `data` begins with. None: it is not plain, not whole, or no body of known length follows."""
    found = _RESPONSE.match(data)
    if found is None:
        return None
    status, reason, block = found.groups()
    fields = _fields(block)
    if fields is None or found.end() > HEAD_BYTES or status in (b"204", b"304"):
        return None
    headers, said = fields
    counted = said.get(b"content-length")
    if counted is None:
        return None
    return ResponseHead(int(status), reason, headers, said, int(counted), found.end())


def _fields(block: bytes) -> tuple[Headers, dict[bytes, bytes]] | None:
    if b" \r\n" in block or b"\t\r\n" in block:
        return None
    headers: Headers = _FIELD.findall(block)
    said = {name.lower(): content for name, content in headers}
    if len(said) != len(headers):
        names = [name.lower() for name, _ in headers]
        if any(names.count(name) > 1 for name in _SINGLE):
            return None
        said = index(headers)
    if b"transfer-encoding" in said:
        return None
    counted = said.get(b"content-length")
    if counted is not None and not (counted.isdigit() and len(counted) <= _MAX_DIGITS):
        return None
    return headers, said

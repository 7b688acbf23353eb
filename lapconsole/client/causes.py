"""Why a connection failed, as one short line."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator

from lapconsole.client.errors import BadInput
from lapconsole.client.models import safe_line

_BY_ERRNO = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection closed by the platform",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ETIMEDOUT: "timed out",
}


def cause_of(error: BaseException, timed_out: str) -> str:
    """The most telling cause in an exception's chain. `timed_out` says a timeout, such as "timed out after 5 s"."""
    chain = list(_chain(error))
    for link in chain:
        if (cause := _network_cause(link)) is not None:
            return cause
    if any(isinstance(link, TimeoutError) or "Timeout" in type(link).__name__ for link in chain):
        return timed_out
    text = safe_line(str(error)).strip()
    return (text or type(error).__name__)[:200]


def unusable_proxy(error: Exception) -> BadInput:
    """What to say when the proxy that the environment names cannot be used."""
    return BadInput(
        "the proxy set in the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) cannot be used: "
        f"{safe_line(str(error))[:200]}; change it, or name this host in NO_PROXY"
    )


def _network_cause(error: BaseException) -> str | None:
    if isinstance(error, socket.gaierror):
        return "name not resolved"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'handshake').replace('_', ' ').lower()}"
    if isinstance(error, OSError):
        # asyncio joins the errors of several addresses of a host into one that has only their text.
        told = re.search(r"\[Errno (\d+)\]", str(error)) if error.errno is None else None
        return _BY_ERRNO.get(int(told[1]) if told else error.errno or 0)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes and the members of groups among them, each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        if isinstance(link, BaseExceptionGroup):
            waiting.extend(link.exceptions)
        waiting.extend(cause for cause in (link.__cause__, link.__context__) if cause is not None)

"""What the Kubernetes API can answer instead of what was asked for, as exceptions with texts for people."""

import contextlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

_RETRY_AFTER_MAX: Final = 300.0
_MESSAGE_MAX: Final = 600
_CANNOT: Final = re.compile(r' cannot [\w*-]+ (resource|path) "')
"""How access rules say no (quotas and policies do it in other words)."""


class ApiError(Exception):
    """The API server said no. The text is `cause: step`, for people, without any secret."""

    def __init__(
        self,
        cause: str,
        step: str = "",
        *,
        status: int = 0,
        reason: str = "",
        message: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{cause}: {step}" if step else cause)
        self.cause = cause
        self.step = step
        """What to do about it, "" when there is nothing."""
        self.status = status
        """HTTP status; 0 when there was no answer."""
        self.reason = reason
        """`reason` of the Status object, e.g. "AlreadyExists"; "" when there is none."""
        self.message = message or cause
        """The server's words."""
        self.retry_after = retry_after
        """Seconds the server asks us to wait, 0..300."""


class NotConfigured(ApiError):
    """There is no configuration to connect with, or none that can be used."""


class Unreachable(ApiError):
    """No answer at all, or one cut short: refused, timed out, TLS failed... A request that changes may have worked."""

    def __init__(self, cause: str, *, untrusted: bool = False) -> None:
        super().__init__(cause)
        self.untrusted = untrusted
        """TLS said no: renewed certificates may help."""


class Senseless(Unreachable):
    """An answer that is cut short, or not in the API's language."""


class Unauthorized(ApiError):
    """401, also after the credentials were read anew."""


class Forbidden(ApiError):
    """403. The text says which verb on what the account lacks; when a quota or policy says no, it is the server's."""

    denied: tuple[str, str] | None = None
    """Verb and resource that access rules deny, None when they are not the reason."""


class NotFound(ApiError):
    """404."""


class NotServed(NotFound):
    """The cluster does not know this kind of object: agent-sandbox is not installed."""


class Conflict(ApiError):
    """409; `reason` tells "AlreadyExists" from "Conflict" (the object has changed meanwhile)."""


class Gone(ApiError):
    """410: the resourceVersion or the continue token is too old."""


class Invalid(ApiError):
    """422: the object breaks the rules of its schema."""


class Throttled(ApiError):
    """429: too many requests, also an eviction that a budget forbids."""


_BY_STATUS: Final[Mapping[int, type[ApiError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Throttled,
}


def refusal(body: object, status: int, headers: Mapping[str, str], verb: str, on: str) -> ApiError:
    """The error for an answer: `body` is a Status object or the text instead of one, `on` what `verb` was tried on.

    `status` is that of HTTP, 0 for a Status object that came as an event.
    """
    found: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    code, reason = found.get("code"), found.get("reason")
    status = status or (code if isinstance(code, int) else 500)
    message = _plain(found.get("message") if found else body) or "the Kubernetes API gave no reason"
    kind = _BY_STATUS.get(status, ApiError)
    cause, step = f"{message} ({status})", ""
    denied = status == 403 and _CANNOT.search(message) is not None
    if status == 401:
        cause = "the Kubernetes API does not accept the platform's credentials (401)"
        step = "renew the token or certificate of its kubeconfig or service account"
    elif denied:
        cause = f"may not {verb} {on} (403)"
        rights = "list and watch" if verb in ("list", "watch") else verb
        step = f"give the platform's service account {rights} on {on}"
    elif status == 404 and verb in ("list", "watch"):
        cause = f"the server knows no {on} (404)"
        step = "check that the address in the kubeconfig is that of a Kubernetes API"
    elif status == 429:
        cause, step = (
            f"the Kubernetes API is busy: {message} (429)",
            "it is asked less often; if this lasts, see what loads it",
        )
    error = kind(
        cause,
        step,
        status=status,
        reason=reason if isinstance(reason, str) else "",
        message=message,
        retry_after=_retry_after(headers.get("Retry-After"), found),
    )
    if isinstance(error, Forbidden) and denied:
        error.denied = (verb, on)
    return error


def cause_of(error: BaseException) -> tuple[str, bool]:
    """Why there was no answer, in a few words, and whether TLS was the reason."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or "it does not fit"
        return f"its certificate is not trusted ({_plain(why)})", True
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed", True
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name is not known", False
    if isinstance(error, TimeoutError):
        return "no answer in time", False
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "the connection was cut", False
    if isinstance(error, OSError):
        under = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if isinstance(under, ConnectionRefusedError):
            return "connection refused", False
        if isinstance(under, ConnectionError):
            return "the connection was cut", False
        return _plain(under.strerror or type(under).__name__).lower(), False
    if isinstance(error, aiohttp.InvalidURL):
        return "its address is no URL", False
    if isinstance(error, aiohttp.ClientConnectionError | RuntimeError):
        return "the connection was closed", False
    return "its answer is no HTTP", False


def _plain(text: object) -> str:
    """One bounded line of what someone else wrote."""
    line = " ".join(str(text or "").split())
    return "".join(c for c in line if c.isprintable())[:_MESSAGE_MAX]


def _retry_after(header: str | None, body: Mapping[str, Any]) -> float | None:
    """From the header (seconds or a date), else from the Status object; None when neither says."""
    seconds: float | None = None
    if header and re.fullmatch(r"\d{1,9}", header.strip()):
        seconds = float(header)
    elif header:
        with contextlib.suppress(ValueError, TypeError):
            moment = parsedate_to_datetime(header)
            seconds = (moment - datetime.now(UTC if moment.tzinfo else None)).total_seconds()
    else:
        details = body.get("details")
        told = details.get("retryAfterSeconds") if isinstance(details, Mapping) else None
        seconds = float(told) if isinstance(told, int) and told > 0 else None
    return None if seconds is None else max(0.0, min(seconds, _RETRY_AFTER_MAX))

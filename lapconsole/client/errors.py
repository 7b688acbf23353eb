"""What can go wrong between the console and a platform, each with a message a person can act on."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

NOT_LAP = "NOT_LAP"
"""Code of the error of a server that answers, but not as a platform does."""


class ClientError(Exception):
    """Any failure of a call to a platform. `str(error)` is one line, fit to be shown."""


class BadInput(ClientError):
    """An address, id or key that no request can be made from. Nothing was sent."""


class Unreachable(ClientError):
    """No answer came from the platform. `cause` is one short line, such as "connection refused".

    `silent_seconds` is how long nothing had been heard before this was noticed.
    """

    def __init__(self, address: str, cause: str, *, silent_seconds: float = 0.0) -> None:
        super().__init__(f"cannot reach {address}: {cause}")
        self.address = address
        self.cause = cause
        self.silent_seconds = silent_seconds


class Unsupported(ClientError):
    """The platform answers but lacks this extension."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry of a validation answer. `path` is dotted, such as "env_vars.PORT"; empty for the whole body."""

    path: str
    message: str
    code: str


class PlatformError(ClientError):
    """The platform answered with an error.

    `status` is the HTTP status, `code` the platform's own word ("NOT_FOUND", "" when it has none), `message` its text
    as one line, `issues` the single problems of a refused body.
    """

    def __init__(self, status: int, code: str, message: str, issues: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.issues = issues

    @property
    def key_refused(self) -> bool:
        """Whether another key is needed: trying again with this one is pointless."""
        return self.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

    @property
    def status_line(self) -> str:
        """Status and its standard phrase, such as "401 Unauthorized"."""
        return status_line(self.status)


class TtyRefused(ClientError):
    """The terminal endpoint answered the upgrade with an HTTP error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TtyClosed(ClientError):
    """The terminal connection has ended; `code` and `reason` are those of the close frame (1006: none came)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"terminal closed ({code}{f': {reason}' if reason else ''})")
        self.code = code
        self.reason = reason


def status_line(status: int) -> str:
    """An HTTP status with its standard phrase; the bare number where there is none."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)

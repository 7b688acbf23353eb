"""Refusals of the services, in words a user can act on. The API gives each its HTTP status (LAP REST 1.2)."""

from collections.abc import Sequence

from backend.domain.problems import Problem


class ServiceError(Exception):
    """A request that cannot be carried out. The text names the cause, and the next step where there is one."""


class NotFound(ServiceError):
    """What the request is about does not exist."""


class Conflict(ServiceError):
    """It exists, but is in a state that does not allow this."""


class Unavailable(ServiceError):
    """Something the platform needs for this does not answer, or is not configured."""


class HarnessFailed(ServiceError):
    """The sandbox of a session did not do what it was asked."""


class Ended(ServiceError):
    """The session is over."""


class TookTooLong(ServiceError):
    """It did not happen within the time there is for it."""


class Invalid(ServiceError):
    """The request breaks rules: all of them are in `problems`, none of which repeats a value."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


def agent_not_found(agent_id: str) -> NotFound:
    """With the text of LAP REST 1.2."""
    return NotFound(f"agent '{agent_id}' not found")


def session_not_found(session_id: str) -> NotFound:
    """With the text of LAP REST 1.2."""
    return NotFound(f"session {session_id} not found")


class VaultError(Exception):
    """The vault does not do what a sandbox needs; the text says why and what to do."""

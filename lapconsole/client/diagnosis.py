"""What a platform finds about all its sessions at once, as typed values (seed 000)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from lapconsole.client.models import Issue, Session, as_count, as_list, as_object, issues_from, moment_of, safe_line


@dataclass(frozen=True, slots=True)
class Examined:
    """One session with all that is wrong with it, the worst first."""

    session_id: str
    agent_id: str = ""
    agent_name: str | None = None
    status: str = ""
    phase: str | None = None
    findings: tuple[Issue, ...] = ()

    @classmethod
    def from_json(cls, value: object) -> Examined:
        """Read one entry of `data`; `session_id` is "" when there is none."""
        data = as_object(value)
        return cls(
            _line(data.get("session_id")),
            _line(data.get("agent_id")),
            _line(data.get("agent_name")) or None,
            _line(data.get("status")),
            _line(data.get("phase")) or None,
            issues_from([*as_list(data.get("detected_issues")), *as_list(data.get("hints"))]),
        )

    @classmethod
    def of(cls, session: Session) -> Examined:
        """What comes with a session itself: no notes, and no evidence."""
        return cls(
            session.id, session.agent_id, session.agent_name, session.status, session.phase, findings=session.issues
        )


@dataclass(frozen=True, slots=True)
class Fleet:
    """The diagnosis of all sessions; `elapsed_ms` is how long it took."""

    sessions: tuple[Examined, ...]
    checked_at: datetime | None = None
    elapsed_ms: int | None = None

    @classmethod
    def from_json(cls, value: object) -> Fleet:
        """Read the answer of GET .../diagnose."""
        data = as_object(value)
        sessions = tuple(one for one in map(Examined.from_json, as_list(data.get("data"))) if one.session_id)
        return cls(sessions, moment_of(data.get("checked_at")), as_count(data.get("elapsed_ms")))

    @property
    def counts(self) -> Counter[str]:
        """How many sessions have each finding, by its code."""
        return Counter(code for one in self.sessions for code in {issue.code for issue in one.findings})


def _line(value: object) -> str:
    return safe_line(value) if isinstance(value, str) else ""

"""What a platform says of memories and of versions of skills, as typed values (LAP REST 7.1, 7.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from lapconsole.client.models import as_count, as_list, as_object, moment_of, safe_line, safe_text


@dataclass(frozen=True, slots=True)
class Memory:
    """One thing an agent remembers. `times_applied` counts the sessions that were told."""

    id: str
    agent_id: str = ""
    text: str = ""
    tags: tuple[str, ...] = ()
    type: str = ""
    priority: int = 0
    pinned: bool = False
    disabled: bool = False
    times_applied: int = 0
    last_applied_at: datetime | None = None
    source: str = ""
    source_user_id: str | None = None
    source_session_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @classmethod
    def from_json(cls, value: object) -> Memory:
        """Read an ApiMemory; `id` is "" when there is none."""
        data = as_object(value)
        priority = data.get("priority")
        return cls(
            id=_line(data.get("id")),
            agent_id=_line(data.get("agent_id")),
            text=_text(data.get("text")),
            tags=tuple(safe_line(tag) for tag in as_list(data.get("tags")) if isinstance(tag, str)),
            type=_line(data.get("type")),
            priority=priority if isinstance(priority, int) and not isinstance(priority, bool) else 0,
            pinned=data.get("pinned") is True,
            disabled=data.get("disabled") is True,
            times_applied=as_count(data.get("times_applied")) or 0,
            last_applied_at=moment_of(data.get("last_applied_at")),
            source=_line(data.get("source")),
            source_user_id=_line(data.get("source_user_id")) or None,
            source_session_id=_line(data.get("source_session_id")) or None,
            created_at=moment_of(data.get("created_at")),
            updated_at=moment_of(data.get("updated_at")),
        )

    @property
    def headline(self) -> str:
        """The first line of the text that has any."""
        return next((line.strip() for line in self.text.splitlines() if line.strip()), "")


@dataclass(frozen=True, slots=True)
class SkillVersion:
    """A content that a skill had before; `created_at` is when it was replaced."""

    number: int
    content: str = ""
    changed_by_session_id: str | None = None
    created_at: datetime | None = None

    @classmethod
    def from_json(cls, value: object) -> SkillVersion:
        """Read one entry of a skill's versions."""
        data = as_object(value)
        return cls(
            number=as_count(data.get("version_number")) or 0,
            content=_text(data.get("content")),
            changed_by_session_id=_line(data.get("changed_by_session_id")) or None,
            created_at=moment_of(data.get("created_at")),
        )


def memories_from(values: Iterable[object]) -> tuple[Memory, ...]:
    """All entries that have an id."""
    return tuple(memory for memory in map(Memory.from_json, values) if memory.id)


def _line(value: object) -> str:
    return safe_line(value) if isinstance(value, str) else ""


def _text(value: object) -> str:
    return safe_text(value) if isinstance(value, str) else ""

"""What an agent asks in the middle of a turn, and the answer: opencode's permissions and questions, passed through."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lapconsole.client.errors import PlatformError
from lapconsole.client.models import Json, as_list, as_object, safe_line
from lapconsole.client.platform import Platform

PERMISSION, QUESTION = "permission", "question"
NO, ONCE, ALWAYS = "reject", "once", "always"

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MOST, _LONGEST = 20, 300


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing to decide: its words on one line, and the labels to choose from with what they mean."""

    words: str
    choices: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What an agent waits for: `kind` is permission, which is about one thing, or question, which may be about more."""

    id: str
    kind: str
    asked: tuple[Asked, ...]

    @property
    def words(self) -> str:
        """What it is about, on one line."""
        return self.asked[0].words

    @classmethod
    def from_json(cls, kind: str, value: object) -> Wish | None:
        """Read the properties of its event, or an entry of the list of those that wait; None when it is none."""
        data = as_object(value)
        id = data.get("id")
        if not isinstance(id, str) or not _ID.fullmatch(id):
            return None
        if kind == PERMISSION:
            return cls(id, kind, (_permission(data),))
        asked = tuple(_question(as_object(one)) for one in as_list(data.get("questions"))[:_MOST])
        return cls(id, kind, asked) if asked else None


async def waiting(platform: Platform, session_id: str) -> tuple[Wish, ...]:
    """What a session's agent waits for now, oldest first; nothing where its harness cannot be asked."""
    found: list[Wish] = []
    for kind in (PERMISSION, QUESTION):
        try:
            rows = await platform.passed("GET", session_id, kind)
        except PlatformError:
            continue
        found += filter(None, (Wish.from_json(kind, row) for row in as_list(rows)[:_MOST]))
    return tuple(found)


async def answer(platform: Platform, session_id: str, wish: Wish, chosen: Sequence[str] | None) -> None:
    """Answer with the label chosen for each thing asked; None is a no to all of it."""
    path = f"{wish.kind}/{wish.id}"
    if wish.kind == PERMISSION:
        await platform.passed("POST", session_id, f"{path}/reply", {"reply": chosen[0] if chosen else NO})
    elif chosen is None:
        await platform.passed("POST", session_id, f"{path}/reject", {})
    else:
        await platform.passed("POST", session_id, f"{path}/reply", {"answers": [[label] for label in chosen]})


def _permission(data: Json) -> Asked:
    what = _line(data, "permission") or _line(data, "title")
    command = _line(as_object(data.get("metadata")), "command")
    about = command or ", ".join(safe_line(one) for one in as_list(data.get("patterns")) if isinstance(one, str))
    always = ", ".join(safe_line(one) for one in as_list(data.get("always")) if isinstance(one, str))
    choices = ((NO, "no"), (ONCE, "yes, this once"), (ALWAYS, f"yes, and from now on: {always}"[:_LONGEST]))
    return Asked(": ".join(filter(None, (what, about)))[:_LONGEST] or "something", choices if always else choices[:2])


def _question(data: Json) -> Asked:
    options = [as_object(one) for one in as_list(data.get("options"))[:_MOST]]
    labels = [(str(one["label"]), _line(one, "description")) for one in options if isinstance(one.get("label"), str)]
    choices = tuple((label, f"{safe_line(label)}  {means}"[:_LONGEST].rstrip()) for label, means in labels if label)
    return Asked(_line(data, "question") or _line(data, "header") or "a question", choices)


def _line(data: Json, key: str) -> str:
    value = data.get(key)
    return safe_line(value).strip()[:_LONGEST] if isinstance(value, str) else ""


__all__ = ["ALWAYS", "NO", "ONCE", "PERMISSION", "QUESTION", "Asked", "Wish", "answer", "waiting"]

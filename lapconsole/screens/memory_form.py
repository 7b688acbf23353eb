"""The form of a memory, new or to be changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from textual.widgets import Input, Select, TextArea

from lapconsole.client.knowledge import Memory
from lapconsole.client.platform import Platform
from lapconsole.screens.form import Field, Form

if TYPE_CHECKING:
    from lapconsole.screens.memory import MemoryScreen

TEXT_LIMIT = 8_000
MOST_TAGS = 8
WORD_LIMIT = 64
MOST_PRIORITY = 2**31 - 1
USUAL_TYPE = "convention"


def switch(name: str, on: bool) -> Select[str]:
    """A choice of yes and no."""
    return Select([("no", "no"), ("yes", "yes")], allow_blank=False, value="yes" if on else "no", id=name, compact=True)


def tags_of(text: str) -> list[str]:
    """The tags in a comma-separated list, each once."""
    return list(dict.fromkeys(tag for part in text.split(",") if (tag := part.strip())))


class MemoryForm(Form):
    """Sends what was changed, and nothing else."""

    HINTS = ("form.send", "form.cancel", "form.editor", "app.quit_always")

    def __init__(self, screen: MemoryScreen, memory: Memory | None) -> None:
        super().__init__()
        self._room = screen
        self._new = memory is None
        self._memory = memory or Memory("", type=USUAL_TYPE)
        self.TITLE_WORDS = f"{'New memory' if self._new else 'Memory'} of {screen.label}"

    def fields(self) -> Iterable[Field]:
        memory = self._memory
        yield Field(
            "text",
            "Memory",
            TextArea(
                memory.text,
                id="text",
                compact=True,
                tab_behavior="focus",
                placeholder="What every new session should know, e.g. run the linter before each commit",
            ),
            required=True,
        )
        yield Field(
            "tags", "Tags", Input(", ".join(memory.tags), id="tags", compact=True, placeholder="e.g. tests, style")
        )
        yield Field(
            "type",
            "Type",
            Input(
                memory.type,
                id="type",
                compact=True,
                max_length=WORD_LIMIT,
                placeholder="convention, constraint, reference, preference, or a word of your own",
            ),
        )
        yield Field(
            "priority",
            "Priority",
            Input(str(memory.priority), id="priority", compact=True, max_length=11, placeholder="0; the highest first"),
        )
        yield Field("pinned", "Pinned", switch("pinned", memory.pinned))
        if not self._new:
            yield Field("disabled", "Disabled", switch("disabled", memory.disabled))

    def problems(self) -> dict[str, str]:
        text, tags, priority = self.text("text"), tags_of(self.text("tags")), self.text("priority")
        found = {
            "text": "" if text else "there is nothing to remember yet",
            "tags": "",
            "priority": "" if _number(priority) is not None else "a whole number, such as 10 or -1",
        }
        if len(text) > TEXT_LIMIT:
            found["text"] = f"{len(text)} characters; at most {TEXT_LIMIT} are kept"
        if len(tags) > MOST_TAGS:
            found["tags"] = f"{len(tags)} tags; at most {MOST_TAGS} are kept"
        elif any(len(tag) > WORD_LIMIT for tag in tags):
            found["tags"] = f"a tag has at most {WORD_LIMIT} characters"
        return {name: words for name, words in found.items() if words}

    def values(self) -> dict[str, Any]:
        memory = self._memory
        values: dict[str, Any] = {
            "text": self.text("text"),
            "tags": tags_of(self.text("tags")),
            "type": self.text("type") or USUAL_TYPE,
            "priority": _number(self.text("priority")) or 0,
            "pinned": self.text("pinned") == "yes",
        }
        stored: dict[str, Any] = {
            "text": memory.text.strip(),
            "tags": list(memory.tags),
            "type": memory.type,
            "priority": memory.priority,
            "pinned": memory.pinned,
        }
        if not self._new:
            values["disabled"], stored["disabled"] = self.text("disabled") == "yes", memory.disabled
        return {name: value for name, value in values.items() if value != stored[name]}

    async def send(self, platform: Platform, values: dict[str, Any]) -> None:
        agent_id = self._room.agent_id
        if self._new:
            memory = await platform.create_memory(agent_id, values)
        elif values:
            memory = await platform.update_memory(agent_id, self._memory.id, values)
        else:
            memory = self._memory
        self.dismiss(None)
        self._room.take(memory)
        self._room.table.move_to(memory.id)
        self.console.notify("It is remembered." if values else "Nothing was changed.", timeout=3)


def _number(text: str) -> int | None:
    """The priority that was typed, 0 for none; None when it is no number a platform takes."""
    if not text:
        return 0
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or int(digits) > MOST_PRIORITY:
        return None
    return int(text)

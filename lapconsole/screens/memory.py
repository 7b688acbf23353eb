"""What an agent remembers: found, pinned, disabled, changed and forgotten, with how often it was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

from lapconsole import keys
from lapconsole.client.errors import PlatformError
from lapconsole.client.knowledge import Memory
from lapconsole.client.models import Event
from lapconsole.client.platform import Platform
from lapconsole.live.model import LinkState
from lapconsole.live.views import Key, View
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.memory_form import MemoryForm
from lapconsole.screens.pick import Pick
from lapconsole.screens.room import RoomScreen
from lapconsole.widgets.columns import Column
from lapconsole.widgets.fields import field_lines, heading, moment, text_lines
from lapconsole.widgets.parts import Look, Parts, wrap_parts
from lapconsole.widgets.table import Table
from lapconsole.widgets.words import age, fit, plural

MOST_PINNED = 20  # pinned ones a session is told (LAP REST 7.1)
PRELOADED = 10  # others a session is told, unless its agent says otherwise
TOLD = "as told"
_HUGE = 1 << 40


def told_order(memory: Memory) -> str:
    """Sorts as sessions are told: pinned, then by priority, use and age; disabled ones come last."""
    created = memory.created_at.timestamp() if memory.created_at else 0.0
    numbers = (memory.priority, memory.times_applied, int(created))
    return f"{memory.disabled:d}{not memory.pinned:d}" + "".join(f"{_HUGE - number:014d}" for number in numbers)


SORTS: dict[str, Callable[[Memory], Key]] = {
    TOLD: told_order,
    "text": lambda memory: memory.headline.casefold(),
    "type": lambda memory: memory.type.casefold(),
    "priority": lambda memory: float(memory.priority),
    "told": lambda memory: float(memory.times_applied),
    "last": lambda memory: memory.last_applied_at.timestamp() if memory.last_applied_at else 0.0,
    "source": lambda memory: memory.source,
    "created": lambda memory: memory.created_at.timestamp() if memory.created_at else 0.0,
}


def _words(memory: Memory) -> str:
    state = "pinned" if memory.pinned else ""
    return " ".join((memory.text, *memory.tags, memory.type, memory.source, "off" if memory.disabled else state))


def _state(memory: Memory, look: Look) -> Parts:
    if memory.disabled:
        return ((f"{look.glyphs.dead} off", "muted"),)
    return ((f"{look.glyphs.ready} pinned", "good"),) if memory.pinned else ((f"{look.glyphs.todo} on", "plain"),)


def _last(memory: Memory, look: Look) -> Parts:
    if memory.last_applied_at is None:
        return (("never", "muted"),)
    return ((age((look.now - memory.last_applied_at).total_seconds()), "plain"),)


COLUMNS: tuple[Column[Memory], ...] = (
    Column("state", "STATE", _state, 8),
    Column(
        "text",
        "MEMORY",
        lambda memory, look: ((memory.headline, "muted" if memory.disabled else "strong"),),
        24,
        sort="text",
        grow=4,
    ),
    Column("tags", "TAGS", lambda memory, look: ((" ".join(memory.tags), "plain"),), 12, grow=1, most=24, fold=4),
    Column("type", "TYPE", lambda memory, look: ((memory.type, "muted"),), 10, sort="type", most=14, grow=1, fold=6),
    Column(
        "priority",
        "PRIO",
        lambda memory, look: ((str(memory.priority) if memory.priority else "", "plain"),),
        6,
        sort="priority",
        descending=True,
        right=True,
        fold=5,
    ),
    Column(
        "told",
        "TOLD",
        lambda memory, look: ((str(memory.times_applied), "plain"),),
        6,
        sort="told",
        descending=True,
        right=True,
        fold=1,
    ),
    Column("last", "LAST", _last, 5, sort="last", descending=True, right=True, live=True, fold=2),
    Column("source", "SOURCE", lambda memory, look: ((memory.source, "muted"),), 6, sort="source", fold=3),
)


class MemoryScreen(RoomScreen[Memory]):
    """The memories of one agent. Listed without searching: on some platforms what is found counts as used."""

    BINDINGS = keys.bindings("memory", "room", "list")
    HINTS = (
        "memory.new",
        "memory.edit",
        "memory.pin",
        "memory.disable",
        "list.filter",
        "memory.tag",
        "memory.delete",
        "list.back",
        "app.help",
        "app.quit",
        "memory.disabled",
        "room.reload",
        "table.sort",
        "list.detail",
        "app.problems",
    )

    def __init__(self, agent_id: str) -> None:
        super().__init__()
        self.agent_id = agent_id
        self._tag = ""
        self._with_disabled = True

    def rereads(self) -> bool:
        # Only platforms with an event feed are known not to count a listing as use.
        return self.console.model.link.state is LinkState.LIVE

    @property
    def label(self) -> str:
        """What the agent is called."""
        agent = self.console.model.agents.get(self.agent_id)
        return agent.label if agent else self.agent_id[:8]

    @property
    def crumb(self) -> str:
        dot = f" {self.console.glyphs.dot} "
        return f"Agents{dot}{self.label}{dot}Memory"

    @property
    def memory(self) -> Memory | None:
        """The memory under the cursor."""
        current = self.table.current
        return current if isinstance(current, Memory) else None

    async def read(self, platform: Platform) -> Iterable[Memory]:
        return await platform.memories(self.agent_id)

    def heard(self, event: Event) -> None:
        if not event.type.startswith("memory.") or event.agent_id != self.agent_id:
            return
        memory = Memory.from_json(event.data.get("memory"))
        if memory.id:
            deleted = event.type == "memory.deleted"
            self.changed(self.collection.remove(memory.id) if deleted else self.collection.put(memory))

    # -- what is shown

    def make_table(self) -> Table[Memory]:
        view: View[Memory] = View(
            self.collection.entities, SORTS, _words, sort=TOLD, descending=False, only=self._is_wanted
        )
        table = self.table_of(COLUMNS, view, "Memory")
        table.scope = self._scope
        return table

    def _is_wanted(self, memory: Memory) -> bool:
        return (self._with_disabled or not memory.disabled) and (not self._tag or self._tag in memory.tags)

    @property
    def _scope(self) -> str:
        tag = f" #{self._tag}" if self._tag else ""
        return f"{self.label}{tag}{'' if self._with_disabled else ' without disabled'}"

    def _told(self) -> tuple[set[str], int]:
        """Ids of those the next session is told, and how many of them besides pinned ones."""
        agent = self.console.model.agents.get(self.agent_id)
        preloaded = agent.preload_memory_limit if agent else None
        limit = PRELOADED if preloaded is None else preloaded
        enabled = sorted((one for one in self.collection.entities.values() if not one.disabled), key=told_order)
        pinned = [one.id for one in enabled if one.pinned][:MOST_PINNED]
        others = [one.id for one in enabled if not one.pinned][:limit]
        return {*pinned, *others}, limit

    def detail_lines(self, width: int) -> Sequence[Parts]:
        memory = self.memory
        if memory is None:
            return [(("Nothing is selected.", "muted"),)]
        look = self.look
        told, limit = self._told()
        if memory.disabled:
            state: Parts = (("off: no session is told", "muted"),)
        elif memory.id in told:
            state = (("new sessions are told", "good"), (", as it is pinned" if memory.pinned else "", "muted"))
        else:
            most = f"over the {MOST_PINNED} pinned ones" if memory.pinned else f"over the first {limit} that are"
            state = ((f"not told: {most}", "warn"),)
        lines: list[Parts] = [state, (), *text_lines(memory.text, width, limit=200), ()]
        author = memory.source_user_id or (f"session {memory.source_session_id}" if memory.source_session_id else "")
        count = plural(memory.times_applied, "session") + (f", last {last}" if (last := self._moment(memory)) else "")
        fields = (
            ("tags", ", ".join(memory.tags)),
            ("type", memory.type),
            ("priority", str(memory.priority)),
            ("told to", count),
            ("source", f"{memory.source}{f', {author}' if author else ''}"),
            ("created", moment(memory.created_at, look.now)),
            ("changed", "" if memory.updated_at == memory.created_at else moment(memory.updated_at, look.now)),
            ("id", memory.id),
        )
        lines += field_lines(fields, width)
        if self.console.model.link.state is LinkState.POLLING:
            lines += heading("How often it was told")
            words = f"This platform may count each listing, too: only {self._key('room.reload')} reads it again."
            lines += wrap_parts(("", "plain"), words, "muted", width)
        return lines

    def _moment(self, memory: Memory) -> str:
        return moment(memory.last_applied_at, self.console.clock())

    def nothing_words(self) -> tuple[str, ...]:
        return (
            f"{self.label} remembers nothing yet.",
            "A memory is told to every new session of the agent; agents add some by themselves.",
            f"Press {self._key('memory.new')} to add the first one.",
        )

    # -- actions

    def on_table_opened(self) -> None:
        self.action_edit()

    def action_new(self) -> None:
        self.app.push_screen(MemoryForm(self, None))

    def action_edit(self) -> None:
        if self.memory is not None:
            self.app.push_screen(MemoryForm(self, self.memory))

    def action_pin(self) -> None:
        if (memory := self.memory) is not None:
            self._change(memory, {"pinned": not memory.pinned}, "Unpin" if memory.pinned else "Pin")

    def action_disable(self) -> None:
        if (memory := self.memory) is not None:
            self._change(memory, {"disabled": not memory.disabled}, "Enable" if memory.disabled else "Disable")

    def _change(self, memory: Memory, fields: dict[str, object], verb: str) -> None:
        async def call(platform: Platform) -> None:
            self.take(await platform.update_memory(self.agent_id, memory.id, fields))

        self._perform(verb, memory, call)

    def _perform(self, verb: str, memory: Memory, call: Callable[[Platform], Awaitable[None]]) -> None:
        self.console.operations.perform(f'{verb} "{fit(memory.headline, 40).strip()}"', call)

    def take(self, memory: Memory) -> None:
        """Take over what a call answered, before its event comes."""
        if memory.id:
            self.changed(self.collection.put(memory))

    def action_tag(self) -> None:
        counts = Counter(tag for memory in self.collection.entities.values() for tag in memory.tags)
        if not counts:
            self.notify("No memory here has a tag.", severity="warning")
            return
        choices = [("", "all, whatever their tags")]
        choices += [(tag, f"{tag}  ({number})") for tag, number in sorted(counts.items())]

        def chosen(tag: str | None) -> None:
            if tag is not None:
                self._tag = tag
                self._narrowed()

        self.app.push_screen(Pick("Only memories with a tag", choices), chosen)

    def action_disabled(self) -> None:
        self._with_disabled = not self._with_disabled
        self._narrowed()

    def _narrowed(self) -> None:
        self.table.scope = self._scope
        self.table.action_settle()
        self.redraw()

    def action_delete(self) -> None:
        memory = self.memory
        if memory is None:
            return

        async def call(platform: Platform) -> None:
            try:
                await platform.delete_memory(self.agent_id, memory.id)
            except PlatformError as error:
                if error.status != 404:  # gone already is what was wanted
                    raise
            self.changed(self.collection.remove(memory.id))

        def answered(yes: bool | None) -> None:
            if yes:
                self._perform("Forget", memory, call)

        effects = (
            f'"{fit(memory.headline, 60).strip()}"',
            f"{self.label} forgets it for good; sessions that were told already still know it.",
            f"To keep it and not tell it, press {self._key('memory.disable')} instead.",
        )
        self.app.push_screen(Confirm("Delete this memory?", effects, place=self.console.label), answered)

    def action_back(self) -> None:
        if self._tag and not self.table.filter:
            self._tag = ""
            self._narrowed()
        else:
            super().action_back()

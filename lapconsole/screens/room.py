"""What the lists share that the live model does not keep: they are read on opening, and say how old they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from textual import work
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from lapconsole.client.errors import ClientError, Unsupported
from lapconsole.client.models import Event
from lapconsole.client.platform import Platform
from lapconsole.live.collection import Collection
from lapconsole.live.model import Changes, LinkState
from lapconsole.live.views import View
from lapconsole.screens.lists import ListScreen
from lapconsole.screens.operations import next_step
from lapconsole.widgets.columns import Column
from lapconsole.widgets.parts import Parts
from lapconsole.widgets.sheet import Sheet
from lapconsole.widgets.table import Table

E = TypeVar("E")


class RoomScreen(ListScreen, Generic[E]):
    """A list over a collection of its own. Subclasses say how it is read, and which events concern it.

    It is read when it is opened, when somebody asks, and after a broken link; `heard` keeps it up to date where the
    platform tells of changes. What is shown while it cannot be read is marked as old.
    """

    DEFAULT_CSS = """
    RoomScreen #notice { dock: top; margin-top: 1; height: auto; padding: 0 1; color: $tone-warn; display: none; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.collection: Collection[E] = Collection(lambda entity: str(entity.id))  # type: ignore[attr-defined]
        self.read_at: datetime | None = None
        self.trouble = ""
        self.missing = ""
        self._missed = False

    def body(self) -> Iterable[Widget]:
        yield Static(id="notice", markup=False)
        yield from super().body()

    def table_of(self, columns: Sequence[Column[E]], view: View[E], title: str) -> Table[E]:
        """The list itself."""
        return Table(
            columns,
            view,
            self.collection.entities,
            self.collection.version,
            title=title,
            clock=self.console.clock,
            glyphs=self.console.glyphs,
            id="list",
        )

    async def read(self, platform: Platform) -> Iterable[E]:
        """Everything the list shows. May raise ClientError; Unsupported where the platform has no such thing."""
        raise NotImplementedError

    def rereads(self) -> bool:
        """Whether it may be read again by itself after a broken link."""
        return True

    def heard(self, event: Event) -> None:
        """An event came, of whatever type."""

    # -- reading

    def on_mount(self) -> None:
        self._stop_listening = self.console.model.listen(self._heard)
        self.load()

    def on_unmount(self) -> None:
        self._stop_listening()

    def _heard(self, event: Event) -> None:
        if self.is_mounted:
            self.heard(event)

    def load(self) -> None:
        """Read it again, in the background."""
        self._load()

    @work(group="room", exclusive=True, exit_on_error=False)
    async def _load(self) -> None:
        platform = self.console.platform
        if platform is None:
            self._missed = True
            return
        try:
            entities = await self.read(platform)
        except Unsupported as error:
            self.missing, self.trouble = str(error), ""
        except ClientError as error:
            self.trouble, self._missed = f"{error}. {next_step(error)}", True
        else:
            self.read_at, self.trouble, self.missing, self._missed = self.console.clock(), "", "", False
            self.changed(self.collection.replace_all(entities))
        self.redraw()

    def changed(self, ids: frozenset[str]) -> None:
        """Show what changed in the collection."""
        if ids and self.is_mounted:
            self.table.changed(ids)
        self.redraw()

    def redraw(self) -> None:
        """Bring everything around the rows up to date."""
        if self.is_mounted:
            self._set_empty()
            self._draw_panes()
            self._show_notice()
            self.draw_frame()

    def model_changed(self, changes: Changes) -> None:
        if changes.link and self.console.model.link.current and self._missed and (self.rereads() or not self.read_at):
            self.load()
        elif changes.link and not self.console.model.link.current:
            self._missed = True
        self.redraw()

    def changed_ids(self, changes: Changes) -> frozenset[str]:
        return frozenset()

    @property
    def known(self) -> bool:
        return self.read_at is not None or bool(self.trouble or self.missing)

    def _show_notice(self) -> None:
        line, words = self.query_one("#notice", Static), self.notice()
        line.update(Content(f"{self.console.glyphs.stuck} {words}"))
        line.display = bool(words)

    def notice(self) -> str:
        """What to know about the list as it is shown; "" when it is that of now."""
        if self.read_at is None:
            return self.trouble and (self.console.model.link.reason or self.trouble)
        if self.trouble:
            return f"as of {self.read_at:%H:%M:%S}Z: {self.trouble}"
        link = self.console.model.link
        if not link.current:
            return f"as of {self.read_at:%H:%M:%S}Z: the link is broken; it is read again when it is back"
        if self._missed:
            return f"as of {self.read_at:%H:%M:%S}Z: changes may be missing; {self._key('room.reload')} reads it again"
        return ""

    def empty_words(self) -> tuple[str, ...]:
        if self.missing:
            return (f"{self.missing[:1].upper()}{self.missing[1:]}.",)
        if self.trouble:
            return ("It cannot be read.", f"Why is said above; {self._key('room.reload')} tries again.")
        if self.read_at is None:
            link = self.console.model.link
            if link.state is LinkState.CONNECTING:
                return (f"Connecting to {self.console.label} …", link.reason or "It is read as soon as it answers.")
            return ("Loading …",)
        return self.nothing_words()

    def nothing_words(self) -> tuple[str, ...]:
        """What an empty list says that was read."""
        raise NotImplementedError

    def _key(self, action: str) -> str:
        return self.console.keymap.first(action)

    def action_reload(self) -> None:
        self.load()


class FactsRoom(RoomScreen[E]):
    """A room with facts above its list, which take as many lines as they need."""

    DEFAULT_CSS = """
    FactsRoom #facts { height: auto; padding: 0 1; }
    """

    def body(self) -> Iterable[Widget]:
        notice, *rest = super().body()
        self.facts = Sheet(self.fact_lines, glyphs=self.console.glyphs, id="facts")
        self.facts.can_focus = False
        return [notice, self.facts, *rest]

    def fact_lines(self, width: int) -> Sequence[Parts]:
        """What stands above the list."""
        raise NotImplementedError

    def tick(self) -> None:
        super().tick()
        self.draw_facts()

    def redraw(self) -> None:
        super().redraw()
        self.draw_facts()

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw_facts)

    def draw_facts(self) -> None:
        """Bring them up to date, once there is room for them."""
        if self.is_mounted and self.facts.size.width:
            self.facts.draw()
            self.facts.styles.height = max(1, len(self.facts.lines))

"""What the two lists share: a live table, panes beside it where there is room, and the `/` filter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from textual.containers import Horizontal
from textual.widget import Widget

from lapconsole.live.model import Changes, LinkState
from lapconsole.screens.base import ConsoleScreen
from lapconsole.widgets.hint_line import HintLine
from lapconsole.widgets.parts import Parts
from lapconsole.widgets.sheet import Sheet
from lapconsole.widgets.table import Table
from lapconsole.widgets.words import plural

WAITING: Sequence[Parts] = ((("Loading …", "muted"),),)


class ListScreen(ConsoleScreen):
    """A table, the selected row's facts from 110 columns on, and a rail from 170 on."""

    DEFAULT_CSS = """
    ListScreen {
        #list { width: 1fr; height: 1fr; }
        #detail, #rail { display: none; height: 1fr; padding: 0 1; border-left: vkey $panel; }
        &.-normal #list { width: 47; }
        &.-wide #list { width: 85; }
        &.-normal #detail, &.-wide #detail { display: block; width: 1fr; }
        &.-wide #rail { display: block; width: 42; }
        &.-list-only #list { width: 1fr; }
        &.-list-only #detail, &.-list-only #rail { display: none; }
    }
    """
    AUTO_FOCUS = "#list"
    HINTS: tuple[str, ...] = ()

    def body(self) -> Iterable[Widget]:
        self.table = self.make_table()
        self.table.known = self.known
        self.detail = Sheet(self._detail_or_wait, title="Selected", glyphs=self.console.glyphs, id="detail")
        self.rail = Sheet(self._rail_or_wait, title="Needs a look", glyphs=self.console.glyphs, id="rail")
        self.detail.can_focus = self.rail.can_focus = False
        yield Horizontal(self.table, self.detail, self.rail)

    def make_table(self) -> Table[Any]:
        """The table, with id "list"."""
        raise NotImplementedError

    def detail_lines(self, width: int) -> Sequence[Parts]:
        """Facts about the row under the cursor."""
        raise NotImplementedError

    def rail_lines(self, width: int) -> Sequence[Parts]:
        """What needs a look, anywhere."""
        from lapconsole.screens.rail import fault_lines

        return fault_lines(self.console.triage, self.look, width)

    @property
    def known(self) -> bool:
        """Whether the rows have come, so that none means none."""
        return self.console.model.link.state is not LinkState.CONNECTING

    def _detail_or_wait(self, width: int) -> Sequence[Parts]:
        return self.detail_lines(width) if self.known or len(self.table.view) else WAITING

    def _rail_or_wait(self, width: int) -> Sequence[Parts]:
        waiting = self.console.model.link.state is LinkState.CONNECTING and not self.console.model.sessions
        return WAITING if waiting else self.rail_lines(width)

    def changed_ids(self, changes: Changes) -> frozenset[str]:
        """Which rows of the table a change touches."""
        raise NotImplementedError

    def empty_words(self) -> tuple[str, ...]:
        """What an empty table says: what is the case, and what to press."""
        raise NotImplementedError

    # -- news

    def model_changed(self, changes: Changes) -> None:
        if ids := self.changed_ids(changes):
            self.table.changed(ids)
        self._set_empty()
        self._draw_panes()

    def on_mount(self) -> None:
        self._set_empty()

    def tick(self) -> None:
        self.table.tick()
        self._draw_panes()

    def on_table_moved(self) -> None:
        self._draw_panes()
        self.draw_frame()

    def on_table_folded(self) -> None:
        self.draw_frame()

    def _set_empty(self) -> None:
        words, known = self.empty_words(), self.known
        if (words, known) != (self.table.empty, self.table.known):
            self.table.empty, self.table.known = words, known
            self.table.refresh()

    def _draw_panes(self) -> None:
        for pane in (self.detail, self.rail):
            if pane.display and pane.size.width:
                pane.draw()

    def hints(self) -> tuple[Sequence[str], str]:
        folded = self.table.folded
        if not folded or not self.table.view:
            return self.HINTS, ""
        if self.has_class("-narrow") or self.has_class("-list-only"):
            return self.HINTS, f"+{plural(len(folded), 'column')}"
        return self.HINTS, f"{self.console.keymap.first('list.detail')} shows {plural(len(folded), 'more column')}"

    # -- actions

    def action_filter(self) -> None:
        from lapconsole.widgets.filter_line import FilterLine

        if not self.query(FilterLine):
            line = FilterLine(self.table.filter, "words that must occur, !word that must not; enter keeps, esc clears")
            self.mount(line, before=self.query_one(HintLine))
            line.focus()

    def on_input_changed(self, event: Any) -> None:
        event.stop()
        self.table.filter = event.value

    def on_filter_line_closed(self, event: Any) -> None:
        self.table.filter = event.text
        event.line.remove()
        self.table.focus()

    def action_detail(self) -> None:
        if self.has_class("-narrow"):
            self.notify("The pane beside the list needs 110 columns; enter opens what the cursor is on.")
        else:
            self.toggle_class("-list-only")

    def action_back(self) -> None:
        if self.table.filter:
            self.table.filter = ""
        elif self.app.screen_stack[0] is not self:
            self.dismiss(None)

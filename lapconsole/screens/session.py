"""One session: how it came up, phase by phase, its log as it is written, and every field."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from textual import work
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from lapconsole import keys
from lapconsole.client.errors import ClientError
from lapconsole.client.models import PHASES, Event, Session
from lapconsole.live.model import Changes
from lapconsole.screens.base import ConsoleScreen
from lapconsole.widgets.activity import activity_parts
from lapconsole.widgets.fields import failure_lines, session_fields, trouble_lines
from lapconsole.widgets.hint_line import HintLine
from lapconsole.widgets.isolation import isolation_parts
from lapconsole.widgets.log_view import LogView
from lapconsole.widgets.parts import Parts
from lapconsole.widgets.phase_bar import phase_parts, status_parts
from lapconsole.widgets.sheet import Sheet
from lapconsole.widgets.timeline import timeline_lines
from lapconsole.widgets.words import age

LOG_SECONDS = 1.5
LOG_LINES = 500
LOG_AGE_SECONDS = 3600
SUMMARY_LINES = 11
PANES = ("timeline", "log", "fields")


class SessionScreen(ConsoleScreen):
    """Summary on top; below it the panes, one at a time where the terminal is narrow."""

    DEFAULT_CSS = """
    SessionScreen {
        #summary { height: auto; max-height: 11; padding: 0 1; }
        #panes { height: 1fr; }
        #side { width: 1fr; height: 1fr; }
        #timeline { height: 15; padding: 0 1; }
        #fields { height: 1fr; padding: 0 1; }
        #log { width: 1fr; height: 1fr; padding: 0 1; }
        &.-narrow.-log #side { display: none; }
        &.-narrow.-timeline #log, &.-narrow.-fields #log { display: none; }
        &.-narrow.-timeline #fields, &.-narrow.-fields #timeline { display: none; }
        &.-narrow #timeline { height: 1fr; }
        &.-normal #side { width: 56; }
        &.-wide #side { width: 84; }
        &.-normal #log, &.-wide #log { border-left: vkey $panel; }
    }
    """
    BINDINGS = keys.bindings("session")
    HINTS = (
        "session.attach",
        "session.take_over",
        "session.diagnose",
        "session.timeline",
        "session.log",
        "session.fields",
        "session.play",
        "session.egress",
        "session.back",
        "session.restart",
        "session.stop",
        "session.delete",
        "app.help",
        "app.quit",
        "sheet.last",
        "log.search",
        "log.wrap",
        "session.next",
    )

    def __init__(self, session_id: str, *, own: bool = False) -> None:
        """Who made the session here just now, its `own` one, may drive it at the first attaching."""
        super().__init__()
        self._own = own
        self._session_id = session_id
        self._session = Session(session_id)  # the last version known, also after it is gone
        self._gone = False
        self._reached: dict[str, datetime] = {}
        self._news = asyncio.Event()

    @property
    def session(self) -> Session:
        """The session as last known."""
        return self._session

    @property
    def crumb(self) -> str:
        dot = f" {self.console.glyphs.dot} "
        return f"Sessions{dot}{self._session.label}{' (gone)' if self._gone else ''}"

    def body(self) -> Iterable[Widget]:
        glyphs = self.console.glyphs
        self.summary = Sheet(self._summary_lines, glyphs=glyphs, id="summary")
        self.timeline = Sheet(self._timeline_lines, title="Bring-up", glyphs=glyphs, id="timeline")
        self.fields = Sheet(self._field_lines, title="Fields", glyphs=glyphs, id="fields")
        self.log_view = LogView(glyphs=glyphs, id="log")
        self.summary.can_focus = False
        yield self.summary
        yield Horizontal(Vertical(self.timeline, self.fields, id="side"), self.log_view, id="panes")

    def on_mount(self) -> None:
        self._take_over()
        # A failed bring-up is best understood from its log; everything else starts with the phases.
        self.action_pane("log" if self._session.status in ("ready", "failed") else "timeline")
        self._follow_log()

    # -- news

    def model_changed(self, changes: Changes) -> None:
        if self._session_id in changes.sessions:
            self._take_over()
            self._news.set()
        elif changes.link and self.console.model.link.current:
            self._news.set()
            self._read_events()

    def tick(self) -> None:
        self._draw()

    def _take_over(self) -> None:
        session = self.console.model.sessions.get(self._session_id)
        self._gone = session is None
        if session is not None:
            if not session.same_bring_up(self._session):
                self._reached.clear()
            moved = (session.status, session.phase) != (self._session.status, self._session.phase)
            self._session = session
            if moved:
                self._read_events()
        self._draw()

    def _draw(self) -> None:
        self.summary.draw()
        self.summary.styles.height = max(1, len(self.summary.lines))
        self.timeline.draw()
        self.fields.draw()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    # -- what is drawn

    def _summary_lines(self, width: int) -> Sequence[Parts]:
        session, look = self._session, self.look
        since = session.status_age(look.now)
        dot = (f"  {look.glyphs.dot}  ", "muted")
        first: list[tuple[str, str]] = [*status_parts(session, look)]
        if since is not None:
            first.append((f" {age(since)}", "muted"))
        first += [dot, (session.agent_name or session.agent_id[:8], "strong"), dot, (session.harness_id, "plain")]
        if session.status not in ("ready", "dead"):
            first += [dot, *phase_parts(session, look)]
        if told := activity_parts(session, look):
            first += [dot, *told]
        first += isolation_parts(session, look)
        if session.viewers:
            first += [dot, (f"{session.viewers} watching", "muted")]
        lines = [tuple(first)]
        if self._gone:
            lines.append((("This session was deleted; what is shown is the last that was known of it.", "warn"),))
        lines += trouble_lines(session, look, width, self.console.keymap, "session")[:-1]
        return [*lines, *failure_lines(session, look, width, self.console.keymap, "session")[1:8]][:SUMMARY_LINES]

    def _timeline_lines(self, width: int) -> Sequence[Parts]:
        return timeline_lines(self._session, self._known_phases(), self.look, width)

    def _field_lines(self, width: int) -> Sequence[Parts]:
        return session_fields(self._session, self.look, width)

    def _known_phases(self) -> dict[str, datetime]:
        """When phases were first reported: what the event log says, then what the console saw itself."""
        reached = {**self.console.model.phases_seen(self._session_id), **self._reached}
        if reached and self._session.ready_at and self._session.status == "ready":
            reached.setdefault("ready", self._session.ready_at)
        return reached

    # -- log and events

    @work(group="log", exit_on_error=False)
    async def _follow_log(self) -> None:
        """Read the end of the sandbox's log again and again while the screen is in sight and there is a sandbox."""
        while True:
            self._news.clear()
            if self.is_current:
                await self._read_log()
            try:
                async with asyncio.timeout(LOG_SECONDS if self._session.active else None):
                    await self._news.wait()
                await asyncio.sleep(0.2)  # several changes in a row are one reading
            except TimeoutError:
                pass

    async def _read_log(self) -> None:
        platform = self.console.platform
        if platform is None:
            return
        try:
            text = await platform.sandbox_logs(self._session_id, tail_lines=LOG_LINES, since_seconds=LOG_AGE_SECONDS)
        except ClientError as error:
            self.log_view.say(f"cannot be read: {error}")
        else:
            self.log_view.say("")
            self.log_view.feed(text, asked=LOG_LINES)

    @work(group="events", exclusive=True, exit_on_error=False)
    async def _read_events(self) -> None:
        """Learn the exact times of the phases; where there is no event log, what the console saw has to do."""
        platform = self.console.platform
        after: int | None = 0
        try:
            while platform is not None and after is not None:
                page = await platform.event_log(after, session_id=self._session_id, limit=1000)
                for event in page.rows:
                    self._note(event)
                after = page.next
        except ClientError:  # the top line tells of a broken link; it is read again with the next change
            return
        self._draw()

    def _note(self, event: Event) -> None:
        session = event.session
        if session is None or event.at is None or not session.same_bring_up(self._session):
            return
        if session.phase in PHASES:
            self._reached.setdefault(session.phase, event.at)

    # -- panes

    def action_pane(self, name: str) -> None:
        """Bring a pane to the front where only one fits, and move into it."""
        for pane in PANES:
            self.set_class(pane == name, f"-{pane}")
        self.query_one(f"#{name}").focus()
        self.call_after_refresh(self._draw)

    def action_next_pane(self) -> None:
        here = next((place for place, pane in enumerate(PANES) if self.has_class(f"-{pane}")), 0)
        self.action_pane(PANES[(here + 1) % len(PANES)])

    def on_log_view_search_wanted(self) -> None:
        from lapconsole.widgets.filter_line import FilterLine

        if not self.query(FilterLine):
            line = FilterLine("", "text to find; enter goes to it, then n and N; esc clears")
            self.mount(line, before=self.query_one(HintLine))
            line.focus()

    def on_input_changed(self, event: Any) -> None:
        event.stop()

    def on_filter_line_closed(self, event: Any) -> None:
        event.line.remove()
        self.log_view.focus()
        self.log_view.search(event.text)

    def hints(self) -> tuple[Sequence[str], str]:
        hints = self.HINTS if self._session.recording else [hint for hint in self.HINTS if hint != "session.play"]
        return hints, ""

    # -- actions

    def action_attach(self, take_over: bool = False) -> None:
        self.console.operations.attach(self._session, take_over=take_over, own=self._own)
        self._own = self._own and self._session.status != "ready"

    def action_diagnose(self) -> None:
        self.console.open_diagnosis(self._session_id)

    def action_egress(self) -> None:
        self.console.open_egress(self._session_id)

    def action_restart(self) -> None:
        self.console.operations.restart(self._session)

    def action_stop(self) -> None:
        self.console.operations.stop(self._session)

    def action_delete(self) -> None:
        self.console.operations.delete(self._session)

    def action_play(self) -> None:
        if self._session.recording is False:
            self.console.notify("It is not recorded. Recording is chosen when a session is made.", severity="warning")
        else:
            self.console.open_replay(self._session_id)

    def action_back(self) -> None:
        self.dismiss(None)

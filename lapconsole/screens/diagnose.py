"""What is wrong with one session: evidence, cause and cure first, then what is known of every part, and its log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from textual import work
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from lapconsole import keys
from lapconsole.client.errors import ClientError, PlatformError
from lapconsole.client.models import Diagnosis, Issue, Session, as_object
from lapconsole.client.platform import Platform
from lapconsole.live.model import Changes
from lapconsole.screens.base import ConsoleScreen
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.copying import copy, copy_commands
from lapconsole.screens.operations import next_step
from lapconsole.widgets.fields import heading
from lapconsole.widgets.isolation import isolation_parts
from lapconsole.widgets.parts import Part, Parts, plain, wrap_parts
from lapconsole.widgets.phase_bar import phase_parts, status_parts
from lapconsole.widgets.report import facts_lines, findings_lines, hints_first, log_lines
from lapconsole.widgets.sheet import Sheet
from lapconsole.widgets.words import age, clean

SETTLE_SECONDS = 0.3
TEXT_WIDTH = 100


class DiagnoseScreen(ConsoleScreen):
    """The findings and the facts; from 110 columns on, the log beside them.

    Read on opening, when somebody asks, and when the session changes. What the platform cannot be asked for is told
    from what the console knows already.
    """

    DEFAULT_CSS = """
    DiagnoseScreen {
        #notice { dock: top; margin-top: 1; height: auto; padding: 0 1; color: $tone-warn; display: none; }
        #report { width: 1fr; height: 1fr; padding: 0 1; }
        #tail { display: none; width: 1fr; height: 1fr; padding: 0 1; border-left: vkey $panel; }
        &.-normal.-log #tail, &.-wide.-log #tail { display: block; }
        &.-normal #report { width: 3fr; }
        &.-normal #tail { width: 2fr; }
    }
    """
    AUTO_FOCUS = "#report"
    BINDINGS = keys.bindings("diagnose")
    HINTS = (
        "diagnose.restart",
        "diagnose.mend",
        "diagnose.command",
        "diagnose.attach",
        "diagnose.log",
        "diagnose.delete",
        "diagnose.copy",
        "diagnose.reload",
        "diagnose.back",
        "app.help",
        "app.quit",
        "diagnose.session",
        "diagnose.edit",
        "diagnose.egress",
        "diagnose.nodes",
        "diagnose.new",
        "diagnose.top_up",
        "diagnose.flush",
        "diagnose.copy_json",
    )

    def __init__(self, session_id: str) -> None:
        super().__init__()
        self._session = Session(session_id)  # the last version known, also after it is gone
        self._gone = False
        self._diagnosis: Diagnosis | None = None
        self._read_at: datetime | None = None
        self._trouble = ""

    @property
    def session(self) -> Session:
        """The session as last known."""
        return self._session

    @property
    def crumb(self) -> str:
        return f"Diagnose {self.console.glyphs.dot} {self._session.label}{' (gone)' if self._gone else ''}"

    def body(self) -> Iterable[Widget]:
        glyphs = self.console.glyphs
        yield Static(id="notice", markup=False)
        self.report = Sheet(self._report_lines, glyphs=glyphs, id="report")
        self.tail = Sheet(self._tail_lines, title="End of its log", glyphs=glyphs, id="tail")
        yield Horizontal(self.report, self.tail)

    def on_mount(self) -> None:
        # Folded where it would push the facts out of sight.
        self.set_class(self.console.size.width >= self.console.HORIZONTAL_BREAKPOINTS[1][0], "-log")
        self._take_over()
        self._read(0.0)

    # -- news

    def model_changed(self, changes: Changes) -> None:
        if self._session.id in changes.sessions:
            self._take_over()
            self._read(SETTLE_SECONDS)
        elif changes.link:
            if self.console.model.link.current and (self._trouble or self._read_at is None):
                self._read(0.0)
            self._draw()

    def tick(self) -> None:
        self._draw()

    def _take_over(self) -> None:
        session = self.console.model.sessions.get(self._session.id)
        self._gone = session is None
        if session is not None:
            self._session = session
        self._draw()

    @work(group="read", exclusive=True, exit_on_error=False)
    async def _read(self, pause: float) -> None:
        """Ask the platform; several changes in a row are one reading."""
        await asyncio.sleep(pause)
        platform = self.console.platform
        if platform is None:
            return
        try:
            diagnosis = await platform.diagnose(self._session.id)
        except PlatformError as error:
            missing = error.status in (404, 405) and not self._gone
            self._trouble = "this platform has no diagnose" if missing else f"{error}. {next_step(error)}"
        except ClientError as error:
            self._trouble = f"{error}. {next_step(error)}"
        else:
            first = self._diagnosis is None
            self._diagnosis, self._read_at, self._trouble = diagnosis, self.console.clock(), ""
            if first:
                self.call_after_refresh(self.tail.action_last)
        self._draw()

    # -- what is drawn

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        words, line = self._notice(), self.query_one("#notice", Static)
        line.update(Content(f"{self.console.glyphs.stuck} {words}"))
        line.display = bool(words)
        self.report.draw()
        if self.tail.display:
            self.tail.draw()

    def _notice(self) -> str:
        """Why what is shown may not be that of now; "" when it is."""
        link = self.console.model.link
        why = self._trouble or ("" if link.current else f"the link is broken: {link.reason or 'no answer'}")
        if self._gone:
            why = "this session was deleted"
        if not why:
            return ""
        if self._read_at is None:
            return f"{why}; what the console knows of it is shown"
        return f"as of {self._read_at:%H:%M:%S}Z: {why}"

    @property
    def findings(self) -> tuple[Issue, ...]:
        """What was found, else what came with the session."""
        return self._session.issues if self._diagnosis is None else self._diagnosis.findings

    def _report_lines(self, width: int) -> Sequence[Parts]:
        lines = [*self._body_lines(width, self.console.keymap)]
        if self.has_class("-narrow") and self._diagnosis is not None:
            key = self.console.keymap.first("diagnose.log")
            if self.has_class("-log"):
                lines += [*heading("End of its log"), *log_lines(self._diagnosis, width)]
            else:
                lines += [(("Log              ", "strong"), (f"{key}", "key"), (" unfolds its end", "muted"))]
        return lines

    def _body_lines(self, width: int, keymap: keys.Keymap | None) -> Iterable[Parts]:
        look = self.look
        yield from (self._first_line(), ())
        findings = findings_lines(self.findings, look, width, keymap)
        yield from findings or [*self._nothing_lines(width), ()]
        if self._diagnosis is not None:
            yield from facts_lines(self._diagnosis, look, width)

    def _first_line(self) -> Parts:
        session, look = self._session, self.look
        dot = (f"  {look.glyphs.dot}  ", "muted")
        since = session.status_age(look.now)
        parts: list[Part] = [*status_parts(session, look), (f" {age(since)}" if since is not None else "", "muted")]
        if session.status in ("creating", "failed"):
            parts += [(" ", "plain"), *phase_parts(session, look)]
        name = clean(session.agent_name or session.agent_id[:8])
        return (*parts, dot, (name, "strong"), dot, (session.harness_id, "plain"), *isolation_parts(session, look))

    def _nothing_lines(self, width: int) -> list[Parts]:
        """What an empty list of findings means."""
        glyphs, session = self.console.glyphs, self._session
        if self._diagnosis is None:
            waiting = "Nothing is known to be wrong." if self._trouble else "Looking …"
            return [((waiting, "muted"),)]
        if session.status == "creating":
            words = f"Nothing is wrong: it is coming up ({session.phase or 'its phase is not told'})."
        elif session.ended:
            words = f"Nothing is wrong: it is {session.status} ({session.failure_reason or 'no reason is told'})."
        else:
            words = "Nothing is wrong: sandbox, harness and machine are well."
        return wrap_parts((f"{glyphs.done} ", "good"), clean(words), "good", width)

    def _tail_lines(self, width: int) -> Sequence[Parts]:
        return [] if self._diagnosis is None else log_lines(self._diagnosis, width)

    def hints(self) -> tuple[Sequence[str], str]:
        return hints_first("diagnose", self.HINTS, self.findings), ""

    # -- actions

    def action_reload(self) -> None:
        self._read(0.0)

    def action_log(self) -> None:
        self.toggle_class("-log")
        self.call_after_refresh(self._unfolded)

    def _unfolded(self) -> None:
        self._draw()
        if self.has_class("-log"):
            # The new height is known after the next layout.
            self.call_after_refresh((self.tail if self.tail.display else self.report).action_last)

    def action_copy(self, form: str) -> None:
        if self._diagnosis is None:
            self.notify("There is nothing to copy yet.", severity="warning")
        elif form == "json":
            copy(self, json.dumps(dict(self._diagnosis.data), indent=2, ensure_ascii=False), "The diagnosis")
        else:
            lines = [*self._body_lines(TEXT_WIDTH, None), *heading("End of its log")]
            lines += log_lines(self._diagnosis, TEXT_WIDTH)
            text = "\n".join(plain(line).rstrip() for line in lines)
            copy(self, f"session {self._session.id}\n{text}\n", "The diagnosis")

    def action_session(self) -> None:
        self.console.open_session(self._session.id)

    def action_restart(self) -> None:
        self.console.operations.recreate(self._session)

    def action_mend(self) -> None:
        self.console.operations.mend(self._session, self._read_soon)

    def action_command(self) -> None:
        copy_commands(self, self.findings)

    def action_nodes(self) -> None:
        node = as_object(self._diagnosis.data.get("node")) if self._diagnosis else {}
        self.console.open_node(str(node.get("name") or ""))

    def action_new(self) -> None:
        self.console.operations.new_session(self._session.agent_id)

    def action_delete(self) -> None:
        self.console.operations.delete(self._session)

    def action_attach(self) -> None:
        self.console.operations.attach(self._session)

    def action_edit(self) -> None:
        self.console.operations.edit_agent(self.console.model.agents.get(self._session.agent_id))

    def action_egress(self) -> None:
        self.console.open_egress(self._session.id)

    def action_top_up(self) -> None:
        self.console.operations.top_up_pool(self._session, self._read_soon)

    def action_flush(self) -> None:
        agent_id, name = self._session.agent_id, self._session.agent_name or self._session.agent_id[:8]
        effects = (
            f"The warm sandboxes of {name}, which no session uses, are removed, and fresh ones set up instead.",
            "Until those are ready, its new sessions start cold. Running sessions are not touched.",
        )
        what = f"Replace the warm sandboxes of {name}"

        async def done(platform: Platform) -> None:
            await platform.flush_pool(agent_id)
            self._read_soon()

        def answered(yes: bool | None) -> None:
            if yes:
                self.console.operations.perform(what, done)

        self.app.push_screen(Confirm(f"{what}?", effects, place=self.console.label), answered)

    def _read_soon(self) -> None:
        self._read(SETTLE_SECONDS)

    def action_back(self) -> None:
        self.dismiss(None)

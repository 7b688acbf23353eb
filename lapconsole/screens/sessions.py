"""The sessions, live: what state each is in, how far it came up, how old it is, and when it last did something."""

from __future__ import annotations

from collections.abc import Sequence

from lapconsole import keys
from lapconsole.client.models import Session
from lapconsole.live.model import Changes, LinkState
from lapconsole.live.views import SESSION_SORTS, View, sessions_view
from lapconsole.screens.lists import ListScreen
from lapconsole.widgets.activity import activity_parts
from lapconsole.widgets.columns import Column
from lapconsole.widgets.findings import trouble_parts
from lapconsole.widgets.parts import Look, Parts
from lapconsole.widgets.phase_bar import bar, phase_parts, status_parts
from lapconsole.widgets.table import Table
from lapconsole.widgets.words import age

FAULTS = "faults first"


def _name(session: Session, look: Look) -> Parts:
    text = session.title or session.title_preview or session.id[:8]
    return ((text, "plain" if session.active else "muted"),)


def _agent(session: Session, look: Look) -> Parts:
    return ((session.agent_name or session.agent_id[:8], "strong" if session.active else "plain"),)


def _doing(session: Session, look: Look) -> Parts:
    """What is wrong with it, else how far it came up, or what its agent is doing, where that is told."""
    if wrong := trouble_parts(session, look):
        return wrong
    if session.status == "ready":
        return activity_parts(session, look) or ((look.glyphs.dash, "muted"),)
    return bar(session.furthest, "muted", look.glyphs) if session.status == "dead" else phase_parts(session, look)


def _age(session: Session, look: Look) -> Parts:
    seconds = session.age(look.now)
    return ((look.glyphs.dash if seconds is None else age(seconds), "plain"),)


def _seen(session: Session, look: Look) -> Parts:
    if session.last_seen_at is None:
        return ((look.glyphs.dash, "muted"),)
    return ((age((look.now - session.last_seen_at).total_seconds()), "plain"),)


COLUMNS: tuple[Column[Session], ...] = (
    Column("status", "STATUS", status_parts, 10, sort="status", live=True),
    Column("agent", "AGENT", _agent, 12, sort="agent", grow=2, most=28),
    Column("session", "SESSION", _name, 14, sort="title", grow=3, most=48, fold=4),
    Column(
        "harness",
        "HARNESS",
        lambda session, look: ((session.harness_id, "muted"),),
        11,
        sort="harness",
        grow=1,
        most=16,
        fold=5,
    ),
    Column("doing", "DOING", _doing, 16, sort="doing", grow=4, most=72, live=True, good=26),
    Column("age", "AGE", _age, 4, sort="created", descending=True, right=True, live=True, fold=1),
    Column("seen", "ACTIVE", _seen, 6, sort="seen", descending=True, right=True, live=True, fold=6),
)


class SessionsScreen(ListScreen):
    """All sessions, or those of one agent."""

    BINDINGS = keys.bindings("sessions", "list")
    HINTS = (
        "table.open",
        "sessions.attach",
        "sessions.take_over",
        "sessions.diagnose",
        "sessions.new",
        "sessions.wall",
        "list.filter",
        "sessions.egress",
        "sessions.faults",
        "table.sort",
        "app.agents",
        "app.skills",
        "app.pool",
        "app.diagnosis",
        "app.egress",
        "app.nodes",
        "app.help",
        "app.quit",
        "sessions.restart",
        "sessions.stop",
        "sessions.delete",
        "list.detail",
        "app.theme",
        "app.problems",
    )

    def __init__(self, agent_id: str | None = None) -> None:
        super().__init__()
        self._agent_id = agent_id
        self._stuck: frozenset[str] = frozenset()

    @property
    def crumb(self) -> str:
        return "Sessions" if self._agent_id is None else f"Agents {self.console.glyphs.dot} {self._agent_label}"

    @property
    def _agent_label(self) -> str:
        agent = self.console.model.agents.get(self._agent_id or "")
        return agent.label if agent else "gone"

    def make_table(self) -> Table[Session]:
        model = self.console.model
        agent_id = self._agent_id
        only = None if agent_id is None else (lambda session: session.agent_id == agent_id)
        view: View[Session] = sessions_view(model, only, {**SESSION_SORTS, FAULTS: self.console.triage.key})
        view.sort_by(FAULTS)
        columns = COLUMNS
        if agent_id is not None:  # what would be the same in every row makes room for what is not
            columns = tuple(column._replace(fold=0) if column.id == "session" else column for column in COLUMNS)
            columns = tuple(column for column in columns if column.id not in ("agent", "harness"))
        table = Table(
            columns,
            view,
            model.sessions,
            model.version,
            title="Sessions",
            clock=self.console.clock,
            glyphs=self.console.glyphs,
            total=None if agent_id is None else lambda: len(model.sessions_of(agent_id)),
            id="list",
        )
        table.scope = "all" if agent_id is None else self._agent_label
        return table

    @property
    def session(self) -> Session | None:
        """The session under the cursor."""
        current = self.table.current
        return current if isinstance(current, Session) else None

    def changed_ids(self, changes: Changes) -> frozenset[str]:
        return changes.sessions

    def tick(self) -> None:
        # Becoming overdue is no event: it shows, and moves the row up, when the time has come.
        stuck = self.console.triage.stuck
        if changed := stuck ^ self._stuck:
            self._stuck = stuck
            self.table.changed(changed)
        super().tick()

    def detail_lines(self, width: int) -> Sequence[Parts]:
        session = self.session
        if session is None:
            return [(("Nothing is selected.", "muted"),)]
        # Not before there is something to show: the first frame comes sooner.
        from lapconsole.widgets.fields import failure_lines, heading, session_summary, trouble_lines
        from lapconsole.widgets.timeline import timeline_lines

        look = self.look
        reached = self.console.model.phases_seen(session.id)
        lines = [
            *trouble_lines(session, look, width, self.console.keymap, "sessions"),
            *failure_lines(session, look, width, self.console.keymap, "sessions"),
            *session_summary(session, look, width),
        ]
        if reached or session.status in ("creating", "failed"):
            lines += [*heading("Bring-up"), *timeline_lines(session, reached, look, width)]
        return lines

    def empty_words(self) -> tuple[str, ...]:
        console = self.console
        link, first = console.model.link, console.keymap.first
        if link.state is LinkState.CONNECTING:
            if link.key_refused:
                return ("The platform refuses the key.", f"Quit with {first('app.quit')}, and give the right one.")
            return (f"Connecting to {console.label} …", link.reason or "Sessions appear here as soon as it answers.")
        if not console.model.agents:
            return (
                "No agents yet.",
                "An agent is a blueprint: a harness, a model, a repository.",
                f"Press {first('app.agents')}, then {first('agents.new')}, to make the first one.",
            )
        return ("No sessions yet.", f"Press {first('sessions.new')} to start one.")

    # -- actions

    def on_table_opened(self, event: Table.Opened) -> None:
        self.console.open_session(event.row_id)

    def action_faults(self) -> None:
        faults = self.table.view.sort != FAULTS
        self.table.sort_by(FAULTS if faults else "created", descending=not faults)
        self.notify("Faults first." if faults else "Newest first.", timeout=2)

    def action_new(self) -> None:
        self.console.operations.new_session(self._agent_id)

    def action_attach(self, take_over: bool = False) -> None:
        self.console.operations.attach(self.session, take_over=take_over)

    def action_wall(self) -> None:
        self.console.operations.wall(self.table.view)

    def action_diagnose(self) -> None:
        if self.session is not None:
            self.console.open_diagnosis(self.session.id)

    def action_egress(self) -> None:
        if self.session is not None:
            self.console.open_egress(self.session.id)

    def action_restart(self) -> None:
        self.console.operations.restart(self.session)

    def action_stop(self) -> None:
        self.console.operations.stop(self.session)

    def action_delete(self) -> None:
        self.console.operations.delete(self.session)

"""What leaves the sandboxes, as the vault sees it: what it blocked first, stubs that missed, credentials put in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from textual.widget import Widget

from lapconsole import keys
from lapconsole.client.egress import BLOCKED, MISSED, SWAPPED, Interception, Walls
from lapconsole.client.errors import PlatformError
from lapconsole.client.models import Agent, Event, Session
from lapconsole.client.platform import Platform
from lapconsole.live.model import LinkState
from lapconsole.live.views import Key, View
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.copying import copy
from lapconsole.screens.room import FactsRoom
from lapconsole.widgets.columns import Column
from lapconsole.widgets.fields import field_lines, moment
from lapconsole.widgets.isolation import ANYWHERE, VAULT_OFF, VAULT_ON, vault_parts
from lapconsole.widgets.parts import Look, Part, Parts, wrap_parts
from lapconsole.widgets.sheet import Sheet
from lapconsole.widgets.table import Table
from lapconsole.widgets.words import age, clean, plural

SESSIONS_READ = 60
OF_ONE_SESSION = 500
OF_EACH_SESSION = 100
AT_ONCE = 8
KEPT = 5000
POLL_TICKS = 5
_FAR = 1e11

_KINDS = {BLOCKED: ("failed", "bad"), MISSED: ("stuck", "warn"), SWAPPED: ("done", "good")}
_RANKS = {BLOCKED: 0.0, MISSED: 1.0, SWAPPED: 2.0}


def _what(one: Interception, look: Look) -> Parts:
    glyph, tone = _KINDS.get(one.kind, ("dot", "plain"))
    times = f" {one.count}x" if one.count > 1 else ""
    return ((f"{getattr(look.glyphs, glyph)} {one.kind}", tone), (times, "muted"))


def _age(one: Interception, look: Look) -> Parts:
    return ((look.glyphs.dash if one.at is None else age((look.now - one.at).total_seconds()), "plain"),)


def _seconds(one: Interception) -> float:
    return one.at.timestamp() if one.at else 0.0


class EgressScreen(FactsRoom[Interception]):
    """Of all sessions, or of one."""

    DEFAULT_CSS = """
    EgressScreen #facts { max-height: 8; }
    EgressScreen.-normal #list { width: 66; }
    EgressScreen #chosen { dock: bottom; margin-bottom: 1; height: 4; padding: 0 1; display: none; }
    EgressScreen.-narrow #chosen { display: block; }
    EgressScreen.-narrow #chosen.-none { display: none; }
    """
    BINDINGS = keys.bindings("egress", "room", "list")
    HINTS = (
        "egress.allow",
        "egress.only",
        "egress.session",
        "list.filter",
        "egress.copy",
        "room.reload",
        "app.help",
        "app.quit",
        "app.sessions",
        "app.agents",
        "app.diagnosis",
        "table.sort",
        "list.detail",
        "app.problems",
    )

    def __init__(self, session_id: str | None = None) -> None:
        super().__init__()
        self._session_id = session_id
        self._only = session_id  # what the list is narrowed down to
        self._walls = Walls()
        self._left_out = 0
        self._ticks = 0
        self._held: list[Interception] = []  # those told of while the others are being read

    @property
    def crumb(self) -> str:
        return "Egress" if self._only is None else f"Egress {self.console.glyphs.dot} {self._title_of(self._only)}"

    def body(self) -> Iterable[Widget]:
        self.chosen = Sheet(self._chosen_lines, title="Selected", glyphs=self.console.glyphs, id="chosen")
        self.chosen.can_focus = False
        return [*super().body(), self.chosen]

    # -- reading

    async def read(self, platform: Platform) -> Iterable[Interception]:
        """The newest of one session, or of those that were made last: alive ones first."""
        self._held.clear()
        self._walls = await platform.walls()
        if self._session_id is not None:
            of = self.console.model.sessions.get(self._session_id)
            agent_id = of.agent_id if of else ""
            found = await platform.interceptions(self._session_id, limit=OF_ONE_SESSION, agent_id=agent_id)
        else:
            found = await self._of_all(platform)
        # An event may have come before the answer, and may not be in it.
        return {one.id: one for one in (*found, *self._held)}.values()

    async def _of_all(self, platform: Platform) -> tuple[Interception, ...]:
        sessions = sorted(self.console.model.sessions.values(), key=_newest_first)
        self._left_out = max(0, len(sessions) - SESSIONS_READ)
        slots = asyncio.Semaphore(AT_ONCE)

        async def of(session: Session) -> tuple[Interception, ...]:
            async with slots:
                try:
                    return await platform.interceptions(session.id, limit=OF_EACH_SESSION, agent_id=session.agent_id)
                except PlatformError as error:
                    if error.status == 404:  # deleted meanwhile
                        return ()
                    raise

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(of(session)) for session in sessions[:SESSIONS_READ]]
        except ExceptionGroup as failed:  # one of them says enough
            raise failed.exceptions[0] from None
        return tuple(one for task in tasks for one in task.result())

    def heard(self, event: Event) -> None:
        one = Interception.from_event(event)
        if one is None or (self._session_id is not None and one.session_id != self._session_id):
            return
        self._held.append(one)
        del self._held[:-KEPT]
        if self.read_at is not None:
            changed = self.collection.put(one)
            if len(self.collection.entities) > KEPT:
                oldest = min(self.collection.entities.values(), key=_seconds)
                changed |= self.collection.remove(oldest.id)
            self.changed(changed)

    def tick(self) -> None:
        super().tick()
        self._ticks += 1
        # Without a feed nobody tells.
        if self.console.model.link.state is LinkState.POLLING and self._ticks >= POLL_TICKS and not self.missing:
            self._ticks = 0
            self.load()

    def on_table_moved(self) -> None:
        self.draw_facts()

    def draw_facts(self) -> None:
        super().draw_facts()
        if self.is_mounted and self.facts.size.width:
            self.chosen.set_class(self.chosen_one is None, "-none")
            if self.chosen.display:
                self.chosen.draw()

    # -- what is shown

    @property
    def chosen_one(self) -> Interception | None:
        """The line under the cursor."""
        current = self.table.current
        return current if isinstance(current, Interception) else None

    def make_table(self) -> Table[Interception]:
        sorts: dict[str, Callable[[Interception], Key]] = {
            "what": lambda one: _RANKS.get(one.kind, 3.0) * _FAR - _seconds(one),
            "age": _seconds,
            "host": lambda one: one.host.casefold(),
            "agent": lambda one: self._agent_name(one).casefold(),
        }
        view: View[Interception] = View(
            self.collection.entities, sorts, self._words, sort="what", descending=False, only=self._wanted
        )
        columns: tuple[Column[Interception], ...] = (
            Column("what", "WHAT", _what, 13, sort="what"),
            Column("age", "AGE", _age, 4, sort="age", descending=True, right=True, live=True),
            Column(
                "agent", "AGENT", lambda one, look: ((self._agent_name(one), "strong"),), 12, "agent", grow=1, fold=3
            ),
            Column("method", "METHOD", lambda one, look: ((one.method, "plain"),), 7, fold=2),
            Column("host", "HOST", lambda one, look: ((one.place, "strong"),), 16, "host", grow=3, most=48),
            Column("path", "PATH", lambda one, look: ((one.path, "muted"),), 10, grow=2, most=80, fold=4),
            Column("rule", "RULE", lambda one, look: ((self._rule(one), "muted"),), 14, grow=2, most=60, fold=5),
        )
        table = self.table_of(columns, view, "Requests")
        table.scope = "all" if self._only is None else self._title_of(self._only)
        return table

    def _wanted(self, one: Interception) -> bool:
        return self._only is None or one.session_id == self._only

    @staticmethod
    def _rule(one: Interception) -> str:
        return ", ".join(one.keys) if one.kind == SWAPPED and one.keys else one.rule

    def _words(self, one: Interception) -> str:
        told = (one.kind, one.method, one.place, one.path, one.rule, *one.keys, self._agent_name(one))
        return " ".join((*told, self._title_of(one.session_id)))

    def _agent(self, one: Interception) -> Agent | None:
        session = self.console.model.sessions.get(one.session_id)
        return self.console.model.agents.get(one.agent_id or (session.agent_id if session else ""))

    def _agent_name(self, one: Interception) -> str:
        agent = self._agent(one)
        return agent.label if agent else one.agent_id[:8]

    def _title_of(self, session_id: str) -> str:
        session = self.console.model.sessions.get(session_id)
        return session.title or session.title_preview or session_id[:8] if session else session_id[:8]

    def fact_lines(self, width: int) -> Sequence[Parts]:
        look, glyphs = self.look, self.console.glyphs
        if self.read_at is None:
            return [] if self.missing or self.trouble else [(("Reading …", "muted"),)]
        lines = self._vault_lines(look, width)
        counts = dict.fromkeys(_KINDS, 0)
        for one in self.collection.entities.values():
            if self._wanted(one):
                counts[one.kind] = counts.get(one.kind, 0) + one.count
        parts: list[Part] = []
        for kind, (glyph, tone) in _KINDS.items():
            if counts[kind]:
                parts += [("   ", "plain")] * bool(parts)
                parts.append((f"{getattr(glyphs, glyph)} {counts[kind]} {kind}", tone))
        if self._left_out and self._only is None:
            parts.append((f"   of the {SESSIONS_READ} newest sessions", "muted"))
        return [*lines, tuple(parts)] if parts else lines

    def _vault_lines(self, look: Look, width: int) -> list[Parts]:
        vault = self._walls.vault
        told = vault_parts(self._walls, look)
        lines: list[Parts] = [told] if told else []
        if vault.on is False and not vault.down:
            for words in (VAULT_OFF, *([] if self._walls.isolation.on else [ANYWHERE]), VAULT_ON):
                lines += wrap_parts(("  ", "plain"), words, "plain", width)
        return lines

    def detail_lines(self, width: int) -> Sequence[Parts]:
        one = self.chosen_one
        if one is None:
            return [(("Nothing is selected.", "muted"),)]
        look = self.look
        fields = (
            ("host", one.place),
            ("request", " ".join(filter(None, (one.method, one.path)))),
            ("decided by", one.rule),
            ("credentials", ", ".join(one.keys)),
            ("times", str(one.count) if one.count > 1 else ""),
            ("when", moment(one.at, look.now)),
            ("agent", self._agent_name(one)),
            ("session", self._title_of(one.session_id)),
            ("session id", one.session_id),
        )
        lines: list[Parts] = [_what(one, look), *field_lines(fields, width), ()]
        return [*lines, *self._meaning(one, width)]

    def _chosen_lines(self, width: int) -> Sequence[Parts]:
        """Where there is no pane beside the list, the line as a whole below it."""
        one = self.chosen_one
        if one is None:
            return []
        first = f"{one.method} {one.place}{one.path}"
        lines: list[Parts] = [((clean(first), "strong"),)]
        who = f"{self._agent_name(one)} {self.console.glyphs.dot} {self._title_of(one.session_id)}"
        lines.append(((clean(who), "plain"), (f"  {clean(self._rule(one))}", "muted")))
        return [*lines, *self._meaning(one, width)[:1]]

    def _meaning(self, one: Interception, width: int) -> list[Parts]:
        """What came of it, and what can be done."""
        agent = self._agent(one)
        if one.allowable and agent is not None and one.entry in agent.allow_out:
            return wrap_parts(("", "plain"), f"{agent.label} may reach it now; this was before.", "good", width)
        if one.allowable:
            key = self.console.keymap.first("egress.allow")
            return wrap_parts((f"{key} ", "key"), f"allows {one.entry} for {self._agent_name(one)}", "plain", width)
        words = {
            BLOCKED: self._why_not(one),
            MISSED: "The stub went out as it is, worth nothing there: its credential is not for this host.",
            SWAPPED: "The vault put the real credential in on the way out; the sandbox never had it.",
        }.get(one.kind, "")
        return wrap_parts(("", "plain"), words, "muted", width)

    @staticmethod
    def _why_not(one: Interception) -> str:
        """Why an entry in allow_out would not let it through."""
        if one.rule.startswith("deny_out"):
            return "An entry of deny_out refuses it, which wins over allow_out: change the agent to lift that."
        if one.rule.startswith("always refused"):
            return "It is refused to every sandbox, whatever its agent's rules say."
        return "No rule of the agent refused it, so none can allow it."

    def nothing_words(self) -> tuple[str, ...]:
        vault = self._walls.vault
        if vault.on is False and not vault.down:
            return ("The vault is off, so nothing is seen.", "What that means is said above.")
        return (
            "Nothing was blocked, and no credential was used.",
            "Requests that need neither are let through untold.",
        )

    # -- actions

    def on_table_opened(self) -> None:
        self.action_allow()

    def action_only(self) -> None:
        one = self.chosen_one
        if self._only is not None and self._session_id is None:
            self._only = None
        elif self._session_id is not None:
            self.notify("This list is of one session alone; 6 shows all.", timeout=4)
            return
        elif one is not None:
            self._only = one.session_id
        self.table.scope = "all" if self._only is None else self._title_of(self._only)
        self.table.action_settle()
        self.redraw()

    def action_session(self) -> None:
        if self.chosen_one is not None:
            self.console.open_session(self.chosen_one.session_id)

    def action_copy(self) -> None:
        one = self.chosen_one
        if one is not None:
            at = one.at.isoformat() if one.at else ""
            told = (at, one.kind, one.method, f"{one.place}{one.path}", one.rule, ", ".join(one.keys), one.session_id)
            copy(self, "  ".join(filter(None, told)) + "\n", "The line")

    def action_allow(self) -> None:
        one = self.chosen_one
        if one is None:
            return
        if not one.allowable:
            words = self._why_not(one) if one.kind == BLOCKED else f"It was not blocked: it was {one.kind}."
            self.notify(words, severity="warning")
        elif (agent := self._agent(one)) is None:
            self.notify("Its agent is gone.", severity="warning")
        elif one.entry in agent.allow_out:
            self.notify(f"{agent.label} may reach {one.entry} already; this was blocked before.", severity="warning")
        else:
            self._ask(one.entry, agent)

    def _ask(self, entry: str, agent: Agent) -> None:
        running = sum(count for status, count in self.console.model.agent_counts(agent.id).items() if status == "ready")
        effects = (
            f"{entry} is added to allow_out of agent {agent.label}.",
            f"Its new sessions may connect there, and {plural(running, 'running session')} of it at once.",
            "Credentials that are not scoped to other hosts are put in there, too.",
            "The change is kept in the event log, as agent.updated.",
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self.console.operations.perform(f"Allow {entry} for {agent.label}", call)

        async def call(platform: Platform) -> None:
            # As it is now: somebody else may have changed it meanwhile.
            present = await platform.agent(agent.id)
            if entry not in present.allow_out:
                changed = await platform.update_agent(agent.id, {"allow_out": [*present.allow_out, entry]})
                self.console.model.update_agents([changed])

        self.app.push_screen(Confirm(f"Allow {entry}?", effects, place=self.console.label), answered)


def _newest_first(session: Session) -> tuple[bool, float]:
    seen = session.last_seen_at or session.created_at
    return not session.active, -(seen.timestamp() if seen else 0.0)

"""What is wrong anywhere: every finding about every session, grouped by what it is, the worst and commonest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lapconsole import keys
from lapconsole.client.diagnosis import Examined, Fleet
from lapconsole.client.fixes import fixes_of
from lapconsole.client.models import Event, Issue, Session
from lapconsole.client.platform import Platform
from lapconsole.live.model import Changes
from lapconsole.live.views import Key, View
from lapconsole.screens.copying import copy, copy_commands
from lapconsole.screens.room import FactsRoom
from lapconsole.widgets.columns import Column
from lapconsole.widgets.findings import finding_lines, mark, severity_words, short_words
from lapconsole.widgets.parts import Look, Part, Parts
from lapconsole.widgets.report import KEYS, hints_first
from lapconsole.widgets.table import Table
from lapconsole.widgets.words import clean, plural

REFRESH_TICKS = 3
_SEVERITIES = {"high": 0, "med": 1}
_MANY = 999_999


@dataclass(frozen=True, slots=True)
class Found:
    """One finding about one session; `shared` sessions have it."""

    of: Examined
    issue: Issue
    shared: int

    @property
    def id(self) -> str:
        """Unlike that of any other."""
        return f"{self.of.session_id}/{self.issue.code}/{self.issue.message}"

    @property
    def label(self) -> str:
        """Whose it is."""
        return self.of.agent_name or self.of.agent_id[:8]


def found_in(fleet: Fleet) -> list[Found]:
    """Every finding about every session."""
    counts = fleet.counts
    return [Found(one, issue, counts[issue.code]) for one in fleet.sessions for issue in one.findings]


def _group(one: Found) -> Key:
    """Sorts by severity, then by how many sessions have it; those with the same finding stay together."""
    return f"{_SEVERITIES.get(one.issue.severity, 2)} {_MANY - one.shared:06} {one.issue.code}"


def _finding(one: Found, look: Look) -> Parts:
    glyph, tone = mark(one.issue, look)
    return ((f"{glyph} {short_words(one.issue)}", tone), (f" ({one.shared})" if one.shared > 1 else "", "muted"))


class DiagnosisScreen(FactsRoom[Found]):
    """The counts on top, the findings below."""

    DEFAULT_CSS = """
    DiagnosisScreen #facts { max-height: 5; }
    DiagnosisScreen.-normal #list { width: 66; }
    """
    BINDINGS = keys.bindings("diagnosis", "room", "list")
    HINTS = (
        "table.open",
        "diagnosis.restart",
        "diagnosis.mend",
        "diagnosis.command",
        "diagnosis.session",
        "list.filter",
        "room.reload",
        "diagnosis.delete",
        "diagnosis.top_up",
        "diagnosis.nodes",
        "diagnosis.copy",
        "table.sort",
        "app.help",
        "app.quit",
        "app.sessions",
        "app.agents",
        "app.pool",
        "app.egress",
        "list.detail",
        "app.problems",
    )

    def __init__(self) -> None:
        super().__init__()
        self.fleet: Fleet | None = None
        self._ticks = 0
        self._stale = False
        self._settled = False

    @property
    def crumb(self) -> str:
        return "Diagnosis"

    async def read(self, platform: Platform) -> Iterable[Found]:
        self.fleet = await platform.fleet()
        return found_in(self.fleet)

    def on_mount(self) -> None:
        self._take_what_is_known()

    def model_changed(self, changes: Changes) -> None:
        super().model_changed(changes)
        if changes.sessions:
            self._take_what_is_known()

    def _take_what_is_known(self) -> None:
        """Until the platform has answered, and where it does not, what comes with the sessions has to do."""
        if self.fleet is None:
            known = Fleet(tuple(map(Examined.of, self.console.model.sessions.values())))
            self.changed(self.collection.replace_all(found_in(known)))

    def changed(self, ids: frozenset[str]) -> None:
        super().changed(ids)
        if self.fleet is not None and not self._settled and self.is_mounted:
            # The first answer counts more than what was known before; later ones leave rows in their place.
            self._settled = True
            self.table.action_settle()
            self.table.action_first()

    def heard(self, event: Event) -> None:
        # What the platform notes of a session comes with the session.
        if event.type.startswith("session."):
            self._stale = True

    def tick(self) -> None:
        super().tick()
        self._ticks += 1
        if self._stale and self._ticks >= REFRESH_TICKS and self.console.model.link.current and not self.missing:
            self._ticks, self._stale = 0, False
            self.load()

    # -- what is shown

    @property
    def found(self) -> Found | None:
        """The finding under the cursor."""
        current = self.table.current
        return current if isinstance(current, Found) else None

    def make_table(self) -> Table[Found]:
        sorts: dict[str, Callable[[Found], Key]] = {
            "finding": _group,
            "agent": lambda one: one.label.casefold(),
            "session": lambda one: self._title(one).casefold(),
        }
        view: View[Found] = View(self.collection.entities, sorts, self._words, sort="finding", descending=False)
        columns: tuple[Column[Found], ...] = (
            Column("finding", "FINDING", _finding, 20, sort="finding", grow=1, most=30),
            Column("severity", "SEVERITY", lambda one, look: ((severity_words(one.issue), "plain"),), 8, fold=2),
            Column("agent", "AGENT", lambda one, look: ((one.label, "strong"),), 14, sort="agent", grow=1, most=28),
            Column("session", "SESSION", self._session, 14, sort="session", grow=2, most=40),
            Column("why", "WHY", lambda one, look: ((clean(one.issue.message), "muted"),), 20, grow=3, fold=3),
        )
        return self.table_of(columns, view, "Findings")

    def _title(self, one: Found) -> str:
        known = self.console.model.sessions.get(one.of.session_id)
        return (known.title or known.title_preview if known else None) or one.of.session_id[:8]

    def _session(self, one: Found, look: Look) -> Parts:
        return ((clean(self._title(one)), "plain"), (f" {one.of.status}", "muted"))

    def _words(self, one: Found) -> str:
        issue = one.issue
        told = (short_words(issue), issue.code, severity_words(issue), one.label, self._title(one), issue.message)
        return " ".join((*told, one.of.status, one.of.session_id))

    def fact_lines(self, width: int) -> Sequence[Parts]:
        fleet, look = self.fleet, self.look
        if fleet is None:
            waiting = "" if self.missing or self.trouble else "Looking at all sessions …"
            return [*self._group_lines(look, width), (((waiting or "as it came with the sessions"), "muted"),)]
        took = f" in {fleet.elapsed_ms} ms" if fleet.elapsed_ms is not None else ""
        at = f" at {fleet.checked_at:%H:%M:%S}Z" if fleet.checked_at else ""
        looked = f"{plural(len(fleet.sessions), 'session')} looked at{took}{at}"
        if not self.collection.entities:
            return [((f"{look.glyphs.done} Nothing is wrong.", "good"), (f"  {looked}", "muted"))]
        return [*self._group_lines(look, width), ((looked, "muted"),)]

    def _group_lines(self, look: Look, width: int) -> list[Parts]:
        """`✗ 1 clone failed   ✗ 3 harness silent`, in as many lines as that takes."""
        lines: list[Parts] = []
        line: list[Part] = []
        for issue, count in _groups(self.collection.entities.values()):
            glyph, tone = mark(issue, look)
            part = (f"{glyph} {count} {short_words(issue)}", tone)
            if line and sum(len(text) for text, _ in line) + len(part[0]) + 3 > width:
                lines.append(tuple(line))
                line = []
            line += [("   ", "plain")] * bool(line) + [part]
        return [*lines, tuple(line)][:4] if line else []

    def detail_lines(self, width: int) -> Sequence[Parts]:
        one = self.found
        if one is None:
            return [(("Nothing is selected.", "muted"),)]
        look, first = self.look, self.console.keymap.first
        lines = finding_lines(one.issue, look, width)
        lines += [(), ((f"{one.label}", "strong"), (f"  {self._title(one)}", "plain"), (f"  {one.of.status}", "muted"))]
        if one.shared > 1:
            lines.append(((f"{one.shared} sessions have this finding", "muted"),))
        for other in one.of.findings:
            if other != one.issue:
                glyph, tone = mark(other, look)
                lines.append(((f"also {glyph} {short_words(other)}", tone),))
        cures = [f"diagnosis.{KEYS.get(fix, fix)}" for fix in fixes_of(one.issue)]
        shown = [keys.BY_ID[action] for action in cures if action in keys.BY_ID]
        parts = [part for cure in shown for part in ((first(cure.id), "key"), (f" {cure.hint}   ", "muted"))]
        keys_line = ((first("table.open"), "key"), (" why, and what to do   ", "muted"))
        ways: Parts = (*keys_line, (first("diagnosis.session"), "key"), (" its page", "muted"))
        return [*lines, (), *([tuple(parts)] if parts else []), ways]

    def hints(self) -> tuple[Sequence[str], str]:
        hints, note = super().hints()
        first, *rest = hints
        return [first, *hints_first("diagnosis", rest, [self.found.issue] if self.found else [])], note

    def nothing_words(self) -> tuple[str, ...]:
        return ("Nothing is wrong with any session.",)

    # -- actions

    def on_table_opened(self) -> None:
        if self.found is not None:
            self.console.open_diagnosis(self.found.of.session_id)

    def action_session(self) -> None:
        if self.found is not None:
            self.console.open_session(self.found.of.session_id)

    @property
    def _chosen(self) -> Session | None:
        """The session of the finding under the cursor."""
        return self.console.model.sessions.get(self.found.of.session_id) if self.found is not None else None

    def action_restart(self) -> None:
        self.console.operations.recreate(self._chosen)

    def action_mend(self) -> None:
        self.console.operations.mend(self._chosen, self.load)

    def action_delete(self) -> None:
        self.console.operations.delete(self._chosen)

    def action_top_up(self) -> None:
        if (session := self._chosen) is not None:
            self.console.operations.top_up_pool(session, self.load)

    def action_command(self) -> None:
        copy_commands(self, [self.found.issue] if self.found is not None else [])

    async def action_nodes(self) -> None:
        await self.console.action_view("nodes")

    def action_copy(self) -> None:
        entities = self.collection.entities
        lines = [
            f"{short_words(one.issue)} ({severity_words(one.issue)})  {one.label}  {one.of.session_id}  "
            f"{one.of.status}: {clean(one.issue.message)}"
            for one in map(entities.__getitem__, self.table.view)
        ]
        copy(self, "\n".join(lines) + "\n", "The list")


def _groups(found: Iterable[Found]) -> list[tuple[Issue, int]]:
    """One finding of each kind and how many sessions have it, the worst and commonest first."""
    kinds: dict[str, Found] = {}
    for one in sorted(found, key=_group):
        kinds.setdefault(one.issue.code, one)
    return [(one.issue, one.shared) for one in kinds.values()]

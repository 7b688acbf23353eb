"""The warm pool: which sandboxes stand ready for whom, how old they are, what keeps failing, and why it may be off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lapconsole import keys
from lapconsole.client.models import Event, seconds_since
from lapconsole.client.platform import Platform
from lapconsole.client.pool import PooledSandbox, PoolFailure, PoolStats
from lapconsole.live.views import Key, View
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.room import FactsRoom
from lapconsole.widgets.columns import Column
from lapconsole.widgets.fields import field_lines, heading, moment
from lapconsole.widgets.parts import Look, Part, Parts, wrap_parts
from lapconsole.widgets.table import Table
from lapconsole.widgets.words import age, clean, duration, plural

REFRESH_TICKS = 3
_ORDER = {"warm": 0.0, "provisioning": 1.0, "dead": 2.0}
_FACTS_LINES = 9

OFF = (
    "The warm pool is off: WARM_POOL_SIZE is 0, which is the default.",
    "So each session starts cold. To have sandboxes set up in advance, start the platform with it set, for example",
    "WARM_POOL_SIZE=2 lapconsole up",
)


def _status(one: PooledSandbox, look: Look) -> Parts:
    glyphs = look.glyphs
    return {
        "warm": ((f"{glyphs.ready} warm", "good"),),
        "provisioning": ((f"{glyphs.creating} coming up", "busy"),),
        "dead": ((f"{glyphs.dead} to be removed", "muted"),),
    }.get(one.status, ((one.status, "plain"),))


def _age(one: PooledSandbox, look: Look) -> Parts:
    since = one.ready_at or one.created_at
    return ((look.glyphs.dash if since is None else age((look.now - since).total_seconds()), "plain"),)


def _expires(one: PooledSandbox, look: Look) -> Parts:
    if one.expires_at is None or one.status != "warm":
        return ((look.glyphs.dash, "muted"),)
    return ((age((one.expires_at - look.now).total_seconds()), "plain"),)


def _words(one: PooledSandbox) -> str:
    return " ".join((one.label, one.agent_id, one.status, one.sandbox, one.failure_reason or ""))


class PoolScreen(FactsRoom[PooledSandbox]):
    """The numbers on top, the sandboxes below."""

    DEFAULT_CSS = """
    PoolScreen #facts { max-height: 12; }
    """
    BINDINGS = keys.bindings("pool", "room", "list")
    HINTS = (
        "table.open",
        "pool.top_up",
        "pool.flush",
        "pool.flush_agent",
        "list.filter",
        "room.reload",
        "app.help",
        "app.quit",
        "app.sessions",
        "app.agents",
        "app.skills",
        "table.sort",
        "list.detail",
        "app.problems",
    )

    def __init__(self) -> None:
        super().__init__()
        self.stats: PoolStats | None = None
        self._listed = True
        self._ticks = 0

    @property
    def crumb(self) -> str:
        return "Warm pool"

    async def read(self, platform: Platform) -> Iterable[PooledSandbox]:
        pool = await platform.pool()
        self.stats, self._listed = pool.stats, pool.sandboxes is not None
        return pool.sandboxes or ()

    def heard(self, event: Event) -> None:
        if event.type in ("session.ready", "session.created", "agent.deleted"):
            self._ticks = REFRESH_TICKS  # a claim, most likely

    def tick(self) -> None:
        super().tick()
        self._ticks += 1
        if self._ticks >= REFRESH_TICKS and self.console.model.link.current and not self.missing:
            self._ticks = 0
            self.load()

    # -- what is shown

    @property
    def sandbox(self) -> PooledSandbox | None:
        """The sandbox under the cursor."""
        current = self.table.current
        return current if isinstance(current, PooledSandbox) else None

    def make_table(self) -> Table[PooledSandbox]:
        sorts: dict[str, Callable[[PooledSandbox], Key]] = {
            "status": lambda one: _ORDER.get(one.status, 3.0),
            "agent": lambda one: one.label.casefold(),
            "age": lambda one: since.timestamp() if (since := one.ready_at or one.created_at) else 0.0,
            "goes": lambda one: one.expires_at.timestamp() if one.expires_at else 0.0,
        }
        view: View[PooledSandbox] = View(self.collection.entities, sorts, _words, sort="status", descending=False)
        columns: tuple[Column[PooledSandbox], ...] = (
            Column("status", "STATUS", _status, 15, sort="status"),
            Column("agent", "AGENT", lambda one, look: ((one.label, "strong"),), 16, sort="agent", grow=2, most=32),
            Column("what", "HARNESS", self._harness, 12, grow=1, most=18, fold=3),
            Column("age", "AGE", _age, 5, sort="age", right=True, live=True),
            Column("goes", "GOES IN", _expires, 7, sort="goes", right=True, live=True, fold=1),
            Column("sandbox", "SANDBOX", lambda one, look: ((one.sandbox, "muted"),), 12, grow=2, most=36, fold=4),
        )
        return self.table_of(columns, view, "Sandboxes")

    def _harness(self, one: PooledSandbox, look: Look) -> Parts:
        agent = self.console.model.agents.get(one.agent_id)
        return ((agent.harness_id if agent else "", "muted"),)

    def fact_lines(self, width: int) -> Sequence[Parts]:
        stats, look = self.stats, self.look
        if stats is None:
            return [] if self.missing or self.trouble else [(("Reading …", "muted"),)]
        if stats.configured_size == 0:
            lines = wrap_parts((f"{look.glyphs.dead} ", "muted"), OFF[0], "strong", width)
            lines += wrap_parts(("  ", "plain"), OFF[1], "plain", width)
            return [*lines, (("  ", "plain"), (OFF[2], "key"))]
        lines = [self._first_line(stats), self._rules_line(stats)]
        for entry in stats.by_agent[:3]:
            counts = ", ".join(f"{count} {status}" for status, count in entry.counts.items() if count)
            name = entry.agent_name or entry.agent_id[:8]
            seconds = seconds_since(entry.oldest_warm_at, look.now)
            oldest = "" if seconds is None else f", the oldest for {age(seconds)}"
            lines.append(((f"  {clean(name)}  ", "strong"), (f"{counts}{oldest}", "plain")))
        if len(stats.by_agent) > 3:
            lines.append(((f"  and {len(stats.by_agent) - 3} more agents", "muted"),))
        for failure in stats.failing[:2]:
            lines += self._failure_lines(failure, look, width)[:3]
        return lines[: _FACTS_LINES + 3]

    def _first_line(self, stats: PoolStats) -> Parts:
        glyphs = self.console.glyphs
        size = stats.configured_size
        parts: list[Part] = [
            (f"{stats.counts.get('warm', 0)}{'' if size is None else f' of {size}'} warm", "strong"),
        ]
        shown = (
            ("provisioning", "coming up", "busy"),
            ("claimed", "in use by sessions", "good"),
            ("dead", "to be removed", "muted"),
        )
        for status, words, tone in shown:
            if count := stats.counts.get(status, 0):
                parts += [(f"  {glyphs.dot}  ", "muted"), (f"{count} {words}", tone)]
        if stats.failing:
            parts += [(f"  {glyphs.dot}  ", "muted"), (f"{plural(len(stats.failing), 'agent')} failing", "bad")]
        return tuple(parts)

    @staticmethod
    def _rules_line(stats: PoolStats) -> Parts:
        told = (
            (stats.max_provisioning, "at most {} come up at a time"),
            (stats.ttl_minutes, "each is replaced after {} min"),
            (stats.recent_agent_hours, "for agents used in the last {} h"),
        )
        return ((", ".join(words.format(number) for number, words in told if number is not None), "muted"),)

    def _failure_lines(self, failure: PoolFailure, look: Look, width: int) -> list[Parts]:
        agent = self.console.model.agents.get(failure.agent_id)
        seconds = (failure.retry_at - look.now).total_seconds() if failure.retry_at else 0.0
        again = f"again in {duration(seconds)}" if seconds > 0 else "again soon"
        name = agent.label if agent else failure.agent_id[:8]
        words = f"{name} failed {plural(failure.failures, 'time')}, {again}: {clean(failure.reason)}"
        return wrap_parts((f"{look.glyphs.failed} ", "bad"), words, "plain", width)

    def detail_lines(self, width: int) -> Sequence[Parts]:
        one = self.sandbox
        if one is None:
            return [(("Nothing is selected.", "muted"),)]
        look = self.look
        agent = self.console.model.agents.get(one.agent_id)
        state = {
            "warm": "set up whole, its agent running: the next session of the agent has it at once",
            "provisioning": "being set up",
            "dead": "to be removed with the next pass",
        }.get(one.status, "")
        lines: list[Parts] = [(*_status(one, look),), *wrap_parts(("", "plain"), state, "muted", width), ()]
        lines += field_lines(
            (
                ("why it goes", one.failure_reason or ""),
                ("agent", one.label),
                ("harness", agent.harness_id if agent else ""),
                ("model", agent.model or "" if agent else ""),
                ("repository", f"{agent.repo_url} {agent.branch or ''}" if agent and agent.repo_url else "none"),
                ("begun", moment(one.created_at, look.now)),
                ("ready", moment(one.ready_at, look.now)),
                ("sandbox", one.sandbox),
                ("agent id", one.agent_id),
            ),
            width,
        )
        if one.expires_at is not None and one.status == "warm":
            left = duration((one.expires_at - look.now).total_seconds())
            lines += heading("It is replaced")
            lines += wrap_parts(("", "plain"), f"in {left}, or when what it is made of changes", "muted", width)
        return lines

    def nothing_words(self) -> tuple[str, ...]:
        stats = self.stats
        if stats is None or stats.configured_size == 0:
            return ("No sandbox stands ready.",)
        if not self._listed:
            return ("This platform counts its warm sandboxes, but does not list them.",)
        if stats.failing:
            return ("No sandbox stands ready.", "What fails is said above; u tries again now.")
        hours = f" in the last {stats.recent_agent_hours} h" if stats.recent_agent_hours else " lately"
        return ("No sandbox stands ready.", f"An agent gets one once a session of it was started{hours}.")

    # -- actions

    def on_table_opened(self) -> None:
        if self.sandbox is not None and self.sandbox.agent_id in self.console.model.agents:
            self.console.open_agent(self.sandbox.agent_id)

    @property
    def _off(self) -> bool:
        if self.stats is not None and self.stats.configured_size == 0:
            self.notify("The warm pool is off: start the platform with WARM_POOL_SIZE set.", severity="warning")
            return True
        return False

    def action_top_up(self) -> None:
        if self._off:
            return

        async def call(platform: Platform) -> None:
            begun = await platform.top_up_pool()
            self.notify(f"{_sandboxes(begun)} begun." if begun else "Nothing to add.", timeout=4)
            self.load()

        self.console.operations.perform("Fill the pool", call)

    def action_flush(self) -> None:
        live = [one for one in self.collection.entities.values() if one.status != "dead"]
        self._flush(None, "the warm pool", len(live))

    def action_flush_agent(self) -> None:
        if (one := self.sandbox) is not None:
            same = [x for x in self.collection.entities.values() if x.agent_id == one.agent_id and x.status != "dead"]
            self._flush(one.agent_id, f"the warm sandboxes of {one.label}", len(same))

    def _flush(self, agent_id: str | None, what: str, count: int) -> None:
        if not count:
            self.notify("There is none to replace.", severity="warning")
            return

        async def call(platform: Platform) -> None:
            await platform.flush_pool(agent_id)
            self.load()

        def answered(yes: bool | None) -> None:
            if yes:
                self.console.operations.perform(f"Replace {what}", call)

        effects = (
            f"{_sandboxes(count)} that no session uses will be removed, and fresh ones set up instead.",
            "Until those are ready, new sessions start cold. Running sessions are not touched.",
        )
        self.app.push_screen(Confirm(f"Replace {what}?", effects, place=self.console.label), answered)


def _sandboxes(count: int) -> str:
    return "1 sandbox" if count == 1 else f"{count} sandboxes"

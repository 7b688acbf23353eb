"""The machines under the sandboxes: which are well, which are full, what is on each; and one of them as a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from lapconsole import keys
from lapconsole.client.nodes import Node, NodeSandbox
from lapconsole.client.platform import Platform
from lapconsole.live.views import Key, View
from lapconsole.screens.copying import copy
from lapconsole.screens.room import FactsRoom
from lapconsole.widgets.columns import Column
from lapconsole.widgets.fields import heading
from lapconsole.widgets.nodes import (
    cpu_parts,
    drain_line,
    machine_words,
    marks_parts,
    memory_parts,
    node_lines,
    ready_parts,
)
from lapconsole.widgets.parts import Look, Part, Parts, wrap_parts
from lapconsole.widgets.phase_bar import status_parts
from lapconsole.widgets.table import Table
from lapconsole.widgets.words import age, clean, plural

REFRESH_TICKS = 5
SANDBOXES_SHOWN = 12

E = TypeVar("E", Node, NodeSandbox)


def _badness(node: Node) -> float:
    """Sorts what is amiss first."""
    signs = (not node.is_ready, node.oversubscribed or bool(node.pressures), node.unschedulable, True)
    return float(signs.index(True))


class _FreshRoom(FactsRoom[E]):
    """Read again every few seconds while it is on top."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: tuple[str, ...] = ()
        self._ticks = 0

    def tick(self) -> None:
        super().tick()
        self._ticks += 1
        if self._ticks >= REFRESH_TICKS and self.console.model.link.current and not self.missing:
            self._ticks = 0
            self.load()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self._ticks = REFRESH_TICKS  # with the next tick: nobody has read it meanwhile

    @property
    def elapsed(self) -> float:
        """Seconds since it was read."""
        return 0.0 if self.read_at is None else max(0.0, (self.console.clock() - self.read_at).total_seconds())

    def problem_lines(self, width: int) -> list[Parts]:
        """Why what is shown may not be that of now, as the platform says."""
        mark = (f"{self.console.glyphs.failed} ", "bad")
        return [line for words in self.problems for line in wrap_parts(mark, clean(words), "plain", width)]

    def hints(self) -> tuple[Sequence[str], str]:
        hints, note = super().hints()
        # No Kubernetes, nothing to run.
        return (hints if self.drainable else [each for each in hints if not each.endswith(".command")]), note

    @property
    def drainable(self) -> bool:
        """Whether a node here can be emptied."""
        raise NotImplementedError

    def copy_drain(self, node: Node | None) -> None:
        """Put the command that empties the node into the clipboard."""
        if command := drain_line(node) if node else "":
            copy(self, command, f'"{command}"')
        else:
            self.notify("There is nothing to run: no Kubernetes has this machine.", severity="warning")


class NodesScreen(_FreshRoom[Node]):
    """All of them: in numbers on top, one by one below."""

    DEFAULT_CSS = """
    NodesScreen #facts { max-height: 6; }
    NodesScreen.-normal #list { width: 80; }
    NodesScreen.-wide #list { width: 112; }
    """
    BINDINGS = keys.bindings("nodes", "room", "list")
    HINTS = (
        "table.open",
        "nodes.command",
        "list.filter",
        "room.reload",
        "table.sort",
        "app.help",
        "app.quit",
        "app.sessions",
        "app.diagnosis",
        "app.pool",
        "list.detail",
        "app.problems",
    )

    @property
    def crumb(self) -> str:
        return "Nodes"

    async def read(self, platform: Platform) -> Iterable[Node]:
        told = await platform.nodes()
        self.problems = told.problems
        return told.nodes

    # -- what is shown

    @property
    def node(self) -> Node | None:
        """The node under the cursor."""
        current = self.table.current
        return current if isinstance(current, Node) else None

    @property
    def drainable(self) -> bool:
        return any(map(drain_line, self.collection.entities.values()))

    def make_table(self) -> Table[Node]:
        sorts: dict[str, Callable[[Node], Key]] = {
            "ready": _badness,
            "name": lambda node: node.name.casefold(),
            "cpu": lambda node: float(node.cpu_percent or 0),
            "memory": lambda node: float(node.memory_percent or 0),
            "sandboxes": lambda node: float(len(node.sandboxes)),
        }
        view: View[Node] = View(self.collection.entities, sorts, _words, sort="ready", descending=False)
        columns: tuple[Column[Node], ...] = (
            Column("ready", "READY", ready_parts, 11, sort="ready"),
            Column("since", "SINCE", self._since, 5, right=True, live=True, fold=2),
            Column("name", "NODE", lambda node, look: ((node.name, "strong"),), 14, sort="name", grow=3, most=44),
            Column("cpu", "CPU", cpu_parts, 9, sort="cpu", descending=True, right=True),
            Column("memory", "MEMORY", memory_parts, 9, sort="memory", descending=True, right=True),
            Column("on", "ON IT", _count, 5, sort="sandboxes", descending=True, right=True),
            Column("marks", "NOTES", marks_parts, 12, grow=2, most=40, fold=1),
            Column("address", "ADDRESS", lambda node, look: ((node.address, "muted"),), 15, fold=3),
        )
        return self.table_of(columns, view, "Nodes")

    def _since(self, node: Node, look: Look) -> Parts:
        return ((look.glyphs.dash if node.seconds is None else age(node.seconds + self.elapsed), "plain"),)

    def fact_lines(self, width: int) -> Sequence[Parts]:
        nodes, look = [*self.collection.entities.values()], self.look
        if self.read_at is None:
            return [] if self.missing or self.trouble else [(("Reading …", "muted"),)]
        lines = self.problem_lines(width)
        if len(nodes) == 1 and (words := machine_words(nodes[0])):
            return [*lines, *wrap_parts(("This machine: ", "strong"), words, "plain", width)]
        return [*lines, self._numbers(nodes, look)] if nodes else lines

    @staticmethod
    def _numbers(nodes: Sequence[Node], look: Look) -> Parts:
        """`3 nodes · 2 ready · ✗ 1 not ready · ▲ 1 oversubscribed · 14 sandboxes`."""
        glyphs, well = look.glyphs, sum(node.is_ready for node in nodes)
        shown = (
            (len(nodes), plural(len(nodes), "node"), "strong"),
            (well, f"{well} ready", "good"),
            (len(nodes) - well, f"{glyphs.failed} {len(nodes) - well} not ready", "bad"),
            (over := sum(node.oversubscribed for node in nodes), f"{glyphs.stuck} {over} oversubscribed", "warn"),
            (on := sum(len(node.sandboxes) for node in nodes), f"{on} sandbox{'es' * (on != 1)}", "muted"),
        )
        parts: list[Part] = []
        for count, words, tone in shown:
            if count:
                parts += [(f"  {glyphs.dot}  ", "muted")] * bool(parts) + [(words, tone)]
        return tuple(parts)

    def detail_lines(self, width: int) -> Sequence[Parts]:
        node = self.node
        if node is None:
            return [(("Nothing is selected.", "muted"),)]
        look = self.look
        lines = node_lines(node, look, width, self.elapsed)
        lines += heading(f"Sandboxes on it ({len(node.sandboxes)})")
        for one in node.sandboxes[:SANDBOXES_SHOWN]:
            who = one.agent_name or one.session_id[:8] or one.name
            lines.append(((f"  {clean(who)}", "plain"), (f"  {one.status or 'no session'}", "muted")))
        if len(node.sandboxes) > SANDBOXES_SHOWN:
            lines.append(((f"  and {len(node.sandboxes) - SANDBOXES_SHOWN} more", "muted"),))
        return lines

    def nothing_words(self) -> tuple[str, ...]:
        if self.problems:
            return ("No node is known.", "Why is said above.")
        return ("The platform knows of no node.",)

    # -- actions

    def on_table_opened(self, event: Table.Opened) -> None:
        self.console.open_node(event.row_id)

    def action_command(self) -> None:
        self.copy_drain(self.node)


class NodeScreen(_FreshRoom[NodeSandbox]):
    """One of them: its facts on top, its sandboxes below."""

    DEFAULT_CSS = """
    NodeScreen #facts { max-height: 13; }
    NodeScreen #list { width: 1fr; }
    NodeScreen.-normal #list, NodeScreen.-wide #list { width: 1fr; }
    NodeScreen.-normal #detail, NodeScreen.-wide #detail, NodeScreen.-wide #rail { display: none; }
    """
    BINDINGS = keys.bindings("node", "room", "list")
    HINTS = (
        "table.open",
        "node.diagnose",
        "node.command",
        "list.filter",
        "room.reload",
        "list.back",
        "app.help",
        "app.quit",
    )

    def __init__(self, name: str) -> None:
        super().__init__()
        self._node_name = name
        self.node: Node | None = None

    @property
    def crumb(self) -> str:
        return f"Nodes {self.console.glyphs.dot} {clean(self._node_name)}"

    async def read(self, platform: Platform) -> Iterable[NodeSandbox]:
        told = await platform.nodes()
        self.problems = told.problems
        self.node = next((node for node in told.nodes if node.name == self._node_name), None)
        return self.node.sandboxes if self.node else ()

    # -- what is shown

    @property
    def drainable(self) -> bool:
        return self.node is not None and bool(drain_line(self.node))

    def make_table(self) -> Table[NodeSandbox]:
        sorts: dict[str, Callable[[NodeSandbox], Key]] = {
            "status": self._need,
            "agent": lambda one: (one.agent_name or "").casefold(),
            "session": lambda one: self._title(one).casefold(),
        }
        view: View[NodeSandbox] = View(self.collection.entities, sorts, self._words, sort="status", descending=False)
        columns: tuple[Column[NodeSandbox], ...] = (
            Column("status", "STATUS", self._status, 11, sort="status", live=True),
            Column("agent", "AGENT", self._agent, 14, sort="agent", grow=2, most=32),
            Column("session", "SESSION", self._session, 16, sort="session", grow=3, most=48),
            Column("sandbox", "SANDBOX", lambda one, look: ((one.name, "muted"),), 14, grow=2, most=44),
        )
        return self.table_of(columns, view, "Sandboxes on it")

    def _need(self, one: NodeSandbox) -> Key:
        """Sorts whose session needs a person first; those without a session come last."""
        known = self.console.model.sessions.get(one.session_id)
        return self.console.triage.key(known) if known else float("inf")

    def _status(self, one: NodeSandbox, look: Look) -> Parts:
        known = self.console.model.sessions.get(one.session_id)
        return status_parts(known, look) if known else ((one.status or look.glyphs.dash, "muted"),)

    @staticmethod
    def _agent(one: NodeSandbox, look: Look) -> Parts:
        return ((one.agent_name or look.glyphs.dash, "strong" if one.session_id else "muted"),)

    def _session(self, one: NodeSandbox, look: Look) -> Parts:
        return ((self._title(one), "plain" if one.session_id else "muted"),)

    def _title(self, one: NodeSandbox) -> str:
        known = self.console.model.sessions.get(one.session_id)
        return (known.title or known.title_preview if known else None) or one.session_id[:8] or "of no session"

    def _words(self, one: NodeSandbox) -> str:
        return " ".join((one.agent_name or "", self._title(one), one.session_id, one.name, one.status))

    def fact_lines(self, width: int) -> Sequence[Parts]:
        if self.read_at is None:
            return [] if self.missing or self.trouble else [(("Reading …", "muted"),)]
        lines = self.problem_lines(width)
        if self.node is None:
            return [*lines, *wrap_parts((f"{self.console.glyphs.dead} ", "muted"), self._gone, "plain", width)]
        return [*lines, *node_lines(self.node, self.look, width, self.elapsed)]

    @property
    def _gone(self) -> str:
        return f"There is no node {clean(self._node_name)}: it was removed, or the platform does not see it."

    def detail_lines(self, width: int) -> Sequence[Parts]:
        return ()

    def nothing_words(self) -> tuple[str, ...]:
        return ("No sandbox of this platform is on it.",)

    # -- actions

    @property
    def _chosen(self) -> str:
        """The session under the cursor; "" for none."""
        current = self.table.current
        return current.session_id if isinstance(current, NodeSandbox) else ""

    def on_table_opened(self) -> None:
        if self._chosen:
            self.console.open_session(self._chosen)
        else:
            self.notify("No session has this sandbox: it stands ready in the warm pool, or is to be removed.")

    def action_diagnose(self) -> None:
        if self._chosen:
            self.console.open_diagnosis(self._chosen)

    def action_command(self) -> None:
        self.copy_drain(self.node)


def _count(node: Node, look: Look) -> Parts:
    return ((str(len(node.sandboxes)), "plain"),)


def _words(node: Node) -> str:
    state = "ready" if node.is_ready else "not ready"
    on = (f"{one.agent_name or ''} {one.session_id}" for one in node.sandboxes)
    return " ".join((node.name, state, node.reason, *node.taints, *node.pressures, node.address, *on))

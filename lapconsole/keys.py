"""Every action of the console with its id, its key and its words: bindings, hints, help and palette come from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from textual.binding import Binding
from textual.keys import Keys, _character_to_key, key_to_character


class Action(NamedTuple):
    """One thing a key does. `keys` is comma separated; `hint` is its word in the hint line; `fixed` ones always keep
    their keys, so that no keymap can lock anyone in."""

    id: str
    keys: str
    action: str
    words: str
    hint: str = ""
    fixed: bool = False
    priority: bool = False

    @property
    def scope(self) -> str:
        return self.id.partition(".")[0]


ACTIONS = (
    Action("app.sessions", "1", "app.view('sessions')", "Sessions", "sessions"),
    Action("app.agents", "2", "app.view('agents')", "Agents", "agents"),
    Action("app.skills", "3", "app.view('skills')", "Skills: the library", "skills"),
    Action("app.pool", "4", "app.view('pool')", "Warm pool", "pool"),
    Action("app.diagnosis", "5", "app.view('diagnosis')", "What is wrong, in all sessions", "diagnosis"),
    Action("app.egress", "6", "app.view('egress')", "What leaves the sandboxes", "egress"),
    Action("app.nodes", "7", "app.view('nodes')", "Nodes: the machines under the sandboxes", "nodes"),
    Action("app.help", "question_mark", "app.help", "All keys", "help"),
    Action("app.problems", "exclamation_mark", "app.problems", "What went wrong, newest first", "errors"),
    Action("app.theme", "t", "app.theme", "Choose a theme", "theme"),
    Action("app.palette", "ctrl+p", "app.command_palette", "Find a command", "commands", fixed=True, priority=True),
    Action("app.quit", "q", "app.quit", "Quit", "quit"),
    Action(
        "app.quit_always",
        "ctrl+q",
        "app.quit",
        "Quit, from anywhere but an agent's terminal",
        "quit",
        fixed=True,
        priority=True,
    ),
    Action("table.up", "up,k", "up", "One line up"),
    Action("table.down", "down,j", "down", "One line down"),
    Action("table.page_up", "pageup,ctrl+b", "page_up", "One page up"),
    Action("table.page_down", "pagedown,ctrl+f", "page_down", "One page down"),
    Action("table.first", "home,g", "first", "First line"),
    Action("table.last", "end,G", "last", "Last line"),
    Action("table.open", "enter", "open", "Open what the cursor is on", "open"),
    Action("table.sort", "s", "sort_next", "Sort by the next column", "sort"),
    Action("table.reverse", "S", "sort_reverse", "Turn the order round"),
    Action("table.settle", "full_stop", "settle", "Move rows to where they belong now"),
    Action("list.filter", "slash", "filter", "Filter: words that must occur, !word that must not", "filter"),
    Action("list.back", "escape", "back", "Clear the filter, then go back", "back"),
    Action("list.detail", "v", "detail", "Show or hide the pane beside the list", "pane"),
    Action("sessions.attach", "a", "attach", "Attach to its terminal, watching, or chat with it", "attach"),
    Action("sessions.take_over", "A", "attach(True)", "Attach and drive, taking over from whoever does", "drive"),
    Action("sessions.wall", "w", "wall", "Watch up to nine terminals side by side", "wall"),
    Action("sessions.new", "n", "new", "New session", "new"),
    Action("sessions.faults", "z", "faults", "Faults first, on or off", "faults"),
    Action("sessions.diagnose", "d", "diagnose", "What is wrong with it, why, and what to do", "diagnose"),
    Action("sessions.egress", "e", "egress", "What leaves its sandbox", "egress"),
    Action("sessions.restart", "r", "restart", "Restart the session (asks)", "restart"),
    Action("sessions.stop", "x", "stop", "Stop the session (asks)", "stop"),
    Action("sessions.delete", "D", "delete", "Delete the session (asks)", "delete"),
    Action("agents.session", "c", "session", "New session of this agent", "new session"),
    Action("agents.new", "n", "new", "New agent", "new agent"),
    Action("agents.sessions", "l", "sessions", "Its sessions", "its sessions"),
    Action("agents.memory", "m", "memory", "What it remembers", "memory"),
    Action("agents.skills", "K", "skills", "Its skills: attach and detach", "skills"),
    Action("agents.edit", "e", "edit", "Change the agent", "edit"),
    Action("agents.delete", "d", "delete", "Delete the agent (asks)", "delete"),
    Action("agent.session", "c", "session", "New session of this agent", "new session"),
    Action("agent.sessions", "l", "sessions", "Its sessions", "sessions"),
    Action("agent.memory", "m", "memory", "What it remembers", "memory"),
    Action("agent.skills", "K", "skills", "Its skills: attach and detach", "skills"),
    Action("agent.edit", "e", "edit", "Change the agent", "edit"),
    Action("agent.delete", "d", "delete", "Delete the agent (asks)", "delete"),
    Action("agent.next", "tab", "next_pane", "Next pane", "next pane"),
    Action("agent.back", "escape", "back", "Back to the list", "back"),
    Action("room.reload", "r", "reload", "Read it again", "read again"),
    Action("memory.new", "n", "new", "Have the agent remember something", "new"),
    Action("memory.edit", "e", "edit", "Change the memory", "edit"),
    Action("memory.pin", "p", "pin", "Pin or unpin: pinned ones are told first", "pin"),
    Action("memory.disable", "x", "disable", "Disable or enable: disabled ones are not told", "on/off"),
    Action("memory.tag", "f", "tag", "Only those with a tag", "tag"),
    Action("memory.disabled", "o", "disabled", "Show or hide disabled ones", "hide disabled"),
    Action("memory.delete", "d", "delete", "Delete the memory (asks)", "delete"),
    Action("skills.new", "n", "new", "New skill", "new"),
    Action("skills.edit", "e", "edit", "Change the skill", "edit"),
    Action("skills.attach", "a", "attach", "Attach it to an agent (asks)", "attach"),
    Action("skills.detach", "x", "detach", "Detach it from an agent (asks)", "detach"),
    Action("skills.delete", "d", "delete", "Delete the skill (asks)", "delete"),
    Action("skill.older", "left,h", "older(1)", "The version before", "older"),
    Action("skill.newer", "right,l", "older(-1)", "The version after", "newer"),
    Action("skill.whole", "f", "whole", "A version's whole text, or what changed since", "whole or diff"),
    Action("skill.restore", "R", "restore", "Bring this version back (asks)", "bring back"),
    Action("skill.edit", "e", "edit", "Change the skill", "edit"),
    Action("skill.attach", "a", "attach", "Attach it to an agent (asks)", "attach"),
    Action("skill.detach", "x", "detach", "Detach it from an agent (asks)", "detach"),
    Action("skill.delete", "d", "delete", "Delete the skill (asks)", "delete"),
    Action("skill.reload", "r", "reload", "Read it again", "read again"),
    Action("skill.back", "escape", "back", "Back to the list", "back"),
    Action("pool.top_up", "u", "top_up", "Fill the pool now, failing agents too", "fill now"),
    Action("pool.flush", "F", "flush", "Replace every sandbox of the pool (asks)", "replace all"),
    Action("pool.flush_agent", "x", "flush_agent", "Replace those of this agent (asks)", "replace its"),
    Action("session.attach", "a,enter", "attach", "Attach to its terminal, watching, or chat with it", "attach"),
    Action("session.take_over", "A", "attach(True)", "Attach and drive, taking over from whoever does", "drive"),
    Action("session.diagnose", "d", "diagnose", "What is wrong with it, why, and what to do", "diagnose"),
    Action("session.egress", "e", "egress", "What leaves its sandbox", "egress"),
    Action("session.restart", "r", "restart", "Restart the session (asks)", "restart"),
    Action("session.stop", "x", "stop", "Stop the session (asks)", "stop"),
    Action("session.delete", "D", "delete", "Delete the session (asks)", "delete"),
    Action("session.next", "tab", "next_pane", "Next pane", "next pane"),
    Action("session.timeline", "i", "pane('timeline')", "Bring-up, phase by phase", "bring-up"),
    Action("session.log", "l", "pane('log')", "Log of the sandbox", "log"),
    Action("session.fields", "f", "pane('fields')", "Every field", "fields"),
    Action("session.play", "p", "play", "Play the recording of its terminal", "play"),
    Action("session.back", "escape", "back", "Back to the list", "back"),
    Action("diagnose.session", "enter", "session", "The session's page", "session"),
    Action("diagnose.restart", "R", "restart", "Recreate the session: a new sandbox for it (asks)", "recreate"),
    Action("diagnose.mend", "m", "mend", "Recreate its Service, or what else is missing around it (asks)", "mend"),
    Action("diagnose.command", "c", "command", "Copy the command lines shown; nothing is run", "copy command"),
    Action("diagnose.nodes", "n", "nodes", "The machine under it", "node"),
    Action("diagnose.new", "N", "new", "New session of its agent", "new session"),
    Action("diagnose.delete", "D", "delete", "Delete the session (asks)", "delete"),
    Action("diagnose.attach", "a", "attach", "Attach to its terminal, or chat with it", "attach"),
    Action("diagnose.log", "l", "log", "Unfold the end of its log, or fold it", "log"),
    Action("diagnose.edit", "E", "edit", "Change its agent", "edit agent"),
    Action("diagnose.egress", "e", "egress", "What leaves its sandbox", "egress"),
    Action("diagnose.top_up", "u", "top_up", "Fill the warm pool now (asks)", "fill pool"),
    Action("diagnose.flush", "F", "flush", "Replace the agent's warm sandboxes (asks)", "replace warm"),
    Action("diagnose.copy", "y", "copy('text')", "Copy it as text", "copy"),
    Action("diagnose.copy_json", "Y", "copy('json')", "Copy everything as JSON", "copy JSON"),
    Action("diagnose.reload", "r", "reload", "Look again", "look again"),
    Action("diagnose.back", "escape", "back", "Back", "back"),
    Action("diagnosis.session", "o", "session", "The session's page", "session"),
    Action("diagnosis.restart", "R", "restart", "Recreate the session: a new sandbox for it (asks)", "recreate"),
    Action("diagnosis.mend", "m", "mend", "Recreate its Service, or what else is missing around it (asks)", "mend"),
    Action("diagnosis.command", "c", "command", "Copy the command line of the finding; nothing is run", "copy command"),
    Action("diagnosis.nodes", "n", "nodes", "The machines under the sandboxes", "nodes"),
    Action("diagnosis.top_up", "u", "top_up", "Fill the warm pool now (asks)", "fill pool"),
    Action("diagnosis.delete", "D", "delete", "Delete the session (asks)", "delete"),
    Action("diagnosis.copy", "y", "copy", "Copy the list as text", "copy"),
    Action("nodes.command", "c", "command", "Copy the command that empties the node; nothing is run", "copy drain"),
    Action("node.diagnose", "d", "diagnose", "What is wrong with the session, why, and what to do", "diagnose"),
    Action("node.command", "c", "command", "Copy the command that empties the node; nothing is run", "copy drain"),
    Action("egress.allow", "a", "allow", "Allow the host that was blocked (asks)", "allow host"),
    Action("egress.only", "f", "only", "Only this line's session, or all", "its session"),
    Action("egress.session", "o", "session", "The session's page", "session"),
    Action("egress.copy", "y", "copy", "Copy the line as text", "copy"),
    Action("prompt.send", "enter", "send", "Send the message", "send", priority=True),
    Action("prompt.newline", "ctrl+j,shift+enter,alt+enter", "newline", "New line", "new line", priority=True),
    # With priority: the text being written has keys of its own for moving.
    Action("chat.interrupt", "escape", "interrupt", "Twice: stop the turn; without one: leave", "back", priority=True),
    Action("chat.break", "ctrl+c", "break", "Copy what is chosen; twice: stop the turn", priority=True),
    Action("chat.leave", "ctrl+d", "leave", "Leave; a turn goes on, a text is kept", "leave", priority=True),
    Action("chat.page_up", "pageup", "scroll('page_up')", "Back in the transcript", "scroll", priority=True),
    Action("chat.page_down", "pagedown", "scroll('page_down')", "On in the transcript", priority=True),
    Action("chat.up", "ctrl+up", "scroll('up')", "One line back in the transcript", priority=True),
    Action("chat.down", "ctrl+down", "scroll('down')", "One line on in the transcript", priority=True),
    Action("chat.first", "ctrl+home", "scroll('first')", "To the first message", priority=True),
    Action("chat.last", "ctrl+end", "scroll('last')", "To the end; it follows again", "to the end", priority=True),
    Action("chat.unfold", "ctrl+o", "scroll('fold_all')", "Unfold all tool calls, or fold", "unfold", priority=True),
    Action("chat.move", "tab", "move", "From the text to the transcript, and back", "transcript", priority=True),
    Action("chat.restart", "ctrl+r", "restart", "Restart the session (asks)", "restart", priority=True),
    Action("chat.answer", "ctrl+t", "answer", "Answer what the agent asks: a permission, a question", priority=True),
    Action("chat.help", "ctrl+g", "app.help", "All keys", "help"),
    Action("transcript.up", "up,k", "up", "One line back"),
    Action("transcript.down", "down,j", "down", "One line on"),
    Action("transcript.first", "home,g", "first", "To the first message"),
    Action("transcript.last", "end,G", "last", "To the end; it follows again"),
    Action("transcript.next", "n", "step(1)", "Next tool call or thought", "next"),
    Action("transcript.previous", "N,p", "step(-1)", "Tool call or thought before", "previous"),
    Action("transcript.fold", "space,o", "fold", "Unfold the chosen one, or fold it", "unfold"),
    Action("transcript.copy", "y", "copy", "Copy what is unfolded, or the last answer", "copy"),
    Action("wall.left", "left,h", "move(-1, 0)", "The screen to the left"),
    Action("wall.right", "right,l", "move(1, 0)", "The screen to the right"),
    Action("wall.up", "up,k", "move(0, -1)", "The screen above"),
    Action("wall.down", "down,j", "move(0, 1)", "The screen below"),
    Action("wall.attach", "enter,a", "attach", "Attach to the chosen screen, watching", "attach"),
    Action("wall.take_over", "A", "attach(True)", "Attach to it and drive, taking over from whoever does", "drive"),
    *(Action(f"wall.{n}", str(n), f"pick({n})", f"Attach to screen {n}") for n in range(1, 10)),
    Action("wall.back", "escape", "back", "Back to the list", "back"),
    Action("replay.pause", "space", "pause", "Pause, or play on", "pause"),
    Action("replay.back_little", "left", "seek(-5)", "5 s back", "5 s back"),
    Action("replay.on_little", "right", "seek(5)", "5 s on", "5 s on"),
    Action("replay.back", "shift+left", "seek(-30)", "30 s back", "30 s back"),
    Action("replay.on", "shift+right", "seek(30)", "30 s on", "30 s on"),
    Action("replay.back_far", "pageup", "skip(-0.1)", "A tenth of the whole back", "10 % back"),
    Action("replay.on_far", "pagedown", "skip(0.1)", "A tenth of the whole on", "10 % on"),
    Action("replay.start", "home", "go(0)", "To the start", "start"),
    Action("replay.end", "end", "go(1)", "To the end", "end"),
    Action("replay.faster", "plus,equals_sign", "speed(1)", "Faster, up to 16 times", "faster"),
    Action("replay.slower", "minus", "speed(-1)", "Slower, down to a quarter", "slower"),
    Action("replay.trim", "i", "trim", "Cut idle time to 2 s, or play all of it", "idle time"),
    Action("replay.close", "escape", "back", "Back to the session", "back"),
    Action("sheet.up", "up,k", "up", "One line up"),
    Action("sheet.down", "down,j", "down", "One line down"),
    Action("sheet.page_up", "pageup,ctrl+b", "page_up", "One page up"),
    Action("sheet.page_down", "pagedown,ctrl+f", "page_down", "One page down"),
    Action("sheet.first", "home,g", "first", "To the top"),
    Action("sheet.last", "end,G", "last", "To the end; a log follows again", "follow"),
    Action("log.pause", "space", "pause", "Hold the log still, or follow it", "hold"),
    Action("log.wrap", "w", "wrap", "Wrap long lines, or cut them", "wrap"),
    Action("log.search", "slash", "search", "Search", "search"),
    Action("log.next", "n", "match(1)", "Next match"),
    Action("log.previous", "N", "match(-1)", "Previous match"),
    Action("form.send", "ctrl+s", "send", "Send the form", "send", fixed=True, priority=True),
    Action("form.reveal", "ctrl+r", "reveal", "Show or mask secret values", "show values", fixed=True, priority=True),
    Action(
        "form.editor", "ctrl+o", "editor", "Write a long text in your own editor", "$EDITOR", fixed=True, priority=True
    ),
    # With priority, so that what is typed ahead on a slow line goes to the field it was meant for.
    Action("form.next", "tab", "app.focus_next", "Next field", "next field", fixed=True, priority=True),
    Action("form.previous", "shift+tab", "app.focus_previous", "Field before", fixed=True, priority=True),
    Action("form.cancel", "escape", "cancel", "Leave the form", "cancel", fixed=True),
    Action("problems.clear", "c", "clear", "Empty the list", "clear"),
    Action("page.back", "escape", "back", "Close", "close", fixed=True),
)
BY_ID = {action.id: action for action in ACTIONS}

# Which scopes can be reached together: within one of these, no two actions may share a key.
REACH: Mapping[str, tuple[str, ...]] = {
    "Sessions": ("sessions", "list", "table", "app"),
    "Agents": ("agents", "list", "table", "app"),
    "One agent": ("agent", "sheet", "app"),
    "Memory": ("memory", "room", "list", "table", "app"),
    "Skills": ("skills", "room", "list", "table", "app"),
    "One skill": ("skill", "sheet", "app"),
    "Warm pool": ("pool", "room", "list", "table", "app"),
    "Diagnose": ("diagnose", "sheet", "app"),
    "All diagnoses": ("diagnosis", "room", "list", "table", "app"),
    "Egress": ("egress", "room", "list", "table", "app"),
    "Nodes": ("nodes", "room", "list", "table", "app"),
    "One node": ("node", "room", "list", "table", "app"),
    "One session": ("session", "log", "sheet", "app"),
    "Wall": ("wall",),
    "Chat": ("chat", "prompt", "transcript", "app"),
    "Replay": ("replay", "app"),
    "Errors": ("problems", "page", "sheet", "app"),
    "Forms": ("form",),
}
TITLES = {
    "app": "Everywhere",
    "list": "Lists",
    "table": "Lists: moving and sorting",
    "sessions": "Sessions",
    "agents": "Agents",
    "agent": "One agent",
    "memory": "What an agent remembers",
    "skills": "Skills",
    "skill": "One skill",
    "pool": "Warm pool",
    "room": "Lists that are read on opening",
    "session": "One session",
    "diagnose": "Diagnose: one session",
    "diagnosis": "Diagnose: all sessions",
    "egress": "Egress",
    "nodes": "Nodes",
    "node": "One node",
    "chat": "A conversation",
    "prompt": "A conversation: writing",
    "transcript": "A conversation: in the transcript (tab)",
    "wall": "The wall of screens",
    "replay": "Playing a recording",
    "sheet": "Text panes",
    "log": "Log",
    "form": "Forms",
    "problems": "Errors",
    "page": "Pages over a screen",
}

_DISPLAY = {
    "question_mark": "?",
    "exclamation_mark": "!",
    "slash": "/",
    "full_stop": ".",
    "escape": "esc",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "plus": "+",
    "minus": "-",
    "equals_sign": "=",
}
_NAMED = {key.value for key in Keys} | set(_DISPLAY) | {"space", "enter", "tab", "backspace", "delete", "insert"}


def bindings(*scopes: str) -> list[Any]:
    """Textual bindings of the actions in these scopes."""
    return [
        Binding(
            action.keys,
            action.action,
            action.words,
            show=False,
            id=None if action.fixed else action.id,
            priority=action.priority,
        )
        for action in ACTIONS
        if action.scope in scopes
    ]


def show(keys: str) -> str:
    """A key list as a person reads it: `up,k` as `↑ k`."""
    return " ".join(_show(key) for key in keys.split(","))


class Keymap:
    """The keys in force: the defaults with a person's own over them, and what was wrong with those.

    An override that names no action, no key, or a key another action in reach has, is reported and left out: its
    action keeps the default. So no keymap can take an action away.
    """

    def __init__(self, overrides: Mapping[str, object] | None = None) -> None:
        self.problems: list[str] = []
        self.overrides: dict[str, str] = {}
        self._keys = {action.id: action.keys for action in ACTIONS}
        for action_id, keys in (overrides or {}).items():
            self._override(action_id, keys)
        self._settle_clashes()

    def keys(self, action_id: str) -> str:
        """All keys of an action, comma separated."""
        return self._keys[action_id]

    def first(self, action_id: str) -> str:
        """The key to name in a hint."""
        return _show(self._keys[action_id].partition(",")[0])

    def _override(self, action_id: str, keys: object) -> None:
        action = BY_ID.get(action_id)
        texts = keys.split(",") if isinstance(keys, str) else []
        names = [_key_name(key.strip()) for key in texts if key.strip()]
        if action is None:
            self.problems.append(f'keys: there is no action "{action_id}"; press ? for all of them')
        elif action.fixed:
            self.problems.append(f"keys: {action_id} always keeps {show(action.keys)}")
        elif not names or None in names:
            self.problems.append(f'keys: {action_id}: "{keys}" is not a key; write "x", "ctrl+x" or "f5"')
        else:
            self._keys[action_id] = self.overrides[action_id] = ",".join(name for name in names if name)

    def _settle_clashes(self) -> None:
        """Take back overrides until no two actions in reach share a key; the defaults alone never do."""
        while clash := self._clash():
            action, other = clash
            keys = show(self.overrides.pop(action.id))
            self._keys[action.id] = action.keys
            self.problems.append(f"keys: {action.id}: {keys} already means {other.id}; kept {show(action.keys)}")

    def _clash(self) -> tuple[Action, Action] | None:
        for scopes in REACH.values():
            reachable = [action for action in ACTIONS if action.scope in scopes]
            for action in reachable:
                if action.id not in self.overrides:
                    continue
                mine = set(self._keys[action.id].split(","))
                for other in reachable:
                    if other is not action and mine & set(self._keys[other.id].split(",")):
                        return action, other
        return None


def _show(key: str) -> str:
    if key in _DISPLAY:
        return _DISPLAY[key]
    character = key_to_character(key)
    return character if character and character.isprintable() and not character.isspace() else key


def _key_name(text: str) -> str | None:
    """The toolkit's name of a key; None when there is no such key."""
    *modifiers, key = [text] if text == "+" else text.split("+")
    if not set(modifiers) <= {"ctrl", "shift", "alt", "super", "meta", "hyper"}:
        return None
    if len(key) == 1:
        key = _character_to_key(key)
    elif key not in _NAMED and not (key[:1] == "f" and key[1:].isdigit() and 1 <= int(key[1:]) <= 24):
        return None
    return "+".join([*modifiers, key])

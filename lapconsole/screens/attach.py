"""The attach screen: an agent's terminal, and one line that says whose it is and how the link is."""

from __future__ import annotations

from time import monotonic

from rich.cells import cell_len
from rich.segment import Segment
from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from lapconsole.screens.base import console_of
from lapconsole.terminal.attachment import FINAL, Attachment, Phase, State
from lapconsole.terminal.widget import Mode, TerminalView
from lapconsole.widgets.parts import Part, Parts, fit_parts, plain, strip_of, tone
from lapconsole.widgets.status_line import environment
from lapconsole.widgets.words import clean, fit_middle, plural

_TONES = {Phase.LIVE: "good", Phase.LOST: "warn", Phase.ENDED: "strong", Phase.STOPPED: "bad"}


class AttachLine(Widget):
    """One line: the place, then what may be cut at the end, then what is kept whole."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = clean(label) or "platform"
        self._band = environment(label)
        self._told: tuple[Parts, Parts] = ((), ())

    def show(self, left: Parts, right: Parts) -> None:
        """Take over what is to be told; drawn again only when it reads differently."""
        if (left, right) != self._told:
            self._told = (left, right)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        left, right = self._told
        name = f" {fit_middle(self._label, max(8, width // 5))} "
        room = width - cell_len(name) - cell_len(plain(right)) - 3
        parts: Parts = ((" ", "plain"), *fit_parts(left, room), (" ", "plain"), *right, (" ", "plain"))
        band = Segment(name, tone(self, f"band-{self._band}"))
        rest = strip_of(self, parts, max(0, width - cell_len(name)), base)
        return Strip([band, *rest]).adjust_cell_length(width, base)


class AttachScreen(Screen[None], inherit_bindings=False):
    """Attached to one session. Every key goes to its agent, but Ctrl+]; see TerminalView."""

    CSS_PATH = "attach.tcss"
    ESCAPE_TO_MINIMIZE = False

    # The app looks at this: none of its own bindings act while this screen is on top.
    keeps_keys = True

    def __init__(self, session_id: str) -> None:
        super().__init__()
        self._session_id = session_id
        self._attachment: Attachment | None = None
        self._state = State(Phase.FINDING)

    def compose(self) -> ComposeResult:
        yield TerminalView()
        yield AttachLine(console_of(self).label)
        yield Static(id="notice", markup=False)

    def on_mount(self) -> None:
        self._clock = self.set_interval(1.0, self._tell, pause=True)
        self._view.connected = False
        self._view.focus()
        self._tell()

    @property
    def _view(self) -> TerminalView:
        return self.query_one(TerminalView)

    # The link

    def _start(self, columns: int, lines: int) -> None:
        console = console_of(self)
        self._attachment = Attachment(
            lambda: console.platform, self._session_id, (columns, lines), output=self._take, changed=self._changed
        )
        self.run_worker(self._attachment.run(), group="attachment", exclusive=True)

    async def _take(self, data: bytes | str) -> None:
        self._view.feed(data)
        await self._view.ready()

    def _changed(self, state: State) -> None:
        if not self.is_attached:
            return
        self._state = state
        self._view.connected = state.phase is Phase.LIVE
        if state.retry_at is None:
            self._clock.pause()
        else:
            self._clock.resume()
        self._tell()

    def _again(self) -> None:
        if self._attachment is not None:
            self._attachment.again()

    # The terminal

    def on_terminal_view_resized(self, message: TerminalView.Resized) -> None:
        if self._attachment is None:
            self._start(message.columns, message.lines)
        else:
            self._attachment.resize(message.columns, message.lines)
        self._tell()

    def on_terminal_view_input(self, message: TerminalView.Input) -> None:
        if self._attachment is not None and not self._attachment.type(message.data) and self._view.connected:
            self.notify("Not sent: the link takes no more for now.", severity="warning")

    def on_terminal_view_offline(self, message: TerminalView.Offline) -> None:
        if message.key == "enter":
            self._again()
        elif message.key == "escape" and self._state.phase in FINAL:
            self.dismiss(None)

    def on_terminal_view_detach(self) -> None:
        self.dismiss(None)

    def on_terminal_view_bell(self) -> None:
        self.app.bell()

    def on_terminal_view_title_changed(self) -> None:
        self._tell()

    def on_terminal_view_mode_changed(self) -> None:
        self._tell()

    def on_terminal_view_offered(self) -> None:
        self._tell()

    # What is told

    def _tell(self) -> None:
        """Bring the line and the notice up to date."""
        view, mode = self._view, self._view.mode
        line = self.query_one(AttachLine)
        if mode is Mode.COMMAND:
            line.show(_commands(view.offered), ())
        elif mode is Mode.SCROLLBACK or view.lines_back:
            line.show(self._position(), _SCROLLING if mode is Mode.SCROLLBACK else _SCROLLED)
        else:
            line.show(self._who(), self._link())
        self._show_notice()

    def _who(self) -> Parts:
        session = self._attachment.session if self._attachment is not None else None
        parts: list[Part] = []
        if session is not None:
            parts.append((f"{clean(session.agent_name or session.harness_id)}  ", "strong"))
        parts.append((self._session_id[:8], "muted"))
        if title := clean(self._view.emulator.title or (session.title if session is not None else None) or ""):
            parts.append((f"  {title}", "plain"))
        return tuple(parts)

    def _link(self) -> Parts:
        emulator, offered = self._view.emulator, self._view.offered
        hint: Parts = (("Ctrl+] d", "key"), (" detach", "muted"))
        if offered:
            hint = (("Ctrl+] y", "key"), (f" copy {plural(len(offered), 'character')}", "plain"))
        tone = _TONES.get(self._state.phase, "busy")
        return (
            (f"{emulator.columns}x{emulator.lines}  ", "muted"),
            (f"{self._state.phase.value}{self._countdown()}  ", tone),
            *hint,
        )

    def _position(self) -> Parts:
        view = self._view
        return (
            ("scrollback  ", "title"),
            (f"{view.lines_back} of {plural(view.emulator.scrollback_lines, 'line')} back", "plain"),
        )

    def _countdown(self) -> str:
        if self._state.retry_at is None:
            return ""
        return f", retry in {max(1, round(self._state.retry_at - monotonic()))} s"

    def _show_notice(self) -> None:
        state = self._state
        notice = self.query_one("#notice", Static)
        if state.phase in (Phase.FINDING, Phase.CONNECTING):
            return  # what was told last stays until it is known to be over
        notice.display = state.phase is not Phase.LIVE
        if state.phase is Phase.LIVE:
            return
        notice.border_title = Content(state.phase.value)
        notice.set_class(state.phase is Phase.STOPPED, "-bad")
        what = Content(state.cause[:1].upper() + state.cause[1:]).stylize("bold")
        keys = ("Enter", "start it again" if state.phase is Phase.ENDED else "try again")
        lines = [what, Content(state.advice)] if state.advice else [what]
        lines.append(_key_line(keys, ("Esc", "leave") if state.phase in FINAL else ("Ctrl+] d", "leave")))
        notice.update(Content("\n").join(lines))


_SCROLLING: Parts = (("pgup pgdn ↑ ↓ home end", "key"), ("  ", "plain"), ("q", "key"), (" live", "muted"))
_SCROLLED: Parts = (("shift+pgdn", "key"), (" on  ", "muted"), ("any key", "key"), (" live", "muted"))


def _commands(offered: str) -> Parts:
    """What the keys of the command mode do."""
    known = [("d", "detach"), ("]", "send Ctrl+]"), ("s", "scrollback")]
    if offered:
        known.append(("y", f"copy {plural(len(offered), 'character')}"))
    parts: list[Part] = []
    for key, words in (*known, ("esc", "back")):
        parts += [(key, "key"), (f" {words}   ", "plain")]
    return tuple(parts)


def _key_line(*keys: tuple[str, str]) -> Content:
    return Content("   ").join(Content.assemble((key, "$tone-key"), f" {words}") for key, words in keys)

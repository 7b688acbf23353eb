"""The attach screen: an agent's terminal, and one line that says whose it is, who drives and how the link is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic

from rich.cells import cell_len
from rich.segment import Segment
from textual.app import ComposeResult
from textual.content import Content
from textual.events import Event
from textual.screen import Screen
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from lapconsole.screens.base import console_of
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.links import LinksDialog
from lapconsole.terminal.attachment import FINAL, Attachment, Phase, Seat, State
from lapconsole.terminal.clipboard import LIMIT_BYTES
from lapconsole.terminal.surface import Surface
from lapconsole.terminal.widget import Mode, TerminalView
from lapconsole.widgets.parts import Part, Parts, fit_parts, plain, strip_of, tone
from lapconsole.widgets.status_line import environment
from lapconsole.widgets.words import ASCII, clean, clean_lines, fit, fit_middle, plural

NEWS_SECONDS = 4.0
_PREVIEW_LINES, _PREVIEW_COLUMNS = 6, 64
_SHORT_NAME = 12

_TONES = {Phase.LIVE: "good", Phase.LOST: "warn", Phase.ENDED: "strong", Phase.STOPPED: "bad"}


class AttachLine(Widget):
    """One line: the place, then what may be cut at the end, then what is kept whole: the first of its variants that
    leaves some room.
    """

    def __init__(self) -> None:
        super().__init__()
        self._label = self._band = ""
        self._told: tuple[Parts, tuple[Parts, ...]] = ((), ((),))
        self._whole = False

    def on_mount(self) -> None:
        label = console_of(self).label
        self._label, self._band = clean(label) or "platform", environment(label)

    def show(self, left: Parts, *right: Parts, whole: bool = False) -> None:
        """Take over what is to be told; with `whole` the left is cut only where no variant leaves it its room. Drawn
        again only when it reads differently.
        """
        if (left, right) != self._told:
            self._told = (left, right)
            self._whole = whole
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        left, variants = self._told
        name = f" {fit_middle(self._label, max(8, width // 5))} "
        rooms = [width - cell_len(name) - cell_len(plain(right)) - 3 for right in variants]
        wanted = cell_len(plain(left)) if self._whole else min(cell_len(plain(left)), width // 5)
        chosen = next((index for index, room in enumerate(rooms) if room >= wanted), -1)
        room, right = rooms[chosen], variants[chosen]
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

    def __init__(self, session_id: str, *, take_over: bool = False, own: bool = False) -> None:
        """It watches, where the preference `attach_mode` does not say "drive". One's `own` session, just made, it
        drives if nobody else does; with `take_over` it drives whoever does now.
        """
        super().__init__()
        self._session_id = session_id
        self._take_over = take_over
        self._own = own
        self._attachment: Attachment | None = None
        self._news = ""
        self._news_timer: Timer | None = None
        # Kept here: at the end they leave the screen before the attachment is done with them.
        self._view, self._line, self._notice = TerminalView(), AttachLine(), Static(id="notice", markup=False)

    def compose(self) -> ComposeResult:
        yield self._view
        yield self._line
        yield self._notice

    def on_mount(self) -> None:
        self._clock = self.set_interval(1.0, self._tell, pause=True)
        view, wanted = self._view, console_of(self).preferences.get("agent_clipboard")
        if wanted in ("ask", "allow", "deny"):
            view.agent_clipboard = wanted
        if console_of(self).glyphs is ASCII:
            view.edges = ":."
        view.connected = False
        view.focus()
        self._tell()

    @property
    def _state(self) -> State:
        return self._attachment.state if self._attachment is not None else State(Phase.FINDING)

    @property
    def _seat(self) -> Seat | None:
        return self._attachment.seat if self._attachment is not None else None

    async def on_event(self, event: Event) -> None:
        await asyncio.sleep(0)  # while it opens they come all at once, and together would hold up the link
        await super().on_event(event)

    # The link

    def _start(self, columns: int, lines: int) -> None:
        console = console_of(self)
        self._attachment = Attachment(
            lambda: console.platform,
            self._session_id,
            (columns, lines),
            self,
            watch=not (self._take_over or self._own or console.preferences.get("attach_mode") == "drive"),
            take_over=self._take_over,
        )
        self.run_worker(self._attachment.run(), group="attachment", exclusive=True)

    async def show_output(self, data: bytes) -> None:
        if self._seat is not None and self._seat.original:
            self._view.follow_size()
        self._view.feed(data)
        await self._view.ready()

    async def show_repaint(self, data: bytes, size: tuple[int, int], *, fresh: bool) -> bool:
        return self._view.repaint(data, *size, fresh=fresh)

    def attachment_changed(self) -> None:
        if not self.is_attached:
            return
        state, seat, view = self._state, self._seat, self._view
        view.connected = state.phase is Phase.LIVE
        view.driving = seat is None or seat.drives
        view.mark = _whose_size(seat)
        if state.retry_at is None:
            self._clock.pause()
        else:
            self._clock.resume()
        self._tell()

    def attachment_news(self, words: str) -> None:
        """Tell something in the line for a while."""
        if not self.is_attached:
            return
        if self._news_timer is not None:
            self._news_timer.stop()
        self._news = words
        self._news_timer = self.set_timer(NEWS_SECONDS, self._forget_news)
        self._tell()

    def _forget_news(self) -> None:
        self._news = ""
        self._tell()

    def _again(self) -> None:
        if self._attachment is not None:
            self._attachment.again()

    # The terminal

    def on_surface_resized(self, message: Surface.Resized) -> None:
        if self._attachment is None:
            self._start(message.columns, message.lines)
        else:
            self._attachment.resize(message.columns, message.lines)
        self._tell()

    def on_surface_bell(self) -> None:
        self.app.bell()

    def on_surface_title_changed(self) -> None:
        self._tell()

    def on_terminal_view_input(self, message: TerminalView.Input) -> None:
        if self._attachment is None or self._attachment.type(message.data) or not self._view.connected:
            return
        if self._view.driving:
            self.notify("Not sent: the link takes no more for now.", severity="warning")

    def on_terminal_view_offline(self, message: TerminalView.Offline) -> None:
        if message.key == "enter":
            self._again()
        elif message.key == "escape" and self._state.phase in FINAL:
            self.dismiss(None)

    def on_terminal_view_refused(self) -> None:
        self.attachment_news(f"nothing typed: Ctrl+] t {_to_type(self._seat)}")

    def on_terminal_view_unknown(self, message: TerminalView.Unknown) -> None:
        self.attachment_news(f"{clean(message.key)} does nothing here")

    def on_terminal_view_command(self, message: TerminalView.Command) -> None:
        if message.name == "detach":
            self.dismiss(None)
        elif message.name == "links":
            self._show_links()
        elif self._attachment is not None and message.name == "drive":
            self._forget_news()
            self._attachment.drive()
        elif self._attachment is not None:
            self._attachment.watch()

    def on_terminal_view_looked_back(self, message: TerminalView.LookedBack) -> None:
        if self._attachment is not None and self._attachment.want_scrollback(to_the_top=message.to_the_top):
            self.attachment_news("fetching the scrollback")

    def on_terminal_view_mode_changed(self) -> None:
        self._tell()

    def on_terminal_view_offered(self) -> None:
        self._tell()

    def on_terminal_view_copied(self, message: TerminalView.Copied) -> None:
        size = f"{message.size:,} byte{'s' * (message.size != 1)}"
        if message.too_large:
            self.notify(f"Not copied: terminals take at most {LIMIT_BYTES:,} bytes.", severity="warning")
        else:
            self.notify(f"The agent copied {size}." if message.by_agent else f"Copied {size}.", timeout=2)

    def on_terminal_view_paste_asked(self, message: TerminalView.PasteAsked) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._view.paste(message.text)

        title = f"Paste {plural(message.lines, 'line')}?"
        self.app.push_screen(Confirm(title, _paste_effects(message), place=console_of(self).label), answered)

    def _show_links(self) -> None:
        found = self._view.links()
        if not found:
            self.attachment_news("no links to be seen")
            return

        def chosen(address: str | None) -> None:
            self._view.copy(address or "")

        self.app.push_screen(LinksDialog(found), chosen)

    # What is told

    def _tell(self) -> None:
        """Bring the line and the notice up to date."""
        view, line, mode = self._view, self._line, self._view.mode
        if mode is Mode.COMMAND:
            said: Parts = ((f"{self._news}  ", "warn"),) if self._news else ()
            line.show((*said, *_commands(view)), ())
        elif mode is Mode.SEARCH:
            line.show((("/", "key"), (view.needle, "plain"), ("▏ ", "key"), *self._hits()), _SEARCHING)
        elif view.review is not None and (mode is Mode.SCROLLBACK or view.review.lines_back):
            line.show(self._position(), *self._review_keys(), whole=True)
        else:
            line.show(self._who(), *self._link())
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

    def _link(self) -> Iterator[Parts]:
        """Size, seat and a hint, in fewer and fewer words."""
        seat, emulator, offered = self._seat, self._view.emulator, self._view.offered
        size = seat.size if seat is not None and seat.size is not None else (emulator.columns, emulator.lines)
        cells: Part = (f"{size[0]}x{size[1]}  ", "muted")
        hint: Parts = (("Ctrl+] d", "key"), (" detach", "muted"))
        if seat is not None and not seat.drives:
            hint = (("Ctrl+] t", "key"), (f" {_to_type(seat)}", "muted"))
        if offered:
            hint = (("Ctrl+] y", "key"), (f" copy {plural(len(offered), 'character')}", "plain"))
        if self._news:
            hint = ((self._news, "warn"),)
        mode, driver, viewers = self._place()
        yield (cells, *mode, *driver, *viewers, ("  ", "plain"), *hint)
        yield (cells, *mode, *driver, ("  ", "plain"), *hint)
        yield (*mode, *driver, ("  ", "plain"), *hint)
        if not self._news and seat is not None and seat.driver is not None:
            yield (*mode, (f" {fit_middle(clean(seat.driver.name), _SHORT_NAME)}", "plain"), ("  ", "plain"), *hint)
        yield (*mode, ("  ", "plain"), *hint)

    def _place(self) -> tuple[Parts, Parts, Parts]:
        """How the link is, or while it is live our mode; who drives if not we; and how many there are."""
        state, seat = self._state, self._seat
        if state.phase is not Phase.LIVE or seat is None:
            return ((f"{state.phase.value}{self._countdown()}", _TONES.get(state.phase, "busy")),), (), ()
        glyphs = console_of(self).glyphs
        count = len(seat.viewers)
        viewers: Parts = ((f", {count} viewers", "muted"),) if count > 1 else ()
        if seat.drives:
            return ((f"{glyphs.ready} driving", "good"),), (), viewers
        name = fit_middle(clean(seat.driver.name), 24) if seat.driver is not None else "nobody"
        driver: Parts = () if seat.original else ((f", {name} drives", "plain"),)
        return ((f"{glyphs.dead} watching", "warn"),), driver, viewers

    def _position(self) -> Parts:
        review = self._view.review
        if review is None:
            return ()
        total = plural(len(review.document), "line")
        hits = self._hits() or (("scrollback", "title"),)
        return (*hits, (f"  {review.lines_back} back of {total}", "plain"))

    def _hits(self) -> Parts:
        """How many places a search has found, and which of them is shown; 1 is the newest."""
        review = self._view.review
        if review is None or review.search is None:
            return ()
        search = review.search
        if not search.hits:
            return (("not found" if search.done else "searching", "warn"),)
        number = "-" if review.hit is None else str(review.hit + 1)
        more = "+" if search.full or not search.done else ""
        return ((f"{number}/{len(search.hits)}{more}", "strong"),)

    def _review_keys(self) -> tuple[Parts, ...]:
        view, review = self._view, self._view.review
        if self._news:
            return (((self._news, "warn"),),)
        if view.mode is not Mode.SCROLLBACK or review is None:
            return _SCROLLED
        if review.anchor is not None:
            return _MARKING
        if review.cursor is not None:
            return _PLACING
        return _FOUND if review.search is not None else _SCROLLING

    def _countdown(self) -> str:
        if self._state.retry_at is None:
            return ""
        return f", retry in {max(1, round(self._state.retry_at - monotonic()))} s"

    def _show_notice(self) -> None:
        state, notice = self._state, self._notice
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


def _keys(*pairs: tuple[str, str]) -> Parts:
    parts: list[Part] = []
    for key, words in pairs:
        parts += [("  " if parts else "", "plain"), (key, "key"), (f" {words}", "muted")]
    return tuple(parts)


# The keys of the look back, in fewer and fewer words.
_SCROLLING = (
    _keys(("↑ ↓ pgup pgdn", "move"), ("/", "search"), ("v", "select"), ("q", "live")),
    _keys(("/", "search"), ("v", "select"), ("q", "live")),
)
_FOUND = (
    _keys(("n", "older"), ("N", "newer"), ("/", "search"), ("v", "select"), ("q", "live")),
    _keys(("n", "older"), ("N", "newer"), ("q", "live")),
)
_PLACING = (
    _keys(("↑ ↓ ← →", "to the start"), ("v", "mark"), ("V", "lines"), ("esc", "back")),
    _keys(("v", "mark"), ("V", "lines"), ("esc", "back")),
)
_MARKING = (
    _keys(("y", "copy"), ("o", "other end"), ("V", "lines"), ("esc", "back")),
    _keys(("y", "copy"), ("esc", "back")),
)
_SCROLLED = (_keys(("shift+pgdn", "on"), ("any key", "live")),)
_SEARCHING = _keys(("enter", "done"), ("esc", "none"))


def _commands(view: TerminalView) -> Parts:
    """What the keys of the command mode do."""
    known = [("d", "detach"), ("w", "watch") if view.driving else ("t", "drive")]
    if view.offered:
        known.append(("y", f"copy {plural(len(view.offered), 'character')}"))
    known += [("s", "scroll"), ("/", "find"), ("v", "select"), ("o", "links"), ("]", "^]")]
    return _keys(*known)


def _to_type(seat: Seat | None) -> str:
    """What the key does that lets who watches type."""
    return "takes over" if seat is not None and seat.driver is not None else "lets you type"


def _whose_size(seat: Seat | None) -> str:
    """Whose size the terminal has, where it is not ours."""
    if seat is None or seat.drives or seat.size is None:
        return ""
    size = f"{seat.size[0]}x{seat.size[1]}"
    return f"{size} of {clean(seat.driver.name)}" if seat.driver is not None else size


def _paste_effects(message: TerminalView.PasteAsked) -> list[str]:
    """What a paste is, to be looked at before it is typed."""
    effects = []
    if message.controls:
        effects.append(f"{plural(message.controls, 'control character')} in it will be left out.")
    lines = clean_lines(message.text)
    effects.append("\n".join(fit(line, _PREVIEW_COLUMNS).rstrip() for line in lines[:_PREVIEW_LINES]))
    if len(lines) > _PREVIEW_LINES:
        effects[-1] += f"\n{plural(len(lines) - _PREVIEW_LINES, 'more line')} …"
    return effects


def _key_line(*keys: tuple[str, str]) -> Content:
    return Content("   ").join(Content.assemble((key, "$tone-key"), f" {words}") for key, words in keys)

"""The chat screen: a conversation with a session whose agent works by messages, live, whoever speaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from textual import events, work
from textual.binding import BindingType
from textual.message import Message
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import TextArea

from lapconsole import keys
from lapconsole.client.asking import PERMISSION, Wish, answer, waiting
from lapconsole.client.chat import ChatMessage, Conversation, follow, transcript
from lapconsole.client.errors import ClientError, PlatformError, Unreachable
from lapconsole.client.models import Json, Session
from lapconsole.live.model import Changes
from lapconsole.screens.base import ConsoleScreen
from lapconsole.screens.operations import next_step
from lapconsole.screens.outbox import WORDS, Outbox, Outgoing, outbox_of
from lapconsole.screens.pick import Pick
from lapconsole.widgets.parts import Parts, fit_parts, plain, strip_of
from lapconsole.widgets.phase_bar import status_parts
from lapconsole.widgets.transcript import Pending, Transcript
from lapconsole.widgets.words import age, clean, plural

if TYPE_CHECKING:
    from lapconsole.client.platform import Platform

TWICE_SECONDS = 2.0
NEWS_SECONDS = 6.0
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
POLL_SECONDS = 3.0
AGAIN_SECONDS = 2.0
# A platform reads this much of a message; nobody types more, and what pastes more means a file.
MOST_CHARACTERS = 1_000_000
# Above this a text area is slow: a paste stands as a mark in it, and goes out whole.
PASTE_CHARACTERS, PASTE_LINES = 8_000, 60

ASKING = ("opencode",)
"""Harnesses whose agents may ask in the middle of a turn."""
_NONE_OF_THESE = "lapconsole:none"

_STOPPING = "stopping the turn …"


class PromptArea(TextArea):
    """Where a message is written: enter sends, other keys make new lines, and a paste stays whole."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("prompt")

    class Sent(Message):
        """The message is to be sent."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(
            compact=True,
            soft_wrap=True,
            tab_behavior="focus",
            highlight_cursor_line=False,
            placeholder="Write a message",
        )
        self.cursor_blink = False
        self._outbox = outbox
        self.load_text(outbox.draft)
        self.move_cursor(self.document.end)

    @property
    def message(self) -> str:
        """The text with its pastes in place of their marks."""
        text = self.text
        for mark, pasted in self._outbox.pastes.items():
            text = text.replace(mark, pasted)
        return text

    def empty(self) -> None:
        """Begin a new message."""
        self.load_text("")
        self._outbox.pastes.clear()

    def give_back(self, text: str) -> None:
        """Put a text that was not sent before what has been written since."""
        self.load_text(f"{self._marked(text)}\n{self.text}" if self.text.strip() else self._marked(text))
        self.move_cursor(self.document.end)

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        self._replace_via_keyboard(self._marked(text), *self.selection)

    def _marked(self, text: str) -> str:
        """The text, or a mark that stands for it where it is long."""
        lines = text.count("\n") + 1
        if len(text) <= PASTE_CHARACTERS and lines <= PASTE_LINES:
            return text
        pastes = self._outbox.pastes
        mark = f"[paste {len(pastes) + 1}: {plural(lines, 'line')}, {plural(len(text), 'character')}]"
        pastes[mark] = text
        return mark

    def action_send(self) -> None:
        if self.text.endswith("\\") and self.cursor_at_end_of_text:
            self.action_delete_left()  # as in a shell: a backslash at the end of a line goes on in the next
            self.action_newline()
        else:
            self.post_message(self.Sent())

    def action_newline(self) -> None:
        self._replace_via_keyboard("\n", *self.selection)


class ChatLine(Widget):
    """One line: how it stands, and what is new at the right."""

    def __init__(self) -> None:
        super().__init__()
        self._told: tuple[Parts, Parts] = ((), ())

    def show(self, left: Parts, right: Parts) -> None:
        """Take over what is to be told; drawn again only when it reads differently."""
        if (left, right) != self._told:
            self._told = (left, right)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width, (left, right) = self.size.width, self._told
        room = max(0, width - cell_len(plain(right)) - 2)
        parts: Parts = ((" ", "plain"), *fit_parts(left, room), *right, (" ", "plain"))
        return strip_of(self, parts, width, self.rich_style)


class ChatScreen(ConsoleScreen):
    """One conversation. It mends its link by itself, and begins with the whole transcript each time."""

    DEFAULT_CSS = """
    ChatScreen {
        Transcript { height: 1fr; }
        ToastRack { dock: top; align: right top; margin: 1 0 0 0; }
        ChatLine { height: 1; background: $line-background; }
        PromptArea {
            height: auto; min-height: 1; max-height: 10; padding: 0 1; border: none; background: $background;
        }
        &.-normal PromptArea { min-height: 2; }
        &.-wide PromptArea { min-height: 3; max-height: 16; }
    }
    """
    BINDINGS = keys.bindings("chat")
    AUTO_FOCUS = "PromptArea"
    WRITING = (
        "prompt.send",
        "prompt.newline",
        "chat.interrupt",
        "chat.leave",
        "chat.unfold",
        "chat.help",
        "chat.move",
        "chat.page_up",
    )
    READING = (
        "chat.move",
        "transcript.next",
        "transcript.previous",
        "transcript.fold",
        "transcript.copy",
        "chat.interrupt",
        "chat.last",
        "app.help",
    )

    def __init__(self, session_id: str) -> None:
        super().__init__()
        self._session_id = session_id
        self._session = Session(session_id)
        self._conversation = Conversation()
        self._link = "connecting"  # or live, polling, lost, ended
        self._cause = ""
        self._since = monotonic()
        self._retry_at = 0.0
        self._seeded = False
        self._events: list[Json] = []
        self._news = asyncio.Event()
        self._news_words: tuple[str, str] = ("", "muted")
        self._news_timer: Timer | None = None
        self._working_since: datetime | None = None
        self._pressed = -TWICE_SECONDS

    @property
    def crumb(self) -> str:
        return f"Chat {self.console.glyphs.dot} {self._session.label}"

    def body(self) -> Iterable[Widget]:
        self._outbox = outbox_of(self.console, self._session_id)
        self.transcript = Transcript(self._conversation, glyphs=self.console.glyphs)
        self.prompt = PromptArea(self._outbox)
        self._line = ChatLine()
        yield self.transcript
        yield self._line
        yield self.prompt

    def on_mount(self) -> None:
        self._outbox.screen = self
        self._take_over()
        if not self._session.status:  # not listed, or not yet
            self._connect()
        self._show_pending()
        self._tell()

    def on_unmount(self) -> None:
        self._outbox.draft = self.prompt.text
        if self._outbox.screen is self:
            self._outbox.screen = None

    # -- news of the session

    def model_changed(self, changes: Changes) -> None:
        if self._session_id in changes.sessions:
            self._take_over()
            self._news.set()
        elif changes.link and self.console.model.link.current:
            self._news.set()

    def _take_over(self) -> None:
        session = self.console.model.sessions.get(self._session_id)
        if session is not None:
            before, self._session = self._session, session
            if (session.status, session.ready_at) != (before.status, before.ready_at):
                self._connect()
        self.transcript.called(self._session.agent_name or self._session.harness_id)
        self._say_when_empty()
        self._tell()

    def _say_when_empty(self) -> None:
        status = self._session.status
        if self._link == "lost" and not self._seeded:
            self.transcript.say_when_empty("The transcript cannot be read.", self._cause)
        elif status == "creating":
            self.transcript.say_when_empty("It is coming up.", "Write already; it can be sent when it is ready.")
        elif self._seeded:
            words = "Write below; enter sends." if status == "ready" else "Nothing was said in it."
            self.transcript.say_when_empty("No messages yet.", words)
        else:
            self.transcript.say_when_empty("Reading the transcript …")

    def tick(self) -> None:
        self._tell()

    # -- the link

    def _connect(self) -> None:
        """Begin to follow the session as it is now; what was followed until now may be another sandbox's."""
        self._link = "connecting"
        self.run_worker(self._keep_up(), group="conversation", exclusive=True, exit_on_error=False)

    async def _keep_up(self) -> None:
        """Follow the conversation for as long as the screen is open."""
        attempt = 0
        while True:
            self._news.clear()
            platform, status = self.console.platform, self._session.status
            try:
                if platform is None or status == "creating":
                    await self._news_or(1.0 if platform is None else None)
                    continue
                if self._session.ended:
                    await self._read_once(platform)
                    await self._news_or(None)
                    continue
                await self._watch(platform)
                attempt = 0
                pause = RETRY_SECONDS[0]
            except ClientError as error:
                if self._link in ("live", "polling"):
                    attempt = 0
                pause = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)] * random.uniform(0.8, 1.2)
                attempt += 1
                self._lost(error, pause)
            await self._news_or(pause)

    async def _news_or(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _read_once(self, platform: Platform) -> None:
        """Read what is kept of a session that has ended."""
        self._begin(await transcript(platform, self._session_id))
        self._conversation.working = False
        self._linked("ended")

    async def _watch(self, platform: Platform) -> None:
        """Follow the bus, and read the transcript when nothing of it can be missed any more."""
        self._seeded, self._events = False, []
        opened = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(platform, opened))
                await opened.wait()
                if self._session.harness_id in ASKING:
                    wishes = await waiting(platform, self._session_id)
                    self._conversation.wishes = {wish.id: wish for wish in wishes}
                self._begin(await transcript(platform, self._session_id))
                self._linked("live")
        except ExceptionGroup as group:
            error = group.exceptions[0]
            if not isinstance(error, PlatformError) or error.status not in (404, 405):
                raise error from None
            await self._poll(platform)

    async def _listen(self, platform: Platform, opened: asyncio.Event) -> None:
        try:
            async with aclosing(follow(platform, self._session_id)) as stream:
                async for event in stream:
                    opened.set()
                    self._event(event)
            if not opened.is_set():  # the agent's own server does not answer, or too many watch it
                raise Unreachable(platform.base_url, "the stream of the session ended before it began")
        finally:
            opened.set()

    async def _poll(self, platform: Platform) -> None:
        """A platform without a stream to follow: read the transcript again and again, for a while."""
        for _ in range(20):
            messages = await transcript(platform, self._session_id)
            if list(messages) != list(self._conversation.messages.values()) or self._link != "polling":
                self._begin(messages)
            self._linked("polling")
            await self._news_or(POLL_SECONDS)
            if self._session.status != "ready":
                return

    def _event(self, event: Json) -> None:
        if not self._seeded:
            self._events.append(event)
            del self._events[:-10_000]
            return
        before = self._conversation.working
        changed = self._conversation.apply(event)
        if changed is not None:
            self.transcript.changed(changed)
            if event.get("type") != "message.part.delta":
                self._recognise()
        if before != self._conversation.working:
            self._turned()
        elif str(event.get("type")).startswith(("permission.", "question.")):
            self._tell()

    def _begin(self, messages: Iterable[ChatMessage]) -> None:
        self._conversation.seed(messages, self._events)
        self._events, self._seeded = [], True
        self.transcript.reseeded()
        self._recognise()
        if self._at_work:
            self._look_again()  # it may be waiting for the turn of somebody else
        elif lost := self._outbox.settle():
            self.returned(lost, "Not in the transcript: it seems not to have arrived; enter sends it again")
        self._show_pending()
        self._outbox.deliver(self.console, self._session_id)
        self._turned()

    @work(group="again", exclusive=True, exit_on_error=False)
    async def _look_again(self) -> None:
        """Read the transcript once more when the turn is over, for a message nobody knows the fate of."""
        while any(one.state == "unsure" for one in self._outbox.waiting):
            await asyncio.sleep(AGAIN_SECONDS)
            if not self._at_work and self._link == "live" and self.console.platform is not None:
                try:
                    messages = await transcript(self.console.platform, self._session_id)
                except ClientError:
                    continue
                self._begin(messages)
                return

    def _linked(self, link: str) -> None:
        self._link, self._cause, self._since = link, "", monotonic()
        self._say_when_empty()
        self._tell()

    def _lost(self, error: ClientError, pause: float) -> None:
        if self._link != "lost":
            self._since = monotonic()
        self._link, self._cause, self._retry_at = "lost", str(error), monotonic() + pause
        self._say_when_empty()
        self._tell()

    def _turned(self) -> None:
        """A turn began or ended, as far as the conversation tells."""
        working = self._conversation.working
        self._working_since = (self._working_since or self.console.clock()) if working else None
        if not working and self._news_words[0] == _STOPPING:
            self._news_words = ("", "muted")
        self._tell()

    # -- sending: each message once, one after the other, also while the screen is closed

    def on_prompt_area_sent(self) -> None:
        text = self.prompt.message.strip()
        if not text:
            return
        if refusal := self._refusal(text):
            self._say(refusal, "warn")
            return
        self._outbox.waiting.append(Outgoing(text))
        self.prompt.empty()
        self._show_pending()
        if self._seeded:  # it is recognised among the messages that are not known yet
            self._outbox.deliver(self.console, self._session_id)

    def _refusal(self, text: str) -> str:
        """Why nothing can be sent now; "" when it can."""
        session = self._session
        if len(text) > MOST_CHARACTERS:
            return f"Not sent: at most {MOST_CHARACTERS} characters; put it in a file of the session"
        if session.status == "creating":
            return f"Not sent: it is still coming up ({session.phase or 'creating'})"
        if session.ended:
            return f"Not sent: the session is {session.status}; {self.console.keymap.first('chat.restart')} restarts it"
        if self.console.platform is None:
            return "Not sent: there is no connection yet"
        if self._link == "lost":
            return "Not sent: the link is lost; it comes back by itself"
        return ""

    def known(self) -> frozenset[str]:
        return frozenset(self._conversation.messages)

    def outbox_changed(self) -> None:
        self._recognise()
        self._show_pending()
        self._tell()

    def returned(self, text: str, why: str) -> None:
        """Back into the text it goes."""
        self.prompt.give_back(text)
        self._say(why, "bad")
        self._show_pending()

    def _recognise(self) -> None:
        """Find what was sent among the messages that came since."""
        if self._outbox.waiting:
            messages = list(self._conversation.messages.values())
            for outgoing in self._outbox.waiting:
                outgoing.recognise(messages)
            self._show_pending()

    def _show_pending(self) -> None:
        shown = [one for one in self._outbox.waiting if one.state in WORDS]
        self.transcript.pending(tuple(Pending(one.text, WORDS[one.state], one.state == "unsure") for one in shown))

    # -- what is told

    def _say(self, words: str, tone: str = "plain") -> None:
        """Tell something in the line for a while."""
        if self._news_timer is not None:
            self._news_timer.stop()
        self._news_words = (words, tone)
        self._news_timer = self.set_timer(NEWS_SECONDS, self._forget_news)
        self._tell()

    def _forget_news(self) -> None:
        self._news_words = ("", "muted")
        self._tell()

    def _tell(self) -> None:
        if self.is_mounted and self.query(ChatLine):
            self._line.show(tuple(self._how()), tuple(self._what_is_new()))
            self.draw_frame()

    def _how(self) -> Iterable[tuple[str, str]]:
        """How session, link and turn stand."""
        session, look, first = self._session, self.look, self.console.keymap.first
        yield from status_parts(session, look)
        if session.status == "creating":
            yield (f"  {session.phase or ''}", "muted")
        elif session.ended:
            yield (f"  {clean(session.failure_reason or 'no reason given')}", "muted")
            yield (f"  {first('chat.restart')}", "key")
            yield (" restarts", "muted")
        elif self._link == "lost":
            wait = max(0, round(self._retry_at - monotonic()))
            stale = f"stale {age(monotonic() - self._since)}: " if self._conversation.messages else ""
            yield (f"  {stale}{clean(self._cause)}; again in {wait}s", "warn")
        elif wish := next(iter(self._conversation.wishes.values()), None):
            yield (f"  {look.glyphs.stuck} asks", "warn")
            yield (f"  {first('chat.answer')}", "key")
            yield (" answers: ", "muted")
            yield (clean(wish.words), "plain")
        elif self._link == "connecting":
            yield ("  connecting …", "busy")
        elif self._conversation.working:
            since = self._working_since or look.now
            yield (f"  working {age((look.now - since).total_seconds())}", "busy")
            yield (f"  {first('chat.interrupt')} {first('chat.interrupt')}", "key")
            yield (" stops", "muted")
        elif self._link == "polling":
            yield (f"  read every {POLL_SECONDS:g} s: this platform has no live stream", "muted")

    def _what_is_new(self) -> Iterable[tuple[str, str]]:
        words, tone = self._news_words
        if words:
            yield (f"  {words}", tone)
        elif self.transcript.unseen:
            yield (f"  {plural(self.transcript.unseen, 'new message')} below", "accent")
            yield (f"  {self.console.keymap.first('chat.last')}", "key")
        elif not self.transcript.following:
            yield ("  held still", "muted")

    def hints(self) -> tuple[Sequence[str], str]:
        if self.transcript.has_focus:
            return self.READING, ""
        return self.WRITING, ""

    def on_transcript_moved(self) -> None:
        self._tell()

    def on_descendant_focus(self) -> None:
        self.draw_frame()

    def on_transcript_copied(self, message: Transcript.Copied) -> None:
        self.console.copy_to_clipboard(message.text)
        self._say(f"copied {message.what}: {plural(len(message.text), 'character')}")

    # -- actions

    def action_scroll(self, name: str) -> None:
        """Move in the transcript without leaving the text."""
        getattr(self.transcript, f"action_{name}")()

    def action_move(self) -> None:
        (self.prompt if self.transcript.has_focus else self.transcript).focus()

    def action_interrupt(self) -> None:
        """Where a turn runs, the second of two stops it; otherwise leave, from the transcript first to the text."""
        if self._busy:
            self._stop_when_twice("chat.interrupt")
        elif self.transcript.has_focus:
            self.prompt.focus()
        else:
            self.dismiss(None)

    def action_break(self) -> None:
        if self.prompt.selected_text:
            self.console.copy_to_clipboard(self.prompt.selected_text)
            self._say("copied what is chosen")
        elif self._busy:
            self._stop_when_twice("chat.break")
        else:
            self._say(f"no turn runs; {self.console.keymap.first('chat.leave')} leaves")

    @property
    def _at_work(self) -> bool:
        """Whether a turn runs; where the conversation does not show it, as the session tells."""
        working, activity = self._conversation.working, self._session.activity
        if working is None:
            return activity is not None and activity.state in ("working", "waiting_for_input")
        return working

    @property
    def _busy(self) -> bool:
        """Whether there is a turn to stop; where nobody knows, there may be one."""
        return bool(self._conversation.working or self._outbox.waiting)

    def _stop_when_twice(self, action: str) -> None:
        now = monotonic()
        if now - self._pressed > TWICE_SECONDS:
            self._pressed = now
            first = self.console.keymap.first
            self._say(f"{first(action)} again stops the turn; {first('chat.leave')} leaves and lets it go on", "warn")
            return
        self._pressed = -TWICE_SECONDS
        if back := self._outbox.take_back():
            self.returned(back, "stopping the turn; what waited for it is back in the text")
        else:
            self._say(_STOPPING, "warn")
        self.console.run_worker(self._abort(), group="chat", exit_on_error=False)

    async def _abort(self) -> None:
        platform = self.console.platform
        if platform is None:
            return
        try:
            await platform.abort(self._session_id)
        except ClientError as error:
            self.console.report("Stop the turn", str(error), next_step(error))

    @work(group="answer", exclusive=True, exit_on_error=False)
    async def action_answer(self) -> None:
        """Ask what the agent asks, one thing after the other; leaving that answers nothing."""
        wish = next(iter(self._conversation.wishes.values()), None)
        if wish is None:
            self._say("the agent asks nothing")
            return
        chosen: list[str] = []
        for asked in wish.asked:
            # No first: enter alone must never permit anything.
            no = () if wish.kind == PERMISSION else ((_NONE_OF_THESE, "none of these"),)
            label = await self.app.push_screen_wait(Pick(clean(asked.words)[:200], [*no, *asked.choices]))
            if label is None:
                return
            chosen.append(label)
        await self._answer(wish, None if _NONE_OF_THESE in chosen else chosen)

    async def _answer(self, wish: Wish, chosen: list[str] | None) -> None:
        platform = self.console.platform
        try:
            if platform is not None:
                await answer(platform, self._session_id, wish, chosen)
                self._conversation.wishes.pop(wish.id, None)
        except ClientError as error:
            self.console.report("Answer the agent", str(error), next_step(error))
        self._tell()

    def action_restart(self) -> None:
        self.console.operations.restart(self._session)

    def action_leave(self) -> None:
        self.dismiss(None)

"""The transcript of a session: what was said, tool calls and thoughts folded to a line, drawn only where it shows."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import ClassVar, NamedTuple

from rich.segment import Segment
from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.timer import Timer

from lapconsole import keys
from lapconsole.client.chat import ASSISTANT, NOTICE, REASONING, TEXT, TOOL, USER, ChatMessage, ChatPart, Conversation
from lapconsole.client.models import Json
from lapconsole.widgets.parts import Parts, fit_parts, scroll_quietly, strip_of, tone, tones
from lapconsole.widgets.transcript_text import BLANK, FlowingText, Row
from lapconsole.widgets.words import ASCII, UNICODE, Glyphs, clean, duration, fit_middle, plural

# Messages laid out at first and with each look further back: what nobody looks at costs nothing.
PAGE_OF_MESSAGES = 200
# However fast a text streams in, it is drawn this often.
FRAME_SECONDS = 0.04
LINES_OF_OUTPUT = 400
LONG_CHARACTERS, LONG_LINES, FOLDED_ROWS = 6000, 40, 8
WIDEST_TEXT = 120  # the eye loses its line in longer ones
_OPEN, _CLOSED = "▾", "▸"
_SUMMARY = 400

# A skill goes before a message as a whole (LAP harness 3.2); its name says enough.
_SKILL = re.compile(r'<skill name="([^"\n]*)">\n.*?\n</skill>\s*', re.DOTALL)

# What of a tool's input tells most about a call, best first.
_TELLING = ("command", "cmd", "file_path", "filePath", "path", "pattern", "url", "query", "description", "prompt")


class Pending(NamedTuple):
    """A message on its way: its text, and what is happening to it."""

    text: str
    state: str
    failed: bool = False


class _Block:
    """A piece of a message: how it is drawn, kept until it changes. Folding ones have a `key`."""

    def __init__(self, message: ChatMessage, part: ChatPart) -> None:
        self.key = (message.id, part.id)
        self.part = part
        self.rows: list[Row] = []
        self._asked = message.role == USER and part.kind == TEXT
        self._flow: FlowingText | None = None
        self._seen: tuple[object, ...] = ()

    @property
    def folds(self) -> bool:
        return self.part.kind in (TOOL, REASONING) or self.long

    @property
    def long(self) -> bool:
        """Whether it is a question so long that it would hide its answer."""
        text = self.part.text
        return self._asked and (len(text) > LONG_CHARACTERS or text.count("\n") > LONG_LINES)

    def draw(self, width: int, unfolded: bool, role: str, look: _Drawing) -> bool:
        """Bring the rows up to date; tells whether anything changed."""
        part = self.part
        seen = (width, unfolded, part.kind, part.status, len(part.text), part.text, id(part.input))
        if seen == self._seen:
            return False
        same_form = self._seen[:3] == seen[:3]
        self._seen = seen
        if part.kind == TEXT:
            if self._flow is None or not same_form:
                tone = "warn" if role == NOTICE else "plain"
                self._flow = FlowingText(min(width, WIDEST_TEXT), plain=role != ASSISTANT, tone=tone)
            self._flow.take(part.text if role == ASSISTANT else _SKILL.sub(r"[skill \1] ", part.text).strip("\n"))
            self.rows = self._flow.rows
            if self.long and not unfolded:
                more = f"  {_fold_mark(False, look.glyphs)} {plural(len(self.rows) - FOLDED_ROWS, 'more line')}"
                self.rows = [*self.rows[:FOLDED_ROWS], Row(((more, "muted"),))]
        elif part.kind == TOOL:
            self.rows = list(_tool_rows(part, width, unfolded, look))
        elif part.kind == REASONING:
            self.rows = list(_thought_rows(part, width, unfolded, look))
        else:
            self.rows = [Row((("  ", "plain"), (f"[{clean(part.text)}]", "muted")))]
        return True


class _Group:
    """A message with its blocks, and where each of them begins."""

    def __init__(self, message: ChatMessage) -> None:
        self.message = message
        self.blocks: dict[str, _Block] = {}
        self.head: list[Row] = []
        self.foot: list[Row] = []
        self.starts: list[int] = []
        self.order: list[_Block] = []
        self.height = 0

    def row(self, y: int) -> tuple[Row, _Block | None]:
        if y < len(self.head):
            return self.head[y], None
        place = bisect_right(self.starts, y) - 1
        if place >= 0:
            block = self.order[place]
            inside = y - self.starts[place]
            if inside < len(block.rows):
                return block.rows[inside], block
        bottom = y - (self.height - len(self.foot))
        return (self.foot[bottom] if 0 <= bottom < len(self.foot) else BLANK), None


class _Drawing(NamedTuple):
    glyphs: Glyphs
    name: str
    clock: Callable[[datetime], str]


def _time(moment: datetime) -> str:
    return moment.strftime("%H:%M")


class Transcript(ScrollView, can_focus=True, inherit_bindings=False):
    """Draws a Conversation. At its end it follows what comes; elsewhere what is on the screen stays where it is."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("transcript")

    class Moved(Message):
        """It was scrolled, or something came below what shows."""

    class Copied(Message):
        """A person wants this text."""

        def __init__(self, text: str, what: str) -> None:
            super().__init__()
            self.text = text
            self.what = what

    def __init__(self, conversation: Conversation, *, name: str = "", glyphs: Glyphs = UNICODE, id: str | None = None):
        """`name` is what the agent is called."""
        super().__init__(id=id)
        scroll_quietly(self)
        self._conversation = conversation
        self._look = _Drawing(glyphs, name, _time)
        self._groups: list[_Group] = []
        self._place: dict[str, int] = {}
        self._tops: list[int] = []
        self._first = 0  # messages before this one are not laid out
        self._width = 0
        self._dirty: set[str] = set()
        self._frame: Timer | None = None
        self._pending: tuple[Pending, ...] = ()
        self._pending_rows: list[Row] = []
        self._unfolded: set[tuple[str, str]] = set()
        self._all = False
        self._cursor: tuple[str, str] | None = None
        self.empty: tuple[str, ...] = ()
        self.following = True
        self.unseen = 0

    # -- news

    def called(self, name: str) -> None:
        """Call the agent so."""
        if name != self._look.name:
            self._look = self._look._replace(name=name)
            self.reseeded()

    def changed(self, message_id: str | None) -> None:
        """A message of the conversation changed; it is drawn with the next frame."""
        if message_id is None:
            return
        self._dirty.add(message_id)
        if self._frame is None:
            self._frame = self.set_timer(FRAME_SECONDS, self._draw_changes)

    def reseeded(self) -> None:
        """The conversation began anew: lay out the end of it."""
        laid_out = max(PAGE_OF_MESSAGES, len(self._groups))
        self._first = max(0, len(self._conversation.messages) - laid_out)
        self._dirty.clear()
        self._lay_out()

    def pending(self, pending: tuple[Pending, ...]) -> None:
        """Messages on their way, shown below all others."""
        if pending != self._pending:
            grew = len(pending) > len(self._pending)
            self._pending = pending
            if grew:
                self.following = True
            self._draw_pending()
            self._resize()

    def say_when_empty(self, *words: str) -> None:
        """What to show while there is no message."""
        if words != self.empty:
            self.empty = words
            self.refresh()

    def _draw_changes(self) -> None:
        self._frame = None
        dirty, self._dirty = self._dirty, set()
        messages = self._conversation.messages
        if not self._width:
            return
        known = len(self._groups)
        new = [id for id in dirty if id not in self._place and id in messages]
        known_ends = (group.message.id for group in (*self._groups[:1], *self._groups[-2:]))
        if any(id not in messages for id in (*dirty, *known_ends)):
            self._lay_out()  # something was removed
            return
        lowest = known
        for id in dirty:
            place = self._place.get(id)
            if place is not None and self._draw_group(place):
                lowest = min(lowest, place)
        if new:
            order = list(messages)
            for id in order[order.index(self._groups[-1].message.id) + 1 if self._groups else self._first :]:
                self._place[id] = len(self._groups)
                self._groups.append(_Group(messages[id]))
                self._draw_group(len(self._groups) - 1)
                self.unseen += 0 if self.following else 1
        self._measure(lowest)
        self._resize()

    # -- layout

    def on_resize(self) -> None:
        width = self.scrollable_content_region.width
        if width > 0 and width != self._width:
            self._width = width
            self._lay_out()
        elif self.following:
            self._resize()

    def _lay_out(self) -> None:
        """Lay out anew all messages from the first one in reach; what has not changed is not worked out again."""
        if not self._width:
            return
        held = self._top_message()
        old = {group.message.id: group for group in self._groups}
        self._groups, self._place = [], {}
        for message in list(self._conversation.messages.values())[self._first :]:
            group = old.get(message.id) or _Group(message)
            group.message = message
            self._place[message.id] = len(self._groups)
            self._groups.append(group)
            self._draw_group(len(self._groups) - 1)
        self._draw_pending()
        self._measure(0)
        self._resize()
        if held is not None and not self.following and held[0] in self._place:
            self.scroll_to(y=self._tops[self._place[held[0]]] + held[1], animate=False, force=True)

    def _draw_group(self, place: int) -> bool:
        """Bring a message's rows up to date; tells whether its height may have changed."""
        group, message = self._groups[place], self._groups[place].message
        before = group.height
        previous = self._groups[place - 1].message.role if place else ""
        group.head = list(self._head_rows(message, previous, place == 0 and self._first > 0))
        start, group.starts, group.order = len(group.head), [], []
        for part in message.parts.values():
            block = group.blocks.get(part.id)
            if block is None or block.part.kind != part.kind:
                block = group.blocks[part.id] = _Block(message, part)
            block.part = part
            block.draw(self._width, self._is_unfolded(block.key), message.role, self._look)
            if group.order and group.order[-1].folds and not block.folds and block.rows:
                start += 1  # a blank row between what was done and what is said
            group.starts.append(start)
            group.order.append(block)
            start += len(block.rows)
        if len(group.blocks) > len(message.parts):
            group.blocks = {id: block for id, block in group.blocks.items() if id in message.parts}
        group.foot = list(self._foot_rows(message))
        group.height = start + len(group.foot)
        return group.height != before

    def _head_rows(self, message: ChatMessage, previous: str, more_above: bool) -> Iterator[Row]:
        glyphs = self._look.glyphs
        if more_above:
            yield Row(((f"{glyphs.up} {plural(self._first, 'earlier message')}: go on up to see them", "muted"),))
        if message.role == previous:
            return
        yield BLANK
        if message.role == NOTICE:
            return
        time = self._look.clock(message.created) if message.created else ""
        name, tone = (self._look.name or ASSISTANT, "title") if message.role == ASSISTANT else (USER, "key")
        yield Row(((f"{glyphs.cursor} ", tone), (clean(name), tone), (f"  {time}", "muted")))

    def _foot_rows(self, message: ChatMessage) -> Iterator[Row]:
        if message.error:
            flow = FlowingText(self._width, plain=True, tone="bad")
            flow.take(f"{self._look.glyphs.failed} {message.error}")
            yield from flow.rows
        if told := turn_figures(message, self._look.glyphs):
            yield Row((("  ", "plain"), (told, "muted")))

    def _draw_pending(self) -> None:
        rows: list[Row] = []
        for pending in self._pending:
            tone = "bad" if pending.failed else "busy"
            rows += [
                BLANK,
                Row(((f"{self._look.glyphs.cursor} {USER}", "key"), (f"  {pending.state}", tone))),
            ]
            flow = FlowingText(max(1, self._width), plain=True, tone="muted")
            flow.take(pending.text.strip("\n"))
            rows += flow.rows[:20]
        self._pending_rows = rows

    def _measure(self, first: int) -> None:
        """Work out where each message begins, from one of them on."""
        del self._tops[first:]
        top = self._tops[-1] + self._groups[first - 1].height if first and self._tops else 0
        for group in self._groups[first:]:
            self._tops.append(top)
            top += group.height

    @property
    def _height(self) -> int:
        return (self._tops[-1] + self._groups[-1].height if self._groups else 0) + len(self._pending_rows)

    def _resize(self) -> None:
        self.virtual_size = Size(self._width, self._height)
        if self.following:
            self.unseen = 0
            self.scroll_to(y=self._height, animate=False, force=True)
        self.refresh()
        self.post_message(self.Moved())

    def _top_message(self) -> tuple[str, int] | None:
        """The message at the top edge, and how many of its rows are above that."""
        place = bisect_right(self._tops, self.scroll_offset.y) - 1
        if place < 0 or place >= len(self._groups):
            return None
        return self._groups[place].message.id, self.scroll_offset.y - self._tops[place]

    # -- drawing

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        base = self.rich_style
        if not self._groups and not self._pending_rows:
            words = self.empty[y - 1] if 1 <= y <= len(self.empty) else ""
            return strip_of(self, ((f"  {words}", "strong" if y == 1 else "muted"),), width, base)
        row, block = self._row(y + self.scroll_offset.y)
        if block is not None and block.key == self._cursor and self.has_focus and row is block.rows[0]:
            return strip_of(self, row.parts, width, base + tone(self, "cursor"), ellipsis=self._look.glyphs.ellipsis)
        if row.code:
            return self._code_strip(row.parts, width)
        return strip_of(self, row.parts, width, base, ellipsis=self._look.glyphs.ellipsis)

    def _code_strip(self, parts: Parts, width: int) -> Strip:
        styles, base = tones(self.app), self.rich_style
        band = base + styles["line"]
        (margin, _), *code = parts
        fitted = fit_parts(tuple(code), width - len(margin) - 1)
        segments = [Segment(margin, base), *(Segment(text, band + styles[name]) for text, name in fitted)]
        return Strip([*segments, Segment(" ", base)], width)

    def _row(self, y: int) -> tuple[Row, _Block | None]:
        place = bisect_right(self._tops, y) - 1
        if place >= 0:
            group = self._groups[place]
            inside = y - self._tops[place]
            if inside < group.height:
                return group.row(inside)
            y = inside - group.height
        return (self._pending_rows[y] if 0 <= y < len(self._pending_rows) else BLANK), None

    def on_focus(self) -> None:
        if self._cursor is None or self._cursor[0] not in self._place:
            self._step(-1, self._height)
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    # -- moving: any move up holds, the end follows again

    @property
    def _page(self) -> int:
        return max(1, self.scrollable_content_region.height - 1)

    def _go(self, y: int) -> None:
        if y < 0 and self._first:
            y += self._look_back(PAGE_OF_MESSAGES)
        end = max(0, self._height - self.scrollable_content_region.height)
        self.following = y >= end
        if self.following:
            self.unseen = 0
        self.scroll_to(y=max(0, min(y, end)), animate=False, force=True)
        self.post_message(self.Moved())

    def _look_back(self, messages: int) -> int:
        """Lay out so many more messages; gives the number of rows that came above the others."""
        before, self.following = self._height, False
        self._first = max(0, self._first - messages)
        self._lay_out()
        return self._height - before

    def action_up(self) -> None:
        self._go(self.scroll_offset.y - 1)

    def action_down(self) -> None:
        self._go(self.scroll_offset.y + 1)

    def action_page_up(self) -> None:
        self._go(self.scroll_offset.y - self._page)

    def action_page_down(self) -> None:
        self._go(self.scroll_offset.y + self._page)

    def action_first(self) -> None:
        self._go(0)
        if self._first:
            self._look_back(PAGE_OF_MESSAGES)
            self._go(0)
            # Page by page, so that keys are heard in between.
            self.set_timer(FRAME_SECONDS, self._on_to_the_first)

    def _on_to_the_first(self) -> None:
        if self.scroll_offset.y == 0 and not self.following:
            self.action_first()

    def action_last(self) -> None:
        self._go(self._height)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        event.prevent_default()
        self._go(self.scroll_offset.y - 3)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        event.prevent_default()
        self._go(self.scroll_offset.y + 3)

    # -- folding

    def _is_unfolded(self, key: tuple[str, str]) -> bool:
        return (key in self._unfolded) != self._all

    def action_fold_all(self) -> None:
        """Unfold every tool call and thought, or fold them."""
        self._all = not self._all
        self._unfolded.clear()
        self._lay_out()

    def action_fold(self) -> None:
        """Unfold the chosen tool call or thought, or fold it."""
        if self._cursor is not None and self._cursor[0] in self._place:
            self._toggle(self._cursor)

    def _toggle(self, key: tuple[str, str]) -> None:
        self._unfolded ^= {key}
        place = self._place[key[0]]
        self.following = False
        self._draw_group(place)
        self._measure(place)
        self._resize()
        self._show(key)

    def action_step(self, step: int) -> None:
        """Choose the next tool call or thought below (1) or above (-1)."""
        self._step(step, None)

    def _step(self, step: int, start: int | None) -> None:
        folding = [
            (self._tops[place] + top, block.key)
            for place, group in enumerate(self._groups)
            for top, block in zip(group.starts, group.order, strict=True)
            if block.folds
        ]
        here = next((top for top, key in folding if key == self._cursor), None) if start is None else start
        if here is None:
            here = self.scroll_offset.y + (self._page if step < 0 else -1)
        after = [key for top, key in folding if (top > here if step > 0 else top < here)]
        if after:
            self._cursor = after[0] if step > 0 else after[-1]
            if start is None:
                self._show(self._cursor)
            self.refresh()

    def _show(self, key: tuple[str, str]) -> None:
        """Scroll as far as needed to have a block's first row in sight."""
        place = self._place.get(key[0])
        if place is None:
            return
        group = self._groups[place]
        top = next((top for top, block in zip(group.starts, group.order, strict=True) if block.key == key), 0)
        y = self._tops[place] + top
        if not self.scroll_offset.y <= y < self.scroll_offset.y + self._page:
            self._go(max(0, y - self._page // 3))

    def on_click(self, event: events.Click) -> None:
        _, block = self._row(event.y + self.scroll_offset.y)
        if block is not None and block.folds:
            self._cursor = block.key
            self._toggle(block.key)

    def action_copy(self) -> None:
        """Copy the chosen tool call or thought, or else the agent's last answer."""
        block = None
        if self._cursor is not None and (place := self._place.get(self._cursor[0])) is not None:
            block = self._groups[place].blocks.get(self._cursor[1])
        if block is not None and self._is_unfolded(block.key):
            self.post_message(self.Copied(block.part.text, "what is unfolded"))
            return
        messages = reversed(self._conversation.messages.values())
        if answer := next((message.text for message in messages if message.role == ASSISTANT and message.text), ""):
            self.post_message(self.Copied(answer, "the last answer"))


def turn_figures(message: ChatMessage, glyphs: Glyphs = UNICODE) -> str:
    """`12s · ↓ 42 tokens · $0.0123` of an answer, as far as it is known; "" of anything else."""
    if message.role != ASSISTANT or message.completed is None or not message.text:  # a step on the way is no answer
        return ""
    told = []
    if message.created is not None:
        told.append(duration((message.completed - message.created).total_seconds()))
    if message.tokens:
        told.append(f"{glyphs.down} {message.tokens} tokens")
    if message.cost:
        told.append(f"${message.cost:.4f}")
    return f" {glyphs.dot} ".join(told)


def tool_summary(input: Json) -> str:
    """What a tool was called with, on one line."""
    for name in _TELLING:
        value = input.get(name)
        if isinstance(value, str) and value.strip():
            return clean(" ".join(value.split()))[:_SUMMARY]
    return clean(json.dumps(input, ensure_ascii=False))[:_SUMMARY] if input else ""


def _tool_rows(part: ChatPart, width: int, unfolded: bool, look: _Drawing) -> Iterator[Row]:
    glyphs = look.glyphs
    mark, tone = _fold_mark(unfolded, glyphs), "plain"
    lines = part.text.count("\n") + 1 if part.text.strip() else 0
    if part.status == "error":
        end, tone = f"{glyphs.failed} failed", "bad"
    elif part.status == "completed":
        end, tone = f"{glyphs.done} {plural(lines, 'line')}" if lines else glyphs.done, "good"
    else:
        end, tone = f"{glyphs.creating} {part.status or 'running'}", "busy"
    name = clean(part.tool)[:40]
    room = width - len(name) - len(end) - 9
    summary = fit_middle(tool_summary(part.input), max(0, room), glyphs.ellipsis) if room > 8 else ""
    yield Row(
        ((f"  {mark} ", "muted"), (name, "strong"), (f"  {summary}  " if summary else "  ", "plain"), (end, tone))
    )
    if unfolded:
        yield from _input_rows(part.input, width)
        output = part.text.strip("\n")
        yield from _bounded_rows(output, width, "bad" if part.status == "error" else "plain")
    elif part.status == "error" and part.text.strip():
        cause = clean(part.text.strip().splitlines()[0])
        yield Row((("      ", "plain"), (fit_middle(cause, width - 7, glyphs.ellipsis), "bad")))


def _input_rows(input: Json, width: int) -> Iterator[Row]:
    for name, value in list(input.items())[:40]:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        flow = FlowingText(width, indent=4, plain=True, tone="muted")
        flow.take(f"{name}: {text[:4000]}")
        yield from flow.rows[:40]


def _bounded_rows(text: str, width: int, tone: str) -> Iterator[Row]:
    """A tool's output on a band: its first lines, and how many there are."""
    if not text:
        return
    lines = text.split("\n")
    flow = FlowingText(width - 1, indent=4, plain=True, tone=tone)
    flow.take("\n".join(line[:2000] for line in lines[:LINES_OF_OUTPUT]))
    yield from (Row(row.parts, code=True) for row in flow.rows)
    if len(lines) > LINES_OF_OUTPUT:
        more = f"{len(lines) - LINES_OF_OUTPUT} more lines; `lap messages --json` has all of them"
        yield Row((("    ", "plain"), (more, "muted")))


def _thought_rows(part: ChatPart, width: int, unfolded: bool, look: _Drawing) -> Iterator[Row]:
    text = part.text.strip()
    if not text:
        return
    first = clean(" ".join(text[:_SUMMARY].split()))
    yield Row(
        (
            (f"  {_fold_mark(unfolded, look.glyphs)} ", "muted"),
            ("thought  ", "muted"),
            ("" if unfolded else fit_middle(first, max(1, width - 14), look.glyphs.ellipsis), "muted"),
        )
    )
    if unfolded:
        flow = FlowingText(width, indent=4, plain=True, tone="muted")
        flow.take(text)
        yield from flow.rows


def _fold_mark(unfolded: bool, glyphs: Glyphs) -> str:
    if glyphs is ASCII:
        return "v" if unfolded else ">"
    return _OPEN if unfolded else _CLOSED

"""Recordings of terminals (asciicast v2 and v3): reading one, and the screen at any moment of it."""

from __future__ import annotations

import json
import math
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic

from lapconsole.terminal.emulator import Emulator
from lapconsole.terminal.osc import clean

MAX_LINE_BYTES = 8 << 20
MAX_EVENTS = 1_000_000
#: Nothing that was recorded takes longer; what says so is damaged.
MAX_SECONDS = 10 * 365 * 86400.0
#: The longest that nothing happens when idle time is left out, in seconds.
IDLE_SECONDS = 2.0

SLICE = 1024
#: A snapshot is kept after this much work, in characters: so much must be done again at most to get anywhere.
SPACING = 256 * 1024
_EVENT_COST = 64
# A growing screen brings back lines that had left it.
_SCROLLBACK = 100
_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})", re.ASCII)
_NOTE_LENGTH = 100


@dataclass(slots=True)
class Cast:
    """A recording as read. Event i is `codes[i]` with `data[i]` at `times[i]` seconds after the start.

    `short_times` are the times with idle gaps cut to IDLE_SECONDS; `costs` how much work the screen after i events
    is, in characters (one more than there are events). `damage` says where the recording cannot be read, and why.
    `taken` bytes and `read_lines` lines of it have been read, the first of them `header`.
    """

    columns: int = 80
    lines: int = 24
    codes: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    times: array[float] = field(default_factory=lambda: array("d"))
    short_times: array[float] = field(default_factory=lambda: array("d"))
    costs: array[int] = field(default_factory=lambda: array("q", [0]))
    damage: str = ""
    version: int = 3
    header: bytes = b""
    taken: int = 0
    read_lines: int = 0

    def __len__(self) -> int:
        return len(self.codes)

    def add(self, at: float, code: str, data: str) -> None:
        """Append an event; times never run back."""
        last, short = (self.times[-1], self.short_times[-1]) if self.codes else (0.0, 0.0)
        at = max(at, last)
        self.codes.append(code)
        self.data.append(data)
        self.times.append(at)
        self.short_times.append(short + min(at - last, IDLE_SECONDS))
        self.costs.append(self.costs[-1] + len(data) + _EVENT_COST)


def read(source: bytes, *, whole: bool = True) -> Cast:
    """Read a recording. Never raises: what cannot be read is left out, and `damage` names the first such line.

    Of one that is still written, not `whole`, a last line without its end is left for `read_on`.
    """
    cast = Cast()
    number, cast.header, cast.taken = next(_lines(source), (1, b"", 0))
    cast.read_lines = number
    header = _json(cast.header)
    version = header.get("version") if isinstance(header, dict) else None
    if not isinstance(header, dict) or isinstance(version, bool) or version not in (2, 3):
        cast.damage = f"line {number}: not the header of an asciicast, version 2 or 3"
        return cast
    term = header.get("term")
    size = term if version == 3 and isinstance(term, dict) else header
    names = ("cols", "rows") if version == 3 else ("width", "height")
    cast.columns, cast.lines = _cells(size.get(names[0]), 80), _cells(size.get(names[1]), 24)
    cast.version = version
    read_on(cast, source, whole=whole)
    return cast


def read_on(cast: Cast, source: bytes, *, whole: bool = True) -> None:
    """Read what a recording has become longer by since `cast` was read from it."""
    end = len(source) if whole else source.rfind(b"\n") + 1
    for number, line, after in _lines(source, cast.taken, cast.read_lines, end):
        cast.taken, cast.read_lines = after, number
        if len(cast) >= MAX_EVENTS:
            cast.damage = cast.damage or f"line {number}: only the first {MAX_EVENTS:,} events are shown"
            break
        event = _event(line)
        if event is None:
            cast.damage = cast.damage or f"line {number}: damaged or cut off, and left out"
            continue
        at, code, data = event
        if cast.version == 3:
            at += cast.times[-1] if len(cast) else 0.0
        if at > MAX_SECONDS:
            cast.damage = cast.damage or f"line {number}: an impossible time, left out"
            continue
        cast.add(at, code, data)


def _lines(source: bytes, start: int = 0, number: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes, int]]:
    """The lines with something in them, with their numbers from 1 and where the next begins; comments (v3) are left
    out. `number` lines end before `start`.
    """
    stop = len(source) if stop is None else stop
    while start < stop:
        end = source.find(b"\n", start, stop)
        end = stop if end < 0 else end
        number += 1
        line = source[start:end].strip()
        start = end + 1
        if line and not line.startswith(b"#"):
            yield number, line, start


def _json(line: bytes) -> object:
    """What a line says; None when it cannot be read."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        value: object = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None
    return value


def _event(line: bytes) -> tuple[float, str, str] | None:
    value = _json(line)
    if not isinstance(value, list) or len(value) != 3:
        return None
    at, code, data = value
    if isinstance(at, bool) or not isinstance(at, int | float) or not isinstance(code, str):
        return None
    if not isinstance(data, str) or not 0 <= at <= MAX_SECONDS:
        return None
    # JSON can hold halves of characters, which no terminal is ever sent.
    return float(at), code[:1], data.encode("utf-8", errors="replace").decode()


def _cells(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000 else default


class Player:
    """The screen of a recording at any moment. `seek` says which; `step` gets there, a small piece of work at a time.

    `emulator` is the screen as far as the work is done; a step back makes it another one.
    """

    def __init__(self, cast: Cast, *, spacing: int = SPACING) -> None:
        self.cast = cast
        self.emulator = self._blank()
        self.position = 0.0
        self._spacing = spacing
        self._trimmed = True
        self._goal = 0  # how many events are to be on the screen
        self._done = 0  # how many are
        self._taken = 0  # characters of the event after those
        self._kept: list[tuple[int, bytes]] = []  # snapshots by the number of events in them
        self._notes: list[int] = []
        self._known = 0
        self.grow()
        self.seek(0.0)

    def grow(self) -> None:
        """The recording has become longer."""
        codes = self.cast.codes
        self._notes += [index for index in range(self._known, len(codes)) if codes[index] in ("m", "x")]
        self._known = len(codes)

    def _blank(self) -> Emulator:
        return Emulator(self.cast.columns, self.cast.lines, scrollback=_SCROLLBACK)

    @property
    def trimmed(self) -> bool:
        """Whether idle time is left out."""
        return self._trimmed

    @property
    def _times(self) -> array[float]:
        return self.cast.short_times if self._trimmed else self.cast.times

    @property
    def duration(self) -> float:
        """Seconds the whole of it takes."""
        return self._times[-1] if self._times else 0.0

    @property
    def ended(self) -> bool:
        return self.position >= self.duration

    @property
    def until_next(self) -> float | None:
        """Seconds from the position to the next event; None after the last."""
        return self._times[self._goal] - self.position if self._goal < len(self._times) else None

    @property
    def note(self) -> str:
        """What the last marker before the position says, or how the program ended."""
        index = bisect_right(self._notes, self._goal - 1) - 1
        if index < 0:
            return ""
        place = self._notes[index]
        words = clean(self.cast.data[place])[:_NOTE_LENGTH]
        return words if self.cast.codes[place] == "m" else f"exited with {words}"

    def seek(self, seconds: float) -> None:
        """Go to this moment, within the recording. The screen gets there by `step`."""
        self.position = min(max(0.0, seconds), self.duration)
        self._goal = bisect_right(self._times, self.position)

    def trim(self, on: bool) -> None:
        """Leave idle time out, or play it; the screen stays as it is."""
        before = self._times[self._goal - 1] if self._goal else 0.0
        since, self._trimmed = self.position - before, on
        times = self._times
        after = times[self._goal - 1] if self._goal else 0.0
        room = times[self._goal] - after if self._goal < len(times) else 0.0
        self.position = after + min(since, max(0.0, math.nextafter(room, 0.0)))

    @property
    def behind(self) -> bool:
        """Whether there is work to be done until the screen is that of the position."""
        return self._done != self._goal or self._taken > 0

    @property
    def progress(self) -> float:
        """How much of the way to the position is behind us, 0..1, counted from the start of the recording."""
        goal = self.cast.costs[self._goal]
        return min(1.0, (self.cast.costs[self._done] + self._taken) / goal) if goal else 1.0

    @property
    def heavy(self) -> bool:
        """Whether the next step takes or loads a snapshot: tens of milliseconds, during which no other step may run.

        It does not touch the present emulator, so that one may be drawn meanwhile.
        """
        return self._must_jump() or self._must_keep()

    def step(self) -> None:
        """Do a piece of the work; nothing when there is none."""
        if self._must_jump():
            self._jump()
        elif self._must_keep():
            self._kept.append((self._done, self.emulator.snapshot()))
        elif self.behind:
            self._play()

    def work(self, seconds: float) -> None:
        """Do light steps for so long, or until there is none."""
        deadline = monotonic() + seconds
        while self.behind and not self.heavy and monotonic() < deadline:
            self.step()

    def finish(self) -> Emulator:
        """Do all of the work at once, and give the screen."""
        while self.behind:
            self.step()
        return self.emulator

    def _place(self, events: int) -> int:
        """How many snapshots hold so many events or less."""
        return bisect_right(self._kept, events, key=lambda kept: kept[0])

    def _must_jump(self) -> bool:
        if self._goal < self._done or (self._goal == self._done and self._taken):
            return True
        # Going on is better than loading a snapshot, but for one that saves a whole spacing.
        return not self._taken and self._place(self._goal) - self._place(self._done) > 1

    def _must_keep(self) -> bool:
        last = self._kept[-1][0] if self._kept else 0
        costs = self.cast.costs
        return self.behind and not self._taken and costs[self._done] - costs[last] >= self._spacing

    def _jump(self) -> None:
        place = self._place(self._goal)
        emulator, done = self._blank(), 0
        if place:
            done, snapshot = self._kept[place - 1]
            emulator.restore(snapshot)
        self.emulator, self._done, self._taken = emulator, done, 0

    def _play(self) -> None:
        code, data = self.cast.codes[self._done], self.cast.data[self._done]
        if code == "o":
            self.emulator.feed(data[self._taken : self._taken + SLICE])
            self._taken += SLICE
            if self._taken < len(data):
                return
        elif code == "r" and (size := _SIZE.fullmatch(data)):
            self.emulator.resize(int(size[1]), int(size[2]))
        self._done += 1
        self._taken = 0

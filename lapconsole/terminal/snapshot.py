"""An emulator's whole state as bytes, and back: compressed JSON."""

from __future__ import annotations

import base64
import json
import zlib
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lapconsole.terminal.cells import WRAP_FILLED, Line, cells, compact, expand
from lapconsole.terminal.modes import Modes
from lapconsole.terminal.osc import clean
from lapconsole.terminal.parser import Parser
from lapconsole.terminal.screen import Buffer, SavedCursor, Screen
from lapconsole.terminal.styles import Pens, Style, pack, unpack

if TYPE_CHECKING:
    from lapconsole.terminal.emulator import Emulator

_FORMAT = 1
#: Largest snapshot taken back, uncompressed: some ten times a full scrollback.
_MAX_SIZE = 1 << 28

_SWITCHES = ("pending_wrap", "autowrap", "insert", "origin", "reverse_wrap", "margin_mode")
_COLORS = ("foreground", "background", "cursor_color")


def snapshot(emulator: Emulator) -> bytes:
    screen = emulator.screen
    state = {
        "format": _FORMAT,
        "size": [screen.columns, screen.lines],
        "cursor": [screen.x, screen.y],
        "margins": [screen.top, screen.bottom, screen.left, screen.right],
        "switches": {name: getattr(screen, name) for name in _SWITCHES},
        "tabs": sorted(screen.tabs),
        "pen": _style(screen.pen.style),
        "alternate": emulator.alternate,
        "buffers": [_buffer(screen.primary), _buffer(screen.alternate)],
        "history": [_line(line) for line in screen.history.lines],
        "history_limit": screen.history.limit,
        "charsets": [emulator.charsets, emulator.charset],
        "modes": asdict(emulator.modes),
        "saved_modes": list(emulator.saved_modes.items()),
        "titles": [emulator.title, *emulator.titles],
        "colors": {name: getattr(emulator, name) for name in _COLORS},
        "palette": list(emulator.palette.items()),
        "parser": emulator.parser.state(),
    }
    return zlib.compress(json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode(), 6)


def restore(emulator: Emulator, data: bytes) -> None:
    try:
        state = _load(data)
        screen = _screen(state, emulator.pens)
        changes: dict[str, Any] = {
            "screen": screen,
            "modes": _modes(state["modes"]),
            "saved_modes": {int(number): bool(on) for number, on in state["saved_modes"]},
            "charsets": [str(charset)[:4] for charset in state["charsets"][0]],
            "charset": _within(state["charsets"][1], 0, 3),
            "title": clean(state["titles"][0]),
            "titles": [clean(title) for title in state["titles"][1:]],
            "palette": {_within(index, 0, 255): _color(value) for index, value in state["palette"]},
            "parser": _parser(state["parser"]),
            **{name: _color(state["colors"][name]) for name in _COLORS},
        }
        if len(changes["charsets"]) != 4:
            raise ValueError("there are four charsets")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"this is not a terminal snapshot that can be read: {error!r}") from error
    for name, value in changes.items():
        setattr(emulator, name, value)
    emulator.restored()


def _load(data: bytes) -> Any:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, _MAX_SIZE)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not unpacker.eof:
        raise ValueError("cut off, or too large")
    state = json.loads(text)
    if state["format"] != _FORMAT:
        raise ValueError(f"format {state['format']!r}")
    return state


def _screen(state: Any, pens: Pens) -> Screen:
    columns, lines = _within(state["size"][0], 1, 1000), _within(state["size"][1], 1, 1000)
    screen = Screen(columns, lines, _within(state["history_limit"], 0, 1 << 24))
    screen.history.lines = deque(map(_read_line, state["history"]))
    screen.primary, screen.alternate = (_read_buffer(buffer, screen, pens) for buffer in state["buffers"])
    screen.use(screen.alternate if state["alternate"] else screen.primary)
    for name in _SWITCHES:
        setattr(screen, name, bool(state["switches"][name]))
    screen.x, screen.y = _within(state["cursor"][0], 0, columns - 1), _within(state["cursor"][1], 0, lines - 1)
    top, bottom, left, right = state["margins"]
    screen.top, screen.bottom = _within(top, 0, lines - 1), _within(bottom, top, lines - 1)
    screen.left, screen.right = _within(left, 0, columns - 1), _within(right, left, columns - 1)
    screen.tabs = {_within(tab, 0, columns - 1) for tab in state["tabs"]}
    screen.pen = pens.get(_read_style(state["pen"]))
    return screen


def _within(value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{value!r} is not from {low} to {high}")
    return value


def _color(value: Any) -> tuple[int, int, int]:
    red, green, blue = (_within(channel, 0, 255) for channel in value)
    return red, green, blue


def _modes(values: Any) -> Modes:
    modes = Modes()
    for name, value in values.items():
        if type(getattr(modes, name)) is not type(value):
            raise ValueError(f"mode {name} cannot be {value!r}")
        setattr(modes, name, value)
    return modes


def _parser(state: Any) -> Parser:
    pending, kept, seen = state
    parser = Parser()
    parser.restore(pending, kept, seen)
    return parser


def _style(style: Style) -> list[str]:
    return [base64.b64encode(pack(style)).decode(), style.link]


def _read_style(value: Any) -> Style:
    packed, link = value
    style, _ = unpack(base64.b64decode(packed, validate=True))
    return style._replace(link=clean(link))


def _line(line: Line) -> list[Any]:
    return [line.text, *(base64.b64encode(part).decode() for part in (line.looks, line.ends)), line.links, line.wrap]


def _read_line(value: Any) -> Line:
    text, looks, ends, links, wrap = value
    looks, ends = base64.b64decode(looks, validate=True), base64.b64decode(ends, validate=True)
    line = Line(str(text), looks, ends, tuple(map(clean, links)), _within(wrap, 0, WRAP_FILLED))
    cells(line)  # raises when it is not a possible line
    return line


def _buffer(buffer: Buffer) -> dict[str, Any]:
    saved = buffer.saved
    return {
        "rows": [_line(compact(row)) for row in buffer.rows],
        "kitty_flags": buffer.kitty_flags,
        "saved": [
            [saved.x, saved.y],
            saved.pending_wrap,
            _style(saved.pen.style),
            [saved.charsets, saved.charset],
            saved.origin,
        ],
    }


def _read_buffer(value: Any, screen: Screen, pens: Pens) -> Buffer:
    rows = [expand(_read_line(line), screen.columns) for line in value["rows"]]
    if len(rows) != screen.lines:
        raise ValueError("the number of rows is not the height")
    (x, y), pending_wrap, style, (charsets, charset), origin = value["saved"]
    saved = SavedCursor(
        x=_within(x, 0, screen.columns - 1),
        y=_within(y, 0, screen.lines - 1),
        pending_wrap=bool(pending_wrap),
        pen=pens.get(_read_style(style)),
        charsets=tuple(str(name)[:4] for name in charsets),
        charset=_within(charset, 0, 3),
        origin=bool(origin),
    )
    kitty_flags = [_within(flags, 0, 31) for flags in value["kitty_flags"]]
    if not kitty_flags or len(saved.charsets) != 4:
        raise ValueError("a stack is empty")
    return Buffer(rows, saved, kitty_flags)

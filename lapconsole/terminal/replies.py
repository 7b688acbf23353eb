"""Answers to what programs ask their terminal. Text only: the emulator decides when, the caller sends it."""

from __future__ import annotations

import binascii

from lapconsole.terminal.modes import Modes
from lapconsole.terminal.screen import Screen
from lapconsole.terminal.styles import sgr

#: A VT220 with colour that takes clipboard writes; then an xterm recent enough for SGR mouse reports.
PRIMARY_ATTRIBUTES = "\x1b[?62;22;52c"
SECONDARY_ATTRIBUTES = "\x1b[>41;377;0c"
TERTIARY_ATTRIBUTES = "\x1bP!|00000000\x1b\\"
VERSION = "\x1bP>|lapconsole\x1b\\"

#: What XTGETTCAP may ask for; a program that gets no answer here falls back to its terminfo.
CAPABILITIES = {
    "TN": "xterm-256color",
    "name": "xterm-256color",
    "Co": "256",
    "colors": "256",
    "RGB": "8",
    "Tc": "",
    "Su": "",
    "Smulx": "\x1b[4:%p1%dm",
    "Ms": "\x1b]52;%p1%s;%p2%s\x1b\\",
}

#: XTGETTCAP names answered at once, and the longest, in hexadecimal digits.
MAX_NAMES, MAX_NAME = 64, 64


def status(number: int, *, private: bool, screen: Screen, dark: bool) -> str:
    """DSR: `CSI n` and `CSI ? n`."""
    if number == 5 and not private:
        return "\x1b[0n"
    if number == 6:
        x, y = screen.x, screen.y
        if screen.origin:
            x, y = x - screen.left, y - screen.top
        return f"\x1b[{'?' * private}{y + 1};{x + 1}R"
    if private and number == 15:
        return "\x1b[?13n"  # no printer
    if private and number == 25:
        return "\x1b[?21n"  # user-defined keys are locked
    if private and number == 26:
        return "\x1b[?27;1;0;0n"  # North American keyboard
    if private and number == 996:
        return scheme(dark)
    return ""


def scheme(dark: bool) -> str:
    """The colour scheme report, asked for with `CSI ? 996 n` or sent on a change in mode 2031."""
    return f"\x1b[?997;{1 if dark else 2}n"


def window(number: int, screen: Screen, cell: tuple[int, int]) -> str:
    """XTWINOPS reports: sizes in pixels and cells. The window itself is never reported or moved."""
    width, height = cell
    if number == 14:
        return f"\x1b[4;{screen.lines * height};{screen.columns * width}t"
    if number == 16:
        return f"\x1b[6;{height};{width}t"
    if number in (18, 19):
        return f"\x1b[{number - 10};{screen.lines};{screen.columns}t"
    if number == 11:
        return "\x1b[1t"
    return ""


def color(command: str, value: tuple[int, int, int], end: str) -> str:
    """The answer to a colour query: `command` is `10`, `11`, `12` or `4;n`."""
    red, green, blue = (channel * 0x101 for channel in value)
    return f"\x1b]{command};rgb:{red:04x}/{green:04x}/{blue:04x}{end}"


def capabilities(names: str) -> str:
    """XTGETTCAP: hexadecimal names in, values out, one answer for each."""
    answers = []
    for encoded in names.split(";")[:MAX_NAMES]:
        if len(encoded) > MAX_NAME:
            continue
        try:
            name = binascii.unhexlify(encoded).decode("ascii")
        except (binascii.Error, ValueError):
            name = ""
        value = CAPABILITIES.get(name)
        if value is None:
            answers.append(f"\x1bP0+r{encoded if encoded.isascii() and encoded.isalnum() else ''}\x1b\\")
        else:
            equals = f"={value.encode().hex().upper()}" if value else ""
            answers.append(f"\x1bP1+r{encoded}{equals}\x1b\\")
    return "".join(answers)


def setting(name: str, screen: Screen, modes: Modes) -> str:
    """DECRQSS: the present setting of a control function, in the form that would set it."""
    known = {
        "m": f"{sgr(screen.pen.style)}m",
        "r": f"{screen.top + 1};{screen.bottom + 1}r",
        "s": f"{screen.left + 1};{screen.right + 1}s",
        " q": f"{modes.cursor_shape} q",
        '"p': '62;1"p',
        '"q': '0"q',
        "t": f"{max(24, screen.lines)}t",
    }
    value = known.get(name)
    return f"\x1bP1$r{value}\x1b\\" if value is not None else "\x1bP0$r\x1b\\"

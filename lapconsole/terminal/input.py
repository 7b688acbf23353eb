"""What a terminal sends for a key, a click, a paste or a change of focus, in the modes its program asked for. Pure.

Keys come with the names Textual gives them, and leave as xterm sends them (ctlseqs, "PC-Style Function Keys"), as
modifyOtherKeys asks, or as the kitty keyboard protocol asks.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import Literal

from textual.keys import _character_to_key, key_to_character

from lapconsole.terminal.modes import Modes

ESC = "\x1b"
CSI = "\x1b["
SS3 = "\x1bO"

SHIFT, ALT, CTRL, SUPER, HYPER, META = 1, 2, 4, 8, 16, 32
_MODIFIERS = {"shift": SHIFT, "alt": ALT, "ctrl": CTRL, "super": SUPER, "hyper": HYPER, "meta": META}
# Held together with one of these, a key is a command and not text.
_COMMAND = ~SHIFT

_CURSOR = {"up": "A", "down": "B", "right": "C", "left": "D", "kp_begin": "E", "end": "F", "home": "H"}
_PF = {"f1": "P", "f2": "Q", "f3": "R", "f4": "S"}
_EDITING = {"insert": 2, "delete": 3, "pageup": 5, "pagedown": 6}
_FUNCTION = dict(
    zip((f"f{n}" for n in range(5, 21)), (15, 17, 18, 19, 20, 21, 23, 24, 25, 26, 28, 29, 31, 32, 33, 34), strict=True)
)
_TILDE = {**_EDITING, **_FUNCTION, "menu": 29}
_KEYPAD = {"multiply": "*", "add": "+", "separator": ",", "subtract": "-", "decimal": ".", "divide": "/", "equal": "="}
_KEYPAD_APPLICATION = {
    "multiply": "j",
    "add": "k",
    "separator": "l",
    "subtract": "m",
    "decimal": "n",
    "divide": "o",
    "equal": "X",
}
_CONTROLS = {"tab": "\t", "enter": "\r", "escape": ESC, "backspace": "\x7f"}

# Kitty protocol: the keys that keep a letter or a number of their own; all others are `CSI code u`.
_KITTY_LETTER = {**_CURSOR, "f1": "P", "f2": "Q", "f4": "S"}
_KITTY_TILDE = {**_EDITING, "f3": 13, **{name: n for name, n in _FUNCTION.items() if int(name[1:]) <= 12}}
_KITTY_CODE = {
    **{name: ord(character) for name, character in _CONTROLS.items()},
    **{name: 57361 + n for n, name in enumerate(["print_screen", "pause", "menu"])},
    **{f"f{n}": 57376 + n - 13 for n in range(13, 36)},
    **{name: 57409 + n for n, name in enumerate(["decimal", "divide", "multiply", "subtract", "add"])},
    "equal": 57415,
    "separator": 57416,
}
_DISAMBIGUATE, _ALTERNATE_KEYS, _ALL_KEYS, _ASSOCIATED_TEXT = 1, 4, 8, 16

_PUNCTUATION = {_character_to_key(character): character for character in string.punctuation + " "}
# What Shift makes of a key on the US layout: protocols that name the bare key do not say.
_US_SHIFT = dict(zip("`1234567890-=[]\\;',./", '~!@#$%^&*()_+{}|:"<>?', strict=True))
# Ctrl with a key that is no letter (letters are their code & 0x1f), as xterm and kitty agree on it.
_CTRL = dict(zip(" @2[3\\4]5^6~_7/?8", "\0\0\0\x1b\x1b\x1c\x1c\x1d\x1d\x1e\x1e\x1e\x1f\x1f\x1f\x7f\x7f", strict=True))


@dataclass(frozen=True, slots=True)
class _Press:
    """One key press: `name` of a special key, or `base`, the character on the key; `text` is what it types."""

    name: str
    base: str
    text: str
    mods: int

    @property
    def shifted(self) -> str:
        """The character with Shift applied when it is held."""
        if not self.mods & SHIFT:
            return self.base
        upper = self.base.upper()
        return upper if len(upper) == 1 and upper != self.base else _US_SHIFT.get(self.base, self.base)


def key(name: str, character: str | None, modes: Modes) -> bytes:
    """The bytes for a key press; empty for what a terminal cannot send. `name`, `character`: of Textual's Key event."""
    press = _press(name, character)
    if press is None:
        return b""
    if modes.kitty_flags & (_DISAMBIGUATE | _ALL_KEYS):
        sequence = _kitty(press, modes.kitty_flags)
    else:
        sequence = _other_keys(press, modes.modify_other_keys) or _legacy(press, modes)
    return sequence.encode("utf-8", errors="ignore")


def _press(key_name: str, character: str | None) -> _Press | None:
    *held, name = key_name.split("+")
    mods = 0
    for modifier in held:
        mods |= _MODIFIERS.get(modifier, 0)
    # Textual folds two keys into one name; the character tells them apart.
    if name == "backspace" and character == "\b":
        name, mods = "h", mods | CTRL
    elif character == "\0" and mods & CTRL:
        name = "space"
    text = character if character and character.isprintable() else ""
    if name in _KEYPAD:
        return _Press(name, "", text or _KEYPAD[name], mods)
    if name in _CURSOR or name in _PF or name in _TILDE or name in _KITTY_CODE:
        return _Press(name, "", "", mods)
    base = name if len(name) == 1 else _PUNCTUATION.get(name) or text or key_to_character(name) or ""
    if len(base) != 1 or not base.isprintable():
        return None
    lower = base.lower()
    if len(lower) == 1 and lower != base:
        base, mods = lower, mods | SHIFT
    press = _Press("", base, text, mods)
    return press if text else _Press("", base, press.shifted, mods)


def _legacy(press: _Press, modes: Modes) -> str:
    name, mods = press.name, press.mods
    parameter = 1 + (mods & (SHIFT | ALT | CTRL | SUPER))
    if final := _CURSOR.get(name) or _PF.get(name):
        if parameter > 1:
            return f"{CSI}1;{parameter}{final}"
        return f"{SS3 if name in _PF or modes.application_cursor else CSI}{final}"
    if number := _TILDE.get(name):
        return f"{CSI}{number};{parameter}~" if parameter > 1 else f"{CSI}{number}~"
    if mods & ~(SHIFT | ALT | CTRL):
        return ""
    prefix = ESC if mods & ALT else ""
    if name == "tab" and mods & SHIFT:
        return f"{prefix}{CSI}Z"
    if name == "backspace" and mods & CTRL:
        return f"{prefix}\b"
    if name in _CONTROLS:
        return prefix + _CONTROLS[name]
    if name in _KEYPAD_APPLICATION and modes.application_keypad and not mods:
        return SS3 + _KEYPAD_APPLICATION[name]
    typed = _control(press) if mods & CTRL else press.text
    return prefix + typed if typed else ""


def _control(press: _Press) -> str:
    """What Ctrl makes of a character; the character itself where there is no control code."""
    if "a" <= press.base <= "z":
        return chr(ord(press.base) & 0x1F)
    character = press.shifted
    return _CTRL.get(character, character) if character else press.text


def _other_keys(press: _Press, level: int) -> str:
    """xterm's `CSI 27;modifiers;code~`; empty where modifyOtherKeys `level` (0, 1, 2) leaves the key as it is."""
    name, mods = press.name, press.mods & (SHIFT | ALT | CTRL | SUPER)
    if not level or not mods:
        return ""
    character = press.shifted or _CONTROLS.get(name, "")
    if not character:
        return ""
    if name == "enter":
        told = True
    elif name == "tab":
        told = not mods & SHIFT or (level == 2 and mods != SHIFT)
    elif name == "backspace":
        told = level == 2 and bool(mods & ~CTRL)
    elif name == "escape":
        told = level == 1 or mods != SHIFT
    else:
        told = bool(mods & _COMMAND) and (level == 2 or _unclear(press))
    return f"{CSI}27;{1 + mods};{ord(character)}~" if told else ""


def _unclear(press: _Press) -> bool:
    """Whether a modified character has no well-known code of its own, so that level 1 spells it out."""
    rest = press.mods & (SHIFT | CTRL)
    if not rest & CTRL:
        return False
    known = "@" <= press.base <= "\x7f" or press.base in _CTRL
    return rest != CTRL or not known


def _kitty(press: _Press, flags: int) -> str:
    name, mods = press.name, press.mods
    every = flags & _ALL_KEYS
    parameter = f";{1 + mods}" if mods else ""
    if final := _KITTY_LETTER.get(name):
        return f"{CSI}1{parameter}{final}" if mods else f"{CSI}{final}"
    if number := _KITTY_TILDE.get(name):
        return f"{CSI}{number}{parameter}~"
    types = not mods & _COMMAND and (name not in _KITTY_CODE or name in _KEYPAD)
    if not every:
        if types:
            return press.text
        # These three stay as they are, so that a shell left in this mode can still be told to reset.
        if not mods and name in ("enter", "tab", "backspace"):
            return _CONTROLS[name]
    code = str(_KITTY_CODE.get(name) or ord(press.base))
    if flags & _ALTERNATE_KEYS and press.base and press.shifted != press.base:
        code += f":{ord(press.shifted)}"
    if every and flags & _ASSOCIATED_TEXT and types and press.text:
        parameter = f"{parameter or ';'};{ord(press.text)}"
    return f"{CSI}{code}{parameter}u"


# Mouse

MouseAction = Literal["press", "release", "move"]
NO_BUTTON = 0
WHEEL_UP, WHEEL_DOWN, WHEEL_LEFT, WHEEL_RIGHT = 4, 5, 6, 7
_LEGACY_LIMIT = 222  # the last cell that fits in a byte after the offset of 33


def mouse(
    action: MouseAction,
    button: int,
    column: int,
    row: int,
    modes: Modes,
    *,
    shift: bool = False,
    alt: bool = False,
    ctrl: bool = False,
) -> bytes:
    """The report of a mouse event, empty when the program did not ask for it.

    `button`: 0 none, 1 left, 2 middle, 3 right, 4-7 wheel up, down, left, right; `column`, `row` count from 0.
    """
    mode = modes.mouse
    if not mode or (action == "move" and mode != 1003 and not (mode == 1002 and button)):
        return b""
    if mode == 9 and (action != "press" or button > 3):
        return b""
    code = button - 1 if button <= 3 else 64 + button - WHEEL_UP
    if not button or (action == "release" and not modes.mouse_sgr):
        code = 3
    if action == "move":
        code += 32
    if mode != 9:
        code += 4 * shift + 8 * alt + 16 * ctrl
    if modes.mouse_sgr:
        return f"{CSI}<{code};{column + 1};{row + 1}{'m' if action == 'release' else 'M'}".encode()
    if not (0 <= column <= _LEGACY_LIMIT and 0 <= row <= _LEGACY_LIMIT):
        return b""
    return b"\x1b[M" + bytes((32 + code, 33 + column, 33 + row))


def wheel_keys(up: bool, modes: Modes, lines: int = 3) -> bytes:
    """The wheel as arrow keys, for full-screen programs that did not ask for the mouse (xterm's alternateScroll)."""
    return key("up" if up else "down", None, modes) * lines


# Paste and focus

# A paste must not be able to end itself or to press keys: of the control characters only tab and newlines pass.
_NOT_PASTED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_END_MARKER = re.compile("(?:\x1b\\[|\x9b)20[01]~")
_NEWLINE = re.compile("\r\n|\n")
_ANY_NEWLINE = re.compile("\r\n|\n|\r")


def paste_risk(text: str) -> tuple[int, int]:
    """How many lines a paste has, and how many control characters that will be left out of it."""
    lines = len(_ANY_NEWLINE.findall(text.rstrip("\r\n"))) + 1
    return lines, len(_NOT_PASTED.findall(text))


def paste(text: str, modes: Modes) -> bytes:
    """Pasted text as a terminal types it: newlines as Enter, between markers when the program asked for them."""
    text = _NEWLINE.sub("\r", _NOT_PASTED.sub("", _END_MARKER.sub("", text)))
    if modes.bracketed_paste:
        text = f"{CSI}200~{text}{CSI}201~"
    return text.encode("utf-8", errors="ignore")


def focus(gained: bool, modes: Modes) -> bytes:
    """The report of a change of focus, empty when the program did not ask for it."""
    if not modes.focus_events:
        return b""
    return b"\x1b[I" if gained else b"\x1b[O"

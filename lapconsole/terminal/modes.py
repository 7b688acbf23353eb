"""Terminal modes: their state, and the numbers programs set, reset and ask for them by."""

from __future__ import annotations

from dataclasses import dataclass

#: The mouse modes, the later in this list the more it reports. Setting one replaces another.
MOUSE_MODES = (9, 1000, 1002, 1003)

#: DEC private modes that are a plain switch, and the attribute of Modes that holds it.
SWITCHES = {
    1: "application_cursor",
    5: "reverse_screen",
    12: "cursor_blink",
    25: "cursor_visible",
    66: "application_keypad",
    1004: "focus_events",
    1006: "mouse_sgr",
    1007: "alternate_scroll",
    2004: "bracketed_paste",
    2026: "synchronized",
    2031: "color_scheme_updates",
}
#: DEC private modes the screen itself obeys, and the attribute of Screen that holds them.
SCREEN_SWITCHES = {6: "origin", 7: "autowrap", 45: "reverse_wrap", 69: "margin_mode"}

#: Modes that are always on: text is laid out by grapheme clusters (2027).
PERMANENT = {2027}


@dataclass(slots=True)
class Modes:
    """What the program has asked of its terminal, for whoever encodes input or draws."""

    application_cursor: bool = False
    application_keypad: bool = False
    bracketed_paste: bool = False
    mouse: int = 0  # 0 or one of MOUSE_MODES
    mouse_sgr: bool = False
    focus_events: bool = False
    kitty_flags: int = 0
    modify_other_keys: int = 0
    synchronized: bool = False
    alternate_scroll: bool = False
    color_scheme_updates: bool = False
    reverse_screen: bool = False
    cursor_visible: bool = True
    cursor_blink: bool = False
    cursor_shape: int = 0  # as in DECSCUSR: 0 default, 1-2 block, 3-4 underline, 5-6 bar; odd ones blink
    newline: bool = False  # LNM: a line feed also returns the carriage

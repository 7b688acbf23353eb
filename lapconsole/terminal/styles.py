"""Text styles: the public Style, SGR parameters in and out, and the pens that make repeated SGR cheap."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple, TypeAlias

#: None is the terminal's default, an int one of 256 palette colours, a tuple 24-bit red, green, blue.
Color: TypeAlias = int | tuple[int, int, int] | None

UNDERLINES = 6  # none, single, double, curly, dotted, dashed: the values of SGR 4:0 to 4:5


class Style(NamedTuple):
    """How a cell looks. Immutable and hashable; equal styles are usually the same object."""

    fg: Color = None
    bg: Color = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: int = 0
    underline_color: Color = None
    blink: bool = False
    reverse: bool = False
    hidden: bool = False
    strike: bool = False
    overline: bool = False
    link: str = ""


PLAIN = Style()
_NO_ATTRIBUTES = PLAIN[2:-1]

_FLAGS = ("bold", "dim", "italic", "blink", "reverse", "hidden", "strike", "overline")

# SGR codes that set or clear attributes without further parameters.
_SIMPLE: dict[str, dict[str, object]] = {
    "1": {"bold": True},
    "2": {"dim": True},
    "3": {"italic": True},
    "4": {"underline": 1},
    "5": {"blink": True},
    "6": {"blink": True},
    "7": {"reverse": True},
    "8": {"hidden": True},
    "9": {"strike": True},
    "21": {"underline": 2},
    "22": {"bold": False, "dim": False},
    "23": {"italic": False},
    "24": {"underline": 0},
    "25": {"blink": False},
    "27": {"reverse": False},
    "28": {"hidden": False},
    "29": {"strike": False},
    "39": {"fg": None},
    "49": {"bg": None},
    "53": {"overline": True},
    "55": {"overline": False},
    "59": {"underline_color": None},
}
for _code in range(8):
    _SIMPLE[str(30 + _code)] = {"fg": _code}
    _SIMPLE[str(40 + _code)] = {"bg": _code}
    _SIMPLE[str(90 + _code)] = {"fg": _code + 8}
    _SIMPLE[str(100 + _code)] = {"bg": _code + 8}
_SIMPLE.update({f"4:{kind}": {"underline": kind} for kind in range(UNDERLINES)})

_COLOR_FIELDS = {"38": "fg", "48": "bg", "58": "underline_color"}


def apply_sgr(style: Style, params: str) -> Style:
    """The style after `CSI params m`. Unknown codes and colours out of range change nothing; never raises."""
    changes: dict[str, object] = {}
    codes = params.split(";")
    position = 0
    while position < len(codes):
        code = codes[position].lstrip("0")
        position += 1
        if not code:
            style, changes = PLAIN._replace(link=style.link), {}
        elif (simple := _SIMPLE.get(code)) is not None:
            changes.update(simple)
        elif code in _COLOR_FIELDS:
            color, used = _semicolon_color(codes[position : position + 4])
            position += used
            if color is not None:
                changes[_COLOR_FIELDS[code]] = color
        elif code[:3] in ("38:", "48:", "58:"):
            color = _colon_color(code[3:].split(":"))
            if color is not None:
                changes[_COLOR_FIELDS[code[:2]]] = color
    return style._replace(**changes) if changes else style  # type: ignore[arg-type]


def _semicolon_color(rest: list[str]) -> tuple[Color, int]:
    """Colour after 38, 48 or 58 written with semicolons, and how many parameters it took."""
    kind = rest[0] if rest else ""
    if kind == "5":
        return _indexed(rest[1:2]), 2
    if kind == "2":
        return _rgb(rest[1:4]), 4
    if kind[:2] in ("5:", "2:"):  # 38;2:r:g:b, seen from programs that mix both forms
        return _colon_color(kind.split(":")), 1
    return None, 1


def _colon_color(parts: list[str]) -> Color:
    """Colour in ITU T.416 form: 5:n, 2:r:g:b or 2:colourspace:r:g:b."""
    if parts[0] == "5":
        return _indexed(parts[1:2])
    if parts[0] == "2":
        return _rgb(parts[2:5] if len(parts) > 4 else parts[1:4])
    return None


def _indexed(parts: list[str]) -> Color:
    return _byte(parts[0]) if parts else None


def _rgb(parts: list[str]) -> Color:
    if len(parts) != 3:
        return None
    red, green, blue = map(_byte, parts)
    if red is None or green is None or blue is None:
        return None
    return red, green, blue


@lru_cache(maxsize=512)
def _byte(text: str) -> int | None:
    """A number from 0 to 255, an empty one is 0, anything else None."""
    digits = text.lstrip("0") or "0"
    if len(digits) > 3 or not digits.isdecimal():
        return None
    number = int(digits)
    return number if number < 256 else None


@lru_cache(maxsize=1024)
def sgr(style: Style) -> str:
    """The parameters of an SGR sequence that gives this style from any other. The link is not part of SGR."""
    codes = ["0"]
    if style[2:-1] == _NO_ATTRIBUTES:  # as in pictures, with colours of its own for each cell
        return ";".join([*codes, *_color_codes(style.fg, 30, "38"), *_color_codes(style.bg, 40, "48")])
    if style.bold:
        codes.append("1")
    if style.dim:
        codes.append("2")
    if style.italic:
        codes.append("3")
    if style.underline:
        codes.append("4" if style.underline == 1 else f"4:{style.underline}")
    if style.blink:
        codes.append("5")
    if style.reverse:
        codes.append("7")
    if style.hidden:
        codes.append("8")
    if style.strike:
        codes.append("9")
    if style.overline:
        codes.append("53")
    codes += _color_codes(style.fg, 30, "38")
    codes += _color_codes(style.bg, 40, "48")
    if isinstance(style.underline_color, int):
        codes.append(f"58:5:{style.underline_color}")
    elif style.underline_color is not None:
        codes.append("58:2::{}:{}:{}".format(*style.underline_color))
    return ";".join(codes)


def _color_codes(color: Color, base: int, extended: str) -> list[str]:
    if color is None:
        return []
    if not isinstance(color, int):
        return ["{};2;{};{};{}".format(extended, *color)]
    if color < 8:
        return [str(base + color)]
    if color < 16:
        return [str(base + 52 + color)]
    return [f"{extended};5;{color}"]


class Pen:
    """The style new text gets, the style erased cells get, and the pens that known SGR sequences lead to."""

    __slots__ = ("blank", "following", "style")

    def __init__(self, style: Style) -> None:
        self.style = style
        # Erasing keeps the background colour only ("back colour erase", as terminfo's bce promises).
        self.blank = PLAIN if style.bg is None else Style(bg=style.bg)
        self.following: dict[str, Pen] = {}


class Pens:
    """Interned pens. Bounded: a program that uses endless different styles only empties the cache."""

    LIMIT = 2048
    LONGEST = 128  # SGR sequences longer than this are not remembered

    def __init__(self) -> None:
        self._pens = {PLAIN: Pen(PLAIN)}
        self._transitions = 0

    def get(self, style: Style) -> Pen:
        pen = self._pens.get(style)
        if pen is None:
            if len(self._pens) >= self.LIMIT:
                self._forget()
            pen = self._pens[style] = Pen(style)
        return pen

    def after(self, pen: Pen, sgr: str) -> Pen:
        """The pen after an SGR sequence (parameters and the `m`). The caller looks into `pen.following` first."""
        following = self.get(apply_sgr(pen.style, sgr[:-1]))
        if len(sgr) <= self.LONGEST:
            self._transitions += 1
            if self._transitions > self.LIMIT:
                self._forget()
            pen.following[sgr] = following
        return following

    def _forget(self) -> None:
        for pen in self._pens.values():
            pen.following.clear()
        self._pens = {PLAIN: self._pens[PLAIN]}
        self._transitions = 0


# Packed styles: how scrollback and snapshots keep them. Colours are 0 for default, else a kind and its value.
_PACKED = struct.Struct("<IIIH")
PACKED_SIZE = _PACKED.size
_KIND_INDEXED, _KIND_RGB = 1 << 24, 2 << 24
_LINKED = len(_FLAGS) + 3  # flag bit, after the attributes and the underline


@lru_cache(maxsize=2048)
def pack(style: Style) -> bytes:
    """A style in PACKED_SIZE bytes. Of its link they only tell that there is one."""
    flags = style.underline << len(_FLAGS) | bool(style.link) << _LINKED
    for bit, name in enumerate(_FLAGS):
        flags |= getattr(style, name) << bit
    return _PACKED.pack(_pack_color(style.fg), _pack_color(style.bg), _pack_color(style.underline_color), flags)


def has_link(packed: bytes) -> bool:
    """Whether the style that `pack` made these bytes from has a link."""
    return packed[-1] >> (_LINKED - 8) & 1 == 1


@lru_cache(maxsize=2048)
def unpack(packed: bytes) -> tuple[Style, bool]:
    """The style that `pack` made these bytes from, and whether it has a link. ValueError when it cannot be one."""
    if len(packed) != PACKED_SIZE:
        raise ValueError("a packed style has the wrong size")
    fg, bg, underline_color, flags = _PACKED.unpack(packed)
    underline = flags >> len(_FLAGS) & 7
    if underline >= UNDERLINES:
        raise ValueError("a packed style has an unknown underline")
    style = Style(
        fg=_unpack_color(fg),
        bg=_unpack_color(bg),
        underline=underline,
        underline_color=_unpack_color(underline_color),
    )
    switches = {name: bool(flags >> bit & 1) for bit, name in enumerate(_FLAGS)}
    return style._replace(**switches), bool(flags >> _LINKED)  # type: ignore[arg-type]


def _pack_color(color: Color) -> int:
    if color is None:
        return 0
    if isinstance(color, int):
        return _KIND_INDEXED | color
    red, green, blue = color
    return _KIND_RGB | red << 16 | green << 8 | blue


def _unpack_color(packed: int) -> Color:
    if packed >> 24 == _KIND_INDEXED >> 24:
        return packed & 0xFF
    if packed >> 24 == _KIND_RGB >> 24:
        return packed >> 16 & 0xFF, packed >> 8 & 0xFF, packed & 0xFF
    return None

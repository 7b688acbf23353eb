"""The emulator: what each sequence of a modern terminal does, one small case for each."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from lapconsole.terminal.emulator import Emulator, Notice, Style

COLUMNS, LINES = 20, 5


@dataclass(frozen=True)
class Case:
    """Output fed to a 20x5 terminal (a list: in several reads), and what must come of it; None is not looked at."""

    name: str
    feed: str | bytes | list[str] | list[bytes]
    rows: list[str] | None = None
    cursor: tuple[int, int] | None = None
    replies: str | None = None
    style: dict[str, Any] | None = None  # of the first cell, all that differs from plain
    title: str | None = None
    notices: list[Notice] = field(default_factory=list)
    modes: dict[str, Any] = field(default_factory=dict)


def notice(kind: str, text: str = "", /, **fields: str) -> Notice:
    return Notice(kind, text, fields)


FIVE = "1\r\n2\r\n3\r\n4\r\n5"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"

SCREENS = [
    Case("alternate screen 1049 restores", "main\x1b[?1049hALT\x1b[?1049l", ["main"], (4, 0)),
    Case("alternate screen 1049 is clear on entering", "\x1b[?1049hold\x1b[?1049lx\x1b[?1049h", [""]),
    Case("alternate screen 1047", "main\x1b[?1047h\x1b[HALT\x1b[?1047l", ["main"]),
    Case("alternate screen 47", "main\x1b[?47h\x1b[HALT\x1b[?47l", ["main"]),
    Case("alternate screen 1049 restores the cursor", "ab\x1b[?1049h\x1b[5;9H\x1b[?1049l", None, (2, 0)),
    Case("1048 saves and restores the cursor", "ab\x1b[?1048h\x1b[5;9H\x1b[?1048l", None, (2, 0)),
    Case("SU", FIVE + "\x1b[2S", ["3", "4", "5", "", ""], (1, 4)),
    Case("SD", FIVE + "\x1b[2T", ["", "", "1", "2", "3"], (1, 4)),
    Case("RI at the top", FIVE + "\x1b[H\x1bM", ["", "1", "2", "3", "4"], (0, 0)),
    Case("DECSTBM scrolls inside", FIVE + "\x1b[2;4r\x1b[4;1H\n", ["1", "3", "4", "", "5"], (0, 3)),
    Case("DECSTBM homes the cursor", "abc\x1b[2;4r", None, (0, 0)),
    Case("DECSTBM refuses an empty region", FIVE + "\x1b[4;2r\x1b[5;1H\n", ["2", "3", "4", "5", ""]),
    Case("IL in the region", FIVE + "\x1b[2;4r\x1b[2;1H\x1b[L", ["1", "", "2", "3", "5"]),
    Case("DL in the region", FIVE + "\x1b[2;4r\x1b[2;1H\x1b[M", ["1", "3", "4", "", "5"]),
    Case("IL outside the region does nothing", FIVE + "\x1b[2;4r\x1b[1;1H\x1b[L", ["1", "2", "3", "4", "5"]),
    Case("ED 0", FIVE + "\x1b[3;1H\x1b[J", ["1", "2", "", "", ""]),
    Case("ED 1", FIVE + "\x1b[3;1H\x1b[1J", ["", "", "", "4", "5"]),
    Case("ED 2 leaves the cursor", FIVE + "\x1b[2J", [""] * 5, (1, 4)),
    Case("ED 3 keeps the screen", FIVE + "\x1b[3J", ["1", "2", "3", "4", "5"]),
    Case("EL 0, 1, 2", "abcdef\r\nabcdef\r\nabcdef\x1b[3G\x1b[2K\x1b[A\x1b[1K\x1b[A\x1b[K", ["ab", "   def", ""]),
    Case("DECSTR", "\x1b[?6h\x1b[4h\x1b[31m\x1b[?25l\x1b[2;3r\x1b[!p\x1b[Hx", ["x"], (1, 0), style={}),
    Case("DECALN", "\x1b#8", ["E" * 20] * 5, (0, 0)),
    Case("RIS", "\x1b[31mx\x1b[?1049h\x1bcy", ["y"], (1, 0), style={}),
    Case("BCE in EL", "\x1b[44m\x1b[K", [""], style={"bg": 4}),
    Case("BCE in ED", "\x1b[44m\x1b[2J", [""], style={"bg": 4}),
    Case("BCE when scrolling", "\x1b[44m\x1b[T", [""], style={"bg": 4}),
]

CURSOR = [
    Case("a wrap is pending at the last column", "x" * 20, ["x" * 20], (19, 0)),
    Case("a pending wrap happens with the next character", "x" * 20 + "y", ["x" * 20, "y"], (1, 1)),
    Case("CR cancels a pending wrap", "x" * 20 + "\ry", ["y" + "x" * 19], (1, 0)),
    Case("cursor movement cancels a pending wrap", "x" * 20 + "\x1b[Cy", ["x" * 19 + "y"], (19, 0)),
    Case("CPR names the last column when a wrap is pending", "x" * 20 + "\x1b[6n", replies="\x1b[1;20R"),
    Case("SCOSC and SCORC", "ab\x1b[s\x1b[5;5H\x1b[uc", ["abc"]),
    Case("DECSC and DECRC", "ab\x1b[31m\x1b7\x1b[m\x1b[5;5H\x1b8c\x1b[Hx", ["xbc"], style={"fg": 1}),
    Case("DECRC restores the style", "\x1b[31m\x1b7\x1b[m\x1b8x", style={"fg": 1}),
    Case("DECRC restores a pending wrap", "x" * 20 + "\x1b7\x1b[H\x1b8y", ["x" * 20, "y"]),
    Case("CBT", "\x1b[18G\x1b[2Z", None, (8, 0)),
    Case("CHT", "\x1b[2I", None, (16, 0)),
    Case("HTS and TBC", "\x1b[3g\x1b[4G\x1bH\r\tx\x1b[1G\x1b[4G\x1b[g\r\ty", ["   x" + " " * 15 + "y"]),
    Case("CNL and CPL", "ab\x1b[2Ex\x1b[Fy", ["ab", "y", "x"]),
    Case("HPA", "\x1b[5`x", ["    x"]),
    Case("HPR and VPR", "\x1b[2a\x1b[1ex", ["", "  x"]),
    Case("VPA", "\x1b[3dx", ["", "", "x"]),
    Case("HVP", "\x1b[2;3fx", ["", "  x"]),
    Case("REP", "ab\x1b[3b", ["abbbb"]),
    Case("REP of a wide character", "日\x1b[2b", ["日日日"], (6, 0)),
    Case("ICH", "abcd\x1b[2G\x1b[2@", ["a  bcd"]),
    Case("DCH", "abcdef\x1b[2G\x1b[2P", ["adef"]),
    Case("ECH", "abcdef\x1b[2G\x1b[2X", ["a  def"], (1, 0)),
    Case("IRM", "abc\x1b[1G\x1b[4hXY\x1b[4l", ["XYabc"]),
    Case("LNM", "\x1b[20ha\nb", ["a", "b"]),
    Case("LF keeps the column", "ab\nc", ["ab", "  c"]),
    Case("VT and FF are line feeds", "a\vb\fc", ["a", " b", "  c"]),
    Case("IND and NEL", "ab\x1bDc\x1bEd", ["ab", "  c", "d"]),
    Case("DECOM", "\x1b[2;4r\x1b[?6h\x1b[1;1Hx\x1b[9;1Hy", ["", "x", "", "y"]),
    Case("CPR in DECOM", "\x1b[2;4r\x1b[?6h\x1b[2;1H\x1b[6n", replies="\x1b[2;1R"),
    Case("DECAWM off", "\x1b[?7l" + "a" * 19 + "xyz", ["a" * 19 + "z"], (19, 0)),
    Case("DECAWM off, wide", "\x1b[?7l" + "a" * 19 + "日", ["a" * 18 + "日"], (19, 0)),
    Case("DECLRMM wraps at the margin", "\x1b[?69h\x1b[3;6s\x1b[1;3Habcdef", ["  abcd", "  ef"]),
    Case("DECLRMM scrolls the columns", FIVE + "\x1b[?69h\x1b[1;2s\x1b[S", ["2", "3", "4", "5", ""]),
    Case("DECLRMM scrolls only them", "ab\r\ncd\x1b[?69h\x1b[2;3s\x1b[S", ["ad", "c"]),
    Case("DECLRMM and DCH", "abcdef\x1b[?69h\x1b[1;4s\x1b[1;1H\x1b[P", ["bcd ef"]),
    Case("reverse wrap", "x" * 20 + "y\x1b[?45h\b\b", None, (19, 0)),
    Case("BS stops at the left", "a\b\b\bb", ["b"]),
    Case("cursor moves stop at the edges", "\x1b[99A\x1b[99D\x1b[99B\x1b[99C", None, (19, 4)),
]

CHARSETS = [
    Case("DEC line drawing", "\x1b(0lqk\x1b(Bq", ["┌─┐q"]),
    Case("line drawing leaves capitals", "\x1b(0ABC0+", ["ABC0+"]),
    Case("SO and SI", "\x1b)0q\x0eq\x0fq", ["q─q"]),
    Case("ESC ( B shows nothing", "\x1b(Bx", ["x"]),
    Case("ESC * and ESC + show nothing", "\x1b*B\x1b+0x\x1bnq\x1boq", ["xq─"]),
    Case("UK", "\x1b(A#", ["£"]),
    Case("UTF-8 split across reads", [b"\xe6", b"\x97", b"\xa5"], ["日"], (2, 0)),
    Case("invalid UTF-8", b"a\xff\xc3(b", ["a\ufffd\ufffd(b"]),
    Case("a truncated character at a control", b"\xe6\x97\nx", ["\ufffd", " x"]),
    Case("C1 CSI as U+009B", "\x9b31mx", ["x"], style={"fg": 1}),
    Case("C1 OSC and ST", "\x9d2;t\x9cx", ["x"], title="t", notices=[notice("title", "t")]),
    Case("C1 NEL and IND", "a\x85b\x84c", ["a", "b", " c"]),
    Case("lone surrogates in text", "a\ud800b", ["a\ufffdb"]),
    Case("%G chooses UTF-8", "\x1b%Gx", ["x"]),
]

WIDTHS = [
    Case("CJK", "日本x", ["日本x"], (5, 0)),
    Case("a wide character wraps whole", "a" * 19 + "日", ["a" * 19, "日"], (2, 1)),
    Case("a combining accent", "e\u0301x", ["e\u0301x"], (2, 0)),
    Case("a combining accent at the last column", "a" * 19 + "e\u0301x", ["a" * 19 + "e\u0301", "x"]),
    Case("VS16", "\u26a0\ufe0fx", ["\u26a0\ufe0fx"], (3, 0)),
    Case("VS16 in a later read", ["\u2764", "\ufe0fx"], ["\u2764\ufe0fx"], (3, 0)),
    Case("VS16 at the last column", "a" * 19 + "\u2764\ufe0f", ["a" * 19, "\u2764\ufe0f"], (2, 1)),
    Case("without VS16", "\u26a0x", ["\u26a0x"], (2, 0)),
    Case("VS15", "\U0001f44d\ufe0ex", ["\U0001f44d\ufe0ex"], (2, 0)),
    Case("keycap", "1\ufe0f\u20e3x", ["1\ufe0f\u20e3x"], (3, 0)),
    Case("emoji", "\U0001f389x", ["\U0001f389x"], (3, 0)),
    Case("a ZWJ family is one", FAMILY + "x", [FAMILY + "x"], (3, 0)),
    Case("ZWJ then read", [FAMILY[:2], FAMILY[2:] + "x"], [FAMILY + "x"], (3, 0)),
    Case("ZWJ with a narrow sign", ["\U0001f469\u200d", "\u2695\ufe0fx"], ["\U0001f469\u200d\u2695\ufe0fx"], (3, 0)),
    Case("a flag", "\U0001f1ef\U0001f1f5x", ["\U0001f1ef\U0001f1f5x"], (3, 0)),
    Case("two flags", "\U0001f1ef\U0001f1f5\U0001f1e9\U0001f1ea", None, (4, 0)),
    Case("a skin tone", "\U0001f44d\U0001f3fdx", ["\U0001f44d\U0001f3fdx"], (3, 0)),
    Case("Devanagari", "\u0928\u092e\u0938\u094d\u0924\u0947|", None, (5, 0)),
    Case("Thai", "\u0e2a\u0e27\u0e31|", None, (3, 0)),
    Case("Hangul from jamo", "\u1112\u1161\u11ab|", ["\u1112\u1161\u11ab|"], (3, 0)),
    Case("zero width space takes no column", "a\u200bb", ["a\u200bb"], (2, 0)),
    Case("a byte order mark at the start", "\ufeffab", ["ab"], (2, 0)),
    Case("overwrite the right half", "日本\x1b[2Gx", [" x本"]),
    Case("overwrite the left half", "日本\x1b[1Gx", ["x 本"]),
    Case("overwrite across two", "日本\x1b[2Gxy", [" xy"]),
    Case("wide over the halves of two", "日本\x1b[2G語", [" 語"]),
    Case("erase the right half", "日本\x1b[2G\x1b[X", ["  本"]),
    Case("erase up to the left half", "日本\x1b[1K\x1b[3G\x1b[1K", [""]),
    Case("EL cuts a wide one", "日本\x1b[2G\x1b[K", [""]),
    Case("DCH cuts a wide one", "日本x\x1b[2G\x1b[P", [" 本x"]),
    Case("ICH cuts a wide one", "日本x\x1b[2G\x1b[@", ["   本x"]),
    Case("ICH pushes half a wide one out", "a" * 18 + "日\x1b[1G\x1b[@", [" " + "a" * 18]),
    Case("insert mode with wide ones", "ab\x1b[1G\x1b[4h日", ["日ab"]),
]

SGR = [
    Case("colon underline 4:3", "\x1b[4:3mx", ["x"], style={"underline": 3}),
    Case("underline 4:0", "\x1b[4m\x1b[4:0mx", ["x"], style={}),
    Case("38:2::r:g:b", "\x1b[38:2::10:20:30mx", ["x"], style={"fg": (10, 20, 30)}),
    Case("38:2:r:g:b", "\x1b[38:2:10:20:30mx", ["x"], style={"fg": (10, 20, 30)}),
    Case("38:5:n", "\x1b[38:5:9mx", ["x"], style={"fg": 9}),
    Case("38;5;n", "\x1b[38;5;200mx", style={"fg": 200}),
    Case("48;2;r;g;b", "\x1b[48;2;1;2;3mx", style={"bg": (1, 2, 3)}),
    Case("58;2 underline colour", "\x1b[4;58;2;1;2;3mx", style={"underline": 1, "underline_color": (1, 2, 3)}),
    Case("58:2 underline colour", "\x1b[58:2::1:2:3mx", ["x"], style={"underline_color": (1, 2, 3)}),
    Case("58:5 and 59", "\x1b[58:5:4m\x1b[59mx", style={}),
    Case("dim, overline", "\x1b[2;53mx", style={"dim": True, "overline": True}),
    Case(
        "the rest",
        "\x1b[1;3;5;7;8;9mx",
        style=dict.fromkeys(("bold", "italic", "blink", "reverse", "hidden", "strike"), True),
    ),
    Case("switched off", "\x1b[1;2;3;4;5;7;8;9;53m\x1b[22;23;24;25;27;28;29;55mx", style={}),
    Case("double underline", "\x1b[21mx", style={"underline": 2}),
    Case("bright colours", "\x1b[91;102mx", style={"fg": 9, "bg": 10}),
    Case("default colours", "\x1b[31;42;39;49mx", style={}),
    Case("reset in the middle", "\x1b[31;0;1mx", style={"bold": True}),
    Case("an empty parameter resets", "\x1b[31m\x1b[;1mx", style={"bold": True}),
    Case("38;5;300 is no colour", "\x1b[38;5;300mx", ["x"], style={}),
    Case("38;2 above 255 is no colour", "\x1b[38;2;999;0;0mx", ["x"], style={}),
    Case("38 alone", "\x1b[38mx", ["x"], style={}),
    Case("OSC 8 hyperlink", "\x1b]8;id=1;http://a/b\x1b\\x\x1b]8;;\x1b\\y", ["xy"], style={"link": "http://a/b"}),
    Case("a link outlives SGR 0", "\x1b]8;;http://a\x07\x1b[0mx", style={"link": "http://a"}),
]

MODES = [
    Case("modifyOtherKeys", "\x1b[>4;2mx", ["x"], style={}, modes={"modify_other_keys": 2}),
    Case("modifyOtherKeys off", "\x1b[>4;2m\x1b[>4m", modes={"modify_other_keys": 0}),
    Case("XTQMODKEYS", "\x1b[>4;1m\x1b[?4m", ["", ""], replies="\x1b[>4;1m"),
    Case(
        "XTSAVE and XTRESTORE", "\x1b[?2004h\x1b[?2004s\x1b[?2004l\x1b[?2004rx", ["x"], modes={"bracketed_paste": True}
    ),
    Case("XTRESTORE of what was not saved", "\x1b[?1001r\x1b[?1001sx", ["x"], (1, 0)),
    Case("DECSED and DECSEL", "abc\x1b[?2K\x1b[?2J", [""]),
    Case("kitty push", "\x1b[>1ux", ["x"], modes={"kitty_flags": 1}),
    Case("kitty pop", "\x1b[>7u\x1b[<ux", ["x"], modes={"kitty_flags": 0}),
    Case("kitty pop too many", "\x1b[>7u\x1b[<99ux", ["x"], modes={"kitty_flags": 0}),
    Case("kitty set", "\x1b[=5;1u\x1b[=2;2u\x1b[=1;3ux", ["x"], modes={"kitty_flags": 6}),
    Case(
        "kitty flags are kept apart for each screen",
        "\x1b[>7u\x1b[?1049h\x1b[?u\x1b[?1049l\x1b[?u",
        replies="\x1b[?0u\x1b[?7u",
    ),
    Case("kitty query", "\x1b[>5u\x1b[?u", replies="\x1b[?5u"),
    Case("mouse and its encoding", "\x1b[?1000;1002;1003h\x1b[?1006;1015h", modes={"mouse": 1003, "mouse_sgr": True}),
    Case("mouse off", "\x1b[?1003h\x1b[?1003l", modes={"mouse": 0}),
    Case("X10 mouse", "\x1b[?9h", modes={"mouse": 9}),
    Case(
        "focus, paste, sync",
        "\x1b[?1004;2004;2026h",
        modes={"focus_events": True, "bracketed_paste": True, "synchronized": True},
    ),
    Case("modes leave no trace", "\x1b[?1015h\x1b[?1005l\x1b[?2027h\x1b[?2031h\x1b[?2048h\x1b[?7727hx", ["x"]),
    Case("DECSCUSR", "\x1b[4 qx", ["x"], modes={"cursor_shape": 4}),
    Case("DECKPAM and DECKPNM", "\x1b=x\x1b>\x1b=", ["x"], modes={"application_keypad": True}),
    Case("DECCKM", "\x1b[?1h", modes={"application_cursor": True}),
    Case("DECTCEM", "\x1b[?25l", modes={"cursor_visible": False}),
]

REPLIES = [
    Case("DA1", "\x1b[c", [""], replies="\x1b[?62;22;52c"),
    Case("DECID", "\x1bZ", replies="\x1b[?62;22;52c"),
    Case("DA2", "\x1b[>cx", ["x"], replies="\x1b[>41;377;0c"),
    Case("DA3", "\x1b[=cx", ["x"], replies="\x1bP!|00000000\x1b\\"),
    Case("DSR 5", "\x1b[5n", replies="\x1b[0n"),
    Case("CPR", "ab\r\nc\x1b[6n", replies="\x1b[2;2R"),
    Case("DECXCPR", "ab\x1b[?6n", replies="\x1b[?1;3R"),
    Case(
        "DSR of the printer, keys and keyboard",
        "\x1b[?15n\x1b[?25n\x1b[?26n",
        replies="\x1b[?13n\x1b[?21n\x1b[?27;1;0;0n",
    ),
    Case("colour scheme", "\x1b[?996n", replies="\x1b[?997;1n"),
    Case("XTVERSION", "\x1b[>0qx", ["x"], replies="\x1bP>|lapconsole\x1b\\"),
    Case("DECRQM set and reset", "\x1b[?2026$p\x1b[?2026h\x1b[?2026$p", replies="\x1b[?2026;2$y\x1b[?2026;1$y"),
    Case("DECRQM of a mode unknown", "\x1b[?9999$px", ["x"], replies="\x1b[?9999;0$y"),
    Case("DECRQM of grapheme clustering", "\x1b[?2027$p", replies="\x1b[?2027;3$y"),
    Case("DECRQM of ANSI modes", "\x1b[4h\x1b[4$p\x1b[20$p\x1b[3$p", replies="\x1b[4;1$y\x1b[20;2$y\x1b[3;0$y"),
    Case("OSC 10", "\x1b]10;?\x07", replies="\x1b]10;rgb:e5e5/e5e5/e5e5\x07"),
    Case("OSC 11", "\x1b]11;?\x1b\\", replies="\x1b]11;rgb:1010/1010/1010\x1b\\"),
    Case(
        "OSC 10 asks for both",
        "\x1b]10;?;?\x07",
        replies="\x1b]10;rgb:e5e5/e5e5/e5e5\x07\x1b]11;rgb:1010/1010/1010\x07",
    ),
    Case("OSC 4", "\x1b]4;1;?\x07", replies="\x1b]4;1;rgb:cdcd/0000/0000\x07"),
    Case(
        "OSC 4 sets",
        "\x1b]4;1;#102030;2;rgb:f/f/f\x07\x1b]4;1;?;2;?\x07",
        replies="\x1b]4;1;rgb:1010/2020/3030\x07\x1b]4;2;rgb:ffff/ffff/ffff\x07",
    ),
    Case(
        "OSC 104", "\x1b]4;1;#102030\x07\x1b]104;1\x07\x1b]4;1;?\x07x", ["x"], replies="\x1b]4;1;rgb:cdcd/0000/0000\x07"
    ),
    Case(
        "XTGETTCAP",
        "\x1bP+q544e;436f\x1b\\x",
        ["x"],
        replies="\x1bP1+r544e=787465726D2D323536636F6C6F72\x1b\\\x1bP1+r436f=323536\x1b\\",
    ),
    Case("XTGETTCAP unknown", "\x1bP+q7a7a;zz\x1b\\x", ["x"], replies="\x1bP0+r7a7a\x1b\\\x1bP0+rzz\x1b\\"),
    Case("DECRQSS m", "\x1b[1;31m\x1bP$qm\x1b\\", replies="\x1bP1$r0;1;31m\x1b\\"),
    Case(
        "DECRQSS r and cursor",
        "\x1b[2;4r\x1b[3 q\x1bP$qr\x1b\\\x1bP$q q\x1b\\",
        replies="\x1bP1$r2;4r\x1b\\\x1bP1$r3 q\x1b\\",
    ),
    Case("DECRQSS unknown", "\x1bP$qz\x1b\\x", ["x"], replies="\x1bP0$r\x1b\\"),
    Case("sizes", "\x1b[14t\x1b[16t\x1b[18t", replies="\x1b[4;100;200t\x1b[6;20;10t\x1b[8;5;20t"),
    Case("XTSMGRAPHICS does not scroll", "x\x1b[?1;1;0S", ["x"]),
    Case("OSC 7501 is answered before DA1", "\x1b]7501;?\x07\x1b[c", replies="\x1b]7501;?\x1b\\\x1b[?62;22;52c"),
    Case("the clipboard is never told", "\x1b]52;c;?\x07", replies=""),
    Case(
        "answers keep the order",
        "\x1b[6n\x1b]11;?\x07\x1b[5n",
        replies="\x1b[1;1R\x1b]11;rgb:1010/1010/1010\x07\x1b[0n",
    ),
]

STRINGS = [
    Case("DCS", "a\x1bPzz\x1b\\b", ["ab"]),
    Case("sixel", 'a\x1bPq"1;1;10;10#0;2;0;0;0#0!10~-\x1b\\b', ["ab"]),
    Case(
        "tmux passthrough",
        "a\x1bPtmux;\x1b\x1b]52;c;eA==\x07\x1b\\b",
        ["ab"],
        notices=[notice("clipboard", "x", selection="c")],
    ),
    Case("APC", "a\x1b_Gi=31,s=1,v=1,a=q;AAAA\x1b\\b", ["ab"]),
    Case("PM", "a\x1b^hidden\x1b\\b", ["ab"]),
    Case("SOS", "a\x1bXhidden\x1b\\b", ["ab"]),
    Case("BEL does not end a DCS", "a\x1bPq\x07hidden\x1b\\b", ["ab"]),
    Case("OSC 0 with BEL", "\x1b]0;t\x07x", ["x"], title="t", notices=[notice("title", "t")]),
    Case("OSC 2 with ST", "\x1b]2;a;b\x1b\\x", ["x"], title="a;b", notices=[notice("title", "a;b")]),
    Case("OSC 1 is not the title", "\x1b]1;icon\x07x", ["x"], title=""),
    Case("control characters leave a title", "\x1b]2;a\x01\nb\x07", title="ab", notices=[notice("title", "ab")]),
    Case("ESC k", "\x1bktmux\x1b\\x", ["x"], title="tmux", notices=[notice("title", "tmux")]),
    Case(
        "title stack",
        "\x1b]2;a\x07\x1b[22;0t\x1b]2;b\x07\x1b[23;0tx",
        ["x"],
        title="a",
        notices=[notice("title", t) for t in "aba"],
    ),
    Case("title stack empty", "\x1b[23;0;0tx", ["x"], title=""),
    Case("OSC 52", "\x1b]52;c;aMOp\x07x", ["x"], notices=[notice("clipboard", "h\xe9", selection="c")]),
    Case("OSC 52 with no base64", "\x1b]52;p;***\x07x", ["x"], notices=[notice("clipboard", "", selection="p")]),
    Case("OSC 133", "\x1b]133;A\x07$ \x1b]133;B\x07x", ["$ x"]),
    Case("OSC 9", "\x1b]9;done\x07x", ["x"], notices=[notice("notification", "done", title="")]),
    Case("OSC 777", "\x1b]777;notify;T;a;b\x07x", ["x"], notices=[notice("notification", "a;b", title="T")]),
    Case("OSC 9;4", "\x1b]9;4;1;50\x07x", ["x"], notices=[notice("progress", state="normal", percent="50")]),
    Case("OSC 9;4 off", "\x1b]9;4;0\x07", notices=[notice("progress", state="none", percent="0")]),
    Case(
        "OSC 9;4 broken", "\x1b]9;4;7;x\x07\x1b]9;4;1;٣\x07", notices=[notice("progress", state="normal", percent="0")]
    ),
    Case("OSC 7", "\x1b]7;file://host/tmp/a%20b\x07x", ["x"], notices=[notice("cwd", "/tmp/a b")]),
    Case("OSC 7 broken", "\x1b]7;file://[\x07\x1b]7;http://x/y\x07x", ["x"]),
    Case(
        "OSC 7501",
        "\x1b]7501;state=working:app=codex\x1b\\",
        notices=[notice("activity", state="working", app="codex")],
    ),
    Case(
        "OSC 7501 with a message",
        "\x1b]7501;state=blocked:app=claude-code:kind=permission:title=VA:msg=YXBwcm92ZQ==\x1b\\",
        notices=[notice("activity", "approve", state="blocked", app="claude-code", kind="permission", title="T")],
    ),
    Case("OSC 7501 without a state", "\x1b]7501;app=x:msg=!!\x07x", ["x"]),
    Case("BEL", "a\x07\x07b", ["ab"], notices=[notice("bell")]),
    Case("the Linux palette", "\x1b]P1ff0000x", ["x"]),
    Case("OSC that looks like it", "\x1b]Pxx\x07y", ["y"]),
    Case(
        "OSC in three reads", ["\x1b]2;ab", "cd", "ef\x07x"], ["x"], title="abcdef", notices=[notice("title", "abcdef")]
    ),
    Case("OSC cut at its ST", ["\x1b]2;ab\x1b", "\\x"], ["x"], title="ab", notices=[notice("title", "ab")]),
    Case("OSC too long is swallowed", ["\x1b]2;" + "a" * 300_000, "b\x07x"], ["x"], title=""),
]

PARSING = [
    Case("CSI byte by byte", list("\x1b[3;1;3;4mx"), ["x"], style={"italic": True, "bold": True, "underline": 1}),
    Case("CAN ends a CSI", "\x1b[31\x18mx", ["mx"], style={}),
    Case("SUB ends a CSI", "\x1b[31\x1amx", ["mx"]),
    Case("ESC in a CSI starts anew", "\x1b[3\x1b[1mx", ["x"], style={"bold": True}),
    Case("ESC ends an OSC", "\x1b]2;t\x1b[1mx", ["x"], style={"bold": True}, notices=[notice("title", "t")]),
    Case("CAN ends an OSC unheard", "\x1b]2;t\x18x", ["x"], title=""),
    Case("CAN in a later read", ["\x1b]2;t", "\x18x"], ["x"], title=""),
    Case("controls act inside a CSI", "ab\x1b[\b1\nmx", ["ab", " x"], style={}),
    Case("NUL and DEL", "a\x00b\x7fc", ["abc"]),
    Case("huge parameters", "\x1b[99999999999999999999;99999999999999999999Hx", None, (19, 4)),
    Case("more digits than Python turns into a number", "\x1b[" + "9" * 5000 + "Bx", ["", "", "", "", "x"]),
    Case("too many parameters", "\x1b[" + "1;" * 500 + "1Hx", ["x"]),
    Case("CUP with four", "\x1b[2;2;1;1Hx", ["", " x"]),
    Case("CSI ? A", "\x1b[?Ax", ["x"]),
    Case("CSI with text inside", "\x1b[3é1mx", ["x"], style={}),
    Case("ESC SP F", "\x1b Fx", ["x"]),
    Case("ESC # 3", "\x1b#3x", ["x"]),
    Case("ESC then something else", "\x1bé\x1b\x7fx", ["éx"]),
    Case("ESC ESC", "\x1b\x1b[1mx", ["x"], style={"bold": True}),
    Case("ESC ( with an odd set", "\x1b(Px\x1b(%5y", ["xy"]),
    Case("DECCOLM does nothing", "x\x1b[?3h", ["x"], (1, 0)),
    Case("highlight mouse tracking", "x\x1b[1;1;1;1;1T", ["x"]),
]  # fmt: skip

CASES = [*SCREENS, *CURSOR, *CHARSETS, *WIDTHS, *SGR, *MODES, *REPLIES, *STRINGS, *PARSING]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_feature(case: Case) -> None:
    terminal = Emulator(COLUMNS, LINES)
    for chunk in case.feed if isinstance(case.feed, list) else [case.feed]:
        terminal.feed(chunk)
    if case.rows is not None:
        assert terminal.text() == case.rows + [""] * (LINES - len(case.rows))
    if case.cursor is not None:
        assert terminal.cursor == case.cursor
    if case.style is not None:
        assert terminal.row(0)[0].style == Style(**case.style)
    if case.title is not None:
        assert terminal.title == case.title
    if case.replies is not None:
        assert terminal.take_replies().decode() == case.replies
    assert terminal.take_notices() == case.notices
    for name, value in case.modes.items():
        assert getattr(terminal.modes, name) == value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_feature_in_any_chunks(case: Case) -> None:
    """Reads may be cut anywhere: one character at a time gives the same as all at once."""
    chunks = case.feed if isinstance(case.feed, list) else [case.feed]
    whole, apart = Emulator(COLUMNS, LINES), Emulator(COLUMNS, LINES)
    for chunk in chunks:
        whole.feed(chunk)
        for position in range(len(chunk)):
            apart.feed(chunk[position : position + 1])
    assert apart.snapshot() == whole.snapshot()
    assert apart.take_replies() == whole.take_replies()
    assert apart.take_notices() == whole.take_notices()

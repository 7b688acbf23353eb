"""Splits a terminal's output into tokens: text by width class, control characters, and escape sequences."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import TypeAlias

from lapconsole.terminal.widths import NARROW, WIDE, ZWJ

#: Longest OSC, DCS, APC, PM, SOS or title string kept, in characters; a longer one is swallowed whole.
MAX_STRING = 1 << 18
#: Longest unfinished CSI or ESC sequence kept; what is beyond is forgotten, the end of the sequence still found.
MAX_SEQUENCE = 256
#: Characters tokenized at once: bounds the list of tokens.
SLICE = 1 << 16
#: Parameters of a CSI sequence beyond these are ignored.
MAX_PARAMETERS = 32

#: (narrow text, plain CSI sequence, controls, wide text, other text, any other sequence, rest): one is not empty. Of a
#: plain CSI sequence, which most of what programs send is, only parameters and final. The rest is kept by the parser.
Token: TypeAlias = tuple[str, str, str, str, str, str, str]

_TOKENS = re.compile(
    rf"([{NARROW}]+)"
    r"|\x1b\[([0-9;:]*[@-~])"
    r"|([\x00-\x1a\x1c-\x1f\x7f]+)"
    rf"|([{WIDE}]+)"
    # What follows a ZWJ belongs to it, whatever its class.
    rf"|((?:{ZWJ}[^\x00-\x1f\x7f]|{ZWJ}(?=[\x00-\x1f\x7f])|[^\x00-\x1f\x7f{ZWJ}{NARROW}{WIDE}])+)"
    r"|(\x1b(?:"
    r"\[[^@-~\x18\x1a\x1b]*+(?:[@-~\x18\x1a]|(?=\x1b))"  # any other CSI, also one with controls inside
    r"|\]P[0-9A-Fa-f]{7}"  # the Linux console's palette, which has no terminator
    r"|\][^\x07\x18\x1a\x1b]*+(?:[\x07\x18\x1a]|(?=\x1b))"  # OSC
    r"|[PX^_k][^\x18\x1a\x1b]*+(?:[\x18\x1a]|(?=\x1b))"  # DCS, SOS, PM, APC, and tmux's title
    r"|[0-OQ-WYZ\\`-jl-~]|[ -/]++[0-~]"  # two characters, or with intermediates
    r"|[ -/]*+(?=[\x00-\x1f\x7f-\U0010ffff])"  # not a sequence after all
    r"))"
    r"|([\s\S]+)"  # a sequence that is not complete yet, or a ZWJ whose partner is to come
)
_STRING_START = re.compile(r"\x1b(?:\](?!P?[0-9A-Fa-f]{0,6}\Z)|\](?=[0-9A-Fa-f]+\Z)|[PX^_k])")
_OSC_END = re.compile(r"[\x07\x18\x1a\x1b]")
_STRING_END = re.compile(r"[\x18\x1a\x1b]")
_C1 = re.compile(r"[\x80-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MAX_NUMBER = 1 << 16


class Parser:
    """Keeps what is cut off at the end of one input for the next. Bounded whatever comes; never raises."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail = ""
        self._string: list[str] | None = None  # an unterminated OSC, DCS, ...: its parts
        self._string_size = 0

    def slices(self, data: bytes | str) -> Iterator[list[Token]]:
        """Tokens of the input, in lists of bounded size. Bytes are UTF-8, with U+FFFD for what is not."""
        if isinstance(data, str):
            text = data if data.isascii() else _SURROGATE.sub("\ufffd", data)
        else:
            text = self._decoder.decode(data)
        if not text.isascii() and _C1.search(text):
            text = _C1.sub(lambda c1: "\x1b" + chr(ord(c1[0]) - 0x40), text)
        for start in range(0, len(text), SLICE):
            yield self._tokens(text[start : start + SLICE])

    def _tokens(self, text: str) -> list[Token]:
        finished = ""
        if self._string is not None:
            finished, text = self._continue_string(text)
        elif self._tail:
            text, self._tail = self._tail + text, ""
        tokens: list[Token] = _TOKENS.findall(text)
        if tokens and tokens[-1][6]:
            self._keep(tokens.pop()[6])
        if finished:
            tokens.insert(0, ("", "", "", "", "", finished, ""))
        return tokens

    def _keep(self, rest: str) -> None:
        if _STRING_START.match(rest):
            self._string = [rest]
            self._string_size = len(rest)
        else:
            self._tail = rest[:MAX_SEQUENCE]

    def _continue_string(self, text: str) -> tuple[str, str]:
        """The string's whole sequence if it ends in this text, else "", and the text behind its end."""
        parts = self._string
        assert parts is not None
        end = (_OSC_END if parts[0][1] == "]" else _STRING_END).search(text)
        stop = end.start() if end else len(text)
        self._string_size += stop
        if self._string_size <= MAX_STRING:
            parts.append(text[:stop])
        else:
            del parts[1:]
            parts[0] = parts[0][:2]
        if end is None:
            return "", ""
        self._string = None
        after = stop if end[0] == "\x1b" else stop + 1
        whole = self._string_size <= MAX_STRING
        return ("".join(parts) + end[0].replace("\x1b", "") if whole else ""), text[after:]

    def state(self) -> tuple[str, str, int]:
        """What is kept for the next input: undecoded bytes (hex), unfinished sequence, characters of it seen."""
        pending = self._decoder.getstate()[0].hex()
        if self._string is not None:
            return pending, "".join(self._string), self._string_size
        return pending, self._tail, 0

    def restore(self, pending: str, kept: str, seen: int) -> None:
        """Go on from a `state()`. ValueError when it cannot be one."""
        self._decoder.reset()
        self._decoder.decode(bytes.fromhex(pending)[:3])
        self._tail, self._string, self._string_size = "", None, 0
        if seen:
            self._string, self._string_size = [kept], seen
        else:
            self._tail = kept[:MAX_SEQUENCE]


def numbers(params: str) -> tuple[int, ...]:
    """CSI parameters as numbers; an omitted one is 0, and at least one is given. Sub-parameters are left out."""
    return tuple(map(_number, params.split(";", MAX_PARAMETERS)[:MAX_PARAMETERS]))


def _number(text: str) -> int:
    digits = text.partition(":")[0].lstrip("0")
    return min(int(digits[:6]), _MAX_NUMBER) if digits else 0

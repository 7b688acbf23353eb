"""The agent's output as text, cut only where a terminal is between two things.

A viewer may join between any two cuts: it gets a repaint of what was cut so far, so the next cut must not begin with
the second half of a character or of an escape sequence.
"""

import codecs
import re

MAX_HELD = 65_536
"""Characters of one unfinished sequence that are waited for; a longer one is passed on as it is."""

_UNFINISHED = re.compile(
    "(?:\u200d"  # a joiner without what it joins
    "|\x1b(?:"
    r"\[[0-?]*[ -/]*"  # CSI without its final byte
    "|\\][^\x07\x18\x1a\x1b]*\x1b?"  # OSC without BEL or ST
    "|[PX^_k][^\x18\x1a\x1b]*\x1b?"  # DCS, SOS, PM, APC or a title without ST
    r"|[ -/]*"
    r")?)\Z"
)

_QUESTIONS = re.compile(
    "\x05"
    "|\x1b\\[(?:"
    r"[>=]?0?c|>0?q"  # device attributes, XTVERSION
    r"|\??[56]n|\?(?:15|25|26|996)n"  # status and cursor reports
    r"|\??\d+\$p"  # DECRQM
    r"|\?u|\?4m"  # kitty keyboard, XTQMODKEYS
    r"|(?:1[13-689]|2[01])(?:;\d+)?t"  # window reports
    r"|\?\d+;1(?:;\d+)*S|[01]?x"  # XTSMGRAPHICS, DECREQTPARM
    ")"
    "|\x1b\\](?:4;\\d+|1\\d|7501|52;[a-z0-7]*);\\?(?:\x07|\x1b\\\\)"  # colours, agent state, clipboard
    "|\x1bP[+$]q[^\x1b]*\x1b\\\\"  # XTGETTCAP, DECRQSS
    "|\x1b_G[^;\x1b]*a=q[^\x1b]*\x1b\\\\"  # kitty graphics
)


class OutputCutter:
    """Bytes in, pieces of text out."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""

    def feed(self, data: bytes) -> None:
        """Adds output as it was read."""
        self._text += self._decoder.decode(data)

    def take(self, limit: int) -> str:
        """The next piece of about `limit` characters, MAX_HELD at most; empty while nothing is whole."""
        text = self._text
        while True:
            piece = text[:limit]
            unfinished = _UNFINISHED.search(piece)
            if unfinished is None or limit >= MAX_HELD:
                break
            if unfinished.start() > 0:
                piece = piece[: unfinished.start()]
                break
            if limit >= len(text):
                return ""
            limit *= 2
        self._text = text[len(piece) :]
        return piece

    def rest(self) -> str:
        """All that is left, finished or not: nothing follows it."""
        text, self._text = self._text + self._decoder.decode(b"", final=True), ""
        return text


def without_questions(text: str) -> str:
    """`text` without the reports it asks of a terminal: the harness answers those, a viewer's answer would be typed."""
    return _QUESTIONS.sub("", text)

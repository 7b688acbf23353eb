"""Cutting the agent's output where a viewer may join."""

import random

import pytest

from backend.harness.output import MAX_HELD, OutputCutter, without_questions


def pieces(*reads: bytes, limit: int = 4096) -> list[str]:
    cutter, found = OutputCutter(), []
    for read in reads:
        cutter.feed(read)
        while piece := cutter.take(limit):
            found.append(piece)
    return [*found, cutter.rest()]


@pytest.mark.parametrize(
    "whole",
    [
        "ä".encode(),
        "👩\u200d💻".encode(),
        b"\x1b[38;2;1;2;3m",
        b"\x1b[?2026$p",
        b"\x1b(0",
        b"\x1b7",
        b"\x1b]0;a title\x07",
        b"\x1b]0;a title\x1b\\",
        b"\x1bPq some sixel\x07 and more\x1b\\",
        b"\x1b_Gi=1;AAAA\x1b\\",
        b"\x1bka tmux title\x1b\\",
    ],
)
def test_nothing_is_cut_in_two(whole: bytes) -> None:
    text = whole.decode()
    for at in range(1, len(whole)):
        found = pieces(b"before", whole[:at], whole[at:], b"after")
        joined = "".join(found)
        assert joined == f"before{text}after"
        position, cuts = 0, set()
        for piece in found:
            position += len(piece)
            cuts.add(position)
        inside = set(range(len("before") + 1, len("before") + len(text)))
        if whole.startswith(b"\x1b"):
            assert not cuts & inside, (at, found)


def test_a_sequence_longer_than_a_piece_stays_whole() -> None:
    title = "\x1b]0;" + "x" * 10_000 + "\x07"
    assert title in pieces(title.encode(), limit=100)


def test_a_sequence_that_never_ends_is_passed_on() -> None:
    found = pieces(b"\x1b]0;" + b"x" * (2 * MAX_HELD), limit=100)
    assert found[0] == "\x1b]0;" + "x" * (MAX_HELD - 4) or len(found[0]) >= MAX_HELD


def test_random_bytes_lose_nothing() -> None:
    chance = random.Random(7)
    for _ in range(200):
        data = bytes(
            chance.choice(b"ab\x1b\x1b[]P_\\\x07\x18;?0m\xc3\xa4\xff\xe2") for _ in range(chance.randrange(200))
        )
        cut = chance.randrange(len(data) + 1)
        found = pieces(data[:cut], data[cut:], limit=chance.randrange(1, 50))
        assert "".join(found) == data.decode(errors="replace")


QUESTIONS = (
    *("\x1b[c", "\x1b[0c", "\x1b[>c", "\x1b[=c", "\x1b[>0q", "\x1b[>q", "\x1b[5n", "\x1b[6n", "\x1b[?6n", "\x1b[?996n"),
    *("\x1b[?2026$p", "\x1b[4$p", "\x1b[?u", "\x1b[?4m", "\x1b[14t", "\x1b[18t", "\x1b[?1;1;0S", "\x05"),
    *("\x1b]10;?\x07", "\x1b]11;?\x1b\\", "\x1b]4;7;?\x1b\\", "\x1b]7501;?\x07", "\x1b]52;c;?\x07"),
    *("\x1bP+q544e\x1b\\", "\x1bP$qm\x1b\\", "\x1b_Gi=31,s=1,a=q,t=d;AAAA\x1b\\"),
)
OTHERS = (
    *("plain c 6n", "\x1b[m\x1b[1;31m", "\x1b[2J\x1b[H", "\x1b[>7u", "\x1b[<u", "\x1b[22;0t", "\x1b[8;24;80t"),
    *("\x1b]0;what?\x07", "\x1b]8;;http://x/?y\x07", "\x1b]52;c;aGk=\x07", "\x1b]10;#fff\x07", "\x1b[>4;2m"),
    *("\x1b[0 q", "\x1b_Ga=T,f=100;AAAA\x1b\\", "\x1b[?2026h", "\x1b[3S"),
)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_viewer_is_not_asked(question: str) -> None:
    assert without_questions(f"a{question}b") == "ab"


@pytest.mark.parametrize("text", OTHERS)
def test_everything_else_is_shown(text: str) -> None:
    assert without_questions(text) == text

"""Texts as rows: marks, wrapping, and that a growing text gives the same rows as the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lapconsole.widgets.parts import plain
from lapconsole.widgets.transcript_text import LONGEST_LINE, FlowingText, inline, wrap_runs


def rows(text: str, width: int = 40, *, bare: bool = False) -> list[str]:
    flow = FlowingText(width, plain=bare)
    flow.take(text)
    return [plain(row.parts).rstrip() for row in flow.rows]


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("# Title #", ["  Title"]),
        ("a **bold** and `code` b", ["  a bold and code b"]),
        ("[name](http://x) [http://x](http://x)", ["  name (http://x) http://x"]),
        ("2 * 3 * 4 and snake_case_name", ["  2 * 3 * 4 and snake_case_name"]),
        ("- one\n  - two", ["  - one", "    - two"]),
        ("> quoted", ["  > quoted"]),
        ("---", ["  ---"]),
        ("```py\n**x**\n```\nafter", ["   py", "   **x**", "  after"]),
        ("```\nnever closed", ["   never closed"]),
        ("~~~\n```\n~~~", ["   ```"]),
        ("1. " + "word " * 10, ["  1. word word word word word word word", "     word word word"]),
        ("a\tb\x1b[2J\x07", ["  a   b"]),
    ],
)
def test_marks(text: str, drawn: list[str]) -> None:
    assert rows(text) == drawn


def test_plain_text_keeps_its_marks() -> None:
    assert rows("**a** `b`\n# c", bare=True) == ["  **a** `b`", "  # c"]


def test_tones() -> None:
    assert inline("a **b** `c` *d*") == [
        ("a ", "plain"),
        ("b", "strong"),
        (" ", "plain"),
        ("c", "accent"),
        (" ", "plain"),
        ("d", "italic"),
    ]


@given(st.lists(st.tuples(st.text("ab 日\u0301é", max_size=30), st.sampled_from(["x", "y"])), max_size=6))
def test_wrapped_rows_fit_and_lose_only_blanks(runs: list[tuple[str, str]]) -> None:
    wrapped = wrap_runs(runs, 10)
    assert all(cell_len(plain(row)) <= 10 for row in wrapped)
    assert "".join(map(plain, wrapped)).replace(" ", "") == plain(runs).replace(" ", "")


@given(st.text("ab `*#-\n>|[]()1.", max_size=200), st.lists(st.integers(1, 20), max_size=30))
def test_a_text_that_grows_is_drawn_as_the_whole(text: str, pieces: list[int]) -> None:
    flow, at = FlowingText(24), 0
    for piece in pieces:
        at += piece
        flow.take(text[:at])
    flow.take(text)
    whole = FlowingText(24)
    whole.take(text)
    assert flow.rows == whole.rows


def test_a_text_that_is_replaced_is_drawn_anew() -> None:
    flow = FlowingText(40)
    flow.take("one\ntwo")
    flow.take("three")
    assert [plain(row.parts) for row in flow.rows] == ["  three"]


def test_a_line_without_end_is_drawn_in_pieces() -> None:
    flow = FlowingText(80)
    flow.take("word " * LONGEST_LINE)
    assert "".join(plain(row.parts) for row in flow.rows).count("word") == LONGEST_LINE
    before = len(flow.rows)
    flow.take("word " * LONGEST_LINE + "more")
    assert len(flow.rows) in (before, before + 1)

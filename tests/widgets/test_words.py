"""Ages, durations, and text that comes from outside."""

import pytest

from lapconsole.widgets.words import (
    ASCII,
    UNICODE,
    age,
    clean,
    clean_lines,
    duration,
    fit,
    fit_middle,
    glyphs_for,
    wrap,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86399, "23h"), (864000, "10d")],
)
def test_age(seconds: float, words: str) -> None:
    assert age(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0.0s"), (0.24, "0.2s"), (42, "42s"), (72, "1m12s"), (7380, "2h03m"), (90000, "1d01h")],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J\x1b[31mred\x1b[0m",
        "\x1b]0;title\x07red",
        "\x1b]52;c;cm0gLXJm\x1b\\red",
        "\x1bP+q544e\x1b\\red",
        "\x1b(Bred",
        "r\x00e\x08d",
        "red\x9b31m",
        "\u202ered\u2066",
        "red\r\nred",
        "\x1b]never closed",
    ],
)
def test_nothing_from_outside_can_drive_the_terminal(hostile: str) -> None:
    for text in (clean(hostile), *clean_lines(hostile)):
        assert text == "" or text.isprintable()
        assert "\x1b" not in text


def test_a_progress_line_shows_what_was_written_last() -> None:
    assert clean_lines("10%\r55%\r100%\ndone\r\n\x1b[32mgreen\x1b[0m") == ["100%", "done", "green"]


def test_fit_counts_cells_not_characters() -> None:
    assert fit("日本語", 8) == "日本語  "
    assert fit("日本語の説明", 6) == "日本 …"
    assert fit("7", 3, right=True) == "  7"
    assert fit("anything", 0) == ""


def test_fit_middle_keeps_both_ends() -> None:
    assert fit_middle("/home/agent/project/file.py", 15) == "/home/a…file.py"
    assert fit_middle("short", 15) == "short"


def test_wrap_breaks_at_spaces_and_else_anywhere() -> None:
    assert wrap("a reason that is long", 10) == ["a reason", "that is", "long"]
    assert wrap("https://example.org/very/long", 10) == ["https://ex", "ample.org/", "very/long"]
    assert wrap("", 10) == [""]


def test_glyphs_follow_the_encoding() -> None:
    assert glyphs_for("UTF-8") is UNICODE
    assert glyphs_for("ANSI_X3.4-1968") is ASCII
    assert all(glyph.isascii() for glyph in ASCII)

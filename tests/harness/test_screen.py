"""`GET /screen`: the present screen as text, cells and SVG."""

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from tests.harness.conftest import RunningHarness, bash
from tests.waiting import until

SVG = "{http://www.w3.org/2000/svg}"


async def shown(harness: RunningHarness, script: str, **body: Any) -> None:
    """A session whose agent has shown what `script` prints before `done`."""
    await harness.ready(command=bash(f"{script}; printf done; sleep 99"), **body)

    async def done() -> bool:
        return (await harness.http.get("/screen")).text.rstrip("\n").endswith("done")

    await until(done, "the script's output")


async def test_text_is_the_rows_joined(harness: RunningHarness) -> None:
    await shown(harness, "echo 'one  '; echo; printf ' \\033[1mtwo\\033[m ✻ 日本\\n'")
    response = await harness.http.get("/screen?format=text")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text.split("\n") == [
        "one",
        "",
        " two ✻ 日本",
        "done",
        *[""] * 26,
    ]


async def test_cells_tell_text_style_cursor_and_title(harness: RunningHarness) -> None:
    await shown(
        harness,
        r"printf '\033]2;a title\007a\033[1;38;5;9mb\033[0;48;2;1;2;3m c \033[30;49m0\033[4:3;58:5:7mu\033[m"
        r" 日\n\033]8;;http://x/\033\\link\033]8;;\033\\\n'",
    )
    response = await harness.http.get("/screen", params={"format": "cells"})
    assert response.headers["content-type"] == "application/json"
    screen = response.json()
    lines = screen.pop("lines")
    assert screen == {
        "columns": 100,
        "rows": 30,
        "cursor": {"x": 4, "y": 2, "visible": True},
        "title": "a title",
        "alternate": False,
        "scrollback": 0,
    }
    assert lines[0] == [
        {"text": "a", "width": 1},
        {"text": "b", "width": 1, "fg": 9, "bold": True},
        {"text": " c ", "width": 3, "bg": [1, 2, 3]},
        {"text": "0", "width": 1, "fg": 0},
        {"text": "u", "width": 1, "fg": 0, "underline": 3, "underline_color": 7},
        {"text": " 日", "width": 3},
    ]
    assert lines[1] == [{"text": "link", "width": 4, "link": "http://x/"}]
    assert lines[2] == [{"text": "done", "width": 4}]
    assert lines[3:] == [[]] * 27


async def test_svg_is_a_picture_by_itself(harness: RunningHarness) -> None:
    await shown(
        harness,
        r"printf '\033]2;<title>\007<&>\033[1;3;4;7;31mstyled\033[m\033[8mhidden\033[m\033[48;5;4m  \033[m"
        r"\033]8;;javascript:alert(1)\033\\link\033]8;;\033\\\n'",
    )
    response = await harness.http.get("/screen?format=svg")
    assert response.headers["content-type"] == "image/svg+xml"
    assert "javascript" not in response.text
    assert "hidden" not in response.text
    picture = ElementTree.fromstring(response.content)
    assert picture.tag == f"{SVG}svg"
    assert picture.findtext(f"{SVG}title") == "<title>"
    texts = {element.text: element.attrib for element in picture.iter(f"{SVG}text")}
    assert texts["<&>"]["x"] == "0"
    assert texts["styled"]["font-weight"] == "bold"
    assert "underline" in texts["styled"]["style"]
    assert texts["link"]["textLength"] == "36"
    fills = [element.get("fill") for element in picture.iter(f"{SVG}rect")]
    assert "#cd0000" in fills  # Reversed, so the text's colour is behind it.
    assert fills[-1] == "none"  # The cursor's outline.


@pytest.mark.parametrize(("asked", "lines"), [("0", 0), ("5", 5), ("10000", 71), ("99999999", 71)])
async def test_scrollback_comes_first(harness: RunningHarness, asked: str, lines: int) -> None:
    await shown(harness, "seq 100")
    text = (await harness.http.get("/screen", params={"scrollback": asked})).text.split("\n")
    assert text == [*(str(number) for number in range(72 - lines, 101)), "done"]
    screen = (await harness.http.get("/screen", params={"format": "cells", "scrollback": asked})).json()
    assert screen["scrollback"] == lines
    assert screen["cursor"]["y"] == 29
    assert screen["lines"][lines + 29] == [{"text": "done", "width": 4}]
    svg = await harness.http.get("/screen", params={"format": "svg", "scrollback": asked})
    assert ElementTree.fromstring(svg.content).get("height") == str((30 + lines) * 18)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("format=png", "format"),
        ("format=", None),
        ("scrollback=x", "scrollback"),
        ("scrollback=-1", "scrollback"),
        ("scrollback=1e3", "scrollback"),
        ("scrollback=999999999999", "scrollback"),
        ("scrollback=%D9%A3", "scrollback"),
    ],
)
async def test_bad_queries_are_refused(harness: RunningHarness, query: str, problem: str | None) -> None:
    await harness.ready()
    response = await harness.http.get(f"/screen?{query}")
    assert response.status_code == (400 if problem else 200)
    if problem:
        assert problem in response.json()["error"]


async def test_there_is_none_before_the_agent_starts(harness: RunningHarness) -> None:
    response = await harness.http.get("/screen")
    assert response.status_code == 409
    assert "has not started" in response.json()["error"]


async def test_a_harness_without_a_terminal_has_none(harness: RunningHarness) -> None:
    await harness.session(harness_id="opencode", command="sleep 99")
    response = await harness.http.get("/screen")
    assert (response.status_code, response.json()) == (404, {"error": "this harness has no terminal"})


async def test_the_last_screen_stays_after_the_end(harness: RunningHarness) -> None:
    await harness.ready()
    tty = await harness.attach2()
    await tty.type("echo last wo''rds; exit\r")
    await tty.closed()
    assert "last words" in (await harness.http.get("/screen")).text


async def test_many_requests_on_one_connection_are_answered_in_order(harness: RunningHarness) -> None:
    await shown(harness, "seq 3")
    for form in ("text", "svg", "cells") * 3:
        assert (await harness.http.get("/screen", params={"format": form})).status_code == 200
    assert (await harness.http.get("/healthz")).json()["ok"]

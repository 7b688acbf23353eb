"""Recordings: asciicast v3, what is in them, their limit, and their download."""

import json
from typing import Any

import pytest

from tests.harness.conftest import RunningHarness, bash


def events(text: str) -> tuple[dict[str, Any], list[tuple[float, str, str]]]:
    """The header and the events of a recording; each line must be JSON of the right form."""
    header, *lines = [json.loads(line) for line in text.splitlines()]
    assert text.endswith("\n")
    for line in lines:
        interval, code, data = line
        assert isinstance(interval, int | float)
        assert interval >= 0
        assert code in "ormx"
        assert isinstance(data, str)
    return header, lines


def output(lines: list[tuple[float, str, str]]) -> str:
    return "".join(data for _, code, data in lines if code == "o")


async def test_nothing_is_recorded_unless_wanted(harness: RunningHarness) -> None:
    assert (await harness.http.get("/recording")).status_code == 404
    await harness.ready(recording=False)
    response = await harness.http.get("/recording")
    assert (response.status_code, response.json()) == (404, {"error": "there is no recording"})
    assert not (harness.root / "recording.cast").exists()


async def test_output_sizes_and_the_end_are_recorded_and_input_is_not(harness: RunningHarness) -> None:
    script = "stty -echo; echo begin ✻; read -rs secret; printf '\\033[5nthanks\\n'; read -r _; exit 7"
    await harness.ready(command=bash(script), recording=True)
    tty = await harness.attach2()
    await tty.shows("begin ✻")
    await tty.type("hunter2\r")
    await tty.shows("thanks")
    await tty.send(type="resize", cols=70, rows=20)
    await tty.control("size", cols=70, rows=20)
    await tty.type("\r")
    await tty.closed()

    response = await harness.http.get("/recording")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-asciicast"
    header, lines = events(response.text)
    assert header.pop("timestamp") > 1_700_000_000
    assert header == {"version": 3, "term": {"cols": 100, "rows": 30, "type": "xterm-256color"}}
    assert output(lines).startswith("begin ✻\r\n")
    assert "thanks" in output(lines)
    assert "\x1b[5n" not in output(lines)
    assert "hunter2" not in response.text
    assert [(code, data) for _, code, data in lines if code != "o"] == [("r", "70x20"), ("x", "7")]
    file = harness.root / "recording.cast"
    assert file.read_text() == response.text
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_download_has_all_that_was_shown_so_far_and_later_ones_more(harness: RunningHarness) -> None:
    await harness.ready(recording=True)
    tty = await harness.attach2()
    for word in ("first", "second"):
        await tty.type(f"echo {word[:2]}''{word[2:]}\r")
        await tty.shows(word)
        _, lines = events((await harness.http.get("/recording")).text)
        assert word in output(lines)
    assert "first" in output(lines)


async def test_an_agent_that_starts_again_goes_on_in_the_same_recording(harness: RunningHarness) -> None:
    await harness.ready(recording=True)
    for _ in range(2):
        tty = await harness.attach2(cols=90, rows=25)
        await tty.type("kill -9 $$\r")
        await tty.closed()
    _, lines = events((await harness.http.get("/recording")).text)
    told = [(code, data) for _, code, data in lines if code != "o"]
    assert told == [("r", "90x25"), ("x", "137"), ("m", "started again"), ("r", "90x25"), ("x", "137")]


async def test_a_recording_ends_with_a_marker_at_its_limit(harness: RunningHarness) -> None:
    await harness.ready(recording=True, recording_max_mb=0.05)
    tty = await harness.attach2()
    await tty.type("seq 100000; echo fl''ood over\r")
    await tty.shows("flood over")
    response = await harness.http.get("/recording")
    assert 1_000 < len(response.content) <= 0.05 * 1024 * 1024
    _, lines = events(response.text)
    assert lines[-1][1:] == ["m", "recording ended: 0.05 MB reached"]
    await tty.type("echo still ali''ve\r")
    await tty.shows("still alive")
    assert (await harness.http.get("/recording")).content == response.content


async def test_a_large_recording_is_downloaded_whole(harness: RunningHarness) -> None:
    await harness.ready(recording=True)
    tty = await harness.attach2()
    await tty.type("seq 200000; echo fl''ood over\r")
    await tty.shows("flood over")
    async with harness.http.stream("GET", "/recording") as response:
        text = (await response.aread()).decode()
        assert len(text.encode()) == int(response.headers["content-length"])
    shown = output(events(text)[1])
    numbers = [word for word in shown.split() if word.isdigit()]
    assert numbers == [str(number) for number in range(1, 200_001)]
    assert (await harness.http.get("/healthz")).status_code == 200


async def test_what_is_left_is_written_when_the_harness_stops(start: Any) -> None:
    harness: RunningHarness = await start()
    await harness.ready(recording=True)
    tty = await harness.attach2()
    await tty.type("echo last wo''rds\r")
    await tty.shows("last words")
    assert await harness.stop() == 0
    _, lines = events((harness.root / "recording.cast").read_text())
    assert "last words" in output(lines)


async def test_a_recording_that_cannot_be_written_stops_nothing_else(harness: RunningHarness) -> None:
    (harness.root / "recording.cast").mkdir()
    await harness.ready(recording=True)
    tty = await harness.attach2()
    await tty.type("echo al''ive\r")
    await tty.shows("alive")
    assert "recording ended: cannot write recording.cast" in harness.log()
    response = await harness.http.get("/recording")
    assert response.status_code == 404
    assert "cannot be read" in response.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {"recording": "yes"},
        {"recording": 1},
        {"recording": [True]},
        {"recording": True, "recording_max_mb": "64"},
        {"recording": True, "recording_max_mb": True},
    ],
)
async def test_a_bad_wish_is_refused(harness: RunningHarness, body: dict[str, Any]) -> None:
    response = await harness.http.post("/session", json={"harness_id": "codex", **body})
    assert response.status_code == 400
    assert "recording" in response.json()["error"]


@pytest.mark.parametrize("limit", ["0", "-5", "1e-9", "NaN"])
async def test_even_a_silly_limit_holds(harness: RunningHarness, limit: str) -> None:
    body = f'{{"harness_id": "codex", "command": "seq 5000; sleep 99", "recording": true, "recording_max_mb": {limit}}}'
    assert (await harness.http.post("/session", content=body)).status_code == 200
    await harness.until(lambda state: state["setup"] == "done")
    tty = await harness.attach2()
    await tty.shows("5000")
    assert len((await harness.http.get("/recording")).content) <= 1_100

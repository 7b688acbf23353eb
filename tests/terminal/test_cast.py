"""Recordings: read whatever they hold, and the same screen wherever one comes from."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapconsole.terminal.cast import IDLE_SECONDS, Cast, Player, read
from lapconsole.terminal.emulator import Emulator

HEADER = {"version": 3, "term": {"cols": 20, "rows": 4, "type": "xterm-256color"}, "timestamp": 1}


def cast_of(*events: object, header: object = HEADER) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in (header, *events))


def test_version_3_has_intervals_and_version_2_times() -> None:
    cast = read(cast_of([0.5, "o", "a"], [10, "r", "30x5"], [0.25, "x", "0"]))
    assert (cast.columns, cast.lines, cast.damage) == (20, 4, "")
    assert list(cast.times) == [0.5, 10.5, 10.75]
    assert list(cast.short_times) == [0.5, 0.5 + IDLE_SECONDS, 0.75 + IDLE_SECONDS]
    old = read(cast_of([0.5, "o", "a"], [10, "o", "b"], [9, "o", "c"], header={"version": 2, "width": 9, "height": 3}))
    assert (old.columns, old.lines, list(old.times)) == (9, 3, [0.5, 10, 10])


@pytest.mark.parametrize(
    ("source", "damage"),
    [
        (b"", "line 1: not the header"),
        (b"hello\n", "line 1: not the header"),
        (b'{"version": 1}\n', "line 1: not the header"),
        (cast_of([1, "o", "a"]) + b'[0.2, "o", "b', "line 3: damaged or cut off"),
        (cast_of([1, "o", "a"]) + b"# a comment\n\n\xff\xfe\n", "line 5: damaged"),
        (cast_of(["1", "o", "a"]), "line 2: damaged"),
        (cast_of([True, "o", "a"]), "line 2: damaged"),
        (cast_of([-1, "o", "a"]), "line 2: damaged"),
        (cast_of([float("nan"), "o", "a"]), "line 2: damaged"),
        (cast_of([10**400, "o", "a"]), "line 2: damaged"),
        (cast_of([3e8, "o", "a"], [3e8, "o", "a"]), "line 3: an impossible time"),
        (cast_of([1, "o", "a"])[:40], "line 1: not the header"),
    ],
)
def test_damage_is_told_with_its_place(source: bytes, damage: str) -> None:
    assert read(source).damage.startswith(damage)


def test_what_is_behind_a_damaged_line_is_played() -> None:
    cast = read(cast_of([1, "o", "a"], "?", [1, "o", "b"]))
    assert (cast.damage[:6], cast.data) == ("line 3", ["a", "b"])


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_no_bytes_raise(source: bytes, tail: bytes) -> None:
    for data in (source, cast_of([0.1, "o", "a"]) + source, cast_of([0.1, "o", "é"], [3, "r", "10x3"])[:-9] + tail):
        player = Player(read(data))
        player.seek(1e9)
        player.finish()


texts = st.lists(
    st.sampled_from(["one ", "\r\n", "\x1b[31m", "\x1b[2J\x1b[H", "日本", "\x1b[", "7m", "\x1b[?1049h", "é"])
)
events = st.lists(
    st.tuples(st.floats(0, 5), st.just("o"), texts.map("".join))
    | st.tuples(st.floats(0, 5), st.just("r"), st.sampled_from(["5x3", "30x8", "20x4", "0x0", "x"]))
    | st.tuples(st.floats(0, 5), st.sampled_from(["m", "i", "", "x"]), st.text(max_size=3)),
    max_size=30,
)


@settings(deadline=None)
@given(events, st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_seeking_shows_what_playing_to_there_shows(events: list[tuple[float, str, str]], places: list[float]) -> None:
    cast = read(cast_of(*events))
    assert cast.damage == ""
    jumping = Player(cast, spacing=100)
    for place in places:
        jumping.seek(place * jumping.duration)
        straight = Player(cast, spacing=1 << 60)
        straight.seek(jumping.position)
        assert jumping.finish().repaint() == straight.finish().repaint()


@settings(deadline=None)
@given(events, st.floats(0, 1))
def test_leaving_idle_time_out_keeps_the_screen(events: list[tuple[float, str, str]], place: float) -> None:
    player = Player(read(cast_of(*events)))
    player.seek(place * player.duration)
    shown = player.finish().repaint()
    for on in (False, True):
        player.trim(on)
        assert 0 <= player.position <= player.duration
        player.seek(player.position)
        assert player.finish().repaint() == shown


def long_cast() -> Cast:
    return read(cast_of(*([0.01, "o", f"line {number} {'x' * 900}\r\n"] for number in range(400))))


def test_a_second_way_is_short() -> None:
    player = Player(long_cast(), spacing=20_000)
    player.seek(player.duration)
    steps = 0
    while player.behind:
        steps += 1
        player.step()
    assert steps > 400
    for moment in (0.5, 0.1, 0.9):
        player.seek(moment * player.duration)
        steps = 0
        while player.behind:
            steps += 1
            player.step()
        assert steps < 50
        emulator = Emulator(20, 4, scrollback=0)
        done = sum(at <= player.position for at in player.cast.times)
        emulator.feed("".join(player.cast.data[:done]))
        assert player.emulator.text() == emulator.text()


def test_a_way_can_be_changed_in_the_middle() -> None:
    player = Player(read(cast_of([0, "o", "start"], [1, "o", "x" * 100_000], [1, "o", "\x1b[2J\x1b[Hend"])))
    player.seek(2)
    player.work(0)
    player.step()
    player.step()
    assert player.behind and 0 < player.progress < 1
    player.seek(0)
    assert player.finish().text()[0] == "start"
    player.seek(2)
    assert player.finish().text()[0] == "end"


def test_notes_tell_what_the_recorder_said() -> None:
    player = Player(read(cast_of([0, "o", "a"], [1, "m", "started\x1b again"], [1, "x", "7"])))
    assert player.note == ""
    player.seek(1)
    assert player.note == "started again"
    player.seek(2)
    assert player.note == "exited with 7"
    assert player.ended and player.until_next is None

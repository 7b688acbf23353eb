"""Keys, mouse, paste and focus as bytes: the tables of xterm, modifyOtherKeys and the kitty keyboard protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import constants
from textual._xterm_parser import XTermParser
from textual.events import Key

from lapconsole.terminal import alt_keys
from lapconsole.terminal import input as encode
from lapconsole.terminal.modes import Modes

PLAIN = Modes()
APPLICATION = replace(PLAIN, application_cursor=True, application_keypad=True)
KITTY = replace(PLAIN, kitty_flags=1)
CODEX = replace(PLAIN, kitty_flags=7)
EVERY_KEY = replace(PLAIN, kitty_flags=1 | 8 | 16)
OTHER_1 = replace(PLAIN, modify_other_keys=1)
OTHER_2 = replace(PLAIN, modify_other_keys=2)


def typed(key: str, modes: Modes = PLAIN, character: str | None = None) -> bytes:
    return encode.key(key, Key(key, character).character, modes)


def pressed(data: str) -> list[Key]:
    """What Textual makes of what an outer terminal sends, once nothing more comes."""
    parser = XTermParser()
    keys = [event for event in parser.feed(data) if isinstance(event, Key)]
    parser._timeout_time = 0.0 if parser._timeout_time is not None else None
    return keys + [event for event in parser.tick() if isinstance(event, Key)]


def through(data: str, modes: Modes = PLAIN) -> bytes:
    """What reaches the program when the outer terminal sends `data`."""
    return b"".join(encode.key(event.key, event.character, modes) for event in pressed(data))


@pytest.mark.parametrize(
    ("key", "character", "sent"),
    [
        ("a", "a", b"a"),
        ("A", "A", b"A"),
        ("é", "é", "é".encode()),
        ("日", "日", "日".encode()),
        ("space", " ", b" "),
        ("full_stop", ".", b"."),
        ("plus", None, b"+"),
        ("enter", "\r", b"\r"),
        ("tab", "\t", b"\t"),
        ("shift+tab", None, b"\x1b[Z"),
        ("escape", "\x1b", b"\x1b"),
        ("escape", None, b"\x1b"),
        ("backspace", "\x7f", b"\x7f"),
        ("backspace", "\x08", b"\x08"),
        ("ctrl+backspace", None, b"\x08"),
        ("ctrl+j", "\n", b"\n"),
        ("ctrl+c", "\x03", b"\x03"),
        ("ctrl+q", "\x11", b"\x11"),
        ("ctrl+p", None, b"\x10"),
        ("ctrl+@", "\0", b"\0"),
        ("ctrl+space", None, b"\0"),
        ("ctrl+left_square_bracket", None, b"\x1b"),
        ("ctrl+right_square_bracket", "\x1d", b"\x1d"),
        ("ctrl+5", None, b"\x1d"),
        ("ctrl+backslash", "\x1c", b"\x1c"),
        ("ctrl+underscore", "\x1f", b"\x1f"),
        ("ctrl+shift+minus", None, b"\x1f"),
        ("ctrl+slash", None, b"\x1f"),
        ("ctrl+shift+2", None, b"\0"),
        ("ctrl+circumflex_accent", "\x1e", b"\x1e"),
        ("ctrl+shift+a", None, b"\x01"),
        ("ctrl+semicolon", None, b";"),
        ("alt+b", None, b"\x1bb"),
        ("alt+b", "b", b"\x1bb"),
        ("alt+shift+b", "B", b"\x1bB"),
        ("alt+shift+full_stop", None, b"\x1b>"),
        ("alt+enter", None, b"\x1b\r"),
        ("alt+backspace", None, b"\x1b\x7f"),
        ("alt+escape", None, b"\x1b\x1b"),
        ("alt+é", "é", b"\x1b" + "é".encode()),
        ("alt+ctrl+a", None, b"\x1b\x01"),
        ("alt+shift+tab", None, b"\x1b\x1b[Z"),
        ("up", None, b"\x1b[A"),
        ("home", None, b"\x1b[H"),
        ("ctrl+left", None, b"\x1b[1;5D"),
        ("alt+ctrl+shift+end", None, b"\x1b[1;8F"),
        ("pageup", None, b"\x1b[5~"),
        ("shift+delete", None, b"\x1b[3;2~"),
        ("f1", None, b"\x1bOP"),
        ("shift+f4", None, b"\x1b[1;2S"),
        ("f5", None, b"\x1b[15~"),
        ("ctrl+f12", None, b"\x1b[24;5~"),
        ("f20", None, b"\x1b[34~"),
        ("add", "+", b"+"),
        ("decimal", None, b"."),
    ],
)
def test_legacy_keys(key: str, character: str | None, sent: bytes) -> None:
    assert typed(key, PLAIN, character) == sent


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("up", b"\x1bOA"),
        ("home", b"\x1bOH"),
        ("shift+up", b"\x1b[1;2A"),
        ("f1", b"\x1bOP"),
        ("add", b"\x1bOk"),
        ("divide", b"\x1bOo"),
        ("pageup", b"\x1b[5~"),
        ("a", b"a"),
    ],
)
def test_application_keys(key: str, sent: bytes) -> None:
    assert typed(key, APPLICATION) == sent


@pytest.mark.parametrize(
    ("key", "character", "sent"),
    [
        ("a", "a", b"a"),
        ("A", "A", b"A"),
        ("shift+space", " ", b" "),
        ("enter", "\r", b"\r"),
        ("tab", "\t", b"\t"),
        ("backspace", "\x7f", b"\x7f"),
        ("escape", "\x1b", b"\x1b[27u"),
        ("shift+enter", None, b"\x1b[13;2u"),
        ("alt+enter", None, b"\x1b[13;3u"),
        ("shift+tab", None, b"\x1b[9;2u"),
        ("ctrl+backspace", None, b"\x1b[127;5u"),
        ("backspace", "\x08", b"\x1b[104;5u"),
        ("ctrl+c", "\x03", b"\x1b[99;5u"),
        ("ctrl+@", "\0", b"\x1b[32;5u"),
        ("ctrl+shift+a", None, b"\x1b[97;6u"),
        ("alt+b", None, b"\x1b[98;3u"),
        ("alt+shift+b", "B", b"\x1b[98;4u"),
        ("super+k", None, b"\x1b[107;9u"),
        ("hyper+meta+k", None, b"\x1b[107;49u"),
        ("up", None, b"\x1b[A"),
        ("ctrl+up", None, b"\x1b[1;5A"),
        ("f1", None, b"\x1b[P"),
        ("f3", None, b"\x1b[13~"),
        ("ctrl+f5", None, b"\x1b[15;5~"),
        ("f13", None, b"\x1b[57376u"),
        ("menu", None, b"\x1b[57363u"),
        ("alt+add", None, b"\x1b[57413;3u"),
        ("add", "+", b"+"),
    ],
)
def test_kitty_disambiguates(key: str, character: str | None, sent: bytes) -> None:
    assert typed(key, replace(KITTY, application_cursor=True), character) == sent


def test_kitty_alternate_keys_and_text() -> None:
    assert typed("ctrl+shift+a", CODEX) == b"\x1b[97:65;6u"
    assert typed("enter", CODEX, "\r") == b"\r"
    assert typed("a", EVERY_KEY) == b"\x1b[97;;97u"
    assert typed("A", EVERY_KEY) == b"\x1b[97;2;65u"
    assert typed("enter", EVERY_KEY, "\r") == b"\x1b[13u"
    assert typed("ctrl+c", EVERY_KEY) == b"\x1b[99;5u"


@pytest.mark.parametrize(
    ("key", "level_1", "level_2"),
    [
        ("a", b"a", b"a"),
        ("A", b"A", b"A"),
        ("ctrl+a", b"\x01", b"\x1b[27;5;97~"),
        ("ctrl+shift+a", b"\x1b[27;6;65~", b"\x1b[27;6;65~"),
        ("alt+a", b"\x1ba", b"\x1b[27;3;97~"),
        ("ctrl+semicolon", b"\x1b[27;5;59~", b"\x1b[27;5;59~"),
        ("ctrl+2", b"\0", b"\x1b[27;5;50~"),
        ("ctrl+space", b"\0", b"\x1b[27;5;32~"),
        ("enter", b"\r", b"\r"),
        ("shift+enter", b"\x1b[27;2;13~", b"\x1b[27;2;13~"),
        ("ctrl+tab", b"\x1b[27;5;9~", b"\x1b[27;5;9~"),
        ("shift+tab", b"\x1b[Z", b"\x1b[Z"),
        ("ctrl+backspace", b"\x08", b"\x08"),
        ("alt+backspace", b"\x1b\x7f", b"\x1b[27;3;127~"),
        ("ctrl+up", b"\x1b[1;5A", b"\x1b[1;5A"),
        ("ctrl+f1", b"\x1b[1;5P", b"\x1b[1;5P"),
    ],
)
def test_modify_other_keys(key: str, level_1: bytes, level_2: bytes) -> None:
    assert typed(key, OTHER_1) == level_1
    assert typed(key, OTHER_2) == level_2


@pytest.mark.parametrize(
    "key", ["left_shift", "caps_lock", "mute_volume", "alt+caps_lock", "<ignore>", "\x19", "super+x"]
)
def test_keys_no_terminal_sends(key: str) -> None:
    assert typed(key) == b""


@pytest.mark.parametrize(
    "data",
    [
        *("\x1b[A", "\x1b[1;5D", "\x1b[3~", "\x1bOP", "\x1b[15;2~", "\x1b[Z", "\x01", "\x08", "\x7f", "\x1d", "\0"),
        *("a", "Z", "é", "日", " ", "\t", "\r", "\n", "\x1b", "~", "\x1b[1;2P", "\x1b[24~"),
    ],
)
def test_an_outer_terminal_without_protocols_is_transparent(data: str) -> None:
    assert through(data) == data.encode()


@pytest.fixture
def alt_claimed() -> Iterator[None]:
    alt_keys.claim(alt_claimed)
    yield
    alt_keys.release(alt_claimed)


@pytest.mark.usefixtures("alt_claimed")
@pytest.mark.parametrize(
    "character", ["b", "f", "B", "x", ".", "1", "0", "-", "\r", "\x7f", " ", "\x01", "!", "]", "\\"]
)
def test_alt_keys_pass_unchanged_while_claimed(character: str) -> None:
    assert through(f"\x1b{character}") == f"\x1b{character}".encode()


@pytest.mark.usefixtures("alt_claimed")
def test_claiming_alt_keys_leaves_the_others() -> None:
    assert [event.key for event in pressed("\x1b[A\x1bOB\x1b\t")] == ["up", "down", "shift+tab"]
    assert through("\x1b\x1b") == b"\x1b\x1b"


def test_alt_keys_are_put_back_when_the_last_holder_lets_go() -> None:
    before = [event.key for event in pressed("\x1bb\x1b1")]
    alt_keys.claim("one")
    alt_keys.claim("two")
    alt_keys.release("one")
    assert pressed("\x1bb")[0].key == "alt+b"
    alt_keys.release("two")
    alt_keys.release("two")
    assert [event.key for event in pressed("\x1bb\x1b1")] == before


@pytest.mark.skipif(constants.DISABLE_KITTY_KEY, reason="switched off by the environment")
@pytest.mark.parametrize(
    ("data", "sent"),
    [
        ("\x1b[97;;97u", b"a"),
        ("\x1b[97;2;65u", b"A"),
        ("\x1b[97;5u", b"\x01"),
        ("\x1b[13u", b"\r"),
        ("\x1b[13;2u", b"\r"),
        ("\x1b[13;129u", b"\r"),
        ("\x1b[27u", b"\x1b"),
        ("\x1b[127u", b"\x7f"),
        ("\x1b[98;3u", b"\x1bb"),
        ("\x1b[93;5u", b"\x1d"),
        ("\x1b[57441;2u", b""),
        ("\x1b[57413;129;43u", b"+"),
        ("\x1b[1;129A", b"\x1b[A"),
    ],
)
def test_an_outer_terminal_with_the_kitty_protocol(data: str, sent: bytes) -> None:
    assert through(data) == sent


KITTY_CODES = re.compile(rb"\x1b\[(\d+)(?::\d+)?(?:;(\d+))?u")


@given(
    letter=st.sampled_from("abcxyz0189;[/ "),
    held=st.sets(st.sampled_from(["alt", "ctrl", "shift", "super"]), min_size=1),
    flags=st.sampled_from([1, 3, 5, 7]),
)
def test_kitty_names_key_and_modifiers(letter: str, held: set[str], flags: int) -> None:
    """What a program reads out of the sequence is what was pressed."""
    name = "+".join([*sorted(held), "space" if letter == " " else letter])
    sent = typed(name, replace(PLAIN, kitty_flags=flags))
    if held == {"shift"}:
        assert len(sent.decode()) == 1
        return
    match = KITTY_CODES.fullmatch(sent)
    assert match is not None
    bits = {"shift": 1, "alt": 2, "ctrl": 4, "super": 8}
    assert chr(int(match[1])) == letter
    assert int(match[2]) - 1 == sum(bits[modifier] for modifier in held)


@given(
    key=st.text(max_size=12),
    character=st.none() | st.characters(),
    flags=st.integers(0, 31),
    level=st.integers(0, 2),
    application=st.booleans(),
)
def test_any_key_gives_bytes(key: str, character: str | None, flags: int, level: int, application: bool) -> None:
    modes = replace(
        PLAIN,
        kitty_flags=flags,
        modify_other_keys=level,
        application_cursor=application,
        application_keypad=application,
    )
    assert isinstance(encode.key(key, character, modes), bytes)


# Mouse

SGR = replace(PLAIN, mouse=1000, mouse_sgr=True)


@pytest.mark.parametrize(
    ("action", "button", "sgr", "legacy"),
    [
        ("press", 1, b"\x1b[<0;3;5M", b"\x1b[M #%"),
        ("press", 3, b"\x1b[<2;3;5M", b'\x1b[M"#%'),
        ("release", 1, b"\x1b[<0;3;5m", b"\x1b[M##%"),
        ("press", encode.WHEEL_UP, b"\x1b[<64;3;5M", b"\x1b[M`#%"),
        ("press", encode.WHEEL_RIGHT, b"\x1b[<67;3;5M", b"\x1b[Mc#%"),
    ],
)
def test_mouse_buttons(action: encode.MouseAction, button: int, sgr: bytes, legacy: bytes) -> None:
    assert encode.mouse(action, button, 2, 4, SGR) == sgr
    assert encode.mouse(action, button, 2, 4, replace(SGR, mouse_sgr=False)) == legacy


def test_mouse_modifiers() -> None:
    assert encode.mouse("press", 1, 0, 0, SGR, shift=True, alt=True, ctrl=True) == b"\x1b[<28;1;1M"


def test_mouse_motion_by_mode() -> None:
    drag, hover = replace(SGR, mouse=1002), replace(SGR, mouse=1003)
    assert encode.mouse("move", 1, 0, 0, SGR) == b""
    assert encode.mouse("move", 1, 0, 0, drag) == b"\x1b[<32;1;1M"
    assert encode.mouse("move", encode.NO_BUTTON, 0, 0, drag) == b""
    assert encode.mouse("move", encode.NO_BUTTON, 0, 0, hover) == b"\x1b[<35;1;1M"


def test_mouse_off_and_x10() -> None:
    assert encode.mouse("press", 1, 0, 0, PLAIN) == b""
    x10 = replace(PLAIN, mouse=9)
    assert encode.mouse("press", 1, 0, 0, x10, ctrl=True) == b"\x1b[M !!"
    assert encode.mouse("release", 1, 0, 0, x10) == b""
    assert encode.mouse("press", encode.WHEEL_UP, 0, 0, x10) == b""


def test_legacy_mouse_ends_at_cell_222() -> None:
    legacy = replace(SGR, mouse_sgr=False)
    assert encode.mouse("press", 1, 222, 0, legacy) == b"\x1b[M \xff!"
    assert encode.mouse("press", 1, 223, 0, legacy) == b""
    assert encode.mouse("press", 1, 223, 0, SGR) == b"\x1b[<0;224;1M"


@given(
    action=st.sampled_from(["press", "release", "move"]),
    button=st.integers(0, 7),
    column=st.integers(0, 499),
    row=st.integers(0, 299),
    mode=st.sampled_from([0, 9, 1000, 1002, 1003]),
)
def test_sgr_reports_carry_the_cell(action: encode.MouseAction, button: int, column: int, row: int, mode: int) -> None:
    report = encode.mouse(action, button, column, row, replace(SGR, mouse=mode))
    assert not report or report.endswith(f";{column + 1};{row + 1}{'m' if action == 'release' else 'M'}".encode())


def test_wheel_becomes_arrows() -> None:
    assert encode.wheel_keys(True, PLAIN) == b"\x1b[A" * 3
    assert encode.wheel_keys(False, APPLICATION, lines=1) == b"\x1bOB"


# Paste and focus

BRACKETED = replace(PLAIN, bracketed_paste=True)


def test_paste() -> None:
    assert encode.paste("one\ntwo\r\nthree\tfour", PLAIN) == b"one\rtwo\rthree\tfour"
    assert encode.paste("one\ntwo", BRACKETED) == b"\x1b[200~one\rtwo\x1b[201~"
    assert encode.paste("日本", PLAIN) == "日本".encode()


@pytest.mark.parametrize(
    "text",
    ["a\x1b[201~b", "a\x9b201~b", "a\x1b[200~b", "a\x1b[20\x1b[201~1~b", "a\x1b\x1b[201~[201~b", "a\x9b20\x9b201~1~b"],
)
def test_a_paste_cannot_end_itself(text: str) -> None:
    sent = encode.paste(text, BRACKETED)
    assert sent.startswith(b"\x1b[200~a")
    assert sent.endswith(b"b\x1b[201~")
    assert sent.count(b"\x1b") == 2


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_pasted_text_presses_no_keys(text: str) -> None:
    sent = encode.paste(text, PLAIN).decode()
    assert not re.search("[\x00-\x08\n\x0b\x0c\x0e-\x1f\x7f-\x9f]", sent)
    kept = re.sub("[^\x20-\x7e\xa0-\U0010ffff]", "", sent)
    assert "\x1b" in text or "\x9b" in text or kept == re.sub("[^\x20-\x7e\xa0-\U0010ffff]", "", text)


def test_focus_is_told_when_asked_for() -> None:
    assert encode.focus(True, PLAIN) == b""
    asked = replace(PLAIN, focus_events=True)
    assert encode.focus(True, asked) == b"\x1b[I"
    assert encode.focus(False, asked) == b"\x1b[O"

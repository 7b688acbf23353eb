"""Stubs, which variables get one, and replacing texts in streams."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain import stubs
from backend.domain.stubs import Credential, Replacer

LETTERS = st.text("abc", max_size=30).map(str.encode)
NEEDLES = st.dictionaries(LETTERS.filter(bool), st.text("XYZ", max_size=3).map(str.encode), max_size=4)


@given(NEEDLES, st.lists(LETTERS))
def test_a_stream_is_replaced_as_the_whole_would_be(needles: dict[bytes, bytes], pieces: list[bytes]) -> None:
    replacer = Replacer(needles)
    out = b"".join(replacer.feed(piece) for piece in pieces) + replacer.finish()
    whole = b"".join(pieces)
    pattern = b"|".join(map(re.escape, sorted(needles, key=len, reverse=True)))
    assert out == (re.sub(pattern, lambda match: needles[match[0]], whole) if needles else whole)


@given(st.lists(LETTERS), st.text("abc", min_size=1, max_size=10).map(str.encode))
def test_no_more_is_held_back_than_may_be_a_needle(pieces: list[bytes], needle: bytes) -> None:
    replacer = Replacer({needle: needle})
    fed = passed = 0
    for piece in pieces:
        fed += len(piece)
        passed += len(replacer.feed(piece))
        assert fed - passed < len(needle)


def test_what_was_found_is_told() -> None:
    found: list[bytes] = []
    replacer = Replacer({b"one": b"1", b"one-two": b"12"}, found.append)
    assert replacer.feed(b"one-tw") + replacer.feed(b"o one") + replacer.finish() == b"12 1"
    assert found == [b"one-two", b"one"]


def test_stubs_look_like_stubs() -> None:
    made = stubs.make("My.Weird-NAME__x")
    assert re.fullmatch(r"stub_my_weird_name_x_[0-9a-f]{32}", made)
    assert stubs.PATTERN.fullmatch(made.encode())
    assert made != stubs.make("My.Weird-NAME__x")
    assert stubs.PATTERN.fullmatch(stubs.make("x" * 300).encode())
    assert stubs.PATTERN.fullmatch(stubs.make("___").encode())


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("GITHUB_TOKEN", "ghp_x", False),
        ("ANYTHING", "some text", False),
        ("DATABASE_URL", "postgres://u:p@h/d", False),
        ("LOG_LEVEL", "debug", True),
        ("LC_ALL", "C", True),
        ("LAP_FILE_CONFIG", "aGVsbG8=", True),
        ("AGENT_REQUIREMENTS", "requests", True),
        ("PIP_INDEX_URL", "https://packages.example/simple", True),
        ("PIP_INDEX_URL", "https://user:secret@packages.example/simple", False),
        ("FEATURE_X", "true", True),
        ("RETRIES", "3", True),
        ("EMPTY", "", True),
        ("DB_PIN", "1234", False),
        ("API_KEY", "12345", False),
        ("PASSWORD", "", False),
        ("NUMBER", "123456", False),
    ],
)
def test_which_variables_are_credentials(name: str, value: str, plain: bool) -> None:
    assert stubs.is_plain(name, value) is plain
    assert stubs.is_plain(name, value, [name])


def test_values_are_found_in_all_forms_they_are_written_in() -> None:
    credential = Credential("K", stubs.make("K"), 'a"b/c+d é&=\n%')
    needles = stubs.backward([credential])
    for form in (
        b'a"b/c+d \xc3\xa9&=\n%',
        b'a\\"b/c+d \\u00e9&=\\n%',
        b"a%22b%2Fc%2Bd%20%C3%A9%26%3D%0A%25",
        b"a%22b%2fc%2bd+%c3%a9%26%3d%0a%25",
    ):
        assert Replacer(needles).whole(b"<" + form + b">") == b"<" + credential.stub.encode() + b">"
    assert stubs.backward([Credential("K", "stub_k", "short")]) == {}


def test_the_end_of_a_value_is_shown_only_of_long_ones() -> None:
    assert stubs.tail("sk-1234567890") == "90"
    assert stubs.tail("short") == ""

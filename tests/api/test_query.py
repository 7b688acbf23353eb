"""Query parameters: any text gets a sane meaning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.api.query import clamped, number, position, words
from backend.services.errors import Invalid

TEXTS = st.one_of(st.none(), st.text(), st.from_regex(r"\s*[+-]?[0-9]+\w*"))


@given(TEXTS)
def test_numbers_never_fail_and_stay_in_range(text: str | None) -> None:
    assert 1 <= clamped(text, 50, 1, 200) <= 200
    assert isinstance(number(text, 7), int)


@given(st.integers(-(10**15), 10**15), st.sampled_from(["", " ", "abc", ".5", "e3"]))
def test_the_leading_number_counts(value: int, rest: str) -> None:
    assert number(f"{value}{rest}", 0) == value


@pytest.mark.parametrize("text", [None, "", "abc", "-", "٣", "x1"])
def test_no_number(text: str | None) -> None:
    assert number(text, 50) == 50


@given(TEXTS)
def test_positions_are_exact_or_refused(text: str | None) -> None:
    try:
        value = position(text, "after")
    except Invalid:
        return
    assert value is None if not text else value == int(text)


@given(st.text())
def test_words_are_trimmed_and_bounded(text: str) -> None:
    found = words(text)
    assert found is None or (0 < len(found) <= 100 and all(word == word.strip() and word for word in found))


def test_words() -> None:
    assert words(" a, b,,a ") == {"a", "b"}
    assert words(",") is None

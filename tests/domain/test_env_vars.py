"""Limits and names of env_vars (seed 003)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain import env_vars


def codes(env: dict[str, str]) -> list[str]:
    return [problem.code for problem in env_vars.problems(env)]


def test_fine() -> None:
    assert codes({}) == []
    assert codes({"GITHUB_TOKEN": "x", "_a1": "", "port": "lower case is not reserved"}) == []


@pytest.mark.parametrize("key", ["", "1A", "A-B", "A B", "A=B", "A\n", "Ä", "A\0"])
def test_bad_names(key: str) -> None:
    assert codes({key: "x"}) == ["invalid_name"]


@pytest.mark.parametrize("value", ["\0", "a\0b", "\ud800"])
def test_bad_values_are_not_repeated(value: str) -> None:
    [problem] = env_vars.problems({"A": value})
    assert problem.path == ("env_vars", "A")
    assert value not in problem.message


@pytest.mark.parametrize("key", env_vars.RESERVED_KEYS)
def test_reserved(key: str) -> None:
    [problem] = env_vars.problems({key: "x"})
    assert problem.code == "reserved"
    assert problem.message.startswith("env_vars cannot override reserved keys: REPO_URL, BRANCH, ")


def test_fifty_keys_pass_and_one_more_does_not() -> None:
    assert codes({f"K{number}": "" for number in range(50)}) == []
    assert codes({f"K{number}": "" for number in range(51)}) == ["too_many"]


@pytest.mark.parametrize(("character", "width"), [("a", 1), ("é", 2), ("€", 3), ("😀", 4), ('"', 2), ("\x01", 6)])
def test_size_counts_utf8_of_compact_json(character: str, width: int) -> None:
    room = env_vars.MAX_BYTES - len('{"A":""}')
    text = character * (room // width) + "x" * (room % width)
    assert codes({"A": text}) == []
    assert codes({"A": text + "x"}) == ["too_big"]


def test_all_problems_at_once() -> None:
    assert set(codes({"PORT": "1", "bad-name": "\0", "BIG": "x" * 20_000})) == {
        "reserved",
        "invalid_name",
        "invalid_value",
        "too_big",
    }


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=60))
def test_what_passes_fits_an_environment(env: dict[str, str]) -> None:
    if not env_vars.problems(env):
        assert len(env) <= 50
        assert len(json.dumps(env, ensure_ascii=False, separators=(",", ":")).encode()) <= 16_384
        for key, value in env.items():
            assert key.isascii() and key.isidentifier() and "\0" not in value
            value.encode()


def test_masked() -> None:
    assert env_vars.masked({"A": "secret", "B": ""}) == {"A": "********", "B": "********"}

"""What the forms check before anything is sent; the limits are those of the seeds, to the byte."""

from __future__ import annotations

import pytest

from lapconsole import rules


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("", {}),
        ("A=1", {"A": "1"}),
        ("  export A = 1 \n\n# note\r\nB=", {"A": "1", "B": ""}),
        ("A='x y'\nB=\"q\"\nC='\nD=a=b", {"A": "x y", "B": "q", "C": "'", "D": "a=b"}),
        ("port=1", {"port": "1"}),
    ],
)
def test_variables_are_read(text: str, variables: dict[str, str]) -> None:
    assert rules.parse_variables(text) == (variables, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A=1\nB", "line 2: write KEY=VALUE"),
        ("1A=1", 'line 1: "1A" is not a name'),
        ("=1", 'line 1: "" is not a name'),
        ("Ä=1", "is not a name"),
        ("A=1\nA=2", "line 2: A is there twice"),
        ("PORT=1\nBRANCH=2", "BRANCH, PORT: set by the platform itself"),
        ("GIT_TOKEN=x", "name it GITHUB_TOKEN"),
        ("\n".join(f"A{number}=" for number in range(51)), "51 variables; at most 50"),
    ],
)
def test_bad_variables_are_named(text: str, problem: str) -> None:
    assert problem in rules.parse_variables(text)[1]


def test_the_size_limit_is_that_of_compact_json_in_bytes() -> None:
    room = 16_384 - len('{"A":""}')
    assert rules.variables_problem({"A": "x" * room}) == ""
    assert "16385 bytes" in rules.variables_problem({"A": "x" * (room + 1)})
    assert "at most 16384" in rules.variables_problem({"A": "ä" * (room // 2 + 1)})
    assert rules.variables_problem({f"A{number}": "" for number in range(50)}) == ""


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://github.com/acme/x.git",
        "http://10.0.0.1:8080/x",
        "ssh://git@host:22/x",
        "git://host/x",
        "file:///srv/x",
        "git@github.com:acme/x.git",
        "/srv/repositories/x",
    ],
)
def test_repositories(url: str) -> None:
    assert rules.repository_problem(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        "-oProxyCommand=x",
        "ext::sh -c id",
        "example.org/x",
        "https://",
        "ftp://h/x",
        "https://h/a b",
        "https://u:p@h/x",
        "https://h:x/",
        "https://[",
        "./x",
        "https://h/\x00",
    ],
)
def test_bad_repositories(url: str) -> None:
    assert rules.repository_problem(url)


@pytest.mark.parametrize("branch", ["", "main", "release/2.1", "feature-x", "日本"])
def test_branches(branch: str) -> None:
    assert rules.branch_problem(branch) == ""


@pytest.mark.parametrize(
    "branch",
    [
        "-x",
        "/x",
        "x/",
        "x.",
        "a..b",
        "a b",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a[",
        "a\\b",
        "@",
        "a@{1}",
        "a.lock",
        "a//b",
        ".a",
        "a/.b",
        "a\x7f",
    ],
)
def test_bad_branches(branch: str) -> None:
    assert rules.branch_problem(branch)

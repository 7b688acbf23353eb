"""Repository addresses and branch names: what git may be given."""

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.repositories import branch_problem, directory_name, url_problem


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/org/repo",
        "https://github.com/org/repo.git",
        "https://user@dev.example.com/org/_git/repo",
        "http://localhost:8080/repo",
        "https://[::1]:8443/repo",
        "ssh://git@github.com:22/org/repo.git",
        "git://example.com/repo",
        "git@github.com:org/repo.git",
        "file:///srv/git/repo",
        "/srv/git/my repo",
    ],
)
def test_accepts(url: str) -> None:
    assert url_problem(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "repo",
        "../repo",
        "~/repo",
        "-uhttps://example.com/repo",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c whoami",
        "ext://sh",
        "fd::17",
        "HTTPS://example.com/repo",
        "https://",
        "https:///repo",
        "https://example.com",
        "https://user:secret@example.com/repo",
        "https://exa mple.com/repo",
        "https://example.com:port/repo",
        "https://-oProxyCommand=x/repo",
        "ssh://-oProxyCommand=x/repo",
        "ssh://git@-oProxyCommand=x/repo",
        "ssh://-lroot@example.com/repo",
        "ssh://example.com/-x",
        "-git@example.com:repo",
        "git@-oProxyCommand=x:repo",
        "git@example.com:-repo",
        "git@example.com:",
        "git@example.com::repo\n",
        "https://example.com/repo\n",
        "https://example.com/re\0po",
        "file://remote/srv/git",
        "file:///",
        "/",
        "/srv/\x1b[2J",
        "https://example.com/\ud800",
        "https://example.com/" + "a" * 2048,
        "user@host",
        "javascript:alert(1)",
    ],
)
def test_refuses(url: str) -> None:
    assert url_problem(url)


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    problem = url_problem(text)
    assert problem is None or text not in problem or len(text) < 20
    if problem is None:
        assert not text.startswith("-")
        assert "::" not in text.split("/")[0]


@pytest.mark.parametrize("branch", ["main", "feature/one", "v1.2", "a-b_c", "ünïcode", "#42", "a@b"])
def test_branch_accepts(branch: str) -> None:
    assert branch_problem(branch) is None


@pytest.mark.parametrize(
    "branch",
    [
        "",
        "-b",
        "--force",
        "@",
        "HEAD",
        "a..b",
        "a b",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a\\b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.lock",
        "a.lock/b",
        "a.",
        "a@{1}",
        "a\n",
        "a\x7f",
        "a\ud800",
        "é" * 200,
    ],
)
def test_branch_refuses(branch: str) -> None:
    assert branch_problem(branch)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ab./-@{~^:?*[\\ \t#é"), min_size=1, max_size=8))
def test_git_takes_every_branch_we_take(branch: str) -> None:
    if branch_problem(branch) is None:
        subprocess.run(["git", "check-ref-format", "--branch", branch], check=True, capture_output=True, timeout=10)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/org/repo.git", "repo"),
        ("https://github.com/org/repo/", "repo"),
        ("git@github.com:repo.git", "repo"),
        ("file:///srv/git/my repo", "my-repo"),
        ("https://example.com/..", "repo"),
        ("https://example.com/.git", "repo"),
        ("https://example.com/.bashrc", "bashrc"),
    ],
)
def test_directory_name(url: str, name: str) -> None:
    assert directory_name(url) == name


@given(st.text())
def test_directory_name_is_one_safe_part(text: str) -> None:
    name = directory_name(text)
    assert name and "/" not in name and not name.startswith((".", "-")) and len(name) <= 100

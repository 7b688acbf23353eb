"""Addresses: what people type, and where a session's terminal is."""

from __future__ import annotations

import pytest

from lapconsole.client import BadInput, Session, urls


@pytest.mark.parametrize(
    ("typed", "base"),
    [
        ("https://lap.acme.dev", "https://lap.acme.dev"),
        (" https://lap.acme.dev/// ", "https://lap.acme.dev"),
        ("https://acme.dev/lap/", "https://acme.dev/lap"),
        ("lap.acme.dev:8443", "https://lap.acme.dev:8443"),
        ("localhost:3000", "http://localhost:3000"),
        ("127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_address_as_typed(typed: str, base: str) -> None:
    assert urls.base_address(typed) == base


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "   ",
        "ftp://x",
        "https://",
        "http://host:port",
        "http://h:99999",
        "https://u:p@host",
        "https://h/?key=1",
        "https://[::1",
        "http://[v1.x]",
        "http://a..b",
        "http://a b",
        "http://a\x00b",
        "http://\ud800",
        "http://" + "x" * 300,
    ],
)
def test_what_is_no_address(typed: str) -> None:
    with pytest.raises(BadInput):
        urls.base_address(typed)


def session(**fields: object) -> Session:
    return Session.from_json({"id": "s1", "status": "ready", "tty_token": "t", **fields})


@pytest.mark.parametrize(
    ("base", "tty_url", "expected"),
    [
        ("http://p:3000", "ws://h:1/tty", "ws://h:1/tty"),
        ("http://p:3000", "https://h/tty", "wss://h/tty"),
        (
            "http://p:3000",
            "/api/v1/managed_agents/sessions/s1/tty",
            "ws://p:3000/api/v1/managed_agents/sessions/s1/tty",
        ),
        ("https://p", "api/tty?x=1", "wss://p/api/tty?x=1"),
        ("https://p/lap", "/api/tty", "wss://p/lap/api/tty"),
        ("https://p", "ws://p/tty", "wss://p/tty"),
        ("https://p", "ws://p:81/tty", "ws://p:81/tty"),
    ],
)
def test_the_terminal_a_platform_names(base: str, tty_url: str, expected: str) -> None:
    assert urls.tty_address(base, session(tty_url=tty_url)) == urls.TtyAddress(expected, "t")


@pytest.mark.parametrize(
    ("base", "sandbox_url", "expected"),
    [
        ("https://p", "http://10.0.0.7:30123", "ws://10.0.0.7:30123/tty"),
        ("https://p", "https://sandbox.dev/", "wss://sandbox.dev/tty"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:4096", "ws://127.0.0.1:4096/tty"),
    ],
)
def test_the_terminal_of_a_sandbox(base: str, sandbox_url: str, expected: str) -> None:
    assert urls.tty_address(base, session(sandbox_url=sandbox_url)).url == expected


@pytest.mark.parametrize(
    "sandbox_url", ["http://s.ns.svc.cluster.local:4096", "http://s.ns.svc", "http://127.0.0.1:4096", None]
)
def test_a_sandbox_out_of_reach_needs_the_fallback(sandbox_url: str | None) -> None:
    of = session(sandbox_url=sandbox_url)
    assert urls.tty_address("https://p", of, "ws://jump:1/tty").url == "ws://jump:1/tty"
    with pytest.raises(BadInput):
        urls.tty_address("https://p", of)


@pytest.mark.parametrize("tty_url", ["ftp://x/tty", "ws://", "ws://h:port/tty", "javascript://x", "ws://h/a b"])
def test_a_terminal_address_that_is_none(tty_url: str) -> None:
    with pytest.raises(BadInput):
        urls.tty_address("https://p", session(tty_url=tty_url))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"supports_tui": False, "harness_id": "opencode"}, "opencode has no terminal"),
        ({"status": "creating", "phase": "cloning_repo"}, "still coming up .cloning_repo."),
        ({"status": "dead", "failure_reason": "idle timeout"}, "dead: idle timeout; restart"),
        ({"sandbox_url": "http://x.svc.cluster.local"}, "cannot be reached from here"),
        ({}, "neither"),
    ],
)
def test_why_there_is_no_terminal(fields: dict[str, object], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        urls.tty_address("https://p", session(**fields))


def test_a_token_in_the_query_is_quoted() -> None:
    assert urls.with_token("ws://h/tty", "a&b=c") == "ws://h/tty?token=a%26b%3Dc"
    assert urls.with_token("ws://h/tty?x=1", "t") == "ws://h/tty?x=1&token=t"

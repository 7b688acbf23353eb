"""What the line on top says of the link, and what an environment is taken for."""

from datetime import timedelta

import pytest

from lapconsole.live.model import Link, LinkState
from lapconsole.widgets.parts import Look, plain
from lapconsole.widgets.status_line import count_parts, environment, link_parts
from lapconsole.widgets.words import UNICODE
from tests.screens.scene import NOW, ago

LOOK = Look(NOW, UNICODE)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (Link(LinkState.CONNECTING, ago(1)), "◐ connecting"),
        (
            Link(LinkState.CONNECTING, ago(1), "name not resolved", 2, NOW + timedelta(seconds=3)),
            "◐ connecting: name not resolved, retry in 3s",
        ),
        (Link(LinkState.LIVE, ago(1)), "● live"),
        (Link(LinkState.POLLING, ago(1)), "● polling"),
        (
            Link(LinkState.STALE, ago(42), "connection refused", 3, NOW + timedelta(seconds=4)),
            "▲ stale 42s: connection refused, retry in 4s",
        ),
        (Link(LinkState.STALE, ago(4000), None, 3), "▲ stale 1h06m: no answer, retrying"),
        (Link(LinkState.STALE, ago(3), "bad\x1b[31m", 1, NOW), "▲ stale 3s: bad, retry in 0s"),
    ],
)
def test_link(link: Link, words: str) -> None:
    assert plain(link_parts(link, LOOK)) == words


def test_counts_say_nothing_twice_and_nothing_of_none() -> None:
    assert plain(count_parts({"failed": 2, "creating": 3, "ready": 41, "dead": 9}, 0, 1, LOOK)) == (
        "2 failed · 1 too long · 2 creating · 41 ready"
    )
    assert plain(count_parts({"failed": 1, "ready": 1}, 2, 0, LOOK)) == "2 need you · 1 failed · 1 ready"
    assert plain(count_parts({"ready": 0}, 1, 0, LOOK)) == "1 needs you"
    assert plain(count_parts({"dead": 9}, 0, 0, LOOK)) == ""


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("embedded", "local"),
        ("127.0.0.1:3000", "local"),
        ("prod-eu", "production"),
        ("staging", "staging"),
        ("dev-2", "staging"),
        ("lap.example.org", "other"),
    ],
)
def test_environment(label: str, kind: str) -> None:
    assert environment(label) == kind

"""Theme files: ours are complete and readable, bad ones are told with file and reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.color import Color

from lapconsole import themes

OURS = themes.load(themes.bundled_folder())
TONES = ("strong", "muted", "title", "good", "busy", "warn", "bad", "key")


def test_ours_are_all_there() -> None:
    assert OURS.problems == []
    assert set(OURS.by_name) == {"dark", "light", "high-contrast", "terminal", "colour-blind"}
    assert all(OURS.descriptions.values())
    assert OURS.by_name["terminal"].ansi


@pytest.mark.parametrize("name", sorted(set(OURS.by_name) - {"terminal"}))
def test_every_tone_can_be_read(name: str) -> None:
    """At least 4.5:1 on every ground text stands on (WCAG), 7:1 in high contrast."""
    theme = OURS.by_name[name]
    assert theme.background
    grounds = [Color.parse(theme.background), Color.parse(theme.variables["line-background"])]
    if theme.variables["cursor-style"] == "none":
        grounds.append(Color.parse(theme.variables["cursor-background"]))
    least = 7.0 if name == "high-contrast" else 4.5
    for tone in TONES:
        for ground in grounds:
            ratio = contrast(Color.parse(theme.variables[f"tone-{tone}"]), ground)
            assert ratio >= least, f"{tone} on {ground.hex}: {ratio:.1f}"


def contrast(one: Color, other: Color) -> float:
    """The WCAG 2 contrast ratio of two colours."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: Color) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[colors]\nprimary = red", "line 2"),
        (b"", "needs primary"),
        (b'[colors]\nprimary = "#12345"', "is not a colour"),
        (b"[colors]\nprimary = 7", "must be a table of texts"),
        (b'colors = "red"', "must be a table of texts"),
        (b'[colors]\nprimary = "red"\nprimry = "red"', 'no colour is called "primry"'),
        (b'[colours]\nprimary = "red"', 'no setting is called "colours"'),
        (b'[colors]\nprimary = "red"\n[variables]\ntone-bad = "redd"', "variables.tone-bad"),
        (b'[colors]\nprimary = "red"\n[variables]\ncursor-style = "blinking"', "variables.cursor-style"),
        (b"\xff\xfe", "not UTF-8"),
        (b"#" * 70_000, "larger than 64 KB"),
    ],
)
def test_a_bad_file_is_named_with_its_reason(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text)
    (tmp_path / "good.toml").write_text('[colors]\nprimary = "red"\n')
    found = themes.load(tmp_path, tmp_path / "not there", None)
    assert list(found.by_name) == ["good"]
    assert len(found.problems) == 1
    assert str(path) in found.problems[0]
    assert reason in found.problems[0]


def test_an_own_theme_replaces_ours_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "dark.toml").write_text('description = "mine"\n[colors]\nprimary = "#ff0000"\n')
    found = themes.load(themes.bundled_folder(), tmp_path)
    assert found.descriptions["dark"] == "mine"
    assert found.by_name["dark"].variables["tone-bad"] == themes.VARIABLES["tone-bad"]

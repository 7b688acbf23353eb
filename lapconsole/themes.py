"""Themes: one TOML file each, ours from the `themes` folder and a person's own beside them."""

from __future__ import annotations

import site
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from textual.color import Color, ColorParseError
from textual.theme import Theme

DEFAULT = "dark"
_MAXIMUM_BYTES = 64 * 1024
_COLORS = {
    "primary",
    "secondary",
    "accent",
    "success",
    "warning",
    "error",
    "foreground",
    "background",
    "surface",
    "panel",
    "boost",
}

# The console's own theme variables; a theme may leave any of them out.
VARIABLES = {
    "tone-strong": "#f0f3f6",
    "tone-muted": "#8f9aa6",
    "tone-title": "#6cb6ff",
    "tone-good": "#7ec699",
    "tone-busy": "#76c7d0",
    "tone-warn": "#e3b341",
    "tone-bad": "#f47067",
    "tone-key": "#6cb6ff",
    "cursor-background": "#22303f",
    "cursor-style": "none",
    "match-background": "#5a4a12",
    "line-background": "#171c24",
    "band-text": "#10141a",
    "band-local": "#8b98a5",
    "band-production": "#f47067",
    "band-staging": "#e3b341",
    "band-other": "#76c7d0",
}
_STYLES = {"none", "bold", "dim", "italic", "underline", "reverse"}


class ThemeError(Exception):
    """A theme file that cannot be used; says which and why."""


class Themes:
    """What was found: themes by name, their descriptions, and one message for each file that was left out."""

    def __init__(self) -> None:
        self.by_name: dict[str, Theme] = {}
        self.descriptions: dict[str, str] = {}
        self.problems: list[str] = []


def bundled_folder() -> Path | None:
    """Our `themes` folder: beside the package in a checkout, under share/ where installed."""
    candidates = [Path(__file__).resolve().parent.parent / "themes"]
    candidates += [
        Path(root) / "share" / "lapconsole" / "themes" for root in (sys.prefix, site.USER_BASE or sys.prefix)
    ]
    return next((folder for folder in candidates if (folder / f"{DEFAULT}.toml").is_file()), None)


def load(*folders: Path | None, only: str = "*") -> Themes:
    """Read every theme of these folders, or the one called `only`; a later folder's replaces an earlier one's."""
    themes = Themes()
    for path in _files(folders, only):
        try:
            theme, description = read(path)
        except ThemeError as error:
            themes.problems.append(str(error))
            continue
        themes.by_name[theme.name] = theme
        themes.descriptions[theme.name] = description
    return themes


def read(path: Path) -> tuple[Theme, str]:
    """One theme and its description. The file's name is the theme's. Raises ThemeError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAXIMUM_BYTES + 1)
    except OSError as error:
        raise ThemeError(f"theme {path}: {error.strerror}") from None
    if len(data) > _MAXIMUM_BYTES:
        raise ThemeError(f"theme {path}: larger than {_MAXIMUM_BYTES // 1024} KB")
    try:
        return _theme(path.stem, tomllib.loads(data.decode("utf-8")))
    except UnicodeDecodeError:
        raise ThemeError(f"theme {path}: not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, ThemeError) as error:
        raise ThemeError(f"theme {path}: {error}") from None


def _theme(name: str, document: Mapping[str, Any]) -> tuple[Theme, str]:
    _no_unknown(document, {"description", "dark", "ansi", "colors", "variables"}, "setting")
    colors = _table(document, "colors")
    variables = _table(document, "variables")
    _no_unknown(colors, _COLORS, "colour")
    if "primary" not in colors:
        raise ThemeError("[colors] needs primary")
    for key, value in colors.items():
        _check_color(f"colors.{key}", value)
    for key, value in variables.items():
        if key == "cursor-style":
            if not set(value.split()) <= _STYLES:
                raise ThemeError(f'variables.{key}: "{value}" is not made of {", ".join(sorted(_STYLES))}')
        elif key in VARIABLES:
            _check_color(f"variables.{key}", value)
    ansi = document.get("ansi", False) is True
    dark = document.get("dark", True) is True
    quiet = {f"scrollbar{part}": colors.get("panel") for part in ("", "-hover", "-active")}
    quiet |= {f"scrollbar-background{part}": colors.get("background") for part in ("", "-hover", "-active")}
    known = {**VARIABLES, **{key: value for key, value in quiet.items() if value}, **variables}
    theme = Theme(name=name, dark=dark, ansi=ansi, variables=known, **colors)
    return theme, str(document.get("description", ""))


def _table(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise ThemeError(f"[{key}] must be a table of texts")
    return table


def _no_unknown(table: Mapping[str, Any], known: set[str], what: str) -> None:
    if unknown := sorted(set(table) - known):
        raise ThemeError(f'no {what} is called "{unknown[0]}"; there are {", ".join(sorted(known))}')


def _check_color(where: str, value: str) -> None:
    try:
        Color.parse(value)
    except ColorParseError:
        raise ThemeError(f'{where}: "{value}" is not a colour, such as "#6cb6ff" or "ansi_blue"') from None


def _files(folders: tuple[Path | None, ...], name: str) -> Iterator[Path]:
    for folder in folders:
        if folder is not None and folder.is_dir():
            yield from sorted(path for path in folder.glob("*.toml") if name in ("*", path.stem))

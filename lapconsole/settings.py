"""The console's settings: saved platforms ("contexts") and preferences, in one private JSON file of the user's."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapconsole.client.errors import BadInput
from lapconsole.client.urls import base_address

EMBEDDED = "embedded"
"""The name of the context every console has: the platform on this machine."""

MAXIMUM_FILE_BYTES = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class SettingsError(Exception):
    """A settings file that cannot be read or written, or a name or URL it cannot hold; says what to do."""


@dataclass(frozen=True, slots=True)
class Context:
    """One saved platform. `url` is a checked base URL; `key` its master key."""

    name: str
    url: str
    key: str = field(repr=False)


@dataclass(slots=True)
class Settings:
    """What the file holds. `current` names a context, or is EMBEDDED; `preferences` are plain JSON values."""

    contexts: dict[str, Context] = field(default_factory=dict)
    current: str = EMBEDDED
    preferences: dict[str, Any] = field(default_factory=dict)


def config_dir() -> Path:
    """Return the folder of the console's settings and the user's own themes."""
    import platformdirs

    return Path(platformdirs.user_config_dir("lapconsole"))


def data_dir() -> Path:
    """Return the embedded platform's data folder: LAP_DATA_DIR, else the user's data folder."""
    import platformdirs

    return Path(os.environ.get("LAP_DATA_DIR") or platformdirs.user_data_dir("lapconsole")).expanduser().absolute()


def settings_path() -> Path:
    return config_dir() / "settings.json"


def load() -> Settings:
    """Read the settings; a missing file gives the defaults. Raises SettingsError.

    An entry that is damaged on its own is left out: a bad context must not lock a person out of the others.
    """
    document = read_json(settings_path())
    contexts = {}
    saved = document.get("contexts")
    for name, entry in saved.items() if isinstance(saved, dict) else ():
        if isinstance(entry, dict):
            try:
                contexts[name] = make_context(name, str(entry.get("url", "")), str(entry.get("key", "")))
            except SettingsError:
                continue
    current = document.get("current")
    preferences = document.get("preferences")
    return Settings(
        contexts=contexts,
        current=current if isinstance(current, str) and current in contexts else EMBEDDED,
        preferences=preferences if isinstance(preferences, dict) else {},
    )


def save(settings: Settings) -> None:
    """Write the settings in one step. Raises SettingsError."""
    contexts = {context.name: {"url": context.url, "key": context.key} for context in settings.contexts.values()}
    document = {"current": settings.current, "contexts": contexts, "preferences": settings.preferences}
    write_json(settings_path(), document)


def set_preference(name: str, value: Any) -> None:
    """Change one preference, keeping what other consoles saved meanwhile. Raises SettingsError."""
    settings = load()
    settings.preferences[name] = value
    save(settings)


def make_context(name: str, url: str, key: str) -> Context:
    """Check a context's parts; raises SettingsError."""
    if not _NAME.fullmatch(name) or name == EMBEDDED:
        raise SettingsError(
            f"'{name}' cannot name a context: use up to 64 letters, digits, '.', '_' or '-', and not '{EMBEDDED}'"
        )
    if not is_key(key):
        raise SettingsError("a master key is 1 to 1024 printable ASCII characters without spaces")
    try:
        return Context(name, base_address(url), key)
    except BadInput as error:
        raise SettingsError(str(error)) from None


def is_key(text: str) -> bool:
    """Tell whether the text can be sent as a bearer key."""
    return 0 < len(text) <= 1024 and all("!" <= character <= "~" for character in text)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a missing file gives {}. Raises SettingsError with the path and the way out."""
    try:
        with path.open("rb") as file:
            content = file.read(MAXIMUM_FILE_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    try:
        document = json.loads(content) if len(content) <= MAXIMUM_FILE_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise SettingsError(f"{path} is damaged (not a JSON object): mend it, or move it away to start afresh")
    return document


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON object as a private file (0600, a new folder 0700), whole or not at all. Raises SettingsError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file made by mkstemp is 0600 from its first byte on, so the key is at no time readable by others.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=2)
                file.write("\n")
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from None

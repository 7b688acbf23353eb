"""Which platform `lap` talks to: what `lap login` saved, else the environment, else the platform on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from lapconsole.client.errors import BadInput
from lapconsole.client.urls import base_address
from lapconsole.settings import SettingsError, data_dir, is_key, read_json, write_json


@dataclass(frozen=True, slots=True)
class Account:
    """A platform's base URL and master key. `source` is "config", "environment" or "embedded"."""

    base: str
    key: str = field(repr=False)
    source: str


def config_path() -> Path:
    return Path.home() / ".lap" / "config.json"


def saved() -> Account | None:
    """Return the logged-in account; a missing or damaged file counts as none (LAP harness 3.1)."""
    try:
        document = read_json(config_path())
    except SettingsError:
        return None
    return _account(document.get("base"), document.get("key"), "config")


def save(base: str, key: str) -> None:
    """Save the account for later commands. Raises SettingsError."""
    path = config_path()
    write_json(path, {"base": base, "key": key})
    path.parent.chmod(0o700)  # the folder may be an old one


async def account() -> Account | None:
    """Return the account to use, or None when there is no platform to talk to."""
    return saved() or _from_environment() or await _embedded()


def _from_environment() -> Account | None:
    key = os.environ.get("LAP_MASTER_KEY") or os.environ.get("MASTER_KEY")
    return _account(os.environ.get("LAP_BASE_URL"), key, "environment")


async def _embedded() -> Account | None:
    if not (data_dir() / "platform.json").exists():
        return None
    from lapconsole import embedded

    running = embedded.find(data_dir())
    if running is None:
        return None
    return Account(running.url, await embedded.key_of(running, data_dir()), "embedded")


def _account(base: object, key: object, source: str) -> Account | None:
    if not isinstance(base, str) or not isinstance(key, str) or not is_key(key.strip()):
        return None
    try:
        return Account(base_address(base), key.strip(), source)
    except BadInput:
        return None

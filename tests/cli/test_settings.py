"""The console's settings file."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from lapconsole import settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "config_dir", lambda: tmp_path / "config")
    return tmp_path / "config"


def test_nothing_saved_means_the_embedded_platform() -> None:
    assert settings.load() == settings.Settings({}, settings.EMBEDDED, {})


def test_what_is_saved_comes_back_from_a_private_file(folder: Path) -> None:
    context = settings.make_context("prod", "https://lap.example/", "sk-1")
    settings.save(settings.Settings({"prod": context}, "prod", {"theme": "light"}))
    loaded = settings.load()
    assert loaded.current == "prod" and loaded.preferences == {"theme": "light"}
    assert loaded.contexts == {"prod": settings.Context("prod", "https://lap.example", "sk-1")}
    assert stat.S_IMODE((folder / "settings.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["settings.json"]
    assert "sk-1" not in repr(loaded)


def test_a_preference_leaves_everything_else_alone() -> None:
    settings.save(settings.Settings({"a": settings.make_context("a", "http://h:1", "k")}, "a", {"x": 1}))
    settings.set_preference("theme", "dark")
    loaded = settings.load()
    assert loaded.preferences == {"x": 1, "theme": "dark"} and "a" in loaded.contexts and loaded.current == "a"


@pytest.mark.parametrize("content", ["", "{", "[1]", "nul", "\x00", "[" * 100_000, '"' + "x" * 1_100_000 + '"'])
def test_a_damaged_file_is_named_and_left_alone(folder: Path, content: str) -> None:
    folder.mkdir()
    path = folder / "settings.json"
    path.write_text(content)
    with pytest.raises(settings.SettingsError, match=r"settings\.json is damaged"):
        settings.set_preference("theme", "dark")
    assert path.read_text() == content


def test_damaged_entries_are_left_out(folder: Path) -> None:
    folder.mkdir()
    contexts = {
        "good": {"url": "http://h:1", "key": "k"},
        "bad url": {"url": "http://h:1", "key": "k"},
        "ftp": {"url": "ftp://h", "key": "k"},
        "keyless": {"url": "http://h:1"},
        "list": [],
    }
    document = {"current": "ftp", "contexts": contexts, "preferences": []}
    (folder / "settings.json").write_text(json.dumps(document))
    loaded = settings.load()
    assert set(loaded.contexts) == {"good"} and loaded.current == settings.EMBEDDED and loaded.preferences == {}


@pytest.mark.parametrize(
    ("name", "url", "key"),
    [
        ("", "http://h", "k"),
        ("embedded", "http://h", "k"),
        ("a/b", "http://h", "k"),
        ("a", "h://", "k"),
        ("a", "http://u:p@h", "k"),
        ("a", "http://h:99999", "k"),
        ("a", "http://h", ""),
        ("a", "http://h", "two words"),
        ("a", "http://h", "naïve"),
        ("a", "http://h", "x" * 1025),
    ],
)
def test_unfit_contexts_are_refused(name: str, url: str, key: str) -> None:
    with pytest.raises(settings.SettingsError):
        settings.make_context(name, url, key)


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    with pytest.raises(settings.SettingsError, match="cannot"):
        settings.save(settings.Settings())


def test_the_data_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAP_DATA_DIR", str(tmp_path))
    assert settings.data_dir() == tmp_path

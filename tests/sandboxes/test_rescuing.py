"""Files that outlive their sandbox."""

import logging
import os
import stat
from pathlib import Path

import pytest

from backend.sandboxes.contract import Rescue
from backend.sandboxes.local.driver import LocalDriver

from .conftest import MakeDriver, ask, spec


@pytest.fixture
def rescue(tmp_path: Path) -> Rescue:
    return Rescue("kept.txt", tmp_path / "rescued" / "one.txt", 100)


def root(data_dir: Path) -> Path:
    return data_dir / "sandboxes" / "one"


async def test_a_file_is_kept_whole_and_private(make_driver: MakeDriver, data_dir: Path, rescue: Rescue) -> None:
    sandbox = await make_driver().create(spec())
    await ask(sandbox, "shell", line=f"umask 0; echo written inside > {root(data_dir)}/kept.txt")
    await make_driver().delete("one", rescue)  # also by a platform that did not start it
    assert rescue.target.read_text() == "written inside\n"
    assert stat.S_IMODE(rescue.target.stat().st_mode) == 0o600
    assert stat.S_IMODE(rescue.target.parent.stat().st_mode) == 0o700
    assert not root(data_dir).exists()
    assert [path.name for path in rescue.target.parent.iterdir()] == ["one.txt"]


async def test_not_more_than_the_limit(driver: LocalDriver, data_dir: Path, rescue: Rescue) -> None:
    await driver.create(spec())
    (root(data_dir) / "kept.txt").write_text("x" * 1000)
    await driver.delete("one", rescue)
    assert rescue.target.read_text() == "x" * 100


@pytest.mark.parametrize("kind", ["nothing", "link", "pipe", "directory"])
async def test_what_is_no_file_leaves_the_target_as_it_was(
    driver: LocalDriver, data_dir: Path, rescue: Rescue, kind: str, tmp_path: Path
) -> None:
    rescue.target.parent.mkdir()
    rescue.target.write_text("earlier")
    (tmp_path / "secret").write_text("secret")
    await driver.create(spec())
    path = root(data_dir) / "kept.txt"
    if kind == "link":
        path.symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    await driver.delete("one", rescue)
    assert rescue.target.read_text() == "earlier"
    assert not root(data_dir).exists()


async def test_a_target_that_cannot_be_written_keeps_no_sandbox(
    driver: LocalDriver, data_dir: Path, rescue: Rescue, caplog: pytest.LogCaptureFixture
) -> None:
    rescue.target.parent.write_text("not a directory")
    await driver.create(spec())
    (root(data_dir) / "kept.txt").write_text("lost")
    with caplog.at_level(logging.ERROR):
        await driver.delete("one", rescue)
    assert not root(data_dir).exists()
    assert "kept.txt of sandbox one is lost" in caplog.text


async def test_a_second_delete_changes_nothing(driver: LocalDriver, data_dir: Path, rescue: Rescue) -> None:
    await driver.create(spec())
    (root(data_dir) / "kept.txt").write_text("kept")
    await driver.delete("one", rescue)
    await driver.delete("one", rescue)
    assert rescue.target.read_text() == "kept"

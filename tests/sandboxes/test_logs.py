"""The log tail: bounded, plain, by age."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backend.sandboxes.local.driver import LocalDriver

from .conftest import ask, spec, until


@pytest.fixture
def log(data_dir: Path) -> Path:
    root = data_dir / "sandboxes" / "one"
    root.mkdir(parents=True)
    return root / "log"


async def test_what_the_harness_writes_is_in_the_log(driver: LocalDriver, data_dir: Path) -> None:
    sandbox = await driver.create(spec())
    await ask(sandbox, "say", text="cloning\n")
    log = data_dir / "sandboxes" / "one" / "log"
    await until(lambda: log.stat().st_size > 0)
    assert await driver.logs("one", 100) == "cloning\n"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"", ""),
        (b"a\nb\nc", "a\nb\nc\n"),
        (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\ \x1b(By\n", "red xlink y\n"),
        (b"10%\r50%\r100%\r\ndone\r\n", "100%\ndone\n"),
        (b"bell\x07 nul\x00 tab\t del\x7f c1\xc2\x9b bad\xff\n", "bell nul tab\t del c1 bad\ufffd\n"),
        (b"\x1b]0;never closed\nnext\n", "\nnext\n"),
    ],
)
async def test_plain_text(driver: LocalDriver, log: Path, written: bytes, shown: str) -> None:
    log.write_bytes(written)
    assert await driver.logs("one", 100) == shown


async def test_the_tail_is_bounded(driver: LocalDriver, log: Path) -> None:
    with log.open("w") as file:
        file.writelines(f"line {number} {'x' * 300}\n" for number in range(20_000))
    assert (await driver.logs("one", 2)).split()[1::3] == ["19998", "19999"]
    assert len((await driver.logs("one", 0)).splitlines()) == 1
    everything = await driver.logs("one", 10**9)
    assert len(everything) <= 2_097_152
    assert everything.startswith("line ")
    log.write_bytes(b"y" * 3_000_000)
    assert len(await driver.logs("one", 5)) <= 2_097_153


async def test_only_what_is_new_enough(driver: LocalDriver, log: Path) -> None:
    now = datetime.now(UTC)
    old, new = (now - timedelta(minutes=10)).isoformat(), (now - timedelta(seconds=5)).isoformat()
    log.write_text(f"{old} first\n  and more\n{new} second\n  and more\n9999-99-99T99:99:99 odd\n")
    assert await driver.logs("one", 10, 60) == f"{new} second\n  and more\n9999-99-99T99:99:99 odd\n"
    assert (await driver.logs("one", 10, 3600)).count("\n") == 5
    os.utime(log, (time.time() - 600,) * 2)
    assert await driver.logs("one", 10, 60) == ""


async def test_no_log_and_no_detours(driver: LocalDriver, log: Path, tmp_path: Path) -> None:
    assert await driver.logs("one", 10) == ""
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    log.symlink_to(secret)
    assert await driver.logs("one", 10) == ""
    log.unlink()
    os.mkfifo(log)
    assert await driver.logs("one", 10) == ""

"""Walls around a local sandbox: what they show, what they let out, and what goes with them."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.sandboxes.contract import SandboxError, SandboxState
from backend.sandboxes.local import network, processes, seccomp, visible, walls
from backend.sandboxes.local.limits import Limits
from tests.e2e.programs import make_repository

from .conftest import MakeDriver, ask, processes_of, spec, until

Listeners = dict[str, socket.socket]


@pytest.fixture(autouse=True)
async def walled(tmp_path: Path) -> None:
    found = await walls.probe(tmp_path / "probe")
    if found.bwrap is None:
        pytest.skip(f"no walls here: {found.reason}")


class Vault:
    """Takes the listeners of sandboxes, as the vault does."""

    def __init__(self) -> None:
        self.listeners: dict[str, Listeners] = {}

    async def __call__(self, name: str, listeners: Mapping[str, socket.socket]) -> None:
        self.listeners[name] = {kind: listener.dup() for kind, listener in listeners.items()}
        for listener in self.listeners[name].values():
            listener.setblocking(False)

    def close(self) -> None:
        for listeners in self.listeners.values():
            for listener in listeners.values():
                listener.close()


@pytest.fixture
def vault() -> Any:
    with contextlib.closing(Vault()) as made:
        yield made


async def accepted(listener: socket.socket, say: bytes) -> tuple[bytes, tuple[str, int] | None]:
    """One connection: what came, and where it was going; `say` is the answer."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        connection, _ = await loop.sock_accept(listener)
        with connection:
            target = None
            with contextlib.suppress(OSError):
                address = connection.getsockopt(socket.SOL_IP, 80, 16)
                target = socket.inet_ntoa(address[4:8]), struct.unpack_from("!H", address, 2)[0]
            came = await loop.sock_recv(connection, 4096)
            await loop.sock_sendall(connection, say)
            return came, target


def talk(host: str, port: int) -> str:
    """A shell line that says "hello" to an address and prints the answer."""
    return f"bash -c 'exec 7<>/dev/tcp/{host}/{port} && echo hello >&7 && cat <&7' 2>&1"


async def test_the_only_ways_out_are_its_listeners(make_driver: MakeDriver, vault: Vault) -> None:
    driver = make_driver(connect=vault)
    assert await driver.proxy("one") == network.PROXY
    sandbox = await driver.create(spec())
    assert sandbox.isolation["network"] == "vault"
    assert await driver.proxy("one") == network.PROXY
    ways = vault.listeners["one"]
    asking = asyncio.create_task(ask(sandbox, "shell", line=talk("127.0.0.1", network.EXPLICIT_PORT)))
    assert (await accepted(ways["explicit"], b"asked"))[0] == b"hello\n"
    assert await asking == "asked"
    if sandbox.isolation["reason"] and "nft" in sandbox.isolation["reason"]:
        pytest.skip(sandbox.isolation["reason"])
    asking = asyncio.create_task(ask(sandbox, "shell", line=talk("192.0.2.7", 8443)))
    assert await accepted(ways["transparent"], b"turned") == (b"hello\n", ("192.0.2.7", 8443))
    assert await asking == "turned"
    line = "bash -c 'exec 7<>/dev/udp/192.0.2.53/53 && echo question >&7 && timeout 5 head -n 1 <&7'"
    asking = asyncio.create_task(ask(sandbox, "shell", line=line))
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        question, address = await loop.sock_recvfrom(ways["dns"], 100)
        await loop.sock_sendto(ways["dns"], b"answer\n", address)
    assert question == b"question\n"
    assert await asking == "answer\n"
    assert "not permitted" in await ask(sandbox, "shell", line="bash -c 'echo x > /dev/udp/192.0.2.7/9999' 2>&1")


async def test_nothing_of_the_walls_is_left_open_in_it(make_driver: MakeDriver, vault: Vault) -> None:
    info = await ask(await make_driver(connect=vault).create(spec()), "info")
    # Standard streams, the listener, the connection, and the listing itself.
    assert info["descriptors"] == [0, 1, 2, 3, 4, 5]
    assert info["pid"] == 1
    assert info["core"] == [0, 0]


async def test_a_spare_network_is_made_ahead_and_released(make_driver: MakeDriver, vault: Vault) -> None:
    driver = make_driver(connect=vault)
    await driver.create(spec())
    await until(lambda: driver._networks._spare is not None and driver._networks._spare.done())
    await driver.create(spec("two"))
    assert {"explicit", "transparent", "dns"} == vault.listeners["two"].keys()


async def test_without_anybody_to_serve_it_there_is_no_network(make_driver: MakeDriver) -> None:
    driver = make_driver()
    sandbox = await driver.create(spec())
    assert sandbox.isolation["network"] == "none"
    assert await driver.proxy("one") is None
    assert "unreachable" in await ask(sandbox, "shell", line=talk("192.0.2.7", 80))
    assert "refused" in await ask(sandbox, "shell", line=talk("127.0.0.1", network.EXPLICIT_PORT))


async def test_a_network_that_cannot_be_made_is_no_network(
    make_driver: MakeDriver, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> network.Network:
        raise OSError("not today")

    monkeypatch.setattr(network, "make", broken)
    sandbox = await make_driver(connect=vault).create(spec())
    assert sandbox.isolation["network"] == "none"
    assert "no network: not today" in sandbox.isolation["reason"]
    assert "unreachable" in await ask(sandbox, "shell", line=talk("192.0.2.7", 80))


async def test_without_rules_only_what_asks_the_proxy_gets_out(
    make_driver: MakeDriver, vault: Vault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = tmp_path / "stage.py"
    stage.write_text(network._STAGE.read_text().replace('RULES = f"""', 'RULES = f"""nonsense'))
    monkeypatch.setattr(network, "_STAGE", stage)
    sandbox = await make_driver(connect=vault).create(spec())
    assert sandbox.isolation["network"] == "vault"
    assert "only what asks the proxy reaches it: nft" in sandbox.isolation["reason"]
    asking = asyncio.create_task(ask(sandbox, "shell", line=talk("127.0.0.1", network.EXPLICIT_PORT)))
    assert (await accepted(vault.listeners["one"]["explicit"], b"asked"))[0] == b"hello\n"
    assert await asking == "asked"
    for line in (talk("192.0.2.7", 80), "bash -c 'echo x > /dev/udp/192.0.2.53/53' 2>&1"):
        assert "unreachable" in await ask(sandbox, "shell", line=line)


async def test_who_refuses_the_listeners_stops_the_start(make_driver: MakeDriver, data_dir: Path) -> None:
    async def refuse(name: str, listeners: Mapping[str, socket.socket]) -> None:
        raise SandboxError("the vault is down")

    driver = make_driver(connect=refuse)
    with pytest.raises(SandboxError, match="the vault is down"):
        await driver.create(spec())
    assert await driver.list() == []
    assert processes_of(data_dir) == []


async def test_only_its_own_files_are_there(make_driver: MakeDriver, data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    driver = make_driver()
    sandbox = await driver.create(spec())
    await driver.create(spec("two"))
    shown = await ask(sandbox, "shell", line=f"ls -A {data_dir} {data_dir}/sandboxes {tmp_path} {Path.home()} 2>&1")
    assert "two" not in shown
    assert "outside" not in shown
    assert await ask(sandbox, "shell", line="touch ~/a $TMPDIR/b /tmp/c && ls $TMPDIR/c /tmp/b") != ""
    for place in ("/x", "/etc/x", "/usr/x", "/dev/x", "/proc/sys/kernel/core_pattern", "~/../.driver/x"):
        assert "ead-only" in await ask(sandbox, "shell", line=f"echo > {place}"), place
    assert (data_dir / "sandboxes" / "one" / "home" / "a").exists()
    assert (data_dir / "sandboxes" / "one" / ".driver" / "sandbox.json").exists()


async def test_of_a_repository_its_git_folder_is_shown(make_driver: MakeDriver, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    make_repository(origin)
    (origin / "secret").write_text("not in git")
    subprocess.run(["git", "clone", "-q", "--bare", origin, tmp_path / "bare.git"], check=True)
    subprocess.run(
        ["git", "-C", origin, "worktree", "add", "-q", tmp_path / "tree", "other"], check=True, capture_output=True
    )
    driver = make_driver()
    for name, path in (("one", origin), ("two", tmp_path / "bare.git"), ("three", tmp_path / "tree")):
        sandbox = await driver.create(replace(spec(name), repository=path))
        said = await ask(sandbox, "shell", line=f"git clone -q file://{path} clone && ls clone; ls -A {path}")
        assert "hello.txt" in said, said
        assert "secret" not in said


def test_what_is_no_repository_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    make_repository(tmp_path / "data" / "kept")
    assert visible.repository(tmp_path, tmp_path / "data") == []
    assert visible.repository(tmp_path / "missing", tmp_path / "data") == []
    assert visible.repository(tmp_path / "data" / "kept", tmp_path / "data") == []
    (tmp_path / "forged").mkdir()
    (tmp_path / "forged" / ".git").write_text(f"gitdir: {Path.home()}\n")
    assert visible.repository(tmp_path / "forged", tmp_path / "data") == []


def test_of_programs_no_home_and_no_data_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    packages = home / ".npm" / "lib" / "node_modules" / "claude"
    packages.mkdir(parents=True)
    (packages / "cli.js").touch(mode=0o755)
    for folder in (home / ".npm" / "bin", home / "bin", data):
        folder.mkdir()
    (home / ".npm" / "bin" / "claude").symlink_to("../lib/node_modules/claude/cli.js")
    for path in (home / "codex", data / "opencode", home / "bin" / "own-agent"):
        path.touch(mode=0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{home}:{home}/.npm/bin:{home}/bin:{data}:/usr/bin")
    shown = visible.programs(data, ["own-agent", str(tmp_path), str(data)], [tmp_path / "data"])
    ours = [path for path in shown if path.is_relative_to(tmp_path)]
    assert ours == [home / ".npm/bin", home / ".npm/lib/node_modules", home / "bin"]


def test_what_etc_shows_is_for_anybody(tmp_path: Path) -> None:
    visible.write_etc(tmp_path / "etc")
    visible.write_etc(tmp_path / "etc")
    assert not list((tmp_path / "etc").glob("*shadow*"))
    assert "agent:x:1000" in (tmp_path / "etc" / "passwd").read_text()
    for path in (tmp_path / "etc").rglob("*"):
        assert path.is_symlink() or path.stat().st_mode & 0o004, path


async def test_required_walls_that_are_missing_refuse(
    make_driver: MakeDriver, data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for program in ("unshare", "sh"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    driver = make_driver(isolation="required")
    with pytest.raises(SandboxError, match=r"LAP_ISOLATION=required.*install bubblewrap.*LAP_ISOLATION=auto"):
        await driver.create(spec())
    assert await driver.list() == []
    [problem] = driver.problems()
    assert "install bubblewrap" in problem
    assert await driver.isolation() == {
        "filesystem": False,
        "network": "open",
        "reason": "bubblewrap is missing (install bubblewrap)",
    }
    sandbox = await make_driver(isolation="auto").create(spec())
    assert sandbox.isolation["filesystem"] is False
    assert sandbox.isolation["network"] == "open"
    assert "not isolated: bubblewrap is missing" in sandbox.isolation["reason"]


async def test_walls_can_be_switched_off(make_driver: MakeDriver) -> None:
    sandbox = await make_driver(isolation="off").create(spec())
    assert "not isolated: switched off (LAP_ISOLATION=off)" in sandbox.isolation["reason"]
    assert (sandbox.isolation["filesystem"], sandbox.isolation["network"]) == (False, "open")


async def test_a_bubblewrap_that_fails_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: no namespaces today' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = await walls.probe(tmp_path / "walls")
    assert found.bwrap is None
    assert (found.reason or "").startswith("bwrap: no namespaces today (")


def tree(pid: int) -> set[int]:
    return processes.descendants(processes.table(), pid)


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_killing_any_part_from_outside_ends_all_of_it(
    make_driver: MakeDriver, data_dir: Path, depth: int
) -> None:
    driver = make_driver()
    sandbox = await driver.create(spec())
    await ask(sandbox, "shell", line="env -i setsid sleep 4321 >/dev/null 2>&1 &")
    outer = json.loads((data_dir / "sandboxes/one/.driver/sandbox.json").read_text())["pid"]
    parts = tree(outer)
    assert len(parts) == 3  # bubblewrap, the harness, and what it left behind
    os.kill(sorted({outer, *parts})[depth], signal.SIGKILL)
    async with asyncio.timeout(5):
        assert await driver.wait_gone("one") == "signal 9 (SIGKILL)"
    await until(lambda: not parts & processes.table().keys())
    assert await driver.state("one") is SandboxState.GONE


async def test_a_sandbox_that_takes_too_much_of_the_disk_is_ended(make_driver: MakeDriver) -> None:
    driver = make_driver(limits=Limits(disk_mb=16))
    sandbox = await driver.create(spec())
    assert "File too large" in await ask(sandbox, "shell", line="trap '' XFSZ; head -c 17M /dev/zero > one; rm one")
    await ask(sandbox, "shell", line="for n in 1 2 3; do head -c 8M /dev/zero > $n; done")
    async with asyncio.timeout(10):
        assert await driver.wait_gone("one") == "out of disk: the 16 MB limit of the sandbox was reached"


def test_a_filter_is_there_for_machines_that_are_known() -> None:
    for machine in ("x86_64", "aarch64"):
        code = seccomp.program(machine)
        assert code is not None
        assert len(code) % 8 == 0
        assert len(code) < 4096
    assert seccomp.program("pdp11") is None

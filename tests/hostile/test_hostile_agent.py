"""A hostile agent in a real sandbox of a real platform: whatever it tries, it gets nothing (see `agent`)."""

import asyncio
import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.programs import API, SHELL, Platform, make_repository, processes_of
from tests.hostile import agent
from tests.waiting import until

SECRET = "a-real-token-of-the-operator"
DAEMON = f"3600.{os.getpid()}"
MEMORY_MB, PIDS, DISK_MB = 256, 64, 64
CONTROLS = sorted(name for name in agent.ATTEMPTS if name.startswith("control_"))
ATTEMPTS = sorted(agent.ATTEMPTS.keys() - set(CONTROLS))

pytestmark = pytest.mark.e2e


class Outside:
    """Servers of the machine that no sandbox may reach, and one that it may. Each notes who came."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.came: list[str] = []
        self.path = str(folder / "machine.sock")
        self.forbidden = self._serve(stack, socket.create_server(("0.0.0.0", 0)), "tcp")
        self.forbidden6 = self._serve(stack, _ipv6_server(self.forbidden), "tcp6") if socket.has_ipv6 else 0
        self.allowed = self._serve(stack, socket.create_server(("127.0.0.1", 0)), "")
        for name in (self.path, f"\0lap-{os.getpid()}"):
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(name)
            sock.listen()
            self._serve(stack, sock, "unix")
        self._udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._udp.bind(("0.0.0.0", 0))
        self.udp_port: int = self._udp.getsockname()[1]

    def _serve(self, stack: ExitStack, server: socket.socket, mark: str) -> int:
        stack.callback(server.close)
        stack.callback(lambda: _wake(server))
        threading.Thread(target=self._accept, args=(server, mark), daemon=True).start()
        name = server.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    def _accept(self, server: socket.socket, mark: str) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.settimeout(2)
                    if mark:
                        self.came.append(mark)
                    path = connection.recv(4096).decode(errors="replace").partition("\r\n")[0].split(" ")[1:2]
                    body = f"{agent.REACHED.decode()} path={''.join(path)} "
                    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    def heard(self) -> "list[str]":
        """Who came that should not have."""
        self._udp.setblocking(False)
        with suppress(BlockingIOError):
            while self._udp.recv(100):
                self.came.append("udp")
        return self.came


def _ipv6_server(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6)


def _wake(server: socket.socket) -> None:
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def attack() -> Iterator[dict[str, Any]]:
    """What came of all attempts, of one session beside a victim's. Its daemons have gone with it."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is missing")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # The operator's home, as far as the platform is concerned.
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.home(), prefix=".lap-test-")))
        (home / "secret").write_text(SECRET)
        yield asyncio.run(_attack(folder, home, Outside(folder, stack)))


async def _attack(folder: Path, home: Path, outside: Outside) -> dict[str, Any]:
    make_repository(folder / "origin")
    (folder / "origin" / "untracked-secret").write_text(SECRET)
    command = f"{sys.executable} -S {agent.__file__}"
    platform = Platform(
        folder / "data",
        {
            "LAP_HARNESS_COMMAND_CODEX": command,
            "LAP_HARNESS_COMMAND_CLAUDE_CODE": SHELL,
            "LAP_SANDBOX_MEMORY_MB": str(MEMORY_MB),
            "LAP_SANDBOX_PIDS": str(PIDS),
            "LAP_SANDBOX_DISK_MB": str(DISK_MB),
            "LAP_VAULT_REACHABLE": f"127.0.0.1:{outside.allowed}",
        },
    )
    await platform.start()
    try:
        victim = await platform.ready(await platform.create_agent(), title="victim")
        if not victim["isolation"]["filesystem"]:
            pytest.skip(f"no walls here: {victim['isolation']['reason']}")
        (platform.sandbox(victim) / "home" / "secret").write_text(SECRET)
        facts = _facts(platform, victim, folder, home, outside)
        found = await _one(platform, folder, facts)
        found["heard"] = list(outside.heard())
        found["filled"] = await _fill(platform, facts)
        found["health"] = (await platform.http.get("/healthz")).json()["isolation"]
        found["victim"] = await platform.session(victim["id"])
        return found
    finally:
        await platform.close()


async def _one(platform: Platform, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    host, port = facts["allowed"]
    hostile = await platform.create_agent(
        name="hostile",
        harness_id="codex",
        repo_url=str(folder / "origin"),
        sandbox_files=[_file(facts)],
        env_vars={"API_TOKEN": SECRET},
        env_var_hosts={"API_TOKEN": ["api.example.com"]},
        allow_out=[f"{host}:{port}", "api.example.com"],
    )
    session = await platform.ready(hostile)
    results = platform.sandbox(session) / "home" / "results.json"
    try:
        await until(results.exists, "the attempts end", 25)
    except AssertionError as error:
        screen = await platform.http.get(f"{API}/sessions/{session['id']}/screen", params={"format": "text"})
        raise AssertionError(f"{error}; its screen:\n{screen.text}") from None
    await until(lambda: len(_daemons()) == 3, "it has left its daemons")
    found = {"results": json.loads(results.read_text()), "isolation": session["isolation"]}
    found["session"] = await platform.session(session["id"])
    seen = await platform.http.get(f"{API}/sessions/{session['id']}/interceptions")
    found["seen"] = seen.json()
    await platform.http.delete(f"{API}/sessions/{session['id']}")
    await platform.nothing_left(session)
    await until(lambda: not _daemons(), "its daemons have ended")
    return found


async def _fill(platform: Platform, facts: dict[str, Any]) -> dict[str, Any]:
    filler = await platform.create_agent(
        name="filler", harness_id="codex", sandbox_files=[_file({**facts, "then": "fill"})]
    )
    session = await platform.create_session(filler)

    async def ended() -> dict[str, Any] | None:
        now = await platform.session(session["id"])
        return now if now["status"] in ("dead", "failed") else None

    return await until(ended, "the session that fills the disk is ended", 30)


def _file(facts: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps(facts).encode()
    return {
        "name": "facts.json",
        "sandbox_path": "~/facts.json",
        "content": base64.b64encode(content).decode(),
        "content_type": "application/json",
        "size": len(content),
    }


def _facts(platform: Platform, victim: dict[str, Any], folder: Path, home: Path, outside: Outside) -> dict[str, Any]:
    data = platform.data_dir
    inside = platform.sandbox(victim)
    kept = ("platform.db", "master.key", "encryption.key", "platform.json", "platform.lock", "vault/ca.key")
    secrets = [
        home / "secret",
        inside / "home" / "secret",
        inside / ".driver" / "sandbox.json",
        folder / "origin" / "hello.txt",
    ]
    secrets += [folder / "origin" / "untracked-secret", Path("/etc/shadow"), Path("/etc/machine-id")]
    secrets += [data / name for name in (*kept, "vault/control.secret", "vault/log", "platform.log")]
    ports = {outside.forbidden, int(platform.url.rpartition(":")[2]), int(victim["sandbox_url"].rpartition(":")[2])}
    ports.add(int((data / "vault" / "port").read_text()))
    pids = {os.getpid(), json.loads((data / "platform.json").read_text())["pid"], *processes_of(inside)}
    pids |= set(processes_of(data / "vault"))
    return {
        "then": "stay",
        "secrets": [str(path) for path in secrets],
        "places": [str(path) for path in (data, data / "vault", home, Path.home(), folder, inside, Path("/run"))],
        "vault": str(data / "vault"),
        "programs": [sys.prefix, sys.base_prefix, str(Path(agent.__file__).parents[2] / "backend")],
        "pids": sorted(pids),
        "marks": [str(inside), "backend.vault", "python -m backend --"],
        "ports": sorted(ports),
        "udp_port": outside.udp_port,
        "addresses": _addresses(),
        "addresses6": ["::1"],
        "unix": [outside.path, f"@lap-{os.getpid()}", str(data / "vault" / "control.sock")],
        "allowed": ["127.0.0.1", outside.allowed],
        "digest": hashlib.sha256(SECRET.encode()).hexdigest(),
        "pids_limit": PIDS,
        "memory_mb": MEMORY_MB,
        "disk_mb": DISK_MB,
        "daemon": DAEMON,
    }


def _addresses() -> "list[str]":
    """Those of this machine but loopback."""
    shown = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
    return [address for address in shown if ":" not in address][:2]


def _daemons() -> "list[int]":
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if (entry / "cmdline").read_bytes() == f"sleep\0{DAEMON}\0".encode():
                    found.append(int(entry.name))
    return found


@pytest.mark.parametrize("name", CONTROLS)
def test_the_means_work(attack: dict[str, Any], name: str) -> None:
    said = attack["results"][name]
    assert said, name
    assert "broke" not in said, said
    if name == "control_allowed_host":
        assert agent.REACHED.decode() in said


@pytest.mark.parametrize("name", ATTEMPTS)
def test_it_gets_nothing(attack: dict[str, Any], name: str) -> None:
    limit = {"fork_bomb": "pids", "memory_bomb": "memory_mb"}.get(name)
    if limit and attack["isolation"]["limits"][limit] is None:
        pytest.skip(f"no {limit} limit on this machine")
    assert attack["results"][name] == ""


def test_nobody_outside_was_reached(attack: dict[str, Any]) -> None:
    assert attack["heard"] == []


def test_what_it_tried_is_told(attack: dict[str, Any]) -> None:
    told = json.dumps(attack["seen"])
    assert "169.254.169.254" in told
    assert SECRET not in told
    kinds = {row["kind"] for row in (attack["seen"] if isinstance(attack["seen"], list) else attack["seen"]["data"])}
    assert {"blocked", "missed"} <= kinds


def test_who_fills_the_disk_is_ended(attack: dict[str, Any]) -> None:
    assert f"out of disk: the {DISK_MB} MB limit" in attack["filled"]["failure_reason"]


def test_the_platform_says_that_they_are_isolated(attack: dict[str, Any]) -> None:
    assert attack["health"] == {"filesystem": True, "network": "vault", "reason": None}
    isolation = attack["isolation"]
    assert (isolation["pid_namespace"], isolation["filesystem"], isolation["network"]) == (True, True, "vault")


def test_others_go_on(attack: dict[str, Any]) -> None:
    assert attack["victim"]["status"] == "ready"

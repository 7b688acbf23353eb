"""The vault in this process, so that names may resolve to loopback; servers with TLS; real clients as programs."""

import asyncio
import ipaddress
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from backend.domain import stubs
from backend.domain.egress import Address
from backend.vault.authority import CERTIFICATE_FILE, Authority
from backend.vault.front import Front, Vault
from backend.vault.sessions import Note, Session, Sessions
from backend.vault.strangers import Strangers
from backend.vault.upstream import Upstreams
from tests.vault.servers import Server, Trust

REAL = "sk-real-Value+with/odd=chars&more 1234"
"""Has characters that URLs, forms and JSON write otherwise."""


class Box:
    """A vault and what a sandbox of it would know."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.sessions = Sessions(lambda: None)
        self.upstreams = Upstreams(self._resolve)
        self.vault = Vault(Authority.load(directory), self.sessions, self.upstreams)
        self.vault.strangers = Strangers()
        self.certificate = directory / CERTIFICATE_FILE
        self.port = 0

    async def _resolve(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError(-2, "Name or service not known")
        return [ipaddress.ip_address(text) for text in self.names[host]]

    def open(self, name: str = "s-1", *, credentials: Mapping[str, Any] | None = None, **policy: Any) -> dict[str, str]:
        """A session; by credential name its stub. `credentials`: the value, or value and hosts."""
        made: dict[str, str] = {}
        held = []
        for key, value in (credentials or {}).items():
            real, hosts = value if isinstance(value, tuple) else (value, None)
            known = self.sessions.by_name.get(name)
            old = (
                next((each.credential.stub for each in known.held if each.credential.name == key), None)
                if known
                else None
            )
            made[key] = old or stubs.make(key)
            held.append({"name": key, "stub": made[key], "value": real, "hosts": hosts})
        gateway = policy.pop("gateway", None)
        policy = {"allow": [], "deny": [], "granted": [], "reachable": [], "gateways": [], **policy}
        data = {"token": f"token-of-{name}", "policy": policy, "credentials": held, "gateway": gateway}
        self.sessions.open(name, data)
        return made

    def session(self, name: str = "s-1") -> Session:
        return self.sessions.by_name[name]

    def notes(self, name: str = "s-1") -> list[Note]:
        return self.session(name).take_notes()[0]

    def proxy(self, name: str = "s-1") -> str:
        return f"http://{name}:token-of-{name}@127.0.0.1:{self.port}"

    def environment(self, name: str = "s-1") -> dict[str, str]:
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), self.proxy(name))
        files = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")
        trusted = dict.fromkeys((*files, "PIP_CERT"), str(self.certificate))
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LANG": "C.UTF-8", **proxies, **trusted}


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trust:
    made = Trust(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))  # what the vault trusts
    return made


@pytest.fixture
async def box(tmp_path: Path, trust: Trust) -> AsyncIterator[Box]:
    """A vault with its explicit proxy listening."""
    directory = tmp_path / "vault"
    directory.mkdir(mode=0o700)
    made = Box(directory)
    server = await asyncio.get_running_loop().create_server(lambda: Front(made.vault), "127.0.0.1", 0, backlog=512)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for name in list(made.sessions.by_name):
        made.sessions.close(name)
    made.vault.http2.sweep(all_of=None)
    made.upstreams.close()


@pytest.fixture
async def server(trust: Trust, box: Box) -> AsyncIterator[Server]:
    """`https://api.example.test:port`, which the session `s-1` may reach."""
    made = Server()
    async with made.running(trust.context("api.example.test", "other.example.test", "127.0.0.1")):
        box.names |= {"api.example.test": ["127.0.0.1"], "other.example.test": ["127.0.0.1"]}
        yield made


@pytest.fixture
async def plain_server() -> AsyncIterator[Server]:
    made = Server()
    async with made.running():
        yield made


def reach(server: Any, *names: str) -> list[list[Any]]:
    """What makes a server on loopback reachable, by names."""
    return [[name, server.port] for name in names or ("api.example.test", "other.example.test", "127.0.0.1")]


async def run(*command: str, env: Mapping[str, str], stdin: bytes = b"", seconds: float = 60) -> tuple[int, str]:
    """Exit code and all output of a program; skips the test where it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(env),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode or 0, output.decode(errors="replace")

"""What the platform makes of a hand-over, with a real vault process and real requests through it."""

import asyncio
import os
import shutil
import signal
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backend.services.vault import VaultService
from backend.services.vault_spawned import SpawnedVault
from backend.settings import Settings
from backend.store import agents, egress, sessions
from backend.store.database import Database
from backend.store.secrets import Cipher
from backend.vault import control, version
from tests.rows import agent_row, session_row
from tests.waiting import until


def hand_over(**changes: Any) -> dict[str, Any]:
    return {"env": {}, "repo_url": None, "git_token": None, "llm": {"base": None, "key": None}, **changes}


class Setting:
    """A vault service on a database of its own."""

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        self.settings = Settings.load(
            data_dir=data_dir, master_key="test-master-key", vault="on", **settings
        ).with_keys()
        self.cipher = Cipher(self.settings.encryption_key_value)

    async def start(self) -> None:
        self.database = await Database.open(self.settings.database_path)
        self.vault = VaultService(
            self.database, self.cipher, self.settings, SpawnedVault(self.settings.data_dir / "vault")
        )
        self.vault.start()

    async def agent(self, agent_id: str = "a1", env_vars: dict[str, str] | None = None, **values: Any) -> None:
        sealed = {name: self.cipher.encrypt(value) for name, value in (env_vars or {}).items()}
        async with self.database.begin() as tx:
            await agents.add(tx, agent_row(agent_id, env_vars=sealed, **values))

    async def close(self) -> None:
        async with self.database.read() as tx:
            names = [row["sandbox"] for row in await egress.grants(tx)]
        for name in names:
            await self.vault.release(name)
        await self.vault.aclose()
        await self.database.close()


@pytest.fixture
async def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setting]:
    monkeypatch.setenv("CONTAINER_ENV_SHARED_TOKEN", "of-the-operator")
    monkeypatch.setenv("CONTAINER_ENV_SHARED_TIMEOUT", "30s")
    made = Setting(
        tmp_path,
        litellm_api_base="http://127.0.0.1:4000/v1",
        litellm_api_key="sk-gateway",
        git_token="ghp_platform",
    )
    await made.start()
    yield made
    await made.close()


async def test_a_hand_over_without_credentials(setting: Setting) -> None:
    await setting.agent(env_vars={"API_KEY": "real-key", "LANG": "C", "NOTE": "plain text"}, env_var_plain=["NOTE"])
    body = hand_over(
        env={
            "API_KEY": "real-key",
            "LANG": "C",
            "NOTE": "plain text",
            "OWN": "own",
            "AGENT_ID": "a1",
            "SHARED_TOKEN": "of-the-operator",
            "SHARED_TIMEOUT": "30s",
            "HTTPS_PROXY": "http://elsewhere",
        },
        repo_url="https://github.com/org/repo",
        git_token="ghp_platform",
        llm={"base": "http://127.0.0.1:4000/v1", "key": "sk-gateway"},
    )
    sealed = await setting.vault.seal("s-1", "a1", body)
    env = sealed["env"]
    assert env["API_KEY"].startswith("stub_api_key_")
    assert env["SHARED_TOKEN"].startswith("stub_shared_token_")
    assert sealed["git_token"].startswith("stub_git_token_")
    assert sealed["llm"]["key"].startswith("stub_litellm_api_key_")
    kept = ("LANG", "NOTE", "OWN", "AGENT_ID", "SHARED_TIMEOUT")
    assert [env[name] for name in kept] == [body["env"][name] for name in kept]
    proxy = env["HTTPS_PROXY"]
    assert proxy.startswith("http://s-1:") and env["http_proxy"] == proxy
    place = proxy.rpartition("@")[2]
    assert sealed["llm"]["base"] == env["LITELLM_API_BASE"] == f"http://{place}/v1"
    assert "real-key" not in str(sealed) and "sk-gateway" not in str(sealed) and "ghp_platform" not in str(sealed)

    assert await setting.vault.seal("s-1", "a1", body) == sealed  # the same sandbox, the same stubs
    other = await setting.vault.seal("s-2", "a1", body)
    assert other["env"]["API_KEY"] != env["API_KEY"]
    walled = await setting.vault.seal("s-1", "a1", body, proxy="10.0.2.100:3128")
    assert walled["llm"]["base"] == "http://10.0.2.100:3128/v1"
    assert walled["env"]["HTTPS_PROXY"].endswith("@10.0.2.100:3128")
    names = ["API_KEY", "GIT_TOKEN", "LITELLM_API_KEY", "SHARED_TOKEN"]
    assert await setting.vault.keys("s-1") == names
    await setting.vault.release("s-1")
    assert await setting.vault.keys("s-1") == []


async def test_a_value_of_the_sessions_own_is_no_credential_of_the_agents(setting: Setting) -> None:
    await setting.agent(env_vars={"API_KEY": "real-key"})
    sealed = await setting.vault.seal("s-1", "a1", hand_over(env={"API_KEY": "of this session"}))
    assert sealed["env"]["API_KEY"] == "of this session"


@pytest.mark.parametrize("url", ["git@github.com:org/repo", "/srv/repo", "http://127.0.0.1:3001/repo", None])
async def test_a_clone_that_does_not_go_through_the_vault_keeps_its_token(setting: Setting, url: str | None) -> None:
    await setting.agent(repo_url=url)
    sealed = await setting.vault.seal("s-1", "a1", hand_over(repo_url=url, git_token="ghp_platform"))
    assert sealed["git_token"] == "ghp_platform"


async def test_the_next_platform_process_goes_on_with_the_same_vault(setting: Setting) -> None:
    await setting.agent(env_vars={"API_KEY": "real-key"})
    body = hand_over(env={"API_KEY": "real-key"})
    sealed = await setting.vault.seal("s-1", "a1", body)
    await setting.vault.aclose()
    await setting.database.close()
    await setting.start()
    await until(lambda: setting.vault.status.state == "on", "the vault is there")
    async with setting.database.read() as tx:
        assert await egress.grants(tx) == []  # no session needs that sandbox
    again = await setting.vault.seal("s-1", "a1", body)
    assert again["env"]["HTTPS_PROXY"].rpartition("@")[2] == sealed["env"]["HTTPS_PROXY"].rpartition("@")[2]


async def test_passed_listeners_outlive_the_platform_and_then_the_vault(setting: Setting, tmp_path: Path) -> None:
    await setting.agent()
    async with setting.database.begin() as tx:
        await sessions.add(tx, session_row("1"))
    await setting.vault.seal("s-1", "a1", hand_over())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        await setting.vault.listen("s-1", {"explicit": listener})
    assert b"BEGIN CERTIFICATE" in await certificate(port)
    await setting.vault.aclose()
    await setting.database.close()
    await setting.start()
    await until(lambda: setting.vault.status.state == "on", "the vault is there")
    descriptors = 0
    for _ in range(3):
        old = vault_process(tmp_path / "vault")
        os.kill(old, signal.SIGKILL)
        await until(lambda: setting.vault.status.state == "down", "its end is seen")
        await until(lambda: setting.vault.status.state == "on", "it is started anew")
        assert vault_process(tmp_path / "vault") != old
        assert b"BEGIN CERTIFICATE" in await certificate(port)
        descriptors = descriptors or open_descriptors()
        await until(lambda most=descriptors: open_descriptors() <= most, "it keeps no descriptor")
    await setting.vault.release("s-1")
    with pytest.raises(OSError):
        await certificate(port)


async def test_a_vault_of_other_code_is_replaced_and_its_sandboxes_go_on(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setting.agent(env_vars={"API_KEY": "real-key"})
    async with setting.database.begin() as tx:
        await sessions.add(tx, session_row("1"))
    body = hand_over(env={"API_KEY": "real-key"})
    sealed = await setting.vault.seal("s-1", "a1", body)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        await setting.vault.listen("s-1", {"explicit": listener})
    first = vault_process(tmp_path / "vault")

    async def restarted() -> int:
        await setting.vault.aclose()
        await setting.database.close()
        await setting.start()
        await until(lambda: setting.vault.status.state == "on", "the vault is there")
        assert b"BEGIN CERTIFICATE" in await certificate(port)
        assert await setting.vault.seal("s-1", "a1", body) == sealed  # the proxy's port, too
        return vault_process(tmp_path / "vault")

    assert await restarted() == first
    monkeypatch.setattr(version, "code", lambda: "of the next platform")
    second = await restarted()
    assert second != first
    # Should it be of other code still, it is taken as it is.
    os.kill(second, signal.SIGKILL)
    await until(lambda: setting.vault.status.state == "down", "its end is seen")
    await until(lambda: setting.vault.status.state == "on", "it is started anew")
    assert b"BEGIN CERTIFICATE" in await certificate(port)
    await setting.vault.release("s-1")


def open_descriptors() -> int:
    """Of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def vault_process(directory: Path) -> int:
    """Its process id."""
    with control.connected(directory) as sock:
        return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


async def certificate(port: int) -> bytes:
    """What a sandbox's own proxy says of itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /ca.crt HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_folders_that_cannot_be_used_close_the_vault(tmp_path: Path) -> None:
    made = Setting(tmp_path)
    (tmp_path / "vault").write_text("in the way")
    await made.start()
    assert made.vault.status.state == "down"
    await until(lambda: made.vault.status.reason != "it is being started", "it says why")
    assert made.vault.status.state == "down"
    await made.vault.aclose()
    await made.database.close()
    shutil.rmtree(tmp_path, ignore_errors=True)

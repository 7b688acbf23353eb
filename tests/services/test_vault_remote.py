"""Two replicas of a platform and two vaults elsewhere: each vault knows each sandbox, whoever comes and goes."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from backend.services import vault as vault_module
from backend.services import vault_remote
from backend.services.errors import VaultError
from backend.services.vault import VaultService
from backend.services.vault_links import Link
from backend.services.vault_remote import RemoteVaults
from backend.settings import Settings, SettingsError
from backend.store import agents, egress, sessions
from backend.store.database import Database
from backend.store.secrets import Cipher
from tests.rows import agent_row, session_row
from tests.vault.served import HOST, KEY, Served
from tests.vault.servers import Server, Trust
from tests.waiting import until

REAL = "sk-real-0123456789"
BODY: dict[str, Any] = {"env": {"API_KEY": REAL}, "repo_url": None, "git_token": None, "llm": {}}


class Replica:
    """A platform process: its own connections, a database shared with the others."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.cipher = Cipher(settings.encryption_key_value)

    async def start(self) -> None:
        self.database = await Database.open(self._settings.database_path)
        self.vault = VaultService(self.database, self.cipher, self._settings, RemoteVaults(self._settings))
        self.vault.start()

    async def whole(self) -> None:
        await until(lambda: self.vault.status == vault_module.Status("on"), "all vaults are connected")

    async def close(self) -> None:
        await self.vault.aclose()
        await self.database.close()

    async def seen(self) -> list[tuple[str, int]]:
        async with self.database.read() as tx:
            rows = await egress.seen(tx, "1", 100)
        return [(row["kind"], row["count"]) for row in rows]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Server, Trust]]:
    made, trust = Server(), Trust(tmp_path)
    async with made.running(trust.context(HOST)):
        yield made, trust


@pytest.fixture
async def vaults(server: tuple[Server, Trust]) -> AsyncIterator[list[Served]]:
    made = [Served(server[1].file), Served(server[1].file)]
    for each in made:
        await each.start()
    yield made
    for each in made:
        await each.end()


@pytest.fixture
async def replicas(
    vaults: list[Served], server: tuple[Server, Trust], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Replica]]:
    monkeypatch.setattr("backend.services.vault_links.LAST_RETRY", 0.4)
    settings = Settings.load(
        data_dir=tmp_path,
        master_key="test-master-key",
        vault="on",
        vault_addresses=",".join(f"{HOST}:{vault.control_port}" for vault in vaults),
        vault_proxy=f"localhost:{vaults[0].port}",
        vault_key=KEY,
        vault_reachable=f"{HOST}:{server[0].port}",
    ).with_keys()
    made = [Replica(settings), Replica(settings)]
    for each in made:
        await each.start()
    one = made[0]
    async with one.database.begin() as tx:
        await agents.add(tx, agent_row("a1", env_vars={"API_KEY": one.cipher.encrypt(REAL)}))
        await sessions.add(tx, session_row("1"))
    for each in made:
        await each.whole()
    yield made
    for each in made:
        with contextlib.suppress(Exception):
            await each.close()


async def asked(vault: Served, sealed: Any, server: Server) -> int:
    """The status a sandbox gets through one of the vaults, which shows that its key was put in."""
    user = sealed["env"]["HTTPS_PROXY"].removeprefix("http://").partition("@")[0]
    context = ssl.create_default_context(cadata=sealed["authorities"]["certificate"])
    before = len(server.requests)
    try:
        async with httpx.AsyncClient(
            proxy=f"http://{user}@{vault.host}:{vault.port}", verify=context, trust_env=False, timeout=20
        ) as client:
            headers = {"X-Key": sealed["env"]["API_KEY"]}
            status = (await client.get(f"https://{HOST}:{server.port}/echo", headers=headers)).status_code
    except httpx.ProxyError as error:
        return int(str(error).split(" ")[0])
    if status == 200:
        assert dict(server.requests[before]["headers"])["x-key"] == REAL
    return status


async def test_the_hand_over_has_all_that_a_pod_needs(replicas: list[Replica], vaults: list[Served]) -> None:
    body = {
        **BODY,
        "env": {**BODY["env"], "LANG": "C"},
        "llm": {"base": "http://litellm.llm:4000", "key": "sk-gateway"},
    }
    sealed = await replicas[0].vault.seal("s-1", "a1", body)
    env = sealed["env"]
    assert env["API_KEY"].startswith("stub_api_key_") and env["LANG"] == "C"
    # An address, because sandboxes resolve no names; and no path that exists elsewhere only.
    assert env["HTTPS_PROXY"].startswith("http://s-1:") and env["HTTPS_PROXY"].endswith(f"@127.0.0.1:{vaults[0].port}")
    assert "SSL_CERT_FILE" not in env and str(replicas[0]._settings.data_dir) not in str(sealed)
    ours = sealed["authorities"]["certificate"]
    assert sealed["authorities"]["bundle"].endswith(ours) and "PRIVATE" not in str(sealed)
    # Vaults that share a key share their authority: one that starts later is trusted, too.
    first, *others = (each.public_key() for each in x509.load_pem_x509_certificates(ours.encode()))
    assert all(other == first for other in others)
    assert await replicas[1].vault.seal("s-1", "a1", body) == sealed
    with pytest.raises(VaultError, match="cannot be passed"):
        await replicas[0].vault.listen("s-1", {})


async def test_each_vault_knows_each_sandbox(
    replicas: list[Replica], vaults: list[Served], server: tuple[Server, Trust]
) -> None:
    one, two = replicas
    there, _ = server
    sealed = await one.vault.seal("s-1", "a1", BODY)
    assert [await asked(vault, sealed, there) for vault in vaults] == [200, 200]
    await until(lambda: _told_twice(one), "both vaults have told")
    assert await one.seen() == [("swapped", 1), ("swapped", 1)]

    # What one replica changes holds in both vaults.
    async with two.database.begin() as tx:
        await agents.change(tx, "a1", {"deny_out": ["127.0.0.1"]})
    for vault in vaults:
        await until(lambda vault=vault: _is(asked(vault, sealed, there), 403), "the new list holds")
    await two.vault.release("s-1")
    assert [await asked(vault, sealed, there) for vault in vaults] == [407, 407]


async def _told_twice(replica: Replica) -> bool:
    return len(await replica.seen()) >= 2


async def _is(status: Any, wanted: int) -> bool:
    return bool(await status == wanted)


@pytest.mark.parametrize("meanwhile", ["changed", "removed"])
async def test_a_word_that_comes_late_does_not_stand(
    replicas: list[Replica],
    vaults: list[Served],
    server: tuple[Server, Trust],
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: str,
) -> None:
    one, two = replicas
    there, _ = server
    sealed = await one.vault.seal("s-1", "a1", BODY)
    wanted = 403 if meanwhile == "changed" else 407
    late, ask, waiting = asyncio.Event(), Link.ask, [True]

    async def slow(self: Link, do: str, *args: Any, **what: Any) -> dict[str, Any]:
        """What the first replica says of its own change comes after all that the second has done since."""
        if do == "open" and waiting:
            waiting.clear()
            if meanwhile == "removed":
                await two.vault.release("s-1")
            else:
                async with two.database.begin() as tx:
                    await agents.change(tx, "a1", {"deny_out": ["127.0.0.1"]})
            for vault in vaults:
                await until(lambda vault=vault: _is(asked(vault, sealed, there), wanted), "the second was heard")  # type: ignore[misc]
            answer = await ask(self, do, *args, **what)
            late.set()
            return answer
        return await ask(self, do, *args, **what)

    monkeypatch.setattr(Link, "ask", slow)
    async with one.database.begin() as tx:
        await agents.change(tx, "a1", {"deny_out": ["elsewhere.test"]})
    await until(late.is_set, "the first has spoken")
    for vault in vaults:
        await until(lambda vault=vault: _is(asked(vault, sealed, there), wanted), "the last change holds")  # type: ignore[misc]


async def test_a_vault_that_restarts_is_told_all_anew(
    replicas: list[Replica], vaults: list[Served], server: tuple[Server, Trust]
) -> None:
    one, two = replicas
    there, _ = server
    sealed = await one.vault.seal("s-1", "a1", BODY)
    await vaults[0].end(kill=True)
    await until(lambda: one.vault.status.reason is not None, "its end is seen")
    assert one.vault.status.state == "on"
    assert f"1 of 2 vaults away: {HOST}:{vaults[0].control_port}" in str(one.vault.status.reason)
    assert await asked(vaults[1], sealed, there) == 200
    await vaults[0].start()
    for each in replicas:
        await each.whole()
    assert await asked(vaults[0], sealed, there) == 200
    assert b" 200 " in await vaults[0].probe("/readyz")

    # A sandbox that went while a vault was away is unknown to it, too.
    await vaults[0].end(kill=True)
    await until(lambda: two.vault.status.reason is not None, "its end is seen")
    await two.vault.release("s-1")
    await vaults[0].start()
    for each in replicas:
        await each.whole()
    assert [await asked(vault, sealed, there) for vault in vaults] == [407, 407]


async def test_sandboxes_outlive_the_platform(
    replicas: list[Replica], vaults: list[Served], server: tuple[Server, Trust]
) -> None:
    one, two = replicas
    there, _ = server
    sealed = await one.vault.seal("s-1", "a1", BODY)
    for each in replicas:
        await each.close()
    assert [await asked(vault, sealed, there) for vault in vaults] == [200, 200]
    for each in replicas:
        await each.start()
        await each.whole()
    # What was seen meanwhile is told now, and once.
    await until(lambda: _told_twice(two), "both vaults have told")
    assert sum(count for _, count in await two.seen()) == 2
    assert [await asked(vault, sealed, there) for vault in vaults] == [200, 200]
    await one.vault.release("s-1")


async def test_without_a_vault_nothing_starts(
    replicas: list[Replica], vaults: list[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_module, "READY_SECONDS", 0.1)
    for vault in vaults:
        await vault.end(kill=True)
    one = replicas[0]
    await until(lambda: one.vault.status.state == "down", "their end is seen")
    assert "none of 2 vaults is connected" in str(one.vault.status.reason)
    with pytest.raises(VaultError, match="none of 2 vaults"):
        await one.vault.seal("s-2", "a1", BODY)


async def test_each_address_of_a_name_is_a_vault(
    server: tuple[Server, Trust], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"vaults.test": [HOST], "vault.test": [HOST]}

    async def addresses(host: str, _port: int) -> list[str]:
        return known[host]

    monkeypatch.setattr(vault_remote, "_addresses", addresses)
    monkeypatch.setattr(vault_remote, "RESOLVE_SECONDS", 0.05)
    there, trust = server
    first, second = Served(trust.file), Served(trust.file, host="127.0.0.2")
    await first.start()
    second.control_port = first.control_port
    settings = Settings.load(
        data_dir=tmp_path,
        master_key="test-master-key",
        vault_addresses=f"vaults.test:{first.control_port}",
        vault_proxy=f"vault.test:{first.port}",
        vault_key=KEY,
        vault_reachable=f"{HOST}:{there.port}",
    ).with_keys()
    replica = Replica(settings)
    await replica.start()
    try:
        async with replica.database.begin() as tx:
            await agents.add(tx, agent_row("a1", env_vars={"API_KEY": replica.cipher.encrypt(REAL)}))
            await sessions.add(tx, session_row("1"))
        sealed = await replica.vault.seal("s-1", "a1", BODY)

        # One that comes is told of all, and one that is gone for good is nothing to wait for.
        await second.start()
        known["vaults.test"].append(second.host)
        await until(lambda: _is(asked(second, sealed, there), 200), "the second knows the sandbox")
        await first.end(kill=True)
        await until(lambda: replica.vault.status.reason, "its end is seen")
        known["vaults.test"].remove(HOST)
        await replica.whole()
        await replica.vault.release("s-1")
        assert await asked(second, sealed, there) == 407
    finally:
        await replica.close()
        for vault in (first, second):
            await vault.end()


async def test_a_name_nobody_knows_is_told(tmp_path: Path) -> None:
    settings = Settings.load(
        data_dir=tmp_path,
        master_key="test-master-key",
        vault_addresses="vaults.invalid:1",
        vault_proxy="vault.invalid:2",
        vault_key=KEY,
    ).with_keys()
    replica = Replica(settings)
    await replica.start()
    await until(lambda: "vaults.invalid" in str(replica.vault.status.reason), "it says which")
    assert replica.vault.status.state == "down"
    await replica.close()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"vault_addresses": "vault:1"}, "LAP_VAULT_PROXY, LAP_VAULT_KEY"),
        ({"vault_addresses": "vault"}, "no host:port"),
        ({"vault_addresses": "vault:1", "vault_proxy": "vault:2", "vault_key": "short"}, "at least 32"),
        ({"sandboxes": "kubernetes", "vault": "on"}, "LAP_VAULT_ADDRESSES"),
    ],
)
def test_settings_that_do_not_fit(given: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=why):
        Settings.load(data_dir=tmp_path, master_key="test-master-key", **given)


def test_the_key_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    given = {"vault_addresses": "vault:1", "vault_proxy": "vault:2", "vault_key_file": tmp_path / "key"}
    settings = Settings.load(data_dir=tmp_path, master_key="test-master-key", **given)
    assert settings.with_keys().vault_key_value == KEY
    (tmp_path / "key").write_text("short")
    with pytest.raises(SettingsError, match="at least 32"):
        settings.with_keys()
    assert base64.b64encode(KEY.encode()).decode() not in repr(settings)

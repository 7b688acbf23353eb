"""What the vault costs, beside a direct connection: both measured in one run, with a credential put in each request."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.domain import stubs
from backend.vault import control
from backend.vault.control import Channel
from tests.vault.servers import Trust

pytestmark = pytest.mark.bench

KEPT_MS, NEW_MS, REQUESTS_S, DOWNLOAD_MB_S, RSS_MB = 1.0, 5.0, 3_000, 200, 60


def python(*arguments: str, **options: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


async def measured(*arguments: str) -> dict[str, float]:
    process = python("tests.bench.vault_load", "load", *arguments)
    output, _ = await asyncio.to_thread(process.communicate, timeout=180)
    figures: dict[str, float] = json.loads(output)
    return figures


async def test_cost(tmp_path: Path) -> None:
    trust = Trust(tmp_path)
    server_pem = tmp_path / "server.pem"
    server_pem.write_bytes(trust.pem("127.0.0.1"))
    directory = tmp_path / "vault"
    directory.mkdir(mode=0o700)
    (directory / control.SECRET).write_text("bench")
    server = python("tests.bench.vault_load", "serve", str(server_pem))
    vault = python("backend.vault", "--directory", str(directory), env={**os.environ, "SSL_CERT_FILE": str(trust.file)})
    try:
        assert server.stdout and vault.stdout
        port = int(await asyncio.to_thread(server.stdout.readline))
        told = json.loads(await asyncio.to_thread(vault.stdout.readline))
        channel = Channel(control.connected(directory))
        stub = stubs.make("TOKEN")
        session = {
            "token": "t",
            "policy": {"allow": [], "deny": [], "reachable": [["127.0.0.1", port]]},
            "credentials": [{"name": "TOKEN", "stub": stub, "value": "sk-" + "v" * 40, "hosts": None}],
        }
        for number, request in enumerate(
            ({"do": "hello", "secret": "bench"}, {"do": "open", "name": "s", "session": session})
        ):
            await channel.send({"id": number, **request})
            assert "ok" in (await channel.receive())[0]
        authorization = "Basic " + base64.b64encode(b"s:t").decode()
        direct = await measured(str(port), str(trust.file))
        through = await measured(str(port), str(directory / "ca.crt"), str(told["port"]), authorization, stub)
        rss = resident_mb(vault.pid)
        channel.close()
    finally:
        for process in (server, vault):
            process.terminate()
            process.wait(10)
    kept, new = (through[name] - direct[name] for name in ("kept_ms", "new_ms"))
    print(
        f"\n{'':24}{'direct':>10}{'vault':>10}{'limit':>12}"
        f"\n{'kept connection, ms':24}{direct['kept_ms']:>10.2f}{through['kept_ms']:>10.2f}{'+' + str(KEPT_MS):>12}"
        f"\n{'new connection, ms':24}{direct['new_ms']:>10.2f}{through['new_ms']:>10.2f}{'+' + str(NEW_MS):>12}"
        f"\n{'16 at once, requests/s':24}{direct['requests_s']:>10.0f}{through['requests_s']:>10.0f}{REQUESTS_S:>12}"
        f"\n{'download, MB/s':24}{direct['download_mb_s']:>10.0f}{through['download_mb_s']:>10.0f}{DOWNLOAD_MB_S:>12}"
        f"\n{'its memory, MB':24}{'':>10}{rss:>10.0f}{RSS_MB:>12}"
    )
    assert kept <= KEPT_MS
    assert new <= NEW_MS
    assert through["requests_s"] >= REQUESTS_S
    assert through["download_mb_s"] >= DOWNLOAD_MB_S
    assert rss <= RSS_MB


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024

"""What the vault costs beside a direct connection and mitmproxy: one run, with a credential put in each request.

Figures of time depend on the machine and on who else uses it: they are printed beside their aims. What is asserted are
ratios within the run, and memory.
"""

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tests.vault
from backend.domain import stubs
from backend.vault import control
from backend.vault.control import Channel
from tests.vault.servers import Trust

pytestmark = pytest.mark.bench

MITMDUMP = os.environ.get("LAP_TEST_MITMDUMP", "")
VALUE = "sk-" + "v" * 40
RSS_MB = 60
ROWS = (
    ("kept_ms", "kept connection, ms", "{:.2f}", "direct + 1"),
    ("new_ms", "new connection, ms", "{:.2f}", "direct + 5"),
    ("requests_s", "16 at once, requests/s", "{:.0f}", "3000"),
    ("processor_ms", "processor for a request, ms", "{:.3f}", ""),
    ("download_mb_s", "download, MB/s", "{:.0f}", "200"),
    ("rss_mb", "memory, MB", "{:.0f}", str(RSS_MB)),
)
Figures = dict[str, float]


def python(*arguments: str, **options: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


async def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return await asyncio.to_thread(process.stdout.readline)


async def measured(process: int, server: int, authority: Path, *proxy: str) -> Figures:
    """Figures of one way to the server, and of the process that is to be looked at."""
    load = python("tests.bench.vault_load", "load", str(server), str(authority), str(process), *proxy)
    output, _ = await asyncio.to_thread(load.communicate, timeout=240)
    figures: Figures = json.loads(output)
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return {**figures, "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024}


async def through_vault(directory: Path, trust: Trust, server: int) -> Figures:
    directory.mkdir(mode=0o700)
    (directory / control.SECRET).write_text("bench")
    vault = python("backend.vault", "--directory", str(directory), env={**os.environ, "SSL_CERT_FILE": str(trust.file)})
    try:
        told = json.loads(await first_line(vault))
        channel = Channel(control.connected(directory))
        stub = stubs.make("TOKEN")
        session = {
            "token": "t",
            "policy": {"allow": [], "deny": [], "reachable": [["127.0.0.1", server]]},
            "credentials": [{"name": "TOKEN", "stub": stub, "value": VALUE, "hosts": None}],
        }
        for number, request in enumerate(
            ({"do": "hello", "secret": "bench"}, {"do": "open", "name": "s", "session": session})
        ):
            await channel.send({"id": number, **request})
            assert "ok" in (await channel.receive())[0]
        known = "Basic " + base64.b64encode(b"s:t").decode()
        figures = await measured(vault.pid, server, directory / "ca.crt", str(told["port"]), known, stub)
        channel.close()
        return figures
    finally:
        vault.terminate()
        vault.wait(10)


async def through_mitmproxy(directory: Path, trust: Trust, server: int) -> Figures:
    stub = stubs.make("TOKEN")
    addon = Path(tests.vault.__file__).with_name("mitmproxy_addon.py")
    mitmdump = subprocess.Popen(
        [
            *(MITMDUMP, "-q", "-s", str(addon), "--listen-host", "127.0.0.1", "--listen-port", "0"),
            *("--set", f"confdir={directory}", "--set", f"ssl_verify_upstream_trusted_ca={trust.file}"),
            *("--set", "stream_large_bodies=1m"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LAP_TEST_SWAPS": json.dumps({stub: VALUE})},
    )
    try:
        port = (await first_line(mitmdump)).strip()
        return await measured(mitmdump.pid, server, directory / "mitmproxy-ca-cert.pem", port, "none", stub)
    finally:
        mitmdump.terminate()
        mitmdump.wait(10)


async def test_cost(tmp_path: Path) -> None:
    trust = Trust(tmp_path)
    certificate = tmp_path / "server.pem"
    certificate.write_bytes(trust.pem("127.0.0.1"))
    server = python("tests.bench.vault_load", "serve", str(certificate))
    try:
        port = int(await first_line(server))
        ways = {"direct": await measured(server.pid, port, trust.file)}
        ways["vault"] = await through_vault(tmp_path / "vault", trust, port)
        if MITMDUMP:
            ways["mitmproxy"] = await through_mitmproxy(tmp_path / "mitmproxy", trust, port)
    finally:
        server.terminate()
        server.wait(10)
    print("\n" + " " * 30 + "".join(f"{way:>12}" for way in ways) + f"{'aim':>14}")
    for key, title, form, aim in ROWS:
        print(f"{title:30}" + "".join(f"{form.format(each[key]):>12}" for each in ways.values()) + f"{aim:>14}")
    direct, vault = ways["direct"], ways["vault"]
    assert vault["rss_mb"] <= RSS_MB
    # The server itself is the measure: a request costs the vault, which has two of its connections, some times as much.
    assert vault["processor_ms"] <= 8 * direct["processor_ms"]
    if MITMDUMP:
        mitmproxy = ways["mitmproxy"]
        assert vault["processor_ms"] <= mitmproxy["processor_ms"] / 4
        assert vault["requests_s"] >= 3 * mitmproxy["requests_s"]
        assert vault["kept_ms"] - direct["kept_ms"] <= (mitmproxy["kept_ms"] - direct["kept_ms"]) / 2

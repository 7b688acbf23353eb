"""Real programs through the vault, against servers with real certificates."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect as websocket

from tests.vault.conftest import REAL, Box, reach, run
from tests.vault.githost import GitHost
from tests.vault.servers import Http2Server, Server, Trust

TOKEN = "ghp_realToken0123456789"


def python(source: str) -> tuple[str, ...]:
    return (sys.executable, "-c", source)


@pytest.mark.parametrize("client", ["requests", "httpx", "urllib.request"])
async def test_python(box: Box, server: Server, client: str) -> None:
    pytest.importorskip(client)
    stub = box.open(credentials={"TOKEN": REAL}, reachable=reach(server))["TOKEN"]
    target = f"https://api.example.test:{server.port}/gzip?k={stub}"
    source = {
        "requests": f"import requests; print(requests.post({target!r}, json={{'k': {stub!r}}}).text)",
        "httpx": f"import httpx; print(httpx.post({target!r}, json={{'k': {stub!r}}}).text)",
        "urllib.request": f"import urllib.request as u; r = u.Request({target!r}, data=b'k={stub}')\n"
        "print(u.urlopen(r).read().decode())",
    }[client]
    code, output = await run(*python(source), env=box.environment())
    assert code == 0, output
    sent = server.requests[0]["body"].decode()
    assert json.loads(sent)["k"] == REAL if client != "urllib.request" else "%26more" in sent
    assert stub in output and REAL not in output


async def test_node_fetch(box: Box, server: Server) -> None:
    """Node's own fetch knows no proxy before version 24: https through a tunnel of its own stands for it there."""
    stub = box.open(credentials={"TOKEN": REAL}, reachable=reach(server))["TOKEN"]
    source = """
const http = require("http"), https = require("https"), tls = require("tls");
const proxy = new URL(process.env.HTTPS_PROXY), host = "api.example.test", [port, stub] = process.argv.slice(1);
const auth = "Basic " + Buffer.from(proxy.username + ":" + proxy.password).toString("base64");
const ask = http.request({host: proxy.hostname, port: proxy.port, method: "CONNECT", path: `${host}:${port}`,
  headers: {"Proxy-Authorization": auth, Host: `${host}:${port}`}});
ask.on("connect", (answer, socket) => {
  const secure = tls.connect({socket, servername: host}, () => {
    const sent = https.request({createConnection: () => secure, host, port, path: "/echo", method: "POST",
      headers: {Authorization: `Bearer ${stub}`, Host: `${host}:${port}`}}, (got) => {
      let text = "";
      got.on("data", (data) => text += data);
      got.on("end", () => { console.log(text); process.exit(0); });
    });
    sent.end("hello");
  });
});
ask.end();
"""
    code, output = await run("node", "-e", source, str(server.port), stub, env=box.environment())
    assert code == 0, output
    assert dict(server.requests[0]["headers"])["authorization"] == f"Bearer {REAL}"
    assert stub in output and REAL not in output


async def test_git_clone_and_push(box: Box, trust: Trust, tmp_path: Path) -> None:
    work = tmp_path / "work"
    root = tmp_path / "repositories"
    root.mkdir()
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch", "main", root / "one.git"], check=True)
    subprocess.run(["git", "-C", root / "one.git", "config", "http.receivepack", "true"], check=True)
    host = GitHost(root, TOKEN)
    async with host.running(trust.context("git.example.test")):
        box.names["git.example.test"] = ["127.0.0.1"]
        place = f"git.example.test:{host.port}"
        stub = box.open(credentials={"GITHUB_TOKEN": (TOKEN, [place])}, reachable=reach(host, "git.example.test"))[
            "GITHUB_TOKEN"
        ]
        env = box.environment() | {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.test")
        script = f"""set -e
git clone -q https://x-access-token:{stub}@{place}/one.git {work}
cd {work}; git checkout -q -b main; head -c 3000000 /dev/urandom > big; echo hello > file
git add .; git {" ".join(identity)} commit -q -m one; git push -q origin main; git ls-remote origin"""
        code, output = await run("sh", "-c", script, env=env)
        assert code == 0, output
        assert "refs/heads/main" in output
        assert host.refused > 0 and host.authorized > 0  # git sends credentials only once it was asked
        again = tmp_path / "again"
        code, output = await run("git", "clone", "-q", f"https://x:{stub}@{place}/one.git", str(again), env=env)
        assert code == 0, output
        assert (again / "big").read_bytes() == (work / "big").read_bytes()
        code, output = await run(
            "git", "clone", "-q", f"https://x:{TOKEN[:-1]}@{place}/one.git", str(tmp_path / "no"), env=env
        )
        assert code != 0
    assert {note.kind for note in box.notes()} == {"swapped"}


async def test_pip(box: Box, trust: Trust, tmp_path: Path) -> None:
    import io
    import zipfile

    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("lap_probe.py", "ANSWER = 42\n")
        info = "lap_probe-1.0.dist-info"
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: lap-probe\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    pages = {
        "/simple/lap-probe/": (
            "text/html",
            b'<a href="/f/lap_probe-1.0-py3-none-any.whl">lap_probe-1.0-py3-none-any.whl</a>',
        ),
        "/f/lap_probe-1.0-py3-none-any.whl": ("application/octet-stream", wheel.getvalue()),
    }
    async with files(pages, trust) as index:
        box.names["pypi.example.test"] = ["127.0.0.1"]
        stub = box.open(credentials={"T": REAL}, reachable=reach(index, "pypi.example.test"))["T"]
        target = tmp_path / "installed"
        url = f"https://u:{stub}@pypi.example.test:{index.port}/simple/"
        code, output = await run(
            *(sys.executable, "-m", "pip", "install", "--isolated", "--no-cache-dir", "--disable-pip-version-check"),
            *("--index-url", url, "--target", str(target), "lap-probe"),
            env=box.environment(),
        )
        assert code == 0, output
        assert (target / "lap_probe.py").read_text() == "ANSWER = 42\n"
        assert index.authorizations == {"Basic " + base64.b64encode(f"u:{REAL}".encode()).decode()}


async def test_npm(box: Box, trust: Trust, tmp_path: Path) -> None:
    import hashlib
    import io
    import tarfile

    package = io.BytesIO()
    manifest = json.dumps({"name": "lap-probe", "version": "1.0.0"}).encode()
    with tarfile.open(fileobj=package, mode="w:gz") as file:
        info = tarfile.TarInfo("package/package.json")
        info.size = len(manifest)
        file.addfile(info, io.BytesIO(manifest))
    data = package.getvalue()
    pages: dict[str, tuple[str, bytes]] = {"/lap-probe/-/lap-probe-1.0.0.tgz": ("application/octet-stream", data)}
    async with files(pages, trust) as registry:
        host = f"npm.example.test:{registry.port}"
        box.names["npm.example.test"] = ["127.0.0.1"]
        distribution = {
            "tarball": f"https://{host}/lap-probe/-/lap-probe-1.0.0.tgz",
            "shasum": hashlib.sha1(data).hexdigest(),
        }
        version = {"name": "lap-probe", "version": "1.0.0", "dist": distribution}
        described = {"name": "lap-probe", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        pages["/lap-probe"] = ("application/json", json.dumps(described).encode())
        stub = box.open(credentials={"NPM_TOKEN": REAL}, reachable=reach(registry, "npm.example.test"))["NPM_TOKEN"]
        project = tmp_path / "project"
        project.mkdir()
        (project / ".npmrc").write_text(
            f"registry=https://{host}/\n//{host}/:_authToken={stub}\nfund=false\naudit=false\n"
        )
        code, output = await run(
            *("npm", "install", "--prefix", str(project), "--cache", str(tmp_path / "cache"), "lap-probe"),
            env=box.environment() | {"npm_config_userconfig": str(project / ".npmrc")},
        )
        assert code == 0, output
        assert (project / "node_modules/lap-probe/package.json").exists()
        assert registry.authorizations == {f"Bearer {REAL}"}


async def test_websocket(box: Box, server: Server) -> None:
    stub = box.open(credentials={"TOKEN": REAL}, reachable=reach(server))["TOKEN"]
    import ssl

    async with websocket(
        f"wss://api.example.test:{server.port}/ws?token={stub}",
        additional_headers={"Authorization": f"Bearer {stub}"},
        proxy=box.proxy(),
        ssl=ssl.create_default_context(cafile=str(box.certificate)),
    ) as socket:
        for text in ("hello", "again", "x" * 100):
            await socket.send(text)
            assert await socket.recv() == text
    got = server.requests[0]
    assert dict(got["headers"])["authorization"] == f"Bearer {REAL}"
    assert "token=sk-real" in got["path"]


async def test_http2_on_both_sides(box: Box, trust: Trust) -> None:
    server = Http2Server()
    async with server.running(trust.context("h2.example.test", protocols=("h2", "http/1.1"))):
        box.names["h2.example.test"] = ["127.0.0.1"]
        stub = box.open(credentials={"TOKEN": REAL}, reachable=reach(server, "h2.example.test"))["TOKEN"]
        target = f"https://h2.example.test:{server.port}/x?k={stub}"
        arguments = ("-sS", "-i", "--http2", "-H", f"X-Key: {stub}", "--data-binary", "@-")
        body = ("a" * 500_000 + stub).encode()
        code, output = await run("curl", *arguments, target, env=box.environment(), stdin=body)
        assert code == 0, output
        assert "HTTP/2 200" in output
        got = server.requests[0]
        assert dict(got["headers"])["x-key"] == REAL
        assert got["body"].startswith(b"a" * 500_000)
        assert REAL not in output and stub in output
        assert "x-trailer: end" in output.lower()

        # Several at a time share one connection to the server.
        before = server.connections
        transfers = [argument for _ in range(20) for argument in (target, "-o", os.devnull)]
        code, output = await run("curl", "-sS", "--http2", "--parallel", *transfers, env=box.environment())
        assert code == 0, output
        assert len(server.requests) == 21
        assert server.connections == before


async def test_http1_client_of_an_http2_server_and_the_reverse(box: Box, trust: Trust, server: Server) -> None:
    other = Http2Server()
    async with other.running(trust.context("h2.example.test", protocols=("h2",))):
        box.names["h2.example.test"] = ["127.0.0.1"]
        box.open(reachable=reach(other, "h2.example.test") + reach(server))
        target = f"https://api.example.test:{server.port}/size/300000"
        code, output = await run("curl", "-sS", "--http2", "-o", "-", target, env=box.environment())
        assert code == 0 and len(output) == 300_000


async def test_200_megabytes_each_way(box: Box, server: Server) -> None:
    box.open(credentials={"TOKEN": REAL}, reachable=reach(server))
    size = 200 * 1024 * 1024
    for http in ("--http1.1", "--http2"):
        target = f"https://api.example.test:{server.port}/size/{size}"
        code, output = await run(
            "curl", "-sS", http, "-o", os.devnull, "-w", "%{size_download}", target, env=box.environment(), seconds=120
        )
        assert (code, output) == (0, str(size))


async def test_200_connections_at_once(box: Box, server: Server) -> None:
    stub = box.open(credentials={"TOKEN": REAL}, reachable=reach(server))["TOKEN"]
    import ssl

    context = ssl.create_default_context(cafile=str(box.certificate))
    credentials = base64.b64encode(b"s-1:token-of-s-1").decode()
    all_there = asyncio.Barrier(200)

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
        place = f"api.example.test:{server.port}"
        writer.write(
            f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nProxy-Authorization: Basic {credentials}\r\n\r\n".encode()
        )
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(context, server_hostname="api.example.test")
        await all_there.wait()
        writer.write(f"GET /size/{number} HTTP/1.1\r\nHost: {place}\r\nX-Key: {stub}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d" % number in head.lower()
        assert len(await reader.readexactly(number)) == number
        writer.close()

    async with asyncio.timeout(60):
        await asyncio.gather(*(one(number) for number in range(200)))
    assert len(server.requests) == 200
    assert all(dict(got["headers"])["x-key"] == REAL for got in server.requests)
    (note,) = {note.kind for note in box.notes()}
    assert note == "swapped"


def files(pages: dict[str, tuple[str, bytes]], trust: Trust) -> "FileHost":
    return FileHost(pages, trust)


class FileHost:
    """Serves fixed pages to whoever sends an authorization."""

    def __init__(self, pages: dict[str, tuple[str, bytes]], trust: Trust) -> None:
        self._pages = pages
        self._context = trust.context("pypi.example.test", "npm.example.test")
        self.authorizations: set[str] = set()
        self.port = 0

    async def __aenter__(self) -> "FileHost":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                path = head[0].split(" ")[1].partition("?")[0]
                given = headers.get("authorization")
                kind, data, status = "text/plain", b"", "404 Not Found"
                if not given:
                    status = "401 Unauthorized"
                elif path in self._pages:
                    self.authorizations.add(given)
                    (kind, data), status = self._pages[path], "200 OK"
                lines = f'WWW-Authenticate: Basic realm="x"\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n'
                writer.write(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

"""Git's own HTTP backend behind TLS and Basic authorization, for cloning and pushing."""

import asyncio
import base64
import contextlib
import gzip
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from tests.vault.servers import read_body


class GitHost:
    """Serves the repositories below `root` to who has the token as password."""

    def __init__(self, root: Path, token: str) -> None:
        self._root = root
        self._token = token
        self.port = 0
        self.authorized = 0
        self.refused = 0

    @contextlib.asynccontextmanager
    async def running(self, context: ssl.SSLContext) -> AsyncIterator["GitHost"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await read_body(reader, headers)
                status, lines, answer = await self._answer(head[0].split(" "), headers, body)
                writer.write(f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(answer)}\r\n\r\n".encode() + answer)
                await writer.drain()

    async def _answer(self, request: list[str], headers: dict[str, str], body: bytes) -> tuple[str, str, bytes]:
        given = headers.get("authorization", "").removeprefix("Basic ")
        if base64.b64decode(given).decode().rpartition(":")[2] != self._token:
            self.refused += 1
            return "401 Unauthorized", 'WWW-Authenticate: Basic realm="git"\r\n', b""
        self.authorized += 1
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        path, _, query = request[1].partition("?")
        backend = await asyncio.create_subprocess_exec(
            *("git", "http-backend"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self._root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REMOTE_USER": "x",
                "REQUEST_METHOD": request[0],
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": headers.get("content-type", ""),
                "CONTENT_LENGTH": str(len(body)),
            },
        )
        output, _ = await backend.communicate(body)
        lines, _, answer = output.partition(b"\r\n\r\n")
        said = lines.decode("latin-1").split("\r\n")
        status = next((line.removeprefix("Status: ") for line in said if line.startswith("Status: ")), "200 OK")
        kept = "".join(f"{line}\r\n" for line in said if not line.startswith("Status: "))
        return status, kept, answer

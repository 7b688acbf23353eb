"""A small HTTP server in front of git's own backend, with Basic authorization."""

import asyncio
import base64
import contextlib
import os
from pathlib import Path


class GitHost:
    """Serves the repositories below `root` at `/NAME`, and their files as they are at `/dumb/NAME`."""

    def __init__(self, root: Path, token: str) -> None:
        self.url = ""
        self.authorized = 0
        self.command_lines: list[str] = []
        """Arguments of every git process that ran when a request came in."""
        self._root = root
        self._authorization = "Basic " + base64.b64encode(f"x-access-token:{token}".encode()).decode()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self._note_command_lines()
            writer.write(await self._answer(head[0].split(" "), headers, body))
            await writer.drain()
        writer.close()

    async def _answer(self, request: list[str], headers: dict[str, str], body: bytes) -> bytes:
        if headers.get("authorization") != self._authorization:
            return b'HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm="git"\r\n\r\n'
        self.authorized += 1
        path, _, query = request[1].partition("?")
        if path.startswith("/dumb/"):
            with contextlib.suppress(OSError):
                return b"HTTP/1.0 200 OK\r\n\r\n" + (self._root / path.removeprefix("/dumb/")).read_bytes()
            return b"HTTP/1.0 404 Not Found\r\n\r\n"
        backend = await asyncio.create_subprocess_exec(
            *("git", "http-backend"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self._root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": request[0],
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": headers.get("content-type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            },
        )
        answer, _ = await backend.communicate(body)
        status = b"404 Not Found" if answer.startswith(b"Status: 404") else b"200 OK"
        return b"HTTP/1.0 " + status + b"\r\n" + answer

    def _note_command_lines(self) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if line.startswith("git ") or "git-remote" in line:
                    self.command_lines.append(line)

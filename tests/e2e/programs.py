"""The real programs, as a user starts them: the platform, its sessions, and terminals on them."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from lapconsole.terminal.emulator import Emulator
from tests.waiting import until

API = "/api/v1/managed_agents"
SHELL = "bash --norc --noprofile"


class Platform:
    """`python -m backend` on a data folder of its own."""

    def __init__(self, data_dir: Path, env: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._env = {"LAP_HARNESS_COMMAND_CLAUDE_CODE": SHELL, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.http: httpx.AsyncClient

    async def start(self, *module: str, seconds: float = 20.0) -> None:
        """Start it, or `module` with arguments of its own in its place."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        # What the shell of whoever runs the tests has set must not matter.
        env = {key: value for key, value in os.environ.items() if not key.startswith(("LAP_", "LITELLM", "MASTER"))}
        with (self.data_dir / "platform.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *(module or ["backend"]), "--port", "0", "--data-dir", str(self.data_dir)],
                env=env | self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        record = self.data_dir / "platform.json"

        def listening() -> Any:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"the platform ended at once:\n{self.log()}")
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(record.read_text())
                return found["pid"] == self._process.pid and found["url"]
            return None

        try:
            self.url: str = await until(listening, "the platform listens", seconds)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        self.key = (self.data_dir / "master.key").read_text().strip()
        self.http = httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30, trust_env=False
        )

    def log(self) -> str:
        return (self.data_dir / "platform.log").read_text(errors="replace")

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the process and return its exit code."""
        assert self._process is not None
        await self.http.aclose()
        self._process.send_signal(how)
        try:
            return await asyncio.to_thread(self._process.wait, 15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"the platform did not end on {how.name}:\n{self.log()}") from None

    async def close(self) -> None:
        """Delete all sessions and end the process cleanly, starting it again for that if need be."""
        if not self.running:
            await self.start()
        for session in (await self.http.get(f"{API}/sessions", params={"limit": 200})).json():
            await self.http.delete(f"{API}/sessions/{session['id']}")
        assert await self.end() == 0, self.log()

    async def killed(self) -> None:
        """Waits until the process has ended by SIGKILL."""
        await until(lambda: not self.running, "the platform is killed", 60)
        assert self._process is not None
        assert self._process.returncode == -signal.SIGKILL, self.log()
        await self.http.aclose()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def create_agent(self, **fields: Any) -> dict[str, Any]:
        body = {"name": "tester", "model": "test/model", "harness_id": "claude-code", **fields}
        response = await self.http.post(f"{API}/agents", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    async def create_session(self, agent: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        response = await self.http.post(f"{API}/agents/{agent['id']}/session", json=fields)
        assert response.status_code == 200, response.text
        return response.json()

    async def session(self, session_id: str) -> dict[str, Any]:
        response = await self.http.get(f"{API}/sessions/{session_id}")
        assert response.status_code == 200, response.text
        return response.json()

    async def settled(self, session_id: str, seconds: float = 30.0) -> dict[str, Any]:
        """The session once it is no longer `creating`."""

        async def settled() -> dict[str, Any] | None:
            session = await self.session(session_id)
            return None if session["status"] == "creating" else session

        return await until(settled, f"session {session_id} settles", seconds)

    async def ready(self, agent: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        """A new session of the agent, once it is ready."""
        session = await self.settled((await self.create_session(agent, **fields))["id"])
        assert session["status"] == "ready", session["failure_reason"]
        return session

    async def failed(self, agent: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        """A new session of the agent, once it has failed; nothing of it is left."""
        session = await self.settled((await self.create_session(agent, **fields))["id"])
        assert session["status"] == "failed", session
        await self.nothing_left(session)
        return session

    async def events(self, **query: Any) -> list[dict[str, Any]]:
        response = await self.http.get("/api/v1/events/log", params=query)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def sandbox(self, session: Mapping[str, Any]) -> Path:
        return self.data_dir / "sandboxes" / session["task_arn"]

    async def nothing_left(self, session: Mapping[str, Any]) -> None:
        """Waits until no process, port or folder of the session is left."""
        folder = self.sandbox(session)
        await until(lambda: not processes_of(folder), f"no process of {folder.name} is left")
        await until(lambda: not folder.exists(), f"{folder} is gone")
        if session["sandbox_url"]:
            port = httpx.URL(session["sandbox_url"]).port
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                raise AssertionError(f"port {port} still takes connections")


def make_repository(folder: Path) -> None:
    """A git repository with a file on `main` and another branch `other`."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)

    folder.mkdir()
    git("init", "--quiet", "--initial-branch", "main")
    (folder / "hello.txt").write_text("hello from the repository\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "First")
    git("checkout", "--quiet", "-b", "other")
    (folder / "other.txt").write_text("another branch\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "Second")
    git("checkout", "--quiet", "main")


def processes_of(folder: Path) -> list[int]:
    """Pids of all processes that name the folder in their arguments, environment or working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            facts = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if str(folder).encode() in facts or str((entry / "cwd").readlink()).startswith(str(folder)):
                found.append(int(entry.name))
    return found


class Viewer:
    """A terminal on a session: what is typed into it, and the screen it shows."""

    def __init__(self, connection: ClientConnection, columns: int, lines: int) -> None:
        self.connection = connection
        self.emulator = Emulator(columns, lines)
        self._columns, self._lines = columns, lines

    async def type(self, text: str) -> None:
        await self.connection.send(text.encode())

    async def resize(self) -> None:
        await self.connection.send(json.dumps({"type": "resize", "cols": self._columns, "rows": self._lines}))

    @property
    def screen(self) -> str:
        return "\n".join(self.emulator.text())

    async def shows(self, text: str, seconds: float = 20.0) -> None:
        """Waits until `text` is on the screen."""
        try:
            async with asyncio.timeout(seconds):
                while text not in self.screen:
                    self.emulator.feed(await self.connection.recv())
        except (TimeoutError, ConnectionClosed) as error:
            raise AssertionError(f"{text!r} never came ({error!r}); the screen:\n{self.screen}") from error


@contextlib.asynccontextmanager
async def attached(session: Mapping[str, Any], columns: int = 80, lines: int = 24) -> AsyncIterator[Viewer]:
    """A viewer on a ready session's terminal."""
    async with connect(f"{session['tty_url']}?token={session['tty_token']}", proxy=None) as connection:
        viewer = Viewer(connection, columns, lines)
        await viewer.resize()
        yield viewer


class Seat:
    """A viewer of the second protocol: its screen is always what it has been sent so far."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.emulator = Emulator(80, 24)
        self.greeted = False

    async def type(self, text: str) -> None:
        await self._connection.send(text.encode())

    async def resize(self, columns: int, lines: int) -> None:
        await self._connection.send(json.dumps({"type": "resize", "cols": columns, "rows": lines}))

    async def receive(self) -> None:
        """Takes what comes until the connection ends."""
        size, repaint = (80, 24), False
        with contextlib.suppress(ConnectionClosed):
            async for frame in self._connection:
                if isinstance(frame, bytes):
                    if repaint:
                        self.emulator, repaint = Emulator(*size), False
                    self.emulator.feed(frame)
                    self.greeted = True
                    continue
                message = json.loads(frame)
                if message["type"] in ("welcome", "size"):
                    size = message["cols"], message["rows"]
                repaint = repaint or message["type"] == "repaint"


@contextlib.asynccontextmanager
async def seated(
    session: Mapping[str, Any], columns: int = 80, lines: int = 24, *, drive: bool = False
) -> AsyncIterator[Seat]:
    """A viewer that watches, or drives, once it has been sent the present screen."""
    url = f"{session['tty_url']}?token={session['tty_token']}"
    async with connect(url, subprotocols=[Subprotocol("lap.tty.2")], proxy=None) as connection:
        mode = "drive" if drive else "watch"
        size = {"cols": columns, "rows": lines}
        await connection.send(json.dumps({"type": "hello", "name": mode, "mode": mode, "scrollback": 0, **size}))
        seat = Seat(connection)
        receiving = asyncio.create_task(seat.receive())
        try:
            await until(lambda: seat.greeted, "the first screen")
            yield seat
        finally:
            receiving.cancel()

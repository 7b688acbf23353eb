"""The real harness program, started as a driver starts it, and what talks to it."""

import asyncio
import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from lapconsole.terminal.emulator import Emulator

PROJECT = Path(__file__).parents[2]
TOKEN = "harness-token-for-tests"
BASH = "bash --norc --noprofile -i"
WAIT = 15.0
"""Longest wait for a condition; only a failing test takes so long."""


class RunningHarness:
    """One `python -m backend.harness` with a sandbox directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.process: asyncio.subprocess.Process
        self.http: httpx.AsyncClient
        self.address = ""

    async def start(
        self, env: dict[str, str] | None = None, wrapper: tuple[str, ...] = (), runner: tuple[str, ...] = ()
    ) -> None:
        """`wrapper` starts the interpreter; `runner` is a module, and its arguments, that runs the program's."""
        self.root.mkdir(exist_ok=True)
        with socket.socket() as listener, (self.root / "log").open("ab") as log:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
            listener.set_inheritable(True)
            arguments = ("--listen-fd", str(listener.fileno()), "--root", str(self.root))
            self.process = await asyncio.create_subprocess_exec(
                *(*wrapper, sys.executable, "-m", *runner, "backend.harness", *arguments),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=PROJECT,
                env=os.environ | (env or {}),
                pass_fds=(listener.fileno(),),
                start_new_session=True,
            )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"token": TOKEN}).encode() + b"\n")
        self.process.stdin.close()
        self.http = httpx.AsyncClient(
            base_url=f"http://{self.address}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=WAIT,
            trust_env=False,
        )

    async def stop(self) -> int:
        """SIGTERM, as the driver sends it; the exit code."""
        await self.http.aclose()
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), WAIT)

    async def session(self, **body: Any) -> str:
        """`POST /session`; the id."""
        response = await self.http.post("/session", json={"harness_id": "codex", "command": BASH} | body)
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    async def ready(self, **body: Any) -> dict[str, Any]:
        """A session whose set-up is over; the state then."""
        await self.session(**body)
        return await self.until(lambda state: state["setup"] in ("done", "failed"))

    async def failure(self, **body: Any) -> str:
        """Why the set-up of this session fails."""
        state = await self.ready(**body)
        assert state["setup"] == "failed", state
        return str(state["failure"])

    async def state(self) -> dict[str, Any]:
        response = await self.http.get("/state")
        return dict(response.json())

    async def states(self) -> AsyncIterator[dict[str, Any]]:
        """The frames of `/watch`."""
        async with self.http.stream("GET", "/watch") as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first state that meets `condition`."""
        async with asyncio.timeout(WAIT), contextlib.aclosing(self.states()) as states:
            async for state in states:
                if condition(state):
                    return state
        raise AssertionError("the watch ended")

    async def attach(self, columns: int | None = None, rows: int | None = None) -> "Tty":
        tty = Tty(
            await connect(
                f"ws://{self.address}/tty",
                additional_headers={"Authorization": f"Bearer {TOKEN}"},
                compression=None,
                proxy=None,
                max_size=None,
            )
        )
        if columns is not None and rows is not None:
            await tty.resize(columns, rows)
        return tty

    async def connect2(self, **options: Any) -> ClientConnection:
        """A bare connection that speaks protocol 2."""
        return await connect(
            f"ws://{self.address}/tty",
            additional_headers={"Authorization": f"Bearer {TOKEN}"},
            subprotocols=[Subprotocol("lap.tty.2")],
            compression=None,
            proxy=None,
            max_size=None,
            **options,
        )

    async def attach2(self, name: str = "alice@host", mode: str = "drive", **hello: Any) -> "Tty2":
        """A viewer of protocol 2 that has got its first repaint."""
        tty = Tty2(await self.connect2())
        await tty.hello(name, mode, **hello)
        await tty.repainted()
        return tty

    def log(self) -> str:
        return (self.root / "log").read_text()


class Tty:
    """A viewer; `seen` is all it was sent."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen = ""

    async def until(self, text: str) -> str:
        """Receives until `text` was seen; all of it up to there, which later calls do not look at again."""
        async with asyncio.timeout(WAIT):
            while text not in self.seen:
                frame = await self.socket.recv()
                assert isinstance(frame, str)
                self.seen += frame
        end = self.seen.index(text) + len(text)
        found, self.seen = self.seen[:end], self.seen[end:]
        return found

    async def type(self, keys: str) -> None:
        await self.socket.send(keys.encode())

    async def resize(self, columns: Any, rows: Any) -> None:
        await self.socket.send(json.dumps({"type": "resize", "cols": columns, "rows": rows}))

    async def closed(self) -> tuple[int, str]:
        """The close code, and all that was seen before it."""
        async with asyncio.timeout(WAIT):
            with contextlib.suppress(Exception):
                while True:
                    self.seen += str(await self.socket.recv())
        assert self.socket.close_code is not None
        return self.socket.close_code, self.seen


class Tty2:
    """A viewer of protocol 2: the control messages it got, and the screen its terminal shows."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.controls: list[dict[str, Any]] = []
        self.screen = Emulator(100, 30)
        self.output = bytearray()
        self.size = 100, 30
        """The terminal's, as last told."""

    async def hello(self, name: Any, mode: Any, **more: Any) -> None:
        await self.send(type="hello", name=name, mode=mode, **{"cols": 100, "rows": 30} | more)

    async def send(self, **control: Any) -> None:
        await self.socket.send(json.dumps(control))

    async def type(self, keys: str) -> None:
        await self.socket.send(keys.encode())

    async def receive(self) -> dict[str, Any] | None:
        """The next message: a control message, or None for output, which is on the screen then."""
        message = await self.socket.recv()
        if isinstance(message, bytes):
            self.output += message
            self.screen.feed(message)
            return None
        control = dict(json.loads(message))
        self.controls.append(control)
        if control["type"] in ("size", "welcome"):
            self.size = control["cols"], control["rows"]
            self.screen.resize(*self.size)
        return control

    async def control(self, kind: str, **values: Any) -> dict[str, Any]:
        """Receives until a control message of this type, with these values, comes."""
        async with asyncio.timeout(WAIT):
            while True:
                control = await self.receive()
                if control is not None and control["type"] == kind and control.items() >= values.items():
                    return control

    async def repainted(self) -> dict[str, Any]:
        """Receives the next repaint; what announced it."""
        announced = await self.control("repaint")
        assert await self.receive() is None
        return announced

    async def shows(self, text: str) -> None:
        """Receives until the screen has `text` in one of its rows."""
        async with asyncio.timeout(WAIT):
            while not any(text in row for row in self.screen.text()):
                await self.receive()

    async def viewers(self, *expected: tuple[str, str]) -> None:
        """Receives until the viewers last told are these, (name, mode) each."""
        async with asyncio.timeout(WAIT):
            while True:
                told = next(control["viewers"] for control in reversed(self.controls) if "viewers" in control)
                if [(viewer["name"], viewer["mode"]) for viewer in told] == list(expected):
                    return
                await self.control("viewers")

    async def closed(self) -> tuple[int, str]:
        """The close code and reason."""
        async with asyncio.timeout(WAIT):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.receive()
        assert self.socket.close_code is not None
        return self.socket.close_code, self.socket.close_reason or ""


def bash(script: str) -> str:
    """The command that runs `script`."""
    return f"bash -c {shlex.quote(script)}"


def descendants(pid: int) -> list[int]:
    """Living processes below `pid`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                child = int(entry.parent.name)
                found += [child, *descendants(child)]
    return found


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts harnesses, each in its own directory, and ends them."""
    running: list[RunningHarness] = []

    async def start(**options: Any) -> RunningHarness:
        harness = RunningHarness(tmp_path / f"sandbox{len(running)}")
        await harness.start(**options)
        running.append(harness)
        return harness

    yield start
    for harness in running:
        await harness.stop()


@pytest.fixture
async def harness(start: Callable[..., Any]) -> RunningHarness:
    return await start()  # type: ignore[no-any-return]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with two commits on `main` and a branch `other`."""
    directory = tmp_path / "widgets"
    directory.mkdir()

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
        subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)

    git("init", "-b", "main")
    for text in ("one\n", "two\n"):
        (directory / "README").write_text(text)
        git("add", ".")
        git("commit", "-m", text.strip())
    git("branch", "other")
    return directory

"""A terminal endpoint in both protocols, and a console that is attached to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from lapconsole.client.models import Session
from lapconsole.screens.attach import AttachLine, AttachScreen
from lapconsole.terminal.attachment import Phase
from lapconsole.terminal.emulator import Emulator
from lapconsole.terminal.widget import TerminalView
from tests.screens.scene import PAYMENTS, ScriptedPlatform, console, session
from tests.waiting import until

TOKEN = "tty-token"
NOTICE = "\r\n\x1b[2m[bridge] process exited (code=7, signal=0)\x1b[0m\r\n"


class Harness:
    """A terminal endpoint that echoes keys, and remembers what came. `port` stays the same when it is restarted.

    It speaks the original protocol, or with `two_way` the newer one: then it has a screen, and `alice`, when she is
    not None, is another viewer of it, who drives or watches.
    """

    def __init__(self, *, two_way: bool = False) -> None:
        self.two_way = two_way
        self.emulator = Emulator(100, 30)
        self.alice: str | None = None
        self.told: list[dict[str, Any]] = []
        self.driver: ServerConnection | None = None
        self.port = 0
        self.connections: list[ServerConnection] = []
        self.keys: list[bytes] = []
        self.sizes: list[tuple[int, int]] = []
        self.refuse: HTTPStatus | None = None
        self._server: Server | None = None

    async def start(self) -> None:
        handler = self._serve_two_way if self.two_way else self._serve
        self._server = await serve(
            handler, "127.0.0.1", self.port, process_request=self._check, select_subprotocol=self._choose
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def admit_no_more(self) -> None:
        """Let those in who are there, until they leave."""
        if self._server is not None:
            self._server.close(close_connections=False)

    @property
    def typed(self) -> bytes:
        return b"".join(self.keys)

    async def show(self, data: str) -> None:
        self.emulator.feed(data)
        await self.connections[-1].send(data.encode() if self.two_way else data)

    async def say(self, *, to: ServerConnection | None = None, **message: Any) -> None:
        await (to or self.connections[-1]).send(json.dumps(message))

    async def repaint(self, scrollback: int = 0, skipped: int = 0, *, to: ServerConnection | None = None) -> None:
        await self.say(to=to, type="repaint", scrollback=scrollback, skipped=skipped)
        await (to or self.connections[-1]).send(self.emulator.repaint(scrollback))

    async def alice_takes_over(self, columns: int, rows: int) -> None:
        self.alice, self.driver = "drive", None
        await self.say(type="mode", mode="watch", by="alice@host")
        await self.resize(columns, rows)
        await self.say(type="viewers", viewers=self.viewers())

    async def resize(self, columns: int, rows: int) -> None:
        if (columns, rows) != (self.emulator.columns, self.emulator.lines):
            self.emulator.resize(columns, rows)
            await self.say(type="size", cols=columns, rows=rows)
            await self.repaint()

    def viewers(self) -> list[dict[str, Any]]:
        others = [{"id": "a", "name": "alice@host", "mode": self.alice}] if self.alice else []
        mode = "drive" if self.driver is self.connections[-1] else "watch"
        return [*others, {"id": str(len(self.connections)), "name": self.told[0]["name"], "mode": mode}]

    async def end(self, notice: str = NOTICE, code: int = 1000) -> None:
        await self.show(notice)
        await self.connections[-1].close(code)

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        status = self.refuse
        if status is None and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = HTTPStatus.UNAUTHORIZED
        return connection.respond(status, "no") if status is not None else None

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        async for message in connection:
            if isinstance(message, bytes):
                self.keys.append(message)
                await connection.send(message.decode())
            elif (control := json.loads(message)).get("type") == "resize":
                self.sizes.append((control["cols"], control["rows"]))

    def _choose(self, connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return Subprotocol("lap.tty.2") if self.two_way and "lap.tty.2" in offered else None

    async def _serve_two_way(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        size = (80, 24)
        async for message in connection:
            if isinstance(message, bytes):
                if connection is self.driver:
                    self.keys.append(message)
                    await self.show(message.decode())
                continue
            control = json.loads(message)
            self.told.append(control)
            if "cols" in control:
                size = (control["cols"], control["rows"])
            match control["type"]:
                case "hello":
                    present = {"cols": self.emulator.columns, "rows": self.emulator.lines}
                    me = str(len(self.connections))
                    welcome = {"type": "welcome", "viewer": me, "mode": "watch", **present}
                    await self.say(to=connection, **welcome, viewers=self.viewers())
                    await self.repaint(control["scrollback"], to=connection)
                case "drive":
                    self.driver = connection
                    self.alice = self.alice and "watch"
                    await self.say(type="mode", mode="drive", by="me")
                    await self.resize(*size)
                    await self.say(type="viewers", viewers=self.viewers())
                case "watch":
                    self.driver = None
                    await self.say(type="mode", mode="watch", by="me")
                    await self.say(type="viewers", viewers=self.viewers())
                case "resize" if connection is self.driver:
                    await self.resize(*size)
                case "repaint":
                    await self.repaint(min(control["scrollback"], self.emulator.scrollback_lines))


class Attached:
    """A console on the attach screen, and what it is attached to."""

    def __init__(self, pilot: Any, harness: Harness, platform: Any, screen: AttachScreen) -> None:
        self.pilot = pilot
        self.harness = harness
        self.platform = platform
        self.screen = screen

    @property
    def view(self) -> TerminalView:
        return self.screen.query_one(TerminalView)

    @property
    def line(self) -> str:
        return self.screen.query_one(AttachLine).render_line(0).text

    @property
    def notice(self) -> str:
        notice = self.screen.query_one("#notice")
        return str(notice.render()) if notice.display else ""

    async def until_phase(self, phase: Phase) -> None:
        await until(lambda: self.screen._state.phase is phase, phase.value)

    async def until_line(self, words: str) -> None:
        await until(lambda: words in self.line, f"{words!r} in the line")

    async def harness_resized(self, columns: int, rows: int) -> None:
        """Watching, with a terminal of this size."""
        await self.until_line("watching")
        await self.harness.resize(columns, rows)
        view = self.view
        await until(lambda: (view.emulator.columns, view.emulator.lines) == (columns, rows), "the size")

    async def command(self, key: str) -> None:
        await self.pilot.press("ctrl+right_square_bracket", key)

    async def until_shown(self, text: str) -> None:
        await until(lambda: any(text in row for row in self.view.emulator.text()), f"{text!r} on the screen")


def ready_session(**fields: Any) -> Session:
    return replace(session(4, PAYMENTS, title="Idempotency keys"), **{"tty_token": TOKEN, "tty_url": "/tty", **fields})


@asynccontextmanager
async def attached(
    answer: Session | Exception | None = None,
    *,
    size: tuple[int, int] = (80, 24),
    prepare: Callable[[Harness], None] = lambda harness: None,
    two_way: bool = False,
    preferences: dict[str, Any] | None = None,
    own: bool = True,
) -> AsyncIterator[Attached]:
    harness = Harness(two_way=two_way)
    await harness.start()
    prepare(harness)
    platform = ScriptedPlatform(session=answer or ready_session())
    platform.base_url = f"http://127.0.0.1:{harness.port}"
    app = console(platform=platform, preferences=preferences)
    try:
        async with app.run_test(size=size) as pilot:
            app.open_terminal(ready_session().id, own=own)
            await until(lambda: isinstance(app.screen, AttachScreen), "the screen")
            screen = app.screen
            assert isinstance(screen, AttachScreen)
            await until(lambda: screen._attachment is not None, "the first size")
            yield Attached(pilot, harness, platform, screen)
    finally:
        await harness.stop()

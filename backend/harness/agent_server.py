"""The server an API harness runs as its child: started, watched, started anew when it has ended, and asked."""

import asyncio
import contextlib
import json
import re
import socket
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from backend.harness.activity import Activity
from backend.harness.adapters import PORT, Launch, SetupError
from backend.harness.bus import OF_THE_SERVER, Bus, normal
from backend.harness.log import Log
from backend.harness.processes import Child, Processes, describe_exit, read_lines
from backend.harness.state import Agent, State
from backend.harness.upstream import Answer, Broken, Unreached, exchange

PROBE_SECONDS = 1.0
"""Of one request: opencode never answers one that arrives too early."""
PROBE_EVERY_SECONDS = 0.05
CALL_SECONDS = 30.0
"""Of a small request of our own."""
RELISTEN_SECONDS = 0.5
TELL_SECONDS = 0.5
EXIT_SECONDS = 0.5
MAX_SMALL_ANSWER = 4 * 1024 * 1024
MAX_EVENT = 128 * 1024 * 1024
LAST_LINES = 15

_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class AgentServer:
    """One child at a time; `start` makes the first one."""

    def __init__(
        self,
        launch: Launch,
        env: Mapping[str, str],
        *,
        directory: Path,
        seconds: float,
        title: str | None,
        session_id: str,
        processes: Processes,
        state: State,
        activity: Activity,
        log: Log,
    ) -> None:
        self.bus = Bus()
        self.session_id = session_id
        """The session's name at the child; until it has told its own, the one it is asked to take."""
        self.program = Path(launch.argv[0]).name
        self._launch = launch
        self._env = env
        self._directory = directory
        self._seconds = seconds
        self._title = title
        self._processes = processes
        self._state = state
        self._activity = activity
        self._log = log
        self._child: Child | None = None
        self._port = 0
        self._opened = False
        self._noting: asyncio.Task[None] | None = None
        """Tells of the child's end."""
        self._reviving: asyncio.Task[str | None] | None = None
        self._busy: set[str] = set()
        """Sessions with a turn under way."""
        self._quiet = asyncio.Event()
        """Set while there is none."""
        self._quiet.set()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def running(self) -> bool:
        """Whether there is a child that has not ended."""
        return self._child is not None and not self._child.exited.done()

    async def start(self) -> None:
        """Starts the child and opens the session in it. Raises SetupError, and OSError when it cannot be run."""
        port = _free_port()
        argv = [str(port) if word == PORT else word for word in self._launch.argv]
        env = {**self._env, "PORT": str(port)}
        child = self._processes.start(argv, env=env, cwd=self._directory, piped=True)
        self._child, self._port = child, port
        self._log.write(f"agent started: {argv[0]} (pid {child.pid}, port {port})")
        self._state.update(agent=Agent(running=True, pid=child.pid))
        self._activity.started()
        lines: deque[str] = deque(maxlen=LAST_LINES)

        def said(line: str) -> None:
            lines.append(line)
            self._log.write(line)

        self._spawn(read_lines(child, said))
        self._noting = self._spawn(self._note_exit(child))
        reason = await self._until_ready(child) or await self._until_open(child)
        if reason is not None:
            child.kill()
            said_last = "".join(f"\n{line}" for line in lines)
            raise SetupError(f"{self.program} {reason}.{said_last}\nIt has to serve HTTP on 127.0.0.1:$PORT.")
        self._activity.ready()

    async def close(self) -> None:
        """Stops watching; the processes end with all others."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def ask(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncIterator[Answer]:
        """The child's answer to a request; a child that has ended is started anew first. Raises Broken."""
        for last in (False, True):
            await self._revive()
            assert self._child is not None
            child = self._child
            try:
                async with exchange(self._port, method, target, {**headers, **self._launch.headers}, body) as answer:
                    yield answer
                return
            except Broken as error:
                with contextlib.suppress(TimeoutError):  # The connection ends a moment before the process does.
                    async with asyncio.timeout(EXIT_SECONDS):
                        await asyncio.shield(child.exited)
                if isinstance(error, Unreached) and child.exited.done() and not last:
                    continue
                how = f"with {describe_exit(child.exited.result())}" if child.exited.done() else f"the call: {error}"
                raise Broken(f"the agent's server {self.program} ended {how}") from error

    async def told(self) -> None:
        """Waits until the end of a turn that was answered has been told on the bus, too, but not for long.

        Else whoever listens for the end of the next turn might hear of this one's.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_SECONDS):
                await self._quiet.wait()

    def translated(self, body: bytes) -> bytes:
        """The body of a message as the child takes it. Raises ValueError when it is not a message."""
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ValueError("the body is not JSON") from error
        if not isinstance(message, dict):
            raise ValueError("the body is not a JSON object")
        if self._launch.translate is None:
            return body
        return json.dumps(self._launch.translate(message)).encode()

    async def _revive(self) -> None:
        """Has a child that can be asked; its start goes on also when who waits for it leaves. Raises Broken."""
        if self._reviving is None or self._reviving.done():
            if self.running:
                return
            self._reviving = self._spawn(self._start_anew())
        if failure := await asyncio.shield(self._reviving):
            raise Broken(failure)

    async def _start_anew(self) -> str | None:
        """Starts the next child; why it could not be, if so."""
        if self._noting is not None:  # Else the end of the last child could be taken for that of the next.
            await asyncio.wait([self._noting])
        self._log.write("the agent's server has ended: starting it anew; what it kept in memory is lost")
        try:
            await self.start()
        except (SetupError, OSError) as error:
            return f"the agent's server could not be started anew: {error}"
        return None

    async def _until_ready(self, child: Child) -> str | None:
        """None once the child answers; else why it does not."""
        try:
            async with asyncio.timeout(self._seconds):
                while not await self._answers():
                    if child.exited.done():
                        await asyncio.sleep(2 * PROBE_EVERY_SECONDS)  # Its last words are still in the pipe.
                        how = describe_exit(child.exited.result())
                        return f"ended with {how} before it listened on port {self._port}"
                    await asyncio.sleep(PROBE_EVERY_SECONDS)
                return None
        except TimeoutError:
            return f"did not answer on port {self._port} within {self._seconds:g} s"

    async def _until_open(self, child: Child) -> str | None:
        """None once the session is there and its events are heard; else why not."""
        try:
            await self._open_session()
        except Broken as error:
            return f"answers on its port, but gave no session: {error}"
        listening = asyncio.Event()
        self._spawn(self._listen(child, self._port, listening))
        try:
            async with asyncio.timeout(CALL_SECONDS):  # Else the first events of the first turn could be missed.
                await listening.wait()
        except TimeoutError:
            return f"did not send its events within {CALL_SECONDS:g} s"
        return None

    async def _answers(self) -> bool:
        """Whether the child answers its probe, with whatever status."""
        try:
            async with (
                asyncio.timeout(PROBE_SECONDS),
                exchange(self._port, "GET", self._launch.probe, self._launch.headers),
            ):
                return True
        except (Broken, TimeoutError):
            return False

    async def _open_session(self) -> None:
        """Makes the session, unless a child before this one has left it. Raises Broken."""
        if self._opened:
            status, _ = await self._call("GET", f"/session/{self.session_id}/message?limit=1")
            if status == 200:
                return
        wanted = {"title": self._title, "id": self.session_id} if self._launch.names_session else {"title": self._title}
        status, answer = await self._call("POST", "/session", {k: v for k, v in wanted.items() if v is not None})
        found = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(found, str) or not _SESSION_ID.fullmatch(found):
            raise Broken(f"POST /session was answered {status}, without an id")
        if self._opened and found != self.session_id:
            self._log.write(f"session {self.session_id} is lost: the agent goes on with {found}")
        self.session_id, self._opened = found, True
        self._state.update(session=found)

    async def _call(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """A small request of our own: status and JSON, None when it is none. Raises Broken."""
        headers = {**self._launch.headers, "content-type": "application/json"}
        data = b"" if body is None else json.dumps(body).encode()
        try:
            async with (
                asyncio.timeout(CALL_SECONDS),
                exchange(self._port, method, target, headers, data) as answer,
            ):
                text = await answer.whole(MAX_SMALL_ANSWER)
        except TimeoutError as error:
            raise Broken(f"{method} {target} was not answered within {CALL_SECONDS:g} s") from error
        try:
            return answer.status, json.loads(text)
        except (ValueError, RecursionError):
            return answer.status, None

    async def _listen(self, child: Child, port: int, listening: asyncio.Event) -> None:
        """Hands the child's events on until it ends."""
        headers = self._launch.headers
        while not child.exited.done():
            try:
                async with exchange(port, "GET", "/event", headers) as answer:
                    if answer.status != 200:
                        raise Broken(f"GET /event was answered {answer.status}")
                    listening.set()
                    async for line in _lines(answer.pieces):
                        if line.startswith(b"data:"):
                            self._hand_on(line[5:])
            except Broken as error:
                if child.exited.done():
                    break
                self._log.write(f"the agent's events were interrupted: {error}")
            await asyncio.sleep(RELISTEN_SECONDS)

    def _hand_on(self, data: bytes) -> None:
        try:
            event = normal(json.loads(data))
        except (ValueError, RecursionError):
            return
        if event is None or event["type"] in OF_THE_SERVER:
            return
        session = str(event["properties"].get("sessionID"))
        if event["type"] == "session.status" and event["properties"].get("status") == {"type": "busy"}:
            self._busy.add(session)
            self._quiet.clear()
        elif event["type"] == "session.idle":
            if session not in self._busy:
                return  # opencode may tell an end twice: the second could be taken for that of the next turn.
            self._busy.discard(session)
        self._publish(event)
        if not self._busy:
            self._quiet.set()

    def _publish(self, event: Mapping[str, Any]) -> None:
        self.bus.publish(event)
        self._activity.bus_event(event)

    async def _note_exit(self, child: Child) -> None:
        code = await asyncio.shield(child.exited)
        how = describe_exit(code)
        child.kill_left()
        self._log.write(f"agent ended: {how}")
        exit_code, signal = (code, None) if code >= 0 else (None, -code)
        for session in sorted(self._busy):  # Whoever follows a turn has to hear of its end.
            message = f"the agent's server ended with {how}"
            error = {"name": "ServerEnded", "data": {"message": message}}
            told = {"sessionID": session, "message": message, "error": error}
            self._publish({"type": "session.error", "properties": told})
            self._publish({"type": "session.idle", "properties": {"sessionID": session}})
        self._busy.clear()
        self._quiet.set()
        self._activity.exited(exit_code, signal)
        self._state.update(urgent=True, agent=Agent(False, None, exit_code, signal))

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a stream; raises Broken when one gets too long."""
    rest = bytearray()
    async for piece in pieces:
        rest += piece
        if b"\n" in piece:
            *whole, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in whole:
                yield line
        elif len(rest) > MAX_EVENT:
            raise Broken(f"an event is longer than {MAX_EVENT} bytes")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

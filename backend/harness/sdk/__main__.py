"""`python -m backend.harness.sdk`: HTTP on 127.0.0.1:$PORT, for the harness only, which has the password."""

import asyncio
import hmac
import json
import os
import re
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h11

from backend.harness.adapters import basic_authorization
from backend.harness.adapters.claude_agent_sdk import PASSWORD, SETTINGS, USER
from backend.harness.bus import HEARTBEAT, MAX_UNSENT, Bus, frame
from backend.harness.http_connection import HttpConnection, headers_of, path_and_query
from backend.harness.sdk.session import MAX_WAITING, Deleted, Prompt, Session, Settings

VERSION = "0.1.0"
MAX_BODY = 80 * 1024 * 1024
MAX_SESSIONS = 20
CLOSE_SECONDS = 3.0

_SESSION_ID = re.compile(r"ses_[0-9a-f]{8,64}")


class Server:
    """The sessions, and what the connections share."""

    def __init__(self, settings: Settings, authorization: str) -> None:
        self.connections: set[Connection] = set()
        self.sessions: dict[str, Session] = {}
        self.bus = Bus()
        self._settings = settings
        self._authorization = authorization.encode()
        self._tasks: set[asyncio.Task[Any]] = set()

    def allows(self, headers: Mapping[str, str]) -> bool:
        """Whether the request has the password."""
        return hmac.compare_digest(headers.get("authorization", "").encode(), self._authorization)

    def open(self, session_id: str | None, title: str | None) -> Session:
        """A session of this id, the one there is if it is known. Raises ValueError."""
        if session_id is None:
            session_id = f"ses_{secrets.token_hex(12)}"
        elif not _SESSION_ID.fullmatch(session_id):
            raise ValueError("id must be ses_ and hexadecimal digits")
        if session_id not in self.sessions:
            if len(self.sessions) >= MAX_SESSIONS:
                raise ValueError(f"there are {MAX_SESSIONS} sessions already: delete one")
            self.sessions[session_id] = Session(session_id, title, self._settings, self._publish, say)
        return self.sessions[session_id]

    def begin(self, session: Session, prompt: Prompt) -> asyncio.Task[Any]:
        """The turn goes on whether or not anyone waits for it."""
        task = asyncio.create_task(session.ask(prompt))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Ends every session."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*(session.close() for session in self.sessions.values()), return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            say(f"a message was not answered: {task.exception()!r}")

    def _publish(self, kind: str, properties: Mapping[str, Any]) -> None:
        self.bus.publish({"type": kind, "properties": properties})


class Connection(HttpConnection):
    """One connection of the harness's."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.connections, say)
        self._server = server

    def _begin_request(self, request: h11.Request) -> None:
        self._max_body = MAX_BODY
        if not self._server.allows(dict(headers_of(request))):
            self._refuse(401, "unauthorized")

    def _answer(self, request: h11.Request) -> bool:
        server = self._server
        path, _ = path_and_query(request)
        match request.method, path.strip("/").split("/"):
            case b"GET", [""]:
                self._json({"harness": "claude-agent-sdk", "version": VERSION})
            case b"GET", ["event"]:
                return self._stream(server.bus.listen, frame({"type": HEARTBEAT, "properties": {}}), MAX_UNSENT)
            case b"POST", ["session"]:
                self._open()
            case b"GET", ["session", name, "message"] if session := server.sessions.get(name):
                self._json(session.messages)
            case b"POST", ["session", name, "message" | "prompt_async" as call] if session := server.sessions.get(name):
                return self._answer_later(self._ask(session, wait=call == "message"))
            case b"POST", ["session", name, "abort"] if session := server.sessions.get(name):
                return self._answer_later(self._abort(session))
            case b"DELETE", ["session", name] if session := server.sessions.pop(name, None):
                return self._answer_later(self._delete(session))
            case _:
                self._json({"error": "not found"}, 404)
        return self._answered()

    def _open(self) -> None:
        try:
            body = json.loads(bytes(self._body) or b"{}")
        except (ValueError, RecursionError):
            body = {}
        wanted = {key: body.get(key) if isinstance(body, dict) else None for key in ("id", "title")}
        session_id, title = (value if isinstance(value, str) else None for value in wanted.values())
        try:
            session = self._server.open(session_id, title)
        except ValueError as error:
            self._json({"error": str(error)}, 400)
        else:
            self._json({"id": session.id, "title": session.title})

    async def _ask(self, session: Session, wait: bool) -> None:
        try:
            prompt = Prompt.from_json(json.loads(bytes(self._body)))
        except (ValueError, RecursionError) as error:
            self._json({"error": f"not a message: {error}"}, 400)
            return
        self._body = bytearray()
        if session.full:
            self._json({"error": f"{MAX_WAITING} messages wait for their turn already: try again later"}, 429)
            return
        turn = self._server.begin(session, prompt)
        if not wait:
            self._write(h11.Response(status_code=204, headers=[]))
            self._write(h11.EndOfMessage())
            return
        try:
            self._json(await asyncio.shield(turn))
        except Deleted:
            self._json({"error": "not found"}, 404)

    async def _abort(self, session: Session) -> None:
        await session.abort()
        self._json({"ok": True})

    async def _delete(self, session: Session) -> None:
        await session.close()
        self._json({"ok": True})


def say(line: str) -> None:
    """A line for the sandbox's log."""
    print(line, flush=True)


async def serve(port: int, server: Server) -> None:
    """Serves until SIGTERM, SIGINT or SIGHUP."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", port)
    await stop.wait()
    listener.close()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await server.close()
    except TimeoutError:
        say("Claude Code did not end in time")


def main() -> None:
    """Takes what is meant for it out of the environment: the agent's programs inherit the rest."""
    settings = json.loads(os.environ.pop(SETTINGS, "{}"))
    authorization = basic_authorization(USER, os.environ.pop(PASSWORD))
    port = int(os.environ.pop("PORT"))
    known = Settings(settings.get("model"), settings.get("prompt_file"), Path.cwd())
    asyncio.run(_run(port, known, authorization))


async def _run(port: int, settings: Settings, authorization: str) -> None:
    await serve(port, Server(settings, authorization))


if __name__ == "__main__":
    main()

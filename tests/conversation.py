"""A session that works by messages, as a platform serves it: transcript, bus, turns that stream, and abort.

A text that contains "tool" makes a tool call, "think" a thought, "error" fails, "long" has many lines, and "hold" waits
until `release`; anything else is echoed in pieces.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

MANAGED = "/api/v1/managed_agents"
HARNESS_ID = "ses_0123456789abcdef01234567"
STARTED = 1_773_457_000_000  # 2026-03-14 02:56:40 UTC


def message(id: str, role: str, *parts: dict[str, Any], **info: Any) -> dict[str, Any]:
    time = {"created": STARTED} | ({"completed": STARTED + 12_000} if role == "assistant" else {})
    named = {"id": id, "role": role, "sessionID": HARNESS_ID, "time": time, **info}
    return {"info": named, "parts": [{"id": f"{id}_p{place}", **part} for place, part in enumerate(parts)]}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def tool(name: str, output: str = "", status: str = "completed", **input: Any) -> dict[str, Any]:
    said = {"error": output} if status == "error" else {"output": output}
    return {"type": "tool", "tool": name, "callID": "c1", "state": {"input": input, "status": status, **said}}


class Session:
    """The session. `faults` are what the next streams and sends do instead: "refuse", "break", "silent",
    "empty", a status."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.received: list[str] = []
        self.aborted = 0
        self.wishes: dict[str, list[dict[str, Any]]] = {"permission": [], "question": []}
        self.answers: list[tuple[str, dict[str, Any]]] = []
        self.followers: list[asyncio.Queue[dict[str, Any] | None]] = []
        self.faults: dict[str, list[str | int]] = {"stream": [], "send": [], "messages": [], "abort": []}
        self.piece = 7  # characters a delta
        self.holding = False
        self.has_stream = True
        self._released = False
        self._turn = asyncio.Lock()
        self._number = 0

    def release(self) -> None:
        """Let a turn that waits go on."""
        self._released = True

    def tell(self, type: str, **properties: Any) -> None:
        """Put an event on the bus."""
        for queue in self.followers:
            queue.put_nowait({"type": type, "properties": {**properties, "sessionID": HARNESS_ID}})

    def drop(self) -> None:
        """Break all streams off."""
        for queue in self.followers:
            queue.put_nowait(None)

    def add(self, *messages: dict[str, Any]) -> None:
        """Add messages and tell of them."""
        for one in messages:
            self.messages.append(one)
            self.tell("message.updated", info=one["info"])
            for part in one["parts"]:
                self.tell("message.part.updated", messageID=one["info"]["id"], part=part)

    async def turn(self, words: str) -> None:
        """Take a message and answer it, one at a time."""
        async with self._turn:
            self._number += 1
            number = self._number
            self.add(message(f"user_{number}", "user", text(words)))
            answer = message(f"msg_{number}", "assistant")
            del answer["info"]["time"]["completed"]
            self.messages.append(answer)
            self.tell("message.updated", info=answer["info"])
            try:
                await self._answer(answer, words)
            except asyncio.CancelledError:
                answer["info"]["error"] = {"name": "AbortError", "data": {"message": "run aborted by client"}}
                raise
            finally:
                answer["info"]["time"]["completed"] = STARTED + 12_000
                answer["info"]["tokens"] = {"input": 10, "output": 42}
                answer["info"]["cost"] = 0.0123
                self.tell("message.updated", info=answer["info"])
                self.tell("session.idle")

    async def _answer(self, answer: dict[str, Any], words: str) -> None:
        if "think" in words:
            self._put(answer, {"type": "reasoning", "text": "First I look.\nThen I think."})
        if "tool" in words:
            place = self._put(answer, tool("Bash", status="running", command="pytest -x tests"))
            await asyncio.sleep(0)
            self._put(answer, tool("Bash", "collected 3 items\n3 passed", command="pytest -x tests"), place)
        if "error" in words:
            answer["info"]["error"] = {"name": "SDKError", "data": {"message": "the model refused: no credit"}}
            return
        said = "\n".join(f"line {n} of many" for n in range(200)) if "long" in words else f"echo: {words}"
        place = self._put(answer, text(""))
        for start in range(0, len(said), self.piece):
            part = answer["parts"][place]
            part["text"] += said[start : start + self.piece]
            piece = said[start : start + self.piece]
            self.tell(
                "message.part.delta", messageID=answer["info"]["id"], partID=part["id"], delta=piece, field="text"
            )
            if "hold" in words and start:
                await self._hold()
        self._put(answer, text(said), place)

    async def _hold(self) -> None:
        self.holding, aborted = True, self.aborted
        while not self._released and self.aborted == aborted:
            await asyncio.sleep(0.005)
        self.holding = False
        if self.aborted != aborted:
            self.tell("session.aborted")
            raise asyncio.CancelledError

    def _put(self, answer: dict[str, Any], part: dict[str, Any], place: int | None = None) -> int:
        place = len(answer["parts"]) if place is None else place
        part = {"id": f"{answer['info']['id']}_b{place}", **part}
        answer["parts"][place : place + 1] = [part]
        self.tell("message.part.updated", messageID=answer["info"]["id"], part=part)
        return place

    # How it is served

    def routes(self) -> list[Route]:
        base = f"{MANAGED}/sessions/{{id}}"
        return [
            Route(f"{base}/messages", self._messages),
            Route(f"{base}/stream", self._stream),
            Route(f"{base}/message_stream", self._message_stream, methods=["POST"]),
            Route(f"{base}/message", self._message, methods=["POST"]),
            Route(f"{base}/abort", self._abort, methods=["POST"]),
            Route(f"{base}/opencode/{{kind}}", self._wishes),
            Route(f"{base}/opencode/{{kind}}/{{wish}}/{{verb}}", self._answered, methods=["POST"]),
        ]

    def _fault(self, call: str) -> str | int | None:
        return self.faults[call].pop(0) if self.faults[call] else None

    async def _messages(self, _: Request) -> Response:
        if fault := self._fault("messages"):
            return JSONResponse({"error": "scripted"}, int(fault))
        return JSONResponse(self.messages)

    async def _stream(self, _: Request) -> Response:
        fault = self._fault("stream")
        if not self.has_stream:
            return JSONResponse({"error": "not found"}, 404)
        if isinstance(fault, int):
            return JSONResponse({"error": "scripted"}, fault)

        async def frames() -> AsyncIterator[str]:
            if fault == "empty":
                return
            with self._following() as queue:
                yield _frame({"type": "stream.opened"})
                while (event := await queue.get()) is not None:
                    yield _frame(event)

        return StreamingResponse(frames(), media_type="text/event-stream")

    async def _message(self, request: Request) -> Response:
        body = await request.json()
        fault = self._fault("send")
        if isinstance(fault, int):
            return JSONResponse({"error": "scripted refusal", "code": "CONFLICT"}, fault)
        self.received.append(body["text"])
        await self.turn(body["text"])
        return JSONResponse(self.messages[-1])

    async def _message_stream(self, request: Request) -> Response:
        body = await request.json()
        fault = self._fault("send")
        if isinstance(fault, int):
            return JSONResponse({"error": "scripted refusal", "code": "CONFLICT"}, fault)
        if fault not in ("lose", "refuse"):
            self.received.append(body["text"])

        async def frames() -> AsyncIterator[str]:
            if fault == "refuse":
                yield _frame({"type": "error", "message": "prompt_async failed"})
                return
            if fault == "lose":
                return
            with self._following() as queue:
                turn = asyncio.ensure_future(self.turn(body["text"]))
                if fault == "break":
                    await asyncio.wait([turn])
                    return
                yield _frame({"type": "ready"})
                while (event := await queue.get()) is not None:
                    yield _frame({"type": "harness_event", "event": event})
                    if event["type"] == "session.idle" and turn.done():
                        break
                    if event["type"] == "session.idle":
                        await asyncio.wait([turn])
                        break
                yield _frame({"type": "done"})

        return StreamingResponse(frames(), media_type="text/event-stream")

    async def _abort(self, _: Request) -> Response:
        if fault := self._fault("abort"):
            return JSONResponse({"error": "scripted"}, int(fault))
        self.aborted += 1
        return JSONResponse({"ok": True})

    async def _wishes(self, request: Request) -> Response:
        return JSONResponse(self.wishes[request.path_params["kind"]])

    async def _answered(self, request: Request) -> Response:
        kind, id, verb = (request.path_params[name] for name in ("kind", "wish", "verb"))
        self.answers.append((f"{kind}/{id}/{verb}", await request.json()))
        self.tell(f"{kind}.replied", requestID=id)
        return JSONResponse(True)

    @contextmanager
    def _following(self) -> Iterator[asyncio.Queue[dict[str, Any] | None]]:
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.followers.append(queue)
        try:
            yield queue
        finally:
            self.followers.remove(queue)


def _frame(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event)}\n\n"


@asynccontextmanager
async def served(session: Session, port: int = 0) -> AsyncIterator[str]:
    """Serve the session in this loop; gives its base address."""
    import socket

    import uvicorn
    from starlette.applications import Starlette

    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(Starlette(routes=session.routes()), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.ensure_future(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        session.drop()
        server.should_exit = server.force_exit = True
        await asyncio.wait([serving])
        listener.close()

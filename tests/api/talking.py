"""A stand-in for the server of an agent that answers messages (LAP harness 2), which does what its last text says.

`hold` waits for `released`, `vanish` cuts all connections, `swallow` does too and forgets the message, `refuse`
answers 500, `odd` 400, `lost` 404 as one that does not know the session, `garbage` no JSON, `empty` nothing, `fail`
answers with an error in its info; else it echoes.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.api.stand_in import Harness

SESSION = "ses_0123456789abcdef01234567"
NOT_FOUND = {"error": "not found"}


class TalkingHarness(Harness):
    """Its `state` tells the agent's own session id, `said` all messages, `got` the bodies of the calls."""

    def __init__(self) -> None:
        path = "/session/{id}"
        super().__init__(
            Route("/healthz", self._healthz),
            Route(f"{path}/message", self._message, methods=["POST"]),
            Route(f"{path}/message", self._list),
            Route(f"{path}/prompt_async", self._prompt, methods=["POST"]),
            Route(f"{path}/abort", self._abort, methods=["POST"]),
            Route("/event", self._events),
            Route("/anything/{rest:path}", self._anything, methods=["GET", "POST", "DELETE"]),
        )
        self.state["session"] = SESSION
        self.said: list[dict[str, Any]] = []
        self.got: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.released = asyncio.Event()
        self.held = 0
        self.listing = True
        self.hearing = True
        self.aborted = 0
        self.deaf = 0
        """How many aborts it does not heed."""
        self._well = True
        self._listeners: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._numbers = itertools.count(1)
        self._one_at_a_time = asyncio.Lock()
        self._working: set[asyncio.Task[Any]] = set()

    @property
    def listening(self) -> int:
        return len(self._listeners)

    def texts(self, index: int = -1) -> list[str]:
        """The texts of a message that was sent."""
        return [part["text"] for part in self.got[index]["parts"] if part["type"] == "text"]

    @contextlib.asynccontextmanager
    async def unhealthy(self) -> AsyncIterator[None]:
        """Meanwhile it counts as not there."""
        self._well = False
        yield
        self._well = True

    def tell_event(self, event_type: str, **properties: Any) -> None:
        event = {"type": event_type, "properties": {"sessionID": self.state["session"], **properties}}
        for listener in self._listeners:
            listener.put_nowait(event)

    def cut_events(self) -> None:
        """End all event streams."""
        for listener in self._listeners:
            listener.put_nowait(None)

    async def turn(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer a message, with events."""
        async with self._one_at_a_time:
            self.got.append(body)
            text = [part.get("text") for part in body["parts"] if part["type"] == "text"][-1:] or ["(no text)"]
            number = next(self._numbers)
            asked = {"info": self._info(f"user_{number}", "user"), "parts": body["parts"]}
            self.said.append(asked)
            self.tell_event("message.updated", info=asked["info"])
            answer = {"info": self._info(f"msg_{number}", "assistant"), "parts": [{"id": "p0", "type": "text"}]}
            answer["parts"][0]["text"] = ""
            self.said.append(answer)
            part_id = f"p{number}"
            self.tell_event(
                "message.part.delta", messageID=f"msg_{number}", partID=part_id, delta="so far", field="text"
            )
            if text[0] == "hold":
                self.held += 1
                await self.released.wait()
            if text[0] == "fail":
                answer["info"]["error"] = {"name": "ResultError", "data": {"message": "no credit left"}}
            answer["parts"] = [
                {"id": f"t{number}", "type": "tool", "tool": "Bash", "callID": "c", "state": TOOL_STATE},
                {"id": part_id, "type": "text", "text": f"echo: {text[0]}"},
            ]
            answer["info"]["time"]["completed"] = time.time_ns() // 1_000_000
            answer["info"]["tokens"] = {"input": 1, "output": 186}
            self.tell_event("message.part.updated", messageID=f"msg_{number}", part=answer["parts"][1])
            self.tell_event("message.updated", info=answer["info"])
            self.tell_event("session.idle")
            return answer

    def _info(self, message_id: str, role: str) -> dict[str, Any]:
        created = time.time_ns() // 1_000_000
        return {"id": message_id, "sessionID": self.state["session"], "role": role, "time": {"created": created}}

    async def _healthz(self, _request: Request) -> Response:
        return JSONResponse({}, 200 if self._well else 503)

    async def _message(self, request: Request) -> Response:
        body = await request.json()
        text = [part.get("text") for part in body["parts"]][-1]
        if text in ("vanish", "swallow"):
            self.vanish()
        if text == "swallow":
            return Response("")
        if text in ("refuse", "odd", "lost", "garbage", "empty"):
            self.got.append(body)
            return {
                "odd": JSONResponse({"error": "not a message: it is odd"}, 400),
                "refuse": JSONResponse({"error": "the model said no"}, 500),
                "lost": JSONResponse(NOT_FOUND, 404),
                "garbage": Response("<html>"),
                "empty": Response(""),
            }[text]
        task = asyncio.create_task(self.turn(body))  # goes on when the platform goes away
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return JSONResponse(await asyncio.shield(task))

    async def _prompt(self, request: Request) -> Response:
        body = await request.json()
        if [part.get("text") for part in body["parts"]][-1] == "refuse":
            return JSONResponse({"error": "the model said no"}, 500)
        task = asyncio.create_task(self.turn(body))
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return Response(status_code=204)

    async def _list(self, request: Request) -> Response:
        if request.path_params["id"] != self.state["session"]:
            return JSONResponse(NOT_FOUND, 404)
        return JSONResponse(self.said) if self.listing else JSONResponse({"error": "not now"}, 503)

    async def _abort(self, _request: Request) -> Response:
        self.aborted += 1
        if self.deaf:
            self.deaf -= 1
        else:
            self.released.set()
        return JSONResponse({"ok": True})

    async def _events(self, _request: Request) -> Response:
        if not self.hearing:
            return JSONResponse({"error": "not now"}, 503)
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._listeners.add(queue)
        queue.put_nowait({"type": "server.connected", "properties": {}})

        async def frames() -> AsyncIterator[str]:
            try:
                while (event := await queue.get()) is not None:
                    yield f"data: {json.dumps(event)}\n\n"
            finally:
                self._listeners.discard(queue)

        return StreamingResponse(frames(), media_type="text/event-stream")

    async def _anything(self, request: Request) -> Response:
        self.calls.append(f"{request.method} {request.url.path}?{request.url.query}")
        body = await request.body()
        return Response(body or b"anything", 418, media_type="text/x-odd")

    async def aclose(self) -> None:
        self.released.set()
        self.cut_events()
        for task in tuple(self._working):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._working, return_exceptions=True)


TOOL_STATE = {"status": "completed", "input": {"command": "ls"}, "output": "a b"}

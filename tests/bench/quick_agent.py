"""An agent's server that answers every message at once: what is left is what the way to it costs."""

import asyncio
import os
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

SESSION = "ses_0123456789abcdef01234567"
said: list[dict[str, object]] = []


async def session(_request: Request) -> Response:
    return JSONResponse({"id": SESSION})


async def message(request: Request) -> Response:
    if request.method == "GET":
        return JSONResponse(said)
    await request.json()
    times = {"created": 1_800_000_000_000, "completed": 1_800_000_000_001}
    info = {"id": f"msg_{len(said)}", "sessionID": SESSION, "role": "assistant", "time": times}
    answer = {"info": info, "parts": [{"id": "p", "type": "text", "text": "yes"}]}
    said.append(answer)
    return JSONResponse(answer)


async def event(_request: Request) -> Response:
    async def frames() -> AsyncIterator[str]:
        yield 'data: {"type":"server.connected","properties":{}}\n\n'
        while True:
            await asyncio.sleep(5)
            yield ":\n\n"

    return StreamingResponse(frames(), media_type="text/event-stream")


if __name__ == "__main__":
    routes = [
        Route("/session", session, methods=["GET", "POST"]),
        Route("/session/{id}/message", message, methods=["GET", "POST"]),
        Route("/event", event),
        Route("/{rest:path}", session, methods=["GET", "POST"]),
    ]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")

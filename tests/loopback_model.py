"""A model on 127.0.0.1 that speaks the Anthropic and OpenAI wire formats and does what the last user text says.

`tool: CMD` calls the shell tool, then answers `tool said: …`; `escalate: CMD` the same with a wish for more rights;
`ask: TEXT` asks the user; `long`, `slow`, `wait` stream; `error` is refused; all else is echoed. By hand:
`python -m tests.loopback_model --port N`.
"""

import argparse
import asyncio
import contextlib
import json
import re
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Any, Self

import h11

MODEL = "loopback-1"
TITLE = "Loopback title"
ERROR = "the loopback model was told to fail"
LONG_LINES = 200
SLOW_WORDS = 100
SLOW_SECONDS = 0.1
TOKENS_IN, TOKENS_OUT = 11, 7
ECHOED = 80

_SHELLS = ("Bash", "exec_command", "bash")
_QUESTIONS = ("AskUserQuestion", "question")
_ORDER = re.compile(r"^\s*(tool|escalate|ask): *(.+)$", re.MULTILINE)
_ASIDE = re.compile(r"\s*(<(system-reminder|environment_context|user_instructions)\b|\[Image: source: )")
"""What agents add to the user's texts."""
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as the whole answer."""

    name: str
    arguments: Mapping[str, Any]


Answer = Call | AsyncIterator[str]


class LoopbackModel:
    """Serves in a thread of its own between `async with`; `requests` has path, headers and body of each POST."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[dict[str, Any]] = []
        self.url = ""
        self.holding = 0
        """How many answers to `wait` are held back now."""
        self._port = port
        self._held: set[asyncio.Event] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serves from now on, until `stop`."""
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{ready.result(10)}"

    def stop(self) -> None:
        """Cuts every connection."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def release(self) -> None:
        """Lets the answers that are held back go on."""
        self._loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        for event in self._held:
            event.set()

    async def _serve(self, ready: "Future[int]") -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        except OSError as error:
            ready.set_exception(error)
            return
        ready.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer_all(reader, writer)
        except (OSError, h11.ProtocolError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            request, body = None, bytearray()
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    if connection.they_are_waiting_for_100_continue:
                        writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                    connection.receive_data(await reader.read(65_536))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    return
            assert request is not None
            await self._answer(_Response(connection, writer), request, bytes(body))
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _answer(self, response: "_Response", request: h11.Request, body: bytes) -> None:
        path = request.target.decode().partition("?")[0].rstrip("/")
        if request.method in (b"GET", b"HEAD"):
            models = [{"id": MODEL, "object": "model", "created": 1, "owned_by": "loopback"}]
            await response.json(
                200,
                {"object": "list", "data": models} if path.endswith("/models") else {},
                head=request.method == b"HEAD",
            )
            return
        try:
            asked = json.loads(body)
        except ValueError:
            await response.json(400, _refusal(path, "the body is not JSON"))
            return
        headers = {name.decode(): value.decode() for name, value in request.headers}
        self.requests.append({"path": path, "headers": headers, "body": asked})
        if path.endswith("/count_tokens"):
            await response.json(200, {"input_tokens": TOKENS_IN})
            return
        if not path.endswith(("/messages", "/responses", "/chat/completions")):
            await response.json(404, _refusal(path, f"there is no {path}"))
            return
        answer = self._decide(asked)
        if answer is None:
            await response.json(400, _refusal(path, ERROR))
        elif path.endswith("/messages"):
            await _messages(response, asked, answer)
        elif path.endswith("/responses"):
            await _responses(response, asked, answer)
        else:
            await _chat(response, asked, answer)

    def _decide(self, asked: Mapping[str, Any]) -> Answer | None:
        """What the request is answered; None for an error."""
        tools = [str(tool.get("name") or tool.get("function", {}).get("name")) for tool in asked.get("tools") or []]
        if not tools:
            wants_json = "json_schema" in json.dumps([asked.get("output_config"), asked.get("text")])
            return _said(json.dumps({"title": TITLE}) if wants_json else TITLE)
        kind, text = _last(asked.get("messages") or asked.get("input") or [])
        if kind == "result":
            return _said(f"tool said: {text}")
        shell = next((name for name in _SHELLS if name in tools), None)
        question = next((name for name in _QUESTIONS if name in tools), None)
        match order.groups() if (order := _ORDER.search(text)) else (None, None):
            case "tool" | "escalate" as word, command if shell is not None:
                return Call(shell, _shell_arguments(shell, command.strip(), word == "escalate"))
            case "ask", asking if question is not None:
                options = [{"label": label, "description": f"Choose {label}"} for label in ("Yes", "No")]
                asks = {"question": asking.strip(), "header": "Loopback", "options": options}
                return Call(question, {"questions": [asks | ({"multiSelect": False} if question[0] == "A" else {})]})
        word = (text.strip().splitlines() or [""])[-1].split(" ")[0].strip(".,:!").lower()
        match word:
            case "error":
                return None
            case "long":
                return _said(*(f"line {number}\n" for number in range(1, LONG_LINES + 1)))
            case "slow":
                return _slowly()
            case "wait":
                return self._hold()
        return _said(f"echo: {text[:ECHOED]}")

    async def _hold(self) -> AsyncIterator[str]:
        event = asyncio.Event()
        self._held.add(event)
        try:
            yield "waiting"
            self.holding += 1
            try:
                await event.wait()
            finally:
                self.holding -= 1
            yield " released"
        finally:
            self._held.discard(event)


class _Response:
    """One answer on a connection."""

    def __init__(self, connection: h11.Connection, writer: asyncio.StreamWriter) -> None:
        self._connection, self._writer = connection, writer

    async def json(self, status: int, value: Any, *, head: bool = False) -> None:
        body = json.dumps(value).encode()
        self._send(h11.Response(status_code=status, headers=_headers("application/json", len(body))))
        self._send(h11.Data(data=b"" if head else body))
        self._send(h11.EndOfMessage())
        await self._writer.drain()

    def open(self) -> None:
        self._send(h11.Response(status_code=200, headers=_headers("text/event-stream")))

    async def event(self, value: Mapping[str, Any], *, named: bool = True) -> None:
        name = f"event: {value['type']}\n" if named else ""
        self._send(h11.Data(data=f"{name}data: {json.dumps(value)}\n\n".encode()))
        await self._writer.drain()

    def close(self, last: bytes = b"") -> None:
        if last:
            self._send(h11.Data(data=last))
        self._send(h11.EndOfMessage())

    def _send(self, event: Any) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError("the client has gone")
        self._writer.write(self._connection.send(event) or b"")


async def _messages(response: _Response, asked: Mapping[str, Any], answer: Answer) -> None:
    """`POST /v1/messages`."""
    number = next(_numbers)
    usage = {"input_tokens": TOKENS_IN, "output_tokens": TOKENS_OUT}
    reason = "tool_use" if isinstance(answer, Call) else "end_turn"
    message: dict[str, Any] = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": asked["model"]}
    block: dict[str, Any] = {"type": "text", "text": ""}
    if isinstance(answer, Call):
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": answer.name, "input": {}}
    if not asked.get("stream"):
        block |= {"input": answer.arguments} if isinstance(answer, Call) else {"text": await _whole(answer)}
        ended = {"content": [block], "stop_reason": reason, "stop_sequence": None, "usage": usage}
        await response.json(200, message | ended)
        return
    response.open()
    begun: dict[str, Any] = {
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage | {"output_tokens": 1},
    }
    await response.event({"type": "message_start", "message": message | begun})
    await response.event({"type": "content_block_start", "index": 0, "content_block": block})
    if isinstance(answer, Call):
        delta = {"type": "input_json_delta", "partial_json": json.dumps(answer.arguments)}
        await response.event({"type": "content_block_delta", "index": 0, "delta": delta})
    else:
        async for piece in answer:
            delta = {"type": "text_delta", "text": piece}
            await response.event({"type": "content_block_delta", "index": 0, "delta": delta})
    await response.event({"type": "content_block_stop", "index": 0})
    await response.event(
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
    )
    await response.event({"type": "message_stop"})
    response.close()


async def _responses(response: _Response, asked: Mapping[str, Any], answer: Answer) -> None:
    """`POST /v1/responses`."""
    number = next(_numbers)
    usage = {"input_tokens": TOKENS_IN, "output_tokens": TOKENS_OUT, "total_tokens": TOKENS_IN + TOKENS_OUT}
    begun: dict[str, Any] = {"id": f"resp_{number}", "object": "response", "created_at": 1, "model": asked["model"]}
    item: dict[str, Any] = {"id": f"item_{number}", "status": "completed"}
    if isinstance(answer, Call):
        arguments = json.dumps(answer.arguments)
        item |= {"type": "function_call", "call_id": f"call_{number}", "name": answer.name, "arguments": arguments}
    else:
        item |= {"type": "message", "role": "assistant", "content": []}
    sequence = count()

    async def send(kind: str, **fields: Any) -> None:
        await response.event({"type": kind, "sequence_number": next(sequence), **fields})

    if asked.get("stream"):
        response.open()
        await send("response.created", response=begun | {"status": "in_progress", "output": []})
        await send("response.output_item.added", output_index=0, item=item | {"status": "in_progress"})
    if not isinstance(answer, Call):
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
        if asked.get("stream"):
            await send("response.content_part.added", **place, part=part)
        text = ""
        async for piece in answer:
            text += piece
            if asked.get("stream"):
                await send("response.output_text.delta", **place, delta=piece)
        item["content"] = [part | {"text": text}]
        if asked.get("stream"):
            await send("response.output_text.done", **place, text=text)
            await send("response.content_part.done", **place, part=part | {"text": text})
    ended = begun | {"status": "completed", "output": [item], "usage": usage}
    if not asked.get("stream"):
        await response.json(200, ended)
        return
    if isinstance(answer, Call):
        place = {"item_id": item["id"], "output_index": 0}
        await send("response.function_call_arguments.delta", **place, delta=arguments)
        await send("response.function_call_arguments.done", **place, arguments=arguments)
    await send("response.output_item.done", output_index=0, item=item)
    await send("response.completed", response=ended)
    response.close()


async def _chat(response: _Response, asked: Mapping[str, Any], answer: Answer) -> None:
    """`POST /v1/chat/completions`."""
    number = next(_numbers)
    usage = {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT, "total_tokens": TOKENS_IN + TOKENS_OUT}
    reason = "tool_calls" if isinstance(answer, Call) else "stop"
    kind = "chat.completion.chunk" if asked.get("stream") else "chat.completion"
    begun: dict[str, Any] = {"id": f"chatcmpl-{number}", "object": kind, "created": 1, "model": asked["model"]}
    called: dict[str, Any] = {}
    if isinstance(answer, Call):
        function = {"name": answer.name, "arguments": json.dumps(answer.arguments)}
        called = {"tool_calls": [{"index": 0, "id": f"call_{number}", "type": "function", "function": function}]}
    if not asked.get("stream"):
        content = None if isinstance(answer, Call) else await _whole(answer)
        message = {"role": "assistant", "content": content, **called}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        await response.json(200, begun | {"choices": [choice], "usage": usage})
        return
    response.open()

    async def send(delta: Mapping[str, Any], ended: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": ended}
        await response.event(begun | {"choices": [choice]}, named=False)

    await send({"role": "assistant", "content": None if called else "", **called})
    if not isinstance(answer, Call):
        async for piece in answer:
            await send({"content": piece})
    await send({}, reason)
    await response.event(begun | {"choices": [], "usage": usage}, named=False)
    response.close(b"data: [DONE]\n\n")


def _last(items: list[Any] | str) -> tuple[str, str]:
    """What the model is to react to: ("text", the user's) or ("result", the first line of a tool's)."""
    if isinstance(items, str):
        return "text", items
    for item in reversed(items):
        if item.get("type") == "function_call_output":
            return "result", _first_line(item.get("output"))
        if item.get("role") == "tool":
            return "result", _first_line(item.get("content"))
        if item.get("role") != "user":
            continue
        content = item.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        for block in reversed(blocks):
            if block.get("type") == "tool_result":
                return "result", _first_line(block.get("content"))
            text = block.get("text")
            if text and not _ASIDE.match(text):
                return "text", str(text)
    return "text", ""


def _first_line(result: Any) -> str:
    """The first line of a tool's output, without what Codex puts before it."""
    if isinstance(result, list):
        result = "\n".join(str(block.get("text", "")) for block in result)
    text = str(result or "")
    before, marker, after = text.partition("\nOutput:\n")
    lines = (after if marker else before).strip().splitlines()
    return lines[0] if lines else ""


def _shell_arguments(shell: str, command: str, escalated: bool) -> dict[str, Any]:
    if shell != "exec_command":
        return {"command": command, "description": "A command of the loopback model"}
    asks = {"sandbox_permissions": "require_escalated", "justification": "The loopback model was told to ask"}
    return {"cmd": command} | (asks if escalated else {})


def _refusal(path: str, message: str) -> dict[str, Any]:
    """An error in the form of the API that `path` belongs to."""
    error = {"type": "invalid_request_error", "message": message}
    if "/messages" in path:
        return {"type": "error", "error": error}
    return {"error": error | {"param": None, "code": None}}


def _headers(content_type: str, length: int | None = None) -> list[tuple[str, str]]:
    return [
        ("content-type", content_type),
        ("transfer-encoding", "chunked") if length is None else ("content-length", str(length)),
    ]


async def _said(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def _slowly() -> AsyncIterator[str]:
    for number in range(1, SLOW_WORDS + 1):
        yield f"word{number} "
        await asyncio.sleep(SLOW_SECONDS)


async def _whole(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


def main() -> None:
    """Serves until Ctrl+C."""
    parser = argparse.ArgumentParser(prog="python -m tests.loopback_model", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="any free one by default")
    model = LoopbackModel(parser.parse_args().port)
    model.start()
    print(model.url, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    model.stop()


if __name__ == "__main__":
    main()

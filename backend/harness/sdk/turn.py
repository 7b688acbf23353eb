"""One turn of the agent: the answer as it grows, told to the event bus piece by piece."""

import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

ERROR_LIMIT = 500
OUTPUT_LIMIT = 200_000
"""Characters kept of what a tool gave back."""

Message = dict[str, Any]
Publish = Callable[[str, Mapping[str, Any]], None]
"""Tells an event's type and properties."""


class Turn:
    """The assistant's message of one turn: `message` is `{"info", "parts"}` and grows until `ended`."""

    def __init__(self, session_id: str, publish: Publish) -> None:
        self.prompt_id = str(uuid4())
        """Names the user's message to the program."""
        self.aborted = False
        self.ended = False
        self.failed = False
        self._publish = publish
        self._parts: dict[str, dict[str, Any]] = {}
        self._whole: dict[str, int] = {}
        """How many blocks of each of the model's messages are complete."""
        info = {"id": f"msg_{uuid4().hex}", "sessionID": session_id, "role": "assistant"}
        self.message: Message = {"info": info | {"time": {"created": now()}}, "parts": []}

    @property
    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = self.message["info"]
        return info

    def open(self, source: str, index: int, part: Mapping[str, Any]) -> dict[str, Any]:
        """The part for a block of the model's message `source`; made of `part` and told when it is new."""
        part_id = f"{source}_b{index}"
        found = self._parts.get(part_id)
        if found is None:
            place = {"id": part_id, "messageID": self._info["id"], "sessionID": self._info["sessionID"]}
            found = self._parts[part_id] = place | dict(part)
            self.message["parts"].append(found)
            self._tell(found)
        return found

    def grow(self, source: str, index: int, kind: str, text: str) -> None:
        """More text of a block; `kind` is text or reasoning."""
        part = self.open(source, index, {"type": kind, "text": ""})
        part["text"] += text
        place = {"messageID": part["messageID"], "partID": part["id"]}
        self._publish("message.part.delta", place | {"field": kind, "delta": text})

    def complete(self, source: str, part: Mapping[str, Any]) -> None:
        """The next block of `source`, as it is at its end."""
        index = self._whole.get(source, 0)
        self._whole[source] = index + 1
        if f"{source}_b{index}" in self._parts:
            found = self._parts[f"{source}_b{index}"]
            found.update(part)
            self._tell(found)
        else:
            self.open(source, index, part)

    def result(self, call_id: str, output: str, failed: bool) -> None:
        """What a tool gave back."""
        for part in self._parts.values():
            if part.get("callID") == call_id:
                what = "error" if failed else "output"
                part["state"] |= {"status": "error" if failed else "completed", what: output[:OUTPUT_LIMIT]}
                self._tell(part)

    def fail(self, name: str, text: str, facts: Mapping[str, Any] | None = None) -> None:
        """Ends the turn with an error; one that was aborted says so and nothing else."""
        if self.aborted:
            name, text = "AbortError", "run aborted by client"
        if self.ended:
            return
        self.failed = True
        self._info["error"] = {"name": name, "data": {"message": text[:ERROR_LIMIT]}}
        self.end(facts)

    def end(self, facts: Mapping[str, Any] | None = None) -> None:
        """Ends the turn; `facts` are tokens and cost. Told are the message, what went wrong, and that it is over."""
        if self.ended:
            return
        self.ended = True
        for part in self._parts.values():
            if part["type"] == "tool" and part["state"]["status"] == "running":
                part["state"] |= {"status": "error", "error": "the turn ended before the tool did"}
                self._tell(part)
        self._info.update(facts or {})
        self._info["time"]["completed"] = now()
        self._publish("message.updated", {"info": self._info})
        if self.aborted:
            self._publish("session.aborted", {})
        elif self.failed:
            error = self._info["error"]
            self._publish("session.error", {"message": error["data"]["message"], "error": error})
        self._publish("session.status", {"status": {"type": "idle"}})
        self._publish("session.idle", {})

    def _tell(self, part: Mapping[str, Any]) -> None:
        self._publish("message.part.updated", {"messageID": part["messageID"], "part": part})


def now() -> int:
    """Milliseconds since the epoch."""
    return round(time.time() * 1000)

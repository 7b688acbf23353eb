"""The events of an API harness: whoever asks for `GET /event` hears each of them (LAP harness 2.3)."""

import json
from collections.abc import Callable, Mapping
from typing import Any

CONNECTED = "server.connected"
HEARTBEAT = "server.heartbeat"
OF_THE_SERVER = (CONNECTED, HEARTBEAT)
"""About the connection and no session; each connection gets its own."""
MAX_UNSENT = 16 * 1024 * 1024
"""Bytes that may wait for a listener."""
MAX_DATA_URL = 4_096
"""A longer one in an event keeps its type only: the content is in the history."""

Listener = Callable[[bytes], None]


class Bus:
    """Lives on the event loop's thread."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` with a first frame at once and with every event; returns what ends that."""
        self._listeners.add(listener)
        listener(frame({"type": CONNECTED, "properties": {}}))
        return lambda: self._listeners.discard(listener)

    def publish(self, event: Mapping[str, Any]) -> None:
        """Tells everyone."""
        if self._listeners:
            data = frame(event)
            for listener in tuple(self._listeners):
                listener(data)


def frame(event: Mapping[str, Any]) -> bytes:
    """The event as it is sent."""
    return b"data: " + json.dumps(event, ensure_ascii=False).encode(errors="replace") + b"\n\n"


def normal(event: Any) -> dict[str, Any] | None:
    """A server's event in the form every client can filter: with its session's id; None when it is no event."""
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        return None
    properties = event.get("properties")
    properties = dict(properties) if isinstance(properties, dict) else {}
    info, part = (found if isinstance(found := properties.get(key), dict) else {} for key in ("info", "part"))
    if "sessionID" not in properties:
        own = info.get("id") if event["type"].startswith("session.") else None
        session = info.get("sessionID") or part.get("sessionID") or own
        if session:
            properties["sessionID"] = session
    if event["type"] == "session.error" and "message" not in properties:
        properties["message"] = _message_of(properties.get("error"))
    url = part.get("url")
    if isinstance(url, str) and url.startswith("data:") and len(url) > MAX_DATA_URL:
        properties["part"] = part | {"url": url.partition(",")[0] + ","}
    return {**event, "properties": properties}


def _message_of(error: Any) -> str:
    """What an error says, which opencode has as `{"name", "data": {"message"}}`."""
    if not isinstance(error, dict):
        return str(error or "unknown error")
    data = error.get("data")
    return str((data.get("message") if isinstance(data, dict) else None) or error.get("name") or "unknown error")

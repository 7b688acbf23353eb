"""What a hook runs, by itself: passes on what the agent's program tells to harness.hook_channel.

`python -I -S hook_sender.py SOCKET [JSON]`, the event on standard input or, from Codex's `notify`, as an argument. It
imports next to nothing, as every call of a tool waits for it; it says nothing and always succeeds, because what a
hook says, or its failure, would reach the agent.
"""

import json
import os
import socket
import sys
import time

MAX_EVENT = 8 * 1024 * 1024
MAX_TEXT = 1024
MAX_WORD = 100
SECONDS = 1.0
"""How long the harness may be too busy to take it."""
SUBJECTS = ("command", "file_path", "notebook_path", "url", "query", "pattern", "plan", "description", "prompt")
"""The parts of a tool's input of which the first one there is says most."""


def message(event: dict) -> dict:  # type: ignore[type-arg]
    """What the harness needs of the event."""
    given = event.get("tool_input")
    text = event.get("message") if given is None else _subject(given)
    return {
        "event": _cut(event.get("hook_event_name") or event.get("type"), MAX_WORD),
        "conversation": _cut(event.get("session_id") or event.get("thread-id"), MAX_WORD),
        "kind": _cut(event.get("notification_type") or event.get("source"), MAX_WORD),
        "tool": _cut(event.get("tool_name"), MAX_WORD),
        "text": _cut(text or event.get("last_assistant_message"), MAX_TEXT),
    }


def _subject(given: object) -> str:
    if isinstance(given, dict):
        questions = given.get("questions")
        if isinstance(questions, list) and questions and isinstance(questions[0], dict):
            given = questions[0].get("question")
        else:
            given = next((given[name] for name in SUBJECTS if isinstance(given.get(name), str)), given)
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


def _cut(text: object, limit: int) -> str:
    return text[:limit] if isinstance(text, str) else ""


def main() -> None:
    at = time.time()
    given = sys.argv[2] if len(sys.argv) > 2 else sys.stdin.buffer.read(MAX_EVENT)
    told = json.dumps({"at": at, **message(json.loads(given))}).encode()
    directory, name = os.path.split(sys.argv[1])
    os.chdir(directory)  # A socket's address must be short.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(SECONDS)
        sender.sendto(told, name)


if __name__ == "__main__":
    try:
        main()
    except Exception:  # Nothing may come of it, least of all a message to the agent.
        pass

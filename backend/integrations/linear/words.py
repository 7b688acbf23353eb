"""What an agent is told of a Linear issue, and what Linear is told of the agent's session."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from backend.domain import activity, messages, sessions
from backend.integrations.linear.webhooks import Event

MAX_BODY: Final = 20_000
"""Characters of one activity."""
FAILED_PROMPT: Final = ("initial_prompt failed", "an answer was lost")
"""How warnings of a session begin that say that a turn has come to nothing."""

ENDED_ON_PURPOSE: Final = ("stopped", "deleted", "agent deleted", "idle timeout")
ASKS: Final = {
    "permission": "The agent asks for permission",
    "question": "The agent asks",
    None: "The agent waits for you",
}
STOPS: Final = {
    "turn_finished": ("response", "The agent has finished its turn."),
    "interrupted": ("response", "The agent was interrupted."),
    "exited": ("response", "The agent's program has ended."),
    "crashed": ("error", "The agent's program has crashed."),
    "error": ("error", "The agent stopped with an error."),
}

Content = Mapping[str, str]
"""`content` of an agent activity: {"type": thought|response|error|elicitation, "body"}."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session is to be found."""

    session_id: str
    base_url: str | None

    @property
    def url(self) -> str | None:
        """Its address, when the platform has one that people can reach."""
        return f"{self.base_url}/sessions/{self.session_id}" if self.base_url else None

    def __str__(self) -> str:
        return f"[session {self.session_id}]({self.url})" if self.url else f"session `{self.session_id}`"


def prompt(event: Event) -> str:
    """What a new session's agent is told first."""
    issue, blocks = event.issue, []
    if issue is not None:
        blocks.append(f"Linear issue {issue.ref}: {issue.title}".rstrip(": ") + (f"\n{issue.url}" if issue.url else ""))
        blocks.append(issue.description)
    if event.text:
        blocks.append(f"@-mention from {event.author or 'a user'}:\n{event.text}")
    text = "\n\n".join(block.strip() for block in blocks if block.strip())
    return text[: sessions.INITIAL_PROMPT_LIMIT] or "A Linear user has called you without saying what for."


def content(kind: str, body: str) -> Content:
    """One activity."""
    return {"type": kind, "body": body if len(body) <= MAX_BODY else body[: MAX_BODY - 1] + "…"}


def news(told: Mapping[str, Any], session: Mapping[str, Any], place: Place) -> tuple[list[Content], dict[str, Any]]:
    """What a session's watchers in Linear do not know yet, and what they know afterwards.

    `session` is the view of a session (ApiSession), `told` what this gave before, at first {}. Only what is final is
    told: answers, questions, ends; never what is under way.
    """
    found: list[Content] = []
    now = {**told, "status": session["status"]}
    fresh = told.get("status") != session["status"]
    if fresh and session["status"] == sessions.READY:
        found.append(content("thought", f"At work in {place}."))
    failure = _answers(told, now, session, found)
    if session["status"] == sessions.READY and not failure:
        _activities(told, now, session, place, found)
    if fresh and session["status"] == sessions.FAILED:
        reason = session["failure_reason"] or "the platform does not say why"
        found.append(content("error", f"Failed to start session: {reason}"))
    if fresh and session["status"] == sessions.DEAD:
        reason = session["failure_reason"] or "ended"
        kind = "response" if reason in ENDED_ON_PURPOSE else "error"
        found.append(content(kind, f"The session is over: {reason} ({place})."))
    return found, now


def _answers(told: Mapping[str, Any], now: dict[str, Any], session: Mapping[str, Any], found: list[Content]) -> bool:
    """The answer of a completed turn; True when it is that the turn failed."""
    response = session["response"]
    info = (response or {}).get("info")
    answer_id = info.get("id") if isinstance(info, dict) else None
    fresh = answer_id is not None and answer_id != told.get("answer")
    now["answer"] = answer_id or told.get("answer")
    warnings = [text for text in session["warnings"] if text.startswith(FAILED_PROMPT)]
    now["failures"] = len(warnings)
    if fresh:
        error = messages.error_of(info or {})
        text = messages.text_of(response["parts"]).strip()
        found.append(content("error", error) if error else content("response", text or "Done, without a word."))
        return error is not None
    if len(warnings) > told.get("failures", 0):
        found.append(content("error", warnings[-1]))
        return True
    return False


def _activities(
    told: Mapping[str, Any], now: dict[str, Any], session: Mapping[str, Any], place: Place, found: list[Content]
) -> None:
    """What the agent's own state says: that it waits, and, for one with a terminal, that it stopped."""
    state = session["activity"]
    if state is None:
        return
    now["activity"] = f"{state['state']} {state['reason']} {state['since']}"
    if told.get("activity") == now["activity"]:
        return
    words = f": {state['message']}" if state["message"] else ""
    if state["state"] == activity.WAITING:
        asks = ASKS.get(state["reason"], ASKS[None])
        found.append(content("elicitation", f"{asks}{words}\n\nAnswer in {place}."))
    elif state["state"] == activity.IDLE and session["supports_tui"] and state["reason"] in STOPS:
        kind, said = STOPS[state["reason"]]
        body = f"{said.rstrip('.')}{words}." if words else said
        found.append(content(kind, f"{body}\n\nLook at it in {place}."))

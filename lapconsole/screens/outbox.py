"""Messages on their way to a session: each is sent once, one after the other, also while no screen shows it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from textual.app import App

from lapconsole.client.chat import USER, ChatMessage, TurnFailed, send
from lapconsole.client.errors import ClientError, Unreachable
from lapconsole.screens.operations import next_step

if TYPE_CHECKING:
    from lapconsole.app import LapConsole

WORDS = {
    "waiting": "waits for the turn before it",
    "sending": "sending …",
    "taken": "taken …",
    "unsure": "the link broke while it was sent; the transcript will tell",
}


@dataclass(eq=False)
class Outgoing:
    """A message a person has sent. It is recognised in the transcript among those that are not `known`.

    `state` is "waiting", "sending", "taken" by the platform, "unsure" when the link broke, or "seen" in the transcript.
    """

    text: str
    known: frozenset[str] = frozenset()
    state: str = "waiting"

    def recognise(self, messages: Sequence[ChatMessage]) -> None:
        """Find it among the messages."""
        if self.state in ("sending", "taken", "unsure") and any(
            # The platform may have put something before the first one of a session.
            message.role == USER and message.id not in self.known and message.text.strip().endswith(self.text)
            for message in reversed(messages)
        ):
            self.state = "seen"


class Shown(Protocol):
    """What shows an outbox."""

    def outbox_changed(self) -> None:
        """Something moved on."""

    def returned(self, text: str, why: str) -> None:
        """This was not sent."""

    def known(self) -> frozenset[str]:
        """The ids of the messages there are."""


@dataclass(eq=False)
class Outbox:
    """What a console keeps of a conversation: what is being written, and what is on its way.

    `draft` and `pastes`, the texts that marks in it stand for, are what is written while no screen is open.
    """

    draft: str = ""
    pastes: dict[str, str] = field(default_factory=dict)
    waiting: list[Outgoing] = field(default_factory=list)
    screen: Shown | None = None
    delivering: bool = False

    def deliver(self, console: LapConsole, session_id: str) -> None:
        """Send what waits, if that is not being done already."""
        if not self.delivering and any(one.state == "waiting" for one in self.waiting):
            self.delivering = True
            # Of the console, not of a screen: leaving that must not lose what was sent.
            console.run_worker(self._deliver(console, session_id), group="chat", exit_on_error=False)

    def take_back(self) -> str:
        """Take out what has not been sent yet; gives its text."""
        back = [one for one in self.waiting if one.state == "waiting"]
        self.waiting = [one for one in self.waiting if one not in back]
        return "\n".join(one.text for one in back)

    def settle(self) -> str:
        """The transcript has been read whole: what is not in it has not arrived. Gives the text of that."""
        lost = [one for one in self.waiting if one.state == "unsure"]
        self.waiting = [one for one in self.waiting if one not in lost and (one.state != "seen" or self.delivering)]
        return "\n".join(one.text for one in lost)

    async def _deliver(self, console: LapConsole, session_id: str) -> None:
        try:
            while outgoing := next((one for one in self.waiting if one.state == "waiting"), None):
                why = await self._send(console, session_id, outgoing)
                if outgoing.state != "unsure" and outgoing in self.waiting:
                    self.waiting.remove(outgoing)
                if why:
                    refused = [outgoing.text] if outgoing.state == "sending" else []
                    self._give_back(console, "\n".join([*refused, *filter(None, [self.take_back()])]), why)
                self._changed()
        finally:
            self.delivering = False

    async def _send(self, console: LapConsole, session_id: str, outgoing: Outgoing) -> str:
        """Send one and wait for the end of its turn; gives why nothing more can be sent, "" when all is well."""
        outgoing.state = "sending"
        if self.screen is not None:
            outgoing.known = self.screen.known()
        self._changed()
        if console.platform is None:
            return "there is no connection"
        try:
            async with aclosing(send(console.platform, session_id, outgoing.text)) as turn:
                async for frame in turn:
                    if frame.get("type") == "ready" and outgoing.state == "sending":
                        outgoing.state = "taken"
                        self._changed()
        except Unreachable as error:
            if outgoing.state != "seen":
                outgoing.state = "unsure"
            return str(error)
        except TurnFailed as error:
            if error.taken or outgoing.state == "seen":  # the transcript tells how it goes on
                return ""
            outgoing.state = "sending"
            return str(error)
        except ClientError as error:
            return f"{error}. {next_step(error)}"
        return ""

    def _changed(self) -> None:
        if self.screen is not None:
            self.screen.outbox_changed()

    def _give_back(self, console: LapConsole, text: str, why: str) -> None:
        if not text:
            return
        if self.screen is not None:
            self.screen.returned(text, "Not sent; it is back in the text")
        else:
            self.draft = "\n".join(filter(None, [text, self.draft]))
        console.report("Send a message", why, "It is back in the text of the chat; enter sends it again.")


_BOXES: WeakKeyDictionary[App[Any], dict[str, Outbox]] = WeakKeyDictionary()


def outbox_of(console: LapConsole, session_id: str) -> Outbox:
    """The one outbox of a session in this console."""
    return _BOXES.setdefault(console, {}).setdefault(session_id, Outbox())

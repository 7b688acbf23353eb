"""Talking to an agent that works by messages: a line at a time in the shell, or one message from a script."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing

from lapconsole.cli import bringup
from lapconsole.cli.account import Account
from lapconsole.cli.prompts import interactive
from lapconsole.cli.report import Failure, complain, run_loop, say
from lapconsole.client.chat import ASSISTANT, TEXT, TOOL, ChatMessage, Conversation, TurnFailed, send
from lapconsole.client.errors import ClientError, PlatformError, Unreachable
from lapconsole.client.models import Json, Session, Skill, as_object, safe_line
from lapconsole.client.platform import Platform

_PROMPT, _MORE = "› ", "… "
_HELP = """  /skill <name> [text]   send a skill with the message, or with the next one; tab completes its name
  /skill                 list the skills
  /help                  this
  A \\ at the end of a line goes on in the next. Ctrl-C stops a turn; Ctrl-D ends the chat, not the session."""
_SUMMARY = 80
_ABORT_SECONDS = 10.0


# The chat


def chat(current: Account, session: Session) -> int:
    """Talk to a ready session until the input ends. Questions are asked between event loops, where they may block."""
    skills = run_loop(_skills(current))
    say("Chat mode — Ctrl-D to exit")
    if skills:
        say(f"{len(skills)} skills loaded — type / to browse")
    asks = sys.stdin.isatty()
    if asks:
        _complete(skills)
    attached: list[Skill] = []
    code = 0
    with contextlib.suppress(KeyboardInterrupt):
        while (line := _read(attached, asks)) is not None:
            text = _command(line, skills, attached)
            if not text.strip():
                continue
            message = "".join([*(skill_block(skill) for skill in attached), text])
            attached.clear()
            code = _turn(current, session, message)
            if code and not _goes_on(current, session):
                break
    say("[chat ended]")
    if interactive():
        say(f"Session is still alive. Resume with:\n  lap --resume {session.id}" if not code else "")
    return 0 if asks else code


def _read(attached: Sequence[Skill], asks: bool) -> str | None:
    """The next message, its lines joined; None at the end of the input."""
    lines: list[str] = []
    while True:
        names = "".join(f"[{skill.name}] " for skill in attached)
        try:
            line = input((_MORE if lines else names + _PROMPT) if asks else "")
        except EOFError:
            if asks:
                say()
            return "\n".join(lines) if lines else None
        if asks and line.endswith("\\"):
            lines.append(line[:-1])
            continue
        return "\n".join([*lines, line])


def _command(line: str, skills: Sequence[Skill], attached: list[Skill]) -> str:
    """What of a line is to be sent, with its /skill or /help carried out."""
    word, _, rest = line.strip().partition(" ")
    if word == "/help":
        say(_HELP)
        return ""
    if word == "/skill" and not rest.strip():
        say("\n".join(f"  {skill.name:<28} {skill.description[:_SUMMARY]}" for skill in skills) or "(no skills)")
        return ""
    named = rest.strip() if word == "/skill" else line.strip()[1:] if line.startswith("/") else ""
    skill = _named(named, skills)
    if skill is None:
        if word == "/skill":
            complain(f"✗ no skill named '{safe_line(named)}'; /skill lists them")
            return ""
        return line  # a path is no command
    if skill not in attached:
        attached.append(skill)
    return named[len(skill.name) :].strip()


def _named(text: str, skills: Sequence[Skill]) -> Skill | None:
    """The skill whose name the text begins with; the longest of several."""
    fitting = [skill for skill in skills if (text.lower() + " ").startswith(skill.name.lower() + " ")]
    return max(fitting, key=lambda skill: len(skill.name), default=None)


def skill_block(skill: Skill) -> str:
    """A skill as it stands before a message (LAP harness 3.2)."""
    return f'<skill name="{skill.name}">\n{skill.content}\n</skill>\n\n'


def _complete(skills: Sequence[Skill]) -> None:
    """Complete /skill and the names of skills with tab."""
    try:
        import readline
    except ImportError:  # a Python built without it has plain lines
        return
    words = ["/help", "/skill ", *(f"/skill {skill.name} " for skill in skills), *(f"/{s.name} " for s in skills)]

    def complete(text: str, state: int) -> str | None:
        if not text.startswith("/"):
            return None
        fitting = [word for word in words if word.lower().startswith(text.lower())]
        return fitting[state] if state < len(fitting) else None

    readline.set_completer_delims("")
    readline.set_completer(complete)
    for setting in ("tab: complete", "set enable-bracketed-paste on", "set show-all-if-ambiguous on"):
        readline.parse_and_bind(setting)


async def _skills(current: Account) -> tuple[Skill, ...]:
    """The library; a platform that cannot tell it has none."""
    try:
        async with Platform(current.base, current.key) as platform:
            return await platform.skills()
    except ClientError:
        return ()


def _turn(current: Account, session: Session, message: str) -> int:
    """Send one message and show its answer as it comes; 1 when that failed. Ctrl-C stops the turn."""
    try:
        return run_loop(_streamed(current, session.id, message))
    except KeyboardInterrupt:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would stop the stopping
        try:
            say("\n(stopping the turn)")
            run_loop(_abort(current, session.id))
        finally:
            signal.signal(signal.SIGINT, before)
        return 0


async def _streamed(current: Account, session_id: str, message: str) -> int:
    conversation, started = Conversation(), time.monotonic()
    printer = _Printer()
    async with Platform(current.base, current.key) as platform:
        try:
            async with aclosing(send(platform, session_id, message)) as events:
                async for event in events:
                    if (changed := conversation.apply(event)) is not None:
                        printer.show(conversation.messages.get(changed))
        except TurnFailed as error:
            printer.end()
            complain(f"✗ {error}")
            return 1
        except ClientError as error:
            printer.end()
            complain(f"✗ {bringup.cause(error)}")
            if isinstance(error, Unreachable):
                complain(f"  it may have arrived all the same: `lap messages {session_id}` shows it")
            return 1
    printer.end()
    answers = [one for one in conversation.messages.values() if one.role == ASSISTANT]
    failed = [one.error for one in answers if one.error]
    for cause in failed:
        complain(f"✗ {cause}")
    say(_footer(answers, time.monotonic() - started))
    return 1 if failed else 0


def _footer(answers: Sequence[ChatMessage], seconds: float) -> str:
    """`  1s · ↓ 42 tokens · $0.0123`, as far as it is known (LAP harness 3.2)."""
    tokens = sum(answer.tokens or 0 for answer in answers)
    cost = sum(answer.cost or 0.0 for answer in answers)
    told = [f"{seconds:.0f}s", *([f"↓ {tokens} tokens"] if tokens else []), *([f"${cost:.4f}"] if cost else [])]
    return "  " + " · ".join(told)


class _Printer:
    """Prints what is new of an answer: its text as it grows, and each tool call once, when it is done."""

    def __init__(self) -> None:
        self._printed: dict[tuple[str, str], int] = {}
        self._last: tuple[str, str] | None = None
        self._open = False

    def show(self, message: ChatMessage | None) -> None:
        if message is None or message.role != ASSISTANT:
            return
        for part in message.parts.values():
            key = (message.id, part.id)
            if part.kind == TEXT and len(part.text) > self._printed.get(key, 0):
                if self._last != key:
                    self.end()
                self._write(part.text[self._printed.get(key, 0) :])
                self._printed[key], self._last = len(part.text), key
            elif part.kind == TOOL and part.status in ("completed", "error") and key not in self._printed:
                self.end()
                mark = "✓" if part.status == "completed" else f"✗ {safe_line(part.text.strip())[:_SUMMARY]}"
                self._write(f"  ▸ {part.tool}  {_called(part.input)}  {mark}\n")
                self._printed[key], self._last = 0, key

    def end(self) -> None:
        if self._open:
            self._write("\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self._open = not text.endswith("\n")


def _called(input: Json) -> str:
    """The first words of what a tool was called with."""
    value = next((one for one in input.values() if isinstance(one, str)), "")
    return safe_line(" ".join(value.split()))[:_SUMMARY]


async def _abort(current: Account, session_id: str) -> None:
    try:
        async with Platform(current.base, current.key) as platform, asyncio.timeout(_ABORT_SECONDS):
            await platform.abort(session_id)
    except (ClientError, TimeoutError) as error:
        complain(f"✗ the turn could not be stopped: {error or 'no answer'}")


def _goes_on(current: Account, session: Session) -> bool:
    """Whether a session can still be talked to, told if not."""
    now = run_loop(_again(current, session.id))
    if now is not None and now.ended:
        complain(f"✗ session is {now.status}: {now.failure_reason or 'no reason given'}")
        return False
    return True


async def _again(current: Account, session_id: str) -> Session | None:
    try:
        async with Platform(current.base, current.key) as platform:
            return await platform.session(session_id)
    except ClientError:
        return None


# One message


async def ask(platform: Platform, session: Session, text: str, *, as_json: bool) -> int:
    """Send one message and print the whole answer; 1 when the agent answered with an error."""
    if session.supports_tui:
        raise Failure(f"harness {session.harness_id} has a terminal and takes no messages: `lap --resume {session.id}`")
    try:
        answer = await platform.message(session.id, text)
    except PlatformError as error:
        raise Failure(f"message failed: {bringup.cause(error)}") from None
    except Unreachable as error:
        raise Failure(
            f"message failed: {error}\n  it may have arrived all the same: `lap messages {session.id}` shows it"
        ) from None
    message = ChatMessage.from_json(answer)
    if as_json:
        shown = {"session_id": session.id, "text": message.text, "error": message.error or None}
        say(json.dumps(shown | {"info": as_object(answer.get("info")), "parts": answer.get("parts") or []}))
    elif message.text:
        say(message.text)
    if message.error and not as_json:
        complain(f"✗ {message.error}")
    return 1 if message.error else 0


def given_text(words: Sequence[str]) -> str:
    """The text of a message from the arguments, or all of the standard input without any, or for "-"."""
    if words and list(words) != ["-"]:
        return " ".join(words)
    if sys.stdin.isatty():
        raise Failure("no message: give it as an argument, or through a pipe", 2)
    text = sys.stdin.read().strip("\n")
    if not text.strip():
        raise Failure("the message is empty", 2)
    return text

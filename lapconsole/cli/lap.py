"""The `lap` command: log in, list agents, open a session of one in this terminal, and return to it (LAP harness 3).

What it does with sessions besides is in lapconsole.cli.sessions, talking to those without a terminal in .chat.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lapconsole.cli.report import Failure, complain, guard, mask, run_loop, say, version

if TYPE_CHECKING:
    from lapconsole.cli.account import Account
    from lapconsole.cli.attach import Ending
    from lapconsole.client.models import Agent, Session
    from lapconsole.client.platform import Platform
    from lapconsole.client.urls import TtyAddress

_USAGE = """
  lap — LiteLLM Agent Platform CLI

  USAGE
    lap                             interactive wizard (login + agent picker)
    lap <agent-name>                open the agent's TUI in a sandbox, or chat with it
    lap --agent <name>              same as above (flag form)
    lap --resume <id-or-url>        reattach to an existing session
    lap agents [--json]             list agents on the platform ([tui] = compatible)
    lap login                       set base URL + master key (one-time)
    lap config [--json]             show current config
    lap logout                      delete config

    lap sessions [--all] [--agent <name>] [--json]
                                    list sessions; --all lists dead ones too
    lap run <agent> [text] [--stop] [--json]
                                    start a session, send one message, print the answer
    lap message <session> [text] [--json]
                                    send one message, print the answer
    lap messages <session> [--json] print what was said
    lap logs <session> [-f] [--tail N] [--json]
                                    print the sandbox's log; -f goes on as it is written
    lap diagnose <session> [--json] print what the platform finds about a session
    lap fix <session> [recreate|service|pool] [--yes] [--json]
                                    do what mends it: what helps against the worst
                                    finding, or what is named; asks first
    lap stop <session> [--json]     end a session and remove its sandbox

  <session> is an id, the start of one (4 characters or more), or a URL. Without
  text, and for "-", a message is all that comes through the pipe. An agent with
  the name of a command is opened with --agent.
  In a session Ctrl-D alone detaches; the session keeps running. In a chat Ctrl-C
  stops a turn, and /skill <name> sends a skill along (Tab completes its name).

  EXAMPLE
    lap login
    lap my-agent
    git diff | lap run reviewer --stop

  ENVIRONMENT
    LAP_BASE_URL, LAP_MASTER_KEY    the platform, where nothing is logged in
    LAP_TTY_TOKEN                   overrides the session's terminal token
    LAP_TTY_FALLBACK                WebSocket URL for a session without a reachable terminal

  Without any of these, a platform running on this machine is used.
  EXIT CODES  0 done, 1 failed (or the agent answered with an error), 2 wrong usage,
              3 `lap diagnose` found something, or `lap fix` nothing it can mend,
              130 interrupted
"""
_RESUME_USAGE = "usage: lap --resume <session_id>\n  (or the session's URL; `lap` prints both when you detach)"
_COMMANDS = ("agents", "login", "config", "logout", "help")
_SESSION_URL = re.compile(r"(https?://[^\s?#]+?)/sessions/([0-9a-fA-F-]{36})(?:[/?#].*)?")
_LOGIN_FIRST = "no config — run `lap login` first."
_CHECK_SECONDS = 5.0
# For platforms that do not say whether a session has a terminal.
_WITHOUT_TERMINAL = ("opencode", "claude-agent-sdk")


@dataclass(frozen=True, slots=True)
class Invocation:
    """A parsed command line. `command` is one of _COMMANDS, "wizard", "open", "resume", or "of_sessions" with its
    arguments in `rest`.
    """

    command: str
    argument: str = ""
    as_json: bool = False
    rest: tuple[str, ...] = ()


def main() -> int:
    return guard(lambda: run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Carry out a command line and return its exit code."""
    invocation = parse(arguments)
    match invocation.command:
        case "help":
            say(invocation.argument or f"{_USAGE}\n  Config: {_config_path()}\n")
            return 0
        case "login":
            _login()
            return 0
        case "logout":
            return _logout()
        case "config":
            return run_loop(_config(invocation.as_json))
        case "agents":
            return run_loop(_agents(invocation.as_json))
        case "of_sessions":
            return _of_sessions(invocation.rest)
        case "resume" if not invocation.argument:
            complain(_RESUME_USAGE)
            return 2
        case "resume":
            current, ready = run_loop(_resume(invocation.argument))
            return _enter(current, ready)
        case _:
            return _open(invocation.argument)


def parse(arguments: list[str]) -> Invocation:
    """Read a command line; raises Failure (usage, exit code 2)."""
    from lapconsole.cli.sessions import COMMANDS

    first = next((word for word in arguments if not word.startswith("-")), "")
    if first in COMMANDS and not any(
        word.startswith(("--agent", "--resume")) for word in arguments[: arguments.index(first)]
    ):
        rest = [*arguments]
        rest.remove(first)
        return Invocation("of_sessions", rest=(first, *rest))
    words: list[str] = []
    given: dict[str, str] = {}
    as_json = False
    left = iter(arguments)
    for argument in left:
        option, equals, value = argument.partition("=")
        if option in ("--agent", "--resume"):
            given[option] = value if equals else next(left, "")
        elif argument in ("-h", "--help"):
            return Invocation("help")
        elif argument == "--version":
            return Invocation("help", f"lap {version()}")
        elif argument == "--json":
            as_json = True
        elif argument.startswith("-"):
            raise _usage(f"unknown option '{argument}'")
        else:
            words.append(argument)
    if words[:1] == ["resume"]:
        given["--resume"] = " ".join(words[1:])
    if "--resume" in given:
        return Invocation("resume", given["--resume"])
    if "--agent" in given:
        if not given["--agent"] or words:
            raise _usage("--agent takes the name of one agent")
        return Invocation("open", given["--agent"])
    if len(words) > 1:
        raise _usage(f"one agent at a time; a name with spaces goes in quotes: '{' '.join(words)}'")
    if not words:
        if as_json:
            raise _usage("--json goes with `agents` and `config`")
        return Invocation("wizard")
    if words[0] in _COMMANDS:
        return Invocation(words[0], as_json=as_json)
    return Invocation("open", words[0])


def _usage(problem: str) -> Failure:
    return Failure(f"{problem}\n{_USAGE}", 2)


def _config_path() -> object:
    from lapconsole.cli.account import config_path

    return config_path()


# The account


def _login() -> Account:
    from lapconsole.cli import account, prompts
    from lapconsole.client.errors import BadInput
    from lapconsole.client.urls import base_address, is_loopback
    from lapconsole.settings import is_key

    say("\n  lap — LiteLLM Agent Platform CLI\n")
    typed = prompts.ask("Agent platform URL:")
    key = prompts.ask_secret("Master key:") if typed else ""
    if not typed or not key:
        raise Failure("aborted")
    try:
        base = base_address(typed)
    except BadInput as error:
        raise Failure(str(error)) from None
    if not is_key(key):
        raise Failure("that is no master key: it has 1 to 1024 printable characters and no spaces")
    if base.startswith("http://") and not is_loopback(base):
        complain("! the address is not https: the key crosses the network unencrypted")
    entered = account.Account(base, key, "config")
    problem = run_loop(_problem(entered))
    account.save(base, key)
    say(f"✓ saved to {account.config_path()}")
    if problem:
        complain(f"! {problem}")
    return entered


async def _problem(entered: Account) -> str | None:
    """Return what is wrong with an account just entered, as far as its platform can tell now.

    Raises Failure when the platform refuses the key: that one is not worth keeping.
    """
    import asyncio

    from lapconsole.client.errors import ClientError, PlatformError
    from lapconsole.client.platform import Platform

    try:
        async with Platform(entered.base, entered.key) as platform, asyncio.timeout(_CHECK_SECONDS):
            await platform.agents(limit=1)
    except PlatformError as error:
        if error.key_refused:
            raise Failure(f"{entered.base} answered {error.status_line}: check the key. Nothing was saved.") from None
        return f"{entered.base} answered {error.status_line}"
    except ClientError as error:
        return str(error)
    except TimeoutError:
        return f"{entered.base} did not answer within {_CHECK_SECONDS:.0f} s"
    return None


def _logout() -> int:
    from lapconsole.cli.account import config_path

    try:
        config_path().unlink(missing_ok=True)
    except OSError as error:
        raise Failure(f"cannot delete {config_path()}: {error.strerror}") from None
    say("logged out")
    return 0


async def _config(as_json: bool) -> int:
    from lapconsole.cli import account

    current = await account.account()
    shown = {"base": current.base, "key": mask(current.key)} if current else {"base": None, "key": None}
    if as_json:
        say(json.dumps(shown | {"source": current and current.source}, ensure_ascii=False))
    elif current is not None and current.source == "config":
        say(json.dumps(shown, ensure_ascii=False, separators=(",", ":")))
    else:
        say("(no config — run `lap login`)")
        if current is not None:
            say(_told_source(current))
    return 0


async def _account() -> Account | None:
    """Return the account to use, saying where it comes from unless it was logged in to."""
    from lapconsole.cli import account

    current = await account.account()
    if current is not None and current.source != "config":
        complain(_told_source(current))
    return current


def _told_source(current: Account) -> str:
    where = {"environment": "LAP_BASE_URL", "embedded": "running on this machine"}[current.source]
    return f"(using the platform at {current.base}: {where})"


# Agents


async def _agents(as_json: bool) -> int:
    from lapconsole.cli import bringup
    from lapconsole.client.errors import ClientError, PlatformError
    from lapconsole.client.platform import Platform

    current = await _account()
    if current is None:
        complain("(no config — run `lap login`)")
        return 1
    try:
        async with Platform(current.base, current.key) as platform:
            agents = await platform.all_agents()
    except ClientError as error:
        refused = isinstance(error, PlatformError) and error.key_refused
        raise Failure(f"{'' if refused else 'agent list failed: '}{bringup.cause(error)}") from None
    if as_json:
        fields = ("id", "name", "harness_id", "supports_tui")
        say(json.dumps([{name: getattr(agent, name) for name in fields} for agent in agents], indent=2))
    elif not agents:
        say("(no agents yet — create one in `lapconsole`)")
    else:
        say("\n".join(map(_row, agents)))
    return 0


def _row(agent: Agent) -> str:
    return f"{agent.label:<28} {agent.harness_id:<20} {'[tui]' if agent.supports_tui else '':<5} {agent.id[:8]}"


# Sessions


def _open(name: str) -> int:
    """Open a new session of an agent; "" asks which. Questions are asked between event loops, where they may block."""
    current = run_loop(_account()) or _first_login()
    if name:
        return _enter(current, run_loop(_run_session(current, name)))
    agent = _picked(run_loop(_with_terminal(current)))
    if agent is None:
        say("cancelled.")
        return 0
    return _enter(current, run_loop(_run_session(current, agent)))


def _enter(current: Account, session: Session) -> int:
    """Attach to a ready session, or chat with it where it has no terminal."""
    has_none = session.supports_tui is None and session.harness_id in _WITHOUT_TERMINAL
    if session.supports_tui is not False and not has_none:
        return run_loop(_attach(current, session))
    from lapconsole.cli.chat import chat

    return chat(current, session)


def _of_sessions(arguments: tuple[str, ...]) -> int:
    """Carry out a command of lapconsole.cli.sessions."""
    from lapconsole.cli import sessions

    given = sessions.parse(arguments[0], arguments[1:])
    if "text" in given:
        from lapconsole.cli.chat import given_text

        given.message = given_text(given.text)
    current = run_loop(_account())
    if current is None:
        raise Failure(_LOGIN_FIRST)
    if given.command == "fix":
        from lapconsole.cli.fixing import fix

        return fix(current, given)
    return run_loop(sessions.run(current, given))


def _first_login() -> Account:
    from lapconsole.cli.prompts import interactive

    if not interactive():
        raise Failure(_LOGIN_FIRST)
    say("No agent platform configured.")
    return _login()


async def _with_terminal(current: Account) -> list[Agent]:
    """Return the agents that can be attached to, at least one; raises Failure."""
    from lapconsole.cli import bringup
    from lapconsole.client.errors import ClientError
    from lapconsole.client.platform import Platform

    try:
        async with Platform(current.base, current.key) as platform:
            agents = [agent for agent in await platform.all_agents() if agent.supports_tui]
    except ClientError as error:
        raise Failure(f"agent list failed: {bringup.cause(error)}") from None
    if not agents:
        raise Failure(
            "no TUI-compatible agents on this platform.\n"
            f"  TUI requires harness claude-code or codex — visit {current.base}/agents or `lapconsole` to create one."
            "\n  With the others you can chat: `lap <agent-name>`; `lap agents` lists them."
        )
    return agents


def _picked(agents: list[Agent]) -> Agent | None:
    from lapconsole.cli import prompts

    if len(agents) == 1:
        return agents[0]
    prompts.need_terminal("the picker", "name an agent: `lap <agent-name>` (`lap agents` lists them)")
    title = "Pick an agent  ↑/↓ to move, Enter to open, q to cancel"
    index = prompts.choose(title, [_row(agent) for agent in agents])
    return None if index is None else agents[index]


async def _run_session(current: Account, agent: Agent | str) -> Session:
    """Bring up a session of an agent, given by name or id or as it is; it is ready then."""
    from lapconsole.cli import bringup
    from lapconsole.client.platform import Platform

    async with Platform(current.base, current.key) as platform:
        if isinstance(agent, str) and bringup.is_id(agent):
            agent_id = agent
        else:
            found = await bringup.find_agent(platform, agent) if isinstance(agent, str) else agent
            agent_id = found.id
        created = await bringup.create(platform, agent_id)
        return await bringup.wait_ready(platform, created.id)


async def _resume(target: str) -> tuple[Account, Session]:
    """Find a session that is ready, or wait for it to be."""
    from lapconsole.cli import bringup
    from lapconsole.client.errors import ClientError, PlatformError
    from lapconsole.client.platform import Platform

    url = _SESSION_URL.fullmatch(target)
    if not bringup.is_id(url[2] if url else target):
        raise Failure(f"'{target}' is not a session_id or sessions URL", 2)
    current = await _account()
    if current is None:
        raise Failure(_LOGIN_FIRST)
    session_id = session_of_url(current, target) or target
    async with Platform(current.base, current.key) as platform:
        print(f"→ fetching session {session_id[:8]}…", end="", flush=True)
        try:
            session = await platform.session(session_id)
        except PlatformError as error:
            say()
            raise Failure(error.status_line) from None
        except ClientError as error:
            say()
            raise Failure(f"session fetch failed: {error}") from None
        say(" ready" if session.status == "ready" else f" {session.status}")
        if session.status == "creating":
            session = await bringup.wait_ready(platform, session.id)
        elif session.ended:
            lines = [f"session is {session.status}: {session.failure_reason or 'no reason given'}"]
            raise Failure("\n".join(lines + await bringup.findings(platform, session.id)))
        return current, session


def session_of_url(current: Account, target: str) -> str:
    """The id in a session's URL, "" for what is none. Raises Failure for one of another platform: no key goes there."""
    url = _SESSION_URL.fullmatch(target)
    if url is None:
        return ""
    if _origin(url[1]) != _origin(current.base):
        raise Failure(
            f"this session is on {url[1]}, but your key is for {current.base}: it was not sent.\n"
            f"  To go there, `lap login` to that platform first."
        )
    return url[2]


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return what a key belongs to: scheme, host and port."""
    parts = urlsplit(url)
    try:
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        raise Failure(f"'{url}' is not an address", 2) from None


async def _attach(current: Account, session: Session) -> int:
    from lapconsole.client.platform import Platform

    async with Platform(current.base, current.key) as platform:
        return await _attached(platform, current, session)


async def _attached(platform: Platform, current: Account, session: Session) -> int:
    from lapconsole.cli import bringup
    from lapconsole.cli.attach import attach
    from lapconsole.client.errors import ClientError, TtyRefused
    from lapconsole.client.tty import Tty

    address = _terminal(current, session)
    say(f"→ attaching local TTY to {address.url.partition('?')[0]}")
    say("(press Ctrl-D to detach)")
    try:
        async with await Tty.connect(address.url, os.environ.get("LAP_TTY_TOKEN") or address.token) as connection:
            ending = await attach(connection)
    except TtyRefused as error:
        lines = [f"ws error: Unexpected server response: {error.status}"]
        if error.status == 401:
            lines.append("  upgrade rejected with 401 from harness: the session's terminal token does not match.")
        else:
            lines.append(f"  {error}")
        raise Failure("\n".join(lines + await bringup.findings(platform, session.id))) from None
    except ClientError as error:
        raise Failure("\n".join([f"ws error: {error}", *await bringup.findings(platform, session.id)])) from None
    await _tell_ending(platform, current, session, ending)
    return 0


def _terminal(current: Account, session: Session) -> TtyAddress:
    from lapconsole.client.errors import BadInput
    from lapconsole.client.urls import tty_address

    fallback = os.environ.get("LAP_TTY_FALLBACK")
    try:
        return tty_address(current.base, session)
    except BadInput:
        if not fallback:
            raise Failure(_no_terminal(session)) from None
    say("(sandbox_url is in-cluster — using LAP_TTY_FALLBACK)")
    return tty_address(current.base, session, fallback)


def _no_terminal(session: Session) -> str:
    if session.sandbox_url:
        what = f"session.sandbox_url is in-cluster ({session.sandbox_url}) and the platform did not return a tty_url."
    else:
        what = "platform returned neither tty_url nor a reachable sandbox_url."
    return f"{what}\n  With a tunnel of your own, set LAP_TTY_FALLBACK to its ws:// URL."


async def _tell_ending(platform: Platform, current: Account, session: Session, ending: Ending) -> None:
    from lapconsole.cli.bringup import findings
    from lapconsole.client.errors import ClientError

    if ending.notice:
        say(ending.notice)
    if ending.silent and not ending.detached:
        complain("[ws closed] nothing came from the terminal: the sandbox was gone, or the token is wrong.")
        complain("  Check `lap config`, then restart the session.")
    reason = f" reason={ending.closed.reason}" if ending.closed.reason else ""
    say(f"[connection closed code={ending.closed.code}{reason}]")
    command = f"  lap --resume {session.id}"
    try:
        now = await platform.session(session.id)
    except ClientError:
        say(f"(could not verify session state — try anyway)\n{command}")
        return
    if now.ended:
        say(f"Session is dead — {now.failure_reason or 'no reason given'}.")
        if not ending.detached:
            for line in await findings(platform, session.id):
                complain(line)
    else:
        say(f"Session is still alive. Resume with:\n{command}\n  lap --resume {current.base}/sessions/{session.id}")


if __name__ == "__main__":
    sys.exit(main())

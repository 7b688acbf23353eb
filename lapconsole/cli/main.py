"""The `lapconsole` command: the console, and the platform it brings along."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapconsole.cli.report import Failure, duration, guard, mask, run_loop, say, version

if TYPE_CHECKING:
    from textual.app import App

    from lapconsole.client.models import Session
    from lapconsole.connection import Connection
    from lapconsole.embedded import Running
    from lapconsole.settings import Settings

NOT_RUNNING = 3
STOP_SECONDS = 20.0
_KEY_VARIABLES = ("LAP_MASTER_KEY", "MASTER_KEY")

_EXIT_CODES = "exit codes: 0 done, 1 failed, 2 wrong usage, 3 no platform is running (status)"


def main() -> int:
    return guard(lambda: run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Carry out a command line and return its exit code."""
    options = _parser(commands=bool(arguments)).parse_args(arguments)
    if options.version:
        say(f"lapconsole {version()}")
        return 0
    if options.command is None:
        return _console(options)
    return _COMMANDS[options.command](options)


def _parser(*, commands: bool = True) -> argparse.ArgumentParser:
    """Without the `commands` there is only what the plain `lapconsole` has, which is to paint at once."""
    data_dir = argparse.ArgumentParser(add_help=False)
    # SUPPRESS: given before the command, the option must not be overwritten by the command's default.
    data_dir.add_argument(
        "--data-dir",
        metavar="DIR",
        type=Path,
        default=argparse.SUPPRESS,
        help="the platform's data folder (default: LAP_DATA_DIR, else the user's data folder)",
    )
    parser = argparse.ArgumentParser(
        prog="lapconsole",
        description="Run coding agents in sandboxes; see, fix and attach to every one of them. Without a command: the "
        "console, on the current context or else on a platform of its own.",
        epilog=_EXIT_CODES,
        parents=[data_dir],
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--platform", metavar="URL", help="connect the console to the platform at this address")
    where.add_argument("--context", metavar="NAME", help="connect the console to a saved platform, or to 'embedded'")
    key_file_help = "read the master key from this file (else LAP_MASTER_KEY or MASTER_KEY, else you are asked)"
    parser.add_argument("--key-file", metavar="FILE", type=Path, help=key_file_help)

    if commands:
        _add_commands(parser, data_dir, key_file_help)
    else:
        parser.set_defaults(command=None)
    return parser


def _add_commands(parser: argparse.ArgumentParser, data_dir: argparse.ArgumentParser, key_file_help: str) -> None:
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    up = commands.add_parser("up", parents=[data_dir], help="run the platform alone", epilog=_EXIT_CODES)
    up.add_argument("--port", metavar="N", type=_port, help="port to listen on; 0 takes any free one (default: 3000)")
    up.add_argument("--host", metavar="H", help="address to listen on (default: 127.0.0.1)")
    up.add_argument("--detach", action="store_true", help="leave it running in the background, its log in a file")
    commands.add_parser("down", parents=[data_dir], help="end the platform; its sessions keep running")
    status = commands.add_parser("status", parents=[data_dir], help="tell whether the platform runs, and where")
    status.add_argument("--json", action="store_true", help="as JSON")
    contexts = commands.add_parser("contexts", help="saved platforms: list, add, use, remove")
    actions = contexts.add_subparsers(dest="action", metavar="ACTION")
    contexts.set_defaults(action="list", json=False)
    listing = actions.add_parser("list", help="list them, the current one marked")
    listing.add_argument("--json", action="store_true", help="as JSON")
    add = actions.add_parser("add", help="save a platform under a name")
    add.add_argument("name")
    add.add_argument("url")
    add.add_argument("--key-file", metavar="FILE", type=Path, help=key_file_help)
    for action, text in (("use", "make it the one `lapconsole` opens"), ("remove", "forget it")):
        actions.add_parser(action, help=text).add_argument("name")


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port: 0 to 65535")
    return port


def _data_dir(options: argparse.Namespace) -> Path:
    from lapconsole.settings import data_dir

    given: Path | None = getattr(options, "data_dir", None)
    return given.expanduser().absolute() if given else data_dir()


# The console


def _console(options: argparse.Namespace) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure("the console needs a terminal; in scripts use `lapconsole status` or `lap agents`", 2)
    connection = _connection(options)
    from lapconsole.app import LapConsole

    app = LapConsole(connection)
    run_loop(_show(app, connection))
    return app.return_code or 0


async def _show(app: App[None], connection: Connection) -> None:
    """Run the app to its end, in order also when a signal ends it, and then the platform it brought along."""
    import asyncio

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, partial(app.exit, return_code=128 + number))
    try:
        await app.run_async()
        say(connection.parting())
    finally:
        await connection.close()


def _connection(options: argparse.Namespace) -> Connection:
    from lapconsole import settings as saved
    from lapconsole.connection import Address, EmbeddedConnection, FixedConnection
    from lapconsole.embedded import EmbeddedPlatform

    settings = saved.load()
    if options.platform:
        url = _checked_url(options.platform)
        known = next((context for context in settings.contexts.values() if context.url == url), None)
        label = known.name if known else url.partition("://")[2]
        return FixedConnection(Address(url, _key(options.key_file, known.key if known else None, url), label))
    if options.key_file:
        raise Failure("--key-file goes with --platform", 2)
    name = options.context or settings.current
    if "data_dir" in options and not options.context:
        name = saved.EMBEDDED
    if name == saved.EMBEDDED:
        return EmbeddedConnection(EmbeddedPlatform(_data_dir(options)))
    context = _context(settings, name)
    return FixedConnection(Address(context.url, context.key, context.name))


def _key(file: Path | None, saved: str | None, url: str) -> str:
    """Find the master key: the file, the environment, what is saved, or the person; never the command line."""
    from lapconsole.cli.prompts import ask_secret
    from lapconsole.settings import is_key

    if file is not None:
        try:
            with file.open("rb") as content:
                key, source = content.read(2048).decode("utf-8", "replace").strip(), str(file)
        except OSError as error:
            raise Failure(f"cannot read the key file {file}: {error.strerror}", 2) from None
    else:
        variable = next((name for name in _KEY_VARIABLES if os.environ.get(name, "").strip()), None)
        key, source = os.environ[variable].strip() if variable else saved or "", variable or "the settings"
        if not key:
            key, source = ask_secret(f"Master key of {url}:"), "what was typed"
    if not is_key(key):
        raise Failure(f"{source} holds no master key: 1 to 1024 printable characters without spaces", 2)
    return key


def _checked_url(text: str) -> str:
    from lapconsole.client.errors import BadInput
    from lapconsole.client.urls import base_address

    try:
        return base_address(text)
    except BadInput as error:
        raise Failure(str(error), 2) from None


# The platform alone


def _up(options: argparse.Namespace) -> int:
    from lapconsole import embedded

    data_dir = _data_dir(options)
    if not options.detach:
        arguments = embedded.command(data_dir, host=options.host, port=options.port)
        sys.stdout.flush()
        os.execv(arguments[0], arguments)
    running = embedded.find(data_dir)
    if running is not None:
        say(f"a platform already runs on {data_dir}: {running.url} (pid {running.pid})")
        return 0
    _, running = run_loop(embedded.start(data_dir, host=options.host, port=options.port))
    say(f"✓ the platform listens on {running.url} (pid {running.pid})")
    say(f"  log: {data_dir / 'platform.log'}; `lapconsole down` ends it")
    return 0


def _down(options: argparse.Namespace) -> int:
    from lapconsole import embedded

    data_dir = _data_dir(options)
    running = embedded.find(data_dir)
    if running is None:
        say(f"no platform runs on {data_dir}")
        return 0
    if not run_loop(embedded.stop(running, data_dir, STOP_SECONDS)):
        raise Failure(
            f"the platform (pid {running.pid}) still runs {STOP_SECONDS:.0f} s after it was asked to end; "
            f"its log may say why, and `kill -9 {running.pid}` ends it without harm to sessions"
        )
    say(f"✓ the platform at {running.url} has ended; its sessions keep running")
    return 0


def _status(options: argparse.Namespace) -> int:
    from lapconsole import embedded

    data_dir = _data_dir(options)
    running = embedded.find(data_dir)
    if running is None:
        if options.json:
            _print_json({"running": False, "data_dir": str(data_dir)})
        else:
            say(f"no platform runs on {data_dir}; `lapconsole up --detach` starts one")
        return NOT_RUNNING
    sessions, problem = run_loop(_sessions(running, data_dir))
    counts = None if sessions is None else _counts(sessions)
    isolation = next((dict(row.isolation) for row in sessions or () if row.active and row.isolation), None)
    uptime = running.uptime()
    if options.json:
        _print_json(
            {
                "running": True,
                "healthy": problem is None,
                "problem": problem,
                "url": running.url,
                "pid": running.pid,
                "uptime_seconds": None if uptime is None else round(uptime, 1),
                "sessions": counts,
                "isolation": isolation,
                "data_dir": str(data_dir),
            }
        )
    else:
        say(f"running    {running.url} (pid {running.pid}{f', up {duration(uptime)}' if uptime is not None else ''})")
        say(f"sessions   {_told_counts(counts) if counts is not None else f'unknown: {problem}'}")
        if isolation is not None:
            say(f"isolation  {_told_isolation(isolation)}")
        say(f"data       {data_dir}")
    return 0 if problem is None else 1


async def _sessions(running: Running, data_dir: Path) -> tuple[list[Session] | None, str | None]:
    """Return the platform's sessions, or why they cannot be had."""
    import asyncio

    from lapconsole import embedded
    from lapconsole.client.errors import ClientError
    from lapconsole.client.platform import Platform
    from lapconsole.connection import ConnectionFailed

    try:
        async with Platform(running.url, await embedded.key_of(running, data_dir)) as platform, asyncio.timeout(10):
            return list((await platform.all_sessions()).rows), None
    except (ClientError, ConnectionFailed) as error:
        return None, str(error)
    except TimeoutError:
        return None, "it does not answer within 10 s"


def _counts(sessions: list[Session]) -> dict[str, int]:
    from lapconsole.client.models import STATUSES

    return {status: sum(session.status == status for session in sessions) for status in STATUSES}


def _told_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none"


_NETWORKS = {"vault": "network through the vault", "none": "no network", "open": "the machine's network"}


def _told_isolation(isolation: dict[str, Any]) -> str:
    limits = isolation.get("limits")
    parts = ["own process namespace" if isolation.get("pid_namespace") else "no process namespace"]
    if isolation.get("filesystem"):
        parts.append("own files only")
    if network := _NETWORKS.get(str(isolation.get("network"))):
        parts.append(network)
    if isinstance(limits, dict) and limits:
        parts.append("limits: " + ", ".join(f"{name} {value}" for name, value in limits.items() if value is not None))
    if reason := isolation.get("reason"):
        parts.append(str(reason))
    return "; ".join(parts)


# Contexts


def _contexts(options: argparse.Namespace) -> int:
    from lapconsole import settings as saved
    from lapconsole.client.urls import is_loopback

    settings = saved.load()
    if options.action == "list":
        _list_contexts(settings, options.json)
        return 0
    if options.action == "add":
        url = _checked_url(options.url)
        known = settings.contexts.get(options.name)
        saved.make_context(options.name, url, "unchecked")  # before the person is asked for a key
        key = _key(options.key_file, known.key if known and known.url == url else None, url)
        settings.contexts[options.name] = saved.make_context(options.name, url, key)
        done = f"saved; `lapconsole contexts use {options.name}` makes it the current one"
        if url.startswith("http://") and not is_loopback(url):
            done += "\n! its address is not https: the key crosses the network unencrypted"
    elif options.action == "use":
        if options.name != saved.EMBEDDED:
            _context(settings, options.name)
        settings.current = options.name
        done = "current"
    else:
        _context(settings, options.name)
        del settings.contexts[options.name]
        if settings.current == options.name:
            settings.current = saved.EMBEDDED
        done = "removed"
    saved.save(settings)
    say(f"✓ {options.name}: {done}")
    return 0


def _list_contexts(settings: Settings, as_json: bool) -> None:
    from lapconsole.settings import EMBEDDED

    rows = [(EMBEDDED, "a platform on this machine", "")]
    rows += [(context.name, context.url, mask(context.key)) for context in settings.contexts.values()]
    if as_json:
        saved = [{"name": context.name, "url": context.url} for context in settings.contexts.values()]
        _print_json({"current": settings.current, "contexts": saved})
        return
    names, urls = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, url, key in rows:
        say(f"{'*' if name == settings.current else ' '} {name:<{names}}  {url:<{urls}}  {key}".rstrip())


def _context(settings: Settings, name: str) -> Any:
    context = settings.contexts.get(name)
    if context is None:
        known = ", ".join(settings.contexts) or "none saved; `lapconsole contexts add NAME URL` saves one"
        raise Failure(f"no context named '{name}' (known: {known})", 2)
    return context


def _print_json(document: dict[str, Any]) -> None:
    import json

    say(json.dumps(document, indent=2))


_COMMANDS = {"up": _up, "down": _down, "status": _status, "contexts": _contexts}

if __name__ == "__main__":
    sys.exit(main())

"""The program inside a sandbox: `python -m backend.harness --listen-fd N --root DIRECTORY`, its token on stdin.

In a container of its own it is `--listen HOST:PORT`, and LAP_TOKEN_SHA256 in the environment is the token's digest.
"""

import argparse
import asyncio
import contextlib
import fcntl
import gc
import hashlib
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from backend.harness.log import Log
from backend.harness.server import Connection, Harness, digest_of
from backend.harness.state import State

if TYPE_CHECKING:
    from backend.harness.setup import Setup

TOKEN_DIGEST = "LAP_TOKEN_SHA256"
MAX_TOKEN_LINE = 4_096
TOKEN_SECONDS = 10.0
BACKLOG = 128
"""Connections that may wait to be accepted."""
THREAD_SECONDS = 0.001
"""How long a thread that draws may keep the event loop waiting."""
COLLECT_SECONDS = 60.0
CALM_SECONDS = 1.0
CALM_SHARE = 0.02
"""Of a processor's time: with less used for a while, nobody waits for anything."""
MOST_DELAYS = 15
"""Without any calm moment garbage is collected all the same after so many rounds."""
MIN_MIDDLE_ROUNDS = 10
"""Collections of the middle generation before it is worth it to look at all objects."""


def main() -> int:
    """Runs until SIGTERM or SIGINT; 2 for bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m backend.harness", description=__doc__)
    listen = parser.add_mutually_exclusive_group(required=True)
    listen.add_argument("--listen-fd", type=int, metavar="N", help="a listening TCP socket; the token is on stdin")
    listen.add_argument("--listen", metavar="HOST:PORT", help=f"the token's SHA-256 in hex is in {TOKEN_DIGEST}")
    parser.add_argument("--root", type=Path, required=True, help="the sandbox's directory")
    arguments = parser.parse_args()
    try:
        if arguments.listen:
            digest, listener = _given_digest(), _listen(arguments.listen)
            arguments.root.mkdir(parents=True, exist_ok=True)
        else:
            digest, listener = digest_of(_read_token()), socket.socket(fileno=arguments.listen_fd)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    os.set_inheritable(listener.fileno(), False)
    with contextlib.suppress(OSError):  # So that shortening the log leaves no hole in it.
        fcntl.fcntl(2, fcntl.F_SETFL, fcntl.fcntl(2, fcntl.F_GETFL) | os.O_APPEND)
    sys.setswitchinterval(THREAD_SECONDS)
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 1 << 30)  # All objects are looked at by `collect_when_calm` only.
    asyncio.run(serve(listener, arguments.root.resolve(), digest))
    return 0


async def serve(listener: socket.socket, root: Path, digest: bytes) -> None:
    """Serves on `listener` who has the token with that digest until a signal, then ends the sandbox's processes."""
    from backend.harness.processes import Processes

    log, state = Log(root / "log"), State()
    processes = Processes()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def new_setup() -> "Setup":
        from backend.harness.setup import Setup  # Late: /healthz must not wait for it.

        return Setup(root, processes, state, log)

    harness = Harness(digest, state, log, new_setup)
    server = await loop.create_server(lambda: Connection(harness), sock=listener)
    log.write(f"harness listening (pid {os.getpid()})")
    collecting = asyncio.create_task(collect_when_calm())
    await stop.wait()
    collecting.cancel()
    log.write("harness stopping")
    server.close()
    if harness.setup is not None:
        await harness.setup.close()
    await processes.end_all()
    for connection in tuple(harness.connections):
        connection.close()
    await asyncio.sleep(0)  # The transports close in the next turn.
    state.close()
    log.write("harness stopped")


async def collect_when_calm() -> None:
    """Collects garbage between bursts of work, until cancelled: a colourful screen is ten thousands of objects."""
    delays = 0
    while True:
        await asyncio.sleep(COLLECT_SECONDS)
        used = time.process_time()
        await asyncio.sleep(CALM_SECONDS)
        calm = time.process_time() - used < CALM_SHARE * CALM_SECONDS
        if gc.get_count()[2] >= MIN_MIDDLE_ROUNDS and (calm or delays >= MOST_DELAYS):
            gc.collect()
            delays = 0
        else:
            delays += 1


def _given_digest() -> bytes:
    """The token's digest, taken out of the environment. Raises ValueError."""
    try:
        digest = bytes.fromhex(os.environ.pop(TOKEN_DIGEST, ""))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError(f"{TOKEN_DIGEST} must be the SHA-256 of the token, as 64 hexadecimal digits")
    return digest


def _listen(address: str) -> socket.socket:
    """A listener on `HOST:PORT`, with an IPv6 host in brackets. Raises ValueError, OSError."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise ValueError(f"--listen {address}: must be HOST:PORT")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)


def _read_token() -> str:
    """The token from the one JSON line on standard input. Raises ValueError."""
    readable, _, _ = select.select([0], [], [], TOKEN_SECONDS)
    line = os.read(0, MAX_TOKEN_LINE) if readable else b""
    try:
        token = json.loads(line)["token"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError('standard input must be one line {"token": "..."}') from error
    if not isinstance(token, str) or not token.strip():
        raise ValueError("the token must be a text that is not empty")
    return token


if __name__ == "__main__":
    sys.exit(main())

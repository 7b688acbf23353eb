"""`python -m backend`: runs the platform in the foreground until SIGTERM or SIGINT. Sandboxes live on after it."""

import gc

if __name__ == "__main__":
    gc.disable()  # until it serves: what importing makes is no garbage, and looking for some takes a fifth of the start

    from pydantic import BaseModel

    # Models are made ready at their first use. FastAPI has fifty, all for its document, which few ask for.
    BaseModel.model_config["defer_build"] = True

import argparse
import asyncio
import fcntl
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from backend import logs
from backend.api.sockets import TerminalSocket
from backend.app import create_app
from backend.domain import clock
from backend.services.container import check_cluster
from backend.settings import Settings, SettingsError
from backend.store.database import Location, StoreError, prepare
from backend.store.errors import StoreAway

SHUTDOWN_SECONDS = 2
"""Time for requests to finish once the platform is told to end."""

logger = logging.getLogger("backend")


class StartError(Exception):
    """The platform cannot start; the text says why and what to do."""


class PlatformServer(uvicorn.Server):
    """uvicorn that announces itself in `platform.json`, and ends the event streams before it waits for requests."""

    def __init__(self, config: uvicorn.Config, announcement: Path, url: str) -> None:
        super().__init__(config)
        self._announcement = announcement
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()
        gc.enable()
        if self.started:
            _announce(self._announcement, self._url)
            logger.info("listening on %s", self._url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logger.info("ending; sandboxes live on")
        self._announcement.unlink(missing_ok=True)
        services = self.config.app.state.services  # type: ignore[union-attr]
        services.feed.close()
        services.messages.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The original raises the signal again at the end, which would make a clean end look like a kill.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        yield

    def _end(self) -> None:
        self.force_exit = self.should_exit  # asked twice: wait for nobody
        self.should_exit = True


def main(arguments: list[str] | None = None) -> int:
    """Run the platform; the exit code is 0 after a clean end and 1 when it could not start."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.load(host=options.host, port=options.port, data_dir=options.data_dir)
        logs.to_stderr(settings.log_format)
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_platform(settings.data_dir):
            settings = settings.with_keys()
            _prepare_database(settings.database_location)
            asyncio.run(check_cluster(settings))
            return _serve(settings)
    except (SettingsError, StartError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"cannot start: {error.strerror}: {error.filename or options.data_dir}", file=sys.stderr)
    return 1


def _serve(settings: Settings) -> int:
    listener = _listen(settings.host, settings.port)
    config = uvicorn.Config(
        create_app(settings),
        loop="auto",
        http="auto",
        ws=TerminalSocket,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = PlatformServer(config, settings.data_dir / "platform.json", _url(listener))
    with listener:
        server.run(sockets=[listener])
    return 0 if server.started else 1


def _prepare_database(location: Location) -> None:
    # Before the server runs, where the reason can still be told in one line.
    try:
        prepare(location)
    except StoreAway as error:  # names the database itself
        raise StartError(
            f"cannot reach {error}. Check that PostgreSQL runs there, and host, port, database, user and password in "
            "DATABASE_URL"
        ) from None
    except StoreError as error:
        named = location if isinstance(location, Path) else "of DATABASE_URL"
        raise StartError(f"cannot use the database {named}: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend", description="Run the platform in the foreground.")
    parser.add_argument("--host", help="address to listen on (BIND_HOST, 127.0.0.1)")
    parser.add_argument("--port", help="port to listen on, 0 for any free one (PORT, 3000)")
    parser.add_argument("--data-dir", help="directory of the database, keys and sandboxes (LAP_DATA_DIR)")
    return parser


@contextmanager
def _only_platform(data_dir: Path) -> Iterator[None]:
    """Hold the data directory: two platforms on one would fight over its sessions."""
    descriptor = os.open(data_dir / "platform.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"another platform already uses {data_dir}{_address_of(data_dir)}: "
                "use that one, stop it first, or choose another --data-dir"
            ) from None
        (data_dir / "platform.json").unlink(missing_ok=True)  # left by one that was killed
        yield
    finally:
        os.close(descriptor)


def _address_of(data_dir: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads((data_dir / "platform.json").read_text())
        return f" ({told['url']}, pid {told['pid']})"
    return ""


def _announce(path: Path, url: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"pid": os.getpid(), "url": url, "started_at": clock.now()}, file)
    fresh.rename(path)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port") from None
    return listener


def _url(listener: socket.socket) -> str:
    """An address at which this machine reaches the listener."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())

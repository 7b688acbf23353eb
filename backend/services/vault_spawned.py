"""The vault process of this platform on its own machine: started, watched, and replaced when it runs other code."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import backend
from backend.domain import trust
from backend.services.errors import VaultError
from backend.services.vault_grants import bundle
from backend.services.vault_links import Introduce, Line, Link, Noted, Status, Way
from backend.vault import control, version
from backend.vault.control import Channel, ControlError, Frames

logger = logging.getLogger(__name__)

START_SECONDS: Final = 10.0
END_SECONDS: Final = 5.0
CERTIFICATE: Final = "ca.crt"
BUNDLE: Final = "ca-bundle.pem"


class SpawnedVault:
    """The one of a data directory. It lives on for its sandboxes when the platform ends."""

    near = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._listeners: dict[str, dict[str, socket.socket]] = {}
        self._port = 0
        self._up = asyncio.Event()
        self._line = Line(self._connected, self._changed)
        self._met = False
        """Whether the process is one that this platform has started, or taken as it was."""

    @property
    def public(self) -> Path:
        """The folder that sandboxes may read: certificates only."""
        return self._directory / "public"

    @property
    def status(self) -> Status:
        return Status("on") if self._line.ready else Status("down", self._line.why)

    @property
    def links(self) -> Sequence[Link]:
        return [self._line.link] if self._line.link else []

    async def run(self, introduce: Introduce, noted: Noted) -> None:
        async def introduced(link: Link, told: Mapping[str, Any]) -> None:
            await self._replace_other_code(link, told)
            self._port = int(told["port"])
            await asyncio.to_thread(_remember_port, self._directory, self._port)
            await asyncio.to_thread(_publish, self._directory, self.public)
            await introduce(link, told)
            logger.info("vault: process %s, proxy on 127.0.0.1:%s", told["pid"], self._port)

        await self._line.run(introduced, noted)

    async def until_ready(self) -> None:
        await self._up.wait()

    def _changed(self) -> None:
        (self._up.set if self._line.ready else self._up.clear)()

    async def way(self) -> Way:
        paths = trust.environment(str(self.public / CERTIFICATE), str(self.public / BUNDLE))
        return Way(f"127.0.0.1:{self._port}", paths, {})

    # Its process.

    async def _connected(self) -> tuple[Frames, dict[str, Any]]:
        secret = await asyncio.to_thread(_secret, self._directory)
        try:
            sock = await asyncio.to_thread(control.connected, self._directory)
        except OSError:
            await self._start()
            sock = await asyncio.to_thread(control.connected, self._directory)
        return Channel(sock), {"secret": secret}

    async def _start(self) -> None:
        """Start the process, which then is nobody's child."""
        port = await asyncio.to_thread(_last_port, self._directory)
        if self._process is not None:
            self._process.poll()
        self._process = await asyncio.to_thread(_spawn, self._directory, port)
        self._met = True

    async def _replace_other_code(self, link: Link, told: Mapping[str, Any]) -> None:
        """End a vault that an earlier platform has left and that is not of our code; what it held is kept for the next.

        Raises ControlError when it has ended. Asked once: the code may change below a platform that runs.
        """
        met, self._met = self._met, True
        if met or told.get("version") == version.code():
            return
        for sandbox in told["sessions"]:
            if sandbox not in self._listeners and (lent := await link.borrow(sandbox)):
                self._listeners[sandbox] = lent
        await asyncio.to_thread(_end, int(told["pid"]))
        raise ControlError("the process that ran is of another version: another takes its place")

    # Listeners.

    async def listen(self, sandbox: str, listeners: Mapping[str, socket.socket]) -> None:
        kept = {kind: sock.dup() for kind, sock in listeners.items()}
        self.forget(sandbox)
        self._listeners[sandbox] = kept
        await self.until_ready()
        assert self._line.link is not None
        try:
            await self._pass_on(self._line.link, sandbox)
        except ControlError as error:
            raise VaultError(f"the vault does not take the sandbox's network ({error})") from error

    async def told(self, link: Link, sandbox: str, *, known: bool) -> None:
        if not known and sandbox in self._listeners:
            await self._pass_on(link, sandbox)
        elif known and sandbox not in self._listeners and (lent := await link.borrow(sandbox)):
            self._listeners[sandbox] = lent  # of a new platform process, should the vault ever lose them

    async def _pass_on(self, link: Link, sandbox: str) -> None:
        listeners = self._listeners[sandbox]
        descriptors = [sock.fileno() for sock in listeners.values()]
        await link.ask("listen", descriptors, name=sandbox, kinds=list(listeners))

    def forget(self, sandbox: str) -> None:
        for sock in self._listeners.pop(sandbox, {}).values():
            sock.close()

    def close(self) -> None:
        for sandbox in tuple(self._listeners):
            self.forget(sandbox)


def _spawn(directory: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start a vault process that lives on without us; returns once it listens. Runs in a thread. Raises VaultError."""
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-S", "-P", "-m", "backend.vault", "--directory", str(directory), "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(),
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout:
        readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline() if readable else b""
    try:
        told = json.loads(line or b"{}")
    except ValueError:
        told = {}
    if "port" not in told:
        process.kill()
        process.wait()
        why = told.get("error") or f"see {directory / 'log'}"
        raise VaultError(f"its process did not start: {why}")
    return process


def _end(pid: int) -> None:
    """End a process that is not ours to wait for; returns once it is gone. Runs in a thread."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], END_SECONDS)[0]:
                return
    finally:
        os.close(descriptor)


def _environment() -> dict[str, str]:
    """Of the vault process: what it imports from, and which certificates it trusts."""
    source = str(Path(backend.__file__).resolve().parents[1])
    imports = dict.fromkeys([source, *(path for path in sys.path if Path(path).is_absolute())])
    kept = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(imports),
    }


def _secret(directory: Path) -> str:
    """The secret that proves the platform to the vault and the other way round, made once."""
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)
    path = directory / control.SECRET
    if not path.exists():
        _write(path, secrets.token_hex(32), 0o600)
    return path.read_text().strip()


def _last_port(directory: Path) -> int:
    try:
        return int((directory / "port").read_text())
    except (OSError, ValueError):
        return 0


def _remember_port(directory: Path, port: int) -> None:
    if _last_port(directory) != port:
        _write(directory / "port", str(port), 0o600)


def _publish(directory: Path, public: Path) -> None:
    """Put the certificates where sandboxes read them: ours alone, and with those of the system."""
    public.mkdir(mode=0o755, exist_ok=True)
    ours = (directory / CERTIFICATE).read_text()
    for name, text in ((CERTIFICATE, ours), (BUNDLE, bundle(ours))):
        path = public / name
        if not path.exists() or path.read_text() != text:
            _write(path, text, 0o644)


def _write(path: Path, text: str, mode: int) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    fresh.rename(path)

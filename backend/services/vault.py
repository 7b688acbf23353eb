"""The vault from the platform's side: starts its process and watches it, tells it what each sandbox may, notes what
it has seen.

A sandbox gets stubs for its agent's credentials before it is made, and keeps them for as long as it lives. They are
stored, encrypted, so that the next platform process knows them; real values are read from the agent each time.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import backend
from backend.domain import clock, stubs
from backend.domain.egress import BadHost, address, normal, special
from backend.services.errors import VaultError
from backend.settings import Settings
from backend.store import agents as agent_store
from backend.store import egress
from backend.store.database import Database, Row
from backend.store.events import Event
from backend.store.secrets import Cipher, DecryptError
from backend.vault import control
from backend.vault.control import Channel, ControlError

logger = logging.getLogger(__name__)

GATEWAY_KEY: Final = "LITELLM_API_KEY"
CLONE_TOKEN: Final = "GIT_TOKEN"
NO_PROXY: Final = "localhost,127.0.0.1,::1"
BUNDLE: Final = "ca-bundle.pem"
CERTIFICATE: Final = "ca.crt"

START_SECONDS: Final = 10.0
READY_SECONDS: Final = 20.0
"""How long a sandbox waits for a vault that is being started."""
ANSWER_SECONDS: Final = 10.0
FIRST_RETRY: Final = 0.2
LAST_RETRY: Final = 10.0
NOTES: Final = 1_000
"""Batches of notes that may wait for the database."""

_KINDS: Final = frozenset({"swapped", "blocked", "missed"})
_BUNDLE_VARIABLES: Final = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE"),
    *("CARGO_HTTP_CAINFO", "CODEX_CA_CERTIFICATE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "HTTPLIB2_CA_CERTS"),
    *("NIX_SSL_CERT_FILE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "DENO_CERT"),
)
_PROXY_VARIABLES: Final = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")


@dataclass(frozen=True, slots=True)
class Status:
    """`state` is on, off, or down; `reason` says why it is not on."""

    state: str
    reason: str | None = None


@dataclass(slots=True)
class Grant:
    """What one sandbox was given: who proves with `token` to be it, and its stubs by name."""

    token: str = field(repr=False)
    stubs: dict[str, str] = field(repr=False)
    plain_env: dict[str, str] = field(repr=False)
    """Values of the operator's own variables among them, which no agent stores."""


class VaultService:
    """The vault of this platform's data directory."""

    def __init__(self, database: Database, cipher: Cipher, settings: Settings) -> None:
        self._database = database
        self._cipher = cipher
        self._settings = settings
        self._directory = settings.data_dir / "vault"
        self._task: asyncio.Task[None] | None = None
        self._notes: asyncio.Queue[list[dict[str, Any]]] = asyncio.Queue(NOTES)
        self._link: _Link | None = None
        self._ready = asyncio.Event()
        self._why = "it is being started"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._listeners: dict[str, dict[str, socket.socket]] = {}
        self._one_at_a_time = asyncio.Lock()
        """Held while a grant is changed and the vault is told: both must come out the same."""
        self._stale: set[str] = set()
        self._changed = asyncio.Event()
        database.on_commit(self._committed)

    @property
    def status(self) -> Status:
        return Status("on") if self._ready.is_set() else Status("down", self._why)

    @property
    def public(self) -> Path:
        """The folder that sandboxes may read: certificates only."""
        return self._directory / "public"

    def start(self) -> None:
        """Begin: connect to the vault that runs, or start one."""
        self._task = asyncio.create_task(self._run(), name="vault")

    async def aclose(self) -> None:
        """Let go of the vault, which lives on for the sandboxes it has."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for sockets in self._listeners.values():
            for sock in sockets.values():
                sock.close()

    # What bring-up uses.

    async def seal(
        self, sandbox: str, agent_id: str, body: Mapping[str, Any], *, proxy: str | None = None
    ) -> Mapping[str, Any]:
        """The body of a hand-over as the sandbox may see it, its rules told to the vault. Raises VaultError.

        `proxy` is the address of the explicit proxy as the sandbox sees it, None for the one on the machine's loopback.
        The same sandbox gets the same stubs again.
        """
        await self._until_ready()
        try:
            async with self._one_at_a_time:
                async with self._database.begin() as tx:
                    agent = await agent_store.get(tx, agent_id)
                    if agent is None:
                        raise VaultError(f"agent {agent_id} is gone")
                    row = await egress.grant(tx, sandbox)
                    grant = self._opened(row) if row else self._granted(agent, body)
                    if row is None:
                        await egress.add_grant(
                            tx,
                            {
                                "sandbox": sandbox,
                                "agent_id": agent_id,
                                "sealed": self._sealed(grant),
                                "created_at": clock.now(),
                            },
                        )
                await self._tell(sandbox, agent, grant)
        except DecryptError as error:
            raise VaultError(str(error)) from error
        except ControlError as error:
            raise VaultError(f"the vault does not answer ({error}); start the session again") from error
        return self._body(sandbox, body, grant, proxy)

    async def listen(self, sandbox: str, listeners: Mapping[str, socket.socket]) -> None:
        """Give the vault a sandbox's own listeners, by kind (see vault.control). Raises VaultError.

        The sockets are duplicated; the caller closes its own.
        """
        kept = {kind: sock.dup() for kind, sock in listeners.items()}
        for sock in self._listeners.pop(sandbox, {}).values():
            sock.close()
        self._listeners[sandbox] = kept
        await self._until_ready()
        assert self._link is not None
        try:
            await self._pass_on(self._link, sandbox)
        except ControlError as error:
            raise VaultError(f"the vault does not take the sandbox's network ({error})") from error

    async def release(self, sandbox: str) -> None:
        """Forget a sandbox that is gone: its stubs are dead."""
        for sock in self._listeners.pop(sandbox, {}).values():
            sock.close()
        async with self._one_at_a_time:
            async with self._database.read() as tx:
                known = await egress.grant(tx, sandbox) is not None
            if known:  # else it went with its agent
                async with self._database.begin() as tx:
                    await egress.remove_grants(tx, [sandbox])
            if self._link is not None:
                # What a vault that is down does not hear, it learns when it is told which sandboxes there are.
                with contextlib.suppress(ControlError):
                    await self._link.ask("close", name=sandbox)

    async def keys(self, sandbox: str) -> list[str]:
        """The names of the credentials that a sandbox has stubs of."""
        async with self._database.read() as tx:
            row = await egress.grant(tx, sandbox)
        return sorted(self._opened(row).stubs) if row else []

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            raise VaultError(
                f"the vault does not run: {self._why}. No session starts without it; see the platform's log, or set "
                "LAP_VAULT=off to give sandboxes real credentials"
            ) from None

    # Grants.

    def _granted(self, agent: Row, body: Mapping[str, Any]) -> Grant:
        """New stubs for what in `body` is a credential of the agent's or the operator's."""
        env = body["env"]
        held = {name: "" for name, value in self._stored(agent).items() if env.get(name) == value}
        plain = {name for name in held if stubs.is_plain(name, env[name], agent["env_var_plain"])}
        own = {
            name: value
            for name, value in self._settings.container_env.items()
            if name not in held and env.get(name) == value and stubs.sounds_secret(name)
        }
        names = [*(name for name in held if name not in plain), *own]
        if body.get("git_token") and _clone_target(body):
            names.append(CLONE_TOKEN)
        if (body.get("llm") or {}).get("key") and self._gateway():
            names.append(GATEWAY_KEY)
        return Grant(secrets.token_hex(16), {name: stubs.make(name) for name in names}, own)

    def _stored(self, agent: Row) -> dict[str, str]:
        return {name: self._cipher.decrypt(value) for name, value in agent["env_vars"].items()}

    def _sealed(self, grant: Grant) -> str:
        return self._cipher.encrypt(json.dumps({"token": grant.token, "stubs": grant.stubs, "own": [*grant.plain_env]}))

    def _opened(self, row: Row) -> Grant:
        data = json.loads(self._cipher.decrypt(row["sealed"]))
        own = {name: value for name, value in self._settings.container_env.items() if name in data["own"]}
        return Grant(data["token"], data["stubs"], own)

    def _gateway(self) -> "_Gateway | None":
        base = self._settings.litellm_api_base
        return _Gateway.of(base) if base else None

    def _session(self, agent: Row, grant: Grant) -> dict[str, Any]:
        """What the vault is told of a sandbox."""
        stored = self._stored(agent)
        gateway = self._gateway()
        clone = _clone_target({"repo_url": agent["repo_url"] or self._settings.preinstalled_github_repo})
        credentials = []
        for name, stub in grant.stubs.items():
            hosts: list[str] | None = agent["env_var_hosts"].get(name)
            if name == GATEWAY_KEY:
                value, hosts = self._settings.litellm_api_key_value, [gateway.entry] if gateway else []
            elif name == CLONE_TOKEN:
                value, hosts = self._settings.git_token_value, [clone[2]] if clone else []
            else:
                value = grant.plain_env.get(name) or stored.get(name)
            if value is not None:  # a variable that the agent has lost since
                credentials.append({"name": name, "stub": stub, "value": value, "hosts": hosts})
        reachable = [[host, port] for host, port in self._settings.vault_reachable_targets]
        gateways = [[gateway.host, gateway.port]] if gateway else []
        return {
            "token": grant.token,
            "policy": {
                "allow": agent["allow_out"],
                "deny": agent["deny_out"],
                "granted": [[clone[0], clone[1], "repo_url"]] if clone else [],
                "reachable": reachable,
                "gateways": gateways,
            },
            "credentials": credentials,
            "gateway": {"secure": gateway.secure, "host": gateway.host, "port": gateway.port} if gateway else None,
        }

    def _body(self, sandbox: str, body: Mapping[str, Any], grant: Grant, proxy: str | None) -> dict[str, Any]:
        place = proxy or f"127.0.0.1:{self._port}"
        env = {**body["env"], **{name: stub for name, stub in grant.stubs.items() if name in body["env"]}}
        env |= dict.fromkeys(_PROXY_VARIABLES, f"http://{sandbox}:{grant.token}@{place}")
        env |= dict.fromkeys(_BUNDLE_VARIABLES, str(self.public / BUNDLE))
        env |= {"NO_PROXY": NO_PROXY, "no_proxy": NO_PROXY, "NODE_EXTRA_CA_CERTS": str(self.public / CERTIFICATE)}
        env["NODE_USE_ENV_PROXY"] = "1"
        sealed = {**body, "env": env}
        if CLONE_TOKEN in grant.stubs and sealed.get("git_token"):
            sealed["git_token"] = grant.stubs[CLONE_TOKEN]
        gateway = self._gateway()
        if gateway is not None:
            llm = dict(sealed.get("llm") or {})
            if gateway.hidden:
                # No program looks for a proxy on the way to loopback: the vault itself is what the sandbox is told.
                llm["base"] = env["LITELLM_API_BASE"] = f"http://{place}{gateway.path}"
            if llm.get("key") and GATEWAY_KEY in grant.stubs:
                llm["key"] = grant.stubs[GATEWAY_KEY]
            sealed["llm"] = llm
        return sealed

    async def _tell(self, sandbox: str, agent: Row, grant: Grant) -> None:
        if self._link is None:
            raise ControlError("it is being started again")
        await self._link.ask("open", name=sandbox, session=self._session(agent, grant))

    # The process.

    async def _run(self) -> None:
        writing = asyncio.create_task(self._write_notes())
        wait = FIRST_RETRY
        try:
            while True:
                started = time.monotonic()
                try:
                    await self._serve()
                except (ControlError, VaultError, OSError, ValueError) as error:
                    self._why = str(error) or type(error).__name__
                    logger.warning("vault: %s", self._why)
                except Exception:
                    self._why = "the platform's part of it broke; its log says why"
                    logger.exception("vault")
                finally:
                    self._ready.clear()
                    if self._link is not None:
                        self._link.close()
                        self._link = None
                wait = FIRST_RETRY if time.monotonic() - started > LAST_RETRY else min(wait * 2, LAST_RETRY)
                await asyncio.sleep(wait)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _serve(self) -> None:
        """Connect, tell all, then stay until the connection breaks."""
        sock, secret = await self._connected()
        link = self._link = _Link(Channel(sock), self._took_notes)
        told = await link.ask("hello", secret=secret)
        self._port = int(told["port"])
        await asyncio.to_thread(_remember_port, self._directory, self._port)
        await asyncio.to_thread(_publish, self._directory, self.public)
        await self._tell_all(link, set(told["sessions"]))
        self._ready.set()
        logger.info("vault: process %s, proxy on 127.0.0.1:%s", told["pid"], self._port)
        refreshing = asyncio.create_task(self._refresh(link))
        try:
            await link.broken
        finally:
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)

    async def _connected(self) -> tuple[socket.socket, str]:
        secret = await asyncio.to_thread(_secret, self._directory)
        try:
            return await asyncio.to_thread(control.connected, self._directory), secret
        except OSError:
            await self._start()
            return await asyncio.to_thread(control.connected, self._directory), secret

    async def _start(self) -> None:
        """Start the process, which then is nobody's child."""
        port = await asyncio.to_thread(_last_port, self._directory)
        if self._process is not None:
            self._process.poll()
        self._process = await asyncio.to_thread(_spawn, self._directory, port)

    async def _tell_all(self, link: "_Link", known: set[str]) -> None:
        async with self._database.begin() as tx:
            await egress.remove_grants(tx, await egress.unneeded(tx))
            rows = await egress.grants(tx)
        await link.ask("keep", names=[row["sandbox"] for row in rows])
        for row in rows:
            sandbox = row["sandbox"]
            await self._tell_one(link, sandbox)
            if sandbox not in known and sandbox in self._listeners:
                await self._pass_on(link, sandbox)
            elif sandbox in known and sandbox not in self._listeners and (lent := await link.borrow(sandbox)):
                self._listeners[sandbox] = lent  # of a new platform process, should the vault ever lose them

    async def _tell_one(self, link: "_Link", sandbox: str) -> None:
        """Tell the present rules of a sandbox, if it is still there."""
        async with self._one_at_a_time:
            async with self._database.read() as tx:
                row = await egress.grant(tx, sandbox)
                agent = await agent_store.get(tx, row["agent_id"]) if row else None
            if row is None or agent is None:
                return
            try:
                session = self._session(agent, self._opened(row))
            except (DecryptError, ValueError, KeyError) as error:
                logger.error("vault: sandbox %s stays closed: %s", sandbox, error)
                return
            await link.ask("open", name=sandbox, session=session)

    async def _pass_on(self, link: "_Link", sandbox: str) -> None:
        listeners = self._listeners[sandbox]
        descriptors = [sock.fileno() for sock in listeners.values()]
        await link.ask("listen", descriptors, name=sandbox, kinds=list(listeners))

    # Agents that change.

    def _committed(self, events: Sequence[Event]) -> None:
        changed = {event.agent_id for event in events if event.type == "agent.updated" and event.agent_id}
        if changed:
            self._stale |= changed
            self._changed.set()

    async def _refresh(self, link: "_Link") -> None:
        """Tell the vault of changed agents: what is allowed now is allowed to their running sandboxes too."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            stale, self._stale = self._stale, set()
            for agent_id in stale:
                try:
                    async with self._database.read() as tx:
                        rows = await egress.grants(tx, agent_id)
                    for row in rows:
                        await self._tell_one(link, row["sandbox"])
                except ControlError as error:
                    logger.error("vault: the change of agent %s does not hold yet: %s", agent_id, error)
                except Exception:
                    logger.exception("vault: the change of agent %s could not be told", agent_id)

    # What was seen.

    def _took_notes(self, notes: list[dict[str, Any]]) -> None:
        try:
            self._notes.put_nowait(notes)
        except asyncio.QueueFull:
            logger.warning("vault: %d notes lost, the database is too slow", len(notes))

    async def _write_notes(self) -> None:
        while True:
            notes = await self._notes.get()
            try:
                await self._store(notes)
            except Exception:
                logger.exception("vault: what it has seen could not be stored")

    async def _store(self, notes: Sequence[Mapping[str, Any]]) -> None:
        for note in notes:
            if note.get("dropped"):
                logger.warning("vault: sandbox %s: %s more notes than are kept", note["name"], note["dropped"])
        told = [note for note in notes if note.get("kind") in _KINDS]
        names = {str(note["name"]) for note in told}
        if not names:
            return
        async with self._database.begin() as tx:
            owners = await egress.owners(tx, names)
            for note in told:
                if note["name"] in owners:
                    agent_id, session_id = owners[note["name"]]
                    await egress.add(
                        tx,
                        {
                            "sandbox": note["name"],
                            "agent_id": agent_id,
                            "session_id": session_id,
                            "at": clock.text(datetime.fromtimestamp(note["at"], UTC)),
                            **{name: note[name] for name in ("kind", "method", "host", "port", "path", "rule")},
                            "stubs": note["stubs"],
                            "count": note["count"],
                        },
                    )
            await egress.trim(tx, names)


class _Link:
    """Requests to the vault process and their answers, one connection."""

    def __init__(self, channel: Channel, noted: Callable[[list[dict[str, Any]]], None]) -> None:
        self._channel = channel
        self._noted = noted
        self._number = 0
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self.broken: asyncio.Task[None] = asyncio.create_task(self._read())
        """Ends, with ControlError, when the connection does."""

    async def ask(self, do: str, descriptors: Sequence[int] = (), **what: Any) -> dict[str, Any]:
        """The answer to a request. Raises ControlError."""
        answer, came = await self._answer(do, descriptors, what)
        for descriptor in came:
            os.close(descriptor)
        return answer

    async def borrow(self, sandbox: str) -> dict[str, socket.socket]:
        """Duplicates of the listeners that the vault has of a sandbox, by kind. Raises ControlError."""
        answer, came = await self._answer("lend", (), {"name": sandbox})
        sockets = [socket.socket(fileno=descriptor) for descriptor in came]
        return dict(zip(answer["kinds"], sockets, strict=True))

    async def _answer(
        self, do: str, descriptors: Sequence[int], what: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[int]]:
        self._number += 1
        number = self._number
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._channel.send({"id": number, "do": do, **what}, descriptors)
            async with asyncio.timeout(ANSWER_SECONDS):
                message, came = await answer
        except TimeoutError as error:
            raise ControlError(f"no answer to {do!r} within {ANSWER_SECONDS:.0f} s") from error
        finally:
            self._waiting.pop(number, None)
        if "error" in message:
            raise ControlError(f"{do}: {message['error']}")
        return dict(message["ok"]), came

    async def _read(self) -> None:
        try:
            while True:
                message, descriptors = await self._channel.receive()
                if (waiting := self._waiting.get(message.get("id", 0))) and not waiting.done():
                    waiting.set_result((message, descriptors))
                    continue
                for descriptor in descriptors:
                    os.close(descriptor)
                if "notes" in message:
                    self._noted(message["notes"])
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ControlError("the control connection is broken"))

    def close(self) -> None:
        self.broken.cancel()
        self._channel.close()


@dataclass(frozen=True, slots=True)
class _Gateway:
    """The LLM gateway as the settings name it."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, base: str) -> "_Gateway | None":
        parts = urlsplit(base)
        secure = parts.scheme == "https"
        try:
            port = parts.port or (443 if secure else 80)
            return cls(secure, normal(parts.hostname or ""), port, parts.path.rstrip("/"))
        except (BadHost, ValueError):
            return None

    @property
    def entry(self) -> str:
        """As it stands in a list of hosts."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def hidden(self) -> bool:
        """Whether it is on the machine's loopback, which in a sandbox is another."""
        ip = address(self.host)
        return self.host == "localhost" or (ip is not None and ip.is_loopback)


def _clone_target(body: Mapping[str, Any]) -> tuple[str, int, str] | None:
    """Host, port and list entry of the repository's host; None when no token is sent there through the vault."""
    parts = urlsplit(body.get("repo_url") or "")
    if parts.scheme not in ("https", "http"):
        return None
    try:
        host, port = normal(parts.hostname or ""), parts.port or (443 if parts.scheme == "https" else 80)
    except (BadHost, ValueError):
        return None
    ip = address(host)
    if host == "localhost" or (ip is not None and special(ip)):
        return None
    return host, port, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
    paths = ssl.get_default_verify_paths()
    system = paths.cafile or paths.openssl_cafile
    theirs = ""
    with contextlib.suppress(OSError):
        theirs = Path(system).read_text()
    if not theirs:
        with contextlib.suppress(ImportError, OSError):
            import certifi

            theirs = Path(certifi.where()).read_text()
    for name, text in ((CERTIFICATE, ours), (BUNDLE, f"{theirs.rstrip()}\n{ours}")):
        path = public / name
        if not path.exists() or path.read_text() != text:
            _write(path, text, 0o644)


def _write(path: Path, text: str, mode: int) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    fresh.rename(path)

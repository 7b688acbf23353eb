"""The vaults from the platform's side: tells them what each sandbox may, and notes what they have seen.

A sandbox gets stubs for its agent's credentials before it is made, and keeps them for as long as it lives. They are
stored, encrypted, so that the next platform process knows them; real values are read from the agent each time. Which
vaults there are, and how they are reached, is for `vault_spawned` or `vault_remote`.
"""

import asyncio
import json
import logging
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from backend.domain import clock, stubs
from backend.services.errors import VaultError
from backend.services.vault_grants import Gateway, Grant, clone_target
from backend.services.vault_links import Declined, Link, Notes, Status, Vaults, Way
from backend.settings import Settings
from backend.store import agents as agent_store
from backend.store import egress
from backend.store.database import Database, Row
from backend.store.events import Event
from backend.store.secrets import Cipher, DecryptError
from backend.vault.control import ControlError

logger = logging.getLogger(__name__)

GATEWAY_KEY: Final = "LITELLM_API_KEY"
CLONE_TOKEN: Final = "GIT_TOKEN"
NO_PROXY: Final = "localhost,127.0.0.1,::1"

READY_SECONDS: Final = 20.0
"""How long a sandbox waits for a vault that is being started."""
NOTES: Final = 1_000
"""Batches of notes that may wait for the database."""

_KINDS: Final = frozenset({"swapped", "blocked", "missed"})
_RULES: Final = ("allow_out", "deny_out", "env_vars", "env_var_hosts", "repo_url")
"""What of an agent the vaults are told."""
_PROXY_VARIABLES: Final = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")


class VaultService:
    """What all vaults of this platform are told, and what becomes of what they tell."""

    def __init__(self, database: Database, cipher: Cipher, settings: Settings, vaults: Vaults) -> None:
        self._database = database
        self._cipher = cipher
        self._settings = settings
        self._vaults = vaults
        self._tasks: list[asyncio.Task[None]] = []
        self._notes: asyncio.Queue[tuple[Notes, Callable[[], None]]] = asyncio.Queue(NOTES)
        self._one_at_a_time = asyncio.Lock()
        """Held while a grant is changed and the vaults are told: both must come out the same."""
        self._stale: set[str] = set()
        self._changed = asyncio.Event()
        database.on_commit(self._committed)

    @property
    def status(self) -> Status:
        return self._vaults.status

    def start(self) -> None:
        """Begin: connect to the vaults, start the one that is ours to start."""
        works = (self._vaults.run(self._introduce, self._took_notes), self._refresh(), self._write_notes())
        self._tasks = [asyncio.create_task(work, name="vault") for work in works]

    async def aclose(self) -> None:
        """Let go of the vaults, which live on for the sandboxes they have."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._vaults.close()

    # What bring-up uses.

    async def seal(
        self, sandbox: str, agent_id: str, body: Mapping[str, Any], *, proxy: str | None = None
    ) -> Mapping[str, Any]:
        """The body of a hand-over as the sandbox may see it, its rules told to the vaults. Raises VaultError.

        `proxy` is the address of the explicit proxy as the sandbox sees it, where it is not what all sandboxes see.
        The same sandbox gets the same stubs again.
        """
        await self._until_ready()
        way = await self._vaults.way()
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
                await self._open(self._vaults.links, sandbox, agent, grant)
        except DecryptError as error:
            raise VaultError(str(error)) from error
        except ControlError as error:
            raise VaultError(f"the vault does not answer ({error}); start the session again") from error
        return self._body(sandbox, body, grant, way, proxy or way.place)

    async def listen(self, sandbox: str, listeners: Mapping[str, socket.socket]) -> None:
        """Give the vault a sandbox's own listeners, by kind (see vault.control). Raises VaultError.

        The sockets are duplicated; the caller closes its own.
        """
        await self._until_ready()
        await self._vaults.listen(sandbox, listeners)

    async def release(self, sandbox: str) -> None:
        """Forget a sandbox that is gone: its stubs are dead."""
        self._vaults.forget(sandbox)
        async with self._one_at_a_time:
            async with self._database.read() as tx:
                known = await egress.grant(tx, sandbox) is not None
            if known:  # else it went with its agent
                async with self._database.begin() as tx:
                    await egress.remove_grants(tx, [sandbox])
            # What a vault that is away does not hear, it learns when it is told which sandboxes there are.
            links = self._vaults.links
            answers = await asyncio.gather(*(link.ask("close", name=sandbox) for link in links), return_exceptions=True)
            for link, answer in zip(links, answers, strict=True):
                if isinstance(answer, ControlError) and not isinstance(answer, Declined):
                    link.drop()

    async def keys(self, sandbox: str) -> list[str]:
        """The names of the credentials that a sandbox has stubs of."""
        async with self._database.read() as tx:
            row = await egress.grant(tx, sandbox)
        return sorted(self._opened(row).stubs) if row else []

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._vaults.until_ready()
        except TimeoutError:
            raise VaultError(
                f"the vault does not run: {self.status.reason}. No session starts without it; see the platform's log, "
                "or set LAP_VAULT=off to give sandboxes real credentials"
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
        if body.get("git_token") and clone_target(body):
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

    def _gateway(self) -> Gateway | None:
        base = self._settings.litellm_api_base
        return Gateway.of(base) if base else None

    def _session(self, agent: Row, grant: Grant) -> dict[str, Any]:
        """What the vault is told of a sandbox."""
        stored = self._stored(agent)
        gateway = self._gateway()
        clone = clone_target({"repo_url": agent["repo_url"] or self._settings.preinstalled_github_repo})
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
        served = gateway if self._vaults.near else None
        return {
            "token": grant.token,
            "policy": {
                "allow": agent["allow_out"],
                "deny": agent["deny_out"],
                "granted": [[clone[0], clone[1], "repo_url"]] if clone else [],
                "reachable": reachable,
                "gateways": gateways,
                "public": not self._vaults.near,
            },
            "credentials": credentials,
            "gateway": {"secure": served.secure, "host": served.host, "port": served.port} if served else None,
        }

    def _body(self, sandbox: str, body: Mapping[str, Any], grant: Grant, way: Way, place: str) -> dict[str, Any]:
        env = {**body["env"], **{name: stub for name, stub in grant.stubs.items() if name in body["env"]}}
        env |= dict.fromkeys(_PROXY_VARIABLES, f"http://{sandbox}:{grant.token}@{place}")
        env |= {**way.env, "NO_PROXY": NO_PROXY, "no_proxy": NO_PROXY, "NODE_USE_ENV_PROXY": "1"}
        sealed = {**body, **way.hand_over, "env": env}
        if CLONE_TOKEN in grant.stubs and sealed.get("git_token"):
            sealed["git_token"] = grant.stubs[CLONE_TOKEN]
        gateway = self._gateway()
        if gateway is not None:
            llm = dict(sealed.get("llm") or {})
            if gateway.hidden and self._vaults.near:
                # No program looks for a proxy on the way to loopback: the vault itself is what the sandbox is told.
                llm["base"] = env["LITELLM_API_BASE"] = f"http://{place}{gateway.path}"
            if llm.get("key") and GATEWAY_KEY in grant.stubs:
                llm["key"] = grant.stubs[GATEWAY_KEY]
            sealed["llm"] = llm
        return sealed

    # What the vaults are told.

    async def _introduce(self, link: Link, told: Mapping[str, Any]) -> None:
        """Tell a vault of all sandboxes, given its answer to `hello`. Raises ControlError."""
        async with self._database.begin() as tx:
            await egress.remove_grants(tx, await egress.unneeded(tx))
            names = [row["sandbox"] for row in await egress.grants(tx)]
        known = set(told["sessions"])
        # What it knew before we have looked, and is granted no more. Others may tell it of new ones at any time.
        for sandbox in known.difference(names):
            await link.ask("close", name=sandbox)
        for sandbox in names:
            if await self._tell([link], sandbox):
                await self._vaults.told(link, sandbox, known=sandbox in known)
        await link.ask("told")

    async def _tell(self, links: Sequence[Link], sandbox: str) -> bool:
        """Tell the present rules of a sandbox; False when it is gone, or stays closed. Raises ControlError."""
        async with self._one_at_a_time:
            async with self._database.read() as tx:
                row = await egress.grant(tx, sandbox)
                agent = await agent_store.get(tx, row["agent_id"]) if row else None
            if row is None or agent is None:
                return False
            try:
                await self._open(links, sandbox, agent, self._opened(row))
            except (DecryptError, Declined, ValueError, KeyError) as error:
                logger.error("vault: sandbox %s stays closed: %s", sandbox, error)
                return False
            return True

    async def _open(self, links: Sequence[Link], sandbox: str, agent: Row, grant: Grant) -> None:
        """Tell vaults what a sandbox may. Those that do not answer are told all anew, later. Raises ControlError when
        none does, DecryptError.
        """
        while True:
            session = self._session(agent, grant)
            asked = (link.ask("open", name=sandbox, session=session) for link in links)
            answers = await asyncio.gather(*asked, return_exceptions=True)
            failed = [answer for answer in answers if isinstance(answer, BaseException)]
            if len(failed) == len(links):
                raise failed[0] if failed else ControlError("it is being connected to again")
            for link, answer in zip(links, answers, strict=True):
                if isinstance(answer, BaseException):
                    link.drop()
            # Another replica may have changed the agent, or removed the sandbox, and its word have come before ours.
            async with self._database.read() as tx:
                there = await egress.grant(tx, sandbox) is not None
                fresh = await agent_store.get(tx, agent["id"])
            if not there:
                await asyncio.gather(*(link.ask("close", name=sandbox) for link in links), return_exceptions=True)
                return
            if fresh is None or all(fresh[name] == agent[name] for name in _RULES):
                return
            agent = fresh

    # Agents that change.

    def _committed(self, events: Sequence[Event]) -> None:
        changed = {event.agent_id for event in events if event.type == "agent.updated" and event.agent_id}
        if changed:
            self._stale |= changed
            self._changed.set()

    async def _refresh(self) -> None:
        """Tell the vaults of changed agents: what is allowed now is allowed to their running sandboxes too."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            stale, self._stale = self._stale, set()
            for agent_id in stale:
                links = self._vaults.links  # who connects later is told all
                try:
                    async with self._database.read() as tx:
                        rows = await egress.grants(tx, agent_id)
                    for row in rows if links else ():
                        await self._tell(links, row["sandbox"])
                except ControlError as error:
                    logger.error("vault: the change of agent %s does not hold yet: %s", agent_id, error)
                    for link in links:
                        link.drop()
                except Exception:
                    logger.exception("vault: the change of agent %s could not be told", agent_id)

    # What was seen.

    def _took_notes(self, notes: Notes, stored: Callable[[], None]) -> None:
        try:
            self._notes.put_nowait((notes, stored))
        except asyncio.QueueFull:
            logger.warning("vault: %d notes lost, the database is too slow", len(notes))

    async def _write_notes(self) -> None:
        while True:
            notes, stored = await self._notes.get()
            try:
                await self._store(notes)
            except Exception:
                logger.exception("vault: what it has seen could not be stored")
            stored()

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

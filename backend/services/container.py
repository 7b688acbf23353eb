"""What the platform is made of, put together once at start."""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from backend.sandboxes.contract import SandboxDriver, SandboxError
from backend.sandboxes.local.driver import LocalDriver
from backend.sandboxes.local.limits import Limits
from backend.services.agents import AgentsService
from backend.services.bringup import Seal, unsealed
from backend.services.diagnosis import Diagnosis
from backend.services.errors import VaultError
from backend.services.events import EventFeed
from backend.services.harness_client import HarnessClient
from backend.services.integrations import IntegrationsService
from backend.services.leases import Leases, holder_of
from backend.services.linear import LinearWork
from backend.services.memory import MemoryService
from backend.services.messages import MessagesService
from backend.services.metrics import Metrics
from backend.services.reconciler import LEASE_TICKS, Reconciler
from backend.services.recordings import Recordings
from backend.services.sessions import SessionsService
from backend.services.skills import SkillsService
from backend.services.vault import VaultService
from backend.services.warm_pool import WarmPool
from backend.settings import Settings
from backend.store.database import Database
from backend.store.secrets import Cipher


@dataclass(frozen=True, slots=True)
class Services:
    """All use cases, and what they stand on."""

    settings: Settings
    database: Database
    driver: SandboxDriver
    feed: EventFeed
    agents: AgentsService
    sessions: SessionsService
    messages: MessagesService
    memory: MemoryService
    skills: SkillsService
    metrics: Metrics
    pool: WarmPool
    reconciler: Reconciler
    diagnosis: Diagnosis
    integrations: IntegrationsService
    vault: VaultService | None
    """None when it is off, or sandboxes are not on this machine."""
    local: LocalDriver | None
    """None when sandboxes are not on this machine."""


@asynccontextmanager
async def open_services(settings: Settings, driver: SandboxDriver | None = None) -> AsyncIterator[Services]:
    """The services, with what an earlier platform process left taken over; sandboxes live on at the end.

    `settings` have their keys. `driver` is the one for local processes unless given. Raises database.StoreError when
    the database cannot be used.
    """
    async with AsyncExitStack() as stack:
        database = await Database.open(settings.database_path)
        stack.push_async_callback(database.close)
        feed = EventFeed(database)
        cipher = Cipher(settings.encryption_key_value)
        vault: VaultService | None = None
        local: LocalDriver | None = None
        if driver is None:
            if settings.vault == "on":
                vault = VaultService(database, cipher, settings)
                stack.push_async_callback(vault.aclose)
            driver = local = _local_driver(settings, vault)
        stack.push_async_callback(driver.close)
        seal = _sealed(vault, local) if vault and local else unsealed
        harness = HarnessClient()
        stack.push_async_callback(harness.aclose)
        recordings = Recordings(
            settings.data_dir, max_mb=settings.recording_max_mb, kept_mb=settings.recordings_kept_mb
        )
        metrics = Metrics(database, pool=settings.warm_pool_size > 0)
        interval = settings.reconcile_interval_seconds
        leases = Leases(database, holder_of(settings.data_dir), LEASE_TICKS * interval)
        await leases.announce()
        stack.push_async_callback(leases.release)
        sessions = SessionsService(database, cipher, driver, harness, recordings, leases, settings, seal)
        stack.push_async_callback(sessions.aclose)
        messages = MessagesService(database, cipher, harness, sessions, feed, settings)
        stack.push_async_callback(messages.aclose)
        agents = AgentsService(database, cipher, sessions, recordings)
        await sessions.resume()
        await messages.resume()
        integrations = IntegrationsService(database, cipher, settings)
        stack.push_async_callback(integrations.aclose)
        linear = LinearWork(database, integrations, sessions, messages, feed, leases, settings)
        stack.push_async_callback(linear.aclose)
        await linear.start()
        pool = WarmPool(
            database, cipher, driver, harness, leases, metrics, settings, hand_over=sessions.common_hand_over, seal=seal
        )
        pool.start()
        stack.push_async_callback(pool.aclose)
        reconciler = Reconciler(database, driver, sessions, pool, leases, metrics, interval)
        reconciler.start()
        stack.push_async_callback(reconciler.aclose)
        diagnosis = Diagnosis(database, driver, harness, sessions, leases, vault, settings)
        diagnosis.start()
        stack.push_async_callback(diagnosis.aclose)
        memory, skills = MemoryService(database), SkillsService(database)
        if vault:
            vault.start()  # last, because its process competes with our start; whoever needs it waits for it
        yield Services(
            settings,
            database,
            driver,
            feed,
            agents,
            sessions,
            messages,
            memory,
            skills,
            metrics,
            pool,
            reconciler,
            diagnosis,
            integrations,
            vault,
            local,
        )


def _local_driver(settings: Settings, vault: VaultService | None) -> LocalDriver:
    async def connect(sandbox: str, listeners: Mapping[str, socket.socket]) -> None:
        assert vault is not None
        try:
            await vault.listen(sandbox, listeners)
        except VaultError as error:
            raise SandboxError(str(error)) from error

    return LocalDriver(
        settings.data_dir,
        limits=_limits(settings),
        isolation=settings.isolation,
        connect=connect if vault else None,
        released=vault.release if vault else None,
        commands=settings.harness_commands.values(),
        readable=settings.sandbox_readable_paths,
    )


def _sealed(vault: VaultService, local: LocalDriver) -> Seal:
    async def seal(sandbox: str, agent_id: str, hand_over: Mapping[str, Any]) -> Mapping[str, Any]:
        return await vault.seal(sandbox, agent_id, hand_over, proxy=await local.proxy(sandbox))

    return seal


def _limits(settings: Settings) -> Limits:
    usual = Limits()
    return Limits(
        memory_mb=settings.sandbox_memory_mb or usual.memory_mb,
        cpus=settings.sandbox_cpus or usual.cpus,
        pids=settings.sandbox_pids or usual.pids,
        disk_mb=settings.sandbox_disk_mb or usual.disk_mb,
    )

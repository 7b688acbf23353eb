"""What the platform is made of, put together once at start."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from backend.sandboxes.contract import SandboxDriver
from backend.sandboxes.local.driver import LocalDriver
from backend.sandboxes.local.limits import Limits
from backend.services.agents import AgentsService
from backend.services.events import EventFeed
from backend.services.harness_client import HarnessClient
from backend.services.leases import Leases, holder_of
from backend.services.memory import MemoryService
from backend.services.metrics import Metrics
from backend.services.reconciler import LEASE_TICKS, Reconciler
from backend.services.recordings import Recordings
from backend.services.sessions import SessionsService
from backend.services.skills import SkillsService
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
    memory: MemoryService
    skills: SkillsService
    metrics: Metrics
    pool: WarmPool
    reconciler: Reconciler


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
        driver = driver or LocalDriver(settings.data_dir, limits=_limits(settings))
        stack.push_async_callback(driver.close)
        harness = HarnessClient()
        stack.push_async_callback(harness.aclose)
        cipher = Cipher(settings.encryption_key_value)
        recordings = Recordings(
            settings.data_dir, max_mb=settings.recording_max_mb, kept_mb=settings.recordings_kept_mb
        )
        metrics = Metrics(database, pool=settings.warm_pool_size > 0)
        interval = settings.reconcile_interval_seconds
        leases = Leases(database, holder_of(settings.data_dir), LEASE_TICKS * interval)
        await leases.announce()
        stack.push_async_callback(leases.release)
        sessions = SessionsService(database, cipher, driver, harness, recordings, leases, settings)
        stack.push_async_callback(sessions.aclose)
        agents = AgentsService(database, cipher, sessions, recordings)
        await sessions.resume()
        pool = WarmPool(
            database, cipher, driver, harness, leases, metrics, settings, hand_over=sessions.common_hand_over
        )
        pool.start()
        stack.push_async_callback(pool.aclose)
        reconciler = Reconciler(database, driver, sessions, pool, leases, metrics, interval)
        reconciler.start()
        stack.push_async_callback(reconciler.aclose)
        memory, skills = MemoryService(database), SkillsService(database)
        yield Services(settings, database, driver, feed, agents, sessions, memory, skills, metrics, pool, reconciler)


def _limits(settings: Settings) -> Limits:
    usual = Limits()
    return Limits(
        memory_mb=settings.sandbox_memory_mb or usual.memory_mb,
        cpus=settings.sandbox_cpus or usual.cpus,
        pids=settings.sandbox_pids or usual.pids,
    )

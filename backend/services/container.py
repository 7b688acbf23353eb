"""What the platform is made of, put together once at start."""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

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
from backend.services.problems import Problems
from backend.services.reconciler import Reconciler
from backend.services.recordings import Recordings
from backend.services.sessions import SessionsService
from backend.services.skills import SkillsService
from backend.services.vault import VaultService
from backend.services.vault_links import Vaults
from backend.services.vault_spawned import SpawnedVault
from backend.services.warm_pool import WarmPool
from backend.settings import Settings, SettingsError
from backend.store.database import Database
from backend.store.secrets import Cipher

if TYPE_CHECKING:  # else imported by who needs them: most platforms have no cluster
    from backend.sandboxes.kubernetes.client import KubernetesClient
    from backend.sandboxes.kubernetes.driver import KubernetesDriver
    from backend.sandboxes.kubernetes.manifests import PodSettings

CLUSTER_SECONDS: Final = 3.0
"""How long the start waits for the cluster to be seen."""


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
    problems: Problems
    integrations: IntegrationsService
    vault: VaultService | None
    """None when it is off, or sandboxes are not on this machine."""
    local: LocalDriver | None
    """None when sandboxes are not on this machine."""


@asynccontextmanager
async def open_services(settings: Settings, driver: SandboxDriver | None = None) -> AsyncIterator[Services]:
    """The services, with what an earlier platform process left taken over; sandboxes live on at the end.

    `settings` have their keys. `driver` is the one they ask for unless given. Raises database.StoreError when
    the database cannot be used.
    """
    # Else it is in the data directory, which is this process's alone.
    shared = settings.database_url is not None
    async with AsyncExitStack() as stack:
        database = await Database.open(settings.database_location, shared=shared)
        stack.push_async_callback(database.close)
        feed = EventFeed(database)
        cipher = Cipher(settings.encryption_key_value)
        vault: VaultService | None = None
        local: LocalDriver | None = None
        if driver is None:
            if settings.vault == "on":
                vault = VaultService(database, cipher, settings, _vaults(settings))
                stack.push_async_callback(vault.aclose)
            if settings.sandboxes == "kubernetes":
                driver = await _kubernetes_driver(settings, vault)
            else:
                driver = local = _local_driver(settings, vault)
        stack.push_async_callback(driver.close)
        seal = _sealed(vault, local) if vault else unsealed
        harness = HarnessClient()
        recordings = Recordings(
            settings.data_dir, max_mb=settings.recording_max_mb, kept_mb=settings.recordings_kept_mb
        )
        metrics = Metrics(database, pool=settings.warm_pool_size > 0)
        interval = settings.reconcile_interval_seconds
        leases = Leases(database, holder_of(settings.data_dir), shared=shared)
        await leases.announce()
        leases.start()
        stack.push_async_callback(leases.release)
        sessions = SessionsService(database, cipher, driver, harness, recordings, leases, settings, seal)
        stack.push_async_callback(sessions.aclose)
        messages = MessagesService(database, cipher, harness, sessions, feed, leases, settings)
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
        reconciler = Reconciler(database, driver, sessions, pool, leases, metrics, interval, messages)
        reconciler.start()
        stack.push_async_callback(reconciler.aclose)
        diagnosis = Diagnosis(database, driver, harness, sessions, leases, vault, settings)
        diagnosis.start()
        stack.push_async_callback(diagnosis.aclose)
        problems = Problems(driver, vault, reconciler)
        problems.start()
        stack.push_async_callback(problems.aclose)
        memory, skills = MemoryService(database), SkillsService(database)
        if vault:
            vault.start()  # last, because its process competes with our start; whoever needs it waits for it
        stack.push_async_callback(sessions.finish)
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
            problems,
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


async def check_cluster(settings: Settings) -> None:
    """Raise SettingsError when sandboxes need a cluster, and nothing says where one is. Asks no cluster."""
    if settings.sandboxes == "kubernetes":
        client = await _connect(settings)
        await client.close()


async def _connect(settings: Settings) -> "KubernetesClient":
    from backend.sandboxes.kubernetes.client import KubernetesClient
    from backend.sandboxes.kubernetes.errors import ApiError

    try:
        return await KubernetesClient.connect(settings)
    except ApiError as error:
        raise SettingsError(f"LAP_SANDBOXES=kubernetes: {error}") from error


async def _kubernetes_driver(settings: Settings, vault: VaultService | None) -> "KubernetesDriver":
    """One for the cluster that the settings name, which need not answer yet. Raises SettingsError."""
    from backend.sandboxes.kubernetes.cluster import Cluster
    from backend.sandboxes.kubernetes.driver import KubernetesDriver

    client = await _connect(settings)
    cluster = Cluster(client)
    cluster.start()
    await cluster.wait_synced(CLUSTER_SECONDS)
    return KubernetesDriver(
        client,
        cluster,
        _pod_settings(settings),
        node_host=settings.k8s_node_host,
        network="vault" if vault else "open",
        released=vault.release if vault else None,
    )


def _pod_settings(settings: Settings) -> "PodSettings":
    from backend.sandboxes.kubernetes.manifests import PodSettings

    limits = _limits(settings)
    return PodSettings(
        images=settings.harness_images,
        image_pull_policy=settings.k8s_image_pull_policy,
        image_pull_secrets=settings.image_pull_secret_names,
        cpu_request=settings.k8s_cpu_request,
        memory_request=settings.k8s_memory_request,
        cpus=limits.cpus,
        memory_mb=limits.memory_mb,
        disk_mb=limits.disk_mb,
        priority_active=settings.k8s_priority_active,
        priority_warm=settings.k8s_priority_warm,
        runtime_class=settings.k8s_runtime_class,
        user=settings.k8s_user,
        service_type=settings.k8s_service_type or ("ClusterIP" if settings.in_cluster else "NodePort"),
    )


def _vaults(settings: Settings) -> Vaults:
    if settings.sandboxes == "kubernetes":
        from backend.services.vault_remote import RemoteVaults

        return RemoteVaults(settings)
    return SpawnedVault(settings.data_dir / "vault")


def _sealed(vault: VaultService, local: LocalDriver | None) -> Seal:
    async def seal(sandbox: str, agent_id: str, hand_over: Mapping[str, Any]) -> Mapping[str, Any]:
        own = await local.proxy(sandbox) if local else None
        return await vault.seal(sandbox, agent_id, hand_over, proxy=own)

    return seal


def _limits(settings: Settings) -> Limits:
    usual = Limits()
    return Limits(
        memory_mb=settings.sandbox_memory_mb or usual.memory_mb,
        cpus=settings.sandbox_cpus or usual.cpus,
        pids=settings.sandbox_pids or usual.pids,
        disk_mb=settings.sandbox_disk_mb or usual.disk_mb,
    )

"""The Kubernetes driver: a sandbox is a Sandbox object of agent-sandbox, the pod made of it, and a Service."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from backend.sandboxes.contract import Inspection, Rescue, Sandbox, SandboxError, SandboxSpec, SandboxState
from backend.sandboxes.kubernetes import fates, inspecting, making, manifests
from backend.sandboxes.kubernetes.addresses import Addresses, is_ready
from backend.sandboxes.kubernetes.client import KubernetesClient
from backend.sandboxes.kubernetes.cluster import Cluster
from backend.sandboxes.kubernetes.errors import ApiError, NotFound, NotServed
from backend.sandboxes.kubernetes.image_cache import ImageCache
from backend.sandboxes.kubernetes.lives import UNSEEN_SECONDS, Lives
from backend.sandboxes.kubernetes.logs import Logs
from backend.sandboxes.kubernetes.making import FIRST_DELAY, Making, Taken
from backend.sandboxes.kubernetes.manifests import PodSettings

T = TypeVar("T")

NODES_SECONDS: Final = 15.0
"""How long it may take until a node is known to reach sandboxes at."""
LOG_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


class KubernetesDriver:
    """See contract.SandboxDriver. Sees through `cluster`, which runs already, changes by `client`; closes both.

    `network` is what the isolation of a sandbox says of its network. `released` is told of each sandbox that was to be
    deleted, whether that worked or not. A file that should outlive its sandbox does not: it is in the pod.
    """

    def __init__(
        self,
        client: KubernetesClient,
        cluster: Cluster,
        settings: PodSettings,
        *,
        node_host: str = "auto",
        network: str = "open",
        released: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._settings = settings
        self._network = network
        self._released = released
        self.on_moved: Callable[[str, str], None] = lambda _name, _url: None
        self._lives = Lives(client, cluster)
        self._images = ImageCache(client)
        self._logs = Logs(client, manifests.CONTAINER)
        self._addresses = Addresses(cluster, node_host, lambda name, url: self.on_moved(name, url))
        self._makings: dict[str, Making] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stops = [cluster.on_change(self._changed), cluster.on_nodes(lambda _: self._addresses.check_all())]

    async def create(self, spec: SandboxSpec) -> Sandbox:
        if not manifests.is_name(spec.name):
            raise SandboxError(f"{spec.name[:80]!r} is no sandbox name; use 1 to 60 of a-z, 0-9 and '-'")
        if spec.repository is not None:
            raise SandboxError(
                f"{spec.repository} is a path of the platform's machine, which pods do not see: give the agent the "
                "URL of a repository that can be cloned from the cluster"
            )
        creation = self._start_task(self._create(spec))
        try:
            return await asyncio.shield(creation)
        except asyncio.CancelledError:
            self._unwant(spec.name)
            self._start_task(self._undo(creation, spec.name))
            raise

    async def state(self, name: str) -> SandboxState:
        if name in self._makings:
            return SandboxState.PENDING
        state, _ = await self._lives.look(name)
        return state

    async def wait_gone(self, name: str) -> str:
        while True:
            changed = self._cluster.changed(name)
            if name not in self._makings:
                state, why = await self._lives.look(name)
                if state is SandboxState.GONE:
                    return why
            await making.wait(changed, UNSEEN_SECONDS)

    async def waiting_for(self, name: str) -> str | None:
        if (making := self._makings.get(name)) and making.waits_for:
            return making.waits_for
        pod, sandbox = self._cluster.pod(name), self._cluster.sandbox(name)
        return self.away() or fates.waiting(pod, sandbox, self._cluster.events_of(name))

    def away(self) -> str | None:
        return self._lives.away()

    def follow_address(self, name: str, url: str) -> None:
        self._addresses.follow(name, url)

    async def delete(self, name: str, rescue: Rescue | None = None) -> None:
        # Goes on when its caller is cancelled: half a sandbox is of no use to anyone.
        self._unwant(name)
        try:
            await asyncio.shield(self._start_task(self._delete(name)))
        finally:
            if self._released is not None:
                await self._released(name)

    async def logs(self, name: str, tail_lines: int, since_seconds: int | None = None) -> str:
        pod = self._cluster.pod(name)
        own = self._lives.own_pod(name)
        if own is not None and (pod is None or pod["metadata"]["uid"] != own):
            return ""  # it went with its pod; another, in its place, has none of it
        try:
            async with asyncio.timeout(LOG_SECONDS):
                pod_name = pod["metadata"]["name"] if pod else name
                return await self._logs.read(name, pod_name, tail_lines, since_seconds, running=self._writing(pod))
        except TimeoutError:
            return f"(the log cannot be read: no answer within {LOG_SECONDS:g} s)"
        except ApiError as error:
            not_yet = isinstance(error, NotFound) or error.status == 400
            return "" if not_yet else f"(the log cannot be read: {error})"

    async def inspect(self, name: str) -> Inspection:
        return inspecting.inspect(self._cluster, name, self._lives.own_pod(name))

    async def mend(self, name: str) -> str:
        missing = manifests.service_name(name)
        async with self._lock(name):
            state, why = await self._lives.look(name)
            sandbox = self._cluster.sandbox(name)
            if state is SandboxState.GONE or sandbox is None:
                raise SandboxError(f"the sandbox cannot be mended: {why or 'it is not there yet'}; restart the session")
            try:
                # Not from the watch, which may be behind: nothing that is there is to be "recreated".
                if await making.find_service(self._client, sandbox) is not None:
                    raise SandboxError(f"nothing to mend: Service {missing} is there")
                await making.make_service(self._client, sandbox, self._settings.service_type)
            except ApiError as error:
                raise SandboxError(f"Service {missing} cannot be made: {error}") from error
        return f"recreated Service {missing}"

    def problems(self) -> Sequence[str]:
        return self._cluster.problems()

    async def nodes(self) -> Sequence[dict[str, Any]]:
        held: dict[str, list[str]] = {}
        for name in self._cluster.names():
            if node := ((self._cluster.pod(name) or {}).get("spec") or {}).get("nodeName"):
                held.setdefault(node, []).append(name)
        names = sorted({*self._cluster.nodes(), *held})
        return [{**inspecting.node_of(self._cluster, name), "sandboxes": held.get(name, [])} for name in names]

    async def image_cache(self) -> Mapping[str, Any]:
        return await self._images.state()

    async def list(self) -> list[str]:
        return self._cluster.names()

    async def close(self) -> None:
        for stop in self._stops:
            stop()
        for creating in self._makings.values():
            creating.unwanted.set()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        await self._logs.close()
        await self._cluster.close()
        await self._client.close()

    async def _create(self, spec: SandboxSpec) -> Sandbox:
        async with self._lock(spec.name):
            making = self._makings[spec.name] = Making(self._client, self._cluster, self._settings, spec)
            try:
                return await self._make(spec.name, making)
            except Taken:
                raise
            except (ApiError, SandboxError) as error:
                if not isinstance(error, NotServed):
                    await self._remove_vain(spec.name)
                if isinstance(error, SandboxError):
                    raise
                raise SandboxError(f"the sandbox cannot be made: {error}") from error
            finally:
                del self._makings[spec.name]

    async def _make(self, name: str, making: Making) -> Sandbox:
        sandbox = await making.sandbox()
        self._lives.begin(name, sandbox["metadata"]["uid"])
        service = await making.service(sandbox)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + NODES_SECONDS
        while (url := self._addresses.find(name, service)) is None:
            making.check()
            why = self._cluster.unknown("nodes") or "none is Ready and has an address"
            if loop.time() > deadline and not self.away():
                raise SandboxError(
                    f"there is no node at which to reach the sandbox: {why}; set K8S_NODE_HOST to a host that "
                    "forwards node ports"
                )
            await making.pause(f"a node at which to reach the sandbox: {why}", FIRST_DELAY)
        making.check()
        isolation = {"pid_namespace": True, "filesystem": True, "network": self._network, "reason": None}
        return Sandbox(name, url, {**isolation, "limits": manifests.limits(self._settings)})

    async def _undo(self, creation: asyncio.Task[Sandbox], name: str) -> None:
        """Delete what a cancelled `create` still made: nobody heard of it, so nobody else would."""
        try:
            await creation
        except SandboxError:
            return
        async with self._lock(name):
            await self._remove_vain(name)

    async def _remove_vain(self, name: str) -> None:
        try:
            await making.remove(self._client, self._cluster, name)
        except SandboxError as error:  # the reconciler tries again
            logger.warning("made in vain: %s", error)
        self._forget(name)

    async def _delete(self, name: str) -> None:
        async with self._lock(name):
            await making.remove(self._client, self._cluster, name)
            self._forget(name)
            self._addresses.forget(name)

    def _forget(self, name: str) -> None:
        self._lives.forget(name)
        self._logs.forget(name)

    def _writing(self, pod: Mapping[str, Any] | None) -> str | None:
        """The uid of a pod whose harness runs on a node that is heard: its log grows."""
        if pod is None or not fates.runs(pod):
            return None
        node = self._cluster.node(pod["spec"].get("nodeName") or "")
        uid: str = pod["metadata"]["uid"]
        return uid if node is None or is_ready(node) else None

    def _unwant(self, name: str) -> None:
        if creating := self._makings.get(name):
            creating.unwanted.set()

    def _changed(self, name: str) -> None:
        self._lives.changed(name)
        self._addresses.check(name)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _start_task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

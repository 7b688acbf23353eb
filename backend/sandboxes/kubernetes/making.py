"""Makes and removes the objects of sandboxes, also while the API comes and goes."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from backend.sandboxes.contract import SandboxError, SandboxSpec
from backend.sandboxes.kubernetes import manifests
from backend.sandboxes.kubernetes.client import PODS, SERVICES, KubernetesClient, Resource
from backend.sandboxes.kubernetes.cluster import Cluster
from backend.sandboxes.kubernetes.errors import ApiError, Conflict, NotFound, Throttled, Unreachable
from backend.sandboxes.kubernetes.manifests import PodSettings

Json = dict[str, Any]
T = TypeVar("T")

FIRST_DELAY: Final = 0.5
MAX_DELAY: Final = 10.0
"""Seconds between attempts while the API is away."""
REMOVE_SECONDS: Final = 60.0
"""How long a pod may take to go."""
PATIENCE: Final = 5.0
"""For how long a removal is tried again: one that fails is tried later by the reconciler."""
LOOK_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class Taken(SandboxError):
    """The name is somebody else's, whose objects stay."""


class Making:
    """The making of one sandbox. `unwanted` ends it: the sandbox is deleted while it is being made."""

    def __init__(self, client: KubernetesClient, cluster: Cluster, settings: PodSettings, spec: SandboxSpec) -> None:
        self._client = client
        self._cluster = cluster
        self._settings = settings
        self._spec = spec
        self.unwanted = asyncio.Event()
        self.waits_for: str | None = None
        """What it waits for, in one line."""

    async def sandbox(self) -> Json:
        """Create the Sandbox, or take the one that is there: its creation may have been answered to nobody."""
        resource = await self.insist(self._client.sandboxes)
        body = manifests.sandbox(self._spec, self._settings, resource.version)
        while True:
            try:
                return await self.insist(lambda: self._client.create(resource, body))
            except Conflict as conflict:
                if conflict.reason != "AlreadyExists":
                    raise
            try:
                found = await self.insist(lambda: self._client.get(resource, self._spec.name))
            except NotFound:
                continue
            if not _same_owner(found, body):
                raise Taken(f"sandbox {self._spec.name} exists already and is not this session's; delete it first")
            if not _is_going(found) and manifests.digest_of(found) == manifests.digest(self._spec.token):
                return found
            # Of an earlier start of the session: its token is another.
            self.waits_for = "the session's earlier sandbox is still being removed"
            await remove(self._client, self._cluster, self._spec.name)

    async def service(self, sandbox: Json) -> Json:
        """Create the Service in front of it."""
        return await self.insist(lambda: make_service(self._client, sandbox, self._settings.service_type))

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until the API answers. For how long, who asked for the sandbox decides."""
        delay = FIRST_DELAY
        while True:
            self.check()
            try:
                answer = await call()
            except ApiError as error:
                if not _may_pass(error):
                    raise
                await self.pause(str(error), error.retry_after or delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, MAX_DELAY)
            else:
                self.waits_for = None
                return answer

    async def pause(self, why: str, seconds: float) -> None:
        """Wait before the next attempt; less when nobody wants the sandbox any more."""
        self.waits_for = why
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.unwanted.wait()

    def check(self) -> None:
        """Raise SandboxError when nobody wants it any more."""
        if self.unwanted.is_set():
            raise SandboxError(f"sandbox {self._spec.name} was deleted while it was being made")


async def make_service(client: KubernetesClient, sandbox: Json, service_type: str) -> Json:
    """Create the Service in front of a Sandbox, or take the one that is there. Raises ApiError, Taken."""
    body = manifests.service(sandbox, service_type)
    try:
        return await client.create(SERVICES, body)
    except Conflict as conflict:
        if conflict.reason != "AlreadyExists":
            raise
    return await find_service(client, sandbox) or await client.create(SERVICES, body)


async def find_service(client: KubernetesClient, sandbox: Json) -> Json | None:
    """The Service in front of a Sandbox; one of an earlier Sandbox of that name is removed. Raises ApiError, Taken."""
    name = manifests.service_name(sandbox["metadata"]["name"])
    try:
        found = await client.get(SERVICES, name)
        owners = found["metadata"].get("ownerReferences") or ()
        if any(owner.get("uid") == sandbox["metadata"]["uid"] for owner in owners) and not _is_going(found):
            return found
        if not manifests.is_ours(found):
            raise Taken(f"Service {name} exists already and is not the platform's; delete it")
        await client.delete(SERVICES, name, uid=found["metadata"]["uid"])
    except NotFound:
        pass
    return None


async def remove(client: KubernetesClient, cluster: Cluster, name: str) -> None:
    """Delete the Sandbox and the Service; returns when its pod is gone. What is not ours stays.

    Raises SandboxError that names what is left.
    """
    known = cluster.sandbox(name)
    if known is not None and not manifests.is_ours(known):
        return
    pod = (cluster.pod(name) or {}).get("metadata", {}).get("name") or name
    try:
        async with asyncio.timeout(REMOVE_SECONDS):
            await _patiently(lambda: _delete(client, name))
            while True:
                changed = cluster.changed(name)
                shown = cluster.sandbox(name) is not None or cluster.pod(name) is not None
                # The watch may be behind, or cut: the pod of a Sandbox that was just made is not in it yet.
                unsure = not shown or cluster.unknown("pods") is not None
                if unsure and await _patiently(lambda: _is_absent(client, PODS, pod)):
                    return
                await wait(changed, LOOK_SECONDS)
    except TimeoutError:
        raise SandboxError(f"sandbox {name} {_what_is_left(cluster, name)}; delete it again") from None
    except ApiError as error:
        raise SandboxError(f"sandbox {name} cannot be removed: {error}; delete it again") from error


async def wait(changed: asyncio.Future[None], seconds: float) -> None:
    """Wait for a change, at most so long. Raises CancelledError when the cluster is closed."""
    try:
        await asyncio.wait([changed], timeout=seconds)
        if changed.cancelled():
            raise asyncio.CancelledError
    finally:
        changed.cancel()


async def _delete(client: KubernetesClient, name: str) -> None:
    for resource, of_kind in ((await client.sandboxes(), name), (SERVICES, manifests.service_name(name))):
        with contextlib.suppress(NotFound):
            await client.delete(resource, of_kind)


async def _is_absent(client: KubernetesClient, resource: Resource, name: str) -> bool:
    try:
        await client.get(resource, name)
    except NotFound:
        return True
    return False


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Call again for a while when the API does not answer."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while True:
        try:
            return await call()
        except ApiError as error:
            seconds = error.retry_after or FIRST_DELAY
            if not _may_pass(error) or loop.time() + seconds > deadline:
                raise
            await asyncio.sleep(seconds)


def _what_is_left(cluster: Cluster, name: str) -> str:
    pod = cluster.pod(name)
    if pod is None:
        return f"is not removed after {REMOVE_SECONDS:g} s"
    node = (pod.get("spec") or {}).get("nodeName")
    return f"still has its pod after {REMOVE_SECONDS:g} s{f': see whether node {node} works' if node else ''}"


def _may_pass(error: ApiError) -> bool:
    """Whether the same request may be answered later."""
    return isinstance(error, Unreachable | Throttled) or error.status >= 500


def _same_owner(found: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    have = found["metadata"].get("labels") or {}
    return all(have.get(label) == value for label, value in body["metadata"]["labels"].items())


def _is_going(body: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in body["metadata"]

"""Whether sandboxes live: what the cluster has shown of each, kept where the next change would hide it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from backend.sandboxes.contract import SandboxState
from backend.sandboxes.kubernetes import fates, manifests
from backend.sandboxes.kubernetes.client import KubernetesClient
from backend.sandboxes.kubernetes.cluster import Cluster
from backend.sandboxes.kubernetes.errors import ApiError, NotFound

Object = Mapping[str, Any]

UNSEEN_SECONDS: Final = 10.0
"""How long our watch may take to show what we have made."""
MAX_ENDED: Final = 2_000
"""So many lives are kept; of those that are over, the oldest go first: other processes' that nobody here asks for."""


@dataclass(slots=True)
class _Life:
    """One Sandbox and the one pod that is its harness's: whatever comes after that has none of what ran in it."""

    sandbox: str
    """uid"""
    made_at: float | None = None
    """When we made it, while our watch has not shown it."""
    pod: str | None = None
    """uid"""
    why: str | None = None
    """How it came to its end."""


class Lives:
    """The lives of all sandboxes of the cluster, by name. Nothing counts as gone that only cannot be seen."""

    def __init__(self, client: KubernetesClient, cluster: Cluster) -> None:
        self._client = client
        self._cluster = cluster
        self._lives: dict[str, _Life] = {}
        for name in cluster.names():
            self.changed(name)

    def away(self) -> str | None:
        """Why nothing can be told from what is not there; None when it can."""
        return self._cluster.unknown("sandboxes") or self._cluster.unknown("pods")

    def begin(self, name: str, uid: str) -> None:
        """The Sandbox `uid` has been made."""
        life = self._lives.get(name)
        if life is None or life.sandbox != uid:
            self._lives[name] = _Life(uid, made_at=asyncio.get_running_loop().time())
        if len(self._lives) > MAX_ENDED and (old := next((n for n, life in self._lives.items() if life.why), None)):
            del self._lives[old]
        self.changed(name)

    def forget(self, name: str) -> None:
        """It has been removed."""
        self._lives.pop(name, None)

    def changed(self, name: str) -> None:
        """Take in what the cluster shows of a sandbox."""
        sandbox, life = self._cluster.sandbox(name), self._lives.get(name)
        if sandbox is not None:
            uid = sandbox["metadata"]["uid"]
            if life is None and not manifests.is_ours(sandbox):
                return
            if life is None or (life.sandbox != uid and life.made_at is None):
                life = self._lives[name] = _Life(uid)
            elif life.sandbox != uid:
                return  # an earlier one: our watch is behind
            life.made_at = None
        if life is None:
            return
        pod = self._pod(name, life)
        life.why = life.why or self._ending(life, sandbox, pod)
        if pod is not None and life.pod is None:
            life.pod = pod["metadata"]["uid"]

    def own_pod(self, name: str) -> str | None:
        """The uid of the pod that the sandbox's harness ran in; None while it is not known."""
        life = self._lives.get(name)
        return life.pod if life else None

    async def look(self, name: str) -> tuple[SandboxState, str]:
        """The state of a sandbox and, when it is gone, why."""
        self.changed(name)
        life, away = self._lives.get(name), self.away()
        if life is None:
            return (SandboxState.PENDING, "") if away else (SandboxState.GONE, "gone")
        if life.why:
            return SandboxState.GONE, life.why
        pod = self._pod(name, life)
        if fates.runs(pod) if pod else away and life.pod:
            return SandboxState.RUNNING, ""
        if life.made_at is not None and not away and await self._vanished(name, life):
            life.why = "its Sandbox was deleted"
            return SandboxState.GONE, life.why
        return SandboxState.PENDING, ""

    def _pod(self, name: str, life: _Life) -> Object | None:
        """The present pod, unless it is an earlier Sandbox's."""
        pod = self._cluster.pod(name)
        owners = (pod or {}).get("metadata", {}).get("ownerReferences") or ()
        uids = {owner.get("uid") for owner in owners if owner.get("kind") == "Sandbox"}
        return None if uids and life.sandbox not in uids else pod

    def _ending(self, life: _Life, sandbox: Object | None, pod: Object | None) -> str | None:
        deleted = sandbox is None and life.made_at is None and not self.away()
        if pod is not None:
            if life.pod not in (None, pod["metadata"]["uid"]):
                return "its pod was deleted, and another was made in its place"
            why = fates.ending(pod)
            return "its Sandbox was deleted" if why and deleted else why
        if deleted:
            return "its Sandbox was deleted"
        return "its pod was deleted" if life.pod and not self.away() else None

    async def _vanished(self, name: str, life: _Life) -> bool:
        """Whether what we made is gone already: while our watch was cut, for it would have shown that."""
        now = asyncio.get_running_loop().time()
        if life.made_at is None or now - life.made_at < UNSEEN_SECONDS:
            return False
        life.made_at = now
        try:
            found = await self._client.get(await self._client.sandboxes(), name)
        except NotFound:
            return True
        except ApiError:
            return False
        return bool(found["metadata"]["uid"] != life.sandbox)

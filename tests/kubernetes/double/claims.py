"""The extensions of agent-sandbox: pools that keep Sandboxes warm and claims that take one over."""

import asyncio
import json
from datetime import UTC, datetime

from tests.kubernetes.double import objects
from tests.kubernetes.double.controller import condition, name_hash, owner
from tests.kubernetes.double.resources import ALL, CLAIMS
from tests.kubernetes.double.schema import complete
from tests.kubernetes.double.store import Change, Object, Store, annotations, labels

_PREFIX = "agents.x-k8s.io/"
_POOL, _TEMPLATE, _CLAIM = f"{_PREFIX}warm-pool-sandbox", f"{_PREFIX}sandbox-template-ref", f"{_PREFIX}claim-uid"
_POD_HASH = f"{_PREFIX}sandbox-pod-template-hash"
_HASH, _REF_HASH = f"{_PREFIX}sandbox-template-hash", f"{_TEMPLATE}-hash"
_VERSION = f"{CLAIMS}/v1beta1"
_OWN = (_POOL, _POD_HASH, _HASH)


class ClaimController:
    """Fills pools up, gives claims a ready Sandbox of theirs, and tells both's status."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._due = False
        store.listeners.append(self._changed)

    def _changed(self, change: Change) -> None:
        if change.entry.resource.plural == "sandboxes" or change.entry.resource.group == CLAIMS:
            if not self._due:
                asyncio.get_running_loop().call_soon(self._work)
            self._due = True

    def _work(self) -> None:
        self._due = False
        for claim in self._store.all("sandboxclaims"):
            self._claim(claim)
        for pool in self._store.all("sandboxwarmpools"):
            self._fill(pool)

    def _members(self, pool: Object) -> list[Object]:
        uid = pool["metadata"]["uid"]
        owners = (
            (sandbox, sandbox["metadata"].get("ownerReferences") or ()) for sandbox in self._store.all("sandboxes")
        )
        return [sandbox for sandbox, found in owners if any(entry["uid"] == uid for entry in found)]

    def _fill(self, pool: Object) -> None:
        meta = pool["metadata"]
        template = self._store.get("sandboxtemplates", meta["namespace"], pool["spec"]["sandboxTemplateRef"]["name"])
        members = self._members(pool)
        for _ in range(pool["spec"].get("replicas", 1) - len(members) if template else 0):
            self._make(pool, template or {})
        ready = sum(1 for sandbox in members if (condition(sandbox, "Ready") or {}).get("status") == "True")
        status: Object = {"observedGeneration": meta["generation"], "replicas": len(members), "readyReplicas": ready}
        status["selector"] = f"{_POOL}={name_hash(meta['name'])}"
        self._store.patch("sandboxwarmpools", pool, status={key: value for key, value in status.items() if value})

    def _make(self, pool: Object, template: Object) -> None:
        name, pool_name = template["metadata"]["name"], pool["metadata"]["name"]
        pod = template["spec"]["podTemplate"]
        own = {_POOL: name_hash(pool_name), _REF_HASH: name_hash(name)}
        own |= {_POD_HASH: name_hash(json.dumps(pod)), _HASH: name_hash(json.dumps(template["spec"]))}
        pod_meta = pod.get("metadata") or {}
        evictable = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
        containers = [{"resources": {}, **container} for container in pod["spec"]["containers"]]
        network = {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["8.8.8.8", "1.1.1.1"]}}
        pod = {
            "metadata": {
                "annotations": {**evictable, **pod_meta.get("annotations", {})},
                "labels": {**own, **pod_meta.get("labels", {})},
            },
            "spec": {"automountServiceAccountToken": False, **network, **pod["spec"], "containers": containers},
        }
        meta: Object = {"generateName": f"{pool_name}-", "name": f"{pool_name}-{objects.suffix()}"}
        meta |= {"namespace": pool["metadata"]["namespace"], "annotations": {_TEMPLATE: name}}
        meta["labels"] = {**own, f"{_PREFIX}created-by": "controller", f"{_PREFIX}launch-type": "warm"}
        meta["ownerReferences"] = owner(pool, "SandboxWarmPool", _VERSION)
        spec = {"podTemplate": pod, **({"service": True} if template["spec"].get("service") else {})}
        spec, _ = complete(spec, ALL["sandboxes"].schemas["v1beta1"]["properties"]["spec"])
        self._store.create("sandboxes", {"metadata": meta, "spec": spec})

    def _claim(self, claim: Object) -> None:
        meta = claim["metadata"]
        noted = annotations(claim)
        seen = f"{_PREFIX}controller-first-observed-at"
        if seen not in noted:
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
            noted = {**noted, seen: at}
            claim = self._store.patch("sandboxclaims", claim, annotations=noted).obj
        name = noted.get(f"{_PREFIX}sandbox-name")
        pool = self._store.get("sandboxwarmpools", meta["namespace"], claim["spec"]["warmPoolRef"]["name"])
        if name is None and pool is not None:
            ready = [
                entry for entry in self._members(pool) if (condition(entry, "Ready") or {}).get("status") == "True"
            ]
            if ready:
                name = ready[0]["metadata"]["name"]
                noted = {**noted, f"{_PREFIX}sandbox-name": name}
                spec = {"additionalPodMetadata": {}, **claim["spec"]}
                claim = self._store.patch("sandboxclaims", claim, annotations=noted, spec=spec).obj
                self._take(claim, ready[0])
        sandbox = self._store.get("sandboxes", meta["namespace"], name) if name else None
        if sandbox is None:
            return
        told = condition(sandbox, "Ready") or {}
        generation = claim["metadata"]["generation"]
        status: Object = {"conditions": [{**told, "observedGeneration": generation}] if told else []}
        status["sandbox"] = {"name": name, "podIPs": sandbox.get("status", {}).get("podIPs", [])}
        claim = self._store.patch("sandboxclaims", claim, status=status).obj
        first = f"{_PREFIX}claim-first-ready-at"
        if told.get("status") == "True" and first not in noted:
            self._store.patch("sandboxclaims", claim, annotations={**noted, first: "unknown"})

    def _take(self, claim: Object, sandbox: Object) -> None:
        """The claim becomes the owner, and the pool's labels go."""
        mine = {_CLAIM: claim["metadata"]["uid"]}
        left = {key: value for key, value in labels(sandbox).items() if key not in (*_OWN, f"{_PREFIX}created-by")}
        pod = sandbox["spec"]["podTemplate"]
        kept = {key: value for key, value in pod["metadata"]["labels"].items() if key not in _OWN}
        spec = {**sandbox["spec"], "podTemplate": {**pod, "metadata": {"labels": {**kept, **mine}}}}
        owners = owner(claim, "SandboxClaim", _VERSION)
        meta = {"labels": {**left, **mine}, "ownerReferences": owners}
        self._store.patch("sandboxes", sandbox, spec=spec, **meta)

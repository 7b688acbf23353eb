"""What etcd and the watch cache hold: objects, one growing resourceVersion, the changes since, and garbage collection.

Objects are dictionaries nobody changes in place: a new state is a new dictionary, its JSON is written once.
"""

import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from tests.kubernetes.double import errors
from tests.kubernetes.double.resources import ALL, Resource

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Plural, namespace, name."""
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
FOREGROUND = "foregroundDeletion"
_WITHOUT_GENERATION = {"namespaces", "nodes", "services", "events", "secrets", "configmaps", "leases"}


def now(later: float = 0.0) -> str:
    return _stamp(int(time.time() + later))


@lru_cache
def _stamp(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def to_version(resource: Resource, version: str, obj: Object) -> Object:
    """The object as `version` shows it: v1alpha1 of a Sandbox counts replicas instead of naming a mode."""
    if resource.plural != "sandboxes" or version != "v1alpha1" or "spec" not in obj:
        return obj
    spec = {key: value for key, value in obj["spec"].items() if key != "operatingMode"}
    spec["replicas"] = 0 if obj["spec"].get("operatingMode") == "Suspended" else 1
    shown = {**obj, "spec": spec}
    if "status" in obj:
        status = {key: value for key, value in obj["status"].items() if key != "nodeName"}
        shown["status"] = {**status, **({"replicas": 1} if "agents.x-k8s.io/pod-name" in annotations(obj) else {})}
    return shown


def from_version(resource: Resource, version: str, obj: Object) -> Object:
    """The stored form of what was sent as `version`."""
    if resource.plural != "sandboxes" or version != "v1alpha1" or not isinstance(obj.get("spec"), dict):
        return obj
    spec = {key: value for key, value in obj["spec"].items() if key != "replicas"}
    spec["operatingMode"] = "Suspended" if obj["spec"].get("replicas") == 0 else "Running"
    return {**obj, "spec": spec}


def annotations(obj: Object) -> dict[str, str]:
    found: dict[str, str] | None = obj["metadata"].get("annotations")
    return found or {}


def labels(obj: Object) -> dict[str, str]:
    found: dict[str, str] | None = obj["metadata"].get("labels")
    return found or {}


class Entry:
    """One state of one object and its JSON by version, without the opening brace, kind and apiVersion."""

    __slots__ = ("_json", "obj", "resource")

    def __init__(self, resource: Resource, obj: Object) -> None:
        self.resource, self.obj = resource, obj
        self._json: dict[str, bytes] = {}

    def json(self, version: str, *, named: bool = True) -> bytes:
        text = self._json.get(version)
        if text is None:
            shown = to_version(self.resource, version, self.obj)
            text = self._json[version] = _encode(shown).encode()[1:]
        if not named:
            return b"{" + text
        start = f'{{"kind":"{self.resource.kind}","apiVersion":"{self.resource.api_version(version)}",'
        return start.encode() + text

    @property
    def meta(self) -> Object:
        return self.obj["metadata"]


class Change:
    """One step of one object: ADDED, MODIFIED or DELETED."""

    __slots__ = ("entry", "old", "type", "version")

    def __init__(self, type_: str, entry: Entry, old: Entry | None, version: int) -> None:
        self.type, self.entry, self.old, self.version = type_, entry, old, version


class Store:
    """The objects of one cluster. Listeners are told of each change, in order, within the call that made it."""

    def __init__(self, *, kept: int = 50_000) -> None:
        self.version = 1
        self.compacted = 0
        """Changes up to this version are forgotten."""
        self.listeners: list[Callable[[Change], None]] = []
        self._objects: dict[str, dict[tuple[str, str], Entry]] = {plural: {} for plural in ALL}
        self._changes: deque[Change] = deque()
        self._kept = kept
        self._by_uid: dict[str, Key] = {}
        self._dependents: dict[str, set[Key]] = {}

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        entry = self._objects[plural].get((namespace, name))
        return entry.obj if entry else None

    def entry(self, plural: str, namespace: str, name: str) -> Entry:
        """Raises Refused (404)."""
        entry = self._objects[plural].get((namespace, name))
        if entry is None:
            raise errors.not_found(ALL[plural], name)
        return entry

    def entries(self, plural: str, namespace: str = "", version: int | None = None) -> list[Entry]:
        """Those of a namespace, or of all, in the order of their keys, as they were at a version (None: now)."""
        objects = self._objects[plural]
        if later := self.since(plural, self.version if version is None else version):
            objects = dict(objects)
        for change in reversed(later):
            key = (change.entry.meta.get("namespace", ""), change.entry.meta["name"])
            if change.old is None:
                del objects[key]
            else:
                objects[key] = change.old
        return [objects[key] for key in sorted(objects) if not namespace or key[0] == namespace]

    def all(self, plural: str) -> Iterator[Object]:
        return (entry.obj for entry in tuple(self._objects[plural].values()))

    def since(self, plural: str, version: int) -> list[Change]:
        """The changes of a resource after `version`. Raises Refused (410) when they are forgotten."""
        if version < self.compacted:
            raise errors.gone(f"too old resource version: {version} ({self.compacted})")
        found: list[Change] = []
        for change in reversed(self._changes):
            if change.version <= version:
                break
            if change.entry.resource.plural == plural:
                found.append(change)
        return found[::-1]

    def compact(self) -> None:
        """Forget all changes: even who knows the newest version has to list anew."""
        self.version += 1
        self.compacted = self.version
        self._changes.clear()

    def create(self, plural: str, obj: Object, *, dry: bool = False) -> Entry:
        """Raises Refused (409) when the name is taken."""
        resource = ALL[plural]
        meta = dict(obj["metadata"])
        key = (meta.get("namespace", "") if resource.namespaced else "", meta["name"])
        if key in self._objects[plural]:
            raise errors.exists(resource, key[1])
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "selfLink", "managedFields"):
            meta.pop(name, None)
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        if plural not in _WITHOUT_GENERATION:
            meta["generation"] = 1
        entry = Entry(resource, {"metadata": meta, **{name: obj[name] for name in obj if name not in _TOP}})
        if not dry:
            self._by_uid[meta["uid"]] = (plural, *key)
            self._publish("ADDED", entry, None)
        return entry

    def update(self, plural: str, obj: Object, *, dry: bool = False) -> Entry:
        """Put `obj` in the place of its former state; the same again changes nothing. The caller checks versions."""
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        old = self._objects[plural][key]
        obj = {name: obj[name] for name in obj if name not in _TOP[:2]}
        meta = obj["metadata"] = {**meta, "resourceVersion": old.meta["resourceVersion"]}
        if obj == old.obj:
            return old
        if plural not in (*_WITHOUT_GENERATION, "pods") and obj.get("spec") != old.obj.get("spec"):
            meta["generation"] = old.meta.get("generation", 1) + 1
        entry = Entry(ALL[plural], obj)
        if dry:
            return entry
        if meta.get("deletionTimestamp") and not meta.get("finalizers") and plural != "pods":
            self._remove(plural, key, entry)
            return entry
        self._publish("MODIFIED", entry, old)
        return entry

    def patch(self, plural: str, obj: Object, **changes: Any) -> Entry:
        """`obj` with other top-level fields; `annotations` and further names of metadata are put there."""
        meta = {name: changes.pop(name) for name in tuple(changes) if name not in ("spec", "status", "data")}
        new = {**obj, **changes}
        if meta:
            joined = {**obj["metadata"], **meta}
            new["metadata"] = {name: value for name, value in joined.items() if value is not None}
        return self.update(plural, new)

    def delete(self, plural: str, namespace: str, name: str, *, grace: int | None = None, policy: str = "") -> Entry:
        """Begin a deletion; what is left to do is the kubelet's, a finalizer's or the garbage collector's."""
        entry = self.entry(plural, namespace, name)
        finalizers = list(entry.meta.get("finalizers") or ())
        if plural == "pods":
            default = entry.obj["spec"].get("terminationGracePeriodSeconds", 30)
            seconds = default if grace is None else grace
            if entry.obj["spec"].get("nodeName") and seconds > 0:
                if entry.meta.get("deletionTimestamp"):
                    return entry
                changed = {"deletionTimestamp": now(seconds), "deletionGracePeriodSeconds": seconds}
                changed["generation"] = entry.meta.get("generation", 1) + 1
                return self.patch(plural, entry.obj, **changed)
            if entry.meta.get("deletionTimestamp"):
                entry = self.patch(plural, entry.obj, deletionTimestamp=now(), deletionGracePeriodSeconds=0)
        if policy == "Foreground" and self._dependents.get(entry.meta["uid"]) and FOREGROUND not in finalizers:
            finalizers.append(FOREGROUND)
        if policy == "Orphan":
            self._orphan(entry.meta["uid"])
        if finalizers:
            if not entry.meta.get("deletionTimestamp"):
                changed = {"deletionTimestamp": now(), "deletionGracePeriodSeconds": 0, "finalizers": finalizers}
                entry = self.patch(plural, entry.obj, **changed)
            if FOREGROUND in finalizers:
                self._collect(entry.meta["uid"])
            return entry
        return self._remove(plural, (namespace, name), entry)

    def owners_gone(self, obj: Object) -> bool:
        """Whether it has owners, and none of them is there."""
        owners = obj["metadata"].get("ownerReferences") or ()
        return bool(owners) and not any(owner.get("uid") in self._by_uid for owner in owners)

    def _publish(self, type_: str, entry: Entry, old: Entry | None) -> None:
        self.version += 1
        meta = entry.obj["metadata"]
        meta["resourceVersion"] = str(self.version)  # Nobody else has seen this dictionary yet.
        key = (meta.get("namespace", ""), meta["name"])
        plural = entry.resource.plural
        for gone in (old.meta.get("ownerReferences") or ()) if old else ():
            self._dependents.get(gone.get("uid"), set()).discard((plural, *key))
        if type_ == "DELETED":
            self._objects[plural].pop(key, None)
        else:
            self._objects[plural][key] = entry
            for owner in meta.get("ownerReferences") or ():
                self._dependents.setdefault(owner.get("uid"), set()).add((plural, *key))
        change = Change(type_, entry, old, self.version)
        self._changes.append(change)
        if len(self._changes) > self._kept:
            self.compacted = self._changes.popleft().version
        for listener in self.listeners:
            listener(change)

    def _remove(self, plural: str, key: tuple[str, str], last: Entry) -> Entry:
        entry = Entry(last.resource, {**last.obj, "metadata": dict(last.meta)})
        uid = entry.meta["uid"]
        self._by_uid.pop(uid, None)
        self._publish("DELETED", entry, last)
        self._collect(uid)
        self._dependents.pop(uid, None)
        for owner in entry.meta.get("ownerReferences") or ():
            self._finish_foreground(owner.get("uid"))
        return entry

    def _collect(self, uid: str) -> None:
        """Delete what belonged to `uid` only."""
        for plural, namespace, name in sorted(self._dependents.get(uid, ())):
            obj = self.get(plural, namespace, name)
            if obj is not None and not obj["metadata"].get("deletionTimestamp"):
                others = [owner for owner in obj["metadata"]["ownerReferences"] if owner.get("uid") != uid]
                if not any(owner.get("uid") in self._by_uid for owner in others):
                    self.delete(plural, namespace, name)

    def _orphan(self, uid: str) -> None:
        for plural, namespace, name in tuple(self._dependents.get(uid, ())):
            obj = self.entry(plural, namespace, name).obj
            kept = [owner for owner in obj["metadata"]["ownerReferences"] if owner.get("uid") != uid]
            self.patch(plural, obj, ownerReferences=kept or None)

    def _finish_foreground(self, uid: str) -> None:
        key = self._by_uid.get(uid)
        if key is None or self._dependents.get(uid):
            return
        obj = self.entry(*key).obj
        finalizers = obj["metadata"].get("finalizers") or []
        if FOREGROUND in finalizers:
            self.patch(key[0], obj, finalizers=[name for name in finalizers if name != FOREGROUND] or None)


_TOP = ("kind", "apiVersion", "metadata")

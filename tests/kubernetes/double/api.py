"""The API itself: what each request for a resource does to the store and what it answers."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.kubernetes.double import errors, objects, patches, schema, selectors
from tests.kubernetes.double.resources import Catalog, Resource
from tests.kubernetes.double.store import Entry, Object, Store, from_version

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PATH = re.compile(r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))(?P<rest>/.*)")
_RETURNED = {"pods", "services"}
"""Whose deletion is answered by the object, not by a Status."""
_PATCHES = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
_EXPIRED = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."  # noqa: E501


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Target:
    """What a path names, and the verb as RBAC calls it."""

    verb: str
    resource: Resource
    version: str
    namespace: str
    name: str
    subresource: str


@dataclass
class Answer:
    code: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Watch:
    """A watch to be streamed: what to tell, from which version on (None: what there is now, then all)."""

    resource: Resource
    version: str
    namespace: str
    match: selectors.Matcher | None
    since: int | None
    bookmarks: bool
    initial_end: bool
    seconds: int | None


class Api:
    """Requests in, answers out; `cluster_ip` and `node_port` give a new service its addresses."""

    def __init__(
        self, store: Store, catalog: Catalog, cluster_ip: Callable[[], str], node_port: Callable[[int], int]
    ) -> None:
        self.store, self.catalog = store, catalog
        self._cluster_ip, self._node_port = cluster_ip, node_port

    def target(self, request: Request) -> Target:
        """Raises NoSuchPath."""
        match = _PATH.fullmatch(request.path)
        if match is None:
            raise errors.NoSuchPath(request.path)
        group, version = match["group"] or "", match["core"] or match["version"]
        parts = [part for part in match["rest"].split("/") if part]
        namespace = ""
        if len(parts) >= 2 and parts[0] == "namespaces" and (len(parts) > 2 and parts[2] not in ("status", "finalize")):
            namespace, parts = parts[1], parts[2:]
        resource = self.catalog.served.get((group, version, parts[0])) if parts else None
        if resource is None:
            raise errors.NoSuchPath(request.path)
        name, subresource = "".join(parts[1:2]), "/".join(parts[2:])
        watch = request.query.get("watch") in ("1", "true")
        verbs = {
            "GET": "get" if name else "watch" if watch else "list",
            "POST": "create",
            "PUT": "update",
            "PATCH": "patch",
            "DELETE": "delete" if name else "deletecollection",
        }
        verb = verbs.get(request.method)
        if verb is None or (subresource and subresource not in resource.subresources):
            raise errors.not_found(resource, name)
        return Target(verb, resource, version, namespace, name, subresource)

    def handle(self, target: Target, request: Request) -> Answer | Watch:
        """All verbs but reading logs. Raises Refused."""
        if target.verb == "watch":
            return self._watch(target, request.query)
        if target.verb == "list":
            return self._list(target, request.query)
        if target.verb == "get":
            return _object(200, self.store.entry(target.resource.plural, target.namespace, target.name), target.version)
        if target.verb == "create":
            return self._create(target, request, _load(request))
        if target.verb == "update":
            return self._update(target, request, _load(request))
        if target.verb == "patch":
            return self._patch(target, request)
        return self._delete(target, request)

    # Reading

    def _matcher(self, resource: Resource, query: dict[str, str]) -> selectors.Matcher | None:
        by_label = selectors.label_matcher(query.get("labelSelector", ""))
        by_field = selectors.field_matcher(query.get("fieldSelector", ""), resource.fields)
        if by_label and by_field:
            return lambda obj: by_label(obj) and by_field(obj)
        return by_label or by_field

    def _list(self, target: Target, query: dict[str, str]) -> Answer:
        plural, version, start = target.resource.plural, self.store.version, ""
        match = self._matcher(target.resource, query)
        if token := query.get("continue"):
            version, start = _read_token(token)
            if version < 0:
                version = self.store.version
            if version < self.store.compacted:
                raise errors.gone(_EXPIRED, **{"continue": _token(-1, start)})
        entries = self.store.entries(plural, target.namespace, version)
        entries = [entry for entry in entries if _position(entry) >= start and (match is None or match(entry.obj))]
        meta: Object = {"resourceVersion": str(version)}
        limit = int(query.get("limit") or 0)
        if limit and len(entries) > limit:
            meta["continue"] = _token(version, _position(entries[limit]))
            if match is None:
                meta["remainingItemCount"] = len(entries) - limit
            entries = entries[:limit]
        elif token:
            meta["continue"] = ""
        named = target.resource.custom
        items = b",".join(entry.json(target.version, named=named) for entry in entries)
        return Answer(200, _listing(target, meta) + items + b"]}\n")

    def _watch(self, target: Target, query: dict[str, str]) -> Watch:
        text = query.get("resourceVersion", "")
        initial = query.get("sendInitialEvents") == "true"
        try:
            since = None if text in ("", "0") or initial else int(text)
            seconds = int(query.get("timeoutSeconds", 0)) or None
        except ValueError:
            raise errors.bad_request("resourceVersion and timeoutSeconds must be whole numbers") from None
        match = self._matcher(target.resource, query)
        bookmarks = query.get("allowWatchBookmarks") in ("1", "true")
        return Watch(target.resource, target.version, target.namespace, match, since, bookmarks, initial, seconds)

    # Writing

    def _create(self, target: Target, request: Request, body: Object) -> Answer:
        resource, warnings = target.resource, list[str]()
        meta = dict(body.get("metadata") or {})
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + objects.suffix()
        name = meta.get("name", target.name)
        if resource.namespaced:
            meta["namespace"] = target.namespace
        body = self._decoded(target, request, {**body, "metadata": {**meta, "name": name}}, warnings)
        if resource.namespaced and self.store.get("namespaces", "", target.namespace) is None:
            raise errors.Refused(
                404,
                "NotFound",
                f'namespaces "{target.namespace}" not found',
                {"name": target.namespace, "kind": "namespaces"},
            )
        self._check(target, body)
        if resource.plural == "pods":
            body = objects.new_pod(self.store, body)
        elif resource.plural == "services":
            if self.store.get("services", target.namespace, name) is not None:
                raise errors.exists(resource, name)
            body = objects.new_service(body, self._cluster_ip, self._node_port)
        elif "status" in resource.subresources:
            body.pop("status", None)
        entry = self.store.create(resource.plural, body, dry=request.query.get("dryRun") == "All")
        return _object(201, entry, target.version, warnings)

    def _update(self, target: Target, request: Request, body: Object) -> Answer:
        warnings: list[str] = []
        plural = target.resource.plural
        old = self.store.entry(plural, target.namespace, target.name)
        meta = {**(body.get("metadata") or {}), "name": target.name}
        body = self._decoded(target, request, {**body, "metadata": meta}, warnings)
        sent = body["metadata"].get("resourceVersion")
        if sent and sent != old.meta["resourceVersion"]:
            raise errors.conflict(target.resource, target.name)
        fixed = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
        kept = {name: old.meta[name] for name in (*fixed, "namespace") if name in old.meta}
        meta = {key: value for key, value in body["metadata"].items() if key not in (*fixed, "managedFields") and value}
        body = {**body, "metadata": {**meta, **kept}}
        if target.subresource == "status":
            body = {**old.obj, "status": body.get("status", {})}
        elif "status" in target.resource.subresources:
            body = {**body, "status": old.obj["status"]} if "status" in old.obj else {**body}
            if "status" not in old.obj:
                body.pop("status", None)
        self._check(target, body)
        dry = request.query.get("dryRun") == "All"
        return _object(200, self.store.update(plural, body, dry=dry), target.version, warnings)

    def _patch(self, target: Target, request: Request) -> Answer:
        kind = request.headers.get("content-type", "").partition(";")[0]
        old = self.store.get(target.resource.plural, target.namespace, target.name)
        if kind == "application/apply-patch+yaml":
            body = _load(request)
            if old is None:
                created = {**body, "metadata": {**body.get("metadata", {}), "name": target.name}}
                return self._create(target, request, created)
            body.get("metadata", {}).pop("resourceVersion", None)
            return self._update(
                target, request, patches.merge(old, from_version(target.resource, target.version, body))
            )
        if kind == "application/strategic-merge-patch+json" and target.resource.custom:
            raise errors.unsupported_media(_PATCHES)
        entry = self.store.entry(target.resource.plural, target.namespace, target.name)
        body = json.loads(entry.json(target.version))
        if kind in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
            return self._update(target, request, patches.merge(body, _load(request)))
        raise errors.unsupported_media(_PATCHES)  # JSON patches too, which nobody sends.

    def _delete(self, target: Target, request: Request) -> Answer:
        options = json.loads(request.body) if request.body.strip() else {}
        query, resource = request.query, target.resource
        policy = query.get("propagationPolicy") or options.get("propagationPolicy") or ""
        grace = query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
        dry = "All" in (query.get("dryRun"), *(options.get("dryRun") or ()))
        seconds = None if grace is None else int(grace)
        if target.verb == "deletecollection":
            match = self._matcher(resource, query)
            entries = [
                entry
                for entry in self.store.entries(resource.plural, target.namespace)
                if match is None or match(entry.obj)
            ]
            for entry in () if dry else entries:
                name = (entry.meta.get("namespace", ""), entry.meta["name"])
                self.store.delete(resource.plural, *name, grace=seconds, policy=policy)
            items = b",".join(entry.json(target.version, named=resource.custom) for entry in entries)
            return Answer(200, _listing(target, {"resourceVersion": str(self.store.version)}) + items + b"]}\n")
        entry = self.store.entry(resource.plural, target.namespace, target.name)
        for field in ("uid", "resourceVersion"):
            wanted = (options.get("preconditions") or {}).get(field)
            if wanted and wanted != entry.meta[field]:
                shown = "UID" if field == "uid" else "ResourceVersion"
                why = f"Precondition failed: {shown} in precondition: {wanted}, {shown} in object meta: {entry.meta[field]}"  # noqa: E501
                raise errors.conflict(resource, target.name, why)
        if not dry:
            entry = self.store.delete(resource.plural, target.namespace, target.name, grace=seconds, policy=policy)
        if resource.plural in _RETURNED or entry.meta.get("finalizers"):
            return _object(200, entry, target.version)
        details = {"name": target.name, "group": resource.group, "kind": resource.plural, "uid": entry.meta["uid"]}
        return _status(200, {key: value for key, value in details.items() if value})

    def _decoded(self, target: Target, request: Request, body: Object, warnings: list[str]) -> Object:
        """The body in the stored version, with defaults and without unknown fields. Raises Refused (400)."""
        resource = target.resource
        wanted = (resource.api_version(target.version), resource.kind)
        sent = (body.get("apiVersion", wanted[0]), body.get("kind", wanted[1]))
        if sent != wanted:
            text = f"the API version in the data ({sent[0]}) does not match the expected API version ({wanted[0]})"
            raise errors.bad_request(text)
        if not resource.custom:
            return {key: value for key, value in body.items() if key not in ("kind", "apiVersion")}
        rules = resource.schemas[target.version]
        complete, unknown = dict(body), list[str]()
        for part in body:
            if part in ("metadata", "kind", "apiVersion"):
                continue
            if part not in rules["properties"]:
                unknown.append(part)
                del complete[part]
                continue
            complete[part], dropped = schema.complete(body[part], rules["properties"][part], part)
            unknown += dropped
        said = [f'unknown field "{path}"' for path in sorted(unknown)]
        mode = request.query.get("fieldValidation", "Warn")
        if said and mode == "Strict":
            text = f'{resource.kind} in version "{target.version}" cannot be handled as a {resource.kind}: strict decoding error: '  # noqa: E501
            raise errors.bad_request(text + ", ".join(said))
        if mode != "Ignore":
            warnings += said
        return complete

    def _check(self, target: Target, body: Object) -> None:
        """Raises Refused (422); turns `body` into the stored version."""
        resource, name = target.resource, body["metadata"]["name"]
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 253:
            raise errors.bad_name(resource, str(name))
        if resource.custom:
            causes = schema.causes(body, resource.schemas[target.version])
            if causes:
                raise errors.invalid(resource.kind, resource.group, name, causes)
            body.update(from_version(resource, target.version, body))
            body.pop("kind", None)
            body.pop("apiVersion", None)


def _load(request: Request) -> Object:
    """The body as an object. Raises Refused (400)."""
    text = request.body
    try:
        body = json.loads(text)
    except ValueError as error:
        if "yaml" not in request.headers.get("content-type", ""):
            raise errors.bad_request(f"the object provided is unrecognized: {error}") from None
        import yaml

        body = yaml.safe_load(text)
    if not isinstance(body, dict):
        raise errors.bad_request("the object provided is unrecognized (must be of type object)")
    return body


def _object(code: int, entry: Entry, version: str, warnings: list[str] | None = None) -> Answer:
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in warnings or ())
    return Answer(code, entry.json(version) + b"\n", headers=tuple(("Warning", f'299 - "{text}"') for text in quoted))


def _status(code: int, details: Object | None = None) -> Answer:
    body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return Answer(code, json.dumps({**body, **({"details": details} if details else {})}).encode())


def _listing(target: Target, meta: Object) -> bytes:
    head = {"kind": f"{target.resource.kind}List", "apiVersion": target.resource.api_version(target.version)}
    return json.dumps({**head, "metadata": meta}).encode()[:-1] + b',"items":['


def _position(entry: Entry) -> str:
    return f"{entry.meta.get('namespace', '')}/{entry.meta['name']}"


def _token(version: int, start: str) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, str]:
    try:
        data = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(data["rv"]), str(data["start"])
    except (ValueError, KeyError, TypeError):
        raise errors.bad_request("continue key is not valid: illegal base64 data") from None

"""Where the harness of a sandbox can be reached: from its Service, and from the nodes while they come and go."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from backend.sandboxes.kubernetes.manifests import PORT

Object = Mapping[str, Any]

AUTO: Final = "auto"
_OUTSIDE: Final = ("ExternalIP", "ExternalDNS")
_KINDS: Final = (*_OUTSIDE, "InternalIP")
"""Kinds of node addresses, the best first."""


class View(Protocol):
    """What is read of the cluster."""

    def pod(self, name: str) -> Object | None: ...
    def service(self, name: str) -> Object | None: ...
    def nodes(self) -> Mapping[str, Object]: ...


class Addresses:
    """The URLs of sandboxes; `moved` is called with name and URL when one that is followed has to change.

    Node ports are open on every Ready node, so that a URL is good as long as its node is.
    """

    def __init__(self, view: View, node_host: str, moved: Callable[[str, str], None]) -> None:
        self._view = view
        self._node_host = "" if node_host == AUTO else node_host
        self._moved = moved
        self._told: dict[str, str] = {}

    def find(self, name: str, service: Object) -> str | None:
        """The URL of a sandbox through its Service; None while there is no node to reach it at."""
        return self._url(name, service)

    def follow(self, name: str, url: str) -> None:
        """Keep `url` true from now on: it was told to others."""
        self._told[name] = url
        self.check(name)

    def check(self, name: str) -> None:
        """Look at a sandbox, about which something has changed."""
        told, service = self._told.get(name), self._view.service(name)
        url = self._url(name, service) if told and service else None
        if url and url != told:
            self._told[name] = url
            self._moved(name, url)

    def check_all(self) -> None:
        """Look at all, as nodes have changed."""
        for name in tuple(self._told):
            self.check(name)

    def forget(self, name: str) -> None:
        """The sandbox is gone."""
        self._told.pop(name, None)

    def _url(self, name: str, service: Object) -> str | None:
        spec = service.get("spec") or {}
        port = next((port.get("nodePort") for port in spec.get("ports") or ()), None)
        if spec.get("type") != "NodePort":
            ip = spec.get("clusterIP")
            return _http(ip, PORT) if ip and ip != "None" else None
        if not port:
            return None
        host = self._node_host or self._host(name)
        return _http(host, port) if host else None

    def _host(self, name: str) -> str | None:
        """The address told before, while it is one of a Ready node; else that of the pod's own node, or another's."""
        nodes = {node_name: node for node_name, node in sorted(self._view.nodes().items()) if is_ready(node)}
        told = self._told.get(name)
        host = urlsplit(told).hostname if told else None
        if host and (not nodes or any(host in _addresses(node, _KINDS) for node in nodes.values())):
            return host
        pod = self._view.pod(name) or {}
        own = nodes.get((pod.get("spec") or {}).get("nodeName") or "")
        for node, kinds in [(own, _KINDS), *((node, _OUTSIDE) for node in nodes.values())]:
            if found := next(_addresses(node, kinds), None):
                return found
        return next((found for node in nodes.values() for found in _addresses(node, _KINDS)), None)


def is_ready(node: Object) -> bool:
    """Whether a node says so of itself."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _addresses(node: Object | None, kinds: tuple[str, ...]) -> Iterator[str]:
    """The node's addresses of these kinds, in their order."""
    found = ((node or {}).get("status") or {}).get("addresses") or ()
    for kind in kinds:
        yield from (each["address"].lower() for each in found if each.get("type") == kind and each.get("address"))


def _http(host: str, port: int) -> str:
    bare = host.removeprefix("[").removesuffix("]")
    return f"http://[{bare}]:{port}" if ":" in bare else f"http://{bare}:{port}"

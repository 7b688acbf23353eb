"""What the pods of the whole cluster request, summed by node as pods come and go."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from backend.domain.quantities import cpu_millicores, memory_bytes

Json = dict[str, Any]
Amount = tuple[int, int]
"""Thousandths of a processor, and bytes."""

_ENDED: Final = ("Succeeded", "Failed")


def trimmed(pod: Json) -> Json:
    """What is kept of a pod: who it is, its node ("" when it takes no room on one), and what it requests."""
    metadata, spec = pod["metadata"], _object(pod.get("spec"))
    ended = _object(pod.get("status")).get("phase") in _ENDED
    node = spec.get("nodeName")
    return {
        "metadata": {key: metadata[key] for key in ("name", "namespace", "resourceVersion") if key in metadata},
        "node": node if isinstance(node, str) and not ended else "",
        "requests": of_pod(spec),
    }


def of_pod(spec: Mapping[str, Any]) -> Amount:
    """What the scheduler keeps free for a pod.

    Init containers run one after the other and before the rest, except those that stay (restartPolicy Always): they
    count from their start on. Requests of the pod as a whole, where it has some, take the place of its containers'.
    """
    staying = (0, 0)
    start = (0, 0)
    for container in _objects(spec.get("initContainers")):
        need = _requests(container)
        if container.get("restartPolicy") == "Always":
            staying = _sum(staying, need)
            start = _most(start, staying)
        else:
            start = _most(start, _sum(staying, need))
    running = staying
    for container in _objects(spec.get("containers")):
        running = _sum(running, _requests(container))
    cpu, memory = _most(start, running)
    whole = _object(_object(spec.get("resources")).get("requests"))
    own = (
        cpu if (told := _quantity(whole, "cpu")) is None else told,
        memory if (told := _quantity(whole, "memory")) is None else told,
    )
    overhead = _object(spec.get("overhead"))
    return _sum(own, (_quantity(overhead, "cpu") or 0, _quantity(overhead, "memory") or 0))


class NodeRequests:
    """Sums by node, kept as `trimmed` pods change."""

    def __init__(self) -> None:
        self._by_node: dict[str, tuple[int, int, int]] = {}

    def change(self, old: Json | None, now: Json | None) -> None:
        """A pod has come, changed or gone."""
        for pod, sign in ((old, -1), (now, 1)):
            if pod is not None and (node := pod["node"]):
                cpu, memory, pods = self.on(node)
                pods += sign
                self._by_node[node] = (cpu + sign * pod["requests"][0], memory + sign * pod["requests"][1], pods)
                if not pods:
                    del self._by_node[node]

    def on(self, node: str) -> tuple[int, int, int]:
        """(thousandths of a processor, bytes, pods) on a node."""
        return self._by_node.get(node, (0, 0, 0))


def _requests(container: Mapping[str, Any]) -> Amount:
    requests = _object(_object(container.get("resources")).get("requests"))
    return _quantity(requests, "cpu") or 0, _quantity(requests, "memory") or 0


def _quantity(amounts: Mapping[str, Any], kind: str) -> int | None:
    text = amounts.get(kind)
    if not isinstance(text, str | int):
        return None
    return cpu_millicores(str(text)) if kind == "cpu" else memory_bytes(str(text))


def _sum(one: Amount, other: Amount) -> Amount:
    return one[0] + other[0], one[1] + other[1]


def _most(one: Amount, other: Amount) -> Amount:
    return max(one[0], other[0]), max(one[1], other[1])


def _object(found: Any) -> Json:
    return found if isinstance(found, dict) else {}


def _objects(found: Any) -> Iterable[Json]:
    return (item for item in found if isinstance(item, dict)) if isinstance(found, list) else ()

"""Events as the scheduler, the kubelet and the node controller write them."""

import itertools
import time

from tests.kubernetes.double.store import Object, Store, micro_now, now

_COUNTER = itertools.count(time.time_ns())


def tell(
    store: Store,
    about: Object,
    kind: str,
    type_: str,
    reason: str,
    message: str,
    *,
    source: str = "kubelet",
    host: str = "",
    field: str = "",
    count: int = 1,
) -> None:
    """One event about an object, that was seen `count` times; `host` is the kubelet's node."""
    meta = about["metadata"]
    namespace = meta.get("namespace", "default")
    involved = {"kind": kind, "name": meta["name"], "uid": meta["uid"], "apiVersion": "v1"}
    involved["resourceVersion"] = meta["resourceVersion"]
    if "namespace" in meta:
        involved["namespace"] = namespace
    if field:
        involved["fieldPath"] = field
    event: Object = {
        "metadata": {"name": f"{meta['name']}.{next(_COUNTER):x}", "namespace": namespace},
        "involvedObject": involved,
        "reason": reason,
        "message": message,
        "type": type_,
        "reportingComponent": source,
        "reportingInstance": host if source == "kubelet" else f"{source}-vm",
    }
    if source == "default-scheduler":
        action = "Binding" if reason == "Scheduled" else "Scheduling"
        event |= {
            "eventTime": micro_now(),
            "firstTimestamp": None,
            "lastTimestamp": None,
            "source": {},
            "action": action,
        }
    else:
        where = {"component": source, **({"host": host} if host else {})}
        event |= {"eventTime": None, "firstTimestamp": now(), "lastTimestamp": now(), "source": where, "count": count}
    store.create("events", event)

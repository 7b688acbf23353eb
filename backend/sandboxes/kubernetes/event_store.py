"""The newest events of a namespace by what they are about, as many as fit."""

from collections.abc import Iterable
from typing import Any, Final

Json = dict[str, Any]
About = tuple[str, str]
"""Kind and name of the object an event is about."""

PER_OBJECT: Final = 50
IN_ALL: Final = 10_000
KINDS: Final = frozenset({"Pod", "Sandbox", "Service"})
_SLACK: Final = 1_000
"""So many more may come before old ones are looked for."""
_KEPT: Final = (
    "type",
    "reason",
    "message",
    "action",
    "count",
    "series",
    "firstTimestamp",
    "lastTimestamp",
    "eventTime",
)
_Order = tuple[str, int]


def trimmed(event: Json) -> Json:
    """What is kept of an event."""
    about, metadata = _object(event.get("involvedObject")), event["metadata"]
    return {
        **{key: event[key] for key in _KEPT if event.get(key) is not None},
        "involvedObject": {key: about[key] for key in ("kind", "name", "uid", "fieldPath") if key in about},
        "metadata": {
            key: metadata[key]
            for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
            if key in metadata
        },
    }


class EventStore:
    """Events about pods, Sandboxes and Services: PER_OBJECT of each, about IN_ALL together; the oldest go first.

    The cluster forgets events after an hour; here they stay for as long as they fit, since a sandbox that got stuck
    yesterday got stuck for the reason given then.
    """

    def __init__(self) -> None:
        self._by_object: dict[About, dict[str, tuple[_Order, Json]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, event: Json) -> About | None:
        """Keep an event, or the newer state of one; what it is about, None when nothing is new."""
        about = _object(event.get("involvedObject"))
        kind, of = about.get("kind"), about.get("name")
        if kind not in KINDS or not isinstance(of, str):
            return None
        key, name = (kind, of), event["metadata"]["name"]
        events = self._by_object.setdefault(key, {})
        if (known := events.get(name)) is not None and known[1] == event:
            return None
        self._count += known is None
        events[name] = (_order(event), event)
        if len(events) > PER_OBJECT:
            del events[min(events, key=lambda each: events[each][0])]
            self._count -= 1
        if self._count > IN_ALL + _SLACK:
            self._drop_old()
        return key

    def about(self, objects: Iterable[About]) -> list[Json]:
        """The events about any of these objects, the newest PER_OBJECT, newest last."""
        found = [entry for key in objects for entry in self._by_object.get(key, {}).values()]
        found.sort(key=lambda entry: entry[0])
        return [event for _, event in found[-PER_OBJECT:]]

    def _drop_old(self) -> None:
        orders = sorted(order for events in self._by_object.values() for order, _ in events.values())
        oldest = orders[-IN_ALL]
        for key, events in list(self._by_object.items()):
            kept = {name: entry for name, entry in events.items() if entry[0] >= oldest}
            self._count -= len(events) - len(kept)
            if kept:
                self._by_object[key] = kept
            else:
                del self._by_object[key]


def _order(event: Json) -> _Order:
    """When it last happened, and among those of one second which came later."""
    metadata = event["metadata"]
    moment = (
        _object(event.get("series")).get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event.get("firstTimestamp")
        or metadata.get("creationTimestamp")
    )
    version = metadata.get("resourceVersion")
    return (
        # Without the parts of a second that only some have, and others were cut to.
        moment[:19] if isinstance(moment, str) else "",
        int(version) if isinstance(version, str) and version.isdecimal() else 0,
    )


def _object(found: Any) -> Json:
    return found if isinstance(found, dict) else {}

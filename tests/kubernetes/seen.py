"""Objects as a real cluster told them (recordings/), and a view of a cluster that has only those."""

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backend.domain import clock

_FOLDER = Path(__file__).parent / "recordings"
NODE: dict[str, Any] = json.loads((_FOLDER / "nodes.json").read_text())["list"]["response"]["body"]["items"][0]


def _failure(recorded: dict[str, Any]) -> dict[str, Any]:
    log = recorded["log"].get("body")
    return {**recorded, "log": log if isinstance(log, str) else "", "sandbox": recorded.get("sandbox")}


FAILURES = {name: _failure(recorded) for name, recorded in json.loads((_FOLDER / "failures.json").read_text()).items()}
"""For each way a pod failed: {"pod", "events", "log" ("" when it was refused), "sandbox" (or None)}."""
NAMES = tuple(FAILURES)


@dataclass
class Seen:
    """A view of one sandbox; what is None is not there."""

    pod_: Mapping[str, Any] | None = None
    sandbox_: Mapping[str, Any] | None = None
    service_: Mapping[str, Any] | None = None
    nodes: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    requests: tuple[int, int, int] | None = (100, 2**20, 1)
    unseen: Mapping[str, str] = field(default_factory=dict)

    def pod(self, name: str) -> Mapping[str, Any] | None:
        return self.pod_

    def sandbox(self, name: str) -> Mapping[str, Any] | None:
        return self.sandbox_

    def service(self, name: str) -> Mapping[str, Any] | None:
        return self.service_

    def node(self, node_name: str) -> Mapping[str, Any] | None:
        return self.nodes.get(node_name)

    def events_of(self, name: str) -> Sequence[Mapping[str, Any]]:
        return self.events

    def requests_on(self, node_name: str) -> tuple[int, int, int] | None:
        return self.requests

    def unknown(self, kind: str) -> str | None:
        return self.unseen.get(kind)


def service(name: str) -> dict[str, Any]:
    """The service in front of a sandbox."""
    return {
        "metadata": {"name": f"{name}-np", "namespace": "golden", "creationTimestamp": ago(60)},
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.7",
            "ports": [{"port": 4096, "targetPort": 4096, "nodePort": 30123, "protocol": "TCP"}],
        },
    }


def failure(name: str, *, age_seconds: float = 90) -> tuple[Seen, dict[str, Any]]:
    """That failure as if its pod had been made so long ago, and its log as the diagnose answer has it."""
    recorded = copy.deepcopy(FAILURES[name])
    made = clock.parse(recorded["pod"]["metadata"]["creationTimestamp"]).timestamp()
    moved = _moved(recorded, time.time() - age_seconds - made)
    seen = Seen(
        pod_=moved["pod"],
        sandbox_=moved["sandbox"] or {"metadata": {"name": name, "namespace": "golden"}, "status": {}},
        service_=service(name),
        nodes={"node1": NODE},
        events=moved["events"],
    )
    log = {"available": True, "text": recorded["log"]} if recorded["log"] else {"available": False, "error": "none"}
    return seen, log


def ago(seconds: float) -> str:
    """A moment in the cluster's words."""
    return f"{datetime.now(UTC) - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def _moved(value: Any, seconds: float) -> Any:
    """All times in `value` moved on."""
    if isinstance(value, dict):
        return {key: _moved(each, seconds) for key, each in value.items()}
    if isinstance(value, list):
        return [_moved(each, seconds) for each in value]
    if isinstance(value, str) and value.startswith("20") and value.endswith("Z"):
        return clock.text(clock.parse(value) + timedelta(seconds=seconds))
    return value

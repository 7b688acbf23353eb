"""Hand-made nodes, and sessions on Kubernetes that something is wrong with, for tests of the console."""

from __future__ import annotations

from typing import Any

from lapconsole.app import LapConsole
from lapconsole.client.nodes import Nodes, PlatformProblem
from tests.screens.scene import ago
from tests.screens.wrong import GIB, LOG, POOL, diagnosis, rows, with_trouble

AWAY = "Kubernetes does not answer since 03:03:20Z: connect to 10.2.0.1:443 timed out; sessions are left as they are"
FORBIDDEN = (
    'may not list pods in all namespaces (403): without it nobody knows what nodes are asked for; add "list" and '
    '"watch" on pods to the ClusterRole'
)
HOUR = 3_600_000


def condition(type_: str, status: str, reason: str = "", message: str = "", age_ms: int = 40 * HOUR) -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": message, "age_ms": age_ms}


def node(
    name: str, cpu: int, memory: int, *extra: dict[str, Any], ready: str = "True", **fields: Any
) -> dict[str, Any]:
    """A node of 8 processors as the platform tells of it; `extra` are conditions besides Ready."""
    told = {"True": ("KubeletReady", ""), "Unknown": ("NodeStatusUnknown", "Kubelet stopped posting node status.")}
    reason, message = told[ready]
    own = condition("Ready", ready, reason, message, 40 * HOUR if ready == "True" else 250_000)
    return {
        "exists": True,
        "name": name,
        "ready_status": ready,
        "ready_reason": reason,
        "internal_ip": f"10.0.3.{cpu % 200}",
        "external_ip": None,
        "age_ms": 200 * HOUR,
        "unschedulable": False,
        "taints": [],
        "conditions": [condition("MemoryPressure", "False", age_ms=40 * HOUR), *extra, own],
        "capacity": {"cpu_millicores": 8000, "memory_bytes": 32 * GIB},
        "allocatable": {"cpu_millicores": 7910, "memory_bytes": 31 * GIB},
        "allocated_requests": {"cpu_millicores": cpu * 80, "memory_bytes": memory * GIB // 3},
        "pod_count": 31,
        "allocated_pct": {"cpu": cpu, "memory": memory},
        "sandboxes": [],
        **fields,
    }


def on(*numbers: int) -> list[dict[str, Any]]:
    """The sandboxes of these sessions, and one that stands ready for the next."""
    made = rows()
    held = [
        {"name": of.task_arn, "session_id": of.id, "agent_name": of.agent_name, "status": of.status}
        for of in (made[number] for number in numbers)
    ]
    return [
        *held,
        {"name": "w-00000000000000000000000000000002", "session_id": None, "agent_name": None, "status": None},
    ]


DEAD = node(
    "ip-10-0-3-7.ec2.internal",
    41,
    38,
    ready="Unknown",
    sandboxes=on(4, 5),
    taints=[{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}],
)
FULL = node(
    "ip-10-0-3-12.ec2.internal",
    172,
    88,
    condition("DiskPressure", "True", "KubeletHasDiskPressure", "kubelet has disk pressure", 600_000),
    sandboxes=on(3, 6),
)
CORDONED = node("ip-10-0-3-31.ec2.internal", 12, 9, unschedulable=True, external_ip="203.0.113.31")
WELL = node(
    "ip-10-0-3-40.ec2.internal",
    64,
    51,
    sandboxes=on(2),
    taints=[{"key": "gpu", "value": "true", "effect": "NoSchedule"}],
)
CLUSTER = Nodes.from_json({"data": [WELL, FULL, CORDONED, DEAD], "problems": []})
UNSURE = Nodes.from_json(
    {
        "data": [
            {
                **WELL,
                "allocated_pct": None,
                "allocated_requests": None,
                "pod_count": None,
                "allocation_error": FORBIDDEN,
            }
        ],
        "problems": [AWAY],
    }
)
LAPTOP = Nodes.from_json(
    {
        "data": [
            {
                "exists": True,
                "name": "laptop",
                "ready_status": "True",
                "internal_ip": "127.0.0.1",
                "age_ms": 31 * HOUR,
                "capacity": {"cpu_millicores": 8000, "memory_bytes": 32 * GIB},
                "allocated_requests": None,
                "allocated_pct": None,
                "pod_count": 3,
                "load": {"load_1m": 2.31, "memory_available_bytes": 11 * GIB, "disk_free_bytes": 184 * GIB},
                "sandboxes": on(3, 4),
            }
        ],
        "problems": [],
    }
)

OOM = {
    "code": "out_of_memory",
    "severity": "high",
    "message": "harness ended: OOMKilled, exit code 137",
    "recommended_action": "raise the memory limit (LAP_SANDBOX_MEMORY_MB) or let the agent do less at once, then "
    "restart the session",
    "evidence": ["webpack: building 4211 modules", "Killed"],
}
NO_SERVICE = {
    "code": "service_missing",
    "severity": "high",
    "message": "the sandbox runs, but the service in front of it does not exist",
    "recommended_action": "delete the session and create it again: the platform makes both together",
}
NO_ROOM = {
    "code": "unschedulable",
    "severity": "high",
    "message": "the scheduler finds no place for the sandbox: 0/4 nodes are available: 1 node(s) had untolerated "
    "taint(s), 3 Insufficient memory. no new claims to deallocate",
    "recommended_action": "add nodes, delete sessions nobody needs, or lower what a sandbox requests",
}
NOT_READY = {
    "code": "pod_not_ready_old",
    "severity": "med",
    "message": "the sandbox is not ready for 312 s",
    "recommended_action": "kubectl describe pod s-5e550000 -n lap shows why its readiness probe fails",
}

POD = {
    "exists": True,
    "name": "s-5e550000",
    "namespace": "lap",
    "phase": "Running",
    "age_ms": 4_100_000,
    "restart_count": 4,
    "container_statuses": [
        {"name": "clone", "init": True, "terminated_reason": "Completed", "terminated_exit_code": 0},
        {
            "name": "harness",
            "ready": False,
            "restart_count": 4,
            "waiting_reason": "CrashLoopBackOff",
            "waiting_message": "back-off 1m20s restarting failed container=harness",
            "last_terminated_reason": "OOMKilled",
            "last_terminated_exit_code": 137,
            "last_terminated_at": ago(94).isoformat(),
        },
        {"name": "vault", "ready": True, "restart_count": 0},
    ],
    "conditions": [
        condition("Ready", "False", "ContainersNotReady", "containers with unready status: [harness]", 312_000),
        condition("ContainersReady", "False", "ContainersNotReady", "", 312_000),
        condition("PodScheduled", "True"),
    ],
}
EVENTS = [
    {"reason": "Scheduled", "message": "Successfully assigned lap/s-5e550000", "at": ago(4100).isoformat(), "count": 1},
    {"reason": "Pulled", "message": "Container image already present", "at": ago(180).isoformat(), "count": 5},
    {
        "reason": "BackOff",
        "message": "Back-off restarting failed container harness in pod s-5e550000",
        "at": ago(9).isoformat(),
        "type": "Warning",
        "count": 12,
    },
]
OF_LOOPING = diagnosis(
    NO_SERVICE,
    NOT_READY,
    hints=(OOM,),
    pod=POD,
    service={"exists": False},
    node={**FULL, "sandboxes": None},
    warm_pool=POOL,
    harness_probe={"reachable": False, "error": "connection refused"},
    harness=None,
    events=EVENTS,
)
OF_PENDING = diagnosis(
    hints=(NO_ROOM,),
    session={"status": "creating", "phase": "pod_pending"},
    pod={
        "exists": True,
        "name": "s-5e550002",
        "namespace": "lap",
        "phase": "Pending",
        "age_ms": 171_000,
        "container_statuses": [],
        "conditions": [
            condition("PodScheduled", "False", "Unschedulable", NO_ROOM["message"].partition(": ")[2], 171_000)
        ],
        "error": AWAY,
    },
    service={
        "exists": True,
        "type": "NodePort",
        "name": "s-5e550002-np",
        "cluster_ip": "10.96.31.7",
        "node_port": 31877,
    },
    node={"exists": False},
    harness_probe=None,
    harness=None,
    events=[],
    pod_logs_tail={"available": False, "error": "pod not found (or container has not started writing logs yet)"},
)
PROBLEMS = (PlatformProblem("sandboxes", AWAY, ago(241)), PlatformProblem("sandboxes", FORBIDDEN, ago(70)))


def in_cluster(**script: Any) -> LapConsole:
    """A console whose platform has its sandboxes on Kubernetes, unless `script` says otherwise."""
    return with_trouble(**{"nodes": CLUSTER, "diagnose": OF_LOOPING, "sandbox_logs": LOG, **script})


def pending() -> LapConsole:
    return in_cluster(diagnose=OF_PENDING)


def away() -> LapConsole:
    return in_cluster(nodes=UNSURE, problems=PROBLEMS)


def laptop() -> LapConsole:
    return in_cluster(nodes=LAPTOP)

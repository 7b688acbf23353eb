"""Hand-made sessions that something is wrong with, their diagnoses, and what a vault saw, for tests of the console."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lapconsole.app import LapConsole
from lapconsole.client.diagnosis import Fleet
from lapconsole.client.egress import Switch, Walls, interceptions_from
from lapconsole.client.models import Diagnosis, Issue
from tests.screens.scene import AGENTS, CLONE_FAILED, PAYMENTS, ScriptedPlatform, ago, console, sessions

CLONE = {
    "code": "clone_failed",
    "severity": "high",
    "message": "the repository could not be cloned (it has no such branch)",
    "recommended_action": "correct the agent's branch and restart the session",
}
SILENT = {
    "code": "harness_unreachable",
    "severity": "high",
    "message": "the sandbox runs, but its harness does not answer: no answer within 2 s",
    "recommended_action": "read the sandbox's log for errors at its start; when it does not recover, restart the "
    "session",
}
DEAD_NODE = {
    "code": "dead_node_assigned",
    "severity": "high",
    "message": "the sandbox is on node ip-10-0-3-7.ec2.internal, which is not ready (Ready is Unknown)",
    "recommended_action": "kubectl drain ip-10-0-3-7.ec2.internal --ignore-daemonsets --delete-emptydir-data, remove "
    "the node, and restart the session: it comes up on a healthy node",
}
SLOW = {
    "code": "slow_phase",
    "severity": "med",
    "message": "the session is creating for 171 s and is in installing_deps: the requirements are being installed",
    "recommended_action": "read the sandbox's log; the phase fails by itself after 600 s",
}
BUSY = {
    "code": "machine_busy",
    "severity": "med",
    "message": "the machine is overloaded: 19 processes want its 2 processors",
    "recommended_action": "delete sessions nobody needs, or wait: everything takes longer meanwhile",
}
POOL_EMPTY = {
    "code": "warm_pool_empty_for_agent",
    "severity": "info",
    "message": "the warm pool has nothing for this agent, so its sessions start cold",
    "recommended_action": "wait for the next tick of the worker, or top the pool up",
}

WALLED = {"filesystem": True, "network": "vault", "reason": None}
OPEN = {"filesystem": False, "network": "open", "reason": "not isolated: bwrap was not found"}
GIB = 2**30
NODE = {
    "exists": True,
    "name": "laptop",
    "ready_status": "True",
    "capacity": {"cpu_millicores": 8000, "memory_bytes": 32 * GIB},
    "allocated_requests": None,
    "allocated_pct": None,
    "pod_count": 14,
    "load": {"load_1m": 2.31, "memory_available_bytes": 11 * GIB, "disk_free_bytes": 184 * GIB},
}
RUNNING = {
    "exists": True,
    "name": "lap-0005",
    "phase": "Running",
    "age_ms": 4_100_000,
    "restart_count": 0,
    "container_statuses": [{"name": "harness", "ready": True, "restart_count": 0}],
    "conditions": [{"type": "Ready", "status": "True"}],
}
SERVICE = {"exists": True, "cluster_ip": "127.0.0.1", "node_port": 41873}
POOL = {"provisioning": 1, "warm": 2, "claimed": 3, "dead": 0}
LOG = "\n".join(
    [
        "Cloning into 'handbook'...",
        *(f"remote: Counting objects: {number} %" for number in range(5, 100, 5)),
        "fatal: Remote branch releases/next not found in upstream origin",
    ]
)


def diagnosis(*issues: dict[str, Any], hints: tuple[dict[str, Any], ...] = (), **parts: Any) -> Diagnosis:
    """An answer of diagnose; `parts` replace those of a session that is well."""
    return Diagnosis.from_json(
        {
            "session": {"status": "ready"},
            "pod": RUNNING,
            "sandbox_cr": {"exists": True},
            "service": SERVICE,
            "node": NODE,
            "warm_pool": POOL,
            "harness_probe": {"reachable": True, "status": 200},
            "harness": {"setup": "done", "failure": None, "agent": {"running": True, "pid": 311}},
            "events": [],
            "pod_logs_tail": {"available": True, "text": LOG},
            **parts,
            "detected_issues": list(issues),
            "hints": list(hints),
        }
    )


NOTHING = {"exists": False}
OF_FAILED = diagnosis(
    hints=({**CLONE, "evidence": ["fatal: Remote branch releases/next not found in upstream origin"]},),
    session={"status": "failed", "failure_reason": CLONE_FAILED},
    pod=NOTHING,
    sandbox_cr=NOTHING,
    service=NOTHING,
    node=NOTHING,
    warm_pool={"provisioning": 0, "warm": 0, "claimed": 0, "dead": 0},
    harness_probe=None,
    harness=None,
)
OF_SILENT = diagnosis(
    SILENT, POOL_EMPTY, harness_probe={"reachable": False, "error": "no answer within 2 s"}, harness=None
)
OF_LOST = diagnosis(
    DEAD_NODE,
    SILENT,
    node={**NODE, "name": "ip-10-0-3-7.ec2.internal", "ready_status": "Unknown", "ready_reason": "NodeStatusUnknown"},
    service={"exists": False, "error": "no answer within 15 s"},
    events=[{"reason": "NodeNotReady", "message": "Node is not ready"}],
    harness_probe={"reachable": False, "error": "connection timed out"},
    harness=None,
)


def rows() -> list[Any]:
    """The sessions of the scene, some of them in trouble."""
    made = sessions()
    made[0] = replace(made[0], issues=(issue(CLONE),))
    made[1] = replace(made[1], issues=(issue(SLOW),))
    made[4] = replace(
        made[4], issues=(issue(SILENT), issue(BUSY)), isolation={"filesystem": True, "network": "vault", "reason": None}
    )
    made[5] = replace(
        made[5],
        issues=(issue(BUSY),),
        isolation={"filesystem": False, "network": "open", "reason": "not isolated: bwrap was not found"},
    )
    return made


def issue(value: dict[str, Any]) -> Issue:
    return Issue.from_json(value)


def _examined(row: Any, *found: dict[str, Any]) -> dict[str, Any]:
    told = {"session_id": row.id, "agent_id": row.agent_id, "agent_name": row.agent_name, "status": row.status}
    return {**told, "phase": row.phase, "detected_issues": list(found), "hints": []}


FLEET = Fleet.from_json(
    {
        "data": [
            _examined(rows()[0], CLONE),
            _examined(rows()[4], SILENT, BUSY),
            _examined(rows()[1], SLOW, BUSY),
            _examined(rows()[5], BUSY, POOL_EMPTY),
            _examined(rows()[6]),
        ],
        "checked_at": "2026-03-14T03:07:20.512Z",
        "elapsed_ms": 84,
    }
)


def seen(number: int, kind: str, host: str, path: str = "/", **fields: Any) -> dict[str, Any]:
    """One interception as a platform tells of it."""
    row = rows()[fields.pop("of", 4)]
    return {
        "id": number,
        "timestamp": ago(fields.pop("age", 20.0 * number)).isoformat(),
        "session_id": row.id,
        "kind": kind,
        "method": "GET",
        "host": host,
        "port": 443,
        "path": path,
        "rule": "allow_out: no entry matches" if kind == "blocked" else "allow_out: *.github.com",
        "count": 1,
        "stubs_swapped": [],
        "stubs_missed": [],
        "real_value_fingerprint": [],
        **fields,
    }


TOKEN = [{"stub": "stub_github_token_0123", "credential": "GITHUB_TOKEN", "real_tail": "9z"}]
SEEN = interceptions_from(
    [
        seen(1, "blocked", "telemetry.example.com", "/v2/collect?key=***", method="POST", count=14),
        seen(2, "blocked", "ads.test", "/simple/httpx/"),
        seen(3, "swapped", "api.github.com", "/repos/acme/payments-api/pulls", real_value_fingerprint=TOKEN),
        seen(4, "missed", "paste.example.net", "/new", method="PUT", stubs_missed=["stub_stripe_key_00ff"]),
        seen(5, "blocked", "169.254.169.254", "/latest/meta-data/", port=80, rule="always refused: a metadata address"),
        seen(6, "blocked", "db.internal.example", "", method="TCP", port=5432),
        seen(7, "blocked", "evil.example.org", "/x", rule="deny_out: *.example.org"),
    ],
    "",
)

WALLS = Walls(Switch(True), Switch(True))


def with_trouble(**script: Any) -> LapConsole:
    """A console whose platform has findings and a vault, unless `script` says otherwise."""
    link = {name: script.pop(name) for name in ("link", "label") if name in script}
    limited = (replace(PAYMENTS, allow_out=("*.github.com",), deny_out=("*.example.org",)), *AGENTS[1:])
    answers = {
        "diagnose": OF_FAILED,
        "fleet": FLEET,
        "walls": WALLS,
        "interceptions": SEEN,
        "sandbox_logs": LOG,
        **script,
    }
    return console(agents=limited, rows=rows(), platform=ScriptedPlatform(**answers), **link)

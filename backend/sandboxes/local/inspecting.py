"""What this machine knows of one sandbox, and of itself, for the diagnosis of a session."""

import os
import re
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from backend.domain import clock
from backend.sandboxes.contract import Inspection
from backend.sandboxes.local.record import Record

_EXIT: Final = re.compile(r"exit code (\d+)")
_UNITS: Final = {"kB": 1024}


def inspect(
    directory: Path, note: Record | None, running: bool, ended: str | None, node: Mapping[str, Any]
) -> Inspection:
    """The sandbox in `directory`. `ended` is why its process ended, where somebody saw it; `node` is this machine.

    A local sandbox is one container named harness; its service is the port it listens on.
    """
    if note is None:
        nothing = {"exists": False}
        return Inspection(pod=nothing, sandbox_cr={"exists": directory.is_dir()}, service=nothing, node=node)
    age_ms = round(clock.seconds_since(note.created_at) * 1000)
    container: dict[str, Any] = {"name": "harness", "ready": running, "restart_count": 0}
    if not running:
        code = _EXIT.search(ended or "")
        container["terminated_reason"] = ended or "gone"
        container["terminated_exit_code"] = int(code[1]) if code else None
    pod = {
        "exists": True,
        "name": note.name,
        "phase": "Running" if running else "Failed",
        "pod_ip": "127.0.0.1",
        "pod_ips": ["127.0.0.1"],
        "node_name": node["name"],
        "age_ms": age_ms,
        "restart_count": 0,
        "container_statuses": [container],
        "conditions": [{"type": "Ready", "status": str(running), "age_ms": age_ms if running else 0}],
    }
    cr = {
        "exists": True,
        "age_ms": age_ms,
        "conditions": [],
        "pod_ips": ["127.0.0.1"],
        "service": None,
        "raw_status": {"pid": note.pid, "port": note.port, "isolation": note.isolation},
    }
    service = {
        "exists": running,
        "cluster_ip": "127.0.0.1",
        "age_ms": age_ms,
        "ports": [{"port": note.port, "target_port": note.port, "node_port": note.port, "protocol": "TCP"}],
        "node_port": note.port,
    }
    if not running:
        service["error"] = "the sandbox's process has ended, and its port with it"
    return Inspection(pod=pod, sandbox_cr=cr, service=service, node=node)


def machine(sandboxes: Path) -> dict[str, Any]:
    """This machine as a node, and how busy it is. Local sandboxes request nothing: they are only limited.

    `sandboxes` is the folder they are in, where there are any. Reads files; don't wait.
    """
    memory = _meminfo()
    total, left = memory.get("MemTotal"), memory.get("MemAvailable")
    has = {"cpu_millicores": (os.cpu_count() or 1) * 1000, "memory_bytes": total}
    try:
        free: int | None = shutil.disk_usage(sandboxes if sandboxes.exists() else sandboxes.parent).free
    except OSError:
        free = None
    return {
        "exists": True,
        "name": socket.gethostname(),
        "ready_status": "True",
        "ready_reason": None,
        "internal_ip": "127.0.0.1",
        "external_ip": None,
        "age_ms": round(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000),
        "taints": [],
        "capacity": has,
        "allocatable": has,
        "allocated_requests": None,
        "pod_count": _count(sandboxes),
        "allocated_pct": None,
        "load": {"load_1m": os.getloadavg()[0], "memory_available_bytes": left, "disk_free_bytes": free},
    }


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes; empty where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if number.isdigit():
            found[name] = int(number) * _UNITS.get(unit, 1)
    return found


def _count(directory: Path) -> int:
    try:
        return len(os.listdir(directory))  # noqa: PTH208 - names only
    except OSError:
        return 0

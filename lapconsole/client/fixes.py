"""What mends a finding (the fix tables of seed 000): what a console or a command can do about it, and what to run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from lapconsole.client.errors import PlatformError
from lapconsole.client.models import Issue, Session

if TYPE_CHECKING:
    from lapconsole.client.platform import Platform

RECREATE = "recreate"
"""A new sandbox for the session."""
SERVICE = "service"
"""Put back what is missing around the sandbox."""
POOL = "pool"
"""Fill the warm pool."""
CAN_BE_DONE = (RECREATE, SERVICE, POOL)

# In the order to try them. Besides what can be done: `attach`, `delete` (a session that nobody needs), `edit` (the
# agent), `egress`, `log`, `new` (another session), `nodes`.
_FIXES: Mapping[str, tuple[str, ...]] = {
    "agent_exited": ("attach", RECREATE),
    "clone_failed": ("edit", RECREATE),
    "cluster_unseen": ("nodes",),
    "config_error": (RECREATE,),
    "dead_node_assigned": (RECREATE, "nodes"),
    "deadline_exceeded": (RECREATE,),
    "disk_full": ("delete", "nodes"),
    "env_lost": ("new",),
    "evicted": (RECREATE, "nodes"),
    "image_pull_failed": (RECREATE,),
    "machine_busy": ("delete", "nodes"),
    "memory_short": ("delete", "nodes"),
    "network_failed": ("nodes", RECREATE),
    "node_oversubscribed": ("delete", "nodes"),
    "node_pressure": ("nodes", RECREATE),
    "pod_failed": (RECREATE,),
    "pod_image_pull_backoff": (RECREATE,),
    "pod_refused": (RECREATE,),
    "program_missing": (RECREATE,),
    "quota_exceeded": ("delete", RECREATE),
    "requirements_failed": ("edit", RECREATE),
    "sandbox_gone": (RECREATE,),
    "sandbox_suspended": (RECREATE,),
    "service_missing": (SERVICE, RECREATE),
    "stale_node_host_cache_suspect": (RECREATE,),
    "unschedulable": ("nodes", "delete"),
    "vault_not_ready": ("egress",),
    "warm_pool_empty_for_agent": (POOL,),
}
_ANY = ("log", RECREATE)
_FIRST = ("edit", "delete", "new")
"""What a person has to do before anything else helps."""

# A command ends where the sentence around it goes on.
_COMMAND = re.compile(
    r"kubectl (?:(?:drain|cordon|uncordon|logs) [\w.<>-]+|rollout restart [\w./<>-]+|patch \w+ [\w.<>-]+"
    r"|auth can-i --list|get --raw [\w/]+|(?:describe|get) (?:quota|pvc|\w+s)\b|(?:describe|get|delete) \w+ [\w.<>-]+)"
    r"(?: -[ncp] (?:'[^']*'|[\w.-]+)| --[\w-]+(?:=[\w.-]+)?)*"
)


def fixes_of(issue: Issue) -> tuple[str, ...]:
    """What helps against a finding, in the order to try it: `command` (copy what to run) where its cure names one.

    One that is not known is read about first.
    """
    found = _FIXES.get(issue.code, _ANY)
    return ("command", *found) if command_of(issue) else found


def first_fix(issues: Iterable[Issue]) -> str | None:
    """The first thing that can be done about the first finding that nothing else has to be done about before."""
    plans = (fixes_of(issue) for issue in issues)
    return next((fix for plan in plans if not {*_FIRST} & {*plan} for fix in plan if fix in CAN_BE_DONE), None)


def command_of(issue: Issue) -> str:
    """The command line its cure names, "" for most. It is a person's to run."""
    found = _COMMAND.search(issue.recommended_action or "")
    return found[0] if found else ""


def effects_of(fix: str, session: Session) -> tuple[str, ...]:
    """What one of CAN_BE_DONE will do, one by one: for whoever is asked before it is done."""
    if fix == POOL:
        return (
            "Sandboxes are set up in advance, as many as the pool's size says, for agents used lately.",
            "They take memory and processors while they wait. Nothing that runs is touched.",
        )
    if fix == SERVICE:
        return (
            "The Service in front of its sandbox is made again, if it is missing.",
            "The sandbox and what runs in it are not touched. If nothing is missing, nothing happens.",
        )
    first = ("It is still coming up: it is stopped first.",) if session.status == "creating" else ()
    lost = "Its sandbox is thrown away, with all that is not pushed, and a new one comes up."
    return (
        *first,
        f"It keeps its id and its title. {lost if session.active else 'A new sandbox comes up.'}",
        "Variables given for this session alone are lost: they are never stored.",
    )


async def recreate(platform: Platform, session: Session) -> Session:
    """Give a session a new sandbox, also one that hangs while it comes up; the session as it is then.

    On a platform without restart it is deleted, and one like it, with another id, takes its place.
    """
    if session.status == "creating":  # a restart waits for it to settle, which may be never
        await platform.stop_session(session.id)
    try:
        return await platform.restart_session(session.id)
    except PlatformError as error:
        if error.status not in (405, 501):
            raise
    await platform.delete_session(session.id)
    return await platform.create_session(session.agent_id, {"title": session.title} if session.title else None)

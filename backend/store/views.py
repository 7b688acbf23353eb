"""Stored rows as the JSON the outside sees: ApiAgent, ApiSession (seeds 001 and 003, LAP REST 2.2, 3.2) and others.

Built from rows alone and without secrets, so the event log and the API share them. What depends on the caller
(`tty_url`, `tty_token`) is added by the API.
"""

from typing import Any

from backend.domain import sessions
from backend.domain.agents import supports_tui
from backend.domain.env_vars import masked
from backend.domain.prompts import attached_skill_ids
from backend.store.database import Row


def agent(row: Row) -> dict[str, Any]:
    """ApiAgent; `env_vars` shows keys only, `sandbox_files` all that the row has."""
    return {
        "id": row["id"],
        "name": row["name"],
        "model": row["model"],
        "prompt": row["prompt"],
        "harness_id": row["harness_id"],
        "harness_image": row["harness_image"],
        "supports_tui": supports_tui(row["harness_id"]),
        "repo_url": row["repo_url"],
        "branch": row["branch"],
        "pfp_url": row["pfp_url"],
        "requirements": row["requirements"],
        "mcp_servers": row["mcp_servers"],
        "env_vars": masked(row["env_vars"]),
        "attached_skill_ids": attached_skill_ids(row["prompt"]),
        "allow_out": row["allow_out"],
        "deny_out": row["deny_out"],
        "env_var_hosts": row["env_var_hosts"],
        "env_var_plain": row["env_var_plain"],
        "sandbox_files": row["sandbox_files"],
        "recording": row["recording"],
        "preload_memory_limit": row["preload_memory_limit"],
        "created_at": row["created_at"],
    }


def agent_without_contents(row: Row) -> dict[str, Any]:
    """ApiAgent whose `sandbox_files` lack `content`: up to 10 MB have no place in the event log."""
    files = [{name: value for name, value in file.items() if name != "content"} for file in row["sandbox_files"]]
    return {**agent(row), "sandbox_files": files}


def session(row: Row) -> dict[str, Any]:
    """ApiSession without `tty_url` and `tty_token`. `row` has the agent's `agent_name` and `harness_id`."""
    return {
        "id": row["id"],
        "agent_id": row["agent_id"],
        "agent_name": row["agent_name"],
        "harness_id": row["harness_id"],
        "status": row["status"],
        "phase": row["phase"],
        "phase_detail": row["phase_detail"],
        "sandbox_url": row["sandbox_url"] if row["status"] == sessions.READY else None,
        "response": row["response"],
        "created_at": row["created_at"],
        "creating_since": row["creating_since"],
        "ready_at": row["ready_at"],
        "stopped_at": row["stopped_at"],
        "last_seen_at": row["last_seen_at"],
        "idle_timeout_ms": row["idle_timeout_ms"],
        "failure_reason": row["failure_reason"],
        "harness_session_id": row["harness_session_id"],
        "supports_tui": supports_tui(row["harness_id"]),
        "task_arn": row["task_arn"],
        "title": row["title"],
        "title_preview": row["title_preview"],
        "origin": None,
        "sandboxes": None,
        "isolation": row["isolation"],
        "viewers": row["viewers"],
        "attached": row["attached"],
        "terminal": row["terminal"],
        "activity": row["activity"],
        "issues": row["issues"],
        "recording": row["recording"],
        "skill_ids": row["skill_ids"],
        "warnings": row["warnings"],
    }


def skill(row: Row) -> dict[str, Any]:
    """ApiSkill (LAP REST 7.2)."""
    return {key: row[key] for key in ("id", "name", "description", "content", "created_at")}


def skill_without_content(row: Row) -> dict[str, Any]:
    """ApiSkill for the event log, which is no place for long texts."""
    return {name: value for name, value in skill(row).items() if name != "content"}


def skill_version(row: Row) -> dict[str, Any]:
    """A content that a skill had before."""
    return {key: row[key] for key in ("skill_id", "version_number", "content", "changed_by_session_id", "created_at")}


def memory(row: Row) -> dict[str, Any]:
    """ApiMemory (LAP REST 7.1)."""
    return {
        "id": row["id"],
        "agent_id": row["agent_id"],
        "text": row["text"],
        "tags": row["tags"],
        "type": row["type"],
        "priority": row["priority"],
        "pinned": row["pinned"],
        "disabled": row["disabled"],
        "times_applied": row["times_applied"],
        "last_applied_at": row["last_applied_at"],
        "source": row["source"],
        "source_user_id": row["source_user_id"],
        "source_session_id": row["source_session_id"],
        "source_thread_ts": row["source_thread_ts"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def interception(row: Row) -> dict[str, Any]:
    """Something the vault has seen (LAP REST 3.9, with more said). `stubs` names each stub and its credential."""
    view = {
        "id": row["id"],
        "timestamp": row["at"],
        "session_id": row["session_id"],
        "kind": row["kind"],
        "method": row["method"],
        "host": row["host"],
        "port": row["port"],
        "path": row["path"],
        "rule": row["rule"],
        "count": row["count"],
        "stubs_swapped": [each["stub"] for each in row["stubs"]] if row["kind"] == "swapped" else [],
        "stubs_missed": [each["stub"] for each in row["stubs"]] if row["kind"] == "missed" else [],
        "real_value_fingerprint": row["stubs"] if row["kind"] == "swapped" else [],
    }
    return view | {"blocked": True} if row["kind"] == "blocked" else view

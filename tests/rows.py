"""Rows for the database, complete but for what a test cares about."""

from typing import Any


def agent_row(agent_id: str, **values: Any) -> dict[str, Any]:
    """An agent that can be stored."""
    return {
        "id": agent_id,
        "name": None,
        "model": "some/model",
        "prompt": None,
        "harness_id": "codex",
        "harness_image": None,
        "repo_url": None,
        "branch": "main",
        "pfp_url": None,
        "requirements": None,
        "mcp_servers": [],
        "env_vars": {},
        "allow_out": [],
        "deny_out": [],
        "env_var_hosts": {},
        "env_var_plain": [],
        "sandbox_files": [],
        "preload_memory_limit": 10,
        "recording": False,
        "created_at": "2026-05-01T00:00:00.000Z",
        **values,
    }


def session_row(session_id: str, agent_id: str = "a1", **values: Any) -> dict[str, Any]:
    """A session in `creating` that can be stored."""
    return {
        "id": session_id,
        "agent_id": agent_id,
        "status": "creating",
        "phase": "creating_sandbox",
        "task_arn": f"s-{session_id}",
        "created_at": "2026-05-01T00:00:00.000Z",
        "creating_since": "2026-05-01T00:00:00.000Z",
        **values,
    }


def memory_row(memory_id: str, agent_id: str = "a1", **values: Any) -> dict[str, Any]:
    """A memory that can be stored."""
    return {
        "id": memory_id,
        "agent_id": agent_id,
        "text": f"text of {memory_id}",
        "tags": [],
        "type": "convention",
        "priority": 0,
        "pinned": False,
        "disabled": False,
        "times_applied": 0,
        "last_applied_at": None,
        "source": "ui",
        "source_user_id": None,
        "source_session_id": None,
        "source_thread_ts": None,
        "created_at": "2026-05-01T00:00:00.000Z",
        "updated_at": "2026-05-01T00:00:00.000Z",
        **values,
    }


def skill_row(skill_id: str, **values: Any) -> dict[str, Any]:
    """A skill that can be stored."""
    return {
        "id": skill_id,
        "name": f"name of {skill_id}",
        "description": None,
        "content": f"content of {skill_id}",
        "created_at": "2026-05-01T00:00:00.000Z",
        **values,
    }

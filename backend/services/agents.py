"""Agents: create, list, change, delete (seed 003, LAP REST 2)."""

import uuid
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from backend.domain import agents as rules
from backend.domain import clock, egress, env_vars, files, hosts, repositories
from backend.domain.memory import DEFAULT_PRELOAD
from backend.domain.problems import Problem
from backend.services import skills
from backend.services.errors import Conflict, Invalid, agent_not_found
from backend.services.recordings import Recordings
from backend.store import agents, sessions
from backend.store.database import Database, Row
from backend.store.secrets import Cipher, DecryptError

DELETE_ATTEMPTS = 3


class SessionStopper(Protocol):
    """Who ends the sessions of an agent that is about to go."""

    async def stop_all_for_agent(self, agent_id: str) -> None:
        """Stop every active session of the agent and remove its sandbox."""
        ...


class AgentsService:
    """Use cases on agents. Takes values whose JSON types are checked, and checks the rules of the domain."""

    def __init__(self, database: Database, cipher: Cipher, sessions: SessionStopper, recordings: Recordings) -> None:
        self._database = database
        self._cipher = cipher
        self._sessions = sessions
        self._recordings = recordings

    async def create(self, values: Mapping[str, Any]) -> Row:
        """Store a new agent from the fields of LAP REST 2.1. Raises Invalid, or NotFound for an unknown skill id."""
        row = {name: values.get(name, default) for name, default in _NEW_AGENT.items()}
        env: Mapping[str, str] = row["env_vars"]
        _trim_hosts(row)
        _refuse([*_problems(row), *_mask_problems(env, stored=()), *_scope_problems(row)])
        row |= {"id": str(uuid.uuid4()), "created_at": clock.now(), "env_vars": self._encrypted(env)}
        async with self._database.begin() as tx:
            row["prompt"] = await skills.attached(tx, row["prompt"], values.get("skill_ids", ()))
            return await agents.add(tx, row)

    async def get(self, agent_id: str) -> Row:
        """The agent's row. Raises NotFound."""
        async with self._database.read() as tx:
            row = await agents.get(tx, agent_id)
        if row is None:
            raise agent_not_found(agent_id)
        return row

    async def change(self, agent_id: str, values: Mapping[str, Any]) -> Row:
        """Replace the given fields (LAP REST 2.5); others stay. Raises Invalid, NotFound.

        An `env_vars` value that is the mask keeps the stored value of its key.
        """
        row = {name: value for name, value in values.items() if name in _CHANGEABLE}
        _trim_hosts(row)
        _refuse(_problems(row))
        async with self._database.begin() as tx:
            stored = await agents.get(tx, agent_id)
            if stored is None:
                raise agent_not_found(agent_id)
            if "env_vars" in row:
                row["env_vars"] = self._merged(row["env_vars"], stored["env_vars"])
            _follow_env(row, stored)
            _refuse(_scope_problems({**stored, **row}))
            changed = {name: value for name, value in row.items() if value != stored[name]}
            if not changed:
                return stored
            return await agents.change(tx, agent_id, changed) or stored

    async def delete(self, agent_id: str) -> None:
        """Stop the agent's sessions, then remove it. Raises NotFound, or Conflict when sessions keep starting."""
        for _ in range(DELETE_ATTEMPTS):
            async with self._database.begin() as tx:
                if not await agents.known(tx, agent_id):  # from here on nobody opens a session of it
                    raise agent_not_found(agent_id)
                # One may have been opened while others were being stopped: none may be active when the row goes.
                free = not await sessions.active(tx, agent_id)
                if free:
                    recorded = await sessions.recorded(tx, agent_id)
                    await agents.remove(tx, agent_id)
            if free:
                await self._recordings.remove(recorded)
                return
            await self._sessions.stop_all_for_agent(agent_id)
        raise Conflict(f"agent '{agent_id}' still has active sessions: stop them, then delete it again")

    def environment(self, row: Row) -> dict[str, str]:
        """The agent's env vars in the clear, for a sandbox. Raises DecryptError."""
        return {key: self._cipher.decrypt(stored) for key, stored in row["env_vars"].items()}

    def _encrypted(self, env: Mapping[str, str]) -> dict[str, str]:
        return {key: self._cipher.encrypt(value) for key, value in env.items()}

    def _merged(self, env: Mapping[str, str], stored: Mapping[str, str]) -> dict[str, str]:
        _refuse(_mask_problems(env, stored))
        kept = {key: stored[key] for key, value in env.items() if value == env_vars.MASK}
        try:
            clear = {key: self._cipher.decrypt(kept[key]) if key in kept else value for key, value in env.items()}
        except DecryptError as error:
            raise Conflict(str(error)) from error
        _refuse(env_vars.problems(clear))
        return {key: kept[key] if key in kept else self._cipher.encrypt(value) for key, value in env.items()}


_NEW_AGENT: Mapping[str, Any] = {
    "name": None,
    "model": None,
    "prompt": None,
    "harness_id": rules.DEFAULT_HARNESS,
    "harness_image": None,
    "repo_url": None,
    "branch": rules.DEFAULT_BRANCH,
    "pfp_url": None,
    "requirements": None,
    "mcp_servers": [],
    "env_vars": {},
    "allow_out": [],
    "deny_out": [],
    "env_var_hosts": {},
    "env_var_plain": [],
    "sandbox_files": [],
    "recording": False,
    "preload_memory_limit": DEFAULT_PRELOAD,
}
_CHANGEABLE = frozenset(_NEW_AGENT) - {"harness_id", "repo_url", "requirements"}


def _problems(row: Mapping[str, Any]) -> list[Problem]:
    """What the rules of the domain say against the fields that `row` has."""
    found: list[Problem] = []
    harness_id = row.get("harness_id")
    if harness_id is not None and harness_id not in rules.HARNESSES:
        message = f'unknown harness_id "{harness_id}". Valid: {", ".join(rules.HARNESSES)}'
        found.append(Problem(("harness_id",), message, "unknown"))
    for name, check in (("repo_url", repositories.url_problem), ("branch", repositories.branch_problem)):
        if row.get(name) is not None and (reason := check(row[name])):
            found.append(Problem((name,), f"{name} {reason}"))
    for name in ("allow_out", "deny_out"):
        found += [
            Problem((name, index), reason)
            for index, entry in enumerate(row.get(name, ()))
            if (reason := hosts.problem(entry))
        ]
    found += [
        Problem(("env_var_hosts", name, index), reason)
        for name, entries in row.get("env_var_hosts", {}).items()
        for index, entry in enumerate(entries)
        if (reason := hosts.problem(entry))
    ]
    found += env_vars.problems(row.get("env_vars", {}))
    found += files.problems([files.SandboxFile.from_json(file) for file in row.get("sandbox_files", ())])
    return found


def _mask_problems(env: Mapping[str, str], stored: Collection[str]) -> list[Problem]:
    return [
        Problem(("env_vars", key), f"{env_vars.MASK} stands for a stored value, and there is none", "nothing_stored")
        for key, value in env.items()
        if value == env_vars.MASK and key not in stored
    ]


def _follow_env(row: dict[str, Any], stored: Mapping[str, Any]) -> None:
    """What is said of a variable goes with it."""
    if "env_vars" not in row:
        return
    if "env_var_hosts" not in row:
        row["env_var_hosts"] = {k: each for k, each in stored["env_var_hosts"].items() if k in row["env_vars"]}
    if "env_var_plain" not in row:
        row["env_var_plain"] = [name for name in stored["env_var_plain"] if name in row["env_vars"]]


def _scope_problems(row: Mapping[str, Any]) -> list[Problem]:
    """Hosts of credentials must fit the whole agent (LAP harness 5.3)."""
    found = [
        Problem((field, name), f"{field}: '{name}' is not a defined env var", "unknown")
        for field in ("env_var_hosts", "env_var_plain")
        for name in row[field]
        if name not in row["env_vars"]
    ]
    return found + [
        Problem(
            ("env_var_hosts", name, index),
            f"env_var_hosts: host '{entry}' for '{name}' is not in the agent's allowed hosts",
            "not_allowed",
        )
        for name, entries in row["env_var_hosts"].items()
        for index, entry in enumerate(entries)
        if hosts.problem(entry) is None and not egress.covered(entry, row["allow_out"])
    ]


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise Invalid(problems)


def _trim_hosts(row: dict[str, Any]) -> None:
    for name in ("allow_out", "deny_out"):
        if name in row:
            row[name] = [entry.strip() for entry in row[name]]
    if "env_var_hosts" in row:
        row["env_var_hosts"] = {k: [entry.strip() for entry in each] for k, each in row["env_var_hosts"].items()}

"""Skills: the library, attaching to agents, and what a session gets of them (LAP REST 2.6, 7.2)."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from backend.domain import clock, prompts
from backend.domain import skills as rules
from backend.domain.problems import Problem
from backend.services.errors import Conflict, Invalid, NotFound, agent_not_found
from backend.store import agents, sessions, skills
from backend.store.database import Database, Row, Transaction


async def for_session(
    tx: Transaction, prompt: str | None, skill_ids: Sequence[str]
) -> tuple[str | None, list[dict[str, str]]]:
    """The prompt with the session's own skills attached to it, and every skill as `{"slug", "content"}` of its file.

    Blocks keep what was attached; files have what the library says now. Deleted skills have no file.
    """
    for skill in await skills.by_ids(tx, skill_ids):
        prompt = prompts.attach_skill(prompt, skill["id"], skill["content"])
    files: dict[str, str] = {}
    for skill in await skills.by_ids(tx, prompts.attached_skill_ids(prompt)):
        slug = rules.slug(skill["name"], files)
        files[slug] = rules.document(skill["id"], slug, skill["name"], skill["description"], skill["content"])
    return prompt, [{"slug": slug, "content": content} for slug, content in files.items()]


async def attached(tx: Transaction, prompt: str | None, skill_ids: Sequence[str]) -> str | None:
    """`prompt` with skills of the library attached. Raises NotFound, or Invalid when it would become too long."""
    found = await skills.by_ids(tx, skill_ids)
    if len(found) < len(set(skill_ids)):
        raise NotFound("one or more skill_ids not found")
    for skill in found:
        prompt = prompts.attach_skill(prompt, skill["id"], skill["content"])
        if len(prompt) > prompts.LIMIT:
            raise Invalid([Problem(("skill_ids",), f"skill_ids: {_TOO_LONG}", "too_long")])
    return prompt


class SkillsService:
    """Use cases on skills. Takes values whose JSON types are checked, and checks the rules of the domain."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, values: Mapping[str, Any]) -> Row:
        """Store a new skill from `name`, `content` and maybe `description`. Raises Invalid, Conflict."""
        _check(values)
        async with self._database.begin() as tx:
            return await self._add(tx, values)

    async def get(self, skill_id: str) -> Row:
        """The skill's row. Raises NotFound."""
        async with self._database.read() as tx:
            return await _known(tx, skill_id)

    async def change(self, skill_id: str, values: Mapping[str, Any], session_id: str | None = None) -> Row:
        """Replace the given fields; a content that is replaced becomes a version. Raises Invalid, NotFound.

        `session_id` says which session did it; one that does not exist is not noted. Prompts keep what was attached.
        """
        _check(values)
        async with self._database.begin() as tx:
            stored = await _known(tx, skill_id)
            changed = {name: value for name, value in values.items() if value != stored[name]}
            if not changed:
                return stored
            if "content" in changed:
                known = session_id is not None and await sessions.get(tx, session_id) is not None
                await skills.add_version(
                    tx,
                    skill_id,
                    content=stored["content"],
                    changed_by_session_id=session_id if known else None,
                    at=clock.now(),
                    keep=rules.VERSIONS_KEPT,
                )
            return await skills.change(tx, skill_id, changed) or stored

    async def delete(self, skill_id: str) -> None:
        """Remove a skill from the library; its blocks in prompts stay. Raises NotFound."""
        async with self._database.begin() as tx:
            if not await skills.remove(tx, skill_id):
                raise _not_found(skill_id)

    async def versions(self, skill_id: str, *, limit: int, offset: int) -> list[Row]:
        """Former contents, the last replaced one first. Raises NotFound."""
        async with self._database.read() as tx:
            await _known(tx, skill_id)
            return await skills.versions(tx, skill_id, limit=limit, offset=offset)

    async def attach(self, agent_id: str, skill_id: str) -> tuple[Row, Row]:
        """Attach a skill of the library to an agent: both rows. Idempotent. Raises NotFound, Conflict."""
        async with self._database.begin() as tx:
            agent = await _agent(tx, agent_id)
            skill = await _known(tx, skill_id)
            return await _attach(tx, agent, skill_id, skill["content"]), skill

    async def attach_content(
        self, agent_id: str, content: str, *, name: str | None, description: str | None, save: bool
    ) -> tuple[Row, Row | None]:
        """Attach a text to an agent; with `save` it also becomes a skill of the library, which is returned.

        Idempotent without `save`. Raises Invalid, NotFound, Conflict.
        """
        _check({"content": content})
        async with self._database.begin() as tx:
            agent = await _agent(tx, agent_id)
            skill = None
            if save:
                values = {"name": name or rules.title(content), "description": description, "content": content}
                skill = await self._add(tx, values)
            skill_id = skill["id"] if skill else rules.inline_id(content)
            return await _attach(tx, agent, skill_id, content), skill

    async def detach(self, agent_id: str, skill_id: str | None) -> Row:
        """Take one skill, or all, out of an agent's prompt. Idempotent. Raises NotFound for an unknown agent."""
        async with self._database.begin() as tx:
            agent = await _agent(tx, agent_id)
            return await _set_prompt(tx, agent, prompts.detach_skill(agent["prompt"], skill_id))

    async def _add(self, tx: Transaction, values: Mapping[str, Any]) -> Row:
        if await skills.count(tx) >= rules.MAX_SKILLS:
            raise Conflict(f"there are {rules.MAX_SKILLS} skills: delete some, then try again")
        row = {"description": None, **values, "id": str(uuid.uuid4()), "created_at": clock.now()}
        return await skills.add(tx, row)


_TOO_LONG = f"with its skills the prompt would be longer than {prompts.LIMIT} characters"


async def _attach(tx: Transaction, agent: Row, skill_id: str, content: str) -> Row:
    prompt = prompts.attach_skill(agent["prompt"], skill_id, content)
    if prompt != agent["prompt"] and len(prompt) > prompts.LIMIT:
        raise Conflict(f"{_TOO_LONG}: detach another one, or shorten the prompt")
    return await _set_prompt(tx, agent, prompt)


async def _set_prompt(tx: Transaction, agent: Row, prompt: str) -> Row:
    if prompt == (agent["prompt"] or ""):
        return agent
    return await agents.change(tx, agent["id"], {"prompt": prompt or None}) or agent


def _check(values: Mapping[str, Any]) -> None:
    reason = rules.content_problem(values["content"]) if "content" in values else None
    if reason:
        raise Invalid([Problem(("content",), f"content {reason}")])


async def _agent(tx: Transaction, agent_id: str) -> Row:
    row = await agents.get(tx, agent_id)
    if row is None:
        raise agent_not_found(agent_id)
    return row


async def _known(tx: Transaction, skill_id: str) -> Row:
    row = await skills.get(tx, skill_id)
    if row is None:
        raise _not_found(skill_id)
    return row


def _not_found(skill_id: str) -> NotFound:
    return NotFound(f"skill '{skill_id}' not found")

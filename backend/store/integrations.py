"""Queries on integrations: installs, bindings, sessions opened from elsewhere, what came in and what is to go out."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import bindparam, delete, select, update

from backend.store import events
from backend.store.database import Row, Transaction
from backend.store.dialects import insert
from backend.store.tables import agent_integration_binding as bindings
from backend.store.tables import integration_delivery as deliveries_table
from backend.store.tables import integration_install as installs_table
from backend.store.tables import integration_post as posts_table
from backend.store.tables import integration_session as links
from backend.store.tables import oauth_state as states
from backend.store.tables import session

WAITING: Final = "waiting"
SAYING: Final = "saying"
"""A message is being given to an agent: its end is not known yet."""
DONE: Final = "done"
FAILED: Final = "failed"


async def add_state(tx: Transaction, values: Mapping[str, Any], now: str) -> None:
    """Remember an authorization under way, and forget those whose time is over at `now`."""
    await tx.execute(delete(states).where(states.c.expires_at <= now))
    await tx.execute(insert(states).values(dict(values)))


async def take_state(tx: Transaction, digest: str) -> Row | None:
    """An authorization under way, which nobody can take again."""
    return await tx.row(delete(states).where(states.c.digest == digest).returning(*states.c))


async def installs(tx: Transaction, integration_id: str) -> list[Row]:
    """All installs of an integration, by name."""
    query = select(installs_table).where(installs_table.c.integration_id == integration_id)
    return await tx.rows(query.order_by(installs_table.c.workspace_name, installs_table.c.id))


async def install(tx: Transaction, install_id: str) -> Row | None:
    """One install."""
    return await tx.row(select(installs_table).where(installs_table.c.id == install_id))


async def install_in(tx: Transaction, integration_id: str, workspace_id: str) -> Row | None:
    """The install in a workspace."""
    return await tx.row(
        select(installs_table).where(
            installs_table.c.integration_id == integration_id, installs_table.c.workspace_id == workspace_id
        )
    )


async def add_install(tx: Transaction, values: Mapping[str, Any]) -> Row:
    """Store an install, or renew the one in the same workspace, which keeps its id. Appends `integration.installed`."""
    renewed = {name: value for name, value in values.items() if name not in ("id", "created_at")}
    workspace = (installs_table.c.integration_id, installs_table.c.workspace_id)
    query = insert(installs_table).values(dict(values)).on_conflict_do_update(index_elements=workspace, set_=renewed)
    row = await tx.row(query.returning(*installs_table.c))
    assert row is not None
    await _append(tx, "integration.installed", row, None)
    return row


async def change_install(tx: Transaction, install_id: str, values: Mapping[str, Any]) -> None:
    """Change some columns, such as the tokens."""
    await tx.execute(update(installs_table).where(installs_table.c.id == install_id).values(dict(values)))


async def binding(tx: Transaction, agent_id: str, integration_id: str) -> Row | None:
    """An agent's binding, with `workspace_name`."""
    return await tx.row(
        select(bindings, installs_table.c.workspace_name)
        .join(installs_table, installs_table.c.id == bindings.c.install_id)
        .where(bindings.c.agent_id == agent_id, bindings.c.integration_id == integration_id)
    )


async def bind(tx: Transaction, values: Mapping[str, Any], install_row: Row) -> None:
    """Bind an agent, which has one binding of each integration: this one. Appends `integration.bound`."""
    await tx.execute(
        delete(bindings).where(
            bindings.c.agent_id == values["agent_id"], bindings.c.integration_id == values["integration_id"]
        )
    )
    await tx.execute(insert(bindings).values(dict(values)))
    await _append(tx, "integration.bound", install_row, values["agent_id"])


async def unbind(tx: Transaction, agent_id: str, integration_id: str) -> int:
    """Remove an agent's binding; how many there were. Appends `integration.unbound`."""
    row = await binding(tx, agent_id, integration_id)
    if row is None:
        return 0
    await tx.execute(delete(bindings).where(bindings.c.id == row["id"]))
    await _append(tx, "integration.unbound", {**row, "id": row["install_id"]}, agent_id)
    return 1


async def bound_agent(tx: Transaction, install_id: str) -> str | None:
    """The agent that works for an install: the one bound last."""
    query = select(bindings.c.agent_id).where(bindings.c.install_id == install_id, bindings.c.enabled)
    found: str | None = await tx.scalar(query.order_by(bindings.c.created_at.desc(), bindings.c.id.desc()).limit(1))
    return found


_links = (
    select(links, session.c.status, installs_table.c.integration_id, installs_table.c.workspace_name)
    .join(session, session.c.id == links.c.session_id)
    .join(installs_table, installs_table.c.id == links.c.install_id)
)


_linked = select(links.c.session_id).where(links.c.session_id == bindparam("session_id"))


async def add_link(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Note which session works on what was asked for elsewhere."""
    await tx.execute(insert(links).values(dict(values)))


async def link(tx: Transaction, install_id: str, external_session_id: str) -> Row | None:
    """The session behind a conversation elsewhere, with its `status`."""
    return await tx.row(
        _links.where(links.c.external_session_id == external_session_id, links.c.install_id == install_id)
    )


async def link_of(tx: Transaction, session_id: str) -> Row | None:
    """Where a session was asked for, with `integration_id` and `workspace_name`."""
    return await tx.row(_links.where(links.c.session_id == session_id))


async def origin(tx: Transaction, session_id: str) -> dict[str, Any] | None:
    """Where a session was asked for, as it is shown (LAP REST 3.2); None for one of the platform's own."""
    # First what nearly all sessions lack: each is asked for often.
    if await tx.scalar(_linked, {"session_id": session_id}) is None:
        return None
    row = await link_of(tx, session_id)
    names = ("integration_id", "external_session_id", "external_ref", "workspace_name")
    return {**{name: row[name] for name in names}, "url": None} if row else None


async def links_of_issue(tx: Transaction, install_id: str, issue_id: str) -> list[Row]:
    """The sessions that work, or worked, on an issue; the last first."""
    query = _links.where(links.c.install_id == install_id, links.c.issue_id == issue_id)
    return await tx.rows(query.order_by(links.c.created_at.desc()))


async def linked_sessions(tx: Transaction) -> list[str]:
    """Ids of all sessions that were asked for elsewhere."""
    return [row["session_id"] for row in await tx.rows(select(links.c.session_id))]


async def change_link(tx: Transaction, session_id: str, values: Mapping[str, Any]) -> None:
    """Change some columns."""
    await tx.execute(update(links).where(links.c.session_id == session_id).values(dict(values)))


async def is_known(tx: Transaction, delivery: str, body_digest: str) -> bool:
    """Whether a delivery, or the same body, came before."""
    query = select(deliveries_table.c.seq).where(
        (deliveries_table.c.delivery == delivery) | (deliveries_table.c.body_digest == body_digest)
    )
    return await tx.scalar(query.limit(1)) is not None


async def add_delivery(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Store what is to be done."""
    await tx.execute(insert(deliveries_table).values(dict(values)))


async def deliveries(tx: Transaction, state: str) -> list[Row]:
    """Deliveries in a state, oldest first."""
    query = select(deliveries_table).where(deliveries_table.c.state == state)
    return await tx.rows(query.order_by(deliveries_table.c.seq).limit(200))


async def change_delivery(tx: Transaction, seq: int, values: Mapping[str, Any]) -> None:
    """Change some columns; what it asked for is forgotten once it is over."""
    values = dict(values)
    if values.get("state") in (DONE, FAILED):
        values["event"] = {}
    await tx.execute(update(deliveries_table).where(deliveries_table.c.seq == seq).values(values))


async def forget_deliveries(tx: Transaction, before: str) -> None:
    """Forget those over that came before a moment."""
    over = deliveries_table.c.state.in_((DONE, FAILED))
    await tx.execute(delete(deliveries_table).where(over, deliveries_table.c.received_at < before))


async def add_post(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Store what is to be posted."""
    await tx.execute(insert(posts_table).values(dict(values)))


async def posts(tx: Transaction) -> list[Row]:
    """The first that is still to be posted of each conversation, oldest first: they must appear in order."""
    query = select(posts_table).order_by(posts_table.c.seq).limit(1000)
    first: dict[str, Row] = {}
    for row in await tx.rows(query):
        first.setdefault(row["external_session_id"], row)
    return list(first.values())


async def put_off(tx: Transaction, seq: int, attempts: int, due_at: str) -> None:
    """Try to post it again later."""
    await tx.execute(update(posts_table).where(posts_table.c.seq == seq).values(attempts=attempts, due_at=due_at))


async def remove_post(tx: Transaction, seq: int) -> None:
    """It is posted, or will never be."""
    await tx.execute(delete(posts_table).where(posts_table.c.seq == seq))


async def _append(tx: Transaction, event_type: str, row: Row, agent_id: str | None) -> None:
    shown = {
        "id": row["integration_id"],
        "install_id": row["id"],
        "workspace_name": row["workspace_name"],
    }
    await events.append(tx, event_type, {"integration": shown}, agent_id=agent_id)

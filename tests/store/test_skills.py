"""Queries on skills and their versions."""

from backend.store import events, skills
from backend.store.database import Database
from tests.rows import skill_row


async def test_order_and_pages(database: Database) -> None:
    async with database.begin() as tx:
        for name in ("k1", "k2", "k3"):
            await skills.add(tx, skill_row(name))
        assert [row["id"] for row in await skills.newest_first(tx, limit=2)] == ["k3", "k2"]
        assert [row["id"] for row in await skills.newest_first(tx, limit=2, offset=2)] == ["k1"]
        assert [row["id"] for row in await skills.by_ids(tx, ["k3", "no", "k1", "k3"])] == ["k3", "k1"]
        assert await skills.by_ids(tx, []) == []
        assert await skills.count(tx) == 3


async def test_versions_are_numbered_on_and_bounded(database: Database) -> None:
    async with database.begin() as tx:
        await skills.add(tx, skill_row("k1"))
        await skills.add(tx, skill_row("k2"))
        for number in range(1, 6):
            await skills.add_version(
                tx, "k1", content=f"c{number}", changed_by_session_id=None, at=f"2026-0{number}", keep=3
            )
        await skills.add_version(tx, "k2", content="other", changed_by_session_id="s1", at="2026", keep=3)
        found = await skills.versions(tx, "k1", limit=10)
        assert [(row["version_number"], row["content"]) for row in found] == [(5, "c5"), (4, "c4"), (3, "c3")]
        assert [row["version_number"] for row in await skills.versions(tx, "k1", limit=1, offset=1)] == [4]
        assert [row["changed_by_session_id"] for row in await skills.versions(tx, "k2", limit=10)] == ["s1"]
        assert await skills.remove(tx, "k1")
        assert not await skills.remove(tx, "k1")
        assert await skills.versions(tx, "k1", limit=10) == []


async def test_events_leave_the_content_out(database: Database) -> None:
    async with database.begin() as tx:
        await skills.add(tx, skill_row("k1", content="a long text"))
        assert await skills.change(tx, "k1", {"content": "a long text, too"})
        assert await skills.change(tx, "no", {"content": "x"}) is None
        await skills.remove(tx, "k1")
    async with database.read() as tx:
        log = await events.read(tx, after=1, limit=10)
    assert [event.type for event in log] == ["skill.created", "skill.updated", "skill.deleted"]
    assert not any("a long text" in event.data for event in log)

"""Memories, skills and the warm pool over HTTP: what is asked, and what is made of odd answers."""

from __future__ import annotations

from typing import Any

import pytest

from lapconsole.client import Platform, PlatformError, Unsupported
from lapconsole.client.errors import NOT_LAP
from lapconsole.client.knowledge import Memory, SkillVersion
from lapconsole.client.pool import PooledSandbox, PoolStats
from tests.client.fakes import KEY, MANAGED, FakePlatform, Reply, running

MEMORY = f"{MANAGED}/agents/a1/memory"
POOL = "/api/v1/admin/warm_pool"


@pytest.fixture
async def fake():
    async with running() as fake:
        yield fake


@pytest.fixture
async def platform(fake):
    async with Platform(fake.url, KEY) as platform:
        yield platform


async def test_memories_are_paged_and_never_searched(fake: FakePlatform, platform: Platform) -> None:
    rows = [{"id": f"m{number}", "text": "x"} for number in range(201)]
    fake.once("GET", MEMORY, Reply(body=rows[:200]), Reply(body=rows[200:]))
    assert len(await platform.memories("a1")) == 201
    assert [request.query["offset"] for request in fake.requests] == ["0", "200"]
    assert all("q" not in request.query and "tag" not in request.query for request in fake.requests)


async def test_a_platform_that_cannot_page_is_not_asked_for_ever(fake: FakePlatform, platform: Platform) -> None:
    fake.always("GET", MEMORY, Reply(body=[{"id": f"m{number}"} for number in range(200)]))
    assert len(await platform.memories("a1")) == 200
    assert len(fake.requests) == 2


async def test_the_pool_where_it_is_listed_counted_or_unknown(fake: FakePlatform, platform: Platform) -> None:
    fake.once("GET", "/api/v1/admin/stats", Reply(body={"warm_pool": {"configured_size": 2}}), Reply(body={}))
    fake.once("GET", POOL, Reply(body={"data": [{"id": "1", "status": "warm"}, {}]}), Reply(404))
    listed = await platform.pool()
    assert listed.sandboxes is not None and [one.id for one in listed.sandboxes] == ["1"]
    assert (listed.stats.configured_size, listed.stats.counts["warm"]) == (2, 0)
    counted = await platform.pool()
    assert counted.sandboxes is None and counted.stats.configured_size is None
    fake.always("GET", "/api/v1/admin/stats", Reply(404))
    with pytest.raises(Unsupported):
        await platform.pool()


async def test_a_server_that_is_no_platform_is_told_apart(fake: FakePlatform, platform: Platform) -> None:
    for reply in (Reply(404, b"nothing"), Reply(200, b"<html>")):
        fake.once("GET", f"{MANAGED}/agents", reply)
        with pytest.raises(PlatformError) as caught:
            await platform.agents()
        assert caught.value.code == NOT_LAP


async def test_platforms_without_versions(fake: FakePlatform, platform: Platform) -> None:
    fake.always("GET", "/api/v1/skills/k1/versions", Reply(404))
    with pytest.raises(Unsupported):
        await platform.skill_versions("k1")


@pytest.mark.parametrize("value", [None, [], "x", {"id": 3, "tags": 4, "priority": True, "by_agent": 1, "counts": []}])
def test_odd_values_fall_to_defaults(value: Any) -> None:
    assert Memory.from_json(value) == Memory("")
    assert SkillVersion.from_json(value) == SkillVersion(0)
    assert PooledSandbox.from_json(value) == PooledSandbox("")
    assert PoolStats.from_json(value).by_agent == ()


def test_text_cannot_drive_a_terminal() -> None:
    memory = Memory.from_json({"id": "m", "text": "a\x1b[2Jb\nc", "tags": ["\x1b]0;x\x07", 3]})
    assert "\x1b" not in memory.text and memory.text.endswith("\nc")
    assert "\x1b" not in memory.tags[0] and len(memory.tags) == 1
    assert Memory("m", text="\n\n  first \nsecond").headline == "first"

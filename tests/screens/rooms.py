"""Hand-made memories, skills and warm sandboxes for tests of the rooms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lapconsole.app import LapConsole
from lapconsole.client.knowledge import Memory, SkillVersion
from lapconsole.client.models import Skill
from lapconsole.client.pool import Pool, PoolAgent, PooledSandbox, PoolFailure, PoolStats
from tests.screens.scene import AGENTS, DOCS, PAYMENTS, REVIEWER, ScriptedPlatform, ago, console

RELEASE = Skill(
    "5c110000-0000-4000-8000-000000000001",
    "write-release-notes",
    "When a release is cut",
    "# Release notes\n\n1. Read the log since the last tag.\n2. Group by area, breaking changes first.\n"
    "   - API\n   - Console\n3. Write one line each.\n4. Link the issues.",
    ago(86400 * 9),
)
FLAKY = Skill(
    "5c110000-0000-4000-8000-000000000002",
    "triage-flaky-test",
    "When a test fails now and then",
    "Run it 20 times, alone and with its neighbours. " * 30,
    ago(86400 * 3),
)
UNUSED = Skill("5c110000-0000-4000-8000-000000000003", "rotate-keys", "", "Ask first.", ago(600))
SKILLS = (RELEASE, FLAKY, UNUSED)
VERSIONS = (
    SkillVersion(2, RELEASE.content.replace(", breaking changes first", ""), "5e550000", ago(7200)),
    SkillVersion(1, "# Release notes\n\n1. Read the log since the last tag.", None, ago(86400 * 5)),
)


def block(skill: Skill, content: str = "") -> str:
    return f"\n\n<!-- skill:{skill.id} -->\n{(content or skill.content).strip()}\n<!-- /skill:{skill.id} -->"


# One agent has the present text of a skill, another an older one.
WITH_SKILLS = (
    replace(
        PAYMENTS,
        prompt=f"{PAYMENTS.prompt}{block(RELEASE)}{block(FLAKY)}",
        attached_skill_ids=(RELEASE.id, FLAKY.id),
        preload_memory_limit=2,
        recording=False,
    ),
    replace(REVIEWER, prompt=block(RELEASE, VERSIONS[1].content).strip(), attached_skill_ids=(RELEASE.id,)),
    *AGENTS[2:],
)


def memory(number: int, text: str, **fields: Any) -> Memory:
    values: dict[str, Any] = {
        "id": f"3e300000-0000-4000-8000-{number:012d}",
        "agent_id": PAYMENTS.id,
        "text": text,
        "type": "convention",
        "source": "ui",
        "created_at": ago(3600 * number),
        "updated_at": ago(3600 * number),
    }
    return Memory(**{**values, **fields})


MEMORIES = (
    memory(1, "Run `make lint` before each commit.", tags=("style", "ci"), pinned=True, times_applied=41),
    memory(
        2, "Never touch migrations that are merged.\nMake a new one instead.", tags=("db",), pinned=True, priority=9
    ),
    memory(
        3,
        "The ledger tests need TZ=UTC: 日本語の端末でも同じ。",
        tags=("tests",),
        priority=5,
        times_applied=12,
        last_applied_at=ago(240),
        source="agent",
        source_session_id="5e550000-0000-4000-8000-000000000005",
    ),
    memory(4, "Prefer httpx to requests.", tags=("style",), type="preference", priority=3),
    memory(5, "Refunds are rounded half to even.", type="constraint"),
    memory(6, "The staging database is wiped every Monday.", tags=("db", "staging"), disabled=True, times_applied=3),
)

STATS = PoolStats(
    configured_size=4,
    max_provisioning=2,
    ttl_minutes=30,
    recent_agent_hours=24,
    counts={"provisioning": 1, "warm": 2, "claimed": 3, "dead": 1},
    by_agent=(
        PoolAgent(PAYMENTS.id, PAYMENTS.name, {"provisioning": 0, "warm": 2, "claimed": 2, "dead": 0}, ago(1260)),
        PoolAgent(REVIEWER.id, REVIEWER.name, {"provisioning": 1, "warm": 0, "claimed": 1, "dead": 1}, None),
    ),
    failing=(PoolFailure(DOCS.id, 3, "cloning_repo failed: Remote branch releases/next not found", ago(-180)),),
)


def pooled(number: int, status: str, **fields: Any) -> PooledSandbox:
    of = PAYMENTS if status == "warm" else REVIEWER
    ready = ago(630 * number) if status == "warm" else None
    values: dict[str, Any] = {
        "id": f"{number:032x}",
        "agent_id": of.id,
        "agent_name": of.name,
        "status": status,
        "sandbox": f"w-{number:032x}",
        "created_at": ago(630 * number + 4),
        "ready_at": ready,
        "expires_at": ago(630 * number - 1800) if ready else None,
    }
    return PooledSandbox(**{**values, **fields})


POOL = Pool(
    STATS,
    (
        pooled(2, "warm"),
        pooled(1, "warm"),
        pooled(0, "provisioning"),
        pooled(3, "dead", failure_reason="stale: its agent has ended"),
    ),
)
OFF = Pool(PoolStats(0, 2, 30, 24, {"warm": 0}, (), ()), ())


def in_rooms(**script: Any) -> LapConsole:
    """A console whose platform knows skills, memories and a pool, unless `script` says otherwise."""
    link = {name: script.pop(name) for name in ("link", "label") if name in script}
    answers = {
        "memories": MEMORIES,
        "skills": SKILLS,
        "skill": RELEASE,
        "skill_versions": VERSIONS,
        "pool": POOL,
        **script,
    }
    return console(agents=WITH_SKILLS, platform=ScriptedPlatform(**answers), **link)

"""The driver with the harness program itself: starts, answers, runs an agent, and all of it goes."""

import asyncio
import os
from pathlib import Path

import httpx

from backend.sandboxes.local import launch

from .conftest import MakeDriver, processes_of, spec, until

# A command line that no other test process has.
SLEEP = f"sleep {2_000_000 + os.getpid()}"
AGENT = f"sh -c 'env -i setsid {SLEEP} & exec {SLEEP}'"


def agents() -> int:
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    return lines.count(SLEEP.replace(" ", "\0").encode() + b"\0")


async def test_from_create_to_delete(make_driver: MakeDriver, data_dir: Path, walls: str) -> None:
    driver = make_driver(harness_command=launch.HARNESS_COMMAND, grace_seconds=5)
    sandbox = await driver.create(spec())
    headers = {"Authorization": "Bearer token-of-one"}
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers, trust_env=False, timeout=10) as client:
        assert (await client.get("/healthz")).json()["ok"] is True
        body = {"title": "t", "harness_id": "codex", "command": AGENT, "env": {}, "files": [], "skills": []}
        assert (await client.post("/session", json=body)).json() == {"id": "tty"}
        async with asyncio.timeout(10):
            while (state := (await client.get("/state")).json())["setup"] in {"waiting", "running"}:
                await asyncio.sleep(0.01)
        assert state["setup"] == "done", state
        await until(lambda: agents() == 2)
    async with asyncio.timeout(10):
        await driver.delete("one")
    assert agents() == 0
    assert processes_of(data_dir) == []

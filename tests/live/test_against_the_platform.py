"""Client and live model against the real platform: a session's whole life, seen live, through a restart."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from lapconsole.client import Platform, PlatformError, Tty, TtyRefused, tty_address
from lapconsole.live import LinkState, LiveModel, Sync
from tests.client.fakes import KEY, until

pytestmark = pytest.mark.e2e

AGENT = {"name": "echo", "model": "m", "harness_id": "codex"}
# Says what size it has, then what it is told.
PROGRAM = "stty -echo; stty size; while read line; do stty size; echo got:$line; done"


@asynccontextmanager
async def backend(data: Path, port: int = 0) -> AsyncIterator[str]:
    """A platform process; its address."""
    env = {**os.environ, "MASTER_KEY": KEY, "LAP_HARNESS_COMMAND_CODEX": PROGRAM}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "backend", "--port", str(port), "--data-dir", str(data)),
        env=env,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while (line := await process.stderr.readline()) and b"listening on" not in line:
                pass
        drain = asyncio.create_task(process.stderr.read())
        url = json.loads((data / "platform.json").read_text())["url"]
        try:
            yield url
        finally:  # sandboxes outlive the platform
            async with Platform(url, KEY) as platform:
                for session in (await platform.all_sessions()).rows:
                    await platform.stop_session(session.id)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 20)
        await drain
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def read_until(tty: Tty, pattern: str) -> str:
    """What the terminal shows, until it holds `pattern`."""
    shown = ""
    with suppress(TimeoutError):
        async with asyncio.timeout(20):
            async for frame in tty:
                shown += frame if isinstance(frame, str) else frame.decode()
                if re.search(pattern, shown):
                    return shown
    raise AssertionError(f"the terminal ({tty.closed or 'open'}) showed {shown!r}")


async def test_a_sessions_life(tmp_path: Path) -> None:
    async with backend(tmp_path) as url, Platform(url, KEY) as platform:
        model = LiveModel()
        sync = Sync(platform, model)
        following = asyncio.create_task(sync.run())
        try:
            assert (await platform.health())["ok"] is True
            await until(model, lambda: model.link.state == LinkState.LIVE)
            agent = await platform.create_agent(AGENT)
            session = await platform.create_session(agent.id, {"title": "a life"})
            await until(model, lambda: model.counts.get("ready") == 1)
            seen = list(model.phases_seen(session.id))
            assert seen[-1] == "ready" and "harness_listening" in seen
            assert model.agents[agent.id].label == "echo"
            assert model.sessions[session.id].label == "a life"

            session = await platform.session(session.id)
            address = tty_address(url, session)
            with pytest.raises(TtyRefused) as refused:
                await Tty.connect(address.url, "wrong")
            assert refused.value.status == 401
            async with await Tty.connect(address.url, address.token) as tty:
                await tty.resize(91, 27)
                await tty.send(b"hello\r")
                await read_until(tty, "27 91\r\ngot:hello")

            log = await platform.event_log(session_id=session.id)
            assert log.rows[0].type == "session.created"
            assert (await platform.sandbox_logs(session.id)) is not None

            await platform.stop_session(session.id)
            await until(model, lambda: model.counts == {"dead": 1})
            await platform.delete_agent(agent.id)
            await until(model, lambda: not model.agents and not model.sessions)
            with pytest.raises(PlatformError) as gone:
                await platform.session(session.id)
            assert gone.value.status == 404
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def test_a_restart_of_the_platform_is_survived_without_listing_again(tmp_path: Path) -> None:
    model = LiveModel()
    async with backend(tmp_path) as url:
        platform = Platform(url, KEY)
        sync = Sync(platform, model)
        following = asyncio.create_task(sync.run())
        agent = await platform.create_agent(AGENT)
        await until(model, lambda: model.link.state == LinkState.LIVE and agent.id in model.agents)
    await until(model, lambda: model.link.state == LinkState.STALE)
    assert agent.id in model.agents
    port = int(url.rpartition(":")[2])
    async with backend(tmp_path, port):
        sync.retry_now()
        await until(model, lambda: model.link.state == LinkState.LIVE)
        await platform.update_agent(agent.id, {"name": "renamed"})
        await until(model, lambda: model.agents[agent.id].name == "renamed")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await platform.aclose()

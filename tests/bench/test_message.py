"""What a message costs more through the platform than straight to its harness."""

import sqlite3
import statistics
import sys
import time
from pathlib import Path

import httpx
import pytest

from backend.settings import Settings
from backend.store.secrets import Cipher
from tests.e2e.programs import API, Platform

pytestmark = pytest.mark.bench

ROUNDS = 300
LIMIT_MS = 3.0
AGENT = Path(__file__).with_name("quick_agent.py")


def token_of(platform: Platform, session_id: str) -> str:
    """The harness's token, which no API tells."""
    settings = Settings.load(data_dir=platform.data_dir).with_keys()
    with sqlite3.connect(settings.database_path) as connection:
        (stored,) = connection.execute("SELECT tty_token FROM session WHERE id = ?", [session_id]).fetchone()
    return Cipher(settings.encryption_key_value).decrypt(stored)


async def test_message(tmp_path: Path) -> None:
    """With an agent that answers at once, the median costs at most 3 ms more than the harness itself takes."""
    platform = Platform(tmp_path / "data", {"LAP_HARNESS_COMMAND_CLAUDE_AGENT_SDK": f"{sys.executable} {AGENT}"})
    await platform.start()
    try:
        session = await platform.ready(await platform.create_agent(harness_id="claude-agent-sdk"))
        headers = {"Authorization": f"Bearer {token_of(platform, session['id'])}"}
        parts = [{"type": "text", "text": "hello"}]
        body = {"model": {"providerID": "litellm", "modelID": "m"}, "parts": parts}
        async with httpx.AsyncClient(base_url=session["sandbox_url"], headers=headers, trust_env=False) as harness:

            async def straight() -> httpx.Response:
                return await harness.post(f"/session/{session['harness_session_id']}/message", json=body)

            async def through() -> httpx.Response:
                return await platform.http.post(f"{API}/sessions/{session['id']}/message", json={"text": "hello"})

            taken: dict[str, list[float]] = {"straight": [], "through": []}
            for _ in range(ROUNDS):  # in turns: the machine is the same for both
                for name, call in (("straight", straight), ("through", through)):
                    started = time.perf_counter()
                    response = await call()
                    taken[name].append((time.perf_counter() - started) * 1000)
                    assert response.status_code == 200, response.text
    finally:
        await platform.close()
    medians = {name: statistics.median(values[20:]) for name, values in taken.items()}
    costs = medians["through"] - medians["straight"]
    worst = statistics.quantiles(taken["through"], n=20)[-1] - statistics.quantiles(taken["straight"], n=20)[-1]
    print(
        f"\na message: {medians['straight']:.2f} ms straight to the harness, {medians['through']:.2f} ms through the "
        f"platform: {costs:.2f} ms more at the median (limit {LIMIT_MS:g} ms), {worst:.2f} ms at the 95th percentile"
    )
    assert costs <= LIMIT_MS

"""Makes the pictures of the README: the real console, headless, against a real platform. `python -m screenshots`."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from textual.pilot import Pilot

from lapconsole.app import LapConsole
from lapconsole.connection import Address, FixedConnection

FOLDER = Path(__file__).parent
SIZES = ((80, 24), (120, 35), (200, 50))
API = "/api/v1/managed_agents"
SECONDS = 60.0

AGENTS: tuple[dict[str, Any], ...] = (
    {"name": "billing-api", "harness_id": "claude-code", "repo": "billing"},
    {"name": "docs-writer", "harness_id": "claude-code"},
    {"name": "release-bot", "harness_id": "codex"},
    {"name": "migration", "harness_id": "claude-code", "repo": "billing", "branch": "gone"},
)
"""What the pictures show: agents that come up, one whose branch does not exist, one whose program is missing."""


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """The first true value of `condition`."""
    try:
        async with asyncio.timeout(SECONDS):
            while not (value := await condition()):
                await asyncio.sleep(0.05)
            return value
    except TimeoutError:
        raise SystemExit(f"{what}: not within {SECONDS:g} s") from None


@contextlib.asynccontextmanager
async def platform(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A real platform on a folder of its own, ended with its sessions."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("LAP_", "LITELLM", "MASTER"))}
    if not shutil.which("claude"):
        env["LAP_HARNESS_COMMAND_CLAUDE_CODE"] = "bash --norc"
    env["LAP_HARNESS_COMMAND_CODEX"] = "codex-is-not-here"
    data = folder / "data"
    process = subprocess.Popen(
        [sys.executable, "-m", "backend", "--port", "0", "--data-dir", str(data)], env=env, stderr=subprocess.DEVNULL
    )
    try:

        async def record() -> Any:
            with contextlib.suppress(OSError, ValueError):
                return json.loads((data / "platform.json").read_text())

        url = (await until(record, "the platform listens"))["url"]
        key = (data / "master.key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as client:
            yield client
            for agent in (await client.get(f"{API}/agents")).json()["data"]:
                await client.delete(f"{API}/agents/{agent['id']}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)


def make_repository(folder: Path) -> None:
    """A git repository with one commit on `main`."""
    folder.mkdir()
    (folder / "README.md").write_text("# billing\n\nInvoices, payments, and what lies between.\n")
    identity = ["-c", "user.name=demo", "-c", "user.email=demo@example.org"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "First"]):
        subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)


async def fill(client: httpx.AsyncClient, folder: Path) -> str:
    """Create the agents and their sessions; returns the id of the session to attach to."""
    shown = ""
    for wanted in AGENTS:
        body = {"name": wanted["name"], "harness_id": wanted["harness_id"], "model": "anthropic/claude-opus-4-7"}
        if "repo" in wanted:
            body |= {"repo_url": str(folder / wanted["repo"]), "branch": wanted.get("branch", "main")}
        agent = (await client.post(f"{API}/agents", json=body)).json()
        for _ in range(2 if wanted["name"] == "billing-api" else 1):
            session = (await client.post(f"{API}/agents/{agent['id']}/session", json={})).json()
            shown = shown or session["id"]

    async def settled() -> bool:
        sessions = (await client.get(f"{API}/sessions")).json()
        return all(session["status"] != "creating" for session in sessions)

    await until(settled, "the sessions settle")
    return shown


async def shoot(address: Address, size: tuple[int, int], session_id: str) -> None:
    """Walk through the screens at one size and keep a picture of each."""
    app = LapConsole(FixedConnection(address))
    async with app.run_test(size=size) as pilot:

        def shows(text: str) -> Callable[[], Awaitable[bool]]:
            async def found() -> bool:
                await pilot.pause()
                return text in app.export_screenshot().replace("&#160;", " ")

            return found

        async def keep(name: str, text: str) -> None:
            await until(shows(text), f"{name} at {size[0]}x{size[1]} shows {text!r}")
            app.save_screenshot(f"{name}-{size[0]}x{size[1]}.svg", str(FOLDER))

        await keep("sessions", "live")
        await open_and_keep(pilot, keep, session_id)


async def open_and_keep(pilot: Pilot[None], keep: Callable[[str, str], Awaitable[None]], session_id: str) -> None:
    app = pilot.app
    assert isinstance(app, LapConsole)
    await pilot.press("enter")
    await keep("session-failed", "failed")
    await pilot.press("escape")
    app.open_terminal(session_id)
    await keep("terminal", "Ctrl+]")
    await pilot.press("ctrl+right_square_bracket", "d")
    await pilot.press("2")
    await keep("agents", "release-bot")
    await pilot.press("n")
    await keep("new-agent", "Harness")
    await pilot.press("escape")
    await pilot.press("question_mark")
    await keep("help", "Sessions")


async def main() -> None:
    """One platform, all screens, all sizes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CONFIG_HOME"] = name  # the pictures show the defaults, not whoever makes them
        await asyncio.to_thread(make_repository, folder / "billing")
        async with platform(folder) as client:
            session_id = await fill(client, folder)
            key = client.headers["Authorization"].removeprefix("Bearer ")
            for size in SIZES:
                await shoot(Address(str(client.base_url), key, "embedded"), size, session_id)


if __name__ == "__main__":
    asyncio.run(main())

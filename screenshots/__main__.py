"""Makes the pictures of the README: the real console, headless, against a real platform. `python -m screenshots`."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from lapconsole.app import LapConsole
from lapconsole.connection import Address, FixedConnection
from tests.e2e.programs import Platform, make_repository
from tests.waiting import until

FOLDER = Path(__file__).parent
SIZES = ((80, 24), (120, 35), (200, 50))

AGENTS: tuple[dict[str, Any], ...] = (
    {"name": "billing-api", "harness_id": "claude-code", "branch": "main"},
    {"name": "docs-writer", "harness_id": "claude-code", "branch": "other"},
    {"name": "release-bot", "harness_id": "codex", "branch": "main"},
    {"name": "migration", "harness_id": "claude-code", "branch": "release/4"},
)
"""What the pictures show: agents that come up, one whose program is missing, one whose branch does not exist."""


def environment() -> dict[str, str]:
    """Real Claude Code where it is installed, else a shell; Codex is missing, for the picture of a failure."""
    env = {"LAP_HARNESS_COMMAND_CODEX": "codex-is-not-here"}
    if shutil.which("claude") is None:
        return env
    return env | {"LAP_HARNESS_COMMAND_CLAUDE_CODE": ""}


async def fill(platform: Platform, repository: Path) -> str:
    """Create the agents and their sessions; returns the id of the session to attach to."""
    created = []
    for wanted in AGENTS:
        agent = await platform.create_agent(repo_url=str(repository), model="anthropic/claude-opus-4-7", **wanted)
        created.append(await platform.create_session(agent))
    for session in created:
        await platform.settled(session["id"], seconds=60)
    return str(created[0]["id"])


async def shoot(address: Address, size: tuple[int, int], session_id: str) -> None:
    """Walk through the screens at one size and keep a picture of each."""
    app = LapConsole(FixedConnection(address))
    async with app.run_test(size=size) as pilot:

        async def keep(name: str, *texts: str) -> None:
            """A picture, once one of `texts` is on the screen."""

            async def shown() -> bool:
                await pilot.pause()
                picture = app.export_screenshot().replace("&#160;", " ")
                return any(text in picture for text in texts)

            await until(shown, f"{name} at {size[0]}x{size[1]} shows one of {texts}", seconds=60)
            app.save_screenshot(f"{name}-{size[0]}x{size[1]}.svg", str(FOLDER))

        await visit(app, pilot.press, keep, session_id)


async def visit(
    app: LapConsole,
    press: Callable[..., Awaitable[None]],
    keep: Callable[..., Awaitable[None]],
    session_id: str,
) -> None:
    """The tour of the README."""
    await keep("sessions", "migration")
    await press("enter")
    await keep("session-failed", "set-up failed")
    await press("escape")
    app.open_terminal(session_id, take_over=True)
    await keep("terminal", "shortcuts", "bash-")
    await press("ctrl+right_square_bracket", "d")
    await press("2")
    await keep("agents", "release-bot")
    await press("n")
    await keep("new-agent", "Repository")
    await press("escape")
    await press("question_mark")
    await keep("help", "Keys")


async def main() -> None:
    """One platform, all screens, all sizes."""
    with tempfile.TemporaryDirectory(prefix="lapconsole-") as name:
        folder = Path(name)
        os.environ["XDG_CONFIG_HOME"] = name  # the pictures show the defaults, not whoever makes them
        repository = folder / "billing"
        await asyncio.to_thread(make_repository, repository)
        platform = Platform(folder / "data", environment())
        await platform.start()
        try:
            session_id = await fill(platform, repository)
            for size in SIZES:
                await shoot(Address(platform.url, platform.key, "embedded"), size, session_id)
        finally:
            await platform.close()


if __name__ == "__main__":
    asyncio.run(main())

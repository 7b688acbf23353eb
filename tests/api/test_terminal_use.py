"""Who works in a terminal uses the session: it is not idle (LAP REST 4.5, hazard 5)."""

from websockets.asyncio.client import connect

from backend.settings import Settings
from tests.api.stand_in import stand_in


async def test_typing_counts_as_use(settings: Settings) -> None:
    async with stand_in(settings) as platform:
        session = await platform.ready()
        assert session["last_seen_at"] is None
        headers = {"Authorization": f"Bearer {session['tty_token']}"}
        async with connect(session["tty_url"], proxy=None, additional_headers=headers) as terminal:
            await terminal.send(b"ls\r")
            await platform.until(session, lambda now: now["last_seen_at"], "typing is noted")

"""Screens and recordings over HTTP: from the harness, from what is kept, and when there is none."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from backend.settings import Settings
from tests.api.conftest import AGENTS, SESSIONS
from tests.api.stand_in import Platform, stand_in
from tests.waiting import until

CAST = b'{"version":3,"term":{"cols":80,"rows":24}}\n[0.1,"o","hello"]\n'


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with stand_in(settings) as platform:
        yield platform


def gives(content: bytes, status: int = 200) -> Any:
    """An answer of the harness."""

    async def answer(_request: Request) -> Response:
        return Response(content, status)

    return answer


def refuses(status: int, reason: str) -> Any:
    async def answer(_request: Request) -> Response:
        return JSONResponse({"error": reason}, status)

    return answer


async def screen(platform: Platform, session: dict[str, Any], **params: Any) -> httpx.Response:
    return await platform.http.get(f"{SESSIONS}/{session['id']}/screen", params=params)


async def recording(platform: Platform, session: dict[str, Any]) -> httpx.Response:
    return await platform.http.get(f"{SESSIONS}/{session['id']}/recording")


class TestScreen:
    async def test_forms(self, platform: Platform) -> None:
        session = await platform.ready()
        platform.harness.answers["screen"] = gives("┌─ ü\n$ ".encode())
        for params, asked, kind in (
            ({}, "format=text&scrollback=0", "text/plain; charset=utf-8"),
            ({"format": "text", "scrollback": "99"}, "format=text&scrollback=99", "text/plain; charset=utf-8"),
            ({"format": "cells", "scrollback": "99999999"}, "format=cells&scrollback=10000", "application/json"),
            ({"format": "svg", "scrollback": "-1"}, "format=svg&scrollback=0", "image/svg+xml"),
            ({"scrollback": "many"}, "format=text&scrollback=0", "text/plain; charset=utf-8"),
        ):
            response = await screen(platform, session, **params)
            assert (response.status_code, response.text) == (200, "┌─ ü\n$ ")
            assert response.headers["content-type"] == kind
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in response.headers["content-security-policy"]
            assert platform.harness.asked[-1] == f"screen?{asked}"

    async def test_refusals(self, platform: Platform) -> None:
        session = await platform.ready()
        platform.harness.answers["screen"] = gives(b"never asked for")
        assert (await screen(platform, session, format="gif")).status_code == 400
        assert (await platform.http.get(f"{SESSIONS}/none/screen")).status_code == 404
        other = await platform.ready(await platform.agent(harness_id="opencode"))
        response = await screen(platform, other)
        assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")
        assert "opencode" in response.json()["error"]
        await platform.http.delete(f"{SESSIONS}/{session['id']}")
        response = await screen(platform, session)
        assert (response.status_code, response.json()["code"]) == (409, "CONFLICT")
        assert "restart" in response.json()["error"]
        platform.harness.tell(setup="running")
        coming = await platform.create()
        response = await screen(platform, coming)
        assert response.status_code == 409
        assert "once it is ready" in response.json()["error"]
        assert platform.harness.asked == []

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (refuses(503, "there is no terminal"), "there is no terminal"),
            (refuses(404, "not found"), "restart the session"),
            (gives(b"\xff" * 100_000, 500), "500"),
        ],
    )
    async def test_a_harness_that_refuses(self, platform: Platform, answer: Any, text: str) -> None:
        session = await platform.ready()
        platform.harness.answers["screen"] = answer
        response = await screen(platform, session)
        assert (response.status_code, response.json()["code"]) == (502, "UNAVAILABLE")
        assert text in response.json()["error"]
        assert len(response.json()["error"]) < 1000

    async def test_a_harness_that_is_cut_off_while_it_answers(self, platform: Platform) -> None:
        async def half(_request: Request) -> Response:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"half"
                await asyncio.Event().wait()

            return StreamingResponse(pieces())

        session = await platform.ready()
        platform.harness.answers["screen"] = half
        with pytest.raises(httpx.RemoteProtocolError):
            async with platform.http.stream("GET", f"{SESSIONS}/{session['id']}/screen") as response:
                async for piece in response.aiter_raw():
                    assert piece == b"half"
                    platform.harness.vanish()

    async def test_a_client_that_leaves_leaves_nothing(self, platform: Platform) -> None:
        async def endless(_request: Request) -> Response:
            async def pieces() -> AsyncIterator[bytes]:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0.001)

            return StreamingResponse(pieces())

        session = await platform.ready()
        platform.harness.answers["screen"] = endless
        idle = platform.harness.connections
        async with platform.http.stream("GET", f"{SESSIONS}/{session['id']}/screen") as response:
            await anext(response.aiter_raw())
        await until(lambda: platform.harness.connections <= idle, "the harness is no longer read from")


class TestRecording:
    def kept(self, platform: Platform) -> Path:
        return platform.settings.data_dir / "recordings"

    async def recorded(self, platform: Platform, content: bytes = CAST, **fields: Any) -> dict[str, Any]:
        """A ready session whose harness has recorded something."""
        session = await platform.ready(**{"recording": True, **fields})
        (platform.sandboxes.root(session) / "recording.cast").write_bytes(content)
        return session

    async def test_of_a_live_session_comes_from_its_harness(self, platform: Platform) -> None:
        session = await platform.ready(recording=True)
        response = await recording(platform, session)
        assert response.status_code == 404
        platform.harness.answers["recording"] = gives(CAST)
        response = await recording(platform, session)
        assert (response.status_code, response.content) == (200, CAST)
        assert response.headers["content-type"] == "application/x-asciicast"
        assert response.headers["content-disposition"] == f'attachment; filename="{session["id"]}.cast"'
        platform.harness.answers["recording"] = refuses(503, "busy")
        response = await recording(platform, session)
        assert response.status_code == 502
        assert "busy" in response.json()["error"]

    @pytest.mark.parametrize("end", ["stop", "delete", "dies", "stopped while the platform was away"])
    async def test_is_kept_however_the_session_ends(self, platform: Platform, settings: Settings, end: str) -> None:
        session = await self.recorded(platform)
        if end == "stop":
            await platform.http.post(f"{SESSIONS}/{session['id']}/stop")
        elif end == "dies":
            platform.sandboxes.end(session, "signal 9 (SIGKILL)")
            await platform.until(session, lambda now: now["status"] == "dead", "the session is dead")
        elif end == "delete":
            await platform.http.delete(f"{SESSIONS}/{session['id']}")
        else:
            # It ended in the database, but its sandbox was never removed.
            await platform.http.delete(f"{SESSIONS}/{session['id']}")
            (self.kept(platform) / f"{session['id']}.cast").unlink()
            platform.sandboxes.root(session).mkdir()
            (platform.sandboxes.root(session) / "recording.cast").write_bytes(CAST)
            await platform.app.state.services.sessions.resume()
        response = await recording(platform, session)
        assert (response.status_code, response.content) == (200, CAST)
        file = self.kept(platform) / f"{session['id']}.cast"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert not platform.sandboxes.root(session).exists()

    async def test_of_a_session_that_fails_is_kept(self, platform: Platform) -> None:
        platform.harness.tell(setup="running")
        session = await platform.create(recording=True)
        await until(lambda: platform.harness.bodies, "the harness sets it up")
        (platform.sandboxes.root(session) / "recording.cast").write_bytes(CAST)
        assert (await recording(platform, session)).status_code == 404
        platform.harness.tell(setup="failed", failure="it ended at once")
        await platform.until(session, lambda now: now["status"] == "failed", "the session has failed")
        assert (await recording(platform, session)).content == CAST

    async def test_of_an_earlier_sandbox_stays_until_there_is_a_newer_one(self, platform: Platform) -> None:
        session = await self.recorded(platform)
        again = (await platform.http.post(f"{SESSIONS}/{session['id']}/restart")).json()
        assert again["status"] == "ready"
        assert (self.kept(platform) / f"{session['id']}.cast").read_bytes() == CAST
        (platform.sandboxes.root(again) / "recording.cast").write_bytes(CAST * 2)
        await platform.http.delete(f"{SESSIONS}/{session['id']}")
        assert (await recording(platform, session)).content == CAST * 2

    async def test_goes_with_the_agent(self, platform: Platform) -> None:
        agent = await platform.agent()
        ended, live = [await self.recorded(platform, agent=agent) for _ in range(2)]
        other = await self.recorded(platform)
        for session in (ended, other):
            await platform.http.delete(f"{SESSIONS}/{session['id']}")
        assert (await platform.http.delete(f"{AGENTS}/{agent['id']}")).status_code == 204
        assert (await recording(platform, live)).status_code == 404
        assert [path.name for path in self.kept(platform).iterdir()] == [f"{other['id']}.cast"]

    async def test_what_belongs_to_no_session_goes_at_the_next_start(self, platform: Platform) -> None:
        session = await self.recorded(platform)
        await platform.http.delete(f"{SESSIONS}/{session['id']}")
        for name in ("of-nobody.cast", ".half-written.cast"):
            (self.kept(platform) / name).write_bytes(CAST)
        await platform.app.state.services.sessions.resume()
        assert [path.name for path in self.kept(platform).iterdir()] == [f"{session['id']}.cast"]

    async def test_refusals(self, platform: Platform) -> None:
        plain = await self.recorded(platform, recording=False)
        response = await recording(platform, plain)
        assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")
        assert "recording true" in response.json()["error"]
        await platform.http.delete(f"{SESSIONS}/{plain['id']}")
        assert not self.kept(platform).exists()
        assert (await platform.http.get(f"{SESSIONS}/none/recording")).status_code == 404
        empty = await platform.ready(recording=True)
        await platform.http.delete(f"{SESSIONS}/{empty['id']}")
        response = await recording(platform, empty)
        assert response.status_code == 404
        assert "LAP_RECORDINGS_KEPT_MB" in response.json()["error"]

    @pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
    async def test_what_is_no_file_is_not_kept(self, platform: Platform, kind: str) -> None:
        session = await platform.ready(recording=True)
        path = platform.sandboxes.root(session) / "recording.cast"
        if kind == "link":
            path.symlink_to(platform.settings.database_path)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()
        async with asyncio.timeout(10):
            await platform.http.delete(f"{SESSIONS}/{session['id']}")
        assert (await recording(platform, session)).status_code == 404

    @pytest.mark.parametrize("limits", [{"recordings_kept_mb": 2, "recording_max_mb": 1}])
    async def test_space_is_bounded(self, settings: Settings, limits: dict[str, int]) -> None:
        async with stand_in(settings.model_copy(update=limits)) as platform:
            sessions = []
            for number in range(4):
                session = await self.recorded(platform, b"x" * 900_000)
                await platform.http.delete(f"{SESSIONS}/{session['id']}")
                file = self.kept(platform) / f"{session['id']}.cast"
                os.utime(file, (number, number))
                sessions.append(session)
            assert [(await recording(platform, session)).status_code for session in sessions] == [404, 404, 200, 200]
            huge = await self.recorded(platform, b"x" * 5_000_000)
            await platform.http.delete(f"{SESSIONS}/{huge['id']}")
            assert len((await recording(platform, huge)).content) == 2 * 1024 * 1024


async def test_both_are_documented(platform: Platform) -> None:
    document = (await platform.http.get("/openapi.json")).json()
    paths = document["paths"]
    answers = paths[f"{SESSIONS}/{{session_id}}/screen"]["get"]["responses"]
    assert set(answers["200"]["content"]) == {"text/plain", "application/json", "image/svg+xml"}
    assert {"400", "404", "409", "502"} <= answers.keys()
    answers = paths[f"{SESSIONS}/{{session_id}}/recording"]["get"]["responses"]
    assert set(answers["200"]["content"]) == {"application/x-asciicast"}
    schemas = document["components"]["schemas"]
    assert {"terminal", "attached", "recording"} <= schemas["ApiSession"]["properties"].keys()
    for model in ("ApiAgent", "AgentCreate", "AgentPatch", "SessionCreate"):
        assert "recording" in schemas[model]["properties"], model

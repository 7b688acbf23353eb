import asyncio, sys, time
import pytest
from tests.api.test_tty import *
from tests.api.conftest import *
async def test_dbg(platform, monkeypatch):
    got = []
    async def deaf_to_all(t):
        await asyncio.Event().wait()
    monkeypatch.setattr(tty, "TAKE_TIMEOUT", 0.3)
    platform.harness.terminal = deaf_to_all
    session = await platform.ready()
    t0=time.monotonic(); n=0
    async def report():
        while True:
            await asyncio.sleep(1)
            print(f"{time.monotonic()-t0:.1f}", n, [ (t.get_coro().__qualname__, [f.f_lineno for f in t.get_stack()]) for t in asyncio.all_tasks() if "_to_" in t.get_coro().__qualname__ or "splice" in str(t.get_stack())], file=sys.stderr)
            if time.monotonic()-t0>6: break
    r=asyncio.create_task(report())
    async with viewer(session) as connection:
        try:
            while True:
                await connection.send(CHUNK); n+=1
        except ConnectionClosed as e: print("closed", e, time.monotonic()-t0, file=sys.stderr)
    r.cancel()

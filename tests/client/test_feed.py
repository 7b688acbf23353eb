"""The event feed against a real HTTP server: parsing, resuming, and the ways it breaks."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapconsole.client import Event, Platform, PlatformError, Unreachable, Unsupported, events
from lapconsole.client.feed import FeedReader
from tests.client.fakes import KEY, FakePlatform, Reply, hold, raw, running, sse

FEED = "/api/v1/events"


@pytest.fixture
async def fake():
    async with running() as fake:
        yield fake


@pytest.fixture
async def platform(fake):
    async with Platform(fake.url, KEY) as platform:
        yield platform


async def read(platform: Platform) -> list[Event]:
    return [event async for event in events(platform)]


async def test_events_come_as_they_happen_and_resume_where_they_broke(fake: FakePlatform, platform: Platform) -> None:
    async with aclosing(events(platform)) as feed:
        assert (await anext(feed)).type == "feed.opened"
        await fake.until(lambda: fake.feeds == 1)
        await fake.emit("session.phase", {"id": "s1", "status": "creating"})
        event = await anext(feed)
        assert (event.type, event.seq, event.session_id) == ("session.phase", 1, "s1")
    await fake.until(lambda: fake.feeds == 0)
    await fake.emit("session.ready", {"id": "s1", "status": "ready"})
    async with aclosing(events(platform, after=1)) as feed:
        assert [(await anext(feed)).type, (await anext(feed)).type] == ["feed.opened", "session.ready"]
    assert fake.requests[-1].headers["last-event-id"] == "1"


@pytest.mark.parametrize("cut", range(1, 60, 7))
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
async def test_frames_may_be_split_anywhere(fake: FakePlatform, platform: Platform, newline: bytes, cut: int) -> None:
    text = ': hi\n\nevent: session.dead\nid: 9\ndata: {"at":\ndata: null, "x": "ü"}\n\ndata:{"type":"b","seq":3}\n\n'
    stream = text.encode().replace(b"\n", newline)
    fake.always("GET", FEED, sse(stream[:cut], stream[cut:]))
    assert [(event.type, event.seq, event.data.get("x")) for event in await read(platform)] == [
        ("session.dead", 9, "ü"),
        ("b", 3, None),
    ]


PIECES = st.sampled_from(
    [b"data:", b" ", b'{"a":1}', b"\n", b"\r", b"\r\n", b"\n\n", b"id: 7", b"event: x", b":", b"\xff", b""]
)


@given(st.lists(PIECES, max_size=30))
def test_pieces_do_not_matter(pieces: list[bytes]) -> None:
    whole = list(FeedReader().feed(b"".join(pieces)))
    reader = FeedReader()
    assert [event for piece in pieces for event in reader.feed(piece)] == whole


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_no_bytes_do_harm(pieces: list[bytes]) -> None:
    reader = FeedReader()
    for piece in [*pieces, b"\n\n"]:
        list(reader.feed(piece))


async def test_frames_that_mean_nothing_are_passed_over(fake: FakePlatform, platform: Platform) -> None:
    junk = (
        b'data: {"a":\n\ndata: [1]\n\nevent: x\n\nid: 4\n\nretry: 5\nfoo: bar\nfoo\n\n\n\ndata: '
        + b"[" * 50_000
        + b"\n\n"
    )
    unended = b'data: {"seq": 2}'
    fake.always("GET", FEED, sse(b"\xef\xbb\xbf", junk, b'id: \xff\ndata: {"type": "ok"}\n\n', unended))
    assert [(event.type, event.seq) for event in await read(platform)] == [("ok", None)]


@pytest.mark.parametrize(
    "reply", [Reply(404, {"error": "not found"}), Reply(405), Reply(200, {"data": []}), Reply(200, b"<html>")]
)
async def test_a_platform_without_a_feed(fake: FakePlatform, platform: Platform, reply: Reply) -> None:
    fake.always("GET", FEED, reply)
    with pytest.raises(Unsupported):
        await read(platform)


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_a_refusal_is_passed_on(fake: FakePlatform, platform: Platform, status: int) -> None:
    fake.always("GET", FEED, Reply(status, {"error": "no"}))
    with pytest.raises(PlatformError) as caught:
        await read(platform)
    assert caught.value.status == status


async def test_a_feed_that_breaks_off(fake: FakePlatform, platform: Platform) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    fake.always("GET", FEED, raw(head, b"6\r\ndata: \r\n"))
    with pytest.raises(Unreachable, match="closed in the middle"):
        await read(platform)


async def test_a_silent_feed_is_a_broken_one(fake: FakePlatform, platform: Platform) -> None:
    async with aclosing(events(platform, idle_seconds=0.1)) as feed:
        await anext(feed)
        with pytest.raises(Unreachable) as caught:
            await anext(feed)
    assert caught.value.cause == "the event feed was silent for 0.1 s"
    assert caught.value.silent_seconds == 0.1


async def test_heartbeats_keep_a_feed_alive(fake: FakePlatform, platform: Platform) -> None:
    async def beat() -> None:
        for _ in range(5):
            await asyncio.sleep(0.25)
            await fake.send_to_feeds(b": heartbeat\n\n")
        await fake.emit("agent.created", {"id": "a"})

    async with aclosing(events(platform, idle_seconds=1.0)) as feed:
        await anext(feed)
        await fake.until(lambda: fake.feeds == 1)
        beating = asyncio.create_task(beat())
        assert (await anext(feed)).type == "agent.created"
        await beating


async def test_no_answer_at_all(fake: FakePlatform) -> None:
    fake.always("GET", FEED, hold)
    async with Platform(fake.url, KEY, answer_seconds=0.05) as platform:
        with pytest.raises(Unreachable, match="timed out after"):
            await read(platform)


async def test_an_event_without_end_is_cut_off(fake: FakePlatform, platform: Platform) -> None:
    fake.always("GET", FEED, sse(b"data: ", *[b"x" * (1 << 20)] * 5))
    with pytest.raises((PlatformError, Unreachable), match="larger than 4 MB"):
        await read(platform)

"""Staying in step with a platform that comes, goes, breaks, lies and returns, over real HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from lapconsole.client import Platform, Session
from lapconsole.live import Changes, LinkState, LiveModel, Sync, Timing
from tests.client.fakes import KEY, MANAGED, FakePlatform, Handler, Reply, Request, cut, hold, raw, running, until

QUICK = Timing(
    first_retry=0.01, last_retry=0.05, refused_retry=0.05, poll_sessions=0.01, poll_all=0.03, look_for_feed=0.2
)
FEED, SESSIONS, AGENTS = "/api/v1/events", f"{MANAGED}/sessions", f"{MANAGED}/agents"


class Follower:
    """A running sync with its model."""

    def __init__(self, platform: Platform, timing: Timing) -> None:
        self.model = LiveModel()
        self.sync = Sync(platform, self.model, timing)

    async def until(self, condition: Callable[[LiveModel], object]) -> None:
        await until(self.model, lambda: condition(self.model))

    async def live(self) -> None:
        await self.until(lambda model: model.link.state == LinkState.LIVE)

    async def broken(self) -> None:
        await self.until(lambda model: model.link.reason is not None)


@asynccontextmanager
async def following(fake: FakePlatform, timing: Timing = QUICK, key: str = KEY) -> AsyncIterator[Follower]:
    async with Platform(fake.url, key, connect_seconds=1, answer_seconds=1) as platform:
        follower = Follower(platform, timing)
        task = asyncio.create_task(follower.sync.run())
        try:
            yield follower
            assert not task.done(), "a sync never ends by itself"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def fake() -> AsyncIterator[FakePlatform]:
    async with running() as fake:
        fake.add_agent("a")
        fake.add_session("s1")
        yield fake


async def test_it_lists_then_follows(fake: FakePlatform) -> None:
    async with following(fake) as follower:
        assert follower.model.link.state == LinkState.CONNECTING
        await follower.live()
        assert (list(follower.model.agents), list(follower.model.sessions)) == (["a"], ["s1"])
        await fake.emit("session.created", fake.add_session("s2", status="creating", phase="pod_pending"))
        await fake.emit("session.phase", {**fake.sessions["s2"], "phase": "cloning_repo"})
        await follower.until(lambda model: "cloning_repo" in model.phases_seen("s2"))
        assert follower.model.counts == {"ready": 1, "creating": 1}
        assert [request.path for request in fake.requests] == [FEED, AGENTS, SESSIONS]


async def test_many_pages_are_listed(fake: FakePlatform) -> None:
    for number in range(450):
        fake.add_agent(f"a{number}")
        fake.add_session(f"n{number}", agent_id=f"a{number}")
    async with following(fake) as follower:
        await follower.live()
        assert (len(follower.model.agents), len(follower.model.sessions)) == (451, 451)


async def test_what_happens_while_it_lists_is_not_lost(fake: FakePlatform) -> None:
    async def late(request: Request, writer: asyncio.StreamWriter) -> None:
        old = Reply(body=[dict(fake.sessions["s1"])])
        await fake.until(lambda: fake.feeds == 1)
        await fake.emit("session.dead", fake.add_session("s1", status="dead"))
        await fake.emit("session.created", fake.add_session("s2"))
        writer.write(old.encoded())

    fake.once("GET", SESSIONS, late)
    async with following(fake) as follower:
        await follower.live()
        await follower.until(lambda model: model.counts == {"dead": 1, "ready": 1})


async def test_the_data_stays_when_the_platform_goes_and_missed_events_come_after(fake: FakePlatform) -> None:
    async with following(fake) as follower:
        await follower.live()
        await fake.emit("session.updated", fake.add_session("s1", title="one"))
        await follower.until(lambda model: model.sessions["s1"].title == "one")
        before = datetime.now(UTC)
        await fake.stop()
        await follower.until(lambda model: model.link.attempt >= 3 and model.link.reason == "connection refused")
        link = follower.model.link
        assert (link.state, link.current, link.key_refused) == (LinkState.STALE, False, False)
        assert before <= link.since <= datetime.now(UTC)
        assert follower.model.sessions["s1"].title == "one"
        fake.requests.clear()
        await fake.emit("session.dead", fake.add_session("s1", status="dead"))
        await fake.start()
        await follower.until(lambda model: model.counts == {"dead": 1})
        assert (follower.model.link.state, follower.model.link.reason) == (LinkState.LIVE, None)
        assert [(request.path, request.headers["last-event-id"]) for request in fake.requests] == [(FEED, "1")]


async def test_a_platform_that_is_not_there_yet(fake: FakePlatform) -> None:
    await fake.stop()
    async with following(fake) as follower:
        began = follower.model.link.since
        await follower.until(lambda model: model.link.attempt >= 2)
        assert (follower.model.link.state, follower.model.link.since) == (LinkState.CONNECTING, began)
        await fake.start()
        await follower.live()


async def test_waiting_can_be_cut_short(fake: FakePlatform) -> None:
    await fake.stop()
    async with following(fake, Timing(first_retry=600, last_retry=600)) as follower:
        await follower.until(lambda model: model.link.next_retry is not None)
        retry = follower.model.link.next_retry
        assert retry is not None and timedelta(minutes=7) < retry - datetime.now(UTC) < timedelta(minutes=13)
        await fake.start()
        follower.sync.retry_now()
        await follower.live()
        assert follower.model.link.next_retry is None


async def test_waits_grow_and_start_over_after_a_steady_link(fake: FakePlatform) -> None:
    await fake.stop()
    async with following(fake, Timing(first_retry=0.02, last_retry=0.1, steady=0)) as follower:
        waits: dict[int, float] = {}

        def note(_: Changes) -> None:
            link = follower.model.link
            if link.next_retry is not None:
                waits[link.attempt] = (link.next_retry - datetime.now(UTC)).total_seconds()

        follower.model.observe(note)
        await follower.until(lambda model: model.link.attempt >= 5)
        assert waits[1] < 0.025 and waits[5] > 0.04
        assert all(wait < 0.121 for wait in waits.values())
        await fake.start()
        await follower.live()
        await fake.stop()
        await follower.broken()
        assert follower.model.link.attempt == 1


@pytest.mark.parametrize("opened", [b'event: feed.opened\ndata: {"seq": 5}\n\n', b""])
async def test_events_no_longer_kept_mean_listing_again(fake: FakePlatform, opened: bytes) -> None:
    async with following(fake) as follower:
        await follower.live()
        await fake.emit("session.updated", fake.sessions["s1"])
        await fake.emit("session.updated", fake.add_session("s1", title="x"))
        await follower.until(lambda model: model.sessions["s1"].title == "x")
        await fake.stop()
        await follower.broken()
        fake.sessions.clear()
        fake.add_session("s2")
        fake.always("GET", FEED, raw_feed(opened + b'event: feed.reset\ndata: {"seq": 5}\n\n'))
        fake.requests.clear()
        await fake.start()
        await follower.until(lambda model: list(model.sessions) == ["s2"] and model.link.current)
        assert len(fake.asked(FEED)) == 1


async def test_a_reset_in_mid_feed_means_listing_again(fake: FakePlatform) -> None:
    async with following(fake) as follower:
        await follower.live()
        fake.sessions.clear()
        await fake.send_to_feeds(b'event: feed.reset\ndata: {"seq": 9}\n\n')
        await follower.until(lambda model: not model.sessions)


async def test_another_platform_at_the_same_address_is_listed_anew(fake: FakePlatform) -> None:
    async with following(fake) as follower:
        await follower.live()
        for _ in range(3):
            await fake.emit("session.updated", fake.sessions["s1"])
        await fake.emit("session.updated", fake.add_session("s1", title="x"))
        await follower.until(lambda model: model.sessions["s1"].title == "x")
        await fake.stop()
        fake.log.clear()
        fake.sessions.clear()
        fake.add_session("new")
        fake.always("GET", FEED, raw_feed(b'event: feed.opened\ndata: {"seq": 1}\n\n'))
        await fake.start()
        await follower.until(lambda model: list(model.sessions) == ["new"])


def raw_feed(data: bytes) -> Handler:
    """A feed that says this and then stays open."""

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + data)
        await request.reader.read()

    return handler


async def test_a_silent_feed_is_stale_since_it_fell_silent(fake: FakePlatform) -> None:
    async with following(fake, Timing(first_retry=600, last_retry=600, idle=0.1)) as follower:
        await follower.live()
        await follower.broken()
        link = follower.model.link
        assert link.reason == "the event feed was silent for 0.1 s"
        assert datetime.now(UTC) - link.since >= timedelta(seconds=0.1)


@pytest.mark.parametrize("seq", ["null", "-1", '"x"', "1.5"])
async def test_a_feed_with_odd_numbers_is_followed(fake: FakePlatform, seq: str) -> None:
    session = b'data: {"type": "session.dead", "session": {"id": "s1", "status": "dead"}}\n\n'
    opened = f'event: feed.opened\ndata: {{"seq": {seq}}}\n\n'.encode()
    fake.always("GET", FEED, raw_feed(opened + b"data: nonsense\n\ndata: 7\n\n" + session))
    async with following(fake) as follower:
        await follower.until(lambda model: model.counts == {"dead": 1} and model.link.current)


async def test_a_feed_that_ends_at_once_again_and_again(fake: FakePlatform) -> None:
    fake.always("GET", FEED, raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"))
    async with following(fake) as follower:
        await follower.until(lambda model: model.link.attempt >= 3)
        assert follower.model.link.reason == "the platform closed the event feed"
        fake.always("GET", FEED, None)
        await follower.live()


@pytest.mark.parametrize(
    "refusal", [Reply(404, {"error": "not found"}), Reply(502, b"bad gateway"), Reply(200, b"<html>")]
)
async def test_without_a_feed_it_polls_and_takes_the_feed_once_there_is_one(fake: FakePlatform, refusal: Reply) -> None:
    fake.always("GET", FEED, refusal)
    async with following(fake) as follower:
        await follower.until(lambda model: model.link.state == LinkState.POLLING)
        fake.add_session("s2", status="creating", phase="pod_pending")
        await follower.until(lambda model: "s2" in model.sessions)
        fake.add_session("s2", status="creating", phase="cloning_repo")
        await follower.until(lambda model: list(model.phases_seen("s2")) == ["pod_pending", "cloning_repo"])
        del fake.sessions["s1"]
        await follower.until(lambda model: list(model.sessions) == ["s2"])
        fake.agents.clear()
        await follower.until(lambda model: not model.agents)
        fake.sessions.clear()
        await follower.until(lambda model: not model.sessions)
        fake.always("GET", FEED, None)
        await follower.live()


async def test_a_polled_platform_that_goes_away_is_stale(fake: FakePlatform) -> None:
    fake.has_feed = False
    async with following(fake) as follower:
        await follower.until(lambda model: model.link.state == LinkState.POLLING)
        await fake.stop()
        await follower.until(lambda model: model.link.state == LinkState.STALE)
        assert list(follower.model.sessions) == ["s1"]
        await fake.start()
        await follower.until(lambda model: model.link.state == LinkState.POLLING)


async def test_a_platform_that_lists_only_the_newest(fake: FakePlatform) -> None:
    """Sessions that hold a sandbox are found and watched, however old; those seen once stay."""
    fake.has_feed = fake.can_page = False
    fake.agents["a"]["has_active_session"] = True
    for number in range(220):
        fake.add_session(f"n{number}", agent_id="other", status="dead")
    async with following(fake) as follower:
        await follower.until(lambda model: model.link.state == LinkState.POLLING)
        assert follower.model.counts == {"dead": 200, "ready": 1}
        fake.agents["a"]["has_active_session"] = False
        fake.sessions["s1"]["status"] = "dead"
        await follower.until(lambda model: model.counts == {"dead": 201})


async def test_what_is_made_here_while_it_lists_stays(fake: FakePlatform) -> None:
    fake.has_feed = False

    async def outdated(request: Request, writer: asyncio.StreamWriter) -> None:
        answer = Reply(body=list(fake.sessions.values()))
        follower.model.update_sessions([Session.from_json(fake.add_session("made here"))])
        writer.write(answer.encoded())

    async with following(fake) as follower:
        await follower.until(lambda model: model.link.state == LinkState.POLLING)
        removed: list[str] = []
        follower.model.observe(lambda changes: removed.extend(changes.sessions - follower.model.sessions.keys()))
        fake.once("GET", SESSIONS, outdated)
        await follower.until(lambda model: "made here" in model.sessions)
        polled = len(fake.asked(SESSIONS))
        await fake.until(lambda: len(fake.asked(SESSIONS)) > polled + 1)
        assert removed == []


@pytest.mark.parametrize("has_feed", [True, False])
async def test_a_refused_key_is_said_and_tried_again(fake: FakePlatform, has_feed: bool) -> None:
    fake.has_feed = has_feed
    for path in (FEED, AGENTS):
        fake.always("GET", path, Reply(401, {"error": "unauthorized"}))
    async with following(fake) as follower:
        await follower.until(lambda model: model.link.attempt >= 2)
        link = follower.model.link
        assert (link.state, link.key_refused) == (LinkState.CONNECTING, True)
        assert link.reason == "the platform refused the key (401 Unauthorized)"
        for path in (FEED, AGENTS):
            fake.always("GET", path, None)
        await follower.until(lambda model: model.link.current)
        assert follower.model.link.key_refused is False


@pytest.mark.parametrize(
    ("path", "reply", "reason"),
    [
        (
            SESSIONS,
            Reply(500, {"error": "internal error"}),
            "the platform answers 500 Internal Server Error: internal error",
        ),
        (AGENTS, Reply(200, b"<html>"), "no LAP platform answers there: the answer is not JSON"),
        (AGENTS, cut, "the connection was closed in the middle of an answer"),
        (AGENTS, hold, "timed out after 1 s"),
    ],
)
async def test_a_list_that_fails_is_tried_again(fake: FakePlatform, path: str, reply, reason: str) -> None:
    fake.always("GET", path, reply)
    async with following(fake) as follower:
        await follower.broken()
        assert (follower.model.link.reason or "").startswith(reason)
        fake.always("GET", path, None)
        await follower.live()
        assert list(follower.model.sessions) == ["s1"]


async def test_the_feed_ending_while_it_lists_is_not_taken_for_live(fake: FakePlatform) -> None:
    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        await fake.until(lambda: fake.feeds == 1)
        await fake.end_feeds()
        await hold(request, writer)

    fake.once("GET", SESSIONS, never)
    async with following(fake) as follower:
        await follower.broken()
        assert follower.model.link.state == LinkState.CONNECTING
        await follower.live()


async def test_a_fault_of_our_own_does_not_end_it(fake: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(fake) as follower:
        await follower.live()
        with monkeypatch.context() as broken:
            broken.setattr(follower.model, "apply", lambda event: 1 / 0)
            broken.setattr(logging.getLogger("lapconsole.live.sync"), "disabled", True)
            await fake.emit("session.dead", fake.add_session("s1", status="dead"))
            await follower.until(lambda model: model.link.reason == "internal error: ZeroDivisionError")
        await fake.emit("session.updated", fake.add_session("s1", status="dead", title="x"))
        await follower.until(lambda model: model.sessions["s1"].title == "x")


async def test_cancelling_leaves_nothing_open(fake: FakePlatform) -> None:
    async with following(fake) as follower:
        await follower.live()
        await fake.until(lambda: fake.feeds == 1)
    await fake.until(lambda: fake.feeds == 0)
    assert [task for task in asyncio.all_tasks() if "Sync" in repr(task)] == []

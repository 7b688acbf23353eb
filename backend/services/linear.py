"""Work that comes from Linear: sessions for what is asked there, and what becomes of them told there (LAP harness 7.2).

Everything is a row before it is done: a delivery until it is carried out, a post until Linear has it. So nothing is
lost when the platform ends, and one process of several does it, the one that has the duty.
"""

import asyncio
import json
import logging
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from backend.domain import clock, messages, sessions
from backend.domain.agents import supports_tui
from backend.integrations.linear import words
from backend.integrations.linear.client import LinearAway, LinearClient, LinearError, LinearUnauthorized
from backend.integrations.linear.webhooks import Event, Issue
from backend.services.agent_client import HarnessRefused
from backend.services.errors import NotFound, ServiceError
from backend.services.events import EventFeed, FeedClosed, Filter, Subscription
from backend.services.exchange import Said
from backend.services.integrations import IntegrationsService
from backend.services.leases import Leases
from backend.services.messages import MessagesService
from backend.services.sessions import SessionsService
from backend.settings import Settings
from backend.store import events, views
from backend.store import integrations as store
from backend.store import messages as message_store
from backend.store import sessions as session_store
from backend.store.database import Database, Row, Transaction

logger = logging.getLogger(__name__)

DUTY: Final = "linear"
LOOK_SECONDS: Final = 5.0
"""How often rows are looked for that nobody has told of: another process's, or those that are due again."""
KEPT_SECONDS: Final = 86_400.0
"""How long a delivery is known, so that it is not carried out again."""
TIDY_SECONDS: Final = 3_600.0
BACK_OFF: Final = (2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0)
"""Seconds between attempts; after the last one it is given up."""
FIRST_SECONDS: Final = 10.0
PROBE_SECONDS: Final = 0.1
AT_ONCE: Final = 4
ADOPT_SECONDS: Final = 300.0
"""How long after an assignment Linear may tell of the agent session that comes with it."""
READY_EVENTS: Final = frozenset({"session.ready", "session.failed", "session.dead"})
TELLING_EVENTS: Final = READY_EVENTS | {"session.updated", "session.restarted"}
ACTIVITY: Final = "activity"
ADDRESS: Final = "address"

WORKS_IN_A_TERMINAL: Final = (
    "The agent works in a terminal and takes no messages from here. Look at it, and answer, in {}."
)
TERMINAL_ENDED: Final = "The session is over ({}). Assign the issue again to start a new one."
UNASSIGNED: Final = "Stopped: the issue is not the agent's any more."
STOPPED: Final = "Stopped."


class LinearWork:
    """Carries deliveries out, follows the sessions they opened, and posts what is to be told."""

    def __init__(
        self,
        database: Database,
        integrations: IntegrationsService,
        sessions: SessionsService,
        messages: MessagesService,
        feed: EventFeed,
        leases: Leases,
        settings: Settings,
    ) -> None:
        self._database = database
        self._integrations = integrations
        self._sessions = sessions
        self._messages = messages
        self._feed = feed
        self._leases = leases
        self._base_url = settings.lap_base_url
        self._came = asyncio.Event()
        self._to_post = asyncio.Event()
        self._leads = False
        self._linked: set[str] = set()
        self._told_to: dict[str, int] = {}
        """Up to which event the rows of sessions have been told: those are no news any more."""
        self._quiet: set[str] = set()
        """Sessions of which nothing is told for now: they are being restarted."""
        self._in_order: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[None]] = set()
        integrations.on_delivery = self._came.set

    async def start(self) -> None:
        """Begin, where Linear is set up, if this process has the duty with what an earlier one left."""
        if self._integrations.linear is None:
            return
        subscription = await self._feed.subscribe(None, Filter(types=TELLING_EVENTS))
        await self._has_duty()
        self._own(self._follow(subscription))
        self._own(self._each_time(self._came, self._carry_out))
        self._own(self._each_time(self._to_post, self._post_all))
        self._own(self._tidy())

    async def aclose(self) -> None:
        """End all tasks; what they were at is begun again by the next platform process."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("linear: a task broke", exc_info=error)

    async def _has_duty(self) -> bool:
        before, self._leads = self._leads, await self._leases.take(DUTY)
        if self._leads and not before:
            async with self._database.read() as tx:
                self._linked = set(await store.linked_sessions(tx))
                cut_off = await store.deliveries(tx, store.SAYING)
            for row in cut_off:
                self._own(self._say_unless_said(row))
            self._own(self._tell_all())
        return self._leads

    async def _each_time(self, woken: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` whenever it is woken, and every LOOK_SECONDS."""
        while True:
            woken.clear()
            try:
                if await self._has_duty():
                    await work()
            except Exception:
                logger.exception("linear: %s failed", work.__name__)
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await woken.wait()
            except TimeoutError:
                pass

    async def _tidy(self) -> None:
        while True:
            before = clock.text(datetime.now(UTC) - timedelta(seconds=KEPT_SECONDS))
            try:
                async with self._database.begin() as tx:
                    await store.forget_deliveries(tx, before)
            except Exception:
                logger.exception("linear: old deliveries could not be forgotten")
            await asyncio.sleep(TIDY_SECONDS)

    # What comes from Linear.

    async def _carry_out(self) -> None:
        """All deliveries that are due; those of one install in the order they came in."""
        async with self._database.read() as tx:
            waiting = await store.deliveries(tx, store.WAITING)
        by_install: defaultdict[str, list[Row]] = defaultdict(list)
        for row in waiting:
            by_install[row["install_id"]].append(row)
        await asyncio.gather(*(self._carry_out_in_order(rows) for rows in by_install.values()))

    async def _carry_out_in_order(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row["due_at"] > clock.now():
                return
            event = Event.stored(row["event"])
            try:
                state = await self._do(row, event)
            except Exception as error:
                if not isinstance(error, ServiceError | LinearError):
                    logger.exception("linear: delivery %s broke", row["delivery"])
                if row["attempts"] < _attempts(error):
                    await self._put_off(row)
                    return
                logger.warning("linear: delivery %s (%s) failed: %s", row["delivery"], event.kind, error)
                await self._give_up(row, event, error)
                continue
            async with self._database.begin() as tx:
                await store.change_delivery(tx, row["seq"], {"state": state})
            if state == store.SAYING:
                self._own(self._say(row, event))

    async def _do(self, row: Row, event: Event) -> str:
        """Carry one out, again if need be; returns the state it has then."""
        if event.kind == "opened":
            await self._opened(row, event)
        elif event.kind == "assigned":
            await self._assigned(row, event)
        elif event.kind == "unassigned":
            assert event.issue is not None
            async with self._database.read() as tx:
                links = await store.links_of_issue(tx, row["install_id"], event.issue.id)
            for each in links:
                if each["status"] in sessions.ACTIVE:
                    await self._stop(each, UNASSIGNED)
        elif event.kind == "stopped":
            if link := await self._link(row["install_id"], event.agent_session_id):
                await self._stop(link, STOPPED)
        elif await self._link(row["install_id"], event.agent_session_id) is not None:
            return store.SAYING
        return store.DONE

    async def _opened(self, row: Row, event: Event) -> None:
        if await self._link(row["install_id"], event.agent_session_id) is not None:
            return
        if event.issue is not None and not event.text and await self._adopted(row, event, event.issue):
            return
        await self._open(row, event, by_assignment=False)

    async def _adopted(self, row: Row, event: Event, issue: Issue) -> bool:
        """Whether a session was opened already for the same assignment, which two kinds of webhooks tell of."""
        async with self._telling() as tx:
            links = await store.links_of_issue(tx, row["install_id"], issue.id)
            link = next(filter(_comes_with, links), None)
            if link is not None:
                values = {"external_session_id": event.agent_session_id, "by_assignment": False}
                await store.change_link(tx, link["session_id"], values)
                await self._greet(tx, row["install_id"], event.agent_session_id, issue, link["session_id"])
        return link is not None

    async def _assigned(self, row: Row, event: Event) -> None:
        assert event.issue is not None
        async with self._database.read() as tx:
            links = await store.links_of_issue(tx, row["install_id"], event.issue.id)
        if any(link["status"] in sessions.ACTIVE or link["session_id"] == row["id"] for link in links):
            return
        issue_id = event.issue.id
        opened = await self._asked(row["install_id"], lambda linear, token: linear.open_agent_session(token, issue_id))
        event = Event("opened", opened, event.issue)
        # From now on it is that agent session's, also when this is begun again.
        async with self._database.begin() as tx:
            await store.change_delivery(tx, row["seq"], {"event": event.json()})
        await self._open(row, event, by_assignment=True)

    async def _open(self, row: Row, event: Event, *, by_assignment: bool) -> None:
        """A session for what was asked, once."""
        session_id, issue = row["id"], event.issue
        async with self._database.read() as tx:
            agent_id = await store.bound_agent(tx, row["install_id"])
            created = await session_store.get(tx, session_id) is not None
        if agent_id is None:
            raise NotFound("no agent is bound to this workspace any more")
        if not created:
            async with self._telling() as tx:
                await self._greet(tx, row["install_id"], event.agent_session_id, issue, session_id)
            await self._sessions.create(
                agent_id,
                title=(issue.ref[: sessions.TITLE_LIMIT] if issue else "Linear"),
                initial_prompt=words.prompt(event),
                session_id=session_id,
            )
        values = {
            "external_session_id": event.agent_session_id,
            "install_id": row["install_id"],
            "session_id": session_id,
            "external_ref": _ref(issue),
            "issue_id": issue.id if issue else None,
            "by_assignment": by_assignment,
            "stopped": False,
            "told": {},
            "created_at": clock.now(),
        }
        async with self._database.begin() as tx:
            await store.add_link(tx, values)
        self._linked.add(session_id)
        await self._tell(session_id)

    async def _greet(
        self, tx: Transaction, install_id: str, external_id: str, issue: Issue | None, session_id: str
    ) -> None:
        """At once: Linear takes an agent that says nothing within ten seconds for unresponsive."""
        await self._post(tx, install_id, external_id, words.content("thought", f"Picking up {_ref(issue)}."))
        if url := words.Place(session_id, self._base_url).url:
            await self._post(tx, install_id, external_id, {"label": "Session", "url": url}, ADDRESS)

    async def _stop(self, link: Row, said: str) -> None:
        session_id = link["session_id"]
        if link["status"] in sessions.ACTIVE:
            async with self._database.begin() as tx:
                await store.change_link(tx, session_id, {"stopped": True})
            await self._sessions.stop(session_id)
        async with self._telling() as tx:
            await self._post(tx, link["install_id"], link["external_session_id"], words.content("response", said))

    async def _put_off(self, row: Row) -> None:
        values = {"attempts": row["attempts"] + 1, "due_at": _after(BACK_OFF[row["attempts"]])}
        async with self._database.begin() as tx:
            await store.change_delivery(tx, row["seq"], values)

    async def _give_up(self, row: Row, event: Event, error: Exception) -> None:
        known = isinstance(error, ServiceError | LinearError)
        reason = str(error) if known else "the platform failed; its log says why"
        what = "Failed to start session" if event.kind in ("opened", "assigned") else f"Failed ({event.kind})"
        async with self._telling() as tx:
            await store.change_delivery(tx, row["seq"], {"state": store.FAILED})
            if event.agent_session_id:
                told = words.content("error", f"{what}: {reason}")
                await self._post(tx, row["install_id"], event.agent_session_id, told)

    # Messages for sessions.

    async def _say_unless_said(self, row: Row) -> None:
        """A message whose end the platform's own end kept from us: it may have been given to the agent already."""
        event = Event.stored(row["event"])
        link = await self._link(row["install_id"], event.agent_session_id)
        if link is not None:
            async with self._database.read() as tx:
                said = await message_store.of(tx, link["session_id"])
            since_ms = clock.parse(row["received_at"]).timestamp() * 1000
            if any(
                message["role"] == "user"
                and message["at_ms"] >= since_ms
                and messages.text_of(message["parts"]) == event.text
                for message in said
            ):
                await self._said(row)
                return
        await self._say(row, event)

    async def _say(self, row: Row, event: Event) -> None:
        """Give the agent a message, once it can take one. What it answers is told as what any turn comes to."""
        link = await self._link(row["install_id"], event.agent_session_id)
        if link is None:
            await self._said(row)
            return
        session_id = link["session_id"]
        try:
            async with self._in_order[session_id]:
                problem = await self._up(session_id)
            if problem is None:
                await self._messages.send(session_id, Said([{"type": "text", "text": event.text}]))
        except FeedClosed:
            return
        except (ServiceError, HarnessRefused) as error:
            if self._feed.closed:
                return  # the platform ends: see `_say_unless_said`
            problem = words.content("error", f"The agent could not be told: {error}")
        except Exception:
            logger.exception("linear: session %s could not be told", session_id)
            problem = words.content("error", "The agent could not be told: the platform failed; its log says why")
        if problem is not None:
            async with self._telling() as tx:
                await self._post(tx, link["install_id"], link["external_session_id"], problem)
        await self._said(row)

    async def _said(self, row: Row) -> None:
        async with self._database.begin() as tx:
            await store.change_delivery(tx, row["seq"], {"state": store.DONE})

    async def _up(self, session_id: str) -> words.Content | None:
        """Wait until the session can take a message, restarting one that is over; what to tell when it cannot."""
        subscription = await self._feed.subscribe(None, Filter(types=READY_EVENTS, session_id=session_id))
        session = await self._sessions.get(session_id)
        while session["status"] == sessions.CREATING:
            await subscription.next(LOOK_SECONDS)
            session = await self._sessions.get(session_id)
        await self._begun(session_id)
        if supports_tui(session["harness_id"]):
            if session["status"] == sessions.READY:
                place = words.Place(session_id, self._base_url)
                return words.content("response", WORKS_IN_A_TERMINAL.format(place))
            return words.content("error", TERMINAL_ENDED.format(session["failure_reason"] or session["status"]))
        if session["status"] in sessions.ENDED:
            self._quiet.add(session_id)
            try:
                await self._messages.restart(session_id)
                async with self._database.begin() as tx:
                    await store.change_link(tx, session_id, {"stopped": False})
                await self._tell(session_id)
            finally:
                self._quiet.discard(session_id)
        return None

    async def _begun(self, session_id: str) -> None:
        """Wait until the session's first message has been given to the agent: nothing may come before it."""
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                while True:
                    async with self._database.read() as tx:
                        turns = await message_store.open_turns(tx, [session_id])
                    if all(turn["state"] != message_store.QUEUED for turn in turns):
                        return
                    await asyncio.sleep(PROBE_SECONDS)
        except TimeoutError:
            logger.warning("linear: session %s has not got its first message yet", session_id)

    # What is told in Linear.

    async def _tell_all(self) -> None:
        """Tell what has become of the sessions opened from there while nobody looked."""
        for session_id in tuple(self._linked):
            await self._tell(session_id)

    async def _follow(self, subscription: Subscription) -> None:
        """Tell what becomes of them."""
        while True:
            try:
                for event in await subscription.next(TIDY_SECONDS):
                    if not self._leads or event.session_id not in self._linked:
                        continue
                    if event.seq > self._told_to.get(event.session_id, 0):
                        await self._tell(event.session_id, json.loads(event.data)["session"])
            except FeedClosed:
                return
            except Exception:
                logger.exception("linear: what became of a session could not be told")

    async def _tell(self, session_id: str, seen: Mapping[str, Any] | None = None) -> None:
        """Post what is new of a session, as it was `seen` or as it is. Each thing is told once."""
        async with self._telling() as tx:
            if seen is None:  # first: what comes in between is told again, and not lost
                self._told_to[session_id] = await events.newest(tx)
            row = await session_store.get(tx, session_id)
            link = await store.link_of(tx, session_id)
            if link is None or row is None:
                self._linked.discard(session_id)
                return
            session = dict(seen or views.session(row))
            await self._whole_response(tx, session)
            place = words.Place(session_id, self._base_url)
            found, told = words.news(link["told"], session, place)
            if told != link["told"]:
                await store.change_link(tx, session_id, {"told": told})
            over = link["stopped"] and session["status"] in sessions.ENDED
            if over or session_id in self._quiet:
                return
            for content in found:
                await self._post(tx, link["install_id"], link["external_session_id"], content)

    async def _whole_response(self, tx: Transaction, session: dict[str, Any]) -> None:
        """Put the whole answer where the event log has only its beginning."""
        response = session["response"]
        if response and response.get("truncated"):
            full = await message_store.full_response(tx, session["id"])
            if full and full.get("info") == response.get("info"):
                session["response"] = full

    async def _post(
        self, tx: Transaction, install_id: str, external_id: str, content: Mapping[str, Any], kind: str = ACTIVITY
    ) -> None:
        now = clock.now()
        values = {
            "id": str(uuid.uuid4()),
            "install_id": install_id,
            "external_session_id": external_id,
            "kind": kind,
            "content": dict(content),
            "due_at": now,
            "created_at": now,
        }
        await store.add_post(tx, values)

    @asynccontextmanager
    async def _telling(self) -> AsyncIterator[Transaction]:
        """A transaction with posts in it, which are looked for once it is committed."""
        async with self._database.begin() as tx:
            yield tx
        self._to_post.set()

    async def _post_all(self) -> None:
        """Everything that is due; in one conversation one after the other."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(row: Row) -> bool:
            async with gate:
                return await self._post_one(row)

        while True:
            async with self._database.read() as tx:
                rows = [row for row in await store.posts(tx) if row["due_at"] <= clock.now()]
            if not rows or not any(await asyncio.gather(*(one(row) for row in rows))):
                return

    async def _post_one(self, row: Row) -> bool:
        """Post, or put off; True when the row is gone."""
        content = row["content"]

        async def post(linear: LinearClient, token: str) -> None:
            if row["kind"] == ADDRESS:
                await linear.link_session(token, row["external_session_id"], content["label"], content["url"])
            else:
                await linear.create_activity(token, row["external_session_id"], content, row["id"])

        try:
            await self._asked(row["install_id"], post)
        except Exception as error:
            if not isinstance(error, LinearError | ServiceError):
                logger.exception("linear: posting broke")
            if isinstance(error, LinearAway) and row["attempts"] < len(BACK_OFF):
                async with self._database.begin() as tx:
                    await store.put_off(tx, row["seq"], row["attempts"] + 1, _after(BACK_OFF[row["attempts"]]))
                return False
            logger.warning("linear: %s of %s was not posted: %s", row["kind"], row["external_session_id"], error)
        async with self._database.begin() as tx:
            await store.remove_post(tx, row["seq"])
        return True

    async def _asked(self, install_id: str, ask: Callable[[LinearClient, str], Awaitable[Any]]) -> Any:
        """What Linear answers, with a token of the install, a new one if the first is not taken. Raises LinearError."""
        linear = self._integrations.linear
        assert linear is not None
        token = await self._integrations.access_token(install_id)
        try:
            return await ask(linear, token)
        except LinearUnauthorized:
            return await ask(linear, await self._integrations.access_token(install_id, refused=token))

    async def _link(self, install_id: str, external_id: str) -> Row | None:
        async with self._database.read() as tx:
            return await store.link(tx, install_id, external_id)


def _comes_with(link: Row) -> bool:
    """Whether a session was opened just now for an assignment, whose agent session Linear has not told of yet."""
    recent = clock.seconds_since(link["created_at"]) < ADOPT_SECONDS
    return bool(link["by_assignment"] and recent and link["status"] in sessions.ACTIVE)


def _attempts(error: Exception) -> int:
    """How often to try again: while Linear is away, and a little when nobody knows what is wrong."""
    if isinstance(error, LinearAway):
        return len(BACK_OFF)
    return 0 if isinstance(error, ServiceError | LinearError) else 2


def _ref(issue: Issue | None) -> str:
    return issue.ref if issue else "task"


def _after(seconds: float) -> str:
    return clock.text(datetime.now(UTC) + timedelta(seconds=seconds))

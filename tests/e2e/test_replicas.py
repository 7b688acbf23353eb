"""Several platforms on one PostgreSQL, their sandboxes in one cluster, behind a load balancer: any may go any time."""

import asyncio
import contextlib
import importlib.util
import random
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psycopg
import pytest

from backend.services import reconciler
from backend.settings import Settings
from lapconsole.client import feed
from lapconsole.client.errors import ClientError
from lapconsole.client.platform import Platform as Client
from lapconsole.terminal.attachment import Attachment, Phase
from lapconsole.terminal.emulator import Emulator
from tests.e2e.balancer import balancer
from tests.e2e.programs import API, Platform, attached
from tests.kubernetes.conftest import RealCluster, cluster  # noqa: F401
from tests.kubernetes.double import Double
from tests.loopback_model import LoopbackModel
from tests.waiting import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.xdist_group("postgres"),
    pytest.mark.skipif(importlib.util.find_spec("claude_agent_sdk") is None, reason="claude-agent-sdk is missing"),
]

LOST_SECONDS = 30.0
"""Until the sessions of a killed platform are another's: 15 s on a machine with nothing else to do."""
OVER = ("dead", "failed")


class Replicas:
    """The platforms, each with a data folder of its own and the same keys."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.all = [Platform(folder / name, env) for name in ("one", "two")]

    async def start(self) -> None:
        first, *others = (each.data_dir for each in self.all)
        first.mkdir()
        Settings(data_dir=first).with_keys()
        for other in others:
            shutil.copytree(first, other)
        await asyncio.gather(*(each.start() for each in self.all))

    @property
    def ports(self) -> list[int]:
        return [httpx.URL(each.url).port or 0 for each in self.all if each.running]

    async def close(self) -> None:
        first, *others = self.all
        for other in others:
            if other.running:
                assert await other.end() == 0, other.log()
        await first.close()


@pytest.fixture
def model() -> Any:
    with contextlib.ExitStack() as stack:
        model = LoopbackModel()
        model.start()
        stack.callback(model.stop)
        yield model


@pytest.fixture
async def replicas(
    tmp_path: Path,
    postgres_url: str,
    cluster: Double | RealCluster,  # noqa: F811
    model: LoopbackModel,
) -> AsyncIterator[Replicas]:
    made = Replicas(
        tmp_path,
        {
            "DATABASE_URL": postgres_url,
            "LAP_SANDBOXES": "kubernetes",
            "LAP_VAULT": "off",
            "KUBECONFIG": str(cluster.kubeconfig),
            "K8S_NAMESPACE": cluster.namespace,
            "LITELLM_API_BASE": model.url,
            "LITELLM_API_KEY": "sk-test",
            "RECONCILE_INTERVAL_SECONDS": "5",
        },
    )
    await made.start()
    yield made
    await made.close()
    if isinstance(cluster, Double):
        await until(lambda: not cluster.list("sandboxes"), "no sandbox is left", 30)


def duty_of(url: str, name: str) -> str | None:
    """The data folder of the platform that has a duty."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT holder FROM worker_lease WHERE name = %s", [name]).fetchone()
    return str(row[0]).partition(":")[2] if row else None


def owner_of(url: str, session: dict[str, Any]) -> str:
    """The data folder of the platform that runs a session."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT owner FROM session WHERE id = %s", [session["id"]]).fetchone()
    assert row is not None
    return str(row[0]).partition(":")[2]


class Screen:
    """What a console shows of a terminal."""

    def __init__(self) -> None:
        self.emulator = Emulator(80, 24)

    @property
    def text(self) -> list[str]:
        return [line.rstrip() for line in self.emulator.text()]

    async def show_output(self, data: bytes) -> None:
        self.emulator.feed(data)

    async def show_repaint(self, data: bytes, size: tuple[int, int], *, fresh: bool) -> bool:
        self.emulator = Emulator(*size)
        self.emulator.feed(data)
        return True

    def attachment_changed(self) -> None:
        """Nothing to draw."""

    def attachment_news(self, words: str) -> None:
        """Nobody to tell."""


@contextlib.asynccontextmanager
async def going_on(work: Awaitable[None]) -> AsyncIterator[None]:
    """`work` runs meanwhile, and must not fail."""
    task = asyncio.ensure_future(work)
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        ended = (await asyncio.gather(task, return_exceptions=True))[0]
    if isinstance(ended, Exception):
        raise ended


async def answered(http: httpx.AsyncClient, session: dict[str, Any], text: str) -> bool:
    """Whether the answer to a message is stored."""
    with contextlib.suppress(httpx.TransportError):
        response = await http.get(f"{API}/sessions/{session['id']}/messages")
        return response.status_code == 200 and any(
            any((part.get("text") or "").endswith(f"echo: {text}") for part in message["parts"])
            for message in response.json()
            if message["info"]["role"] == "assistant"
        )
    return False


async def converse(http: httpx.AsyncClient, session: dict[str, Any], said: list[str]) -> None:
    """Say one thing after the other; what the platform's end cut off is answered all the same, or never arrived."""
    while True:
        text = f"number {len(said)}"
        reply = None
        with contextlib.suppress(httpx.TransportError):
            reply = await http.post(f"{API}/sessions/{session['id']}/message", json={"text": text})
        if reply is None or reply.status_code != 200:
            started = monotonic()
            while not await answered(http, session, text):
                if monotonic() - started > 20:
                    break
                await asyncio.sleep(0.1)
            else:
                said.append(text)
            continue
        assert reply.json()["parts"][-1]["text"] == f"echo: {text}"
        said.append(text)
        await asyncio.sleep(0.05)


async def subscribe(client: Client, seen: list[int]) -> None:
    """Collect the numbers of all events, connecting again where a stream ends."""
    while True:
        with contextlib.suppress(ClientError):
            async with contextlib.aclosing(feed.events(client, seen[-1])) as events:
                async for event in events:
                    assert event.type != "feed.reset"
                    if event.type != "feed.opened":
                        assert event.seq is not None
                        seen.append(event.seq)
        await asyncio.sleep(0.05)


async def type_lines(attachment: Attachment, screen: Screen, typed: list[str], lost: list[str]) -> None:
    """Type one line after the other into a shell, each once what it prints is on the screen."""
    while True:
        number = len(typed)
        await until(lambda: attachment.state.phase is Phase.LIVE and attachment.seat is not None, "attached", 30)
        await until(lambda: attachment.seat is not None and attachment.seat.drives, "the terminal is driven", 30)
        if not attachment.type(f"echo line-$(({number} + 0))-$((6 * 7))\r".encode()):
            continue
        line = f"line-{number}-42"
        try:
            await until(lambda line=line: line in screen.text, "it is printed", 5)
            typed.append(line)
        except AssertionError:
            # Typed in the moment in which the console learned that the link was lost: it says so, and sends it nowhere.
            lost.append(line)


async def test_a_rolling_restart_under_load(replicas: Replicas) -> None:
    one = replicas.all[0]
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(balancer(lambda: replicas.ports))
        headers = {"Authorization": f"Bearer {one.key}"}
        http = httpx.AsyncClient(base_url=address, headers=headers, timeout=60, trust_env=False)
        await stack.enter_async_context(http)
        client = Client(address, one.key)
        stack.push_async_callback(client.aclose)
        shell, sdk = (
            await one.create_agent(),
            await one.create_agent(harness_id="claude-agent-sdk", model="claude-test"),
        )
        terminal, chat = await asyncio.gather(one.ready(shell), one.ready(sdk))
        screen, said, typed, lost = Screen(), list[str](), list[str](), list[str]()
        seen = [(await client.event_log(limit=1000)).rows[-1].seq]
        attachment = Attachment(lambda: client, terminal["id"], (80, 24), screen)
        created: list[dict[str, Any]] = []
        await stack.enter_async_context(going_on(attachment.run()))
        async with (
            going_on(converse(http, chat, said)),
            going_on(subscribe(client, seen)),
            going_on(type_lines(attachment, screen, typed, lost)),
        ):
            for replica in replicas.all:
                lines, messages = len(typed), len(said)
                await until(lambda n=lines: len(typed) > n, "lines are typed", 60)
                await until(lambda n=messages: len(said) > n, "messages are answered", 60)
                created += [
                    await replica.create_session(shell),
                    await replica.create_session(shell, env_vars={"A": "b"}),
                ]
                assert await replica.end() == 0, replica.log()
                await replica.start()
            lines, messages = len(typed), len(said)
            await until(lambda: len(typed) > lines + 1, "lines are typed", 60)
            await until(lambda: len(said) > messages, "messages are answered", 60)

        async def exact() -> bool:
            shown = await http.get(f"{API}/sessions/{terminal['id']}/screen")
            return [line.rstrip() for line in shown.text.splitlines()] == [*screen.text]

        await until(exact, "what is shown is what there is", 30)
        assert len(lost) <= len(replicas.all)
        for session in created:
            settled = await one.settled(session["id"], 60)
            assert settled["status"] == "ready", settled["failure_reason"]
        for session in (terminal, chat):
            now = await one.session(session["id"])
            assert (now["status"], now["task_arn"]) == ("ready", session["task_arn"])

        # Every event came once and in order.
        last = seen[-1]
        log = await one.events(after=seen[0], limit=1000)
        assert seen[1:] == [event["seq"] for event in log if event["seq"] <= last]

        # All that was said is there once, each with its answer.
        messages_now = (await one.http.get(f"{API}/sessions/{chat['id']}/messages")).json()
        texts = [message["parts"][-1]["text"] for message in messages_now if message["info"]["role"] == "assistant"]
        assert [text for text in texts if text.removeprefix("echo: ") in said] == [f"echo: {text}" for text in said]
        print(f"\n{len(typed)} lines typed, {len(lost)} of them again, {len(said)} messages, {len(seen)} events")


async def test_one_is_killed(replicas: Replicas, postgres_url: str, model: LoopbackModel) -> None:
    def folder(of: Platform) -> str:
        return str(of.data_dir)

    await until(lambda: duty_of(postgres_url, reconciler.DUTY) is not None, "somebody leads", 30)
    led_by = duty_of(postgres_url, reconciler.DUTY)
    leader = next(each for each in replicas.all if folder(each) == led_by)
    other = next(each for each in replicas.all if each is not leader)
    sdk = await leader.create_agent(harness_id="claude-agent-sdk", model="claude-test")
    chat, terminal = await asyncio.gather(leader.ready(sdk), leader.ready(await leader.create_agent()))
    assert {owner_of(postgres_url, chat), owner_of(postgres_url, terminal)} == {folder(leader)}

    # Whom a session belongs to makes no difference to who uses it.
    path = f"{API}/sessions/{chat['id']}"
    reply = await other.http.post(f"{path}/message", json={"text": "over there"})
    assert reply.json()["parts"][-1]["text"] == "echo: over there"
    there = await other.session(terminal["id"])
    assert httpx.URL(there["tty_url"]).port == httpx.URL(other.url).port
    async with attached(there) as viewer:
        await viewer.type("echo through-$((1 + 1))\r")
        await viewer.shows("through-2")

    # One turn at a time, whoever is asked.
    asking = asyncio.create_task(leader.http.post(f"{path}/message", json={"text": "wait"}))
    await until(lambda: model.holding, "the agent is at work", 30)
    refused = await other.http.post(f"{path}/message", params={"if_busy": "refuse"}, json={"text": "me too"})
    assert refused.status_code == 409, refused.text
    waiting = asyncio.create_task(other.http.post(f"{path}/message", json={"text": "afterwards"}, timeout=90))

    killed_at = monotonic()
    await leader.end(signal.SIGKILL)
    await asyncio.gather(asking, return_exceptions=True)
    model.release()
    await until(lambda: duty_of(postgres_url, reconciler.DUTY) == folder(other), "the other leads", LOST_SECONDS)
    led = monotonic() - killed_at
    for session in (chat, terminal):
        await until(lambda s=session: owner_of(postgres_url, s) == folder(other), "the other runs it", LOST_SECONDS)
    print(f"\nthe duties after {led:.1f} s, the sessions after {monotonic() - killed_at:.1f} s")
    assert monotonic() - killed_at < LOST_SECONDS
    assert (await waiting).json()["parts"][-1]["text"] == "echo: afterwards"
    said = (await other.http.get(f"{path}/messages")).json()
    assert [message["info"]["role"] for message in said] == ["user", "assistant"] * 3
    assert [message["parts"][-1].get("text") for message in said[::2]] == ["over there", "wait", "afterwards"]
    assert all(message["parts"][-1].get("text") for message in said[1::2])


async def test_two_that_are_asked_at_once(replicas: Replicas, cluster: Double | RealCluster) -> None:  # noqa: F811
    """Whatever is done to a session through both, in whatever order: it ends in good order, and leaves nothing."""
    agent = await replicas.all[0].create_agent()
    chosen = random.Random(20260501)

    def stop(http: httpx.AsyncClient, session_id: str) -> Awaitable[httpx.Response]:
        return http.post(f"{API}/sessions/{session_id}/stop")

    def restart(http: httpx.AsyncClient, session_id: str) -> Awaitable[httpx.Response]:
        return http.post(f"{API}/sessions/{session_id}/restart", timeout=90)

    def delete(http: httpx.AsyncClient, session_id: str) -> Awaitable[httpx.Response]:
        return http.delete(f"{API}/sessions/{session_id}")

    actions: list[Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]] = [stop, restart, restart, delete]

    async def one_session() -> str:
        session = await chosen.choice(replicas.all).create_session(agent)

        async def some(replica: Platform, delay: float, action: Any) -> None:
            await asyncio.sleep(delay)
            answer: httpx.Response = await action(replica.http, session["id"])
            assert answer.status_code in (200, 409) or "session restart failed" in answer.text, answer.text

        plan = [(replica, chosen.uniform(0, 2.0), chosen.choice(actions)) for replica in replicas.all for _ in range(2)]
        await asyncio.gather(*(some(*each) for each in plan))
        return str(session["id"])

    ids: list[str] = []
    for _ in range(4):
        ids += await asyncio.gather(*(one_session() for _ in range(5)))
    rows = [await replicas.all[1].settled(session_id, 60) for session_id in ids]
    assert all(row["status"] == "ready" or (row["status"] in OVER and row["failure_reason"]) for row in rows), rows
    if isinstance(cluster, Double):
        needed = {row["task_arn"] for row in rows if row["status"] == "ready"}

        def agree() -> bool:
            return {each["metadata"]["name"] for each in cluster.list("sandboxes")} == needed

        await until(agree, "sandboxes and rows are the same", 30)

"""A copy that follows the server's whatever happens between: cuts, 410, refusals, nonsense, restarts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backend.sandboxes.kubernetes import client as clients
from backend.sandboxes.kubernetes.client import ALL, PODS, KubernetesClient, Resource
from backend.sandboxes.kubernetes.informer import Informer, Pace
from tests.kubernetes.scripted import (
    EXPIRED,
    Answered,
    FakeApi,
    Reply,
    Request,
    ScriptedServer,
    recorded_watches,
    settings_for,
    status,
)
from tests.waiting import until

PODS_PATH = "/api/v1/namespaces/lap/pods"
QUICK = Pace(first=0.01, most=0.05, denied=0.1)

Changes = list[tuple[str, str | None, str | None]]


class Watched:
    """An informer of pods, what it said, and the server it follows."""

    def __init__(self, api: FakeApi, server: ScriptedServer, client: KubernetesClient) -> None:
        self.api = api
        self.server = server
        self.client = client
        self.changes: Changes = []
        self.informer = self.another()

    def another(self, **given: Any) -> Informer:
        given = {"pace": QUICK, "resource": PODS, **given}
        return Informer(self.client, given.pop("resource"), self.note, **given)

    def note(self, key: str, old: Any, now: Any) -> None:
        self.changes.append(
            (key, old and old["metadata"]["resourceVersion"], now and now["metadata"]["resourceVersion"])
        )

    @property
    def lists(self) -> list[Request]:
        return [request for request in self.server.requests if not request.watches]

    @property
    def watches(self) -> list[Request]:
        return [request for request in self.server.requests if request.watches]

    async def same(self) -> None:
        """Wait until both sides have the same objects."""
        kind = self.api.kind(PODS_PATH)
        await until(lambda: dict(self.informer.items) == kind.items, "the copy is the same")

    async def watching(self, number: int = 1) -> None:
        await until(lambda: len(self.watches) >= number and self.informer.error is None, "it watches")


@asynccontextmanager
async def following(*, start: bool = True) -> AsyncIterator[Watched]:
    api = FakeApi()
    async with ScriptedServer(api) as server:
        client = await KubernetesClient.connect(settings_for(server.url))
        watched = Watched(api, server, client)
        try:
            if start:
                watched.informer.start()
                await watched.informer.wait_synced()
                await watched.watching()
            yield watched
        finally:
            await watched.informer.close()
            await client.close()
            await until(lambda: not server.connections, "no connection is left")


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    async with following() as one:
        yield one


@pytest.fixture
async def unstarted() -> AsyncIterator[Watched]:
    async with following(start=False) as one:
        yield one


async def test_lists_then_follows_changes(watched: Watched) -> None:
    await watched.api.put(PODS_PATH, "a", spec={"x": 1})
    await watched.api.put(PODS_PATH, "a", spec={"x": 2})
    await watched.api.put(PODS_PATH, "b")
    await watched.api.remove(PODS_PATH, "b")
    await until(lambda: len(watched.changes) == 4, "all changes are told")
    assert watched.changes == [("a", None, "11"), ("a", "11", "12"), ("b", None, "13"), ("b", "13", None)]
    await watched.same()
    assert watched.informer.problem is None
    assert len(watched.lists) == 1


async def test_asks_for_the_newest_state_with_bookmarks_and_an_end(watched: Watched) -> None:
    assert "resourceVersion" not in watched.lists[0].query
    query = watched.watches[0].query
    assert query["allowWatchBookmarks"] == "true"
    assert 240 <= int(query["timeoutSeconds"]) <= 300
    assert query["resourceVersion"] == "10"


async def test_trims_who_set_which_field(watched: Watched) -> None:
    await watched.api.put(PODS_PATH, "a", metadata={"managedFields": [{"manager": "kubectl"}], "labels": {"l": "1"}})
    await until(lambda: "a" in watched.informer.items, "it is there")
    assert "managedFields" not in watched.informer.items["a"]["metadata"]
    assert watched.informer.items["a"]["metadata"]["labels"] == {"l": "1"}


async def test_goes_on_after_a_cut_without_a_list(watched: Watched) -> None:
    await watched.api.put(PODS_PATH, "a")
    await watched.same()
    watched.server.cut()
    await watched.api.put(PODS_PATH, "b")
    await watched.same()
    await watched.watching(2)
    assert watched.watches[1].query["resourceVersion"] == "11"
    assert len(watched.lists) == 1


async def test_bookmarks_move_the_place_to_go_on_from(watched: Watched) -> None:
    await watched.api.put(PODS_PATH, "a")
    await watched.same()
    await watched.api.bookmark()
    await until(lambda: watched.informer._version == "12", "the bookmark came")
    watched.api.forget()  # without the bookmark this would be 410
    watched.server.cut()
    await watched.watching(2)
    assert watched.watches[1].query["resourceVersion"] == "12"
    assert len(watched.changes) == 1


async def test_410_as_event_lists_anew_and_tells_the_difference(watched: Watched) -> None:
    for name in ("changed", "deleted", "same"):
        await watched.api.put(PODS_PATH, name)
    await watched.same()
    async with _away(watched):
        await watched.api.put(PODS_PATH, "changed", spec={})
        await watched.api.remove(PODS_PATH, "deleted")
        await watched.api.put(PODS_PATH, "added")
        watched.api.forget()
        watched.changes.clear()
    await watched.same()
    assert sorted(watched.changes) == [("added", None, "16"), ("changed", "11", "14"), ("deleted", "12", None)]
    assert len(watched.lists) == 2


async def test_410_in_the_middle_of_a_watch_lists_anew_at_once(watched: Watched) -> None:
    await watched.api.put(PODS_PATH, "a")
    await watched.same()
    watched.api.kind(PODS_PATH).log.append((12, "ERROR", EXPIRED))
    await watched.api.put(PODS_PATH, "b")
    await until(lambda: len(watched.lists) == 2, "a second list")
    await watched.watching(2)
    await watched.same()
    assert len(watched.watches) == 2


async def test_410_as_answer_lists_anew(watched: Watched) -> None:
    async def gone(request: Request, reply: Reply) -> None:
        if request.watches and len(watched.watches) == 2:
            await reply.json(EXPIRED, 410)
            raise Answered

    watched.api.before = gone
    await watched.api.put(PODS_PATH, "a")
    await watched.same()
    watched.server.cut()
    await until(lambda: len(watched.lists) == 2, "a second list")
    await watched.api.put(PODS_PATH, "b")
    await watched.same()
    assert watched.informer.problem is None


async def test_what_happened_while_the_server_was_away_is_seen(watched: Watched) -> None:
    await watched.api.put(PODS_PATH, "a")
    await watched.same()
    before = dict(watched.informer.items)
    async with _away(watched):
        await watched.api.remove(PODS_PATH, "a")
        await watched.api.put(PODS_PATH, "b")
        assert watched.informer.items == before  # stale, but there
        since = watched.informer.since
        assert since is not None
        assert f"127.0.0.1:{watched.server.port}: connection refused" in str(watched.informer.problem)
    await watched.same()
    assert watched.informer.problem is None
    assert watched.informer.since is None
    assert len(watched.lists) == 1


async def test_starts_while_the_server_is_away(unstarted: Watched) -> None:
    await unstarted.server.stop()
    unstarted.informer.start()
    await until(lambda: unstarted.informer.problem, "it says so")
    assert not unstarted.informer.synced
    await unstarted.api.put(PODS_PATH, "a")
    await unstarted.server.start()
    await unstarted.same()
    assert unstarted.informer.synced
    await until(lambda: unstarted.informer.problem is None, "all is well")


async def test_somebody_else_having_heard_ends_a_long_wait(unstarted: Watched) -> None:
    await unstarted.server.stop()
    unstarted.informer = unstarted.another(pace=Pace(first=1000, most=1000))
    unstarted.informer.start()
    await until(lambda: unstarted.informer.problem, "it says so")
    await unstarted.server.start()
    await until(lambda: unstarted.informer.retry() or unstarted.informer.synced, "it has listed")


@pytest.mark.parametrize("point", ["head", "body", "watch head", "watch line", "watch between"])
async def test_a_cut_at_any_point_is_survived(unstarted: Watched, point: str) -> None:
    api, cuts = unstarted.api, 0

    async def cut(request: Request, reply: Reply) -> None:
        nonlocal cuts
        if cuts >= 3 or request.watches != point.startswith("watch"):
            return
        cuts += 1
        if point == "body":
            await reply.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"items": [{"metadata"')
        elif point == "watch line":
            await reply.stream()
            await reply.send(b'{"type":"ADDED","object":{"metadata":{"na')
        elif point == "watch between":
            await reply.stream()
            version = str(int(request.query["resourceVersion"]) + 1)
            await reply.event("ADDED", {"metadata": {"name": f"cut-{version}", "resourceVersion": version}})
        reply.cut()
        raise Answered

    api.before = cut
    for name in ("cut-11", "cut-12", "cut-13", "last"):
        if point != "watch between":
            await api.put(PODS_PATH, name)
    unstarted.informer.start()
    await until(lambda: cuts == 3, "it was cut")
    if point == "watch between":
        await until(lambda: unstarted.informer._version == "13", "it took what came before the cuts")
        assert len(unstarted.lists) == 1
    else:
        await unstarted.same()
    await until(lambda: unstarted.informer.problem is None, "all is well")


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe garbage\n",
        b'"text"\n',
        b"[1]\n",
        b"[" * 100_000 + b"\n",
        b'{"type":"ADDED"}\n',
        b'{"type":"ADDED","object":5}\n',
        b'{"type":"ADDED","object":{}}\n',
        b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"99"}}}\n',
        b'{"type":"ADDED","object":{"metadata":{"resourceVersion":7,"name":"x"}}}\n',
        b'{"type":"ERROR","object":{}}\n',
        b"\n",
    ],
)
async def test_nonsense_in_a_watch_ends_in_a_new_list(unstarted: Watched, line: bytes) -> None:
    async def nonsense(request: Request, reply: Reply) -> None:
        if request.watches and len(unstarted.watches) <= 2:
            await reply.stream()
            await reply.send(line)
            raise Answered

    unstarted.api.before = nonsense
    await unstarted.api.put(PODS_PATH, "a")
    unstarted.informer.start()
    await unstarted.watching(3)
    await unstarted.api.put(PODS_PATH, "b")
    await unstarted.same()
    assert len(unstarted.lists) == 3


async def test_an_unknown_kind_of_event_is_passed_over(watched: Watched) -> None:
    kind = watched.api.kind(PODS_PATH)
    await watched.api._tell(kind, "RENAMED", {"metadata": {"name": "x", "resourceVersion": "11"}})
    await watched.api.put(PODS_PATH, "a")
    await watched.same()
    assert watched.informer.problem is None


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "{", '{"items": 5, "metadata": 6}', '{"items": [5, {"metadata": {}}]}']
)
async def test_a_list_that_makes_no_sense_is_asked_for_again(unstarted: Watched, text: str) -> None:
    async def nonsense(request: Request, reply: Reply) -> None:
        if len(unstarted.server.requests) <= 2:
            await reply.text(text)
            raise Answered

    unstarted.api.before = nonsense
    await unstarted.api.put(PODS_PATH, "a")
    unstarted.informer.start()
    await unstarted.same()
    await unstarted.watching()
    assert unstarted.informer.problem is None


async def test_a_long_list_comes_in_pages(unstarted: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PAGE", 10)
    for number in range(35):
        await unstarted.api.put(PODS_PATH, f"pod-{number}")
    unstarted.informer.start()
    await unstarted.same()
    assert [request.query["limit"] for request in unstarted.lists] == ["10"] * 4
    await unstarted.watching()
    assert unstarted.watches[0].query["resourceVersion"] == "45"


async def test_a_page_that_is_too_old_makes_one_list_in_one_piece(
    unstarted: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "PAGE", 10)
    for number in range(35):
        await unstarted.api.put(PODS_PATH, f"pod-{number}")

    async def expire(request: Request, _reply: Reply) -> None:
        if len(unstarted.lists) == 3:
            await unstarted.api.remove(PODS_PATH, "pod-3")
            unstarted.api.forget()

    unstarted.api.before = expire
    unstarted.informer.start()
    await unstarted.same()
    assert "limit" not in unstarted.lists[-1].query
    assert len(unstarted.lists) == 4


async def test_throttled_waits_as_long_as_it_is_told(unstarted: Watched) -> None:
    moments: list[float] = []

    async def busy(request: Request, reply: Reply) -> None:
        moments.append(asyncio.get_running_loop().time())
        if len(moments) == 1:
            await reply.json(status(429, "TooManyRequests", "slow down"), 429, Retry_After="1")
            raise Answered

    unstarted.api.before = busy
    unstarted.informer.start()
    await until(lambda: unstarted.informer.problem, "it says so")
    assert "the Kubernetes API is busy: slow down (429)" in str(unstarted.informer.problem)
    await unstarted.informer.wait_synced()
    assert moments[1] - moments[0] >= 1


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_forbidden_is_told_and_tried_again_slowly(unstarted: Watched, verb: str) -> None:
    allowed = False

    async def deny(request: Request, reply: Reply) -> None:
        if not allowed and request.watches == (verb == "watch"):
            text = f'pods is forbidden: User "u" cannot {verb} resource "pods" in API group "" in the namespace "lap"'
            await reply.json(status(403, "Forbidden", text), 403)
            raise Answered

    unstarted.api.before = deny
    unstarted.informer.start()
    await until(lambda: unstarted.informer.problem, "it says so")
    assert unstarted.informer.problem == (
        f"may not {verb} pods (403): give the platform's service account list and watch on pods"
    )
    assert unstarted.informer._delay(unstarted.informer.error) == QUICK.denied
    allowed = True
    await unstarted.watching()
    await unstarted.api.put(PODS_PATH, "a")
    await unstarted.same()
    assert unstarted.informer.problem is None
    assert len(unstarted.lists) <= (1 if verb == "watch" else 10)


async def test_a_server_that_ends_watches_at_once_is_not_asked_without_pause(unstarted: Watched) -> None:
    async def end(request: Request, reply: Reply) -> None:
        if request.watches:
            await reply.stream()
            raise Answered

    unstarted.api.before = end
    unstarted.informer = unstarted.another(pace=Pace(first=0.2, most=0.2))
    unstarted.informer.start()
    await until(lambda: len(unstarted.watches) >= 4, "it tries again")
    assert unstarted.informer._failures >= 3
    assert len(unstarted.lists) == 1


async def test_a_version_the_server_has_not_reached_makes_it_list_anew(watched: Watched) -> None:
    """As after a restore from a backup."""

    async def future(request: Request, reply: Reply) -> None:
        if request.watches and len(watched.watches) == 2:
            await reply.json(status(504, "Timeout", "Too large resource version: 50, current: 11"), 504)
            raise Answered

    watched.api.before = future
    watched.server.cut()
    await watched.watching(3)
    assert len(watched.lists) == 2


async def test_a_kind_that_is_not_served_is_looked_for_again(unstarted: Watched) -> None:
    sandboxes = "/apis/agents.x-k8s.io/{}/namespaces/lap/sandboxes"
    unstarted.api.groups.clear()
    unstarted.informer = unstarted.another(resource=lambda: unstarted.client.sandboxes(again=True))
    unstarted.informer.start()
    await until(lambda: unstarted.informer.problem, "it says so")
    assert unstarted.informer.problem == (
        "agent-sandbox is not installed in the cluster: "
        "kubectl apply the manifest of a release of kubernetes-sigs/agent-sandbox"
    )
    await unstarted.api.put(sandboxes.format("v1alpha1"), "a")
    unstarted.api.groups = {"/apis/agents.x-k8s.io/v1alpha1": ["sandboxes"]}
    await until(lambda: "a" in unstarted.informer.items, "the old version is used")

    async def removed(request: Request, reply: Reply) -> None:
        if "/v1alpha1/namespaces" in request.path:
            await reply.text("404 page not found\n", 404)
            raise Answered

    unstarted.api.groups = {"/apis/agents.x-k8s.io/v1beta1": ["sandboxes"]}
    unstarted.api.before = removed
    await unstarted.api.put(sandboxes.format("v1beta1"), "b")
    unstarted.server.cut()
    await until(lambda: list(unstarted.informer.items) == ["b"], "the new version is used")


async def test_keys_of_all_namespaces_have_the_namespace(unstarted: Watched) -> None:
    await unstarted.api.put("/api/v1/pods", "a", metadata={"namespace": "one"})
    unstarted.informer = unstarted.another(namespace=ALL)
    unstarted.informer.start()
    await until(lambda: list(unstarted.informer.items) == ["one/a"], "it is there")


async def test_a_callback_that_fails_stops_nothing(unstarted: Watched) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no")

    unstarted.informer = Informer(unstarted.client, PODS, fail, pace=QUICK)
    unstarted.informer.start()
    for name in ("a", "b"):
        await unstarted.api.put(PODS_PATH, name)
        await unstarted.same()


async def test_without_hold_everything_is_told_and_nothing_kept(unstarted: Watched) -> None:
    await unstarted.api.put(PODS_PATH, "a")
    unstarted.informer = unstarted.another(hold=False)
    unstarted.informer.start()
    await unstarted.informer.wait_synced()
    await unstarted.api.put(PODS_PATH, "a")
    await until(lambda: len(unstarted.changes) == 2, "both are told")
    assert unstarted.changes == [("a", None, "11"), ("a", None, "12")]
    assert not unstarted.informer.items


async def _hang(_request: Request, _reply: Reply) -> None:
    await asyncio.Event().wait()


async def _hang_in_body(_request: Request, reply: Reply) -> None:
    await reply.stream()
    await reply.send(b'{"it')
    await asyncio.Event().wait()


@pytest.mark.parametrize("handler", [_hang, _hang_in_body, None])
async def test_closes_in_any_state(unstarted: Watched, handler: Callable[..., Awaitable[None]] | None) -> None:
    tasks = asyncio.all_tasks()
    if handler is None:
        await unstarted.server.stop()
    else:
        unstarted.server.handler = handler
    unstarted.informer.start()
    if handler is None:
        await until(lambda: unstarted.informer.problem, "it waits for the next try")
    else:
        await until(lambda: unstarted.server.requests, "it waits for an answer")
    await asyncio.wait_for(unstarted.informer.close(), 1)
    await unstarted.informer.close()
    await until(
        lambda: not [t for t in asyncio.all_tasks() - tasks if "Informer" in repr(t.get_coro())], "nothing goes on"
    )


@pytest.mark.parametrize("plural", ["events", "pods", "sandboxes"])
async def test_a_real_sandbox_lifecycle(unstarted: Watched, plural: str) -> None:
    """The watch events that a real cluster sent."""
    events = recorded_watches()[plural]
    unstarted.api.version = 0
    unstarted.api.kind(f"/api/v1/namespaces/lap/{plural}").log = [
        (int(each["object"]["metadata"]["resourceVersion"]), each["type"], each["object"]) for each in events
    ]
    unstarted.informer = unstarted.another(resource=Resource("", "v1", plural), namespace="lap")
    unstarted.informer.start()
    await until(lambda: len(unstarted.changes) == len(events), "all of them were told")
    kinds = {"ADDED": (False, True), "MODIFIED": (True, True), "DELETED": (True, False)}
    assert [(bool(old), bool(now)) for _, old, now in unstarted.changes] == [kinds[each["type"]] for each in events]
    assert len(unstarted.informer.items) == (len(events) if plural == "events" else 0)


@asynccontextmanager
async def _away(watched: Watched) -> AsyncIterator[None]:
    await watched.server.stop()
    await until(lambda: watched.informer.problem, "it says that the server is away")
    yield
    await watched.server.start()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "remove"]), st.sampled_from("abc")),
        st.tuples(st.sampled_from(["cut", "forget", "bookmark", "stop", "start", "settle"]), st.just("")),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
@example([("put", "a"), ("settle", ""), ("stop", ""), ("remove", "a"), ("forget", ""), ("start", "")])
@example([("put", "a"), ("settle", ""), ("cut", ""), ("put", "a"), ("remove", "a"), ("put", "a"), ("forget", "")])
def test_whatever_happens_both_sides_end_with_the_same(steps: list[tuple[str, str]]) -> None:
    async def run() -> None:
        async with following() as watched:
            copy: dict[str, str] = {}

            def note(key: str, old: Any, now: Any) -> None:
                assert copy.get(key) == (old and old["metadata"]["resourceVersion"])
                if now is None:
                    del copy[key]
                else:
                    copy[key] = now["metadata"]["resourceVersion"]

            watched.informer._on_change = note
            for what, name in [*steps, ("start", ""), ("put", "last"), ("settle", "")]:
                await _step(watched, what, name)
            assert copy == {name: item["metadata"]["resourceVersion"] for name, item in watched.informer.items.items()}

    asyncio.run(run())


async def _step(watched: Watched, what: str, name: str) -> None:
    api, server = watched.api, watched.server
    if what == "put":
        await api.put(PODS_PATH, name, spec={"at": api.version})
    elif what == "remove" and name in api.kind(PODS_PATH).items:
        await api.remove(PODS_PATH, name)
    elif what == "cut":
        server.cut()
    elif what == "forget":
        api.forget()
    elif what == "bookmark":
        await api.bookmark()
    elif what == "stop":
        await server.stop()
    elif what == "start" and not server.listens:
        await server.start()
    elif what == "settle" and server.listens:
        await watched.same()

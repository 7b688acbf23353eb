"""Nodes, what is amiss on a platform, and what mends a finding, as a client reads and does them."""

from __future__ import annotations

import pytest

from lapconsole.client import Platform, PlatformError, Unsupported
from lapconsole.client.fixes import CAN_BE_DONE, command_of, effects_of, first_fix, fixes_of
from lapconsole.client.models import Issue, Session
from lapconsole.client.nodes import Node, Nodes, NodeSandbox, PlatformProblem
from tests.client.fakes import KEY, MANAGED, FakePlatform, Reply, running

NODES, PROBLEMS, MEND = f"{MANAGED}/nodes", "/api/v1/admin/problems", f"{MANAGED}/sessions/s1/mend"


@pytest.fixture
async def fake():
    async with running() as fake:
        yield fake


@pytest.fixture
async def platform(fake):
    async with Platform(fake.url, KEY) as platform:
        yield platform


async def test_nodes_with_what_is_on_them(fake: FakePlatform, platform: Platform) -> None:
    taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
    told = {
        "name": "n1\x1b[2J",
        "ready_status": "Unknown",
        "age_ms": 9000,
        "conditions": [
            {"type": "DiskPressure", "status": "True"},
            {"type": "Ready", "status": "Unknown", "age_ms": 4000},
        ],
        "taints": [taint, None, {"value": "x"}],
        "allocated_pct": {"cpu": 151, "memory": 12},
        "sandboxes": ["w-1", {"name": "s-1", "session_id": "s1", "agent_name": "a", "status": "ready"}, {}],
    }
    fake.always("GET", NODES, Reply(body={"data": [told, "nonsense", {}], "problems": ["away", 7, {"message": "x"}]}))
    nodes = await platform.nodes()
    (node,) = nodes.nodes
    assert nodes.problems == ("away", "x")
    assert node.name == "n1 [2J" and not node.is_ready and node.seconds == 4 and node.oversubscribed
    assert node.pressures == ("low disk",) and node.taints == ("unreachable:NoExecute",)
    assert node.sandboxes == (NodeSandbox("w-1"), NodeSandbox("s-1", "s1", "a", "ready"))


@pytest.mark.parametrize(
    "body", [[], {"data": None, "problems": None}, {"data": [{"name": 3, "load": {"load_1m": True}}]}]
)
def test_whatever_comes_is_read(body: object) -> None:
    assert Nodes.from_json(body) == Nodes()
    strange = Node.from_json({"name": "n", "conditions": 1, "allocated_pct": [], "age_ms": "x", "load": 3})
    assert strange == Node("n") and strange.is_ready
    assert not Node.from_json({"name": "n", "exists": False, "error": "may not list nodes"}).is_ready


async def test_a_platform_without_them_says_so(fake: FakePlatform, platform: Platform) -> None:
    with pytest.raises(Unsupported, match="does not tell of nodes"):
        await platform.nodes()
    assert await platform.problems() == ()
    fake.always("GET", PROBLEMS, Reply(500, {"error": "oops"}))
    with pytest.raises(PlatformError, match="oops"):  # what was known before still holds
        await platform.problems()


async def test_what_is_amiss(fake: FakePlatform, platform: Platform) -> None:
    since = "2026-03-14T03:03:20.000Z"
    message = "Kubernetes does not answer since 03:03:20Z: timed out; sessions are left as they are"
    rows = [{"part": "sandboxes", "message": message, "since": since}, {"part": "vault"}, None]
    fake.always("GET", PROBLEMS, Reply(body={"data": rows}))
    (problem,) = await platform.problems()
    assert problem.what == "Platform: sandboxes" and problem.brief == "Kubernetes does not answer"
    later = PlatformProblem.from_json({**rows[0], "message": "for 9 s"})  # type: ignore[dict-item]
    assert later.key == problem.key and later != problem


async def test_mending(fake: FakePlatform, platform: Platform) -> None:
    with pytest.raises(Unsupported, match="recreate the session"):
        await platform.mend_session("s1")
    fake.always("POST", MEND, Reply(body={"id": "s1", "did": "made it again"}))
    assert await platform.mend_session("s1") == "made it again"
    fake.always("POST", MEND, Reply(404, {"error": "session s1 not found", "code": "NOT_FOUND"}))
    with pytest.raises(PlatformError, match="session s1 not found"):
        await platform.mend_session("s1")


def issue(code: str, action: str = "") -> Issue:
    return Issue(code, "high", "", action)


def test_each_finding_has_what_helps() -> None:
    assert fixes_of(issue("service_missing")) == ("service", "recreate")
    assert fixes_of(issue("something_new")) == ("log", "recreate")
    assert fixes_of(issue("dead_node_assigned", "kubectl drain n1 --force, then"))[0] == "command"
    # What a person has to correct first is not done over and over.
    assert first_fix([issue("clone_failed"), issue("unschedulable")]) is None
    assert first_fix([issue("clone_failed"), issue("service_missing")]) == "service"
    for fix in CAN_BE_DONE:
        for status in ("creating", "ready", "failed"):
            assert effects_of(fix, Session("s1", status=status))


@pytest.mark.parametrize(
    ("said", "command"),
    [
        ("kubectl drain n.x --ignore-daemonsets, remove the node", "kubectl drain n.x --ignore-daemonsets"),
        ("kubectl logs s-1 -c harness -n lap --previous: read it", "kubectl logs s-1 -c harness -n lap --previous"),
        ("raise the quota: kubectl describe quota -n lap", "kubectl describe quota -n lap"),
        ("kubectl describe node ip-1.x shows what", "kubectl describe node ip-1.x"),
        ("what it may is shown by: kubectl auth can-i --list", "kubectl auth can-i --list"),
        ("see: kubectl get --raw /readyz", "kubectl get --raw /readyz"),
        ("(kubectl get nodes --show-labels), or", "kubectl get nodes --show-labels"),
        (
            """kubectl patch sandbox s-1 -n lap --type=merge -p '{"spec":{"operatingMode":"Running"}}'""",
            """kubectl patch sandbox s-1 -n lap --type=merge -p '{"spec":{"operatingMode":"Running"}}'""",
        ),
        ("a pull secret (kubectl create secret docker-registry)", ""),
        ("restart the session", ""),
    ],
)
def test_a_command_ends_where_the_sentence_goes_on(said: str, command: str) -> None:
    assert command_of(issue("x", said)) == command

"""The whole platform with its sandboxes in a cluster: what a user gets, and what they are told when it fails."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.app import create_app
from backend.services.container import check_cluster
from backend.settings import Settings, SettingsError
from tests.api.stand_in import Server
from tests.e2e.programs import API, SHELL, Platform, attached
from tests.kubernetes.conftest import RealCluster
from tests.kubernetes.double import Double
from tests.waiting import until

pytestmark = pytest.mark.e2e

KEY = "test-master-key"
KINDS = ("sandboxes", "services", "pods")


class Inside(Platform):
    """A platform within the test's process, which starts sooner."""

    def __init__(self, data_dir: Path, template: Path, cluster: Double | RealCluster, **more: Any) -> None:
        super().__init__(data_dir)
        self.key = KEY
        values = {"sandboxes": "kubernetes", "vault": "off", "kubeconfig": str(cluster.kubeconfig)}
        data_dir.mkdir()
        settings = Settings.load(data_dir=data_dir, master_key=KEY, k8s_namespace=cluster.namespace, **values)
        self._settings = settings.with_keys().model_copy(
            update={"harness_commands": {"claude-code": SHELL}, "phase_timeouts": more}
        )
        shutil.copyfile(template, self._settings.database_path)
        self._running = AsyncExitStack()

    async def start(self, *module: str, seconds: float = 20.0) -> None:
        server = Server(create_app(self._settings), lifespan="on")
        self.url = server.url
        headers = {"Authorization": f"Bearer {self.key}"}
        self.http = httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30, trust_env=False)
        await self._running.enter_async_context(server.running())
        self._running.push_async_callback(self.http.aclose)

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        await self._running.aclose()
        return 0

    @property
    def running(self) -> bool:
        return not self.http.is_closed


@pytest.fixture
async def platform(
    tmp_path: Path, sqlite_template: Path, cluster: Double | RealCluster, request: pytest.FixtureRequest
) -> AsyncIterator[Platform]:
    """A platform on the cluster; parametrized indirectly it takes limits of phases."""
    started = Inside(tmp_path / "data", sqlite_template, cluster, **getattr(request, "param", {}))
    await started.start()
    yield started
    await started.close()


@pytest.fixture
def double(cluster: Double | RealCluster) -> Double:
    """The cluster, where it can be told to fail."""
    if not isinstance(cluster, Double):
        pytest.skip("faults cannot be made in a real cluster")
    return cluster


async def until_it_is(platform: Platform, session: Mapping[str, Any], status: str) -> dict[str, Any]:
    async def seen() -> dict[str, Any] | None:
        now = await platform.session(session["id"])
        return now if now["status"] == status else None

    return await until(seen, f"the session is {status}", 30)


async def until_told(platform: Platform, session: Mapping[str, Any], phase: str, words: str) -> None:
    """The phase's detail says this."""

    async def told() -> bool:
        now = await platform.session(session["id"])
        return now["phase"] == phase and words in (now["phase_detail"] or "")

    await until(told, f"{phase} says {words!r}", 30)


async def nothing_left(cluster: Double | RealCluster) -> None:
    if isinstance(cluster, Double):
        await until(lambda: not any(cluster.list(kind) for kind in KINDS), "nothing is left in the cluster", 30)


async def test_the_real_program(tmp_path: Path, cluster: Double | RealCluster) -> None:
    place = {"KUBECONFIG": str(cluster.kubeconfig), "K8S_NAMESPACE": cluster.namespace}
    platform = Platform(tmp_path / "data", {"LAP_SANDBOXES": "kubernetes", "LAP_VAULT": "off", **place})
    await platform.start()
    session = await platform.ready(await platform.create_agent())
    async with attached(session) as viewer:
        await viewer.type("echo it-$((1 + 1))-works\r")
        await viewer.shows("it-2-works")
    await platform.close()
    await nothing_left(cluster)


async def test_without_a_cluster_to_be_found_it_does_not_start(tmp_path: Path) -> None:
    settings = Settings.load(sandboxes="kubernetes", vault="off", kubeconfig=str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="LAP_SANDBOXES=kubernetes: "):
        await check_cluster(settings)


async def test_a_session_from_its_start_to_its_end(platform: Platform, cluster: Double | RealCluster) -> None:
    agent = await platform.create_agent()
    session = await platform.ready(agent)
    assert session["isolation"]["limits"]["by"] == "kubernetes"
    phases = [event["session"]["phase"] for event in await platform.events(session_id=session["id"])]
    assert list(dict.fromkeys(phases))[:3] == ["creating_sandbox", "pod_pending", "pod_running"]
    async with attached(session) as viewer:
        await viewer.type("echo it-$((1 + 1))-works\r")
        await viewer.shows("it-2-works")
    log = await platform.http.get(f"{API}/sessions/{session['id']}/sandbox_logs")
    assert "set-up done" in log.text
    report = (await platform.http.get(f"{API}/sessions/{session['id']}/diagnose")).json()
    assert (report["pod"]["phase"], report["service"]["exists"]) == ("Running", True)
    assert report["harness_probe"]["reachable"]
    deleted = await platform.http.delete(f"{API}/sessions/{session['id']}")
    assert deleted.status_code == 200
    await nothing_left(cluster)
    assert (await platform.session(session["id"]))["status"] == "dead"


async def test_a_restart_is_a_new_sandbox(platform: Platform, cluster: Double | RealCluster) -> None:
    session = await platform.ready(await platform.create_agent())
    async with attached(session) as viewer:
        await viewer.type("touch kept; echo made-$((1 + 1))\r")
        await viewer.shows("made-2")
    again = await platform.http.post(f"{API}/sessions/{session['id']}/restart")
    assert again.status_code == 200, again.text
    async with attached(again.json()) as viewer:
        await viewer.type("ls; echo listed-$((1 + 1))\r")
        await viewer.shows("listed-2")
        assert "kept" not in viewer.screen


async def test_sessions_outlive_the_platform(platform: Platform, cluster: Double | RealCluster) -> None:
    session = await platform.ready(await platform.create_agent())
    async with attached(session) as viewer:
        await viewer.type("mark=still-here\r")
        await viewer.type("echo set-$((1 + 1))\r")
        await viewer.shows("set-2")
    assert await platform.end() == 0
    await platform.start()
    async with attached(await platform.session(session["id"])) as viewer:
        await viewer.type("echo $mark-$((1 + 1))\r")
        await viewer.shows("still-here-2")


class TestByHand:
    """Somebody takes things away with kubectl."""

    @pytest.mark.parametrize(
        ("resource", "why"), [("pods", "its pod was deleted"), ("sandboxes", "its Sandbox was deleted")]
    )
    async def test_the_session_is_dead(self, platform: Platform, double: Double, resource: str, why: str) -> None:
        session = await platform.ready(await platform.create_agent())
        await asyncio.to_thread(double.faults.delete, resource, session["task_arn"])
        dead = await until_it_is(platform, session, "dead")
        assert why in dead["failure_reason"]
        await nothing_left(double)

    async def test_a_pod_that_was_replaced_while_no_platform_ran(self, platform: Platform, double: Double) -> None:
        session = await platform.ready(await platform.create_agent())
        name = session["task_arn"]
        [before] = double.list("pods")
        assert await platform.end() == 0
        await asyncio.to_thread(double.faults.delete_pod, name)

        def replaced(pod: Any) -> bool:
            return (
                pod is not None and pod["metadata"]["uid"] != before["metadata"]["uid"] and pod["status"].get("podIP")
            )

        await double.until("pods", name, replaced)
        await platform.start()
        dead = await until_it_is(platform, session, "dead")
        assert "its harness was started anew" in dead["failure_reason"]
        await nothing_left(double)

    async def test_a_service_is_put_back(self, platform: Platform, double: Double) -> None:
        session = await platform.ready(await platform.create_agent())
        await asyncio.to_thread(double.faults.delete_service, f"{session['task_arn']}-np")

        async def found() -> bool:
            report = (await platform.http.get(f"{API}/sessions/{session['id']}/diagnose")).json()
            return "service_missing" in [issue["code"] for issue in report["detected_issues"]]

        await until(found, "the missing Service is found", 30)
        mended = await platform.http.post(f"{API}/sessions/{session['id']}/mend")
        assert mended.status_code == 200, mended.text

        async def works() -> bool:
            now = await platform.session(session["id"])
            service = await asyncio.to_thread(double.get, "services", f"{session['task_arn']}-np")
            port = service["spec"]["ports"][0]["nodePort"] if service else None
            return now["sandbox_url"].endswith(f":{port}")

        await until(works, "the new address is known", 30)
        async with attached(await platform.session(session["id"])) as viewer:
            await viewer.type("echo mended-$((1 + 1))\r")
            await viewer.shows("mended-2")


class TestTheApiGoesAway:
    async def test_a_ready_session_goes_on(self, platform: Platform, double: Double) -> None:
        session = await platform.ready(await platform.create_agent())
        await asyncio.to_thread(double.faults.go_away)
        async with attached(session) as viewer:
            await viewer.type("echo alone-$((1 + 1))\r")
            await viewer.shows("alone-2")
        assert (await platform.session(session["id"]))["status"] == "ready"
        await asyncio.to_thread(double.faults.come_back)

    async def test_before_the_sandbox_is_made(self, platform: Platform, double: Double) -> None:
        agent = await platform.create_agent()
        await asyncio.to_thread(double.faults.go_away)
        session = await platform.create_session(agent)
        await until_told(platform, session, "creating_sandbox", "cannot reach the Kubernetes API")
        await asyncio.to_thread(double.faults.come_back)
        await until_it_is(platform, session, "ready")

    async def test_before_the_pod_runs(self, platform: Platform, double: Double) -> None:
        double.faults.pause_controller()
        session = await platform.create_session(await platform.create_agent())
        await until_told(platform, session, "pod_pending", "controller")
        await asyncio.to_thread(double.faults.go_away)
        double.faults.resume_controller()
        await asyncio.to_thread(double.faults.come_back)
        await until_it_is(platform, session, "ready")

    async def test_a_platform_that_starts_meanwhile(
        self, platform: Platform, double: Double, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("backend.services.container.CLUSTER_SECONDS", 0.1)
        session = await platform.ready(await platform.create_agent())
        assert await platform.end() == 0
        await asyncio.to_thread(double.faults.go_away)
        await platform.start()
        async with attached(await platform.session(session["id"])) as viewer:
            await viewer.type("echo taken-$((1 + 1))-over\r")
            await viewer.shows("taken-2-over")
        await asyncio.to_thread(double.faults.come_back)
        assert (await platform.session(session["id"]))["status"] == "ready"


@pytest.mark.parametrize("platform", [{"pod_pending": 3.0}], indirect=True)
@pytest.mark.parametrize("cluster", [{"mode": "simulated"}], indirect=True)
class TestItFails:
    @pytest.mark.parametrize(
        ("outcome", "phase", "words"),
        [
            ("image-never", "pod_pending", "ErrImageNeverPull"),
            ("oom", None, "out of memory: the 4096Mi limit"),
        ],
    )
    async def test_with_a_reason(
        self, platform: Platform, double: Double, outcome: str, phase: str | None, words: str
    ) -> None:
        double.script("s-", outcome)
        session = await platform.create_session(await platform.create_agent())
        failed = await until_it_is(platform, session, "failed")
        assert words in failed["failure_reason"]
        told = [event["session"] for event in await platform.events(session_id=session["id"])]
        assert not phase or any(words in (each["phase_detail"] or "") for each in told if each["phase"] == phase)
        await nothing_left(double)

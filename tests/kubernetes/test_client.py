"""The client: where its configuration comes from, what it sends, and what it makes of answers, good and bad."""

import asyncio
import base64
import json
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backend.sandboxes.kubernetes import client as clients
from backend.sandboxes.kubernetes.client import (
    ALL,
    NODES,
    PODS,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubernetesClient,
    NotConfigured,
    NotFound,
    NotServed,
    Resource,
    Senseless,
    Throttled,
    Unauthorized,
    Unreachable,
)
from backend.sandboxes.kubernetes.errors import refusal
from tests.kubernetes.double import Double
from tests.kubernetes.scripted import Reply, Request, ScriptedServer, Settings, kubeconfig, settings_for, status
from tests.waiting import until

RECORDED_ERRORS = Path(__file__).with_name("recordings") / "errors.json"
SANDBOXES = Resource("agents.x-k8s.io", "v1beta1", "sandboxes")


async def _ok(_request: Request, reply: Reply) -> None:
    await reply.json({"kind": "Any", "items": [], "metadata": {"resourceVersion": "1"}})


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(_ok) as one:
        yield one


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[KubernetesClient]:
    client = await KubernetesClient.connect(settings)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[KubernetesClient]:
    async with connected(settings_for(server.url)) as one:
        yield one
    await until(lambda: not server.connections, "no connection is left")


def saying(code: int, body: Any, **headers: str) -> Callable[[Request, Reply], Any]:
    async def handler(_request: Request, reply: Reply) -> None:
        if isinstance(body, str):
            await reply.text(body, code, **headers)
        else:
            await reply.json(body, code, **headers)

    return handler


class TestRequests:
    async def test_paths_verbs_and_bodies(self, server: ScriptedServer, client: KubernetesClient) -> None:
        body = {"metadata": {"name": "a"}}
        await client.get(PODS, "a b/c?")
        await client.get(NODES, "n1")
        await client.create(SANDBOXES, body)
        await client.delete(PODS, "a", uid="u1")
        await client.list(PODS, namespace=ALL, labels="x=1,y!=2")
        requests = [(r.method, r.path, r.query, r.body) for r in server.requests]
        sandboxes = "/apis/agents.x-k8s.io/v1beta1/namespaces/lap/sandboxes"
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        assert requests == [
            ("GET", "/api/v1/namespaces/lap/pods/a%20b%2Fc%3F", {}, None),
            ("GET", "/api/v1/nodes/n1", {}, None),
            ("POST", sandboxes, {}, body),
            ("DELETE", "/api/v1/namespaces/lap/pods/a", {}, options | {"preconditions": {"uid": "u1"}}),
            ("GET", "/api/v1/pods", {"limit": "250", "labelSelector": "x=1,y!=2"}, None),
        ]
        assert {r.headers["authorization"] for r in server.requests} == {"Bearer not-so-secret"}
        assert len(server.connections) == 1

    async def test_continue_tokens_come_back_as_they_were(
        self, server: ScriptedServer, client: KubernetesClient
    ) -> None:
        token = "eyJ2+/=%3D &#é=="

        async def pages(request: Request, reply: Reply) -> None:
            metadata = {"resourceVersion": "1"} | ({} if request.query.get("continue") else {"continue": token})
            await reply.json({"items": [{"n": len(server.requests)}], "metadata": metadata})

        server.handler = pages
        assert [item["n"] for item in await client.list(PODS)] == [1, 2]
        assert server.requests[1].query["continue"] == token

    async def test_items_of_a_list_have_their_kind(self, server: ScriptedServer, client: KubernetesClient) -> None:
        items = [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}, "kind": "Other", "apiVersion": "v2"}]
        server.handler = saying(200, {"kind": "PodList", "apiVersion": "v1", "items": items, "metadata": {}})
        kinds = [(item["kind"], item["apiVersion"]) for item in await client.list(PODS)]
        assert kinds == [("Pod", "v1"), ("Other", "v2")]

    async def test_many_at_once(self, server: ScriptedServer, client: KubernetesClient) -> None:
        assert len(await asyncio.gather(*(client.get(PODS, f"p{n}") for n in range(200)))) == 200
        assert len(server.requests) == 200
        assert len(server.connections) <= 32

    async def test_log(self, server: ScriptedServer, client: KubernetesClient) -> None:
        server.handler = saying(200, "line 8\nline 9 \u2026\n")
        text = await client.log("a", "harness", tail_lines=2, since_seconds=5, previous=True)
        assert text == "line 8\nline 9 \u2026\n"
        assert server.requests[0].path == "/api/v1/namespaces/lap/pods/a/log"
        asked = {"container": "harness", "tailLines": "2", "sinceSeconds": "5", "previous": "true"}
        assert server.requests[0].query == asked | {"limitBytes": str(16 << 20)}

    async def test_log_of_an_unscheduled_pod_is_empty(self, server: ScriptedServer, client: KubernetesClient) -> None:
        server.handler = saying(204, "")
        assert await client.log("a") == ""

    async def test_log_keeps_the_end(
        self, server: ScriptedServer, client: KubernetesClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clients, "_MAX_LOG", 100_000)
        server.handler = saying(200, "x" * 3_000_000 + "the end")
        text = await client.log("a")
        assert len(text) == 100_000
        assert text.endswith("the end")

    async def test_following_a_log(self, server: ScriptedServer, client: KubernetesClient) -> None:
        more = asyncio.Event()

        async def lines(_request: Request, reply: Reply) -> None:
            await reply.stream()
            await reply.send(b"one\ntw")
            await more.wait()
            await reply.send(b"o\nthree")

        server.handler = lines
        async with client.follow_log("a", "harness", tail_lines=5) as log:
            assert await anext(log) == "one"
            more.set()
            assert [line async for line in log] == ["two", "three"]
        assert server.requests[0].query == {"follow": "true", "container": "harness", "tailLines": "5"}

    async def test_leaving_a_stream_closes_its_connection(
        self, server: ScriptedServer, client: KubernetesClient
    ) -> None:
        async def silent(_request: Request, reply: Reply) -> None:
            await reply.stream()
            await asyncio.Event().wait()

        server.handler = silent
        async with client.watch(PODS, "1"), client.follow_log("a"):
            assert len(server.connections) == 2
        await until(lambda: not server.connections, "both are closed")

    async def test_closing_ends_what_is_under_way(self, server: ScriptedServer) -> None:
        async def hang(request: Request, reply: Reply) -> None:
            if request.watches:
                await reply.stream()
            await asyncio.Event().wait()

        server.handler = hang
        async with connected(settings_for(server.url)) as client:

            async def watch() -> None:
                async with client.watch(PODS, "1") as events:
                    async for _ in events:
                        pass

            calls = [asyncio.create_task(client.get(PODS, "a")), asyncio.create_task(watch())]
            await until(lambda: len(server.requests) == 2, "both are under way")
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert [type(result) for result in results] == [Unreachable, Unreachable]
        with pytest.raises(Unreachable, match="closed"):
            await client.get(PODS, "a")


class TestVersions:
    @pytest.mark.parametrize(
        ("served", "version"),
        [(["v1alpha1"], "v1alpha1"), (["v1beta1", "v1alpha1"], "v1beta1"), (["v1beta1"], "v1beta1")],
    )
    async def test_the_best_version_served(
        self, server: ScriptedServer, client: KubernetesClient, served: list[str], version: str
    ) -> None:
        async def discovery(request: Request, reply: Reply) -> None:
            if request.path.rpartition("/")[2] in served:
                await reply.json({"kind": "APIResourceList", "resources": [{"name": "sandboxes"}, {"name": "x"}]})
            else:
                await reply.text("404 page not found\n", 404)

        server.handler = discovery
        assert (await client.sandboxes()) == Resource("agents.x-k8s.io", version, "sandboxes")
        asked = len(server.requests)
        await client.sandboxes()
        assert len(server.requests) == asked

    @pytest.mark.parametrize("answer", ["404 page not found\n", {"resources": [{"name": "other"}]}, {"resources": 5}])
    async def test_not_installed(self, server: ScriptedServer, client: KubernetesClient, answer: Any) -> None:
        server.handler = saying(404 if isinstance(answer, str) else 200, answer)
        with pytest.raises(NotServed, match=r"not installed in the cluster: kubectl apply .*agent-sandbox"):
            await client.sandboxes()


class TestRefusals:
    @pytest.mark.parametrize(
        ("code", "reason", "error"),
        [
            (400, "BadRequest", ApiError),
            (404, "NotFound", NotFound),
            (409, "AlreadyExists", Conflict),
            (409, "Conflict", Conflict),
            (410, "Expired", Gone),
            (422, "Invalid", Invalid),
            (500, "InternalError", ApiError),
        ],
    )
    async def test_have_the_words_of_the_server(
        self, server: ScriptedServer, client: KubernetesClient, code: int, reason: str, error: type[ApiError]
    ) -> None:
        server.handler = saying(code, status(code, reason, 'pods "a" is\nas it is'))
        with pytest.raises(ApiError) as raised:
            await client.get(PODS, "a")
        assert type(raised.value) is error
        assert (raised.value.status, raised.value.reason) == (code, reason)
        assert str(raised.value) == f'pods "a" is as it is ({code})'

    async def test_forbidden_by_access_rules(self, server: ScriptedServer, client: KubernetesClient) -> None:
        text = 'pods "a" is forbidden: User "u" cannot delete resource "pods" in API group "" in the namespace "lap"'
        server.handler = saying(403, status(403, "Forbidden", text))
        with pytest.raises(Forbidden) as raised:
            await client.delete(PODS, "a")
        assert str(raised.value) == "may not delete pods (403): give the platform's service account delete on pods"
        assert raised.value.denied == ("delete", "pods")

    async def test_forbidden_in_all_namespaces(self, server: ScriptedServer, client: KubernetesClient) -> None:
        text = 'pods is forbidden: User "u" cannot list resource "pods" in API group "" at the cluster scope'
        server.handler = saying(403, status(403, "Forbidden", text))
        with pytest.raises(Forbidden, match=r"give .* list and watch on pods in all namespaces"):
            await client.list(PODS, namespace=ALL)

    async def test_forbidden_by_a_quota(self, server: ScriptedServer, client: KubernetesClient) -> None:
        text = 'pods "a" is forbidden: exceeded quota: compute, requested: cpu=1, used: cpu=4, limited: cpu=4'
        server.handler = saying(403, status(403, "Forbidden", text))
        with pytest.raises(Forbidden, match="exceeded quota") as raised:
            await client.create(PODS, {"metadata": {"name": "a"}})
        assert raised.value.denied is None

    @pytest.mark.parametrize(
        ("headers", "details", "seconds"),
        [
            ({"Retry_After": "7"}, {}, 7),
            ({"Retry_After": "99999"}, {}, 300),
            ({"Retry_After": "Thu, 01 Jan 2015 00:00:00 GMT"}, {}, 0),
            ({"Retry_After": "soon"}, {"retryAfterSeconds": 5}, None),
            ({}, {"retryAfterSeconds": 5}, 5),
            ({}, {"retryAfterSeconds": "x"}, None),
            ({}, {}, None),
        ],
    )
    async def test_throttled(
        self, server: ScriptedServer, client: KubernetesClient, headers: Any, details: Any, seconds: float | None
    ) -> None:
        server.handler = saying(429, status(429, "TooManyRequests", "slow down", details=details), **headers)
        with pytest.raises(Throttled, match="busy: slow down") as raised:
            await client.get(PODS, "a")
        assert raised.value.retry_after == seconds

    @pytest.mark.parametrize("body", ["", "<html>\n502 Bad Gateway", "x" * 1_000_000, "[]", '{"message": {"a": 1}}'])
    async def test_of_no_api_server(self, server: ScriptedServer, client: KubernetesClient, body: str) -> None:
        server.handler = saying(502, body)
        with pytest.raises(ApiError) as raised:
            await client.get(PODS, "a")
        assert raised.value.status == 502
        assert len(str(raised.value)) < 700
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        ("recorded", "error", "text"),
        [
            ("401", Unauthorized, "the Kubernetes API does not accept the platform's credentials (401): renew"),
            (
                "403",
                Forbidden,
                "may not list sandboxes.agents.x-k8s.io (403): give the platform's service account list",
            ),
            ("404", NotFound, 'sandboxes.agents.x-k8s.io "none" not found (404)'),
            ("404_group", NotFound, "404 page not found (404)"),
            ("409_exists", Conflict, 'sandboxes.agents.x-k8s.io "dup" already exists (409)'),
            ("409_conflict", Conflict, "Operation cannot be fulfilled on sandboxes.agents.x-k8s.io"),
            ("422_enum", Invalid, 'Sandbox.agents.x-k8s.io "x2" is invalid: [spec.operatingMode: Unsupported'),
        ],
    )
    def test_of_a_real_server(self, recorded: str, error: type[ApiError], text: str) -> None:
        entry = json.loads(RECORDED_ERRORS.read_text())[recorded]
        answer = entry.get("response", entry)
        verb = "list" if recorded == "403" else "create"
        found = refusal(answer["body"], answer["status"], {}, verb, SANDBOXES.title)
        assert type(found) is error
        assert str(found).startswith(text)

    def test_of_anything(self) -> None:
        for body in (None, 5, [], {}, {"code": "x", "message": None, "reason": 5, "details": []}):
            assert refusal(body, 0, {}, "watch", "pods").status == 500


class TestUnreachable:
    async def test_refused(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        async with connected(settings_for(f"http://127.0.0.1:{port}")) as client:
            with pytest.raises(Unreachable) as raised:
                await client.get(PODS, "a")
        assert str(raised.value) == f"cannot reach the Kubernetes API at 127.0.0.1:{port}: connection refused"

    async def test_unknown_host(self) -> None:
        async with connected(settings_for("http://no-such-host.invalid:1")) as client:
            with pytest.raises(Unreachable, match=r"no-such-host.invalid:1: its name is not known"):
                await client.get(PODS, "a")

    async def test_silent(
        self, server: ScriptedServer, client: KubernetesClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clients, "_SILENCE_SECONDS", 0.1)

        async def silent(_request: Request, _reply: Reply) -> None:
            await asyncio.Event().wait()

        server.handler = silent
        with pytest.raises(Unreachable, match="no answer in time"):
            await client.get(PODS, "a")

    async def test_a_silent_watch_ends_after_its_time(
        self, server: ScriptedServer, client: KubernetesClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clients, "_SILENCE_SECONDS", 0.1)

        async def silent(_request: Request, reply: Reply) -> None:
            await reply.stream()
            await asyncio.Event().wait()

        server.handler = silent
        async with client.watch(PODS, "1", timeout_seconds=0) as events:
            with pytest.raises(Unreachable, match="no answer in time"):
                await anext(events)

    async def test_cut(self, server: ScriptedServer, client: KubernetesClient) -> None:
        async def cut(_request: Request, reply: Reply) -> None:
            await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            reply.cut()

        server.handler = cut
        with pytest.raises(Unreachable, match="the connection was cut"):
            await client.create(PODS, {"metadata": {}})

    async def test_no_http(self, server: ScriptedServer, client: KubernetesClient) -> None:
        async def ssh(_request: Request, reply: Reply) -> None:
            await reply.raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

        server.handler = ssh
        with pytest.raises(Unreachable, match="its answer is no HTTP"):
            await client.get(PODS, "a")

    @pytest.mark.parametrize("body", ["", "null", "[]", "{", '{"a": 1}x', "[" * 100_000])
    async def test_no_json(self, server: ScriptedServer, client: KubernetesClient, body: str) -> None:
        server.handler = saying(200, body)
        with pytest.raises(Senseless, match="cut short or no JSON"):
            await client.get(PODS, "a")

    async def test_a_line_without_end(
        self, server: ScriptedServer, client: KubernetesClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clients, "_MAX_LINE", 10_000)

        async def endless(_request: Request, reply: Reply) -> None:
            await reply.stream()
            while True:
                await reply.send(b"x" * 1000)

        server.handler = endless
        async with client.watch(PODS, "1") as events:
            with pytest.raises(Senseless, match="without end"):
                await anext(events)


class TestConfiguration:
    @pytest.fixture(autouse=True)
    def nothing_given(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    async def test_the_environment_comes_first(self, tmp_path: Path) -> None:
        file = tmp_path / "config"
        file.write_text(kubeconfig("http://file:1"))
        text = base64.b64encode(kubeconfig("http://base64:1").encode()).decode()
        async with connected(Settings(kubeconfig=str(file), kube_config_b64=SecretStr(text))) as client:
            assert client.host == "base64:1"
        async with connected(Settings(kubeconfig=f"{tmp_path}/missing:{file}")) as client:
            assert client.host == "file:1"
        async with connected(Settings(kubeconfig=str(file), k8s_api_server="http://override:1/")) as client:
            assert client.host == "override:1"
        (tmp_path / ".kube").mkdir()
        (tmp_path / ".kube/config").write_text(kubeconfig("http://home:1"))
        async with connected(Settings()) as client:
            assert client.host == "home:1"

    @pytest.mark.parametrize(
        "text",
        [
            "", "{", "5", "[]", "null", "a: b: c", "{}", '{"current-context": "x"}', "\x00",
            '{"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "gone"}}], "clusters": []}',
            kubeconfig("http://x:1").replace('"server"', '"no-server"').replace("http://x:1", "not-so-secret"),
            kubeconfig("https://x:1", {"client-certificate-data": "bm90LXNvLXNlY3JldA==", "client-key-data": "AA=="}),
            kubeconfig("https://x:1", {"client-certificate": "/missing/file"}),
            kubeconfig("http://x:1").replace('"context": {', '"context": {"not-so-secret": 1, "nope": {'),
        ],
    )  # fmt: skip
    async def test_one_that_cannot_be_used(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "config"
        file.write_text(text)
        try:
            async with connected(Settings(kubeconfig=str(file))) as client:
                with pytest.raises(ApiError):  # a file without a server means this machine's
                    await client.get(PODS, "a")
        except NotConfigured as error:
            assert "not-so-secret" not in str(error)
            assert "kubeconfig" in str(error) or "KUBECONFIG" in str(error)

    @pytest.mark.parametrize("text", ["not base64!", "bm90IHlhbWw6IHs6"])
    async def test_base64_that_cannot_be_used(self, text: str) -> None:
        with pytest.raises(NotConfigured, match="KUBE_CONFIG_B64"):
            await KubernetesClient.connect(Settings(kube_config_b64=SecretStr(text)))

    async def test_none_at_all(self) -> None:
        with pytest.raises(NotConfigured, match="set KUBECONFIG or KUBE_CONFIG_B64"):
            await KubernetesClient.connect(Settings())

    async def test_leaves_no_thread_and_no_file(self, server: ScriptedServer, tmp_path: Path) -> None:
        threads = threading.active_count()
        async with connected(settings_for(server.url)) as client:
            await client.get(PODS, "a")
        await until(lambda: threading.active_count() <= threads, "no thread is left")


class TestTls:
    @pytest.fixture
    def double(self) -> Iterator[Double]:
        with Double(tls=True) as one:
            yield one

    async def test_trusts_whom_the_configuration_trusts(self, double: Double) -> None:
        async with connected(Settings(kubeconfig=str(double.kubeconfig))) as client:
            assert (await client.get(NODES, "node1"))["kind"] == "Node"

    async def test_trusts_nobody_else(self, double: Double) -> None:
        settings = replace(settings_for(double.url, {"token": double.token}), k8s_namespace=double.namespace)
        async with connected(settings) as client:
            with pytest.raises(Unreachable, match="its certificate is not trusted"):
                await client.get(NODES, "node1")
        async with connected(replace(settings, k8s_skip_tls_verify=True)) as client:
            assert (await client.get(NODES, "node1"))["kind"] == "Node"


class TestCredentials:
    async def test_are_read_anew_when_they_are_no_longer_taken(self, server: ScriptedServer, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("one")

        async def only_two(request: Request, reply: Reply) -> None:
            if request.headers["authorization"] == "Bearer two":
                await reply.json({})
            else:
                await reply.json(status(401, "Unauthorized", "Unauthorized"), 401)

        server.handler = only_two
        async with connected(settings_for(server.url, {"tokenFile": str(token)})) as client:
            token.write_text("two")
            await asyncio.gather(*(client.get(PODS, "a") for _ in range(5)))
            assert len(server.connections) <= 5  # not thrown away with the token
            asked = len(server.requests)
            await client.get(PODS, "a")
            assert len(server.requests) == asked + 1

    async def test_of_a_plugin(self, server: ScriptedServer, tmp_path: Path) -> None:
        count = tmp_path / "count"
        program = f"""
import json, pathlib
count = pathlib.Path({str(count)!r})
count.write_text(count.read_text() + "x" if count.exists() else "x")
token = "t%d" % len(count.read_text())
version = "client.authentication.k8s.io/v1"
print(json.dumps({{"apiVersion": version, "kind": "ExecCredential", "status": {{"token": token}}}}))
"""
        plugin = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-c", program],
            "interactiveMode": "Never",
        }

        async def only_second(request: Request, reply: Reply) -> None:
            taken = request.headers["authorization"] == "Bearer t2"
            await reply.json({} if taken else status(401, "Unauthorized", "no"), 200 if taken else 401)

        server.handler = only_second
        async with connected(settings_for(server.url, {"exec": plugin})) as client:
            await client.get(PODS, "a")
        assert count.read_text() == "xx"

    async def test_that_stay_wrong_are_not_read_without_end(self, server: ScriptedServer) -> None:
        server.handler = saying(401, status(401, "Unauthorized", "Unauthorized"))
        async with connected(settings_for(server.url)) as client:
            for _ in range(3):
                with pytest.raises(Unauthorized, match=r"does not accept .* credentials .* renew"):
                    await client.get(PODS, "a")
        assert len(server.requests) == 4

    async def test_another_server_in_the_configuration_is_used(self, server: ScriptedServer, tmp_path: Path) -> None:
        file = tmp_path / "config"
        async with ScriptedServer(saying(401, status(401, "Unauthorized", "no"))) as old:
            file.write_text(kubeconfig(old.url))
            async with connected(Settings(kubeconfig=str(file))) as client:
                file.write_text(kubeconfig(server.url))
                await client.get(PODS, "a")
                assert client.host == f"127.0.0.1:{server.port}"
        assert len(server.requests) == 1


def test_nobody_else_waits_for_the_import() -> None:
    program = (
        "import sys, backend.sandboxes.kubernetes.cluster as c;"
        "sys.exit([m for m in ('kubernetes', 'aiohttp', 'yaml') if m in sys.modules] or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


async def test_a_socket_notices_a_peer_that_is_gone(server: ScriptedServer, client: KubernetesClient) -> None:
    await client.get(PODS, "a")
    connector = client._connection._connector
    assert connector is not None
    [[(protocol, _)]] = [list(pool) for pool in connector._conns.values()]
    sock = protocol.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30

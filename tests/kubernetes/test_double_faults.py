"""The double's own powers: faults, nodes, real processes, many objects, and other people's clients."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kubernetes.double import OUTCOMES, Double

Json = dict[str, Any]
SANDBOXES = "/apis/agents.x-k8s.io/v1beta1/namespaces/default/sandboxes"
OLD_SANDBOXES = "/apis/agents.x-k8s.io/v1alpha1/namespaces/default/sandboxes"
PODS, SERVICES = "/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/services"
WATCH = {"watch": "1", "allowWatchBookmarks": "true"}


@pytest.fixture
def http(double: Double) -> Iterator[httpx.Client]:
    with client(double) as made:
        yield made


def client(double: Double) -> httpx.Client:
    headers = {"Authorization": f"Bearer {double.token}"}
    return httpx.Client(base_url=double.url, headers=headers, timeout=20, trust_env=False)


def sandbox(name: str, **spec: Any) -> Json:
    container = {"name": "harness", "image": "harness:1", "ports": [{"containerPort": 4096}]}
    container["resources"] = spec.pop("resources", {})
    pod = {"restartPolicy": "Never", "containers": [container], **spec}
    return {"metadata": {"name": name}, "spec": {"podTemplate": {"metadata": {"labels": {"box": name}}, "spec": pod}}}


def node_port(name: str, uid: str) -> Json:
    owner = {"apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox", "name": name, "uid": uid}
    ports = [{"port": 4096, "targetPort": 4096}]
    return {
        "metadata": {"name": f"{name}-np", "ownerReferences": [owner]},
        "spec": {"type": "NodePort", "selector": {"box": name}, "ports": ports},
    }


def is_running(pod: Json | None) -> bool:
    return pod is not None and pod["status"]["phase"] == "Running"


def is_ready(pod: Json | None) -> bool:
    conditions = (pod or {}).get("status", {}).get("conditions", ())
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def events(response: httpx.Response) -> Iterator[Json]:
    return (json.loads(line) for line in response.iter_lines())


# Watches


def test_a_watch_goes_on_where_it_was_cut(double: Double, http: httpx.Client) -> None:
    version = http.get(PODS).json()["metadata"]["resourceVersion"]
    with http.stream("GET", PODS, params={**WATCH, "resourceVersion": version}) as response:
        double.faults.cut_watches("services")
        http.post(SANDBOXES, json=sandbox("one"))
        seen = events(response)
        first = next(seen)
        double.faults.cut_watches()
        rest = [first, *seen]
    assert rest[0]["type"] == "ADDED"
    double.faults.delete_pod("one", grace=0)
    last = rest[-1]["object"]["metadata"]["resourceVersion"]
    with http.stream("GET", PODS, params={**WATCH, "resourceVersion": last}) as response:
        seen = (event["type"] for event in events(response))
        kinds = [next(kind for kind in seen if kind != "MODIFIED") for _ in range(2)]
    assert kinds == ["DELETED", "ADDED"]  # The controller has made another.


def test_a_watch_from_a_forgotten_version_is_answered_410(double: Double, http: httpx.Client) -> None:
    version = http.get(PODS).json()["metadata"]["resourceVersion"]
    double.faults.expire()
    with http.stream("GET", PODS, params={**WATCH, "resourceVersion": version}) as response:
        (told,) = events(response)
    assert response.status_code == 200
    assert (told["type"], told["object"]["code"], told["object"]["reason"]) == ("ERROR", 410, "Expired")
    fresh = http.get(PODS).json()["metadata"]["resourceVersion"]
    with http.stream("GET", PODS, params={**WATCH, "resourceVersion": fresh, "timeoutSeconds": "1"}) as response:
        assert [event["type"] for event in events(response)] == ["BOOKMARK"]  # Just before its time is up.


def test_bookmarks_carry_the_newest_version(double: Double, http: httpx.Client) -> None:
    with http.stream("GET", SERVICES, params=WATCH) as response:
        http.post(SANDBOXES, json=sandbox("one"))
        newest = int(http.get(PODS).json()["metadata"]["resourceVersion"])
        double.faults.bookmark()
        told = next(events(response))
    assert told["type"] == "BOOKMARK" and told["object"]["kind"] == "Service"
    assert int(told["object"]["metadata"]["resourceVersion"]) >= newest


def test_selectors_turn_changes_into_comings_and_goings(double: Double, http: httpx.Client) -> None:
    selector = {"labelSelector": "box in (one,two),!other", "fieldSelector": "status.phase=Running"}
    with http.stream("GET", PODS, params={**WATCH, **selector}) as response:
        http.post(SANDBOXES, json=sandbox("one"))
        http.post(SANDBOXES, json=sandbox("three"))
        seen = events(response)
        assert next(seen)["type"] == "ADDED"
        double.wait("pods", "one", is_ready)
        double.turn("one", "failed")
        last = next(event for event in seen if event["type"] == "DELETED")
    assert last["object"]["status"]["phase"] == "Failed"
    assert http.get(PODS, params=selector).json()["items"] == []
    assert len(http.get(PODS, params={"labelSelector": "box!=one"}).json()["items"]) == 1


def test_a_list_in_pages_is_one_state_until_it_expires(double: Double, http: httpx.Client) -> None:
    for name in ("a", "b", "c"):
        http.post(SANDBOXES, json=sandbox(name))
    first = http.get(SANDBOXES, params={"limit": 2}).json()
    assert first["metadata"]["remainingItemCount"] == 1
    http.post(SANDBOXES, json=sandbox("d"))
    more = {"limit": 2, "continue": first["metadata"]["continue"]}
    second = http.get(SANDBOXES, params=more).json()
    assert [item["metadata"]["name"] for item in first["items"] + second["items"]] == ["a", "b", "c"]
    double.faults.expire()
    gone = http.get(SANDBOXES, params=more)
    assert (gone.status_code, gone.json()["reason"]) == (410, "Expired")
    rest = http.get(SANDBOXES, params={"continue": gone.json()["metadata"]["continue"]}).json()
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c", "d"]


# Requests


def test_requests_are_refused_as_told(double: Double, http: httpx.Client) -> None:
    double.faults.throttle(2, retry_after=3, verb="list", resource="pods")
    for _ in range(2):
        answer = http.get(PODS)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert http.get(PODS).status_code == 200
    double.faults.forbid("create", "services")
    assert "cannot create resource" in http.post(SERVICES, json={}).json()["message"]
    assert http.get(SERVICES).status_code == 200
    double.faults.forbid("get", "pods/log")
    assert 'resource "pods/log"' in http.get(f"{PODS}/one/log").json()["message"]
    double.faults.fail(1, 500, message="etcdserver: request timed out")
    assert http.get(PODS).json()["message"] == "etcdserver: request timed out"
    double.faults.break_off(1, "create", "sandboxes")
    with pytest.raises(httpx.RemoteProtocolError):
        http.post(SANDBOXES, json=sandbox("half"))
    assert double.get("sandboxes", "half") is not None
    double.faults.delay(0.05, "get", "pods", count=1)
    assert http.get(f"{PODS}/half").elapsed.total_seconds() >= 0.05
    assert double.counts["list", "pods"] == 4 and double.counts["get", "pods/log"] == 1


def test_it_goes_away_and_comes_back_as_it_was(double: Double, http: httpx.Client) -> None:
    http.post(SANDBOXES, json=sandbox("one"))
    with http.stream("GET", PODS, params=WATCH) as response:
        double.faults.go_away()
        with pytest.raises(httpx.HTTPError):
            list(events(response))
    with pytest.raises(httpx.ConnectError):
        http.get(PODS)
    double.faults.come_back()
    assert [item["metadata"]["name"] for item in http.get(PODS).json()["items"]] == ["one"]


# Objects


def test_what_belongs_to_a_sandbox_goes_with_it(double: Double, http: httpx.Client) -> None:
    made = http.post(SANDBOXES, json=sandbox("one")).json()
    http.post(SERVICES, json=node_port("one", made["metadata"]["uid"]))
    http.post(SERVICES, json=node_port("two", "00000000-0000-0000-0000-000000000000"))
    double.wait("services", "two-np", lambda service: service is None)  # Its owner never was.
    precondition = {"preconditions": {"uid": "another"}}
    refused = http.request("DELETE", f"{SANDBOXES}/one", json=precondition)
    assert refused.status_code == 409 and "Precondition failed: UID" in refused.json()["message"]
    dry = http.delete(f"{SANDBOXES}/one", params={"dryRun": "All"})
    assert dry.status_code == 200 and double.get("sandboxes", "one") is not None
    answer = http.delete(f"{SANDBOXES}/one", params={"propagationPolicy": "Foreground"}).json()
    assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]
    for kind in ("sandboxes", "pods", "services"):
        double.wait(kind, "one", lambda obj: obj is None)
    assert double.list("services") == []


def test_spec_and_status_are_patched_apart(double: Double, http: httpx.Client) -> None:
    http.post(SANDBOXES, json=sandbox("one"))
    kind = {"Content-Type": "application/merge-patch+json"}
    suspended = json.dumps({"spec": {"operatingMode": "Suspended"}, "status": {"service": "y"}})
    patched = http.patch(f"{SANDBOXES}/one", content=suspended, headers=kind).json()
    assert patched["spec"]["operatingMode"] == "Suspended"
    assert patched.get("status", {}).get("service") != "y"
    double.wait("pods", "one", lambda pod: pod is None)
    status = {"status": {"service": "x"}, "spec": {"operatingMode": "Running"}}
    http.patch(f"{SANDBOXES}/one/status", content=json.dumps(status), headers=kind)
    assert (double.get("sandboxes", "one") or {})["spec"]["operatingMode"] == "Suspended"


def test_what_the_schema_refuses(http: httpx.Client) -> None:
    wrong = sandbox("one", containers=[{"image": "x", "ports": [{"containerPort": "http"}]}])
    answer = http.post(SANDBOXES, json=wrong).json()
    causes = {(cause["field"], cause["reason"]) for cause in answer["details"]["causes"]}
    place = "spec.podTemplate.spec.containers[0]"
    assert (f"{place}.name", "FieldValueRequired") in causes
    assert (f"{place}.ports[0].containerPort", "FieldValueTypeInvalid") in causes
    late = {**sandbox("two"), "spec": {**sandbox("two")["spec"], "shutdownTime": "tomorrow"}}
    assert http.post(SANDBOXES, json=late).status_code == 422
    many = {**sandbox("two"), "spec": {**sandbox("two")["spec"], "replicas": 2}}
    assert "less than or equal to 1" in http.post(OLD_SANDBOXES, json=many).json()["message"]


@pytest.mark.parametrize("double", [{"versions": ("v1alpha1",)}], indirect=True)
def test_the_older_controller(double: Double, http: httpx.Client) -> None:
    assert http.get(SANDBOXES).status_code == 404
    http.post(OLD_SANDBOXES, json=sandbox("one"))
    double.wait("pods", "one", is_ready)
    made = http.get(f"{OLD_SANDBOXES}/one").json()
    assert made["spec"]["replicas"] == 1 and "operatingMode" not in made["spec"]
    assert [entry["type"] for entry in made["status"]["conditions"]] == ["Ready"]
    assert {"replicas", "service", "serviceFQDN", "podIPs", "selector"} <= set(made["status"])
    assert (double.get("services", "one") or {})["spec"]["clusterIP"] == "None"
    versions = http.get("/apis/agents.x-k8s.io").json()["versions"]
    assert [entry["version"] for entry in versions] == ["v1alpha1"]


def test_a_priority_class_that_is_missing(double: Double, http: httpx.Client) -> None:
    http.post(SANDBOXES, json=sandbox("one", priorityClassName="absent"))
    told = double.wait("sandboxes", "one", lambda obj: bool(obj and obj.get("status")))
    assert told is not None
    (ready,) = (entry for entry in told["status"]["conditions"] if entry["type"] == "Ready")
    assert "no PriorityClass with name absent was found" in ready["message"]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_with_a_pod_that_is_not_restarted(double: Double, http: httpx.Client, outcome: str) -> None:
    double.script("one", outcome)
    init = [{"name": "i", "image": "x:1"}] if outcome == "init-fail" else []
    http.post(SANDBOXES, json=sandbox("one", initContainers=init))
    double.wait("sandboxes", "one", lambda obj: bool((obj or {}).get("status")))
    ended = {"crash", "bad-command", "oom", "failed", "deadline", "evicted", "init-fail"}
    runs = {"running", "not-ready"}
    phase = "Failed" if outcome in ended else "Running" if outcome in runs else "Pending"
    phase = "Succeeded" if outcome == "completed" else phase
    double.wait("pods", "one", lambda pod: pod is not None and pod["status"]["phase"] == phase)
    if phase == "Pending":
        double.turn("one", "running")
        double.wait("pods", "one", is_ready)
    double.faults.delete_sandbox("one")
    double.wait("pods", "one", lambda pod: pod is None)


# Nodes


@pytest.mark.parametrize("double", [{"nodes": 2, "cpu": "1", "pods": 3}], indirect=True)
def test_pods_are_scheduled_where_there_is_room(double: Double, http: httpx.Client) -> None:
    half = {"requests": {"cpu": "500m", "memory": "1Gi"}}
    for number in range(5):
        http.post(SANDBOXES, json=sandbox(f"s-{number}", resources=half))
    waiting = double.wait("pods", "s-4", lambda pod: bool(pod and pod["status"].get("conditions")))
    assert waiting is not None
    text = waiting["status"]["conditions"][0]["message"]
    assert text.startswith("0/2 nodes are available: 2 Insufficient cpu.") and "No preemption victims" in text
    double.faults.cordon("node1")
    double.faults.delete_sandbox("s-0")
    double.faults.delete_sandbox("s-1")
    moved = double.wait("pods", "s-4", is_running)
    assert moved is not None and moved["spec"]["nodeName"] == "node2"
    http.post(SANDBOXES, json=sandbox("s-5", resources={"requests": {"cpu": "1"}}))
    waiting = double.wait("pods", "s-5", lambda pod: bool(pod and pod["status"].get("conditions")))
    assert waiting is not None
    assert "1 Insufficient cpu, 1 node(s) were unschedulable" in waiting["status"]["conditions"][0]["message"]
    double.faults.add_node("node3")
    assert double.wait("pods", "s-5", is_running)


@pytest.mark.parametrize("double", [{"nodes": 2}], indirect=True)
def test_a_node_is_lost_back_and_removed(double: Double, http: httpx.Client) -> None:
    http.post(SANDBOXES, json=sandbox("one"))
    pod = double.wait("pods", "one", is_ready)
    assert pod is not None
    node = pod["spec"]["nodeName"]
    double.faults.node_lost(node)
    double.wait("pods", "one", lambda pod: not is_ready(pod))
    (ready,) = (c for c in (double.get("nodes", node) or {})["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
    assert http.get(f"{PODS}/one/log").status_code == 500
    double.faults.node_back(node)
    double.wait("pods", "one", is_ready)
    double.faults.node_lost(node, evict=True)
    assert (double.get("pods", "one") or {})["metadata"]["deletionTimestamp"]  # Nobody there to end it.
    double.faults.node_removed(node)
    again = double.wait("pods", "one", is_ready)
    assert again is not None and again["spec"]["nodeName"] != node


# Real processes


@contextlib.asynccontextmanager
async def running_sandbox(
    double: Double, path: str = "/", **environment: str
) -> AsyncIterator[tuple[httpx.AsyncClient, Json, Json]]:
    """A client, the pod and the NodePort Service of a sandbox that runs and answers at `path`."""
    headers = {"Authorization": f"Bearer {double.token}"}
    async with httpx.AsyncClient(base_url=double.url, headers=headers, timeout=20, trust_env=False) as http:
        probe = {"httpGet": {"path": path, "port": 4096}}
        body = sandbox("one")
        body["spec"]["podTemplate"]["spec"]["containers"][0] |= {
            "readinessProbe": probe,
            "env": [
                {"name": "GREETING", "value": "hello"},
                {"name": "HERE", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                *({"name": name, "value": value} for name, value in environment.items()),
            ],
        }
        made = (await http.post(SANDBOXES, json=body)).json()
        service = (await http.post(SERVICES, json=node_port("one", made["metadata"]["uid"]))).json()
        pod = await double.until("pods", "one", is_ready)
        assert pod is not None
        yield http, pod, service


SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/end": os._exit(5)
        text = f"{os.environ['GREETING']} from {os.environ['HERE']} {os.getpid()}".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(text))); self.end_headers()
        self.wfile.write(text)
host, _, port = __import__("sys").argv[1].partition(":")
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""
"""In the place of the harness, which has tests of its own."""


def _server(pod: Json, address: str, root: Path) -> list[str]:
    return [sys.executable, "-c", SERVER, f"{address}:4096"]


WITH_PROCESSES = {"mode": "processes", "nodes": 2, "command": _server}


@pytest.mark.parametrize("double", [WITH_PROCESSES], indirect=True)
async def test_a_process_answers_at_every_address(double: Double) -> None:
    async with running_sandbox(double) as (http, pod, service):
        port, cluster_ip = service["spec"]["ports"][0]["nodePort"], service["spec"]["clusterIP"]
        assert 30_000 <= port <= 32_767
        hosts = [node["status"]["addresses"][0]["address"] for node in double.list("nodes")]
        addresses = [f"{pod['status']['podIP']}:4096", f"{cluster_ip}:4096", *(f"{host}:{port}" for host in hosts)]
        said = {(await http.get(f"http://{address}/")).text for address in addresses}
        assert len(said) == 1 and said.pop().startswith(f"hello from {pod['status']['podIP']}")
        moved = hosts[0].rpartition(".")[0] + ".99"
        double.faults.node_addresses("node1", {"ExternalIP": moved})
        assert await _reached(moved, port) and not await _reached(hosts[0], port)
        log = (await http.get(f"{PODS}/one/log", params={"tailLines": 1})).text
        assert '"GET / HTTP/1.1" 200' in log


async def _reached(host: str, port: int) -> bool:
    """Whether somebody listens there, once the forwarder has moved."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True
        if host.endswith(".1"):
            return False
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize("double", [WITH_PROCESSES], indirect=True)
async def test_a_process_that_ends_is_told(double: Double) -> None:
    async with running_sandbox(double) as (http, pod, _):
        with pytest.raises(httpx.HTTPError):
            await http.get(f"http://{pod['status']['podIP']}:4096/end")
        ended = await double.until("pods", "one", lambda pod: bool(pod and pod["status"]["phase"] == "Failed"))
        assert ended is not None
        assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 5
        told = await double.until("sandboxes", "one", lambda obj: "Finished" in json.dumps(obj))
        assert told is not None


async def _stopped(number: int) -> None:
    async with asyncio.timeout(20):
        while Path(f"/proc/{number}/stat").read_text().split()[2] != "T":
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("double", [WITH_PROCESSES], indirect=True)
async def test_processes_end_with_their_pods_and_with_the_double(double: Double) -> None:
    async with running_sandbox(double) as (http, pod, service):
        number = int((await http.get(f"http://{pod['status']['podIP']}:4096/")).text.split()[-1])
        double.faults.node_lost(pod["spec"]["nodeName"])
        await _stopped(number)
        double.faults.node_back(pod["spec"]["nodeName"])
        await http.delete(f"{SANDBOXES}/one")
        await double.until("pods", "one", lambda pod: pod is None)
        assert not Path(f"/proc/{number}").exists()
        assert double.list("services") == []
        with pytest.raises(OSError):
            socket.create_connection((service["spec"]["clusterIP"], 4096), 5)
    async with running_sandbox(double) as (http, pod, _):
        number = int((await http.get(f"http://{pod['status']['podIP']}:4096/")).text.split()[-1])
    double.run(double.cluster.close())
    assert not Path(f"/proc/{number}").exists()


@pytest.mark.parametrize("double", [{"mode": "processes"}], indirect=True)
async def test_the_harness_answers_in_its_pod(double: Double) -> None:
    async with running_sandbox(double, "/healthz", LAP_TOKEN_SHA256=sha256(b"a token").hexdigest()) as (http, pod, _):
        at = f"http://{pod['status']['podIP']}:4096"
        assert (await http.get(f"{at}/state")).status_code == 401
        told = await http.get(f"{at}/state", headers={"Authorization": "Bearer a token"})
        assert told.json()["setup"] == "waiting"
        assert "harness listening" in (await http.get(f"{PODS}/one/log")).text


async def test_the_program_serves_until_it_is_ended() -> None:
    command = (sys.executable, "-m", "tests.kubernetes.double", "--mode", "simulated", "--script", "s-=oom")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line = (await process.stdout.readline()).decode()
        kubeconfig = Path(line.strip().removeprefix("export KUBECONFIG="))
        server = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        async with httpx.AsyncClient(verify=False, trust_env=False) as http:
            assert (await http.get(f"{server}/readyz")).text == "ok"
        process.terminate()
        assert await process.wait() == 0
    assert not kubeconfig.exists()


# Other people's clients


@pytest.mark.parametrize("double", [{"tls": True}], indirect=True)
async def test_kubectl(double: Double) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here")

    async def kubectl(*arguments: str) -> str:
        environment = {**os.environ, "KUBECONFIG": str(double.kubeconfig), "HOME": str(double.kubeconfig.parent)}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec("kubectl", *arguments, env=environment, stdout=pipe, stderr=pipe)
        async with asyncio.timeout(60):
            output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    double.script("bad", "crash")
    for name in ("good", "bad"):
        double.put("sandboxes", {**sandbox(name), "metadata": {"name": name, "namespace": "default"}})
        await double.until("pods", name, lambda pod: bool(pod and pod["status"].get("podIP")))
    listed, described, log, node = await asyncio.gather(
        kubectl("get", "sandboxes,pods,nodes,events"),
        kubectl("describe", "pod", "bad"),
        kubectl("logs", "good"),
        kubectl("describe", "node", "node1"),
    )
    assert "sandbox.agents.x-k8s.io/good" in listed and "pod/bad" in listed and "node/node1" in listed
    assert "Exit Code:    3" in described and "Status:           Failed" in described
    assert log == "hello\n" and "Non-terminated Pods:          (1 in total)" in node
    assert 'sandbox.agents.x-k8s.io "good" deleted' in await kubectl("delete", "sandbox", "good")
    assert double.get("sandboxes", "good") is None


@pytest.mark.parametrize("double", [{"tls": True}, {"tls": False}], indirect=True)
async def test_the_official_client(double: Double) -> None:
    from kubernetes import client as kubernetes
    from kubernetes import config, watch

    def use() -> list[str]:
        with config.new_client_from_config(str(double.kubeconfig)) as api:
            core, custom = kubernetes.CoreV1Api(api), kubernetes.CustomObjectsApi(api)
            place = ("agents.x-k8s.io", "v1beta1", "default", "sandboxes")
            custom.create_namespaced_custom_object(*place, sandbox("one"))
            phases: list[str] = []
            for event in watch.Watch().stream(core.list_namespaced_pod, "default", timeout_seconds=20):
                phases.append(event["object"].status.phase)
                if phases[-1] == "Running":
                    break
            assert core.read_namespaced_pod_log("one", "default") == "hello\n"
            assert core.list_node().items[0].status.allocatable["cpu"] == "8"
            with pytest.raises(kubernetes.ApiException) as raised:
                core.read_namespaced_pod("two", "default")
            assert raised.value.status == 404
            custom.delete_namespaced_custom_object(*place, "one")
        return phases

    assert (await asyncio.to_thread(use))[-1] == "Running"


# Many


@pytest.mark.parametrize("double", [{"nodes": 10, "pods": 250, "cpu": "64", "memory": "256Gi"}], indirect=True)
async def test_many_sandboxes_at_little_cost(double: Double) -> None:
    bodies = [json.dumps(sandbox(f"s-{number}")).encode() for number in range(200)]
    headers = {"Authorization": f"Bearer {double.token}"}
    before = double.call(_processor)
    async with httpx.AsyncClient(base_url=double.url, headers=headers, timeout=60, trust_env=False) as http:
        watch = asyncio.create_task(_count_running(http, 200))
        for start in range(0, 200, 50):
            await asyncio.gather(*(http.post(SANDBOXES, content=body) for body in bodies[start : start + 50]))
        assert await asyncio.wait_for(watch, 60) == {f"s-{number}" for number in range(200)}
    assert double.counts == {("create", "sandboxes"): 200, ("watch", "pods"): 1}
    assert double.call(_processor) - before < 6  # Seconds of processor time; a fifth of it on an idle machine.


def _processor() -> float:
    return time.thread_time()


async def _count_running(http: httpx.AsyncClient, count: int) -> set[str]:
    names: set[str] = set()
    async with http.stream("GET", PODS, params=WATCH) as response:
        async for line in response.aiter_lines():
            event = json.loads(line)
            if event["type"] != "BOOKMARK" and is_running(event["object"]):
                names.add(event["object"]["metadata"]["name"])
            if len(names) == count:
                break
    return names

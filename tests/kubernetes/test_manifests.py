"""The objects a sandbox is made of: what the schema of agent-sandbox takes, and nothing secret in them."""

import json
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.sandboxes.contract import SandboxSpec
from backend.sandboxes.kubernetes import manifests
from backend.sandboxes.kubernetes.manifests import PodSettings
from tests.kubernetes.double.resources import ALL
from tests.kubernetes.double.schema import causes, complete

SESSION = "0b5a1c9e-8f39-4d0e-9f52-58c8f3f0a001"
AGENT = "1c5a1c9e-8f39-4d0e-9f52-58c8f3f0a002"
NAME = "s-0b5a1c9e8f394d0e9f5258c8f3f0a001"
TOKEN = "a-token-nobody-else-may-see"
SPEC = SandboxSpec(NAME, SESSION, AGENT, "codex", TOKEN, env={"COLOR": "$(HOME) $HOME"})
IMAGES = dict.fromkeys(("codex", "opencode", "claude-code", "claude-agent-sdk"), "registry.example/sandbox:1")
SETTINGS = PodSettings(IMAGES)
VERSIONS = ("v1beta1", "v1alpha1")


def pod_of(body: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = body["spec"]["podTemplate"]["spec"]
    return pod


def schema(version: str) -> dict[str, Any]:
    return ALL["sandboxes"].schemas[version]


def test_the_whole_sandbox() -> None:
    marks = {"litellm-agent-id": AGENT, "litellm-session-id": SESSION}
    assert manifests.sandbox(SPEC, SETTINGS, "v1beta1") == {
        "apiVersion": "agents.x-k8s.io/v1beta1",
        "kind": "Sandbox",
        "metadata": {"name": NAME, "labels": marks},
        "spec": {
            "podTemplate": {
                "metadata": {"labels": {**marks, "litellm-sandbox-name": NAME}},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 10,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 1000,
                        "runAsGroup": 1000,
                        "fsGroup": 1000,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 2,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": {"litellm-agent-id": AGENT}},
                        }
                    ],
                    "containers": [
                        {
                            "name": "harness",
                            "image": "registry.example/sandbox:1",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["python", "-P", "-m", "backend.harness"],
                            "args": ["--listen", "0.0.0.0:4096", "--root", "/sandbox"],
                            "workingDir": "/sandbox/home",
                            "env": [
                                {"name": "COLOR", "value": "$$(HOME) $$HOME"},
                                {"name": "HOME", "value": "/sandbox/home"},
                                {"name": "TMPDIR", "value": "/sandbox/tmp"},
                                {"name": "LANG", "value": "C.UTF-8"},
                                {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
                                {"name": "LAP_TOKEN_SHA256", "value": manifests.digest(TOKEN)},
                            ],
                            "ports": [{"name": "harness", "containerPort": 4096, "protocol": "TCP"}],
                            "readinessProbe": {
                                "httpGet": {"path": "/healthz", "port": 4096},
                                "periodSeconds": 5,
                                "timeoutSeconds": 3,
                                "failureThreshold": 3,
                            },
                            "resources": {
                                "requests": {"cpu": "100m", "memory": "512Mi"},
                                "limits": {"cpu": "2000m", "memory": "4096Mi"},
                            },
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                                "readOnlyRootFilesystem": True,
                            },
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": [
                                {"name": "run", "mountPath": "/sandbox"},
                                {"name": "home", "mountPath": "/sandbox/home"},
                                {"name": "tmp", "mountPath": "/sandbox/tmp"},
                                {"name": "tmp", "mountPath": "/tmp"},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "run", "emptyDir": {"sizeLimit": "1024Mi"}},
                        {"name": "home", "emptyDir": {"sizeLimit": "20480Mi"}},
                        {"name": "tmp", "emptyDir": {"sizeLimit": "2048Mi"}},
                    ],
                },
            }
        },
    }


def test_the_service_goes_with_its_sandbox() -> None:
    made = manifests.sandbox(SPEC, SETTINGS, "v1beta1")
    made["metadata"]["uid"] = "u-1"
    service = manifests.service(made, "NodePort")
    assert service["metadata"]["name"] == f"{NAME}-np"
    assert service["metadata"]["labels"] == made["metadata"]["labels"]
    assert service["metadata"]["ownerReferences"] == [
        {"apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox", "name": NAME, "uid": "u-1"}
    ]
    assert service["spec"]["type"] == "NodePort"
    assert service["spec"]["selector"] == {"litellm-sandbox-name": NAME}
    assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [(4096, 4096)]


def test_a_warm_sandbox_belongs_to_its_task() -> None:
    warm = SandboxSpec(f"w-{'ab' * 16}", "", AGENT, "codex", TOKEN)
    wanted = PodSettings(IMAGES, priority_active="sandbox-active", priority_warm="sandbox-warm")
    body = manifests.sandbox(warm, wanted, "v1beta1")
    assert body["metadata"]["labels"] == {
        "litellm-agent-id": AGENT,
        "litellm-warm-task-id": "abababab-abab-abab-abab-abababababab",
    }
    assert pod_of(body)["priorityClassName"] == "sandbox-warm"
    assert pod_of(manifests.sandbox(SPEC, wanted, "v1beta1"))["priorityClassName"] == "sandbox-active"


def test_what_the_operator_sets() -> None:
    wanted = PodSettings(
        IMAGES | {"codex": "special"},
        image_pull_policy="Always",
        image_pull_secrets=["one", "two"],
        runtime_class="gvisor",
        cpus=0.5,
        memory_mb=100,
        disk_mb=64,
        user=4242,
    )
    pod = pod_of(manifests.sandbox(SPEC, wanted, "v1beta1"))
    [container] = pod["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("special", "Always")
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": "100Mi"}
    assert pod["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
    assert pod["runtimeClassName"] == "gvisor"
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 4242
    assert {"name": "home", "emptyDir": {"sizeLimit": "64Mi"}} in pod["volumes"]
    other = pod_of(manifests.sandbox(SandboxSpec(NAME, SESSION, AGENT, "opencode", TOKEN), wanted, "v1beta1"))
    assert other["containers"][0]["image"] == "registry.example/sandbox:1"


def test_no_part_that_is_not_set() -> None:
    assert (
        not {"priorityClassName", "runtimeClassName", "imagePullSecrets"}
        & pod_of(manifests.sandbox(SPEC, SETTINGS, "v1beta1")).keys()
    )


def test_nothing_of_the_platforms_own_network_and_no_token() -> None:
    own = {
        "HTTPS_PROXY": "http://user:secret@proxy",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "UV_INDEX_URL": "https://u:secret@i",
    }
    spec = SandboxSpec(NAME, SESSION, AGENT, "codex", TOKEN, env={**own, "LAP_TOKEN_SHA256": "forged"})
    text = json.dumps(manifests.sandbox(spec, SETTINGS, "v1beta1"))
    assert "secret" not in text
    assert "/etc/ca.pem" not in text
    assert "forged" not in text
    assert TOKEN not in text
    assert TOKEN not in repr(spec)


@pytest.mark.parametrize("name", ["s-1", "w-" + "a" * 58, "s", NAME])
def test_names(name: str) -> None:
    assert manifests.is_name(name)
    assert len(manifests.service_name(name)) <= 63


@pytest.mark.parametrize("name", ["", "1s", "-s", "s-", "S", "s_1", "s.1", "a" * 61, "s\n", "ü"])
def test_bad_names(name: str) -> None:
    assert not manifests.is_name(name)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
specs = st.builds(
    SandboxSpec,
    name=st.uuids().map(lambda number: f"s-{number.hex}"),
    session_id=st.one_of(st.just(""), st.uuids().map(str)),
    agent_id=st.uuids().map(str),
    harness_id=st.sampled_from(["codex", "opencode", "claude-code", "claude-agent-sdk"]),
    token=st.text(string.ascii_letters, min_size=20, max_size=60),
    env=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True), text, max_size=5),
)
operators = st.builds(
    PodSettings,
    images=st.just(IMAGES),
    image_pull_policy=st.sampled_from(["Never", "IfNotPresent", "Always"]),
    image_pull_secrets=st.lists(st.just("pull"), max_size=2),
    cpus=st.floats(0.01, 512),
    memory_mb=st.integers(16, 10**7),
    disk_mb=st.integers(16, 10**7),
    priority_active=st.sampled_from(["", "high"]),
    priority_warm=st.sampled_from(["", "low"]),
    runtime_class=st.sampled_from(["", "kata"]),
    user=st.integers(1, 2**31 - 1),
)


@settings(max_examples=25, deadline=None)
@given(spec=specs, operator=operators, version=st.sampled_from(VERSIONS))
def test_the_schema_takes_any(spec: SandboxSpec, operator: PodSettings, version: str) -> None:
    body = json.loads(json.dumps(manifests.sandbox(spec, operator, version)))
    assert causes(body, schema(version)) == []
    _, unknown = complete({"spec": body["spec"]}, schema(version))
    assert unknown == []
    assert spec.token not in json.dumps(body)
    assert manifests.is_ours(body)
    assert manifests.digest_of(body) == manifests.digest(spec.token)

"""The deployment's manifests: valid for a cluster, as strict as they say, and at one with what the code does."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from backend.sandboxes.contract import SandboxSpec
from backend.sandboxes.kubernetes import manifests
from backend.settings import Settings

DEPLOY = Path(__file__).parents[2] / "backend" / "deploy"
OVERLAYS = ("kind", "eks")
VERSION = "1.36"
SECRETS = {
    "MASTER_KEY": "a-master-key",
    "ENCRYPTION_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "DATABASE_URL": "postgresql://lap:secret@lap-postgresql/lap",
    "LAP_VAULT_KEY": "x" * 43,
}
SPEC = SandboxSpec(
    name="s-1", session_id="11111111-1111-4111-8111-111111111111", agent_id="a", harness_id="codex", token="t"
)

Object = dict[str, Any]


def objects(path: Path) -> list[Object]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def files() -> Iterator[Path]:
    """All that are objects of a cluster."""
    for path in sorted(DEPLOY.rglob("*.yaml")):
        if path.name not in ("kustomization.yaml", "cluster.yaml"):
            yield path


def base(kind: str) -> dict[str, Object]:
    """The base's objects of a kind, by name."""
    found = [each for path in sorted((DEPLOY / "base").glob("*.yaml")) for each in objects(path)]
    return {each["metadata"]["name"]: each for each in found if each["kind"] == kind}


def pods() -> dict[str, Object]:
    """The specifications of all pods there may be, by name."""
    found = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for path in files()
        for each in objects(path)
        if "template" in each.get("spec", {})
    }
    sandbox = manifests.sandbox(SPEC, manifests.PodSettings({"codex": "an-image"}), "v1beta1")
    return found | {"sandbox": sandbox["spec"]["podTemplate"]["spec"]}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_valid_for_the_api_server(path: Path) -> None:
    """By the schemas of Kubernetes itself, in which a field that does not exist is an error."""
    patch = path.parent.parent.name == "overlays"
    for each in objects(path):
        if patch and each["kind"] == "Service":
            each["spec"]["ports"] = [{"port": 80}]  # which the base has
        kubernetes_validate.validate(each, VERSION, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_can_be_built(name: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    built = subprocess.run(
        [kubectl, "kustomize", str(DEPLOY / "overlays" / name)], capture_output=True, text=True, timeout=30, check=False
    )
    if "unknown field" in built.stderr or "Component" in built.stderr:
        pytest.skip("this kubectl is too old for components")
    assert built.returncode == 0, built.stderr
    made = [each for each in yaml.safe_load_all(built.stdout) if each]
    for each in made:
        kubernetes_validate.validate(each, VERSION, strict=True)
        namespaced = each["kind"] not in ("Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding")
        assert each["metadata"].get("namespace") == ("lap" if namespaced else None), each["metadata"]
    settings = next(each["data"] for each in made if each["kind"] == "ConfigMap")
    assert len(settings) > len(base("ConfigMap")["lap-settings"]["data"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_a_kustomization_names_exists(name: str) -> None:
    for folder in (DEPLOY / "base", DEPLOY / "overlays" / name, *sorted((DEPLOY / "components").iterdir())):
        (found,) = objects(folder / "kustomization.yaml")
        named = [*found.get("resources", ()), *found.get("components", ())]
        named += [patch["path"] for patch in found.get("patches", ())]
        for each in named:
            assert (folder / each).exists(), f"{folder.name}: {each}"


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_platform_takes_its_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (own,) = objects(DEPLOY / "overlays" / name / "settings.yaml")
    data = {**base("ConfigMap")["lap-settings"]["data"], **own["data"]}
    for key, value in {**data, **SECRETS}.items():
        monkeypatch.setenv(key, value)
    settings = Settings.load().with_keys()
    assert (settings.sandboxes, settings.in_cluster, settings.k8s_namespace) == ("kubernetes", True, "lap")
    assert settings.k8s_harness_images["claude-agent-sdk"] == own["data"]["K8S_HARNESS_IMAGE_CLAUDE_SDK"]
    known = (DEPLOY.parent / "settings.py").read_text()
    for key in data:
        assert re.sub(r"_IMAGE_\w+", "_IMAGE", key) in known, f"{key} is no setting"


@pytest.mark.parametrize("name", pods())
def test_every_pod_meets_the_restricted_standard(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all({"emptyDir", "configMap", "secret"} & volume.keys() for volume in pod.get("volumes", ()))
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own.get("readOnlyRootFilesystem") or name == "lap-postgresql"
        assert {"requests", "limits"} <= container["resources"].keys()
        assert "memory" in container["resources"]["limits"]
    rights = "serviceAccountName" in pod
    assert rights == (name == "lap-platform")
    assert rights or pod["automountServiceAccountToken"] is False


def test_no_secret_is_in_a_file() -> None:
    for path in files():
        assert all(each["kind"] != "Secret" for each in objects(path)), f"{path.name} holds a Secret"
    text = json.dumps(base("ConfigMap"))
    assert not [name for name in SECRETS if name in text]


def test_the_network_policies_are_about_the_pods_there_are() -> None:
    policies = base("NetworkPolicy")
    sandbox = manifests.sandbox(SPEC, manifests.PodSettings({"codex": "an-image"}), "v1beta1")
    selector = policies["lap-sandbox"]["spec"]["podSelector"]["matchExpressions"]
    assert [each["key"] for each in selector] == [manifests.NAME_LABEL]
    assert manifests.NAME_LABEL in sandbox["spec"]["podTemplate"]["metadata"]["labels"]
    (entry,) = policies["lap-sandbox"]["spec"]["ingress"]
    assert [port["port"] for port in entry["ports"]] == [manifests.PORT]
    (out,) = policies["lap-sandbox"]["spec"]["egress"]
    assert out["to"] == [{"podSelector": {"matchLabels": {"app": "lap-vault"}}}]
    (vault,) = base("Deployment")["lap-vault"]["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in vault["ports"]}
    assert [port["port"] for port in out["ports"]] == [ports["proxy"]]
    proxies, orders = policies["lap-vault"]["spec"]["ingress"]
    assert [port["port"] for port in proxies["ports"]] == [ports["proxy"]]
    assert [port["port"] for port in orders["ports"]] == [ports["control"]]
    assert orders["from"] == [{"podSelector": {"matchLabels": {"app": "lap-platform"}}}]


def test_priority_classes_are_the_ones_the_settings_name() -> None:
    data = base("ConfigMap")["lap-settings"]["data"]
    named = {data["K8S_PRIORITY_CLASS_ACTIVE"], data["K8S_PRIORITY_CLASS_WARM"]}
    named |= {pod["priorityClassName"] for pod in pods().values() if "priorityClassName" in pod}
    assert named == base("PriorityClass").keys()


def rights(kind: str, name: str) -> set[tuple[str, str]]:
    """What a role allows: (verb, resource)."""
    return {
        (verb, f"{resource}.{group}" if group else resource)
        for rule in base(kind)[name]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_no_right_is_a_wildcard() -> None:
    for kind in ("Role", "ClusterRole"):
        for name in base(kind):
            assert "*" not in json.dumps(base(kind)[name]["rules"])
            assert not [right for right in rights(kind, name) if "secrets" in right[1] or "exec" in right[1]]


@pytest.mark.parametrize("target", ["platform", "vault", "claude-code", "codex", "opencode", "claude-agent-sdk"])
def test_there_is_an_image_for_each(target: str) -> None:
    dockerfile = (DEPLOY / "images" / "Dockerfile").read_text()
    stage = re.search(rf"^FROM \S+ AS {target}\n(.*?)(?=^FROM|\Z)", dockerfile, re.MULTILINE | re.DOTALL)
    assert stage, f"no target {target}"
    users = re.findall(r"^USER (\S+)$", stage[1], re.MULTILINE)
    assert not users or users[-1] == "1000:1000", "an image must not end as root"

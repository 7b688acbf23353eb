"""The rights of the deployment's roles are those that the driver uses; without any one of them it says which."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from backend.sandboxes.contract import SandboxError, SandboxState
from backend.sandboxes.kubernetes import image_cache, making
from backend.sandboxes.kubernetes.driver import KubernetesDriver
from tests.kubernetes.double import Double
from tests.kubernetes.double.resources import ALL
from tests.kubernetes.test_driver import NAME, SPEC, in_state, left, opened, running
from tests.waiting import until

Right = tuple[str, str, str]
"""Verb, resource, and the namespace it is for: "" is all of them."""

ROLES = Path(__file__).parents[2] / "backend" / "deploy" / "base" / "rbac.yaml"
OTHER = replace(SPEC, name="s-other", session_id="22222222-2222-4222-8222-222222222222")


def granted() -> list[Right]:
    found = []
    for role in yaml.safe_load_all(ROLES.read_text()):
        for rule in role.get("rules", ()):
            for resource in rule["resources"]:
                assert rule["apiGroups"] == [ALL[resource.partition("/")[0]].group], f"{resource} is of another group"
                namespace = "default" if role["kind"] == "Role" else ""
                found += [(verb, resource, namespace) for verb in rule["verbs"]]
    assert len(found) == len(set(found)), "a right is granted twice"
    return found


def test_the_one_object_whose_name_is_known_is_named() -> None:
    named = [rule for role in yaml.safe_load_all(ROLES.read_text()) for rule in role.get("rules", ())]
    assert [rule["resourceNames"] for rule in named if "resourceNames" in rule] == [[image_cache.NAME]]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "FIRST_DELAY", 0.02)


async def use(cluster: Double, driver: KubernetesDriver) -> None:
    """Everything the driver can do with a sandbox that runs, and with another to its end."""
    await driver.create(OTHER)
    await in_state(driver, SandboxState.RUNNING, OTHER.name)
    await driver.create(OTHER)  # its creation may have been answered to nobody
    assert await driver.logs(OTHER.name, 10)
    assert (await driver.inspect(OTHER.name)).pod["exists"]
    assert OTHER.name in await driver.list()
    assert sorted(name for node in await driver.nodes() for name in node["sandboxes"]) == sorted([NAME, OTHER.name])
    assert "error" not in await driver.image_cache()
    cluster.faults.delete_service(f"{NAME}-np")
    await driver.mend(NAME)
    await driver.delete(OTHER.name)


@pytest.mark.parametrize("version", ["v1beta1", "v1alpha1"])
async def test_nothing_is_used_without_a_right_and_no_right_is_without_use(version: str) -> None:
    async with Double(versions=(version,)) as cluster, opened(cluster) as driver:
        await running(driver)
        await use(cluster, driver)
        await driver.delete(NAME)
        assert left(cluster) == []
        assert driver.problems() == []
        assert sorted(cluster.asked) == sorted(granted())


@contextlib.asynccontextmanager
async def without(right: Right) -> AsyncIterator[KubernetesDriver]:
    """A sandbox that runs, whose driver then loses the right."""
    async with Double() as cluster, opened(cluster) as driver:
        await running(driver)
        cluster.faults.forbid(*right)
        cluster.faults.expire()
        gone = asyncio.create_task(driver.wait_gone(NAME))
        try:
            yield driver
            assert not gone.done()
            assert await driver.state(NAME) is SandboxState.RUNNING
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


def words(right: Right) -> str:
    verb, resource, namespace = right
    kind = ALL[resource.partition("/")[0]]
    everywhere = " in all namespaces" if kind.namespaced and not namespace else ""
    return f"may not {verb} {kind.full if '/' not in resource else resource}{everywhere} (403)"


SEEING = [right for right in granted() if right[0] in ("list", "watch")]
DOING = [right for right in granted() if right not in SEEING]


@pytest.mark.parametrize("right", SEEING, ids=" ".join)
async def test_without_seeing(right: Right) -> None:
    async with without(right) as driver:
        said = await until(lambda: [each for each in driver.problems() if words(right) in each], "it says so")
        assert f"give the platform's service account list and watch on {ALL[right[1]].full}" in said[0]
        assert len(driver.problems()) == 1
        assert await driver.list() == [NAME]
        for inspected in (await driver.inspect(NAME)).pod, *(await driver.nodes()):
            assert inspected["exists"]


async def attempt(right: Right, driver: KubernetesDriver) -> str:
    """What is said where the right is needed."""
    what = right[:2]
    try:
        if what == ("get", "pods/log"):
            return await driver.logs(NAME, 10)
        if what == ("get", "daemonsets"):
            return str((await driver.image_cache())["error"])
        if what == ("get", "services"):
            return await driver.mend(NAME)
        await driver.create(OTHER)
        if what == ("get", "sandboxes"):
            await driver.create(OTHER)
        await driver.delete(OTHER.name)
    except SandboxError as error:
        return str(error)
    return "it worked"


@pytest.mark.parametrize("right", DOING, ids=" ".join)
async def test_without_doing(right: Right) -> None:
    async with without(right) as driver:
        said = await attempt(right, driver)
        assert words(right) in said
        assert f"give the platform's service account {right[0]} on" in said

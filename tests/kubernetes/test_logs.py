"""Logs that are looked at again and again: one stream each, and what a plain read would bring, whatever happens."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from backend.sandboxes.kubernetes import logs
from backend.sandboxes.kubernetes.driver import KubernetesDriver
from backend.sandboxes.kubernetes.logs import Tail
from tests.kubernetes.double import Double
from tests.kubernetes.test_driver import NAME, SPEC, opened, running
from tests.waiting import until

OTHER = replace(SPEC, name="s-other", session_id="22222222-2222-4222-8222-222222222222")
FIRST = "hello\n"
"""What every container of the double writes."""


@pytest.fixture
async def cluster() -> AsyncIterator[Double]:
    async with Double(nodes=1) as cluster:
        yield cluster


@pytest.fixture
async def driver(cluster: Double, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesDriver]:
    """With a sandbox that runs; streams that were cut are tried again soon."""
    monkeypatch.setattr(logs, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(logs, "MAX_DELAY", 0.05)
    async with opened(cluster) as driver:
        await running(driver)
        yield driver


def reads(cluster: Double) -> int:
    return cluster.counts["get", "pods/log"]


async def kept(cluster: Double, driver: KubernetesDriver, name: str = NAME) -> None:
    """Look until a look costs no request."""

    async def free() -> bool:
        before = reads(cluster)
        await driver.logs(name, 10)
        return reads(cluster) == before

    await until(free, "the log is answered from memory")


async def shows(driver: KubernetesDriver, text: str, tail_lines: int = 10_000) -> None:
    async def shown() -> bool:
        return await driver.logs(NAME, tail_lines) == text

    await until(shown, "the log is as written")


class TestFollowing:
    async def test_one_look_is_one_request(self, cluster: Double, driver: KubernetesDriver) -> None:
        assert await driver.logs(NAME, 10) == FIRST
        assert (reads(cluster), cluster.open_logs()) == (1, 0)

    async def test_many_looks_are_one_stream(self, cluster: Double, driver: KubernetesDriver) -> None:
        await kept(cluster, driver)
        before = reads(cluster)
        written = FIRST
        for number in range(20):
            cluster.write_log(NAME, f"line {number} \u2026\n")
            written += f"line {number} \u2026\n"
            await shows(driver, written)
        assert await driver.logs(NAME, 2) == "line 18 \u2026\nline 19 \u2026\n"
        assert await driver.logs(NAME, 0) == "line 19 \u2026\n"
        assert await driver.logs(NAME, 10**9, 3600) == written
        assert (reads(cluster), cluster.open_logs()) == (before, 1)

    async def test_many_look_at_once(self, cluster: Double, driver: KubernetesDriver) -> None:
        for _ in range(3):
            assert set(await asyncio.gather(*(driver.logs(NAME, 10) for _ in range(10)))) == {FIRST}
        await kept(cluster, driver)
        assert cluster.open_logs() == 1

    @pytest.mark.parametrize("tail_lines", [1, 7, 100])
    @pytest.mark.parametrize("since_seconds", [None, 1, 20, 1000])
    async def test_it_is_what_a_read_brings(
        self, cluster: Double, driver: KubernetesDriver, tail_lines: int, since_seconds: int | None
    ) -> None:
        cluster.age_log(NAME, [f"line {number}\n" for number in range(50)])
        read = await driver.logs(NAME, tail_lines, since_seconds)
        await kept(cluster, driver)
        before = reads(cluster)
        now = await driver.logs(NAME, tail_lines, since_seconds)
        # A loaded machine may take a second from one to the other.
        assert read.endswith(now) if since_seconds in (1, 20) else read == now
        assert reads(cluster) == before

    async def test_nobody_looks_any_more(
        self, cluster: Double, driver: KubernetesDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await kept(cluster, driver)
        monkeypatch.setattr(logs, "UNSEEN_SECONDS", 0.01)
        await driver.logs(NAME, 10)
        await until(lambda: cluster.open_logs() == 0, "the stream has ended")
        assert await driver.logs(NAME, 10) == FIRST

    async def test_more_than_is_kept(
        self, cluster: Double, driver: KubernetesDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "MAX_SIZE", 2_000)
        await kept(cluster, driver)
        lines = [f"{number:05} {'x' * 40}\n" for number in range(300)]
        cluster.write_log(NAME, "".join(lines))
        await shows(driver, "".join(lines[-5:]), 5)
        before = reads(cluster)
        assert await driver.logs(NAME, 5) == "".join(lines[-5:])
        assert reads(cluster) == before
        assert await driver.logs(NAME, 200) == "".join(lines[-200:])
        assert reads(cluster) == before + 1

    async def test_beyond_the_most_streams(
        self, cluster: Double, driver: KubernetesDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logs, "MAX_STREAMS", 1)
        await running(driver, OTHER)
        await kept(cluster, driver)
        before = reads(cluster)
        for _ in range(5):
            assert await driver.logs(OTHER.name, 10) == FIRST
        assert (reads(cluster), cluster.open_logs()) == (before + 5, 1)
        await driver.delete(NAME)
        await kept(cluster, driver, OTHER.name)

    async def test_nothing_is_left(self, cluster: Double) -> None:
        before = asyncio.all_tasks()
        async with opened(cluster) as driver:
            await running(driver)
            await kept(cluster, driver)
        assert asyncio.all_tasks() == before
        await until(lambda: cluster.open_logs() == 0, "its connection is closed")


class TestCut:
    async def test_no_line_is_lost_or_doubled(self, cluster: Double, driver: KubernetesDriver) -> None:
        written = FIRST
        for number in range(60):
            text = "".join(f"line {number} {part}\n" for part in range(number % 4))
            cluster.write_log(NAME, text)
            written += text
            assert written.startswith(await driver.logs(NAME, 10_000))
            if number % 20 == 10:
                await kept(cluster, driver)
                cluster.faults.cut_logs()
        await shows(driver, written)
        await kept(cluster, driver)
        await shows(driver, written)

    async def test_the_api_goes_and_comes_back(self, cluster: Double, driver: KubernetesDriver) -> None:
        await kept(cluster, driver)
        await asyncio.to_thread(cluster.faults.go_away)

        async def said() -> bool:
            return "cannot be read: cannot reach" in await driver.logs(NAME, 10)

        await until(said, "it says that it cannot be read")
        cluster.write_log(NAME, "meanwhile\n")
        await asyncio.to_thread(cluster.faults.come_back)
        await shows(driver, FIRST + "meanwhile\n")
        await kept(cluster, driver)

    async def test_streams_that_are_refused(self, cluster: Double, driver: KubernetesDriver) -> None:
        await driver.logs(NAME, 10)
        cluster.faults.throttle(1, 0, "get", "pods/log")
        await until(lambda: driver.logs(NAME, 10), "it is read")
        await kept(cluster, driver)
        cluster.faults.forbid("get", "pods/log")
        cluster.faults.cut_logs()

        async def said() -> bool:
            return "may not get pods/log (403)" in await driver.logs(NAME, 10)

        await until(said, "it says which right is missing")

    async def test_reading_all_of_it_takes_too_long(
        self, cluster: Double, driver: KubernetesDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await driver.logs(NAME, 10)
        monkeypatch.setattr(logs, "FIRST_DELAY", 1000)
        monkeypatch.setattr(logs, "MAX_DELAY", 1000)
        monkeypatch.setattr("backend.sandboxes.kubernetes.driver.LOG_SECONDS", 0.1)
        cluster.faults.delay(30, "get", "pods/log", count=1)
        assert await driver.logs(NAME, 10) == "(the log cannot be read: no answer within 0.1 s)"
        monkeypatch.setattr("backend.sandboxes.kubernetes.driver.LOG_SECONDS", 10)
        before = reads(cluster)
        for _ in range(3):
            assert await driver.logs(NAME, 10) == FIRST
        assert (reads(cluster), cluster.open_logs()) == (before + 3, 0)

    async def test_its_node_is_lost(self, cluster: Double, driver: KubernetesDriver) -> None:
        await kept(cluster, driver)
        await asyncio.to_thread(cluster.faults.node_lost, "node1")

        async def said() -> bool:
            return "no route to host" in await driver.logs(NAME, 10)

        await until(said, "what the node said last does not pass for now")
        await until(lambda: cluster.open_logs() == 0, "the stream has ended")


class TestEnds:
    async def test_the_container_ends(self, cluster: Double, driver: KubernetesDriver) -> None:
        await kept(cluster, driver)
        cluster.write_log(NAME, "last words\n")
        await asyncio.to_thread(cluster.turn, NAME, "failed:5")
        await asyncio.wait_for(driver.wait_gone(NAME), 20)
        await until(lambda: cluster.open_logs() == 0, "the stream has ended")
        before = reads(cluster)
        for _ in range(3):
            assert await driver.logs(NAME, 10) == FIRST + "last words\n"
        assert reads(cluster) == before + 3

    async def test_its_pod_is_replaced(self, cluster: Double, driver: KubernetesDriver) -> None:
        await kept(cluster, driver)
        await asyncio.to_thread(cluster.faults.delete_pod, NAME)

        async def nothing() -> bool:
            return await driver.logs(NAME, 10) == ""

        await until(nothing, "its log went with its pod")
        await cluster.until("pods", NAME, lambda pod: pod is not None and pod["status"].get("phase") == "Running")
        assert await driver.logs(NAME, 10) == ""
        await until(lambda: cluster.open_logs() == 0, "the stream has ended")

    async def test_it_is_deleted_and_made_anew(self, cluster: Double, driver: KubernetesDriver) -> None:
        await kept(cluster, driver)
        cluster.write_log(NAME, "of the first\n")
        await driver.delete(NAME)
        await until(lambda: cluster.open_logs() == 0, "the stream has ended")
        await running(driver)
        for _ in range(3):
            assert await driver.logs(NAME, 10) == FIRST
        await kept(cluster, driver)
        assert await driver.logs(NAME, 10) == FIRST


class TestTail:
    """Against a model of what the kubelet does: logs with many lines in a moment, and the same ones again."""

    @pytest.mark.parametrize("seed", range(40))
    def test_a_read_and_its_stream(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = random.Random(seed)
        monkeypatch.setattr(logs, "MAX_TAIL", 30)
        orderly = seed % 2 == 0
        at, log = 1_700_000_000.0, []
        for _ in range(rng.randint(0, 120)):
            at += rng.choice([0, 0, 0.0005, 0.3, 2])
            stamp = at if orderly else at - rng.choice([0, 0, 0.0001])
            log.append((stamp, rng.choice(["", "same", "a b", f"{rng.random()}"])))
        monkeypatch.setattr(logs.time, "time", lambda: at)
        known = rng.randint(0, len(log))
        tail = Tail("".join(f"{line}\n" for line in map(_stamped, log[max(0, known - 30) : known])))
        since = datetime.fromisoformat(tail.since_time).timestamp() if tail.since_time else 0.0
        for line in log:
            if line[0] >= since:
                tail.add(_stamped(line))
        for tail_lines in (1, 5, 30):
            for seconds in (None, 1, 9) if orderly else (None,):
                chosen = [text for moment, text in log if seconds is None or moment >= at - seconds - 1e-6]
                assert tail.end(tail_lines, seconds) == "".join(f"{text}\n" for text in chosen[-tail_lines:])
        if len(log) > 30:
            assert tail.end(31, None) is None

    def test_what_has_no_time_stamp(self) -> None:
        tail = Tail("2026-01-02T03:04:05.123456789+02:00 one\nodd\n\n")
        for line in ("2026-01-02T03:04:05.123456789+02:00 one", "odd", "", "2026-01-02T01:04:06Z two", "odder"):
            tail.add(line)
        assert tail.end(10, None) == "one\nodd\n\ntwo\nodder\n"
        assert tail.since_time == "2026-01-02T01:04:04Z"


def _stamped(line: tuple[float, str]) -> str:
    return f"{datetime.fromtimestamp(line[0], UTC):%Y-%m-%dT%H:%M:%S.%f}000Z {line[1]}"

"""The local driver's promises, kept with real processes."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from backend.sandboxes.contract import Sandbox, SandboxError, SandboxSpec, SandboxState
from backend.sandboxes.local import namespaces
from backend.sandboxes.local.driver import LocalDriver
from backend.sandboxes.local.limits import Limits

from .conftest import STAND_IN, MakeDriver, ask, groups_of, port_of, processes_of, spec, until

# A command line that no other test process has.
SLEEP = f"sleep {1_000_000 + os.getpid()}"
# Leaves its session, its parent and the sandbox's environment, as daemons do.
DAEMON = f"env -i setsid sh -c '{SLEEP} >/dev/null 2>&1 </dev/null & echo $!'"


def record_of(data_dir: Path, name: str = "one") -> Any:
    return json.loads(record_file(data_dir, name).read_text())


def record_file(data_dir: Path, name: str = "one") -> Path:
    return data_dir / "sandboxes" / name / ".driver" / "sandbox.json"


def all_daemons() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == SLEEP.replace(" ", "\0").encode() + b"\0":
                found.add(int(entry.name))
        except OSError:
            continue
    return found


async def test_a_sandbox_gets_what_it_needs_and_nothing_else(
    driver: LocalDriver, data_dir: Path, walls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_KEY", "platform-secret")
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    left_open = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(left_open, True)
    try:
        sandbox = await driver.create(spec(EXTRA="1"))
    finally:
        os.close(left_open)
        signal.signal(signal.SIGHUP, previous)
    info = await ask(sandbox, "info")
    root = data_dir / "sandboxes" / "one"
    assert info["token"] == "token-of-one"
    assert info["rest"] == ""
    assert info["root"] == str(root)
    assert info["directory"] == str(root / "home")
    assert info["core"] == [0, 0]
    assert signal.SIGHUP not in info["ignored_signals"]
    # Standard streams, the listener, the connection, and the listing itself.
    assert info["descriptors"] == [0, 1, 2, 3, 4, 5]
    environment = info["environment"]
    assert environment["HOME"] == str(root / "home")
    assert environment["TMPDIR"] == str(root / "tmp")
    assert environment["EXTRA"] == "1"
    assert "platform-secret" not in environment.values()
    assert "token-of-one" not in json.dumps(environment)
    assert (info["pid"] == 1) == sandbox.isolation["pid_namespace"]
    for path in (root, root / "home", root / "tmp", root / "rootfs"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(record_file(data_dir).stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "log").stat().st_mode) == 0o600
    assert "token-of-one" not in record_file(data_dir).read_text()
    assert sandbox.name == "one"
    assert await driver.list() == ["one"]


async def test_isolation_says_what_holds(driver: LocalDriver, data_dir: Path, walls: str) -> None:
    isolation = (await driver.create(spec())).isolation
    shown = isolation["limits"]
    if walls in {"groups", "none"}:
        assert isolation["pid_namespace"] is False
        assert "no PID namespace: switched off" in isolation["reason"]
    if walls in {"namespace", "none"}:
        assert (shown["memory_mb"], shown["cpus"], shown["pids"], shown["by"]) == (None, None, None, None)
        assert "no memory, cpu, pids limit" in isolation["reason"]
    elif shown["by"]:
        assert shown["memory_mb"] in {None, 512}
        assert shown["cpus"] in {None, 1.5}
        assert shown["pids"] in {None, 256}
        assert groups_of(data_dir)
    assert json.loads(json.dumps(isolation)) == isolation


async def test_delete_leaves_nothing(driver: LocalDriver, data_dir: Path, walls: str) -> None:
    others = all_daemons()
    sandbox = await driver.create(spec())
    await ask(sandbox, "shell", line=f"{DAEMON}; {DAEMON}; {SLEEP} >/dev/null 2>&1 &")
    assert len(all_daemons() - others) == 3
    async with asyncio.timeout(10):
        await driver.delete("one")
    assert all_daemons() <= others
    assert not (data_dir / "sandboxes" / "one").exists()
    assert processes_of(data_dir) == []
    assert groups_of(data_dir) == []
    assert await driver.list() == []
    assert await driver.state("one") is SandboxState.GONE
    assert await driver.wait_gone("one") == "gone"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port_of(sandbox))) != 0
    await driver.delete("one")


async def test_daemons_die_with_a_harness_that_is_killed_or_will_not_end(
    driver: LocalDriver, data_dir: Path, walls: str
) -> None:
    others = all_daemons()
    stubborn = await driver.create(spec("stubborn"))
    await ask(stubborn, "ignore SIGTERM")
    await ask(stubborn, "shell", line=DAEMON)
    await driver.delete("stubborn")
    assert all_daemons() <= others
    killed = await driver.create(spec("killed"))
    await ask(killed, "shell", line=f"setsid {SLEEP} >/dev/null 2>&1 &")
    os.kill(record_of(data_dir, "killed")["pid"], signal.SIGKILL)
    assert await driver.wait_gone("killed") == "signal 9 (SIGKILL)"
    await driver.delete("killed")
    assert all_daemons() <= others


async def test_delete_ends_hundreds_of_processes(driver: LocalDriver, walls: str) -> None:
    others = all_daemons()
    sandbox = await driver.create(spec())
    await ask(sandbox, "shell", line=f"for i in $(seq 200); do {SLEEP} >/dev/null 2>&1 & done")
    await until(lambda: len(all_daemons() - others) == 200)
    await driver.delete("one")
    assert all_daemons() <= others


async def test_requests_wait_until_the_harness_is_up(make_driver: MakeDriver) -> None:
    driver = make_driver(harness_command=["/bin/sh", "-c", 'sleep 0.3; exec "$0" "$@"', *STAND_IN])
    sandbox = await driver.create(spec())
    assert await driver.state("one") is SandboxState.RUNNING
    answers = await asyncio.gather(*(ask(sandbox, "info") for _ in range(20)))
    assert {answer["token"] for answer in answers} == {"token-of-one"}


async def test_a_harness_too_young_to_end_itself_is_not_waited_for(make_driver: MakeDriver, walls: str) -> None:
    others = all_daemons()
    driver = make_driver(harness_command=["/bin/sh", "-c", SLEEP], grace_seconds=60)
    await driver.create(spec())
    await until(lambda: bool(all_daemons() - others))
    async with asyncio.timeout(10):
        await driver.delete("one")
    assert all_daemons() <= others


async def test_why_a_sandbox_is_gone(driver: LocalDriver, walls: str) -> None:
    sandbox = await driver.create(spec())
    waiting = [asyncio.create_task(driver.wait_gone("one")) for _ in range(3)]
    assert await driver.state("one") is SandboxState.RUNNING
    await ask(sandbox, "exit", code=3)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == ["exit code 3"] * 3
        assert await driver.wait_gone("one") == "exit code 3"
    assert await driver.state("one") is SandboxState.GONE
    assert await driver.list() == ["one"]


async def test_a_harness_that_is_missing_leaves_a_log(make_driver: MakeDriver) -> None:
    driver = make_driver(harness_command=["/no/such/program"])
    await driver.create(spec())
    async with asyncio.timeout(5):
        assert await driver.wait_gone("one") in {"exit code 127", "exit code 1"}
    assert "/no/such/program" in await driver.logs("one", 10)


async def test_memory_limit_ends_the_sandbox_and_says_so(make_driver: MakeDriver) -> None:
    driver = make_driver(limits=Limits(memory_mb=64))
    sandbox = await driver.create(spec())
    if sandbox.isolation["limits"]["memory_mb"] is None:
        pytest.skip("no memory limit on this machine")
    assert await ask(sandbox, "eat", megabytes=200) is None
    async with asyncio.timeout(5):
        reason = await driver.wait_gone("one")
    assert reason == "out of memory: the 64 MB limit of the sandbox was reached"


async def test_process_limit_holds(make_driver: MakeDriver) -> None:
    driver = make_driver(limits=Limits(pids=32))
    others = all_daemons()
    sandbox = await driver.create(spec())
    if sandbox.isolation["limits"]["pids"] is None:
        pytest.skip("no process limit on this machine")
    await ask(sandbox, "shell", line=f"for i in $(seq 100); do {SLEEP} >/dev/null 2>&1 & done")
    assert 0 < len(all_daemons() - others) < 32
    await driver.delete("one")
    assert all_daemons() <= others


PLATFORM = """
    import asyncio, sys
    from pathlib import Path
    from backend.sandboxes.contract import SandboxSpec
    from backend.sandboxes.local.driver import LocalDriver

    async def main():
        driver = LocalDriver(Path(sys.argv[1]), harness_command=sys.argv[2:])
        sandbox = await driver.create(SandboxSpec("one", "s", "a", "codex", "token-of-one"))
        print(sandbox.url, flush=True)
        await driver.wait_gone("one")

    asyncio.run(main())
"""


async def test_a_sandbox_outlives_a_killed_platform(make_driver: MakeDriver, data_dir: Path, walls: str) -> None:
    platform = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PLATFORM), str(data_dir), *STAND_IN],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        assert platform.stdout is not None
        url = (await asyncio.to_thread(platform.stdout.readline)).strip()
    finally:
        platform.kill()
        platform.communicate()
    driver = make_driver()
    assert await driver.list() == ["one"]
    assert await driver.state("one") is SandboxState.RUNNING
    waiting = asyncio.create_task(driver.wait_gone("one"))
    sandbox = Sandbox("one", url, {})
    assert (await ask(sandbox, "info"))["token"] == "token-of-one"
    assert not waiting.done()
    await driver.delete("one")
    assert await waiting == "gone"
    assert processes_of(data_dir) == []
    assert groups_of(data_dir) == []
    assert not (data_dir / "sandboxes" / "one").exists()


async def test_a_new_driver_takes_over(make_driver: MakeDriver) -> None:
    first = make_driver()
    sandbox = await first.create(spec())
    await first.close()
    second = make_driver()
    assert (await ask(sandbox, "info"))["root"]
    waiting = asyncio.create_task(second.wait_gone("one"))
    assert await second.state("one") is SandboxState.RUNNING
    await ask(sandbox, "exit", code=5)
    async with asyncio.timeout(5):
        assert await waiting == "exit code 5"


async def test_delete_while_creating(driver: LocalDriver, data_dir: Path, walls: str) -> None:
    creating = asyncio.create_task(driver.create(spec()))
    while await driver.state("one") is not SandboxState.PENDING:
        await asyncio.sleep(0)
    await driver.delete("one")
    await creating
    assert await driver.list() == []
    assert processes_of(data_dir) == []


async def test_a_cancelled_create_leaves_nothing(make_driver: MakeDriver, data_dir: Path) -> None:
    driver = make_driver()
    creating = asyncio.create_task(driver.create(spec()))
    while await driver.state("one") is not SandboxState.PENDING:
        await asyncio.sleep(0)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    await driver.close()
    assert await driver.list() == []
    assert processes_of(data_dir) == []


async def test_concurrent_calls_for_one_name(driver: LocalDriver) -> None:
    results = await asyncio.gather(*(driver.create(spec()) for _ in range(3)), return_exceptions=True)
    refusals = [str(result) for result in results if isinstance(result, SandboxError)]
    assert refusals == ["sandbox one exists already; delete it first"] * 2
    await asyncio.gather(*(driver.delete("one") for _ in range(5)))
    assert await driver.list() == []
    assert (await driver.create(spec())).name == "one"


async def test_many_sandboxes_at_once(driver: LocalDriver, data_dir: Path) -> None:
    names = [f"box-{number}" for number in range(10)]
    sandboxes = await asyncio.gather(*(driver.create(spec(name)) for name in names))
    roots = [answer["root"] for answer in await asyncio.gather(*(ask(sandbox, "info") for sandbox in sandboxes))]
    assert [Path(root).name for root in roots] == names
    assert await driver.list() == sorted(names)
    await driver.delete("box-3")
    assert await driver.state("box-4") is SandboxState.RUNNING
    await asyncio.gather(*(driver.delete(name) for name in names))
    assert processes_of(data_dir) == []


async def test_delete_removes_any_tree_and_follows_no_link(driver: LocalDriver, tmp_path: Path, data_dir: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("stays")
    sandbox = await driver.create(spec())
    deep = "import os\nfor _ in range(1500):\n    os.mkdir('deep-name'); os.chdir('deep-name')"
    line = f"""
        ln -s {kept} link && mkdir -p shut/inner && ln -s {kept} shut/inner/link && echo > shut/inner/file
        echo > "$(printf 'odd\\nname \\377')" && chmod 000 shut/inner/file shut/inner shut
        mkdir read-only && echo > read-only/file && chmod 500 read-only
        {sys.executable} -S -c "{deep}"
    """
    assert await ask(sandbox, "shell", line=line) == ""
    await driver.delete("one")
    assert not any((data_dir / "sandboxes").iterdir())
    assert (kept / "file").read_text() == "stays"
    assert stat.S_IMODE(kept.stat().st_mode) & 0o700 == 0o700


async def test_a_forged_record_harms_nobody(driver: LocalDriver, data_dir: Path, walls: str) -> None:
    with subprocess.Popen(["sleep", "1001"]) as bystander:
        try:
            await driver.create(spec())
            await driver.close()
            forged = record_of(data_dir) | {
                "pid": bystander.pid,
                "start_ticks": 1,
                "cgroups": ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"],
            }
            record_file(data_dir).write_text(json.dumps(forged))
            assert await driver.state("one") is SandboxState.GONE
            await driver.delete("one")
            assert bystander.poll() is None
            assert processes_of(data_dir) == []
        finally:
            bystander.kill()
    assert groups_of(data_dir) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"name": "one"}', "[" * 60_000])
async def test_a_broken_record_is_no_hindrance(driver: LocalDriver, data_dir: Path, content: str) -> None:
    root = data_dir / "sandboxes" / "one"
    record_file(data_dir).parent.mkdir(parents=True)
    record_file(data_dir).write_text(content)
    assert await driver.state("one") is SandboxState.GONE
    assert await driver.list() == ["one"]
    await driver.delete("one")
    assert not root.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../one", "a/b", "-a", "A", "a\n", "a" * 64, "a\0"])
async def test_only_sandbox_names_are_taken(driver: LocalDriver, name: str) -> None:
    for call in (driver.create(spec(name)), driver.delete(name), driver.state(name), driver.logs(name, 1)):
        with pytest.raises(SandboxError, match="no sandbox name"):
            await call


async def test_what_cannot_start_says_why(driver: LocalDriver, data_dir: Path) -> None:
    with pytest.raises(SandboxError, match="environment"):
        await driver.create(spec(BAD="nul\0"))
    with pytest.raises(SandboxError, match="longer than 1024"):
        await driver.create(SandboxSpec("one", "s", "a", "codex", "x" * 1025))
    assert await driver.list() == []
    (data_dir / "sandboxes").rmdir()
    (data_dir / "sandboxes").write_text("a file in the way")
    with pytest.raises(SandboxError, match="cannot be started"):
        await driver.create(spec())
    (data_dir / "sandboxes").unlink()


async def test_the_probe_explains_a_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "unshare"
    fake.write_text("#!/bin/sh\necho unshare: not today >&2\nexit 1\n")
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await namespaces.probe() == namespaces.Namespace((), "no PID namespace: unshare: not today")
    monkeypatch.setenv("PATH", "/nowhere")
    assert (await namespaces.probe()).reason == "no PID namespace: unshare is missing (install util-linux)"


def test_under_uvloop(data_dir: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> str:
        driver = LocalDriver(data_dir, harness_command=STAND_IN)
        sandbox = await driver.create(spec())
        waiting = asyncio.create_task(driver.wait_gone("one"))
        await ask(sandbox, "exit", code=7)
        reason = await waiting
        await driver.delete("one")
        await driver.close()
        return reason

    assert uvloop.run(scenario()) == "exit code 7"
    assert processes_of(data_dir) == []


async def test_the_machine_is_the_one_node(driver: LocalDriver) -> None:
    assert [node["sandboxes"] for node in await driver.nodes()] == [[]]
    await driver.create(spec())
    [node] = await driver.nodes()
    assert (node["exists"], node["ready_status"], node["sandboxes"]) == (True, "True", ["one"])
    assert await driver.waiting_for("one") is None
    assert (driver.away(), driver.problems()) == (None, [])
    with pytest.raises(SandboxError, match="nothing to mend"):
        await driver.mend("one")
    await driver.delete("one")

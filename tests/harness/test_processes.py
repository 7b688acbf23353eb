"""No process outlives a sandbox: daemons, orphans, stubborn ones, with and without a PID namespace."""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.harness.log import KEEP_BYTES, MAX_BYTES
from tests.harness.conftest import WAIT, RunningHarness, descendants

# A daemon as they are made: two forks, a session of its own, deaf to polite signals.
DAEMON = "(setsid bash -c 'trap \"\" HUP TERM INT; echo $BASHPID > $HOME/daemon; exec -a stubborn sleep 1000' &) "
UNSHARE = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")


def can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def with_daemon(harness: RunningHarness) -> None:
    """Sets up an agent that has left a daemon behind."""
    await harness.ready(command=f"bash --norc -c {shlex.quote(DAEMON + '; exec bash --norc -i')}")
    tty = await harness.attach()
    await tty.type("until [ -s ~/daemon ]; do :; done; echo daemon-$((1+1))\r")
    await tty.until("daemon-2")
    await tty.type("exit\r")  # Now only the daemon is left.
    await tty.closed()


async def test_a_daemon_of_the_agent_ends_with_the_sandbox(harness: RunningHarness) -> None:
    await with_daemon(harness)
    pid = int((harness.home / "daemon").read_text())
    assert alive(pid)
    assert pid in descendants(harness.process.pid)  # Orphaned, it has become a child of the harness.
    assert await harness.stop() == 0
    assert not alive(pid)


@pytest.mark.skipif(not can_unshare(), reason="no PID namespaces here")
async def test_as_process_1_the_harness_ends_everything_in_its_namespace(start: Callable[..., Any]) -> None:
    harness: RunningHarness = await start(wrapper=UNSHARE)
    await with_daemon(harness)
    below = descendants(harness.process.pid)
    assert len(below) >= 2  # The harness and the daemon.
    os.kill(below[0], signal.SIGTERM)  # As process 1 of the namespace.
    assert await asyncio.wait_for(harness.process.wait(), WAIT) == 0
    assert not any(alive(pid) for pid in below)


async def test_orphans_are_reaped(harness: RunningHarness) -> None:
    state = await harness.ready()
    tty = await harness.attach()
    await tty.type("for i in 1 2 3; do (sleep 0 & echo left-$BASHPID >> ~/orphans); done; wait; echo al''l\r")
    await tty.until("all")
    below = Path(f"/proc/{harness.process.pid}/task/{harness.process.pid}/children")
    async with asyncio.timeout(WAIT):
        while below.read_text().split() != [str(state["agent"]["pid"])]:
            await harness.state()


async def test_an_agent_that_ignores_signals_is_killed(harness: RunningHarness) -> None:
    state = await harness.ready(command="bash -c 'trap \"\" HUP TERM INT; echo deaf; while :; do read -r _; done'")
    assert await harness.stop() == 0
    assert not alive(state["agent"]["pid"])


async def test_a_stop_during_the_set_up_ends_what_it_runs(harness: RunningHarness, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    await harness.session(requirements=f"-r {fifo}")  # uv waits here for a writer.
    await harness.until(lambda state: state["phase"] == "installing_deps")
    async with asyncio.timeout(WAIT):
        while not (below := descendants(harness.process.pid)):
            await harness.state()
    assert await harness.stop() == 0
    assert not any(alive(pid) for pid in below)


async def test_viewers_are_told_to_go_when_the_sandbox_stops(harness: RunningHarness) -> None:
    await harness.ready()
    tty = await harness.attach()
    stopped = asyncio.create_task(harness.stop())
    code, _ = await tty.closed()
    assert code == 1000
    assert await stopped == 0


async def test_the_log_does_not_grow_without_end(start: Callable[..., Any], tmp_path: Path) -> None:
    sandbox = tmp_path / "sandbox0"
    sandbox.mkdir()
    (sandbox / "log").write_bytes(b"an old line\n" * (MAX_BYTES // 12 + 1))
    harness: RunningHarness = await start()
    await harness.ready()
    assert KEEP_BYTES // 2 < (sandbox / "log").stat().st_size < KEEP_BYTES + 10_000
    text = harness.log()
    assert text.startswith("an old line\n")
    assert text.endswith("set-up done\n")
    assert "\0" not in text


async def test_the_log_masks_secrets_and_drops_escape_sequences(harness: RunningHarness) -> None:
    command = "sh -c 'printf \"\\033[31mkey: $MY_KEY\\033[0m https://me:pass@host/\\n\"; exit 1'"
    failure = await harness.failure(
        harness_id="opencode",
        command=command,
        env={"MY_KEY": "sk-very-secret"},
        llm={"base": "http://x", "key": "sk-llm-key"},
    )
    for text in (failure, harness.log()):
        assert "key: ******** https://********@host/" in text
        assert "sk-" not in text
        assert "\x1b" not in text

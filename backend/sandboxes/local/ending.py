"""Ending all processes of a sandbox, also those that detached themselves, and removing its files."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from backend.sandboxes.contract import SandboxError
from backend.sandboxes.local import limits, processes
from backend.sandboxes.local.processes import Process
from backend.sandboxes.local.record import Record

KILL_TIMEOUT = 10.0
"""Seconds until killed processes and their control groups must be gone. Normally a few milliseconds."""
REMOVE_TIMEOUT = 600.0
"""Seconds for removing a directory, which may hold millions of files."""
_PAUSE = 0.01


async def ask_to_end(record: Record) -> tuple[bool, list[Process]]:
    """Send SIGTERM to the harness. False when it is gone or too young to act on it; and its processes until now."""
    return await asyncio.to_thread(_ask_to_end, record)


def _ask_to_end(record: Record) -> tuple[bool, list[Process]]:
    found = processes.table()
    outer = found.get(record.pid)
    if outer is None or outer.start_ticks != record.start_ticks:
        return False, []
    tree = [found[pid] for pid in processes.descendants(found, outer.pid)]
    harness: Process | None = outer
    if record.isolation.get("pid_namespace"):
        harness = next((process for process in tree if processes.is_first(process.pid)), None)
    if harness is None or not processes.handles_sigterm(harness.pid):
        return False, tree
    processes.send(harness, signal.SIGTERM)
    return True, tree


async def kill_all(record: Record | None, groups: Sequence[Path], home: str, known: Sequence[Process] = ()) -> None:
    """Kill what is left, also of the `known` processes, and return when it is gone.

    Raises SandboxError when something would not die.
    """
    await asyncio.to_thread(limits.forbid_forks, groups)
    deadline = asyncio.get_running_loop().time() + KILL_TIMEOUT
    while left := await asyncio.to_thread(_kill_round, record, groups, home, known):
        if asyncio.get_running_loop().time() > deadline:
            numbers = ", ".join(str(process.pid) for process in left[:10])
            raise SandboxError(f"processes would not end: {numbers}; they may hang in the kernel, then delete again")
        await asyncio.sleep(_PAUSE)


def _kill_round(record: Record | None, groups: Sequence[Path], home: str, known: Sequence[Process]) -> list[Process]:
    """Kill every process found now and return them; an empty list means there are none.

    The outer process goes last: stopped, it starts nothing new, and what loses its parent still falls to it (it is,
    or holds, the subreaper), so nothing slips away between two looks.
    """
    found = processes.table()
    pids = limits.members(groups)
    pids |= {old.pid for old in known if old.pid in found and found[old.pid].start_ticks == old.start_ticks}
    outer = found.get(record.pid) if record else None
    if record is None or outer is None or outer.start_ticks != record.start_ticks:
        outer = None
    else:
        pids |= {outer.pid, *processes.descendants(found, outer.pid)}
        pids |= {process.pid for process in found.values() if process.session == outer.pid}
    # Strays of a sandbox whose first process is gone, where no namespace or control group held them.
    pids |= processes.with_variable(found.keys() - pids, f"HOME={home}".encode())
    left = [found[pid] for pid in pids if pid in found and pid != os.getpid()]
    others = [process for process in left if process != outer]
    if outer is not None and others:
        processes.send(outer, signal.SIGSTOP)
    for process in others or left:
        processes.send(process, signal.SIGKILL)
    return left


async def remove_groups(groups: Sequence[Path]) -> None:
    """Remove control groups whose processes have all ended."""
    deadline = asyncio.get_running_loop().time() + KILL_TIMEOUT
    while not await asyncio.to_thread(limits.remove_groups, groups):
        if asyncio.get_running_loop().time() > deadline:
            raise SandboxError(f"control group {groups[0]} cannot be removed; end what runs in it, then delete again")
        await asyncio.sleep(_PAUSE)


async def remove_tree(directory: Path) -> None:
    """Remove a directory with everything in it, following no link, whatever its depth, names and permissions.

    Left to `rm`, which needs neither recursion nor a descriptor for each level, and not this process's time.
    """
    if not await asyncio.to_thread(os.path.lexists, directory):
        return
    if await _run("rm", "-rf", "--", str(directory)):
        # Directories without permissions stop `rm`; `chmod -R` opens each before it goes in.
        await _run("chmod", "-R", "u+rwX", "--", str(directory))
        if complaint := await _run("rm", "-rf", "--", str(directory)):
            raise SandboxError(f"{directory} cannot be removed: {complaint}; remove it by hand, then delete again")


async def _run(*command: str) -> str:
    """Run a program; "" when it ended well, else the last line it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath, "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(REMOVE_TIMEOUT):
            errors = await _last_line(process.stderr)
            code = await process.wait()
    except TimeoutError:
        return f"{command[0]} took too long"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return "" if code == 0 else errors or f"{command[0]} ended with {code}"


async def _last_line(stream: asyncio.StreamReader | None) -> str:
    """The end of what a program writes, read to its end in bounded memory."""
    tail = b""
    while stream is not None and (data := await stream.read(65_536)):
        tail = (tail + data)[-1000:]
    return tail.decode(errors="replace").strip().rpartition("\n")[2]

"""Runs a program once, to find out whether what it does can be had on this machine."""

import asyncio
import errno
import os
from collections.abc import Sequence
from typing import Final

TIMEOUT: Final = 10.0
"""Seconds. A start takes a few milliseconds."""


async def refused(command: Sequence[str], name: str) -> list[str]:
    """What the program wrote when it did not end well, or how it ended; nothing when it did.

    Raises OSError when that could not be found out just now (TimeoutError: the machine is too busy).
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath, "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            _, errors = await process.communicate()
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, f"{name} does not answer") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return []
    lines = errors.decode(errors="replace").strip().splitlines()
    return [line[:200] for line in lines] or [f"{name} ended with {process.returncode}"]

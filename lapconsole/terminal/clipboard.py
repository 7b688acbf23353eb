"""The clipboard of the person's own terminal, through OSC 52: it works over SSH and inside tmux."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Mapping

#: The largest text terminals take: 100,000 bytes of escape sequence.
LIMIT_BYTES = 74_994
_TMUX_SECONDS = 2.0


def size(text: str) -> int:
    """How many bytes a text takes."""
    return len(text.encode("utf-8", "replace"))


def through_tmux(text: str, environment: Mapping[str, str]) -> str:
    """The sequence that tmux hands on to the terminal around it where `allow-passthrough` is on; "" outside of tmux."""
    if not environment.get("TMUX"):
        return ""
    payload = base64.b64encode(text.encode("utf-8", "replace")).decode()
    return f"\x1bPtmux;\x1b\x1b]52;c;{payload}\x07\x1b\\"


async def into_tmux(text: str) -> None:
    """Give the text to tmux itself, which copies it to the terminal around it unless `set-clipboard` is off.

    With the settings it comes with, tmux takes no sequence of a program's.
    """
    with contextlib.suppress(OSError, TimeoutError):
        process = await asyncio.create_subprocess_exec(
            *("tmux", "load-buffer", "-w", "-"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_TMUX_SECONDS):
                await process.communicate(text.encode("utf-8", "replace"))
        except TimeoutError:
            process.kill()
            await process.wait()

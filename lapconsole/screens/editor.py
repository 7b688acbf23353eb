"""A person's own editor on a text of the console, which steps aside meanwhile."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from textual.app import App, SuspendNotSupported

MAXIMUM_BYTES = 4_000_000
_USUAL = ("nano", "vim", "vi")


class EditorFailed(Exception):
    """There is no editor, or it failed; says which and what to do. The text stays as it was."""


def editor_command(environment: Mapping[str, str]) -> list[str]:
    """The editor a person uses, with its arguments: VISUAL, EDITOR, else a usual one. Raises EditorFailed."""
    for variable in ("VISUAL", "EDITOR"):
        if chosen := environment.get(variable, "").strip():
            try:
                command = shlex.split(chosen)
            except ValueError:
                raise EditorFailed(f"{variable} cannot be read as a command: {chosen}") from None
            if shutil.which(command[0]) is None:
                raise EditorFailed(f"{variable} names {command[0]}, which is not there; set it to an editor you have.")
            return command
    if (usual := next(filter(None, map(shutil.which, _USUAL)), None)) is None:
        raise EditorFailed("There is no editor: set EDITOR to one, and start the console again.")
    return [usual]


async def edited(app: App[Any], text: str, name: str) -> str:
    """`text` as the person left it. The console keeps following the platform meanwhile. Raises EditorFailed."""
    command = editor_command(os.environ)
    folder = Path(tempfile.mkdtemp(prefix="lapconsole-"))  # of the user alone, so what is in it is, too
    path = folder / f"{name}.md"
    try:
        path.write_text(text, encoding="utf-8")
        # Nothing may be drawn while the terminal is the editor's.
        with app.batch_update(), app.suspend():
            code = await _run([*command, str(path)])
        if code:
            raise EditorFailed(f"{command[0]} ended with code {code}; the text is as it was.")
        with path.open("rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
    except SuspendNotSupported:
        raise EditorFailed("The console cannot step aside for an editor here; write in the field itself.") from None
    except OSError as error:
        raise EditorFailed(f"{command[0]}: {error.strerror}; the text is as it was.") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if len(content) > MAXIMUM_BYTES:
        raise EditorFailed(f"The text is longer than {MAXIMUM_BYTES // 1_000_000} MB; it is as it was.")
    return content.decode("utf-8", errors="replace").rstrip("\n")


async def _run(command: list[str]) -> int:
    """Run it on this terminal to its end. Ctrl-C there is the editor's, not ours."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    try:
        process = await asyncio.create_subprocess_exec(*command)
        try:
            return await process.wait()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
    finally:
        loop.remove_signal_handler(signal.SIGINT)

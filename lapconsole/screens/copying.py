"""Copying to the clipboard of the person's own terminal, with a word on how it went."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lapconsole.client.fixes import command_of
from lapconsole.client.models import Issue
from lapconsole.screens.base import ConsoleScreen
from lapconsole.terminal import clipboard


def copy(screen: ConsoleScreen, text: str, what: str) -> None:
    """Put text into the clipboard, if terminals take so much."""
    size = clipboard.size(text)
    if size > clipboard.LIMIT_BYTES:
        screen.notify(
            f"{what} is {size // 1000} kB; terminals take {clipboard.LIMIT_BYTES // 1000}.", severity="warning"
        )
        return
    app = screen.console
    app.copy_to_clipboard(text)
    driver = app._driver
    if driver is not None and (wrapped := clipboard.through_tmux(text, os.environ)):
        driver.write(wrapped)
        app.run_worker(clipboard.into_tmux(text), group="clipboard", exit_on_error=False)
    screen.notify(f"{what} is in the clipboard ({size} bytes).", timeout=3)


def copy_commands(screen: ConsoleScreen, issues: Iterable[Issue]) -> None:
    """Put the command lines that the cures of these findings name into the clipboard. Nothing runs them."""
    commands = dict.fromkeys(filter(None, map(command_of, issues)))
    if not commands:
        screen.notify("Nothing found here names a command to run.", severity="warning")
    else:
        copy(screen, "\n".join(commands), "The command" if len(commands) == 1 else f"{len(commands)} commands")

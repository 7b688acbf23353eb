"""The links a terminal shows: copy one, or have this machine open it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static

from lapconsole.screens.base import Dialog
from lapconsole.terminal.links import openable
from lapconsole.widgets.words import clean, fit_middle

_SHOWN_LENGTH = 300


def opener(environment: Mapping[str, str]) -> str | None:
    """The program that opens an address on the person's own screen; None over SSH, or where there is no screen."""
    if environment.get("SSH_CONNECTION") or environment.get("SSH_TTY"):
        return None
    if sys.platform == "darwin":
        return shutil.which("open")
    has_screen = environment.get("WAYLAND_DISPLAY") or environment.get("DISPLAY")
    return shutil.which("xdg-open") if has_screen else None


class LinksDialog(Dialog[str], inherit_bindings=False):
    """Dismissed with the address to copy, or None."""

    DEFAULT_CSS = """
    LinksDialog .dialog { width: 100; }
    LinksDialog OptionList { height: auto; max-height: 20; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", show=False),
        Binding("o", "open", show=False),
        Binding("escape,q", "leave", show=False),
    ]

    def __init__(self, links: Sequence[str]) -> None:
        super().__init__()
        self._links = links
        self._opener = opener(os.environ)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = Content("Links, the newest first")
            yield OptionList(
                *(Content(fit_middle(clean(link), _SHOWN_LENGTH)) for link in self._links), markup=False, compact=True
            )
            keys = [("enter", "copy"), ("o", "open")] if self._opener else [("enter", "copy")]
            parts = [Content.assemble((key, "bold $tone-key"), f" {words}") for key, words in (*keys, ("esc", "back"))]
            yield Static(Content("    ").join(parts), classes="ask")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self._links[event.option_index])

    @property
    def _chosen(self) -> str | None:
        index = self.query_one(OptionList).highlighted
        return None if index is None else self._links[index]

    def action_copy(self) -> None:
        self.dismiss(self._chosen)

    def action_leave(self) -> None:
        self.dismiss(None)

    async def action_open(self) -> None:
        address = self._chosen
        if self._opener is None or address is None:
            return
        if not openable(address):
            self.notify("Only web and mail addresses are opened; copy it instead.", severity="warning")
            return
        try:
            process = await asyncio.create_subprocess_exec(
                self._opener,
                address,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self.notify(f"Cannot start {self._opener}: {error.strerror}; copy it instead.", severity="warning")
            return
        self.app.run_worker(process.wait(), group="opener", exit_on_error=False)
        self.dismiss(None)

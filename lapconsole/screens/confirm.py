"""Asking before something is ended or deleted: what will happen, and No unless Yes was meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from lapconsole.screens.base import Dialog


class Confirm(Dialog[bool], inherit_bindings=False):
    """Dismissed with True only after `y`, or after typing `typed` where that is asked for. Enter alone is a No."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "yes", show=False),
        Binding("n,escape,enter,q", "no", show=False),
    ]

    def __init__(self, title: str, effects: Sequence[str], *, place: str, typed: str = "") -> None:
        """`effects` say one by one what will happen; `place` names the platform; `typed` is a word to type."""
        super().__init__()
        self._title = title
        self._effects = effects
        self._place = place
        self._typed = typed

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -danger") as dialog:
            dialog.border_title = Content(self._title)
            dialog.border_subtitle = Content(f"on {self._place}")
            for effect in self._effects:
                yield Static(effect, classes="effect", markup=False)
            if self._typed:
                yield Static(
                    f"Type {self._typed} to go on; esc leaves everything as it is.", classes="ask", markup=False
                )
                yield Input(compact=True, max_length=200)
            else:
                yield Static(
                    Content.from_markup(
                        "[b $tone-key]y[/] yes, do it    [b $tone-key]n[/] no    [dim]enter means no[/]"
                    ),
                    classes="ask",
                )

    def on_mount(self) -> None:
        for line in self.query(Input):
            line.cursor_blink = False
            line.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip() == self._typed:
            self.dismiss(True)
        elif not event.value.strip():
            self.dismiss(False)
        else:
            self.query_one(".ask", Static).update(Content(f'That is not "{self._typed}". Type it, or press esc.'))

    def action_yes(self) -> None:
        if not self._typed:
            self.dismiss(True)

    def action_no(self) -> None:
        self.dismiss(False)

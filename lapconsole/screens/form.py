"""Forms: labelled fields, checked before they are sent, with the platform's own words at the field when it refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Select, Static, TextArea

from lapconsole import keys
from lapconsole.client.errors import ClientError, PlatformError
from lapconsole.client.platform import Platform
from lapconsole.screens.base import console_of
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.operations import next_step
from lapconsole.widgets.hint_line import HintLine
from lapconsole.widgets.variables_area import VariablesArea


class Field(Vertical):
    """A label, its control, and a line for what is wrong with it, there only while something is."""

    def __init__(self, name: str, label: str, control: Widget, *, required: bool = False) -> None:
        super().__init__(id=f"field-{name}")
        self.key = name
        self._label = label
        self._required = required
        self.control = control

    def compose(self) -> ComposeResult:
        with Horizontal():
            star = Content.styled(" *", "$tone-warn") if self._required else Content("")
            yield Static(Content(self._label) + star, classes="label")
            yield self.control
        yield Static(classes="problem", markup=False)

    @property
    def problem(self) -> str:
        """What is wrong with the field, "" when nothing is known to be."""
        return self._problem

    @problem.setter
    def problem(self, words: str) -> None:
        self._problem = words
        line = self.query_one(".problem", Static)
        line.update(words)
        line.display = bool(words)

    _problem = ""


class Form(ModalScreen[None], inherit_bindings=True):
    """A page of fields. Subclasses give the fields, the checks, and the call."""

    DEFAULT_CSS = """
    Form {
        align: center top;
        background: $background;
        #form-title {
            dock: top; height: 1; padding: 0 1; background: $line-background; color: $tone-title; text-style: bold;
        }
        #form-body {
            width: 100%; max-width: 110; height: 1fr; padding: 1 2 0 2;
            scrollbar-size-vertical: 1; scrollbar-color: $panel; scrollbar-background: $background;
        }
        #form-problem { color: $tone-bad; height: auto; padding: 0 2; display: none; dock: bottom; margin-bottom: 1; }
        Field { height: auto; margin-bottom: 1; }
        Field > Horizontal { height: auto; }
        .label { width: 16; color: $tone-muted; }
        .problem { display: none; margin-left: 16; color: $tone-bad; height: auto; }
        Input, TextArea, Select { width: 1fr; background: $surface; }
        Input.-textual-compact, TextArea.-textual-compact { padding: 0 1 !important; }
        Input:focus, TextArea:focus { background: $panel; }
        TextArea { height: 4; scrollbar-size-vertical: 1; }
        &.-narrow TextArea { height: 3; }
        Input > .input--placeholder, TextArea .text-area--placeholder { color: $tone-muted; text-style: italic; }
        .fixed { width: 1fr; height: auto; color: $tone-muted; padding: 0 1; }
        TextArea.long { height: 60vh; }
        Select.-textual-compact > SelectCurrent { background: $surface; padding: 0 1 !important; }
        Select:focus > SelectCurrent { background: $panel; border: none; }
        SelectOverlay { border: round $panel; background: $surface; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("form")
    TITLE_WORDS = ""
    HINTS: tuple[str, ...] = ("form.send", "form.cancel", "form.reveal", "form.editor", "app.quit_always")

    @property
    def console(self) -> Any:
        """The app."""
        return console_of(self)

    def compose(self) -> ComposeResult:
        yield Static(f"{self.TITLE_WORDS}  on {self.console.label}", id="form-title", markup=False)
        with VerticalScroll(id="form-body", can_focus=False):
            yield from self.fields()
        yield Static(id="form-problem", markup=False)
        yield HintLine(self.console.keymap)

    def fields(self) -> Iterable[Field]:
        """The fields, in order."""
        raise NotImplementedError

    def values(self) -> dict[str, Any]:
        """What the fields hold, as the platform takes it."""
        raise NotImplementedError

    def problems(self) -> Mapping[str, str]:
        """What is wrong, by the name of the field."""
        raise NotImplementedError

    async def send(self, platform: Platform, values: dict[str, Any]) -> None:
        """Make the call, and do what follows from its answer. May raise ClientError."""
        raise NotImplementedError

    def on_mount(self) -> None:
        for line in self.query(Input):
            line.cursor_blink = False
        self.query_one(HintLine).show(self.HINTS)
        self._untouched = self._state()
        self._sending = False

    def text(self, name: str) -> str:
        """The text of a field, without space around it."""
        control = self.query_one(f"#{name}")
        return str(getattr(control, "text", None) or getattr(control, "value", "") or "").strip()

    def action_send(self) -> None:
        # By way of the field in use: what was typed ahead of the key is in its queue, and is to be sent, too.
        (self.focused or self).call_later(self._check_and_send)

    def _check_and_send(self) -> None:
        if self._sending:
            return
        problems = self.problems()
        self._show(problems, "")
        if not problems:
            self._sending = True
            self.query_one("#form-title", Static).update(Content(f"{self.TITLE_WORDS}: sending …"))
            self.run_worker(self._send(self.values()), group="form", exit_on_error=False)

    async def _send(self, values: dict[str, Any]) -> None:
        platform = self.console.platform
        try:
            if platform is None:
                self._show({}, "There is no connection yet. Send again when the top line says live.")
                return
            await self.send(platform, values)
        except PlatformError as error:
            self._show_refusal(error)
        except ClientError as error:
            self._show({}, f"{error}. {next_step(error)}")
        finally:
            self._sending = False
            if self.is_mounted:
                self.query_one("#form-title", Static).update(Content(f"{self.TITLE_WORDS}  on {self.console.label}"))

    def _show_refusal(self, error: PlatformError) -> None:
        """The platform's words, each at the field it is about."""
        names = {field.key for field in self.query(Field)}
        at_fields: dict[str, str] = {}
        elsewhere: list[str] = []
        for issue in error.issues:
            name, _, rest = issue.path.partition(".")
            words = f"{rest}: {issue.message}" if rest else issue.message
            if name in names:
                at_fields[name] = f"{at_fields[name]}; {words}" if name in at_fields else words
            else:
                elsewhere.append(f"{issue.path}: {issue.message}" if issue.path else issue.message)
        if not error.issues:
            # A platform that does not name the field often names it in its sentence.
            named = next((name for name in sorted(names, key=len, reverse=True) if error.message.startswith(name)), "")
            if named:
                at_fields[named] = error.message
            else:
                elsewhere.append(f"{error.message} ({error.status_line})")
        self._show(at_fields, "; ".join(elsewhere))

    def _show(self, problems: Mapping[str, str], general: str) -> None:
        first = None
        for field in self.query(Field):
            field.problem = problems.get(field.key, "")
            if field.problem and first is None:
                first = field
        line = self.query_one("#form-problem", Static)
        line.update(Content(general))
        line.display = bool(general)
        if first is not None:
            first.control.focus()
            first.scroll_visible(animate=False)

    def _state(self) -> list[str]:
        return [self.text(field.key) for field in self.query(Field)]

    # -- what was wrong goes as soon as it is put right

    @on(Input.Changed)
    @on(TextArea.Changed)
    @on(Select.Changed)
    def _mended(self, event: Input.Changed | TextArea.Changed | Select.Changed) -> None:
        field = next((field for field in self.query(Field) if field.control is event.control), None)
        if field is not None and field.problem:
            field.problem = self.problems().get(field.key, "")

    def action_editor(self) -> None:
        area = self.focused
        if isinstance(area, VariablesArea):
            self.notify("Variables hold secrets: they are not written to a file for an editor.", severity="warning")
        elif isinstance(area, TextArea):
            self.run_worker(self._write_elsewhere(area), group="editor", exclusive=True, exit_on_error=False)
        else:
            self.notify("Move to a text of several lines first.", severity="warning")

    async def _write_elsewhere(self, area: TextArea) -> None:
        from lapconsole.screens.editor import EditorFailed, edited

        try:
            text = await edited(self.app, area.text, area.id or "text")
        except EditorFailed as error:
            self.notify(str(error), title="Editor", severity="error", markup=False)
        else:
            area.text = text

    def action_reveal(self) -> None:
        for area in self.query(VariablesArea):
            area.revealed = not area.revealed

    def action_cancel(self) -> None:
        if self._state() == self._untouched:
            self.dismiss(None)
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.dismiss(None)

        effects = ("What was typed here is lost.",)
        self.app.push_screen(Confirm("Leave the form?", effects, place=self.console.label), answered)

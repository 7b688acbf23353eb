"""One skill: its text, and its former texts with what changed since."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from textual import work
from textual.widget import Widget

from lapconsole import keys
from lapconsole.client.errors import ClientError, Unsupported
from lapconsole.client.knowledge import SkillVersion
from lapconsole.client.models import Event, Skill
from lapconsole.live.model import Changes
from lapconsole.screens.base import ConsoleScreen
from lapconsole.screens.operations import next_step
from lapconsole.screens.skill_actions import SkillActions, SkillForm, attachment
from lapconsole.widgets.fields import indented, moment
from lapconsole.widgets.parts import Parts, wrap_parts
from lapconsole.widgets.sheet import Sheet
from lapconsole.widgets.words import clean, clean_lines, plural

# Comparing takes time that grows with the square of the lines.
MOST_LINES = 3_000
CONTEXT = 3


def changed_lines(old: str, new: str) -> list[tuple[str, str, str]]:
    """What changed from one text to another, as (mark, line, tone): `-` and `+` lines, and a few around them."""
    before, after = clean_lines(old.strip()), clean_lines(new.strip())
    if before == after:
        return [("", "Nothing: the text is the same as now.", "muted")]
    if max(len(before), len(after)) > MOST_LINES:
        return [("", f"The texts have more than {MOST_LINES} lines, and are not compared.", "muted")]
    lines: list[tuple[str, str, str]] = []
    for line in list(difflib.unified_diff(before, after, n=CONTEXT, lineterm=""))[2:]:
        if line.startswith("@@"):
            lines += [("", "", "plain")] * bool(lines) + [("", line, "key")]
        else:
            text = line[1:]
            indent = text[: len(text) - len(text.lstrip(" "))]
            tone = {"+": "good", "-": "bad"}.get(line[0], "plain")
            lines.append((f"{line[0]} {indent}", text.lstrip(" "), tone))
    return lines


class SkillScreen(ConsoleScreen):
    """The text now; left and right go through the versions there were."""

    DEFAULT_CSS = """
    SkillScreen {
        #summary { height: auto; max-height: 9; padding: 0 1; }
        #text { height: 1fr; padding: 0 1; }
    }
    """
    AUTO_FOCUS = "#text"
    BINDINGS = keys.bindings("skill")
    HINTS = (
        "skill.edit",
        "skill.older",
        "skill.newer",
        "skill.whole",
        "skill.restore",
        "skill.attach",
        "skill.detach",
        "skill.back",
        "app.help",
        "app.quit",
        "skill.delete",
        "skill.reload",
        "app.problems",
    )

    def __init__(self, skill_id: str) -> None:
        super().__init__()
        self._skill = Skill(skill_id, "")
        self._versions: tuple[SkillVersion, ...] = ()
        self._place = 0  # 0 is now, 1 the version before, and so on
        self._whole = False
        self._note = "Loading …"

    @property
    def crumb(self) -> str:
        return f"Skills {self.console.glyphs.dot} {self._skill.name or self._skill.id[:8]}"

    def body(self) -> Iterable[Widget]:
        glyphs = self.console.glyphs
        self.summary = Sheet(self._summary_lines, glyphs=glyphs, id="summary")
        self.sheet = Sheet(self._text_lines, title="Text", glyphs=glyphs, id="text")
        self.summary.can_focus = False
        yield self.summary
        yield self.sheet

    def on_mount(self) -> None:
        self._stop_listening = self.console.model.listen(self._heard)
        self.action_reload()

    def on_unmount(self) -> None:
        self._stop_listening()

    def _heard(self, event: Event) -> None:
        skill = event.data.get("skill")
        if self.is_mounted and isinstance(skill, dict) and skill.get("id") == self._skill.id:
            self.action_reload()

    def model_changed(self, changes: Changes) -> None:
        if changes.link and self.console.model.link.current:
            self.action_reload()
        self._draw()

    def action_reload(self) -> None:
        """Read the skill and its versions."""
        self._read()

    @work(group="read", exclusive=True, exit_on_error=False)
    async def _read(self) -> None:
        platform = self.console.platform
        if platform is None:
            return
        try:
            self._skill = await platform.skill(self._skill.id)
            self._note = ""
            self._versions = await platform.skill_versions(self._skill.id)
        except Unsupported as error:
            self._note = str(error)
        except ClientError as error:
            self._note = f"{error}. {next_step(error)}"
        self._place = min(self._place, len(self._versions))
        self._draw()
        self.draw_frame()

    # -- what is drawn

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        self.summary.draw()
        self.summary.styles.height = max(1, len(self.summary.lines))
        self.sheet.title = self._title()
        self.sheet.draw()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    @property
    def _version(self) -> SkillVersion | None:
        return self._versions[self._place - 1] if 0 < self._place <= len(self._versions) else None

    def _title(self) -> str:
        keymap, version = self.console.keymap, self._version
        left = len(self._versions) - self._place
        older = plural(left, "older version") if left else "none is older"
        if version is None:
            return f"Text now, {keymap.first('skill.older')} shows {older}" if self._versions else "Text"
        what = "" if self._whole else ", and what changed since"
        return f"Version {version.number}{what}; {older}"

    def _summary_lines(self, width: int) -> Sequence[Parts]:
        skill, look = self._skill, self.look
        dot = (f"  {look.glyphs.dot}  ", "muted")
        lines: list[Parts] = [
            (
                (skill.name or skill.id[:8], "strong"),
                dot,
                (plural(len(skill.content), "character"), "plain"),
                dot,
                (plural(len(self._versions), "former version"), "plain"),
            )
        ]
        if self._note:
            lines += wrap_parts((f"{look.glyphs.stuck} ", "warn"), clean(self._note), "warn", width)
        if skill.description:
            lines += wrap_parts(("", "plain"), clean(skill.description), "muted", width)
        users = [agent for agent in self.console.model.agents.values() if skill.id in agent.attached_skill_ids]
        older = sum(attachment(agent, skill) == "older" for agent in users)
        names = ", ".join(sorted(agent.label for agent in users)) or "no agent"
        lines += wrap_parts(("attached to  ", "muted"), clean(names), "plain", width)
        if older:
            words = f"{plural(older, 'agent')} with an older text in the prompt: detach it there, then attach it."
            lines += wrap_parts((f"{look.glyphs.stuck} ", "warn"), words, "warn", width)
        if (version := self._version) is not None:
            by = f", by session {version.changed_by_session_id}" if version.changed_by_session_id else ""
            words = f"{moment(version.created_at, look.now)}{by}"
            lines += wrap_parts((f"version {version.number} replaced  ", "muted"), words, "plain", width)
        return lines

    def _text_lines(self, width: int) -> Sequence[Parts]:
        version = self._version
        if version is None or self._whole:
            content = self._skill.content if version is None else version.content
            return [part for line in clean_lines(content) for part in indented(line, "plain", width)]
        lines = changed_lines(version.content, self._skill.content)
        return [part for mark, text, tone in lines for part in wrap_parts((mark, tone), text, tone, width)]

    def hints(self) -> tuple[Sequence[str], str]:
        useless = set() if self._versions else {"skill.older", "skill.newer"}
        if self._version is None:
            useless |= {"skill.whole", "skill.restore", "skill.newer"}
        return [hint for hint in self.HINTS if hint not in useless], ""

    # -- actions

    def action_older(self, step: int) -> None:
        self._place = max(0, min(self._place + step, len(self._versions)))
        self.sheet.scroll_to(y=0, animate=False)
        self._draw()
        self.draw_frame()

    def action_whole(self) -> None:
        self._whole = not self._whole
        self._draw()

    def action_restore(self) -> None:
        if (version := self._version) is not None:
            self._actions.restore(self._skill, version.number, version.content, self._take)

    @property
    def _actions(self) -> SkillActions:
        return SkillActions(self.console)

    def _take(self, skill: Skill) -> None:
        self._skill, self._place = skill, 0
        self.action_reload()

    def action_edit(self) -> None:
        if self._skill.name:
            self.app.push_screen(SkillForm(self._skill, self._take))

    def action_attach(self) -> None:
        self._actions.attach(self._skill, None)

    def action_detach(self) -> None:
        self._actions.detach(self._skill, None)

    def action_delete(self) -> None:
        self._actions.delete(self._skill, self._leave)

    def _leave(self) -> None:
        if self.is_current:
            self.dismiss(None)

    def action_back(self) -> None:
        self.dismiss(None)

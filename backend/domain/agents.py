"""What an agent may be made of: the four harnesses (seed 003) and the skill blocks in its prompt (LAP REST 2.6)."""

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Harness:
    """One runtime. `tui` harnesses show a terminal, the others answer messages; `install_hint` says how to get it."""

    id: str
    tui: bool
    install_hint: str


HARNESSES: Final = MappingProxyType(
    {
        harness.id: harness
        for harness in (
            Harness("opencode", False, "npm install -g opencode-ai"),
            Harness("claude-agent-sdk", False, "pip install claude-agent-sdk"),
            Harness("claude-code", True, "npm install -g @anthropic-ai/claude-code"),
            Harness("codex", True, "npm install -g @openai/codex"),
        )
    }
)
DEFAULT_HARNESS: Final = "opencode"
DEFAULT_BRANCH: Final = "main"

_SKILL_MARKER: Final = re.compile(r"<!-- skill:([^\s>]+) -->")


def supports_tui(harness_id: str) -> bool:
    """Whether the harness shows a terminal. False for a harness this platform does not know."""
    harness = HARNESSES.get(harness_id)
    return harness is not None and harness.tui


def attached_skill_ids(prompt: str | None) -> list[str]:
    """Ids of the skill blocks in `prompt`, in the order they stand there."""
    return _SKILL_MARKER.findall(prompt or "")


def attach_skill(prompt: str | None, skill_id: str, content: str) -> str:
    """`prompt` with the skill's block at its end; unchanged when that skill is attached already."""
    prompt = prompt or ""
    if skill_id in attached_skill_ids(prompt):
        return prompt
    before = prompt.rstrip()
    block = f"<!-- skill:{skill_id} -->\n{content.strip()}"
    return f"{before}\n\n{block}" if before else block

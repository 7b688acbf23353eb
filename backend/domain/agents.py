"""What an agent may be made of: the four harnesses (seed 003)."""

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


def supports_tui(harness_id: str) -> bool:
    """Whether the harness shows a terminal. False for a harness this platform does not know."""
    harness = HARNESSES.get(harness_id)
    return harness is not None and harness.tui

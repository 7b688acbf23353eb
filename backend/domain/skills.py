"""Skills: their limits, and how one becomes a file in a sandbox (LAP REST 7.2, seed 003)."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection
from typing import Final

from backend.domain.prompts import holds_marker

SLUG_LIMIT: Final = 60
CONTENT_LIMIT: Final = 100_000
MAX_SKILLS: Final = 1_000
VERSIONS_KEPT: Final = 100
"""Former contents kept of each skill."""
MAX_PER_SESSION: Final = 10
"""Skills a session may have besides its agent's."""

_TITLE_LIMIT: Final = 60


def content_problem(content: str) -> str | None:
    """Why `content` cannot be a skill's, or None."""
    if not content.strip():
        return "must not be blank"
    if holds_marker(content):
        return "must not contain a marker of a skill block, such as <!-- skill:ID -->"
    return None


def title(content: str) -> str:
    """A name for a skill that was given none: the first words of its content."""
    for line in content.splitlines():
        words = " ".join(line.strip("#-*> \t").split())
        if words:
            return words[:_TITLE_LIMIT].rstrip()
    return "skill"


def inline_id(content: str) -> str:
    """The id of a block whose content is in no library: the same for the same content, so attaching is idempotent."""
    return f"inline-{hashlib.sha256(content.strip().encode()).hexdigest()[:16]}"


def slug(name: str, taken: Collection[str] = ()) -> str:
    """ASCII kebab-case of `name`, at most 60 characters, with -2, -3 ... where it is taken already."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    base = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:SLUG_LIMIT].rstrip("-") or "skill"
    candidate, number = base, 1
    while candidate in taken:
        number += 1
        suffix = f"-{number}"
        candidate = base[: SLUG_LIMIT - len(suffix)].rstrip("-") + suffix
    return candidate


def document(skill_id: str, folder: str, name: str, description: str | None, content: str) -> str:
    """The text of `folder`/SKILL.md: `content`, with front matter put before it when it has none of its own.

    Agents find a skill by its `description` and want its `name` to be the folder's.
    """
    if content.startswith("---"):
        return content
    lines = [
        f"name: {folder}",
        f"skill_id: {_yaml(skill_id)}",
        f"description: {_yaml(description or f'{name} skill')}",
    ]
    return "---\n" + "\n".join(lines) + f"\n---\n\n{content}"


def _yaml(text: str) -> str:
    """One YAML value, whatever is in the text: a JSON string is one, but for characters YAML does not print."""
    printed = "".join(character if character.isprintable() else " " for character in text)
    return json.dumps(printed, ensure_ascii=False)
